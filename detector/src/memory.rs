//! Memory that a storm took, given back. What a thousand devices needed is freed when they go, but
//! glibc keeps it: records, replies and what is on its way to subscribers lie among each other,
//! and a heap shrinks by itself only as far as its end is free. So when it is quiet after much has
//! come and gone, it is told to give whole pages back, and again later: what subscribers have not
//! read yet is freed when they have. Responsible for when; holds the `unsafe` that this takes.
//! Must never do so in the middle of a storm: what is still used then holds most pages, and what
//! goes later would have to be given back again.

/// This many events of devices make it worth while.
const WORTH_WHILE: usize = 64;
/// How long nothing has to come or go, in µs, before memory is given back each time. A subscriber
/// that reads slowly holds what it has not read for less than the last of them.
const QUIET: [i64; 4] = [1_000_000, 4_000_000, 16_000_000, 64_000_000];

/// What came and went since memory was last given back.
#[derive(Debug, Default)]
pub struct Churn {
    events: usize,
    last: i64,
    /// How often memory was given back since then.
    settled: usize,
}

impl Churn {
    /// Notes that this many events were sent, at `now`, in µs of CLOCK_MONOTONIC.
    pub fn add(&mut self, events: usize, now: i64) {
        if events == 0 {
            return;
        }
        self.events = self.events.saturating_add(events);
        // A few events after a storm do not put off what is due after it.
        if self.settled == 0 || self.events >= WORTH_WHILE {
            (self.last, self.settled) = (now, 0);
        }
    }

    /// When memory is to be given back, if nothing comes until then.
    #[must_use]
    pub fn settles(&self) -> Option<i64> {
        let pause = QUIET.get(self.settled)?;
        let due = self.settled > 0 || self.events >= WORTH_WHILE;
        due.then(|| self.last.saturating_add(*pause))
    }

    /// Gives it back.
    pub fn settle(&mut self) {
        self.events = 0;
        self.settled += 1;
        if self.settled == QUIET.len() {
            *self = Self::default();
        }
        give_back();
    }
}

/// Has all threads allocate from one heap. The threads of this program take turns, and a heap for
/// each would keep what the others could use.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "the C library's allocator is told so by a call of C only"
)]
pub fn share_one_heap() {
    // SAFETY: `mallopt(3)` with this parameter only sets a number that later allocations read; it
    // is called before there is another thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Others have one, or know best.
#[cfg(not(target_env = "gnu"))]
pub fn share_one_heap() {}

#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "the C library's allocator is told so by a call of C only"
)]
fn give_back() {
    // SAFETY: `malloc_trim(3)` may be called at any time and from any thread. It touches nothing
    // that is allocated.
    let gave_any = unsafe { libc::malloc_trim(0) };
    tracing::debug!(gave_any, "gave memory back after a storm");
}

/// Others give it back by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_it_is_quiet_after_a_storm() {
        let mut churn = Churn::default();
        churn.add(WORTH_WHILE - 1, 5);
        assert_eq!(churn.settles(), None);
        churn.add(1, 7);
        assert_eq!(churn.settles(), Some(7 + QUIET[0]));
        churn.add(0, 8);
        assert_eq!(churn.settles(), Some(7 + QUIET[0]));
        churn.add(1, 9);
        for quiet in QUIET {
            assert_eq!(churn.settles(), Some(9 + quiet));
            churn.settle();
        }
        assert_eq!(churn.settles(), None);
    }

    #[test]
    fn a_few_events_after_a_storm_put_nothing_off_and_another_storm_begins_again() {
        let mut churn = Churn::default();
        churn.add(WORTH_WHILE, 0);
        churn.settle();
        churn.add(1, 3_000_000);
        assert_eq!(churn.settles(), Some(QUIET[1]));
        churn.add(WORTH_WHILE, 3_500_000);
        assert_eq!(churn.settles(), Some(3_500_000 + QUIET[0]));
    }
}

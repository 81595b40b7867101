//! Memory that a storm took, given back. What a thousand devices needed is freed when they go, but
//! glibc keeps it: records, replies and what is on its way to subscribers lie among each other,
//! and a heap shrinks by itself only as far as its end is free. So when it is quiet after much has
//! come and gone, it is told to give whole pages back. Responsible for when; holds the one `unsafe`
//! that this takes. Must never do so in the middle of a storm: what is still used then holds most
//! pages, and what goes later would have to be given back again.

/// So many events of devices make it worth while.
const WORTH_WHILE: usize = 64;
/// How long nothing has to come or go, in µs.
const QUIET: i64 = 1_000_000;

/// What came and went since memory was last given back.
#[derive(Debug, Default)]
pub struct Churn {
    events: usize,
    last: i64,
}

impl Churn {
    /// Notes that so many events were told, at `now`, in µs of CLOCK_MONOTONIC.
    pub fn add(&mut self, events: usize, now: i64) {
        if events > 0 {
            self.events = self.events.saturating_add(events);
            self.last = now;
        }
    }

    /// When memory is to be given back, if nothing comes until then.
    #[must_use]
    pub fn settles(&self) -> Option<i64> {
        (self.events >= WORTH_WHILE).then(|| self.last.saturating_add(QUIET))
    }

    /// Gives it back.
    pub fn settle(&mut self) {
        *self = Self::default();
        give_back();
    }
}

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
        assert_eq!(churn.settles(), Some(7 + QUIET));
        churn.add(0, 8);
        assert_eq!(churn.settles(), Some(7 + QUIET));
        churn.add(1, 9);
        assert_eq!(churn.settles(), Some(9 + QUIET));
        churn.settle();
        assert_eq!(churn.settles(), None);
    }
}

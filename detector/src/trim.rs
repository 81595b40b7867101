//! Memory trimming after a storm of events. The memory of a thousand devices is freed when the
//! devices are removed, but glibc keeps it. Records, replies and queued messages for subscribers
//! are mixed in the heap, and a heap shrinks by itself only from its end. So after a storm, when it
//! is quiet, glibc is made to return whole pages. This is repeated later, because messages that
//! subscribers have not read yet are freed only after they are read. Responsible for the times of
//! trimming; holds the `unsafe` code for it. Must never trim during a storm: most pages are still
//! in use then, and memory that is freed later would have to be trimmed again.

/// The number of device events after which trimming is worthwhile.
const MIN_EVENTS: usize = 64;
/// The quiet time, in µs, before each trimming. A subscriber that reads slowly holds unread
/// messages for less than the last of these times.
const QUIET: [i64; 4] = [1_000_000, 4_000_000, 16_000_000, 64_000_000];

/// The number of events since the last trimming, and the state of trimming.
#[derive(Debug, Default)]
pub struct Trimmer {
    events: usize,
    last: i64,
    /// The number of trimmings since then.
    trims: usize,
}

impl Trimmer {
    /// Records that `events` were sent at `now`, in µs of CLOCK_MONOTONIC.
    pub fn add(&mut self, events: usize, now: i64) {
        if events == 0 {
            return;
        }
        self.events = self.events.saturating_add(events);
        // A few events after a storm do not delay the trimming after it.
        if self.trims == 0 || self.events >= MIN_EVENTS {
            (self.last, self.trims) = (now, 0);
        }
    }

    /// Returns the time of the next trimming, if no event arrives before.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        let pause = QUIET.get(self.trims)?;
        let wanted = self.trims > 0 || self.events >= MIN_EVENTS;
        wanted.then(|| self.last.saturating_add(*pause))
    }

    /// Trims the memory.
    pub fn trim(&mut self) {
        self.events = 0;
        self.trims += 1;
        if self.trims == QUIET.len() {
            *self = Self::default();
        }
        trim_heap();
    }
}

/// Makes all threads allocate from one heap. The threads of this program run in turn, and a
/// separate heap for each would keep memory that the others could use.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "only a C function configures the C library's allocator"
)]
pub fn use_one_arena() {
    // SAFETY: `mallopt(3)` with this parameter only sets a number that later allocations read. It
    // is called before a second thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Does nothing: other C libraries have one heap or manage their heaps themselves.
#[cfg(not(target_env = "gnu"))]
pub fn use_one_arena() {}

#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "only a C function configures the C library's allocator"
)]
fn trim_heap() {
    // SAFETY: `malloc_trim(3)` may be called at any time and from any thread. It does not touch
    // allocated memory.
    let gave_any = unsafe { libc::malloc_trim(0) };
    tracing::debug!(gave_any, "freed memory after a storm");
}

/// Does nothing: other C libraries return memory by themselves or cannot do it.
#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_trimmed_when_it_is_quiet_after_a_storm() {
        let mut trimmer = Trimmer::default();
        trimmer.add(MIN_EVENTS - 1, 5);
        assert_eq!(trimmer.due(), None);
        trimmer.add(1, 7);
        assert_eq!(trimmer.due(), Some(7 + QUIET[0]));
        trimmer.add(0, 8);
        assert_eq!(trimmer.due(), Some(7 + QUIET[0]));
        trimmer.add(1, 9);
        for quiet in QUIET {
            assert_eq!(trimmer.due(), Some(9 + quiet));
            trimmer.trim();
        }
        assert_eq!(trimmer.due(), None);
    }

    #[test]
    fn a_few_events_after_a_storm_do_not_delay_trimming_and_a_new_storm_restarts_it() {
        let mut trimmer = Trimmer::default();
        trimmer.add(MIN_EVENTS, 0);
        trimmer.trim();
        trimmer.add(1, 3_000_000);
        assert_eq!(trimmer.due(), Some(QUIET[1]));
        trimmer.add(MIN_EVENTS, 3_500_000);
        assert_eq!(trimmer.due(), Some(3_500_000 + QUIET[0]));
    }
}

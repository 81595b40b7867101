//! The pacing of scans. Pure: times are arguments, in µs of CLOCK_MONOTONIC. One scan serves all
//! events that have arrived, and scans use a limited share of the time, however many events arrive.
//! Must never let an event wait for long.

/// The pause after a scan, in durations of that scan: scans for events use at most a tenth of the
/// time.
const PAUSES_PER_SCAN: i64 = 9;
/// The longest pause, and so the longest time that an event waits.
const LONGEST_PAUSE: i64 = 300_000;
/// The pause after a failed scan.
const RETRY: i64 = 1_000_000;
/// The shortest pause between scans for changes that the kernel does not announce.
const PERIOD: i64 = 2_000_000;
/// The pause between such scans, in durations of the scan: they use at most a hundredth of the
/// time.
const PERIODS_PER_SCAN: i64 = 100;

/// The times of the last scan and of the last scan of all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanInterval {
    ended: i64,
    took: i64,
    failed: bool,
    all_ended: i64,
    all_took: i64,
}

impl ScanInterval {
    /// Records a scan, and whether it covered all devices.
    pub fn scanned(&mut self, began: i64, ended: i64, failed: bool, of_all: bool) {
        self.ended = ended;
        self.took = ended.saturating_sub(began).max(0);
        self.failed = failed;
        if of_all {
            (self.all_ended, self.all_took) = (self.ended, self.took);
        }
    }

    /// Returns the time of the next scan if anything is pending.
    #[must_use]
    pub fn next(&self) -> i64 {
        let pause = match self.failed {
            true => RETRY,
            false => self.took.saturating_mul(PAUSES_PER_SCAN).min(LONGEST_PAUSE),
        };
        self.ended.saturating_add(pause)
    }

    /// Returns the time of the next periodic scan, which covers all devices, even without events.
    #[must_use]
    pub fn next_periodic(&self) -> i64 {
        let pause = self.all_took.saturating_mul(PERIODS_PER_SCAN).max(PERIOD);
        self.all_ended.saturating_add(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(took: i64, failed: bool) -> ScanInterval {
        let mut interval = ScanInterval::default();
        interval.scanned(1_000, took.saturating_add(1_000), failed, true);
        interval
    }

    #[test]
    fn scans_of_some_devices_do_not_delay_the_periodic_scan_of_all_devices() {
        let mut interval = after(100, false);
        interval.scanned(1_500_000, 1_500_200, false, false);
        assert_eq!(interval.next(), 1_500_200 + 1_800);
        assert_eq!(interval.next_periodic(), 1_100 + PERIOD);
    }

    #[test]
    fn the_first_scan_is_immediate() {
        assert_eq!(ScanInterval::default().next(), 0);
    }

    #[test]
    fn scans_use_at_most_a_tenth_of_the_time_and_the_pause_is_limited() {
        assert_eq!(after(100, false).next(), 1_100 + 900);
        assert_eq!(after(5_000_000, false).next(), 5_001_000 + LONGEST_PAUSE);
        assert_eq!(after(i64::MAX, false).next(), i64::MAX);
    }

    #[test]
    fn a_failed_scan_is_repeated_after_a_second() {
        assert_eq!(after(100, true).next(), 1_100 + RETRY);
    }

    #[test]
    fn periodic_scans_use_at_most_a_hundredth_of_the_time() {
        assert_eq!(after(100, false).next_periodic(), 1_100 + PERIOD);
        assert_eq!(after(50_000, false).next_periodic(), 51_000 + 5_000_000);
    }
}

//! CLOCK_MONOTONIC in µs, the unit of every time that the services exchange (`clock_gettime(2)`),
//! and waiting for such a time. Must never be read by code that decides: such code receives the
//! time as an argument.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Returns CLOCK_MONOTONIC in µs.
#[must_use]
pub fn now() -> i64 {
    usec(clock_gettime(ClockId::Monotonic))
}

/// Returns CLOCK_REALTIME in µs, for display.
#[must_use]
pub fn realtime() -> i64 {
    usec(clock_gettime(ClockId::Realtime))
}

fn usec(time: Timespec) -> i64 {
    let seconds = time.tv_sec.saturating_mul(1_000_000);
    seconds.saturating_add(time.tv_nsec / 1000)
}

/// Waits until a time in µs of CLOCK_MONOTONIC; for ever if there is none.
pub async fn until(time: Option<i64>) {
    match time.map(|time| time.saturating_sub(now()).max(0).cast_unsigned()) {
        Some(wait) => tokio::time::sleep(Duration::from_micros(wait)).await,
        None => std::future::pending().await,
    }
}

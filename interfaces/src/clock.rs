//! CLOCK_MONOTONIC in µs, as every time between the services is given (`clock_gettime(2)`), and
//! waiting for one. Must never be read by code that decides: there times are arguments.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// µs of CLOCK_MONOTONIC.
#[must_use]
pub fn now() -> i64 {
    usec(clock_gettime(ClockId::Monotonic))
}

/// µs of CLOCK_REALTIME, for people.
#[must_use]
pub fn realtime() -> i64 {
    usec(clock_gettime(ClockId::Realtime))
}

fn usec(time: Timespec) -> i64 {
    let seconds = time.tv_sec.saturating_mul(1_000_000);
    seconds.saturating_add(time.tv_nsec / 1000)
}

/// Waits until a time in µs of CLOCK_MONOTONIC; for ever when there is none.
pub async fn until(time: Option<i64>) {
    match time.map(|time| time.saturating_sub(now()).max(0).cast_unsigned()) {
        Some(wait) => tokio::time::sleep(Duration::from_micros(wait)).await,
        None => std::future::pending().await,
    }
}

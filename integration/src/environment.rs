//! Numbers that tests and stories take from the environment. Must never hide which one was used.

use std::env;

/// A number from the environment, or `default`; printed, so that a run can be had again.
#[expect(
    clippy::print_stdout,
    reason = "a person who sees a test fail needs it"
)]
#[must_use]
pub fn number(variable: &str, default: u64) -> u64 {
    let given = env::var(variable).ok();
    let number = given.and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("{variable}={number}");
    number
}

//! Numbers that tests and stories read from the environment. Must never hide which number was used.

use std::env;

/// Returns a number from the environment, or `default`, and prints it, so that a run can be
/// repeated.
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

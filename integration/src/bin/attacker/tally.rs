//! The observations of an attack: counts, and the times of replies. Must never hold anything that a
//! caller of the service could not know.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// The counts that are printed as one line.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Connections that the kernel made.
    pub connected: u64,
    /// The most connections that were open at once and had not been ended by the service.
    pub held: u64,
    /// Connections that the service has ended.
    pub ended: u64,
    /// Calls that were sent completely.
    pub calls: u64,
    /// Replies that are not errors.
    pub answers: u64,
    /// Error replies by their names, and failures of the socket by their kinds.
    pub errors: BTreeMap<String, u64>,
    /// The median of the reply times, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_usec: Option<u64>,
    /// Their 99th percentile, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_usec: Option<u64>,
    /// The longest, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usec: Option<u64>,
    #[serde(skip)]
    open: u64,
    #[serde(skip)]
    times: Vec<u64>,
}

impl Tally {
    /// Counts a connection that was made.
    pub fn connected(&mut self) {
        self.connected += 1;
        self.open += 1;
        self.held = self.held.max(self.open);
    }

    /// Counts a connection that was closed.
    pub fn left(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Counts a connection that the service has ended.
    pub fn ended(&mut self) {
        self.ended += 1;
        self.left();
    }

    /// Counts a failure of the socket.
    pub fn failed(&mut self, error: &io::Error) {
        match (error.raw_os_error(), format!("{:?}", error.kind())) {
            // The kind has no stable name.
            (Some(errno), kind) if kind == "Uncategorized" => self.error(&format!("errno {errno}")),
            (_, kind) => self.error(&kind),
        }
    }

    /// Counts an error.
    pub fn error(&mut self, name: &str) {
        *self.errors.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts a reply, a message without its NUL. Returns true if it is an error.
    pub fn answer(&mut self, message: &[u8]) -> bool {
        let answer: Result<Value, _> = serde_json::from_slice(message);
        let error = match &answer {
            Ok(answer) => answer.get("error").and_then(Value::as_str),
            Err(_) => Some("NotJson"),
        };
        match error {
            Some(error) => self.error(error),
            None => self.answers += 1,
        }
        error.is_some()
    }

    /// Records the time of a reply.
    pub fn took(&mut self, time: Duration) {
        self.times
            .push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns one line of JSON.
    pub fn line(mut self) -> String {
        self.times.sort_unstable();
        let at = |percent: usize| {
            let last = self.times.len().checked_sub(1)?;
            // The nearest rank, rounded up.
            self.times.get((last * percent).div_ceil(100)).copied()
        };
        (self.p50_usec, self.p99_usec, self.max_usec) = (at(50), at(99), at(100));
        serde_json::to_string(&self).unwrap_or_else(|e| format!("{{\"failed\":\"{e}\"}}"))
    }
}

//! The subjects that do not respond, and the times at which they are tried again. Pure: times are
//! arguments, in µs of CLOCK_MONOTONIC. Must never forget a request in which a thread hangs,
//! because another thread would hang in the same request.

use std::collections::BTreeMap;
use std::fmt;

use super::workers::RequestId;

/// The first pause before a subject is tried again.
const FIRST_PAUSE: i64 = 2_000_000;
/// The longest pause. Each pause is twice the previous one.
const LONGEST_PAUSE: i64 = 64_000_000;

/// A subject that may fail to respond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The settings of the RDMA core.
    System,
    /// The list of all devices.
    List,
    /// The device with this index.
    Device(u32),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the state of the RDMA core"),
            Self::List => f.write_str("the list of devices"),
            Self::Device(index) => write!(f, "the device with index {index}"),
        }
    }
}

#[derive(Debug)]
struct Silence {
    /// The request in which a thread hangs, or which was sent again.
    request: Option<RequestId>,
    pause: i64,
    next: i64,
}

/// All subjects that do not respond.
#[derive(Debug, Default)]
pub(super) struct Silences(BTreeMap<Subject, Silence>);

impl Silences {
    /// Returns true if the subject does not respond.
    pub(super) fn has(&self, subject: Subject) -> bool {
        self.0.contains_key(&subject)
    }

    /// Records that the subject has not responded. `request` is the request that may still get a
    /// reply.
    pub(super) fn note(&mut self, subject: Subject, request: Option<RequestId>, now: i64) {
        let before = self.0.get(&subject).map(|silence| silence.pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        let next = now.saturating_add(pause);
        let silence = Silence {
            request,
            pause,
            next,
        };
        self.0.insert(subject, silence);
    }

    /// Removes the subject, because it responds or no longer exists.
    pub(super) fn end(&mut self, subject: Subject) {
        self.0.remove(&subject);
    }

    /// Removes the devices for which `is_there` is false.
    pub(super) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.0.retain(|subject, _| match subject {
            Subject::Device(index) => is_there(*index),
            _ => true,
        });
    }

    /// Returns the subject of a request.
    pub(super) fn of(&self, request: RequestId) -> Option<Subject> {
        let mut silences = self.0.iter();
        let asked = silences.find(|(_, silence)| silence.request == Some(request));
        asked.map(|(subject, _)| *subject)
    }

    /// Records that the request was sent again.
    pub(super) fn asked(&mut self, subject: Subject, request: RequestId) {
        if let Some(silence) = self.0.get_mut(&subject) {
            silence.request = Some(request);
        }
    }

    /// Returns the subjects to try again: their pauses are over, and no thread hangs in their
    /// requests.
    pub(super) fn due(&self, now: i64) -> Vec<Subject> {
        let due = self.0.iter();
        let due = due.filter(|(_, silence)| silence.request.is_none() && silence.next <= now);
        due.map(|(subject, _)| *subject).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_subject_is_tried_again_after_pauses_that_double_up_to_64_seconds() {
        let mut silences = Silences::default();
        let device = Subject::Device(7);
        let mut now = 0;
        for seconds in [2, 4, 8, 16, 32, 64, 64] {
            silences.note(device, None, now);
            now += seconds * 1_000_000;
            assert!(silences.due(now - 1).is_empty(), "{seconds}");
            assert_eq!(silences.due(now), [device], "{seconds}");
        }
    }

    #[test]
    fn a_subject_in_whose_request_a_thread_hangs_is_not_tried_again() {
        let mut silences = Silences::default();
        silences.note(Subject::List, Some(3), 0);
        assert!(silences.due(i64::MAX).is_empty());
        assert_eq!(silences.of(3), Some(Subject::List));
        assert_eq!(silences.of(4), None);
        silences.end(Subject::List);
        assert!(!silences.has(Subject::List));
    }
}

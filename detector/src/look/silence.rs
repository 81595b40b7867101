//! What does not answer, and when it is tried again. Pure: times are arguments, in µs of
//! CLOCK_MONOTONIC. Must never forget a question that a thread hangs in, for another would hang
//! in it as well.

use std::collections::BTreeMap;
use std::fmt;

use super::askers::Ticket;

/// The first pause after which is tried again what did not answer...
const FIRST_PAUSE: i64 = 2_000_000;
/// ...and the longest. Each is twice as long as the one before.
const LONGEST_PAUSE: i64 = 64_000_000;

/// What may not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// How the RDMA core is set up.
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
    /// The question that a thread hangs in, or that was asked again.
    ticket: Option<Ticket>,
    pause: i64,
    next: i64,
}

/// All that does not answer.
#[derive(Debug, Default)]
pub(super) struct Silences(BTreeMap<Subject, Silence>);

impl Silences {
    /// Whether it does not answer.
    pub(super) fn has(&self, subject: Subject) -> bool {
        self.0.contains_key(&subject)
    }

    /// Notes that it has not answered; `ticket` is of the question that may be answered still.
    pub(super) fn note(&mut self, subject: Subject, ticket: Option<Ticket>, now: i64) {
        let before = self.0.get(&subject).map(|silence| silence.pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        let next = now.saturating_add(pause);
        let silence = Silence {
            ticket,
            pause,
            next,
        };
        self.0.insert(subject, silence);
    }

    /// It answers, or is gone.
    pub(super) fn end(&mut self, subject: Subject) {
        self.0.remove(&subject);
    }

    /// Forgets the devices that are not among these.
    pub(super) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.0.retain(|subject, _| match subject {
            Subject::Device(index) => is_there(*index),
            _ => true,
        });
    }

    /// What a question was about.
    pub(super) fn of(&self, ticket: Ticket) -> Option<Subject> {
        let mut silences = self.0.iter();
        let asked = silences.find(|(_, silence)| silence.ticket == Some(ticket));
        asked.map(|(subject, _)| *subject)
    }

    /// Notes that it is asked again.
    pub(super) fn asked(&mut self, subject: Subject, ticket: Ticket) {
        if let Some(silence) = self.0.get_mut(&subject) {
            silence.ticket = Some(ticket);
        }
    }

    /// What is to be tried again: its pause is over, and no thread hangs in it.
    pub(super) fn due(&self, now: i64) -> Vec<Subject> {
        let due = self.0.iter();
        let due = due.filter(|(_, silence)| silence.ticket.is_none() && silence.next <= now);
        due.map(|(subject, _)| *subject).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_tried_again_after_pauses_that_grow_to_a_minute() {
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
    fn what_a_thread_hangs_in_is_not_tried_again() {
        let mut silences = Silences::default();
        silences.note(Subject::List, Some(3), 0);
        assert!(silences.due(i64::MAX).is_empty());
        assert_eq!(silences.of(3), Some(Subject::List));
        assert_eq!(silences.of(4), None);
        silences.end(Subject::List);
        assert!(!silences.has(Subject::List));
    }
}

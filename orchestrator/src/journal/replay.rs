//! The replay of a journal: sends its events to a machine again, and returns the new decisions
//! beside the recorded ones. Pure. Must never carry out a decision.

use interfaces::journal::Record;
use interfaces::journal::event::Kind;
use interfaces::journal::record::What;
use serde_json::Value;

use super::Times;
use super::wire::{self, WireError};
use crate::machine::{Action, Event, Machine};
use crate::rules::Sources;

/// A reason why records cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no checkpoint before the first event.
    #[error("it does not begin with a checkpoint")]
    NoCheckpoint,
    /// A record cannot be decoded.
    #[error("record {0} cannot be applied")]
    Record(usize, #[source] WireError),
}

/// An event, with the recorded and the new decisions.
#[derive(Clone, Debug)]
pub struct Step {
    /// The time of the event.
    pub times: Times,
    /// The event.
    pub event: Event,
    /// The recorded decisions.
    pub recorded: Vec<Action>,
    /// The decisions of the replay.
    pub made: Vec<Action>,
}

/// Returns the machine in its state after the last record, or nothing if there is no record.
///
/// # Errors
/// See [`ReplayError`].
pub fn resume(records: impl Iterator<Item = Record>) -> Result<Option<Machine>, ReplayError> {
    let mut machine = None;
    for (number, record) in records.enumerate() {
        match record.what {
            Some(What::Checkpoint(checkpoint)) => {
                machine = Some(wire::machine(&checkpoint).map_err(at(number))?);
            }
            Some(What::Event(event)) => {
                let event = wire::event(&event).map_err(at(number))?;
                let machine = machine.as_mut().ok_or(ReplayError::NoCheckpoint)?;
                let _ = machine.step(event, record.monotonic_usec);
            }
            Some(What::Decision(_)) | None => {}
        }
    }
    Ok(machine)
}

/// Returns the reason of the pause that is in effect at the end of records which may be of another
/// version. Returns nothing if there is no pause, or if the records do not show it.
#[must_use]
pub fn paused(records: impl Iterator<Item = Record>) -> Option<String> {
    let mut paused = None;
    for record in records {
        match record.what {
            Some(What::Checkpoint(checkpoint)) => {
                let state = serde_json::from_str::<Value>(&checkpoint.state).ok();
                let reason = state
                    .as_ref()
                    .and_then(|state| state.get("paused")?.as_str());
                paused = reason.map(str::to_owned);
            }
            Some(What::Event(event)) => match event.kind {
                Some(Kind::Pause(reason)) => paused = Some(reason),
                Some(Kind::Resume(())) => paused = None,
                _ => {}
            },
            Some(What::Decision(_)) | None => {}
        }
    }
    paused
}

/// Replays all events, with the recorded rules or with `rules`.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(
    records: impl Iterator<Item = Record>,
    rules: Option<&Sources>,
) -> Result<Vec<Step>, ReplayError> {
    let mut machine: Option<Machine> = None;
    let mut steps: Vec<Step> = Vec::new();
    for (number, record) in records.enumerate() {
        let times = Times {
            monotonic: record.monotonic_usec,
            realtime: record.realtime_usec,
        };
        match record.what {
            // The replay itself leads to the state of the later checkpoints.
            Some(What::Checkpoint(checkpoint)) if machine.is_none() => {
                let made = wire::machine(&checkpoint).map_err(at(number))?;
                let made = machine.insert(made);
                if let Some(rules) = rules {
                    steps.push(step(made, Event::Rules(rules.clone()), times));
                }
            }
            Some(What::Event(event)) => {
                let event = match (wire::event(&event).map_err(at(number))?, rules) {
                    (Event::Rules(_), Some(rules)) => Event::Rules(rules.clone()),
                    (event, _) => event,
                };
                let machine = machine.as_mut().ok_or(ReplayError::NoCheckpoint)?;
                steps.push(step(machine, event, times));
            }
            Some(What::Decision(decision)) => {
                let action = wire::action(&decision).map_err(at(number))?;
                let last = steps.last_mut().ok_or(ReplayError::NoCheckpoint)?;
                last.recorded.push(action);
            }
            Some(What::Checkpoint(_)) | None => {}
        }
    }
    Ok(steps)
}

fn step(machine: &mut Machine, event: Event, times: Times) -> Step {
    let actions = machine.step(event.clone(), times.monotonic);
    Step {
        times,
        event,
        recorded: Vec::new(),
        made: actions.into_iter().filter(Action::is_decision).collect(),
    }
}

fn at(number: usize) -> impl FnOnce(WireError) -> ReplayError {
    move |error| ReplayError::Record(number, error)
}

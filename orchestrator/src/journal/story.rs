//! The journal as text for users. Pure. Must never leave out a decision.

use interfaces::journal::record::What;
use interfaces::journal::{self};
use interfaces::loader::{ModuleResult, Outcome};
use interfaces::orchestrator::{self, RecordKind};

use super::wire;
use crate::machine::{Action, Event, JobOutcome, UnitActivity, Verb};

/// Returns a record as it is listed, or nothing if it is of no use to users.
#[must_use]
pub fn tell(record: &journal::Record) -> Option<orchestrator::Record> {
    let (kind, line) = match record.what.as_ref()? {
        What::Checkpoint(_) => return None,
        What::Event(event) => {
            let event = wire::event(event).ok()?;
            (RecordKind::Event, of_event(&event)?)
        }
        What::Decision(decision) => {
            let action = wire::action(decision).ok()?;
            (RecordKind::Decision, of_action(&action)?)
        }
    };
    Some(orchestrator::Record {
        realtime_usec: record.realtime_usec,
        monotonic_usec: record.monotonic_usec,
        kind,
        what: line.what,
        index: line.index,
        duration_usec: line.took,
    })
}

/// A text, the index of its device, and the time that the operation took.
struct Line {
    what: String,
    index: Option<i64>,
    took: Option<i64>,
}

impl From<String> for Line {
    fn from(what: String) -> Self {
        Self {
            what,
            index: None,
            took: None,
        }
    }
}

fn of_event(event: &Event) -> Option<Line> {
    let line = match event {
        Event::Begins(_) => "the orchestrator starts".to_owned(),
        Event::Device(device) => {
            let mut protocols: Vec<&str> = Vec::new();
            for port in &device.ports {
                let name = port.protocol.as_str();
                if !protocols.contains(&name) {
                    protocols.push(name);
                }
            }
            let protocols = match protocols.as_slice() {
                [] => "no protocol".to_owned(),
                names => names.join(", "),
            };
            let what = format!("{} is present: {protocols}", device.name);
            return Some(Line {
                index: Some(device.index),
                ..what.into()
            });
        }
        Event::DeviceGone(index) => {
            let what = format!("the device with index {index} was removed");
            return Some(Line {
                index: Some(*index),
                ..what.into()
            });
        }
        Event::Function(function) => match function.waits_for {
            Some(waits_for) => format!("{} waits for its {waits_for}", function.name),
            None => format!("{} has its device", function.name),
        },
        Event::FunctionGone(name) => format!("{name} was removed"),
        Event::ModuleThere(name) => format!("module {name} is live"),
        Event::ModuleGone(name) => format!("module {name} was unloaded"),
        Event::DetectorLost => "lost the connection to the detector".to_owned(),
        Event::Module(result) => {
            return Some(Line {
                took: Some(result.duration_usec),
                ..of_result(result).into()
            });
        }
        Event::Targets(known) => {
            let active = known.iter().filter(|(_, is)| *is == UnitActivity::Active);
            format!(
                "connected to the service manager; active targets: {}",
                active.count()
            )
        }
        Event::Driver {
            function, excluded, ..
        } => match excluded {
            Some(why) => format!("the driver of {function} is excluded: {why}"),
            None => format!("the driver of {function} is not excluded"),
        },
        Event::UnitFilesRead => "the service manager has reloaded its units".to_owned(),
        Event::ServiceManagerLost => "the service manager cannot be reached".to_owned(),
        Event::Job(unit, verb, outcome) => {
            let verb = match verb {
                Verb::Start => "start",
                Verb::Stop => "stop",
            };
            match outcome {
                JobOutcome::NotNeeded => format!("there was no need to {verb} {unit}"),
                JobOutcome::Done => format!("the job to {verb} {unit} is done"),
                JobOutcome::Ended(how) => format!("the job to {verb} {unit} ended with '{how}'"),
                JobOutcome::NotBegun(why) => format!("no job to {verb} {unit}: {why}"),
                JobOutcome::Masked => format!("no job to {verb} {unit}: it is masked"),
                JobOutcome::Refused(why) => {
                    format!("the service manager refused to {verb} {unit}: {why}")
                }
            }
        }
        Event::Target(unit, UnitActivity::Active) => format!("{unit} is active"),
        Event::Target(unit, UnitActivity::Inactive) => format!("{unit} is inactive"),
        Event::Target(unit, UnitActivity::Failed) => format!("{unit} has failed"),
        Event::FlagFailed(flag, why) => {
            format!("{} does not follow the hardware: {why}", flag.target())
        }
        Event::Rules(sources) => format!(
            "rules files read: {}, lists read: {}",
            sources.rules.len(),
            sources.lists.len()
        ),
        Event::ModulesInstalled => {
            "kernel modules, or what forbids them, may have changed".to_owned()
        }
        Event::Reconcile => "reconcile was requested".to_owned(),
        Event::Pause(reason) => format!("a pause was requested: {reason}"),
        Event::Resume => "the end of the pause was requested".to_owned(),
        Event::SnapshotBegins
        | Event::ModulesThere(_)
        | Event::SnapshotEnds
        | Event::Deadline
        | Event::Target(_, UnitActivity::Changing) => return None,
    };
    Some(line.into())
}

fn of_result(result: &ModuleResult) -> String {
    let module = &result.module;
    let why = result.message.as_deref().unwrap_or("no reason was given");
    match result.outcome {
        Outcome::Loaded => format!("module {module} is loaded"),
        Outcome::AlreadyLoaded => format!("module {module} was live"),
        Outcome::Builtin => format!("module {module} is built in"),
        Outcome::Missing => format!("module {module} is not shipped with this kernel"),
        Outcome::Unknown => {
            format!("it is unknown if this kernel has module {module}: {why}")
        }
        Outcome::Denied if result.is_excluded() => format!("module {module} is excluded: {why}"),
        Outcome::Denied => format!("module {module} was denied: {why}"),
        Outcome::Failed => format!("module {module} failed: {why}"),
        Outcome::Loading => format!("module {module} is still being loaded"),
    }
}

fn of_action(action: &Action) -> Option<Line> {
    let reason = match action {
        Action::Load { reason, .. }
        | Action::StartUnit { reason, .. }
        | Action::StopUnit { reason, .. } => Some(reason.as_str()),
        _ => None,
    };
    Some(Line {
        index: reason.and_then(index_in),
        ..say(action)?.into()
    })
}

/// Returns the index of the device at the end of the reason.
fn index_in(reason: &str) -> Option<i64> {
    let (_, index) = reason.rsplit_once("(index ")?;
    index.strip_suffix(')')?.parse().ok()
}

/// Returns a decision as text, or nothing if the action is not a decision.
#[must_use]
pub fn say(action: &Action) -> Option<String> {
    Some(match action {
        Action::Load { modules, reason } => {
            let names: Vec<&str> = modules.iter().map(|name| name.as_str()).collect();
            format!("load {} for {reason}", names.join(" "))
        }
        Action::StartUnit { unit, reason } => format!("start {unit} for {reason}"),
        Action::StopUnit { unit, reason } => format!("stop {unit}: {reason}"),
        Action::QueryDriver { function, .. } => {
            format!("check if the driver of {function} is excluded")
        }
        Action::SetFlag(flag, true) => format!("request {}", flag.target()),
        Action::SetFlag(flag, false) => format!("no longer request {}", flag.target()),
        Action::Started { status } => format!("ready: {status}"),
        _ => return None,
    })
}

/// Returns an event as text, or nothing if it is of no use to users.
#[must_use]
pub fn say_event(event: &Event) -> Option<String> {
    of_event(event).map(|line| line.what)
}

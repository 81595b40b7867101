//! The conversion of the machine's events, decisions and state to records of the journal, and back.
//! Pure. Must never decode a record that it does not fully understand: such a record is an error.

use std::io;
use std::path::PathBuf;

use interfaces::journal::job::Verb as VerbRecord;
use interfaces::journal::record::What;
use interfaces::journal::unit::Activity;
use interfaces::journal::{
    Begins, Checkpoint, Decision, Driver, Event as EventRecord, FlagFailed, Job, Load, Modules,
    QueryDriver, SetFlag, Source as SourceRecord, Sources as SourcesRecord, Unit, UnitJob, Units,
    decision, event, job, source,
};
use interfaces::names::{ModuleAlias, ModuleName, NameError, UnitName};
use serde::Serialize;

use crate::machine::{Action, Event, Flag, JobOutcome, Machine, Timeouts, UnitActivity, Verb};
use crate::rules::{Source, Sources};

/// A reason why a record cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A field is missing, or its value is of a later version.
    #[error("its {0} is missing or unknown")]
    Unknown(&'static str),
    /// A name is invalid.
    #[error("a name is invalid")]
    Name(#[from] NameError),
    /// A JSON field cannot be decoded.
    #[error("its JSON cannot be decoded")]
    Json(#[from] serde_json::Error),
}

/// Returns the state of a machine.
///
/// # Errors
/// Fails if the state cannot be encoded.
pub fn checkpoint(machine: &Machine) -> io::Result<Checkpoint> {
    Ok(Checkpoint {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: serde_json::to_string(machine)?,
    })
}

/// Returns the machine with the state of a checkpoint.
///
/// # Errors
/// Fails if the state cannot be decoded, such as that of another version.
pub fn machine(checkpoint: &Checkpoint) -> Result<Machine, WireError> {
    Ok(serde_json::from_str(&checkpoint.state)?)
}

/// Returns an event as a record.
#[must_use]
pub fn of_event(event: &Event) -> What {
    use event::Kind;
    let kind = match event {
        Event::Begins(timeouts) => Kind::Begins(Begins {
            start: timeouts.start,
            function: timeouts.function,
            driver: timeouts.driver,
        }),
        Event::SnapshotBegins => Kind::SnapshotBegins(()),
        Event::Device(device) => Kind::Device(json(device)),
        Event::DeviceGone(index) => Kind::DeviceGone(*index),
        Event::Function(function) => Kind::Function(json(function)),
        Event::FunctionGone(name) => Kind::FunctionGone(name.clone()),
        Event::ModuleThere(name) => Kind::ModuleThere(name.to_string()),
        Event::ModuleGone(name) => Kind::ModuleGone(name.to_string()),
        Event::ModulesThere(names) => Kind::ModulesThere(Modules {
            names: names.iter().map(ToString::to_string).collect(),
        }),
        Event::SnapshotEnds => Kind::SnapshotEnds(()),
        Event::DetectorLost => Kind::DetectorLost(()),
        Event::Module(result) => Kind::Module(json(result)),
        Event::Driver {
            function,
            modalias,
            excluded,
        } => Kind::Driver(Driver {
            function: function.clone(),
            modalias: modalias.to_string(),
            excluded: excluded.clone(),
        }),
        Event::Targets(known) => Kind::Targets(Units {
            units: known.iter().map(|(unit, is)| of_unit(unit, *is)).collect(),
        }),
        Event::ServiceManagerLost => Kind::ServiceManagerLost(()),
        Event::UnitFilesRead => Kind::UnitFilesRead(()),
        Event::Job(unit, verb, outcome) => Kind::Job(Job {
            unit: unit.to_string(),
            verb: match verb {
                Verb::Start => VerbRecord::Start.into(),
                Verb::Stop => VerbRecord::Stop.into(),
            },
            outcome: Some(of_outcome(outcome)),
        }),
        Event::Target(unit, activity) => Kind::Unit(of_unit(unit, *activity)),
        Event::FlagFailed(flag, why) => Kind::FlagFailed(FlagFailed {
            flag: flag.name().to_owned(),
            error: why.clone(),
        }),
        Event::Deadline => Kind::Deadline(()),
        Event::Rules(sources) => Kind::Rules(SourcesRecord {
            rules: sources.rules.iter().map(of_source).collect(),
            lists: sources.lists.iter().map(of_source).collect(),
        }),
        Event::ModulesInstalled => Kind::ModulesInstalled(()),
        Event::Reconcile => Kind::Reconcile(()),
        Event::Pause(reason) => Kind::Pause(reason.clone()),
        Event::Resume => Kind::Resume(()),
    };
    What::Event(EventRecord { kind: Some(kind) })
}

/// Returns a value as JSON. Types that are generated from an interface file can always be encoded.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn of_outcome(outcome: &JobOutcome) -> job::Outcome {
    match outcome {
        JobOutcome::NotNeeded => job::Outcome::NotNeeded(()),
        JobOutcome::Done => job::Outcome::Done(()),
        JobOutcome::Ended(result) => job::Outcome::Ended(result.clone()),
        JobOutcome::NotBegun(why) => job::Outcome::NotBegun(why.clone()),
        JobOutcome::Masked => job::Outcome::Masked(()),
        JobOutcome::Refused(why) => job::Outcome::Refused(why.clone()),
    }
}

fn of_unit(unit: &UnitName, activity: UnitActivity) -> Unit {
    Unit {
        unit: unit.to_string(),
        activity: of_activity(activity).into(),
    }
}

fn of_activity(activity: UnitActivity) -> Activity {
    match activity {
        UnitActivity::Active => Activity::Active,
        UnitActivity::Inactive => Activity::Inactive,
        UnitActivity::Failed => Activity::Failed,
        UnitActivity::Changing => Activity::Changing,
    }
}

fn of_source(source: &Source) -> SourceRecord {
    let text = match &source.text {
        Ok(text) => source::Text::Content(text.clone()),
        Err(why) => source::Text::Error(why.clone()),
    };
    SourceRecord {
        path: source.path.display().to_string(),
        text: Some(text),
    }
}

/// Returns the event of a record.
///
/// # Errors
/// Fails if the record cannot be decoded.
pub fn event(record: &EventRecord) -> Result<Event, WireError> {
    use event::Kind;
    Ok(
        match record.kind.as_ref().ok_or(WireError::Unknown("event"))? {
            Kind::Begins(begins) => Event::Begins(Timeouts {
                start: begins.start,
                function: begins.function,
                driver: begins.driver,
            }),
            Kind::SnapshotBegins(()) => Event::SnapshotBegins,
            Kind::Device(json) => Event::Device(serde_json::from_str(json)?),
            Kind::DeviceGone(index) => Event::DeviceGone(*index),
            Kind::Function(json) => Event::Function(serde_json::from_str(json)?),
            Kind::FunctionGone(name) => Event::FunctionGone(name.clone()),
            Kind::ModuleThere(name) => Event::ModuleThere(ModuleName::parse(name)?),
            Kind::ModuleGone(name) => Event::ModuleGone(ModuleName::parse(name)?),
            Kind::ModulesThere(modules) => {
                let names = modules.names.iter().map(|name| ModuleName::parse(name));
                Event::ModulesThere(names.collect::<Result<_, _>>()?)
            }
            Kind::SnapshotEnds(()) => Event::SnapshotEnds,
            Kind::DetectorLost(()) => Event::DetectorLost,
            Kind::Module(json) => Event::Module(serde_json::from_str(json)?),
            Kind::Driver(driver) => Event::Driver {
                function: driver.function.clone(),
                modalias: ModuleAlias::parse(&driver.modalias)?,
                excluded: driver.excluded.clone(),
            },
            Kind::Targets(known) => {
                let known = known.units.iter().map(unit);
                Event::Targets(known.collect::<Result<_, _>>()?)
            }
            Kind::ServiceManagerLost(()) => Event::ServiceManagerLost,
            Kind::UnitFilesRead(()) => Event::UnitFilesRead,
            Kind::Job(job) => Event::Job(UnitName::parse(&job.unit)?, verb(job)?, outcome(job)?),
            Kind::Unit(record) => {
                let (unit, activity) = unit(record)?;
                Event::Target(unit, activity)
            }
            Kind::FlagFailed(failed) => {
                Event::FlagFailed(flag(&failed.flag)?, failed.error.clone())
            }
            Kind::Deadline(()) => Event::Deadline,
            Kind::Rules(sources) => Event::Rules(Sources {
                rules: sources.rules.iter().map(source).collect::<Result<_, _>>()?,
                lists: sources.lists.iter().map(source).collect::<Result<_, _>>()?,
            }),
            Kind::ModulesInstalled(()) => Event::ModulesInstalled,
            Kind::Reconcile(()) => Event::Reconcile,
            Kind::Pause(reason) => Event::Pause(reason.clone()),
            Kind::Resume(()) => Event::Resume,
        },
    )
}

fn verb(job: &Job) -> Result<Verb, WireError> {
    match job.verb() {
        VerbRecord::Start => Ok(Verb::Start),
        VerbRecord::Stop => Ok(Verb::Stop),
        VerbRecord::Unspecified => Err(WireError::Unknown("verb")),
    }
}

fn outcome(job: &Job) -> Result<JobOutcome, WireError> {
    Ok(
        match job.outcome.as_ref().ok_or(WireError::Unknown("outcome"))? {
            job::Outcome::NotNeeded(()) => JobOutcome::NotNeeded,
            job::Outcome::Done(()) => JobOutcome::Done,
            job::Outcome::Ended(result) => JobOutcome::Ended(result.clone()),
            job::Outcome::NotBegun(why) => JobOutcome::NotBegun(why.clone()),
            job::Outcome::Masked(()) => JobOutcome::Masked,
            job::Outcome::Refused(why) => JobOutcome::Refused(why.clone()),
        },
    )
}

fn unit(unit: &Unit) -> Result<(UnitName, UnitActivity), WireError> {
    Ok((UnitName::parse(&unit.unit)?, activity(unit)?))
}

fn flag(name: &str) -> Result<Flag, WireError> {
    Flag::named(name).ok_or(WireError::Unknown("flag"))
}

fn activity(unit: &Unit) -> Result<UnitActivity, WireError> {
    match unit.activity() {
        Activity::Active => Ok(UnitActivity::Active),
        Activity::Inactive => Ok(UnitActivity::Inactive),
        Activity::Failed => Ok(UnitActivity::Failed),
        Activity::Changing => Ok(UnitActivity::Changing),
        Activity::Unspecified => Err(WireError::Unknown("activity")),
    }
}

fn source(record: &SourceRecord) -> Result<Source, WireError> {
    let text = match record.text.as_ref().ok_or(WireError::Unknown("text"))? {
        source::Text::Content(text) => Ok(text.clone()),
        source::Text::Error(why) => Err(why.clone()),
    };
    Ok(Source {
        path: PathBuf::from(&record.path),
        text,
    })
}

/// Returns a decision as a record, or nothing if the action is not a decision.
#[must_use]
pub fn of_action(action: &Action) -> Option<What> {
    use decision::Kind;
    let job = |unit: &UnitName, reason: &str| UnitJob {
        unit: unit.to_string(),
        reason: reason.to_owned(),
    };
    let kind = match action {
        Action::Load { modules, reason } => Kind::Load(Load {
            modules: modules.iter().map(ToString::to_string).collect(),
            reason: reason.clone(),
        }),
        Action::QueryDriver { function, modalias } => Kind::QueryDriver(QueryDriver {
            function: function.clone(),
            modalias: modalias.to_string(),
        }),
        Action::StartUnit { unit, reason } => Kind::StartUnit(job(unit, reason)),
        Action::StopUnit { unit, reason } => Kind::StopUnit(job(unit, reason)),
        Action::SetFlag(flag, up) => Kind::SetFlag(SetFlag {
            flag: flag.name().to_owned(),
            up: *up,
        }),
        Action::Started { status } => Kind::Started(status.clone()),
        Action::Publish(_)
        | Action::Withdraw(_)
        | Action::PublishFunction(_)
        | Action::WithdrawFunction(_)
        | Action::Known
        | Action::Settled(_) => return None,
    };
    Some(What::Decision(Decision { kind: Some(kind) }))
}

/// Returns the decision of a record.
///
/// # Errors
/// Fails if the record cannot be decoded.
pub fn action(record: &Decision) -> Result<Action, WireError> {
    use decision::Kind;
    let kind = record.kind.as_ref().ok_or(WireError::Unknown("decision"))?;
    Ok(match kind {
        Kind::Load(load) => {
            let modules = load.modules.iter().map(|name| ModuleName::parse(name));
            Action::Load {
                modules: modules.collect::<Result<_, _>>()?,
                reason: load.reason.clone(),
            }
        }
        Kind::QueryDriver(ask) => Action::QueryDriver {
            function: ask.function.clone(),
            modalias: ModuleAlias::parse(&ask.modalias)?,
        },
        Kind::StartUnit(job) => Action::StartUnit {
            unit: UnitName::parse(&job.unit)?,
            reason: job.reason.clone(),
        },
        Kind::StopUnit(job) => Action::StopUnit {
            unit: UnitName::parse(&job.unit)?,
            reason: job.reason.clone(),
        },
        Kind::SetFlag(set) => Action::SetFlag(flag(&set.flag)?, set.up),
        Kind::Started(status) => Action::Started {
            status: status.clone(),
        },
    })
}

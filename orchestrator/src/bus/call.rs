//! The calls that the service manager is asked by, each to its end: of a job the path or the
//! refusal, of a unit its state. Must never keep anything between two calls.

use interfaces::names::UnitName;
use zbus::proxy::CacheProperties;
use zbus::{DBusError, OwnedObjectPath};

use crate::machine::{JobOutcome, UnitActivity, Verb};

pub(super) const MANAGER: &str = "org.freedesktop.systemd1";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// Errors that mean that the service manager does not let us.
const REFUSALS: [&str; 2] = [
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
];

/// Errors that the bus answers with when the service manager does not.
const LOSSES: [&str; 6] = [
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.LimitsExceeded",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.zbus.Error",
];

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String);
}

/// What a job is wanted for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub unit: UnitName,
    pub verb: Verb,
}

/// A call that has ended.
pub(super) enum Answered {
    /// A job runs, or its outcome is known; and the unit's path and its state before.
    Job(
        Wanted,
        Option<(String, UnitActivity)>,
        Result<String, JobOutcome>,
    ),
    /// A unit's path and its state.
    Watched(UnitName, String, UnitActivity),
    /// The bus itself is of no more use.
    Lost(zbus::Error),
}

/// Asks for a job unless the unit is as wanted.
pub(super) async fn job(
    manager: ManagerProxy<'static>,
    unit: UnitName,
    verb: Verb,
) -> Option<Answered> {
    let before = state(&manager, &unit).await;
    let asked = match (&before, verb) {
        (Ok((_, UnitActivity::Active)), Verb::Start)
        | (Ok((_, UnitActivity::Inactive | UnitActivity::Failed)), Verb::Stop) => {
            Ok(Err(JobOutcome::NotNeeded))
        }
        (Ok(_), Verb::Start) => manager.start_unit(unit.as_str(), "replace").await.map(Ok),
        (Ok(_), Verb::Stop) => manager.stop_unit(unit.as_str(), "replace").await.map(Ok),
        (Err(e), _) => Err(e.clone()),
    };
    let wanted = Wanted { unit, verb };
    let before = before.ok();
    Some(match asked {
        Ok(Ok(job)) => Answered::Job(wanted, before, Ok(job.to_string())),
        Ok(Err(outcome)) => Answered::Job(wanted, before, Err(outcome)),
        Err(e) => match answer(&e) {
            Some(outcome) => Answered::Job(wanted, before, Err(outcome)),
            None => Answered::Lost(e),
        },
    })
}

/// A unit that cannot be followed is one whose job says why.
pub(super) async fn watch_unit(manager: ManagerProxy<'static>, unit: UnitName) -> Option<Answered> {
    match state(&manager, &unit).await {
        Ok((path, activity)) => Some(Answered::Watched(unit, path, activity)),
        Err(e) if answer(&e).is_some() => None,
        Err(e) => Some(Answered::Lost(e)),
    }
}

async fn state(
    manager: &ManagerProxy<'static>,
    unit: &UnitName,
) -> zbus::Result<(String, UnitActivity)> {
    let path = manager.load_unit(unit.as_str()).await?;
    let properties = zbus::fdo::PropertiesProxy::builder(manager.inner().connection())
        .destination(MANAGER)
        .path(path.as_ref())
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let interface = zbus::names::InterfaceName::from_static_str(UNIT)?;
    let state = properties.get(interface, "ActiveState").await?;
    let state = state.downcast_ref::<String>().unwrap_or_default();
    Ok((path.to_string(), activity(&state)))
}

pub(super) fn activity(state: &str) -> UnitActivity {
    match state {
        "active" | "reloading" | "refreshing" => UnitActivity::Active,
        "inactive" => UnitActivity::Inactive,
        "failed" => UnitActivity::Failed,
        _ => UnitActivity::Changing,
    }
}

/// What the service manager has answered; nothing of an error of the bus itself.
fn answer(error: &zbus::Error) -> Option<JobOutcome> {
    let (name, message) = match error {
        zbus::Error::MethodError(name, message, _) => (name.to_string(), message.clone()),
        zbus::Error::FDO(error) => {
            let message = error.description().map(str::to_owned);
            (error.name().to_string(), message)
        }
        _ => return None,
    };
    if LOSSES.contains(&name.as_str()) {
        return None;
    }
    let message = message.unwrap_or_else(|| name.clone());
    Some(match REFUSALS.contains(&name.as_str()) {
        true => JobOutcome::Refused(message),
        false => JobOutcome::NotBegun(message),
    })
}

//! The method calls to the service manager, each until its reply, and the object paths of units.
//! Must never keep anything between two calls.

use interfaces::names::UnitName;
use zbus::{DBusError, OwnedObjectPath};

use super::JobRequest;
use crate::machine::{JobOutcome, UnitActivity, Verb};

pub(super) const MANAGER: &str = "org.freedesktop.systemd1";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// The error for a unit that is not loaded.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The error for a unit that is masked.
const MASKED: &str = "org.freedesktop.systemd1.UnitMasked";

/// The errors that mean that the service manager denies a request.
const REFUSALS: [&str; 2] = [
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
];

/// The errors that the bus returns when the service manager does not reply.
const LOSSES: [&str; 6] = [
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.LimitsExceeded",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.zbus.Error",
];

/// One unit of a list of units (`ListUnitsByPatterns`): its name, description, load state, active
/// state, sub state, the unit that it follows, its path, and its job.
pub(super) type ListedUnit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<ListedUnit>>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn reloading(&self, active: bool);
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String);
}

/// A call that has ended.
pub(super) enum Answered {
    /// The reply for a job: the object path of the running job, or its outcome.
    Job(JobRequest, Result<String, JobOutcome>),
    /// The connection to the bus is lost.
    Lost(zbus::Error),
}

/// Requests a job.
pub(super) async fn job(manager: ManagerProxy<'static>, ask: JobRequest) -> Answered {
    let unit = ask.unit.as_str();
    let asked = match ask.verb {
        Verb::Start => manager.start_unit(unit, "replace").await,
        Verb::Stop => manager.stop_unit(unit, "replace").await,
    };
    match asked {
        Ok(job) => Answered::Job(ask, Ok(job.to_string())),
        // A unit that is not loaded is already stopped.
        Err(zbus::Error::MethodError(name, ..))
            if ask.verb == Verb::Stop && name == NO_SUCH_UNIT =>
        {
            Answered::Job(ask, Err(JobOutcome::NotNeeded))
        }
        Err(e) => match answer(&e) {
            Some(outcome) => Answered::Job(ask, Err(outcome)),
            None => Answered::Lost(e),
        },
    }
}

/// The prefix of the object paths of units.
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/";

/// Returns the unit at an object path. In the last part of the path, every byte but letters and
/// digits is escaped (`sd_bus_path_encode(3)`).
pub(super) fn unit_at(path: &str) -> Option<UnitName> {
    let mut bytes = path.strip_prefix(UNIT_PATH)?.bytes();
    let mut name = String::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'_' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                name.push(char::from_u32(high * 16 + low)?);
            }
            byte => name.push(byte.into()),
        }
    }
    UnitName::parse(&name).ok()
}

/// Returns the object path of a unit.
pub(super) fn path_of(unit: &UnitName) -> String {
    let mut path = UNIT_PATH.to_owned();
    for (at, byte) in unit.as_str().bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' => path.push(byte.into()),
            b'0'..=b'9' if at > 0 => path.push(byte.into()),
            byte => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

pub(super) fn activity(state: &str) -> UnitActivity {
    match state {
        "active" | "reloading" | "refreshing" => UnitActivity::Active,
        "inactive" => UnitActivity::Inactive,
        "failed" => UnitActivity::Failed,
        _ => UnitActivity::Changing,
    }
}

/// Returns the outcome that an error of the service manager means; `None` for an error of the bus
/// itself.
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
    if name == MASKED {
        return Some(JobOutcome::Masked);
    }
    let message = message.unwrap_or_else(|| name.clone());
    Some(match REFUSALS.contains(&name.as_str()) {
        true => JobOutcome::Refused(message),
        false => JobOutcome::NotBegun(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_path_is_the_escaped_name_and_converts_back() {
        for name in [
            "rdma-device@mlx5_0.target",
            r"rdma-port@ib\x2dfixed:1.target",
            "1a.target",
        ] {
            let unit = UnitName::parse(name).unwrap();
            let path = path_of(&unit);
            let escaped = path.strip_prefix(UNIT_PATH).unwrap();
            assert!(
                escaped
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_')
            );
            assert_eq!(unit_at(&path), Some(unit));
        }
        let seen = "/org/freedesktop/systemd1/unit/rdma_2ddevice_40mlx5_5f0_2etarget";
        assert_eq!(unit_at(seen).unwrap().as_str(), "rdma-device@mlx5_0.target");
        for path in [
            "/",
            "/org/freedesktop/systemd1/unit/_",
            "/org/freedesktop/systemd1/unit/a_2",
        ] {
            assert_eq!(unit_at(path), None);
        }
    }
}

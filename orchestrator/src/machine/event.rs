//! The events that the machine processes, and the actions that it requests. Pure data: must never
//! hold a handle to anything.

use interfaces::detector;
use interfaces::loader::ModuleResult;
use interfaces::names::{ModuleAlias, ModuleName, UnitName};
use interfaces::orchestrator::{Device, Function};
use serde::{Deserialize, Serialize};

use super::Timeouts;
use crate::rules::Sources;

/// An event that the machine processes.
#[derive(Clone, Debug)]
pub enum Event {
    /// The process has started, without any state or with that of a journal.
    Begins(Timeouts),
    /// The detector is connected, and its snapshot begins.
    SnapshotBegins,
    /// The detector sends a device, which is new, changed or unchanged.
    Device(Box<detector::Device>),
    /// The detector reports the removal of a device.
    DeviceGone(i64),
    /// The detector sends a function, which is new, changed or unchanged.
    Function(Box<detector::Function>),
    /// The detector reports the removal of a function.
    FunctionGone(String),
    /// The detector reports that a kernel module was loaded.
    ModuleThere(ModuleName),
    /// The detector reports that a kernel module was unloaded.
    ModuleGone(ModuleName),
    /// All kernel modules that are loaded, at the beginning of a snapshot.
    ModulesThere(Vec<ModuleName>),
    /// The snapshot is complete.
    SnapshotEnds,
    /// The detector cannot be reached.
    DetectorLost,
    /// The loader's result for a module.
    Module(Box<ModuleResult>),
    /// The loader's reply for the driver of a function.
    Driver {
        /// The function.
        function: String,
        /// The modalias that the driver was looked up with.
        modalias: ModuleAlias,
        /// The reason why an administrator excludes the driver; absent if no line excludes it.
        excluded: Option<String>,
    },
    /// The service manager is connected, and has these of our targets. All others are inactive.
    Targets(Vec<(UnitName, UnitActivity)>),
    /// The connection to the service manager is lost.
    ServiceManagerLost,
    /// The service manager has read its unit files again: a unit may no longer be masked.
    UnitFilesRead,
    /// The result of a job for one of our targets.
    Job(UnitName, Verb, JobOutcome),
    /// The new state of one of our targets.
    Target(UnitName, UnitActivity),
    /// A flag could not be written or removed, for this reason.
    FlagFailed(Flag, String),
    /// The time that [`Machine::next_deadline`](super::Machine::next_deadline) returned has passed.
    Deadline,
    /// The rules files were read.
    Rules(Sources),
    /// Kernel modules were installed: a missing module may exist now.
    ModulesInstalled,
    /// A client requests that everything is compared again.
    Reconcile,
    /// A client requests a pause, for this reason: nothing is loaded or started.
    Pause(String),
    /// A client ends the pause.
    Resume,
}

/// The type of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// The start of the unit.
    Start,
    /// The stop of the unit.
    Stop,
}

/// The result of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// The job was not needed: the unit was already in that state.
    NotNeeded,
    /// The job is done.
    Done,
    /// The job ended with another result, as in `JobRemoved` of `org.freedesktop.systemd1(5)`:
    /// `failed`, `timeout`, `dependency`, `canceled`, ...
    Ended(String),
    /// The job was not created: the unit does not exist or its file is invalid. With the service
    /// manager's message.
    NotBegun(String),
    /// The job was not created: an administrator has masked the unit.
    Masked,
    /// The service manager denies the request. With its message.
    Refused(String),
}

/// A unit's `ActiveState` (`org.freedesktop.systemd1(5)`), as far as the machine needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitActivity {
    /// `active`, `reloading`, `refreshing`.
    Active,
    /// `inactive`, or the unit does not exist.
    Inactive,
    /// `failed`.
    Failed,
    /// A transition between two states.
    Changing,
}

/// A flag: a file that a path unit watches. PID 1 starts a target while the file exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Flag {
    /// The host has RDMA hardware of any kind.
    Hardware,
    /// A port has this protocol, which is not unknown.
    Protocol(detector::Protocol),
}

/// An action that the machine requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Load these modules, and send the machine the result for each.
    Load {
        /// The modules, in the order of the rules.
        modules: Vec<ModuleName>,
        /// The reason, for the loader's log.
        reason: String,
    },
    /// Query the loader for the driver of a function, and send the machine the reply.
    QueryDriver {
        /// The function.
        function: String,
        /// The modalias that the kernel looks up the driver with.
        modalias: ModuleAlias,
    },
    /// Start this target of ours, and send the machine the result.
    StartUnit {
        /// The target.
        unit: UnitName,
        /// The reason, for the log.
        reason: String,
    },
    /// Stop this target of ours, and send the machine the result.
    StopUnit {
        /// The target.
        unit: UnitName,
        /// The reason, for the log.
        reason: String,
    },
    /// Write this flag, or remove it.
    SetFlag(Flag, bool),
    /// Report to the service manager that the start is complete.
    Started {
        /// The devices and functions that are still missing, for `systemctl status`.
        status: String,
    },
    /// Show the status of this device.
    Publish(Box<Device>),
    /// Remove the status of this device.
    Withdraw(i64),
    /// Show the status of this function.
    PublishFunction(Box<Function>),
    /// Remove the status of this function.
    WithdrawFunction(String),
    /// Mark the status table as complete: the detector's snapshot has ended.
    Known,
    /// Set whether everything is settled.
    Settled(bool),
}

impl Action {
    /// Returns true if this is a decision, which the journal keeps. The status that is shown
    /// follows from the state.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        !matches!(
            self,
            Self::Publish(_)
                | Self::Withdraw(_)
                | Self::PublishFunction(_)
                | Self::WithdrawFunction(_)
                | Self::Known
                | Self::Settled(_)
        )
    }
}

impl Flag {
    /// Returns all flags.
    pub fn all() -> impl Iterator<Item = Self> {
        let protocols = detector::Protocol::ALL.into_iter().filter_map(Self::of);
        [Self::Hardware].into_iter().chain(protocols)
    }

    /// Returns the flag with this name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|flag| flag.name() == name)
    }

    /// Returns the name of its file. For a protocol, this is also the instance of
    /// `rdma-hotplug@.path`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Protocol(protocol) => protocol.as_str(),
        }
    }

    /// Returns the target that PID 1 starts for the flag.
    #[must_use]
    pub fn target(self) -> String {
        match self {
            Self::Hardware => "rdma-hotplug-hardware.target".to_owned(),
            Self::Protocol(protocol) => format!("rdma-hotplug@{protocol}.target"),
        }
    }

    /// Returns the flag of a protocol, or nothing if the protocol is unknown.
    #[must_use]
    pub fn of(protocol: detector::Protocol) -> Option<Self> {
        (protocol != detector::Protocol::Unknown).then_some(Self::Protocol(protocol))
    }
}

impl From<Flag> for String {
    fn from(flag: Flag) -> Self {
        flag.name().to_owned()
    }
}

impl TryFrom<String> for Flag {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| format!("unknown flag {name:?}"))
    }
}

//! What can make the machine decide, and what it can want done. Pure data: must never hold a
//! handle to anything.

use interfaces::detector;
use interfaces::loader::ModuleResult;
use interfaces::names::{ModuleAlias, ModuleName, UnitName};
use interfaces::orchestrator::{Device, Function};
use serde::{Deserialize, Serialize};

use super::Patience;
use crate::rules::Sources;

/// Everything that can make the machine decide.
#[derive(Clone, Debug)]
pub enum Event {
    /// The process has begun, with nothing known or with what a journal told.
    Begins(Patience),
    /// The detector answers, and begins to tell everything.
    SnapshotBegins,
    /// The detector tells a device: a new one, a changed one, or one that is known.
    Device(Box<detector::Device>),
    /// The detector says that a device is gone.
    DeviceGone(i64),
    /// The detector tells a function: a new one, a changed one, or one that is known.
    Function(Box<detector::Function>),
    /// The detector says that a function is gone.
    FunctionGone(String),
    /// The detector says that a kernel module is there now.
    ModuleThere(ModuleName),
    /// The detector says that a kernel module is no longer there.
    ModuleGone(ModuleName),
    /// At the beginning of a snapshot: every kernel module that is there.
    ModulesThere(Vec<ModuleName>),
    /// The detector has told everything.
    SnapshotEnds,
    /// The detector cannot be reached.
    DetectorLost,
    /// The loader's answer for a module.
    Module(Box<ModuleResult>),
    /// The loader's answer for the driver of a function.
    Driver {
        /// The function.
        function: String,
        /// What its driver was looked for by.
        modalias: ModuleAlias,
        /// Why an administrator keeps the driver from being loaded; absent where no line does.
        excluded: Option<String>,
    },
    /// The service manager can be asked, and has these of our targets; all others are inactive.
    Targets(Vec<(UnitName, UnitActivity)>),
    /// The service manager cannot be asked any more.
    ServiceManagerLost,
    /// The service manager has read its unit files again: what is masked may be another unit now.
    UnitFilesRead,
    /// What became of a job for one of our targets.
    Job(UnitName, Verb, JobOutcome),
    /// The state that one of our targets is in now.
    Target(UnitName, UnitActivity),
    /// A flag could not be written or removed, and why.
    FlagFailed(Flag, String),
    /// A time has come that [`Machine::next_deadline`](super::Machine::next_deadline) named.
    Deadline,
    /// The rules were read.
    Rules(Sources),
    /// Kernel modules were installed: what was missing may be there.
    ModulesInstalled,
    /// Somebody wants everything compared anew.
    Reconcile,
    /// Somebody wants nothing loaded or started, for this reason.
    Pause(String),
    /// The pause is over.
    Resume,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// To start the unit.
    Start,
    /// To stop it.
    Stop,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// It was not needed: the unit was as wanted.
    NotNeeded,
    /// It is done.
    Done,
    /// It ended otherwise, as in `JobRemoved` of `org.freedesktop.systemd1(5)`: `failed`,
    /// `timeout`, `dependency`, `canceled`, ...
    Ended(String),
    /// There was none: no such unit, a bad file; the service manager's sentence.
    NotBegun(String),
    /// There was none: an administrator has masked the unit.
    Masked,
    /// The service manager does not let us; its sentence.
    Refused(String),
}

/// What the machine has to know of a unit's `ActiveState` (`org.freedesktop.systemd1(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitActivity {
    /// `active`, `reloading`, `refreshing`.
    Active,
    /// `inactive`, or there is no such unit.
    Inactive,
    /// `failed`.
    Failed,
    /// On its way from one to another.
    Changing,
}

/// What PID 1 is told by a file that a path unit watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Flag {
    /// There is RDMA hardware, of whatever kind.
    Hardware,
    /// There is a port of this protocol.
    Infiniband,
    /// As above.
    Roce,
    /// As above.
    Iwarp,
    /// As above.
    Opa,
    /// As above.
    Usnic,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have these modules loaded, and tell the machine of each.
    Load {
        /// The modules, in the order of the rules.
        modules: Vec<ModuleName>,
        /// Why, for the loader's log.
        reason: String,
    },
    /// Have the loader asked for the driver of a function, and tell the machine what it says.
    AskDriver {
        /// The function.
        function: String,
        /// What the kernel looks for its driver by.
        modalias: ModuleAlias,
    },
    /// Have this target of ours started, and tell the machine what became of that.
    StartUnit {
        /// The target.
        unit: UnitName,
        /// Why, for the log.
        reason: String,
    },
    /// Have this target of ours stopped, and tell the machine what became of that.
    StopUnit {
        /// The target.
        unit: UnitName,
        /// Why, for the log.
        reason: String,
    },
    /// Write this flag, or take it away.
    SetFlag(Flag, bool),
    /// Tell the service manager that the start is complete.
    Started {
        /// What is still missing, for `systemctl status`.
        status: String,
    },
    /// Show this device's status.
    Publish(Box<Device>),
    /// Show this device no longer.
    Withdraw(i64),
    /// Show this function's status.
    PublishFunction(Box<Function>),
    /// Show this function no longer.
    WithdrawFunction(String),
    /// Say that what is shown is all that there is: the detector has told everything.
    Known,
    /// Say that everything is settled, or is not any more.
    Settled(bool),
}

impl Action {
    /// Whether this is a decision that a journal keeps. What is shown follows from the state.
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
    /// Every flag.
    pub const ALL: [Self; 6] = [
        Self::Hardware,
        Self::Infiniband,
        Self::Roce,
        Self::Iwarp,
        Self::Opa,
        Self::Usnic,
    ];

    /// The name of its file, and for a protocol of the instance of `rdma-hotplug@.path`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Infiniband => "infiniband",
            Self::Roce => "roce",
            Self::Iwarp => "iwarp",
            Self::Opa => "opa",
            Self::Usnic => "usnic",
        }
    }

    /// The target that PID 1 starts for it.
    #[must_use]
    pub fn target(self) -> String {
        match self {
            Self::Hardware => "rdma-hotplug-hardware.target".to_owned(),
            protocol => format!("rdma-hotplug@{}.target", protocol.name()),
        }
    }

    /// The flag of a protocol, which a port of no known one has not.
    #[must_use]
    pub fn of(protocol: detector::Protocol) -> Option<Self> {
        match protocol {
            detector::Protocol::Infiniband => Some(Self::Infiniband),
            detector::Protocol::Roce => Some(Self::Roce),
            detector::Protocol::Iwarp => Some(Self::Iwarp),
            detector::Protocol::Opa => Some(Self::Opa),
            detector::Protocol::Usnic => Some(Self::Usnic),
            detector::Protocol::Unknown => None,
        }
    }
}

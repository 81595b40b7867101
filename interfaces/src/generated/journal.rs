//! The records of the journal, made from `proto/journal.proto` by `tests/freshness.rs`. Must
//! never be edited by hand.

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Record {
    /// The time in µs of CLOCK_MONOTONIC. Decisions depend on this time.
    #[prost(int64, tag = "1")]
    pub monotonic_usec: i64,
    /// The time in µs of CLOCK_REALTIME. It is only shown to users.
    #[prost(int64, tag = "2")]
    pub realtime_usec: i64,
    #[prost(oneof = "record::What", tags = "3, 4, 5")]
    pub what: ::core::option::Option<record::What>,
}
/// Nested message and enum types in `Record`.
pub mod record {
    #[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum What {
        #[prost(message, tag = "3")]
        Checkpoint(super::Checkpoint),
        #[prost(message, tag = "4")]
        Event(super::Event),
        #[prost(message, tag = "5")]
        Decision(super::Decision),
    }
}
/// The state before the events that follow.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Checkpoint {
    /// The version of the program that wrote the checkpoint.
    #[prost(string, tag = "1")]
    pub version: ::prost::alloc::string::String,
    /// The state, as JSON. Only the same version can read it.
    #[prost(string, tag = "2")]
    pub state: ::prost::alloc::string::String,
}
/// An event that the orchestrator received.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Event {
    #[prost(oneof = "event::Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26")]
    pub kind: ::core::option::Option<event::Kind>,
}
/// Nested message and enum types in `Event`.
pub mod event {
    #[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum Kind {
        #[prost(message, tag = "1")]
        Begins(super::Begins),
        #[prost(message, tag = "2")]
        SnapshotBegins(()),
        /// org.rdmahotplug.Detector: Device
        #[prost(string, tag = "3")]
        Device(::prost::alloc::string::String),
        /// The device's kernel index.
        #[prost(int64, tag = "4")]
        DeviceGone(i64),
        /// org.rdmahotplug.Detector: Function
        #[prost(string, tag = "5")]
        Function(::prost::alloc::string::String),
        /// The function's name.
        #[prost(string, tag = "6")]
        FunctionGone(::prost::alloc::string::String),
        /// The kernel module's name.
        #[prost(string, tag = "7")]
        ModuleGone(::prost::alloc::string::String),
        #[prost(message, tag = "8")]
        SnapshotEnds(()),
        #[prost(message, tag = "9")]
        DetectorLost(()),
        /// org.rdmahotplug.Loader: ModuleResult
        #[prost(string, tag = "10")]
        Module(::prost::alloc::string::String),
        /// 11 was the state of the connection to the service manager.
        #[prost(message, tag = "12")]
        Job(super::Job),
        #[prost(message, tag = "13")]
        Unit(super::Unit),
        #[prost(message, tag = "14")]
        Deadline(()),
        #[prost(message, tag = "15")]
        Rules(super::Sources),
        #[prost(message, tag = "16")]
        Reconcile(()),
        /// The reason.
        #[prost(string, tag = "17")]
        Pause(::prost::alloc::string::String),
        #[prost(message, tag = "18")]
        Resume(()),
        /// The kernel module's name.
        #[prost(string, tag = "19")]
        ModuleThere(::prost::alloc::string::String),
        #[prost(message, tag = "20")]
        ModulesInstalled(()),
        /// The service manager is connected, and has these targets of ours.
        #[prost(message, tag = "21")]
        Targets(super::Units),
        #[prost(message, tag = "22")]
        FlagFailed(super::FlagFailed),
        /// The connection to the service manager is lost.
        #[prost(message, tag = "23")]
        ServiceManagerLost(()),
        /// The live kernel modules that belong to a wanted module.
        #[prost(message, tag = "24")]
        ModulesThere(super::Modules),
        /// The service manager has read its unit files again.
        #[prost(message, tag = "25")]
        UnitFilesRead(()),
        #[prost(message, tag = "26")]
        Driver(super::Driver),
    }
}
/// The loader's reply for the driver of a function.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Driver {
    #[prost(string, tag = "1")]
    pub function: ::prost::alloc::string::String,
    /// The modalias that the driver was looked up with.
    #[prost(string, tag = "2")]
    pub modalias: ::prost::alloc::string::String,
    /// The reason why an administrator excludes the driver. Absent if no line excludes it.
    #[prost(string, optional, tag = "3")]
    pub excluded: ::core::option::Option<::prost::alloc::string::String>,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Modules {
    #[prost(string, repeated, tag = "1")]
    pub names: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
}
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Units {
    #[prost(message, repeated, tag = "1")]
    pub units: ::prost::alloc::vec::Vec<Unit>,
}
/// The failed write or removal of a flag.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct FlagFailed {
    /// The name of the flag's file.
    #[prost(string, tag = "1")]
    pub flag: ::prost::alloc::string::String,
    /// The error.
    #[prost(string, tag = "2")]
    pub error: ::prost::alloc::string::String,
}
/// The start of a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Begins {
    /// The timeouts, in µs: of the start, of a function until it is stuck, and of a function without
    /// changes during the start.
    #[prost(int64, tag = "1")]
    pub start: i64,
    #[prost(int64, tag = "2")]
    pub function: i64,
    #[prost(int64, tag = "3")]
    pub driver: i64,
}
/// The result of a job.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Job {
    #[prost(string, tag = "1")]
    pub unit: ::prost::alloc::string::String,
    #[prost(enumeration = "job::Verb", tag = "6")]
    pub verb: i32,
    #[prost(oneof = "job::Outcome", tags = "2, 3, 4, 5, 7, 8")]
    pub outcome: ::core::option::Option<job::Outcome>,
}
/// Nested message and enum types in `Job`.
pub mod job {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
    #[repr(i32)]
    pub enum Verb {
        Unspecified = 0,
        Start = 1,
        Stop = 2,
    }
    impl Verb {
        /// String value of the enum field names used in the ProtoBuf definition.
        ///
        /// The values are not transformed in any way and thus are considered stable
        /// (if the ProtoBuf definition does not change) and safe for programmatic use.
        pub fn as_str_name(&self) -> &'static str {
            match self {
                Self::Unspecified => "VERB_UNSPECIFIED",
                Self::Start => "VERB_START",
                Self::Stop => "VERB_STOP",
            }
        }
        /// Creates an enum from field names used in the ProtoBuf definition.
        pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
            match value {
                "VERB_UNSPECIFIED" => Some(Self::Unspecified),
                "VERB_START" => Some(Self::Start),
                "VERB_STOP" => Some(Self::Stop),
                _ => None,
            }
        }
    }
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum Outcome {
        #[prost(message, tag = "2")]
        NotNeeded(()),
        #[prost(message, tag = "3")]
        Done(()),
        /// The result, as in JobRemoved of org.freedesktop.systemd1.
        #[prost(string, tag = "4")]
        Ended(::prost::alloc::string::String),
        /// The service manager's message, if it denied the request.
        #[prost(string, tag = "5")]
        Refused(::prost::alloc::string::String),
        /// The service manager's message, if it did not create the job.
        #[prost(string, tag = "7")]
        NotBegun(::prost::alloc::string::String),
        /// No job was created, because the unit is masked.
        #[prost(message, tag = "8")]
        Masked(()),
    }
}
/// The state of a unit.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Unit {
    #[prost(string, tag = "1")]
    pub unit: ::prost::alloc::string::String,
    #[prost(enumeration = "unit::Activity", tag = "2")]
    pub activity: i32,
}
/// Nested message and enum types in `Unit`.
pub mod unit {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
    #[repr(i32)]
    pub enum Activity {
        Unspecified = 0,
        Active = 1,
        Inactive = 2,
        Failed = 3,
        Changing = 4,
    }
    impl Activity {
        /// String value of the enum field names used in the ProtoBuf definition.
        ///
        /// The values are not transformed in any way and thus are considered stable
        /// (if the ProtoBuf definition does not change) and safe for programmatic use.
        pub fn as_str_name(&self) -> &'static str {
            match self {
                Self::Unspecified => "ACTIVITY_UNSPECIFIED",
                Self::Active => "ACTIVITY_ACTIVE",
                Self::Inactive => "ACTIVITY_INACTIVE",
                Self::Failed => "ACTIVITY_FAILED",
                Self::Changing => "ACTIVITY_CHANGING",
            }
        }
        /// Creates an enum from field names used in the ProtoBuf definition.
        pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
            match value {
                "ACTIVITY_UNSPECIFIED" => Some(Self::Unspecified),
                "ACTIVITY_ACTIVE" => Some(Self::Active),
                "ACTIVITY_INACTIVE" => Some(Self::Inactive),
                "ACTIVITY_FAILED" => Some(Self::Failed),
                "ACTIVITY_CHANGING" => Some(Self::Changing),
                _ => None,
            }
        }
    }
}
/// The files that contain the rules.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Sources {
    #[prost(message, repeated, tag = "1")]
    pub rules: ::prost::alloc::vec::Vec<Source>,
    #[prost(message, repeated, tag = "2")]
    pub lists: ::prost::alloc::vec::Vec<Source>,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Source {
    #[prost(string, tag = "1")]
    pub path: ::prost::alloc::string::String,
    #[prost(oneof = "source::Text", tags = "2, 3")]
    pub text: ::core::option::Option<source::Text>,
}
/// Nested message and enum types in `Source`.
pub mod source {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum Text {
        #[prost(string, tag = "2")]
        Content(::prost::alloc::string::String),
        /// The reason why the file cannot be read.
        #[prost(string, tag = "3")]
        Error(::prost::alloc::string::String),
    }
}
/// A decision of the orchestrator.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Decision {
    #[prost(oneof = "decision::Kind", tags = "1, 2, 3, 5, 6, 7")]
    pub kind: ::core::option::Option<decision::Kind>,
}
/// Nested message and enum types in `Decision`.
pub mod decision {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum Kind {
        #[prost(message, tag = "1")]
        Load(super::Load),
        #[prost(message, tag = "2")]
        StartUnit(super::UnitJob),
        #[prost(message, tag = "3")]
        StopUnit(super::UnitJob),
        #[prost(message, tag = "5")]
        SetFlag(super::SetFlag),
        /// The status at the end of the start.
        #[prost(string, tag = "6")]
        Started(::prost::alloc::string::String),
        #[prost(message, tag = "7")]
        QueryDriver(super::QueryDriver),
    }
}
/// A query to the loader for the driver of a function.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct QueryDriver {
    #[prost(string, tag = "1")]
    pub function: ::prost::alloc::string::String,
    /// The modalias that the driver is looked up with.
    #[prost(string, tag = "2")]
    pub modalias: ::prost::alloc::string::String,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Load {
    #[prost(string, repeated, tag = "1")]
    pub modules: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    #[prost(string, tag = "2")]
    pub reason: ::prost::alloc::string::String,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct UnitJob {
    #[prost(string, tag = "1")]
    pub unit: ::prost::alloc::string::String,
    #[prost(string, tag = "2")]
    pub reason: ::prost::alloc::string::String,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SetFlag {
    /// The name of the flag's file.
    #[prost(string, tag = "1")]
    pub flag: ::prost::alloc::string::String,
    #[prost(bool, tag = "2")]
    pub up: bool,
}

//! The contract of the orchestrator, `org.rdmahotplug.Orchestrator`. Pure. Must never hold anything
//! that is not in its interface file.

use crate::Interface;
pub use crate::generated::orchestrator::*;

/// The interface as it is served.
pub const INTERFACE: Interface = Interface {
    name: "org.rdmahotplug.Orchestrator",
    text: include_str!("../varlink/org.rdmahotplug.Orchestrator.varlink"),
};

/// Lists the RDMA devices with their status.
pub const LIST: &str = "org.rdmahotplug.Orchestrator.List";
/// Subscribes to the status of the RDMA devices.
pub const SUBSCRIBE_STATUS: &str = "org.rdmahotplug.Orchestrator.SubscribeStatus";
/// Returns the overall state.
pub const DESCRIBE: &str = "org.rdmahotplug.Orchestrator.Describe";
/// No device matches, or there are no devices.
pub const NO_SUCH_DEVICE: &str = "org.rdmahotplug.Orchestrator.NoSuchDevice";
/// Explains the status of a device.
pub const EXPLAIN: &str = "org.rdmahotplug.Orchestrator.Explain";
/// Waits for a device, or until everything is settled.
pub const WAIT: &str = "org.rdmahotplug.Orchestrator.Wait";
/// Compares the desired state with the actual state.
pub const RECONCILE: &str = "org.rdmahotplug.Orchestrator.Reconcile";
/// Stops loading modules and starting units until a resume.
pub const PAUSE: &str = "org.rdmahotplug.Orchestrator.Pause";
/// Ends a pause.
pub const RESUME: &str = "org.rdmahotplug.Orchestrator.Resume";
/// Lists the records of the journal.
pub const LIST_HISTORY: &str = "org.rdmahotplug.Orchestrator.ListHistory";
/// The timeout of a wait has expired.
pub const WAIT_TIMED_OUT: &str = "org.rdmahotplug.Orchestrator.WaitTimedOut";
/// Nothing is paused.
pub const NOT_PAUSED: &str = "org.rdmahotplug.Orchestrator.NotPaused";
/// Lists the functions that have no device yet.
pub const LIST_FUNCTIONS: &str = "org.rdmahotplug.Orchestrator.ListFunctions";
/// Shows which devices and functions need a module, and its outcome.
pub const EXPLAIN_MODULE: &str = "org.rdmahotplug.Orchestrator.ExplainModule";
/// Shows what the loader would do with a module.
pub const PLAN_MODULE: &str = "org.rdmahotplug.Orchestrator.PlanModule";
/// Lists the modules that the loader's policy names.
pub const LIST_POLICY: &str = "org.rdmahotplug.Orchestrator.ListPolicy";
/// The loader cannot be reached, or cannot reply.
pub const LOADER_UNAVAILABLE: &str = "org.rdmahotplug.Orchestrator.LoaderUnavailable";
/// Every function has a device.
pub const NO_SUCH_FUNCTION: &str = "org.rdmahotplug.Orchestrator.NoSuchFunction";
/// No device and no function needs a module of this name.
pub const NO_SUCH_MODULE: &str = "org.rdmahotplug.Orchestrator.NoSuchModule";
/// The journal has no such record.
pub const NO_SUCH_RECORD: &str = "org.rdmahotplug.Orchestrator.NoSuchRecord";

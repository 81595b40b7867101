//! The contract of the orchestrator, `org.rdmahotplug.Orchestrator`. Must never hold anything
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
/// Follows the status of the RDMA devices.
pub const SUBSCRIBE_STATUS: &str = "org.rdmahotplug.Orchestrator.SubscribeStatus";
/// The state of the whole.
pub const DESCRIBE: &str = "org.rdmahotplug.Orchestrator.Describe";
/// No device matches, or there is none at all.
pub const NO_SUCH_DEVICE: &str = "org.rdmahotplug.Orchestrator.NoSuchDevice";

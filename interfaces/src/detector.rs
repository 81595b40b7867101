//! The contract of the detector, `org.rdmahotplug.Detector`. Must never hold anything that is
//! not in its interface file.

use crate::Interface;
pub use crate::generated::detector::*;

/// The interface as it is served.
pub const INTERFACE: Interface = Interface {
    name: "org.rdmahotplug.Detector",
    text: include_str!("../varlink/org.rdmahotplug.Detector.varlink"),
};

/// Lists the RDMA devices.
pub const LIST: &str = "org.rdmahotplug.Detector.List";
/// Lists the functions that RDMA devices come from.
pub const LIST_FUNCTIONS: &str = "org.rdmahotplug.Detector.ListFunctions";
/// Follows the RDMA devices and functions.
pub const SUBSCRIBE_DEVICES: &str = "org.rdmahotplug.Detector.SubscribeDevices";
/// Looks at the kernel once more.
pub const SYNCHRONIZE: &str = "org.rdmahotplug.Detector.Synchronize";
/// Counters, and what can be seen.
pub const DESCRIBE: &str = "org.rdmahotplug.Detector.Describe";
/// The kernel could not be asked.
pub const NOT_SYNCHRONIZED: &str = "org.rdmahotplug.Detector.NotSynchronized";
/// No device matches, or there is none at all.
pub const NO_SUCH_DEVICE: &str = "org.rdmahotplug.Detector.NoSuchDevice";
/// No function matches, or there is none at all.
pub const NO_SUCH_FUNCTION: &str = "org.rdmahotplug.Detector.NoSuchFunction";

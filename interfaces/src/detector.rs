//! The contract of the detector, `org.rdmahotplug.Detector`. Pure. Must never hold anything that is
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
/// Lists the functions that RDMA devices are made from.
pub const LIST_FUNCTIONS: &str = "org.rdmahotplug.Detector.ListFunctions";
/// Subscribes to the RDMA devices and functions.
pub const SUBSCRIBE_DEVICES: &str = "org.rdmahotplug.Detector.SubscribeDevices";
/// Scans the kernel's devices again.
pub const SYNCHRONIZE: &str = "org.rdmahotplug.Detector.Synchronize";
/// Returns the detector's counters, and the kernel features that it sees.
pub const DESCRIBE: &str = "org.rdmahotplug.Detector.Describe";
/// The kernel could not be queried.
pub const NOT_SYNCHRONIZED: &str = "org.rdmahotplug.Detector.NotSynchronized";
/// No device matches, or there are no devices.
pub const NO_SUCH_DEVICE: &str = "org.rdmahotplug.Detector.NoSuchDevice";
/// No function matches, or there are no functions.
pub const NO_SUCH_FUNCTION: &str = "org.rdmahotplug.Detector.NoSuchFunction";

//! The progress of reading one device: the results so far, and the current request. Pure.
//! Responsible for keeping the results of a reading that hangs. Must never decide how long a
//! reading may take.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interfaces::names::DeviceName;

use crate::device::{SysfsDevice, SysfsPort};
use crate::nldev::NldevPort;
use crate::refusal::Refusal;

/// A request to the kernel that a device's driver or firmware may have to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// The settings of the RDMA core.
    #[default]
    System,
    /// The list of all devices.
    List,
    /// The list entry of one device.
    Entry,
    /// The ports of one device.
    Ports,
    /// An attribute of the device.
    Attribute(&'static str),
    /// An attribute of the port with this number.
    OfPort(u32, &'static str),
    /// The type of the GID at this index in the table of the port with this number.
    GidType(u32, u32),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("NETLINK_RDMA system"),
            Self::List => f.write_str("NETLINK_RDMA device dump"),
            Self::Entry => f.write_str("NETLINK_RDMA device"),
            Self::Ports => f.write_str("NETLINK_RDMA port dump"),
            Self::Attribute(name) => f.write_str(name),
            Self::OfPort(port, name) => write!(f, "ports/{port}/{name}"),
            Self::GidType(port, place) => write!(f, "ports/{port}/gid_attrs/types/{place}"),
        }
    }
}

/// The results of reading one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The name under which it was read.
    pub name: Option<DeviceName>,
    /// The ports in the order of their numbers, if they are known.
    pub ports: Option<Arc<[NldevPort]>>,
    /// The ports that were left out.
    pub refused: Vec<Refusal>,
    /// The data from sysfs.
    pub sysfs: SysfsDevice,
    /// True if only the ports were read, because they have not changed.
    pub same: bool,
}

/// A reading in progress, shared by two threads: one reads, and the other checks the progress.
#[derive(Debug, Default)]
pub struct Progress(Mutex<(Step, Reading)>);

impl Progress {
    /// Begins a reading without results.
    pub fn begin(&self, step: Step) {
        *self.lock() = (step, Reading::default());
    }

    /// Records the next request.
    pub fn asks(&self, step: Step) {
        self.lock().0 = step;
    }

    /// Records a result.
    pub fn learns(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.lock().1);
    }

    /// Records data of a port from sysfs.
    pub fn learns_of_port(&self, number: u32, change: impl FnOnce(&mut SysfsPort)) {
        self.learns(|reading| change(reading.sysfs.ports.entry(number).or_default()));
    }

    /// Returns the current request, and the results so far.
    #[must_use]
    pub fn so_far(&self) -> (Step, Reading) {
        self.lock().clone()
    }

    /// Takes the results.
    #[must_use]
    pub fn take(&self) -> Reading {
        std::mem::take(&mut self.lock().1)
    }

    fn lock(&self) -> MutexGuard<'_, (Step, Reading)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

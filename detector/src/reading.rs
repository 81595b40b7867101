//! One device being read: what was learned of it so far, and what is asked just now. Pure.
//! Responsible for a reading that hangs being of use up to there. Must never decide how long that
//! may take.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interfaces::names::DeviceName;

use crate::device::{SysfsDevice, SysfsPort};
use crate::nldev::NldevPort;
use crate::refusal::Refusal;

/// A question to the kernel that a device's driver or firmware may have to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// How the RDMA core is set up.
    #[default]
    System,
    /// The list of all devices.
    List,
    /// What the list says of one device.
    Entry,
    /// The ports of one device.
    Ports,
    /// An attribute of the device.
    Attribute(&'static str),
    /// An attribute of the port with this number.
    OfPort(u32, &'static str),
    /// The type of the GID in this place of the table of the port with this number.
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

/// What was learned of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The name under which it was read.
    pub name: Option<DeviceName>,
    /// Its ports in the order of their numbers, if they are known.
    pub ports: Option<Arc<[NldevPort]>>,
    /// The ports that were left out.
    pub refused: Vec<Refusal>,
    /// What sysfs says.
    pub sysfs: SysfsDevice,
    /// Whether nothing but the ports was read, because they are as they were.
    pub same: bool,
}

/// A reading under way, for two threads: one reads, and one sees how far that has come.
#[derive(Debug, Default)]
pub struct Progress(Mutex<(Step, Reading)>);

impl Progress {
    /// Begins with nothing learned.
    pub fn begin(&self, step: Step) {
        *self.lock() = (step, Reading::default());
    }

    /// Notes what is asked next.
    pub fn asks(&self, step: Step) {
        self.lock().0 = step;
    }

    /// Notes what was answered.
    pub fn learns(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.lock().1);
    }

    /// Notes what sysfs says of a port.
    pub fn learns_of_port(&self, number: u32, change: impl FnOnce(&mut SysfsPort)) {
        self.learns(|reading| change(reading.sysfs.ports.entry(number).or_default()));
    }

    /// What is asked just now, and what was learned until then.
    #[must_use]
    pub fn so_far(&self) -> (Step, Reading) {
        self.lock().clone()
    }

    /// Takes what was learned.
    #[must_use]
    pub fn take(&self) -> Reading {
        std::mem::take(&mut self.lock().1)
    }

    fn lock(&self) -> MutexGuard<'_, (Step, Reading)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

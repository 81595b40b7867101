//! The objects to scan after events. Pure. Events only report that a change happened. The pending
//! set holds the places to scan, and the kernel provides the state. Must never grow without limit:
//! if there are too many objects to list, everything is pending.

use std::collections::{BTreeMap, BTreeSet};

use crate::function;
use crate::uevent::{Uevent, last_component};

/// The maximum number of listed objects. With more, everything is read again.
const MAX_NAMED: usize = 16_384;

/// The pending set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Everything, including cached data: at the start, and after events were lost.
    pub everything: bool,
    /// The list of devices, and the state and network interface of each port: changes that the
    /// kernel does not always announce.
    pub ports: bool,
    /// The records of the devices with these names.
    pub names: BTreeSet<String>,
    /// The records of the devices with these indexes.
    pub indexes: BTreeSet<u32>,
    /// The nodes with these names.
    pub nodes: BTreeSet<String>,
    /// All nodes.
    pub all_nodes: bool,
    /// The functions at these paths.
    pub functions: BTreeSet<String>,
    /// All functions.
    pub all_functions: bool,
    /// The kernel modules with these names, which were added or removed.
    pub modules: BTreeSet<String>,
    /// The names with which devices were registered, by their current names.
    pub kernel_names: BTreeMap<String, String>,
}

impl Pending {
    /// Returns a set with everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Returns a set with the changes that the kernel does not always announce.
    #[must_use]
    pub fn periodic() -> Self {
        Self {
            ports: true,
            ..Self::default()
        }
    }

    /// Returns a set with all changes that an event can report, for use when an event may have been
    /// missed. Data of a device that changes without an event is not included.
    #[must_use]
    pub fn uncertain() -> Self {
        Self {
            all_nodes: true,
            all_functions: true,
            ..Self::periodic()
        }
    }

    /// Returns true if all devices are pending, not only listed ones.
    #[must_use]
    pub fn is_of_all(&self) -> bool {
        self.everything || self.ports || self.all_nodes
    }

    /// Returns true if nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the record of the device with this index and name must be read.
    #[must_use]
    pub fn names_device(&self, index: u32, name: &str) -> bool {
        self.names.contains(name) || self.indexes.contains(&index)
    }

    /// Adds an event of the kernel.
    pub fn uevent(&mut self, uevent: &Uevent) {
        let name = uevent.name().to_owned();
        match uevent.subsystem {
            "infiniband" => self.device(uevent, name),
            "infiniband_verbs" | "infiniband_mad" => {
                self.nodes.insert(name);
            }
            "pci" | "auxiliary" => {
                self.functions.insert(uevent.devpath.to_owned());
            }
            // A network interface that is added, removed or renamed may belong to any port.
            "net" => self.ports = true,
            // rdma_cm belongs to no device. Its presence shows that ib_core is present.
            "misc" if name == "rdma_cm" => self.ports = true,
            "module" => self.module(name),
            _ => {}
        }
        self.bound();
    }

    fn device(&mut self, uevent: &Uevent, name: String) {
        match uevent.action {
            "add" => {
                self.kernel_names.insert(name.clone(), name.clone());
            }
            "move" => {
                let old = uevent.devpath_old.map(last_component).unwrap_or_default();
                if let Some(registered) = self.kernel_names.remove(old) {
                    self.kernel_names.insert(name.clone(), registered);
                }
                self.names.insert(old.to_owned());
            }
            "remove" => {
                self.kernel_names.remove(&name);
            }
            _ => {}
        }
        self.names.insert(name);
    }

    /// Adds a module. Some modules decide the state of functions, and ib_core removes all devices
    /// with it.
    fn module(&mut self, name: String) {
        match name.as_str() {
            "ib_core" => {
                let modules = std::mem::take(&mut self.modules);
                *self = Self {
                    modules,
                    ..Self::everything()
                };
            }
            name if function::is_protocol_module(name) => self.all_functions = true,
            _ => {}
        }
        self.modules.insert(name);
    }

    /// Adds a message of the kernel's monitor. A message without an index may concern any device.
    pub fn monitored(&mut self, index: Option<u32>) {
        match index {
            Some(index) => {
                self.indexes.insert(index);
            }
            None => self.ports = true,
        }
        self.bound();
    }

    /// Adds the set of a failed scan again. Events since then are newer and take precedence.
    pub fn merge(&mut self, before: Self) {
        self.everything |= before.everything;
        self.ports |= before.ports;
        self.all_nodes |= before.all_nodes;
        self.all_functions |= before.all_functions;
        self.names.extend(before.names);
        self.indexes.extend(before.indexes);
        self.nodes.extend(before.nodes);
        self.functions.extend(before.functions);
        self.modules.extend(before.modules);
        for (name, registered) in before.kernel_names {
            self.kernel_names.entry(name).or_insert(registered);
        }
        self.bound();
    }

    fn bound(&mut self) {
        let named = self.names.len() + self.indexes.len() + self.nodes.len();
        let more = self.functions.len() + self.modules.len() + self.kernel_names.len();
        if named + more > MAX_NAMED {
            *self = Self::everything();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: &[(&str, &str, &str, Option<&str>)]) -> Pending {
        let mut pending = Pending::default();
        for (action, devpath, subsystem, devpath_old) in events {
            pending.uevent(&Uevent {
                action,
                devpath,
                devpath_old: *devpath_old,
                subsystem,
                sequence: 1,
            });
        }
        pending
    }

    #[test]
    fn events_of_other_subsystems_leave_nothing_to_scan() {
        let block = after(&[("add", "/devices/a/block/sda", "block", None)]);
        assert!(block.is_empty());
        assert!(after(&[("change", "/bus/usb", "bus", None)]).is_empty());
    }

    #[test]
    fn the_registration_name_follows_its_device_through_renames() {
        let pending = after(&[
            ("add", "/devices/a/infiniband/mlx5_0", "infiniband", None),
            (
                "move",
                "/devices/a/infiniband/roce0",
                "infiniband",
                Some("/devices/a/infiniband/mlx5_0"),
            ),
            ("add", "/devices/b/infiniband/mlx5_0", "infiniband", None),
        ]);
        let names: Vec<(&str, &str)> = pending
            .kernel_names
            .iter()
            .map(|(name, registered)| (name.as_str(), registered.as_str()))
            .collect();
        assert_eq!(names, [("mlx5_0", "mlx5_0"), ("roce0", "mlx5_0")]);
        assert_eq!(pending.names.len(), 2);
    }

    #[test]
    fn too_many_pending_names_become_a_scan_of_everything() {
        let mut pending = Pending::default();
        for number in 0..100_000 {
            let devpath = format!("/devices/virtual/infiniband/rxe{number}");
            pending.uevent(&Uevent {
                action: "add",
                devpath: &devpath,
                devpath_old: None,
                subsystem: "infiniband",
                sequence: number,
            });
            assert!(pending.names.len() <= MAX_NAMED);
        }
        assert!(pending.everything);
    }

    #[test]
    fn a_failed_scan_is_repeated_together_with_newer_events() {
        let mut pending = after(&[("add", "/devices/x/pci1", "pci", None)]);
        pending.merge(after(&[(
            "add",
            "/devices/a/infiniband/rxe0",
            "infiniband",
            None,
        )]));
        assert!(pending.names.contains("rxe0"));
        assert!(pending.functions.contains("/devices/x/pci1"));
        assert_eq!(pending.kernel_names["rxe0"], "rxe0");
    }
}

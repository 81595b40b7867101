//! What is to be looked at because of what was heard. Pure. Events only say that something
//! happened: what is collected here is where to look, and what is there the kernel says. Must
//! never grow without bound: too much to name is everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::function;
use crate::uevent::{Uevent, last_component};

/// So many single objects are named; with more, everything is read anew.
const MOST_NAMED: usize = 16_384;

/// What is to be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Everything, whatever was known of it: at the start, and when events were lost.
    pub everything: bool,
    /// Which devices there are, and the state and network interface of every port: what the
    /// kernel does not always tell of.
    pub ports: bool,
    /// The records of the devices with these names.
    pub names: BTreeSet<String>,
    /// The records of the devices with these indexes.
    pub indexes: BTreeSet<u32>,
    /// These nodes.
    pub nodes: BTreeSet<String>,
    /// Every node.
    pub all_nodes: bool,
    /// The functions at these paths.
    pub functions: BTreeSet<String>,
    /// Every function.
    pub all_functions: bool,
    /// These kernel modules: whether each is there.
    pub modules: BTreeSet<String>,
    /// For devices by their present name: the name that they were registered under.
    pub kernel_names: BTreeMap<String, String>,
}

impl Pending {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// What the kernel does not always tell of.
    #[must_use]
    pub fn unasked() -> Self {
        Self {
            ports: true,
            ..Self::default()
        }
    }

    /// Whatever an event can tell of, when there may have been one that was not heard. Of a
    /// record that leaves out what changes with none.
    #[must_use]
    pub fn doubtful() -> Self {
        Self {
            all_nodes: true,
            all_functions: true,
            ..Self::unasked()
        }
    }

    /// Whether it is of all devices, and not of those alone that are named.
    #[must_use]
    pub fn is_of_all(&self) -> bool {
        self.everything || self.ports || self.all_nodes
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the record of the device with this index and name is to be read.
    #[must_use]
    pub fn names_device(&self, index: u32, name: &str) -> bool {
        self.names.contains(name) || self.indexes.contains(&index)
    }

    /// Takes in an event of the kernel.
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
            // A network interface that comes, goes or is renamed may be behind any port.
            "net" => self.ports = true,
            // rdma_cm is of no device; that it is there says that ib_core is.
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

    /// Modules that make functions what they are, or take the devices of all of them along.
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

    /// Takes in what the kernel's monitor says of a device; without an index it is of none.
    pub fn monitored(&mut self, index: Option<u32>) {
        match index {
            Some(index) => {
                self.indexes.insert(index);
            }
            None => self.ports = true,
        }
        self.bound();
    }

    /// Takes in what is to be looked at still, because looking at it failed. What was heard
    /// since then is newer.
    pub fn again(&mut self, before: Self) {
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
        if named + more > MOST_NAMED {
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
    fn what_does_not_concern_rdma_leaves_nothing_to_look_at() {
        let block = after(&[("add", "/devices/a/block/sda", "block", None)]);
        assert!(block.is_empty());
        assert!(after(&[("change", "/bus/usb", "bus", None)]).is_empty());
    }

    #[test]
    fn the_name_of_the_registration_follows_its_device_through_renames() {
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
    fn too_much_to_name_is_everything() {
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
            assert!(pending.names.len() <= MOST_NAMED);
        }
        assert!(pending.everything);
    }

    #[test]
    fn what_failed_is_looked_at_again_beside_what_came_since() {
        let mut pending = after(&[("add", "/devices/x/pci1", "pci", None)]);
        pending.again(after(&[(
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

//! The nodes as they were last read, and whose are others by now. Responsible for whose record a
//! node that came, went or changed its owner makes stale. Must never be asked of a device whose
//! name may have changed since without being told so.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::{self, DeviceNodes, Node};
use crate::refusal::Refusal;
use crate::sysfs::Sysfs;

/// The most nodes that are kept: of 4096 devices with one port each there are 12,288.
const MAX_NODES: usize = 65_536;

/// Every node.
#[derive(Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<String, Node>,
    /// The names of the devices whose nodes are others than when their records were read.
    stale: BTreeSet<String>,
}

impl Nodes {
    /// Whether the record of this device was read with other nodes.
    pub(super) fn are_others(&self, device: &str) -> bool {
        self.stale.contains(device)
    }

    /// Every stale record was read.
    pub(super) fn are_told(&mut self) {
        self.stale.clear();
    }

    /// The names of the devices that nodes belong to.
    pub(super) fn owners(&self) -> BTreeSet<String> {
        let owners = self.nodes.values().map(|node| node.device.clone());
        owners.collect()
    }

    /// Those of the devices with these names.
    pub(super) fn of(&self, devices: &BTreeSet<&str>) -> BTreeMap<&str, DeviceNodes> {
        match devices.is_empty() {
            true => BTreeMap::new(),
            false => node::by_device(&self.nodes, devices),
        }
    }

    /// Reads all of them, and says which were left out.
    pub(super) fn read_all(&mut self, sysfs: &Sysfs) -> Vec<Refusal> {
        let known = self.nodes.keys().cloned();
        let (names, refused) = sysfs.node_names();
        let all = known.chain(names).collect();
        self.read(sysfs, &all);
        refused
    }

    /// Reads those that belong to one of these devices, as far as is known.
    pub(super) fn read_of(&mut self, sysfs: &Sysfs, devices: &BTreeSet<String>) {
        if devices.is_empty() {
            return;
        }
        let nodes = self.nodes.iter();
        let theirs = nodes.filter(|(_, node)| devices.contains(&node.device));
        let theirs = theirs.map(|(name, _)| name.clone()).collect();
        self.read(sysfs, &theirs);
    }

    /// Reads those with these names.
    pub(super) fn read(&mut self, sysfs: &Sysfs, names: &BTreeSet<String>) {
        for name in names {
            let node = sysfs.node(name);
            let before = self.nodes.remove(name);
            if before != node {
                let owners = before.iter().chain(&node);
                self.stale.extend(owners.map(|node| node.device.clone()));
            }
            // More than this are not of devices that are published.
            if self.nodes.len() < MAX_NODES {
                self.nodes.extend(node.map(|node| (name.clone(), node)));
            }
        }
    }
}

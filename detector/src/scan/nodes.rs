//! The cached nodes, and the devices whose nodes have changed. Responsible for marking the record
//! of a device as stale when a node is added, removed or changes its owner. Must never be queried
//! for a device that may have been renamed, unless its nodes were read again.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::{self, DeviceNodes, Node};
use crate::refusal::Refusal;
use crate::sysfs::Sysfs;

/// The maximum number of cached nodes. 4096 devices with one port each have 12,288.
const MAX_NODES: usize = 65_536;

/// All nodes.
#[derive(Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<String, Node>,
    /// The names of the devices whose nodes have changed since their records were read.
    stale: BTreeSet<String>,
}

impl Nodes {
    /// Returns true if the nodes of this device have changed since its record was read.
    pub(super) fn are_others(&self, device: &str) -> bool {
        self.stale.contains(device)
    }

    /// Records that all stale records were read.
    pub(super) fn are_reported(&mut self) {
        self.stale.clear();
    }

    /// Returns the names of the devices that have nodes.
    pub(super) fn owners(&self) -> BTreeSet<String> {
        let owners = self.nodes.values().map(|node| node.device.clone());
        owners.collect()
    }

    /// Returns the nodes of the devices with these names.
    pub(super) fn of(&self, devices: &BTreeSet<&str>) -> BTreeMap<&str, DeviceNodes> {
        match devices.is_empty() {
            true => BTreeMap::new(),
            false => node::by_device(&self.nodes, devices),
        }
    }

    /// Reads all nodes, and returns those that were left out.
    pub(super) fn read_all(&mut self, sysfs: &Sysfs) -> Vec<Refusal> {
        let known = self.nodes.keys().cloned();
        let (names, refused) = sysfs.node_names();
        let all = known.chain(names).collect();
        self.read(sysfs, &all);
        refused
    }

    /// Reads the cached nodes of these devices again.
    pub(super) fn read_of(&mut self, sysfs: &Sysfs, devices: &BTreeSet<String>) {
        if devices.is_empty() {
            return;
        }
        let nodes = self.nodes.iter();
        let theirs = nodes.filter(|(_, node)| devices.contains(&node.device));
        let theirs = theirs.map(|(name, _)| name.clone()).collect();
        self.read(sysfs, &theirs);
    }

    /// Reads the nodes with these names.
    pub(super) fn read(&mut self, sysfs: &Sysfs, names: &BTreeSet<String>) {
        for name in names {
            let node = sysfs.node(name);
            let before = self.nodes.remove(name);
            if before != node {
                let owners = before.iter().chain(&node);
                self.stale.extend(owners.map(|node| node.device.clone()));
            }
            // Nodes beyond the limit do not belong to published devices.
            if self.nodes.len() < MAX_NODES {
                self.nodes.extend(node.map(|node| (name.clone(), node)));
            }
        }
    }
}

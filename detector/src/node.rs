//! The nodes below /dev/infiniband, and the device that each belongs to. Pure. The number in a
//! node's name is unrelated to the name and index of its device. Must never use it to find the
//! device.

use std::collections::{BTreeMap, BTreeSet};

/// A node of ib_uverbs (`uverbs3`) or ib_umad (`umad0`, `issm0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The current name of its RDMA device.
    pub device: String,
    /// The purpose of the node.
    pub purpose: Purpose,
}

/// The purpose of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Verbs, for the whole device.
    Verbs,
    /// Management datagrams, for this port.
    Management(u32),
    /// A subnet manager, for this port.
    SubnetManager(u32),
}

impl Purpose {
    /// Returns the purpose of the node with this name. `port` queries the kernel for the port of
    /// the node. Returns `None` for other names, and for a node that lacks its port.
    #[must_use]
    pub fn of(name: &str, port: impl FnOnce() -> Option<u32>) -> Option<Self> {
        if name.starts_with("uverbs") {
            Some(Self::Verbs)
        } else if name.starts_with("umad") {
            port().map(Self::Management)
        } else if name.starts_with("issm") {
            port().map(Self::SubnetManager)
        } else {
            None
        }
    }
}

/// The nodes of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNodes {
    /// The node for verbs.
    pub uverbs: Option<String>,
    /// The nodes for management datagrams, by port.
    pub umad: BTreeMap<u32, String>,
    /// The nodes for subnet managers, by port.
    pub issm: BTreeMap<u32, String>,
}

/// Returns the nodes of the devices with these names.
#[must_use]
pub fn by_device<'n>(
    nodes: &'n BTreeMap<String, Node>,
    names: &BTreeSet<&str>,
) -> BTreeMap<&'n str, DeviceNodes> {
    let mut devices: BTreeMap<&str, DeviceNodes> = BTreeMap::new();
    for (name, node) in nodes {
        if !names.contains(node.device.as_str()) {
            continue;
        }
        let device = devices.entry(&node.device).or_default();
        match node.purpose {
            Purpose::Verbs => device.uverbs = Some(name.clone()),
            Purpose::Management(port) => {
                device.umad.insert(port, name.clone());
            }
            Purpose::SubnetManager(port) => {
                device.issm.insert(port, name.clone());
            }
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_purpose_of_a_node_comes_from_its_name_and_a_port_node_needs_its_port() {
        assert_eq!(Purpose::of("uverbs0", || None), Some(Purpose::Verbs));
        assert_eq!(
            Purpose::of("umad3", || Some(2)),
            Some(Purpose::Management(2))
        );
        assert_eq!(
            Purpose::of("issm3", || Some(2)),
            Some(Purpose::SubnetManager(2))
        );
        for name in ["umad3", "issm3", "abi_version"] {
            assert_eq!(Purpose::of(name, || None), None, "{name}");
        }
    }
}

//! The nodes below /dev/infiniband, and the device that each belongs to. Pure. Their numbers say
//! nothing of the device's name or index; must never be taken for them.

use std::collections::BTreeMap;

/// A node of ib_uverbs (`uverbs3`) or ib_umad (`umad0`, `issm0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The present name of its RDMA device.
    pub device: String,
    /// The port that it is for.
    pub port: Option<u32>,
}

/// The nodes of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNodes {
    /// For verbs.
    pub uverbs: Option<String>,
    /// For management datagrams, by the port.
    pub umad: BTreeMap<u32, String>,
    /// For a subnet manager, by the port.
    pub issm: BTreeMap<u32, String>,
}

/// All nodes, by the name of their device.
#[must_use]
pub fn by_device(nodes: &BTreeMap<String, Node>) -> BTreeMap<&str, DeviceNodes> {
    let mut devices: BTreeMap<&str, DeviceNodes> = BTreeMap::new();
    for (name, node) in nodes {
        let device = devices.entry(&node.device).or_default();
        match node.port {
            None => device.uverbs = Some(name.clone()),
            Some(port) if name.starts_with("umad") => {
                device.umad.insert(port, name.clone());
            }
            Some(port) => {
                device.issm.insert(port, name.clone());
            }
        }
    }
    devices
}

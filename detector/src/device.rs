//! The record of one RDMA device, put together from what `NETLINK_RDMA` and sysfs say. Pure.
//! Must never guess from a driver's or a device's name.

use std::collections::BTreeMap;

use interfaces::detector::{Device, Port, Protocol};

use crate::nldev::{NldevDevice, NldevPort};

/// What sysfs adds to a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysfsDevice {
    /// The link layer of each port, by its number.
    pub link_layers: BTreeMap<u32, String>,
    /// The driver of the parent device.
    pub driver: Option<String>,
    /// The address of the nearest PCI function above the device.
    pub pci_address: Option<String>,
}

/// `enum rdma_node_type`: an iWARP device.
const RNIC: u8 = 4;
/// `enum rdma_node_type`: the two kinds of usNIC.
const USNIC: [u8; 2] = [5, 6];

/// Puts the record together.
#[must_use]
pub fn assemble(device: &NldevDevice, ports: &[NldevPort], sysfs: &SysfsDevice) -> Device {
    Device {
        index: device.index.into(),
        name: device.name.to_string(),
        node_guid: device.node_guid.map(guid),
        node_type: device.node_type.map(node_type),
        driver: sysfs.driver.clone(),
        pci_address: sysfs.pci_address.clone(),
        firmware_version: device.firmware_version.clone(),
        ports: ports
            .iter()
            .map(|port| {
                let link_layer = sysfs.link_layers.get(&port.number).cloned();
                Port {
                    number: port.number.into(),
                    protocol: protocol(device, link_layer.as_deref()),
                    link_layer,
                    state: port.state.and_then(port_state),
                    netdev: port.netdev.clone(),
                }
            })
            .collect(),
    }
}

/// What a port speaks.
///
/// The kernel's protocol attribute speaks for the first port (`fill_dev_info()` in
/// `drivers/infiniband/core/nldev.c`); the others of a device of mixed ports differ in their
/// link layer. Where the kernel names no protocol there is none: such ports carry raw packets.
fn protocol(device: &NldevDevice, link_layer: Option<&str>) -> Protocol {
    match device.protocol.as_deref() {
        Some("opa") => Protocol::Opa,
        Some("iw") => Protocol::Iwarp,
        Some("usnic") => Protocol::Usnic,
        Some("ib" | "roce") => match link_layer {
            Some("InfiniBand") => Protocol::Infiniband,
            Some("Ethernet") => Protocol::Roce,
            _ if device.protocol.as_deref() == Some("ib") => Protocol::Infiniband,
            _ => Protocol::Roce,
        },
        _ => match device.node_type {
            Some(RNIC) => Protocol::Iwarp,
            Some(kind) if USNIC.contains(&kind) => Protocol::Usnic,
            _ => Protocol::Unknown,
        },
    }
}

/// A GUID as sysfs and every RDMA tool write it.
fn guid(guid: u64) -> String {
    format!(
        "{:04x}:{:04x}:{:04x}:{:04x}",
        guid >> 48,
        (guid >> 32) & 0xffff,
        (guid >> 16) & 0xffff,
        guid & 0xffff
    )
}

/// `node_type_show()` in `drivers/infiniband/core/sysfs.c`.
fn node_type(kind: u8) -> String {
    match kind {
        1 => "CA",
        2 => "switch",
        3 => "router",
        RNIC => "RNIC",
        5 => "usNIC",
        6 => "usNIC UDP",
        7 => "unspecified",
        _ => "unknown",
    }
    .to_owned()
}

/// `enum ib_port_state`.
fn port_state(state: u8) -> Option<String> {
    let name = match state {
        0 => "noChange",
        1 => "down",
        2 => "initializing",
        3 => "armed",
        4 => "active",
        5 => "activeDefer",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use interfaces::names::DeviceName;

    fn nldev(protocol: Option<&str>, node_type: u8) -> NldevDevice {
        NldevDevice {
            index: 1,
            name: DeviceName::parse("d0").unwrap(),
            node_guid: Some(0x0002_c903_00fe_d670),
            node_type: Some(node_type),
            protocol: protocol.map(str::to_owned),
            firmware_version: None,
        }
    }

    #[test]
    fn the_kernel_names_the_protocol() {
        for (attribute, node_type, link_layer, expected) in [
            (Some("ib"), 1, Some("InfiniBand"), Protocol::Infiniband),
            (Some("ib"), 1, None, Protocol::Infiniband),
            (Some("roce"), 1, Some("Ethernet"), Protocol::Roce),
            (Some("roce"), 1, None, Protocol::Roce),
            (Some("opa"), 1, Some("InfiniBand"), Protocol::Opa),
            (Some("iw"), 4, Some("Ethernet"), Protocol::Iwarp),
            (Some("usnic"), 6, Some("Ethernet"), Protocol::Usnic),
            (None, 4, Some("Ethernet"), Protocol::Iwarp),
            (None, 6, Some("Ethernet"), Protocol::Usnic),
            (None, 7, Some("Ethernet"), Protocol::Unknown),
            (None, 1, Some("Ethernet"), Protocol::Unknown),
        ] {
            let device = nldev(attribute, node_type);
            assert_eq!(
                protocol(&device, link_layer),
                expected,
                "{attribute:?} {node_type} {link_layer:?}"
            );
        }
    }

    #[test]
    fn the_ports_of_a_mixed_device_differ_by_link_layer() {
        let port = |number| NldevPort {
            number,
            state: Some(4),
            netdev: None,
        };
        let sysfs = SysfsDevice {
            link_layers: [(1, "InfiniBand".into()), (2, "Ethernet".into())].into(),
            ..SysfsDevice::default()
        };
        let device = assemble(&nldev(Some("ib"), 1), &[port(1), port(2)], &sysfs);
        let protocols: Vec<Protocol> = device.ports.iter().map(|p| p.protocol).collect();
        assert_eq!(protocols, [Protocol::Infiniband, Protocol::Roce]);
    }

    #[test]
    fn a_guid_is_written_as_sysfs_writes_it() {
        assert_eq!(guid(0x0002_c903_00fe_d670), "0002:c903:00fe:d670");
    }
}

//! The record of one RDMA device, assembled from `NETLINK_RDMA` and sysfs. Pure. Must never guess
//! from the name of a driver or a device.

use std::collections::BTreeMap;

use interfaces::detector::{Device, Kind, NetnsMode, Port, Protocol};

use crate::nldev::{NldevDevice, NldevPort};
use crate::node::DeviceNodes;

/// The part of a device's record that sysfs provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysfsDevice {
    /// The path, below sysfs, of the device's parent object.
    pub parent: Option<String>,
    /// The ports by their numbers.
    pub ports: BTreeMap<u32, SysfsPort>,
    /// The driver of the parent device.
    pub driver: Option<String>,
    /// The module of that driver.
    pub module: Option<String>,
    /// The address of the nearest PCI function above the device.
    pub pci_address: Option<String>,
    /// The vendor and device id of that PCI function.
    pub pci_id: Option<(u32, u32)>,
    /// The address of the physical function, if this is a virtual function.
    pub physical_function: Option<String>,
    /// The number of the virtual function, if this is one.
    pub virtual_function: Option<u32>,
    /// The number of the subfunction, if this is one.
    pub subfunction: Option<u32>,
    /// The switch's name for the port behind the network interface of the first port.
    pub port_name: Option<String>,
    /// The network interface below a software device, if its driver shows it.
    pub parent_netdev: Option<String>,
    /// The board id, if the driver shows one.
    pub board_id: Option<String>,
}

/// The part of a port's record that sysfs provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysfsPort {
    /// `InfiniBand` or `Ethernet`.
    pub link_layer: Option<String>,
    /// The rate, in Mbit/s.
    pub speed_mbps: Option<i64>,
    /// The types of its GIDs.
    pub gid_types: Vec<String>,
}

/// `enum rdma_node_type`: an iWARP device.
const RNIC: u8 = 4;
/// `enum rdma_node_type`: the two types of usNIC.
const USNIC: [u8; 2] = [5, 6];

/// Assembles the record.
#[must_use]
pub fn assemble(
    device: &NldevDevice,
    ports: &[NldevPort],
    sysfs: &SysfsDevice,
    nodes: &DeviceNodes,
    netns_mode: Option<NetnsMode>,
) -> Device {
    let kind = kind(device, sysfs);
    let physical_function = match kind {
        Kind::Subfunction => sysfs.pci_address.clone(),
        _ => sysfs.physical_function.clone(),
    };
    Device {
        index: device.index.into(),
        name: device.name.to_string(),
        kernel_name: None,
        name_assigned_by_user: device.name_assigned_by_user,
        kind,
        node_guid: device.node_guid.map(guid),
        system_image_guid: device.system_image_guid.map(guid),
        node_type: device.node_type.map(node_type),
        driver: sysfs.driver.clone(),
        module: sysfs.module.clone(),
        pci_address: sysfs.pci_address.clone(),
        pci_id: sysfs.pci_id.map(pci_id),
        physical_function,
        function_number: sysfs.subfunction.or(sysfs.virtual_function).map(Into::into),
        parent: device
            .parent
            .clone()
            .or_else(|| sysfs.parent_netdev.clone()),
        firmware_version: device.firmware_version.clone(),
        board_id: sysfs.board_id.clone(),
        netns_mode,
        in_other_netns: false,
        not_answering: None,
        uverbs: nodes.uverbs.clone(),
        ports: ports
            .iter()
            .map(|p| port(device, p, sysfs.ports.get(&p.number), nodes))
            .collect(),
    }
}

/// Returns true if GIDs may appear without an event. The kernel adds those of a RoCE port from a
/// work queue when the port has its network interface (`drivers/infiniband/core/roce_gid_mgmt.c`).
#[must_use]
pub fn waits_for_gids(record: &Device) -> bool {
    let waits = |port: &Port| {
        port.protocol == Protocol::Roce && port.netdev.is_some() && port.gid_types.is_empty()
    };
    record.ports.iter().any(waits)
}

/// Returns the record of a cached device with its current name.
#[must_use]
pub fn renamed(record: &Device, device: &NldevDevice) -> Device {
    Device {
        name: device.name.to_string(),
        name_assigned_by_user: device.name_assigned_by_user,
        ..record.clone()
    }
}

/// Returns the record of a cached device with its current nodes.
#[must_use]
pub fn with_nodes(mut record: Device, nodes: &DeviceNodes) -> Device {
    record.uverbs.clone_from(&nodes.uverbs);
    for port in &mut record.ports {
        let of_port = |nodes: &BTreeMap<u32, String>| {
            let number = u32::try_from(port.number).ok()?;
            nodes.get(&number).cloned()
        };
        (port.umad, port.issm) = (of_port(&nodes.umad), of_port(&nodes.issm));
    }
    record
}

fn port(
    device: &NldevDevice,
    port: &NldevPort,
    sysfs: Option<&SysfsPort>,
    nodes: &DeviceNodes,
) -> Port {
    let link_layer = sysfs.and_then(|port| port.link_layer.clone());
    Port {
        number: port.number.into(),
        protocol: protocol(device, link_layer.as_deref()),
        link_layer,
        state: port.state.and_then(port_state),
        speed_mbps: sysfs.and_then(|port| port.speed_mbps),
        netdev: port.netdev.clone(),
        gid_types: sysfs.map(|port| port.gid_types.clone()).unwrap_or_default(),
        umad: nodes.umad.get(&port.number).cloned(),
        issm: nodes.issm.get(&port.number).cloned(),
    }
}

fn kind(device: &NldevDevice, sysfs: &SysfsDevice) -> Kind {
    if device.smi {
        Kind::Smi
    } else if sysfs.parent.is_none() {
        Kind::Software
    } else if sysfs.subfunction.is_some() {
        Kind::Subfunction
    } else if sysfs.physical_function.is_some() {
        Kind::VirtualFunction
    } else if sysfs.port_name.as_deref().is_some_and(is_representor) {
        Kind::Representor
    } else {
        Kind::Function
    }
}

/// Returns true if the switch's port name is that of a function's representor: `pf0vf3`, `pf0sf4`,
/// `c1pf0vf0`. The uplink is `p0` (`devlink-port(7)`, `Documentation/networking/switchdev.rst`).
fn is_representor(port_name: &str) -> bool {
    let function = port_name.split_once("pf").map(|(_, function)| function);
    function.is_some_and(|function| function.contains("vf") || function.contains("sf"))
}

/// Converts a rate of sysfs, like `100 Gb/sec (4X EDR)`, to Mbit/s.
#[must_use]
pub fn speed_mbps(rate: &str) -> Option<i64> {
    let (number, _) = rate.split_once(" Gb/sec")?;
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, tenths): (u32, u32) = (whole.parse().ok()?, tenths.parse().ok()?);
    (tenths < 10).then(|| i64::from(whole) * 1000 + i64::from(tenths) * 100)
}

/// Returns the protocol of a port.
///
/// The kernel's protocol attribute describes the first port (`fill_dev_info()` in
/// `drivers/infiniband/core/nldev.c`). The other ports of a mixed device differ in their link
/// layer. If the kernel names no protocol, there is none: such ports carry raw packets.
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

/// Formats the vendor and device id of a PCI function like lspci(8).
#[must_use]
pub fn pci_id((vendor, device): (u32, u32)) -> String {
    format!("{vendor:04x}:{device:04x}")
}

/// Formats a GUID like sysfs and the RDMA tools.
fn guid(guid: u64) -> String {
    format!(
        "{:04x}:{:04x}:{:04x}:{:04x}",
        guid >> 48,
        (guid >> 32) & 0xffff,
        (guid >> 16) & 0xffff,
        guid & 0xffff
    )
}

/// Names the node type like `node_type_show()` in `drivers/infiniband/core/sysfs.c`.
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

/// Names a state of `enum ib_port_state`.
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
            system_image_guid: None,
            node_type: Some(node_type),
            protocol: protocol.map(str::to_owned),
            firmware_version: None,
            smi: false,
            parent: None,
            name_assigned_by_user: None,
        }
    }

    #[test]
    fn the_protocol_comes_from_the_kernel_attribute_or_the_node_type() {
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
        let of_layer = |layer: &str| SysfsPort {
            link_layer: Some(layer.to_owned()),
            ..SysfsPort::default()
        };
        let sysfs = SysfsDevice {
            ports: [(1, of_layer("InfiniBand")), (2, of_layer("Ethernet"))].into(),
            ..SysfsDevice::default()
        };
        let nodes = DeviceNodes::default();
        let ports = [port(1), port(2)];
        let device = assemble(&nldev(Some("ib"), 1), &ports, &sysfs, &nodes, None);
        let protocols: Vec<Protocol> = device.ports.iter().map(|p| p.protocol).collect();
        assert_eq!(protocols, [Protocol::Infiniband, Protocol::Roce]);
    }

    #[test]
    fn a_guid_is_written_as_sysfs_writes_it() {
        assert_eq!(guid(0x0002_c903_00fe_d670), "0002:c903:00fe:d670");
    }

    #[test]
    fn the_kind_of_a_device_comes_from_its_sysfs_attributes_or_its_smi_flag() {
        let below = |parent: &str| SysfsDevice {
            parent: Some(parent.to_owned()),
            ..SysfsDevice::default()
        };
        let of = |sysfs: &SysfsDevice| kind(&nldev(None, 1), sysfs);
        assert_eq!(of(&SysfsDevice::default()), Kind::Software);
        assert_eq!(of(&below("/devices/a")), Kind::Function);
        let mut virtual_function = below("/devices/b");
        virtual_function.physical_function = Some("0000:c1:00.0".into());
        assert_eq!(of(&virtual_function), Kind::VirtualFunction);
        let mut subfunction = below("/devices/c");
        subfunction.subfunction = Some(4);
        assert_eq!(of(&subfunction), Kind::Subfunction);
        for (port_name, expected) in [
            ("p0", Kind::Function),
            ("pf0", Kind::Function),
            ("pf0vf1", Kind::Representor),
            ("c1pf0vf1", Kind::Representor),
            ("pf1sf88", Kind::Representor),
        ] {
            let mut port = below("/devices/d");
            port.port_name = Some(port_name.into());
            assert_eq!(of(&port), expected, "{port_name}");
        }
        let mut smi = nldev(Some("ib"), 1);
        smi.smi = true;
        assert_eq!(kind(&smi, &SysfsDevice::default()), Kind::Smi);
    }

    #[test]
    fn a_rate_is_read_as_sysfs_writes_it() {
        for (rate, expected) in [
            ("100 Gb/sec (4X EDR)", Some(100_000)),
            ("2.5 Gb/sec (1X SDR)", Some(2_500)),
            ("1200 Gb/sec (12X NDR)", Some(1_200_000)),
            ("fast", None),
            (" Gb/sec", None),
            ("-1 Gb/sec", None),
            ("99999999999 Gb/sec", None),
        ] {
            assert_eq!(speed_mbps(rate), expected, "{rate}");
        }
    }
}

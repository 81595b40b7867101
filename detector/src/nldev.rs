//! The encoder and decoder of `NETLINK_RDMA` requests and replies of the client `RDMA_NL_NLDEV`
//! (`include/uapi/rdma/rdma_netlink.h`, `netlink(7)`). Pure. Must never trust a length that the
//! bytes themselves do not confirm.

use interfaces::names::{DeviceName, NameError};
use interfaces::netlink::{aligned, u16_at, u32_at};

use crate::refusal::{MAX_NAME, printable};

/// The highest port number, and so the maximum number of ports of a device. It fits into eight bits
/// (`struct ib_port_attr` and its callers).
pub const MAX_PORTS: u32 = 255;
/// The length of a network interface's name with its NUL (`include/uapi/linux/if.h`).
const IFNAMSIZ: usize = 16;

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The two flag bits of an attribute's type (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_FLAGS: u16 = 0xc000;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// `RDMA_NL_NLDEV`, shifted to its position in a message type.
const CLIENT: u16 = 5 << 10;

const DEV_INDEX: u16 = 1;
const DEV_NAME: u16 = 2;
const PORT_INDEX: u16 = 3;
const FW_VERSION: u16 = 5;
const NODE_GUID: u16 = 6;
const SYS_IMAGE_GUID: u16 = 7;
const PORT_STATE: u16 = 12;
const DEV_NODE_TYPE: u16 = 14;
const NDEV_NAME: u16 = 51;
const SYS_NETNS_MODE: u16 = 66;
const DEV_PROTOCOL: u16 = 67;
const DEV_TYPE: u16 = 99;
const PARENT_NAME: u16 = 100;
const NAME_ASSIGN_TYPE: u16 = 101;
const SYS_MONITOR_MODE: u16 = 103;

/// `RDMA_NLDEV_CMD_MONITOR`, the type of the monitor's messages.
const MONITOR: u16 = CLIENT + 28;
/// `RDMA_DEVICE_TYPE_SMI`.
const TYPE_SMI: u8 = 1;
/// `RDMA_NAME_ASSIGN_TYPE_UNKNOWN`, which is also set after a rename, and
/// `RDMA_NAME_ASSIGN_TYPE_USER`.
const ASSIGNED_UNKNOWN: u8 = 0;
const ASSIGNED_BY_USER: u8 = 1;

/// A request. No request needs a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// `RDMA_NLDEV_CMD_SYS_GET`: the settings of the kernel's RDMA core.
    System,
    /// `RDMA_NLDEV_CMD_GET`: all devices.
    Devices,
    /// `RDMA_NLDEV_CMD_GET`: the device with this index. The reply is, byte for byte, the entry in
    /// the list of all devices.
    Device(u32),
    /// `RDMA_NLDEV_CMD_PORT_GET`: all ports of the device with this index.
    Ports(u32),
}

impl Query {
    fn operation(self) -> u16 {
        match self {
            Self::Devices | Self::Device(_) => 1,
            Self::Ports(_) => 5,
            Self::System => 6,
        }
    }

    /// Encodes the request as one datagram. Each reply to it carries `sequence`.
    #[must_use]
    pub fn encode(self, sequence: u32) -> Vec<u8> {
        let mut attributes = Vec::new();
        if let Self::Ports(index) | Self::Device(index) = self {
            attributes.extend(8u16.to_ne_bytes());
            attributes.extend(DEV_INDEX.to_ne_bytes());
            attributes.extend(index.to_ne_bytes());
        }
        // A dump ends with NLMSG_DONE. A single reply ends with the acknowledgement after it.
        let flags = match self {
            Self::System | Self::Device(_) => NLM_F_REQUEST | NLM_F_ACK,
            Self::Devices | Self::Ports(_) => NLM_F_REQUEST | NLM_F_DUMP,
        };
        encode_message(CLIENT + self.operation(), flags, sequence, &attributes)
    }
}

/// Encodes one netlink message around `payload`.
fn encode_message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_LEN + payload.len());
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(payload);
    message
}

/// The reason why a reply cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NldevError {
    /// A header or attribute is longer than the remaining bytes.
    #[error("a message is cut")]
    Cut,
    /// The kernel refused the request with this errno.
    #[error("the kernel answered with errno {0}")]
    Refused(i32),
    /// The devices changed during the dump. The dump must be requested again.
    #[error("the dump was interrupted by a change")]
    Interrupted,
    /// An attribute that each reply has is missing or has the wrong length.
    #[error("attribute {0} is missing or invalid")]
    Attribute(u16),
    /// The device's name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The device's name, escaped here, is not text.
    #[error("\"{}\" is not a device name: {reason}", .name.escape_ascii())]
    NotText {
        /// The name's first bytes.
        name: Vec<u8>,
        /// The error in the name.
        reason: &'static str,
    },
    /// There are more replies than this limit.
    #[error("there are more than {0} replies")]
    TooMany(usize),
    /// The port number is outside the kernel's range.
    #[error("{0} is not a port number (1 to 255)")]
    PortNumber(u32),
}

/// The replies in one datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<'d> {
    /// The payload of each reply to the request.
    pub payloads: Vec<&'d [u8]>,
    /// True if this is the end of the replies.
    pub done: bool,
}

/// Extracts the replies to the request `sequence` from one datagram. Skips replies to earlier
/// requests that were given up.
///
/// # Errors
/// Fails if the datagram is cut, if the kernel refused the request, or if the dump was interrupted.
pub fn batch(datagram: &[u8], sequence: u32) -> Result<Batch<'_>, NldevError> {
    let mut batch = Batch {
        payloads: Vec::new(),
        done: false,
    };
    let mut rest = datagram;
    while !rest.is_empty() {
        let len = u32_at(rest, 0).ok_or(NldevError::Cut)? as usize;
        let kind = u16_at(rest, 4).ok_or(NldevError::Cut)?;
        let flags = u16_at(rest, 6).ok_or(NldevError::Cut)?;
        let of = u32_at(rest, 8).ok_or(NldevError::Cut)?;
        let payload = rest.get(HEADER_LEN..len).ok_or(NldevError::Cut)?;
        rest = rest.get(aligned(len)..).unwrap_or_default();
        if of != sequence {
            continue;
        }
        if flags & NLM_F_DUMP_INTR != 0 {
            return Err(NldevError::Interrupted);
        }
        match kind {
            NLMSG_ERROR | NLMSG_DONE => {
                // Both carry a negative errno. 0 is an acknowledgement or a complete dump.
                match u32_at(payload, 0).map_or(0, u32::cast_signed) {
                    0 => batch.done = true,
                    errno => return Err(NldevError::Refused(errno.wrapping_neg())),
                }
            }
            _ => batch.payloads.push(payload),
        }
    }
    Ok(batch)
}

/// Returns the index of the device that a reply describes.
///
/// # Errors
/// Fails if the index is missing, or if the reply is cut before it.
pub fn device_index(payload: &[u8]) -> Result<u32, NldevError> {
    let mut rest = payload;
    while !rest.is_empty() {
        let (attribute, behind) = Attributes::next(rest)?;
        if attribute.0 == DEV_INDEX {
            return u32_at(attribute.1, 0).ok_or(NldevError::Attribute(DEV_INDEX));
        }
        rest = behind;
    }
    Err(NldevError::Attribute(DEV_INDEX))
}

/// A device as `NETLINK_RDMA` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NldevDevice {
    /// The kernel's device index.
    pub index: u32,
    /// The current name.
    pub name: DeviceName,
    /// The node GUID in host order.
    pub node_guid: Option<u64>,
    /// The system image GUID in host order.
    pub system_image_guid: Option<u64>,
    /// `enum rdma_node_type`.
    pub node_type: Option<u8>,
    /// `ib`, `roce`, `iw`, `opa`, `usnic`, or `None`. The kernel determines it from the first port.
    pub protocol: Option<String>,
    /// The firmware's version.
    pub firmware_version: Option<String>,
    /// True if it is an SMI device (`RDMA_DEVICE_TYPE_SMI`).
    pub smi: bool,
    /// The RDMA device that an SMI device was created from.
    pub parent: Option<String>,
    /// True if a user chose the name. Kernels before 6.11 do not show this.
    pub name_assigned_by_user: Option<bool>,
}

impl NldevDevice {
    /// Creates a device of which nothing else is known.
    #[must_use]
    pub fn named(index: u32, name: DeviceName) -> Self {
        Self {
            index,
            name,
            node_guid: None,
            system_image_guid: None,
            node_type: None,
            protocol: None,
            firmware_version: None,
            smi: false,
            parent: None,
            name_assigned_by_user: None,
        }
    }

    /// Decodes one reply to [`Query::Devices`].
    ///
    /// # Errors
    /// Fails if the index or the name is missing or invalid, or if the reply is cut.
    pub fn parse(payload: &[u8]) -> Result<Self, NldevError> {
        let attributes = Attributes::parse(payload)?;
        Ok(Self {
            index: attributes
                .u32(DEV_INDEX)
                .ok_or(NldevError::Attribute(DEV_INDEX))?,
            name: attributes.name()?,
            node_guid: attributes.u64(NODE_GUID),
            system_image_guid: attributes.u64(SYS_IMAGE_GUID),
            node_type: attributes.u8(DEV_NODE_TYPE),
            protocol: attributes.text(DEV_PROTOCOL).map(str::to_owned),
            firmware_version: attributes.text(FW_VERSION).map(str::to_owned),
            smi: attributes.u8(DEV_TYPE) == Some(TYPE_SMI),
            parent: attributes.text(PARENT_NAME).map(str::to_owned),
            name_assigned_by_user: attributes
                .u8(NAME_ASSIGN_TYPE)
                .filter(|assigned| *assigned != ASSIGNED_UNKNOWN)
                .map(|assigned| assigned == ASSIGNED_BY_USER),
        })
    }
}

/// A port as `NETLINK_RDMA` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NldevPort {
    /// The port's number, from 1.
    pub number: u32,
    /// `enum ib_port_state`.
    pub state: Option<u8>,
    /// The network interface of the port, if it is in our network namespace.
    pub netdev: Option<String>,
}

impl NldevPort {
    /// Decodes one reply to [`Query::Ports`].
    ///
    /// # Errors
    /// Fails if the number is missing or invalid, or if the reply is cut.
    pub fn parse(payload: &[u8]) -> Result<Self, NldevError> {
        let attributes = Attributes::parse(payload)?;
        let number = attributes.u32(PORT_INDEX);
        let number = number.ok_or(NldevError::Attribute(PORT_INDEX))?;
        if !(1..=MAX_PORTS).contains(&number) {
            return Err(NldevError::PortNumber(number));
        }
        let netdev = attributes.text(NDEV_NAME);
        Ok(Self {
            number,
            state: attributes.u8(PORT_STATE),
            netdev: netdev.filter(|name| is_netdev(name)).map(str::to_owned),
        })
    }
}

/// The settings of the kernel's RDMA core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NldevSystem {
    /// True if a device is in all network namespaces, false if it is in only one.
    pub netns_shared: Option<bool>,
    /// True if the kernel has a monitor.
    pub monitor: bool,
}

impl NldevSystem {
    /// Decodes the reply to [`Query::System`].
    ///
    /// # Errors
    /// Fails if the reply is cut.
    pub fn parse(payload: &[u8]) -> Result<Self, NldevError> {
        let attributes = Attributes::parse(payload)?;
        Ok(Self {
            netns_shared: attributes.u8(SYS_NETNS_MODE).map(|shared| shared != 0),
            monitor: attributes
                .u8(SYS_MONITOR_MODE)
                .is_some_and(|mode| mode != 0),
        })
    }
}

/// Extracts the indexes of changed devices from one datagram of the kernel's monitor. A message
/// without an index yields `None`.
///
/// # Errors
/// Fails if the datagram is cut.
pub fn monitored(datagram: &[u8]) -> Result<Vec<Option<u32>>, NldevError> {
    let mut indexes = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let len = u32_at(rest, 0).ok_or(NldevError::Cut)? as usize;
        let kind = u16_at(rest, 4).ok_or(NldevError::Cut)?;
        let payload = rest.get(HEADER_LEN..len).ok_or(NldevError::Cut)?;
        rest = rest.get(aligned(len)..).unwrap_or_default();
        if kind == MONITOR {
            indexes.push(Attributes::parse(payload)?.u32(DEV_INDEX));
        }
    }
    Ok(indexes)
}

/// The type and value of an attribute.
type Attribute<'d> = (u16, &'d [u8]);

/// The attributes of one reply.
struct Attributes<'d>(Vec<Attribute<'d>>);

impl<'d> Attributes<'d> {
    fn parse(mut rest: &'d [u8]) -> Result<Self, NldevError> {
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            let (attribute, behind) = Self::next(rest)?;
            attributes.push(attribute);
            rest = behind;
        }
        Ok(Self(attributes))
    }

    /// Returns the first attribute, and the bytes after it.
    fn next(bytes: &'d [u8]) -> Result<(Attribute<'d>, &'d [u8]), NldevError> {
        let len = usize::from(u16_at(bytes, 0).ok_or(NldevError::Cut)?);
        let kind = u16_at(bytes, 2).ok_or(NldevError::Cut)? & !ATTRIBUTE_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..len);
        let value = value.ok_or(NldevError::Cut)?;
        let behind = bytes.get(aligned(len)..).unwrap_or_default();
        Ok(((kind, value), behind))
    }

    fn get(&self, kind: u16) -> Option<&'d [u8]> {
        self.0.iter().find(|(k, _)| *k == kind).map(|(_, v)| *v)
    }

    fn u8(&self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    fn u32(&self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    fn u64(&self, kind: u16) -> Option<u64> {
        let bytes = self.get(kind)?.get(..8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// Returns a string without its final NUL.
    fn string(&self, kind: u16) -> Option<&'d [u8]> {
        let value = self.get(kind)?;
        Some(value.strip_suffix(b"\0").unwrap_or(value))
    }

    /// Returns a string if it can be published.
    fn text(&self, kind: u16) -> Option<&'d str> {
        printable(self.string(kind)?, MAX_NAME).ok()
    }

    /// Returns the name of the device.
    fn name(&self) -> Result<DeviceName, NldevError> {
        let name = self.string(DEV_NAME);
        let name = name.ok_or(NldevError::Attribute(DEV_NAME))?;
        match str::from_utf8(name) {
            Ok(name) => Ok(DeviceName::parse(name)?),
            Err(_) => Err(NldevError::NotText {
                name: name.iter().copied().take(DeviceName::MAX_LEN).collect(),
                reason: "it is not UTF-8",
            }),
        }
    }
}

/// Returns true if a network interface can have this name (`dev_valid_name()` in `net/core/dev.c`).
fn is_netdev(name: &str) -> bool {
    let fits = name.len() < IFNAMSIZ && name != "." && name != "..";
    fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

#[cfg(test)]
mod tests;

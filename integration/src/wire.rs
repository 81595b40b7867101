//! The kernel's side of `NETLINK_RDMA`, for stand-ins: replies in the real wire format, as
//! `netlink_dump()`, `netlink_ack()` and nldev.c build them. Responsible for the bounds of
//! datagrams and for the refusal of requests. Must never know a device: the caller supplies the
//! replies.

/// `RDMA_NLDEV_ATTR_DEV_INDEX` (u32).
pub const DEV_INDEX: u16 = 1;
/// `RDMA_NLDEV_ATTR_DEV_NAME` (text).
pub const DEV_NAME: u16 = 2;
/// `RDMA_NLDEV_ATTR_PORT_INDEX` (u32): for a port its number, for a device the number of its ports.
pub const PORT_INDEX: u16 = 3;
/// `RDMA_NLDEV_ATTR_FW_VERSION` (text).
pub const FW_VERSION: u16 = 5;
/// `RDMA_NLDEV_ATTR_NODE_GUID` (u64).
pub const NODE_GUID: u16 = 6;
/// `RDMA_NLDEV_ATTR_SYS_IMAGE_GUID` (u64).
pub const SYS_IMAGE_GUID: u16 = 7;
/// `RDMA_NLDEV_ATTR_PORT_STATE` (u8).
pub const PORT_STATE: u16 = 12;
/// `RDMA_NLDEV_ATTR_DEV_NODE_TYPE` (u8).
pub const DEV_NODE_TYPE: u16 = 14;
/// `RDMA_NLDEV_ATTR_NDEV_NAME` (text).
pub const NDEV_NAME: u16 = 51;
/// `RDMA_NLDEV_SYS_ATTR_NETNS_MODE` (u8).
pub const SYS_NETNS_MODE: u16 = 66;
/// `RDMA_NLDEV_ATTR_DEV_PROTOCOL` (text).
pub const DEV_PROTOCOL: u16 = 67;
/// `RDMA_NLDEV_ATTR_DEV_TYPE` (u8).
pub const DEV_TYPE: u16 = 99;
/// `RDMA_NLDEV_ATTR_PARENT_NAME` (text).
pub const PARENT_NAME: u16 = 100;
/// `RDMA_NLDEV_ATTR_NAME_ASSIGN_TYPE` (u8).
pub const NAME_ASSIGN_TYPE: u16 = 101;

/// The errno for an object that does not exist or a request that is not understood.
pub const EINVAL: i32 = 22;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
const HEADER_LEN: usize = 16;
/// The length up to which the kernel fills one datagram of a dump, in bytes (`netlink_dump()`).
const DATAGRAM_LEN: usize = 32 * 1024;

/// A request that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `RDMA_NLDEV_CMD_GET` of every device.
    Devices,
    /// `RDMA_NLDEV_CMD_GET` of the device with this index.
    Device(u32),
    /// `RDMA_NLDEV_CMD_PORT_GET` of every port of the device with this index.
    Ports(u32),
    /// `RDMA_NLDEV_CMD_SYS_GET`.
    System,
}

/// The reply to a request: the attributes of each message, or an errno.
pub type Answer = Result<Vec<Vec<u8>>, i32>;

/// Replies to the request in `datagram` with the result of `answer`. Returns the datagrams to send;
/// none if `datagram` is not a request.
pub fn respond(datagram: &[u8], answer: impl FnOnce(Request) -> Answer) -> Vec<Vec<u8>> {
    let (Some(kind), Some(sequence)) = (u16_at(datagram, 4), u32_at(datagram, 8)) else {
        return Vec::new();
    };
    let dumped = u16_at(datagram, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP);
    // The only attribute of a request about a device is its index.
    let device = || u32_at(datagram, HEADER_LEN + 4).ok_or(EINVAL);
    match (kind & 0x3ff, dumped) {
        (1, true) => dump(kind, sequence, answer(Request::Devices)),
        (1, false) => {
            let described = device().and_then(|index| answer(Request::Device(index)));
            one(kind, sequence, datagram, described)
        }
        (5, true) => {
            let ports = device().and_then(|index| answer(Request::Ports(index)));
            dump(kind, sequence, ports)
        }
        (6, false) => one(kind, sequence, datagram, answer(Request::System)),
        _ => vec![acknowledgement(EINVAL, datagram)],
    }
}

/// Returns one reply and the acknowledgement after it, or the errno alone.
fn one(kind: u16, sequence: u32, request: &[u8], answer: Answer) -> Vec<Vec<u8>> {
    match answer {
        Ok(replies) => {
            let replies = replies
                .iter()
                .map(|reply| message(kind, 0, sequence, reply));
            replies.chain([acknowledgement(0, request)]).collect()
        }
        Err(errno) => vec![acknowledgement(errno, request)],
    }
}

/// Returns a dump in datagrams of bounded length. Its end carries the errno, even if no reply
/// precedes it.
fn dump(kind: u16, sequence: u32, answer: Answer) -> Vec<Vec<u8>> {
    let (replies, errno) = answer.map_or_else(|errno| (Vec::new(), errno), |replies| (replies, 0));
    let replies = replies
        .iter()
        .map(|reply| message(kind, NLM_F_MULTI, sequence, reply));
    let done = message(NLMSG_DONE, NLM_F_MULTI, sequence, &(-errno).to_ne_bytes());
    let mut datagrams = vec![Vec::new()];
    for message in replies.chain([done]) {
        match datagrams.last_mut() {
            Some(last) if last.len() + message.len() <= DATAGRAM_LEN => last.extend(message),
            _ => datagrams.push(message),
        }
    }
    datagrams
}

/// Returns the message of `netlink_ack()`: the errno and the request, or only the request's header
/// after success.
fn acknowledgement(errno: i32, request: &[u8]) -> Vec<u8> {
    let sequence = u32_at(request, 8).unwrap_or_default();
    let about = match errno {
        0 => request.get(..HEADER_LEN).unwrap_or(request),
        _ => request,
    };
    let payload = [&(-errno).to_ne_bytes(), about].concat();
    message(NLMSG_ERROR, 0, sequence, &payload)
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(payload);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// Returns one attribute, padded.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = len.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Returns the attribute of a string, which ends with a NUL.
#[must_use]
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, format!("{value}\0").as_bytes())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

//! The users of peers that the service's user namespace does not map. `PrivateUsers=identity`
//! (`systemd.exec(5)`) maps 0 to 65535, and the kernel shows every other user as 65534. A sock-diag
//! socket that the service manager opened outside of the namespace shows their numbers
//! (`sock_diag(7)`). Must never give a peer more rights than its own number would: the result is
//! used for shares and logs alone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::fstat;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::netlink::{aligned, u16_at, u32_at};

/// The number that the kernel shows for an unmapped user (`overflowuid`, `proc_sys_kernel(5)`).
const UNMAPPED: u32 = 65534;
/// The first number that `PrivateUsers=identity` does not map.
const FIRST_UNMAPPED: u32 = 65536;

/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` (`include/uapi/linux/netlink.h`).
const REQUEST: u16 = 1;
const AF_UNIX: u8 = 1;
/// Sockets in any state and with any cookie.
const ANY: [u8; 4] = [0xff; 4];

/// A request about a socket, and the attribute of the reply (`include/uapi/linux/unix_diag.h`).
#[derive(Clone, Copy)]
struct DiagRequest {
    show: u32,
    attribute: u16,
}

/// `UDIAG_SHOW_PEER`: the inode of the socket at the other end.
const PEER: DiagRequest = DiagRequest {
    show: 0x04,
    attribute: 2,
};
/// `UDIAG_SHOW_UID`: the user that made the socket.
const UID: DiagRequest = DiagRequest {
    show: 0x40,
    attribute: 7,
};

const NETLINK_HEADER_LEN: usize = 16;
/// The lengths of `struct unix_diag_req` and `struct unix_diag_msg`.
const REQUEST_LEN: usize = 24;
const REPLY_LEN: usize = 16;
/// A reply has one of the attributes above, and one or two that were not requested.
const BUFFER_LEN: usize = 1024;
/// The most unused replies to earlier requests that may still be queued.
const MAX_STALE: usize = 4;

/// The socket with which the users of peers are queried.
#[derive(Debug)]
pub(super) struct Origins {
    socket: OwnedFd,
    sequence: AtomicU32,
}

impl Origins {
    /// Uses a socket that the service manager opened.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            sequence: AtomicU32::new(0),
        }
    }

    /// Returns the user at the other end of a connection that the kernel shows as `uid`. Returns
    /// the same number if it is the user's own, or if the kernel does not know the user.
    pub(super) fn uid(&self, connection: impl AsFd, uid: u32) -> u32 {
        match uid {
            // A mapped user is never returned: a different user than the maker of a socket may have
            // connected it.
            UNMAPPED => self
                .maker(connection)
                .filter(|uid| *uid >= FIRST_UNMAPPED)
                .unwrap_or(uid),
            uid => uid,
        }
    }

    /// Returns the user that made the socket at the other end.
    fn maker(&self, connection: impl AsFd) -> Option<u32> {
        let inode = u32::try_from(fstat(connection).ok()?.st_ino).ok()?;
        let peer = self.ask(inode, PEER)?;
        self.ask(peer, UID)
    }

    /// Sends a request. The kernel replies synchronously: nothing waits.
    fn ask(&self, inode: u32, wanted: DiagRequest) -> Option<u32> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let request = encode(inode, wanted, sequence);
        send(
            &self.socket,
            &request,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )
        .ok()?;
        let mut buffer = [0; BUFFER_LEN];
        for _ in 0..=MAX_STALE {
            let (_, len) = recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT).ok()?;
            let datagram = buffer.get(..len)?;
            if u32_at(datagram, 8) == Some(sequence) {
                return decode(datagram, wanted.attribute);
            }
        }
        None
    }
}

fn encode(inode: u32, wanted: DiagRequest, sequence: u32) -> Vec<u8> {
    let len = u32::try_from(NETLINK_HEADER_LEN + REQUEST_LEN).unwrap_or_default();
    let mut request = Vec::with_capacity(NETLINK_HEADER_LEN + REQUEST_LEN);
    request.extend(len.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend([AF_UNIX, 0, 0, 0]);
    request.extend(ANY);
    request.extend(inode.to_ne_bytes());
    request.extend(wanted.show.to_ne_bytes());
    request.extend(ANY);
    request.extend(ANY);
    request
}

/// Returns the attribute of a reply; nothing for an error, which means that there is no such
/// socket.
fn decode(datagram: &[u8], attribute: u16) -> Option<u32> {
    if u16_at(datagram, 4)? != BY_FAMILY {
        return None;
    }
    let mut rest = datagram.get(NETLINK_HEADER_LEN + REPLY_LEN..)?;
    loop {
        let len = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..len)?;
        if u16_at(rest, 2)? == attribute {
            return u32_at(value, 0);
        }
        rest = rest.get(aligned(len)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

    use super::*;

    fn origins() -> Origins {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        );
        Origins::new(socket.unwrap())
    }

    #[test]
    fn the_kernel_reports_the_user_that_made_the_peer_socket() {
        let (near, _far) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(origins().maker(&near), Some(own));
    }

    #[test]
    fn a_mapped_user_is_kept_and_never_replaces_the_overflow_user() {
        let (near, _far) = UnixStream::pair().unwrap();
        let origins = origins();
        assert_eq!(origins.uid(&near, 1000), 1000);
        // The number of this process's user is mapped.
        assert_eq!(origins.uid(&near, UNMAPPED), UNMAPPED);
    }

    #[test]
    fn a_closed_peer_socket_has_no_known_user() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        assert_eq!(origins().maker(&near), None);
    }

    #[test]
    fn a_truncated_reply_or_an_error_yields_no_user() {
        let mut datagram = vec![0; NETLINK_HEADER_LEN + REPLY_LEN];
        datagram[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        datagram.extend([5, 0, 5, 0, 0, 0, 0, 0]);
        datagram.extend([8, 0, 7, 0, 1, 0, 1, 0]);
        assert_eq!(decode(&datagram, 7), Some(u32::from_ne_bytes([1, 0, 1, 0])));
        for len in 0..datagram.len() {
            assert_eq!(decode(&datagram[..len], 7), None);
        }
        datagram[4] = 2;
        assert_eq!(decode(&datagram, 7), None);
        // An attribute with a length of zero.
        datagram[4] = 20;
        datagram[32] = 0;
        assert_eq!(decode(&datagram, 7), None);
    }
}

//! The two sockets to the kernel: uevents in, `NETLINK_RDMA` dumps. Responsible for who sent a
//! datagram and for telling loss from silence; holds the only `unsafe` of this crate. Must
//! never open a `NETLINK_RDMA` socket unless its caller has seen `ib_core`.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType,
    bind, recvmsg, send, socket_with, sockopt,
};
use tokio::io::unix::AsyncFd;

use crate::nldev::{self, NldevError, Query};
use crate::uevent::{self, Uevent, UeventError};

/// The kernel's multicast group of uevents; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// How long whoever answers on a socket that was passed may take for one datagram of a dump.
/// The kernel itself answers while it is asked.
const DUMP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an interrupted dump is asked for again before the next event must help.
const DUMP_ATTEMPTS: u32 = 10;
/// The kernel fills a dump's datagrams up to 32 KiB (`NLMSG_GOODSIZE` in `netlink_dump()`).
const DUMP_BUFFER_LEN: usize = 64 * 1024;

/// What a read of the uevent socket gave.
#[derive(Debug)]
pub enum Received {
    /// An event of the kernel.
    Uevent(Uevent),
    /// A datagram that is not to be believed.
    Dropped(Refused),
    /// The queue overflowed: events are lost.
    Overrun,
}

/// Why a datagram is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its sender is not the kernel.
    #[error("its sender is not the kernel")]
    Sender,
    /// It is longer than any uevent.
    #[error("it is longer than {} bytes", uevent::MAX_LEN)]
    Truncated,
    /// It is not a uevent.
    #[error(transparent)]
    Malformed(#[from] UeventError),
}

/// The socket that kernel uevents arrive on.
pub struct UeventSocket {
    fd: AsyncFd<OwnedFd>,
    /// A netlink socket takes datagrams from anyone, so that each one's sender is checked. A
    /// connected pair has one possible sender: whoever started this process, which trusts it.
    check_sender: bool,
}

impl UeventSocket {
    /// Adopts the socket that the service manager holds, so that no event is lost while this
    /// program is not running.
    ///
    /// # Errors
    /// When it is not a socket.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let check_sender = sockopt::socket_domain(&fd)? == AddressFamily::NETLINK;
        Ok(Self {
            fd: register(fd)?,
            check_sender,
        })
    }

    /// Opens a socket of the kernel's uevent group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> io::Result<Self> {
        let fd = netlink_socket(netlink::KOBJECT_UEVENT)?;
        bind(&fd, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Self::adopt(fd)
    }

    /// Waits for the next datagram.
    ///
    /// # Errors
    /// When the socket is of no more use.
    pub async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.fd.readable().await?;
            if let Ok(received) = ready.try_io(|fd| self.read(fd.get_ref())) {
                return received;
            }
        }
    }

    /// The next datagram, when one is there.
    ///
    /// # Errors
    /// When the socket is of no more use.
    pub fn try_receive(&self) -> io::Result<Option<Received>> {
        match self.read(self.fd.get_ref()) {
            Ok(received) => Ok(Some(received)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read(&self, fd: &OwnedFd) -> io::Result<Received> {
        let mut buffer = vec![0; uevent::MAX_LEN];
        let mut control = RecvAncillaryBuffer::default();
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = match recvmsg(fd, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message,
            Err(Errno::NOBUFS) => return Ok(Received::Overrun),
            Err(e) => return Err(e.into()),
        };
        if message.bytes == 0 && !self.check_sender {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from_kernel = || {
            let sender = message.address.clone().map(SocketAddrNetlink::try_from);
            matches!(sender, Some(Ok(sender)) if sender.pid() == 0 && sender.groups() != 0)
        };
        if self.check_sender && !from_kernel() {
            return Ok(Received::Dropped(Refused::Sender));
        }
        if message.flags.contains(ReturnFlags::TRUNC) {
            return Ok(Received::Dropped(Refused::Truncated));
        }
        let datagram = buffer.get(..message.bytes).unwrap_or_default();
        Ok(match Uevent::parse(datagram) {
            Ok(uevent) => Received::Uevent(uevent),
            Err(e) => Received::Dropped(e.into()),
        })
    }
}

/// Why the kernel could not be asked for its RDMA devices.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The socket cannot be opened, written or read.
    #[error("NETLINK_RDMA")]
    Io(#[from] io::Error),
    /// The kernel's answer cannot be used.
    #[error("NETLINK_RDMA")]
    Reply(#[from] NldevError),
    /// The kernel did not answer in time.
    #[error("NETLINK_RDMA: no answer within {DUMP_TIMEOUT:?}")]
    TimedOut,
}

/// A socket that RDMA devices are asked for with.
pub struct RdmaSocket {
    fd: AsyncFd<OwnedFd>,
    sequence: u32,
}

impl RdmaSocket {
    /// Adopts a socket that was passed to this process.
    ///
    /// # Errors
    /// When it is not a socket.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: register(fd)?,
            sequence: 0,
        })
    }

    /// Opens a socket. The kernel loads `ib_core` for this: see first that it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> io::Result<Self> {
        Self::adopt(netlink_socket(netlink::RDMA)?)
    }

    /// Asks, and decodes every reply with `parse`.
    ///
    /// # Errors
    /// See [`DumpError`]. A dump that a change interrupts is asked for again first.
    pub async fn dump<T>(
        &mut self,
        query: Query,
        parse: impl Fn(&[u8]) -> Result<T, NldevError>,
    ) -> Result<Vec<T>, DumpError> {
        let mut attempt = 1;
        loop {
            match self.dump_once(query, &parse).await {
                Err(DumpError::Reply(NldevError::Interrupted)) if attempt < DUMP_ATTEMPTS => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn dump_once<T>(
        &mut self,
        query: Query,
        parse: &impl Fn(&[u8]) -> Result<T, NldevError>,
    ) -> Result<Vec<T>, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = query.encode(self.sequence);
        send(self.fd.as_fd(), &request, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut buffer = vec![0; DUMP_BUFFER_LEN];
        let mut replies = Vec::new();
        loop {
            let len = tokio::time::timeout(DUMP_TIMEOUT, self.receive(&mut buffer))
                .await
                .map_err(|_| DumpError::TimedOut)??;
            let datagram = buffer.get(..len).ok_or(NldevError::Cut)?;
            let batch = nldev::batch(datagram, self.sequence)?;
            for payload in batch.payloads {
                replies.push(parse(payload)?);
            }
            if batch.done {
                return Ok(replies);
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            let received = ready.try_io(|fd| {
                let (_, len) = rustix::net::recv(fd, &mut *buffer, RecvFlags::TRUNC)?;
                Ok(len)
            });
            match received {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(outcome) => return outcome,
                Err(_) => {}
            }
        }
    }
}

/// Has the runtime watch a socket.
#[expect(
    unsafe_code,
    reason = "AsyncFd cannot see by itself that its fd stays the same one"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and the
    // `AsyncFd` owns it for as long as it is registered.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

fn netlink_socket(protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(protocol),
    )?)
}

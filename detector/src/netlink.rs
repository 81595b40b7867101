//! The sockets to the kernel: uevents and the RDMA monitor for input, `NETLINK_RDMA` for requests.
//! Responsible for checking the sender of a datagram, and for distinguishing lost messages from
//! silence. Holds the `unsafe` code for the sockets. Must never open a `NETLINK_RDMA` socket unless
//! its caller has seen `ib_core`.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType,
    bind, recvmsg, send, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::nldev::{self, NldevError, Query};
use crate::uevent::{self, Uevent, UeventError};

/// The kernel's multicast group for uevents. Group 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// The mask of `RDMA_NL_GROUP_NOTIFY`, group 4.
const NOTIFY_GROUP: u32 = 1 << 3;
/// The time that the reply to a request may take, for each datagram of a dump. The kernel processes
/// a request within the call that sends it. After each timeout the next reply may take half of the
/// time, so that all timeouts of one socket in a scan add up to less than twice this time.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// The shortest of these times.
const LEAST_TIMEOUT: Duration = Duration::from_millis(20);
/// The number of attempts for an interrupted dump. After that, the next event must lead to another.
const DUMP_ATTEMPTS: u32 = 10;
/// The size of the receive buffer. The kernel fills the datagrams of a dump up to 32 KiB
/// (`NLMSG_GOODSIZE` in `netlink_dump()`).
const DUMP_BUFFER_LEN: usize = 64 * 1024;
/// The maximum number of replies to one request, well above the maximum number of published
/// devices.
const MAX_REPLIES: usize = 65_536;
/// The number of datagrams that are read at once, before other tasks run.
const MAX_AT_ONCE: usize = 256;
/// The number of datagrams that are read for a barrier, several times what a storm of a thousand
/// devices sends.
const MAX_AT_A_BARRIER: usize = 65_536;

/// The result of reading from a socket that the kernel sends to.
#[derive(Debug)]
pub enum Received<T> {
    /// A message of the kernel.
    Message(T),
    /// A datagram that is not trusted.
    Dropped(Refused),
    /// The queue overflowed, and messages were lost.
    Overrun,
}

/// The reason why a datagram is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The sender is not the kernel.
    #[error("its sender is not the kernel")]
    Sender,
    /// The datagram is longer than any message of the kernel.
    #[error("it is longer than {} bytes", uevent::MAX_LEN)]
    Truncated,
    /// The datagram is not a uevent.
    #[error(transparent)]
    Uevent(#[from] UeventError),
    /// The datagram is not a message of the monitor.
    #[error(transparent)]
    Monitor(#[from] NldevError),
}

/// A socket to which the kernel sends without a request.
pub struct KernelSocket {
    fd: AsyncFd<OwnedFd>,
    /// True if the sender of each datagram must be checked, because a netlink socket accepts
    /// datagrams from any process. A connected pair has only one possible sender, the process that
    /// started this one, which is trusted.
    check_sender: bool,
    buffer: Vec<u8>,
}

impl KernelSocket {
    /// Adopts the socket that the service manager holds, so that no event is lost while this
    /// program is not running.
    ///
    /// # Errors
    /// Fails if it is not a socket.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let check_sender = sockopt::socket_domain(&fd)? == AddressFamily::NETLINK;
        Ok(Self {
            fd: register(fd)?,
            check_sender,
            buffer: vec![0; uevent::MAX_LEN],
        })
    }

    /// Opens a socket of the kernel's uevent group.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn uevents() -> io::Result<Self> {
        let fd = netlink_socket(netlink::KOBJECT_UEVENT)?;
        bind(&fd, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Self::adopt(fd)
    }

    /// Opens a socket of the RDMA monitor's group. While it is open, ib_core cannot be unloaded.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn monitor() -> io::Result<Self> {
        let fd = netlink_socket(netlink::RDMA)?;
        bind(&fd, &SocketAddrNetlink::new(0, NOTIFY_GROUP))?;
        Self::adopt(fd)
    }

    /// Waits until there may be datagrams.
    ///
    /// # Errors
    /// Fails if the socket is no longer usable.
    pub async fn readable(&self) -> io::Result<()> {
        self.fd.readable().await.map(drop)
    }

    /// Passes each available datagram to `take`, up to a limit.
    ///
    /// # Errors
    /// Fails if the socket is no longer usable.
    pub fn drain(&mut self, mut take: impl FnMut(Received<&[u8]>)) -> io::Result<()> {
        for _ in 0..MAX_AT_ONCE {
            let buffer = &mut self.buffer;
            let read = |fd: &OwnedFd| read(fd, self.check_sender, buffer);
            match self.fd.try_io(Interest::READABLE, read) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                received => take(self.received(received?)),
            }
        }
        Ok(())
    }

    /// Passes each datagram that the kernel has sent until now to `take`, even if the runtime has
    /// not yet noticed it.
    ///
    /// # Errors
    /// Fails if the socket is no longer usable.
    pub fn drain_all(&mut self, mut take: impl FnMut(Received<&[u8]>)) -> io::Result<()> {
        for _ in 0..MAX_AT_A_BARRIER {
            match read(self.fd.get_ref(), self.check_sender, &mut self.buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => take(self.received(received?)),
            }
        }
        // The rest cannot be distinguished from datagrams that have arrived since.
        take(Received::Overrun);
        Ok(())
    }

    fn received(&self, received: Received<usize>) -> Received<&[u8]> {
        match received {
            Received::Message(len) => Received::Message(self.buffer.get(..len).unwrap_or_default()),
            Received::Dropped(refused) => Received::Dropped(refused),
            Received::Overrun => Received::Overrun,
        }
    }
}

/// Decodes a received uevent.
#[must_use]
pub fn uevent(received: Received<&[u8]>) -> Received<Uevent<'_>> {
    decoded(received, |datagram| Ok(Uevent::parse(datagram)?))
}

/// Decodes a received message of the monitor to the indexes of devices.
#[must_use]
pub fn monitored(received: Received<&[u8]>) -> Received<Vec<Option<u32>>> {
    decoded(received, |datagram| Ok(nldev::monitored(datagram)?))
}

fn decoded<'d, T>(
    received: Received<&'d [u8]>,
    decode: impl FnOnce(&'d [u8]) -> Result<T, Refused>,
) -> Received<T> {
    match received {
        Received::Message(datagram) => match decode(datagram) {
            Ok(message) => Received::Message(message),
            Err(refused) => Received::Dropped(refused),
        },
        Received::Dropped(refused) => Received::Dropped(refused),
        Received::Overrun => Received::Overrun,
    }
}

/// Reads one datagram, and returns its length.
fn read(fd: &OwnedFd, check_sender: bool, buffer: &mut [u8]) -> io::Result<Received<usize>> {
    let mut control = RecvAncillaryBuffer::default();
    let mut slices = [IoSliceMut::new(buffer)];
    let message = match recvmsg(fd, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) => message,
        Err(Errno::NOBUFS) => return Ok(Received::Overrun),
        Err(e) => return Err(e.into()),
    };
    if message.bytes == 0 && !check_sender {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let sender = message.address.map(SocketAddrNetlink::try_from);
    let from_kernel =
        matches!(sender, Some(Ok(sender)) if sender.pid() == 0 && sender.groups() != 0);
    if check_sender && !from_kernel {
        return Ok(Received::Dropped(Refused::Sender));
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Received::Dropped(Refused::Truncated));
    }
    Ok(Received::Message(message.bytes))
}

/// The reason why the kernel could not be queried for its RDMA devices.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The socket cannot be opened, written or read.
    #[error("NETLINK_RDMA")]
    Io(#[from] io::Error),
    /// The kernel's reply cannot be used.
    #[error("NETLINK_RDMA")]
    Reply(#[from] NldevError),
    /// The kernel did not reply in time.
    #[error("NETLINK_RDMA: no answer within {ANSWER_TIMEOUT:?}")]
    TimedOut,
}

/// A socket for requests about RDMA devices. It blocks: the kernel processes a request within the
/// call that sends it, and a device's firmware may be slow.
pub struct RdmaSocket {
    fd: OwnedFd,
    /// The time that the next reply may take.
    patience: Duration,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RdmaSocket {
    /// Adopts a socket that was passed to this process.
    ///
    /// # Errors
    /// Fails if it is not a socket.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, false)?;
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            fd,
            patience: ANSWER_TIMEOUT,
            sequence: 0,
            buffer: vec![0; DUMP_BUFFER_LEN],
        })
    }

    /// Opens a socket. This makes the kernel load `ib_core`, so the caller must check first that it
    /// is present.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn open() -> io::Result<Self> {
        Self::adopt(netlink_socket(netlink::RDMA)?)
    }

    /// Sends a request, and passes each reply to `take`. Passes `None` if the previous replies are
    /// void, because a change interrupted the dump and it is requested again.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn ask(
        &mut self,
        query: Query,
        mut take: impl FnMut(Option<&[u8]>),
    ) -> Result<(), RequestError> {
        let mut attempt = 1;
        loop {
            match self.ask_once(query, &mut take) {
                Err(RequestError::Reply(NldevError::Interrupted)) if attempt < DUMP_ATTEMPTS => {
                    take(None);
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Gives the next reply its full time again.
    pub fn be_patient(&mut self) {
        if self.patience != ANSWER_TIMEOUT {
            self.wait_for(ANSWER_TIMEOUT);
        }
    }

    fn wait_for(&mut self, patience: Duration) {
        self.patience = patience;
        // If the timeout cannot be set, the socket keeps its previous one.
        let _ = sockopt::set_socket_timeout(&self.fd, Timeout::Recv, Some(patience));
    }

    fn ask_once(
        &mut self,
        query: Query,
        take: &mut impl FnMut(Option<&[u8]>),
    ) -> Result<(), RequestError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = query.encode(self.sequence);
        send(&self.fd, &request, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut replies = 0;
        loop {
            let received = rustix::net::recv(self.fd.as_fd(), &mut *self.buffer, RecvFlags::TRUNC);
            let len = match received {
                Ok((_, 0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok((_, len)) => len,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.wait_for((self.patience / 2).max(LEAST_TIMEOUT));
                    return Err(RequestError::TimedOut);
                }
                Err(e) => return Err(io::Error::from(e).into()),
            };
            let datagram = self.buffer.get(..len).ok_or(NldevError::Cut)?;
            let batch = nldev::batch(datagram, self.sequence)?;
            for payload in batch.payloads {
                replies += 1;
                if replies > MAX_REPLIES {
                    return Err(NldevError::TooMany(MAX_REPLIES).into());
                }
                take(Some(payload));
            }
            if batch.done {
                return Ok(());
            }
        }
    }
}

/// Registers a socket with the runtime.
#[expect(
    unsafe_code,
    reason = "AsyncFd cannot see by itself that its fd stays the same one"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and the `AsyncFd`
    // owns it for as long as it is registered.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

fn netlink_socket(protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )?)
}

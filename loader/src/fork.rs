//! The split into two processes at the start of the program: one serves clients, one inserts
//! modules. A module whose initialisation never ends then blocks only a process that nothing else
//! waits for. Contains the only `unsafe` code of this crate, tests aside. Must never run where a
//! second thread exists, and must never leave the inserting process a descriptor that belongs to
//! the serving one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// The process that this one has become, with its end of the socket between the two. One message is
/// one record of the socket (`SOCK_SEQPACKET`, `unix(7)`).
#[derive(Debug)]
pub enum Side {
    /// The original process: it serves.
    Serving(OwnedFd),
    /// The new process: it inserts modules. Only its end of the socket and the three standard
    /// streams are open in it.
    Inserting(OwnedFd),
}

/// Creates the second process, without an exec: both start with the same memory.
///
/// # Errors
/// Fails if this process has more than one thread, or if the kernel refuses a socket or a process.
#[expect(unsafe_code, reason = "std has no fork(2) and no close_range(2)")]
pub fn fork() -> io::Result<Side> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // SAFETY: unshare(2) has no pointers. CLONE_VM changes nothing in a single-threaded process,
    // and fails with EINVAL in a multithreaded one: the call only checks which of the two this is.
    if unsafe { libc::unshare(libc::CLONE_VM) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fork(2) copies the only thread (see above), so no lock in the copy is held by a
    // thread that the copy does not have.
    match unsafe { libc::fork() } {
        ..0 => Err(io::Error::last_os_error()),
        0 => {
            // Dropped before its number is closed below, so that it is not closed twice.
            drop(ours);
            let kept = theirs.as_raw_fd().cast_unsigned();
            close_range(
                libc::STDERR_FILENO.cast_unsigned() + 1,
                kept.saturating_sub(1),
            )?;
            close_range(kept + 1, u32::MAX)?;
            Ok(Side::Inserting(theirs))
        }
        _ => Ok(Side::Serving(ours)),
    }
}

/// Closes the descriptors from `first` to `last`, or none if `last` is smaller.
#[expect(unsafe_code, reason = "std has no close_range(2)")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    if last < first {
        return Ok(());
    }
    // SAFETY: close_range(2) has no pointers. The descriptors have no owner in this process: the
    // service manager passed them, and only the serving process adopts them. Between fork(2) and
    // the return of `fork`, nothing opens a descriptor that is kept.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

//! The split into two processes at the start of the program: one serves, one inserts modules. A
//! module whose initialisation never ends then holds up a process that nothing else waits for.
//! Holds the only `unsafe` of this crate. Must never run where a second thread exists, and must
//! never leave the inserting process a descriptor that belongs to the serving one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Which of the two processes this one has become, with its end of the socket between them. One
/// message is one record of the socket (`SOCK_SEQPACKET`, `unix(7)`).
#[derive(Debug)]
pub enum Side {
    /// The process that was started: it serves.
    Serving(OwnedFd),
    /// The new process: it inserts modules. Nothing but its end of the socket and the three
    /// standard streams is open in it.
    Inserting(OwnedFd),
}

/// Makes the second process, without an exec: both have the memory of this moment.
///
/// # Errors
/// When this process has more than one thread, or when the kernel refuses a socket or a process.
#[expect(unsafe_code, reason = "std has no fork(2) and no close_range(2)")]
pub fn fork() -> io::Result<Side> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // SAFETY: unshare(2) has no pointers. CLONE_VM changes nothing in a process of one thread,
    // and fails with EINVAL in one that has more: it is only asked which of the two this is.
    if unsafe { libc::unshare(libc::CLONE_VM) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fork(2) copies the one thread that there is (see above), so that no lock is held
    // in the copy by a thread that it does not have.
    match unsafe { libc::fork() } {
        ..0 => Err(io::Error::last_os_error()),
        0 => {
            // Before the numbers are closed below, so that its owner does not close one twice.
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

/// Closes the descriptors from `first` to `last`. None are between them when `last` is smaller.
#[expect(unsafe_code, reason = "std has no close_range(2)")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    if last < first {
        return Ok(());
    }
    // SAFETY: close_range(2) has no pointers. The descriptors have no owner in this process: they
    // are what the service manager passed, which the serving process alone adopts, and after the
    // fork and before its return nothing has opened one that is kept.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

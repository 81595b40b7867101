//! The file descriptors that the service manager passes (`sd_listen_fds(3)`), matched by their
//! names (`FileDescriptorName=`), never by their order. Holds the only `unsafe` of this crate. Must
//! never open or bind anything that the caller did not name.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::sockopt;

/// The socket that a varlink server serves.
#[derive(Debug)]
pub enum Endpoint {
    /// A listening socket: connections are accepted until the service ends.
    Listening(UnixListener),
    /// One connected socket (`Accept=yes`, or a client that started this program): it is served,
    /// and then the program ends.
    Connected(UnixStream),
}

/// The descriptors that this process inherited and that have not been taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    fds: Vec<(String, OwnedFd)>,
}

impl Inherited {
    /// Takes the descriptors that `$LISTEN_FDS` announces. Call it once, at the start of `main`.
    ///
    /// # Errors
    /// Fails if the variables contradict each other or the descriptors.
    #[expect(
        unsafe_code,
        reason = "a raw descriptor number has to become an owner once"
    )]
    pub fn from_environment() -> io::Result<Self> {
        let fds = sd_notify::listen_fds_with_names()?
            .map(|(fd, name)| {
                // SAFETY: the service manager opened the descriptors from 3 on for this process
                // (`$LISTEN_PID` was checked), and nothing else in it owns them: this runs once,
                // before any other code could adopt or close them.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                (name, fd)
            })
            .collect();
        Ok(Self { fds })
    }

    /// Takes the first descriptor called `name`.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.fds.iter().position(|(n, _)| n == name)?;
        Some(self.fds.remove(at).1)
    }

    /// Takes the socket called `varlink`, listening or connected. If there is none, binds the path
    /// in `listen` (`$SYSTEMD_VARLINK_LISTEN`, for running a service by hand).
    ///
    /// # Errors
    /// Fails if there is neither, or if the path cannot be bound.
    pub fn take_varlink(&mut self, listen: Option<&Path>) -> io::Result<Endpoint> {
        if let Some(fd) = self.take("varlink") {
            return Ok(if sockopt::socket_acceptconn(&fd)? {
                Endpoint::Listening(fd.into())
            } else {
                Endpoint::Connected(fd.into())
            });
        }
        let Some(path) = listen else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no socket called 'varlink' was passed; start this program with its socket unit, or set \
                 SYSTEMD_VARLINK_LISTEN=PATH",
            ));
        };
        let listener = UnixListener::bind(path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Ok(Endpoint::Listening(listener))
    }
}

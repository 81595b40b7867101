//! PID 1's part in the lab: makes the sockets, starts the services with them, and waits for their
//! READY. Must never leave a process behind, however it ends.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// The name under which the lab's program starts another program with its descriptors.
pub const ACTIVATE: &str = "lab-activate";
/// The time that a service may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The first passed descriptor (`SD_LISTEN_FDS_START`).
const FIRST_FD: i32 = 3;

/// One service, with the arguments, environment and descriptors of all its starts.
pub struct Service {
    name: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    fds: Vec<(&'static str, OwnedFd)>,
    notify: Arc<UnixDatagram>,
    notify_path: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Service {
    /// Creates a service called `name`, which must be one that the lab's program knows. `run` is
    /// the directory of its notification socket, `log` that of its log.
    ///
    /// # Errors
    /// Fails if the notification socket cannot be made.
    pub fn new(name: &'static str, run: &Path, log: &Path) -> io::Result<Self> {
        let notify_path = run.join(format!("notify-{name}"));
        Ok(Self {
            name,
            arguments: Vec::new(),
            environment: Vec::new(),
            fds: Vec::new(),
            notify: Arc::new(UnixDatagram::bind(&notify_path)?),
            notify_path,
            log: log.join(format!("{name}.log")),
            child: None,
        })
    }

    /// Adds an argument and its value.
    #[must_use]
    pub fn argument(mut self, option: &str, value: impl Into<OsString>) -> Self {
        self.arguments.push(option.into());
        self.arguments.push(value.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Adds a descriptor under a name.
    #[must_use]
    pub fn pass(mut self, name: &'static str, fd: OwnedFd) -> Self {
        self.fds.push((name, fd));
        self
    }

    /// Adds the listening socket `varlink` at `path`.
    ///
    /// # Errors
    /// Fails if it cannot be bound.
    pub fn listen(self, path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Ok(self.pass("varlink", listener.into()))
    }

    /// Returns the service's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the service's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let child = self.child.as_ref()?;
        Pid::from_raw(child.id()?.cast_signed())
    }

    /// Returns the service's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts the service from `program`, the lab's own program.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start(&mut self, program: &Path) -> io::Result<()> {
        let mut mappings = Vec::new();
        for (child_fd, (_, fd)) in (FIRST_FD..).zip(&self.fds) {
            mappings.push(FdMapping {
                parent_fd: fd.try_clone()?,
                child_fd,
            });
        }
        let names: Vec<&str> = self.fds.iter().map(|(name, _)| *name).collect();
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(program)
            .arg0(ACTIVATE)
            .arg(getpid().as_raw_nonzero().to_string())
            .arg(self.name)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .env("LISTEN_FDS", self.fds.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("NOTIFY_SOCKET", &self.notify_path)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C must only reach the lab, which stops its services itself.
            .process_group(0)
            .kill_on_drop(true)
            .fd_mappings(mappings)
            .map_err(|e| io::Error::other(e.to_string()))?
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the service has sent READY.
    ///
    /// # Errors
    /// Fails if it exits before that.
    pub async fn ready(&mut self) -> io::Result<()> {
        let mut message = [0; 4096];
        loop {
            let name = self.name;
            tokio::select! {
                len = self.notify.recv(&mut message) => {
                    let text = String::from_utf8_lossy(message.get(..len?).unwrap_or_default());
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                }
                status = wait(&mut self.child) => {
                    return Err(io::Error::other(format!("{name} ended: {}", status?)));
                }
            }
        }
    }

    /// Receives the service's notifications from here on, for ever: a full queue would block the
    /// service.
    pub fn hear(&self) -> impl Future<Output = ()> + 'static {
        let notify = Arc::clone(&self.notify);
        async move {
            let mut message = [0; 4096];
            while notify.recv(&mut message).await.is_ok() {}
        }
    }

    /// Kills the service outright and reaps it.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub async fn kill(&mut self) -> io::Result<()> {
        match &mut self.child {
            Some(child) => child.kill().await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Sends SIGTERM to the service and does not wait for its exit.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn terminate(&self) -> io::Result<()> {
        let pid = self.pid().ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Returns true if the service has exited.
    ///
    /// # Errors
    /// Fails if the state of the process cannot be read.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Sends SIGTERM to the service, waits for its exit, and kills it after a timeout.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, child.wait())
            .await
            .is_err()
        {
            let _ = child.kill().await;
        }
    }
}

async fn wait(child: &mut Option<Child>) -> io::Result<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Becomes a service: arranges to be killed when the process that started it exits, sets
/// `$LISTEN_PID`, and executes the program that the second argument names. Returns only on an
/// error.
#[must_use]
pub fn activate() -> io::Error {
    let mut arguments = env::args_os().skip(1);
    let parent = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let Some(name) = arguments.next() else {
        return io::ErrorKind::InvalidInput.into();
    };
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return e.into();
    }
    // The parent may have exited before the signal was set.
    if getppid() != parent.and_then(Pid::from_raw) {
        return io::Error::other("the lab has exited");
    }
    std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env("LISTEN_PID", getpid().as_raw_nonzero().to_string())
        .exec()
}

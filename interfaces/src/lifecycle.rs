//! The protocol between a service and its service manager: READY, RELOADING, STOPPING, the
//! watchdog, and the signals that request a stop or a reload (`sd_notify(3)`,
//! `systemd.service(5)`). Must never end anything itself.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{self, SignalKind, signal};

/// The most files that a service needs open: its connections, and a few others.
const MAX_FILES: u64 = 8192;

/// A request of the service manager, or of a user, to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that carry such requests, caught from the creation of this value on.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Catches the signals.
    ///
    /// # Errors
    /// Fails if they cannot be caught.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// True if READY was sent.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Reports that the start is complete, and the status that `systemctl status` shows. Without a
/// service manager this function and those below send nothing.
pub fn ready(status: &str) {
    STARTED.store(true, Ordering::Relaxed);
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Calls `reload` to read the configuration again, and returns its result: a status, or nothing if
/// there is no configuration to read. Sends RELOADING before the call and READY after it.
pub fn reload(reload: impl FnOnce() -> Option<String>) -> Option<String> {
    // While the service starts, the service manager waits for READY only. A READY that ends a
    // reload would be taken as the end of the start.
    let started = STARTED.load(Ordering::Relaxed);
    if started {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(e) => tracing::warn!("cannot send the time to the service manager: {e}"),
        }
    }
    let status = reload();
    if started {
        ready(status.as_deref().unwrap_or("no configuration to reload"));
    }
    status
}

/// Reports that the service is stopping.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Sends keep-alives to the watchdog at the interval that it requires. Never completes.
pub async fn feed_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // Half of the timeout, as sd_watchdog_enabled(3) recommends.
    let mut interval = tokio::time::interval((timeout / 2).max(Duration::from_millis(1)));
    loop {
        interval.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Raises the limit of open files of this process to what it needs or to the hard limit, and
/// returns the resulting limit.
///
/// The soft limit is low for programs that use select(2), which no service uses
/// (`systemd.exec(5)`, "Process Properties").
pub fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MAX_FILES).min(MAX_FILES);
    let current = limit.current.unwrap_or(MAX_FILES);
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    let files = if current < wanted && setrlimit(Resource::Nofile, raised).is_ok() {
        wanted
    } else {
        current
    };
    usize::try_from(files).unwrap_or(usize::MAX)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {e}");
    }
}

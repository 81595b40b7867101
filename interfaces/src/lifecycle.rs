//! A service and its service manager: READY, RELOADING, STOPPING, the watchdog, and the signals
//! that say what is wanted (`sd_notify(3)`, `systemd.service(5)`). Must never end anything
//! itself.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// As many files as a service ever needs open: its connections, and some of its own.
const MAX_FILES: u64 = 8192;

/// What the service manager, or a person, wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM or SIGINT: end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that wishes come as, caught from its making on.
#[derive(Debug)]
pub struct Wishes {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Wishes {
    /// Catches the signals.
    ///
    /// # Errors
    /// When they cannot be caught.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// Whether READY was said.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Says that the start is complete, and what `systemctl status` should show. Without a service
/// manager this, like all that follows, says nothing to nobody.
pub fn ready(status: &str) {
    STARTED.store(true, Ordering::Relaxed);
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Has `reload` read the configuration again, between saying that it begins and that it is
/// done, and returns what it returns: a status, or nothing where there is nothing to read.
pub fn reload(reload: impl FnOnce() -> Option<String>) -> Option<String> {
    // While the service is starting the service manager waits for READY alone, and one that
    // means the end of a reload would be taken for the end of the start.
    let started = STARTED.load(Ordering::Relaxed);
    if started {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(e) => tracing::warn!("cannot tell the time to the service manager: {e}"),
        }
    }
    let status = reload();
    if started {
        ready(status.as_deref().unwrap_or("nothing to read again"));
    }
    status
}

/// Says that the end has begun.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the service lives, again and again, as often as it wants to hear it.
/// Never completes.
pub async fn feed_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // Half of it, as sd_watchdog_enabled(3) recommends.
    let mut interval = tokio::time::interval((timeout / 2).max(Duration::from_millis(1)));
    loop {
        interval.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Lets this process open as many files as it may, up to what it needs, and says how many.
///
/// The soft limit is low for programs that use select(2), which none of ours does
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
        tracing::warn!("cannot reach the service manager: {e}");
    }
}

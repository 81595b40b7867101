//! The event loop. It listens first, and then scans. After each event that concerns RDMA it scans
//! again, and publishes the differences. Events only report that a change happened. The state
//! always comes from the kernel, and is read on a separate thread, so that a device with hanging
//! firmware delays no reply. Must never decide the meaning of a change.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use interfaces::activation::Inherited;
use interfaces::clock::{now, until};
use interfaces::lifecycle::{self, Signals};
use interfaces::log::Chain;
use interfaces::sandbox::{self, SandboxError};
use interfaces::server::{self, Admission, LimitError, Limits};
use interfaces::user;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinHandle};

use crate::barrier::{Barrier, Barriers, reached};
use crate::config::Config;
use crate::intake::{Counts, Intake};
use crate::interval::ScanInterval;
use crate::netlink::{self, KernelSocket, RdmaSocket, Received, RequestError};
use crate::pending::Pending;
use crate::scan::{Scan, Scanner};
use crate::server::{Detector, Published};
use crate::sysfs::Sysfs;
use crate::trim::{self, Trimmer};

/// The allowed system calls, one per line.
const CALLS: &str = include_str!("../../deploy/seccomp/rdma-detector.calls");

/// The reason why the detector cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A passed socket cannot be used, or a required one is missing.
    #[error("cannot use the passed sockets")]
    Activation(#[source] io::Error),
    /// Unneeded privileges cannot be given up.
    #[error("cannot restrict the process")]
    Sandbox(#[source] SandboxError),
    /// A limit on the command line is invalid.
    #[error("invalid --limit, or RDMA_HOTPLUG_LIMITS")]
    Limits(#[source] LimitError),
    /// The uevent socket failed.
    #[error("cannot receive uevents")]
    Uevents(#[source] io::Error),
    /// The scanning thread failed.
    #[error("cannot scan the devices")]
    Scan(#[source] JoinError),
    /// The runtime, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Runs the detector until it receives a signal to stop.
///
/// # Errors
/// See [`Error`].
pub fn main(config: Config) -> Result<(), Error> {
    trim::use_one_arena();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        // Memory that the thread's allocator keeps is freed only when the thread exits.
        .thread_keep_alive(Duration::from_millis(500))
        .build()
        .map_err(Error::Runtime)?;
    let outcome = runtime.block_on(run(config));
    // A stop of the service does not wait for firmware.
    runtime.shutdown_background();
    outcome
}

async fn run(config: Config) -> Result<(), Error> {
    let mut signals = Signals::catch().map_err(Error::Runtime)?;
    let mut inherited = Inherited::from_environment().map_err(Error::Activation)?;
    let admission = Admission {
        limits: Limits::parse(&config.limits).map_err(Error::Limits)?,
        peers: user::uid(&config.orchestrator, &config.passwd)
            .into_iter()
            .collect(),
        sock_diag: inherited.take("sock-diag"),
    };
    let uevents = match inherited.take("uevent") {
        Some(fd) => KernelSocket::adopt(fd),
        None => KernelSocket::uevents(),
    }
    .map_err(Error::Activation)?;
    let rdma = inherited
        .take("rdma-netlink")
        .map(RdmaSocket::adopt)
        .transpose()
        .map_err(Error::Activation)?;
    let endpoint = inherited
        .take_varlink(config.listen.as_deref())
        .map_err(Error::Activation)?;

    // This must be done before a second thread exists: it restricts one thread and its children.
    sandbox::restrict_files([config.sysfs.as_path()], []).map_err(Error::Sandbox)?;
    sandbox::restrict_system_calls(CALLS, "serve").map_err(Error::Sandbox)?;
    // The socket is open, so each change from here on causes an event. A scan can only be older
    // than the events, never newer.
    let published = Arc::new(Published::new(now()));
    let (barriers, waiting) = mpsc::channel(1);
    let event_loop = EventLoop {
        barriers: Barriers::new(waiting),
        uevents,
        monitor: None,
        intake: Intake::default(),
        interval: ScanInterval::default(),
        trimmer: Trimmer::default(),
        published: Arc::clone(&published),
    };
    let late = Arc::new(Notify::new());
    let wake = Arc::clone(&late);
    let scanner = Scanner::new(Sysfs::new(config.sysfs), rdma).waking(move || wake.notify_one());
    let service = Arc::new(Detector::new(published, barriers));
    tokio::select! {
        served = server::serve(endpoint, service, &mut signals, None, admission) => served.map_err(Error::Runtime),
        failed = event_loop.run(scanner, &late) => Err(failed),
    }
}

/// A scan in progress.
type RunningScan = JoinHandle<Box<FinishedScan>>;

/// The next step of the event loop.
enum Next {
    Uevents(io::Result<()>),
    Monitor(io::Result<()>),
    Scan,
    Scanned(Result<Box<FinishedScan>, JoinError>),
    Trim,
    Late,
    Barrier,
}

/// The event loop: its sockets and its state.
struct EventLoop {
    barriers: Barriers,
    uevents: KernelSocket,
    /// The monitor, open only while there are devices. It keeps ib_core from being unloaded.
    monitor: Option<KernelSocket>,
    intake: Intake,
    interval: ScanInterval,
    trimmer: Trimmer,
    published: Arc<Published>,
}

impl EventLoop {
    /// Scans at the start and after each event that concerns RDMA. Returns only when a socket or
    /// the scanning thread fails.
    async fn run(mut self, scanner: Scanner, late: &Notify) -> Error {
        let mut idle = Some(scanner);
        let mut running: Option<RunningScan> = None;
        let mut ready = false;
        loop {
            let due = idle.is_some().then(|| self.due()).flatten();
            let next = tokio::select! {
                ready = self.uevents.readable() => Next::Uevents(ready),
                ready = readable(self.monitor.as_ref()) => Next::Monitor(ready),
                () = until(due) => Next::Scan,
                () = until(self.trimmer.due()) => Next::Trim,
                () = late.notified() => Next::Late,
                () = self.barriers.next() => Next::Barrier,
                finished = join(&mut running) => Next::Scanned(finished),
            };
            match next {
                Next::Uevents(ready) => {
                    if let Err(e) = ready.and_then(|()| self.read_uevents()) {
                        return Error::Uevents(e);
                    }
                }
                Next::Monitor(ready) => self.read_monitor(ready),
                Next::Trim => self.trimmer.trim(),
                // The next scan stores the reading of the device.
                Next::Late => self.intake.add_ports(),
                // The call is queued, and the next scan that begins serves it.
                Next::Barrier => {}
                Next::Scan => {
                    if let Err(e) = self.read_all() {
                        return Error::Uevents(e);
                    }
                    running = idle.take().map(|scanner| self.begin_scan(scanner));
                }
                Next::Scanned(Err(e)) => return Error::Scan(e),
                Next::Scanned(Ok(finished)) => {
                    running = None;
                    idle = Some(self.finish_scan(*finished));
                    if !std::mem::replace(&mut ready, true) {
                        lifecycle::ready("following the kernel");
                    }
                }
            }
        }
    }

    fn begin_scan(&mut self, scanner: Scanner) -> RunningScan {
        let began = now();
        self.published.count(|counters| counters.scans += 1);
        self.published.asking_since(Some(began));
        let barriers = self.barriers.take();
        let periodic = began >= self.interval.next_periodic();
        let pending = self.intake.take(periodic, !barriers.is_empty());
        let scan = move || Box::new(FinishedScan::run(scanner, pending, barriers, began));
        tokio::task::spawn_blocking(scan)
    }

    fn read_uevents(&mut self) -> io::Result<()> {
        let intake = &mut self.intake;
        let drained = self.uevents.drain(|datagram| take_uevent(intake, datagram));
        self.published.count_messages(self.intake.counts());
        drained
    }

    /// Reads all messages that the kernel has sent until now, if a barrier waits for that.
    fn read_all(&mut self) -> io::Result<()> {
        if self.barriers.is_empty() {
            return Ok(());
        }
        let intake = &mut self.intake;
        let monitor = self.monitor.as_mut();
        let drained = monitor.map(|monitor| monitor.drain_all(|d| take_monitored(intake, d)));
        self.close_failed_monitor(drained.unwrap_or(Ok(())));
        let intake = &mut self.intake;
        let drained = self.uevents.drain_all(|d| take_uevent(intake, d));
        self.published.count_messages(self.intake.counts());
        drained
    }

    fn read_monitor(&mut self, ready: io::Result<()>) {
        let intake = &mut self.intake;
        let drained = ready.and_then(|()| match &mut self.monitor {
            Some(monitor) => monitor.drain(|datagram| take_monitored(intake, datagram)),
            None => Ok(()),
        });
        self.close_failed_monitor(drained);
        self.published.count_messages(self.intake.counts());
    }

    fn close_failed_monitor(&mut self, drained: io::Result<()>) {
        if let Err(e) = drained {
            tracing::warn!("closing the RDMA monitor: {e}");
            self.monitor = None;
        }
    }

    /// Returns the time of the next scan, in µs of CLOCK_MONOTONIC.
    fn due(&self) -> Option<i64> {
        if self.intake.has_pending() || !self.barriers.is_empty() {
            return Some(self.interval.next());
        }
        let periodic = self.published.has_devices() || self.intake.needs_periodic();
        periodic.then(|| self.interval.next_periodic())
    }

    /// Publishes the result of a scan. If the scan failed, the published state stays the same.
    fn finish_scan(&mut self, finished: FinishedScan) -> Scanner {
        let ended = now();
        self.published.asking_since(None);
        let all = finished.pending.is_of_all();
        let failed = finished.outcome.is_err();
        self.interval.scanned(finished.began, ended, failed, all);
        match finished.outcome {
            Ok(scan) => {
                let events = self.published.replace(&scan, ended);
                self.trimmer.add(events, ended);
                self.intake.scanned(scan.in_motion);
                self.use_monitor(scan.system.monitor && !scan.observed.devices.is_empty());
                reached(finished.barriers, &Ok(self.published.sequence()));
            }
            Err(e) => {
                tracing::warn!("cannot read the devices: {}", Chain(&e));
                reached(finished.barriers, &Err(Chain(&e).to_string()));
                self.published.count(|counters| counters.failed_scans += 1);
                self.intake.failed(finished.pending);
            }
        }
        finished.scanner
    }

    /// Opens the monitor if it exists and is useful. Closes it if it would only keep ib_core from
    /// being unloaded.
    fn use_monitor(&mut self, useful: bool) {
        if useful && self.monitor.is_none() {
            match KernelSocket::monitor() {
                Ok(monitor) => {
                    self.monitor = Some(monitor);
                    // Changes from before the monitor was open are missing.
                    self.intake.add_ports();
                }
                Err(e) => tracing::debug!("no RDMA monitor: {e}"),
            }
        } else if !useful {
            self.monitor = None;
        }
        let monitor = self.monitor.is_some();
        self.published.count(|counters| counters.monitor = monitor);
    }
}

fn take_uevent(intake: &mut Intake, datagram: Received<&[u8]>) {
    let received = netlink::uevent(datagram);
    intake.uevent(&received);
    log_loss(&received, intake.counts());
}

fn take_monitored(intake: &mut Intake, datagram: Received<&[u8]>) {
    let received = netlink::monitored(datagram);
    intake.monitored(&received);
    log_loss(&received, intake.counts());
}

/// Logs a datagram that was dropped, and an overrun.
fn log_loss<T>(received: &Received<T>, counts: Counts) {
    let count = counts.dropped_datagrams;
    match received {
        // The sender must not be able to fill the log.
        Received::Dropped(reason) if count.cast_unsigned().is_power_of_two() => tracing::warn!(
            count,
            "dropped a datagram from the kernel's sockets: {reason}"
        ),
        Received::Overrun => tracing::warn!("events were lost: reading every device again"),
        Received::Message(_) | Received::Dropped(_) => {}
    }
}

/// A finished scan, with the scanner and the result.
struct FinishedScan {
    scanner: Scanner,
    pending: Pending,
    barriers: Vec<Barrier>,
    began: i64,
    outcome: Result<Scan, RequestError>,
}

impl FinishedScan {
    /// Scans on this thread, which may block.
    fn run(mut scanner: Scanner, pending: Pending, barriers: Vec<Barrier>, began: i64) -> Self {
        let outcome = scanner.scan(&pending, now());
        Self {
            scanner,
            pending,
            barriers,
            began,
            outcome,
        }
    }
}

/// Waits for the scan, or forever if there is none.
async fn join(running: &mut Option<RunningScan>) -> Result<Box<FinishedScan>, JoinError> {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Waits for datagrams, or forever if there is no socket.
async fn readable(socket: Option<&KernelSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

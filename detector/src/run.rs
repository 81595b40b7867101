//! The event loop. It listens first, and then scans. After each event that concerns RDMA it scans
//! again, and publishes the differences. Events only report that a change happened. The state
//! always comes from the kernel, and is read on a separate thread, so that a device with hanging
//! firmware delays no reply. Must never decide the meaning of a change.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use interfaces::activation::Inherited;
use interfaces::clock::{now, until};
use interfaces::lifecycle::{self, Wishes};
use interfaces::log::Chain;
use interfaces::sandbox::{self, SandboxError};
use interfaces::server::{self, Admission, LimitError, Limits};
use interfaces::user;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinHandle};

use crate::barrier::{Barrier, Barriers, reached};
use crate::config::Config;
use crate::look::{Eyes, Looked};
use crate::memory::{self, Churn};
use crate::netlink::{self, KernelSocket, RdmaSocket, Received, Refused, RequestError};
use crate::pace::Pace;
use crate::pending::Pending;
use crate::server::{Detector, Published};
use crate::sysfs::Sysfs;
use crate::uevent::Uevent;

/// The allowed system calls, one per line.
const CALLS: &str = include_str!("../../deploy/seccomp/rdma-detector.calls");

/// The reason why the detector cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A passed socket cannot be used, or a required one is missing.
    #[error("cannot use the sockets that were passed")]
    Activation(#[source] io::Error),
    /// Unneeded privileges cannot be given up.
    #[error("cannot give up what is not needed")]
    Sandbox(#[source] SandboxError),
    /// A limit on the command line is invalid.
    #[error("invalid --limit, or RDMA_HOTPLUG_LIMITS")]
    Limits(#[source] LimitError),
    /// The uevent socket failed.
    #[error("cannot receive uevents")]
    Uevents(#[source] io::Error),
    /// The scanning thread failed.
    #[error("cannot look at the devices")]
    Look(#[source] JoinError),
    /// The runtime, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Runs the detector until it receives a signal to stop.
///
/// # Errors
/// See [`Error`].
pub fn main(config: Config) -> Result<(), Error> {
    memory::share_one_heap();
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
    let mut wishes = Wishes::catch().map_err(Error::Runtime)?;
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
    let watch = Watch {
        barriers: Barriers::new(waiting),
        uevents,
        monitor: None,
        ears: Ears::new(Arc::clone(&published)),
        pace: Pace::default(),
        churn: Churn::default(),
        published: Arc::clone(&published),
    };
    let late = Arc::new(Notify::new());
    let wake = Arc::clone(&late);
    let eyes = Eyes::new(Sysfs::new(config.sysfs), rdma).waking(move || wake.notify_one());
    let service = Arc::new(Detector::new(published, barriers));
    tokio::select! {
        served = server::serve(endpoint, service, &mut wishes, None, admission) => served.map_err(Error::Runtime),
        failed = watch.follow(eyes, &late) => Err(failed),
    }
}

/// A scan in progress.
type Looking = JoinHandle<Box<Look>>;

/// The next step of the event loop.
enum Next {
    Uevents(io::Result<()>),
    Monitor(io::Result<()>),
    Look,
    Settle,
    Late,
    Looked(Result<Box<Look>, JoinError>),
    Barrier,
}

/// The event loop: its sockets and its state.
struct Watch {
    barriers: Barriers,
    uevents: KernelSocket,
    /// The monitor, open only while there are devices. It keeps ib_core from being unloaded.
    monitor: Option<KernelSocket>,
    ears: Ears,
    pace: Pace,
    churn: Churn,
    published: Arc<Published>,
}

impl Watch {
    /// Scans at the start and after each event that concerns RDMA. Returns only when a socket or
    /// the scanning thread fails.
    async fn follow(mut self, eyes: Eyes, late: &Notify) -> Error {
        let mut resting = Some(eyes);
        let mut looking: Option<Looking> = None;
        let mut ready = false;
        loop {
            let due = resting.is_some().then(|| self.due()).flatten();
            let next = tokio::select! {
                heard = self.uevents.readable() => Next::Uevents(heard),
                heard = readable(self.monitor.as_ref()) => Next::Monitor(heard),
                () = until(due) => Next::Look,
                () = until(self.churn.settles()) => Next::Settle,
                () = late.notified() => Next::Late,
                () = self.barriers.next() => Next::Barrier,
                looked = join(&mut looking) => Next::Looked(looked),
            };
            match next {
                Next::Uevents(heard) => {
                    let drained = heard
                        .and_then(|()| self.uevents.drain(|received| self.ears.uevent(received)));
                    if let Err(e) = drained {
                        return Error::Uevents(e);
                    }
                }
                Next::Monitor(heard) => self.hear_monitor(heard),
                Next::Settle => self.churn.settle(),
                // A device has responded late. The next scan stores its reading.
                Next::Late => self.ears.pending.ports = true,
                // The call is queued, and the next scan that begins serves it.
                Next::Barrier => {}
                Next::Look => {
                    if let Err(e) = self.hear_all() {
                        return Error::Uevents(e);
                    }
                    looking = resting.take().map(|eyes| self.look(eyes));
                }
                Next::Looked(Err(e)) => return Error::Look(e),
                Next::Looked(Ok(look)) => {
                    looking = None;
                    resting = Some(self.looked(*look));
                    if !std::mem::replace(&mut ready, true) {
                        lifecycle::ready("following the kernel");
                    }
                }
            }
        }
    }

    fn look(&mut self, eyes: Eyes) -> Looking {
        let began = now();
        self.published.count(|counters| counters.scans += 1);
        self.published.asking_since(Some(began));
        let barriers = self.barriers.take();
        if !barriers.is_empty() {
            self.ears.pending.again(Pending::doubtful());
        }
        let pending = self.ears.take_pending(began >= self.pace.next_unasked());
        tokio::task::spawn_blocking(move || Box::new(Look::take(eyes, pending, barriers, began)))
    }

    /// Reads all messages that the kernel has sent until now, if a barrier waits for that.
    fn hear_all(&mut self) -> io::Result<()> {
        if self.barriers.is_empty() {
            return Ok(());
        }
        let monitor = self.monitor.as_mut();
        let drained = monitor.map(|monitor| monitor.drain_all(|r| self.ears.monitored(r)));
        self.monitor_drained(drained.unwrap_or(Ok(())));
        self.uevents
            .drain_all(|received| self.ears.uevent(received))
    }

    fn hear_monitor(&mut self, heard: io::Result<()>) {
        let drained = heard.and_then(|()| match &mut self.monitor {
            Some(monitor) => monitor.drain(|received| self.ears.monitored(received)),
            None => Ok(()),
        });
        self.monitor_drained(drained);
    }

    fn monitor_drained(&mut self, drained: io::Result<()>) {
        if let Err(e) = drained {
            tracing::warn!("the RDMA monitor is given up: {e}");
            self.monitor = None;
        }
    }

    /// Returns the time of the next scan, in µs of CLOCK_MONOTONIC.
    fn due(&self) -> Option<i64> {
        if !self.ears.pending.is_empty() || !self.barriers.is_empty() {
            return Some(self.pace.next());
        }
        let unasked = self.published.has_devices() || self.ears.doubt || self.ears.in_motion;
        unasked.then(|| self.pace.next_unasked())
    }

    /// Publishes the result of a scan. If the scan failed, the published state stays the same.
    fn looked(&mut self, look: Look) -> Eyes {
        let ended = now();
        self.published.asking_since(None);
        let at_all = look.pending.is_of_all();
        self.pace
            .looked(look.began, ended, look.outcome.is_err(), at_all);
        match look.outcome {
            Ok(looked) => {
                let told = self.published.replace(&looked, ended);
                self.churn.add(told, ended);
                self.ears.in_motion = looked.in_motion;
                self.listen_to_monitor(looked.system.monitor && !looked.seen.devices.is_empty());
                reached(look.barriers, &Ok(self.published.sequence()));
            }
            Err(e) => {
                tracing::warn!("cannot read the devices: {}", Chain(&e));
                reached(look.barriers, &Err(Chain(&e).to_string()));
                self.published.count(|counters| counters.failed_scans += 1);
                self.ears.pending.again(look.pending);
            }
        }
        look.eyes
    }

    /// Opens the monitor if it exists and is useful. Closes it if it would only keep ib_core from
    /// being unloaded.
    fn listen_to_monitor(&mut self, useful: bool) {
        if useful && self.monitor.is_none() {
            match KernelSocket::monitor() {
                Ok(monitor) => {
                    self.monitor = Some(monitor);
                    // Changes from before the monitor was open are missing.
                    self.ears.pending.ports = true;
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

/// A finished scan, with the scanner and the result.
struct Look {
    eyes: Eyes,
    pending: Pending,
    barriers: Vec<Barrier>,
    began: i64,
    outcome: Result<Looked, RequestError>,
}

impl Look {
    /// Scans on this thread, which may block.
    fn take(mut eyes: Eyes, pending: Pending, barriers: Vec<Barrier>, began: i64) -> Self {
        let outcome = eyes.look(&pending, now());
        Self {
            eyes,
            pending,
            barriers,
            began,
            outcome,
        }
    }
}

/// Waits for the scan, or forever if there is none.
async fn join(looking: &mut Option<Looking>) -> Result<Box<Look>, JoinError> {
    match looking {
        Some(looking) => looking.await,
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

/// The event intake.
struct Ears {
    pending: Pending,
    /// True if event numbers are missing. The missing events may belong to other network
    /// namespaces, which is common. So their objects are read with the next periodic scan, and no
    /// earlier.
    doubt: bool,
    /// True if a module was being initialised or removed during the scan. No event reports the end
    /// of that.
    in_motion: bool,
    last_sequence: Option<u64>,
    published: Arc<Published>,
}

impl Ears {
    fn new(published: Arc<Published>) -> Self {
        Self {
            pending: Pending::everything(),
            doubt: false,
            in_motion: false,
            last_sequence: None,
            published,
        }
    }

    /// Takes the set for the next scan. `unasked` adds the changes that the kernel does not always
    /// announce, also during a storm of events.
    fn take_pending(&mut self, unasked: bool) -> Pending {
        let mut pending = std::mem::take(&mut self.pending);
        if unasked {
            pending.again(match std::mem::take(&mut self.doubt) {
                true => Pending::doubtful(),
                false => Pending::unasked(),
            });
            pending.all_functions |= self.in_motion;
        }
        pending
    }

    fn uevent(&mut self, received: Received<&[u8]>) {
        match netlink::uevent(received) {
            Received::Message(uevent) => {
                self.published.count(|counters| counters.uevents += 1);
                self.follow_sequence(&uevent);
                self.pending.uevent(&uevent);
            }
            Received::Dropped(reason) => self.dropped(&reason),
            Received::Overrun => self.overrun(),
        }
    }

    fn monitored(&mut self, received: Received<&[u8]>) {
        match netlink::monitored(received) {
            Received::Message(indexes) => {
                self.published
                    .count(|counters| counters.monitor_messages += 1);
                for index in indexes {
                    self.pending.monitored(index);
                }
            }
            Received::Dropped(reason) => self.dropped(&reason),
            Received::Overrun => self.overrun(),
        }
    }

    fn follow_sequence(&mut self, uevent: &Uevent) {
        let expected = self.last_sequence.map(|last| last.wrapping_add(1));
        if expected != Some(uevent.sequence) {
            // An event before the first one may be missing, too.
            self.doubt = true;
            if expected.is_some() {
                self.published.count(|counters| counters.sequence_gaps += 1);
            }
        }
        self.last_sequence = Some(uevent.sequence);
    }

    fn dropped(&mut self, reason: &Refused) {
        let count = self.published.count(|counters| {
            counters.dropped_datagrams += 1;
            counters.dropped_datagrams
        });
        // The sender must not be able to fill the log.
        if count.cast_unsigned().is_power_of_two() {
            tracing::warn!(
                count,
                "dropped a datagram from the kernel's sockets: {reason}"
            );
        }
        // A truncated datagram may have been an event. A datagram of another sender never was one.
        if matches!(reason, Refused::Truncated) {
            self.pending = Pending::everything();
        }
    }

    fn overrun(&mut self) {
        self.published.count(|counters| counters.overruns += 1);
        tracing::warn!("events were lost: reading every device anew");
        self.pending = Pending::everything();
    }
}

//! Start-up of the serving process, its threads, and its end. Planning waits for the disk, and the
//! inserting process waits for the kernel. The work with each is therefore on threads of their own,
//! with every signal blocked. Must never let a client's disconnect end a load, nor let a load delay
//! the end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use interfaces::activation::{Endpoint, Inherited};
use interfaces::lifecycle::{self, Signals};
use interfaces::server::{self, Admission, LimitError, Limits};
use interfaces::user;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::thread::CapabilitySet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::capabilities;
use crate::config::Config;
use crate::link::Link;
use crate::load::{Loader, MAX_REQUESTS, Orders, Queue, read_policy};
use crate::module_dir::ModuleDir;
use crate::policy::Policy;
use crate::readable::Readable;
use crate::sandbox::{self, Process};
use crate::server::Server;
use crate::snapshot::{Semantics, Snapshots, Sources};

/// The time after the signal to stop in which loads in flight may still be answered. The rest get
/// the result that they are loading: the inserting process continues with them.
const GRACE: Duration = Duration::from_secs(3);
/// The time after that signal at which this process ends, whatever callers do.
const STOP: Duration = Duration::from_secs(4);
/// The time that an idle inserting process has to end first. The wait serves only to keep it out of
/// the way of the service manager.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// The reason that the loader cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process that inserts modules cannot be created.
    #[error("cannot start the inserting process")]
    Fork(#[source] io::Error),
    /// That process has ended before this one.
    #[error("the inserting process has exited")]
    Inserter,
    /// The sockets from the service manager are missing or cannot be used.
    #[error("cannot use the passed sockets")]
    Activation(#[source] io::Error),
    /// A limit on the command line is invalid.
    #[error("invalid --limit, or RDMA_HOTPLUG_LIMITS")]
    Limits(#[source] LimitError),
    /// Unneeded privileges cannot be dropped.
    #[error("cannot restrict the process")]
    Sandbox(#[source] io::Error),
    /// The runtime, the threads, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Serves until it receives the signal to stop. Restricts access to the file system to `readable`.
/// `link` leads to the inserting process.
///
/// # Errors
/// See [`Error`].
pub fn main(config: &Config, readable: Readable, link: Link) -> Result<(), Error> {
    let mut inherited = Inherited::from_environment().map_err(Error::Activation)?;
    let endpoint = inherited
        .take_varlink(config.listen.as_deref())
        .map_err(Error::Activation)?;
    let (end, ended) = watch::channel(false);
    let loader = Arc::new(loader(config, readable, end)?);
    let admission = Admission {
        limits: Limits::parse(&config.limits).map_err(Error::Limits)?,
        peers: orchestrator(config).into_iter().collect(),
        // The unit has no user namespace: the process sees the real user IDs.
        sock_diag: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    // Before other threads exist: these calls restrict one thread and its children.
    // CAP_DAC_READ_SEARCH stays, because a system file that this user cannot read may forbid a
    // module.
    capabilities::keep(CapabilitySet::DAC_READ_SEARCH).map_err(Error::Sandbox)?;
    sandbox::restrict_files(loader.readable.serving.paths()).map_err(Error::Sandbox)?;
    let (link, queue) = (Arc::new(link), Arc::new(Queue::new(MAX_REQUESTS)));
    let answers = start_threads(&loader, &link, &queue).map_err(Error::Runtime)?;
    let served = runtime.block_on(serve(config, endpoint, &loader, admission, queue, ended));
    let lost = loader.work.is_lost();
    // The threads end with this process, whatever they wait for: none is inside finit_module(2).
    // The inserting process exits by itself when the kernel has finished its orders.
    loader.work.close();
    link.close();
    if !loader.work.is_in_flight() {
        let _ = answers.recv_timeout(LAST_LOOK);
    }
    if lost { Err(Error::Inserter) } else { served }
}

async fn serve(
    config: &Config,
    endpoint: Endpoint,
    loader: &Arc<Loader>,
    admission: Admission,
    queue: Arc<Queue>,
    ended: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut signals = Signals::catch().map_err(Error::Runtime)?;
    let (over, grace_is_over) = watch::channel(false);
    let deadline = Deadline::new(over).map_err(Error::Runtime)?;
    let orchestrator = admission.peers.first().copied();
    let server = Server::new(Arc::clone(loader), orchestrator, queue, grace_is_over);
    sandbox::restrict_system_calls(Process::Serving).map_err(Error::Sandbox)?;
    lifecycle::ready("waiting for requests");
    let idle = (config.idle > 0).then(|| Duration::from_secs(config.idle));
    tokio::select! {
        // The deadline is checked first, so that no load of requests delays the end.
        biased;
        () = deadline.pass() => Ok(()),
        () = stop_when(ended) => Ok(()),
        served = server::serve(endpoint, Arc::new(server), &mut signals, idle, admission) => {
            served.map_err(Error::Runtime)
        }
    }
}

/// Stops this process as the service manager would, once `ended` is true. Never completes.
async fn stop_when(mut ended: watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
    // Raised on this thread, the only one that does not block the signal.
    if let Err(e) = raise(Signal::SIGTERM) {
        tracing::error!("cannot stop: {e}");
    }
    std::future::pending::<()>().await;
}

/// The time limit of a stop.
struct Deadline {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    over: watch::Sender<bool>,
}

impl Deadline {
    fn new(over: watch::Sender<bool>) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            over,
        })
    }

    /// Completes [`STOP`] after the signal to stop, and sets `over` after [`GRACE`].
    async fn pass(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tokio::time::sleep(GRACE).await;
        self.over.send_replace(true);
        tokio::time::sleep(STOP.saturating_sub(GRACE)).await;
        tracing::warn!("some callers do not read their results");
    }
}

/// Reads the policy at the start. A policy that cannot be read allows nothing, and each refusal
/// gives the reason.
fn policy(config: &Config) -> Policy {
    read_policy(&config.policy).unwrap_or_else(|e| {
        tracing::error!("cannot read the policy, so nothing is allowed: {e}");
        Policy::of_nothing(e.to_string())
    })
}

fn loader(config: &Config, readable: Readable, end: watch::Sender<bool>) -> Result<Loader, Error> {
    let modules = ModuleDir::new(&config.modules, &release(config));
    let sources = Sources {
        root: None,
        module_tree: modules.root().to_owned(),
        modprobe_d: config.modprobe_d.clone(),
        command_line: config.command_line.clone(),
        reader: Semantics::Loader,
    };
    Ok(Loader {
        policy: Mutex::new(Arc::new(policy(config))),
        policy_directories: config.policy.clone(),
        snapshots: Snapshots::new(sources),
        modules,
        sysfs: config.sysfs.clone(),
        modules_disabled: config
            .command_line
            .with_file_name("sys/kernel/modules_disabled"),
        readable,
        end,
        work: Orders::default(),
    })
}

/// Returns the kernel release whose modules are loaded.
#[must_use]
pub fn release(config: &Config) -> String {
    config.release.clone().unwrap_or_else(running_release)
}

/// Returns the release of the running kernel.
#[must_use]
pub fn running_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Returns the user of the orchestrator, if it exists.
fn orchestrator(config: &Config) -> Option<u32> {
    let uid = user::uid(&config.orchestrator, &config.passwd);
    if uid.is_none() {
        tracing::warn!(
            "there is no user {}: only root may load",
            config.orchestrator
        );
    }
    uid
}

/// Starts the threads: one plans, and waits only for the disk; one sends orders to the inserting
/// process; one receives its results. Returns after each thread has completed the set-up by the C
/// library, which uses system calls that will be forbidden. The returned channel closes when no
/// more results can arrive.
fn start_threads(
    loader: &Arc<Loader>,
    link: &Arc<Link>,
    queue: &Arc<Queue>,
) -> io::Result<Receiver<()>> {
    let started = Arc::new(Barrier::new(4));
    let (last, answers) = channel();
    let (planner, queue) = (Arc::clone(loader), Arc::clone(queue));
    spawn("plan", &started, move || {
        while let Some(next) = queue.next() {
            // A panic must not leave the other requests without a reply.
            let answered = catch_unwind(AssertUnwindSafe(|| planner.answer(next)));
            if answered.is_err() {
                tracing::error!("cannot answer a request");
            }
        }
    })?;
    let (giver, outward) = (Arc::clone(loader), Arc::clone(link));
    spawn("orders", &started, move || giver.give_orders(&outward))?;
    let (taker, inward) = (Arc::clone(loader), Arc::clone(link));
    spawn("answers", &started, move || {
        taker.take_answers(&inward);
        drop(last);
    })?;
    started.wait();
    Ok(answers)
}

/// Starts a thread with every signal blocked. It begins its work when all have `started`.
fn spawn(
    name: &str,
    started: &Arc<Barrier>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let started = Arc::clone(started);
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let blocked = SigSet::all().thread_block();
        started.wait();
        match blocked {
            Ok(()) => work(),
            Err(e) => tracing::error!("cannot block signals on a thread: {e}"),
        }
    });
    spawned.map(drop)
}

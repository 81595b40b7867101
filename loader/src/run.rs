//! Start-up of the serving process, its threads, and its end. Planning waits for a disk, and the
//! inserting process for the kernel, so that each has a thread here on which every signal is
//! blocked. Must never let a client's disconnect end a load, nor a load hold up the end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use interfaces::activation::{Endpoint, Inherited};
use interfaces::lifecycle::{self, Wishes};
use interfaces::server::{self, Admission, LimitError, Limits};
use interfaces::user;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::thread::CapabilitySet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::capabilities;
use crate::config::Config;
use crate::link::Link;
use crate::load::{Loader, MAX_REQUESTS, Queue, Work, read_policy};
use crate::module_dir::ModuleDir;
use crate::policy::Policy;
use crate::readable::Readable;
use crate::sandbox::{self, Process};
use crate::server::Server;
use crate::snapshot::{Reader, Snapshots, Sources};

/// How long after the signal to stop the loads in flight may take to be answered. What is not
/// answered then is told that it is loading: the inserting process goes on with it.
const GRACE: Duration = Duration::from_secs(3);
/// When this process ends after that signal, whatever callers do.
const STOP: Duration = Duration::from_secs(4);
/// How long the inserting process, when it has nothing to do, may take to end first. It is only
/// waited for so that it is not in the way of the service manager.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// Why the loader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process that inserts modules cannot be made.
    #[error("cannot make the process that inserts modules")]
    Fork(#[source] io::Error),
    /// That process has ended before this one.
    #[error("the process that inserts modules has ended")]
    Inserter,
    /// The sockets that were passed, or should have been, cannot be used.
    #[error("cannot use the sockets that were passed")]
    Activation(#[source] io::Error),
    /// A limit on the command line is invalid.
    #[error("invalid --limit, or RDMA_HOTPLUG_LIMITS")]
    Limits(#[source] LimitError),
    /// What is not needed cannot be given up.
    #[error("cannot give up what is not needed")]
    Sandbox(#[source] io::Error),
    /// The runtime, the threads, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Serves until it is told to stop. Of the file system only what is `readable` is left. `link`
/// leads to the inserting process.
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
        // Its unit has no user namespace: it sees the numbers as they are.
        sock_diag: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    // Before there are threads: what these take away is taken from one thread and its children.
    // What the system's own files keep from this user may forbid a module.
    capabilities::keep(CapabilitySet::DAC_READ_SEARCH).map_err(Error::Sandbox)?;
    sandbox::restrict_files(loader.readable.serving.paths()).map_err(Error::Sandbox)?;
    let (link, queue) = (Arc::new(link), Arc::new(Queue::new(MAX_REQUESTS)));
    let answers = start_threads(&loader, &link, &queue).map_err(Error::Runtime)?;
    let served = runtime.block_on(serve(config, endpoint, &loader, admission, queue, ended));
    let lost = loader.work.is_lost();
    // The threads end with this process, whatever they wait for: none is inside of the kernel's
    // finit_module(2). The inserting process ends by itself when the kernel has answered it.
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
    let mut wishes = Wishes::catch().map_err(Error::Runtime)?;
    let (over, grace_is_over) = watch::channel(false);
    let deadline = Deadline::new(over).map_err(Error::Runtime)?;
    let orchestrator = admission.peers.first().copied();
    let server = Server::new(Arc::clone(loader), orchestrator, queue, grace_is_over);
    sandbox::restrict_system_calls(Process::Serving).map_err(Error::Sandbox)?;
    lifecycle::ready("waiting for requests");
    let idle = (config.idle > 0).then(|| Duration::from_secs(config.idle));
    tokio::select! {
        // Whatever comes in, the end comes in its time.
        biased;
        () = deadline.pass() => Ok(()),
        () = stop_when(ended) => Ok(()),
        served = server::serve(endpoint, Arc::new(server), &mut wishes, idle, admission) => {
            served.map_err(Error::Runtime)
        }
    }
}

/// Has this process stop as the service manager would, once `ended` says so. Never completes.
async fn stop_when(mut ended: watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
    // On this thread, which alone does not block it.
    if let Err(e) = raise(Signal::SIGTERM) {
        tracing::error!("cannot stop: {e}");
    }
    std::future::pending::<()>().await;
}

/// The time that a stop has.
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
        tracing::warn!("callers are left without their answers: they do not take them");
    }
}

/// The policy at the start. One that cannot be read allows nothing, and each refusal says why.
fn policy(config: &Config) -> Policy {
    read_policy(&config.policy).unwrap_or_else(|e| {
        tracing::error!("nothing is allowed: cannot read the policy: {e}");
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
        reader: Reader::Loader,
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
        work: Work::default(),
    })
}

/// The kernel release whose modules are loaded.
#[must_use]
pub fn release(config: &Config) -> String {
    config.release.clone().unwrap_or_else(running_release)
}

/// The release of the running kernel.
#[must_use]
pub fn running_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The orchestrator's user, when there is one.
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

/// Starts the threads: one that plans, which waits for a disk at most, one that gives orders to
/// the inserting process, and one that takes its answers. Returns when each is through with what
/// the C library does first on a thread: some of it will be forbidden. What is returned ends when
/// no more answers can come.
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
            // A panic must not leave all others without an answer.
            let answered = catch_unwind(AssertUnwindSafe(|| planner.answer(next)));
            if answered.is_err() {
                tracing::error!("a question could not be answered");
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

/// A thread that no signal reaches. Begins its work when all have `started`.
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

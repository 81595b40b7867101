//! Start-up, and the threads that loads run on. `finit_module(2)` blocks for as long as a
//! driver's probe takes and can be ended early only by a signal, so it gets threads of its own
//! on which every signal is blocked. Must never let a client's disconnect end a load.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use interfaces::activation::{Endpoint, Inherited};
use interfaces::lifecycle::{self, Wishes};
use interfaces::server::{self, Admission, LimitError, Limits};
use interfaces::user;
use nix::sys::signal::SigSet;

use crate::config::Config;
use crate::image::Compression;
use crate::kernel::Kernel;
use crate::load::{Loader, Question, Work, read_policy};
use crate::module_dir::ModuleDir;
use crate::sandbox;
use crate::server::Server;
use crate::snapshot::{Reader, Snapshots, Sources};

/// How many loads run at once: at least so many that a driver which takes its time keeps few
/// others waiting, at most as many as in systemd-modules-load.
const THREADS: std::ops::RangeInclusive<usize> = 8..=16;

/// Why the loader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sockets that were passed, or should have been, cannot be used.
    #[error("cannot use the sockets that were passed")]
    Activation(#[source] io::Error),
    /// A limit on the command line is invalid.
    #[error("invalid --limit, or RDMA_HOTPLUG_LIMITS")]
    Limits(#[source] LimitError),
    /// A directory of the policy cannot be read.
    #[error("cannot read the policy")]
    Policy(#[source] io::Error),
    /// What is not needed cannot be given up.
    #[error("cannot give up what is not needed")]
    Sandbox(#[source] io::Error),
    /// The runtime, the threads, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Runs the loader until it is told to stop.
///
/// # Errors
/// See [`Error`].
pub fn main(config: &Config, kernel: impl Kernel) -> Result<(), Error> {
    let mut inherited = Inherited::from_environment().map_err(Error::Activation)?;
    let endpoint = inherited
        .take_varlink(config.listen.as_deref())
        .map_err(Error::Activation)?;
    let loader = Arc::new(loader(config, kernel)?);
    let orchestrator = orchestrator(config);
    let admission = Admission {
        limits: Limits::parse(&config.limits).map_err(Error::Limits)?,
        peers: orchestrator.into_iter().collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    // Before there are threads: what it takes away is taken from one thread and its children.
    sandbox::restrict_files(&readable(config)).map_err(Error::Sandbox)?;
    let (questions, threads) = start_threads(&loader).map_err(Error::Runtime)?;
    let server = Server::new(Arc::clone(&loader), orchestrator, questions);
    let served = runtime.block_on(serve(config, endpoint, server, admission));
    // The end of the process would end every thread, and one that is inside of finit_module(2)
    // would leave a driver half initialised. The server, and with it the queue of requests, is
    // gone: each thread ends when it has done what there is to do.
    let Threads { planner, loaders } = threads;
    join(planner);
    loader.work.close();
    loaders.into_iter().for_each(join);
    served
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread has panicked");
    }
}

/// Every place below which something is read while the loader runs. Nothing below /proc by
/// itself: the inodes there are made anew whenever the caches are dropped, and a rule for the
/// old one says nothing of the new one.
fn readable(config: &Config) -> Vec<PathBuf> {
    let mut readable = vec![
        config.modules.clone(),
        config.sysfs.join("module"),
        PathBuf::from("/proc"),
    ];
    // Where a link in a directory of configuration may lead: to the packages' files, to what
    // somebody generated, or to nothing at all.
    let linked = ["/etc", "/usr", "/run", "/nix/store", "/dev/null"].map(PathBuf::from);
    readable.extend(linked.into_iter().filter(|path| path.exists()));
    readable.extend(config.command_line.parent().map(PathBuf::from));
    readable.extend(config.modprobe_d.iter().cloned());
    readable.extend(config.policy.iter().cloned());
    readable
}

async fn serve<K: Kernel>(
    config: &Config,
    endpoint: Endpoint,
    server: Server<K>,
    admission: Admission,
) -> Result<(), Error> {
    let mut wishes = Wishes::catch().map_err(Error::Runtime)?;
    sandbox::restrict_system_calls().map_err(Error::Sandbox)?;
    lifecycle::ready("waiting for requests");
    let idle = (config.idle > 0).then(|| Duration::from_secs(config.idle));
    server::serve(endpoint, Arc::new(server), &mut wishes, idle, admission)
        .await
        .map_err(Error::Runtime)
}

fn loader<K: Kernel>(config: &Config, kernel: K) -> Result<Loader<K>, Error> {
    let release = config.release.clone().unwrap_or_else(running_release);
    let modules = ModuleDir::new(&config.modules, &release);
    let sources = Sources {
        root: None,
        module_tree: modules.root().to_owned(),
        modprobe_d: config.modprobe_d.clone(),
        command_line: config.command_line.clone(),
        reader: Reader::Loader,
    };
    Ok(Loader {
        policy: Mutex::new(Arc::new(
            read_policy(&config.policy).map_err(Error::Policy)?,
        )),
        policy_directories: config.policy.clone(),
        snapshots: Snapshots::new(sources),
        modules,
        sysfs: config.sysfs.clone(),
        kernel,
        compression: Compression::of_kernel(&config.sysfs),
        work: Work::default(),
    })
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

/// The threads, until they have done what there is to do.
struct Threads {
    planner: JoinHandle<()>,
    loaders: Vec<JoinHandle<()>>,
}

/// Starts the threads: one that plans, which waits for a disk at most, and several that load.
/// The planner ends when what is returned beside the threads is gone. Returns when each is
/// through with what the C library does first on a thread: some of it will be forbidden.
fn start_threads<K: Kernel>(loader: &Arc<Loader<K>>) -> io::Result<(Sender<Question>, Threads)> {
    let (questions, queue) = channel::<Question>();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let count = processors.clamp(*THREADS.start(), *THREADS.end());
    let started = Arc::new(Barrier::new(count + 2));
    let planner = {
        let loader = Arc::clone(loader);
        spawn("plan", &started, move || {
            for question in queue {
                // A panic must not leave everybody else without an answer.
                let answered = catch_unwind(AssertUnwindSafe(|| loader.answer(question)));
                if answered.is_err() {
                    tracing::error!("a question could not be answered");
                }
            }
        })?
    };
    let loaders = (0..count).map(|number| {
        let loader = Arc::clone(loader);
        spawn(&format!("load-{number}"), &started, move || loader.work())
    });
    let loaders = loaders.collect::<io::Result<_>>()?;
    started.wait();
    Ok((questions, Threads { planner, loaders }))
}

/// A thread that no signal reaches. Begins its work when all have `started`.
fn spawn(
    name: &str,
    started: &Arc<Barrier>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let started = Arc::clone(started);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let blocked = SigSet::all().thread_block();
        started.wait();
        match blocked {
            Ok(()) => work(),
            Err(e) => tracing::error!("cannot block signals on a thread: {e}"),
        }
    })
}

//! Start-up, and the threads that loads run on. `finit_module(2)` blocks for as long as a
//! driver's probe takes and can be ended early only by a signal, so it gets threads of its own
//! on which every signal is blocked. Must never let a client's disconnect end a load.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use interfaces::activation::{Endpoint, Inherited};
use interfaces::lifecycle::{self, Wishes};
use interfaces::server;
use nix::sys::signal::SigSet;

use crate::config::Config;
use crate::kernel::Kernel;
use crate::load::{Loader, module_dir, read_policy};
use crate::policy::uid_of;
use crate::server::Server;

/// How many loads run at once: at least so many that a driver which takes its time keeps few
/// others waiting, at most as many as in systemd-modules-load.
const THREADS: std::ops::RangeInclusive<usize> = 8..=16;

/// Why the loader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sockets that were passed, or should have been, cannot be used.
    #[error("cannot use the sockets that were passed")]
    Activation(#[source] io::Error),
    /// A directory of the policy cannot be read.
    #[error("cannot read the policy")]
    Policy(#[source] io::Error),
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
    let (jobs, threads) = start_threads().map_err(Error::Runtime)?;
    let server = Server::new(loader, orchestrator(config), jobs);
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(serve(config, endpoint, server));
    // The end of the process would end every thread, and one that is inside of finit_module(2)
    // would leave a driver half initialised. The server, and with it the queue, is gone: each
    // thread ends when it has done what it was given.
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a loading thread has panicked");
        }
    }
    served
}

async fn serve<K: Kernel>(
    config: &Config,
    endpoint: Endpoint,
    server: Server<K>,
) -> Result<(), Error> {
    let mut wishes = Wishes::catch().map_err(Error::Runtime)?;
    lifecycle::ready("waiting for requests");
    let idle = (config.idle > 0).then(|| Duration::from_secs(config.idle));
    server::serve(endpoint, Arc::new(server), &mut wishes, idle)
        .await
        .map_err(Error::Runtime)
}

fn loader<K: Kernel>(config: &Config, kernel: K) -> Result<Loader<K>, Error> {
    let release = config.release.clone().unwrap_or_else(running_release);
    Ok(Loader {
        policy: Mutex::new(Arc::new(
            read_policy(&config.policy).map_err(Error::Policy)?,
        )),
        policy_directories: config.policy.clone(),
        modules: module_dir(&config.modules, &release),
        sysfs: config.sysfs.clone(),
        kernel,
    })
}

fn running_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The orchestrator's user, when there is one.
fn orchestrator(config: &Config) -> Option<u32> {
    let passwd = fs::read_to_string(&config.passwd).unwrap_or_default();
    let uid = uid_of(&config.orchestrator, &passwd);
    if uid.is_none() {
        tracing::warn!(
            "there is no user {}: only root may load",
            config.orchestrator
        );
    }
    uid
}

type Job = Box<dyn FnOnce() + Send>;

/// Where loads are given to the threads that they run on.
pub struct Jobs {
    queue: Sender<Job>,
}

impl Jobs {
    /// Runs `job` as soon as a thread is free. Nothing can take it back.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The threads live as long as this does.
        let _ = self.queue.send(Box::new(job));
    }
}

/// Starts the threads. They end when what is returned beside them is gone and every job done.
fn start_threads() -> io::Result<(Jobs, Vec<JoinHandle<()>>)> {
    let (jobs, queue) = channel();
    let queue = Arc::new(Mutex::new(queue));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = (0..processors.clamp(*THREADS.start(), *THREADS.end())).map(|number| {
        let queue = Arc::clone(&queue);
        thread::Builder::new()
            .name(format!("load-{number}"))
            .spawn(move || work(&queue))
    });
    Ok((Jobs { queue: jobs }, threads.collect::<io::Result<_>>()?))
}

fn work(queue: &Mutex<Receiver<Job>>) {
    if let Err(e) = SigSet::all().thread_block() {
        tracing::error!("cannot block signals on a loading thread: {e}");
        return;
    }
    loop {
        // The lock is held only while waiting for a job, never while running one.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

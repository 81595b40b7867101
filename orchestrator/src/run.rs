//! The decision loop: it passes events to the journal and to the machine, and the machine's
//! decisions to the journal and to the executor. Must never decide anything itself, and never wait
//! for the outcome of an action.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interfaces::activation::{Endpoint, Inherited};
use interfaces::clock;
use interfaces::lifecycle::{self, Signals};
use interfaces::orchestrator::DescribeReply;
use interfaces::sandbox::{self, SandboxError};
use interfaces::server::{self, Admission, LimitError, Limits, RateLimit};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::barrier::{self, Begun};
use crate::bus::{self, JobRequest, UnitQuery};
use crate::config::Config;
use crate::drivers::Drivers;
use crate::flags::Flags;
use crate::inbox::{Message, Query};
use crate::journal::{Journal, Times, wire};
use crate::machine::{Action, Event, Machine, Timeouts, Verb};
use crate::mounts::{Mounts, Places};
use crate::peers;
use crate::policy::Policy;
use crate::published::Published;
use crate::rules::Sources;
use crate::server::Orchestrator;
use crate::sources::read_rules;

/// The allowed system calls, one per line.
const CALLS: &str = include_str!("../../deploy/seccomp/rdma-orchestrator.calls");

/// The places that links in directories of rules may lead to: a package's files, or `/dev/null`.
/// All users may read them.
const LINKED: [&str; 3] = ["/etc", "/usr", "/dev/null"];

/// The reason why the orchestrator cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sockets that the service manager passes are missing or cannot be used.
    #[error("cannot use the passed sockets")]
    Activation(#[source] io::Error),
    /// The sandbox cannot be set up.
    #[error("cannot restrict the process")]
    Sandbox(#[source] SandboxError),
    /// A limit on the command line is invalid.
    #[error("invalid --limit, or RDMA_HOTPLUG_LIMITS")]
    Limits(#[source] LimitError),
    /// The runtime, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
    /// A task of the orchestrator has ended. None should: it panicked.
    #[error("a task of the orchestrator has ended: {}", .0.as_ref().map_or_else(|| "it returned".to_owned(), ToString::to_string))]
    Task(Option<JoinError>),
}

/// The end of a run without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The service manager or a signal stopped the process.
    Stopped,
    /// Other file systems are mounted over the rules. This process may not read them; a new one
    /// can.
    Outdated,
}

/// Runs the orchestrator until a signal stops it, or until it must start again.
///
/// # Errors
/// See [`Error`].
pub fn main(config: &Config) -> Result<End, Error> {
    let mut inherited = Inherited::from_environment().map_err(Error::Activation)?;
    let endpoint = inherited
        .take_varlink(config.listen.as_deref())
        .map_err(Error::Activation)?;
    // Besides root, only the service's own user may change anything, and it has reserved capacity
    // as such.
    let admission = Admission {
        limits: Limits::parse(&config.limits).map_err(Error::Limits)?,
        peers: Vec::new(),
        sock_diag: inherited.take("sock-diag"),
    };
    let rules = read_rules(&config.rules, &config.lists);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(run(config, endpoint, admission, rules))
}

async fn run(
    config: &Config,
    endpoint: Endpoint,
    admission: Admission,
    rules: Sources,
) -> Result<End, Error> {
    let mut signals = Signals::catch().map_err(Error::Runtime)?;
    // Done before another thread starts: the sandbox restricts the calling thread and its children.
    let rules_and_lists = config.rules.iter().chain([&config.lists]);
    let linked = LINKED.iter().map(Path::new);
    let readable = rules_and_lists
        .filter_map(|path| nearest(path))
        .chain(linked);
    let readable = Places::now(readable.map(Path::to_owned));
    let mounts = Mounts::open().map_err(Error::Runtime)?;
    sandbox::restrict_files(readable.paths(), [config.runtime_directory.as_path()])
        .map_err(Error::Sandbox)?;
    sandbox::restrict_system_calls(CALLS, "serve").map_err(Error::Sandbox)?;
    let (messages, queue) = unbounded_channel();
    let published = Arc::new(Published::default());
    let policy = Arc::new(Policy::new(config.loader.clone()));
    // A process that a client started for itself alone describes itself and does nothing else: the
    // host's orchestrator is another process.
    let mut tasks = JoinSet::new();
    let (unit_queries, inquired) = channel(bus::MAX_UNIT_QUERIES);
    let (waits, begun) = channel(1);
    let (start, started) = watch::channel(false);
    let mounts = mounts.follow().map_err(Error::Runtime)?;
    let outdated = follow_mounts(mounts, readable, messages.clone(), started);
    if matches!(endpoint, Endpoint::Listening(_)) {
        let shared = Shared {
            published: Arc::clone(&published),
            messages: messages.clone(),
            policy: Arc::clone(&policy),
            started: start,
        };
        spawn_tasks(config, shared, queue, (inquired, begun), rules, &mut tasks);
    }
    let service = Arc::new(Orchestrator::new(
        published,
        policy,
        messages,
        (unit_queries, waits),
        config,
    ));
    tokio::select! {
        served = server::serve(endpoint, service, &mut signals, None, admission) => {
            served.map(|()| End::Stopped).map_err(Error::Runtime)
        }
        // No task ends while the process runs. If one does, only a restart of the process helps.
        Some(ended) = tasks.join_next() => Err(Error::Task(ended.err())),
        () = outdated => Ok(End::Outdated),
    }
}

/// Requests every module that is not live again when a file system is mounted over the trees that
/// modules come from. Completes when such a mount hides a path of `readable`, but not before the
/// start is complete: units that wait for the start would fail.
async fn follow_mounts(
    mut mounts: watch::Receiver<()>,
    readable: Places,
    messages: UnboundedSender<Message>,
    mut started: watch::Receiver<bool>,
) {
    // The thread has logged why it cannot continue.
    while mounts.changed().await.is_ok() {
        tracing::info!("file systems were mounted or unmounted below /usr, /lib or /etc");
        let _ = messages.send(Message::Event(Event::ModulesInstalled));
        // An error means that the process is about to end anyway.
        if readable.are_outdated() && started.wait_for(|started| *started).await.is_ok() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// The state that the decision loop and the server share.
struct Shared {
    published: Arc<Published>,
    messages: UnboundedSender<Message>,
    policy: Arc<Policy>,
    /// Set to true when the start is complete.
    started: watch::Sender<bool>,
}

fn spawn_tasks(
    config: &Config,
    shared: Shared,
    queue: UnboundedReceiver<Message>,
    (inquired, begun): (Receiver<UnitQuery>, Receiver<Begun>),
    rules: Sources,
    tasks: &mut JoinSet<()>,
) {
    let Shared {
        published,
        messages,
        policy,
        started,
    } = shared;
    let (events, happened) = unbounded_channel();
    let (asked, asks) = unbounded_channel();
    let (needed, needs) = watch::channel(false);
    tasks.spawn(forward(happened, messages.clone()));
    tasks.spawn(peers::follow_detector(config.detector.clone(), messages));
    tasks.spawn(barrier::synchronize(config.detector.clone(), begun));
    let queries = bus::Requests { asks, inquired };
    tasks.spawn(bus::follow(
        config.bus.clone(),
        needs,
        queries,
        events.clone(),
    ));
    let drivers = Arc::new(Drivers::new(policy));
    tasks.spawn(Arc::clone(&drivers).follow(events.clone()));
    let (journal, resumed) = Journal::open(&config.runtime_directory);
    let executor = Executor {
        loader: config.loader.clone(),
        flags: Flags::new(&config.runtime_directory),
        published,
        events,
        asked,
        drivers,
        needed,
        started,
    };
    let decision_loop = DecisionLoop {
        machine: resumed.unwrap_or_default(),
        journal,
        executor,
        refused: Refused::default(),
    };
    tasks.spawn(decision_loop.decide(queue, timeouts(config), rules));
}

/// Returns the directory, or its nearest ancestor that exists: the directory may be created later.
fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.is_dir())
}

fn timeouts(config: &Config) -> Timeouts {
    let usec = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timeouts {
        start: usec(config.boot_deadline),
        function: usec(config.stuck_after),
        driver: usec(config.driver_grace),
    }
}

async fn forward(mut happened: UnboundedReceiver<Event>, messages: UnboundedSender<Message>) {
    while let Some(event) = happened.recv().await {
        if messages.send(Message::Event(event)).is_err() {
            return;
        }
    }
}

/// The decision loop: the machine, its journal and its executor.
struct DecisionLoop {
    machine: Machine,
    journal: Journal,
    executor: Executor,
    refused: Refused,
}

/// The number of the detector's records that were refused, and the last reason. Nothing else is
/// kept of them.
#[derive(Default)]
struct Refused {
    count: i64,
    last: Option<String>,
    rate_limit: RateLimit,
}

impl Refused {
    fn note(&mut self, why: String) {
        self.count = self.count.saturating_add(1);
        if let Some(more) = self.rate_limit.due(Instant::now()) {
            tracing::warn!(more, "refused a record of the detector: {why}");
        }
        self.last = Some(why);
    }
}

impl DecisionLoop {
    async fn decide(
        mut self,
        mut queue: UnboundedReceiver<Message>,
        timeouts: Timeouts,
        rules: Sources,
    ) {
        if !self.journal.is_open() {
            self.journal.begin(&self.machine, times());
        }
        self.take(Event::Begins(timeouts));
        self.take(Event::Rules(rules));
        loop {
            let message = tokio::select! {
                message = queue.recv() => message,
                () = clock::until(self.machine.next_deadline()) => Some(Message::Event(Event::Deadline)),
            };
            match message {
                Some(Message::Event(event)) => self.take(event),
                Some(Message::Detector(event, heard)) => {
                    event.into_iter().for_each(|event| self.take(event));
                    self.executor.published.heard(heard);
                }
                Some(Message::Query(query, _permit)) => self.answer(query),
                None => return,
            }
        }
    }

    fn take(&mut self, event: Event) {
        let Some(event) = self.machine.concerning(event) else {
            return;
        };
        if let Some(why) = self.machine.refusal(&event) {
            self.refused.note(why);
            return;
        }
        let times = times();
        let rules = matches!(event, Event::Rules(_));
        self.journal.append(times, [wire::of_event(&event)]);
        let actions = self.machine.step(event, times.monotonic);
        let decisions = actions.iter().filter_map(wire::of_action);
        self.journal.append(times, decisions);
        if self.journal.is_due(times.monotonic) {
            self.journal.begin(&self.machine, times);
        }
        if rules {
            for error in self.machine.describe().rule_errors {
                tracing::error!("invalid rules file: {error}");
            }
        }
        let needed = self.machine.needs_service_manager();
        self.executor
            .needed
            .send_if_modified(|before| std::mem::replace(before, needed) != needed);
        for action in actions {
            self.executor.carry_out(action);
        }
    }

    fn answer(&self, query: Query) {
        // No work is done for a caller that has disconnected.
        if query.is_abandoned() {
            return;
        }
        match query {
            Query::Describe(to) => drop(to.send(DescribeReply {
                refused_records: self.refused.count,
                last_refused: self.refused.last.clone(),
                ..self.machine.describe()
            })),
            Query::Explain(name, index, to) => {
                drop(to.send(self.machine.explain(name.as_deref(), index)));
            }
            Query::Targets(name, index, to) => {
                drop(to.send(self.machine.targets_of(name.as_deref(), index)));
            }
            Query::ExplainModule(name, to) => {
                drop(to.send(self.machine.explain_module(&name)));
            }
        }
    }
}

/// The executor: the channels, sockets and files that actions need.
struct Executor {
    loader: PathBuf,
    flags: Flags,
    published: Arc<Published>,
    events: UnboundedSender<Event>,
    asked: UnboundedSender<JobRequest>,
    drivers: Arc<Drivers>,
    needed: watch::Sender<bool>,
    started: watch::Sender<bool>,
}

impl Executor {
    fn carry_out(&self, action: Action) {
        match action {
            Action::Load { modules, reason } => {
                let load = peers::load(self.loader.clone(), modules, reason, self.events.clone());
                tokio::spawn(load);
            }
            Action::QueryDriver { function, modalias } => self.drivers.ask(function, modalias),
            Action::StartUnit { unit, reason } => {
                tracing::debug!("starting {unit} for {reason}");
                let verb = Verb::Start;
                let _ = self.asked.send(JobRequest { unit, verb });
            }
            Action::StopUnit { unit, reason } => {
                tracing::info!("stopping {unit}: {reason}");
                let verb = Verb::Stop;
                let _ = self.asked.send(JobRequest { unit, verb });
            }
            Action::SetFlag(flag, up) => {
                tracing::debug!("flag {}: {up}", flag.name());
                if let Err(e) = self.flags.set(flag, up) {
                    tracing::error!("{} does not follow the hardware: {e}", flag.target());
                    let _ = self.events.send(Event::FlagFailed(flag, e.to_string()));
                }
            }
            Action::Started { status } => {
                tracing::info!("{status}");
                lifecycle::ready(&status);
                self.started.send_replace(true);
            }
            Action::Publish(device) => self.published.put(*device),
            Action::Withdraw(index) => self.published.remove(index),
            Action::PublishFunction(function) => self.published.put_function(*function),
            Action::WithdrawFunction(name) => self.published.remove_function(&name),
            Action::Known => self.published.known(),
            Action::Settled(settled) => self.published.settled(settled),
        }
    }
}

fn times() -> Times {
    Times {
        monotonic: clock::now(),
        realtime: clock::realtime(),
    }
}

//! PID 1 over the system bus: jobs for our targets, their outcomes, and the states of these targets
//! (`org.freedesktop.systemd1(5)`). Connects when a target is needed, and connects again when the
//! bus is lost. Responsible for reporting the outcome of every job that it requested. Must never
//! request a unit that this package does not ship, decide which unit is needed, or delay the bus's
//! messages for a call.

mod attached;
mod call;
mod queue;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use interfaces::client::Backoff;
use interfaces::log::Chain;
use interfaces::names::UnitName;
use interfaces::orchestrator::AttachedUnit;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::PropertiesChanged;
use zbus::message::Type;
use zbus::proxy::CacheProperties;
use zbus::{MatchRule, MessageStream};

use crate::machine::{Event, JobOutcome, UnitActivity, Verb};
use crate::targets;
use call::{
    Answered, JobRemoved, JobRemovedStream, MANAGER, ManagerProxy, ReloadingStream, UNIT, activity,
    job,
};
use queue::Queue;

/// The most messages that wait to be processed.
const QUEUE_LEN: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// The most calls in progress at once: dbus-daemon lets a connection wait for 128 replies.
const MAX_CALLS: usize = 16;
/// The most unit_queries that wait.
pub const MAX_UNIT_QUERIES: usize = 16;
/// The time after which a connection counts as a good one.
const LASTED: Duration = Duration::from_secs(5);

/// A job to request from the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRequest {
    /// The target.
    pub unit: UnitName,
    /// The verb: start or stop.
    pub verb: Verb,
}

/// A caller's query for the units attached to targets. Without a reply they are not known.
#[derive(Debug)]
pub struct UnitQuery {
    /// The targets.
    pub targets: Vec<UnitName>,
    /// The sender of the reply. The caller may have disconnected.
    pub to: oneshot::Sender<Vec<AttachedUnit>>,
}

/// The sources of the requests to the service manager.
#[derive(Debug)]
pub struct Requests {
    /// The jobs that the machine requests.
    pub asks: UnboundedReceiver<JobRequest>,
    /// The unit_queries of callers.
    pub inquired: Receiver<UnitQuery>,
}

/// Follows the service manager on the bus at `address`: sends it the requests from `requests`, and
/// reports to `events`. Connects as soon as `needed` is true. Returns when the other end of
/// `needed` or of the requests is closed.
pub async fn follow(
    address: String,
    mut needed: watch::Receiver<bool>,
    mut requests: Requests,
    events: UnboundedSender<Event>,
) {
    let mut backoff = Backoff::default();
    let mut said = false;
    loop {
        if requests
            .drop_until(needed.wait_for(|needed| *needed))
            .await
            .is_err()
        {
            return;
        }
        match Bus::connect(&address).await {
            Ok((bus, known)) => {
                let since = Instant::now();
                said = false;
                tracing::info!("connected to the service manager");
                let _ = events.send(Event::Targets(known));
                let ended = bus.serve(&mut requests, &events).await;
                let _ = events.send(Event::ServiceManagerLost);
                if since.elapsed() > LASTED {
                    backoff.reset();
                }
                match ended {
                    Ok(()) => return,
                    Err(e) => {
                        tracing::warn!("lost the connection to the service manager: {}", Chain(&e));
                    }
                }
            }
            // Before sysinit.target there is no bus. This is logged once, and the connection tried
            // again.
            Err(e) if !std::mem::replace(&mut said, true) => {
                tracing::info!("cannot reach the service manager yet: {}", Chain(&e));
            }
            Err(_) => {}
        }
        requests.drop_until(backoff.wait()).await;
    }
}

impl Requests {
    /// Waits for `end`. Drops the requests that arrive until then: the machine requests jobs again
    /// when it knows the targets.
    async fn drop_until<T>(&mut self, end: impl Future<Output = T>) -> T {
        tokio::pin!(end);
        loop {
            tokio::select! {
                ended = &mut end => return ended,
                Some(_) = self.asks.recv() => {}
                Some(_) = self.inquired.recv() => {}
            }
        }
    }
}

struct Bus {
    manager: ManagerProxy<'static>,
    jobs: JobRemovedStream,
    reloads: ReloadingStream,
    changes: MessageStream,
    owner: zbus::proxy::OwnerChangedStream<'static>,
    queue: Queue,
    calls: JoinSet<Answered>,
    /// The unit_query in progress, one at a time.
    unit_query: JoinSet<()>,
    /// The running jobs, by their object paths.
    running: BTreeMap<String, JobRequest>,
    /// The results of jobs that ended before the reply to their call, by their object paths.
    early: BTreeMap<String, String>,
    /// The last reported state of each target.
    reported: BTreeMap<UnitName, UnitActivity>,
}

impl Bus {
    /// Connects, and returns the targets of ours that are loaded, with their states.
    async fn connect(address: &str) -> zbus::Result<(Self, Vec<(UnitName, UnitActivity)>)> {
        let connection = zbus::connection::Builder::address(address).build().await?;
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        // Done before Subscribe and before the list, so that no change is missed.
        let jobs = manager.receive_job_removed().await?;
        let reloads = manager.receive_reloading().await?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(MANAGER)
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .path_namespace("/org/freedesktop/systemd1/unit")
            .add_arg(UNIT)
            .build()?;
        let changes = MessageStream::for_match_rule(rule, &connection, Some(QUEUE_LEN)).await?;
        let owner = manager.inner().receive_owner_changed().await?;
        manager.subscribe().await?;
        let listed = manager
            .list_units_by_patterns(&[], &targets::PATTERNS)
            .await?;
        let known: Vec<(UnitName, UnitActivity)> = listed
            .into_iter()
            .filter(|unit| targets::is_ours(&unit.0))
            .filter_map(|unit| Some((UnitName::parse(&unit.0).ok()?, activity(&unit.3))))
            .collect();
        let bus = Self {
            manager,
            jobs,
            reloads,
            changes,
            owner,
            queue: Queue::default(),
            calls: JoinSet::new(),
            unit_query: JoinSet::new(),
            running: BTreeMap::new(),
            early: BTreeMap::new(),
            reported: known.iter().cloned().collect(),
        };
        Ok((bus, known))
    }

    /// Serves until the bus is lost. Returns without an error when no more requests can arrive.
    async fn serve(
        mut self,
        requests: &mut Requests,
        events: &UnboundedSender<Event>,
    ) -> zbus::Result<()> {
        loop {
            tokio::select! {
                ask = requests.asks.recv() => match ask {
                    Some(ask) => {
                        let is_so = self.is_so(&ask);
                        if let Some(ask) = self.queue.push(ask, is_so) {
                            report(events, ask, JobOutcome::NotNeeded);
                        }
                    }
                    None => return Ok(()),
                },
                Some(unit_query) = requests.inquired.recv(), if self.unit_query.is_empty() => {
                    let manager = self.manager.clone();
                    self.unit_query.spawn(attached::answer(manager, unit_query));
                }
                removed = self.jobs.next() => match removed {
                    Some(removed) => self.removed(&removed, events)?,
                    None => return Err(disconnected()),
                },
                reloading = self.reloads.next() => match reloading {
                    // The signal reports the start of a reload, too.
                    Some(reloading) if reloading.args()?.active => {}
                    Some(_) => drop(events.send(Event::UnitFilesRead)),
                    None => return Err(disconnected()),
                },
                changed = self.changes.next() => match changed {
                    Some(message) => self.changed(&message?, events),
                    None => return Err(disconnected()),
                },
                // After daemon-reexec the service manager no longer has our subscription.
                owner = self.owner.next() => match owner {
                    Some(Some(_)) | None => return Err(disconnected()),
                    Some(None) => {}
                },
                Some(answered) = self.calls.join_next() => {
                    if let Ok(answered) = answered {
                        self.answered(answered, events)?;
                    }
                }
                Some(_) = self.unit_query.join_next() => {}
            }
            self.call();
        }
    }

    /// Returns true if a target is already in the state that a job would lead to.
    fn is_so(&self, ask: &JobRequest) -> bool {
        match self.reported.get(&ask.unit) {
            Some(UnitActivity::Active) => ask.verb == Verb::Start,
            Some(UnitActivity::Changing) => false,
            Some(UnitActivity::Inactive | UnitActivity::Failed) | None => ask.verb == Verb::Stop,
        }
    }

    /// Makes the calls for the queued jobs. Each call is a separate task: incoming messages are
    /// processed at the same time, and no queue fills up.
    fn call(&mut self) {
        while self.calls.len() < MAX_CALLS
            && let Some(ask) = self.queue.next()
        {
            self.calls.spawn(job(self.manager.clone(), ask));
        }
        if self.calls.is_empty() {
            self.early.clear();
        }
    }

    fn answered(
        &mut self,
        answered: Answered,
        events: &UnboundedSender<Event>,
    ) -> zbus::Result<()> {
        let (ask, job) = match answered {
            Answered::Job(ask, job) => (ask, job),
            Answered::Lost(e) => return Err(e),
        };
        self.queue.answered(&ask.unit);
        match job {
            Ok(job) => match self.early.remove(&job) {
                Some(result) => report(events, ask, outcome_of(&result)),
                None => drop(self.running.insert(job, ask)),
            },
            Err(outcome) => report(events, ask, outcome),
        }
        Ok(())
    }

    fn removed(
        &mut self,
        removed: &JobRemoved,
        events: &UnboundedSender<Event>,
    ) -> zbus::Result<()> {
        let removed = removed.args()?;
        if let Some(ask) = self.running.remove(removed.job.as_str()) {
            report(events, ask, outcome_of(&removed.result));
        } else if !self.calls.is_empty() {
            self.early.insert(removed.job.to_string(), removed.result);
        }
        Ok(())
    }

    fn changed(&mut self, message: &zbus::Message, events: &UnboundedSender<Event>) {
        let header = message.header();
        let unit = header.path().and_then(|path| call::unit_at(path.as_str()));
        let Some(unit) = unit.filter(|unit| targets::is_ours(unit.as_str())) else {
            return;
        };
        let changed = PropertiesChanged::from_message(message.clone());
        let state = changed.as_ref().and_then(|changed| {
            let args = changed.args().ok()?;
            let value = args.changed_properties().get("ActiveState")?;
            value.downcast_ref::<String>().ok()
        });
        let Some(activity) = state.map(|state| activity(&state)) else {
            return;
        };
        // A signal for any property carries all properties that may have changed.
        let before = self.reported.get(&unit).copied();
        if before.unwrap_or(UnitActivity::Inactive) == activity {
            return;
        }
        match activity {
            // An inactive target needs no entry.
            UnitActivity::Inactive => drop(self.reported.remove(&unit)),
            _ => drop(self.reported.insert(unit.clone(), activity)),
        }
        let _ = events.send(Event::Target(unit, activity));
    }
}

/// Reports the outcome of a job.
fn report(
    events: &UnboundedSender<Event>,
    JobRequest { unit, verb }: JobRequest,
    outcome: JobOutcome,
) {
    let _ = events.send(Event::Job(unit, verb, outcome));
}

/// Converts the result of a job in `JobRemoved`.
fn outcome_of(result: &str) -> JobOutcome {
    match result {
        "done" => JobOutcome::Done,
        "skipped" => JobOutcome::NotNeeded,
        result => JobOutcome::Ended(result.to_owned()),
    }
}

fn disconnected() -> zbus::Error {
    zbus::Error::InputOutput(std::sync::Arc::new(
        std::io::ErrorKind::ConnectionReset.into(),
    ))
}

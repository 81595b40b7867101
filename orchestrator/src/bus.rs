//! PID 1 over the system bus: jobs for units and what became of them, and the states of units
//! (`org.freedesktop.systemd1(5)`). Nothing is connected until somebody wants a unit, and a lost
//! bus is taken up again. Responsible for telling the outcome of every job that it asked for.
//! Must never decide which unit is wanted, and never keep the bus's messages waiting for a call.

mod call;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use interfaces::client::Backoff;
use interfaces::log::Chain;
use interfaces::names::UnitName;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::PropertiesChanged;
use zbus::message::Type;
use zbus::proxy::CacheProperties;
use zbus::{MatchRule, MessageStream};

use crate::machine::{Event, JobOutcome, UnitActivity, Verb};
use call::{
    Answered, JobRemoved, JobRemovedStream, MANAGER, ManagerProxy, UNIT, Wanted, activity, job,
    watch_unit,
};

/// So many messages may wait for being looked at.
const QUEUE_LEN: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// So many asks are under way at once: dbus-daemon lets a connection wait for 128 replies.
const MOST_CALLS: usize = 16;
/// A connection counts as a good one when it lasted for so long.
const LASTED: Duration = Duration::from_secs(5);

/// What is asked of the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Start this unit unless it is active.
    Start(UnitName),
    /// Stop this unit.
    Stop(UnitName),
    /// Tell the state of this unit, now and whenever it changes.
    Watch(UnitName),
}

/// Follows the service manager, on the bus at `address`, for ever: asks it what is `asked`, and
/// tells `events`. Connects as soon as it is `needed`.
pub async fn follow(
    address: String,
    mut needed: watch::Receiver<bool>,
    mut asked: UnboundedReceiver<Ask>,
    events: UnboundedSender<Event>,
) {
    let mut backoff = Backoff::default();
    let mut told = false;
    loop {
        if needed.wait_for(|needed| *needed).await.is_err() {
            return;
        }
        match Bus::connect(&address).await {
            Ok(bus) => {
                let since = Instant::now();
                told = false;
                tracing::info!("the service manager can be asked");
                let _ = events.send(Event::ServiceManager(true));
                let ended = bus.serve(&mut asked, &events).await;
                let _ = events.send(Event::ServiceManager(false));
                if since.elapsed() > LASTED {
                    backoff.reset();
                }
                match ended {
                    Ok(()) => return,
                    Err(e) => tracing::warn!("the service manager is lost: {}", Chain(&e)),
                }
            }
            // Before sysinit.target there is none: said once, and tried again.
            Err(e) if !std::mem::replace(&mut told, true) => {
                tracing::info!("the service manager cannot be asked yet: {}", Chain(&e));
            }
            Err(_) => {}
        }
        backoff.wait().await;
    }
}

struct Bus {
    manager: ManagerProxy<'static>,
    jobs: JobRemovedStream,
    changes: MessageStream,
    owner: zbus::proxy::OwnerChangedStream<'static>,
    /// What is not asked yet.
    asks: VecDeque<Ask>,
    calls: JoinSet<Option<Answered>>,
    /// What the jobs that run are wanted for, by the job's path.
    running: BTreeMap<String, Wanted>,
    /// How jobs ended whose start was not answered yet, by their paths.
    early: BTreeMap<String, String>,
    /// What units have changed to while calls were under way, whose answers may be older.
    recent: BTreeMap<String, UnitActivity>,
    /// The units that are followed, and what was told of each last, by their paths.
    watched: BTreeMap<String, (UnitName, UnitActivity)>,
}

impl Bus {
    async fn connect(address: &str) -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::address(address).build().await?;
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        // Before Subscribe, so that no signal is missed.
        let jobs = manager.receive_job_removed().await?;
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
        Ok(Self {
            manager,
            jobs,
            changes,
            owner,
            asks: VecDeque::new(),
            calls: JoinSet::new(),
            running: BTreeMap::new(),
            early: BTreeMap::new(),
            recent: BTreeMap::new(),
            watched: BTreeMap::new(),
        })
    }

    /// Until the bus is lost; without an error when nobody asks any more.
    async fn serve(
        mut self,
        asked: &mut UnboundedReceiver<Ask>,
        events: &UnboundedSender<Event>,
    ) -> zbus::Result<()> {
        loop {
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(ask) => self.asks.push_back(ask),
                    None => return Ok(()),
                },
                removed = self.jobs.next() => match removed {
                    Some(removed) => self.removed(&removed, events)?,
                    None => return Err(disconnected()),
                },
                changed = self.changes.next() => match changed {
                    Some(message) => self.changed(&message?, events),
                    None => return Err(disconnected()),
                },
                // Executed anew, it knows no subscription of ours.
                owner = self.owner.next() => match owner {
                    Some(Some(_)) | None => return Err(disconnected()),
                    Some(None) => {}
                },
                Some(answered) = self.calls.join_next() => {
                    if let Ok(Some(answered)) = answered {
                        self.answered(answered, events)?;
                    }
                }
            }
            self.call();
        }
    }

    /// Asks what is not asked yet. Calls are tasks of their own: what comes in meanwhile is looked
    /// at, and no queue fills.
    fn call(&mut self) {
        while self.calls.len() < MOST_CALLS
            && let Some(ask) = self.asks.pop_front()
        {
            let manager = self.manager.clone();
            match ask {
                Ask::Start(unit) => self.calls.spawn(job(manager, unit, Verb::Start)),
                Ask::Stop(unit) => self.calls.spawn(job(manager, unit, Verb::Stop)),
                Ask::Watch(unit) => self.calls.spawn(watch_unit(manager, unit)),
            };
        }
        if self.calls.is_empty() {
            self.early.clear();
            self.recent.clear();
        }
    }

    fn answered(
        &mut self,
        answered: Answered,
        events: &UnboundedSender<Event>,
    ) -> zbus::Result<()> {
        match answered {
            Answered::Job(wanted, unit, outcome) => {
                if let Some((path, activity)) = unit {
                    self.watch(path, &wanted.unit, activity);
                }
                match outcome {
                    Ok(job) => match self.early.remove(&job) {
                        Some(result) => self.tell(events, wanted, outcome_of(&result)),
                        None => {
                            self.running.insert(job, wanted);
                        }
                    },
                    Err(outcome) => self.tell(events, wanted, outcome),
                }
            }
            Answered::Watched(unit, path, activity) => {
                let activity = self.watch(path, &unit, activity);
                let _ = events.send(Event::Unit(unit, activity));
            }
            Answered::Lost(e) => return Err(e),
        }
        Ok(())
    }

    fn removed(
        &mut self,
        removed: &JobRemoved,
        events: &UnboundedSender<Event>,
    ) -> zbus::Result<()> {
        let removed = removed.args()?;
        if let Some(wanted) = self.running.remove(removed.job.as_str()) {
            self.tell(events, wanted, outcome_of(&removed.result));
        } else if !self.calls.is_empty() {
            self.early.insert(removed.job.to_string(), removed.result);
        }
        Ok(())
    }

    fn changed(&mut self, message: &zbus::Message, events: &UnboundedSender<Event>) {
        let header = message.header();
        let Some(path) = header.path().map(|path| path.as_str()) else {
            return;
        };
        if self.calls.is_empty() && !self.watched.contains_key(path) {
            return;
        }
        let changed = PropertiesChanged::from_message(message.clone());
        let state = changed.as_ref().and_then(|changed| {
            let args = changed.args().ok()?;
            let value = args.changed_properties().get("ActiveState")?;
            value.downcast_ref::<String>().ok()
        });
        let Some(activity) = state.map(|state| activity(&state)) else {
            return;
        };
        if !self.calls.is_empty() {
            self.recent.insert(path.to_owned(), activity);
        }
        // Every change of any property comes with all that may have changed.
        if let Some((unit, told)) = self.watched.get_mut(path)
            && *told != activity
        {
            *told = activity;
            let _ = events.send(Event::Unit(unit.clone(), activity));
        }
    }

    /// Follows a unit from here on, and says the state that it is in: what it has changed to since
    /// it was asked for counts more than the answer.
    fn watch(&mut self, path: String, unit: &UnitName, answered: UnitActivity) -> UnitActivity {
        let activity = self.recent.get(&path).copied().unwrap_or(answered);
        self.watched.insert(path, (unit.clone(), activity));
        activity
    }

    /// Tells what became of a job. What was started may be over already, or have failed: that is
    /// told behind it.
    fn tell(&mut self, events: &UnboundedSender<Event>, wanted: Wanted, outcome: JobOutcome) {
        let Wanted { unit, verb } = wanted;
        if verb == Verb::Start && outcome == JobOutcome::Done {
            self.asks.push_front(Ask::Watch(unit.clone()));
        }
        let _ = events.send(Event::Job(unit, verb, outcome));
    }
}

/// A job's result, as `JobRemoved` tells it.
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

//! PID 1 over the system bus: jobs for units and what became of them, and the states of units
//! (`org.freedesktop.systemd1(5)`). Nothing is connected until somebody wants a unit, and a lost
//! bus is taken up again. Responsible for telling the outcome of every job that it asked for.
//! Must never decide which unit is wanted, and never keep the bus's messages waiting for a call.

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
use zbus::{DBusError, MatchRule, MessageStream, OwnedObjectPath};

use crate::machine::{Event, JobOutcome, UnitActivity, Verb};

const MANAGER: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// So many messages may wait for being looked at.
const QUEUE_LEN: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// Errors that mean that the service manager does not let us.
const REFUSALS: [&str; 2] = [
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
];

/// Errors that the bus answers with when the service manager does not.
const LOSSES: [&str; 6] = [
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.LimitsExceeded",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.zbus.Error",
];
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

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String);
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

/// What a job is wanted for.
#[derive(Clone, Debug)]
struct Wanted {
    unit: UnitName,
    verb: Verb,
}

/// A call that has ended.
enum Answered {
    /// A job runs, or its outcome is known; and the unit's path and its state before.
    Job(
        Wanted,
        Option<(String, UnitActivity)>,
        Result<String, JobOutcome>,
    ),
    /// A unit's path and its state.
    Watched(UnitName, String, UnitActivity),
    /// The bus itself is of no more use.
    Lost(zbus::Error),
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

/// Asks for a job unless the unit is as wanted.
async fn job(manager: ManagerProxy<'static>, unit: UnitName, verb: Verb) -> Option<Answered> {
    let before = state(&manager, &unit).await;
    let asked = match (&before, verb) {
        (Ok((_, UnitActivity::Active)), Verb::Start)
        | (Ok((_, UnitActivity::Inactive | UnitActivity::Failed)), Verb::Stop) => {
            Ok(Err(JobOutcome::NotNeeded))
        }
        (Ok(_), Verb::Start) => manager.start_unit(unit.as_str(), "replace").await.map(Ok),
        (Ok(_), Verb::Stop) => manager.stop_unit(unit.as_str(), "replace").await.map(Ok),
        (Err(e), _) => Err(e.clone()),
    };
    let wanted = Wanted { unit, verb };
    let before = before.ok();
    Some(match asked {
        Ok(Ok(job)) => Answered::Job(wanted, before, Ok(job.to_string())),
        Ok(Err(outcome)) => Answered::Job(wanted, before, Err(outcome)),
        Err(e) => match answer(&e) {
            Some(outcome) => Answered::Job(wanted, before, Err(outcome)),
            None => Answered::Lost(e),
        },
    })
}

/// A unit that cannot be followed is one whose job says why.
async fn watch_unit(manager: ManagerProxy<'static>, unit: UnitName) -> Option<Answered> {
    match state(&manager, &unit).await {
        Ok((path, activity)) => Some(Answered::Watched(unit, path, activity)),
        Err(e) if answer(&e).is_some() => None,
        Err(e) => Some(Answered::Lost(e)),
    }
}

async fn state(
    manager: &ManagerProxy<'static>,
    unit: &UnitName,
) -> zbus::Result<(String, UnitActivity)> {
    let path = manager.load_unit(unit.as_str()).await?;
    let properties = zbus::fdo::PropertiesProxy::builder(manager.inner().connection())
        .destination(MANAGER)
        .path(path.as_ref())
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let interface = zbus::names::InterfaceName::from_static_str(UNIT)?;
    let state = properties.get(interface, "ActiveState").await?;
    let state = state.downcast_ref::<String>().unwrap_or_default();
    Ok((path.to_string(), activity(&state)))
}

fn activity(state: &str) -> UnitActivity {
    match state {
        "active" | "reloading" | "refreshing" => UnitActivity::Active,
        "inactive" => UnitActivity::Inactive,
        "failed" => UnitActivity::Failed,
        _ => UnitActivity::Changing,
    }
}

/// What the service manager has answered; nothing of an error of the bus itself.
fn answer(error: &zbus::Error) -> Option<JobOutcome> {
    let (name, message) = match error {
        zbus::Error::MethodError(name, message, _) => (name.to_string(), message.clone()),
        zbus::Error::FDO(error) => {
            let message = error.description().map(str::to_owned);
            (error.name().to_string(), message)
        }
        _ => return None,
    };
    if LOSSES.contains(&name.as_str()) {
        return None;
    }
    let message = message.unwrap_or_else(|| name.clone());
    Some(match REFUSALS.contains(&name.as_str()) {
        true => JobOutcome::Refused(message),
        false => JobOutcome::NotBegun(message),
    })
}

fn disconnected() -> zbus::Error {
    zbus::Error::InputOutput(std::sync::Arc::new(
        std::io::ErrorKind::ConnectionReset.into(),
    ))
}

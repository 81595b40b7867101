//! The orchestrator's varlink methods, and what they answer from. What changes something is
//! root's, and only ever an event for the machine: must never act itself.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interfaces::Interface;
use interfaces::names::DeviceName;
use interfaces::orchestrator::{
    self, Condition, DescribeArgs, DescribeReply, Device, ExplainArgs, ExplainReply, ListArgs,
    ListHistoryArgs, ListReply, PauseArgs, PauseReply, ReconcileArgs, ReconcileReply, ResumeArgs,
    ResumeReply, State, SubscribeStatusArgs, WaitArgs, WaitReply,
};
use interfaces::server::{Call, CallError, Feed, Service};
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;

use crate::board::Board;
use crate::machine::{Event, Machine};
use crate::run::read_rules;

/// What callers can see: the devices, and the state of the whole.
pub struct Published {
    devices: Feed<Board>,
    whole: Mutex<DescribeReply>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            devices: Feed::default(),
            whole: Mutex::new(DescribeReply {
                detector_connected: false,
                hardware_announced: false,
                paused: None,
                rule_files: Vec::new(),
                rule_errors: Vec::new(),
            }),
        }
    }
}

impl Published {
    /// Shows a device's status.
    pub fn put(&self, shown: ExplainReply) {
        self.devices.update(|board| {
            let (name, state) = (shown.device.name.clone(), shown.device.state);
            let waiting_for = shown.device.waiting_for.join("; ");
            let events = board.put(shown);
            if !events.is_empty() {
                tracing::info!(waiting_for, "{name} is {state:?}");
            }
            events
        });
    }

    /// Shows a device no longer.
    pub fn remove(&self, index: i64) {
        self.devices.update(|board| {
            let events = board.remove(index);
            for event in &events {
                let name = event.name.as_deref().unwrap_or_default();
                tracing::info!(index, "{name} is gone");
            }
            events
        });
    }

    /// Shows whether everything is settled.
    pub fn settled(&self, settled: bool) {
        self.devices.update(|board| {
            board.set_settled(settled);
            Vec::new()
        });
    }

    /// Shows the state of the whole.
    pub fn describe(&self, machine: &Machine) {
        let summary = machine.summary();
        let files = machine.rules().files().iter();
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = DescribeReply {
            detector_connected: summary.connected,
            hardware_announced: summary.announced,
            paused: summary.paused,
            rule_files: files.map(|file| file.display().to_string()).collect(),
            rule_errors: machine.rules().errors().to_vec(),
        };
    }

    fn whole(&self) -> DescribeReply {
        self.whole
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// `org.rdmahotplug.Orchestrator`.
pub struct Orchestrator {
    published: Arc<Published>,
    events: UnboundedSender<Event>,
    rules: Vec<PathBuf>,
}

impl Orchestrator {
    /// Serves what is published, and tells `events` what is wanted. `rules` are the directories
    /// that a reload reads.
    #[must_use]
    pub fn new(
        published: Arc<Published>,
        events: UnboundedSender<Event>,
        rules: Vec<PathBuf>,
    ) -> Self {
        Self {
            published,
            events,
            rules,
        }
    }

    async fn list(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListArgs { name, index } = call.arguments()?;
        let one_named = name.is_some() || index.is_some();
        let replies = self.published.devices.read(|board| {
            let devices = board.devices().filter(|d| is(d, name.as_deref(), index));
            devices.map(|d| ListReply { device: d.clone() }).collect()
        });
        let none = CallError::named(orchestrator::NO_SUCH_DEVICE);
        call.reply_each(replies, one_named, none).await
    }

    async fn explain(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ExplainArgs { name, index } = call.arguments()?;
        if name.is_none() && index.is_none() {
            return Err(CallError::invalid_parameter("name"));
        }
        let found = self.published.devices.read(|board| {
            let mut explained = board.explained();
            let found = explained.find(|shown| is(&shown.device, name.as_deref(), index));
            found.cloned()
        });
        match found {
            Some(reply) => call.reply(&reply).await,
            None => Err(CallError::named(orchestrator::NO_SUCH_DEVICE)),
        }
    }

    async fn wait(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let arguments: WaitArgs = call.arguments()?;
        let wait = Wait::parse(&arguments)?;
        let timeout = match arguments.timeout_usec.map(u64::try_from) {
            Some(Ok(timeout)) => Some(Duration::from_micros(timeout)),
            Some(Err(_)) => return Err(CallError::invalid_parameter("timeoutUSec")),
            None => None,
        };
        let found = self
            .published
            .devices
            .until(call, |board| wait.check(board));
        let device = match timeout {
            None => found.await?,
            Some(timeout) => match tokio::time::timeout(timeout, found).await {
                Ok(found) => found?,
                Err(_) => {
                    let missing = self.published.devices.read(|board| wait.missing(board));
                    let parameters = json!({ "waitingFor": missing });
                    return Err(CallError::answer(orchestrator::WAIT_TIMED_OUT, parameters));
                }
            },
        };
        call.reply(&WaitReply { device }).await
    }

    /// Has the machine do what only root may ask for.
    fn want(&self, call: &Call<'_>, event: Event) -> Result<(), CallError> {
        call.peer().is_root_or(None).granted()?;
        tracing::info!(peer.pid = call.peer().pid, "{}", call.method());
        let _ = self.events.send(event);
        Ok(())
    }
}

fn is(device: &Device, name: Option<&str>, index: Option<i64>) -> bool {
    name.is_none_or(|name| device.name == name) && index.is_none_or(|i| device.index == i)
}

/// What one call of `Wait` waits for.
struct Wait<'w> {
    /// The device, or everything.
    name: Option<&'w str>,
    ready: bool,
}

impl<'w> Wait<'w> {
    fn parse(arguments: &'w WaitArgs) -> Result<Self, CallError> {
        if let Some(name) = &arguments.name {
            DeviceName::parse(name).map_err(|_| CallError::invalid_parameter("name"))?;
        }
        let conditions = arguments
            .conditions
            .as_deref()
            .unwrap_or(&[Condition::Ready]);
        Ok(Self {
            name: arguments.name.as_deref(),
            ready: conditions.contains(&Condition::Ready),
        })
    }

    /// The device, or nothing where everything was waited for, once it is as it should be.
    fn check(&self, board: &Board) -> Option<Option<Device>> {
        let Some(name) = self.name else {
            return board.is_settled().then_some(None);
        };
        let mut devices = board.devices().filter(|device| device.name == name);
        let found = devices.find(|device| !self.ready || device.state == State::Ready);
        found.cloned().map(Some)
    }

    /// A sentence for each thing that is missing.
    fn missing(&self, board: &Board) -> Vec<String> {
        let devices: Vec<&Device> = board
            .devices()
            .filter(|device| self.name.is_none_or(|name| device.name == name))
            .collect();
        match (self.name, devices.as_slice()) {
            (Some(name), []) => vec![format!("{name}, which is not registered")],
            (None, []) => vec!["the detector's answer".to_owned()],
            (_, devices) => devices
                .iter()
                .flat_map(|device| {
                    let missing = device.waiting_for.iter();
                    missing.map(|missing| format!("{}: {missing}", device.name))
                })
                .collect(),
        }
    }
}

impl Service for Orchestrator {
    const PRODUCT: &'static str = "rdma-orchestrator";
    const INTERFACE: Interface = orchestrator::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            orchestrator::LIST => self.list(call).await,
            orchestrator::SUBSCRIBE_STATUS => {
                let SubscribeStatusArgs {} = call.arguments()?;
                self.published.devices.serve(call).await
            }
            orchestrator::DESCRIBE => {
                let DescribeArgs {} = call.arguments()?;
                call.reply(&self.published.whole()).await
            }
            orchestrator::EXPLAIN => self.explain(call).await,
            orchestrator::WAIT => self.wait(call).await,
            orchestrator::RECONCILE => {
                let ReconcileArgs {} = call.arguments()?;
                self.want(call, Event::Reconcile)?;
                call.reply(&ReconcileReply {}).await
            }
            orchestrator::PAUSE => {
                let PauseArgs { reason } = call.arguments()?;
                self.want(call, Event::Pause(reason))?;
                call.reply(&PauseReply {}).await
            }
            orchestrator::RESUME => {
                let ResumeArgs {} = call.arguments()?;
                call.peer().is_root_or(None).granted()?;
                if self.published.whole().paused.is_none() {
                    return Err(CallError::named(orchestrator::NOT_PAUSED));
                }
                self.want(call, Event::Resume)?;
                call.reply(&ResumeReply {}).await
            }
            orchestrator::LIST_HISTORY => {
                let ListHistoryArgs {} = call.arguments()?;
                Err(CallError::method_not_implemented(call.method()))
            }
            method => Err(CallError::method_not_found(method)),
        }
    }

    fn reload(&self) -> Option<String> {
        Some(match read_rules(&self.rules) {
            Ok(rules) => {
                let status = format!("{} rules files in use", rules.files().len());
                let _ = self.events.send(Event::Rules(rules));
                status
            }
            Err(e) => {
                tracing::error!("the old rules stay: {e}");
                format!("the old rules stay: {e}")
            }
        })
    }
}

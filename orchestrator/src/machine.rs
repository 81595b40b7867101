//! The decisions: events in, actions out. Pure: no clock, no file, no socket; what happened is
//! told to it, and what it wants done is returned. Must never wait, and must never let one
//! device's modules hold back another's.

use std::collections::{BTreeMap, BTreeSet};

use interfaces::detector;
use interfaces::loader::{ModuleResult, Outcome};
use interfaces::names::ModuleName;
use interfaces::orchestrator::{Device, ExplainReply, Module, ModuleState, Rule, State};

use crate::rules::Rules;

/// Everything that can make the machine decide.
#[derive(Clone, Debug)]
pub enum Event {
    /// The detector begins to tell every device anew.
    SnapshotBegins,
    /// The detector tells a device: a new one, a changed one, or one that is known.
    Device(Box<detector::Device>),
    /// The detector says that a device is gone.
    Removed(i64),
    /// The detector has told every device.
    SnapshotEnds,
    /// The detector cannot be reached.
    DetectorLost,
    /// The loader's answer for a module.
    Module(Box<ModuleResult>),
    /// The start has taken as long as it may.
    BootDeadline,
    /// The rules were read again.
    Rules(Rules),
    /// Somebody wants everything compared anew.
    Reconcile,
    /// Somebody wants nothing loaded or started, for this reason.
    Pause(String),
    /// The pause is over.
    Resume,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have these modules loaded, and tell the machine of each.
    Load {
        /// The modules, in the order of the rules.
        modules: Vec<ModuleName>,
        /// Why, for the loader's log.
        reason: String,
    },
    /// Show this device's status, and the rules behind it.
    Publish(Box<ExplainReply>),
    /// Show this device no longer.
    Withdraw(i64),
    /// Have PID 1 start `rdma-hw.target`.
    AnnounceHardware,
    /// There is no RDMA hardware any more.
    WithdrawHardware,
    /// Say that everything is settled, or is not any more.
    Settled(bool),
    /// Tell the service manager that the start is complete.
    Started {
        /// What is still missing, for `systemctl status`.
        status: String,
    },
}

/// A device and what became of what it should have.
#[derive(Clone, Debug)]
struct Known {
    record: detector::Device,
    modules: Vec<Module>,
    /// Whether the detector's present snapshot has shown it.
    confirmed: bool,
}

/// The state of the whole.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    devices: BTreeMap<i64, Known>,
    /// Modules that the loader was asked for and has not answered.
    in_flight: BTreeSet<ModuleName>,
    /// Whether the devices are known: a snapshot has ended.
    complete: bool,
    connected: bool,
    announced: bool,
    started: bool,
    settled: bool,
    /// Why nothing is loaded or started at present.
    paused: Option<String>,
}

/// What [`Machine`] says of itself.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether the detector can be reached.
    pub connected: bool,
    /// Whether `rdma-hw.target` was asked for.
    pub announced: bool,
    /// Why nothing is loaded or started at present.
    pub paused: Option<String>,
}

impl Machine {
    /// A machine that knows no device.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            devices: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            complete: false,
            connected: false,
            announced: false,
            started: false,
            settled: false,
            paused: None,
        }
    }

    /// The rules that decide.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The state of the whole.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            connected: self.connected,
            announced: self.announced,
            paused: self.paused.clone(),
        }
    }

    /// Decides.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::SnapshotBegins => {
                self.connected = true;
                for known in self.devices.values_mut() {
                    known.confirmed = false;
                }
            }
            Event::Device(record) => self.device(*record, &mut actions),
            Event::Removed(index) => self.remove(index, &mut actions),
            Event::SnapshotEnds => self.snapshot_ends(&mut actions),
            // What was known stays until the detector is back and says otherwise.
            Event::DetectorLost => self.connected = false,
            Event::Module(result) => self.module(&result, &mut actions),
            Event::BootDeadline => self.start(&mut actions),
            Event::Rules(rules) => {
                self.rules = rules;
                self.decide_anew(&mut actions);
            }
            Event::Reconcile => self.reconcile(&mut actions),
            Event::Pause(reason) => self.paused = Some(reason),
            Event::Resume => {
                self.paused = None;
                self.decide_anew(&mut actions);
            }
        }
        self.announce(&mut actions);
        let settled = self.complete && self.devices.values().all(Known::settled);
        if settled != self.settled {
            self.settled = settled;
            actions.push(Action::Settled(settled));
        }
        if settled {
            self.start(&mut actions);
        }
        actions
    }

    fn device(&mut self, record: detector::Device, actions: &mut Vec<Action>) {
        // The index begins anew when ib_core is loaded anew: another device may have it.
        let before = self.devices.remove(&record.index);
        let before = before.filter(|known| is_same(&known.record, &record));
        // Told again in a new snapshot, after a time in which nobody looked: what was live may
        // have been unloaded. What was answered stays until there is another answer.
        let unseen = before.as_ref().is_some_and(|known| !known.confirmed);
        let mut known = Known {
            modules: Vec::new(),
            confirmed: true,
            record,
        };
        for wanted in self.rules.wanted(&known.record) {
            let answered = before.iter().flat_map(|known| &known.modules);
            let mut answered = answered.filter(|m| m.name == wanted.module.as_str());
            let answered = answered.next();
            known.modules.push(Module {
                name: wanted.module.to_string(),
                state: answered.map_or(ModuleState::Pending, |module| module.state),
                rule: wanted.rule.display().to_string(),
                message: answered.and_then(|module| module.message.clone()),
            });
        }
        let wanted = |module: &&Module| unseen || module.state == ModuleState::Pending;
        self.load(&known, wanted, actions);
        actions.push(self.publish(&known));
        self.devices.insert(known.record.index, known);
    }

    /// Takes every device through the rules as they are now, and asks for what nobody has.
    fn decide_anew(&mut self, actions: &mut Vec<Action>) {
        let records: Vec<_> = self
            .devices
            .values()
            .map(|known| known.record.clone())
            .collect();
        for record in records {
            self.device(record, actions);
        }
    }

    /// Asks again for every module, whatever was answered before. What was answered stays until
    /// there is another answer: a device that is ready is so meanwhile.
    fn reconcile(&mut self, actions: &mut Vec<Action>) {
        let devices: Vec<Known> = self.devices.values().cloned().collect();
        for known in devices {
            self.load(&known, |_| true, actions);
        }
    }

    fn publish(&self, known: &Known) -> Action {
        let rules = self.rules.selecting(&known.record).map(|rule| Rule {
            file: rule.file().display().to_string(),
            number: i64::try_from(rule.number()).unwrap_or(i64::MAX),
            protocols: rule.protocols().map(|protocols| {
                let names = protocols.iter().map(|protocol| protocol_name(*protocol));
                names.map(str::to_owned).collect()
            }),
            modules: known.of_rule(rule.modules()),
        });
        Action::Publish(Box::new(ExplainReply {
            device: known.status(),
            rules: rules.collect(),
        }))
    }

    /// Asks for those modules of a device that `wanted` names and that nobody has asked for yet.
    /// A new device asks even for what was live for the one before: it may have been unloaded
    /// meanwhile.
    fn load(
        &mut self,
        known: &Known,
        wanted: impl FnMut(&&Module) -> bool,
        actions: &mut Vec<Action>,
    ) {
        if self.paused.is_some() {
            return;
        }
        let modules: Vec<ModuleName> = known
            .modules
            .iter()
            .filter(wanted)
            .filter_map(|module| ModuleName::parse(&module.name).ok())
            .filter(|module| self.in_flight.insert(module.clone()))
            .collect();
        if !modules.is_empty() {
            let reason = format!("{} (index {})", known.record.name, known.record.index);
            actions.push(Action::Load { modules, reason });
        }
    }

    fn remove(&mut self, index: i64, actions: &mut Vec<Action>) {
        if self.devices.remove(&index).is_none() {
            return;
        }
        actions.push(Action::Withdraw(index));
        // Even when it was not announced: an orchestrator before this one may have done it.
        if self.complete && self.devices.is_empty() {
            self.announced = false;
            actions.push(Action::WithdrawHardware);
        }
    }

    fn snapshot_ends(&mut self, actions: &mut Vec<Action>) {
        let gone: Vec<i64> = self
            .devices
            .iter()
            .filter(|(_, known)| !known.confirmed)
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            self.remove(index, actions);
        }
        if !self.complete && self.devices.is_empty() {
            // An orchestrator before this one may have announced hardware that is gone.
            actions.push(Action::WithdrawHardware);
        }
        self.complete = true;
    }

    fn module(&mut self, result: &ModuleResult, actions: &mut Vec<Action>) {
        let Ok(name) = ModuleName::parse(&result.module) else {
            return;
        };
        self.in_flight.remove(&name);
        let mut changed = Vec::new();
        for known in self.devices.values_mut() {
            let mut modules = known.modules.iter_mut();
            if let Some(module) = modules.find(|module| module.name == name.as_str()) {
                let state = state_of(result.outcome);
                if module.state != state || module.message != result.message {
                    module.state = state;
                    module.message.clone_from(&result.message);
                    changed.push(known.clone());
                }
            }
        }
        actions.extend(changed.iter().map(|known| self.publish(known)));
    }

    /// Hardware is announced as soon as one device has got all that it can get: a module that
    /// was refused keeps that device from being ready, but not the machine from having RDMA.
    fn announce(&mut self, actions: &mut Vec<Action>) {
        let paused = self.paused.is_some();
        if !self.announced && !paused && self.devices.values().any(Known::settled) {
            self.announced = true;
            actions.push(Action::AnnounceHardware);
        }
    }

    fn start(&mut self, actions: &mut Vec<Action>) {
        if self.started {
            return;
        }
        self.started = true;
        let waiting: Vec<&str> = self
            .devices
            .values()
            .filter(|known| !known.settled())
            .map(|known| known.record.name.as_str())
            .collect();
        let status = match (self.complete, waiting.as_slice()) {
            (false, _) => "started without the detector's answer".to_owned(),
            (true, []) => format!("{} devices set up at the start", self.devices.len()),
            (true, names) => format!("started while these were set up: {}", names.join(" ")),
        };
        actions.push(Action::Started { status });
    }
}

impl Known {
    /// Whether every module has its answer.
    fn settled(&self) -> bool {
        let mut modules = self.modules.iter();
        modules.all(|module| module.state != ModuleState::Pending)
    }

    /// What became of the modules that one rule asks for.
    fn of_rule(&self, asked: &[ModuleName]) -> Vec<Module> {
        let modules = asked.iter().filter_map(|name| {
            let mut modules = self.modules.iter();
            modules.find(|module| module.name == name.as_str())
        });
        modules.cloned().collect()
    }

    fn status(&self) -> Device {
        let waiting_for: Vec<String> = self.modules.iter().filter_map(waiting_for).collect();
        let mut protocols: Vec<String> = Vec::new();
        for port in &self.record.ports {
            let protocol = protocol_name(port.protocol).to_owned();
            if !protocols.contains(&protocol) {
                protocols.push(protocol);
            }
        }
        Device {
            index: self.record.index,
            name: self.record.name.clone(),
            state: if waiting_for.is_empty() {
                State::Ready
            } else {
                State::Registered
            },
            protocols,
            driver: self.record.driver.clone(),
            pci_address: self.record.pci_address.clone(),
            modules: self.modules.clone(),
            waiting_for,
        }
    }
}

/// Whether two records are of one device: the hardware is the same.
fn is_same(one: &detector::Device, other: &detector::Device) -> bool {
    one.node_guid == other.node_guid && one.pci_address == other.pci_address
}

fn state_of(outcome: Outcome) -> ModuleState {
    match outcome {
        Outcome::Loaded | Outcome::AlreadyLoaded | Outcome::Builtin => ModuleState::Live,
        Outcome::Missing => ModuleState::Missing,
        Outcome::Denied => ModuleState::Denied,
        Outcome::Failed => ModuleState::Failed,
        // Not asked for with a time, so not answered so.
        Outcome::Loading => ModuleState::Pending,
    }
}

/// What a module keeps a device from being ready for. One that the kernel does not ship keeps
/// nothing back: rdma-core's lists name modules that many kernels are built without.
fn waiting_for(module: &Module) -> Option<String> {
    let name = &module.name;
    let reason = module.message.as_deref().unwrap_or("no reason was given");
    match module.state {
        ModuleState::Live | ModuleState::Missing => None,
        ModuleState::Pending => Some(format!("module {name} to be loaded")),
        ModuleState::Denied => Some(format!("module {name}, which was denied: {reason}")),
        ModuleState::Failed => Some(format!("module {name}, which failed: {reason}")),
    }
}

fn protocol_name(protocol: detector::Protocol) -> &'static str {
    match protocol {
        detector::Protocol::Infiniband => "infiniband",
        detector::Protocol::Roce => "roce",
        detector::Protocol::Iwarp => "iwarp",
        detector::Protocol::Opa => "opa",
        detector::Protocol::Usnic => "usnic",
        detector::Protocol::Unknown => "unknown",
    }
}

#[cfg(test)]
pub(crate) mod tests;

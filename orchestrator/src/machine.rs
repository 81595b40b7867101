//! The machine: a function from events to actions. It compares the targets and modules that the
//! rules demand with those that exist, independently of the order of events. Pure: it has no clock,
//! file or socket; events and the time are its inputs, and actions are its results. Must never
//! wait, and must never let the modules of one device delay those of another.

mod device;
mod event;
mod explain;
mod function;
mod functions;
mod module;
mod target;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use interfaces::names::{ModuleName, UnitName};
use interfaces::orchestrator::ModuleState;
use serde::{Deserialize, Serialize};

use crate::bounds::Held;
use crate::rules::{Rules, Sources};
use device::Device;
pub use event::{Action, Event, Flag, JobOutcome, UnitActivity, Verb};
use function::Function;
use functions::Functions;
use module::{Module, RetryScope};
use target::Target;

/// The timeouts, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// The maximum time of the start. Then it is complete, even if devices are not ready.
    pub start: i64,
    /// The maximum time of a function in one state. Then it is stuck.
    pub function: i64,
    /// At the start, the time to wait for a function after a change: udev or a driver may be at
    /// work.
    pub driver: i64,
}

/// The time until the write of a flag is retried, in µs.
const FLAG_RETRY: i64 = 5_000_000;

/// The time from a change on disk to a second request for modules, in µs: systemd's path unit
/// misses changes while the service that it starts is running (`path_spec_check_good()` in
/// `src/core/path.c`).
const SECOND_LOOK: i64 = 2_000_000;

/// A device or function that wants a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Subject {
    Device(i64),
    Function(String),
}

/// An operation that a timer triggers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Timer {
    /// The second request after a change on disk. The variant is first, so that it runs before
    /// retries that are due at the same time.
    Installed,
    Start,
    Function(String),
    Retry(ModuleName),
    Target(UnitName),
    Flag(Flag),
}

/// The state of the machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    #[serde(with = "saved_rules")]
    rules: Rules,
    timeouts: Timeouts,
    devices: BTreeMap<i64, Device>,
    functions: Functions,
    modules: BTreeMap<ModuleName, Module>,
    targets: BTreeMap<UnitName, Target>,
    /// The size of the detector's records that are held.
    held: Held,
    /// The devices of each flag.
    flagged: BTreeMap<Flag, BTreeSet<i64>>,
    /// The flags that are set.
    announced: BTreeSet<Flag>,
    /// A message for each flag that could not be written or removed.
    flag_errors: BTreeMap<Flag, String>,
    /// The devices that wait for a result for one of their modules.
    unsettled: BTreeSet<i64>,
    timers: BTreeSet<(i64, Timer)>,
    /// True if the devices are known: a snapshot has ended.
    complete: bool,
    /// True if the detector's snapshot has ended and the connection still exists.
    connected: bool,
    service_manager: bool,
    started: bool,
    settled: bool,
    /// The reason of the pause, if there is one. In a pause nothing is loaded or started.
    paused: Option<String>,
    /// The devices whose status may have changed in this step.
    #[serde(skip)]
    touched: BTreeSet<i64>,
    /// The targets that may need a job after this step.
    #[serde(skip)]
    driven: BTreeSet<UnitName>,
}

mod saved_rules {
    use super::Rules;
    use crate::rules::SavedRules;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(rules: &Rules, to: S) -> Result<S::Ok, S::Error> {
        SavedRules::from(rules.clone()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Rules, D::Error> {
        SavedRules::deserialize(from).map(Rules::from)
    }
}

impl Machine {
    /// Returns a machine without any state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a machine without any state, in a pause with this reason.
    #[must_use]
    pub fn in_pause(reason: String) -> Self {
        Self {
            paused: Some(reason),
            ..Self::default()
        }
    }

    /// Returns the time of the next [`Event::Deadline`], in µs.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// Filters an event: removes modules that no device or function here wants.
    #[must_use]
    pub fn concerning(&self, event: Event) -> Option<Event> {
        match event {
            Event::ModuleThere(ref name) | Event::ModuleGone(ref name) => {
                self.is_known_by(name).then_some(event)
            }
            Event::ModulesThere(mut names) => {
                names.retain(|name| self.is_known_by(name));
                Some(Event::ModulesThere(names))
            }
            event => Some(event),
        }
    }

    /// Returns true if the name belongs to a wanted module.
    fn is_known_by(&self, name: &ModuleName) -> bool {
        !self.stands_for(name).is_empty()
    }

    /// Returns a message if a record of the detector exceeds a limit, and nothing for all other
    /// events. A refused event must not be passed to [`Self::step`].
    #[must_use]
    pub fn refusal(&self, event: &Event) -> Option<String> {
        let mut held = self.held;
        match event {
            Event::Device(device) => {
                let known = self.devices.get(&device.index);
                let others = self.devices.len() - usize::from(known.is_some());
                held.device(device, known.map(|known| known.len), others)
            }
            Event::Function(function) => {
                let known = self.functions.get(&function.name);
                let others = self.functions.len() - usize::from(known.is_some());
                held.function(function, known.map(|known| known.len), others)
            }
            _ => Ok(()),
        }
        .err()
    }

    /// Processes an event and returns the actions. `now` is in µs of CLOCK_MONOTONIC.
    pub fn step(&mut self, event: Event, now: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(event, now, &mut actions);
        for index in self.touched.clone() {
            self.announce(index, now, &mut actions);
            self.follow_device(index);
        }
        self.drive_targets(now, &mut actions);
        for index in std::mem::take(&mut self.touched) {
            self.publish(index, now, &mut actions);
        }
        self.settle(now, &mut actions);
        actions
    }

    fn take(&mut self, event: Event, now: i64, actions: &mut Vec<Action>) {
        match event {
            Event::Begins(timeouts) => self.begin(timeouts, now, actions),
            Event::SnapshotBegins => self.snapshot_begins(),
            Event::Device(record) => self.device(*record, now, actions),
            Event::DeviceGone(index) => self.device_gone(index, actions),
            Event::Function(record) => self.function(*record, now, actions),
            Event::FunctionGone(name) => self.function_gone(&name, actions),
            Event::ModuleThere(name) => self.module_there(&name, actions),
            Event::ModuleGone(name) => self.module_gone(&name, actions),
            Event::ModulesThere(names) => self.modules_there(&names, actions),
            Event::SnapshotEnds => self.snapshot_ends(actions),
            // The state stays until the detector is connected again and reports changes.
            Event::DetectorLost => self.connected = false,
            Event::Module(result) => self.answered(&result, now, actions),
            Event::Driver {
                function,
                modalias,
                excluded,
            } => self.driver_answered(&function, &modalias, excluded, actions),
            Event::Targets(known) => self.targets_known(known, now),
            Event::ServiceManagerLost => self.targets_unknown(),
            Event::UnitFilesRead => self.unit_files_read(),
            Event::Job(unit, verb, outcome) => self.job(&unit, verb, &outcome, now),
            Event::Target(unit, activity) => self.target_is(&unit, activity, now),
            Event::FlagFailed(flag, why) => self.flag_failed(flag, why, now),
            Event::Deadline => self.deadline(now, actions),
            Event::Rules(sources) => self.read_rules(&sources, now, actions),
            Event::ModulesInstalled => {
                self.ask_for_what_changed(actions);
                self.timers.retain(|(_, timer)| *timer != Timer::Installed);
                let again = now.saturating_add(SECOND_LOOK);
                self.timers.insert((again, Timer::Installed));
            }
            Event::Reconcile => self.reconcile(actions),
            Event::Pause(reason) => self.paused = Some(reason),
            Event::Resume => self.resume(actions),
        }
    }

    /// Handles the start of a process. No request of the previous process will get a reply, and the
    /// service manager waits for READY again.
    fn begin(&mut self, timeouts: Timeouts, now: i64, actions: &mut Vec<Action>) {
        self.timeouts = timeouts;
        self.started = false;
        self.complete = false;
        self.settled = false;
        self.connected = false;
        self.timers.retain(|(_, timer)| *timer != Timer::Start);
        let end = now.saturating_add(self.timeouts.start);
        self.timers.insert((end, Timer::Start));
        self.targets_unknown();
        // The last decisions may not have been carried out.
        let announced = self.announced.iter();
        actions.extend(announced.map(|flag| Action::SetFlag(*flag, true)));
        for module in self.modules.values_mut() {
            module.ask_again |= std::mem::take(&mut module.in_flight);
        }
        // A module that was kept only for a pending result will not get one.
        self.modules
            .retain(|_, module| !module.wanted_by.is_empty());
        // A missing module may have been installed, and a denial removed, without an event.
        self.ask_everyone(RetryScope::Missing, actions);
        self.ask_drivers(actions);
        self.touch_everyone();
    }

    /// Requests the wanted modules that were not requested yet, and those that `again` selects.
    fn ask_everyone(&mut self, again: RetryScope, actions: &mut Vec<Action>) {
        if self.paused.is_some() {
            return;
        }
        // The pending result may describe the state before the change.
        let in_flight = self.modules.values_mut().filter(|module| module.in_flight);
        for module in in_flight.filter(|_| matches!(again, RetryScope::Missing | RetryScope::All)) {
            module.ask_again = true;
        }
        let devices = self.devices.keys().map(|index| Subject::Device(*index));
        let functions = self.functions.names().cloned().map(Subject::Function);
        let subjects: Vec<Subject> = devices.chain(functions).collect();
        for subject in subjects {
            self.ask(&subject, again, actions);
        }
    }

    /// Handles a change of modules on disk: requests the modules that are not live.
    fn ask_for_what_changed(&mut self, actions: &mut Vec<Action>) {
        self.ask_everyone(RetryScope::Missing, actions);
        self.ask_drivers(actions);
    }

    fn touch_everyone(&mut self) {
        self.touched.extend(self.devices.keys());
    }

    /// Requests the modules of a device or function that were not requested yet, and those that
    /// `again` selects.
    fn ask(&mut self, subject: &Subject, again: RetryScope, actions: &mut Vec<Action>) {
        if self.paused.is_some() {
            return;
        }
        let (names, reason): (Vec<&ModuleName>, String) = match subject {
            Subject::Device(index) => match self.devices.get(index) {
                Some(device) => (device.module_names().collect(), device.to_string()),
                None => return,
            },
            Subject::Function(name) => match self.functions.get(name) {
                Some(function) => (function.module_names().collect(), name.clone()),
                None => return,
            },
        };
        let modules = module::take_unrequested(&mut self.modules, names.into_iter(), again);
        if !modules.is_empty() {
            actions.push(Action::Load { modules, reason });
        }
    }

    fn snapshot_begins(&mut self) {
        self.connected = false;
        for device in self.devices.values_mut() {
            device.confirmed = false;
        }
        for function in self.functions.values_mut() {
            function.confirmed = false;
        }
    }

    fn snapshot_ends(&mut self, actions: &mut Vec<Action>) {
        self.connected = true;
        let gone: Vec<i64> = unconfirmed(self.devices.iter(), |device| device.confirmed);
        for index in gone {
            self.device_gone(index, actions);
        }
        let gone: Vec<String> = unconfirmed(self.functions.iter(), |function| function.confirmed);
        for name in gone {
            self.function_gone(&name, actions);
        }
        if !std::mem::replace(&mut self.complete, true) {
            actions.push(Action::Known);
            self.drive_every_target();
            // A previous orchestrator may have set the flag of hardware that was removed.
            for flag in Flag::all() {
                if !self.announced.contains(&flag) && !self.flagged.contains_key(&flag) {
                    actions.push(Action::SetFlag(flag, false));
                }
            }
        }
    }

    /// Marks the targets of a device for a check: its modules may allow their start now.
    fn follow_device(&mut self, index: i64) {
        let device = self.devices.get(&index);
        let claims = device.iter().flat_map(|device| &device.claims);
        self.driven.extend(claims.map(|claim| claim.name.clone()));
    }

    /// Records that a flag could not be written or removed, and schedules a retry.
    fn flag_failed(&mut self, flag: Flag, why: String, now: i64) {
        self.flag_errors.insert(flag, why);
        let retry = now.saturating_add(FLAG_RETRY);
        self.timers.insert((retry, Timer::Flag(flag)));
    }

    fn deadline(&mut self, now: i64, actions: &mut Vec<Action>) {
        while let Some((time, timer)) = self.timers.pop_first() {
            if time > now {
                self.timers.insert((time, timer));
                return;
            }
            match timer {
                Timer::Start => self.start(actions),
                Timer::Function(name) => self.function_deadline(&name, now, actions),
                Timer::Retry(name) => self.retry(&name, time, actions),
                Timer::Target(name) => self.retry_target(&name, time),
                Timer::Installed => self.ask_for_what_changed(actions),
                Timer::Flag(flag) => {
                    self.flag_errors.remove(&flag);
                    actions.push(Action::SetFlag(flag, self.announced.contains(&flag)));
                }
            }
        }
    }

    fn retry(&mut self, name: &ModuleName, time: i64, actions: &mut Vec<Action>) {
        let (wanting, again) = match self.modules.get_mut(name) {
            // A result since then has replaced the retry.
            Some(module) if module.retry_at == Some(time) => {
                module.retry_at = None;
                let again = match module.state {
                    // The state stays unknown, with its reason, until there is a result.
                    ModuleState::Unknown => RetryScope::Unknown,
                    _ => {
                        module.state = ModuleState::Pending;
                        RetryScope::No
                    }
                };
                (module.wanted_by.clone(), again)
            }
            _ => return,
        };
        self.modules_changed(&wanting);
        if let Some(subject) = wanting.first() {
            self.ask(subject, again, actions);
        }
    }

    fn read_rules(&mut self, sources: &Sources, now: i64, actions: &mut Vec<Action>) {
        self.rules = Rules::read(sources, &self.rules);
        let devices: Vec<i64> = self.devices.keys().copied().collect();
        for index in devices {
            self.want(index, actions);
        }
        let functions: Vec<String> = self.functions.names().cloned().collect();
        for name in functions {
            self.want_for_function(&name, now, actions);
        }
        self.ask_everyone(RetryScope::No, actions);
    }

    /// Compares everything again. A result stays until it is replaced, so that a ready device stays
    /// ready.
    fn reconcile(&mut self, actions: &mut Vec<Action>) {
        for module in self.modules.values_mut() {
            module.forget_attempts();
        }
        self.ask_everyone(RetryScope::All, actions);
        self.ask_drivers(actions);
        self.reconcile_targets();
        self.touch_everyone();
    }

    fn resume(&mut self, actions: &mut Vec<Action>) {
        self.paused = None;
        // The system may have changed during the pause.
        self.reconcile(actions);
    }

    /// Updates the settled state after a step, and completes the start if nothing holds it.
    fn settle(&mut self, now: i64, actions: &mut Vec<Action>) {
        let unsettled = !self.unsettled.is_empty();
        let open = |module: &Module| module.in_flight || module.state == ModuleState::Unknown;
        let loading = unsettled || self.modules.values().any(open);
        let job = self.targets.values().any(Target::is_pending);
        let (known, timeouts) = (self.known(), self.timeouts);
        let functions = self.functions.values().all(|f| f.is_settled(known));
        let settled = self.connected && !loading && !job && functions;
        // Jobs do not count: many of them are ordered after the start itself.
        let holds = |f: &Function| f.holds_start(known, now, timeouts);
        let holds = self.functions.values().any(holds);
        if settled != self.settled {
            self.settled = settled;
            actions.push(Action::Settled(settled));
        }
        // In a pause there is nothing to wait for.
        let waits = (unsettled || holds) && self.paused.is_none();
        if self.complete && !waits {
            self.start(actions);
        }
    }

    fn start(&mut self, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.timers.retain(|(_, timer)| *timer != Timer::Start);
        let devices = self.unsettled.iter().filter_map(|i| self.devices.get(i));
        let waiting = devices.map(|device| device.record.name.as_str());
        let functions = self.functions.values();
        let functions = functions.filter(|f| !f.is_settled(self.known()));
        let waiting: Vec<&str> = waiting.chain(functions.map(Function::name)).collect();
        let status = match (self.complete, waiting.as_slice()) {
            (false, _) => "started without the detector's reply".to_owned(),
            (true, []) => format!("devices set up at the start: {}", self.devices.len()),
            (true, names) => format!("started before these were set up: {}", names.join(" ")),
        };
        actions.push(Action::Started { status });
    }
}

/// Returns the keys of the entries that the snapshot did not contain.
fn unconfirmed<'m, K: Clone + 'm, V: 'm>(
    all: impl Iterator<Item = (&'m K, &'m V)>,
    is: impl Fn(&V) -> bool,
) -> Vec<K> {
    let gone = all.filter(|(_, value)| !is(value));
    gone.map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
pub(crate) mod tests;

//! The RDMA devices: what each should have, what of that it has, and which conditions are met.
//! Pure. Must never do anything because of a name: the key is the kernel's index together with
//! the hardware's identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use interfaces::detector::{self, Protocol};
use interfaces::loader::ModuleResult;
use interfaces::names::{ModuleName, UnitName};
use interfaces::orchestrator::{self, Condition, DeviceCondition, ModuleState, State};
use serde::{Deserialize, Serialize};

use super::module::{self, Module};
use super::unit::{self, Phase, Unit};
use super::{Action, Flag, Machine, Subject, Timer};
use crate::rules::protocol_name;

/// A module or unit that a device should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted<N> {
    name: N,
    /// The file that says so.
    file: String,
    /// Whether it is put back when somebody takes it away.
    restore: bool,
    /// Of a unit: it is wanted while all of these are active.
    while_active: Vec<UnitName>,
}

/// One device.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub record: detector::Device,
    modules: Vec<Wanted<ModuleName>>,
    units: Vec<Wanted<UnitName>>,
    /// A rule says that it is left alone.
    unmanaged: bool,
    /// What the rules ask for and what cannot be: a sentence each.
    errors: Vec<String>,
    /// Whether the detector's present snapshot has shown it.
    pub confirmed: bool,
    state: State,
    /// Since when it is in that state, in µs.
    since: i64,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (index {})", self.record.name, self.record.index)
    }
}

type Modules = BTreeMap<ModuleName, Module>;
type Units = BTreeMap<UnitName, Unit>;

impl Device {
    fn new(record: detector::Device, now: i64) -> Self {
        Self {
            record,
            modules: Vec::new(),
            units: Vec::new(),
            unmanaged: false,
            errors: Vec::new(),
            confirmed: true,
            state: State::Registered,
            since: now,
        }
    }

    pub(super) fn module_names(&self) -> impl Iterator<Item = &ModuleName> {
        self.modules.iter().map(|wanted| &wanted.name)
    }

    /// Whether every module has its answer.
    fn has_answers(&self, modules: &Modules) -> bool {
        let mut known = self.module_names().filter_map(|name| modules.get(name));
        known.all(Module::is_settled)
    }

    /// The flags that stand for it.
    fn flags(&self) -> BTreeSet<Flag> {
        let ports = self.record.ports.iter();
        let protocols = ports.filter_map(|port| Flag::of(port.protocol));
        protocols.chain([Flag::Hardware]).collect()
    }

    /// What concerns it, in the order of becoming true.
    fn conditions(&self, modules: &Modules, units: &Units) -> Vec<DeviceCondition> {
        let mut conditions = Vec::new();
        let mut is = |condition, met| conditions.push(DeviceCondition { condition, met });
        // A module that the kernel does not ship makes nothing that could be waited for.
        let state = |name: &str| {
            let wanted = self.module_names().find(|module| module.as_str() == name)?;
            let state = modules.get(wanted)?.state;
            (state != ModuleState::Missing).then_some(state)
        };
        is(Condition::Registered, true);
        if !self.modules.is_empty() {
            let fine =
                |module: &Module| matches!(module.state, ModuleState::Live | ModuleState::Missing);
            let mut known = self.module_names().filter_map(|name| modules.get(name));
            is(Condition::Modules, known.all(fine));
        }
        if state("ib_uverbs").is_some() {
            is(Condition::Verbs, self.record.uverbs.is_some());
        }
        if state("ib_umad").is_some() && self.umad_ports().next().is_some() {
            is(
                Condition::Umad,
                self.umad_ports().all(|port| port.umad.is_some()),
            );
        }
        if let Some(state) = state("rdma_ucm") {
            is(Condition::Cm, state == ModuleState::Live);
        }
        let is_ethernet =
            |port: &&detector::Port| matches!(port.protocol, Protocol::Roce | Protocol::Iwarp);
        let mut ethernet = self.record.ports.iter().filter(is_ethernet).peekable();
        if ethernet.peek().is_some() {
            is(
                Condition::Netdev,
                ethernet.all(|port| port.netdev.is_some()),
            );
        }
        if !self.units.is_empty() {
            let mut wanted = self
                .units
                .iter()
                .filter_map(|wanted| units.get(&wanted.name));
            is(
                Condition::Units,
                wanted.all(|unit| matches!(unit.phase, Phase::Active | Phase::Waiting)),
            );
        }
        // The network interface may be in another network namespace than ours, for good.
        let ready = conditions
            .iter()
            .all(|c| c.met || c.condition == Condition::Netdev);
        conditions.push(DeviceCondition {
            condition: Condition::Ready,
            met: ready && self.errors.is_empty(),
        });
        conditions
    }

    /// The ports that management datagrams are for.
    fn umad_ports(&self) -> impl Iterator<Item = &detector::Port> {
        let speaks =
            |port: &&detector::Port| matches!(port.protocol, Protocol::Infiniband | Protocol::Opa);
        self.record.ports.iter().filter(speaks)
    }

    /// A sentence for each thing that keeps it from being ready.
    fn waiting_for(
        &self,
        conditions: &[DeviceCondition],
        modules: &Modules,
        units: &Units,
    ) -> Vec<String> {
        let mut missing: Vec<String> = self
            .module_names()
            .filter_map(|name| module::waiting_for(name, modules.get(name)?))
            .collect();
        let live = |name: &str| {
            let mut known = modules.iter().filter(|(module, _)| module.as_str() == name);
            known.any(|(_, module)| module.state == ModuleState::Live)
        };
        for condition in conditions.iter().filter(|condition| !condition.met) {
            match condition.condition {
                Condition::Verbs if live("ib_uverbs") => {
                    missing.push("its node for verbs (uverbs)".to_owned());
                }
                Condition::Umad if live("ib_umad") => {
                    let ports = self.umad_ports().filter(|port| port.umad.is_none());
                    missing
                        .extend(ports.map(|port| format!("the umad node of port {}", port.number)));
                }
                _ => {}
            }
        }
        let wanted = self.units.iter();
        missing.extend(wanted.filter_map(|wanted| {
            let unit = units.get(&wanted.name)?;
            unit::waiting_for(&wanted.name, unit)
        }));
        missing.extend(self.errors.iter().cloned());
        missing
    }

    fn state(&self, conditions: &[DeviceCondition]) -> State {
        let ready = conditions
            .iter()
            .any(|c| c.condition == Condition::Ready && c.met);
        match (self.unmanaged, ready) {
            (true, _) => State::Unmanaged,
            (false, true) => State::Ready,
            (false, false) => State::Registered,
        }
    }

    /// Its modules as they are shown.
    pub(super) fn shown_modules(&self, modules: &Modules) -> Vec<orchestrator::Module> {
        let wanted = self.modules.iter();
        let shown = wanted.filter_map(|wanted| {
            let known = modules.get(&wanted.name)?;
            Some(orchestrator::Module {
                name: wanted.name.to_string(),
                state: known.state,
                rule: wanted.file.clone(),
                message: known.message.clone(),
            })
        });
        shown.collect()
    }

    /// Its units as they are shown.
    pub(super) fn shown_units(&self, units: &Units) -> Vec<orchestrator::Unit> {
        let wanted = self.units.iter();
        let shown = wanted.filter_map(|wanted| {
            let known = units.get(&wanted.name)?;
            Some(orchestrator::Unit {
                name: wanted.name.to_string(),
                state: known.state(),
                rule: wanted.file.clone(),
                message: known.message.clone(),
            })
        });
        shown.collect()
    }

    /// Its status.
    pub(super) fn status(&self, modules: &Modules, units: &Units) -> orchestrator::Device {
        let conditions = self.conditions(modules, units);
        let mut protocols: Vec<String> = Vec::new();
        for port in &self.record.ports {
            let protocol = protocol_name(port.protocol).to_owned();
            if !protocols.contains(&protocol) {
                protocols.push(protocol);
            }
        }
        orchestrator::Device {
            index: self.record.index,
            name: self.record.name.clone(),
            state: self.state(&conditions),
            since_usec: self.since,
            protocols,
            driver: self.record.driver.clone(),
            pci_address: self.record.pci_address.clone(),
            modules: self.shown_modules(modules),
            units: self.shown_units(units),
            waiting_for: self.waiting_for(&conditions, modules, units),
            conditions,
        }
    }
}

/// Whether two records are of one device: the hardware is the same.
fn is_same(one: &detector::Device, other: &detector::Device) -> bool {
    one.node_guid == other.node_guid && one.pci_address == other.pci_address
}

impl Machine {
    pub(super) fn device(&mut self, record: detector::Device, now: i64, actions: &mut Vec<Action>) {
        let index = record.index;
        // The index begins anew when ib_core is loaded anew: another device may have it.
        let another = self
            .devices
            .get(&index)
            .is_some_and(|known| !is_same(&known.record, &record));
        if another {
            self.device_gone(index, actions);
        }
        let mut unseen = false;
        let is_new = !self.devices.contains_key(&index);
        match self.devices.get_mut(&index) {
            Some(known) => {
                // Told again in a new snapshot, after a time in which nobody looked: what was
                // live may have been unloaded.
                unseen = !std::mem::replace(&mut known.confirmed, true);
                known.record = record;
            }
            None => {
                self.devices.insert(index, Device::new(record, now));
            }
        }
        self.want(index, actions);
        if is_new {
            self.want_again(index);
        }
        self.ask(&Subject::Device(index), unseen, actions);
    }

    /// Takes a device through the rules as they are now.
    pub(super) fn want(&mut self, index: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.get_mut(&index) else {
            return;
        };
        let wants = self.rules.wanted(&device.record);
        let modules = wants.modules.into_iter().map(|wanted| Wanted {
            name: wanted.name,
            file: wanted.file.display().to_string(),
            restore: wanted.restore,
            while_active: Vec::new(),
        });
        let units = wants.units.into_iter().map(|wanted| Wanted {
            name: wanted.name,
            file: wanted.file.display().to_string(),
            restore: wanted.restore,
            while_active: wanted.while_active,
        });
        let modules_before = std::mem::replace(&mut device.modules, modules.collect());
        let units_before = std::mem::replace(&mut device.units, units.collect());
        device.unmanaged = wants.unmanaged;
        device.errors = wants.errors;
        for devices in self.flagged.values_mut() {
            devices.remove(&index);
        }
        if !device.unmanaged {
            for flag in device.flags() {
                self.flagged.entry(flag).or_default().insert(index);
            }
        }
        let modules: BTreeSet<ModuleName> = device.module_names().cloned().collect();
        let units: Vec<Wanted<UnitName>> = device.units.clone();
        let subject = Subject::Device(index);
        for name in &modules {
            self.want_module(name, &subject);
        }
        for wanted in modules_before.iter().filter(|w| !modules.contains(&w.name)) {
            self.unwant_module(&wanted.name, &subject);
        }
        for wanted in &units {
            self.want_unit(index, wanted, actions);
        }
        for before in units_before {
            if units.iter().all(|wanted| wanted.name != before.name) {
                self.unwant_unit(index, &before.name, actions);
            }
        }
        self.changed(index);
        self.lower_flags(actions);
    }

    /// What somebody unloaded or stopped is wanted again by a device that was not there then.
    fn want_again(&mut self, index: i64) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        let mut changed = BTreeSet::new();
        for wanted in &device.modules {
            if let Some(module) = self.modules.get_mut(&wanted.name)
                && module.state == ModuleState::Unloaded
            {
                module.state = ModuleState::Pending;
                changed.extend(module.wanted_by.iter().cloned());
            }
        }
        for wanted in &device.units {
            if let Some(unit) = self.units.get_mut(&wanted.name)
                && unit.phase == Phase::Stopped
            {
                unit.phase = Phase::Waiting;
            }
        }
        self.modules_changed(&changed);
    }

    pub(super) fn want_module(&mut self, name: &ModuleName, subject: &Subject) {
        let module = self.modules.entry(name.clone()).or_insert_with(Module::new);
        module.wanted_by.insert(subject.clone());
    }

    /// Forgets what nobody wants any more: who wants it next asks anew.
    pub(super) fn unwant_module(&mut self, name: &ModuleName, subject: &Subject) {
        if let Some(module) = self.modules.get_mut(name) {
            module.wanted_by.remove(subject);
            if module.wanted_by.is_empty() && !module.in_flight {
                self.modules.remove(name);
            }
        }
    }

    fn want_unit(&mut self, index: i64, wanted: &Wanted<UnitName>, actions: &mut Vec<Action>) {
        let unit = self
            .units
            .entry(wanted.name.clone())
            .or_insert_with(Unit::new);
        unit.wanted_by.insert(index);
        for watched in &wanted.while_active {
            if !self.watched.contains_key(watched) {
                self.watched.insert(watched.clone(), false);
                if self.service_manager {
                    actions.push(Action::WatchUnit(watched.clone()));
                }
            }
        }
    }

    fn unwant_unit(&mut self, index: i64, name: &UnitName, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        unit.wanted_by.remove(&index);
        if unit.wanted_by.is_empty() {
            self.abandon_unit(name, actions);
        }
    }

    pub(super) fn device_gone(&mut self, index: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.remove(&index) else {
            return;
        };
        let subject = Subject::Device(index);
        for wanted in &device.modules {
            self.unwant_module(&wanted.name, &subject);
        }
        for wanted in &device.units {
            self.unwant_unit(index, &wanted.name, actions);
        }
        for devices in self.flagged.values_mut() {
            devices.remove(&index);
        }
        self.unsettled.remove(&index);
        self.touched.remove(&index);
        actions.push(Action::Withdraw(index));
        self.lower_flags(actions);
    }

    /// Takes down the flags that no device stands for any more, and their targets.
    fn lower_flags(&mut self, actions: &mut Vec<Action>) {
        self.flagged.retain(|_, devices| !devices.is_empty());
        let announced = std::mem::take(&mut self.announced);
        let (stay, gone) = announced
            .into_iter()
            .partition(|flag| self.flagged.contains_key(flag));
        self.announced = stay;
        for flag in gone {
            actions.push(Action::SetFlag(flag, false));
            self.take_down(flag, actions);
        }
    }

    /// A flag goes up as soon as one of its devices has got all the answers: a module that was
    /// refused keeps that device from being ready, but not the machine from having RDMA.
    pub(super) fn announce(&mut self, index: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        let paused = self.paused.is_some();
        if paused || device.unmanaged || self.unsettled.contains(&index) {
            return;
        }
        for flag in device.flags() {
            if self.announced.insert(flag) {
                actions.push(Action::SetFlag(flag, true));
                self.put_up(flag);
            }
        }
    }

    pub(super) fn answered(&mut self, result: &ModuleResult, now: i64, actions: &mut Vec<Action>) {
        let Ok(name) = ModuleName::parse(&result.module) else {
            return;
        };
        let Some(module) = self.modules.get_mut(&name) else {
            return;
        };
        module.answer(result, now);
        if let Some(time) = module.retry_at {
            self.timers.insert((time, Timer::Retry(name.clone())));
        }
        let wanting = module.wanted_by.clone();
        let at_once = module.state == ModuleState::Pending;
        if wanting.is_empty() {
            self.modules.remove(&name);
        }
        if let Some(subject) = wanting.first().filter(|_| at_once) {
            self.ask(subject, false, actions);
        }
        self.modules_changed(&wanting);
        self.publish_functions(&wanting, actions);
    }

    /// The wanted module that the kernel's module of this name stands behind: an alias is known
    /// by what was loaded for it.
    pub(super) fn stands_for(&self, name: &ModuleName) -> Option<ModuleName> {
        let is_it = |(wanted, module): &(&ModuleName, &Module)| {
            let last = module.chain.last();
            *wanted == name || last.is_some_and(|last| last == name.as_str())
        };
        let found = self.modules.iter().find(is_it);
        found.map(|(wanted, _)| wanted.clone())
    }

    /// A module is in the kernel again: somebody else has put it there.
    pub(super) fn module_there(&mut self, there: &ModuleName, actions: &mut Vec<Action>) {
        self.turn(there, ModuleState::Unloaded, ModuleState::Live, actions);
    }

    /// A module is no longer in the kernel. Where a rule says so it is put back.
    pub(super) fn module_gone(&mut self, gone: &ModuleName, actions: &mut Vec<Action>) {
        let name = self.stands_for(gone);
        let restore = self.devices.values().any(|device| {
            let mut wanted = device.modules.iter();
            wanted.any(|wanted| wanted.restore && Some(&wanted.name) == name.as_ref())
        });
        let state = match restore {
            true => ModuleState::Pending,
            false => ModuleState::Unloaded,
        };
        self.turn(gone, ModuleState::Live, state, actions);
    }

    /// Something outside has changed the state of a module, unless it is being loaded.
    fn turn(
        &mut self,
        kernel_name: &ModuleName,
        from: ModuleState,
        to: ModuleState,
        actions: &mut Vec<Action>,
    ) {
        let name = self.stands_for(kernel_name);
        let Some(module) = name.and_then(|name| self.modules.get_mut(&name)) else {
            return;
        };
        if module.in_flight || module.state != from {
            return;
        }
        module.state = to;
        let wanting = module.wanted_by.clone();
        if let Some(subject) = wanting.first() {
            self.ask(subject, false, actions);
        }
        self.modules_changed(&wanting);
        self.publish_functions(&wanting, actions);
    }

    /// Those who want a module whose state is another one.
    pub(super) fn modules_changed(&mut self, wanting: &BTreeSet<Subject>) {
        for subject in wanting {
            if let Subject::Device(index) = subject {
                self.changed(*index);
            }
        }
    }

    fn publish_functions(&self, wanting: &BTreeSet<Subject>, actions: &mut Vec<Action>) {
        for subject in wanting {
            if let Subject::Function(name) = subject {
                self.publish_function(name, actions);
            }
        }
    }

    /// Notes that something of a device is another one now.
    fn changed(&mut self, index: i64) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        match device.has_answers(&self.modules) {
            true => self.unsettled.remove(&index),
            false => self.unsettled.insert(index),
        };
        self.touched.insert(index);
    }

    /// Shows a device's status.
    pub(super) fn publish(&mut self, index: i64, now: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.get_mut(&index) else {
            return;
        };
        let conditions = device.conditions(&self.modules, &self.units);
        let state = device.state(&conditions);
        if state != device.state {
            device.state = state;
            device.since = now;
        }
        let status = device.status(&self.modules, &self.units);
        actions.push(Action::Publish(Box::new(status)));
    }

    /// Whether one of the devices that want `unit` says that it is put back.
    pub(super) fn restores_unit(&self, name: &UnitName, wanted_by: &BTreeSet<i64>) -> bool {
        let mut devices = wanted_by.iter().filter_map(|index| self.devices.get(index));
        devices.any(|device| {
            let mut wanted = device.units.iter();
            wanted.any(|wanted| wanted.restore && wanted.name == *name)
        })
    }

    /// Whether a device that wants `unit` has its modules, and what the unit waits for is active.
    pub(super) fn may_start(&self, name: &UnitName, wanted_by: &BTreeSet<i64>) -> bool {
        let mut settled = wanted_by
            .iter()
            .filter(|index| !self.unsettled.contains(index));
        settled.any(|index| self.has_leaders_of(name, *index))
    }

    /// Whether what `unit` waits for is active, for one of the devices that want it.
    pub(super) fn has_leaders(&self, name: &UnitName, wanted_by: &BTreeSet<i64>) -> bool {
        let mut wanting = wanted_by.iter();
        wanting.any(|index| self.has_leaders_of(name, *index))
    }

    fn has_leaders_of(&self, name: &UnitName, index: i64) -> bool {
        let is_active = |unit: &UnitName| self.watched.get(unit) == Some(&true);
        let device = self.devices.get(&index);
        let mut wanted = device.iter().flat_map(|device| &device.units);
        wanted.any(|wanted| wanted.name == *name && wanted.while_active.iter().all(is_active))
    }

    /// The units of a device.
    pub(super) fn units_of(&self, index: i64) -> Vec<UnitName> {
        let device = self.devices.get(&index);
        let units = device.iter().flat_map(|device| &device.units);
        units.map(|wanted| wanted.name.clone()).collect()
    }
}

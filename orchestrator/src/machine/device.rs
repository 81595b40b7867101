//! The RDMA devices: the modules and targets that each should have, those that it has, and the
//! conditions that are met. Pure. Must never do anything because of a name: the key is the kernel's
//! index together with the identity of the hardware.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use interfaces::detector::{self, Protocol};
use interfaces::names::ModuleName;
use interfaces::orchestrator::{
    self, Condition, DeviceCondition, ModuleState, State, Target, TargetState,
};
use serde::{Deserialize, Serialize};

use super::Flag;
use super::module::{self, Module};
use crate::bounds;
use crate::rules::WantedModule;
use crate::targets::Claim;

/// A module that a device should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub name: ModuleName,
    /// The file with the rule.
    pub file: String,
    /// The module is loaded again if it is unloaded.
    pub restore: bool,
}

impl From<WantedModule> for Wanted {
    fn from(wanted: WantedModule) -> Self {
        Self {
            name: wanted.name,
            file: wanted.file.display().to_string(),
            restore: wanted.restore,
        }
    }
}

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub record: detector::Device,
    /// The share of the record in the limit for all records, in bytes.
    pub len: usize,
    pub modules: Vec<Wanted>,
    /// The targets that stand for it.
    pub claims: Vec<Claim>,
    /// A message for each target whose name would be invalid.
    pub unnamed: Vec<String>,
    /// A rule excludes the device from management.
    pub unmanaged: bool,
    /// True if the detector's current snapshot contains the device.
    pub confirmed: bool,
    pub state: State,
    /// The time of the last change of the state, in µs.
    pub since: i64,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (index {})", self.record.name, self.record.index)
    }
}

type Modules = BTreeMap<ModuleName, Module>;

impl Device {
    pub(super) fn new(record: detector::Device, now: i64) -> Self {
        Self {
            len: bounds::len(&record),
            record,
            modules: Vec::new(),
            claims: Vec::new(),
            unnamed: Vec::new(),
            unmanaged: false,
            confirmed: true,
            state: State::Registered,
            since: now,
        }
    }

    pub(super) fn module_names(&self) -> impl Iterator<Item = &ModuleName> {
        self.modules.iter().map(|wanted| &wanted.name)
    }

    /// Returns true if each module has its result.
    pub(super) fn has_answers(&self, modules: &Modules) -> bool {
        let mut known = self.module_names().filter_map(|name| modules.get(name));
        known.all(Module::is_settled)
    }

    /// Returns the flags of the device.
    pub(super) fn flags(&self) -> BTreeSet<Flag> {
        let ports = self.record.ports.iter();
        let protocols = ports.filter_map(|port| Flag::of(port.protocol));
        protocols.chain([Flag::Hardware]).collect()
    }

    /// Returns the conditions that apply to the device, in the order in which they become true.
    pub(super) fn conditions(&self, modules: &Modules, targets: &[Target]) -> Vec<DeviceCondition> {
        let mut conditions = Vec::new();
        let mut is = |condition, met| conditions.push(DeviceCondition { condition, met });
        // Nothing can wait for a module that is left out.
        let state = |name: &str| {
            let wanted = self.module_names().find(|module| module.as_str() == name)?;
            let state = modules.get(wanted)?.state;
            (!module::is_left_out(state)).then_some(state)
        };
        is(Condition::Registered, !self.record.in_other_netns);
        if !self.modules.is_empty() {
            let fine = |module: &Module| {
                module.state == ModuleState::Live || module::is_left_out(module.state)
            };
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
        if !targets.is_empty() {
            let mut targets = targets.iter();
            is(
                Condition::Targets,
                targets.all(|target| {
                    matches!(target.state, TargetState::Active | TargetState::Masked)
                }),
            );
        }
        // The network interface may stay in another network namespace. And a unit on a target may
        // wait for the device to be ready.
        let apart = [Condition::Netdev, Condition::Targets];
        let ready = conditions
            .iter()
            .all(|c| c.met || apart.contains(&c.condition));
        conditions.push(DeviceCondition {
            condition: Condition::Ready,
            // The data of a device that does not answer may be old.
            met: ready && self.record.not_answering.is_none(),
        });
        conditions
    }

    /// Returns the ports whose protocols use management datagrams.
    fn umad_ports(&self) -> impl Iterator<Item = &detector::Port> {
        let speaks =
            |port: &&detector::Port| matches!(port.protocol, Protocol::Infiniband | Protocol::Opa);
        self.record.ports.iter().filter(speaks)
    }

    /// Returns a message for each thing that the device waits for.
    fn waiting_for(&self, conditions: &[DeviceCondition], modules: &Modules) -> Vec<String> {
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
        let unanswered = self.record.not_answering.iter();
        missing.extend(unanswered.map(|what| format!("its reply ({what})")));
        if self.record.in_other_netns {
            missing.push("its return from another network namespace".to_owned());
        }
        missing
    }

    pub(super) fn state(&self, conditions: &[DeviceCondition]) -> State {
        let ready = conditions
            .iter()
            .any(|c| c.condition == Condition::Ready && c.met);
        match (self.unmanaged, ready) {
            (true, _) => State::Unmanaged,
            (false, _) if self.record.in_other_netns => State::Moved,
            (false, true) => State::Ready,
            (false, false) => State::Registered,
        }
    }

    /// Returns its modules as they are shown.
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

    /// Returns its status, with the targets that stand for it.
    pub(super) fn status(&self, modules: &Modules, targets: Vec<Target>) -> orchestrator::Device {
        let conditions = self.conditions(modules, &targets);
        let mut protocols: Vec<String> = Vec::new();
        for port in &self.record.ports {
            let protocol = port.protocol.to_string();
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
            targets,
            waiting_for: self.waiting_for(&conditions, modules),
            conditions,
        }
    }
}

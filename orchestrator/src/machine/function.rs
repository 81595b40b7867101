//! The functions without RDMA devices: the modules that each needs, and the time at which it is
//! stuck. Pure. Must never delay the start for a function that no program works on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use interfaces::detector::{self, FunctionState, WaitsFor};
use interfaces::names::{ModuleAlias, ModuleName};
use interfaces::orchestrator::{self, ModuleState};
use serde::{Deserialize, Serialize};

use super::functions::Functions;
use super::module::{self, Module, RetryScope};
use super::{Action, Machine, Subject, Timeouts, Timer};
use crate::bounds;

/// Drivers that assign a function to a virtual machine or to a program in user space
/// (`Documentation/driver-api/vfio.rst`, `uio-howto.rst`, `drivers/pci/pci-stub.c`,
/// `drivers/xen/xen-pciback`; igb_uio is part of DPDK).
const ASSIGNING: [&str; 7] = [
    "igb_uio",
    "mlx5_vfio_pci",
    "pci-stub",
    "pciback",
    "uio_pci_generic",
    "vfio-pci",
    "xen-pciback",
];

/// A module that a function needs, with the rules file that requests it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Needed {
    name: ModuleName,
    file: String,
}

/// The other functions and the modules, on which the state of a function depends.
#[derive(Clone, Copy)]
pub(super) struct Context<'m> {
    pub functions: &'m Functions,
    pub modules: &'m BTreeMap<ModuleName, Module>,
}

/// A decision of an administrator by which a function gets no device.
#[derive(Clone, Copy)]
enum Decision<'m> {
    /// This rules file excludes the function from management.
    Unmanaged(&'m str),
    /// This driver assigns the function to another user.
    Assigned(&'m str),
    /// The driver of the function is excluded, for this reason.
    Driver(&'m str),
    /// A module that the function needs is excluded.
    Module(&'m ModuleName, &'m Module),
}

impl Decision<'_> {
    fn state(self) -> orchestrator::FunctionState {
        match self {
            Self::Assigned(_) => orchestrator::FunctionState::Assigned,
            _ => orchestrator::FunctionState::Excluded,
        }
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmanaged(file) => write!(f, "{file} leaves it alone"),
            Self::Assigned(driver) => {
                write!(f, "{driver} assigns it to a virtual machine or a program")
            }
            Self::Driver(why) => write!(f, "its driver is excluded, because {why}"),
            Self::Module(name, module) => {
                let why = module.message.as_deref().unwrap_or("it is excluded");
                write!(f, "module {name} is excluded, because {why}")
            }
        }
    }
}

/// A function without an RDMA device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Function {
    record: detector::Function,
    /// The share of the record in the limit for all records, in bytes.
    pub len: usize,
    modules: Vec<Needed>,
    /// The rules file that excludes the function from management.
    #[serde(default)]
    unmanaged: Option<String>,
    /// The reason why an administrator excludes its driver.
    #[serde(default)]
    driver_excluded: Option<String>,
    /// The time of the last change of the record, in µs.
    changed_at: i64,
    /// True if there is no device after the maximum time.
    stuck: bool,
    /// True if the detector's current snapshot contains the function.
    pub confirmed: bool,
}

impl Function {
    pub(super) fn name(&self) -> &str {
        &self.record.name
    }

    pub(super) fn module_names(&self) -> impl Iterator<Item = &ModuleName> {
        self.modules.iter().map(|needed| &needed.name)
    }

    /// Returns the address of the PCI function that an auxiliary device belongs to.
    pub(super) fn belongs_to(&self) -> Option<&str> {
        let address = self.record.pci_address.as_deref();
        address.filter(|address| *address != self.record.name)
    }

    /// Returns true if it is no longer of use to wait for the function.
    pub(super) fn is_settled(&self, known: Context<'_>) -> bool {
        self.stuck || self.decision(known).is_some()
    }

    /// Returns the decision of an administrator by which there is no device, and its function: this
    /// one, or an auxiliary device of it.
    fn decision<'m>(&'m self, known: Context<'m>) -> Option<(&'m Self, Decision<'m>)> {
        let of = |function: &'m Self| Some((function, function.own_decision(known.modules)?));
        of(self).or_else(|| {
            // The auxiliary devices register its RDMA device: there must be a decision for each.
            let mut devices = known.functions.of(&self.record.name).map(of);
            let first = devices.next()??;
            devices.all(|device| device.is_some()).then_some(first)
        })
    }

    fn own_decision<'m>(
        &'m self,
        modules: &'m BTreeMap<ModuleName, Module>,
    ) -> Option<Decision<'m>> {
        if let Some(file) = &self.unmanaged {
            return Some(Decision::Unmanaged(file));
        }
        let driver = self.record.driver.as_deref();
        if let Some(driver) = driver.filter(|driver| ASSIGNING.contains(driver)) {
            return Some(Decision::Assigned(driver));
        }
        if let Some(why) = &self.driver_excluded {
            return Some(Decision::Driver(why));
        }
        let known = self
            .module_names()
            .filter_map(|name| Some((name, modules.get(name)?)));
        let mut excluded = known.filter(|(_, module)| module.state == ModuleState::Excluded);
        excluded
            .next()
            .map(|(name, module)| Decision::Module(name, module))
    }

    /// Returns the query for its driver, if no driver is bound.
    fn ask_driver(&self) -> Option<Action> {
        Some(Action::QueryDriver {
            function: self.record.name.clone(),
            modalias: self.modalias()?,
        })
    }

    /// Returns the modalias of its driver, if no driver is bound.
    fn modalias(&self) -> Option<ModuleAlias> {
        ModuleAlias::parse(self.record.modalias.as_deref()?).ok()
    }

    /// Returns true if the start waits for the function: a module is being loaded for it, or it has
    /// just changed, so that udev or a driver may be at work. The start does not wait longer,
    /// because a driver may never be loaded.
    pub(super) fn holds_start(&self, known: Context<'_>, now: i64, timeouts: Timeouts) -> bool {
        let mut needed = self
            .module_names()
            .filter_map(|name| known.modules.get(name));
        let loading = needed.any(|module| !module.is_settled());
        let young = now < self.changed_at.saturating_add(timeouts.driver);
        (loading || young) && !self.is_settled(known)
    }

    fn waiting_for(&self, known: Context<'_>) -> String {
        match self.decision(known) {
            Some((of, decision)) if of.name() == self.name() => {
                return format!("nothing: {decision}");
            }
            Some((of, decision)) => {
                return format!("nothing, because of {}: {decision}", of.name());
            }
            None => {}
        }
        let modules = known.modules;
        let known = self
            .module_names()
            .filter_map(|name| Some((name, modules.get(name)?)));
        let mut missing = known.filter_map(|(name, known)| match known.state {
            ModuleState::Missing => Some(format!(
                "module {name}, which is not shipped with this kernel"
            )),
            _ => module::waiting_for(name, known),
        });
        if let Some(missing) = missing.next() {
            return missing;
        }
        let driver = self.record.driver.as_deref().unwrap_or("the driver");
        match (self.record.waits_for, &self.record.module) {
            (Some(WaitsFor::Driver), _) => "a driver: no driver is bound".to_owned(),
            (Some(WaitsFor::Module), Some(module)) => {
                format!("module {module}, which no rule requests and no alias names")
            }
            (Some(WaitsFor::Module), None) => "a module that no rule requests".to_owned(),
            (Some(WaitsFor::Registration) | None, _) => {
                format!("{driver}, which is bound, to register its RDMA device")
            }
        }
    }

    fn show(&self, known: Context<'_>) -> orchestrator::Function {
        orchestrator::Function {
            name: self.record.name.clone(),
            state: match (self.decision(known), self.record.state) {
                (Some((_, decision)), _) => decision.state(),
                (None, _) if self.stuck => orchestrator::FunctionState::Stuck,
                (None, FunctionState::Personality) => orchestrator::FunctionState::Personality,
                (None, _) => orchestrator::FunctionState::Capable,
            },
            since_usec: self.record.since_usec,
            driver: self.record.driver.clone(),
            modules: self
                .modules
                .iter()
                .filter_map(|needed| {
                    let module = known.modules.get(&needed.name)?;
                    Some(orchestrator::Module {
                        name: needed.name.to_string(),
                        state: module.state,
                        rule: needed.file.clone(),
                        message: module.message.clone(),
                    })
                })
                .collect(),
            waiting_for: self.waiting_for(known),
        }
    }
}

impl Machine {
    pub(super) fn function(
        &mut self,
        record: detector::Function,
        now: i64,
        actions: &mut Vec<Action>,
    ) {
        let name = record.name.clone();
        if record.state == FunctionState::Registered {
            return self.function_gone(&name, actions);
        }
        let before = self.functions.remove(&name);
        let len = bounds::len(&record);
        self.held
            .change(before.as_ref().map_or(0, |before| before.len), len);
        let same = before.as_ref().filter(|before| {
            before.record.state == record.state && before.record.since_usec == record.since_usec
        });
        let stuck = same.is_some_and(|before| before.stuck);
        if same.is_none() {
            let end = record.since_usec.saturating_add(self.timeouts.function);
            self.timers.insert((end, Timer::Function(name.clone())));
        }
        let before_at = before.as_ref().filter(|before| before.record == record);
        let changed_at = before_at.map_or(now, |before| before.changed_at);
        if changed_at == now {
            // The time at which the start no longer waits for it.
            let grace = now.saturating_add(self.timeouts.driver);
            self.timers.insert((grace, Timer::Function(name.clone())));
        }
        let is_asked = before
            .as_ref()
            .is_some_and(|before| before.record.modalias == record.modalias);
        let (modules, driver_excluded) = before
            .map(|before| (before.modules, before.driver_excluded))
            .unwrap_or_default();
        let function = Function {
            changed_at,
            modules,
            unmanaged: None,
            driver_excluded: driver_excluded.filter(|_| is_asked),
            len,
            record,
            stuck,
            confirmed: true,
        };
        if !is_asked {
            actions.extend(function.ask_driver());
        }
        self.functions.insert(function);
        self.want_for_function(&name, now, actions);
        self.ask(&Subject::Function(name), RetryScope::No, actions);
    }

    /// Applies the current rules to a function.
    pub(super) fn want_for_function(&mut self, name: &str, now: i64, actions: &mut Vec<Action>) {
        let Some(function) = self.functions.get_mut(name) else {
            return;
        };
        let wanted = self.rules.wanted_by_function(&function.record);
        function.unmanaged = wanted.unmanaged.map(|file| file.display().to_string());
        let needed = wanted.modules.into_iter().map(|module| Needed {
            name: module.name,
            file: module.file.display().to_string(),
        });
        let before = std::mem::replace(&mut function.modules, needed.collect());
        let now_wanted: BTreeSet<ModuleName> = function.module_names().cloned().collect();
        let subject = Subject::Function(name.to_owned());
        for module in &now_wanted {
            self.want_module(module, &subject);
        }
        let unwanted = before.iter().filter(|n| !now_wanted.contains(&n.name));
        for needed in unwanted {
            self.unwant_module(&needed.name, &subject);
        }
        self.function_deadline(name, now, actions);
    }

    pub(super) fn function_gone(&mut self, name: &str, actions: &mut Vec<Action>) {
        let Some(function) = self.functions.remove(name) else {
            return;
        };
        self.held.change(function.len, 0);
        let subject = Subject::Function(name.to_owned());
        for needed in &function.modules {
            self.unwant_module(&needed.name, &subject);
        }
        actions.push(Action::WithdrawFunction(name.to_owned()));
    }

    /// Queries the driver of each function without a driver.
    pub(super) fn ask_drivers(&self, actions: &mut Vec<Action>) {
        actions.extend(self.functions.values().filter_map(Function::ask_driver));
    }

    /// Handles the reply for the driver of a function.
    pub(super) fn driver_answered(
        &mut self,
        name: &str,
        modalias: &ModuleAlias,
        excluded: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        // The name may belong to another function now, or a driver may be bound.
        if let Some(function) = self.functions.get_mut(name)
            && function.modalias().as_ref() == Some(modalias)
        {
            function.driver_excluded = excluded;
            self.publish_function(name, actions);
        }
    }

    /// Updates whether a function is stuck, and publishes its status.
    pub(super) fn function_deadline(&mut self, name: &str, now: i64, actions: &mut Vec<Action>) {
        let Some(function) = self.functions.get_mut(name) else {
            return;
        };
        let end = function
            .record
            .since_usec
            .saturating_add(self.timeouts.function);
        function.stuck = now >= end;
        self.publish_function(name, actions);
    }

    /// Publishes the status of a function, and of the PCI function that it belongs to.
    pub(super) fn publish_function(&self, name: &str, actions: &mut Vec<Action>) {
        let function = self.functions.get(name);
        let above = function.and_then(Function::belongs_to);
        let above = above.and_then(|address| self.functions.get(address));
        for function in function.into_iter().chain(above) {
            let shown = function.show(self.known());
            actions.push(Action::PublishFunction(Box::new(shown)));
        }
    }

    pub(super) fn known(&self) -> Context<'_> {
        Context {
            functions: &self.functions,
            modules: &self.modules,
        }
    }

    /// Returns the state of a module that a function needs.
    pub(super) fn function_module(
        &self,
        function: &str,
        module: &ModuleName,
    ) -> Option<orchestrator::Module> {
        let shown = self.functions.get(function)?.show(self.known());
        let mut modules = shown.modules.into_iter();
        modules.find(|shown| shown.name == module.as_str())
    }
}

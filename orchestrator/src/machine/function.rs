//! The functions that RDMA devices come from: what each needs before there is a device, and when
//! it is stuck. Pure. Must never hold the start for a function that nothing is done for.

use std::collections::{BTreeMap, BTreeSet};

use interfaces::detector::{self, FunctionState, WaitsFor};
use interfaces::names::ModuleName;
use interfaces::orchestrator::{self, ModuleState};
use serde::{Deserialize, Serialize};

use super::module::{self, Again, Module};
use super::{Action, Machine, Patience, Subject, Timer};
use crate::bounds;

/// Drivers that hand a function to a virtual machine or to a program in user space
/// (`Documentation/driver-api/vfio.rst`, `uio-howto.rst`, `drivers/pci/pci-stub.c`,
/// `drivers/xen/xen-pciback`; igb_uio is DPDK's).
const ASSIGNING: [&str; 7] = [
    "igb_uio",
    "mlx5_vfio_pci",
    "pci-stub",
    "pciback",
    "uio_pci_generic",
    "vfio-pci",
    "xen-pciback",
];

/// A module that a function needs, and the rules file that says so.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Needed {
    name: ModuleName,
    file: String,
}

/// One function without an RDMA device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Function {
    record: detector::Function,
    /// How many bytes of the bound for all records it takes.
    pub len: usize,
    modules: Vec<Needed>,
    /// The rules file that says that it is left alone.
    #[serde(default)]
    unmanaged: Option<String>,
    /// When something of it was different last, in µs.
    changed_at: i64,
    /// There is still no device after the time that it may take.
    stuck: bool,
    /// Whether the detector's present snapshot has shown it.
    pub confirmed: bool,
}

impl Function {
    pub(super) fn name(&self) -> &str {
        &self.record.name
    }

    pub(super) fn module_names(&self) -> impl Iterator<Item = &ModuleName> {
        self.modules.iter().map(|needed| &needed.name)
    }

    /// Whether waiting for it is of no more use.
    pub(super) fn is_settled(&self, modules: &BTreeMap<ModuleName, Module>) -> bool {
        self.stuck || self.is_given_up(modules)
    }

    /// Whether somebody has decided that there is to be no device.
    fn is_given_up(&self, modules: &BTreeMap<ModuleName, Module>) -> bool {
        self.unmanaged.is_some() || self.is_assigned() || self.excluded(modules).is_some()
    }

    fn is_assigned(&self) -> bool {
        let driver = self.record.driver.as_deref();
        driver.is_some_and(|driver| ASSIGNING.contains(&driver))
    }

    /// The module that it needs and that the administrator has excluded.
    fn excluded<'m>(
        &'m self,
        modules: &'m BTreeMap<ModuleName, Module>,
    ) -> Option<(&'m ModuleName, &'m Module)> {
        let mut known = self
            .module_names()
            .filter_map(|name| Some((name, modules.get(name)?)));
        known.find(|(_, module)| module.state == ModuleState::Excluded)
    }

    /// Whether the start waits for it: a module is being loaded for it, or something of it has
    /// just changed, so that udev or a driver is at work. Nobody may ever load a driver for it.
    pub(super) fn holds_start(
        &self,
        modules: &BTreeMap<ModuleName, Module>,
        now: i64,
        patience: Patience,
    ) -> bool {
        let mut needed = self.module_names().filter_map(|name| modules.get(name));
        let loading = needed.any(|module| !module.is_settled());
        let young = now < self.changed_at.saturating_add(patience.driver);
        !self.is_settled(modules) && (loading || young)
    }

    fn waiting_for(&self, modules: &BTreeMap<ModuleName, Module>) -> String {
        if let Some(file) = &self.unmanaged {
            return format!("nothing: {file} leaves it alone");
        }
        if self.is_assigned() {
            let driver = self.record.driver.as_deref().unwrap_or_default();
            return format!("nothing: {driver} hands it to a virtual machine or a program");
        }
        if let Some((name, module)) = self.excluded(modules) {
            let why = module.message.as_deref().unwrap_or("it is excluded");
            return format!("nothing: module {name} is excluded, because {why}");
        }
        let known = self
            .module_names()
            .filter_map(|name| Some((name, modules.get(name)?)));
        let mut missing = known.filter_map(|(name, known)| match known.state {
            ModuleState::Missing => Some(format!("module {name}, which this kernel does not have")),
            _ => module::waiting_for(name, known),
        });
        if let Some(missing) = missing.next() {
            return missing;
        }
        let driver = self.record.driver.as_deref().unwrap_or("the driver");
        match (self.record.waits_for, &self.record.module) {
            (Some(WaitsFor::Driver), _) => "a driver: none is bound to it".to_owned(),
            (Some(WaitsFor::Module), Some(module)) => {
                format!("module {module}, which no rule asks for and no alias leads to")
            }
            (Some(WaitsFor::Module), None) => "a module, which no rule asks for".to_owned(),
            (Some(WaitsFor::Registration) | None, _) => {
                format!("{driver}, which is bound, to register an RDMA device")
            }
        }
    }

    fn show(&self, modules: &BTreeMap<ModuleName, Module>) -> orchestrator::Function {
        orchestrator::Function {
            name: self.record.name.clone(),
            state: match (self.stuck, self.record.state) {
                _ if self.unmanaged.is_some() => orchestrator::FunctionState::Excluded,
                _ if self.is_assigned() => orchestrator::FunctionState::Assigned,
                _ if self.excluded(modules).is_some() => orchestrator::FunctionState::Excluded,
                (true, _) => orchestrator::FunctionState::Stuck,
                (false, FunctionState::Personality) => orchestrator::FunctionState::Personality,
                (false, _) => orchestrator::FunctionState::Capable,
            },
            since_usec: self.record.since_usec,
            driver: self.record.driver.clone(),
            modules: self
                .modules
                .iter()
                .filter_map(|needed| {
                    let known = modules.get(&needed.name)?;
                    Some(orchestrator::Module {
                        name: needed.name.to_string(),
                        state: known.state,
                        rule: needed.file.clone(),
                        message: known.message.clone(),
                    })
                })
                .collect(),
            waiting_for: self.waiting_for(modules),
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
            let end = record.since_usec.saturating_add(self.patience.function);
            self.timers.insert((end, Timer::Function(name.clone())));
        }
        let before_at = before.as_ref().filter(|before| before.record == record);
        let changed_at = before_at.map_or(now, |before| before.changed_at);
        if changed_at == now {
            // When the start no longer waits for it.
            let grace = now.saturating_add(self.patience.driver);
            self.timers.insert((grace, Timer::Function(name.clone())));
        }
        let function = Function {
            changed_at,
            modules: before.map(|before| before.modules).unwrap_or_default(),
            unmanaged: None,
            len,
            record,
            stuck,
            confirmed: true,
        };
        self.functions.insert(name.clone(), function);
        self.want_for_function(&name, now, actions);
        self.ask(&Subject::Function(name), Again::No, actions);
    }

    /// Takes a function through the rules as they are now.
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

    /// Sees whether a function is stuck by now, and shows it.
    pub(super) fn function_deadline(&mut self, name: &str, now: i64, actions: &mut Vec<Action>) {
        let Some(function) = self.functions.get_mut(name) else {
            return;
        };
        let end = function
            .record
            .since_usec
            .saturating_add(self.patience.function);
        function.stuck = now >= end;
        let shown = function.show(&self.modules);
        actions.push(Action::PublishFunction(Box::new(shown)));
    }

    /// Shows a function anew.
    pub(super) fn publish_function(&self, name: &str, actions: &mut Vec<Action>) {
        if let Some(function) = self.functions.get(name) {
            let shown = function.show(&self.modules);
            actions.push(Action::PublishFunction(Box::new(shown)));
        }
    }

    /// What became of a module that a function needs.
    pub(super) fn function_module(
        &self,
        function: &str,
        module: &ModuleName,
    ) -> Option<orchestrator::Module> {
        let shown = self.functions.get(function)?.show(&self.modules);
        let mut modules = shown.modules.into_iter();
        modules.find(|shown| shown.name == module.as_str())
    }
}

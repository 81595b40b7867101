//! The replies to queries about the machine, a device or a module. Pure. Must never decide
//! anything.

use interfaces::names::{ModuleName, UnitName};
use interfaces::orchestrator::{
    self, DescribeReply, ExplainModuleReply, ExplainReply, Module, Rule,
};

use super::device::Device;
use super::{Machine, Subject};
use crate::rules;

/// The maximum number of devices and functions that are named as wanting a module.
const MAX_NAMED: usize = 64;

impl Machine {
    /// Returns the state of the machine.
    #[must_use]
    pub fn describe(&self) -> DescribeReply {
        let errors = self.rules.errors().iter().map(ToString::to_string);
        DescribeReply {
            detector_connected: self.connected,
            service_manager_connected: self.needs_service_manager().then_some(self.service_manager),
            settled: self.settled,
            hardware_announced: self.announced.contains(&super::Flag::Hardware),
            paused: self.paused.clone(),
            // The caller adds the loader's reply.
            loading: Vec::new(),
            left_behind: self.problems(),
            // The event loop adds these.
            refused_records: 0,
            last_refused: None,
            rule_files: self
                .rules
                .files()
                .map(|file| file.display().to_string())
                .collect(),
            rule_errors: errors.collect(),
            // The server adds these.
            limits: Vec::new(),
        }
    }

    /// Returns a message for each problem with targets and flags.
    fn problems(&self) -> Vec<String> {
        let devices = self.devices.values();
        let unnamed = devices.flat_map(|device| {
            let unnamed = device.unnamed.iter();
            unnamed.map(move |unnamed| format!("{device}: {unnamed}"))
        });
        let flags = self.flag_errors.iter();
        let flags = flags
            .map(|(flag, why)| format!("{} does not follow the hardware: {why}", flag.target()));
        self.left_behind().chain(flags).chain(unnamed).collect()
    }

    /// Returns true if there are targets to manage.
    #[must_use]
    pub fn needs_service_manager(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Returns the targets that stand for a device.
    #[must_use]
    pub fn targets_of(&self, name: Option<&str>, index: Option<i64>) -> Vec<UnitName> {
        let device = self.find(name, index);
        let claims = device.iter().flat_map(|device| &device.claims);
        let claims = claims.filter(|claim| claim.flag.is_none());
        claims.map(|claim| claim.name.clone()).collect()
    }

    fn find(&self, name: Option<&str>, index: Option<i64>) -> Option<&Device> {
        let mut devices = self.devices.values();
        devices.find(|device| {
            name.is_none_or(|name| device.record.name == name)
                && index.is_none_or(|index| device.record.index == index)
        })
    }

    /// Returns the rules that select a device, with the state of the modules that each requests.
    #[must_use]
    pub fn explain(&self, name: Option<&str>, index: Option<i64>) -> Option<ExplainReply> {
        let device = self.find(name, index)?;
        let modules = device.shown_modules(&self.modules);
        let rule = |rule: &rules::Rule| {
            let (_, asked) = self.rules.modules_of(rule);
            let of_module = |name: &ModuleName| -> Option<Module> {
                modules
                    .iter()
                    .find(|module| module.name == name.as_str())
                    .cloned()
            };
            Rule {
                file: rule.file().display().to_string(),
                number: i64::try_from(rule.number()).unwrap_or(i64::MAX),
                selector: rule.selector().words(),
                list: self
                    .rules
                    .list_file(rule)
                    .map(|file| file.display().to_string()),
                modules: asked.iter().filter_map(of_module).collect(),
                roles: rule
                    .roles()
                    .iter()
                    .map(|role| role.as_str().to_owned())
                    .collect(),
                manage: rule.manages(),
            }
        };
        Some(ExplainReply {
            device: device.status(&self.modules, self.shown_targets(device.record.index)),
            // The caller adds the service manager's reply.
            attached: None,
            rules: self.rules.selecting(&device.record).map(rule).collect(),
        })
    }

    /// Returns the state of a module, and the devices and functions that want it. Accepts the name
    /// in a rule, and the kernel's name of a module that it stands for.
    #[must_use]
    pub fn explain_module(&self, name: &ModuleName) -> Option<ExplainModuleReply> {
        let by_kernel_name = || self.stands_for(name).into_iter().next();
        let by_own_name = self.modules.contains_key(name).then(|| name.clone());
        let name = &by_own_name.or_else(by_kernel_name)?;
        let module = self.modules.get(name)?;
        let named = module.wanted_by.iter().filter_map(|subject| match subject {
            Subject::Device(index) => Some(self.devices.get(index)?.record.name.clone()),
            Subject::Function(name) => Some(name.clone()),
        });
        let shown = module.wanted_by.iter().find_map(|subject| match subject {
            Subject::Device(index) => {
                let shown = self.devices.get(index)?.shown_modules(&self.modules);
                shown
                    .into_iter()
                    .find(|module| module.name == name.as_str())
            }
            Subject::Function(function) => self.function_module(function, name),
        });
        let unnamed = || orchestrator::Module {
            name: name.to_string(),
            state: module.state,
            rule: String::new(),
            message: module.message.clone(),
        };
        Some(ExplainModuleReply {
            module: shown.unwrap_or_else(unnamed),
            wanted_by: named.take(MAX_NAMED).collect(),
            wanted_by_count: i64::try_from(module.wanted_by.len()).unwrap_or(i64::MAX),
            answered_usec: module.answered_at,
            duration_usec: module.took,
            attempts: module.attempts.into(),
            retry_usec: module.retry_at,
        })
    }
}

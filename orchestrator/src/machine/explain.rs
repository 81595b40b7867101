//! What the machine says of itself when it is asked: the whole, one device, one module. Pure.
//! Must never decide anything.

use interfaces::names::ModuleName;
use interfaces::orchestrator::{
    self, DescribeReply, ExplainModuleReply, ExplainReply, Module, Rule, Unit,
};

use super::{Machine, Subject};
use crate::rules;

/// So many of those who want a module are named.
const MOST_NAMED: usize = 64;

impl Machine {
    /// The state of the whole.
    #[must_use]
    pub fn describe(&self) -> DescribeReply {
        let errors = self.rules.errors().iter().map(ToString::to_string);
        DescribeReply {
            detector_connected: self.connected,
            service_manager_connected: self.needs_service_manager().then_some(self.service_manager),
            settled: self.settled,
            hardware_announced: self.announced.contains(&super::Flag::Hardware),
            paused: self.paused.clone(),
            left_behind: self.left_behind().collect(),
            rule_files: self
                .rules
                .files()
                .map(|file| file.display().to_string())
                .collect(),
            rule_errors: errors.collect(),
            // Of the server, which adds them.
            limits: Vec::new(),
        }
    }

    /// Whether there is anything to ask the service manager for.
    #[must_use]
    pub fn needs_service_manager(&self) -> bool {
        !self.units.is_empty()
    }

    /// Which rules select a device, and what became of what each asks for.
    #[must_use]
    pub fn explain(&self, name: Option<&str>, index: Option<i64>) -> Option<ExplainReply> {
        let mut devices = self.devices.values();
        let device = devices.find(|device| {
            name.is_none_or(|name| device.record.name == name)
                && index.is_none_or(|index| device.record.index == index)
        })?;
        let modules = device.shown_modules(&self.modules);
        let units = device.shown_units(&self.units);
        let rule = |rule: &rules::Rule| {
            let (_, asked) = self.rules.modules_of(rule);
            let of_module = |name: &ModuleName| -> Option<Module> {
                modules
                    .iter()
                    .find(|module| module.name == name.as_str())
                    .cloned()
            };
            let of_unit = |name: interfaces::names::UnitName| -> Option<Unit> {
                units
                    .iter()
                    .find(|unit| unit.name == name.as_str())
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
                units: rule.units_for(&device.record).filter_map(of_unit).collect(),
                manage: rule.manages(),
            }
        };
        Some(ExplainReply {
            device: device.status(&self.modules, &self.units),
            rules: self.rules.selecting(&device.record).map(rule).collect(),
        })
    }

    /// Who wants a module, and what became of it.
    #[must_use]
    pub fn explain_module(&self, name: &ModuleName) -> Option<ExplainModuleReply> {
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
            wanted_by: named.take(MOST_NAMED).collect(),
            wanted_by_count: i64::try_from(module.wanted_by.len()).unwrap_or(i64::MAX),
            answered_usec: module.answered_at,
            duration_usec: module.took,
            attempts: module.attempts.into(),
            retry_usec: module.retry_at,
        })
    }
}

//! The scan of functions and kernel modules. Must never report a module as live before its
//! initialisation has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use interfaces::names::ModuleName;

use super::{MAX_FUNCTIONS, Scanner};
use crate::function::ModuleState;
use crate::pending::Pending;
use crate::refusal::Refusal;
use crate::sysfs::too_many_functions;

impl Scanner {
    /// Scans the pending functions. Returns true if any was read.
    pub(super) fn scan_functions(&mut self, pending: &Pending) -> bool {
        if pending.everything || pending.all_functions {
            let (functions, refused) = self.sysfs.functions(MAX_FUNCTIONS);
            self.functions = Arc::new(functions);
            self.refuse_each(refused);
            return true;
        }
        if pending.functions.is_empty() {
            return false;
        }
        let mut refused = Vec::new();
        let functions = Arc::make_mut(&mut self.functions);
        for devpath in &pending.functions {
            match self.sysfs.function(devpath) {
                Some(_) if functions.len() >= MAX_FUNCTIONS && !functions.contains_key(devpath) => {
                    refused.push(too_many_functions(devpath));
                }
                Some(function) => {
                    functions.insert(devpath.clone(), function);
                }
                None => {
                    functions.remove(devpath);
                }
            }
        }
        self.refuse_each(refused);
        true
    }

    /// Returns each module that was added or removed, and true if it is live. Returns all modules
    /// if everything is pending.
    pub(super) fn scan_modules(&mut self, pending: &Pending) -> BTreeMap<String, bool> {
        let mut names = std::mem::take(&mut self.moving);
        names.extend(pending.modules.iter().cloned());
        if pending.everything {
            names.extend(self.sysfs.modules());
        }
        let mut modules = BTreeMap::new();
        for name in names {
            if let Err(e) = ModuleName::parse(&name) {
                self.refuse(Refusal::at("a module", e));
                continue;
            }
            match self.sysfs.module_state(&name) {
                ModuleState::Live => drop(modules.insert(name, true)),
                ModuleState::Absent => drop(modules.insert(name, false)),
                ModuleState::InMotion => drop(self.moving.insert(name)),
            }
        }
        modules
    }
}

//! The devices that the detector reports: the modules and targets that each should have by the
//! current rules, and its flags. Pure. Must never keep the requests of a device that was removed.

use std::collections::BTreeSet;

use interfaces::detector;
use interfaces::names::ModuleName;
use interfaces::orchestrator::ModuleState;

use super::device::{Device, Wanted};
use super::module::RetryScope;
use super::{Action, Flag, Machine, Subject, Timer};
use crate::{bounds, targets};

/// Returns true if two records describe the same hardware.
fn is_same(one: &detector::Device, other: &detector::Device) -> bool {
    one.node_guid == other.node_guid && one.pci_address == other.pci_address
}

impl Machine {
    pub(super) fn device(&mut self, record: detector::Device, now: i64, actions: &mut Vec<Action>) {
        let index = record.index;
        // The index starts again at zero when ib_core is loaded again: another device may have it.
        let another = self
            .devices
            .get(&index)
            .is_some_and(|known| !is_same(&known.record, &record));
        if another {
            self.device_gone(index, actions);
        }
        let is_new = !self.devices.contains_key(&index);
        match self.devices.get_mut(&index) {
            Some(known) => {
                known.confirmed = true;
                let len = bounds::len(&record);
                self.held
                    .change(std::mem::replace(&mut known.len, len), len);
                known.record = record;
            }
            None => {
                let device = Device::new(record, now);
                self.held.change(0, device.len);
                self.devices.insert(index, device);
            }
        }
        self.want(index, actions);
        if is_new {
            self.want_again(index);
        }
        self.ask(&Subject::Device(index), RetryScope::No, actions);
    }

    /// Applies the current rules to a device.
    pub(super) fn want(&mut self, index: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.get_mut(&index) else {
            return;
        };
        let wants = self.rules.wanted(&device.record);
        let modules = wants.modules.into_iter().map(Wanted::from);
        let modules_before = std::mem::replace(&mut device.modules, modules.collect());
        device.unmanaged = wants.unmanaged;
        let (mut claims, unnamed) = match wants.unmanaged {
            true => (Vec::new(), Vec::new()),
            false => targets::of_device(&device.record, &wants.roles, device.flags()),
        };
        // The hardware still exists, but programs on this side cannot use the device.
        claims.retain(|claim| claim.flag.is_some() || !device.record.in_other_netns);
        let claims_before = std::mem::replace(&mut device.claims, claims);
        device.unnamed = unnamed;
        let modules: BTreeSet<ModuleName> = device.module_names().cloned().collect();
        let subject = Subject::Device(index);
        for name in &modules {
            self.want_module(name, &subject);
        }
        for wanted in modules_before.iter().filter(|w| !modules.contains(&w.name)) {
            self.unwant_module(&wanted.name, &subject);
        }
        self.claim_targets(index, &claims_before);
        self.changed(index);
        self.flag(index);
        self.lower_flags(actions);
    }

    /// Records the flags of a device.
    fn flag(&mut self, index: i64) {
        for devices in self.flagged.values_mut() {
            devices.remove(&index);
        }
        let managed = self.devices.get(&index).filter(|device| !device.unmanaged);
        for flag in managed.iter().flat_map(|device| device.flags()) {
            self.flagged.entry(flag).or_default().insert(index);
        }
    }

    /// Requests modules again that were unloaded or that failed, for a device that is new: a driver
    /// may have failed because there was no device. A module that is missing or denied is so for
    /// all devices.
    fn want_again(&mut self, index: i64) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        let mut changed = BTreeSet::new();
        for wanted in &device.modules {
            if let Some(module) = self.modules.get_mut(&wanted.name)
                && matches!(module.state, ModuleState::Unloaded | ModuleState::Failed)
            {
                module.state = ModuleState::Pending;
                module.forget_attempts();
                changed.extend(module.wanted_by.iter().cloned());
            }
        }
        self.modules_changed(&changed);
    }

    pub(super) fn device_gone(&mut self, index: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.remove(&index) else {
            return;
        };
        let subject = Subject::Device(index);
        for wanted in &device.modules {
            self.unwant_module(&wanted.name, &subject);
        }
        self.held.change(device.len, 0);
        for claim in &device.claims {
            self.leave_target(index, &claim.name);
        }
        for devices in self.flagged.values_mut() {
            devices.remove(&index);
        }
        self.unsettled.remove(&index);
        self.touched.remove(&index);
        actions.push(Action::Withdraw(index));
        self.lower_flags(actions);
    }

    /// Records that a device has changed.
    pub(super) fn changed(&mut self, index: i64) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        match device.has_answers(&self.modules) {
            true => self.unsettled.remove(&index),
            false => self.unsettled.insert(index),
        };
        self.touched.insert(index);
    }

    /// Publishes the status of a device.
    pub(super) fn publish(&mut self, index: i64, now: i64, actions: &mut Vec<Action>) {
        let targets = self.shown_targets(index);
        let Some(device) = self.devices.get_mut(&index) else {
            return;
        };
        let conditions = device.conditions(&self.modules, &targets);
        let state = device.state(&conditions);
        if state != device.state {
            device.state = state;
            device.since = now;
        }
        let status = device.status(&self.modules, targets);
        actions.push(Action::Publish(Box::new(status)));
    }

    /// Removes the flags that have no device left.
    fn lower_flags(&mut self, actions: &mut Vec<Action>) {
        self.flagged.retain(|_, devices| !devices.is_empty());
        let announced = std::mem::take(&mut self.announced);
        let (stay, gone) = announced
            .into_iter()
            .partition(|flag| self.flagged.contains_key(flag));
        self.announced = stay;
        for flag in gone {
            self.set_flag(flag, false, actions);
        }
    }

    /// Sets a flag when the first of its devices has the results for all modules. A refused module
    /// keeps that device from being ready, but not the host from having RDMA.
    pub(super) fn announce(&mut self, index: i64, now: i64, actions: &mut Vec<Action>) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        let paused = self.paused.is_some();
        if paused || device.unmanaged || self.unsettled.contains(&index) {
            return;
        }
        for flag in device.flags() {
            if self.announced.insert(flag) {
                self.set_flag(flag, true, actions);
                self.expect_target(flag, now);
            }
        }
    }

    /// Requests that a flag is written or removed. Cancels the retry of an earlier failure.
    pub(super) fn set_flag(&mut self, flag: Flag, up: bool, actions: &mut Vec<Action>) {
        self.timers.retain(|(_, timer)| *timer != Timer::Flag(flag));
        actions.push(Action::SetFlag(flag, up));
    }
}

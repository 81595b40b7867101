//! The state that callers see without a request to the machine, and the feed of its changes.
//! Responsible for logging each change of a state once. Must never decide anything.

use interfaces::orchestrator::{Device, Function, Module, ModuleState};
use interfaces::server::Feed;
use tokio::sync::watch;

use crate::status_table::StatusTable;

/// The state that callers see without a request to the machine.
#[derive(Default)]
pub struct Published {
    /// The status table.
    pub(crate) table: Feed<StatusTable>,
    /// The sequence number up to which the detector's events are taken in; `None` while a snapshot
    /// is incomplete.
    pub(crate) heard: watch::Sender<Option<i64>>,
}

impl Published {
    /// Publishes a device's status.
    pub fn put(&self, device: Device) {
        self.table.update(|table| {
            let before = table.device(device.index).map(|device| device.state);
            let (name, state) = (device.name.clone(), device.state);
            let waiting_for = device.waiting_for.join("; ");
            let event = table.put(device);
            // What is still missing changes with each module; the state is what an administrator
            // reads the log for.
            if before != Some(state) {
                tracing::info!(waiting_for, "{name} is {state}");
            } else if event.is_some() {
                tracing::debug!(waiting_for, "{name} is {state}");
            }
            event.into_iter().collect()
        });
    }

    /// Removes a device's status.
    pub fn remove(&self, index: i64) {
        self.table.update(|table| {
            let event = table.remove(index);
            if let Some(event) = &event {
                let name = event.name.as_deref().unwrap_or_default();
                tracing::info!(index, "{name} was removed");
            }
            event.into_iter().collect()
        });
    }

    /// Publishes a function's status.
    pub fn put_function(&self, function: Function) {
        self.table.update(|table| {
            let name = function.name.clone();
            let (state, waiting_for) = (function.state, function.waiting_for.clone());
            let event = table.put_function(function);
            if event.is_some() {
                tracing::info!("{name} is {state} and waits for {waiting_for}");
            }
            event.into_iter().collect()
        });
    }

    /// Returns true if a module was requested and has no result yet.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        let pending = |modules: &[Module]| {
            let mut states = modules.iter().map(|module| module.state);
            states.any(|state| state == ModuleState::Pending)
        };
        self.table.read(|table| {
            table.devices().any(|device| pending(&device.modules))
                || table.functions().any(|function| pending(&function.modules))
        })
    }

    /// Removes a function's status.
    pub fn remove_function(&self, name: &str) {
        self.table
            .update(|table| table.remove_function(name).into_iter().collect());
    }

    /// Publishes the sequence number up to which the detector's events are taken in.
    pub fn heard(&self, heard: Option<i64>) {
        self.heard.send_replace(heard);
    }

    /// Publishes that the status of all devices is known.
    pub fn known(&self) {
        self.table
            .update(|table| table.set_known().into_iter().collect());
    }

    /// Publishes whether everything is settled.
    pub fn settled(&self, settled: bool) {
        self.table.update(|table| {
            table.set_settled(settled);
            Vec::new()
        });
    }
}

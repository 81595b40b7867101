//! The status table: the status of every device, and of every function without a device, as it is
//! listed and sent to subscribers. Pure. Must never hold anything that the machine has not put
//! there.

use std::collections::BTreeMap;

use interfaces::names::SequenceNumber;
use interfaces::orchestrator::{Action, Device, Function, SubscribeStatusReply};
use interfaces::server::Snapshot;

/// The status of all devices, by index, and of all functions, by name.
#[derive(Debug, Default)]
pub struct StatusTable {
    devices: BTreeMap<i64, Device>,
    functions: BTreeMap<String, Function>,
    sequence: SequenceNumber,
    /// True if the table is complete. It is not before the detector's first snapshot has ended.
    known: bool,
    settled: bool,
}

impl StatusTable {
    /// The devices in the order of their indexes.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device with this index.
    #[must_use]
    pub fn device(&self, index: i64) -> Option<&Device> {
        self.devices.get(&index)
    }

    /// The functions in the order of their names.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// Marks the table as complete. Returns the event that ends the snapshot of earlier
    /// subscribers.
    pub fn set_known(&mut self) -> Option<SubscribeStatusReply> {
        let before = std::mem::replace(&mut self.known, true);
        (!before).then(|| self.mark(Action::Ready))
    }

    /// Returns the number of the last change.
    #[must_use]
    pub fn sequence(&self) -> i64 {
        self.sequence.into()
    }

    /// Returns true if no work is pending.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Sets the result of [`Self::is_settled`].
    pub fn set_settled(&mut self, settled: bool) {
        self.settled = settled;
    }

    /// Adds a device, or replaces its status.
    pub fn put(&mut self, device: Device) -> Option<SubscribeStatusReply> {
        let action = match self.devices.get(&device.index) {
            None => Action::Add,
            Some(before) if *before == device => return None,
            Some(_) => Action::Change,
        };
        self.sequence.advance();
        let told = self.of_device(action, &device);
        self.devices.insert(device.index, device);
        Some(told)
    }

    /// Removes a device.
    pub fn remove(&mut self, index: i64) -> Option<SubscribeStatusReply> {
        let device = self.devices.remove(&index)?;
        self.sequence.advance();
        Some(self.of_device(Action::Remove, &device))
    }

    /// Adds a function, or replaces its status.
    pub fn put_function(&mut self, function: Function) -> Option<SubscribeStatusReply> {
        let action = match self.functions.get(&function.name) {
            None => Action::Add,
            Some(before) if *before == function => return None,
            Some(_) => Action::Change,
        };
        self.sequence.advance();
        let told = self.of_function(action, &function);
        self.functions.insert(function.name.clone(), function);
        Some(told)
    }

    /// Removes a function.
    pub fn remove_function(&mut self, name: &str) -> Option<SubscribeStatusReply> {
        let function = self.functions.remove(name)?;
        self.sequence.advance();
        Some(self.of_function(Action::Remove, &function))
    }

    fn of_device(&self, action: Action, device: &Device) -> SubscribeStatusReply {
        SubscribeStatusReply {
            index: Some(device.index),
            name: Some(device.name.clone()),
            device: (action != Action::Remove).then(|| device.clone()),
            ..self.mark(action)
        }
    }

    fn of_function(&self, action: Action, function: &Function) -> SubscribeStatusReply {
        SubscribeStatusReply {
            function: Some(function.clone()),
            ..self.mark(action)
        }
    }

    fn mark(&self, action: Action) -> SubscribeStatusReply {
        SubscribeStatusReply {
            action,
            sequence: self.sequence.into(),
            index: None,
            name: None,
            device: None,
            function: None,
        }
    }
}

impl Snapshot for StatusTable {
    type Event = SubscribeStatusReply;

    fn snapshot(&self) -> Vec<SubscribeStatusReply> {
        let devices = self.devices().map(|d| self.of_device(Action::Add, d));
        let functions = self.functions().map(|f| self.of_function(Action::Add, f));
        let ready = self.known.then(|| self.mark(Action::Ready));
        devices.chain(functions).chain(ready).collect()
    }

    fn resync(&self) -> SubscribeStatusReply {
        self.mark(Action::Resync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_published_once_and_ends_each_later_snapshot() {
        let mut table = StatusTable::default();
        assert!(table.snapshot().is_empty());
        let told = table.set_known().unwrap();
        assert_eq!(told.action, Action::Ready);
        assert_eq!(table.set_known(), None);
        assert_eq!(table.snapshot().len(), 1);
    }
}

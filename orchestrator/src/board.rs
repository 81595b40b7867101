//! The status of every device, as it is listed and told to subscribers. Pure. Must never hold
//! anything that the machine has not put there.

use std::collections::BTreeMap;

use interfaces::orchestrator::{Action, Device, SubscribeStatusReply};
use interfaces::server::Snapshot;

/// The devices by their index.
#[derive(Debug, Default)]
pub struct Board {
    devices: BTreeMap<i64, Device>,
    sequence: i64,
}

impl Board {
    /// The devices in the order of their indexes.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// Puts a device up, or its new status in the place of the old one.
    pub fn put(&mut self, device: Device) -> Vec<SubscribeStatusReply> {
        let action = match self.devices.get(&device.index) {
            None => Action::Add,
            Some(known) if *known == device => return Vec::new(),
            Some(_) => Action::Change,
        };
        self.sequence += 1;
        let event = self.told(action, &device);
        self.devices.insert(device.index, device);
        vec![event]
    }

    /// Takes a device down.
    pub fn remove(&mut self, index: i64) -> Vec<SubscribeStatusReply> {
        let Some(device) = self.devices.remove(&index) else {
            return Vec::new();
        };
        self.sequence += 1;
        vec![self.told(Action::Remove, &device)]
    }

    fn told(&self, action: Action, device: &Device) -> SubscribeStatusReply {
        SubscribeStatusReply {
            action,
            sequence: self.sequence,
            index: Some(device.index),
            name: Some(device.name.clone()),
            device: (action != Action::Remove).then(|| device.clone()),
        }
    }

    fn mark(&self, action: Action) -> SubscribeStatusReply {
        SubscribeStatusReply {
            action,
            sequence: self.sequence,
            index: None,
            name: None,
            device: None,
        }
    }
}

impl Snapshot for Board {
    type Event = SubscribeStatusReply;

    fn snapshot(&self) -> Vec<SubscribeStatusReply> {
        let devices = self.devices.values();
        devices
            .map(|device| self.told(Action::Add, device))
            .chain([self.mark(Action::Ready)])
            .collect()
    }

    fn resync(&self) -> SubscribeStatusReply {
        self.mark(Action::Resync)
    }
}

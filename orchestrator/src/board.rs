//! The status of every device, as it is listed and told to subscribers. Pure. Must never hold
//! anything that the machine has not put there.

use std::collections::BTreeMap;

use interfaces::names::SequenceNumber;
use interfaces::orchestrator::{Action, Device, ExplainReply, SubscribeStatusReply};
use interfaces::server::Snapshot;

/// The devices by their index.
#[derive(Debug, Default)]
pub struct Board {
    devices: BTreeMap<i64, ExplainReply>,
    sequence: SequenceNumber,
    settled: bool,
}

impl Board {
    /// The devices in the order of their indexes.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(|shown| &shown.device)
    }

    /// The devices with the rules behind their status.
    pub fn explained(&self) -> impl Iterator<Item = &ExplainReply> {
        self.devices.values()
    }

    /// Whether every device is known and every module has its answer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Takes over whether that is so.
    pub fn set_settled(&mut self, settled: bool) {
        self.settled = settled;
    }

    /// Puts a device up, or its new status in the place of the old one.
    pub fn put(&mut self, shown: ExplainReply) -> Vec<SubscribeStatusReply> {
        let device = shown.device.clone();
        let before = self.devices.insert(device.index, shown);
        let action = match before {
            None => Action::Add,
            Some(known) if known.device == device => return Vec::new(),
            Some(_) => Action::Change,
        };
        self.sequence.advance();
        vec![self.told(action, &device)]
    }

    /// Takes a device down.
    pub fn remove(&mut self, index: i64) -> Vec<SubscribeStatusReply> {
        let Some(shown) = self.devices.remove(&index) else {
            return Vec::new();
        };
        self.sequence.advance();
        vec![self.told(Action::Remove, &shown.device)]
    }

    fn told(&self, action: Action, device: &Device) -> SubscribeStatusReply {
        SubscribeStatusReply {
            action,
            sequence: self.sequence.into(),
            index: Some(device.index),
            name: Some(device.name.clone()),
            device: (action != Action::Remove).then(|| device.clone()),
        }
    }

    fn mark(&self, action: Action) -> SubscribeStatusReply {
        SubscribeStatusReply {
            action,
            sequence: self.sequence.into(),
            index: None,
            name: None,
            device: None,
        }
    }
}

impl Snapshot for Board {
    type Event = SubscribeStatusReply;

    fn snapshot(&self) -> Vec<SubscribeStatusReply> {
        self.devices()
            .map(|device| self.told(Action::Add, device))
            .chain([self.mark(Action::Ready)])
            .collect()
    }

    fn resync(&self) -> SubscribeStatusReply {
        self.mark(Action::Resync)
    }
}

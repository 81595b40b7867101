//! All device records, and what changed between two scans, as the events that subscribers get.
//! Pure. Must never hold what the last scan did not show.

use std::collections::BTreeMap;

use interfaces::detector::{Action, Device, SubscribeDevicesReply};
use interfaces::names::SequenceNumber;
use interfaces::server::Snapshot;

/// The devices of the last scan, by their index.
#[derive(Debug, Default)]
pub struct Inventory {
    devices: BTreeMap<i64, Device>,
    sequence: SequenceNumber,
    /// Whether there was a scan. Before the first, nobody is told that nothing is there.
    complete: bool,
}

impl Inventory {
    /// The devices in the order of their indexes.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// Whether the devices are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes over what a scan has shown and returns what is different now: what is gone first,
    /// so that a name which moved to another device is never there twice.
    pub fn replace(&mut self, scanned: Vec<Device>) -> Vec<SubscribeDevicesReply> {
        let scanned: BTreeMap<i64, Device> = scanned.into_iter().map(|d| (d.index, d)).collect();
        let before = std::mem::replace(&mut self.devices, scanned.clone());
        let gone = before.values().filter(|d| !scanned.contains_key(&d.index));
        let mut events: Vec<SubscribeDevicesReply> = gone
            .map(|device| removal(device, self.sequence.advance()))
            .collect();
        for device in scanned.into_values() {
            match before.get(&device.index) {
                None => events.push(record(Action::Add, device, self.sequence.advance())),
                Some(known) if *known != device => {
                    events.push(record(Action::Change, device, self.sequence.advance()));
                }
                Some(_) => {}
            }
        }
        if !std::mem::replace(&mut self.complete, true) {
            events.push(self.mark(Action::Ready));
        }
        events
    }

    fn mark(&self, action: Action) -> SubscribeDevicesReply {
        SubscribeDevicesReply {
            action,
            sequence: self.sequence.into(),
            index: None,
            name: None,
            device: None,
        }
    }
}

impl Snapshot for Inventory {
    type Event = SubscribeDevicesReply;

    fn snapshot(&self) -> Vec<SubscribeDevicesReply> {
        self.devices
            .values()
            .map(|device| record(Action::Add, device.clone(), self.sequence))
            .chain(self.complete.then(|| self.mark(Action::Ready)))
            .collect()
    }

    fn resync(&self) -> SubscribeDevicesReply {
        self.mark(Action::Resync)
    }
}

fn record(action: Action, device: Device, sequence: SequenceNumber) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        action,
        sequence: sequence.into(),
        index: Some(device.index),
        name: Some(device.name.clone()),
        device: Some(device),
    }
}

fn removal(device: &Device, sequence: SequenceNumber) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        action: Action::Remove,
        sequence: sequence.into(),
        index: Some(device.index),
        name: Some(device.name.clone()),
        device: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: i64, name: &str) -> Device {
        Device {
            index,
            name: name.to_owned(),
            node_guid: None,
            node_type: None,
            driver: None,
            pci_address: None,
            firmware_version: None,
            ports: Vec::new(),
        }
    }

    fn told(events: &[SubscribeDevicesReply]) -> Vec<(Action, Option<&str>, i64)> {
        events
            .iter()
            .map(|e| (e.action, e.name.as_deref(), e.sequence))
            .collect()
    }

    #[test]
    fn a_scan_tells_what_is_new_changed_and_gone() {
        let mut inventory = Inventory::default();
        let first = inventory.replace(vec![device(1, "a"), device(2, "b")]);
        assert_eq!(
            told(&first),
            [
                (Action::Add, Some("a"), 1),
                (Action::Add, Some("b"), 2),
                (Action::Ready, None, 2),
            ]
        );
        let second = inventory.replace(vec![device(2, "renamed"), device(3, "c")]);
        assert_eq!(
            told(&second),
            [
                (Action::Remove, Some("a"), 3),
                (Action::Change, Some("renamed"), 4),
                (Action::Add, Some("c"), 5),
            ]
        );
        assert!(
            inventory
                .replace(vec![device(2, "renamed"), device(3, "c")])
                .is_empty()
        );
    }

    #[test]
    fn a_name_that_moved_to_another_device_is_removed_before_it_is_added() {
        let mut inventory = Inventory::default();
        inventory.replace(vec![device(2, "mlx5_0")]);
        let events = inventory.replace(vec![device(4, "mlx5_0")]);
        assert_eq!(
            told(&events),
            [
                (Action::Remove, Some("mlx5_0"), 2),
                (Action::Add, Some("mlx5_0"), 3),
            ]
        );
    }

    #[test]
    fn before_the_first_scan_nobody_is_told_that_nothing_is_there() {
        let mut inventory = Inventory::default();
        assert!(inventory.snapshot().is_empty());
        let first = inventory.replace(Vec::new());
        assert_eq!(told(&first), [(Action::Ready, None, 0)]);
    }

    #[test]
    fn a_snapshot_ends_with_ready() {
        let mut inventory = Inventory::default();
        inventory.replace(vec![device(1, "a")]);
        assert_eq!(
            told(&inventory.snapshot()),
            [(Action::Add, Some("a"), 1), (Action::Ready, None, 1)]
        );
    }
}

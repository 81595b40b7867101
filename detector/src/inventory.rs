//! All records, and the changes between two scans as events for subscribers. Pure. Must never hold
//! an object that the last scan did not show, except a device that moved to another network
//! namespace.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::{Action, Device, Function, SubscribeDevicesReply};
use interfaces::names::SequenceNumber;
use interfaces::server::Snapshot;

use crate::function::{self, SysfsFunction};

/// The time, in µs, that a device may take to move between two network namespaces. The kernel
/// removes its nodes and creates them again during the move (`rdma_dev_change_netns()`).
const MOVING_USEC: i64 = 1_000_000;

/// The observed state after a scan.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All devices of our network namespace, in the order of their indexes.
    pub devices: Vec<Found>,
    /// All functions, by their paths below sysfs.
    pub functions: Arc<BTreeMap<String, SysfsFunction>>,
    /// True if the functions are the same as in the previous scan.
    pub same_functions: bool,
    /// The kernel modules that were added or removed, and true for each that is live.
    pub modules: BTreeMap<String, bool>,
    /// True if `modules` holds all modules that exist.
    pub all_modules: bool,
    /// The names of the devices that have nodes, in any network namespace. Only filled if devices
    /// are exclusive.
    pub with_nodes: BTreeSet<String>,
    /// True if a device is in only one network namespace, and so can be moved.
    pub exclusive: bool,
}

/// A device that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The record. If nothing has changed, the same record as before.
    pub record: Arc<Device>,
    /// The path, below sysfs, of its parent object.
    pub parent: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Tracked {
    found: Found,
    /// The time, in µs, since when the device is not found.
    missing_since: Option<i64>,
}

/// The current records.
#[derive(Debug, Default)]
pub struct Inventory {
    devices: BTreeMap<i64, Tracked>,
    functions: BTreeMap<String, Function>,
    /// The kernel modules that are live.
    modules: BTreeSet<String>,
    sequence: SequenceNumber,
    /// True after the first scan. Before it, subscribers are not informed that there is nothing.
    complete: bool,
}

impl Inventory {
    /// Creates an empty inventory. The numbers of events begin at `sequence`.
    #[must_use]
    pub fn new(sequence: SequenceNumber) -> Self {
        Self {
            sequence,
            ..Self::default()
        }
    }

    /// Returns the number of the last event.
    #[must_use]
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Returns the devices in the order of their indexes.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(|known| &*known.found.record)
    }

    /// Returns the functions in the order of their paths.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// Returns true if the devices are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Replaces the records with those of a scan, and returns the differences as events. Removals
    /// are first, so that a name which moved to another device never exists twice. `now` is in µs
    /// of CLOCK_MONOTONIC.
    pub fn replace(&mut self, seen: &Observed, now: i64) -> Vec<SubscribeDevicesReply> {
        let mut events = Vec::new();
        if !self.complete {
            let live = seen.modules.iter().filter(|(_, there)| **there);
            self.modules = live.map(|(name, _)| name.clone()).collect();
            events.push(self.all_modules());
        }
        let first = events.len();
        self.take_missing(seen, now, &mut events);
        // A function with a device is registered. If no device was added or removed, that has not
        // changed.
        let mut same_parents = events.len() == first;
        for found in &seen.devices {
            let known = Tracked {
                found: found.clone(),
                missing_since: None,
            };
            let before = self.devices.insert(found.record.index, known);
            let before = before.map(|known| known.found);
            same_parents &= before.as_ref().is_some_and(|b| b.parent == found.parent);
            let action = match before.map(|found| found.record) {
                None => Action::Add,
                Some(before) if Arc::ptr_eq(&before, &found.record) || before == found.record => {
                    continue;
                }
                Some(_) => Action::Change,
            };
            events.push(record(action, &found.record, self.sequence.advance()));
        }
        if !seen.same_functions || !same_parents {
            self.replace_functions(seen, now, &mut events);
        }
        if self.complete {
            self.replace_modules(seen, &mut events);
        }
        if !std::mem::replace(&mut self.complete, true) {
            events.push(self.mark(Action::Ready));
        }
        events
    }

    /// Handles devices that are not among `seen`: they were removed, or moved to another network
    /// namespace.
    fn take_missing(&mut self, seen: &Observed, now: i64, events: &mut Vec<SubscribeDevicesReply>) {
        let taken = LazyCell::new(|| -> BTreeSet<&str> {
            let names = seen.devices.iter();
            names.map(|found| found.record.name.as_str()).collect()
        });
        let is_found = |index: &i64| {
            let found = seen.devices.binary_search_by_key(index, |f| f.record.index);
            found.is_ok()
        };
        let sequence = &mut self.sequence;
        self.devices.retain(|index, known| {
            if is_found(index) {
                return true;
            }
            let since = *known.missing_since.get_or_insert(now);
            let device = Arc::clone(&known.found.record);
            // Another device in this network namespace has taken over the name, and the nodes
            // belong to it.
            let namesake = taken.contains(device.name.as_str());
            let elsewhere = seen.exclusive && !namesake && seen.with_nodes.contains(&device.name);
            let moving = seen.exclusive && !namesake && now - since < MOVING_USEC;
            if elsewhere {
                known.missing_since = None;
                if !device.in_other_netns {
                    let mut moved = Device::clone(&device);
                    moved.in_other_netns = true;
                    events.push(record(Action::Change, &moved, sequence.advance()));
                    known.found.record = Arc::new(moved);
                }
            } else if !moving {
                events.push(named(Action::Remove, &device, sequence.advance()));
            }
            elsewhere || moving
        });
    }

    fn replace_functions(
        &mut self,
        seen: &Observed,
        now: i64,
        events: &mut Vec<SubscribeDevicesReply>,
    ) {
        let parents = self
            .devices
            .values()
            .filter_map(|known| known.found.parent.as_deref());
        let functions =
            function::records(&seen.functions, &parents.collect(), &self.functions, now);
        let before = std::mem::replace(&mut self.functions, functions);
        for (devpath, function) in &before {
            if !self.functions.contains_key(devpath) {
                events.push(of_function(
                    Action::Remove,
                    function,
                    self.sequence.advance(),
                ));
            }
        }
        for (devpath, function) in &self.functions {
            let action = match before.get(devpath) {
                None => Action::Add,
                Some(known) if known == function => continue,
                Some(_) => Action::Change,
            };
            events.push(of_function(action, function, self.sequence.advance()));
        }
    }

    fn replace_modules(&mut self, seen: &Observed, events: &mut Vec<SubscribeDevicesReply>) {
        let is_live = |name: &String| seen.modules.get(name) == Some(&true);
        let mut changes = Vec::new();
        if seen.all_modules {
            let gone = self.modules.iter().filter(|name| !is_live(name));
            changes.extend(gone.map(|name| (name.clone(), false)));
        }
        for (name, there) in &seen.modules {
            // A module that was unloaded and loaded again between two scans, or the reverse, is
            // reported too.
            if *there != self.modules.contains(name) || !seen.all_modules {
                changes.push((name.clone(), *there));
            }
        }
        for (name, there) in changes {
            let action = match there {
                true => Action::Add,
                false => Action::Remove,
            };
            events.push(of_module(action, &name, self.sequence.advance()));
            match there {
                true => self.modules.insert(name),
                false => self.modules.remove(&name),
            };
        }
    }

    fn all_modules(&self) -> SubscribeDevicesReply {
        SubscribeDevicesReply {
            modules: Some(self.modules.iter().cloned().collect()),
            ..self.mark(Action::Add)
        }
    }

    fn mark(&self, action: Action) -> SubscribeDevicesReply {
        reply(action, self.sequence)
    }
}

impl Snapshot for Inventory {
    type Event = SubscribeDevicesReply;

    fn snapshot(&self) -> Vec<SubscribeDevicesReply> {
        let devices = self
            .devices()
            .map(|device| record(Action::Add, device, self.sequence));
        let functions = self.functions();
        let functions = functions.map(|f| of_function(Action::Add, f, self.sequence));
        // The modules are first, so that a subscriber knows the requirements of devices before the
        // devices.
        let modules = self.complete.then(|| self.all_modules());
        let ready = self.complete.then(|| self.mark(Action::Ready));
        let objects = modules.into_iter().chain(devices).chain(functions);
        objects.chain(ready).collect()
    }

    fn resync(&self) -> SubscribeDevicesReply {
        self.mark(Action::Resync)
    }
}

fn reply(action: Action, sequence: SequenceNumber) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        action,
        sequence: sequence.into(),
        index: None,
        name: None,
        device: None,
        function: None,
        module: None,
        modules: None,
    }
}

fn record(action: Action, device: &Device, sequence: SequenceNumber) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        device: Some(device.clone()),
        ..named(action, device, sequence)
    }
}

fn named(action: Action, device: &Device, sequence: SequenceNumber) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        index: Some(device.index),
        name: Some(device.name.clone()),
        ..reply(action, sequence)
    }
}

fn of_function(
    action: Action,
    function: &Function,
    sequence: SequenceNumber,
) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        function: Some(function.clone()),
        ..reply(action, sequence)
    }
}

fn of_module(action: Action, name: &str, sequence: SequenceNumber) -> SubscribeDevicesReply {
    SubscribeDevicesReply {
        module: Some(name.to_owned()),
        ..reply(action, sequence)
    }
}

#[cfg(test)]
mod tests;

//! Fuzz target of the inventory. It feeds random scans of a few devices and functions, which are
//! added, changed, moved and removed. It checks three things. A subscriber that follows the events,
//! and one that reads the snapshot, know what the inventory knows. Sequence numbers grow with each
//! event. The same scan again produces no event.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use detector::function::SysfsFunction;
use detector::inventory::{Found, Inventory, Observed};
use interfaces::detector::{Action, Device, Function, SubscribeDevicesReply};
use interfaces::server::Snapshot;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const NAMES: [&str; 4] = ["mlx5_0", "mlx5_1", "renamed", "x"];
const PARENTS: [&str; 3] = [
    "devices/pci0000:00/0000:01:00.0",
    "devices/pci0000:00/0000:01:00.1",
    "devices/pci0000:00/0000:01:00.1/mlx5_core.rdma.0",
];
/// A time, in µs, longer than a device may take to move between two network namespaces.
const LONG: i64 = 2_000_000;

fn any_device(input: &mut Unstructured<'_>, index: i64) -> Result<Found> {
    // Built from JSON, so that optional fields need no value here.
    let record: Device = serde_json::from_value(json!({
        "index": index,
        "name": input.choose(&NAMES)?,
        "kind": "function",
        "firmwareVersion": input.arbitrary::<bool>()?.then_some("1"),
        "inOtherNetns": false,
        "ports": [],
    }))
    .expect("a device cannot be decoded");
    let parent = match input.arbitrary()? {
        true => Some(Arc::from(*input.choose(&PARENTS)?)),
        false => None,
    };
    Ok(Found {
        record: Arc::new(record),
        parent,
    })
}

fn any_functions(input: &mut Unstructured<'_>) -> Result<BTreeMap<String, SysfsFunction>> {
    let mut functions = BTreeMap::new();
    for parent in PARENTS {
        if input.arbitrary()? {
            let name = parent.rsplit('/').next().unwrap_or_default();
            let function = SysfsFunction {
                modalias: None,
                name: name.to_owned(),
                bus: (*input.choose(&["pci", "auxiliary"])?).to_owned(),
                class: (*input.choose(&[None, Some(0x02_0700), Some(0x02_0000)])?),
                id: None,
                driver: input.arbitrary::<bool>()?.then(|| "mlx5_core".to_owned()),
                driver_registers: input.arbitrary()?,
                has_netdev: input.arbitrary()?,
                protocol_module: None,
                pci_address: None,
            };
            functions.insert(parent.to_owned(), function);
        }
    }
    Ok(functions)
}

fn any_look(input: &mut Unstructured<'_>, before: &Observed) -> Result<Observed> {
    let mut devices = Vec::new();
    for index in 0..6 {
        match input.int_in_range(0..=2)? {
            0 => {}
            1 => devices.push(any_device(input, index)?),
            _ => {
                let mut same = before.devices.iter();
                devices.extend(same.find(|found| found.record.index == index).cloned());
            }
        }
    }
    let functions = match input.arbitrary()? {
        true => Arc::clone(&before.functions),
        false => Arc::new(any_functions(input)?),
    };
    let same_functions = functions == before.functions && input.arbitrary()?;
    let mut modules = BTreeMap::new();
    if input.arbitrary()? {
        modules.insert("ib_core".to_owned(), input.arbitrary()?);
    }
    let mut with_nodes = BTreeSet::new();
    for name in NAMES {
        if input.arbitrary()? {
            with_nodes.insert(name.to_owned());
        }
    }
    Ok(Observed {
        devices,
        functions,
        same_functions,
        modules,
        all_modules: input.arbitrary()?,
        with_nodes,
        exclusive: input.ratio(1, 3)?,
    })
}

/// The state that one subscriber knows.
#[derive(Debug, Default, PartialEq)]
struct Follower {
    devices: BTreeMap<i64, Device>,
    functions: BTreeMap<String, Function>,
    modules: BTreeSet<String>,
    readies: usize,
}

impl Follower {
    fn take(&mut self, event: SubscribeDevicesReply) {
        if let Some(all) = event.modules {
            assert_eq!((event.action, event.module), (Action::Add, None));
            self.modules = all.into_iter().collect();
            return;
        }
        match (event.action, event.device, event.function, event.module) {
            (Action::Add, Some(device), None, None) => {
                assert_eq!(event.index, Some(device.index));
                assert!(self.devices.insert(device.index, device).is_none());
            }
            (Action::Change, Some(device), None, None) => {
                let before = self.devices.insert(device.index, device.clone());
                assert!(before.is_some_and(|before| before != device));
            }
            (Action::Add, None, Some(function), None) => {
                let name = function.name.clone();
                assert!(self.functions.insert(name, function).is_none());
            }
            (Action::Change, None, Some(function), None) => {
                let before = self
                    .functions
                    .insert(function.name.clone(), function.clone());
                assert!(before.is_some_and(|before| before != function));
            }
            (Action::Remove, None, Some(function), None) => {
                assert!(self.functions.remove(&function.name).is_some());
            }
            (Action::Remove, None, None, None) => {
                let index = event.index.expect("a device that is gone has an index");
                let device = self.devices.remove(&index).expect("it was there");
                assert_eq!(event.name, Some(device.name));
            }
            (Action::Add, None, None, Some(module)) => drop(self.modules.insert(module)),
            (Action::Remove, None, None, Some(module)) => drop(self.modules.remove(&module)),
            (Action::Ready, None, None, None) => self.readies += 1,
            (action, ..) => panic!("{action:?} of nothing"),
        }
    }
}

/// Runs random scans, and checks the events of each.
fn follow(input: &mut Unstructured<'_>) -> Result<()> {
    let mut inventory = Inventory::default();
    let mut follower = Follower::default();
    let mut seen = Observed::default();
    let (mut now, mut sequence) = (0, 0);
    while !input.is_empty() {
        now += input.int_in_range(0..=LONG)?;
        seen = any_look(input, &seen)?;
        for event in inventory.replace(&seen, now) {
            // Only the marks at both ends repeat the number of the previous event.
            let is_mark = event.action == Action::Ready || event.modules.is_some();
            assert_eq!(event.sequence, sequence + i64::from(!is_mark));
            sequence = event.sequence;
            follower.take(event);
        }
        assert_eq!(follower.readies, 1);
        let known: Vec<&Device> = inventory.devices().collect();
        assert_eq!(known, follower.devices.values().collect::<Vec<_>>());
        let mut late = Follower::default();
        for event in inventory.snapshot() {
            assert_eq!(event.sequence, sequence);
            late.take(event);
        }
        assert_eq!(late, follower);

        let found = seen.devices.iter().map(|found| &*found.record);
        assert!(found.clone().all(|device| known.contains(&device)));
        // A device that was not found is kept only in exclusive mode, where it can be moved.
        assert!(seen.exclusive || found.count() == known.len());

        seen.modules.clear();
        seen.all_modules = false;
        assert!(inventory.replace(&seen, now).is_empty());
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = follow(&mut Unstructured::new(bytes));
});

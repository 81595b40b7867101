//! A host with one corrupted device, or one corrupted entry of its sysfs tree, in all ways. Each
//! other record is published as before, and each published record can be printed. Must never
//! corrupt two at once.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use detector::pending::Pending;
use fastrand::Rng;
use integration::wire::{self, Answer, Request, attribute};
use interfaces::detector::Device;
use serde_json::Value;

use super::machine::{self, Machine};
use super::nldev::{Answers, Table};
use super::watcher::Watcher;
use super::{SEED, asked_for};

/// Invalid names of an RDMA device, function, node, interface or module.
const NAMES: [&[u8]; 9] = [
    b"rx\x1be0",
    b"rx\xc2\x9be0",
    b"rx\xff\xfe0",
    b"",
    b"..",
    b"rx/e0",
    b"rx\0e0",
    b"rx\ne0",
    &[b'x'; 300],
];
/// The number of random corruptions of each reply.
const RANDOM: usize = 20;

/// A function that corrupts the attributes of a reply.
type Corruption = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

/// Replies in which those of one device are corrupted.
struct Corrupted {
    table: Table,
    victim: u32,
    device: Option<Corruption>,
    ports: Option<Corruption>,
}

impl Answers for Corrupted {
    fn answer(&mut self, request: Request) -> Answer {
        let at = self.table.devices.keys().position(|i| *i == self.victim);
        let mut answer = self.table.answer(request)?;
        let (corruption, from) = match request {
            Request::Devices => (&self.device, at),
            Request::Device(index) => (&self.device, (index == self.victim).then_some(0)),
            Request::Ports(index) => (&self.ports, (index == self.victim).then_some(0)),
            Request::System => (&None, None),
        };
        if let (Some(corrupt), Some(reply)) = (corruption, from.and_then(|at| answer.get_mut(at))) {
            *reply = corrupt(reply);
        }
        Ok(answer)
    }
}

/// Returns the attributes of a reply, each with its padding.
fn attributes(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = reply;
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).next_multiple_of(4);
        let (first, behind) = rest.split_at(len);
        attributes.push(first.to_vec());
        rest = behind;
    }
    attributes
}

fn kind(attribute: &[u8]) -> u16 {
    u16::from_ne_bytes([attribute[2], attribute[3]])
}

/// Returns all corruptions of a reply, each with a description. The index stays unchanged, or
/// becomes that of no device.
fn corruptions(reply: &[u8], rng: &mut Rng) -> Vec<(String, Corruption)> {
    let mut ways: Vec<(String, Corruption)> = Vec::new();
    let replaced = |at: usize, by: Vec<u8>| -> Corruption {
        Box::new(move |reply| {
            let mut attributes = attributes(reply);
            attributes[at].clone_from(&by);
            attributes.concat()
        })
    };
    for (at, whole) in attributes(reply).into_iter().enumerate() {
        let kind = kind(&whole);
        ways.push((
            format!("without attribute {kind}"),
            replaced(at, Vec::new()),
        ));
        for len in [0u16, 1, 3, 5, 4096, u16::MAX] {
            let mut wrong = whole.clone();
            wrong[..2].copy_from_slice(&len.to_ne_bytes());
            ways.push((
                format!("length {len} of attribute {kind}"),
                replaced(at, wrong),
            ));
        }
        if kind == wire::DEV_INDEX {
            continue;
        }
        for value in NAMES {
            let text = [value, b"\0"].concat();
            let what = format!("\"{}\" in attribute {kind}", value.escape_ascii());
            ways.push((what, replaced(at, attribute(kind, &text))));
        }
    }
    for end in 0..reply.len() {
        let what = format!("cut at {end}");
        ways.push((what, Box::new(move |reply| reply[..end].to_vec())));
    }
    for number in 0..RANDOM {
        let seed = rng.u64(..);
        let flip = move |reply: &[u8]| {
            let mut rng = Rng::with_seed(seed);
            let mut flipped = reply.to_vec();
            for _ in 0..rng.usize(1..8) {
                // The first bytes hold the index, which would become that of another device.
                let at = rng.usize(8.min(flipped.len() - 1)..flipped.len());
                flipped[at] = rng.u8(..);
            }
            flipped
        };
        ways.push((format!("random bytes {number}"), Box::new(flip)));
    }
    ways
}

fn others(watcher: &Watcher, victim: u32) -> Vec<Device> {
    let others = watcher.devices();
    let others = others.filter(|device| device.index != i64::from(victim));
    others.cloned().collect()
}

fn printable(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains(char::is_control) && text.len() <= 255,
        Value::Array(all) => all.iter().all(printable),
        Value::Object(all) => all.values().all(printable),
        _ => true,
    }
}

fn lock(answers: &Mutex<Corrupted>) -> MutexGuard<'_, Corrupted> {
    answers.lock().unwrap()
}

#[test]
fn a_device_with_corrupted_replies_changes_no_other_device() {
    let mut rng = Rng::with_seed(asked_for("RDMA_HOTPLUG_SEED", SEED));
    let mut tried = 0;
    for machine in machine::all() {
        let Machine { tree, table, .. } = machine;
        let table = Arc::into_inner(table).unwrap().into_inner().unwrap();
        let victim = table.devices.keys().next().copied();
        let answers = Arc::new(Mutex::new(Corrupted {
            table,
            victim: 0,
            device: None,
            ports: None,
        }));
        let mut watcher = Watcher::new(tree.root(), &answers);
        if let Some(victim) = victim {
            lock(&answers).victim = victim;
            watcher.scan(&Pending::everything()).unwrap();
            let before = others(&watcher, victim);
            for of_ports in [false, true] {
                let request = match of_ports {
                    true => Request::Ports(victim),
                    false => Request::Device(victim),
                };
                let reply = lock(&answers).table.answer(request).unwrap();
                let Some(reply) = reply.first() else { continue };
                for (way, corruption) in corruptions(reply, &mut rng) {
                    let what = format!("{}: {victim}: {request:?}: {way}", machine.name);
                    let mut guard = lock(&answers);
                    match of_ports {
                        true => guard.ports = Some(corruption),
                        false => guard.device = Some(corruption),
                    }
                    drop(guard);
                    let pending = match tried % 8 {
                        0 => Pending::everything(),
                        4 => Pending::uncertain(),
                        _ => Pending::periodic(),
                    };
                    let looked = watcher.scan(&pending);
                    let (looked, _) = looked.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                    assert_eq!(others(&watcher, victim), before, "{what}");
                    let records = watcher.records();
                    assert!(printable(&records), "{what}: {records:?}");
                    assert!(looked.last_refused.len() <= 8, "{what}");
                    for refused in looked.last_refused {
                        let shown = !refused.contains(char::is_control);
                        assert!(shown && refused.len() <= 512, "{what}: {refused:?}");
                    }
                    tried += 1;
                }
                let mut guard = lock(&answers);
                (guard.device, guard.ports) = (None, None);
            }
        }
    }
    assert!(tried > 2_000, "{tried}");
}

/// Case A9.
#[test]
fn a_refused_device_is_counted_once_and_returns_with_a_valid_name() {
    let Machine { tree, table, .. } = machine::read("mlx5-infiniband");
    let table = Arc::into_inner(table).unwrap().into_inner().unwrap();
    let victim = 4;
    let answers = Arc::new(Mutex::new(Corrupted {
        table,
        victim,
        device: None,
        ports: None,
    }));
    let mut watcher = Watcher::new(tree.root(), &answers);
    watcher.scan(&Pending::everything()).unwrap();
    let before: Vec<Device> = watcher.devices().cloned().collect();
    lock(&answers).device = Some(Box::new(|reply| {
        let attributes = attributes(reply);
        let renamed = attributes.into_iter().map(|whole| match kind(&whole) {
            wire::DEV_NAME => attribute(wire::DEV_NAME, b"rx\x1be0\0"),
            _ => whole,
        });
        renamed.flatten().collect()
    }));
    for _ in 0..3 {
        let (looked, _) = watcher.scan(&Pending::periodic()).unwrap();
        assert_eq!(looked.refused, 1, "{:?}", looked.last_refused);
        assert!(
            looked.last_refused[0].contains("index 4"),
            "{:?}",
            looked.last_refused
        );
        assert!(
            looked.last_refused[0].contains("\\u{1b}"),
            "{:?}",
            looked.last_refused
        );
        assert_eq!(watcher.devices().count(), before.len() - 1);
    }
    lock(&answers).device = None;
    watcher.scan(&Pending::periodic()).unwrap();
    assert_eq!(watcher.devices().cloned().collect::<Vec<_>>(), before);
}

/// Collects all regular files and links of a tree, as paths from its root.
fn entries(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => entries(root, &path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn a_corrupted_attribute_or_link_changes_no_other_device() {
    let mut turn = 0;
    for machine in machine::all() {
        let root = machine.tree.root();
        let mut watcher = super::watch(&machine);
        watcher.scan(&Pending::everything()).unwrap();
        let count = watcher.devices().count();
        let before: Vec<Device> = watcher.devices().cloned().collect();
        let mut all = Vec::new();
        entries(root, Path::new(""), &mut all);
        for path in all {
            let at = root.join(&path);
            // Devices share these entries, so a corruption affects them all.
            let text = path.to_str().unwrap();
            if text.starts_with("module/") || text.starts_with("bus/") && text.contains("drivers") {
                continue;
            }
            let kept = root.join("kept");
            fs::rename(&at, &kept).unwrap();
            // The corruptions take turns: each scan is a full one, and the trees have 1,500
            // entries.
            turn += 1;
            let contents = [&b"\x1b[2J\n"[..], b"\xff\xfe", b"", &[b'9'; 2000]];
            fs::write(&at, contents[turn % contents.len()]).unwrap();
            check(&mut watcher, &path, &before, count);
            fs::remove_file(&at).unwrap();
            match [&b"../../\x1b[2J"[..], b"/\xff", b"."].get(turn % 4) {
                Some(target) => symlink(OsStr::from_bytes(target), &at).unwrap(),
                None => fs::create_dir(&at).unwrap(),
            }
            check(&mut watcher, &path, &before, count);
            let directory = at.symlink_metadata().unwrap().is_dir();
            let remove = if directory {
                fs::remove_dir
            } else {
                fs::remove_file
            };
            remove(&at).unwrap();
            fs::rename(&kept, &at).unwrap();
        }
        watcher.scan(&Pending::everything()).unwrap();
        assert_eq!(watcher.devices().cloned().collect::<Vec<_>>(), before);
    }
}

/// Fails unless a corruption changes only devices that are above or below the corrupted entry.
fn check(watcher: &mut Watcher, path: &Path, before: &[Device], count: usize) {
    let what = path.display();
    let looked = watcher.scan(&Pending::everything());
    looked.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(watcher.devices().count(), count, "{what}");
    assert!(printable(&watcher.records()), "{what}");
    let path = path.to_str().unwrap();
    for (before, now) in before.iter().zip(watcher.devices()) {
        if before != now {
            let of_it = [
                Some(&before.name),
                before.pci_address.as_ref(),
                before.physical_function.as_ref(),
                before.uverbs.as_ref(),
            ];
            let of_ports = before.ports.iter();
            let of_ports = of_ports.flat_map(|port| [&port.netdev, &port.umad, &port.issm]);
            let mut names = of_it.into_iter().flatten().chain(of_ports.flatten());
            assert!(
                names.any(|name| path.contains(name.as_str())),
                "{what} changed {before:?}"
            );
        }
    }
}

#[test]
fn entries_with_invalid_names_are_counted_and_change_nothing() {
    let machine = machine::read("mlx5-infiniband");
    let root = machine.tree.root();
    let mut watcher = super::watch(&machine);
    watcher.scan(&Pending::everything()).unwrap();
    let before = watcher.records();
    for directory in [
        "class/infiniband",
        "class/infiniband_verbs",
        "class/infiniband_mad",
        "class/net",
        "bus/pci/devices",
        "bus/auxiliary/devices",
    ] {
        for name in NAMES {
            let entry = root.join(directory).join(OsStr::from_bytes(name));
            let usable = !name.is_empty() && name.len() < 256 && !name.contains(&0);
            if usable && name != b".." && !name.contains(&b'/') {
                fs::create_dir_all(root.join(directory)).unwrap();
                symlink("../../../nowhere", entry).unwrap();
            }
        }
    }
    let (looked, events) = watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(watcher.records(), before);
    assert!(events.is_empty(), "{events:?}");
    // Four names in each of the two classes of nodes and the two buses.
    assert_eq!(looked.refused, 8, "{:?}", looked.last_refused);
    let mut modules = Pending::default();
    modules.modules.insert("x".repeat(200));
    modules.modules.insert("a b".to_owned());
    modules.modules.insert("ib_core".to_owned());
    let (looked, events) = watcher.scan(&modules).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(looked.refused, 10, "{:?}", looked.last_refused);
}

#[test]
fn devices_beyond_the_limit_are_refused_and_counted() {
    let (tree, table) = super::crowd::of_software(4_100);
    let mut watcher = Watcher::new(tree.root(), &table);
    let (looked, _) = watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(watcher.devices().count(), 4_096);
    assert_eq!(looked.refused, 4, "{:?}", looked.last_refused);
}

//! Devices that do not answer: an attribute that blocks, like one of hung firmware (here a FIFO
//! without a writer), and requests of `NETLINK_RDMA` without a reply. The detector publishes each
//! such device with its known fields and still reads the others. When the device answers again, its
//! record is complete again. Must never wait for a time, but only for a result of a scan.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use detector::pending::Pending;
use integration::wire::{Answer, Request};
use interfaces::detector::{Action, Device};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::crowd;
use super::incremental::heard;
use super::machine;
use super::nldev::{Answers, Table};
use super::tree::Tree;
use super::watcher::Watcher;

/// The time after which a step counts as failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Makes an attribute block each process that opens it. Returns its path and its content.
fn block(root: &Path, attribute: &str) -> (PathBuf, Vec<u8>) {
    let path = root.join(attribute);
    let content = fs::read(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    (path, content)
}

/// Answers the reader that is blocked, and all later ones.
fn unblock((path, content): &(PathBuf, Vec<u8>)) {
    let fifo = fs::OpenOptions::new().read(true).write(true).open(path);
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
    // If a reader hangs in the FIFO, one end is open already.
    fifo.unwrap().write_all(content).unwrap();
}

fn by_index(watcher: &Watcher, index: i64) -> Device {
    watcher
        .devices()
        .find(|d| d.index == index)
        .unwrap()
        .clone()
}

fn silent(watcher: &Watcher) -> BTreeSet<i64> {
    let devices = watcher.devices();
    let silent = devices.filter(|device| device.not_answering.is_some());
    silent.map(|device| device.index).collect()
}

/// Scans until the condition holds.
fn look_until(watcher: &mut Watcher, what: &str, done: impl Fn(&Watcher) -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done(watcher) {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        watcher.scan(&Pending::periodic()).unwrap();
    }
}

/// Replies, some of which never arrive.
struct Mute {
    table: Table,
    mute: BTreeSet<u32>,
    list: bool,
    refused: Option<i32>,
}

impl Answers for Mute {
    fn answer(&mut self, request: Request) -> Answer {
        match (request, self.refused) {
            (Request::Ports(index), Some(errno)) if self.mute.contains(&index) => Err(errno),
            _ => self.table.answer(request),
        }
    }

    fn is_silent(&self, request: Request) -> bool {
        match request {
            Request::Devices => self.list,
            Request::Ports(index) => self.refused.is_none() && self.mute.contains(&index),
            Request::Device(_) | Request::System => false,
        }
    }
}

fn mute(count: u32) -> (Tree, Arc<Mutex<Mute>>) {
    let (tree, table) = crowd::of_software(count);
    let table = Arc::into_inner(table).unwrap().into_inner().unwrap();
    let answers = Mute {
        table,
        mute: BTreeSet::new(),
        list: false,
        refused: None,
    };
    (tree, Arc::new(Mutex::new(answers)))
}

#[test]
fn a_device_whose_rate_blocks_is_shown_without_it_and_is_complete_after_its_reply() {
    let machine = machine::read("mlx5-infiniband");
    let root = machine.tree.root();
    let mut whole = super::watch(&machine);
    whole.scan(&Pending::everything()).unwrap();
    let name = &by_index(&whole, 0).name;
    let blocked = block(root, &format!("class/infiniband/{name}/ports/1/rate"));

    let mut watcher = super::watch(&machine);
    let (_, events) = watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(events.last().unwrap().action, Action::Ready);
    let shown = by_index(&watcher, 0);
    assert_eq!(shown.not_answering.as_deref(), Some("ports/1/rate"));
    assert_eq!(shown.ports[0].speed_mbps, None);
    let known = by_index(&whole, 0);
    assert_eq!(shown.kind, known.kind);
    assert_eq!(shown.driver, known.driver);
    assert_eq!(shown.pci_address, known.pci_address);
    assert_eq!(shown.uverbs, known.uverbs);
    assert_eq!(shown.ports[0].state, known.ports[0].state);
    for index in whole.devices().map(|d| d.index).filter(|index| *index != 0) {
        assert_eq!(by_index(&watcher, index), by_index(&whole, index));
    }

    unblock(&blocked);
    look_until(&mut watcher, "the device to answer", |w| {
        silent(w).is_empty()
    });
    assert_eq!(by_index(&watcher, 0), known);
}

#[test]
fn a_known_device_that_hangs_keeps_its_record_and_gets_its_new_name() {
    let machine = machine::read("mlx5-infiniband");
    let mut watcher = super::watch(&machine);
    watcher.scan(&Pending::everything()).unwrap();
    let before = by_index(&watcher, 4);
    let attribute = format!("class/infiniband/{}/ports/1/link_layer", before.name);
    let root = machine.tree.root();
    let blocked = block(&fs::canonicalize(root).unwrap(), &attribute);
    let (_, events) = watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let mut expected = before.clone();
    expected.not_answering = Some("ports/1/link_layer".to_owned());
    assert_eq!(by_index(&watcher, 4), expected);

    // A full scan publishes nothing new, and does not wait for the attribute.
    let (looked, events) = watcher.scan(&Pending::everything()).unwrap();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(looked.device_reads, before_count(&watcher) - 1);

    let (_, path) = machine.tree.rename_rdma_device(&before.name, "renamed0");
    let mut table = machine.table.lock().unwrap();
    table
        .devices
        .get_mut(&4)
        .unwrap()
        .set("name", Some("renamed0"));
    drop(table);
    watcher.scan(&Pending::periodic()).unwrap();
    assert_eq!(by_index(&watcher, 4).name, "renamed0");
    assert_eq!(silent(&watcher), [4].into());

    let blocked = (root.join(path).join("ports/1/link_layer"), blocked.1);
    unblock(&blocked);
    look_until(&mut watcher, "the device to answer", |w| {
        silent(w).is_empty()
    });
    let mut renamed = before;
    "renamed0".clone_into(&mut renamed.name);
    assert_eq!(by_index(&watcher, 4), renamed);
}

fn before_count(watcher: &Watcher) -> i64 {
    i64::try_from(watcher.devices().count()).unwrap()
}

#[test]
fn a_device_that_hangs_and_is_removed_leaves_the_list() {
    let (tree, table) = crowd::of_software(3);
    let _blocked = block(tree.root(), "devices/virtual/infiniband/rxe1/board_id");
    let mut watcher = Watcher::new(tree.root(), &table);
    watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(silent(&watcher), [1].into());
    table.lock().unwrap().devices.remove(&1);
    let mut removed = Pending::default();
    heard(&mut removed, "remove", "devices/virtual", "rxe1", None);
    watcher.scan(&removed).unwrap();
    assert_eq!(watcher.devices().count(), 2);
    assert!(silent(&watcher).is_empty());
}

#[test]
fn devices_that_hang_beyond_the_limit_of_threads_are_shown_without_being_read() {
    let (tree, table) = crowd::of_software(60);
    let hang: Vec<u32> = (0..30).collect();
    let path = |index: &u32| format!("devices/virtual/infiniband/rxe{index}/board_id");
    let root = tree.root();
    let mut watcher = Watcher::new(root, &table);
    watcher.scan(&Pending::everything()).unwrap();
    let blocked: Vec<_> = hang.iter().map(|i| block(root, &path(i))).collect();
    let (_, events) = watcher.scan(&Pending::everything()).unwrap();
    assert!(
        events.iter().all(|event| event.action == Action::Change),
        "{events:?}"
    );
    assert_eq!(watcher.devices().count(), 60);
    assert!(
        hang.iter()
            .all(|index| silent(&watcher).contains(&i64::from(*index)))
    );
    let threads = fs::read_dir("/proc/self/task").unwrap().filter(|task| {
        let name = task.as_ref().unwrap().path().join("comm");
        fs::read_to_string(name).is_ok_and(|name| name.trim() == "asker")
    });
    // The count includes the threads of the other tests in this process.
    assert!(threads.count() < 100);
    // Another scan reads none of them.
    let (looked, _) = watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(looked.device_reads, 0);
    blocked.iter().for_each(unblock);
    look_until(&mut watcher, "all devices to answer", |w| {
        silent(w).is_empty()
    });
}

#[test]
fn devices_without_a_port_reply_do_not_hide_the_others() {
    let (tree, answers) = mute(20);
    answers.lock().unwrap().mute = [3, 7, 11].into();
    let mut watcher = Watcher::new(tree.root(), &answers);
    watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(watcher.devices().count(), 20);
    assert!(silent(&watcher).is_superset(&[3, 7, 11].into()));
    let shown = by_index(&watcher, 7);
    assert_eq!(
        shown.not_answering.as_deref(),
        Some("NETLINK_RDMA port dump")
    );
    assert_eq!(shown.ports, []);
    answers.lock().unwrap().mute.clear();
    look_until(&mut watcher, "them to answer", |w| silent(w).is_empty());
    assert_eq!(by_index(&watcher, 7).ports.len(), 1);
}

#[test]
fn a_device_whose_port_query_is_refused_shows_the_errno() {
    let (tree, answers) = mute(3);
    let mut guard = answers.lock().unwrap();
    (guard.mute, guard.refused) = ([1].into(), Some(5));
    drop(guard);
    let mut watcher = Watcher::new(tree.root(), &answers);
    watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(silent(&watcher), [1].into());
    let why = by_index(&watcher, 1).not_answering.unwrap();
    assert!(
        why.starts_with("NETLINK_RDMA port dump") && why.contains("errno 5"),
        "{why}"
    );
    answers.lock().unwrap().refused = None;
    answers.lock().unwrap().mute.clear();
    look_until(&mut watcher, "it to answer", |w| silent(w).is_empty());
}

#[test]
fn each_device_is_requested_by_its_index_while_the_list_gets_no_reply() {
    let (tree, answers) = mute(20);
    // On a host with a long uptime the first index is not 0.
    for index in 0..15 {
        answers.lock().unwrap().table.devices.remove(&index);
        tree.remove(&format!("class/infiniband/rxe{index}"));
    }
    answers.lock().unwrap().list = true;
    let mut watcher = Watcher::new(tree.root(), &answers);
    watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(watcher.devices().count(), 5);
    assert!(silent(&watcher).is_empty());

    // One device is added and one is removed while the list gets no reply.
    let mut guard = answers.lock().unwrap();
    guard.table.devices.remove(&16);
    guard.table.line("device index=20 name=rxe20 node_type=1");
    drop(guard);
    let path = "devices/virtual/infiniband/rxe20";
    tree.directory(path);
    tree.link_to("class/infiniband/rxe20", path);
    tree.remove("class/infiniband/rxe16");
    watcher.scan(&Pending::periodic()).unwrap();
    let indexes: Vec<i64> = watcher.devices().map(|device| device.index).collect();
    assert_eq!(indexes, [15, 17, 18, 19, 20]);
}

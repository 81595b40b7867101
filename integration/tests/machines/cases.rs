//! Cases that random streams and readers found, each reproduced by hand. Must never need chance.

use std::sync::{Arc, Mutex};

use detector::pending::Pending;
use integration::wire::{Answer, Request};
use interfaces::detector::{Function, FunctionState};

use super::incremental::heard;
use super::machine;
use super::nldev::{Answers, Table};
use super::tree::Tree;
use super::watcher::Watcher;

const SOFTWARE: &str = "devices/virtual";

type Change = Box<dyn FnOnce(&mut Table) + Send>;

/// Replies, and a change that happens just before the next one.
struct Sudden {
    table: Table,
    change: Option<Change>,
}

impl Answers for Sudden {
    fn answer(&mut self, request: Request) -> Answer {
        if let Some(change) = self.change.take() {
            change(&mut self.table);
        }
        self.table.answer(request)
    }
}

fn register(tree: &Tree, table: &mut Table, index: u32, name: &str) {
    let path = format!("{SOFTWARE}/infiniband/{name}");
    tree.directory(&path);
    tree.link_to(&format!("class/infiniband/{name}"), &path);
    table.line(&format!("device index={index} name={name} node_type=1"));
}

fn rename(tree: &Tree, table: &mut Table, index: u32, name: &str) {
    let device = table.devices.get_mut(&index).unwrap();
    tree.rename_rdma_device(device.get("name").unwrap(), name);
    device.set("name", Some(name));
}

fn function(watcher: &Watcher, name: &str) -> Option<Function> {
    watcher.functions().find(|f| f.name == name).cloned()
}

#[test]
fn a_device_that_is_renamed_during_the_first_scan_has_its_nodes_after_the_next() {
    let tree = Arc::new(Tree::new());
    let mut table = Table::new();
    register(&tree, &mut table, 0, "mlx5_0");
    let node = format!("{SOFTWARE}/infiniband_verbs/uverbs0");
    tree.file(&format!("{node}/ibdev"), "mlx5_0");
    tree.link_to("class/infiniband_verbs/uverbs0", &node);
    let theirs = Arc::clone(&tree);
    // udev's rule renames a device in the same way as soon as it appears.
    let change = Box::new(move |table: &mut Table| rename(&theirs, table, 0, "ibp1"));
    let change = Some(change as Change);
    let answers = Arc::new(Mutex::new(Sudden { table, change }));
    let mut watcher = Watcher::new(tree.root(), &answers);
    watcher.scan(&Pending::everything()).unwrap();
    let mut moved = Pending::default();
    heard(&mut moved, "move", SOFTWARE, "ibp1", Some("mlx5_0"));
    watcher.scan(&moved).unwrap();
    let device = watcher.devices().next().unwrap();
    assert_eq!(device.name, "ibp1");
    assert_eq!(device.uverbs.as_deref(), Some("uverbs0"));
}

#[test]
fn a_function_is_not_registered_because_of_its_subfunction() {
    let machine = machine::read("mlx5-infiniband");
    let above = "devices/pci0000:c0/0000:c0:01.1/0000:c1:00.0";
    machine.tree.remove("class/infiniband/ibp193s0f0");
    machine
        .tree
        .remove(&format!("{above}/mlx5_core.rdma.0/driver"));
    machine.table.lock().unwrap().devices.remove(&0);
    let mut watcher = Watcher::new(machine.tree.root(), &machine.table);
    watcher.scan(&Pending::everything()).unwrap();
    let physical = function(&watcher, "0000:c1:00.0").unwrap();
    assert_eq!(physical.state, FunctionState::Personality);
}

#[test]
fn name_assigned_by_user_is_absent_if_the_kernel_does_not_report_it() {
    // The kernel does not set this attribute, not even for a device that udev has renamed.
    let machine = machine::read("hfi1");
    let mut watcher = Watcher::new(machine.tree.root(), &machine.table);
    watcher.scan(&Pending::everything()).unwrap();
    let device = watcher.devices().next().unwrap();
    assert_eq!(device.name_assigned_by_user, None);
}

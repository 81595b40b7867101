//! Incremental scans. Must never let a scan read objects that have not changed.

use detector::pending::Pending;
use detector::uevent::Uevent;
use interfaces::detector::Action;

use super::crowd;
use super::machine;
use super::watcher::Watcher;

/// Records an event of an RDMA device below the path `above`.
pub fn heard(pending: &mut Pending, action: &str, above: &str, name: &str, old: Option<&str>) {
    let path = |name: &str| format!("/{above}/infiniband/{name}");
    pending.uevent(&Uevent {
        action,
        devpath: &path(name),
        devpath_old: old.map(path).as_deref(),
        subsystem: "infiniband",
        sequence: 1,
    });
}

#[test]
fn a_device_that_is_renamed_keeps_its_index_its_nodes_and_its_kernel_name() {
    let machine = machine::read("mlx5-infiniband");
    let mut watcher = Watcher::new(machine.tree.root(), &machine.table);
    let above = "devices/pci0000:c0/0000:c0:01.1/0000:c1:00.0/mlx5_core.sf.4";
    let mut registered = Pending::everything();
    heard(&mut registered, "add", above, "mlx5_4", None);
    watcher.scan(&registered).unwrap();
    let before = watcher.devices().find(|d| d.index == 4).unwrap().clone();
    assert_eq!(before.kernel_name.as_deref(), Some("mlx5_4"));

    let (_, path) = machine.tree.rename_rdma_device("mlx5_4", "ibp193s0f0S88");
    assert!(path.starts_with(above));
    let mut table = machine.table.lock().unwrap();
    let device = table.devices.get_mut(&4).unwrap();
    device.set("name", Some("ibp193s0f0S88"));
    drop(table);
    let mut moved = Pending::default();
    heard(&mut moved, "move", above, "ibp193s0f0S88", Some("mlx5_4"));
    let (scan, events) = watcher.scan(&moved).unwrap();

    assert_eq!(scan.device_reads, 1);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].action, Action::Change);
    let mut renamed = before;
    renamed.name = "ibp193s0f0S88".to_owned();
    assert_eq!(events[0].device.as_ref(), Some(&renamed));
}

#[test]
fn an_event_of_one_device_in_a_thousand_reads_only_that_device() {
    let (tree, table) = crowd::of_software(1_000);
    let mut watcher = Watcher::new(tree.root(), &table);
    let (all, events) = watcher.scan(&Pending::everything()).unwrap();
    assert_eq!(all.device_reads, 1_000);
    assert_eq!(all.observed.devices.len(), 1_000);
    assert_eq!(events.len(), 1 + 1_000 + 1, "the modules, each, and ready");

    let periodic = Pending::periodic();
    let (none, events) = watcher.scan(&periodic).unwrap();
    assert_eq!((none.device_reads, events.len()), (0, 0));

    let mut one = Pending::default();
    heard(&mut one, "change", "devices/virtual", "rxe500", None);
    let asked = table.lock().unwrap().asked;
    let (one, events) = watcher.scan(&one).unwrap();
    assert_eq!((one.device_reads, events.len()), (1, 0));
    // The requests: the system settings, the list, the ports of the device, and its entry again.
    assert_eq!(table.lock().unwrap().asked - asked, 4);
}

/// The kernel enters the GIDs after the port has its interface, and sends no event.
#[test]
fn gids_that_appear_without_an_event_are_found_by_the_next_periodic_scan() {
    let machine = machine::read("ice-roce");
    let device = "devices/pci0000:16/0000:16:02.0/0000:17:00.0/infiniband/rocep23s0f0";
    let types = format!("{device}/ports/1/gid_attrs/types");
    assert!(machine.tree.has(&types));
    machine.tree.remove(&types);
    let mut watcher = Watcher::new(machine.tree.root(), &machine.table);
    watcher.scan(&Pending::everything()).unwrap();
    let gids = |watcher: &Watcher| watcher.devices().next().unwrap().ports[0].gid_types.clone();
    assert!(gids(&watcher).is_empty());

    machine.tree.directory(&types);
    machine.tree.file(&format!("{types}/0"), "RoCE v2");
    let (scan, events) = watcher.scan(&Pending::periodic()).unwrap();
    assert_eq!((scan.device_reads, events.len()), (1, 1));
    assert_eq!(gids(&watcher), ["RoCE v2"]);
    let (scan, _) = watcher.scan(&Pending::periodic()).unwrap();
    assert_eq!(scan.device_reads, 0);
}

#[test]
fn a_port_change_of_one_device_in_a_thousand_reads_only_that_device() {
    let (tree, table) = crowd::of_software(1_000);
    let mut watcher = Watcher::new(tree.root(), &table);
    watcher.scan(&Pending::everything()).unwrap();
    let mut answers = table.lock().unwrap();
    let port = answers.ports.get_mut(&(7, 1)).unwrap();
    port.set("state", Some("1"));
    drop(answers);
    let periodic = Pending::periodic();
    let (scan, events) = watcher.scan(&periodic).unwrap();
    assert_eq!(scan.device_reads, 1);
    assert_eq!(events.len(), 1, "{events:?}");
    let state = events[0].device.as_ref().unwrap().ports[0].state.as_deref();
    assert_eq!(state, Some("down"));
}

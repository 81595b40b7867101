//! Tests of the events between two scans. A subscriber that follows the events must end with the
//! state that a scan shows.

use interfaces::detector::Kind;

use super::*;

pub fn device(index: i64, name: &str) -> Device {
    Device {
        index,
        name: name.to_owned(),
        kernel_name: None,
        name_assigned_by_user: None,
        kind: Kind::Function,
        node_guid: None,
        system_image_guid: None,
        node_type: None,
        driver: None,
        module: None,
        pci_address: None,
        pci_id: None,
        physical_function: None,
        function_number: None,
        parent: None,
        firmware_version: None,
        board_id: None,
        netns_mode: None,
        in_other_netns: false,
        not_answering: None,
        uverbs: None,
        ports: Vec::new(),
    }
}

fn seen(devices: &[(i64, &str)]) -> Observed {
    let found = |(index, name): &(i64, &str)| Found {
        record: Arc::new(device(*index, name)),
        parent: None,
    };
    Observed {
        devices: devices.iter().map(found).collect(),
        ..Observed::default()
    }
}

fn told(events: &[SubscribeDevicesReply]) -> Vec<(Action, Option<&str>, i64)> {
    let told = events.iter().filter(|e| e.modules.is_none());
    told.map(|e| (e.action, e.name.as_deref(), e.sequence))
        .collect()
}

fn modules(names: &[(&str, bool)], all: bool) -> Observed {
    let modules = names
        .iter()
        .map(|(name, there)| ((*name).to_owned(), *there));
    Observed {
        modules: modules.collect(),
        all_modules: all,
        ..seen(&[])
    }
}

fn of_modules(events: &[SubscribeDevicesReply]) -> Vec<(Action, &str)> {
    let told = events.iter();
    told.filter_map(|event| Some((event.action, event.module.as_deref()?)))
        .collect()
}

/// Modules that were added or removed while events were lost are reported by a scan of all modules.
#[test]
fn a_snapshot_has_the_modules_and_a_scan_of_all_modules_reports_the_differences() {
    let mut inventory = Inventory::default();
    let _ = inventory.replace(&modules(&[("ib_core", true), ("xfs", true)], true), 0);
    let both = Some(vec!["ib_core".to_owned(), "xfs".to_owned()]);
    assert_eq!(inventory.snapshot()[0].modules, both);

    let events = inventory.replace(&modules(&[("ib_cm", true), ("xfs", false)], false), 0);
    let changes = [(Action::Add, "ib_cm"), (Action::Remove, "xfs")];
    assert_eq!(of_modules(&events), changes);
    // The first module was unloaded and loaded again between two scans. The second was unknown.
    let events = inventory.replace(&modules(&[("ib_cm", true), ("zfs", false)], false), 0);
    let both_told = [(Action::Add, "ib_cm"), (Action::Remove, "zfs")];
    assert_eq!(of_modules(&events), both_told);

    let events = inventory.replace(&modules(&[("ib_core", true), ("xfs", true)], true), 0);
    let changes = [(Action::Remove, "ib_cm"), (Action::Add, "xfs")];
    assert_eq!(of_modules(&events), changes);
    assert_eq!(inventory.snapshot()[0].modules, both);
}

#[test]
fn a_scan_reports_added_changed_and_removed_devices() {
    let mut inventory = Inventory::default();
    let first = inventory.replace(&seen(&[(1, "a"), (2, "b")]), 0);
    assert_eq!(
        told(&first),
        [
            (Action::Add, Some("a"), 1),
            (Action::Add, Some("b"), 2),
            (Action::Ready, None, 2),
        ]
    );
    let second = inventory.replace(&seen(&[(2, "renamed"), (3, "c")]), 0);
    assert_eq!(
        told(&second),
        [
            (Action::Remove, Some("a"), 3),
            (Action::Change, Some("renamed"), 4),
            (Action::Add, Some("c"), 5),
        ]
    );
    let third = inventory.replace(&seen(&[(2, "renamed"), (3, "c")]), 0);
    assert!(third.is_empty());
}

#[test]
fn a_name_that_moved_to_another_device_is_removed_before_it_is_added() {
    let mut inventory = Inventory::default();
    inventory.replace(&seen(&[(2, "mlx5_0")]), 0);
    let events = inventory.replace(&seen(&[(4, "mlx5_0")]), 0);
    assert_eq!(
        told(&events),
        [
            (Action::Remove, Some("mlx5_0"), 2),
            (Action::Add, Some("mlx5_0"), 3),
        ]
    );
}

#[test]
fn no_subscriber_receives_ready_before_the_first_scan() {
    let mut inventory = Inventory::default();
    assert!(inventory.snapshot().is_empty());
    let first = inventory.replace(&seen(&[]), 0);
    assert_eq!(told(&first), [(Action::Ready, None, 0)]);
}

#[test]
fn a_snapshot_ends_with_ready() {
    let mut inventory = Inventory::default();
    inventory.replace(&seen(&[(1, "a")]), 0);
    assert_eq!(
        told(&inventory.snapshot()),
        [(Action::Add, Some("a"), 1), (Action::Ready, None, 1)]
    );
}

/// Returns a scan without devices in our network namespace, in which nodes belong to `with_nodes`.
fn seen_elsewhere(with_nodes: &[&str]) -> Observed {
    Observed {
        exclusive: true,
        with_nodes: with_nodes.iter().map(ToString::to_string).collect(),
        ..Observed::default()
    }
}

#[test]
fn a_device_that_moves_to_another_network_namespace_and_back_is_never_removed() {
    let mut inventory = Inventory::default();
    inventory.replace(&seen(&[(1, "a")]), 0);
    // The nodes are absent during the move.
    assert!(inventory.replace(&seen_elsewhere(&[]), 100).is_empty());
    let moved = inventory.replace(&seen_elsewhere(&["a"]), 200);
    assert_eq!(told(&moved), [(Action::Change, Some("a"), 2)]);
    assert!(moved[0].device.as_ref().unwrap().in_other_netns);
    let later = 10 * MOVING_USEC;
    assert!(inventory.replace(&seen_elsewhere(&["a"]), later).is_empty());
    let back = inventory.replace(&seen(&[(1, "a")]), later + 1);
    assert_eq!(told(&back), [(Action::Change, Some("a"), 3)]);
    assert!(!back[0].device.as_ref().unwrap().in_other_netns);
}

#[test]
fn a_device_that_does_not_reappear_after_a_namespace_move_is_removed() {
    let mut inventory = Inventory::default();
    inventory.replace(&seen(&[(1, "a")]), 0);
    assert!(inventory.replace(&seen_elsewhere(&[]), 5).is_empty());
    let gone = inventory.replace(&seen_elsewhere(&[]), 5 + MOVING_USEC);
    assert_eq!(told(&gone), [(Action::Remove, Some("a"), 2)]);
}

#[test]
fn a_different_device_with_the_same_name_is_reported_as_removed_and_added() {
    let mut inventory = Inventory::default();
    inventory.replace(&seen(&[(1, "a")]), 0);
    let mut other = seen(&[(2, "a")]);
    other.exclusive = true;
    other.with_nodes = ["a".to_owned()].into();
    let events = inventory.replace(&other, 1);
    assert_eq!(
        told(&events),
        [(Action::Remove, Some("a"), 2), (Action::Add, Some("a"), 3)]
    );
}

#[test]
fn a_missing_device_is_removed_at_once_if_namespaces_share_devices() {
    let mut inventory = Inventory::default();
    inventory.replace(&seen(&[(1, "a")]), 0);
    let mut gone = seen_elsewhere(&["a"]);
    gone.exclusive = false;
    let events = inventory.replace(&gone, 1);
    assert_eq!(told(&events), [(Action::Remove, Some("a"), 2)]);
}

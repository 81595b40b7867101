//! The tests of devices: identity, conditions, and the readiness of each device.

use super::*;
use interfaces::orchestrator::{Condition, ModuleState, State};

fn met(script: &Script, condition: Condition) -> Option<bool> {
    let device = script.device(1);
    let mut conditions = device.conditions.iter();
    conditions.find(|c| c.condition == condition).map(|c| c.met)
}

/// facts/rdma.md 3, item 9: a device is renamed between an event and its use.
#[test]
fn a_renamed_device_keeps_its_state_and_loads_no_module_again() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "mlx5_0", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    assert_eq!(
        script.there(whole(1, "rocep1s0", &[Protocol::Roce])),
        ["rocep1s0 Ready"]
    );
}

/// Item 9: another device has the name.
#[test]
fn two_devices_that_exchange_names_keep_their_own_states() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "mlx5_0", &[Protocol::Roce]));
    let _ = script.there(device(2, "mlx5_1", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let _ = script.there(whole(1, "mlx5_1", &[Protocol::Roce]));
    let _ = script.there(device(2, "mlx5_0", &[Protocol::Roce]));
    assert_eq!(script.device(1).state, State::Ready);
    assert_eq!(script.device(2).state, State::Registered);
}

#[test]
fn a_different_device_with_a_known_index_is_set_up_as_a_new_device() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(0, "rxe0", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let mut other = whole(0, "rxe0", &[Protocol::Roce]);
    other.node_guid = Some("5054:00ff:fe12:3456".to_owned());
    let told = script.there(other);
    assert!(told.contains(&"withdraw 0".to_owned()), "{told:?}");
    assert!(decisions(&told).contains(&"load ib_uverbs rdma_ucm for rxe0 (index 0)"));
}

#[test]
fn a_changed_port_protocol_loads_its_modules_and_switches_the_flag() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "mlx5_0", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let told = script.there(whole(1, "mlx5_0", &[Protocol::Infiniband]));
    assert_eq!(
        decisions(&told),
        ["flag roce false", "load ib_umad for mlx5_0 (index 1)",]
    );
    let told = script.answer("ib_umad", Outcome::Loaded);
    assert_eq!(decisions(&told), ["flag infiniband true"]);
}

/// Item 14: a device plugin started before the nodes were there, and offered no device.
#[test]
fn a_device_with_live_modules_is_not_ready_until_its_nodes_exist() {
    let mut script = Script::started(RULES);
    let _ = script.there(device(1, "a", &[Protocol::Infiniband]));
    let live = ["ib_uverbs", "rdma_ucm", "ib_umad"].map(|m| answer(m, Outcome::Loaded));
    let _ = script.all(live);
    assert_eq!(met(&script, Condition::Modules), Some(true));
    assert_eq!(met(&script, Condition::Cm), Some(true));
    assert_eq!(met(&script, Condition::Verbs), Some(false));
    assert_eq!(met(&script, Condition::Umad), Some(false));
    assert_eq!(
        script.waiting_for(1),
        "its node for verbs (uverbs); the umad node of port 1"
    );
    assert_eq!(
        script.there(whole(1, "a", &[Protocol::Infiniband])),
        ["a Ready"]
    );
    assert_eq!(met(&script, Condition::Ready), Some(true));
}

/// Item 15: a plugin required management datagrams for protocols without them.
#[test]
fn an_iwarp_device_has_no_umad_condition_and_becomes_ready() {
    let rules = "[[rule]]\nmodules = [\"ib_uverbs\", \"ib_umad\"]\n";
    let mut script = Script::started(rules);
    let mut iwarp = device(1, "a", &[Protocol::Iwarp]);
    iwarp.uverbs = Some("uverbs0".to_owned());
    let _ = script.there(iwarp);
    let _ = script.all(["ib_uverbs", "ib_umad"].map(|m| answer(m, Outcome::Loaded)));
    assert_eq!(met(&script, Condition::Umad), None);
    assert_eq!(met(&script, Condition::Cm), None);
    // The interface may stay in another network namespace, so that the device does not wait for it.
    assert_eq!(met(&script, Condition::Netdev), Some(false));
    assert_eq!(met(&script, Condition::Ready), Some(true));
}

/// Item 13: the number of a node is not that of the device.
#[test]
fn a_device_becomes_ready_through_its_own_nodes_regardless_of_their_numbers() {
    let mut script = Script::started(RULES);
    let mut crossed = device(1, "mlx5_24", &[Protocol::Roce]);
    crossed.uverbs = Some("uverbs19".to_owned());
    let _ = script.there(crossed);
    let _ = script.there(device(2, "mlx5_19", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    assert_eq!(script.device(1).state, State::Ready);
    assert_eq!(script.device(2).state, State::Registered);
}

#[test]
fn an_unmanaged_device_gets_no_modules_until_its_rule_is_removed() {
    let rules = format!("{RULES}[[rule]]\nname = [\"keep*\"]\nmanage = false\n");
    let mut script = Script::started(&rules);
    assert_eq!(
        script.there(whole(1, "keep0", &[Protocol::Roce])),
        ["keep0 Unmanaged"]
    );
    // The rule is removed by a reload.
    let told = script.tell(Event::Rules(sources(RULES)));
    assert_eq!(
        decisions(&told),
        ["load ib_uverbs rdma_ucm for keep0 (index 1)"]
    );
}

#[test]
fn a_new_snapshot_after_a_lost_detector_withdraws_the_missing_devices() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.there(whole(2, "b", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let _ = script.tell(Event::DetectorLost);
    assert!(!script.machine.describe().detector_connected);
    assert_eq!(script.device(1).state, State::Ready);
    let told = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(2, "b", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    assert_eq!(told, ["b Ready", "withdraw 1", "settled: true"]);
}

/// cases.md A10: firmware that hangs.
#[test]
fn a_device_that_does_not_respond_is_not_ready_and_names_the_missing_attribute() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_uverbs\"]\n");
    let mut silent = whole(1, "a", &[Protocol::Roce]);
    silent.not_answering = Some("ports/1/rate".to_owned());
    let _ = script.there(silent);
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    assert_eq!(script.waiting_for(1), "its reply (ports/1/rate)");
    let told = script.there(whole(1, "a", &[Protocol::Roce]));
    assert!(told.contains(&"a Ready".to_owned()), "{told:?}");
}

#[test]
fn an_explanation_shows_each_rule_with_its_selector_and_module_states() {
    let mut script = Script::started(RULES);
    let _ = script.there(device(1, "a", &[Protocol::Infiniband]));
    let _ = script.answer("ib_umad", Outcome::Denied);
    let explained = script.machine.explain(Some("a"), None).unwrap();
    assert_eq!(explained.rules.len(), 2);
    assert!(explained.rules[0].selector.is_empty());
    assert_eq!(explained.rules[1].selector, ["protocol infiniband"]);
    assert_eq!(explained.rules[1].modules[0].state, ModuleState::Denied);
    assert!(script.machine.explain(Some("b"), None).is_none());
    let module = ModuleName::parse("ib_umad").unwrap();
    let explained = script.machine.explain_module(&module).unwrap();
    assert_eq!(explained.wanted_by, ["a"]);
    assert_eq!(explained.attempts, 1);
}

/// Item 26: users wait for udev to settle, although that does not include their device.
#[test]
fn the_machine_is_settled_only_while_no_load_is_in_progress() {
    let mut script = Script::started(RULES);
    assert!(script.machine.describe().settled);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    assert!(!script.machine.describe().settled);
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.answer("rdma_ucm", Outcome::Failed);
    assert!(told.contains(&"settled: true".to_owned()), "{told:?}");
}

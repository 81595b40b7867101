//! The machine's decisions, each as events in and actions out.

use std::path::Path;

use interfaces::detector::{Kind, Port, Protocol};

use super::*;

pub fn device(index: i64, name: &str, protocols: &[Protocol]) -> detector::Device {
    let port = |(at, protocol): (usize, &Protocol)| Port {
        number: i64::try_from(at).unwrap() + 1,
        protocol: *protocol,
        link_layer: None,
        state: None,
        speed_mbps: None,
        netdev: None,
        gid_types: Vec::new(),
        umad: None,
        issm: None,
    };
    detector::Device {
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
        physical_function: None,
        function_number: None,
        parent: None,
        firmware_version: None,
        board_id: None,
        netns_mode: None,
        in_other_netns: false,
        uverbs: None,
        ports: protocols.iter().enumerate().map(port).collect(),
    }
}

fn machine() -> Machine {
    let mut rules = Rules::default();
    let text = "[[rule]]\nmodules = [\"ib_uverbs\", \"rdma_ucm\"]\n\
                [[rule]]\nprotocol = [\"infiniband\"]\nmodules = [\"ib_umad\"]\n";
    rules.add(Path::new("test.toml"), text);
    assert!(rules.errors().is_empty());
    Machine::new(rules)
}

fn there(index: i64, name: &str, protocol: Protocol) -> Event {
    Event::Device(Box::new(device(index, name, &[protocol])))
}

fn answer(module: &str, outcome: Outcome) -> Event {
    Event::Module(Box::new(ModuleResult::new(module, outcome)))
}

/// What a list of events leads to, in words. Settling has a test of its own.
fn told(machine: &mut Machine, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let actions = events.into_iter().flat_map(|event| machine.step(event));
    actions
        .filter(|action| !matches!(action, Action::Settled(_)))
        .map(|action| match action {
            Action::Load { modules, .. } => {
                let modules: Vec<&str> = modules.iter().map(ModuleName::as_str).collect();
                format!("load {}", modules.join(" "))
            }
            Action::Publish(shown) => format!("{} {:?}", shown.device.name, shown.device.state),
            Action::Settled(_) => unreachable!("left out above"),
            Action::Withdraw(index) => format!("withdraw {index}"),
            Action::AnnounceHardware => "announce".to_owned(),
            Action::WithdrawHardware => "withdraw hardware".to_owned(),
            Action::Started { status } => format!("started: {status}"),
        })
        .collect()
}

#[test]
fn a_machine_without_devices_starts_at_once_and_loads_nothing() {
    let mut machine = machine();
    assert_eq!(
        told(&mut machine, [Event::SnapshotBegins, Event::SnapshotEnds]),
        [
            "withdraw hardware",
            "started: 0 devices set up at the start"
        ]
    );
}

#[test]
fn a_device_at_the_start_holds_the_start_until_its_modules_are_live() {
    let mut machine = machine();
    let events = [
        Event::SnapshotBegins,
        there(1, "rxe0", Protocol::Roce),
        Event::SnapshotEnds,
    ];
    assert_eq!(
        told(&mut machine, events),
        ["load ib_uverbs rdma_ucm", "rxe0 Registered"]
    );
    let events = [
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::AlreadyLoaded),
    ];
    assert_eq!(
        told(&mut machine, events),
        [
            "rxe0 Registered",
            "rxe0 Ready",
            "announce",
            "started: 1 devices set up at the start",
        ]
    );
}

#[test]
fn the_start_waits_no_longer_than_its_deadline() {
    let mut machine = machine();
    let events = [
        Event::SnapshotBegins,
        there(1, "rxe0", Protocol::Roce),
        Event::SnapshotEnds,
        Event::BootDeadline,
        Event::BootDeadline,
    ];
    assert_eq!(
        told(&mut machine, events)[2..],
        ["started: started while these were set up: rxe0"]
    );
    assert_eq!(
        told(&mut self::machine(), [Event::BootDeadline]),
        ["started: started without the detector's answer"]
    );
}

#[test]
fn a_module_in_flight_is_asked_for_once_and_answers_every_device() {
    let mut machine = machine();
    let events = [
        Event::SnapshotBegins,
        Event::SnapshotEnds,
        there(1, "a", Protocol::Roce),
        there(2, "b", Protocol::Infiniband),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    assert_eq!(
        told(&mut machine, events)[2..],
        [
            "load ib_uverbs rdma_ucm",
            "a Registered",
            "load ib_umad",
            "b Registered",
            "a Registered",
            "b Registered",
            "a Ready",
            "b Registered",
            "announce",
        ]
    );
    assert_eq!(
        told(&mut machine, [answer("ib_umad", Outcome::Builtin)]),
        ["b Ready"]
    );
}

#[test]
fn a_second_device_asks_again_for_what_may_have_been_unloaded() {
    let mut machine = machine();
    let events = [
        Event::SnapshotBegins,
        Event::SnapshotEnds,
        there(1, "a", Protocol::Roce),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    let _ = told(&mut machine, events);
    assert_eq!(
        told(&mut machine, [there(2, "b", Protocol::Roce)]),
        ["load ib_uverbs rdma_ucm", "b Registered"]
    );
}

#[test]
fn a_missing_module_holds_nothing_back_and_a_failed_one_does() {
    let mut machine = machine();
    let events = [
        there(1, "a", Protocol::Roce),
        answer("ib_uverbs", Outcome::Missing),
        answer("rdma_ucm", Outcome::Failed),
    ];
    let _ = told(&mut machine, events);
    let status = machine.devices[&1].status();
    assert_eq!(status.state, State::Registered);
    assert_eq!(status.waiting_for.len(), 1);
    assert!(status.waiting_for[0].contains("rdma_ucm"));
}

#[test]
fn a_rename_keeps_what_was_done() {
    let mut machine = machine();
    let events = [
        there(1, "mlx5_0", Protocol::Roce),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    let _ = told(&mut machine, events);
    assert_eq!(
        told(&mut machine, [there(1, "rocep1s0", Protocol::Roce)]),
        ["rocep1s0 Ready"]
    );
}

#[test]
fn a_port_that_changes_its_protocol_gets_its_modules() {
    let mut machine = machine();
    let events = [
        there(1, "mlx5_0", Protocol::Roce),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    let _ = told(&mut machine, events);
    assert_eq!(
        told(&mut machine, [there(1, "mlx5_0", Protocol::Infiniband)]),
        ["load ib_umad", "mlx5_0 Registered"]
    );
}

#[test]
fn the_last_removal_withdraws_the_hardware_and_a_replug_announces_it_again() {
    let mut machine = machine();
    let live = || {
        [
            answer("ib_uverbs", Outcome::AlreadyLoaded),
            answer("rdma_ucm", Outcome::AlreadyLoaded),
        ]
    };
    let _ = told(&mut machine, [Event::SnapshotBegins, Event::SnapshotEnds]);
    let _ = told(&mut machine, [there(1, "rxe0", Protocol::Roce)]);
    let _ = told(&mut machine, live());
    assert_eq!(
        told(&mut machine, [Event::Removed(1), Event::Removed(1)]),
        ["withdraw 1", "withdraw hardware"]
    );
    let _ = told(&mut machine, [there(2, "rxe0", Protocol::Roce)]);
    assert!(told(&mut machine, live()).contains(&"announce".to_owned()));
}

#[test]
fn a_detector_that_comes_back_removes_what_it_no_longer_shows() {
    let mut machine = machine();
    let events = [
        Event::SnapshotBegins,
        there(1, "a", Protocol::Roce),
        there(2, "b", Protocol::Roce),
        Event::SnapshotEnds,
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
        Event::DetectorLost,
    ];
    let _ = told(&mut machine, events);
    let events = [
        Event::SnapshotBegins,
        there(2, "b", Protocol::Roce),
        Event::SnapshotEnds,
    ];
    assert_eq!(
        told(&mut machine, events),
        ["load ib_uverbs rdma_ucm", "b Ready", "withdraw 1"]
    );
}

#[test]
fn another_device_under_a_known_index_starts_from_nothing() {
    let mut machine = machine();
    let events = [
        there(0, "rxe0", Protocol::Roce),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    let _ = told(&mut machine, events);
    let mut other = device(0, "rxe0", &[Protocol::Roce]);
    other.node_guid = Some("5054:00ff:fe12:3456".to_owned());
    assert_eq!(
        told(&mut machine, [Event::Device(Box::new(other))]),
        ["load ib_uverbs rdma_ucm", "rxe0 Registered"]
    );
}

#[test]
fn a_pause_loads_nothing_and_its_end_catches_up() {
    let mut machine = machine();
    let events = [
        Event::SnapshotBegins,
        Event::SnapshotEnds,
        Event::Pause("firmware update".to_owned()),
        there(1, "rxe0", Protocol::Roce),
    ];
    assert_eq!(told(&mut machine, events)[2..], ["rxe0 Registered"]);
    assert_eq!(machine.summary().paused.as_deref(), Some("firmware update"));
    assert_eq!(
        told(&mut machine, [Event::Resume]),
        ["load ib_uverbs rdma_ucm", "rxe0 Registered"]
    );
}

#[test]
fn reconciling_asks_again_and_a_device_stays_ready_meanwhile() {
    let mut machine = machine();
    let events = [
        there(1, "a", Protocol::Roce),
        there(2, "b", Protocol::Roce),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    let _ = told(&mut machine, events);
    assert_eq!(
        told(&mut machine, [Event::Reconcile]),
        ["load ib_uverbs rdma_ucm"]
    );
    assert!(told(&mut machine, [answer("ib_uverbs", Outcome::AlreadyLoaded)]).is_empty());
    assert_eq!(
        told(&mut machine, [answer("rdma_ucm", Outcome::Failed)]),
        ["a Registered", "b Registered"]
    );
}

#[test]
fn new_rules_ask_for_what_is_new_alone() {
    let mut machine = machine();
    let events = [
        there(1, "a", Protocol::Roce),
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ];
    let _ = told(&mut machine, events);
    let mut rules = Rules::default();
    let text = "[[rule]]\nmodules = [\"ib_uverbs\", \"ib_umad\"]\n";
    rules.add(Path::new("new.toml"), text);
    assert_eq!(
        told(&mut machine, [Event::Rules(rules)]),
        ["load ib_umad", "a Registered"]
    );
}

#[test]
fn an_explanation_names_each_rule_and_what_became_of_it() {
    let mut machine = machine();
    let _ = machine.step(there(1, "a", Protocol::Infiniband));
    let actions = machine.step(answer("ib_umad", Outcome::Denied));
    let shown = actions.iter().find_map(|action| match action {
        Action::Publish(shown) => Some(shown),
        _ => None,
    });
    let rules = &shown.unwrap().rules;
    assert_eq!(rules.len(), 2);
    assert_eq!((rules[0].number, &rules[0].protocols), (1, &None));
    assert_eq!(rules[1].protocols.as_deref().unwrap(), ["infiniband"]);
    assert_eq!(rules[1].modules[0].state, ModuleState::Denied);
}

#[test]
fn everything_is_settled_when_every_module_has_its_answer() {
    let mut machine = machine();
    let mut settled = |event| {
        let actions = machine.step(event);
        let mut settled = actions.iter().filter_map(|action| match action {
            Action::Settled(settled) => Some(*settled),
            _ => None,
        });
        settled.next()
    };
    assert_eq!(settled(Event::SnapshotBegins), None);
    assert_eq!(settled(Event::SnapshotEnds), Some(true));
    assert_eq!(settled(there(1, "a", Protocol::Roce)), Some(false));
    assert_eq!(settled(answer("ib_uverbs", Outcome::Loaded)), None);
    assert_eq!(settled(answer("rdma_ucm", Outcome::Failed)), Some(true));
}

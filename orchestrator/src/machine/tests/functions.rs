//! The tests of functions without a device: their modules, their drivers, and the time at which
//! they are stuck.

use interfaces::names::ModuleAlias;

use super::*;

const NIC: &str = "0000:c1:00.0";

#[test]
fn a_driver_without_an_alias_is_loaded_once_by_its_rule() {
    let mut script = Script::started(RULES);
    let told = script.tell(function(
        NIC,
        FunctionState::Capable,
        Some(WaitsFor::Module),
        Some("cxgb4"),
    ));
    assert_eq!(decisions(&told), ["load iw_cxgb4 for 0000:c1:00.0"]);
    assert!(
        script
            .tell(function(
                NIC,
                FunctionState::Capable,
                Some(WaitsFor::Module),
                Some("cxgb4")
            ))
            .iter()
            .all(|w| !w.starts_with("load"))
    );
    let _ = script.answer("iw_cxgb4", Outcome::Loaded);
    let told = script.tell(function(
        NIC,
        FunctionState::Registered,
        None,
        Some("cxgb4"),
    ));
    assert_eq!(told[0], "withdraw 0000:c1:00.0");
    assert!(script.machine.describe().settled);
}

/// facts/rdma.md 3, item 32: a device never registers, and there is no message.
#[test]
fn a_function_without_a_device_is_stuck_after_30_s_and_withdrawn_when_it_registers() {
    let mut script = Script::started(RULES);
    let told = script.tell(function(
        NIC,
        FunctionState::Personality,
        Some(WaitsFor::Registration),
        Some("mlx5_core"),
    ));
    assert_eq!(told, ["0000:c1:00.0 Personality", "settled: false"]);
    assert!(
        script
            .wait(29)
            .iter()
            .all(|words| words.ends_with("Personality"))
    );
    assert_eq!(script.wait(1), ["0000:c1:00.0 Stuck", "settled: true"]);
    // The device registers after all.
    let told = script.tell(function(
        NIC,
        FunctionState::Registered,
        None,
        Some("mlx5_core"),
    ));
    assert_eq!(told, ["withdraw 0000:c1:00.0"]);
}

const MODALIAS: &str = "pci:v000015B3d00001017sv000015B3sd00000006bc02sc07i00";

fn unbound(name: &str, modalias: &str) -> Event {
    match function(name, FunctionState::Capable, Some(WaitsFor::Driver), None) {
        Event::Function(mut record) => {
            record.modalias = Some(modalias.to_owned());
            record.pci_address = Some(NIC.to_owned());
            Event::Function(record)
        }
        event => event,
    }
}

fn excluded(name: &str, modalias: &str, why: Option<&str>) -> Event {
    Event::Driver {
        function: name.to_owned(),
        modalias: ModuleAlias::parse(modalias).unwrap(),
        excluded: why.map(str::to_owned),
    }
}

fn ask(name: &str) -> String {
    format!("check if the driver of {name} is excluded")
}

/// Case section 4: an intentionally blacklisted driver delayed each boot by 5 s and rdma-settled by
/// 30 s.
#[test]
fn a_function_with_a_driver_excluded_by_the_administrator_does_not_delay_settling() {
    let mut script = Script::started(RULES);
    let told = script.tell(unbound(NIC, MODALIAS));
    let capable = "0000:c1:00.0 Capable";
    assert_eq!(told, [&ask(NIC), capable, "settled: false"]);
    // Another change does not cause a second query.
    assert_eq!(script.tell(unbound(NIC, MODALIAS)), [capable]);
    let why = "/etc/modprobe.d/a.conf:1 blacklists mlx5_core";
    let told = script.tell(excluded(NIC, MODALIAS, Some(why)));
    assert_eq!(told, ["0000:c1:00.0 Excluded", "settled: true"]);
    // The administrator's policy may change.
    let told = script.tell(Event::ModulesInstalled);
    assert_eq!(told, [ask(NIC)]);
    let told = script.tell(excluded(NIC, MODALIAS, None));
    assert_eq!(told, [capable, "settled: false"]);
    // A reply for the old modalias does not apply to the new one.
    let other = "pci:v000015B3d00001019sv000015B3sd00000006bc02sc07i00";
    let told = script.tell(unbound(NIC, other));
    assert_eq!(told, [&ask(NIC), capable]);
    assert!(script.tell(excluded(NIC, MODALIAS, Some(why))).is_empty());
}

#[test]
fn a_function_is_excluded_when_all_its_auxiliary_devices_are_excluded() {
    const DEVICE: &str = "mlx5_core.rdma.0";
    const ALIAS: &str = "auxiliary:mlx5_core.rdma";
    let mut script = Script::started(RULES);
    let registering = || {
        let waits_for = Some(WaitsFor::Registration);
        function(
            NIC,
            FunctionState::Personality,
            waits_for,
            Some("mlx5_core"),
        )
    };
    let _ = script.tell(registering());
    let _ = script.tell(unbound(DEVICE, ALIAS));
    let told = script.tell(excluded(DEVICE, ALIAS, Some("a line says so")));
    let shown = [
        "mlx5_core.rdma.0 Excluded",
        "0000:c1:00.0 Excluded",
        "settled: true",
    ];
    assert_eq!(told, shown);
    // The state survives the restart of the process.
    let state = serde_json::to_string(&script.machine).unwrap();
    script.machine = serde_json::from_str(&state).unwrap();
    assert_eq!(script.tell(registering()), ["0000:c1:00.0 Excluded"]);
    // Another auxiliary device without a decision keeps the function waiting.
    let told = script.tell(unbound("mlx5_core.rdma.1", ALIAS));
    assert_eq!(told.last().unwrap(), "settled: false");
    let _ = script.tell(Event::FunctionGone("mlx5_core.rdma.1".to_owned()));
    assert!(script.machine.describe().settled);
}

/// Item 1 and 2: RDMA that no rule uses is left alone, and is listed.
#[test]
fn a_function_without_a_rule_loads_no_module() {
    let mut script = Script::started(RULES);
    let told = script.tell(function(
        NIC,
        FunctionState::Personality,
        Some(WaitsFor::Driver),
        None,
    ));
    assert!(decisions(&told).is_empty());
    let actions = script.machine.step(Event::Reconcile, script.now);
    assert!(actions.is_empty(), "{actions:?}");
}

/// In opt-in mode udev does not load the drivers, and a rule requests one.
#[test]
fn a_rule_requests_the_driver_of_a_function_by_its_pci_address() {
    let rules = "[[function]]\npci_address = [\"0000:c1:*\"]\nmodules = [\"mlx5_ib\"]\n";
    let mut script = Script::started(rules);
    let told = script.tell(function(
        NIC,
        FunctionState::Personality,
        Some(WaitsFor::Driver),
        None,
    ));
    assert_eq!(decisions(&told), ["load mlx5_ib for 0000:c1:00.0"]);
    let told = script.tell(function(
        "0000:c2:00.0",
        FunctionState::Personality,
        Some(WaitsFor::Driver),
        None,
    ));
    assert!(decisions(&told).is_empty());
}

#[test]
fn functions_missing_from_a_new_snapshot_are_withdrawn() {
    let mut script = Script::started(RULES);
    let _ = script.tell(function(
        NIC,
        FunctionState::Capable,
        Some(WaitsFor::Driver),
        None,
    ));
    let told = script.all([Event::SnapshotBegins, Event::SnapshotEnds]);
    assert!(told.contains(&"withdraw 0000:c1:00.0".to_owned()));
    assert!(
        script.wait(100).is_empty(),
        "a deadline of what is gone does nothing"
    );
}

/// Cases section 4: a function that was assigned to another user (kubevirt#4002,
/// sriov-network-operator#1030).
#[test]
fn an_assigned_function_is_shown_as_assigned_and_does_not_delay_settling() {
    for driver in ["vfio-pci", "uio_pci_generic", "xen-pciback", "pci-stub"] {
        let mut script = Script::started(RULES);
        let told = script.tell(function(
            NIC,
            FunctionState::Capable,
            Some(WaitsFor::Registration),
            Some(driver),
        ));
        assert_eq!(told, ["0000:c1:00.0 Assigned"], "{driver}");
        assert!(script.machine.describe().settled);
    }
}

#[test]
fn a_function_with_an_excluded_module_is_excluded_and_does_not_delay_the_start() {
    let mut script = Script::new(RULES);
    let _ = script.tell(function(
        NIC,
        FunctionState::Capable,
        Some(WaitsFor::Module),
        Some("cxgb4"),
    ));
    let _ = script.tell(Event::SnapshotEnds);
    let told = script.tell(Event::Module(Box::new(ModuleResult {
        denied_by: Some(Denier::Blacklist),
        message: Some("/etc/modprobe.d/x.conf:1 blacklists iw_cxgb4".to_owned()),
        ..ModuleResult::new("iw_cxgb4", Outcome::Denied)
    })));
    assert!(
        told.contains(&"0000:c1:00.0 Excluded".to_owned()),
        "{told:?}"
    );
    assert!(
        told.iter().any(|words| words.starts_with("ready:")),
        "{told:?}"
    );
    assert!(script.machine.describe().settled);
}

#[test]
fn an_unmanaged_function_is_excluded_and_loads_no_module() {
    let rules = format!("{RULES}\n[[function]]\nname = [\"{NIC}\"]\nmanage = false\n");
    let mut script = Script::started(&rules);
    let told = script.tell(function(
        NIC,
        FunctionState::Capable,
        Some(WaitsFor::Module),
        Some("cxgb4"),
    ));
    assert_eq!(told, ["0000:c1:00.0 Excluded"]);
    assert!(script.machine.describe().settled);
}

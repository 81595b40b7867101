//! The whole path on a stock Debian kernel: real uevents, real `NETLINK_RDMA`, real `finit_module`,
//! real systemd, with rdma-core installed. Five boots serve all tests.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong, and a line what it measured"
)]

#[path = "vm/loader.rs"]
mod loader;
mod rig;

use std::sync::LazyLock;

use rig::Evidence;
use serde_json::Value;

static HOTPLUG: LazyLock<Evidence> =
    LazyLock::new(|| rig::boot_with("vm", &[], "vm-hotplug", &[], "rdma_test.hotplug"));
static COLDPLUG: LazyLock<Evidence> =
    LazyLock::new(|| rig::boot_with("vm", &[], "vm-coldplug", &[], "rdma_test.coldplug"));

/// rdma-core's list for all devices, under the names of the modules themselves.
const LIST: [&str; 4] = ["ib_iser", "ib_uverbs", "rdma_ucm", "rpcrdma"];
/// `CAP_DAC_READ_SEARCH` alone (`include/uapi/linux/capability.h`).
const CAP_DAC_READ_SEARCH: &str = "0000000000000004";
/// `CAP_DAC_READ_SEARCH` and `CAP_SYS_MODULE`.
const BOTH_CAPABILITIES: &str = "0000000000010004";
const NO_CAPABILITY: &str = "0000000000000000";

/// Returns the modules in a copy of /proc/modules, sorted.
fn modules(evidence: &Evidence, name: &str) -> Vec<String> {
    let text = evidence.text(name);
    let names = text.lines().filter_map(|line| line.split(' ').next());
    let mut modules: Vec<String> = names.map(str::to_owned).collect();
    modules.sort();
    modules
}

fn is_of_rdma(module: &str) -> bool {
    module.starts_with("ib_") || module.starts_with("rdma_") || module.starts_with("iw_")
}

fn assert_list_is_live(evidence: &Evidence, case: &str) {
    let modules = modules(evidence, &format!("{case}/modules"));
    for module in LIST {
        assert!(
            modules.iter().any(|m| m == module),
            "{module} is not live: {modules:?}"
        );
    }
}

fn device<'l>(list: &'l Value, name: &str) -> &'l Value {
    let devices = list.as_array().unwrap();
    let found = devices.iter().find(|reply| reply["device"]["name"] == name);
    &found.unwrap_or_else(|| panic!("{name} is not in {list}"))["device"]
}

fn assert_no_unit_failed(evidence: &Evidence, case: &str) {
    assert_eq!(evidence.text(&format!("{case}/failed-units")), "");
}

#[test]
fn a_boot_without_a_device_loads_no_rdma_module() {
    let modules = modules(&HOTPLUG, "no-device/modules");
    let of_rdma: Vec<&String> = modules.iter().filter(|m| is_of_rdma(m)).collect();
    assert!(of_rdma.is_empty(), "{of_rdma:?}");
    assert_no_unit_failed(&HOTPLUG, "no-device");
}

#[test]
fn a_boot_without_a_device_leaves_the_target_inactive() {
    assert_eq!(HOTPLUG.text("no-device/rdma-hw.target"), "inactive");
    assert_eq!(
        HOTPLUG.varlink_error("no-device/list"),
        "org.rdmahotplug.Orchestrator.NoSuchDevice"
    );
    assert_eq!(HOTPLUG.text("no-device/status"), "no RDMA devices");
    assert_eq!(
        HOTPLUG.json("no-device/describe")["detectorConnected"],
        true
    );
}

#[test]
fn the_orchestrator_does_not_wait_at_its_start_on_a_host_without_devices() {
    let time = |property: &str| {
        HOTPLUG.microseconds("no-device/times", "rdma-orchestrator.service", property)
    };
    // The time starts when PID 1 hands over to the program (`org.freedesktop.systemd1(5)`). Before
    // that, PID 1 sets up the sandbox, which takes longer under emulation than all the rest.
    let program = time("ExecMainHandoffTimestampMonotonic");
    let ready = time("ActiveEnterTimestampMonotonic") - program;
    let sandbox = program - time("ExecMainStartTimestampMonotonic");
    println!(
        "READY {} ms after its start, which took PID 1 {} ms",
        ready / 1000,
        sandbox / 1000
    );
    // This takes 0.2 s on an idle host. A wait for the devices would take 30 s.
    assert!(ready < 15_000_000, "{ready} µs");
}

#[test]
fn the_first_device_gets_its_modules_and_starts_the_target() {
    HOTPLUG.assert_succeeded("first-device/plug");
    HOTPLUG.assert_succeeded("first-device/becomes-ready");
    HOTPLUG.assert_succeeded("first-device/target-starts");
    assert_list_is_live(&HOTPLUG, "first-device");
    assert_eq!(HOTPLUG.text("first-device/rdma-hw.target"), "active");
    assert_no_unit_failed(&HOTPLUG, "first-device");
    let uptime = |name: &str| -> f64 {
        let text = HOTPLUG.text(&format!("first-device/{name}"));
        text.split(' ').next().unwrap().parse().unwrap()
    };
    println!(
        "plugged after {:.2} s, ready after {:.2} s, rdma-hw.target after {:.2} s of guest time",
        uptime("plugged") - uptime("before"),
        uptime("ready") - uptime("before"),
        uptime("active") - uptime("before"),
    );
}

#[test]
fn varlinkctl_shows_the_device_as_ready() {
    let list = HOTPLUG.json("first-device/list");
    let rxe0 = device(&list, "rxe0");
    assert_eq!(rxe0["state"], "ready");
    assert_eq!(rxe0["protocols"], serde_json::json!(["roce"]));
    assert_eq!(rxe0["waitingFor"], serde_json::json!([]));
    let modules = rxe0["modules"].as_array().unwrap();
    assert_eq!(modules.len(), 5);
    assert!(modules.iter().all(|m| m["state"] == "live"), "{modules:?}");
    let devices = HOTPLUG.json("first-device/devices");
    let rxe0 = device(&devices, "rxe0");
    assert_eq!(rxe0["ports"][0]["protocol"], "roce");
    assert_eq!(rxe0["ports"][0]["netdev"], "dummy0");
}

#[test]
fn the_loader_loads_modules_as_its_own_user_and_only_the_inserter_has_cap_sys_module() {
    let log = HOTPLUG.text("first-device/loader.log");
    let records: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let loads: Vec<&str> = records
        .iter()
        .filter_map(|record| record["MESSAGE"].as_str()?.strip_prefix("load: "))
        .collect();
    for module in ["ib_iser=loaded", "rdma_ucm=loaded", "xprtrdma=loaded"] {
        assert!(
            loads.iter().any(|load| load.contains(module)),
            "{module}: {loads:?}"
        );
    }
    // CAP_SYS_MODULE is missing from each set from which a process could take it by itself.
    for (process, own, ambient) in [
        ("rdma-loader.service", CAP_DAC_READ_SEARCH, NO_CAPABILITY),
        ("rdma-inserter", BOTH_CAPABILITIES, NO_CAPABILITY),
    ] {
        let privilege = |field: &str| HOTPLUG.text(&format!("first-device/{process}.{field}"));
        assert!(
            !privilege("Uid").split('\t').any(|uid| uid == "0"),
            "{process}"
        );
        for (set, expected) in [
            ("CapEff", own),
            ("CapPrm", own),
            ("CapBnd", BOTH_CAPABILITIES),
            ("CapAmb", ambient),
        ] {
            assert_eq!(privilege(set), expected, "{process}: {set}");
        }
        assert_eq!(privilege("NoNewPrivs"), "1", "{process}");
        assert_eq!(privilege("Seccomp"), "2", "{process}");
    }
}

#[test]
fn the_detector_and_the_orchestrator_have_no_capability() {
    for service in ["rdma-detector", "rdma-orchestrator"] {
        let privilege = |field: &str| HOTPLUG.text(&format!("no-device/{service}.service.{field}"));
        assert!(
            !privilege("Uid").split('\t').any(|uid| uid == "0"),
            "{service}"
        );
        for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
            assert_eq!(privilege(set), NO_CAPABILITY, "{service} {set}");
        }
        assert_eq!(privilege("NoNewPrivs"), "1");
    }
}

#[test]
fn the_target_stays_active_and_is_started_once() {
    assert_eq!(HOTPLUG.text("first-device/target-later"), "active");
    let starts = HOTPLUG.text("first-device/starts-of-target");
    let starts = starts
        .lines()
        .filter(|line| line.starts_with("Reached target"));
    assert_eq!(starts.count(), 1);
}

#[test]
fn a_second_device_becomes_ready() {
    HOTPLUG.assert_succeeded("second-device/becomes-ready");
    let list = HOTPLUG.json("second-device/list");
    assert_eq!(device(&list, "rxe0")["state"], "ready");
    assert_eq!(device(&list, "rxe1")["state"], "ready");
}

#[test]
fn invalid_input_gets_a_typed_reply_and_loads_nothing() {
    let outcome = |name: &str| HOTPLUG.json(&format!("bad-input/{name}"))["results"][0].clone();
    assert_eq!(outcome("unknown")["outcome"], "missing");
    assert_eq!(outcome("denied")["outcome"], "denied");
    assert_eq!(outcome("denied")["deniedBy"], "policy");
    assert_eq!(outcome("dependency")["outcome"], "alreadyLoaded");
    let invalid = "org.varlink.service.InvalidParameter";
    for (case, parameter) in [
        ("path", "modules[0]"),
        ("wrong-type", "modules"),
        ("unknown-field", "options"),
    ] {
        assert_eq!(HOTPLUG.varlink_error(&format!("bad-input/{case}")), invalid);
        let named = HOTPLUG.json(&format!("bad-input/{case}"));
        assert_eq!(named["parameter"], parameter, "{case}");
    }
    // The kernel loads the module of sock-diag once, as it does for ss(8): the service has queried
    // the real user of a caller with the number 65534.
    let after = modules(&HOTPLUG, "bad-input/modules-after").into_iter();
    let after: Vec<String> = after.filter(|module| module != "unix_diag").collect();
    assert_eq!(modules(&HOTPLUG, "bad-input/modules-before"), after);
    assert_eq!(outcome("still-answers")["outcome"], "alreadyLoaded");
}

#[test]
fn an_unprivileged_user_can_list_devices_and_cannot_load_modules() {
    HOTPLUG.assert_not_admitted("bad-input/nobody");
    HOTPLUG.assert_succeeded("bad-input/nobody-lists");
}

#[test]
fn a_killed_detector_is_restarted_and_misses_no_device() {
    HOTPLUG.assert_succeeded("restarted-detector/comes-back");
    HOTPLUG.assert_succeeded("restarted-detector/is-noticed");
    let list = HOTPLUG.json("restarted-detector/list");
    assert_eq!(device(&list, "rxe0")["state"], "ready");
}

#[test]
fn a_deleted_device_is_removed_from_both_lists() {
    HOTPLUG.assert_succeeded("removed/is-noticed");
    for (list, interface) in [("list", "Orchestrator"), ("devices", "Detector")] {
        assert_eq!(
            HOTPLUG.varlink_error(&format!("removed/{list}")),
            format!("org.rdmahotplug.{interface}.NoSuchDevice")
        );
    }
    assert!(
        !HOTPLUG.succeeded("removed/flag"),
        "the flag is still there"
    );
    assert_no_unit_failed(&HOTPLUG, "removed");
}

#[test]
fn the_rdma_core_can_be_unloaded_without_devices_while_the_services_run() {
    HOTPLUG.assert_succeeded("removed/unload");
    HOTPLUG.assert_succeeded("removed/unload-core");
}

#[test]
fn a_device_that_exists_before_the_services_start_becomes_ready() {
    COLDPLUG.assert_succeeded("coldplug/becomes-ready");
    let list = COLDPLUG.json("coldplug/list");
    assert_eq!(device(&list, "rxe0")["state"], "ready");
    assert_list_is_live(&COLDPLUG, "coldplug");
    assert_eq!(COLDPLUG.text("coldplug/rdma-hw.target"), "active");
    assert_no_unit_failed(&COLDPLUG, "coldplug");
}

#[test]
fn boot_waits_until_an_existing_device_has_its_modules() {
    let time =
        |unit: &str| COLDPLUG.microseconds("coldplug/times", unit, "ActiveEnterTimestampMonotonic");
    let (ready, sysinit) = (time("rdma-orchestrator.service"), time("sysinit.target"));
    assert!(
        ready <= sysinit,
        "READY at {ready} µs, sysinit.target at {sysinit} µs"
    );
    let log = COLDPLUG.text("coldplug/orchestrator.log");
    assert!(log.contains("devices set up at the start: 1"), "{log}");
}

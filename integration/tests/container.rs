//! The installed files under a real systemd: units, sockets, sandboxes, users, and systemd's own
//! varlink client. The kernel there has no RDMA and accepts no module. One boot serves all tests.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod rig;
#[path = "container/units.rs"]
mod units;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use rig::Evidence;

/// The manual page that lists the exposure level of each unit.
const MAN: &str = include_str!("../../deploy/root/usr/share/man/man7/rdma-hotplug.7");
/// The document that lists it, too.
const SECURITY: &str = include_str!("../../SECURITY.md");

static BOOT: LazyLock<Evidence> = LazyLock::new(|| {
    let modules = module_tree();
    let programs = programs();
    let layers = [modules.path(), programs.path()];
    // The scenario's waits take longer on a host that does other work.
    let options = ["--timeout", "360"].map(OsStr::new);
    rig::boot_with("container", &options, "container", &layers, "")
});

const SERVICES: [&str; 3] = ["Detector", "Loader", "Orchestrator"];
/// `CAP_DAC_READ_SEARCH` alone (`include/uapi/linux/capability.h`).
const CAP_DAC_READ_SEARCH: &str = "0000000000000004";
/// `CAP_DAC_READ_SEARCH` and `CAP_SYS_MODULE`.
const BOTH_CAPABILITIES: &str = "0000000000010004";
const NO_CAPABILITY: &str = "0000000000000000";

/// Creates a module tree for the running kernel: real indexes, and modules that no kernel accepts.
fn module_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let release = rustix::system::uname()
        .release()
        .to_str()
        .unwrap()
        .to_owned();
    let root = dir.path().join("usr/lib/modules").join(release);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loader/tests/fixtures/modules");
    for path in fs::read_to_string(fixtures.join("modules.dep"))
        .unwrap()
        .lines()
    {
        let path = root.join(path.split(':').next().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "not a module").unwrap();
    }
    for entry in fs::read_dir(&fixtures).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), root.join(entry.file_name())).unwrap();
    }
    dir
}

/// Returns a tree with `detector-stand-in` and `taken-over` where the scenario finds them.
fn programs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let programs = dir.path().join("usr/lib/rdma-hotplug-tests");
    fs::create_dir_all(&programs).unwrap();
    for program in [
        env!("CARGO_BIN_EXE_detector-stand-in"),
        env!("CARGO_BIN_EXE_taken-over"),
    ] {
        let program = Path::new(program);
        fs::copy(program, programs.join(program.file_name().unwrap())).unwrap();
    }
    dir
}

fn state(case: &str, unit: &str) -> String {
    BOOT.property(case, unit, "ActiveState")
}

#[test]
fn the_staged_tree_works_at_its_first_boot() {
    for unit in [
        "rdma-detector.socket",
        "rdma-detector-uevent.socket",
        "rdma-detector-peers.socket",
        "rdma-orchestrator-peers.socket",
        "rdma-loader.socket",
        "rdma-orchestrator.socket",
        "rdma-orchestrator.service",
        "rdma-detector.service",
        "rdma-hotplug-hardware.path",
    ] {
        assert_eq!(state("boot/units", unit), "active", "{unit}");
    }
    for target in ["rdma-hotplug-hardware.target", "rdma-hw.target"] {
        assert_eq!(state("boot/units", target), "inactive", "{target}");
    }
    assert_eq!(BOOT.text("boot/failed-units"), "");
}

#[test]
fn boot_continues_only_after_the_orchestrator_is_ready() {
    let time = |unit| BOOT.microseconds("boot/times", unit, "ActiveEnterTimestampMonotonic");
    assert!(time("rdma-orchestrator.service") <= time("sysinit.target"));
}

#[test]
fn systemd_and_udev_find_no_error_in_the_files() {
    BOOT.assert_succeeded("boot/verify");
    let complaints = BOOT.text("boot/verify.err");
    assert!(!complaints.contains("rdma-"), "{complaints}");
    BOOT.assert_succeeded("boot/udev-rules");
}

#[test]
fn varlinkctl_understands_every_service() {
    for service in SERVICES {
        let case = |name: &str| format!("varlink-{service}/{name}");
        let interface = format!("org.rdmahotplug.{service}");
        let info = BOOT.json(&case("info"));
        assert_eq!(info["product"], format!("rdma-{}", service.to_lowercase()));
        let interfaces = info["interfaces"].as_array().unwrap();
        assert!(interfaces.iter().any(|i| *i == interface), "{info}");
        assert!(BOOT.text(&case("methods")).contains(&interface));
        let idl = BOOT.text(&case("introspect"));
        assert!(idl.contains(&format!("interface {interface}")), "{idl}");
        assert!(idl.contains("# "), "{interface} lost its comments: {idl}");
        BOOT.assert_succeeded(&case("validate"));
        // A client can start the program for itself alone.
        let program = BOOT.json(&case("program-info"));
        assert_eq!(program["product"], info["product"]);
        let error = BOOT.varlink_error(&case("unknown-method"));
        assert_eq!(error, "org.varlink.service.MethodNotFound");
        // The loader can insert modules, so its socket does not admit all users.
        let admitted = if service == "Loader" { "660" } else { "666" };
        assert_eq!(BOOT.text(&case("mode")), admitted);
        let registered = format!("/run/rdma-hotplug/{interface}");
        assert!(BOOT.text(&case("registry")).ends_with(&registered));
    }
}

#[test]
fn every_service_implements_the_interface_io_systemd_service() {
    for service in SERVICES {
        let case = |name: &str| format!("varlink-{service}/{name}");
        BOOT.assert_succeeded(&case("ping"));
        BOOT.assert_succeeded(&case("debug"));
        assert_eq!(BOOT.json(&case("level"))["level"], 7);
        let invalid = "org.varlink.service.InvalidParameter";
        assert_eq!(BOOT.varlink_error(&case("no-level")), invalid);
        assert_eq!(BOOT.json(&case("no-level"))["parameter"], "level");
        let environment = BOOT.json(&case("environment"));
        let environment = environment["environment"].as_array().unwrap();
        let listen = |v: &&serde_json::Value| v.as_str().unwrap().starts_with("LISTEN_FDS=");
        assert!(environment.iter().any(|v| listen(&v)), "{environment:?}");
        for refused in ["nobody-environment", "nobody-level"] {
            if service == "Loader" {
                BOOT.assert_not_admitted(&case(refused));
                continue;
            }
            let error = BOOT.varlink_error(&case(refused));
            assert_eq!(error, "org.varlink.service.PermissionDenied", "{refused}");
        }
    }
    BOOT.assert_succeeded("varlink-Loader/reload");
    BOOT.assert_succeeded("varlink-Orchestrator/reload");
    // The detector has no configuration.
    assert_eq!(
        BOOT.varlink_error("varlink-Detector/reload"),
        "org.varlink.service.MethodNotImplemented"
    );
}

#[test]
fn the_loader_explains_a_load_lists_its_modules_and_reloads_its_policy() {
    let explained = BOOT.json("loader/explain");
    assert_eq!(explained["outcome"], "loaded");
    assert_eq!(explained["plans"][0]["steps"][0]["module"], "ib_core");
    let listed = BOOT.json("loader/list");
    let modules = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["module"].as_str().unwrap());
    assert!(modules.clone().any(|module| module == "ib_uverbs"));
    assert!(modules.clone().all(|module| module != "hfi1"));
    BOOT.assert_succeeded("loader/reload");
    assert_eq!(BOOT.json("loader/reloaded")["outcome"], "loaded");
}

#[test]
fn an_idle_loader_exits_and_loses_no_client() {
    BOOT.assert_succeeded("idle/ends");
    assert_eq!(
        BOOT.property("idle/result", "rdma-loader.service", "Result"),
        "success"
    );
    for moment in [
        "0.97", "0.98", "0.99", "1.00", "1.01", "1.02", "1.03", "last",
    ] {
        BOOT.assert_succeeded(&format!("idle/call-{moment}"));
    }
}

#[test]
fn root_can_pause_the_orchestrator_and_the_reason_is_shown() {
    BOOT.assert_succeeded("maintenance/settled");
    let timed_out = BOOT.varlink_error("maintenance/times-out");
    assert_eq!(timed_out, "org.rdmahotplug.Orchestrator.WaitTimedOut");
    let missing = BOOT.json("maintenance/times-out");
    assert_eq!(missing["waitingFor"][0], "mlx5_0, which is not registered");
    let refused = BOOT.varlink_error("maintenance/nobody");
    assert_eq!(refused, "org.varlink.service.PermissionDenied");
    assert_eq!(BOOT.json("maintenance/paused")["paused"], "firmware update");
    assert!(BOOT.json("maintenance/resumed")["paused"].is_null());
    let again = BOOT.varlink_error("maintenance/resume-again");
    assert_eq!(again, "org.rdmahotplug.Orchestrator.NotPaused");
    BOOT.assert_succeeded("maintenance/reconcile");
    BOOT.assert_succeeded("maintenance/reload");
}

#[test]
fn list_calls_with_invalid_input_or_without_devices_get_typed_errors() {
    for service in ["Detector", "Orchestrator"] {
        let error = |case: &str| BOOT.varlink_error(&format!("lists/{service}-{case}"));
        let interface = format!("org.rdmahotplug.{service}");
        assert_eq!(error("empty"), format!("{interface}.NoSuchDevice"));
        assert_eq!(error("without-more"), "org.varlink.service.ExpectedMore");
        for (case, parameter) in [("unknown-field", "zzz"), ("wrong-type", "name")] {
            assert_eq!(error(case), "org.varlink.service.InvalidParameter");
            let named = BOOT.json(&format!("lists/{service}-{case}"));
            assert_eq!(named["parameter"], parameter);
        }
    }
}

#[test]
fn an_unprivileged_user_cannot_load_modules() {
    BOOT.assert_not_admitted("loader/nobody");
}

#[test]
fn the_loader_tries_to_insert_only_modules_that_its_policy_allows() {
    let reply = BOOT.json("loader/root");
    let results = reply["results"].as_array().unwrap();
    let outcomes: Vec<(&str, &str)> = results
        .iter()
        .map(|r| {
            (
                r["module"].as_str().unwrap(),
                r["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("nosuch", "missing"),
            ("hfi1", "denied"),
            ("virtio_pci", "builtin"),
            ("ib_uverbs", "failed"),
        ]
    );
    let failed = &results[3];
    assert_eq!(failed["culprit"], "ib_core");
    // A kernel with modules returns ENOEXEC, one without returns ENOSYS.
    let errno = failed["errnoName"].as_str().unwrap();
    assert!(["ENOEXEC", "ENOSYS"].contains(&errno), "{failed}");
}

#[test]
fn the_loader_runs_as_its_own_user_and_only_the_inserter_has_cap_sys_module() {
    // CAP_SYS_MODULE is missing from each set from which a process could take it by itself.
    for (process, own, ambient) in [
        ("rdma-loader.service", CAP_DAC_READ_SEARCH, NO_CAPABILITY),
        ("rdma-inserter", BOTH_CAPABILITIES, NO_CAPABILITY),
    ] {
        let privilege = |field: &str| BOOT.text(&format!("loader/{process}.{field}"));
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
fn the_exposure_level_of_each_unit_is_as_low_as_documented() {
    let level = |unit: &str| -> f64 {
        let table = BOOT.text(&format!("exposure/{unit}"));
        let mut lines = table.lines();
        let line = lines.find(|line| line.contains("Overall exposure level"));
        let level = line.and_then(|line| line.split(": ").nth(1)?.split(' ').next());
        level.unwrap_or_else(|| panic!("{table}")).parse().unwrap()
    };
    for beside in [
        "rdma-ndd.service",
        "iwpmd.service",
        "systemd-udevd.service",
        "systemd-modules-load.service",
    ] {
        println!("{beside}: {}", level(beside));
    }
    for (unit, most) in [
        ("rdma-detector.service", 0.7),
        ("rdma-loader.service", 1.3),
        ("rdma-orchestrator.service", 0.1),
        ("rdma-settled.service", 1.0),
        ("rdma-wait@mlx5_0.service", 1.0),
        ("rdma-hotplug-modules.service", 1.0),
        ("rdma-load-modules@rdma.service", 1.0),
    ] {
        let level = level(unit);
        println!("{unit}: {level}");
        let table = BOOT.text(&format!("exposure/{unit}"));
        assert!(level <= most, "{unit}: {level} > {most}\n{table}");
        if unit.starts_with("rdma-load-modules@") {
            // The unit is rdma-core's.
            continue;
        }
        let name = unit.replace("mlx5_0", "");
        // rdma-hotplug(7) and SECURITY.md list the same level.
        for (document, name) in [
            (MAN, name.replace('-', "\\-")),
            (SECURITY, format!("| {name} |")),
        ] {
            let rest = document.lines().find_map(|line| line.strip_prefix(&name));
            let listed = rest.and_then(|rest| rest.trim_end_matches('|').trim().parse().ok());
            assert_eq!(listed, Some(level), "{name}");
        }
    }
}

#[test]
fn the_flag_starts_the_targets_and_they_stop_when_it_is_removed() {
    BOOT.assert_succeeded("target/starts");
    for target in ["rdma-hotplug-hardware.target", "rdma-hw.target"] {
        assert_eq!(state("target/settled", target), "active");
        assert_eq!(state("target/stopped", target), "inactive");
    }
}

/// cases.md A8: with `PrivateUsers=identity` a service saw all of these users as 65534.
#[test]
fn users_above_65535_have_separate_shares() {
    for service in ["Detector", "Orchestrator"] {
        let case = |name: &str| format!("unmapped-users/{service}-{name}");
        BOOT.assert_succeeded(&case("first"));
        let error = BOOT.varlink_error(&case("first-again"));
        let expected = format!("org.rdmahotplug.{service}.TooManySubscriptions");
        assert_eq!(error, expected);
        BOOT.assert_succeeded(&case("second"));
        let second = BOOT.text(&case("second-says"));
        assert!(!second.contains("TooMany"), "{second}");
        let log = BOOT.text(&case("log"));
        assert!(log.contains("100001") && !log.contains("100002"), "{log}");
    }
}

#[test]
fn a_killed_service_is_restarted_and_the_orchestrator_reconnects() {
    for service in ["detector", "loader", "orchestrator"] {
        BOOT.assert_succeeded(&format!("restart/{service}-kill"));
        BOOT.assert_succeeded(&format!("restart/{service}-back"));
    }
    BOOT.assert_succeeded("restart/crash-loop");
    for socket in ["rdma-detector.socket", "rdma-detector-uevent.socket"] {
        assert_eq!(state("restart/sockets", socket), "active", "{socket}");
    }
    BOOT.assert_succeeded("restart/follows");
    // rdma-core's own rdma-load-modules@rdma.service finds no modules here, and fails.
    let failed = BOOT.text("restart/failed-units");
    for service in ["rdma-detector", "rdma-loader", "rdma-orchestrator"] {
        assert!(!failed.contains(service), "{failed}");
    }
}

//! A device of each protocol on a real kernel, with a real systemd, bus and polkit. It has the
//! modules and daemons of rdma-core's tables as long as it exists. Also the cases that rdma-core's
//! one-shot units miss: the second device, the re-plug, and the module that was unloaded.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use crate::rig::{self, Evidence};

static BOOT: LazyLock<Evidence> = LazyLock::new(|| {
    let kernel = rig::given("RDMA_HOTPLUG_KERNEL_TRIXIE");
    let options = ["--kernel".as_ref(), kernel.as_os_str()];
    rig::boot_with("vm", &options, "vm-protocols", &[], "rdma_test.protocols")
});

/// Fails unless all steps of a case succeeded, except those in `but`.
fn assert_all_succeeded(case: &str, but: &[&str]) {
    let files = fs::read_dir(BOOT.results.join(case)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = names.filter(|name| name.ends_with(".status")).collect();
    assert!(kept.len() > but.len(), "nothing was kept in {case}");
    for name in kept {
        let name = name.trim_end_matches(".status");
        if !but.contains(&name) {
            BOOT.assert_succeeded(&format!("{case}/{name}"));
        }
    }
}

fn lines(name: &str) -> BTreeSet<String> {
    BOOT.text(name).lines().map(str::to_owned).collect()
}

#[test]
fn each_protocol_gets_its_modules_targets_and_daemons_and_its_targets_stop_on_removal() {
    // The names of the modules themselves. opa_vnic is not shipped with this kernel.
    let every = ["ib_iser", "ib_uverbs", "rdma_ucm", "rpcrdma"];
    for (protocol, target, modules, daemons) in [
        ("roce", Some("roce"), &[][..], &[][..]),
        ("usnic", Some("usnic"), &[], &[]),
        ("none", None, &[], &[]),
        ("ib", Some("infiniband"), &["ib_ipoib", "ib_umad"], &[]),
        ("opa", Some("opa"), &["ib_ipoib", "ib_umad"], &[]),
        ("iw", Some("iwarp"), &["iw_cm"], &["iwpmd.service"]),
    ] {
        let case = format!("protocol-{protocol}");
        assert_all_succeeded(&case, &[]);
        let live = lines(&format!("{case}/modules"));
        for module in every.iter().chain(modules) {
            assert!(live.contains(*module), "{protocol}: {module}: {live:?}");
        }
        let mut units = vec![
            "rdma-hotplug-hardware.target".to_owned(),
            "rdma-hw.target".to_owned(),
        ];
        units.push("rdma-ndd.service".to_owned());
        units.extend(target.map(|target| format!("rdma-hotplug@{target}.target")));
        units.extend(daemons.iter().map(|daemon| (*daemon).to_owned()));
        let units: BTreeSet<String> = units.into_iter().collect();
        assert_eq!(lines(&format!("{case}/units")), units, "{protocol}");
        let later = lines(&format!("{case}/units-later"));
        assert!(
            later.iter().all(|unit| !unit.starts_with("rdma-hotplug")),
            "{protocol}: {later:?}"
        );
        let list = BOOT.json(&format!("{case}/list"));
        assert_eq!(list["device"]["state"], "ready");
    }
}

#[test]
fn the_first_protocol_does_not_load_the_modules_of_the_others() {
    let live = lines("protocol-roce/modules");
    for module in ["ib_ipoib", "ib_umad"] {
        assert!(!live.contains(module), "{live:?}");
    }
}

#[test]
fn units_attached_to_a_port_start_and_stop_with_it_and_the_rule_of_srp_daemon_still_applies() {
    // Its rule matches umad nodes, which a RoCE port has as well.
    assert_all_succeeded("ports", &[]);
}

#[test]
fn an_unloaded_module_is_loaded_again_for_a_second_device_and_a_replug_works() {
    assert_all_succeeded("unloaded", &[]);
    assert!(lines("unloaded/modules").contains("ib_ipoib"));
    let explained = BOOT.text("unloaded/explain");
    assert!(explained.contains("has been unloaded"), "{explained}");
    assert_eq!(BOOT.text("end/failed-units"), "");
    let initrd = lines("end/initrd");
    for module in ["ib_core", "ib_uverbs", "ib_umad", "ib_ipoib", "rpcrdma"] {
        assert!(initrd.contains(module), "{initrd:?}");
    }
    let replayed = BOOT.text("end/replay");
    assert!(
        replayed.ends_with("every decision is the same"),
        "{replayed}"
    );
}

/// Case L1 (doca-driver-build#51, #369; ksmbd#485).
#[test]
fn a_module_that_another_program_loads_is_live_even_if_it_was_denied_before() {
    assert_all_succeeded("made-live", &[]);
}

/// Case K7: a device that was plugged in or pulled out before the call is known when it returns.
#[test]
fn a_wait_covers_every_device_that_was_added_or_removed_before_it() {
    assert_all_succeeded("barrier", &[]);
    for round in 1..=3 {
        for (case, expected) in [("list", 6), ("list-gone", 0)] {
            let listed = BOOT.json(&format!("barrier/{case}-{round}"));
            let devices = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|reply| &reply["device"]);
            let waited: Vec<_> = devices
                .filter(|device| device["name"].as_str().unwrap().starts_with('b'))
                .collect();
            assert_eq!(waited.len(), expected, "{case} {round}: {listed}");
            for device in waited {
                assert_eq!(device["state"], "ready", "{case} {round}: {device}");
            }
        }
    }
}

/// Case K5.
#[test]
fn a_unit_bound_to_a_device_keeps_running_while_the_orchestrator_has_no_data_yet() {
    assert_all_succeeded("no-journal", &[]);
    assert_eq!(
        BOOT.text("no-journal/after"),
        BOOT.text("no-journal/before")
    );
    let status = BOOT.text("no-journal/status");
    assert!(status.contains("the detector has not replied"), "{status}");
}

#[test]
fn the_kernel_logs_no_warning() {
    let log = BOOT.text("end/kernel-log");
    for word in ["WARNING:", "BUG:", "Oops"] {
        assert!(!log.contains(word), "{log}");
    }
}

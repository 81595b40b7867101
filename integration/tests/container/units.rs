//! Targets, and the units that depend on them, under a real systemd: manual starts and stops, a bus
//! that disappears and returns, and the requests that the orchestrator's user may make.

use std::fs;

use super::BOOT;

/// Fails unless all steps of a case succeeded, except those in `but`.
fn assert_all_succeeded(case: &str, but: &[&str]) {
    let files = fs::read_dir(BOOT.results.join(case)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = names.filter(|name| name.ends_with(".status")).collect();
    assert!(kept.len() > but.len(), "nothing was kept in {case}");
    let log = || fs::read_to_string(BOOT.results.join("crash/log")).unwrap_or_default();
    for name in kept {
        let name = name.trim_end_matches(".status");
        if !but.contains(&name) {
            assert!(
                BOOT.succeeded(&format!("{case}/{name}")),
                "{case}/{name}\n{}",
                log()
            );
        }
    }
}

/// Returns the output as one line: its line breaks depend on the words.
fn folded(name: &str) -> String {
    let text = BOOT.text(name);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn units_attached_to_a_device_a_port_or_a_role_start_and_stop_with_it() {
    assert_all_succeeded("targets", &[]);
    assert_eq!(BOOT.text("targets/one-job"), "1");
    let status = BOOT.text("targets/status");
    assert!(
        status.contains("test0   infiniband,roce  -       ready  -        6/6"),
        "{status}"
    );
    let explained = folded("targets/explain");
    for said in [
        "test0 is ready.",
        "for devices with protocol infiniband, gives the role fabric.",
        "rdma-device@test0.target active",
        "test-device@test0.service active",
        "rdma-port@test0:2.target active test-port@test0:2.service active",
        "rdma-role@storage.target test-storage.service active",
    ] {
        assert!(explained.contains(said), "{said}: {explained}");
    }
}

/// The case that was missing is covered too: a service that waits for a device by its name, and not
/// for a target.
#[test]
fn the_documented_unit_patterns_work() {
    assert_all_succeeded("patterns", &[]);
    assert_eq!(BOOT.text("patterns/load-list-user"), "rdma-orchestrator");
    // cases.md U8: a job without an end would keep the system in the state 'starting'.
    assert_eq!(BOOT.text("patterns/other-ends"), "2min");
}

/// cases.md U1 and U2.
#[test]
fn a_unit_that_waits_for_its_restart_stops_with_its_device() {
    assert_all_succeeded("restarts", &[]);
}

/// cases.md U3.
#[test]
fn a_manual_start_or_stop_of_a_target_is_reverted_to_the_state_that_the_devices_need() {
    assert_all_succeeded("by-hand", &[]);
}

/// Cases section 4: a masked target counts as an answer while it is masked.
#[test]
fn a_masked_target_holds_nothing_back_and_is_started_when_it_is_unmasked() {
    assert_all_succeeded("masked", &[]);
}

/// cases.md U4.
#[test]
fn a_new_device_with_the_name_of_another_gets_its_units_restarted() {
    assert_all_succeeded("exchange", &[]);
}

/// cases.md U5.
#[test]
fn a_device_that_is_removed_while_the_orchestrator_is_stopped_leaves_no_unit_behind() {
    assert_all_succeeded("stopped-meanwhile", &[]);
}

/// cases.md U6.
#[test]
fn the_targets_and_their_units_return_after_isolate_and_back() {
    assert_all_succeeded("isolate", &[]);
}

/// cases.md U7.
#[test]
fn a_flag_that_cannot_be_written_is_shown_in_the_status_and_written_later() {
    assert_all_succeeded("flags", &[]);
}

/// Cases K3 and K4: a refused file and a directory that cannot be listed hide nothing, and are
/// reported.
#[test]
fn unusable_rules_hide_no_other_rules_and_the_service_continues() {
    assert_all_succeeded("refused-rules", &[]);
    let status = folded("refused-rules/status");
    assert!(status.contains("unknown key 'rolse'"), "{status}");
    for case in ["unreadable-status", "unreadable-restarted"] {
        let status = folded(&format!("refused-rules/{case}"));
        for directory in ["/etc/rdma-hotplug/rules.d", "/etc/rdma/modules"] {
            let said = format!("{directory}: Permission denied");
            assert!(status.contains(&said), "{case}: {said}: {status}");
        }
    }
}

/// The number of attempts of taken-over.
const ATTEMPTS: usize = 19;

/// Cases K1 and K2 (FaaSMem#1, drbd#77, mkosi#3702): the modules of the running kernel disappear
/// and return.
#[test]
fn a_device_is_not_ready_without_module_indexes_and_its_modules_are_retried_with_them() {
    assert_all_succeeded("indexes", &["wait"]);
    let waited = BOOT.text("indexes/wait.err");
    for said in [
        "ib_uverbs; it is unknown if this kernel has it",
        "modules.dep.bin does not exist",
    ] {
        assert!(waited.contains(said), "{said}: {waited}");
        assert!(folded("indexes/explain").contains(said), "{said}");
    }
}

/// Case L5 (Flatcar#1448, #1576, scripts#2976): system and configuration extensions bring modules,
/// exclusions of modules and rules while everything runs.
#[test]
fn modules_exclusions_and_rules_of_extensions_apply_without_a_manual_restart() {
    assert_all_succeeded("extensions", &[]);
    let failed = BOOT.text("extensions/failed-units");
    assert!(!failed.contains("rdma-orchestrator"), "{failed}");
}

/// Cases section 4, and L6: the administrator's exclusion, and its removal.
#[test]
fn an_excluded_module_is_shown_with_its_line_and_requested_when_the_line_is_removed() {
    assert_all_succeeded("excluded", &[]);
    let explained = folded("excluded/explain");
    let said = "test-excluded.conf:1 blacklists ib_uverbs";
    assert!(explained.contains(said), "{explained}");
}

/// cases.md U9.
#[test]
fn the_units_that_call_the_orchestrator_neither_wait_nor_fail_without_it() {
    assert_all_succeeded("no-orchestrator", &[]);
    let failed = BOOT.text("no-orchestrator/failed-units");
    assert!(
        !failed.contains("rdma-settled") && !failed.contains("rdma-hotplug"),
        "{failed}"
    );
}

/// cases.md A12: on systemd 257 a transient unit passes polkit by its name.
#[test]
fn the_orchestrators_user_can_start_only_the_targets_of_rdma_hotplug() {
    assert_eq!(BOOT.text("attack/id"), "rdma-orchestrator");
    let attempts = [
        "transient",
        "transient-own",
        "transient-target",
        "transient-kind",
        "start-other",
        "stop-other",
        "start-service",
        "start-hw",
        "restart",
        "enqueue",
        "properties",
        "reload",
        "reexecute",
        "kill",
        "environment",
        "link",
        "enable",
        "start-path",
        "start-link",
        "isolate",
        "hostname",
        "polkit",
    ];
    for attempt in attempts {
        let case = format!("attack/{attempt}");
        let errors = BOOT.text(&format!("{case}.err"));
        println!("{attempt}: {errors}");
        assert!(!BOOT.succeeded(&case), "{attempt}: {}", BOOT.text(&case));
    }
    assert_all_succeeded("attack", &attempts);
}

/// The restrictions of a service that was taken over, as in SECURITY.md: inside its unit, and after
/// it has restricted itself.
#[test]
fn a_compromised_service_reads_only_its_inputs_and_changes_and_runs_nothing() {
    for (service, done) in [
        ("detector", vec![]),
        ("loader", vec!["read-modprobe.d"]),
        ("inserter", vec![]),
        // It reads rules that are links, and these may point to any package's file.
        ("orchestrator", vec!["read-modprobe.d"]),
    ] {
        BOOT.assert_succeeded(&format!("taken-over/{service}-runs"));
        let attempts = BOOT.text(&format!("taken-over/{service}"));
        println!("{service}:\n{attempts}");
        assert_eq!(attempts.lines().count(), ATTEMPTS, "{service}: {attempts}");
        let succeeded = attempts.lines().filter_map(|l| l.strip_suffix(": done"));
        assert_eq!(succeeded.collect::<Vec<_>>(), done, "{service}");
    }
    BOOT.assert_succeeded("taken-over/not-pwned");
}

#[test]
fn jobs_wait_while_the_bus_is_down_and_continue_when_it_returns() {
    assert_all_succeeded("bus", &[]);
    let explained = folded("bus/explain-unknown");
    assert!(
        explained
            .contains("The attached units are unknown: the service manager cannot be reached."),
        "{explained}"
    );
}

#[test]
fn a_refusal_without_polkit_is_shown_in_the_status_and_the_device_becomes_ready() {
    assert_all_succeeded("no-polkit", &[]);
    let status = folded("no-polkit/status");
    assert!(
        status.contains("rdma-device@test8.target is refused"),
        "{status}"
    );
}

#[test]
fn an_invalid_rules_file_is_shown_with_its_line_and_its_last_good_version_stays_in_use() {
    assert_all_succeeded("bad-rules", &[]);
    let status = folded("bad-rules/status");
    assert!(
        status.contains("50-rdma-core.toml:2: unknown key 'rolse'")
            && status.contains("did you mean roles? (its last good version stays in use)"),
        "{status}"
    );
}

#[test]
fn a_killed_orchestrator_continues_from_its_journal_and_still_stops_targets() {
    assert_all_succeeded("crash", &[]);
    let history = folded("crash/history");
    for told in [
        "→ start rdma-device@test8.target for test8 (index 12)",
        "the job to start rdma-device@test8.target is done",
        "→ stop rdma-device@test8.target: no device needs it",
    ] {
        assert!(history.contains(told), "{told}: {history}");
    }
    let replayed = BOOT.text("crash/replay");
    assert!(
        replayed.ends_with("every decision is the same"),
        "{replayed}"
    );
}

//! What becomes of the units that rules name, under a real systemd: jobs and their results, units
//! bound to devices, a bus that comes and goes, and polkit that refuses or is not there.

use std::fs;

use super::BOOT;

/// Every step of a case: what was done, and what was waited for.
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

/// What was printed, in one line: where a line is broken depends on its words.
fn folded(name: &str) -> String {
    let text = BOOT.text(name);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_device_and_port_has_its_units_and_a_shared_one_is_started_once() {
    assert_all_succeeded("jobs", &["port-2"]);
    // The RoCE port in the middle has none.
    assert!(!BOOT.succeeded("jobs/port-2"));
    assert_eq!(BOOT.text("jobs/one-job"), "1");
    let status = BOOT.text("jobs/status");
    assert!(
        status.contains("test0   infiniband,roce  -       ready  -        3/3"),
        "{status}"
    );
    let explained = folded("jobs/explain");
    assert!(explained.starts_with("test0 is ready."), "{explained}");
    assert!(explained.contains("for devices with protocol infiniband, asks for:"));
}

/// And what nobody had: a service that waits for one device by its name, and not for a target.
#[test]
fn the_documented_unit_patterns_hold() {
    assert_all_succeeded("patterns", &[]);
    assert_eq!(BOOT.text("patterns/load-list-user"), "rdma-orchestrator");
}

#[test]
fn a_failed_a_refused_and_an_unknown_unit_are_said_and_a_person_can_help() {
    assert_all_succeeded("failures", &[]);
    let explained = folded("failures/explain");
    assert!(
        explained.starts_with("test0 is not ready. It waits for"),
        "{explained}"
    );
    for said in [
        "its job ended with 'failed'",
        "which may not be started",
        "test-nosuch.service",
    ] {
        assert!(explained.contains(said), "{said}: {explained}");
    }
}

#[test]
fn jobs_wait_for_a_bus_that_is_gone_and_go_on_when_it_is_back() {
    assert_all_succeeded("bus", &[]);
}

#[test]
fn without_polkit_everything_else_works_and_the_refusal_is_said() {
    assert_all_succeeded("no-polkit", &[]);
    let explained = folded("no-polkit/explain");
    assert!(
        explained.contains("which may not be started"),
        "{explained}"
    );
}

#[test]
fn a_bad_rules_file_is_said_with_its_line_and_the_last_good_one_stays() {
    assert_all_succeeded("bad-rules", &[]);
    let status = folded("bad-rules/status");
    assert!(
        status.contains("50-rdma-core.toml:2: unknown field `untis`")
            && status.contains("did you mean units? (its last good version stays in use)"),
        "{status}"
    );
}

#[test]
fn a_killed_orchestrator_goes_on_from_its_journal_and_still_stops_what_it_started() {
    assert_all_succeeded("crash", &[]);
    let history = folded("crash/history");
    for told in [
        "test0 is there: infiniband, roce",
        "→ start test-shared.service for test0 (index 1)",
        "the job to start test-shared.service is done",
        "the job to start test-fails.service ended with 'failed'",
        "the service manager cannot be asked",
        "→ stop test-port@test8:9.service: nobody needs it",
    ] {
        assert!(history.contains(told), "{told}: {history}");
    }
    let replayed = BOOT.text("crash/replay");
    assert!(
        replayed.ends_with("every decision is the same"),
        "{replayed}"
    );
}

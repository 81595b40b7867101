//! The tests of the start: it waits exactly while a device or function is set up, and not for ever.

use interfaces::orchestrator::TargetState;

use super::*;

#[test]
fn boot_is_not_delayed_on_a_host_without_rdma() {
    let mut script = Script::new(RULES);
    let told = script.all([Event::SnapshotBegins, Event::SnapshotEnds]);
    assert!(
        told.contains(&"ready: devices set up at the start: 0".to_owned()),
        "{told:?}"
    );
    assert!(told.contains(&"settled: true".to_owned()));
}

#[test]
fn boot_continues_only_when_the_modules_of_all_devices_at_the_start_are_live() {
    let mut script = Script::new(RULES);
    let told = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(1, "rxe0", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    assert_eq!(
        decisions(&told)[..1],
        ["load ib_uverbs rdma_ucm for rxe0 (index 1)"]
    );
    assert!(!told.iter().any(|words| words.starts_with("ready")));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.answer("rdma_ucm", Outcome::AlreadyLoaded);
    assert_eq!(
        decisions(&told),
        [
            "flag hardware true",
            "flag roce true",
            "ready: devices set up at the start: 1"
        ]
    );
}

#[test]
fn boot_is_not_delayed_beyond_its_deadline() {
    let mut script = Script::new(RULES);
    let _ = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(device(1, "rxe0", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    assert!(decisions(&script.wait(29)).is_empty());
    assert_eq!(
        decisions(&script.wait(1)),
        ["ready: started before these were set up: rxe0"]
    );
    assert_eq!(
        decisions(&Script::new(RULES).wait(30)),
        ["ready: started without the detector's reply"]
    );
}

#[test]
fn boot_does_not_wait_for_jobs_that_may_be_ordered_after_it() {
    let rules = "[[rule]]\nmodules = [\"ib_uverbs\"]\n";
    let mut script = Script::new(rules);
    let _ = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(1, "rxe0", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert!(
        told.contains(&"ready: devices set up at the start: 1".to_owned()),
        "{told:?}"
    );
    let targets = script.device(1).targets;
    assert!(
        targets
            .iter()
            .all(|target| target.state == TargetState::Unknown)
    );
}

#[test]
fn boot_waits_for_the_registration_of_a_bound_driver_and_5_s_for_a_missing_driver() {
    let mut script = Script::new(RULES);
    let told = script.all([
        Event::SnapshotBegins,
        function(
            "0000:c1:00.0",
            FunctionState::Capable,
            Some(WaitsFor::Driver),
            None,
        ),
        Event::SnapshotEnds,
    ]);
    assert!(
        decisions(&told).iter().all(|d| !d.starts_with("ready")),
        "{told:?}"
    );
    // No driver is loaded: the start completes, and the function is stuck in the end.
    assert!(script.wait(4).is_empty());
    let told = script.wait(1);
    assert_eq!(
        decisions(&told),
        ["ready: started before these were set up: 0000:c1:00.0"]
    );
    let mut script = Script::new(RULES);
    let _ = script.all([
        Event::SnapshotBegins,
        function(
            "0000:c1:00.0",
            FunctionState::Capable,
            Some(WaitsFor::Registration),
            Some("mlx5_core"),
        ),
        Event::SnapshotEnds,
    ]);
    assert!(decisions(&script.wait(4)).is_empty());
    let told = script.tell(function(
        "0000:c1:00.0",
        FunctionState::Registered,
        None,
        Some("mlx5_core"),
    ));
    assert_eq!(decisions(&told), ["ready: devices set up at the start: 0"]);
}

#[test]
fn a_new_process_requests_the_unfinished_jobs_and_repeats_no_finished_job() {
    let rules = "[[rule]]\nmodules = [\"ib_uverbs\"]\n";
    let mut script = Script::with_bus(rules);
    let _ = script.there(whole(1, "rxe0", &[Protocol::Roce]));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert_eq!(
        decisions(&told),
        [
            "flag hardware true",
            "flag roce true",
            "start rdma-device@rxe0.target for rxe0 (index 1)",
            "start rdma-port@rxe0:1.target for rxe0 (index 1)",
        ]
    );
    let _ = script.tell(job("rdma-device@rxe0.target", JobOutcome::Done));
    // The process is killed here.
    assert_eq!(
        decisions(&script.tell(Event::Begins(PATIENCE))),
        ["flag hardware true", "flag roce true"]
    );
    let active = |unit| (UnitName::parse(unit).unwrap(), UnitActivity::Active);
    let told = script.tell(Event::Targets(vec![
        active("rdma-device@rxe0.target"),
        active("rdma-hotplug-hardware.target"),
        active("rdma-hotplug@roce.target"),
    ]));
    assert!(decisions(&told).is_empty(), "{told:?}");
    let told = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(1, "rxe0", &[Protocol::Roce]))),
        Event::SnapshotEnds,
        answer("ib_uverbs", Outcome::AlreadyLoaded),
    ]);
    let starts = decisions(&told)
        .into_iter()
        .filter(|words| words.starts_with("start "));
    assert_eq!(
        starts.collect::<Vec<_>>(),
        ["start rdma-port@rxe0:1.target for rxe0 (index 1)"]
    );
}

#[test]
fn a_pause_does_not_delay_the_start() {
    let mut script = Script::new(RULES);
    let told = script.all([
        Event::Pause("firmware".to_owned()),
        Event::SnapshotBegins,
        Event::Device(Box::new(device(1, "rxe0", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    let ready = "ready: started before these were set up: rxe0";
    assert_eq!(decisions(&told).last(), Some(&ready));
}

/// cases.md K5 and K6: a unit with `BindsTo=` was stopped by an incomplete snapshot, and "settled"
/// stayed true without a detector.
#[test]
fn the_machine_is_settled_only_while_it_has_a_complete_detector_snapshot() {
    let known = |told: &[Action]| told.contains(&Action::Known);
    let settled = |told: &[Action]| told.contains(&Action::Settled(true));
    let mut machine = Machine::new();
    let mut step = |event| machine.step(event, 100 * SECOND);
    let _ = step(Event::Begins(PATIENCE));
    let _ = step(Event::Rules(sources(RULES)));
    let told = step(Event::SnapshotBegins);
    assert!(!known(&told) && !settled(&told), "{told:?}");
    let told = step(Event::SnapshotEnds);
    assert!(known(&told) && settled(&told), "{told:?}");
    assert_eq!(step(Event::DetectorLost), [Action::Settled(false)]);
    assert_eq!(step(Event::SnapshotBegins), []);
    assert_eq!(step(Event::SnapshotEnds), [Action::Settled(true)]);
    // The detector has lost events, and sends a new snapshot.
    assert_eq!(step(Event::SnapshotBegins), [Action::Settled(false)]);
    assert_eq!(step(Event::SnapshotEnds), [Action::Settled(true)]);
}

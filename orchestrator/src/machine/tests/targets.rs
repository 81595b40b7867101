//! The tests of targets: the devices determine the wanted state, the service manager reports the
//! actual state, and jobs remove the difference, whichever program has changed a target.

use super::*;
use interfaces::orchestrator::{Condition, State, TargetState};

const ROLE: &str = "[[rule]]\nmodules = [\"ib_uverbs\"]\nroles = [\"storage\"]\n";
const PLAIN: &str = "[[rule]]\nmodules = [\"ib_uverbs\"]\n";
const DEVICE: &str = "rdma-device@a.target";
const HARDWARE: &str = "rdma-hotplug-hardware.target";

/// Returns the jobs among the decisions for the targets whose names contain `of`.
fn jobs<'t>(told: &'t [String], of: &str) -> Vec<&'t str> {
    let mut jobs = decisions(told);
    jobs.retain(|words| {
        (words.starts_with("start ") || words.starts_with("stop ")) && words.contains(of)
    });
    jobs
}

fn known(units: &[(&str, UnitActivity)]) -> Event {
    let known = units.iter();
    Event::Targets(
        known
            .map(|(unit, is)| (UnitName::parse(unit).unwrap(), *is))
            .collect(),
    )
}

fn state(script: &Script, index: i64, target: &str) -> TargetState {
    let device = script.device(index);
    let found = device.targets.iter().find(|t| t.name == target);
    found
        .unwrap_or_else(|| panic!("{target}: {:?}", device.targets))
        .state
}

/// Adds a device with the name `a` and this index, and makes all its targets active.
fn active(script: &mut Script, index: i64) {
    let mut told = script.there(whole(index, "a", &[Protocol::Roce]));
    told.extend(script.answer("ib_uverbs", Outcome::AlreadyLoaded));
    settle(script, &told);
}

/// Completes all jobs, those that follow as well, and starts the targets of flags.
fn settle(script: &mut Script, told: &[String]) {
    let next = finish(script, told);
    if !jobs(&next, "").is_empty() {
        settle(script, &next);
    }
}

/// Completes the jobs among the decisions, and starts the targets of flags. Returns the next
/// decisions.
fn finish(script: &mut Script, told: &[String]) -> Vec<String> {
    let mut next = Vec::new();
    for words in decisions(told) {
        let mut parts = words.split([' ', ':']);
        let event = match (parts.next(), words) {
            (Some("start"), _) => job(words.split(' ').nth(1).unwrap(), JobOutcome::Done),
            (Some("stop"), _) => {
                let unit = words.strip_prefix("stop ").unwrap();
                stop_job(unit.rsplit_once(": ").unwrap().0, JobOutcome::Done)
            }
            (_, "flag hardware true") => is(HARDWARE, UnitActivity::Active),
            (_, "flag roce true") => is("rdma-hotplug@roce.target", UnitActivity::Active),
            _ => continue,
        };
        next.extend(script.tell(event));
    }
    next
}

#[test]
fn each_device_port_and_role_has_a_target_and_each_role_has_a_shared_target() {
    let mut script = Script::with_bus(ROLE);
    let _ = script.there(whole(1, "a", &[Protocol::Infiniband, Protocol::Roce]));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert_eq!(
        jobs(&told, ""),
        [
            "start rdma-device@a.target for a (index 1)",
            "start rdma-port@a:1.target for a (index 1)",
            "start rdma-port@a:2.target for a (index 1)",
            "start rdma-role@storage.target for a (index 1)",
            "start rdma-role@storage:a.target for a (index 1)",
        ]
    );
    let told = script.there(whole(2, "b", &[]));
    assert_eq!(
        jobs(&told, ""),
        [
            "start rdma-device@b.target for b (index 2)",
            "start rdma-role@storage:b.target for b (index 2)",
        ]
    );
}

/// facts/rdma.md 3, item 8: a daemon failed because the module that it needs was not loaded yet.
#[test]
fn a_target_is_started_only_after_all_modules_of_its_device_have_a_result() {
    let mut script = Script::with_bus("[[rule]]\nmodules = [\"ib_umad\", \"opa_vnic\"]\n");
    let mut told = script.there(whole(1, "a", &[Protocol::Infiniband]));
    told.extend(script.answer("opa_vnic", Outcome::Missing));
    assert_eq!(state(&script, 1, DEVICE), TargetState::Waiting);
    assert!(jobs(&told, "").is_empty(), "{told:?}");
    let told = script.answer("ib_umad", Outcome::Loaded);
    assert_eq!(jobs(&told, DEVICE).len(), 1, "{told:?}");
    assert_eq!(state(&script, 1, DEVICE), TargetState::Starting);
    // A unit on the target may wait for this device to be ready.
    assert_eq!(script.device(1).state, State::Ready);
    let _ = finish(&mut script, &told);
    assert_eq!(state(&script, 1, DEVICE), TargetState::Active);
    let conditions = script.device(1).conditions;
    let targets = conditions
        .iter()
        .find(|c| c.condition == Condition::Targets);
    assert!(targets.unwrap().met);
}

/// facts/rdma.md 3, item 25: shared work is done once.
#[test]
fn sixty_four_devices_cause_one_start_of_their_shared_role_and_the_last_removal_stops_it() {
    let mut script = Script::with_bus(ROLE);
    let mut told = Vec::new();
    for index in 0..64 {
        told.extend(script.there(whole(index, &format!("v{index}"), &[Protocol::Roce])));
    }
    told.extend(script.answer("ib_uverbs", Outcome::Loaded));
    assert_eq!(jobs(&told, "rdma-role@storage.target").len(), 1, "{told:?}");
    let _ = finish(&mut script, &told);
    for index in 0..63 {
        let told = script.tell(Event::DeviceGone(index));
        assert!(
            jobs(&told, "rdma-role@storage.target").is_empty(),
            "{told:?}"
        );
        assert_eq!(
            jobs(&told, &format!("rdma-device@v{index}.target")).len(),
            1
        );
        let _ = finish(&mut script, &told);
    }
    let told = script.tell(Event::DeviceGone(63));
    let stop = "stop rdma-role@storage.target: no device needs it";
    assert_eq!(jobs(&told, "rdma-role@storage.target"), [stop]);
}

/// cases.md U1 and U2: a unit that waited for its restart was forgotten, and kept running without
/// hardware. A target that another program starts is stopped as well.
#[test]
fn an_active_target_without_a_device_is_stopped_even_if_another_program_started_it() {
    let mut script = Script::with_bus(PLAIN);
    let told = script.tell(is(DEVICE, UnitActivity::Active));
    assert_eq!(
        jobs(&told, ""),
        [format!("stop {DEVICE}: no device needs it")]
    );
    settle(&mut script, &told);
    active(&mut script, 1);
    let told = script.tell(Event::DeviceGone(1));
    settle(&mut script, &told);
    let told = script.tell(is(DEVICE, UnitActivity::Active));
    assert_eq!(jobs(&told, DEVICE).len(), 1, "{told:?}");
}

/// cases.md U3: our stop waits, a user's start replaces it, and the device is back.
#[test]
fn a_stop_that_a_user_start_cancels_is_not_a_failure_when_the_device_returns() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let told = script.tell(Event::DeviceGone(1));
    assert_eq!(jobs(&told, DEVICE).len(), 1);
    let told = script.tell(stop_job(DEVICE, JobOutcome::Ended("canceled".to_owned())));
    assert!(jobs(&told, DEVICE).is_empty(), "{told:?}");
    // The target was started for the old device, and is started again for the new one.
    active(&mut script, 2);
    assert_eq!(state(&script, 2, DEVICE), TargetState::Active);
    let told = script.tell(Event::DeviceGone(2));
    assert_eq!(jobs(&told, DEVICE).len(), 1, "{told:?}");
}

/// cases.md U4: a resync hides a replug, and the unit keeps running for a device that was removed.
#[test]
fn a_device_that_takes_over_a_name_gets_the_target_restarted() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let mut told = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(2, "a", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    assert_eq!(
        jobs(&told, DEVICE),
        ["stop rdma-device@a.target: its name is now that of a (index 2)"]
    );
    told = finish(&mut script, &told);
    assert_eq!(
        jobs(&told, DEVICE),
        ["start rdma-device@a.target for a (index 2)"]
    );
    // The targets of flags do not change.
    assert!(jobs(&told, HARDWARE).is_empty(), "{told:?}");
}

/// cases.md U4: two devices exchange their names.
#[test]
fn two_devices_that_exchange_names_get_both_targets_restarted() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let told = script.there(whole(2, "b", &[Protocol::Roce]));
    let _ = finish(&mut script, &told);
    let told = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(1, "b", &[Protocol::Roce]))),
        Event::Device(Box::new(whole(2, "a", &[Protocol::Roce]))),
        Event::SnapshotEnds,
    ]);
    assert_eq!(
        jobs(&told, "rdma-device"),
        [
            "stop rdma-device@a.target: no device needs it",
            "stop rdma-device@b.target: its name is now that of b (index 1)",
        ]
    );
    let told = finish(&mut script, &told);
    assert_eq!(jobs(&told, "rdma-device").len(), 2, "{told:?}");
}

#[test]
fn a_rename_moves_a_device_to_the_target_of_its_new_name() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let told = script.there(whole(1, "ibp1s0", &[Protocol::Roce]));
    assert_eq!(
        jobs(&told, "rdma-device"),
        [
            "stop rdma-device@a.target: no device needs it",
            "start rdma-device@ibp1s0.target for ibp1s0 (index 1)",
        ]
    );
}

/// cases.md U5: the device is removed while the orchestrator is stopped.
#[test]
fn targets_of_devices_removed_while_the_orchestrator_was_stopped_are_stopped() {
    for with_journal in [true, false] {
        let mut script = Script::with_bus(PLAIN);
        active(&mut script, 1);
        if !with_journal {
            script = Script::new(PLAIN);
        }
        let _ = script.tell(Event::Begins(PATIENCE));
        let told = script.tell(known(&[
            (DEVICE, UnitActivity::Active),
            (HARDWARE, UnitActivity::Active),
        ]));
        // Before the detector's first snapshot has ended, the wanted targets are unknown.
        assert!(jobs(&told, "").is_empty(), "{told:?}");
        let told = script.all([Event::SnapshotBegins, Event::SnapshotEnds]);
        assert_eq!(jobs(&told, "").len(), 2, "{told:?}");
    }
}

/// Without a journal the device that a target was started for is unknown. An existing device keeps
/// the target.
#[test]
fn a_target_that_is_active_at_the_start_is_kept_while_its_device_gets_its_modules() {
    let mut script = Script::new(PLAIN);
    let told = script.all([
        known(&[(DEVICE, UnitActivity::Active)]),
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(1, "a", &[]))),
        Event::SnapshotEnds,
        answer("ib_uverbs", Outcome::AlreadyLoaded),
    ]);
    assert!(jobs(&told, DEVICE).is_empty(), "{told:?}");
    assert_eq!(state(&script, 1, DEVICE), TargetState::Active);
}

/// cases.md U6: `systemctl isolate rescue.target` and back.
#[test]
fn targets_that_stopped_with_the_bus_are_started_again_when_the_bus_returns() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let _ = script.all([
        is(DEVICE, UnitActivity::Inactive),
        is(HARDWARE, UnitActivity::Inactive),
        Event::ServiceManagerLost,
    ]);
    assert_eq!(state(&script, 1, DEVICE), TargetState::Unknown);
    let told = script.tell(known(&[("rdma-hotplug@roce.target", UnitActivity::Active)]));
    assert_eq!(
        jobs(&told, ""),
        [
            "start rdma-device@a.target for a (index 1)",
            "start rdma-hotplug-hardware.target for a (index 1)",
            "start rdma-port@a:1.target for a (index 1)",
        ]
    );
}

#[test]
fn a_repeatedly_stopped_target_is_restarted_with_growing_pauses_and_then_marked_failed() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let mut pauses = Vec::new();
    loop {
        let told = script.tell(is(DEVICE, UnitActivity::Inactive));
        assert!(jobs(&told, DEVICE).is_empty(), "{told:?}");
        let before = script.now;
        let mut told = Vec::new();
        while jobs(&told, DEVICE).is_empty() && script.machine.next_deadline().is_some() {
            told = script.wait(1);
        }
        if jobs(&told, DEVICE).is_empty() {
            break;
        }
        pauses.push((script.now - before) / SECOND);
        let _ = finish(&mut script, &told);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60]);
    let device = script.device(1);
    assert_eq!(device.targets[0].state, TargetState::Failed);
    let message = device.targets[0].message.as_deref();
    assert_eq!(message, Some("it was stopped after each start"));
    assert_eq!(device.state, State::Ready);
    let told = script.tell(Event::Reconcile);
    assert_eq!(jobs(&told, DEVICE).len(), 1);
}

/// cases.md U7: `/run` has no free inodes for a moment.
#[test]
fn a_flag_that_cannot_be_written_is_shown_and_written_again() {
    let mut script = Script::started(PLAIN);
    let _ = script.there(whole(1, "a", &[]));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert_eq!(decisions(&told), ["flag hardware true"]);
    let failed = Event::FlagFailed(Flag::Hardware, "no space".to_owned());
    let told = script.tell(failed);
    assert!(decisions(&told).is_empty());
    let problems = script.machine.describe().left_behind;
    assert_eq!(
        problems,
        ["rdma-hotplug-hardware.target does not follow the hardware: no space"]
    );
    assert_eq!(decisions(&script.wait(5)), ["flag hardware true"]);
    assert!(script.machine.describe().left_behind.is_empty());
    assert!(decisions(&script.wait(60)).is_empty());
}

/// PID 1 starts the target of a flag. A job is requested only if it does not.
#[test]
fn the_target_of_a_flag_is_left_to_pid_1_for_5_s_before_a_job_is_requested() {
    let mut script = Script::with_bus(PLAIN);
    let _ = script.there(whole(1, "a", &[]));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert!(jobs(&told, HARDWARE).is_empty(), "{told:?}");
    assert!(jobs(&script.wait(4), HARDWARE).is_empty());
    assert_eq!(jobs(&script.wait(1), HARDWARE).len(), 1);
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    assert!(jobs(&script.wait(60), HARDWARE).is_empty());
}

#[test]
fn jobs_wait_for_the_bus_and_are_requested_again_after_it_was_lost() {
    let mut script = Script::started(PLAIN);
    let _ = script.there(whole(1, "a", &[]));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert!(jobs(&told, "").is_empty(), "{told:?}");
    assert_eq!(state(&script, 1, DEVICE), TargetState::Unknown);
    let start = "start rdma-device@a.target for a (index 1)";
    assert_eq!(jobs(&script.tell(known(&[])), DEVICE), [start]);
    let _ = script.tell(Event::ServiceManagerLost);
    assert_eq!(jobs(&script.tell(known(&[])), DEVICE), [start]);
    // A result from before the loss is ignored; the new list shows the state.
    let _ = script.tell(Event::ServiceManagerLost);
    let told = script.tell(known(&[(DEVICE, UnitActivity::Active)]));
    assert!(jobs(&told, DEVICE).is_empty(), "{told:?}");
    let told = script.tell(Event::DeviceGone(1));
    assert_eq!(jobs(&told, DEVICE).len(), 1);
}

/// Item 27: a container has the device, so that units on this side cannot use it.
#[test]
fn a_device_in_another_network_namespace_is_not_ready_and_has_no_targets_until_it_returns() {
    let mut script = Script::with_bus(PLAIN);
    let _ = script.there(whole(1, "a", &[]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(job(DEVICE, JobOutcome::Done));
    let _ = script.tell(is(HARDWARE, UnitActivity::Active));
    let moved = |in_other_netns| {
        let record = detector::Device {
            in_other_netns,
            ..whole(1, "a", &[])
        };
        Event::Device(Box::new(record))
    };
    let told = script.tell(moved(true));
    let stop = "stop rdma-device@a.target: no device needs it";
    assert_eq!(jobs(&told, ""), [stop]);
    let device = script.device(1);
    assert_eq!(device.state, State::Moved);
    assert_eq!(
        device.waiting_for,
        ["its return from another network namespace"]
    );
    assert!(device.targets.is_empty(), "{:?}", device.targets);
    assert!(script.machine.describe().hardware_announced);
    let _ = script.tell(stop_job(DEVICE, JobOutcome::Done));
    assert!(script.machine.describe().settled);
    let told = script.tell(moved(false));
    assert_eq!(
        jobs(&told, ""),
        ["start rdma-device@a.target for a (index 1)"]
    );
    assert_eq!(script.device(1).state, State::Ready);
}

/// Case section 4: a masked target is a decision, until it is unmasked.
#[test]
fn a_masked_target_blocks_no_condition_and_is_started_when_it_is_unmasked() {
    let mut script = Script::with_bus(PLAIN);
    let _ = script.there(whole(1, "a", &[]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let targets = |script: &Script| {
        let device = script.device(1);
        let mut conditions = device.conditions.iter();
        conditions.any(|c| c.condition == Condition::Targets && c.met)
    };
    assert!(!targets(&script));
    let _ = script.tell(job(DEVICE, JobOutcome::Masked));
    assert!(targets(&script));
    let told = script.tell(Event::UnitFilesRead);
    assert_eq!(jobs(&told, DEVICE).len(), 1, "{told:?}");
    let _ = script.tell(job(DEVICE, JobOutcome::Done));
    assert_eq!(state(&script, 1, DEVICE), TargetState::Active);
    assert!(jobs(&script.tell(Event::UnitFilesRead), DEVICE).is_empty());
}

#[test]
fn a_failed_job_is_retried_but_the_job_of_an_invalid_masked_or_refused_target_is_not() {
    let failed = JobOutcome::Ended("dependency".to_owned());
    let invalid = JobOutcome::NotBegun("Unit has a bad unit file setting.".to_owned());
    let refused = JobOutcome::Refused("Access denied".to_owned());
    for (outcome, again, expected, message) in [
        (
            failed,
            1,
            TargetState::Failed,
            "its job ended with 'dependency'",
        ),
        (
            invalid,
            0,
            TargetState::Failed,
            "Unit has a bad unit file setting",
        ),
        (
            JobOutcome::Masked,
            0,
            TargetState::Masked,
            "an administrator has masked it",
        ),
        (refused, 0, TargetState::Refused, "Access denied"),
    ] {
        let mut script = Script::with_bus(PLAIN);
        let _ = script.there(whole(1, "a", &[]));
        let _ = script.answer("ib_uverbs", Outcome::Loaded);
        let told = script.tell(job(DEVICE, outcome));
        assert!(jobs(&told, DEVICE).is_empty(), "{told:?}");
        assert_eq!(state(&script, 1, DEVICE), expected);
        assert_eq!(
            script.device(1).targets[0].message.as_deref(),
            Some(message)
        );
        assert_eq!(script.device(1).state, State::Ready);
        let _ = script.tell(is(HARDWARE, UnitActivity::Active));
        assert_eq!(jobs(&script.wait(1), DEVICE).len(), again);
        // A reload of the unit files, a new device, a new connection and a user's request allow a
        // new job.
        let told = script.tell(known(&[]));
        assert_eq!(jobs(&told, DEVICE).len(), 1, "{told:?}");
    }
}

#[test]
fn a_target_that_cannot_be_stopped_is_shown_until_a_device_claims_it_or_it_stops() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let told = script.tell(Event::DeviceGone(1));
    assert_eq!(jobs(&told, HARDWARE).len(), 1);
    let _ = script.tell(stop_job(
        HARDWARE,
        JobOutcome::Refused("Access denied".to_owned()),
    ));
    let left = script.machine.describe().left_behind;
    assert!(
        left.contains(&format!("{HARDWARE} stays active: Access denied")),
        "{left:?}"
    );
    // The next device claims the target. Another program may stop it.
    let told = script.there(whole(2, "a", &[]));
    assert!(jobs(&told, HARDWARE).is_empty(), "{told:?}");
    assert!(
        !script
            .machine
            .describe()
            .left_behind
            .iter()
            .any(|l| l.contains(HARDWARE))
    );
    let _ = script.tell(Event::DeviceGone(2));
    let _ = script.tell(is(HARDWARE, UnitActivity::Inactive));
    assert!(
        !script
            .machine
            .describe()
            .left_behind
            .iter()
            .any(|l| l.contains(HARDWARE))
    );
}

#[test]
fn a_device_that_becomes_unmanaged_loses_its_targets() {
    let mut script = Script::with_bus(ROLE);
    active(&mut script, 1);
    let rules = "[[rule]]\nmanage = false\n";
    let told = script.tell(Event::Rules(sources(rules)));
    assert_eq!(jobs(&told, "stop").len(), 6, "{told:?}");
    assert!(script.device(1).targets.is_empty());
}

#[test]
fn a_role_that_the_rules_add_and_remove_starts_and_stops_its_targets() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let told = script.tell(Event::Rules(sources(ROLE)));
    assert_eq!(jobs(&told, "start rdma-role@").len(), 2, "{told:?}");
    let _ = finish(&mut script, &told);
    let told = script.tell(Event::Rules(sources(PLAIN)));
    assert_eq!(jobs(&told, "stop rdma-role@").len(), 2, "{told:?}");
}

#[test]
fn targets_of_a_device_removed_during_a_pause_are_stopped_after_it() {
    let mut script = Script::with_bus(PLAIN);
    active(&mut script, 1);
    let _ = script.tell(Event::Pause("firmware".to_owned()));
    let told = script.tell(Event::DeviceGone(1));
    assert!(jobs(&told, "").is_empty(), "{told:?}");
    let told = script.tell(Event::Resume);
    assert_eq!(jobs(&told, DEVICE).len(), 1, "{told:?}");
}

/// Without a connection to the service manager, names must not accumulate.
#[test]
fn devices_that_are_added_and_removed_without_a_bus_leave_no_targets() {
    let mut script = Script::started(ROLE);
    for index in 0..20 {
        let _ = script.there(whole(index, &format!("v{index}"), &[Protocol::Roce]));
        let _ = script.answer("ib_uverbs", Outcome::AlreadyLoaded);
        let _ = script.tell(Event::DeviceGone(index));
    }
    assert!(script.machine.targets.is_empty());
}

/// The start of a target may wait for a unit that it depends on, or behind a thousand other jobs.
#[test]
fn an_unfinished_start_is_stopped_when_its_device_is_removed() {
    let mut script = Script::with_bus(PLAIN);
    let _ = script.there(whole(1, "a", &[]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.tell(Event::DeviceGone(1));
    let stop = "stop rdma-device@a.target: no device needs it";
    assert_eq!(jobs(&told, DEVICE), [stop]);
    // The stop has cancelled the start, which is not a failure.
    let told = script.tell(job(DEVICE, JobOutcome::Ended("canceled".to_owned())));
    assert!(jobs(&told, "").is_empty(), "{told:?}");
    let told = script.tell(stop_job(DEVICE, JobOutcome::Done));
    assert!(jobs(&told, "").is_empty(), "{told:?}");
    // A device of that name may appear before the stop is done, and its start follows.
    let _ = script.there(whole(2, "a", &[]));
    let _ = script.answer("ib_uverbs", Outcome::AlreadyLoaded);
    let _ = script.tell(Event::DeviceGone(2));
    let _ = script.there(whole(3, "a", &[]));
    let told = script.answer("ib_uverbs", Outcome::AlreadyLoaded);
    assert!(jobs(&told, "").is_empty(), "{told:?}");
    let told = script.tell(stop_job(DEVICE, JobOutcome::NotNeeded));
    let start = "start rdma-device@a.target for a (index 3)";
    assert_eq!(jobs(&told, DEVICE), [start]);
}

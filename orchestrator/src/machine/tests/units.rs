//! Units: started when a device has its modules, once for all who share them, and stopped when
//! the last of these is gone, where a job of ours started them.

use super::*;
use interfaces::orchestrator::{State, UnitState};

const SHARED: &str = "[[rule]]\nmodules = [\"ib_uverbs\"]\nunits = [\"shared.service\"]\n";
const PORTS: &str = r#"
[[rule]]
protocol = ["infiniband"]
units = ["srp_daemon_port@{name}:{port}.service"]
while_active = ["srp_daemon.service"]
"#;

fn unit_state(script: &Script, index: i64) -> UnitState {
    script.device(index).units[0].state
}

/// facts/rdma.md 3, item 25: work that is shared is done once.
#[test]
fn sixty_four_devices_make_one_job_for_a_unit_that_they_share() {
    let mut script = Script::started(SHARED);
    let mut told = Vec::new();
    for index in 0..64 {
        told.extend(script.there(whole(index, &format!("v{index}"), &[Protocol::Roce])));
    }
    told.extend(script.answer("ib_uverbs", Outcome::Loaded));
    let starts = told.iter().filter(|words| words.starts_with("start"));
    assert_eq!(starts.count(), 1, "{told:?}");
    let told = script.tell(job("shared.service", JobOutcome::Done));
    assert_eq!(
        told.iter().filter(|words| words.ends_with("Ready")).count(),
        64
    );
    for index in 0..63 {
        let told = script.tell(Event::DeviceGone(index));
        assert!(
            !told.iter().any(|words| words.starts_with("stop shared")),
            "{told:?}"
        );
    }
    let told = script.tell(Event::DeviceGone(63));
    assert!(told.contains(&"stop shared.service: nobody needs it".to_owned()));
}

/// facts/rdma.md 3, item 8: a daemon failed because the module that it needs was not there yet.
#[test]
fn a_unit_is_started_only_when_its_device_has_the_answers_for_its_modules() {
    let rules = "[[rule]]\nmodules = [\"ib_umad\", \"opa_vnic\"]\nunits = [\"ibacm.service\"]\n";
    let mut script = Script::started(rules);
    let mut told = script.there(whole(1, "a", &[Protocol::Infiniband]));
    told.extend(script.answer("opa_vnic", Outcome::Missing));
    assert_eq!(unit_state(&script, 1), UnitState::Waiting);
    assert!(
        !told.iter().any(|words| words.starts_with("start")),
        "{told:?}"
    );
    let told = script.answer("ib_umad", Outcome::Loaded);
    assert!(
        told.contains(&"start ibacm.service for a (index 1)".to_owned()),
        "{told:?}"
    );
}

#[test]
fn what_was_active_before_is_not_ours_to_stop() {
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(job("shared.service", JobOutcome::NotNeeded));
    assert_eq!(script.device(1).state, State::Ready);
    let told = script.tell(Event::DeviceGone(1));
    assert!(
        !told.iter().any(|words| words.starts_with("stop shared")),
        "{told:?}"
    );
}

#[test]
fn a_job_under_way_when_the_device_goes_is_undone_when_it_is_known() {
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.tell(Event::DeviceGone(1));
    assert!(!told.iter().any(|words| words.starts_with("stop shared")));
    let told = script.tell(job("shared.service", JobOutcome::Done));
    assert_eq!(decisions(&told), ["stop shared.service: nobody needs it"]);
}

#[test]
fn a_job_that_was_under_way_when_device_and_bus_went_is_undone_when_the_bus_is_back() {
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(Event::DeviceGone(1));
    let _ = script.tell(Event::ServiceManager(false));
    let told = script.tell(Event::ServiceManager(true));
    assert!(
        told.contains(&"stop shared.service: nobody needs it".to_owned()),
        "{told:?}"
    );
}

#[test]
fn a_unit_that_its_own_restart_or_a_person_brought_up_is_still_ours_to_stop() {
    for started in [
        job("shared.service", JobOutcome::Ended("failed".to_owned())),
        job("shared.service", JobOutcome::Done),
    ] {
        let mut script = Script::started(SHARED);
        let _ = script.there(whole(1, "a", &[Protocol::Roce]));
        let _ = script.answer("ib_uverbs", Outcome::Loaded);
        let _ = script.tell(started);
        let _ = script.tell(is("shared.service", UnitActivity::Inactive));
        let _ = script.tell(is("shared.service", UnitActivity::Active));
        let told = script.tell(Event::DeviceGone(1));
        assert!(
            told.contains(&"stop shared.service: nobody needs it".to_owned()),
            "{told:?}"
        );
    }
}

#[test]
fn a_unit_that_could_not_be_stopped_is_no_obstacle_for_the_next_device() {
    let refused = || stop_job("shared.service", JobOutcome::Refused("no".to_owned()));
    let left = |script: &Script| script.machine.describe().left_behind;
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(job("shared.service", JobOutcome::Done));
    let _ = script.tell(Event::DeviceGone(1));
    let _ = script.tell(refused());
    assert!(left(&script).contains(&"shared.service stays up: no".to_owned()));
    let _ = script.there(whole(2, "a", &[Protocol::Roce]));
    let told = script.answer("ib_uverbs", Outcome::AlreadyLoaded);
    assert!(
        told.contains(&"start shared.service for a (index 2)".to_owned()),
        "{told:?}"
    );
    let _ = script.tell(job("shared.service", JobOutcome::NotNeeded));
    assert_eq!(script.device(2).state, State::Ready);
    // It is ours still; and when somebody else stops it, nothing is left behind.
    let _ = script.tell(Event::DeviceGone(2));
    let _ = script.tell(refused());
    let _ = script.tell(is("shared.service", UnitActivity::Inactive));
    assert!(!left(&script).iter().any(|left| left.contains("shared")));
}

#[test]
fn a_replug_while_a_unit_is_stopped_starts_it_again() {
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(job("shared.service", JobOutcome::Done));
    let _ = script.tell(Event::DeviceGone(1));
    let _ = script.there(whole(2, "a", &[Protocol::Roce]));
    let told = script.answer("ib_uverbs", Outcome::AlreadyLoaded);
    assert!(
        !told.iter().any(|words| words.starts_with("start shared")),
        "{told:?}"
    );
    // What an earlier job to start it came to says nothing now.
    let told = script.tell(job("shared.service", JobOutcome::Done));
    assert!(decisions(&told).is_empty(), "{told:?}");
    let told = script.tell(stop_job("shared.service", JobOutcome::Done));
    assert_eq!(decisions(&told), ["start shared.service for a (index 2)"]);
}

#[test]
fn a_failed_unit_is_said_and_left_to_its_own_limit() {
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.tell(job(
        "shared.service",
        JobOutcome::Ended("failed".to_owned()),
    ));
    assert!(decisions(&told).is_empty(), "{told:?}");
    assert_eq!(
        script.waiting_for(1),
        "shared.service, which failed: its job ended with 'failed'"
    );
    assert!(script.machine.describe().settled);
    // Restart= of its own, or a person, has helped.
    let told = script.tell(is("shared.service", UnitActivity::Active));
    assert!(told.contains(&"a Ready".to_owned()));
}

#[test]
fn a_refusal_is_said_and_asked_again_only_when_somebody_reconciles() {
    let mut script = Script::started(SHARED);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(job(
        "shared.service",
        JobOutcome::Refused("Access denied".to_owned()),
    ));
    assert_eq!(unit_state(&script, 1), UnitState::Refused);
    assert!(
        script
            .waiting_for(1)
            .ends_with("which may not be started: Access denied")
    );
    let told = script.tell(Event::Reconcile);
    assert!(
        told.contains(&"start shared.service for a (index 1)".to_owned()),
        "{told:?}"
    );
}

#[test]
fn a_unit_that_somebody_stops_is_left_alone_or_put_back_as_its_rule_says() {
    for (restore, expected) in [(false, 0), (true, 1)] {
        let rules = format!("{SHARED}restore = {restore}\n");
        let mut script = Script::started(&rules);
        let _ = script.there(whole(1, "a", &[Protocol::Roce]));
        let _ = script.answer("ib_uverbs", Outcome::Loaded);
        let _ = script.tell(job("shared.service", JobOutcome::Done));
        let told = script.tell(is("shared.service", UnitActivity::Inactive));
        assert_eq!(decisions(&told).len(), expected, "{told:?}");
    }
}

/// facts/rdma.md 3, item 17: srp_daemon's ports are started as they come.
#[test]
fn each_port_has_its_unit_as_long_as_the_service_that_it_belongs_to_is_active() {
    let mut script = Script::started(PORTS);
    let told = script.there(whole(
        1,
        "mlx5_0",
        &[Protocol::Infiniband, Protocol::Roce, Protocol::Infiniband],
    ));
    assert!(decisions(&told).contains(&"follow srp_daemon.service"));
    assert!(
        !decisions(&told).iter().any(|d| d.starts_with("start")),
        "{told:?}"
    );
    // Without srp_daemon its ports hold nothing back.
    assert_eq!(script.device(1).state, State::Ready);
    let told = script.tell(is("srp_daemon.service", UnitActivity::Active));
    assert_eq!(
        decisions(&told),
        [
            "start srp_daemon_port@mlx5_0:1.service for mlx5_0 (index 1)",
            "start srp_daemon_port@mlx5_0:3.service for mlx5_0 (index 1)",
        ]
    );
    // A port that comes later starts at once, without enumerating anything.
    let told = script.there(whole(2, "mlx5_1", &[Protocol::Infiniband]));
    assert!(
        decisions(&told).contains(&"start srp_daemon_port@mlx5_1:1.service for mlx5_1 (index 2)")
    );
    // It went with the service that it is bound to: nobody has stopped it.
    let _ = script.tell(job("srp_daemon_port@mlx5_1:1.service", JobOutcome::Done));
    let _ = script.tell(is("srp_daemon.service", UnitActivity::Inactive));
    let _ = script.tell(is(
        "srp_daemon_port@mlx5_1:1.service",
        UnitActivity::Inactive,
    ));
    assert_eq!(unit_state(&script, 2), UnitState::Waiting);
    let told = script.tell(is("srp_daemon.service", UnitActivity::Active));
    assert!(
        decisions(&told).contains(&"start srp_daemon_port@mlx5_1:1.service for mlx5_1 (index 2)")
    );
}

#[test]
fn a_unit_that_went_before_the_service_that_it_is_bound_to_comes_back_with_it() {
    let mut script = Script::started(PORTS);
    let _ = script.there(whole(1, "mlx5_0", &[Protocol::Infiniband]));
    let _ = script.tell(is("srp_daemon.service", UnitActivity::Active));
    let port = "srp_daemon_port@mlx5_0:1.service";
    let _ = script.tell(job(port, JobOutcome::Done));
    // BindsTo= and After=: the port's stop comes first.
    let _ = script.tell(is(port, UnitActivity::Inactive));
    assert_eq!(unit_state(&script, 1), UnitState::Stopped);
    let _ = script.tell(is("srp_daemon.service", UnitActivity::Inactive));
    assert_eq!(unit_state(&script, 1), UnitState::Waiting);
    let told = script.tell(is("srp_daemon.service", UnitActivity::Active));
    assert_eq!(
        decisions(&told),
        ["start srp_daemon_port@mlx5_0:1.service for mlx5_0 (index 1)"]
    );
}

#[test]
fn a_devices_name_is_escaped_in_the_names_of_its_units() {
    let mut script = Script::started(PORTS);
    let _ = script.tell(is("srp_daemon.service", UnitActivity::Active));
    let _ = script.there(whole(1, "ib-fixed a", &[Protocol::Infiniband]));
    let told = script.tell(is("srp_daemon.service", UnitActivity::Active));
    assert_eq!(
        decisions(&told),
        [r"start srp_daemon_port@ib\x2dfixed\x20a:1.service for ib-fixed a (index 1)"]
    );
}

#[test]
fn a_rename_moves_a_device_to_the_unit_of_its_new_name() {
    let mut script = Script::started(PORTS);
    let _ = script.there(whole(1, "mlx5_0", &[Protocol::Infiniband]));
    let _ = script.tell(is("srp_daemon.service", UnitActivity::Active));
    let _ = script.tell(job("srp_daemon_port@mlx5_0:1.service", JobOutcome::Done));
    let told = script.there(whole(1, "ibp1s0", &[Protocol::Infiniband]));
    let decided = decisions(&told);
    assert!(decided.contains(&"stop srp_daemon_port@mlx5_0:1.service: nobody needs it"));
    assert!(
        decided.contains(&"start srp_daemon_port@ibp1s0:1.service for ibp1s0 (index 1)"),
        "{told:?}"
    );
}

#[test]
fn jobs_wait_for_the_bus_and_are_asked_for_again_when_it_was_lost() {
    let mut script = Script::started(SHARED);
    let _ = script.tell(Event::ServiceManager(false));
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert!(
        !told.iter().any(|words| words.starts_with("start")),
        "{told:?}"
    );
    assert_eq!(unit_state(&script, 1), UnitState::Queued);
    let start = "start shared.service for a (index 1)";
    assert_eq!(
        decisions(&script.tell(Event::ServiceManager(true))),
        [start]
    );
    let _ = script.tell(Event::ServiceManager(false));
    assert_eq!(
        decisions(&script.tell(Event::ServiceManager(true))),
        [start]
    );
    let _ = script.tell(job("shared.service", JobOutcome::NotNeeded));
    let told = script.tell(Event::DeviceGone(1));
    assert!(
        told.contains(&"stop shared.service: nobody needs it".to_owned()),
        "it was our job: {told:?}"
    );
}

#[test]
fn a_target_that_may_not_be_stopped_stays_up_and_is_said() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let _ = script.tell(Event::DeviceGone(1));
    let refused = JobOutcome::Refused("Access denied".to_owned());
    let _ = script.tell(stop_job("rdma-hotplug-hardware.target", refused));
    let left = script.machine.describe().left_behind;
    assert!(left.contains(&"rdma-hotplug-hardware.target stays up: Access denied".to_owned()));
}

//! The tests of modules: one request for each, retries by the kind of failure, and restoring.

use super::*;

fn asked_again(script: &mut Script, seconds: i64) -> bool {
    let told = script.wait(seconds);
    told.iter().any(|words| words.starts_with("load"))
}

#[test]
fn a_module_wanted_by_two_devices_is_requested_once_and_its_result_applies_to_both() {
    let mut script = Script::started(RULES);
    let told = script.all([
        Event::Device(Box::new(whole(1, "a", &[Protocol::Roce]))),
        Event::Device(Box::new(whole(2, "b", &[Protocol::Infiniband]))),
    ]);
    assert_eq!(
        decisions(&told),
        [
            "load ib_uverbs rdma_ucm for a (index 1)",
            "load ib_umad for b (index 2)"
        ]
    );
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    assert_eq!(
        script.answer("rdma_ucm", Outcome::Loaded),
        [
            "flag hardware true",
            "flag roce true",
            "a Ready",
            "b Registered"
        ]
    );
    assert_eq!(
        script.answer("ib_umad", Outcome::Builtin),
        ["flag infiniband true", "b Ready", "settled: true"]
    );
}

/// facts/rdma.md 3, item 22: RemainAfterExit latched on the first device.
#[test]
fn a_second_device_uses_the_live_modules_and_requests_nothing() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    assert_eq!(script.there(whole(2, "b", &[Protocol::Roce])), ["b Ready"]);
}

/// Item 4 and 20: a list names modules that the kernel does not ship.
#[test]
fn a_missing_module_keeps_no_device_from_being_ready_and_is_not_retried() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.answer("rdma_ucm", Outcome::Missing);
    assert!(told.contains(&"a Ready".to_owned()), "{told:?}");
    // Neither the time nor another device causes a new request.
    assert!(!asked_again(&mut script, 1000));
    assert_eq!(script.there(whole(2, "b", &[Protocol::Roce])), ["b Ready"]);
    // A user reconciles after a change of the module tree.
    let told = script.tell(Event::Reconcile);
    assert_eq!(
        decisions(&told),
        ["load ib_uverbs rdma_ucm for a (index 1)"]
    );
}

/// Item 5: a signal interrupted a module's initialisation, and IPoIB never appeared.
#[test]
fn an_interrupted_load_is_retried_three_times_immediately_and_then_with_a_pause() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_ipoib\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Infiniband]));
    for _ in 0..3 {
        let told = script.tell(failure("ib_ipoib", "EINTR"));
        assert_eq!(decisions(&told), ["load ib_ipoib for a (index 1)"]);
    }
    let told = script.tell(failure("ib_ipoib", "EINTR"));
    assert!(
        !told.iter().any(|words| words.starts_with("load")),
        "{told:?}"
    );
    assert!(asked_again(&mut script, 60));
    let told = script.answer("ib_ipoib", Outcome::Loaded);
    assert!(told.contains(&"a Ready".to_owned()));
}

#[test]
fn a_temporary_failure_is_retried_with_growing_pauses_until_the_retries_are_used_up() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_ipoib\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Infiniband]));
    let mut pauses = Vec::new();
    loop {
        let _ = script.tell(failure("ib_ipoib", "ENOMEM"));
        let Some(deadline) = script.machine.next_deadline() else {
            break;
        };
        assert!(script.waiting_for(1).contains("requested again"));
        pauses.push((deadline - script.now) / SECOND);
        script.now = deadline;
        assert_eq!(
            decisions(&script.tell(Event::Deadline)),
            ["load ib_ipoib for a (index 1)"]
        );
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60]);
    assert!(
        script
            .waiting_for(1)
            .ends_with("which failed: the kernel says ENOMEM")
    );
}

#[test]
fn a_permanent_failure_is_not_retried_until_a_user_reconciles() {
    for event in [
        failure("ib_ipoib", "ENOEXEC"),
        answer("ib_ipoib", Outcome::Denied),
    ] {
        let mut script = Script::started("[[rule]]\nmodules = [\"ib_ipoib\"]\n");
        let _ = script.there(whole(1, "a", &[Protocol::Infiniband]));
        let _ = script.tell(event);
        assert!(!asked_again(&mut script, 10_000));
        assert_eq!(
            script.device(1).state,
            interfaces::orchestrator::State::Registered
        );
        let told = script.tell(Event::Reconcile);
        assert_eq!(decisions(&told), ["load ib_ipoib for a (index 1)"]);
    }
}

/// Item 30: an operator reloads a driver only to make udev process the device again.
#[test]
fn reconciling_requests_the_modules_again_while_the_device_stays_ready() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    assert_eq!(
        script.tell(Event::Reconcile),
        [
            "load ib_uverbs rdma_ucm for a (index 1)",
            "a Ready",
            "settled: false"
        ]
    );
    assert_eq!(
        script.answer("ib_uverbs", Outcome::AlreadyLoaded),
        ["a Ready"]
    );
    assert_eq!(
        script.answer("rdma_ucm", Outcome::Failed),
        ["a Registered", "settled: true"]
    );
}

#[test]
fn an_unloaded_module_is_noticed_and_not_loaded_again() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let gone = Event::ModuleGone(ModuleName::parse("rdma_ucm").unwrap());
    assert_eq!(script.tell(gone.clone()), ["a Registered"]);
    assert_eq!(script.waiting_for(1), "module rdma_ucm, which was unloaded");
    assert!(script.tell(gone).is_empty());
    // Another program loads the module again.
    let there = Event::ModuleThere(ModuleName::parse("rdma_ucm").unwrap());
    assert_eq!(script.tell(there.clone()), ["a Ready"]);
    assert!(script.tell(there).is_empty());
    let other = Event::ModuleThere(ModuleName::parse("xfs").unwrap());
    assert!(script.machine.concerning(other).is_none());
}

/// The loader's result must not hide a later change.
#[test]
fn a_detector_event_during_a_load_overrides_the_result_of_the_loader() {
    let name = || ModuleName::parse("rdma_ucm").unwrap();
    let begin = || {
        let mut script = Script::started("[[rule]]\nmodules = [\"rdma_ucm\"]\n");
        let _ = script.there(whole(1, "a", &[Protocol::Roce]));
        script
    };
    // The module is loaded and unloaded, in any order.
    let mut script = begin();
    let _ = script.all([Event::ModuleThere(name()), Event::ModuleGone(name())]);
    let told = script.answer("rdma_ucm", Outcome::Loaded);
    assert_eq!(decisions(&told), ["load rdma_ucm for a (index 1)"]);
    let told = script.answer("rdma_ucm", Outcome::AlreadyLoaded);
    assert!(told.contains(&"a Ready".to_owned()), "{told:?}");
    for outcome in [Outcome::Denied, Outcome::Missing, Outcome::Failed] {
        let mut script = begin();
        let _ = script.tell(Event::ModuleThere(name()));
        let told = script.answer("rdma_ucm", outcome);
        assert!(told.contains(&"a Ready".to_owned()), "{told:?}");
    }
}

/// cases.md L1 (doca-driver-build#51, ksmbd#485): a driver package loads its own module later.
#[test]
fn a_module_that_another_program_loads_is_live_regardless_of_the_loader_result() {
    for event in [
        failure("rdma_ucm", "EINVAL"),
        failure("rdma_ucm", "EAGAIN"),
        answer("rdma_ucm", Outcome::Denied),
        answer("rdma_ucm", Outcome::Missing),
    ] {
        let mut script = Script::started(RULES);
        let _ = script.there(whole(1, "a", &[Protocol::Roce]));
        let _ = script.all([answer("ib_uverbs", Outcome::Loaded), event.clone()]);
        let _ = script.tell(Event::ModuleThere(ModuleName::parse("rdma_ucm").unwrap()));
        let device = script.device(1);
        assert_eq!(
            device.state,
            interfaces::orchestrator::State::Ready,
            "{event:?}"
        );
        let module = device
            .modules
            .iter()
            .find(|m| m.name == "rdma_ucm")
            .unwrap();
        assert_eq!(module.state, ModuleState::Live);
        assert_eq!(module.message, None, "{event:?}");
        // There are no retries.
        assert!(!asked_again(&mut script, 1000), "{event:?}");
    }
}

/// cases.md L3: a driver's initialisation may fail because there is no device.
#[test]
fn a_later_device_requests_failed_modules_again_but_not_denied_modules() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        failure("ib_uverbs", "ENODEV"),
        answer("rdma_ucm", Outcome::Denied),
    ]);
    let told = script.there(whole(2, "b", &[Protocol::Roce]));
    assert_eq!(decisions(&told), ["load ib_uverbs for b (index 2)"]);
}

/// cases.md L4.
#[test]
fn each_kind_of_failure_has_its_own_retries() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_ipoib\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Infiniband]));
    let again = [Event::ModulesInstalled];
    // Modules are installed repeatedly, and each time the module is requested.
    for errno in ["ENOEXEC"; 20] {
        let _ = script.tell(failure("ib_ipoib", errno));
        // The second request after the change.
        let _ = script.wait(2);
        let _ = script.tell(failure("ib_ipoib", errno));
        assert!(!asked_again(&mut script, 1000));
        let told = script.all(again.clone());
        assert_eq!(decisions(&told), ["load ib_ipoib for a (index 1)"]);
    }
    let _ = script.tell(failure("ib_ipoib", "ENOEXEC"));
    let _ = script.wait(2);
    // One kind of failure uses up its retries...
    for _ in 0..7 {
        let _ = script.tell(failure("ib_ipoib", "EBUSY"));
        assert!(asked_again(&mut script, 60));
    }
    let _ = script.tell(failure("ib_ipoib", "EBUSY"));
    assert!(!asked_again(&mut script, 1000));
    // ...and the next kind has its own.
    let _ = script.all(again);
    let _ = script.tell(failure("ib_ipoib", "EAGAIN"));
    assert!(asked_again(&mut script, 60));
}

#[test]
fn an_unloaded_module_is_loaded_again_if_its_rule_sets_restore() {
    let rules = "[[rule]]\nmodules = [\"rdma_ucm\"]\nrestore = true\n";
    let mut script = Script::started(rules);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("rdma_ucm", Outcome::Loaded);
    let gone = Event::ModuleGone(ModuleName::parse("rdma_ucm").unwrap());
    let told = script.tell(gone);
    assert_eq!(decisions(&told), ["load rdma_ucm for a (index 1)"]);
}

#[test]
fn a_later_device_requests_an_unloaded_module_again() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
        Event::ModuleGone(ModuleName::parse("rdma_ucm").unwrap()),
    ]);
    let told = script.there(whole(2, "b", &[Protocol::Roce]));
    assert_eq!(decisions(&told), ["load rdma_ucm for b (index 2)"]);
    let told = script.answer("rdma_ucm", Outcome::Loaded);
    assert_eq!(told[..2], ["a Ready", "b Ready"]);
}

#[test]
fn an_unloaded_module_stays_unloaded_after_a_new_snapshot_or_an_installation() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Missing),
        answer("rdma_ucm", Outcome::Loaded),
        Event::ModuleGone(ModuleName::parse("rdma_ucm").unwrap()),
    ]);
    let told = script.tell(Event::ModulesInstalled);
    assert_eq!(decisions(&told), ["load ib_uverbs for a (index 1)"]);
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.all([
        Event::SnapshotBegins,
        Event::Device(Box::new(whole(1, "a", &[Protocol::Roce]))),
        Event::ModulesThere(vec![ModuleName::parse("ib_uverbs").unwrap()]),
        Event::SnapshotEnds,
    ]);
    assert!(decisions(&told).is_empty(), "{told:?}");
}

#[test]
fn an_alias_is_tracked_by_the_module_that_was_loaded_for_it() {
    let mut script = Script::started("[[rule]]\nmodules = [\"xprtrdma\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let mut result = ModuleResult::new("xprtrdma", Outcome::Loaded);
    result.stands_for = Some(vec!["rpcrdma".to_owned()]);
    // A soft dependency, which is loaded after the module.
    result.chain = vec!["rpcrdma".to_owned(), "rdma_cm".to_owned()];
    let _ = script.tell(Event::Module(Box::new(result)));
    let module = |name| ModuleName::parse(name).unwrap();
    assert!(
        script
            .machine
            .concerning(Event::ModuleGone(module("rdma_cm")))
            .is_none()
    );
    // Case section 8: "No RDMA device of this machine wants rpcrdma".
    let explained = script.machine.explain_module(&module("rpcrdma")).unwrap();
    assert_eq!(explained.module.name, "xprtrdma");
    assert_eq!(explained.wanted_by, ["a"]);
    let gone = Event::ModuleGone(module("rpcrdma"));
    assert_eq!(script.tell(gone), ["a Registered"]);
    assert_eq!(
        script.tell(Event::ModuleThere(module("rpcrdma"))),
        ["a Ready"]
    );
}

/// Found by the explorer: a module was requested after an installation, and the process exited.
#[test]
fn a_request_that_the_last_process_left_unanswered_is_repeated_by_the_next() {
    let mut script = Script::started("[[rule]]\nmodules = [\"rdma_ucm\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("rdma_ucm", Outcome::Denied);
    let told = script.tell(Event::ModulesInstalled);
    assert_eq!(decisions(&told), ["load rdma_ucm for a (index 1)"]);
    let told = script.tell(Event::Begins(PATIENCE));
    assert!(
        told.contains(&"load rdma_ucm for a (index 1)".to_owned()),
        "{told:?}"
    );
    let _ = script.answer("rdma_ucm", Outcome::Loaded);
    let told = script.tell(Event::Begins(PATIENCE));
    assert!(
        !told.iter().any(|words| words.starts_with("load")),
        "{told:?}"
    );
}

/// Found by the explorer: the loader's result was older than the installation.
#[test]
fn an_installation_during_a_load_requests_the_module_again_unless_it_is_live() {
    let mut script = Script::started("[[rule]]\nmodules = [\"rdma_ucm\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    assert!(decisions(&script.tell(Event::ModulesInstalled)).is_empty());
    let told = script.answer("rdma_ucm", Outcome::Missing);
    assert_eq!(decisions(&told), ["load rdma_ucm for a (index 1)"]);
    // A live module is not requested.
    assert!(decisions(&script.tell(Event::ModulesInstalled)).is_empty());
    let told = script.answer("rdma_ucm", Outcome::Loaded);
    assert!(
        !told.iter().any(|words| words.starts_with("load")),
        "{told:?}"
    );
}

/// An alias of several modules is live if all of them are. The loader reports that.
#[test]
fn an_alias_of_several_modules_is_requested_again_when_one_of_them_is_loaded() {
    let mut script = Script::started("[[rule]]\nmodules = [\"both\"]\n");
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let mut result = ModuleResult::failed("both", "no");
    result.stands_for = Some(vec!["one".to_owned(), "two".to_owned()]);
    let _ = script.tell(Event::Module(Box::new(result)));
    let told = script.tell(Event::ModuleThere(ModuleName::parse("one").unwrap()));
    assert_eq!(decisions(&told), ["load both for a (index 1)"]);
}

/// The next snapshot contains the changes during a lost connection.
#[test]
fn a_snapshot_updates_the_states_of_loaded_and_unloaded_modules() {
    let mut script = Script::started(
        "[[rule]]\nmodules = [\"ib_uverbs\", \"rdma_ucm\", \"xprtrdma\", \"ib_core\"]\n",
    );
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let mut alias = ModuleResult::new("xprtrdma", Outcome::AlreadyLoaded);
    alias.stands_for = Some(vec!["rpcrdma".to_owned()]);
    let mut uverbs = ModuleResult::new("ib_uverbs", Outcome::Loaded);
    uverbs.stands_for = Some(vec!["ib_uverbs".to_owned()]);
    let _ = script.all([
        Event::Module(Box::new(alias)),
        Event::Module(Box::new(uverbs)),
        answer("rdma_ucm", Outcome::Denied),
        answer("ib_core", Outcome::Builtin),
    ]);
    let snapshot = |names: &[&str]| {
        let names = names.iter().map(|name| ModuleName::parse(name).unwrap());
        [
            Event::SnapshotBegins,
            Event::ModulesThere(names.collect()),
            Event::Device(Box::new(whole(1, "a", &[Protocol::Roce]))),
            Event::SnapshotEnds,
        ]
    };
    let _ = script.all(snapshot(&["ib_uverbs", "rdma_ucm", "rpcrdma"]));
    assert_eq!(script.waiting_for(1), "");
    let told = script.all(snapshot(&["rdma_ucm", "rpcrdma"]));
    assert!(decisions(&told).is_empty(), "{told:?}");
    assert_eq!(
        script.waiting_for(1),
        "module ib_uverbs, which was unloaded"
    );
    let _ = script.all(snapshot(&["ib_uverbs", "rdma_ucm"]));
    assert_eq!(script.waiting_for(1), "module xprtrdma, which was unloaded");
}

#[test]
fn a_replugged_device_is_set_up_again() {
    let mut script = Script::started(RULES);
    for index in 1..4 {
        let told = script.there(whole(index, "a", &[Protocol::Roce]));
        let load = format!("load ib_uverbs rdma_ucm for a (index {index})");
        assert_eq!(decisions(&told), [load]);
        let _ = script.answer("ib_uverbs", Outcome::AlreadyLoaded);
        let told = script.answer("rdma_ucm", Outcome::AlreadyLoaded);
        assert_eq!(decisions(&told), ["flag hardware true", "flag roce true"]);
        let told = script.tell(Event::DeviceGone(index));
        assert_eq!(
            decisions(&told),
            ["flag hardware false", "flag roce false",]
        );
        assert!(script.tell(Event::DeviceGone(index)).is_empty());
    }
}

#[test]
fn modules_are_not_loaded_during_a_pause_and_are_requested_when_it_ends() {
    let mut script = Script::started(RULES);
    let _ = script.tell(Event::Pause("firmware update".to_owned()));
    let told = script.there(whole(1, "a", &[Protocol::Roce]));
    assert!(decisions(&told).is_empty(), "{told:?}");
    assert_eq!(
        script.machine.describe().paused.as_deref(),
        Some("firmware update")
    );
    let told = script.tell(Event::Resume);
    assert_eq!(
        decisions(&told),
        ["load ib_uverbs rdma_ucm for a (index 1)"]
    );
}

/// Item 22: new list entries took effect only at the next boot, or each update loaded all modules.
#[test]
fn new_rules_request_only_the_new_modules() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.all([
        answer("ib_uverbs", Outcome::Loaded),
        answer("rdma_ucm", Outcome::Loaded),
    ]);
    let rules = "[[rule]]\nmodules = [\"ib_uverbs\", \"ib_iser\"]\n";
    let told = script.tell(Event::Rules(sources(rules)));
    assert_eq!(decisions(&told), ["load ib_iser for a (index 1)"]);
    let modules = script.device(1).modules;
    let names: Vec<&str> = modules.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["ib_uverbs", "ib_iser"]);
}

/// Item 25: sixty-four virtual functions took a minute because each was processed separately.
#[test]
fn sixty_four_simultaneous_devices_cause_one_load_request() {
    let mut script = Script::started(RULES);
    let mut loads = 0;
    for index in 0..64 {
        let told = script.there(whole(index, &format!("v{index}"), &[Protocol::Roce]));
        loads += decisions(&told).len();
    }
    assert_eq!(loads, 1);
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.answer("rdma_ucm", Outcome::Loaded);
    assert_eq!(
        told.iter().filter(|words| words.ends_with("Ready")).count(),
        64
    );
}

/// Cases K1: the modules of the running kernel are removed when a device appears (FaaSMem#1,
/// drbd#77).
#[test]
fn an_unknown_module_is_requested_until_it_is_live_and_the_device_waits_for_it() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("rdma_ucm", Outcome::Loaded);
    let told = script.answer("ib_uverbs", Outcome::Unknown);
    assert!(!told.contains(&"settled: true".to_owned()), "{told:?}");
    assert!(
        script
            .waiting_for(1)
            .contains("module ib_uverbs; it is unknown if this kernel has it")
    );
    let states = |script: &Script| {
        let device = script.device(1);
        let module = device.modules.into_iter().find(|m| m.name == "ib_uverbs");
        (device.state, module.unwrap().state)
    };
    assert_eq!(states(&script), (State::Registered, ModuleState::Unknown));
    // No user has to request it, however long it takes.
    for _ in 0..100 {
        assert!(asked_again(&mut script, 60));
        assert_eq!(
            states(&script).1,
            ModuleState::Unknown,
            "while it is asked for"
        );
        let _ = script.answer("ib_uverbs", Outcome::Unknown);
    }
    assert!(asked_again(&mut script, 60));
    let told = script.answer("ib_uverbs", Outcome::Loaded);
    assert!(told.contains(&"settled: true".to_owned()), "{told:?}");
    assert_eq!(states(&script), (State::Ready, ModuleState::Live));
}

fn denied(module: &str, by: Denier, message: &str) -> Event {
    Event::Module(Box::new(ModuleResult {
        denied_by: Some(by),
        message: Some(message.to_owned()),
        ..ModuleResult::new(module, Outcome::Denied)
    }))
}

/// Cases section 4: an exclusion in a file is a valid result, and nothing waits for the module.
#[test]
fn a_module_excluded_by_the_administrator_delays_no_device_and_is_shown_with_its_line() {
    for by in [
        Denier::Blacklist,
        Denier::KernelCommandLine,
        Denier::InstallLine,
    ] {
        let mut script = Script::started(RULES);
        let _ = script.there(whole(1, "a", &[Protocol::Roce]));
        let _ = script.answer("ib_uverbs", Outcome::Loaded);
        let told = script.tell(denied("rdma_ucm", by, "/etc/modprobe.d/x.conf:3 says so"));
        assert!(told.contains(&"a Ready".to_owned()), "{told:?}");
        assert!(told.contains(&"settled: true".to_owned()), "{told:?}");
        let device = script.device(1);
        let module = device
            .modules
            .iter()
            .find(|m| m.name == "rdma_ucm")
            .unwrap();
        assert_eq!(module.state, ModuleState::Excluded);
        assert_eq!(
            module.message.as_deref(),
            Some("/etc/modprobe.d/x.conf:3 says so")
        );
        // No condition waits for an excluded module.
        let mut conditions = device.conditions.iter();
        assert!(!conditions.any(|c| c.condition == Condition::Cm));
        assert!(!asked_again(&mut script, 1000));
        // A change of the administrator's policy causes a new request.
        let told = script.tell(Event::ModulesInstalled);
        assert_eq!(decisions(&told), ["load rdma_ucm for a (index 1)"]);
    }
}

/// Cases section 4: only a missing decision keeps a device from being ready.
#[test]
fn an_unanswered_module_that_no_device_wants_is_forgotten_by_the_next_process() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_uverbs\"]\n");
    let _ = script.there(device(1, "a", &[Protocol::Roce]));
    let _ = script.tell(Event::DeviceGone(1));
    let _ = script.tell(Event::Begins(PATIENCE));
    assert!(
        script
            .machine
            .explain_module(&ModuleName::parse("ib_uverbs").unwrap())
            .is_none()
    );
}

/// Case L6: changes while a path unit's service is running are not reported.
#[test]
fn a_missing_module_is_requested_twice_after_an_installation_for_all_devices_together() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_uverbs\"]\n");
    for index in 1..=3 {
        let _ = script.there(device(index, &format!("d{index}"), &[Protocol::Roce]));
    }
    let _ = script.answer("ib_uverbs", Outcome::Missing);
    let load = "load ib_uverbs for d1 (index 1)";
    assert_eq!(decisions(&script.tell(Event::ModulesInstalled)), [load]);
    let told = script.answer("ib_uverbs", Outcome::Missing);
    assert!(decisions(&told).is_empty(), "{told:?}");
    assert_eq!(decisions(&script.wait(2)), [load]);
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    assert!(decisions(&script.wait(10)).is_empty());
}

/// Case L5: neither process noticed a mount between the two.
#[test]
fn a_new_process_requests_modules_that_were_not_live_and_no_others() {
    let mut script = Script::started("[[rule]]\nmodules = [\"ib_uverbs\"]\n");
    let _ = script.there(device(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Missing);
    let told = script.tell(Event::Begins(PATIENCE));
    let load = "load ib_uverbs for a (index 1)";
    assert!(decisions(&told).contains(&load), "{told:?}");
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let told = script.tell(Event::Begins(PATIENCE));
    assert!(!decisions(&told).contains(&load), "{told:?}");
}

#[test]
fn a_module_denied_by_the_policy_keeps_the_device_from_being_ready_until_it_is_allowed() {
    let mut script = Script::started(RULES);
    let _ = script.there(whole(1, "a", &[Protocol::Roce]));
    let _ = script.answer("ib_uverbs", Outcome::Loaded);
    let _ = script.tell(denied("rdma_ucm", Denier::Policy, "no file names it"));
    assert_eq!(script.device(1).state, State::Registered);
    // Cases L6: the policy has changed.
    let told = script.tell(Event::ModulesInstalled);
    assert_eq!(decisions(&told), ["load rdma_ucm for a (index 1)"]);
    let _ = script.answer("rdma_ucm", Outcome::Loaded);
    assert_eq!(script.device(1).state, State::Ready);
}

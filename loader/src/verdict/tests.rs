//! Tests of verdicts: the precedence of several refusals. `load::tests::hostile` tests each
//! refusal.

use std::path::Path;

use super::*;
use crate::plan::{Indexes, Planner};

fn verdict(policy: &str, lines: &str, command_line: &str, live: &[&str]) -> ModuleResult {
    let mut config = Config::default();
    config.add_file(Path::new("/etc/modprobe.d/x.conf"), lines.as_bytes());
    config.add_command_line(command_line.as_bytes());
    let mut allowed = Policy::default();
    let text = format!("[[allow]]\npurpose = \"test\"\nmodules = [{policy}]\n");
    allowed.add(Path::new("test.toml"), &text);
    let parse = |bytes: &[u8]| Some(crate::index::Index::parse(bytes.to_vec()).unwrap());
    let indexes = Indexes {
        dependencies: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.dep.bin"
        )),
        builtin: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.builtin.bin"
        )),
        ..Indexes::default()
    };
    let planner = Planner {
        indexes: &indexes,
        config: &config,
        exists: &|_| true,
        admit: &|_| true,
        merge_softdeps: false,
    };
    let found = planner.look_up(b"ib_uverbs").unwrap();
    let plans: Vec<Plan> = found.iter().map(|f| planner.plan(f).unwrap()).collect();
    let facts = Facts {
        allowed: &|module| allowed.allowance(module).is_some(),
        config: &config,
        state: &|module| {
            if live.contains(&module) {
                ModuleState::Live
            } else {
                ModuleState::Absent
            }
        },
        exists: &|_| true,
    };
    judge("ib_uverbs", &plans, &facts)
}

const ALLOWED: &str = "\"ib_uverbs\"";

#[test]
fn the_policy_comes_before_every_other_refusal() {
    let result = verdict("", "blacklist ib_uverbs\n", "", &[]);
    assert_eq!(result.denied_by, Some(Denier::Policy));
}

/// cases.md L2.
#[test]
fn the_policy_does_not_apply_to_live_modules() {
    let result = verdict("", "", "", &["ib_core", "ib_uverbs"]);
    assert_eq!(result.outcome, Outcome::AlreadyLoaded);
}

#[test]
fn a_live_module_is_already_loaded_even_if_it_is_forbidden() {
    let lines = "blacklist ib_uverbs\ninstall ib_uverbs /bin/false\n";
    let result = verdict(ALLOWED, lines, "", &["ib_core", "ib_uverbs"]);
    assert_eq!(result.outcome, Outcome::AlreadyLoaded);
}

#[test]
fn a_refusal_names_the_file_and_the_line() {
    let result = verdict(ALLOWED, "\n\nblacklist ib-uverbs\n", "", &[]);
    assert_eq!(result.denied_by, Some(Denier::Blacklist));
    assert_eq!(result.source.as_deref(), Some("/etc/modprobe.d/x.conf:3"));
    assert_eq!(result.culprit, None);
}

#[test]
fn an_install_line_of_a_dependency_counts_unless_the_dependency_is_live() {
    let lines = "install ib_core exec evil\n";
    let result = verdict(ALLOWED, lines, "", &[]);
    assert_eq!(result.denied_by, Some(Denier::InstallLine));
    assert_eq!(result.culprit.as_deref(), Some("ib_core"));
    assert_eq!(result.command.as_deref(), Some("exec evil"));
    let result = verdict(ALLOWED, lines, "", &["ib_core"]);
    assert_eq!(result.outcome, Outcome::Loaded);
}

/// Case S4: the module counts as excluded, and so delays no device.
#[test]
fn an_install_line_that_forbids_is_distinguished_from_one_that_runs_a_command() {
    for (command, says) in [
        ("/bin/false", "forbids"),
        (" /usr/bin/true ", "forbids"),
        ("/bin/true && evil", "runs a command"),
        ("true", "runs a command"),
    ] {
        let line = format!("install ib_uverbs {command}\n");
        let result = verdict(ALLOWED, &line, "", &[]);
        assert!(result.message.unwrap().contains(says), "{command}");
    }
}

#[test]
fn module_blacklist_applies_to_dependencies_and_modprobe_blacklist_does_not() {
    let result = verdict(ALLOWED, "", "module_blacklist=ib_core", &[]);
    assert_eq!(result.denied_by, Some(Denier::KernelCommandLine));
    assert_eq!(result.culprit.as_deref(), Some("ib_core"));
    let result = verdict(ALLOWED, "", "modprobe.blacklist=ib_core", &[]);
    assert_eq!(result.outcome, Outcome::Loaded);
}

#[test]
fn a_forbidden_soft_dependency_is_not_a_refusal() {
    let lines = "softdep ib_uverbs pre: iw_cm\ninstall iw_cm /bin/false\n";
    assert_eq!(verdict(ALLOWED, lines, "", &[]).outcome, Outcome::Loaded);
}

#[test]
fn every_observed_errno_has_a_readable_meaning() {
    for errno in [
        Errno::ENOEXEC,
        Errno::EINVAL,
        Errno::EKEYREJECTED,
        Errno::EPERM,
        Errno::ENOENT,
        Errno::EEXIST,
        Errno::EACCES,
        Errno::ENOKEY,
        Errno::EBADMSG,
        Errno::EBUSY,
        Errno::ENODEV,
        Errno::ENOMEM,
        Errno::ENOSYS,
        Errno::E2BIG,
        Errno::ETXTBSY,
    ] {
        assert_ne!(meaning(errno), errno.desc());
    }
    assert_eq!(meaning(Errno::EIO), Errno::EIO.desc());
}

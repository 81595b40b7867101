//! The output that a user sees, as captures of 80 columns without colour in `captures/` of this
//! crate. Run with `REGENERATE=1` to write them again, and read the differences.

use std::fs;
use std::path::Path;
use std::process;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use interfaces::detector::{FunctionState, Protocol, WaitsFor};
use interfaces::loader::{ModuleResult, Outcome};
use interfaces::orchestrator::{Loading, Record, SubscribeStatusReply};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::arguments::Arguments;
use super::check::{Checked, RefusedModule};
use super::explain::{Explained, ExplainedModule};
use super::hardware::Hardware;
use super::status::Status;
use super::style::Style;
use super::{check as rules_check, completions, explain, history, monitor, status, style};
use crate::journal::{Times, story, wire};
use crate::machine::tests::{
    PATIENCE, SECOND, Script, answer, device, function, is, job, sources, whole,
};
use crate::machine::{Action, Event, JobOutcome, Machine, UnitActivity};
use crate::rules::{Rules, Source, Sources};
use crate::status_table::StatusTable;

const RULES: &str = r#"
[[rule]]
modules = ["ib_uverbs", "rdma_ucm", "xprtrdma"]
[[rule]]
protocol = ["infiniband"]
modules = ["ib_umad", "opa_vnic"]
roles = ["fabric"]
[[rule]]
name = ["spare*"]
manage = false
"#;

/// Compares a text with its capture.
fn check(name: &str, text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{name}: {line:?} is too wide");
        assert!(!line.contains('\x1b'), "{name}: {line:?} has colour");
        assert_eq!(line, line.trim_end(), "{name}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("captures")
        .join(name);
    if std::env::var_os("REGENERATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap_or_default(),
        text,
        "{name}"
    );
}

/// Plays a story: two HCAs, one of them ready, a device that is unmanaged, and a function that is
/// stuck.
fn story() -> (Script, Vec<(Event, Vec<Action>)>) {
    let mut script = Script::with_bus(RULES);
    let denied = {
        let mut result = ModuleResult::new("ib_umad", Outcome::Denied);
        result.message = Some("it is blacklisted by /etc/modprobe.d/local.conf:3".to_owned());
        Event::Module(Box::new(result))
    };
    let loaded = |name: &str, usec| {
        let mut result = ModuleResult::new(name, Outcome::Loaded);
        result.duration_usec = usec;
        Event::Module(Box::new(result))
    };
    let mut mlx5_0 = whole(3, "mlx5_0", &[Protocol::Roce]);
    mlx5_0.driver = Some("mlx5_core".to_owned());
    mlx5_0.pci_address = Some("0000:c1:00.0".to_owned());
    let mut ib = device(4, "ibp65s0", &[Protocol::Infiniband, Protocol::Roce]);
    ib.uverbs = Some("uverbs1".to_owned());
    ib.driver = Some("mlx4_core".to_owned());
    let told = [
        Event::Device(Box::new(mlx5_0)),
        loaded("ib_uverbs", 412_000),
        loaded("rdma_ucm", 1_300_000),
        loaded("xprtrdma", 87_000),
        Event::Device(Box::new(ib)),
        denied,
        answer("opa_vnic", Outcome::Missing),
        is("rdma-hotplug-hardware.target", UnitActivity::Active),
        job("rdma-device@mlx5_0.target", JobOutcome::Done),
        job("rdma-port@mlx5_0:1.target", JobOutcome::Done),
        job("rdma-device@ibp65s0.target", JobOutcome::Done),
        job(
            "rdma-role@fabric:ibp65s0.target",
            JobOutcome::Refused("Access denied".to_owned()),
        ),
        Event::Device(Box::new(whole(5, "spare0", &[Protocol::Roce]))),
        function(
            "0000:e1:00.0",
            FunctionState::Personality,
            Some(WaitsFor::Registration),
            Some("ice"),
        ),
    ];
    let mut steps = Vec::new();
    for event in told {
        script.now += SECOND / 4;
        let actions = script.machine.step(event.clone(), script.now);
        steps.push((event, actions));
    }
    script.now += 30 * SECOND;
    let actions = script.machine.step(Event::Deadline, script.now);
    steps.push((Event::Deadline, actions));
    (script, steps)
}

/// Returns the status table after the actions, and its changes.
fn table(steps: &[(Event, Vec<Action>)]) -> (StatusTable, Vec<SubscribeStatusReply>) {
    let mut table = StatusTable::default();
    let mut told = Vec::new();
    for action in steps.iter().flat_map(|(_, actions)| actions) {
        told.extend(match action {
            Action::Publish(device) => table.put((**device).clone()),
            Action::Withdraw(index) => table.remove(*index),
            Action::PublishFunction(function) => table.put_function((**function).clone()),
            Action::WithdrawFunction(name) => table.remove_function(name),
            _ => None,
        });
    }
    (table, told)
}

fn status_of(machine: &Machine, table: &StatusTable) -> Status {
    Status {
        devices: table.devices().cloned().collect(),
        functions: table.functions().cloned().collect(),
        whole: machine.describe(),
        now: 500 * SECOND,
    }
}

#[test]
fn status_shows_all_devices_and_functions_and_their_missing_requirements() {
    let (script, steps) = story();
    let (table, _) = table(&steps);
    let status = status_of(&script.machine, &table);
    check("status", &status::render(&status, &Style::plain()));
}

#[test]
fn the_status_of_a_host_without_rdma_is_one_line() {
    let script = Script::started(RULES);
    let status = status_of(&script.machine, &StatusTable::default());
    check("status-empty", &status::render(&status, &Style::plain()));
}

/// The output of `rules check` for every kind of rule, with the hardware known and not known.
#[test]
fn rules_check_shows_the_effect_of_each_rule_and_the_devices_it_selects() {
    let text = "[[rule]]\nmodules = [\"ib_uverbs\"]\nrestore = true\n\n\
        [[function]]\ndriver = [\"cxgb4\"]\nmodules = [\"iw_cxgb4\"]\n\n\
        [[rule]]\nprotocol = [\"infiniband\", \"opa\"]\nnot.name = [\"spare*\"]\nlist = \"infiniband\"\n\
        roles = [\"fabric\", \"storage\"]\n\n\
        [[rule]]\nfunction_number = [\"0-7\", 9]\nmanage = false\n";
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: Ok(text.to_owned()),
    };
    let sources = Sources {
        rules: vec![
            source("/etc/rdma-hotplug/rules.d/60-local.toml", text),
            source(
                "/etc/rdma-hotplug/rules.d/70-wrong.toml",
                "[rule]\nmanage = false\n",
            ),
        ],
        lists: vec![source(
            "/etc/rdma/modules/infiniband.conf",
            "ib_umad\nib_ipoib\n",
        )],
    };
    let rules = [Rules::read(&sources, &Rules::default())];
    let hardware = Hardware {
        devices: vec![
            whole(3, "mlx5_0", &[Protocol::Roce]),
            whole(4, "mlx5_1", &[Protocol::Infiniband]),
            whole(5, "spare0", &[Protocol::Infiniband]),
        ],
        functions: Vec::new(),
    };
    let mut checked = Checked::of(&rules, Some(&hardware));
    checked.modules.push(RefusedModule {
        name: "ib_ipoib".to_owned(),
        message: "it is blacklisted by /etc/modprobe.d/local.conf:3".to_owned(),
    });
    check(
        "rules-check",
        &rules_check::render(&checked, &Style::plain()),
    );
    let mut checked = Checked::of(&rules, None);
    checked
        .unknown
        .push("what the rules select here: cannot connect to /run/x: No such file".to_owned());
    check(
        "rules-check-alone",
        &rules_check::render(&checked, &Style::plain()),
    );
}

#[test]
fn every_line_of_help_fits_a_terminal_of_80_columns() {
    fn lines(command: &mut clap::Command, all: &mut Vec<String>) {
        for help in [command.render_help(), command.render_long_help()] {
            all.extend(help.to_string().lines().map(str::to_owned));
        }
        for sub in command.get_subcommands_mut() {
            lines(sub, all);
        }
    }
    let mut command = Arguments::command();
    command.build();
    let mut all = Vec::new();
    lines(&mut command, &mut all);
    assert!(all.len() > 100);
    for line in all {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_mistyped_command_gets_a_suggestion_and_the_command_is_optional() {
    let error = Arguments::try_parse_from(["rdma-hotplug", "statu"]).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("'status'"), "{error}");
    let arguments = Arguments::try_parse_from(["rdma-hotplug", "--json"]).unwrap();
    assert!(arguments.command.is_none() && arguments.json);
}

/// cases.md section 9: bash completed nothing after a subcommand.
#[test]
fn bash_completes_subcommands_and_their_options() {
    let script = completions(Shell::Bash);
    let completed = |words: &[&str]| {
        let last = words.last().unwrap();
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; \
             _rdma_hotplug rdma-hotplug '{last}' ''; echo \"${{COMPREPLY[@]}}\"\n\
             complete -p rdma-hotplug\n",
            words.join(" "),
            words.len() - 1,
        );
        let output = process::Command::new("bash").args(["-c", &ask]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    for (words, expected) in [
        (&["rdma-hotplug", "stat"][..], "status"),
        (&["rdma-hotplug", "wait", "--time"], "--timeout"),
        (&["rdma-hotplug", "list-modules", "--init"], "--initrd"),
        (&["rdma-hotplug", "rules", "che"], "check"),
        (&["rdma-hotplug", "rules", "check", "--li"], "--lists"),
    ] {
        let text = completed(words);
        let (reply, binding) = text.split_once('\n').unwrap();
        assert_eq!(reply, expected, "{words:?}");
        assert!(binding.trim_end().ends_with("rdma-hotplug"), "{binding}");
    }
}

#[test]
fn text_for_a_locale_without_utf8_is_ascii_only() {
    let text = "took 3 µs → ready… naïve";
    assert_eq!(
        style::encode(text.to_owned(), true),
        "took 3 us -> ready... na?ve"
    );
    assert_eq!(style::encode(text.to_owned(), false), text);
}

#[test]
fn status_shows_an_invalid_rules_file_a_pause_and_a_lost_detector() {
    let mut script = Script::started(RULES);
    let bad = "[[rule]]\nrolse = [\"x\"]\n";
    let _ = script.all([
        Event::Rules(sources(bad)),
        Event::Pause("replacing the switch in rack 12".to_owned()),
        Event::DetectorLost,
    ]);
    let status = status_of(&script.machine, &StatusTable::default());
    check("status-wrong", &status::render(&status, &Style::plain()));
}

#[test]
fn status_names_a_module_that_initialises_slowly_and_the_time_since_its_start() {
    let script = Script::started(RULES);
    let mut status = status_of(&script.machine, &StatusTable::default());
    let loading = |module: &str, seconds: i64| Loading {
        module: module.to_owned(),
        since_usec: status.now - seconds * SECOND,
    };
    status.whole.loading = vec![loading("mlx5_ib", 185), loading("ib_umad", 2)];
    let text = status::render(&status, &Style::plain());
    assert!(
        text.contains("module mlx5_ib has been initialising for 185.0 s;"),
        "{text}"
    );
    assert!(!text.contains("ib_umad"), "{text}");
}

#[test]
fn explain_shows_why_a_device_is_not_ready() {
    let (script, _) = story();
    for (name, capture) in [
        ("ibp65s0", "explain-device"),
        ("spare0", "explain-unmanaged"),
    ] {
        let reply = script.machine.explain(Some(name), None).unwrap();
        let explained = Explained::Device(Box::new(reply));
        check(capture, &explain::render(&explained, &Style::plain()));
    }
}

#[test]
fn explain_shows_why_a_module_was_loaded_or_not_and_why_a_function_is_stuck() {
    let (script, steps) = story();
    for name in ["rdma_ucm", "ib_umad", "opa_vnic"] {
        let module = interfaces::names::ModuleName::parse(name).unwrap();
        let explained = Explained::Module(Box::new(ExplainedModule {
            name: name.to_owned(),
            wanted: script.machine.explain_module(&module),
            loader: None,
        }));
        check(
            &format!("explain-{name}"),
            &explain::render(&explained, &Style::plain()),
        );
    }
    let (table, _) = table(&steps);
    let stuck = table.functions().next().unwrap().clone();
    let explained = Explained::Function(Box::new(stuck));
    check(
        "explain-function",
        &explain::render(&explained, &Style::plain()),
    );
}

#[test]
fn monitor_shows_each_change_as_one_entry() {
    let (_, steps) = story();
    let (_, told) = table(&steps);
    let time = Timestamp::from_second(1_790_000_000).unwrap();
    let time = time.to_zoned_datetime(TimeZone::UTC);
    let lines = told
        .iter()
        .map(|reply| monitor::render(reply, &time, &Style::plain()));
    check("monitor", &lines.collect::<String>());
}

#[test]
fn history_is_a_timeline_with_durations() {
    let (_, steps) = story();
    let begin = (Event::Begins(PATIENCE), Vec::new());
    let records: Vec<Record> = [begin]
        .iter()
        .chain(&steps)
        .zip(1i64..)
        .flat_map(|((event, actions), at)| {
            let times = Times {
                monotonic: at * SECOND / 4,
                realtime: 1_790_000_000 * SECOND + at * SECOND / 4,
            };
            let what = [wire::of_event(event)].into_iter();
            let what = what.chain(actions.iter().filter_map(wire::of_action));
            what.map(move |what| interfaces::journal::Record {
                monotonic_usec: times.monotonic,
                realtime_usec: times.realtime,
                what: Some(what),
            })
            .collect::<Vec<_>>()
        })
        .filter_map(|record| story::tell(&record))
        .collect();
    let text = history::render_in(&records, &TimeZone::UTC, &Style::plain());
    check("history", &text);
}

#[test]
fn colour_is_used_on_terminals_only_and_does_not_change_the_text() {
    let (script, steps) = story();
    let (table, _) = table(&steps);
    let status = status_of(&script.machine, &table);
    let coloured = status::render(&status, &Style::of(true, 80));
    assert!(coloured.contains("\x1b[32mready\x1b[0m"), "{coloured}");
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, code)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = code.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, status::render(&status, &Style::plain()));
    assert_eq!(Style::of(false, 80), Style::plain());
}

//! The manual pages against the definitions of the command and of the rules: every command, option,
//! condition, exit status and key is described, the pages describe no other, and their examples are
//! accepted by the real parsers.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Command, CommandFactory, ValueEnum};
use orchestrator::command::arguments::{Arguments, WaitCondition};
use orchestrator::rules::{Rules, Source, Sources};

const COMMAND: &str = include_str!("../../deploy/root/usr/share/man/man1/rdma-hotplug.1");
const RULES: &str = include_str!("../../deploy/root/usr/share/man/man5/rdma-hotplug-rules.5");
const SYSTEM: &str = include_str!("../../deploy/root/usr/share/man/man7/rdma-hotplug.7");

/// Returns the section of a page from a heading to the next one of its kind.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start = page.find(heading);
    let start = start.unwrap_or_else(|| panic!("no {heading:?}"));
    let body = page.get(start + heading.len()..).unwrap();
    let ends = ["\n.SH ", "\n.SS "].into_iter();
    let end = ends.filter_map(|next| body.find(next)).min();
    body.get(..end.unwrap_or(body.len())).unwrap()
}

/// Returns the tags of a section, without escapes: the lines after `.TP`.
fn tags(section: &str) -> impl Iterator<Item = String> {
    let lines = section.lines().zip(section.lines().skip(1));
    let tagged = lines.filter(|(line, _)| *line == ".TP");
    tagged.map(|(_, tag)| tag.replace("\\-", "-"))
}

/// Returns the options that a section describes: those with a tag of their own.
fn options(section: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for tag in tags(section) {
        let words = tag.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        found.extend(words.filter(|w| w.starts_with("--")).map(str::to_owned));
    }
    found
}

/// Returns the options that are defined on a command, and not for all commands.
fn defined(command: &Command, global: bool) -> BTreeSet<String> {
    let arguments = command.get_arguments();
    let own = arguments.filter(|argument| argument.is_global_set() == global);
    let long = own.filter_map(|argument| argument.get_long());
    long.map(|long| format!("--{long}")).collect()
}

/// Returns the examples of a page: the text between `.nf` and `.fi`, without escapes.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("\n.nf\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n.fi").next().unwrap());
    let plain = |text: &str| {
        text.replace("\\-", "-")
            .replace("\\(aq", "'")
            .replace("\\(dq", "\"")
            .replace("\\e", "\\")
    };
    blocks.map(plain).collect()
}

/// Returns the errors of a rules file with this text.
fn errors(text: &str) -> Vec<String> {
    let sources = Sources {
        rules: vec![Source {
            path: PathBuf::from("/etc/rdma-hotplug/rules.d/10-x.toml"),
            text: Ok(text.to_owned()),
        }],
        lists: Vec::new(),
    };
    let rules = Rules::read(&sources, &Rules::default());
    rules.errors().iter().map(ToString::to_string).collect()
}

#[test]
fn the_page_of_the_command_describes_each_command_with_its_options() {
    let arguments = Arguments::command();
    for command in arguments.get_subcommands() {
        let (heading, command) = match command.get_subcommands().next() {
            Some(inner) => (
                format!("{} {}", command.get_name(), inner.get_name()),
                inner,
            ),
            None => (command.get_name().to_owned(), command),
        };
        let heading = format!(".SS {}", heading.replace('-', "\\-"));
        let described = options(section(COMMAND, &heading));
        assert_eq!(described, defined(command, false), "{heading}");
    }
    let mut global = defined(&arguments, true);
    global.extend(["--help".to_owned(), "--version".to_owned()]);
    assert_eq!(options(section(COMMAND, ".SH OPTIONS")), global);
}

#[test]
fn the_page_of_the_command_lists_each_condition_and_exit_status() {
    let wait = section(COMMAND, ".SS wait");
    for condition in WaitCondition::value_variants() {
        let value = condition.to_possible_value().unwrap();
        assert!(wait.contains(value.get_name()), "{}", value.get_name());
    }
    let help = Arguments::command().render_help().to_string();
    let listed = help.split("Exit status:").nth(1).unwrap();
    let numbers =
        |text: &str| -> BTreeSet<char> { text.chars().filter(|c| c.is_ascii_digit()).collect() };
    let described: String = tags(section(COMMAND, ".SH EXIT STATUS")).collect();
    assert_eq!(numbers(listed), numbers(&described));
}

#[test]
fn the_page_of_the_rules_describes_each_key() {
    for table in ["rule", "function"] {
        let error = errors(&format!("[[{table}]]\nxxxxxxxx = 1\n"))
            .pop()
            .unwrap();
        let known = error.split("known here: ").nth(1).unwrap();
        for key in known.split(", ") {
            let tagged = [format!("\n.BR {key}"), format!("\n.B {key}")];
            let described = tagged.iter().any(|tag| RULES.contains(tag.as_str()));
            assert!(described, "{table}: {key}");
        }
    }
}

#[test]
fn the_parsers_accept_every_example() {
    let (mut rules, mut commands) = (0, 0);
    for example in [COMMAND, RULES, SYSTEM].into_iter().flat_map(examples) {
        let tables = ["[[rule]]", "[[function]]"];
        if example.lines().any(|line| tables.contains(&line)) {
            assert_eq!(errors(&example), [""; 0], "{example}");
            rules += 1;
        }
        for line in example.lines() {
            let line = line.trim_start_matches("$ ").trim_start_matches("# ");
            if !line.starts_with("rdma-hotplug ") {
                continue;
            }
            // The rest is for the shell.
            let words = line.split_whitespace();
            let words = words.take_while(|word| !word.starts_with(['|', '>', '&']));
            let parsed = Arguments::command().try_get_matches_from(words);
            parsed.unwrap_or_else(|e| panic!("{line}: {e}"));
            commands += 1;
        }
    }
    assert!(
        rules >= 4 && commands >= 8,
        "{rules} rules, {commands} commands"
    );
}

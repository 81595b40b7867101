//! What `rdma-hotplug rules check` says: what each rule means, what it selects on this machine, which
//! of its modules the loader refuses, and what is wrong with files. Pure. Must never say that a rule
//! selects nothing when it is not known what there is.

use serde::Serialize;

use super::hardware::Hardware;
use super::style::{Style, Tone};
use crate::rules::{Rule, Rules};

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// What is wrong, a sentence each.
    pub errors: Vec<String>,
    /// The rules of the files that can be used.
    pub rules: Vec<CheckedRule>,
    /// Modules of rules that would not be loaded.
    pub modules: Vec<RefusedModule>,
    /// What could not be found out, a sentence each.
    pub unknown: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedRule {
    /// The file.
    pub file: String,
    /// The line that it begins at, from 1.
    pub line: usize,
    /// Its table: `rule` or `function`.
    pub table: &'static str,
    /// Its number among the tables of that name in the file, from 1.
    pub number: usize,
    /// What it selects by; empty when it is for every device.
    pub selector: Vec<String>,
    /// The list of rdma-core whose modules take the place of its own.
    pub list: Option<String>,
    /// The modules that it asks for.
    pub modules: Vec<String>,
    /// The roles that it gives.
    pub roles: Vec<String>,
    /// Whether its modules are loaded again when they are unloaded.
    pub restore: bool,
    /// Whether what it selects is managed.
    pub manage: bool,
    /// The names of what it selects on this machine; absent when that is not known.
    pub selects: Option<Vec<String>>,
}

/// A module that would not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedModule {
    /// The name in the rules.
    pub name: String,
    /// Why not.
    pub message: String,
}

impl Checked {
    /// Checks rules against the hardware, where that is known.
    #[must_use]
    pub fn of(all: &[Rules], hardware: Option<&Hardware>) -> Self {
        let mut errors: Vec<String> = Vec::new();
        let mut checked = Vec::new();
        for rules in all {
            for error in rules.errors().iter().map(ToString::to_string) {
                // A list of rdma-core is read with each file.
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
            let mut here: Vec<CheckedRule> = Vec::new();
            for rule in rules.for_devices() {
                let selected = hardware.map(|hardware| {
                    let devices = hardware.devices.iter();
                    let devices = devices.filter(|device| rule.selector().selects(device));
                    devices.map(|device| device.name.clone()).collect()
                });
                here.push(CheckedRule::new("rule", rules, rule, selected));
            }
            for rule in rules.for_functions() {
                let selected = hardware.map(|hardware| {
                    let functions = hardware.functions.iter();
                    let functions = functions.filter(|of| rule.selector().selects_function(of));
                    functions.map(|function| function.name.clone()).collect()
                });
                here.push(CheckedRule::new("function", rules, rule, selected));
            }
            // As they stand in their files; those keep their order.
            let files = rules.files().map(|file| file.display().to_string());
            let files: Vec<String> = files.collect();
            let place = |rule: &CheckedRule| files.iter().position(|file| *file == rule.file);
            here.sort_by_key(|rule| (place(rule), rule.line));
            checked.append(&mut here);
        }
        Self {
            errors,
            rules: checked,
            modules: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

impl CheckedRule {
    fn new(table: &'static str, rules: &Rules, rule: &Rule, selects: Option<Vec<String>>) -> Self {
        let (_, modules) = rules.modules_of(rule);
        Self {
            file: rule.file().display().to_string(),
            line: rule.line(),
            table,
            number: rule.number(),
            selector: rule.selector().words(),
            list: rules.list_file(rule).map(|file| file.display().to_string()),
            modules: modules.iter().map(ToString::to_string).collect(),
            roles: rule
                .roles()
                .iter()
                .map(|role| role.as_str().to_owned())
                .collect(),
            restore: rule.restores(),
            manage: rule.manages(),
            selects,
        }
    }

    fn is_for(&self) -> String {
        let what = match self.table {
            "function" => "function",
            _ => "device",
        };
        match self.selector.as_slice() {
            [] => format!("every {what}"),
            words => format!("{what}s with {}", words.join(", ")),
        }
    }

    fn asks(&self) -> Vec<String> {
        if !self.manage {
            return vec!["leaves them alone".to_owned()];
        }
        let mut asks = Vec::new();
        // A list that names no modules is an answer.
        if !self.modules.is_empty() || self.list.is_some() {
            let modules = match self.modules.as_slice() {
                [] => "no modules".to_owned(),
                modules => format!("modules {}", modules.join(", ")),
            };
            let list = self.list.iter();
            let list: String = list.map(|list| format!(", from {list}")).collect();
            let again = match self.restore {
                true => ", loaded again when unloaded",
                false => "",
            };
            asks.push(format!("{modules}{list}{again}"));
        }
        if !self.roles.is_empty() {
            asks.push(format!("roles {}", self.roles.join(", ")));
        }
        asks
    }

    fn selected(&self) -> String {
        match self.selects.as_deref() {
            None => "what it selects here is not known".to_owned(),
            Some([]) => "selects nothing on this machine".to_owned(),
            Some(names) => format!("selects {}", names.join(", ")),
        }
    }
}

/// The text.
#[must_use]
pub fn render(checked: &Checked, style: &Style) -> String {
    let mut text = String::new();
    let mut file = "";
    for rule in &checked.rules {
        if rule.file != file {
            file = &rule.file;
            text.push_str(file);
            text.push('\n');
        }
        let head = format!("  line {}: ", rule.line);
        text.push_str(&style.wrap(&head, "      ", &rule.is_for()));
        for line in rule.asks().iter().chain([&rule.selected()]) {
            text.push_str(&style.wrap("      ", "        ", line));
        }
    }
    if checked.rules.is_empty() && checked.errors.is_empty() {
        text.push_str("no rules\n");
    }
    let refused = checked.modules.iter();
    let refused = refused.map(|module| format!("{}: {}", module.name, module.message));
    for (head, tone, lines) in [
        ("invalid:", Tone::Bad, checked.errors.clone()),
        ("would not be loaded:", Tone::Bad, refused.collect()),
        ("not known:", Tone::Pending, checked.unknown.clone()),
    ] {
        if !lines.is_empty() {
            text.push('\n');
            text.push_str(&style.paint(tone, head));
            text.push('\n');
        }
        for line in lines {
            text.push_str(&style.wrap("  ", "    ", &line));
        }
    }
    text
}

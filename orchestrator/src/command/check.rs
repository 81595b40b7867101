//! The output of `rdma-hotplug rules check`: the meaning of each rule, the devices or functions
//! that it selects on this host, its modules that the loader refuses, and the errors in files.
//! Pure. Must never report that a rule selects nothing while the hardware is not known.

use serde::Serialize;

use super::hardware::Hardware;
use super::style::{Style, Tone};
use crate::rules::{Rule, Rules};

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// The errors, a message each.
    pub errors: Vec<String>,
    /// The rules of the valid files.
    pub rules: Vec<CheckedRule>,
    /// The modules of rules that would not be loaded.
    pub modules: Vec<RefusedModule>,
    /// The parts of the check that could not be done, a message each.
    pub unknown: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedRule {
    /// The file.
    pub file: String,
    /// The line where it begins, from 1.
    pub line: usize,
    /// Its table: `rule` or `function`.
    pub table: &'static str,
    /// Its number among the tables of that name in the file, from 1.
    pub number: usize,
    /// The conditions of its selector; empty if it selects every device.
    pub selector: Vec<String>,
    /// The list of rdma-core whose modules replace its own.
    pub list: Option<String>,
    /// The modules that it requests.
    pub modules: Vec<String>,
    /// The roles that it gives.
    pub roles: Vec<String>,
    /// True if its modules are loaded again when they are unloaded.
    pub restore: bool,
    /// True if the devices or functions that it selects are managed.
    pub manage: bool,
    /// The names of the devices or functions that it selects on this host; absent if they are not
    /// known.
    pub selects: Option<Vec<String>>,
}

/// A module that would not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedModule {
    /// The name in the rules.
    pub name: String,
    /// The reason.
    pub message: String,
}

impl Checked {
    /// Checks rules against the hardware, if that is known.
    #[must_use]
    pub fn of(all: &[Rules], hardware: Option<&Hardware>) -> Self {
        let mut errors: Vec<String> = Vec::new();
        let mut checked = Vec::new();
        for rules in all {
            for error in rules.errors().iter().map(ToString::to_string) {
                // rdma-core's lists are read with each file, and so are the errors in them.
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
            // Rules are sorted by their lines in a file; the files keep their order.
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
        // A list without modules is shown, too.
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
            None => "its selection on this machine is unknown".to_owned(),
            Some([]) => "selects nothing on this machine".to_owned(),
            Some(names) => format!("selects {}", names.join(", ")),
        }
    }
}

/// Renders the result of a check.
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
        ("unknown:", Tone::Pending, checked.unknown.clone()),
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

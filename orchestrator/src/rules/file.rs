//! The parser of a rules file: it returns the rules, or an error with the line and a probable
//! correction. Pure. Must never use a part of a file that has an error elsewhere.

use std::ops::RangeInclusive;
use std::path::Path;

use interfaces::detector::{Kind, Protocol};
use interfaces::names::ModuleName;

use super::error::RulesError;
use super::pattern::Pattern;
use super::selector::{Keys, Name, Selector, kind_name};
use super::table::{File, Table, Text, nearest};
use crate::targets::Role;

/// The rules of a file.
#[derive(Debug)]
pub(super) struct RulesFile {
    pub rules: Vec<RuleText>,
    pub functions: Vec<RuleText>,
}

/// A rule for devices or for functions. A rule for functions has no list, roles or restoring.
#[derive(Clone, Debug)]
pub(super) struct RuleText {
    /// The first line of the rule, from 1.
    pub line: usize,
    pub selector: Selector,
    pub modules: Vec<ModuleName>,
    /// The name of the rdma-core list that replaces `modules`, if it exists.
    pub list: Option<String>,
    pub roles: Vec<Role>,
    pub restore: bool,
    pub manage: bool,
}

/// The keys that select devices.
const OF_DEVICES: [&str; 10] = [
    "protocol",
    "kind",
    "driver",
    "pci_id",
    "pci_address",
    "physical_function",
    "function_number",
    "guid",
    "name",
    "netdev",
];
/// The keys that select functions.
const OF_FUNCTIONS: [&str; 4] = ["driver", "pci_id", "pci_address", "name"];

/// Parses a file.
pub(super) fn parse(path: &Path, text: &str) -> Result<RulesFile, RulesError> {
    let file = File { path, text };
    let document = file.document()?;
    let top = file.table(&document, &["rule", "function"])?;
    let rules = top.tables("rule")?.into_iter().map(|table| {
        let own = [
            "virtual_function",
            "not",
            "modules",
            "list",
            "roles",
            "restore",
            "manage",
        ];
        device_rule(&file.table(table, &[&OF_DEVICES[..], &own].concat())?)
    });
    let functions = top.tables("function")?.into_iter().map(|table| {
        let own = ["not", "modules", "manage"];
        function_rule(&file.table(table, &[&OF_FUNCTIONS[..], &own].concat())?)
    });
    Ok(RulesFile {
        rules: rules.collect::<Result<_, _>>()?,
        functions: functions.collect::<Result<_, _>>()?,
    })
}

fn device_rule(table: &Table<'_>) -> Result<RuleText, RulesError> {
    let not = table.table("not", &[&OF_DEVICES[..], &["virtual_function"]].concat())?;
    let rule = RuleText {
        line: table.line(),
        selector: selector(table, not.as_ref(), device_keys)?,
        modules: modules(table)?,
        list: table
            .text("list")?
            .map(|list| list_name(&list))
            .transpose()?,
        roles: roles(table)?,
        restore: table.boolean("restore")?.unwrap_or(false),
        manage: table.boolean("manage")?.unwrap_or(true),
    };
    let asks = !rule.modules.is_empty() || !rule.roles.is_empty() || rule.list.is_some();
    match (asks, rule.manage) {
        (true, false) => Err(table.error("a rule with manage = false must not request anything")),
        (false, true) => Err(table.error("it requests nothing: no modules, list, roles or manage")),
        _ => Ok(rule),
    }
}

fn function_rule(table: &Table<'_>) -> Result<RuleText, RulesError> {
    let not = table.table("not", &OF_FUNCTIONS)?;
    let rule = RuleText {
        line: table.line(),
        selector: selector(table, not.as_ref(), function_keys)?,
        modules: modules(table)?,
        list: None,
        roles: Vec::new(),
        restore: false,
        manage: table.boolean("manage")?.unwrap_or(true),
    };
    match (rule.modules.is_empty(), rule.manage) {
        (false, false) => {
            return Err(table.error("it leaves functions alone and requests modules, too"));
        }
        (true, true) => return Err(table.error("it requests nothing: no modules or manage")),
        _ => {}
    }
    match rule.selector.keys == Keys::default() {
        true => {
            Err(table.error("it is for every function: name a driver, pci_id, pci_address or name"))
        }
        false => Ok(rule),
    }
}

/// Parses the selector of a rule: its own keys, and those below `not`.
fn selector(
    table: &Table<'_>,
    not: Option<&Table<'_>>,
    keys: fn(&Table<'_>) -> Result<Keys, RulesError>,
) -> Result<Selector, RulesError> {
    let selector = Selector {
        keys: keys(table)?,
        not: not.map(keys).transpose()?.unwrap_or_default(),
    };
    match selector.contradiction() {
        Some(why) => Err(table.error(format!("the rule can never select anything: {why}"))),
        None => Ok(selector),
    }
}

fn device_keys(table: &Table<'_>) -> Result<Keys, RulesError> {
    Ok(Keys {
        protocol: one_of(table, "protocol", &Protocol::ALL, Protocol::as_str)?,
        kind: one_of(table, "kind", &Kind::ALL, kind_name)?,
        virtual_function: table.boolean("virtual_function")?,
        function_number: numbers(table)?,
        names: names(table, &Name::OF_DEVICES, false)?,
    })
}

fn function_keys(table: &Table<'_>) -> Result<Keys, RulesError> {
    Ok(Keys {
        names: names(table, &Name::OF_FUNCTIONS, true)?,
        ..Keys::default()
    })
}

fn names(
    table: &Table<'_>,
    all: &[Name],
    of_functions: bool,
) -> Result<Vec<(Name, Vec<Pattern>)>, RulesError> {
    let mut names = Vec::new();
    for name in all {
        let Some(values) = table.texts(name.key())? else {
            continue;
        };
        let pattern = |value: Text<'_>| {
            let pattern = Pattern::parse(value.text).map_err(|e| e.to_string());
            let checked = pattern.and_then(|pattern| {
                name.check(&pattern, of_functions)?;
                Ok(pattern)
            });
            let key = name.key();
            checked.map_err(|why| {
                value.error(format!("{key} {:?} can never match: {why}", value.text))
            })
        };
        let patterns = values.into_iter().map(pattern);
        names.push((*name, patterns.collect::<Result<_, _>>()?));
    }
    Ok(names)
}

/// Parses an array of words, each of which must be in `all`.
fn one_of<T: Copy>(
    table: &Table<'_>,
    key: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<Option<Vec<T>>, RulesError> {
    let Some(values) = table.texts(key)? else {
        return Ok(None);
    };
    let value = |value: Text<'_>| {
        let known = all.iter().find(|known| name(**known) == value.text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|known| name(*known)).collect();
            match nearest(value.text, &names) {
                Some(near) => value
                    .error(format!("unknown {key} {:?}", value.text))
                    .with_hint(Some(near.to_owned())),
                None => value.error(format!(
                    "unknown {key} {:?}; known are {}",
                    value.text,
                    names.join(", ")
                )),
            }
        })
    };
    let values = values.into_iter().map(value);
    values.collect::<Result<_, _>>().map(Some)
}

/// Parses the numbers of virtual functions: `3`, or `"0-7"`.
fn numbers(table: &Table<'_>) -> Result<Option<Vec<RangeInclusive<i64>>>, RulesError> {
    let Some(values) = table.numbers("function_number")? else {
        return Ok(None);
    };
    let range = |value: Text<'_>| {
        let (first, last) = value
            .text
            .split_once('-')
            .unwrap_or((value.text, value.text));
        let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err(value.error(format!(
                "function_number {:?} can never match: it does not have the form 3 or \"0-7\"",
                value.text
            ))),
        }
    };
    let values = values.into_iter().map(range);
    values.collect::<Result<_, _>>().map(Some)
}

fn modules(table: &Table<'_>) -> Result<Vec<ModuleName>, RulesError> {
    let parse =
        |name: &Text<'_>| ModuleName::parse(name.text).map_err(|e| name.error(e.to_string()));
    let names = table.some_texts("modules")?;
    names.iter().map(parse).collect()
}

fn roles(table: &Table<'_>) -> Result<Vec<Role>, RulesError> {
    let parse = |name: &Text<'_>| Role::parse(name.text).map_err(|e| name.error(e));
    let names = table.some_texts("roles")?;
    names.iter().map(parse).collect()
}

fn list_name(name: &Text<'_>) -> Result<String, RulesError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match name.text {
        text if !text.is_empty() && text.chars().all(allowed) => Ok(text.to_owned()),
        text => Err(name.error(format!(
            "{text:?} is not a list: write the file's name without .conf"
        ))),
    }
}

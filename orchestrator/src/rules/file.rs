//! One rules file: its text to rules, or to an error that says where it is wrong and what was
//! probably meant. Pure. Must never take over a part of a file that is wrong elsewhere.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use interfaces::detector::Protocol;
use interfaces::names::ModuleName;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::selector::{self, Selector};
use crate::targets::Role;

/// Names further apart than so many changes are not taken for one another.
const MOST_TYPOS: usize = 3;

/// What is wrong with a file of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct RulesError {
    file: PathBuf,
    /// From 1, where one line is to blame.
    line: Option<usize>,
    message: String,
    hint: Option<String>,
    /// Whether the last good version of the file stays in use.
    kept: bool,
    /// The file of its name in a later directory that is in use instead.
    #[serde(default)]
    instead: Option<PathBuf>,
}

impl RulesError {
    pub(super) fn new(file: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message: message.into(),
            hint: None,
            kept: false,
            instead: None,
        }
    }

    pub(super) fn unreadable(file: &Path, why: &str) -> Self {
        Self::new(file, None, why)
    }

    pub(super) fn with_kept(mut self, kept: bool) -> Self {
        self.kept = kept;
        self
    }

    /// Notes the file that is in use in the place of this one.
    pub(super) fn is_replaced_by(&mut self, path: &Path) {
        if self.file != path {
            self.instead = Some(path.to_owned());
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line, from 1, where one is to blame.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; did you mean {hint}?")?;
        }
        if self.kept {
            f.write_str(" (its last good version stays in use)")?;
        }
        if let Some(instead) = &self.instead {
            write!(f, " ({} is in use instead)", instead.display())?;
        }
        Ok(())
    }
}

/// A whole file.
#[derive(Debug)]
pub(super) struct RulesFile {
    pub rules: Vec<DeviceRule>,
    pub functions: Vec<FunctionRule>,
}

/// One rule for devices.
#[derive(Clone, Debug)]
pub(super) struct DeviceRule {
    pub selector: Selector,
    pub modules: Vec<ModuleName>,
    /// The name of the list of rdma-core that takes the place of `modules` where it is there.
    pub list: Option<String>,
    pub roles: Vec<Role>,
    pub restore: bool,
    pub manage: bool,
}

/// One rule for functions.
#[derive(Clone, Debug)]
pub(super) struct FunctionRule {
    pub selector: Selector,
    pub modules: Vec<ModuleName>,
    pub manage: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
    #[serde(default)]
    function: Vec<Spanned<FunctionText>>,
}

type Strings = Option<Spanned<Vec<Spanned<String>>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    protocol: Option<Spanned<Vec<Protocol>>>,
    driver: Strings,
    pci_id: Strings,
    pci_address: Strings,
    guid: Strings,
    name: Strings,
    virtual_function: Option<bool>,
    #[serde(default)]
    modules: Vec<Spanned<String>>,
    list: Option<Spanned<String>>,
    #[serde(default)]
    roles: Vec<Spanned<String>>,
    #[serde(default)]
    restore: bool,
    manage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionText {
    driver: Strings,
    pci_id: Strings,
    pci_address: Strings,
    name: Strings,
    #[serde(default)]
    modules: Vec<Spanned<String>>,
    manage: Option<bool>,
}

/// Reads a file.
pub(super) fn parse(path: &Path, text: &str) -> Result<RulesFile, RulesError> {
    let reader = Reader { path, text };
    let file: FileText = toml::from_str(text).map_err(|e| reader.toml(&e))?;
    let rules = file.rule.into_iter().map(|rule| reader.rule(rule));
    let functions = file.function.into_iter().map(|rule| reader.function(rule));
    Ok(RulesFile {
        rules: rules.collect::<Result<_, _>>()?,
        functions: functions.collect::<Result<_, _>>()?,
    })
}

/// Knows where it reads, for errors.
struct Reader<'t> {
    path: &'t Path,
    text: &'t str,
}

impl Reader<'_> {
    fn rule(&self, rule: Spanned<RuleText>) -> Result<DeviceRule, RulesError> {
        let at = rule.span();
        let rule = rule.into_inner();
        let manage = rule.manage.unwrap_or(true);
        let asks = !rule.modules.is_empty() || !rule.roles.is_empty() || rule.list.is_some();
        if asks && !manage {
            return Err(self.error(&at, "it leaves devices alone and asks for something, too"));
        }
        if !asks && manage {
            return Err(self.error(
                &at,
                "it asks for nothing: no modules, list, roles or manage",
            ));
        }
        Ok(DeviceRule {
            selector: Selector {
                protocol: self.some(rule.protocol, "protocol")?,
                guid: self.patterns(rule.guid, "guid", selector::is_guid)?,
                virtual_function: rule.virtual_function,
                ..self.selector(rule.driver, rule.pci_id, rule.pci_address, rule.name)?
            },
            modules: self.modules(&rule.modules)?,
            list: rule.list.map(|list| self.list(&list)).transpose()?,
            roles: self.roles(&rule.roles)?,
            restore: rule.restore,
            manage,
        })
    }

    fn function(&self, rule: Spanned<FunctionText>) -> Result<FunctionRule, RulesError> {
        let at = rule.span();
        let rule = rule.into_inner();
        let manage = rule.manage.unwrap_or(true);
        if !rule.modules.is_empty() && !manage {
            return Err(self.error(&at, "it leaves functions alone and asks for modules, too"));
        }
        if rule.modules.is_empty() && manage {
            return Err(self.error(&at, "it asks for nothing: no modules or manage"));
        }
        let selector = self.selector(rule.driver, rule.pci_id, rule.pci_address, rule.name)?;
        if selector == Selector::default() {
            let message = "it is for every function: name a driver, pci_id, pci_address or name";
            return Err(self.error(&at, message));
        }
        Ok(FunctionRule {
            selector,
            modules: self.modules(&rule.modules)?,
            manage,
        })
    }

    /// What devices and functions can be selected by alike.
    fn selector(
        &self,
        driver: Strings,
        pci_id: Strings,
        pci_address: Strings,
        name: Strings,
    ) -> Result<Selector, RulesError> {
        let is_address = selector::is_pci_address;
        Ok(Selector {
            driver: self.patterns(driver, "driver", selector::is_driver)?,
            pci_id: self.patterns(pci_id, "pci_id", selector::is_pci_id)?,
            pci_address: self.patterns(pci_address, "pci_address", is_address)?,
            name: self.patterns(name, "name", selector::is_name)?,
            ..Selector::default()
        })
    }

    fn some<T>(
        &self,
        list: Option<Spanned<Vec<T>>>,
        key: &str,
    ) -> Result<Option<Vec<T>>, RulesError> {
        match list {
            Some(list) if list.get_ref().is_empty() => {
                let message = format!("{key} is empty: the rule can never select anything");
                Err(self.error(&list.span(), message))
            }
            list => Ok(list.map(Spanned::into_inner)),
        }
    }

    fn patterns(
        &self,
        list: Strings,
        key: &str,
        can_match: fn(&str) -> Result<(), &'static str>,
    ) -> Result<Option<Vec<String>>, RulesError> {
        let Some(list) = self.some(list, key)? else {
            return Ok(None);
        };
        let checked = list.into_iter().map(|pattern| {
            can_match(pattern.get_ref()).map_err(|why| {
                let message = format!("{key} {:?} can never match: {why}", pattern.get_ref());
                self.error(&pattern.span(), message)
            })?;
            Ok(pattern.into_inner())
        });
        checked.collect::<Result<_, _>>().map(Some)
    }

    fn modules(&self, names: &[Spanned<String>]) -> Result<Vec<ModuleName>, RulesError> {
        let parse = |name: &Spanned<String>| {
            ModuleName::parse(name.get_ref()).map_err(|e| self.error(&name.span(), e.to_string()))
        };
        names.iter().map(parse).collect()
    }

    fn roles(&self, names: &[Spanned<String>]) -> Result<Vec<Role>, RulesError> {
        let parse = |name: &Spanned<String>| {
            Role::parse(name.get_ref()).map_err(|e| self.error(&name.span(), e))
        };
        names.iter().map(parse).collect()
    }

    fn list(&self, name: &Spanned<String>) -> Result<String, RulesError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match name.get_ref() {
            text if !text.is_empty() && text.chars().all(is_name) => Ok(text.clone()),
            text => {
                let message = format!("{text:?} is no list: it is a file's name without .conf");
                Err(self.error(&name.span(), message))
            }
        }
    }

    fn error(&self, span: &Range<usize>, message: impl Into<String>) -> RulesError {
        RulesError::new(self.path, Some(self.line(span)), message)
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    fn toml(&self, error: &toml::de::Error) -> RulesError {
        let line = error.span().map(|span| self.line(&span));
        let message = error.message().trim_end().replace('\n', "; ");
        let hint = gone(&message).or_else(|| nearest(&message));
        // With one name all the others are noise.
        let short = message
            .split(", expected")
            .next()
            .filter(|_| hint.is_some());
        RulesError {
            hint,
            ..RulesError::new(self.path, line, short.unwrap_or(&message))
        }
    }
}

/// What takes the place of a key that rules no longer have.
fn gone(message: &str) -> Option<String> {
    let units = ["unknown field `units`", "unknown field `while_active`"];
    let is_gone = units.iter().any(|field| message.starts_with(field));
    is_gone.then(|| "roles, with the unit hung on rdma-role@ROLE.target by WantedBy=".to_owned())
}

/// Of a message like "unknown field `a`, expected one of `b`, `c`" the expected name that is
/// nearest to the one that was found.
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let found = quoted.next()?;
    let distance = |name: &&str| strsim::damerau_levenshtein(found, name);
    let nearest = quoted.min_by_key(distance)?;
    (distance(&nearest) <= MOST_TYPOS).then(|| nearest.to_owned())
}

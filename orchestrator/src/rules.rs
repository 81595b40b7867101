//! The rules: the modules and roles that a device should have, and the modules that a function
//! needs before there is a device. Pure: files are passed as text. Must never let an invalid file
//! disable another file: its last good version stays in use, or the file that it would hide is
//! used.

mod error;
mod file;
mod list;
mod pattern;
mod selector;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use interfaces::detector::{Device, Function};
use interfaces::names::ModuleName;
use serde::{Deserialize, Serialize};

pub use error::RulesError;
pub use list::parse as parse_list;
pub use selector::{Selector, kind_name};

use crate::targets::Role;

/// A file as it was read: its text, or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The path of the file.
    pub path: PathBuf,
    /// The text of the file, or a message if it cannot be read.
    pub text: Result<String, String>,
}

/// All sources of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The rules files, in the order of their names. Files with the same name are in the order of
    /// their precedence: only the first usable one of them is in use. A directory that cannot be
    /// listed is a source, too.
    pub rules: Vec<Source>,
    /// rdma-core's lists, in the order of their names.
    pub lists: Vec<Source>,
}

/// The rules, and the errors of the files that are not in use.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    functions: Vec<Rule>,
    /// The rdma-core lists, by their names without the suffix.
    lists: BTreeMap<String, List>,
    /// The sources in use: of an invalid file its last good version.
    in_use: Sources,
    errors: Vec<RulesError>,
}

/// A list of modules of rdma-core.
#[derive(Clone, Debug)]
struct List {
    file: Arc<Path>,
    modules: Vec<ModuleName>,
}

/// A rule, for devices or for functions, and its location.
#[derive(Clone, Debug)]
pub struct Rule {
    file: Arc<Path>,
    number: usize,
    text: file::RuleText,
}

/// The modules that a function needs by the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedByFunction {
    /// The modules.
    pub modules: Vec<WantedModule>,
    /// The file that excludes the function from management, so that it needs no modules.
    pub unmanaged: Option<Arc<Path>>,
}

/// A module that a device or function should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedModule {
    /// The module.
    pub name: ModuleName,
    /// The file that requests it: a rules file, or an rdma-core list.
    pub file: Arc<Path>,
    /// The module is loaded again if it is unloaded.
    pub restore: bool,
}

/// The modules and roles that a device should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The modules, each once, in the order of the rules.
    pub modules: Vec<WantedModule>,
    /// The roles, each once, in the order of the rules.
    pub roles: Vec<Role>,
    /// A rule excludes the device from management.
    pub unmanaged: bool,
}

impl Rules {
    /// Reads the rules of these files. An invalid file is refused as a whole. If a version of it is
    /// in use in `before`, that version stays in use; otherwise the file hides no other file. If a
    /// directory can no longer be listed, its files that are in use stay.
    #[must_use]
    pub fn read(sources: &Sources, before: &Self) -> Self {
        let mut rules = Self::default();
        let (lists, kept) = (&sources.lists, &before.in_use.lists);
        for source in with_kept(lists, kept, &mut rules.errors) {
            let last = kept.iter().find(|last| last.path == source.path);
            rules.take_list(source, last);
        }
        let (files, kept) = (&sources.rules, &before.in_use.rules);
        let files = with_kept(files, kept, &mut rules.errors);
        for named in files.chunk_by(|a, b| a.path.file_name() == b.path.file_name()) {
            let before = rules.errors.len();
            for source in named {
                let last = kept.iter().find(|last| last.path == source.path);
                if rules.take_rules(source, last) {
                    let refused = rules.errors.iter_mut().skip(before);
                    refused.for_each(|error| error.is_replaced_by(&source.path));
                    break;
                }
            }
        }
        rules
    }

    /// Adds the rules of a file, or of its last version. Returns true if one of them can be used.
    fn take_rules(&mut self, source: &Source, last: Option<&Source>) -> bool {
        let parsed = source
            .text
            .as_deref()
            .map_err(|e| RulesError::unreadable(&source.path, e))
            .and_then(|text| file::parse(&source.path, text));
        match parsed {
            Ok(file) => {
                let path: Arc<Path> = Arc::from(source.path.as_path());
                let numbered = |rules: Vec<file::RuleText>| {
                    let path = Arc::clone(&path);
                    (1..).zip(rules).map(move |(number, text)| Rule {
                        file: Arc::clone(&path),
                        number,
                        text,
                    })
                };
                self.rules.extend(numbered(file.rules));
                self.functions.extend(numbered(file.functions));
                self.in_use.rules.push(source.clone());
                true
            }
            Err(error) => {
                self.errors.push(error.with_kept(last.is_some()));
                last.is_some_and(|last| self.take_rules(last, None))
            }
        }
    }

    fn take_list(&mut self, source: &Source, last: Option<&Source>) {
        let Some(name) = source.path.file_stem().and_then(|stem| stem.to_str()) else {
            return;
        };
        match &source.text {
            Ok(text) => {
                let (modules, errors) = list::parse(&source.path, text);
                self.errors.extend(errors);
                let file = Arc::from(source.path.as_path());
                self.lists.insert(name.to_owned(), List { file, modules });
                self.in_use.lists.push(source.clone());
            }
            Err(e) => {
                let error = RulesError::unreadable(&source.path, e);
                self.errors.push(error.with_kept(last.is_some()));
                if let Some(last) = last {
                    self.take_list(last, None);
                }
            }
        }
    }

    /// Returns the number of files in use and the first error, for `systemctl status`.
    #[must_use]
    pub fn summary(&self) -> String {
        let used = self.in_use.rules.len();
        match self.errors.as_slice() {
            [] => format!("rules files in use: {used}"),
            [error] => format!("rules files in use: {used}; one refused: {error}"),
            [error, rest @ ..] => {
                let more = rest.len();
                format!("rules files in use: {used}; refused: {error}, and {more} more")
            }
        }
    }

    /// Returns the modules and roles that `device` should have.
    #[must_use]
    pub fn wanted(&self, device: &Device) -> Wants {
        let mut wants = Wants::default();
        for rule in self.selecting(device) {
            if !rule.text.manage {
                return Wants {
                    unmanaged: true,
                    ..Wants::default()
                };
            }
            let (file, modules) = self.modules_of(rule);
            for name in modules {
                add_module(&mut wants.modules, name, file, rule.text.restore);
            }
            for role in &rule.text.roles {
                if !wants.roles.contains(role) {
                    wants.roles.push(role.clone());
                }
            }
        }
        wants
    }

    /// Returns the modules that `function` needs by the rules.
    #[must_use]
    pub fn wanted_by_function(&self, function: &Function) -> WantedByFunction {
        let mut wanted = WantedByFunction::default();
        let rules = self.functions.iter();
        for rule in rules.filter(|rule| rule.text.selector.selects_function(function)) {
            if !rule.text.manage {
                return WantedByFunction {
                    modules: Vec::new(),
                    unmanaged: Some(Arc::clone(&rule.file)),
                };
            }
            for name in &rule.text.modules {
                add_module(&mut wanted.modules, name, &rule.file, false);
            }
        }
        wanted
    }

    /// Returns the modules of a rule and the file that names them: the rdma-core list, if it
    /// exists.
    #[must_use]
    pub fn modules_of<'r>(&'r self, rule: &'r Rule) -> (&'r Arc<Path>, &'r [ModuleName]) {
        match self.list_of(rule) {
            Some(list) => (&list.file, &list.modules),
            None => (&rule.file, &rule.text.modules),
        }
    }

    /// Returns the rdma-core list that replaces the modules of a rule, if it exists.
    #[must_use]
    pub fn list_file(&self, rule: &Rule) -> Option<&Path> {
        Some(&*self.list_of(rule)?.file)
    }

    fn list_of(&self, rule: &Rule) -> Option<&List> {
        self.lists.get(rule.text.list.as_deref()?)
    }

    /// Returns all rules for devices, in their order.
    #[must_use]
    pub fn for_devices(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns all rules for functions, in their order.
    #[must_use]
    pub fn for_functions(&self) -> &[Rule] {
        &self.functions
    }

    /// Returns the rules that select `device`, in their order.
    pub fn selecting(&self, device: &Device) -> impl Iterator<Item = &Rule> {
        let rules = self.rules.iter();
        rules.filter(|rule| rule.text.selector.selects(device))
    }

    /// Returns the files in use, in their order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let sources = self.in_use.rules.iter().chain(&self.in_use.lists);
        sources.map(|source| source.path.as_path())
    }

    /// Returns the files in use, as they were read.
    #[must_use]
    pub fn in_use(&self) -> &Sources {
        &self.in_use
    }

    /// Returns the errors of files that are not in use, or of versions that are not.
    #[must_use]
    pub fn errors(&self) -> &[RulesError] {
        &self.errors
    }
}

/// Returns the sources in the order of their names. A directory that cannot be listed is replaced
/// with its files that are in use.
fn with_kept<'s>(
    sources: &'s [Source],
    in_use: &'s [Source],
    errors: &mut Vec<RulesError>,
) -> Vec<&'s Source> {
    let mut all = Vec::new();
    for source in sources {
        match (&source.text, source.path.extension()) {
            // All files have such a suffix, so that this is a directory.
            (Err(why), extension) if !extension.is_some_and(is_suffix) => {
                let files = in_use.iter();
                let files = files.filter(|file| file.path.parent() == Some(&source.path));
                let kept: Vec<&Source> = files.collect();
                let error = RulesError::unreadable(&source.path, why);
                errors.push(error.with_kept(!kept.is_empty()));
                all.extend(kept);
            }
            _ => all.push(source),
        }
    }
    // The sort is stable: a file that was kept stays before the files that it hides.
    all.sort_by_key(|source| source.path.file_name());
    all
}

fn is_suffix(extension: &OsStr) -> bool {
    extension == "toml" || extension == "conf"
}

/// The part of the rules that the journal keeps: the files, and their errors.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedRules {
    in_use: Sources,
    errors: Vec<RulesError>,
}

impl From<Rules> for SavedRules {
    fn from(rules: Rules) -> Self {
        Self {
            in_use: rules.in_use,
            errors: rules.errors,
        }
    }
}

impl From<SavedRules> for Rules {
    fn from(saved: SavedRules) -> Self {
        let mut rules = Self::read(&saved.in_use, &Self::default());
        rules.errors = saved.errors;
        rules
    }
}

impl Rule {
    /// Returns the file of the rule.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the number of the rule among those of its kind in the file, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Returns the first line of the rule, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.text.line
    }

    /// Returns the selector.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.text.selector
    }

    /// Returns true if its modules are loaded again when they are unloaded.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.text.restore
    }

    /// Returns the roles of the rule.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.text.roles
    }

    /// Returns false if the rule excludes a device or function from management.
    #[must_use]
    pub fn manages(&self) -> bool {
        self.text.manage
    }
}

fn add_module(wanted: &mut Vec<WantedModule>, name: &ModuleName, file: &Arc<Path>, restore: bool) {
    match wanted.iter_mut().find(|module| module.name == *name) {
        Some(known) => known.restore |= restore,
        None => wanted.push(WantedModule {
            name: name.clone(),
            file: Arc::clone(file),
            restore,
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests;

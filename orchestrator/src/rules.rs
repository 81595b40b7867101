//! Rules: which modules and roles a device should have, and which modules a function needs before
//! there is a device. Pure: files come in as text. Must never let an invalid file take another file
//! down: its last good version stays, or the file counts that it would hide.

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

pub use file::RulesError;
pub use list::parse as parse_list;
pub use selector::{Selector, kind_name, protocol_name};

use crate::targets::Role;

/// One file as it was read: its text, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says, or a sentence that says why it cannot be read.
    pub text: Result<String, String>,
}

/// Every file that rules come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Rules files, in the order of their names, and those of one name in the order of their
    /// precedence: only the first of them that can be used counts. A directory that cannot be listed
    /// is a source, too.
    pub rules: Vec<Source>,
    /// rdma-core's lists, in the order of their names.
    pub lists: Vec<Source>,
}

/// All rules, and what is wrong with the files that are not in use.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    functions: Vec<Rule>,
    /// rdma-core's lists, by their names without the suffix.
    lists: BTreeMap<String, List>,
    /// What is in use: of a bad file its last good version.
    in_use: Sources,
    errors: Vec<RulesError>,
}

/// One of rdma-core's lists of modules.
#[derive(Clone, Debug)]
struct List {
    file: Arc<Path>,
    modules: Vec<ModuleName>,
}

/// One rule, for devices or for functions, and where it stands.
#[derive(Clone, Debug)]
pub struct Rule {
    file: Arc<Path>,
    number: usize,
    text: file::RuleText,
}

/// What a function needs, as the rules say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedByFunction {
    /// The modules.
    pub modules: Vec<WantedModule>,
    /// The file that says that it is left alone, and needs nothing.
    pub unmanaged: Option<Arc<Path>>,
}

/// A module that a device or function should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedModule {
    /// The module.
    pub name: ModuleName,
    /// The file that says so: a rules file, or one of rdma-core's lists.
    pub file: Arc<Path>,
    /// Whether it is put back when somebody unloads it.
    pub restore: bool,
}

/// What one device should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The modules, each once, in the order of the rules.
    pub modules: Vec<WantedModule>,
    /// The roles, each once, in the order of the rules.
    pub roles: Vec<Role>,
    /// A rule says that the device is left alone.
    pub unmanaged: bool,
}

impl Rules {
    /// The rules of these files. An invalid file is refused as a whole; where `before` has a
    /// version of it in use, that one stays, and otherwise it hides no other. Of a directory that
    /// cannot be listed any more the files in use stay.
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

    /// Takes a file, or its last version; says whether one of them can be used.
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

    /// How many files are in use, and what is wrong with the first that is not, for `systemctl
    /// status`.
    #[must_use]
    pub fn summary(&self) -> String {
        let used = self.in_use.rules.len();
        match self.errors.as_slice() {
            [] => format!("{used} rules files in use"),
            [error] => format!("{used} rules files in use, one refused: {error}"),
            [error, rest @ ..] => {
                let more = rest.len();
                format!("{used} rules files in use, refused: {error}, and {more} more")
            }
        }
    }

    /// What `device` should have.
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

    /// The modules that `function` needs, as the rules say.
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

    /// The modules of a rule, and the file that names them: rdma-core's list where it is there.
    #[must_use]
    pub fn modules_of<'r>(&'r self, rule: &'r Rule) -> (&'r Arc<Path>, &'r [ModuleName]) {
        match self.list_of(rule) {
            Some(list) => (&list.file, &list.modules),
            None => (&rule.file, &rule.text.modules),
        }
    }

    /// rdma-core's list that a rule leaves its modules to, where that list is there.
    #[must_use]
    pub fn list_file(&self, rule: &Rule) -> Option<&Path> {
        Some(&*self.list_of(rule)?.file)
    }

    fn list_of(&self, rule: &Rule) -> Option<&List> {
        self.lists.get(rule.text.list.as_deref()?)
    }

    /// All rules for devices, in their order.
    #[must_use]
    pub fn for_devices(&self) -> &[Rule] {
        &self.rules
    }

    /// All rules for functions, in their order.
    #[must_use]
    pub fn for_functions(&self) -> &[Rule] {
        &self.functions
    }

    /// The rules that select `device`, in their order.
    pub fn selecting(&self, device: &Device) -> impl Iterator<Item = &Rule> {
        let rules = self.rules.iter();
        rules.filter(|rule| rule.text.selector.selects(device))
    }

    /// The files in use, in their order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let sources = self.in_use.rules.iter().chain(&self.in_use.lists);
        sources.map(|source| source.path.as_path())
    }

    /// The files in use, as they were read.
    #[must_use]
    pub fn in_use(&self) -> &Sources {
        &self.in_use
    }

    /// What is wrong with the files that are not in use, or with a version of them.
    #[must_use]
    pub fn errors(&self) -> &[RulesError] {
        &self.errors
    }
}

/// The sources in the order of their names. In the place of a directory that cannot be listed are those
/// of its files that are in use.
fn with_kept<'s>(
    sources: &'s [Source],
    in_use: &'s [Source],
    errors: &mut Vec<RulesError>,
) -> Vec<&'s Source> {
    let mut all = Vec::new();
    for source in sources {
        match (&source.text, source.path.extension()) {
            // Every file that is looked for has one.
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
    // Stable: what is kept stays before what it hides.
    all.sort_by_key(|source| source.path.file_name());
    all
}

fn is_suffix(extension: &OsStr) -> bool {
    extension == "toml" || extension == "conf"
}

/// What of rules is kept in a journal: the files, and what was wrong with them.
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
    /// The file that it stands in.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its number among the rules of its kind in that file, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The line that it begins at, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.text.line
    }

    /// What it selects by.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.text.selector
    }

    /// Whether its modules are put back when they are unloaded.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.text.restore
    }

    /// The roles that it gives.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.text.roles
    }

    /// Whether it leaves a device to be managed.
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

//! From a name to what has to be inserted for it, in its order: modprobe's answers (libkmod
//! 34.2), from index files and `modprobe.d(5)` lines in memory. Pure. Must never open what it
//! names, and never work without an end, whatever it is given.

mod work;

use std::borrow::Cow;

use crate::index::{Index, IndexError};
use crate::modprobe_d::{Command, Config, Source, underscored};
use work::Work;

/// How deep soft dependencies may be nested.
const MAX_DEPTH: usize = 200;
/// How many steps a plan may have, and how many names may be looked up for it. Debian's longest
/// plan has 32 steps.
const MAX_STEPS: usize = 10_000;

/// The index files of one kernel's module tree, of one generation of depmod. What there is no
/// file for is not looked up.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// `modules.dep.bin`: module to its file and dependencies.
    pub dependencies: Option<Index>,
    /// `modules.alias.bin`: alias pattern to modules.
    pub aliases: Option<Index>,
    /// `modules.symbols.bin`: `symbol:NAME` to modules.
    pub symbols: Option<Index>,
    /// `modules.builtin.bin`: what is part of the kernel image.
    pub builtin: Option<Index>,
    /// `modules.builtin.alias.bin`: alias pattern to what is part of the kernel image.
    pub builtin_aliases: Option<Index>,
}

impl Indexes {
    /// The modules that `module` cannot be loaded without, all of them.
    #[must_use]
    pub fn dependencies_of(&self, module: &[u8]) -> Vec<Vec<u8>> {
        let line = find(self.dependencies.as_ref(), module).ok().flatten();
        let needs = line.and_then(dependency_line).map(|(_, needs)| needs);
        let names = needs.into_iter().flatten().map(name_of_file);
        names.map(Cow::into_owned).collect()
    }
}

/// A name that stands in an index or in the configuration, or that was made from one.
pub type Name<'t> = Cow<'t, [u8]>;

/// One module that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'t> {
    /// The module.
    pub module: Name<'t>,
    /// The pattern or name by which it was found, where it was not its own.
    pub alias: Option<Name<'t>>,
    /// The command of exactly this name that made it found.
    install: Option<&'t Command>,
    /// Whether the index of what is built in named it.
    builtin: bool,
}

/// What has to be done for one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module.
    pub module: Vec<u8>,
    /// Whether it was found by an alias.
    pub by_alias: bool,
    /// The line that blacklists it.
    pub blacklisted: Option<Source>,
    /// What to do, in its order.
    pub steps: Vec<Step>,
    /// Soft dependencies that were not admitted.
    pub left_out: Vec<Vec<u8>>,
}

/// One module of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The module.
    pub module: Vec<u8>,
    /// What to do for it.
    pub action: Action,
    /// What the kernel is given with it, with modprobe's blank at the end.
    pub parameters: Vec<u8>,
    /// Whether the plan fails with it. What is only a soft dependency may fail.
    pub required: bool,
    /// The steps, by their position, that soft dependencies put before it.
    pub after: Vec<usize>,
}

/// What to do for one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Insert this file, below the module tree where it is relative.
    Insert(Vec<u8>),
    /// Nothing but what an install line says.
    Install(Command),
    /// It is part of the kernel image.
    Builtin,
    /// There is no file for it.
    Absent,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An index cannot be used.
    #[error("an index of the module tree cannot be used")]
    Index(#[from] IndexError),
    /// The configuration leads to too many modules, or round in circles too deep.
    #[error("soft dependencies lead to more than {MAX_STEPS} modules or {MAX_DEPTH} levels")]
    TooMuch,
    /// Brackets in the name do not match.
    #[error("the name has a bracket without the other")]
    Bracket,
}

/// Everything that a plan depends on.
#[derive(Clone, Copy)]
pub struct Planner<'t> {
    /// depmod's files.
    pub indexes: &'t Indexes,
    /// `modprobe.d(5)` and the kernel command line.
    pub config: &'t Config,
    /// Whether a module file is there.
    pub exists: &'t dyn Fn(&[u8]) -> bool,
    /// Whether a module may be loaded as a soft dependency of another.
    pub admit: &'t dyn Fn(&[u8]) -> bool,
    /// Whether all softdep lines of a module count, and not the first alone (kmod#459).
    pub merge_softdeps: bool,
}

impl<'t> Planner<'t> {
    /// The modules that `name` stands for, by the first of modprobe's ways that finds any
    /// (`kmod_module_new_from_lookup()`).
    ///
    /// # Errors
    /// When the name cannot be looked up or an index cannot be trusted.
    pub fn look_up(&self, name: &[u8]) -> Result<Vec<Found<'t>>, PlanError> {
        let name: &[u8] = &underscored(name).ok_or(PlanError::Bracket)?;
        let own = |name: &[u8]| Name::Owned(name.to_vec());
        let found = |module: Name<'t>, alias: Option<Name<'t>>| Found {
            module,
            alias,
            install: None,
            builtin: false,
        };
        let by_alias = |modules: Vec<&'t [u8]>| -> Vec<Found<'t>> {
            let found = |module| found(Name::Borrowed(module), Some(own(name)));
            modules.into_iter().map(found).collect()
        };
        let aliases = self.config.aliases.matching(name);
        let aliases = aliases.map(|line| (line.module.as_slice(), line.pattern.as_slice()));
        let configured: Vec<_> = aliases
            .map(|(module, pattern)| found(module.into(), Some(pattern.into())))
            .collect();
        if !configured.is_empty() {
            return Ok(configured);
        }
        if !name.contains(&b':') && find(self.indexes.dependencies.as_ref(), name)?.is_some() {
            return Ok(vec![found(own(&module_name(name)), None)]);
        }
        if name.starts_with(b"symbol:") {
            let modules = by_alias(matches(self.indexes.symbols.as_ref(), name)?);
            if !modules.is_empty() {
                return Ok(modules);
            }
        }
        if let Some(command) = self.config.install_command_named(name) {
            return Ok(vec![Found {
                install: Some(command),
                ..found(own(&module_name(name)), None)
            }]);
        }
        if self.config.remove.iter().any(|c| c.pattern == name) {
            return Ok(vec![found(own(&module_name(name)), None)]);
        }
        let modules = by_alias(matches(self.indexes.aliases.as_ref(), name)?);
        if !modules.is_empty() {
            return Ok(modules);
        }
        let mut modules = if find(self.indexes.builtin.as_ref(), name)?.is_some() {
            vec![found(own(&module_name(name)), None)]
        } else {
            by_alias(matches(self.indexes.builtin_aliases.as_ref(), name)?)
        };
        for found in &mut modules {
            found.builtin = true;
        }
        Ok(modules)
    }

    /// The plan for a module that was looked up.
    ///
    /// # Errors
    /// When an index cannot be trusted, or soft dependencies lead too far.
    pub fn plan(&self, found: &Found<'t>) -> Result<Plan, PlanError> {
        let mut work = Work::new(self);
        let target = work.known(found);
        work.probe(target, true, 0)?;
        Ok(Plan {
            module: found.module.to_vec(),
            by_alias: found.alias.is_some(),
            blacklisted: self.config.blacklisted(&found.module).cloned(),
            steps: work.steps()?,
            left_out: work.left_out,
        })
    }

    /// The names of the modules that `module` needs, nearest last, as `modules.dep.bin` has
    /// them.
    ///
    /// # Errors
    /// When the index cannot be trusted.
    pub fn dependencies(&self, module: &[u8]) -> Result<Vec<Vec<u8>>, PlanError> {
        let line = find(self.indexes.dependencies.as_ref(), module)?;
        let Some((_, paths)) = line.and_then(dependency_line) else {
            return Ok(Vec::new());
        };
        let mut names: Vec<Vec<u8>> = paths.map(|path| name_of_file(path).into()).collect();
        names.reverse();
        Ok(names)
    }
}

fn find<'i>(index: Option<&'i Index>, key: &[u8]) -> Result<Option<&'i [u8]>, IndexError> {
    index.map_or(Ok(None), |index| index.find(key))
}

fn matches<'i>(index: Option<&'i Index>, text: &[u8]) -> Result<Vec<&'i [u8]>, IndexError> {
    index.map_or_else(|| Ok(Vec::new()), |index| index.matches(text))
}

/// `PATH: DEPENDENCY...`: the whole closure, the nearest first.
pub fn dependency_line(line: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let rest = line.get(colon + 1..)?;
    let words = rest.split(|byte| matches!(byte, b' ' | b'\t'));
    Some((line.get(..colon)?, words.filter(|word| !word.is_empty())))
}

/// A name as `modname_normalize()` makes it: up to the first dot, `-` as `_` everywhere.
fn module_name(name: &[u8]) -> Name<'_> {
    let end = name.iter().position(|&byte| byte == b'.');
    let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
    if !name.contains(&b'-') {
        return Name::Borrowed(name);
    }
    let underscore = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
    name.iter().map(underscore).collect()
}

/// The module of a file: its name up to the first dot.
fn name_of_file(path: &[u8]) -> Name<'_> {
    let file = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    module_name(file)
}

impl Step {
    /// The line that `modprobe -D` prints, without its end, and with `path` made of the file's
    /// path in the index; nothing for what is absent.
    pub fn printed(&self, path: impl Fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
        let line = |what: &[u8], object: &[u8]| [what, object, b" ", &self.parameters].concat();
        match &self.action {
            Action::Insert(file) => Some(line(b"insmod ", &path(file))),
            Action::Install(install) => Some(line(b"install ", &install.command)),
            Action::Builtin => Some([b"builtin ", self.module.as_slice()].concat()),
            Action::Absent => None,
        }
    }
}

#[cfg(test)]
mod tests;

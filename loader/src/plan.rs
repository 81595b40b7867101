//! The steps to load a name, in order: the same as those of modprobe (libkmod 34.2), from index
//! files and `modprobe.d(5)` lines in memory. Pure. Must never open a file that it names, and never
//! work without end, whatever its input.

mod builder;

use std::borrow::Cow;

use crate::index::{Index, IndexError};
use crate::modprobe_d::{Command, Config, Source, underscored};
use builder::PlanBuilder;

/// The maximum nesting depth of soft dependencies.
const MAX_DEPTH: usize = 200;
/// The maximum number of steps in a plan, and of names that are looked up for it. Debian's longest
/// plan has 32 steps.
const MAX_STEPS: usize = 10_000;

/// The index files of one kernel's module tree, from one run of depmod. A missing index is not
/// searched.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// `modules.dep.bin`: module to its file and dependencies.
    pub dependencies: Option<Index>,
    /// `modules.alias.bin`: alias pattern to modules.
    pub aliases: Option<Index>,
    /// `modules.symbols.bin`: `symbol:NAME` to modules.
    pub symbols: Option<Index>,
    /// `modules.builtin.bin`: the modules built into the kernel image.
    pub builtin: Option<Index>,
    /// `modules.builtin.alias.bin`: alias pattern to modules built into the kernel image.
    pub builtin_aliases: Option<Index>,
}

impl Indexes {
    /// Returns all modules that `module` cannot be loaded without.
    #[must_use]
    pub fn dependencies_of(&self, module: &[u8]) -> Vec<Vec<u8>> {
        let line = find(self.dependencies.as_ref(), module).ok().flatten();
        let needs = line.and_then(dependency_line).map(|(_, needs)| needs);
        let names = needs.into_iter().flatten().map(name_of_file);
        names.map(Cow::into_owned).collect()
    }
}

/// A name from an index or from the configuration, or derived from one.
pub type Name<'t> = Cow<'t, [u8]>;

/// One module that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'t> {
    /// The module.
    pub module: Name<'t>,
    /// The pattern or name that it was found by, unless that is its own name.
    pub alias: Option<Name<'t>>,
    /// The install command of exactly this name that made it found.
    install: Option<&'t Command>,
    /// True if the index of built-in modules names it.
    builtin: bool,
}

/// The steps to load one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module.
    pub module: Vec<u8>,
    /// True if it was found by an alias.
    pub by_alias: bool,
    /// The line that blacklists it.
    pub blacklisted: Option<Source>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Soft dependencies that were not admitted.
    pub left_out: Vec<Vec<u8>>,
}

/// One module of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The module.
    pub module: Vec<u8>,
    /// The action for it.
    pub action: Action,
    /// The parameters that the kernel receives with it, with modprobe's blank at the end.
    pub parameters: Vec<u8>,
    /// True if the plan fails with this step. A soft dependency may fail.
    pub required: bool,
    /// The positions of the steps that soft dependencies put before it.
    pub after: Vec<usize>,
}

/// The action for one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Inserts this file. A relative path is below the module tree.
    Insert(Vec<u8>),
    /// Runs nothing but the command of an install line.
    Install(Command),
    /// The module is built into the kernel image.
    Builtin,
    /// The module has no file.
    Absent,
}

/// The reason that there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An index cannot be used.
    #[error("an index of the module tree cannot be used")]
    Index(#[from] IndexError),
    /// Soft dependencies lead to too many modules or levels.
    #[error("soft dependencies lead to more than {MAX_STEPS} modules or {MAX_DEPTH} levels")]
    TooMuch,
    /// The brackets in the name do not match.
    #[error("the name has an unmatched bracket")]
    Bracket,
}

/// The inputs of all plans.
#[derive(Clone, Copy)]
pub struct Planner<'t> {
    /// The index files of depmod.
    pub indexes: &'t Indexes,
    /// `modprobe.d(5)` and the kernel command line.
    pub config: &'t Config,
    /// The check that a module file exists.
    pub exists: &'t dyn Fn(&[u8]) -> bool,
    /// The check that a module may be loaded as a soft dependency of another.
    pub admit: &'t dyn Fn(&[u8]) -> bool,
    /// True if all softdep lines of a module count, and not only the first (kmod#459).
    pub merge_softdeps: bool,
}

impl<'t> Planner<'t> {
    /// Returns the modules that `name` stands for, from the first of modprobe's lookups that finds
    /// any (`kmod_module_new_from_lookup()`).
    ///
    /// # Errors
    /// Fails if the name cannot be looked up or an index cannot be trusted.
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

    /// Returns the plan for a module that was looked up.
    ///
    /// # Errors
    /// Fails if an index cannot be trusted, or if soft dependencies lead too far.
    pub fn plan(&self, found: &Found<'t>) -> Result<Plan, PlanError> {
        let mut work = PlanBuilder::new(self);
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

    /// Returns the names of the modules that `module` needs according to `modules.dep.bin`, nearest
    /// last.
    ///
    /// # Errors
    /// Fails if the index cannot be trusted.
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

/// Splits `PATH: DEPENDENCY...`. The dependencies are the whole closure, the nearest first.
pub fn dependency_line(line: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let rest = line.get(colon + 1..)?;
    let words = rest.split(|byte| matches!(byte, b' ' | b'\t'));
    Some((line.get(..colon)?, words.filter(|word| !word.is_empty())))
}

/// Normalises a name as `modname_normalize()` does: up to the first dot, `-` as `_` everywhere.
fn module_name(name: &[u8]) -> Name<'_> {
    let end = name.iter().position(|&byte| byte == b'.');
    let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
    if !name.contains(&b'-') {
        return Name::Borrowed(name);
    }
    let underscore = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
    name.iter().map(underscore).collect()
}

/// Returns the module of a file: its name up to the first dot.
fn name_of_file(path: &[u8]) -> Name<'_> {
    let file = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    module_name(file)
}

impl Step {
    /// Returns the line that `modprobe -D` prints, without the newline, or `None` for an absent
    /// module. `path` converts the path of a file in the index.
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

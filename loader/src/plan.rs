//! From a name to the files that have to be inserted for it, in their order: modprobe's look-up
//! and dependency order, over index files in memory. Pure. Must never open what it names.

use std::path::PathBuf;

use interfaces::names::{ModuleName, NameError};

use crate::index::{Index, IndexError};

/// The index files of one kernel's module tree, of one generation of depmod.
#[derive(Clone, Debug)]
pub struct Indexes {
    /// `modules.dep.bin`: module to its file and dependencies.
    pub dependencies: Index,
    /// `modules.alias.bin`: alias pattern to modules.
    pub aliases: Index,
    /// `modules.builtin.bin`: what is part of the kernel image.
    pub builtin: Index,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// These modules: the one of that name, or all that have the alias.
    Modules(Vec<Plan>),
    /// A part of the kernel image.
    Builtin,
    /// Nothing that this kernel has.
    Missing,
}

/// The files of one module and its dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module that the name stands for.
    pub module: ModuleName,
    /// What to insert, dependencies first, the module itself last.
    pub steps: Vec<Step>,
}

/// One file to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The module's name.
    pub module: ModuleName,
    /// Its file, below the kernel's module directory.
    pub path: PathBuf,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An index cannot be used.
    #[error("an index of the module tree cannot be used")]
    Index(#[from] IndexError),
    /// An index names a module that cannot be one.
    #[error("modules.dep.bin or modules.alias.bin names something that is no module")]
    Name(#[from] NameError),
    /// An index names a file outside the module tree.
    #[error("modules.dep.bin names {0:?}, which is outside the module tree")]
    Outside(String),
    /// An alias stands for a module that `modules.dep.bin` does not have.
    #[error("{0} has an alias, but is not in modules.dep.bin")]
    Unlisted(ModuleName),
}

impl Indexes {
    /// Looks a name up: first as a module's name, then as an alias, then among what is built
    /// in (`kmod_module_new_from_lookup()`).
    ///
    /// # Errors
    /// When the indexes cannot be trusted.
    pub fn look_up(&self, name: &ModuleName) -> Result<Lookup, PlanError> {
        if let Some(plan) = self.plan(name.clone())? {
            return Ok(Lookup::Modules(vec![plan]));
        }
        let mut plans: Vec<Plan> = Vec::new();
        for module in self.aliases.matches(name.as_str().as_bytes())? {
            let module = ModuleName::parse(&String::from_utf8_lossy(module))?;
            // Two patterns of one module may match.
            if plans.iter().all(|plan| plan.module != module) {
                let plan = self.plan(module.clone())?;
                plans.push(plan.ok_or(PlanError::Unlisted(module))?);
            }
        }
        if !plans.is_empty() {
            Ok(Lookup::Modules(plans))
        } else if self.builtin.find(name.as_str().as_bytes())?.is_some() {
            Ok(Lookup::Builtin)
        } else {
            Ok(Lookup::Missing)
        }
    }

    /// The plan of the module of exactly this name.
    fn plan(&self, module: ModuleName) -> Result<Option<Plan>, PlanError> {
        let Some(line) = self.dependencies.find(module.as_str().as_bytes())? else {
            return Ok(None);
        };
        // `PATH: DEPENDENCY...`, the whole closure, the nearest dependency first.
        let line = String::from_utf8_lossy(line);
        let (path, dependencies) = line.split_once(':').unwrap_or((&line, ""));
        let mut steps: Vec<Step> = dependencies
            .split_ascii_whitespace()
            .rev()
            .map(step)
            .collect::<Result<_, _>>()?;
        steps.push(step(path)?);
        Ok(Some(Plan { module, steps }))
    }
}

/// A module's name is its file's name up to the first dot.
fn step(path: &str) -> Result<Step, PlanError> {
    if path.starts_with('/') || path.split('/').any(|component| component == "..") {
        return Err(PlanError::Outside(path.to_owned()));
    }
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split('.').next().unwrap_or(file);
    Ok(Step {
        module: ModuleName::parse(name)?,
        path: path.into(),
    })
}

#[cfg(test)]
mod tests;

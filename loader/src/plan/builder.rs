//! The construction of one plan: the modules in the order in which modprobe visits them, soft
//! dependencies included. Pure. Must never work without end.

use super::{
    Action, Found, MAX_DEPTH, MAX_STEPS, Name, PlanError, Planner, Step, dependency_line, find,
    name_of_file,
};
use crate::modprobe_d::{Command, Softdep};

/// A module while a plan is made. It holds the state that modprobe keeps with the module and not
/// with the plan: this explains some of modprobe's results.
struct Module<'t> {
    name: Name<'t>,
    alias: Option<Name<'t>>,
    install: Option<&'t Command>,
    builtin: Option<bool>,
    path: Option<&'t [u8]>,
    dependencies: Option<Vec<usize>>,
    visited: bool,
    required: bool,
    /// True if it has soft dependencies, for which modprobe ignores its install line.
    ignore_install: bool,
}

/// A module at its position in the plan.
struct Entry {
    module: usize,
    after: Vec<usize>,
}

/// A plan under construction.
pub struct PlanBuilder<'p, 't> {
    planner: &'p Planner<'t>,
    modules: Vec<Module<'t>>,
    entries: Vec<Entry>,
    lookups: usize,
    /// Soft dependencies that were not admitted.
    pub left_out: Vec<Vec<u8>>,
}

impl<'p, 't> PlanBuilder<'p, 't> {
    /// Creates a plan without steps.
    pub fn new(planner: &'p Planner<'t>) -> Self {
        Self {
            planner,
            // Most plans have fewer modules.
            modules: Vec::with_capacity(8),
            entries: Vec::with_capacity(8),
            lookups: 0,
            left_out: Vec::new(),
        }
    }

    /// Returns the position of a module that was found.
    pub fn known(&mut self, found: &Found<'t>) -> usize {
        let at = self.module(found.module.clone(), found.alias.clone());
        if let Some(module) = self.modules.get_mut(at) {
            module.install = module.install.or(found.install);
            if found.builtin {
                module.builtin = Some(true);
            }
        }
        at
    }

    /// Returns the position of the module with this name and alias. The same name with another
    /// alias is a separate module.
    fn module(&mut self, name: Name<'t>, alias: Option<Name<'t>>) -> usize {
        // There are few modules: a linear search is faster than a map.
        let mut known = self.modules.iter();
        let known = known.position(|module| module.name == name && module.alias == alias);
        known.unwrap_or_else(|| {
            self.modules.push(Module {
                name,
                alias,
                install: None,
                builtin: None,
                path: None,
                dependencies: None,
                visited: false,
                required: false,
                ignore_install: false,
            });
            self.modules.len() - 1
        })
    }

    /// Adds a module with all its dependencies (`__kmod_module_get_probe_list()`).
    pub fn probe(&mut self, at: usize, required: bool, depth: usize) -> Result<(), PlanError> {
        if depth > MAX_DEPTH {
            return Err(PlanError::TooMuch);
        }
        match self.modules.get_mut(at) {
            Some(module) if !module.visited => module.visited = true,
            _ => return Ok(()),
        }
        let dependencies = self.dependencies(at)?;
        if required {
            for at in dependencies.iter().chain([&at]) {
                if let Some(module) = self.modules.get_mut(*at) {
                    module.required = true;
                }
            }
        }
        for dependency in dependencies {
            self.add(dependency, depth)?;
        }
        self.add(at, depth)
    }

    /// Adds a module between its soft dependencies (`__kmod_module_fill_softdep()`).
    fn add(&mut self, at: usize, depth: usize) -> Result<(), PlanError> {
        let Some(module) = self.modules.get(at) else {
            return Ok(());
        };
        let planner = self.planner;
        let softdeps = planner
            .config
            .softdeps(&module.name, planner.merge_softdeps);
        let softdeps: Vec<&Softdep> = softdeps.collect();
        let pre = self.members(softdeps.iter().flat_map(|line| &line.pre))?;
        let post = self.members(softdeps.iter().flat_map(|line| &line.post))?;
        let start = self.entries.len();
        for member in &pre {
            self.add_member(member, depth)?;
        }
        let here = self.entries.len();
        if here >= MAX_STEPS {
            return Err(PlanError::TooMuch);
        }
        self.entries.push(Entry {
            module: at,
            after: (start..here).collect(),
        });
        if let Some(module) = self.modules.get_mut(at) {
            module.ignore_install = !pre.is_empty() || !post.is_empty();
        }
        for member in &post {
            self.add_member(member, depth)?;
        }
        for entry in self.entries.iter_mut().skip(here + 1) {
            entry.after.push(here);
        }
        Ok(())
    }

    fn members<'n>(
        &mut self,
        names: impl Iterator<Item = &'n Vec<u8>>,
    ) -> Result<Vec<Found<'t>>, PlanError> {
        let mut members = Vec::new();
        for name in names {
            self.lookups += 1;
            if self.lookups > MAX_STEPS {
                return Err(PlanError::TooMuch);
            }
            match self.planner.look_up(name) {
                Ok(found) => members.extend(found),
                // As in modprobe, an invalid name is skipped.
                Err(PlanError::Bracket) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(members)
    }

    fn add_member(&mut self, member: &Found<'t>, depth: usize) -> Result<(), PlanError> {
        if (self.planner.admit)(&member.module) {
            let at = self.known(member);
            self.probe(at, false, depth + 1)
        } else {
            let module = member.module.to_vec();
            if !self.left_out.contains(&module) {
                self.left_out.push(module);
            }
            Ok(())
        }
    }

    /// Returns all dependencies of a module, furthest first (`kmod_module_parse_depline()`). As in
    /// modprobe, one dependency with a missing file drops the others as well.
    fn dependencies(&mut self, at: usize) -> Result<Vec<usize>, PlanError> {
        let Some(module) = self.modules.get(at) else {
            return Ok(Vec::new());
        };
        if let Some(known) = &module.dependencies {
            return Ok(known.clone());
        }
        let line = find(self.planner.indexes.dependencies.as_ref(), &module.name)?;
        let Some((path, paths)) = line.and_then(dependency_line) else {
            return Ok(Vec::new());
        };
        if let Some(module) = self.modules.get_mut(at) {
            module.path.get_or_insert(path);
        }
        let mut dependencies = Vec::new();
        for path in paths {
            let dependency = self.module(name_of_file(path), None);
            let is_there = !path.ends_with(b"/") && (self.planner.exists)(path);
            match self.modules.get_mut(dependency) {
                Some(module) if is_there && module.path.is_none_or(|known| known == path) => {
                    module.path = Some(path);
                    module.builtin = Some(false);
                    dependencies.push(dependency);
                }
                _ => {
                    dependencies.clear();
                    break;
                }
            }
        }
        dependencies.reverse();
        if let Some(module) = self.modules.get_mut(at) {
            module.dependencies = Some(dependencies.clone());
        }
        Ok(dependencies)
    }

    /// Returns the steps of the plan, in order.
    pub fn steps(&self) -> Result<Vec<Step>, PlanError> {
        self.entries.iter().map(|entry| self.step(entry)).collect()
    }

    fn step(&self, entry: &Entry) -> Result<Step, PlanError> {
        let config = self.planner.config;
        let Some(module) = self.modules.get(entry.module) else {
            return Err(PlanError::TooMuch);
        };
        let install = module
            .install
            .or_else(|| config.install_command(&module.name));
        let action = match (install, module.path) {
            (Some(command), _) if !module.ignore_install => Action::Install(command.clone()),
            (_, Some(path)) => Action::Insert(path.to_vec()),
            (_, None) if self.is_builtin(module)? => Action::Builtin,
            (_, None) => Action::Absent,
        };
        Ok(Step {
            module: module.name.to_vec(),
            action,
            parameters: config.parameters(&module.name, module.alias.as_deref()),
            required: module.required,
            after: entry.after.clone(),
        })
    }

    fn is_builtin(&self, module: &Module<'_>) -> Result<bool, PlanError> {
        let index = self.planner.indexes.builtin.as_ref();
        match module.builtin {
            Some(known) => Ok(known),
            None => Ok(find(index, &module.name)?.is_some()),
        }
    }
}

//! The modules of one request, each once, with the modules that must precede it. Pure. Must never
//! order a module after a later one: without such an edge the graph has no cycles.

use std::collections::HashMap;

use interfaces::loader::ModuleState;
use interfaces::names::ModuleName;

use crate::plan::{Action, Plan, Planner};
use crate::schedule::Node;
use crate::verdict::{self, text};

/// A file to insert.
#[derive(Clone)]
pub struct Insertion {
    pub module: ModuleName,
    pub path: Vec<u8>,
    pub parameters: Vec<u8>,
}

/// The nodes that one name needs, by position.
#[derive(Default)]
pub struct Placed {
    /// All nodes that are inserted for it.
    pub nodes: Vec<usize>,
    /// The nodes that must not fail: the modules that the name stands for.
    pub required: Vec<usize>,
}

/// The modules of one request, each once, and the file of each.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub insertions: Vec<Insertion>,
    by_module: HashMap<ModuleName, usize>,
}

impl Graph {
    /// Adds the pending steps of the plans of one name: all of them, or none. With `ordered`, all
    /// new nodes come after all existing ones.
    ///
    /// # Errors
    /// Returns a message if a plan contains an invalid module name, or if an index cannot be
    /// trusted.
    pub fn add(
        &mut self,
        plans: &[Plan],
        planner: &Planner<'_>,
        ordered: bool,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<Placed, String> {
        let before = self.nodes.len();
        let mut placed = Placed::default();
        for plan in plans {
            // A plan whose target is live is skipped, soft dependencies included.
            if !verdict::target_is_done(plan, state) {
                let ordered = if ordered { before } else { 0 };
                if let Err(message) = self.add_plan(plan, planner, ordered, state, &mut placed) {
                    self.nodes.truncate(before);
                    self.insertions.truncate(before);
                    self.by_module.retain(|_, at| *at < before);
                    return Err(message);
                }
            }
        }
        placed.nodes.sort_unstable();
        placed.nodes.dedup();
        Ok(placed)
    }

    /// Adds one plan. All new nodes come after the first `earlier` nodes.
    fn add_plan(
        &mut self,
        plan: &Plan,
        planner: &Planner<'_>,
        earlier: usize,
        state: &dyn Fn(&str) -> ModuleState,
        placed: &mut Placed,
    ) -> Result<(), String> {
        // The node of each step of the plan, if the step has anything to do.
        let mut steps: Vec<Option<usize>> = Vec::new();
        for step in &plan.steps {
            let Action::Insert(path) = &step.action else {
                // Built in, or a soft dependency that cannot be inserted: required steps have been
                // judged.
                steps.push(None);
                continue;
            };
            let module = match ModuleName::parse(&text(&step.module)) {
                Ok(module) if !verdict::is_done(step, state) => module,
                Err(e) if step.required => return Err(e.to_string()),
                _ => {
                    steps.push(None);
                    continue;
                }
            };
            let soft = step.after.iter().filter_map(|at| *steps.get(*at)?);
            let soft: Vec<usize> = soft.chain(0..earlier).collect();
            let at = match self.by_module.get(&module) {
                Some(at) => *at,
                None => {
                    let needs = planner.dependencies(&step.module);
                    let needs = needs.map_err(|e| e.to_string())?;
                    self.place(module, path, &step.parameters, &needs, soft)
                }
            };
            steps.push(Some(at));
            if step.module == plan.module {
                placed.required.push(at);
            }
        }
        placed.nodes.extend(steps.into_iter().flatten());
        Ok(())
    }

    fn place(
        &mut self,
        module: ModuleName,
        path: &[u8],
        parameters: &[u8],
        needs: &[Vec<u8>],
        after: Vec<usize>,
    ) -> usize {
        let needs = needs.iter().filter_map(|name| {
            let name = ModuleName::parse(&text(name)).ok()?;
            self.by_module.get(&name).copied()
        });
        let needs = needs.collect();
        let at = self.nodes.len();
        self.nodes.push(Node {
            module: module.clone(),
            weight: 0,
            needs,
            after,
        });
        self.insertions.push(Insertion {
            module: module.clone(),
            path: path.to_vec(),
            parameters: parameters.to_vec(),
        });
        self.by_module.insert(module, at);
        at
    }
}

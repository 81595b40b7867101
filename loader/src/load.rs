//! Requests, from names to results: plan, judge, schedule, order. Each name gets a result: the
//! failure of one module does not stop the others. Planning reads from disk, and the inserting
//! process waits for the kernel. Must never run on a thread that other work waits for.

mod error;
mod graph;
mod open_request;
mod orders;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use interfaces::loader::{ExplainReply, ListReply, ModuleResult, ModuleState, Outcome};
use interfaces::names::{ModuleAlias, ModuleName};
use nix::errno::Errno;
use rustix::fs::{Advice, fadvise};
use tokio::sync::{oneshot, watch};

use crate::explain;
use crate::kernel;
use crate::module_dir::ModuleDir;
use crate::plan::{Plan, PlanError, Planner};
use crate::policy::{Allowed, Policy};
use crate::queue::{Next, Queued, RequestQueue};
use crate::readable::Readable;
use crate::snapshot::{Snapshot, Snapshots};
use crate::verdict::{self, Facts, judge};
pub use error::VerdictError;
use graph::{Graph, Placed};
use open_request::OpenRequest;
pub use open_request::Request;
pub use orders::Orders;

/// The maximum number of waiting requests, both for the planning thread and for modules. The caller
/// of a request may have disconnected long ago.
pub const MAX_REQUESTS: usize = 1024;

/// The state of all loads, and their inputs.
pub struct Loader {
    /// The modules that may be loaded.
    pub policy: Mutex<Arc<Policy>>,
    /// The directories of the policy files.
    pub policy_directories: Vec<PathBuf>,
    /// The inputs of plans.
    pub snapshots: Snapshots,
    /// The module tree.
    pub modules: ModuleDir,
    /// The directory of sysfs.
    pub sysfs: PathBuf,
    /// The path of `/proc/sys/kernel/modules_disabled`.
    pub modules_disabled: PathBuf,
    /// The files that this process may read.
    pub readable: Readable,
    /// Set when this process must exit because a later start can do what it cannot.
    pub end: watch::Sender<bool>,
    /// The work in progress.
    pub work: Orders,
}

/// A query for the predicted result of a name. Its caller may have disconnected.
pub struct Explanation {
    /// The name or alias.
    pub name: ModuleAlias,
    /// The channel for the reply.
    pub answer: oneshot::Sender<Result<ExplainReply, VerdictError>>,
}

impl Queued for Explanation {
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The queue of the planning thread.
pub type Queue = RequestQueue<Request, Explanation>;

impl Loader {
    /// Replies to a query, or submits a load.
    pub fn answer(&self, next: Next<Request, Explanation>) {
        match next {
            Next::Load(request) => self.submit(request),
            Next::Explanation(Explanation { name, answer }) => {
                drop(answer.send(self.explain(&name)));
            }
        }
    }

    /// Plans and judges a request. Answers the names that need no load, and schedules the rest.
    pub fn submit(&self, request: Request) {
        // A request that has not begun is dropped if its caller has disconnected.
        if request.is_abandoned() {
            return;
        }
        let policy = self.policy();
        let (names, ordered) = (request.modules.clone(), request.ordered);
        let mut open_request = OpenRequest::new(request);
        let mut graph = Graph::default();
        let full = self.work.is_full();
        for (position, name) in names.iter().enumerate() {
            let placed = if full {
                Err(Box::new(busy(name)))
            } else {
                self.place(name.as_str(), &policy, &mut graph, ordered)
            };
            match placed {
                Ok((placed, judged)) => open_request.wait_for(position, placed, judged.stands_for),
                Err(result) => open_request.answer(position, *result),
            }
        }
        self.weigh(&mut graph);
        let Graph {
            nodes, insertions, ..
        } = graph;
        open_request.insertions = insertions;
        self.work.add(nodes, open_request);
    }

    /// Adds the modules that a name needs to the graph of its request. Returns the result of the
    /// name as the error if it is known without a load.
    fn place(
        &self,
        name: &str,
        policy: &Policy,
        graph: &mut Graph,
        ordered: bool,
    ) -> Result<(Placed, ModuleResult), Box<ModuleResult>> {
        let failed = |why: String| Box::new(ModuleResult::failed(name, why));
        let unplanned = |e: VerdictError| {
            let mut result = failed(interfaces::log::Chain(&e).to_string());
            result.errno_name = e.is_transient().then(|| format!("{:?}", Errno::EAGAIN));
            result
        };
        // The verdict and the graph must see the same state: the state of each module is read once.
        let seen = RefCell::new(HashMap::new());
        let state = |module: &str| {
            let mut seen = seen.borrow_mut();
            *seen
                .entry(module.to_owned())
                .or_insert_with(|| self.state_of(module))
        };
        let judged = self.judged(name, policy, &state);
        let (result, plans, snapshot) = judged.map_err(unplanned)?;
        if result.outcome != Outcome::Loaded {
            return Err(Box::new(result));
        }
        let planner = self.planner(&snapshot, &|_| true);
        let placed = graph.add(&plans, &planner, ordered, &state);
        Ok((placed.map_err(failed)?, result))
    }

    /// Returns the verdict on one name, with its plans and snapshot. Makes this process exit if it
    /// may not read files that appeared after its start.
    fn judged(
        &self,
        name: &str,
        policy: &Policy,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>, Arc<Snapshot>), VerdictError> {
        self.judged_as_readable(name, policy, state).map_err(|e| {
            let unreadable = e.unreadable();
            match unreadable.filter(|_| self.ends_outdated()) {
                Some(path) => VerdictError::Outdated(path),
                None => e,
            }
        })
    }

    /// Returns true if this process was restricted to files that are outdated now. The process then
    /// exits, and the next call starts a new one.
    pub fn ends_outdated(&self) -> bool {
        let outdated = self.readable.is_outdated();
        if outdated {
            tracing::info!("the files to read have changed since the start: exiting");
            self.end.send_replace(true);
        }
        outdated
    }

    fn judged_as_readable(
        &self,
        name: &str,
        policy: &Policy,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>, Arc<Snapshot>), VerdictError> {
        let modules = self.sysfs.join("module");
        if std::fs::read_dir(&modules).is_err() {
            return Err(VerdictError::NoSysfs(modules));
        }
        let snapshot = self.snapshots.current()?;
        let (result, plans) = self.judged_by(name, policy, &snapshot, state)?;
        if result.outcome != Outcome::Missing {
            return Ok((result, plans, snapshot));
        }
        // The module may have appeared since the files were checked.
        let now = self.snapshots.current()?;
        let (result, plans) = match Arc::ptr_eq(&now, &snapshot) {
            true => (result, plans),
            false => self.judged_by(name, policy, &now, state)?,
        };
        let doubt = || now.doubt(self.modules.root(), SystemTime::now());
        match doubt().filter(|_| result.outcome == Outcome::Missing) {
            Some(doubt) => Ok((verdict::unknown(name, &doubt), plans, now)),
            None => Ok((result, plans, now)),
        }
    }

    fn judged_by(
        &self,
        name: &str,
        policy: &Policy,
        snapshot: &Snapshot,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>), PlanError> {
        let is_live = |name: &[u8]| state(&verdict::text(name)) == ModuleState::Live;
        let admit = |module: &[u8]| {
            let mut needs = snapshot.indexes.dependencies_of(module);
            // As for a requested module: a live dependency needs no permission.
            needs.retain(|needed| !is_live(needed));
            verdict::admits(module, &needs, policy, &snapshot.config)
        };
        let planner = self.planner(snapshot, &admit);
        let found = planner.look_up(name.as_bytes())?;
        let plans: Result<Vec<Plan>, _> = found.iter().map(|found| planner.plan(found)).collect();
        let plans = plans?;
        let facts = Facts {
            allowed: &|module| self.allowance(module, policy, snapshot).is_some(),
            config: &snapshot.config,
            state,
            exists: &|path| self.modules.has(path),
        };
        Ok((judge(name, &plans, &facts), plans))
    }

    /// Returns the policy entry that allows a module: from the policy file that names it, or from
    /// one that names a module that cannot be loaded without it.
    fn allowance(&self, module: &[u8], policy: &Policy, snapshot: &Snapshot) -> Option<Allowed> {
        let planner = self.planner(snapshot, &|_| false);
        let needs_it = |name: &ModuleName| {
            let found = planner.look_up(name.as_str().as_bytes());
            let found = found.unwrap_or_default();
            let plans = found.iter().filter_map(|found| planner.plan(found).ok());
            // The target of an alias of that name does not count: an alias can be given to any
            // module.
            let plans = plans.filter(|plan| plan.module == name.as_str().as_bytes());
            let mut steps = plans.flat_map(|plan| plan.steps);
            steps.any(|step| step.required && step.module == module)
        };
        let implied = || {
            let mut modules = policy.modules();
            let (name, by) = modules.find(|(name, _)| needs_it(name))?;
            Some(Allowed {
                file: by.file.clone(),
                purpose: format!("needed by {name}: {}", by.purpose),
            })
        };
        policy.allowance(module).cloned().or_else(implied)
    }

    /// Returns a planner. Unlike modprobe, it does not drop the other dependencies if a file is
    /// missing: the verdict names that file.
    fn planner<'t>(&self, snapshot: &'t Snapshot, admit: &'t dyn Fn(&[u8]) -> bool) -> Planner<'t> {
        Planner {
            indexes: &snapshot.indexes,
            config: &snapshot.config,
            exists: &|_| true,
            admit,
            merge_softdeps: false,
        }
    }

    /// Makes the kernel read ahead the files that will be inserted. The size of each file serves as
    /// an estimate of its load time.
    fn weigh(&self, graph: &mut Graph) {
        for (node, insertion) in graph.nodes.iter_mut().zip(&graph.insertions) {
            // Errors in a file are reported when it is inserted.
            if let Ok(file) = self.modules.open(&insertion.path) {
                node.weight = file.metadata().map_or(0, |metadata| metadata.len());
                let _ = fadvise(&file, 0, None, Advice::WillNeed);
            }
        }
    }

    /// Returns the state of a module in the kernel.
    pub fn state_of(&self, module: &str) -> ModuleState {
        kernel::state(&self.sysfs, module)
    }

    /// Returns the predicted result for a name. Loads nothing.
    ///
    /// # Errors
    /// Fails if there is nothing to judge.
    pub fn explain(&self, name: &ModuleAlias) -> Result<ExplainReply, VerdictError> {
        let policy = self.policy();
        let state = |module: &str| self.state_of(module);
        let (verdict, plans, snapshot) = self.judged(name.as_str(), &policy, &state)?;
        let allowance = |module: &[u8]| self.allowance(module, &policy, &snapshot);
        let config = &snapshot.config;
        Ok(explain::reply(verdict, &plans, config, &allowance, &state))
    }

    /// Returns the modules that the policy names, sorted by name.
    pub fn list(&self) -> Vec<ListReply> {
        let policy = self.policy();
        let modules = policy.modules().map(|(module, allowed)| ListReply {
            module: module.to_string(),
            state: self.state_of(module.as_str()),
            allowed_by: allowed.file.display().to_string(),
            purpose: allowed.purpose.clone(),
        });
        modules.collect()
    }

    /// Reads the policy again, and logs its errors if it has changed.
    ///
    /// # Errors
    /// Fails if a directory cannot be read. The previous policy stays in force.
    pub fn reload(&self) -> io::Result<Arc<Policy>> {
        let policy = read_policy(&self.policy_directories)?;
        let mut kept = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        if **kept != policy {
            tracing::info!("the policy has changed: it names {} modules", policy.len());
            log_policy(&policy);
            *kept = Arc::new(policy);
        }
        Ok(Arc::clone(&kept))
    }

    /// Returns the current policy: one load is judged by one policy. If it cannot be read, returns
    /// the previous policy, and this process exits if a later start may read the new one.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.reload().unwrap_or_else(|e| {
            if e.kind() == io::ErrorKind::PermissionDenied {
                self.ends_outdated();
            }
            Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

/// Logs the errors of a policy.
pub fn log_policy(policy: &Policy) {
    for refused in policy.refused() {
        tracing::error!("a policy file allows nothing: {refused}");
    }
    if policy.is_empty() {
        tracing::warn!("the policy names no module: nothing can be loaded");
    }
}

/// Returns the result for a name of a request beyond the limit.
#[must_use]
pub fn busy(name: &ModuleName) -> ModuleResult {
    let why = format!("{MAX_REQUESTS} requests are waiting for modules already");
    let mut result = ModuleResult::failed(name.as_str(), why);
    result.errno_name = Some(format!("{:?}", Errno::EAGAIN));
    result
}

/// Reads the policy from `directories`. A file that cannot be used allows nothing, and hides files
/// of its name in later directories: this can only make the policy stricter. [`Policy::refused`]
/// returns the errors.
///
/// # Errors
/// Fails if a directory exists and cannot be listed: the files that it would hide are unknown.
pub fn read_policy(directories: &[PathBuf]) -> io::Result<Policy> {
    let mut policy = Policy::default();
    for file in interfaces::dropin::read(directories, ".toml") {
        match file.text {
            Ok(text) if !file.hidden => policy.add(&file.path, &text),
            Err(e) if directories.contains(&file.path) => {
                let why = format!("{}: {e}", file.path.display());
                return Err(io::Error::new(e.kind(), why));
            }
            Err(e) if !file.hidden => policy.refuse(&file.path, &e.to_string()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests;

//! Requests from names to answers: plan, judge, schedule, order. Every outcome is an answer:
//! nothing that happens to one module stops its siblings. Planning reads from disk, and the
//! inserting process takes as long as the kernel does: must never run where something else waits.

mod error;
mod graph;
mod orders;
mod ticket;

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
use crate::questions::{Asked, Next, Questions};
use crate::readable::Readable;
use crate::snapshot::{Snapshot, Snapshots};
use crate::verdict::{self, Facts, judge};
pub use error::Unplanned;
use graph::{Graph, Placed};
pub use orders::Work;
pub use ticket::Request;
use ticket::Ticket;

/// The most requests that wait: for the thread that plans, and for modules. A caller may have
/// left long ago.
pub const MAX_REQUESTS: usize = 1024;

/// Everything that a load needs.
pub struct Loader {
    /// What may be loaded.
    pub policy: Mutex<Arc<Policy>>,
    /// Where that is written.
    pub policy_directories: Vec<PathBuf>,
    /// What plans are made from.
    pub snapshots: Snapshots,
    /// Where modules come from.
    pub modules: ModuleDir,
    /// Where the kernel says what it has.
    pub sysfs: PathBuf,
    /// `/proc/sys/kernel/modules_disabled`.
    pub modules_disabled: PathBuf,
    /// What this process may read.
    pub readable: Readable,
    /// Set when this process has to end, and a later start can do what it cannot.
    pub end: watch::Sender<bool>,
    /// What is under way.
    pub work: Work,
}

/// A question of what would become of a name. Its caller may be gone.
pub struct Explanation {
    /// The name or alias.
    pub name: ModuleAlias,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<ExplainReply, Unplanned>>,
}

impl Asked for Explanation {
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// What waits for the thread that plans.
pub type Queue = Questions<Request, Explanation>;

impl Loader {
    /// Answers what is asked, or sees to it that it will be.
    pub fn answer(&self, next: Next<Request, Explanation>) {
        match next {
            Next::Load(request) => self.submit(request),
            Next::Question(Explanation { name, answer }) => {
                drop(answer.send(self.explain(&name)));
            }
        }
    }

    /// Plans and judges a request, answers what can be answered, and has the rest loaded.
    pub fn submit(&self, request: Request) {
        // What has not begun has no caller that waits for it.
        if request.is_abandoned() {
            return;
        }
        let policy = self.policy();
        let (names, ordered) = (request.modules.clone(), request.ordered);
        let mut ticket = Ticket::new(request);
        let mut graph = Graph::default();
        let full = self.work.is_full();
        for (position, name) in names.iter().enumerate() {
            let placed = if full {
                Err(Box::new(busy(name)))
            } else {
                self.place(name.as_str(), &policy, &mut graph, ordered)
            };
            match placed {
                Ok((placed, judged)) => ticket.wait_for(position, placed, judged.stands_for),
                Err(result) => ticket.answer(position, *result),
            }
        }
        self.weigh(&mut graph);
        let Graph {
            nodes, insertions, ..
        } = graph;
        ticket.insertions = insertions;
        self.work.add(nodes, ticket);
    }

    /// Puts what a name needs among the modules of its request; or says what became of it, when
    /// that is known without.
    fn place(
        &self,
        name: &str,
        policy: &Policy,
        graph: &mut Graph,
        ordered: bool,
    ) -> Result<(Placed, ModuleResult), Box<ModuleResult>> {
        let failed = |why: String| Box::new(ModuleResult::failed(name, why));
        let unplanned = |e: Unplanned| {
            let mut result = failed(interfaces::log::Chain(&e).to_string());
            result.errno_name = e.is_transient().then(|| format!("{:?}", Errno::EAGAIN));
            result
        };
        // What was judged and what is done about it must see the same: each module is looked at
        // once.
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

    /// The verdict on one name, and what stands behind it. Has this process end where it may not
    /// read what came after its start.
    fn judged(
        &self,
        name: &str,
        policy: &Policy,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>, Arc<Snapshot>), Unplanned> {
        self.judged_as_readable(name, policy, state).map_err(|e| {
            let unreadable = e.unreadable();
            match unreadable.filter(|_| self.ends_outdated()) {
                Some(path) => Unplanned::Outdated(path),
                None => e,
            }
        })
    }

    /// Whether this process was restricted to what is outdated by now. It ends then, and the next
    /// call starts another.
    pub fn ends_outdated(&self) -> bool {
        let outdated = self.readable.is_outdated();
        if outdated {
            tracing::info!("there are other files to read than at the start: the loader ends");
            self.end.send_replace(true);
        }
        outdated
    }

    fn judged_as_readable(
        &self,
        name: &str,
        policy: &Policy,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>, Arc<Snapshot>), Unplanned> {
        let modules = self.sysfs.join("module");
        if std::fs::read_dir(&modules).is_err() {
            return Err(Unplanned::NoSysfs(modules));
        }
        let snapshot = self.snapshots.current()?;
        let (result, plans) = self.judged_by(name, policy, &snapshot, state)?;
        if result.outcome != Outcome::Missing {
            return Ok((result, plans, snapshot));
        }
        // It may have come since the files were looked at.
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
            // As for what was asked for: what is there needs nobody's leave.
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

    /// Who allows a module: the policy file that names it, or one that names a module which cannot be
    /// loaded without it.
    fn allowance(&self, module: &[u8], policy: &Policy, snapshot: &Snapshot) -> Option<Allowed> {
        let planner = self.planner(snapshot, &|_| false);
        let needs_it = |name: &ModuleName| {
            let found = planner.look_up(name.as_str().as_bytes());
            let found = found.unwrap_or_default();
            let plans = found.iter().filter_map(|found| planner.plan(found).ok());
            // Not what an alias of that name stands for: an alias can be given to any module.
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

    /// Unlike modprobe, a missing file does not make this planner forget the other dependencies:
    /// the verdict names it.
    fn planner<'t>(&self, snapshot: &'t Snapshot, admit: &'t dyn Fn(&[u8]) -> bool) -> Planner<'t> {
        Planner {
            indexes: &snapshot.indexes,
            config: &snapshot.config,
            exists: &|_| true,
            admit,
            merge_softdeps: false,
        }
    }

    /// Has the kernel read ahead what will be inserted, and takes the size of each file for the
    /// time that it will take.
    fn weigh(&self, graph: &mut Graph) {
        for (node, insertion) in graph.nodes.iter_mut().zip(&graph.insertions) {
            // What is wrong with a file is found when it is its turn.
            if let Ok(file) = self.modules.open(&insertion.path) {
                node.weight = file.metadata().map_or(0, |metadata| metadata.len());
                let _ = fadvise(&file, 0, None, Advice::WillNeed);
            }
        }
    }

    /// Whether a module is in the kernel.
    pub fn state_of(&self, module: &str) -> ModuleState {
        kernel::state(&self.sysfs, module)
    }

    /// What would become of a name; nothing is done.
    ///
    /// # Errors
    /// When there is nothing to judge.
    pub fn explain(&self, name: &ModuleAlias) -> Result<ExplainReply, Unplanned> {
        let policy = self.policy();
        let state = |module: &str| self.state_of(module);
        let (verdict, plans, snapshot) = self.judged(name.as_str(), &policy, &state)?;
        let allowance = |module: &[u8]| self.allowance(module, &policy, &snapshot);
        let config = &snapshot.config;
        Ok(explain::reply(verdict, &plans, config, &allowance, &state))
    }

    /// The modules that the policy names, in the order of their names.
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

    /// Reads the policy again, and says what is wrong with it where it has changed.
    ///
    /// # Errors
    /// When a directory cannot be read. The policy before stays.
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

    /// The policy as it is now: one load is judged by one policy. Where it cannot be read it is what it
    /// was, and this process ends where a later start may read it.
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

/// Logs what is wrong with a policy.
pub fn log_policy(policy: &Policy) {
    for refused in policy.refused() {
        tracing::error!("a policy file allows nothing: {refused}");
    }
    if policy.is_empty() {
        tracing::warn!("the policy names no module: nothing can be loaded");
    }
}

/// The answer to one request too many.
#[must_use]
pub fn busy(name: &ModuleName) -> ModuleResult {
    let why = format!("{MAX_REQUESTS} requests wait for modules already");
    let mut result = ModuleResult::failed(name.as_str(), why);
    result.errno_name = Some(format!("{:?}", Errno::EAGAIN));
    result
}

/// Reads the policy of `directories`. A file that cannot be used allows nothing, and hides those of
/// its name in later directories: the policy only ever gets stricter by it, and
/// [`Policy::refused`] says what is wrong with it.
///
/// # Errors
/// When a directory exists and cannot be listed: what a file in it would hide is not known.
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

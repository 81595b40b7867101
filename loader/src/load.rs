//! Requests from names to answers: plan, judge, schedule, insert. Every outcome is an answer:
//! nothing that happens to one module stops its siblings. Planning reads from disk and loading
//! takes as long as the kernel does: must never run where something else waits.

mod error;
mod graph;
mod ticket;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use interfaces::loader::{ExplainReply, ListReply, ModuleResult, ModuleState, Outcome};
use interfaces::names::ModuleName;
use nix::errno::Errno;
use rustix::fs::{Advice, fadvise};
use tokio::sync::oneshot;

use crate::explain;
use crate::image::{self, Compression};
use crate::kernel::{self, Kernel};
use crate::module_dir::ModuleDir;
use crate::plan::{Plan, PlanError, Planner};
use crate::policy::Policy;
use crate::snapshot::{Snapshot, Snapshots};
use crate::verdict::{self, Facts, judge, text};
pub use error::{LoadError, Unplanned};
use graph::{Graph, Insertion, Placed};
pub use ticket::Request;
use ticket::{State, Ticket};

/// The longest parameters that a module is given, in bytes. The kernel takes a megabyte.
const MAX_PARAMETERS: usize = 4096;

/// The most requests that wait for modules at once. Who asked may have left long ago.
const MAX_REQUESTS: usize = 1024;

/// Everything that a load needs.
pub struct Loader<K> {
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
    /// Where modules go.
    pub kernel: K,
    /// What the kernel decompresses by itself.
    pub compression: Compression,
    /// What is under way.
    pub work: Work,
}

/// What the planner is asked.
pub enum Question {
    /// To have something loaded.
    Load(Request),
    /// To say what would become of a name. Whoever asks may be gone.
    Explain(ModuleName, oneshot::Sender<Result<ExplainReply, Unplanned>>),
}

/// What is under way, and who waits for it.
#[derive(Default)]
pub struct Work {
    state: Mutex<State>,
    changed: Condvar,
}

impl<K: Kernel> Loader<K> {
    /// Answers a question, or sees to it that it will be.
    pub fn answer(&self, question: Question) {
        match question {
            Question::Load(request) => self.submit(request),
            Question::Explain(name, answer) => drop(answer.send(self.explain(&name))),
        }
    }

    /// Plans and judges a request, answers what can be answered, and has the rest loaded.
    pub fn submit(&self, request: Request) {
        // Nobody waits for what has not begun.
        if request.answers.is_closed() {
            return;
        }
        let policy = self.policy();
        let (names, ordered) = (request.modules.clone(), request.ordered);
        let mut ticket = Ticket::new(request);
        let mut graph = Graph::default();
        let full = self.work.state().tickets.len() >= MAX_REQUESTS;
        for (position, name) in names.iter().enumerate() {
            let placed = if full {
                Err(Box::new(busy(name)))
            } else {
                self.place(name, &policy, &mut graph, ordered)
            };
            match placed {
                Ok(Placed { nodes, required }) => ticket.wait_for(position, nodes, required),
                Err(result) => ticket.answer(position, *result),
            }
        }
        self.weigh(&mut graph);
        let Graph {
            nodes, insertions, ..
        } = graph;
        ticket.insertions = insertions;
        let mut state = self.work.state();
        let id = state.schedule.add(nodes);
        state.tickets.insert(id, ticket);
        // There may be nothing left to wait for.
        state.answer(id);
        self.work.changed.notify_all();
    }

    /// Puts what a name needs among the modules of its request; or says what became of it, when
    /// that is known without.
    fn place(
        &self,
        name: &ModuleName,
        policy: &Policy,
        graph: &mut Graph,
        ordered: bool,
    ) -> Result<Placed, Box<ModuleResult>> {
        let failed = |why: String| Box::new(ModuleResult::failed(name.as_str(), why));
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
        let (result, plans, snapshot) =
            judged.map_err(|e| failed(interfaces::log::Chain(&e).to_string()))?;
        if result.outcome != Outcome::Loaded {
            return Err(Box::new(result));
        }
        let planner = self.planner(&snapshot, &|_| true);
        graph.add(&plans, &planner, ordered, &state).map_err(failed)
    }

    /// The verdict on one name, and what stands behind it.
    fn judged(
        &self,
        name: &ModuleName,
        policy: &Policy,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>, Arc<Snapshot>), Unplanned> {
        let modules = self.sysfs.join("module");
        if !modules.is_dir() {
            return Err(Unplanned::NoSysfs(modules));
        }
        let snapshot = self.snapshots.current()?;
        let (result, plans) = self.judged_by(name, policy, &snapshot, state)?;
        if result.outcome != Outcome::Missing {
            return Ok((result, plans, snapshot));
        }
        // It may have come since the files were looked at.
        let now = self.snapshots.current()?;
        if Arc::ptr_eq(&now, &snapshot) {
            return Ok((result, plans, snapshot));
        }
        let (result, plans) = self.judged_by(name, policy, &now, state)?;
        Ok((result, plans, now))
    }

    fn judged_by(
        &self,
        name: &ModuleName,
        policy: &Policy,
        snapshot: &Snapshot,
        state: &dyn Fn(&str) -> ModuleState,
    ) -> Result<(ModuleResult, Vec<Plan>), PlanError> {
        let admit = |module: &[u8]| verdict::admits(module, policy, &snapshot.config);
        let planner = self.planner(snapshot, &admit);
        let found = planner.look_up(name.as_str().as_bytes())?;
        let plans: Result<Vec<Plan>, _> = found.iter().map(|found| planner.plan(found)).collect();
        let plans = plans?;
        let facts = Facts {
            policy,
            config: &snapshot.config,
            state,
            exists: &|path| self.modules.has(path),
        };
        Ok((judge(name.as_str(), &plans, &facts), plans))
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

    /// Loads, one module after the other, until there is nothing left to do and the loader is
    /// closed.
    pub fn work(&self) {
        let mut state = self.work.state();
        loop {
            if let Some((id, at)) = state.schedule.start() {
                let ticket = state.tickets.get(&id);
                let Some(insertion) = ticket.and_then(|t| t.insertions.get(at)).cloned() else {
                    continue;
                };
                drop(state);
                // A panic must not leave a module loading for ever.
                let inserted = catch_unwind(AssertUnwindSafe(|| self.insert(&insertion)));
                let outcome = inserted.unwrap_or(Err(LoadError::Panic)).map_err(Arc::new);
                state = self.work.state();
                for id in state.schedule.done(&insertion.module, &outcome) {
                    state.answer(id);
                }
                self.work.changed.notify_all();
            } else if state.closed && state.schedule.is_empty() {
                return;
            } else {
                let waited = self.work.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Whether the module was inserted, and not live already.
    fn insert(&self, insertion: &Insertion) -> Result<bool, LoadError> {
        let name = insertion.module.as_str();
        if self.state_of(name) == ModuleState::Live {
            return Ok(false);
        }
        let path = text(&insertion.path);
        let file = self.modules.open(&insertion.path)?;
        let (image, flags) = image::for_kernel(file, self.compression)
            .map_err(|e| LoadError::Image(path.clone(), e))?;
        if insertion.parameters.len() > MAX_PARAMETERS {
            return Err(LoadError::Parameters);
        }
        let parameters =
            CString::new(insertion.parameters.clone()).map_err(|_| LoadError::Parameters)?;
        let outcome = loop {
            let kernel = &self.kernel;
            match kernel.finit_module(&insertion.module, &image, &parameters, flags) {
                // A signal while it waited for somebody else's load: none is meant for it.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let is_live = self.state_of(name) == ModuleState::Live;
        match outcome {
            Ok(()) if is_live => Ok(true),
            Ok(()) => Err(LoadError::OtherName(path)),
            // Somebody else was faster, which is as good; unless it is the module's own
            // initialisation that says so.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_live => Ok(false),
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or_default();
                Err(LoadError::Refused(path, Errno::from_raw(errno)))
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
    pub fn explain(&self, name: &ModuleName) -> Result<ExplainReply, Unplanned> {
        let policy = self.policy();
        let state = |module: &str| self.state_of(module);
        let (verdict, plans, _) = self.judged(name, &policy, &state)?;
        Ok(explain::reply(verdict, &plans, &policy, &state))
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

    /// Reads the policy again. The old one stays when a directory cannot be read.
    ///
    /// # Errors
    /// When that is so.
    pub fn reload(&self) -> io::Result<usize> {
        let policy = Arc::new(read_policy(&self.policy_directories)?);
        let len = policy.len();
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
        Ok(len)
    }

    /// The policy as it is now: one load is judged by one policy.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The answer to one request too many.
fn busy(name: &ModuleName) -> ModuleResult {
    let why = format!("{MAX_REQUESTS} requests wait for modules already");
    let mut result = ModuleResult::failed(name.as_str(), why);
    result.errno_name = Some(format!("{:?}", Errno::EAGAIN));
    result
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the threads go when they have done what there is to do.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Whether something is under way.
    pub fn is_busy(&self) -> bool {
        !self.state().schedule.is_empty()
    }
}

/// Reads the policy of `directories`. A file that cannot be used allows nothing: the policy
/// only ever gets stricter by it, and [`Policy::refused`] says what is wrong with it.
///
/// # Errors
/// When a directory exists and cannot be listed.
pub fn read_policy(directories: &[PathBuf]) -> io::Result<Policy> {
    let mut policy = Policy::default();
    for file in interfaces::dropin::read(directories, ".toml")? {
        match &file.text {
            Ok(text) => policy.add(&file.path, text),
            Err(e) => policy.refuse(&file.path, &e.to_string()),
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests;

//! One request from name to answer: look up, judge, insert. Every outcome is an answer: nothing
//! that happens to one module stops its siblings. Blocks for as long as the kernel takes, so it
//! must never run where something else waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use interfaces::loader::{
    self, Denier, ExplainReply, ListReply, ModuleResult, ModuleState, Outcome,
};
use interfaces::names::ModuleName;
use nix::errno::Errno;

use crate::kernel::{self, Kernel};
use crate::module_dir::ModuleDir;
use crate::plan::{Lookup, Plan, Step};
use crate::policy::{Policy, Verdict};

/// Everything that a load needs.
pub struct Loader<K> {
    /// What may be loaded.
    pub policy: Mutex<Arc<Policy>>,
    /// Where that is written.
    pub policy_directories: Vec<PathBuf>,
    /// Where modules come from.
    pub modules: ModuleDir,
    /// Where the kernel says what it has.
    pub sysfs: PathBuf,
    /// Where modules go.
    pub kernel: K,
}

/// Why a plan was not carried out to its end.
struct Failure<'p> {
    step: &'p Step,
    error: io::Error,
}

impl<K: Kernel> Loader<K> {
    /// Loads what `name` stands for.
    pub fn load(&self, name: &ModuleName) -> ModuleResult {
        let start = Instant::now();
        let mut result = ModuleResult {
            module: name.to_string(),
            outcome: Outcome::Missing,
            chain: Vec::new(),
            duration_usec: 0,
            denied_by: None,
            culprit: None,
            errno_name: None,
            message: None,
        };
        self.answer(name, &mut result);
        result.duration_usec = i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX);
        result
    }

    /// Says what [`Self::load`] would do, and does nothing.
    ///
    /// # Errors
    /// A sentence, when the indexes cannot be used.
    pub fn explain(&self, name: &ModuleName) -> Result<ExplainReply, String> {
        let mut reply = ExplainReply {
            outcome: Outcome::Missing,
            denied_by: None,
            plans: Vec::new(),
            message: format!("this kernel has no module or alias {name}"),
        };
        let plans = match self.look_up(name)? {
            Lookup::Modules(plans) => plans,
            Lookup::Builtin => {
                reply.outcome = Outcome::Builtin;
                reply.message = format!("{name} is part of the kernel image");
                return Ok(reply);
            }
            Lookup::Missing => return Ok(reply),
        };
        let policy = self.policy();
        reply.plans = plans.iter().map(|plan| self.told(plan, &policy)).collect();
        let unlisted = reply.plans.iter().find(|plan| plan.allowed_by.is_none());
        let live = |plan: &loader::Plan| {
            let module = plan.steps.last();
            module.is_some_and(|step| step.state == ModuleState::Live)
        };
        (reply.outcome, reply.denied_by, reply.message) = if let Some(plan) = unlisted {
            let message = format!("no file of the loader's policy names {}", plan.module);
            (Outcome::Denied, Some(Denier::Policy), message)
        } else if reply.plans.iter().all(live) {
            (Outcome::AlreadyLoaded, None, format!("{name} is live"))
        } else {
            (Outcome::Loaded, None, format!("{name} would be loaded"))
        };
        Ok(reply)
    }

    /// The modules that the policy names, in the order of their names.
    pub fn list(&self) -> Vec<ListReply> {
        let policy = self.policy();
        let modules = policy.modules().map(|(module, allowed)| ListReply {
            module: module.to_string(),
            state: kernel::state(&self.sysfs, module),
            allowed_by: allowed.file.display().to_string(),
            purpose: allowed.purpose.clone(),
        });
        modules.collect()
    }

    fn told(&self, plan: &Plan, policy: &Policy) -> loader::Plan {
        let (allowed_by, purpose) = match policy.judge(plan) {
            Verdict::Allowed(by) => (Some(by.file.display().to_string()), Some(by.purpose)),
            Verdict::Unlisted => (None, None),
        };
        let steps = plan.steps.iter().map(|step| loader::Step {
            module: step.module.to_string(),
            path: step.path.display().to_string(),
            state: kernel::state(&self.sysfs, &step.module),
        });
        loader::Plan {
            module: plan.module.to_string(),
            allowed_by,
            purpose,
            steps: steps.collect(),
        }
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

    fn answer(&self, name: &ModuleName, result: &mut ModuleResult) {
        let plans = match self.look_up(name) {
            Ok(Lookup::Modules(plans)) => plans,
            Ok(Lookup::Builtin) => {
                result.outcome = Outcome::Builtin;
                return;
            }
            Ok(Lookup::Missing) => {
                result.message = Some(format!("this kernel has no module or alias {name}"));
                return;
            }
            Err(message) => {
                result.outcome = Outcome::Failed;
                result.message = Some(message);
                return;
            }
        };
        // All or nothing: an alias of several modules must not load the half that is allowed.
        let policy = self.policy();
        for plan in &plans {
            if policy.judge(plan) == Verdict::Unlisted {
                result.outcome = Outcome::Denied;
                result.denied_by = Some(Denier::Policy);
                result.culprit = culprit(name, &plan.module);
                result.message = Some(format!(
                    "no file of the loader's policy names {}",
                    plan.module
                ));
                return;
            }
        }
        result.outcome = Outcome::AlreadyLoaded;
        for plan in &plans {
            if let Err(failure) = self.carry_out(plan, &mut result.chain) {
                let errno = Errno::from_raw(failure.error.raw_os_error().unwrap_or_default());
                result.outcome = Outcome::Failed;
                result.culprit = culprit(name, &failure.step.module);
                result.errno_name = Some(format!("{errno:?}"));
                result.message = Some(format!("{}: {}", failure.step.path.display(), errno.desc()));
                return;
            }
        }
        if !result.chain.is_empty() {
            result.outcome = Outcome::Loaded;
        }
    }

    fn look_up(&self, name: &ModuleName) -> Result<Lookup, String> {
        let sentence = |e: &dyn std::error::Error| interfaces::log::Chain(e).to_string();
        let indexes = self.modules.indexes().map_err(|e| sentence(&e))?;
        indexes.look_up(name).map_err(|e| sentence(&e))
    }

    /// Inserts what is not live yet and adds it to `chain`.
    fn carry_out<'p>(&self, plan: &'p Plan, chain: &mut Vec<String>) -> Result<(), Failure<'p>> {
        // The usual case of a second device, answered without a look at the dependencies: they
        // are live as long as the module is.
        if kernel::state(&self.sysfs, &plan.module) == ModuleState::Live {
            return Ok(());
        }
        for step in &plan.steps {
            // One that is coming is given to the kernel again: that waits for it.
            if self.is_live(step) {
                continue;
            }
            match self.insert(step) {
                Ok(()) => chain.push(step.module.to_string()),
                // Somebody else was faster, which is as good; unless it is the module's own
                // initialisation that says so.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.is_live(step) => {}
                Err(error) => return Err(Failure { step, error }),
            }
        }
        Ok(())
    }

    fn is_live(&self, step: &Step) -> bool {
        kernel::state(&self.sysfs, &step.module) == ModuleState::Live
    }

    fn insert(&self, step: &Step) -> io::Result<()> {
        let image = self.modules.open(step)?;
        let flags = kernel::flags_for(&image)?;
        self.kernel.finit_module(step, &image, flags)
    }
}

fn culprit(asked: &ModuleName, module: &ModuleName) -> Option<String> {
    (asked != module).then(|| module.to_string())
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

/// The module directory of `release` below `modules`.
#[must_use]
pub fn module_dir(modules: &Path, release: &str) -> ModuleDir {
    ModuleDir::new(modules.join(release))
}

#[cfg(test)]
mod tests;

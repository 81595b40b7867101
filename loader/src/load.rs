//! One request from name to answer: look up, judge, insert. Every outcome is an answer: nothing
//! that happens to one module stops its siblings. Blocks for as long as the kernel takes, so it
//! must never run where something else waits.

use std::io;
use std::path::Path;
use std::time::Instant;

use interfaces::loader::{Denier, ModuleResult, Outcome};
use interfaces::names::ModuleName;
use nix::errno::Errno;

use crate::kernel::{self, Kernel};
use crate::module_dir::ModuleDir;
use crate::plan::{Lookup, Plan, Step};
use crate::policy::{Policy, Verdict};

/// Everything that a load needs.
pub struct Loader<K> {
    /// What may be loaded.
    pub policy: Policy,
    /// Where modules come from.
    pub modules: ModuleDir,
    /// Where the kernel says what it has.
    pub sysfs: std::path::PathBuf,
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
        for plan in &plans {
            if self.policy.judge(plan) == Verdict::Unlisted {
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
        if kernel::is_live(&self.sysfs, &plan.module) {
            return Ok(());
        }
        for step in &plan.steps {
            if kernel::is_live(&self.sysfs, &step.module) {
                continue;
            }
            match self.insert(step) {
                Ok(()) => chain.push(step.module.to_string()),
                // Somebody else was faster, which is as good.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure { step, error }),
            }
        }
        Ok(())
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

/// Reads the policy of `directories`.
///
/// A file that cannot be used allows nothing: the policy only ever gets stricter by it. It is
/// returned with what is wrong, for the log.
///
/// # Errors
/// When a directory exists and cannot be listed.
pub fn read_policy(
    directories: &[std::path::PathBuf],
) -> io::Result<(Policy, Vec<(std::path::PathBuf, String)>)> {
    let mut policy = Policy::default();
    let mut refused = Vec::new();
    for file in interfaces::dropin::read(directories, ".toml")? {
        let added = match &file.text {
            Ok(text) => policy.add(&file.path, text).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(reason) = added {
            refused.push((file.path, reason));
        }
    }
    Ok((policy, refused))
}

/// The module directory of `release` below `modules`.
#[must_use]
pub fn module_dir(modules: &Path, release: &str) -> ModuleDir {
    ModuleDir::new(modules.join(release))
}

#[cfg(test)]
mod tests;

//! The contract of the loader, `org.rdmahotplug.Loader`. Pure. Must never hold a meaning that is
//! not in its interface file.

use crate::Interface;
pub use crate::generated::loader::*;

/// The interface as it is served.
pub const INTERFACE: Interface = Interface {
    name: "org.rdmahotplug.Loader",
    text: include_str!("../varlink/org.rdmahotplug.Loader.varlink"),
};

/// The maximum number of modules in one call of [`LOAD`] or [`EXPLAIN`].
pub const MAX_MODULES: usize = 64;

/// Loads modules by name or alias.
pub const LOAD: &str = "org.rdmahotplug.Loader.Load";
/// Shows what a load would do.
pub const EXPLAIN: &str = "org.rdmahotplug.Loader.Explain";
/// Lists the modules that the policy names.
pub const LIST: &str = "org.rdmahotplug.Loader.List";
/// Returns the loads in progress, and the limits.
pub const DESCRIBE: &str = "org.rdmahotplug.Loader.Describe";
/// More requests wait for a reply than the service keeps.
pub const TOO_MANY_QUESTIONS: &str = "org.rdmahotplug.Loader.TooManyQuestions";
/// The policy names no module.
pub const NO_MODULES: &str = "org.rdmahotplug.Loader.NoModules";
/// The index files of the kernel's modules or a file of `modprobe.d(5)` cannot be used.
pub const NO_PLAN: &str = "org.rdmahotplug.Loader.NoPlan";

impl ExplainReply {
    /// Returns the reason, as a message, if an administrator's decision keeps all requested modules
    /// from being loaded; otherwise nothing.
    #[must_use]
    pub fn exclusion(&self) -> Option<String> {
        if self.plans.len() <= 1 && self.denied_by.is_some_and(|by| by != Denier::Policy) {
            return Some(self.message.clone());
        }
        // The policy may deny the first module, which does not matter here.
        let first = self.plans.first()?;
        let all = self.plans.iter().all(|plan| plan.blacklisted_by.is_some());
        let source = first.blacklisted_by.as_ref().filter(|_| all)?;
        Some(format!("{source} blacklists {}", first.module))
    }
}

impl ModuleResult {
    /// Creates a result that holds only the outcome of `module`.
    #[must_use]
    pub fn new(module: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            module: module.into(),
            outcome,
            stands_for: None,
            chain: Vec::new(),
            duration_usec: 0,
            denied_by: None,
            source: None,
            command: None,
            culprit: None,
            errno_name: None,
            message: None,
        }
    }

    /// Creates a result that `module` failed, with the reason as a message.
    #[must_use]
    pub fn failed(module: impl Into<String>, why: impl Into<String>) -> Self {
        let mut result = Self::new(module, Outcome::Failed);
        result.message = Some(why.into());
        result
    }

    /// Returns true if a decision of the administrator, and not the policy, excludes the module.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        matches!(
            self.denied_by,
            Some(Denier::Blacklist | Denier::KernelCommandLine | Denier::InstallLine)
        )
    }
}

//! The contract of the loader, `org.rdmahotplug.Loader`. Must never mean anything that its
//! interface file does not say.

use crate::Interface;
pub use crate::generated::loader::*;

/// The interface as it is served.
pub const INTERFACE: Interface = Interface {
    name: "org.rdmahotplug.Loader",
    text: include_str!("../varlink/org.rdmahotplug.Loader.varlink"),
};

/// Loads modules by name or alias.
pub const LOAD: &str = "org.rdmahotplug.Loader.Load";
/// Says what a load would do.
pub const EXPLAIN: &str = "org.rdmahotplug.Loader.Explain";
/// Lists the modules that the policy names.
pub const LIST: &str = "org.rdmahotplug.Loader.List";
/// Says what the loader is doing.
pub const DESCRIBE: &str = "org.rdmahotplug.Loader.Describe";
/// More questions wait for an answer than the service keeps.
pub const TOO_MANY_QUESTIONS: &str = "org.rdmahotplug.Loader.TooManyQuestions";
/// The policy names no module.
pub const NO_MODULES: &str = "org.rdmahotplug.Loader.NoModules";
/// The index files of the kernel's modules or a file of `modprobe.d(5)` cannot be used.
pub const NO_PLAN: &str = "org.rdmahotplug.Loader.NoPlan";

impl ExplainReply {
    /// Why an administrator's decision keeps everything from being loaded that was asked about, in a
    /// sentence; nothing where it does not.
    #[must_use]
    pub fn exclusion(&self) -> Option<String> {
        if self.plans.len() <= 1 && self.denied_by.is_some_and(|by| by != Denier::Policy) {
            return Some(self.message.clone());
        }
        // The first that is denied may be so by the policy, which does not matter here.
        let first = self.plans.first()?;
        let all = self.plans.iter().all(|plan| plan.blacklisted_by.is_some());
        let source = first.blacklisted_by.as_ref().filter(|_| all)?;
        Some(format!("{source} blacklists {}", first.module))
    }
}

impl ModuleResult {
    /// An answer that says no more than what became of `module`.
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

    /// An answer that `module` failed, and why, in a sentence.
    #[must_use]
    pub fn failed(module: impl Into<String>, why: impl Into<String>) -> Self {
        let mut result = Self::new(module, Outcome::Failed);
        result.message = Some(why.into());
        result
    }

    /// Whether the administrator has decided that the module is not loaded, and not the policy.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        matches!(
            self.denied_by,
            Some(Denier::Blacklist | Denier::KernelCommandLine | Denier::InstallLine)
        )
    }
}

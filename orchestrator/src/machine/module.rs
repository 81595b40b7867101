//! The state of each wanted module, and the time of its next request. Pure. Must never request a
//! module twice at once.

use std::collections::{BTreeMap, BTreeSet};

use interfaces::loader::{ModuleResult, Outcome};
use interfaces::names::ModuleName;
use interfaces::orchestrator::ModuleState;
use serde::{Deserialize, Serialize};

use super::{Action, Machine, Subject, Timer};

/// The first pause before a load is retried, in µs. It doubles with each failure...
const FIRST_PAUSE: i64 = 1_000_000;
/// ...up to this.
const LONGEST_PAUSE: i64 = 60_000_000;
/// The maximum number of retries for one kind of failure, until there is a change.
const MAX_RETRIES: u32 = 7;
/// The maximum number of immediate retries of a load that a signal interrupted.
const MAX_AT_ONCE: u32 = 3;

/// The errors of finit_module(2) that may be temporary: from the driver's initialisation, for lack
/// of memory, or because the module is being unloaded.
const TRANSIENT: [&str; 5] = ["EINTR", "EAGAIN", "EBUSY", "ENOMEM", "ETIMEDOUT"];

/// A module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Module {
    pub state: ModuleState,
    pub message: Option<String>,
    /// The module was requested, and there is no result yet.
    pub in_flight: bool,
    /// The module must be requested again: there was a change during the request, or the process
    /// that requested it has ended.
    #[serde(default)]
    pub ask_again: bool,
    /// The detector's last report since the request: true if the module is loaded. The loader's
    /// result may be older.
    #[serde(default)]
    seen: Option<bool>,
    /// The number of requests since the last success.
    pub attempts: u32,
    /// The number of retries in a row for one kind of failure, and that kind.
    #[serde(default)]
    retries: (u32, Option<String>),
    /// The time of the next request, in µs.
    pub retry_at: Option<i64>,
    /// The time of the result, in µs.
    pub answered_at: Option<i64>,
    /// The duration of the loader's work, in µs.
    pub took: Option<i64>,
    pub wanted_by: BTreeSet<Subject>,
    /// The kernel modules that the name stands for, as the loader reports: an alias stands for
    /// others.
    #[serde(default)]
    pub stands_for: Vec<String>,
}

impl Module {
    pub(super) fn new() -> Self {
        Self {
            state: ModuleState::Pending,
            message: None,
            in_flight: false,
            ask_again: false,
            seen: None,
            attempts: 0,
            retries: (0, None),
            retry_at: None,
            answered_at: None,
            took: None,
            wanted_by: BTreeSet::new(),
            stands_for: Vec::new(),
        }
    }

    /// Returns true if there is a result.
    pub(super) fn is_settled(&self) -> bool {
        self.state != ModuleState::Pending
    }

    /// Handles the loader's result.
    pub(super) fn answer(&mut self, result: &ModuleResult, now: i64) {
        self.in_flight = false;
        self.state = match (state_of(result), self.seen.take()) {
            // The module was loaded and unloaded during the request, in any order: request it
            // again.
            (ModuleState::Live, Some(false)) => ModuleState::Pending,
            // Another program has loaded the module during the request.
            (_, Some(true)) => ModuleState::Live,
            (state, _) => state,
        };
        self.message = result
            .message
            .clone()
            .filter(|_| self.state == state_of(result));
        self.answered_at = Some(now);
        self.took = Some(result.duration_usec);
        self.retry_at = None;
        if let Some(stands_for) = &result.stands_for {
            self.stands_for.clone_from(stands_for);
        }
        match (self.state, result.errno_name.as_deref()) {
            (ModuleState::Failed, Some(errno)) if TRANSIENT.contains(&errno) => {
                self.retry(errno, now);
            }
            // There is no limit: no event reports that the module indexes exist.
            (ModuleState::Unknown, _) => self.retry_after_pause("unknown", now),
            (ModuleState::Live, _) => self.forget_attempts(),
            _ => self.retries = (0, None),
        }
        if std::mem::take(&mut self.ask_again) && self.state != ModuleState::Live {
            self.state = ModuleState::Pending;
            self.forget_attempts();
        }
    }

    /// Retries after a failure that may be temporary: after a signal at once, otherwise after a
    /// pause.
    fn retry(&mut self, errno: &str, now: i64) {
        let retries = self.retries_for(errno);
        if retries >= MAX_RETRIES {
            return;
        }
        if errno == "EINTR" && retries < MAX_AT_ONCE {
            self.state = ModuleState::Pending;
            self.retries.0 += 1;
        } else {
            self.retry_after_pause(errno, now);
        }
    }

    fn retry_after_pause(&mut self, kind: &str, now: i64) {
        let retries = self.retries_for(kind);
        let pause = FIRST_PAUSE.saturating_mul(1 << retries.min(16));
        self.retry_at = Some(now.saturating_add(pause.min(LONGEST_PAUSE)));
        self.retries.0 = retries.saturating_add(1);
    }

    /// Returns the number of retries for this kind of failure. Another kind starts at 0.
    fn retries_for(&mut self, kind: &str) -> u32 {
        let (retries, of) = &mut self.retries;
        if of.as_deref() != Some(kind) {
            (*retries, *of) = (0, Some(kind.to_owned()));
        }
        *retries
    }

    /// Resets the attempts, after a change that may let the next one succeed.
    pub(super) fn forget_attempts(&mut self) {
        self.attempts = 0;
        self.retries = (0, None);
        self.retry_at = None;
    }
}

fn state_of(result: &ModuleResult) -> ModuleState {
    match result.outcome {
        Outcome::Loaded | Outcome::AlreadyLoaded | Outcome::Builtin => ModuleState::Live,
        Outcome::Missing => ModuleState::Missing,
        Outcome::Unknown => ModuleState::Unknown,
        Outcome::Denied if result.is_excluded() => ModuleState::Excluded,
        Outcome::Denied => ModuleState::Denied,
        Outcome::Failed => ModuleState::Failed,
        // Only a loader that stops returns this: the orchestrator's requests have no time limit.
        Outcome::Loading => ModuleState::Pending,
    }
}

/// Returns true if nothing can wait for a module. rdma-core's lists name modules that many kernels
/// are built without, and an exclusion by the administrator is a valid result.
pub(super) fn is_left_out(state: ModuleState) -> bool {
    matches!(state, ModuleState::Missing | ModuleState::Excluded)
}

/// Returns the reason why a device or function waits for a module.
pub(super) fn waiting_for(name: &ModuleName, module: &Module) -> Option<String> {
    let reason = module.message.as_deref().unwrap_or("no reason was given");
    match module.state {
        ModuleState::Live | ModuleState::Missing | ModuleState::Excluded => None,
        ModuleState::Unknown => Some(format!(
            "module {name}; it is unknown if this kernel has it: {reason}"
        )),
        ModuleState::Pending => Some(format!("module {name} to be loaded")),
        ModuleState::Denied => Some(format!("module {name}, which was denied: {reason}")),
        ModuleState::Failed => {
            let again = match module.retry_at {
                Some(_) => "; it will be requested again",
                None => "",
            };
            Some(format!("module {name}, which failed: {reason}{again}"))
        }
        ModuleState::Unloaded => Some(format!("module {name}, which was unloaded")),
    }
}

/// The modules that are requested again although they have a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryScope {
    /// No modules.
    No,
    /// The modules whose state is unknown.
    Unknown,
    /// All modules that are not live and were not unloaded: modules were installed, or the
    /// administrator's policy has changed.
    Missing,
    /// All modules: a client requests that.
    All,
}

impl RetryScope {
    fn asks(self, state: ModuleState) -> bool {
        match self {
            _ if state == ModuleState::Pending => true,
            Self::No => false,
            Self::Unknown => state == ModuleState::Unknown,
            Self::Missing => !matches!(state, ModuleState::Live | ModuleState::Unloaded),
            Self::All => true,
        }
    }
}

/// Returns the modules of `wanted` that must be requested now, and marks each as in flight.
pub(super) fn take_unrequested<'n>(
    modules: &mut BTreeMap<ModuleName, Module>,
    wanted: impl Iterator<Item = &'n ModuleName>,
    again: RetryScope,
) -> Vec<ModuleName> {
    let mut asked = Vec::new();
    for name in wanted {
        let Some(module) = modules.get_mut(name) else {
            continue;
        };
        if !module.in_flight && (module.ask_again || again.asks(module.state)) {
            module.in_flight = true;
            module.ask_again = false;
            module.seen = None;
            module.attempts += 1;
            module.retry_at = None;
            asked.push(name.clone());
        }
    }
    asked
}

impl Machine {
    pub(super) fn answered(&mut self, result: &ModuleResult, now: i64, actions: &mut Vec<Action>) {
        let Ok(name) = ModuleName::parse(&result.module) else {
            return;
        };
        let Some(module) = self.modules.get_mut(&name) else {
            return;
        };
        module.answer(result, now);
        if let Some(time) = module.retry_at {
            self.timers.insert((time, Timer::Retry(name.clone())));
        }
        let wanting = module.wanted_by.clone();
        let at_once = module.state == ModuleState::Pending;
        if wanting.is_empty() {
            self.modules.remove(&name);
        }
        if let Some(subject) = wanting.first().filter(|_| at_once) {
            self.ask(subject, RetryScope::No, actions);
        }
        self.modules_changed(&wanting);
        self.publish_functions(&wanting, actions);
    }

    /// Returns the wanted modules that stand for this kernel module. Before the loader reports what
    /// a name stands for, the name stands for itself.
    pub(super) fn stands_for(&self, name: &ModuleName) -> Vec<ModuleName> {
        let is_it = |(wanted, module): &(&ModuleName, &Module)| {
            let mut known = module.stands_for.iter();
            match module.stands_for.is_empty() {
                true => *wanted == name,
                false => known.any(|known| known == name.as_str()),
            }
        };
        let found = self.modules.iter().filter(is_it);
        found.map(|(wanted, _)| wanted.clone()).collect()
    }

    /// Handles a module that is now in the kernel: another program has loaded it.
    pub(super) fn module_there(&mut self, there: &ModuleName, actions: &mut Vec<Action>) {
        for name in self.stands_for(there) {
            let known = self.modules.get(&name);
            let state = match known.is_some_and(|module| module.stands_for.len() > 1) {
                // The module is one of several. The loader reports whether all are loaded.
                true => ModuleState::Pending,
                false => ModuleState::Live,
            };
            self.turn(&name, state, actions);
        }
    }

    /// Handles the list of all modules in the kernel, and so the changes during a lost connection
    /// to the detector.
    pub(super) fn modules_there(&mut self, there: &[ModuleName], actions: &mut Vec<Action>) {
        let is_there = |known: &String| there.iter().any(|name| name.as_str() == known);
        let wanted = self.modules.iter();
        let changed = wanted.filter_map(|(name, module)| {
            let known = match module.stands_for.as_slice() {
                [] => &[name.to_string()],
                known => known,
            };
            let all = known.iter().all(is_there);
            let live = module.state == ModuleState::Live;
            // A built-in module stands for no kernel module, and is never removed.
            let gone = !all && live && !module.stands_for.is_empty();
            (all && !live || gone || module.in_flight).then(|| (name.clone(), all))
        });
        let changed: Vec<(ModuleName, bool)> = changed.collect();
        for (name, all) in changed {
            let state = match all {
                true => ModuleState::Live,
                false => self.state_when_gone(&name),
            };
            self.turn(&name, state, actions);
        }
    }

    /// Handles a module that was removed from the kernel. It is loaded again if a rule requests
    /// that.
    pub(super) fn module_gone(&mut self, gone: &ModuleName, actions: &mut Vec<Action>) {
        for name in self.stands_for(gone) {
            let known = self.modules.get(&name);
            let concerns = |module: &Module| module.in_flight || module.state == ModuleState::Live;
            if known.is_some_and(concerns) {
                let state = self.state_when_gone(&name);
                self.turn(&name, state, actions);
            }
        }
    }

    /// Returns the new state of a module that was unloaded.
    fn state_when_gone(&self, name: &ModuleName) -> ModuleState {
        let restored = self.devices.values().any(|device| {
            let mut wanted = device.modules.iter();
            wanted.any(|wanted| wanted.restore && wanted.name == *name)
        });
        match restored {
            true => ModuleState::Pending,
            false => ModuleState::Unloaded,
        }
    }

    /// Handles a change by another program. During a load the loader's result decides.
    fn turn(&mut self, name: &ModuleName, to: ModuleState, actions: &mut Vec<Action>) {
        let Some(module) = self.modules.get_mut(name) else {
            return;
        };
        if module.in_flight {
            module.seen = Some(to == ModuleState::Live);
        }
        if module.in_flight || module.state == to {
            return;
        }
        module.state = to;
        module.message = None;
        module.forget_attempts();
        let wanting = module.wanted_by.clone();
        if let Some(subject) = wanting.first() {
            self.ask(subject, RetryScope::No, actions);
        }
        self.modules_changed(&wanting);
        self.publish_functions(&wanting, actions);
    }

    /// Records a change for the devices that want a module.
    pub(super) fn modules_changed(&mut self, wanting: &BTreeSet<Subject>) {
        for subject in wanting {
            if let Subject::Device(index) = subject {
                self.changed(*index);
            }
        }
    }

    fn publish_functions(&self, wanting: &BTreeSet<Subject>, actions: &mut Vec<Action>) {
        for subject in wanting {
            if let Subject::Function(name) = subject {
                self.publish_function(name, actions);
            }
        }
    }

    pub(super) fn want_module(&mut self, name: &ModuleName, subject: &Subject) {
        let module = self.modules.entry(name.clone()).or_insert_with(Module::new);
        module.wanted_by.insert(subject.clone());
    }

    /// Removes a module that no device or function wants. The next one that wants it requests it
    /// again.
    pub(super) fn unwant_module(&mut self, name: &ModuleName, subject: &Subject) {
        if let Some(module) = self.modules.get_mut(name) {
            module.wanted_by.remove(subject);
            if module.wanted_by.is_empty() && !module.in_flight {
                self.modules.remove(name);
            }
        }
    }
}

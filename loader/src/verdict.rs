//! The verdict on a requested name, before the kernel receives anything. Pure: the live modules and
//! the files on disk are arguments. Must never accept a name where the policy, the administrator's
//! lines or the kernel's own command line forbid it.

use interfaces::loader::{Denier, ModuleResult, ModuleState, Outcome};
use nix::errno::Errno;

use crate::modprobe_d::{Command, Config, Source};
use crate::plan::{Action, Plan, Step};
use crate::policy::Policy;
use crate::snapshot::Doubt;

/// The inputs of a verdict besides the plans.
pub struct Facts<'f> {
    /// The check that a policy file names a module, or one that needs it.
    pub allowed: &'f dyn Fn(&[u8]) -> bool,
    /// The settings of the administrator and the boot loader.
    pub config: &'f Config,
    /// The lookup of the state of a module in the kernel.
    pub state: &'f dyn Fn(&str) -> ModuleState,
    /// The check that a module's file exists.
    pub exists: &'f dyn Fn(&[u8]) -> bool,
}

fn denied(name: &str, by: Denier, module: &str, message: String) -> ModuleResult {
    let result = ModuleResult {
        denied_by: Some(by),
        message: Some(message),
        ..ModuleResult::new(name, Outcome::Denied)
    };
    because_of(module, result)
}

/// Names the module responsible, unless it is the requested one.
fn because_of(module: &str, result: ModuleResult) -> ModuleResult {
    let culprit = (result.module != module).then(|| module.to_owned());
    ModuleResult { culprit, ..result }
}

/// Names the line responsible.
fn written_in(source: &Source, result: ModuleResult) -> ModuleResult {
    let source = Some(source.to_string());
    ModuleResult { source, ..result }
}

fn missing(name: &str, message: String) -> ModuleResult {
    ModuleResult {
        message: Some(message),
        ..ModuleResult::new(name, Outcome::Missing)
    }
}

/// Returns the result that replaces `missing` if the indexes are not reliable.
#[must_use]
pub fn unknown(name: &str, doubt: &Doubt) -> ModuleResult {
    ModuleResult {
        message: Some(doubt.to_string()),
        ..ModuleResult::new(name, Outcome::Unknown)
    }
}

/// Converts a name to text. A name that is not UTF-8 is not a module of any kernel, and is only
/// shown.
#[must_use]
pub fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Returns true if a step has nothing left to do.
#[must_use]
pub fn is_done(step: &Step, state: &dyn Fn(&str) -> ModuleState) -> bool {
    step.action == Action::Builtin || state(&text(&step.module)) == ModuleState::Live
}

/// Judges a name by the plans of the modules that it stands for. Returns its final result, or
/// `loaded` if only the load itself is left to do.
#[must_use]
pub fn judge(name: &str, plans: &[Plan], facts: &Facts<'_>) -> ModuleResult {
    ModuleResult {
        stands_for: stands_for(name, plans, facts.state),
        ..judge_plans(name, plans, facts)
    }
}

/// Returns the modules that a name stands for, if any of them can be loaded.
fn stands_for(
    name: &str,
    plans: &[Plan],
    state: &dyn Fn(&str) -> ModuleState,
) -> Option<Vec<String>> {
    if plans.is_empty() && state(name) == ModuleState::Live {
        return Some(vec![name.to_owned()]);
    }
    let loadable = plans.iter().filter(|plan| !is_builtin(plan));
    let modules: Vec<String> = loadable.map(|plan| text(&plan.module)).collect();
    (!modules.is_empty()).then_some(modules)
}

fn judge_plans(name: &str, plans: &[Plan], facts: &Facts<'_>) -> ModuleResult {
    if plans.is_empty() {
        // It is live, whoever loaded it and from wherever.
        if (facts.state)(name) == ModuleState::Live {
            return ModuleResult::new(name, Outcome::AlreadyLoaded);
        }
        let message = format!("this kernel has no module or alias {name}");
        return missing(name, message);
    }
    if plans.iter().all(is_builtin) {
        return ModuleResult::new(name, Outcome::Builtin);
    }
    // All or nothing: an alias of several modules must not load only those that are allowed.
    for plan in plans {
        // The policy applies to modules that would be inserted. A live module stays live.
        let inserts = !is_builtin(plan) && !target_is_done(plan, facts.state);
        if inserts && !(facts.allowed)(&plan.module) {
            let module = text(&plan.module);
            let message =
                format!("no file of the loader's policy names {module} or a module that needs it");
            return denied(name, Denier::Policy, &module, message);
        }
    }
    for plan in plans {
        // As in modprobe, a ban has no effect on a live module.
        if target_is_done(plan, facts.state) {
            continue;
        }
        if let Some(refusal) = refusal(name, plan, facts) {
            return refusal;
        }
    }
    let outcome = if plans.iter().all(|plan| target_is_done(plan, facts.state)) {
        Outcome::AlreadyLoaded
    } else {
        Outcome::Loaded
    };
    ModuleResult::new(name, outcome)
}

/// Returns true if the module that a plan is for has nothing left to do.
#[must_use]
pub fn target_is_done(plan: &Plan, state: &dyn Fn(&str) -> ModuleState) -> bool {
    let target = plan.steps.iter().find(|step| step.module == plan.module);
    target.is_some_and(|step| is_done(step, state))
}

fn is_builtin(plan: &Plan) -> bool {
    matches!(plan.steps.as_slice(), [step] if step.action == Action::Builtin)
}

/// Returns the refusal of a plan, if anything forbids it.
fn refusal(name: &str, plan: &Plan, facts: &Facts<'_>) -> Option<ModuleResult> {
    let module = text(&plan.module);
    if let Some(source) = &plan.blacklisted {
        let by = match source {
            Source::Line { .. } => Denier::Blacklist,
            Source::CommandLine => Denier::KernelCommandLine,
        };
        let message = format!("{source} blacklists {module}");
        return Some(written_in(source, denied(name, by, &module, message)));
    }
    let needed = plan.steps.iter().filter(|step| step.required);
    let mut open = needed.filter(|step| !is_done(step, facts.state));
    open.find_map(|step| step_refusal(name, step, facts))
}

fn step_refusal(name: &str, step: &Step, facts: &Facts<'_>) -> Option<ModuleResult> {
    let module = text(&step.module);
    if facts.config.kernel_blacklist.contains(&step.module) {
        let source = &Source::CommandLine;
        let message = format!("module_blacklist= on {source} names {module}");
        let result = denied(name, Denier::KernelCommandLine, &module, message);
        return Some(written_in(source, result));
    }
    match &step.action {
        Action::Install(line) => Some(install_refusal(name, &module, line)),
        // modprobe ignores the install line of a module with soft dependencies. Here a ban is a
        // ban.
        Action::Insert(path) => match facts.config.install_command(&step.module) {
            Some(line) => Some(install_refusal(name, &module, line)),
            None if (facts.exists)(path) => None,
            None => {
                let message = format!("{}: no such file", text(path));
                let mut result = ModuleResult::failed(name, message);
                result.errno_name = Some(format!("{:?}", Errno::ENOENT));
                Some(because_of(&module, result))
            }
        },
        Action::Absent => {
            let message = format!("{name} stands for {module}, which this kernel does not have");
            Some(because_of(&module, missing(name, message)))
        }
        Action::Builtin => None,
    }
}

fn install_refusal(name: &str, module: &str, line: &Command) -> ModuleResult {
    let source = &line.source;
    let message = if is_ban(&line.command) {
        format!("{source} forbids {module}")
    } else {
        format!("{source} runs a command for {module}, which the loader does not do")
    };
    let mut result = denied(name, Denier::InstallLine, module, message);
    result.command = Some(text(&line.command));
    written_in(source, result)
}

/// Returns true if a module may be loaded as a soft dependency: it would be loaded on request, with
/// the modules of `needs`, which it cannot be loaded without.
#[must_use]
pub fn admits(module: &[u8], needs: &[Vec<u8>], policy: &Policy, config: &Config) -> bool {
    policy.allowance(module).is_some()
        && config.blacklisted(module).is_none()
        && !is_banned(module, config)
        && !needs.iter().any(|needed| is_banned(needed, config))
}

/// Returns true if a line forbids every insertion of a module. A blacklist line does not.
fn is_banned(module: &[u8], config: &Config) -> bool {
    config.install_command(module).is_some()
        || config.kernel_blacklist.iter().any(|name| name == module)
}

/// Returns true if a command only keeps a module out, as hardening guides write it.
fn is_ban(command: &[u8]) -> bool {
    let command = command.trim_ascii();
    [
        &b"/bin/false"[..],
        b"/bin/true",
        b"/usr/bin/false",
        b"/usr/bin/true",
    ]
    .contains(&command)
}

/// Returns the meaning of an errno of `finit_module(2)` for people, if its own text does not give
/// it. The sources are the man page, the kernel's `kernel/module/main.c`, and the observed results
/// of Debian's kernel.
#[must_use]
pub fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOKEY => "it has no signature by a key that this kernel knows",
        Errno::EKEYREJECTED => {
            "its signature is missing or wrong, and this kernel accepts signed modules only"
        }
        Errno::EBADMSG => "its signature is malformed",
        Errno::ENOEXEC => {
            "it is not a module for this kernel: damaged, or built for another kernel"
        }
        Errno::ENOENT => "it needs a symbol that this kernel and the modules in it do not have",
        Errno::EINVAL => {
            "one of its parameters is invalid, its file is damaged, or its symbols have changed"
        }
        Errno::EPERM => {
            "the kernel refuses it: lockdown requires a signature, modules_disabled is set, \
             LoadPin forbids its file, or CAP_SYS_MODULE is missing"
        }
        Errno::EACCES => "a security module forbids it",
        Errno::ENODEV => "its device is absent",
        Errno::EBUSY => "a load of it at the same time has failed, or it is being removed",
        Errno::EEXIST => "the kernel already has an object of that name",
        Errno::ETXTBSY => "its file is open for writing",
        Errno::ENOMEM => "there is not enough memory",
        Errno::ENOSYS => "this kernel has no loadable modules",
        Errno::E2BIG => "its parameters are too long",
        errno => errno.desc(),
    }
}

#[cfg(test)]
mod tests;

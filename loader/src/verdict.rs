//! What is to become of one name that was asked for, before the kernel is asked. Pure: what is
//! live and what is on disk are arguments. Must never say yes where the policy, the
//! administrator's lines or the kernel's own command line say no.

use interfaces::loader::{Denier, ModuleResult, ModuleState, Outcome};
use nix::errno::Errno;

use crate::modprobe_d::{Command, Config, Source};
use crate::plan::{Action, Plan, Step};
use crate::policy::Policy;
use crate::snapshot::Doubt;

/// Everything that a verdict depends on, beside the plans.
pub struct Facts<'f> {
    /// Whether a module may be loaded: a policy file names it, or something that needs it.
    pub allowed: &'f dyn Fn(&[u8]) -> bool,
    /// What the administrator and the boot loader say.
    pub config: &'f Config,
    /// Whether a module is in the kernel.
    pub state: &'f dyn Fn(&str) -> ModuleState,
    /// Whether a module's file is there.
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

/// Names the module, unless it is the one that was asked for.
fn because_of(module: &str, result: ModuleResult) -> ModuleResult {
    let culprit = (result.module != module).then(|| module.to_owned());
    ModuleResult { culprit, ..result }
}

/// Names the line.
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

/// The answer in the place of `missing` where the indexes are not to be relied on.
#[must_use]
pub fn unknown(name: &str, doubt: &Doubt) -> ModuleResult {
    ModuleResult {
        message: Some(doubt.to_string()),
        ..ModuleResult::new(name, Outcome::Unknown)
    }
}

/// The name as text. What is not UTF-8 is no module of any kernel, and can only be shown.
#[must_use]
pub fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Whether a step has nothing left to do.
#[must_use]
pub fn is_done(step: &Step, state: &dyn Fn(&str) -> ModuleState) -> bool {
    step.action == Action::Builtin || state(&text(&step.module)) == ModuleState::Live
}

/// Judges a name by the plans of the modules that it stands for: its answer, or `loaded`, when
/// all that is left is to do it.
#[must_use]
pub fn judge(name: &str, plans: &[Plan], facts: &Facts<'_>) -> ModuleResult {
    ModuleResult {
        stands_for: stands_for(name, plans, facts.state),
        ..judge_plans(name, plans, facts)
    }
}

/// The modules that a name stands for, where it stands for any that can be loaded.
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
        // Whoever has loaded it, and from wherever.
        if (facts.state)(name) == ModuleState::Live {
            return ModuleResult::new(name, Outcome::AlreadyLoaded);
        }
        let message = format!("this kernel has no module or alias {name}");
        return missing(name, message);
    }
    if plans.iter().all(is_builtin) {
        return ModuleResult::new(name, Outcome::Builtin);
    }
    // All or nothing: an alias of several modules must not load the half that is allowed.
    for plan in plans {
        // The policy is about what would be inserted. What is live is live.
        let inserts = !is_builtin(plan) && !target_is_done(plan, facts.state);
        if inserts && !(facts.allowed)(&plan.module) {
            let module = text(&plan.module);
            let message =
                format!("no file of the loader's policy names {module} or a module that needs it");
            return denied(name, Denier::Policy, &module, message);
        }
    }
    for plan in plans {
        // As in modprobe, what is there is there, whoever forbids it.
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

/// Whether the module that a plan is for has nothing left to do.
#[must_use]
pub fn target_is_done(plan: &Plan, state: &dyn Fn(&str) -> ModuleState) -> bool {
    let target = plan.steps.iter().find(|step| step.module == plan.module);
    target.is_some_and(|step| is_done(step, state))
}

fn is_builtin(plan: &Plan) -> bool {
    matches!(plan.steps.as_slice(), [step] if step.action == Action::Builtin)
}

/// Who or what is against a plan, when anybody is.
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
        // modprobe forgets the install line of what has soft dependencies. A ban is a ban.
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
        format!("{source} has a command run for {module}, which the loader does not do")
    };
    let mut result = denied(name, Denier::InstallLine, module, message);
    result.command = Some(text(&line.command));
    written_in(source, result)
}

/// Whether a module may come along as a soft dependency: where it would be loaded if it were
/// asked for, with the modules of `needs`, which it cannot be loaded without.
#[must_use]
pub fn admits(module: &[u8], needs: &[Vec<u8>], policy: &Policy, config: &Config) -> bool {
    policy.allowance(module).is_some()
        && config.blacklisted(module).is_none()
        && !is_banned(module, config)
        && !needs.iter().any(|needed| is_banned(needed, config))
}

/// Whether a line keeps a module from being inserted for whatever reason. A blacklist line does not.
fn is_banned(module: &[u8], config: &Config) -> bool {
    config.install_command(module).is_some()
        || config.kernel_blacklist.iter().any(|name| name == module)
}

/// Whether a command does nothing but keep a module out, as hardening guides write it.
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

/// What an errno of `finit_module(2)` means for a person, where its own text does not say it.
/// From the man page, the kernel's `kernel/module/main.c`, and what Debian's kernel was seen to
/// answer.
#[must_use]
pub fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOKEY => "it has no signature by a key that this kernel knows",
        Errno::EKEYREJECTED => {
            "its signature is missing or wrong, and this kernel takes signed modules only"
        }
        Errno::EBADMSG => "its signature is malformed",
        Errno::ENOEXEC => "it is no module for this kernel: damaged, or made for another one",
        Errno::ENOENT => "it needs a symbol that this kernel and the modules in it do not have",
        Errno::EINVAL => {
            "a parameter of it has a bad value, its file is damaged, or its symbols have changed"
        }
        Errno::EPERM => {
            "modules are locked: by lockdown without a signature, by kernel.modules_disabled, by \
             LoadPin, or for want of CAP_SYS_MODULE"
        }
        Errno::EACCES => "a security module forbids it",
        Errno::ENODEV => "its device is not there",
        Errno::EBUSY => "a load of it at the same time has failed, or it is being removed",
        Errno::EEXIST => "the kernel has something of that name already",
        Errno::ETXTBSY => "its file is open for writing",
        Errno::ENOMEM => "there is not enough memory",
        Errno::ENOSYS => "this kernel has no loadable modules",
        Errno::E2BIG => "its parameters are too long",
        errno => errno.desc(),
    }
}

#[cfg(test)]
mod tests;

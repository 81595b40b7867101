//! The reply to `Explain`: a verdict and the plans behind it, in the format of the interface. Pure.
//! Must never omit the reason for a refusal.

use interfaces::loader::{self, ExplainReply, ModuleResult, ModuleState, Outcome, StepAction};

use crate::modprobe_d::{self, Config};
use crate::plan::{Action, Plan, Step};
use crate::policy::Allowed;
use crate::verdict::text;

/// Builds the reply from a verdict and its plans. `config` is the administrator's configuration.
/// `allowance` returns the policy entry that allows a module. `state` returns the state of a module
/// in the kernel.
#[must_use]
pub fn reply(
    verdict: ModuleResult,
    plans: &[Plan],
    config: &Config,
    allowance: &dyn Fn(&[u8]) -> Option<Allowed>,
    state: &dyn Fn(&str) -> ModuleState,
) -> ExplainReply {
    let name = &verdict.module;
    let message = verdict.message.unwrap_or_else(|| match verdict.outcome {
        Outcome::Builtin => format!("{name} is part of the kernel image"),
        Outcome::AlreadyLoaded => format!("{name} is live"),
        _ => format!("{name} would be loaded"),
    });
    ExplainReply {
        outcome: verdict.outcome,
        denied_by: verdict.denied_by,
        source: verdict.source,
        plans: plans.iter().map(|p| plan(p, allowance, state)).collect(),
        ineffective: plans.iter().flat_map(|p| ineffective(p, config)).collect(),
        message,
    }
}

fn ineffective(plan: &Plan, config: &Config) -> Vec<loader::Ineffective> {
    let lines = config.ineffective(&plan.module).into_iter();
    let line = |line: modprobe_d::Ineffective| loader::Ineffective {
        source: line.source.to_string(),
        reason: line.reason,
    };
    lines.map(line).collect()
}

fn plan(
    plan: &Plan,
    allowance: &dyn Fn(&[u8]) -> Option<Allowed>,
    state: &dyn Fn(&str) -> ModuleState,
) -> loader::Plan {
    let allowance = allowance(&plan.module);
    loader::Plan {
        module: text(&plan.module),
        allowed_by: allowance.as_ref().map(|by| by.file.display().to_string()),
        purpose: allowance.map(|by| by.purpose),
        blacklisted_by: plan.blacklisted.as_ref().map(ToString::to_string),
        steps: plan.steps.iter().map(|s| step(s, state)).collect(),
        left_out: plan.left_out.iter().map(|module| text(module)).collect(),
    }
}

fn step(step: &Step, state: &dyn Fn(&str) -> ModuleState) -> loader::Step {
    let (action, path, command) = match &step.action {
        Action::Insert(path) => (StepAction::Insert, Some(text(path)), None),
        Action::Install(line) => (StepAction::Install, None, Some(text(&line.command))),
        Action::Builtin => (StepAction::Builtin, None, None),
        Action::Absent => (StepAction::Absent, None, None),
    };
    let module = text(&step.module);
    loader::Step {
        action,
        path,
        command,
        parameters: text(&step.parameters).trim_end().to_owned(),
        required: step.required,
        state: state(&module),
        module,
    }
}

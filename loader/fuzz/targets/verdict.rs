//! Fuzzes the verdict with random plans, policies, configurations and kernels over a few names. The
//! verdict accepts only a module that is already in the kernel, or one that a policy file names and
//! of which no pending step is forbidden. Completed steps do not affect it. Each refusal has a
//! reason.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use interfaces::loader::{ModuleResult, ModuleState, Outcome};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use loader::modprobe_d::{Command, Config, Source};
use loader::plan::{Action, Plan, Step};
use loader::policy::Policy;
use loader::verdict::{Facts, judge};

/// Names of modules. The last one is not a valid name.
const NAMES: [&[u8]; 6] = [
    b"ib_core", b"ib_cm", b"rdma_cm", b"ib_umad", b"evil", b"\xff",
];
const WORDS: [&str; 6] = ["ib_core", "ib-cm", "rdma_cm", "ib_umad", "evil", "*"];

/// The inputs of a verdict.
struct Case {
    policy: Policy,
    allowed: BTreeSet<&'static [u8]>,
    config: Config,
    plans: Vec<Plan>,
    states: BTreeMap<&'static str, ModuleState>,
    missing: BTreeSet<&'static [u8]>,
}

fn any(input: &mut Unstructured<'_>) -> Result<Case> {
    let mut allowed = BTreeSet::new();
    let mut states = BTreeMap::new();
    let mut missing = BTreeSet::new();
    for name in NAMES {
        if input.arbitrary()? {
            allowed.insert(name);
        }
        if input.arbitrary()? {
            missing.insert(name);
        }
        if let Ok(name) = str::from_utf8(name) {
            states.insert(
                name,
                *input.choose(&[
                    ModuleState::Absent,
                    ModuleState::Coming,
                    ModuleState::Live,
                    ModuleState::Going,
                ])?,
            );
        }
    }
    let quoted = allowed.iter().filter_map(|name| str::from_utf8(name).ok());
    let quoted: Vec<String> = quoted.map(|name| format!("{name:?}")).collect();
    let quoted = quoted.join(", ");
    let mut policy = Policy::default();
    let text = format!("[[allow]]\npurpose = \"any\"\nmodules = [{quoted}]\n");
    policy.add(Path::new("any.toml"), &text);
    assert!(policy.refused().is_empty());
    // A policy cannot contain an invalid name.
    allowed.retain(|name| str::from_utf8(name).is_ok());

    let mut config = Config::default();
    for _ in 0..input.int_in_range(0..=4)? {
        let word = input.choose(&WORDS)?;
        let line = match input.int_in_range(0..=3)? {
            0 => format!("blacklist {word}\n"),
            1 => format!("install {word} /bin/false\n"),
            2 => format!("install {word} true && evil\n"),
            _ => format!("softdep {word} pre: ib_cm\n"),
        };
        config.add_file(Path::new("any.conf"), line.as_bytes());
    }
    if input.arbitrary()? {
        let line = format!("module_blacklist={}", input.choose(&WORDS)?);
        config.add_command_line(line.as_bytes());
    }
    let mut plans = Vec::new();
    for _ in 0..input.int_in_range(0..=3)? {
        plans.push(any_plan(input, &config)?);
    }
    Ok(Case {
        policy,
        allowed,
        config,
        plans,
        states,
        missing,
    })
}

fn any_plan(input: &mut Unstructured<'_>, config: &Config) -> Result<Plan> {
    let mut steps = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        let module = input.choose(&NAMES)?.to_vec();
        let action = match input.int_in_range(0..=5)? {
            0 => Action::Builtin,
            1 => Action::Absent,
            2 => Action::Install(Command {
                pattern: module.clone(),
                command: b"/bin/true".to_vec(),
                source: Source::Line {
                    file: Arc::from(Path::new("any.conf")),
                    line: 1,
                },
            }),
            _ => Action::Insert(module.clone()),
        };
        steps.push(Step {
            module,
            action,
            parameters: Vec::new(),
            required: input.arbitrary()?,
            after: Vec::new(),
        });
    }
    let module = input.choose(&NAMES)?.to_vec();
    Ok(Plan {
        by_alias: input.arbitrary()?,
        blacklisted: config.blacklisted(&module).cloned(),
        module,
        steps,
        left_out: Vec::new(),
    })
}

impl Case {
    fn judge(&self, states: &BTreeMap<&'static str, ModuleState>) -> ModuleResult {
        let facts = Facts {
            allowed: &|module| self.policy.allowance(module).is_some(),
            config: &self.config,
            state: &|module| states.get(module).copied().unwrap_or(ModuleState::Absent),
            exists: &|path| !self.missing.contains(path),
        };
        judge("any", &self.plans, &facts)
    }

    fn is_live(&self, module: &[u8]) -> bool {
        let state = str::from_utf8(module).ok().and_then(|m| self.states.get(m));
        state == Some(&ModuleState::Live)
    }

    /// Returns true if the step has nothing left to do.
    fn is_done(&self, step: &Step) -> bool {
        step.action == Action::Builtin || self.is_live(&step.module)
    }

    /// Returns true if the module that a plan is for has nothing left to do.
    fn target_is_done(&self, plan: &Plan) -> bool {
        let mut target = plan.steps.iter().filter(|step| step.module == plan.module);
        target.next().is_some_and(|step| self.is_done(step))
    }

    /// Returns true if nothing forbids a step that is not done.
    fn is_free(&self, step: &Step) -> bool {
        let there = match &step.action {
            Action::Insert(path) => !self.missing.contains(path.as_slice()),
            _ => false,
        };
        let kernel = &self.config.kernel_blacklist;
        there
            && !kernel.iter().any(|name| *name == step.module)
            && self.config.install_command(&step.module).is_none()
    }
}

/// Returns true if a plan needs no action because its module is built into the kernel.
fn is_builtin(plan: &Plan) -> bool {
    matches!(plan.steps.as_slice(), [step] if step.action == Action::Builtin)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(case) = any(&mut Unstructured::new(bytes)) else {
        return;
    };
    let result = case.judge(&case.states);
    assert_eq!(result.module, "any");
    assert_eq!(
        result.denied_by.is_some(),
        result.outcome == Outcome::Denied
    );
    let yes = matches!(
        result.outcome,
        Outcome::Loaded | Outcome::AlreadyLoaded | Outcome::Builtin
    );
    assert_eq!(result.message.is_none(), yes, "{result:?}");
    if yes {
        assert!(!case.plans.is_empty());
        for plan in case.plans.iter().filter(|plan| !is_builtin(plan)) {
            if case.target_is_done(plan) {
                continue;
            }
            assert!(case.allowed.contains(plan.module.as_slice()), "{plan:?}");
            assert_eq!(result.outcome, Outcome::Loaded);
            assert!(plan.blacklisted.is_none(), "{plan:?}");
            let needed = plan.steps.iter().filter(|step| step.required);
            for step in needed.filter(|step| !case.is_done(step)) {
                assert!(case.is_free(step), "{step:?}");
            }
        }
    }
    // If all modules are live, no rule can deny the request.
    let live = case.states.keys().map(|name| (*name, ModuleState::Live));
    let live = case.judge(&live.collect());
    if yes && case.plans.iter().all(|plan| plan.module != b"\xff") {
        assert_ne!(live.outcome, Outcome::Denied);
    }
    // Without a policy, only modules that are already in the kernel are accepted.
    let nothing = Policy::default();
    let case = Case {
        policy: nothing,
        ..case
    };
    let refused = case.judge(&case.states);
    if refused.outcome == Outcome::Loaded {
        let there = |plan: &Plan| is_builtin(plan) || case.target_is_done(plan);
        assert!(case.plans.iter().all(there), "{refused:?}");
    }
});

//! The output of `rdma-hotplug explain`: the reasons, in sentences, for the state of a device, and
//! for the load of a module or its absence. Pure. Must never guess: it shows only what the services
//! reported.

use interfaces::loader::{self, Outcome};
use interfaces::orchestrator::{
    ExplainModuleReply, ExplainReply, Function, Module, ModuleState, Rule, State, Target,
};
use serde::Serialize;

use super::style::{self, Style};

/// The explanation of a name.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Explained {
    /// A device.
    Device(Box<ExplainReply>),
    /// A function that has no device yet.
    Function(Box<Function>),
    /// A module.
    Module(Box<ExplainedModule>),
}

/// A module, as the orchestrator and the loader explain it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedModule {
    /// The name.
    pub name: String,
    /// The orchestrator's explanation, if a rule requests the module.
    pub wanted: Option<ExplainModuleReply>,
    /// The loader's plan as of now, if the loader can be queried.
    pub loader: Option<loader::ExplainReply>,
}

/// Renders an explanation.
#[must_use]
pub fn render(explained: &Explained, style: &Style) -> String {
    match explained {
        Explained::Device(reply) => device(reply, style),
        Explained::Function(of) => function(of, style),
        Explained::Module(of) => module(of, style),
    }
}

fn device(reply: &ExplainReply, style: &Style) -> String {
    let device = &reply.device;
    let name = &device.name;
    let mut text = match device.state {
        State::Ready => style.wrap("", "", &format!("{name} is ready.")),
        State::Moved => style.wrap(
            "",
            "",
            &format!(
                "{name} is in another network namespace. Its targets are started when it returns. \
                 It waits for"
            ),
        ),
        State::Unmanaged => style.wrap(
            "",
            "",
            &format!("{name} is not managed: a rule excludes it."),
        ),
        State::Registered => style.wrap("", "", &format!("{name} is not ready. It waits for")),
    };
    for thing in &device.waiting_for {
        text.push_str(&style.wrap("  - ", "    ", thing));
    }
    let mut facts = vec![format!("kernel index {}", device.index)];
    facts.extend(
        device
            .driver
            .as_ref()
            .map(|driver| format!("driver {driver}")),
    );
    facts.extend(
        device
            .pci_address
            .as_ref()
            .map(|address| format!("PCI function {address}")),
    );
    let protocols = match device.protocols.as_slice() {
        [] => "no protocol".to_owned(),
        protocols => protocols.join(" and "),
    };
    text.push('\n');
    text.push_str(&style.wrap(
        "",
        "",
        &format!("It uses {protocols}: {}.", facts.join(", ")),
    ));
    for rule in &reply.rules {
        text.push('\n');
        text.push_str(&of_rule(rule, style));
    }
    if reply.rules.is_empty() {
        text.push_str("\nNo rule selects it.\n");
    }
    text.push_str(&targets(reply, style));
    text
}

/// Renders the targets that stand for a device, and the units attached to them.
fn targets(reply: &ExplainReply, style: &Style) -> String {
    if reply.device.targets.is_empty() {
        return String::new();
    }
    let mut text = "\nIts targets, and the units attached to them:\n".to_owned();
    let own: Vec<&str> = reply
        .device
        .targets
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    for target in &reply.device.targets {
        text.push_str(&of_target(target, style));
        text.push_str(&hanging_on(&target.name, reply, style));
    }
    // A role's own target is shared with other devices.
    let mut shared: Vec<&str> = Vec::new();
    for unit in reply.attached.iter().flatten() {
        let target = unit.target.as_str();
        if !own.contains(&target) && !shared.contains(&target) {
            shared.push(target);
        }
    }
    for target in shared {
        text.push_str(&style.wrap("  ", "    ", target));
        text.push_str(&hanging_on(target, reply, style));
    }
    if reply.attached.is_none() {
        let says = "The attached units are unknown: the service manager cannot be reached.";
        text.push_str(&style.wrap("  ", "  ", says));
    }
    text
}

fn hanging_on(target: &str, reply: &ExplainReply, style: &Style) -> String {
    let units = reply.attached.iter().flatten();
    let attached = units.filter(|unit| unit.target == target);
    let lines = attached.map(|unit| {
        style.wrap(
            "    ",
            "      ",
            &format!("{} {}", unit.name, unit.active_state),
        )
    });
    lines.collect()
}

fn of_rule(rule: &Rule, style: &Style) -> String {
    let selects = match rule.selector.as_slice() {
        [] => "every device".to_owned(),
        selector => format!("devices with {}", selector.join(", ")),
    };
    let asks = match (rule.manage, &rule.list) {
        (false, _) => "leaves it alone.".to_owned(),
        (true, _) if rule.modules.is_empty() && !rule.roles.is_empty() => String::new(),
        (true, _) if rule.modules.is_empty() => "requests nothing here.".to_owned(),
        (true, Some(list)) => format!("requests the modules of {list}:"),
        (true, None) => "requests:".to_owned(),
    };
    let gives = match rule.roles.as_slice() {
        [] => String::new(),
        [role] => format!("gives the role {role}"),
        roles => format!("gives the roles {}", roles.join(", ")),
    };
    let says = match (gives.is_empty(), asks.is_empty()) {
        (true, _) => asks,
        (false, true) => format!("{gives}."),
        (false, false) => format!("{gives} and {asks}"),
    };
    let head = format!(
        "Rule {} of {}, for {selects}, {says}",
        rule.number, rule.file
    );
    let mut text = style.wrap("", "  ", &head);
    for module in &rule.modules {
        text.push_str(&of_module(module, style));
    }
    text
}

fn of_module(module: &Module, style: &Style) -> String {
    let (word, tone) = style::module_state(module.state);
    line(&module.name, word, tone, module.message.as_deref(), style)
}

fn of_target(target: &Target, style: &Style) -> String {
    let (word, tone) = style::target_state(target.state);
    line(&target.name, word, tone, target.message.as_deref(), style)
}

fn line(name: &str, word: &str, tone: style::Tone, message: Option<&str>, style: &Style) -> String {
    let message = message
        .map(|message| format!(": {message}"))
        .unwrap_or_default();
    let first = format!("  {name:<14} ");
    // Painted after it is wrapped: colour has no width.
    let wrapped = style.wrap(&first, "                   ", &format!("{word}{message}"));
    wrapped.replacen(word, &style.paint(tone, word), 1)
}

fn function(of: &Function, style: &Style) -> String {
    let (word, _) = style::function_state(of.state);
    let says = format!(
        "{} has no RDMA device. Its state is {word}, and it waits for {}.",
        of.name, of.waiting_for
    );
    let mut text = style.wrap("", "", &says);
    for module in &of.modules {
        let asks = format!("{} requests:", module.rule);
        text.push('\n');
        text.push_str(&style.wrap("", "  ", &asks));
        text.push_str(&of_module(module, style));
    }
    text
}

fn module(of: &ExplainedModule, style: &Style) -> String {
    let name = &of.name;
    // Only depmod's files show what the names in rules stand for.
    let loader = of.loader.as_ref();
    let is_unknown = loader.is_none_or(|answer| answer.outcome == Outcome::Unknown);
    let mut text = match &of.wanted {
        None => {
            let says = match is_unknown {
                true => format!(
                    "No rule requests {name} by this name for a device of this machine. Whether \
                     one requests it by an alias is unknown."
                ),
                false => format!("No rule requests {name} for a device of this machine."),
            };
            style.wrap("", "", &says)
        }
        Some(wanted) => wanted_module(name, wanted, style),
    };
    if let Some(answer) = &of.loader {
        text.push('\n');
        text.push_str(&loader_says(name, answer, style));
    }
    text
}

/// Renders the orchestrator's explanation. `name` is the name in the query, in the kernel's
/// spelling.
fn wanted_module(name: &str, wanted: &ExplainModuleReply, style: &Style) -> String {
    let module = &wanted.module;
    let why = module.message.as_deref().unwrap_or("no reason was given");
    let says = match module.state {
        ModuleState::Live => format!("{name} is live."),
        ModuleState::Pending => format!("There is no result for {name} yet."),
        ModuleState::Missing => {
            format!("{name} is not shipped with this kernel. Nothing waits for it.")
        }
        ModuleState::Unknown => {
            format!("It is unknown if this kernel has {name}: {why}. It will be requested again.")
        }
        ModuleState::Excluded => format!("{name} is excluded: {why}. Nothing waits for it."),
        ModuleState::Denied => format!("{name} was denied: {why}."),
        ModuleState::Failed => format!("{name} failed: {why}."),
        ModuleState::Unloaded => {
            format!(
                "{name} was live and has been unloaded. 'rdma-hotplug reconcile' loads it again."
            )
        }
    };
    let mut text = style.wrap("", "", &says);
    let more = wanted.wanted_by_count - i64::try_from(wanted.wanted_by.len()).unwrap_or(i64::MAX);
    let more = match more {
        ..=0 => String::new(),
        more => format!(" and {more} more"),
    };
    // A rule may name the module by an alias.
    let alias = match module.name == name {
        true => String::new(),
        false => format!(" as {}", module.name),
    };
    let who = format!(
        "It is wanted{alias} for {}{more}, because {} requests it.",
        wanted.wanted_by.join(", "),
        module.rule
    );
    text.push_str(&style.wrap("", "", &who));
    if let Some(took) = wanted.duration_usec.filter(|took| *took > 0) {
        text.push_str(&style.wrap("", "", &format!("The loader took {}.", duration(took))));
    }
    if wanted.retry_usec.is_some() {
        let again = format!(
            "Requests so far: {}. It will be requested again.",
            wanted.attempts
        );
        text.push_str(&style.wrap("", "", &again));
    }
    text
}

fn loader_says(name: &str, answer: &loader::ExplainReply, style: &Style) -> String {
    let says = match answer.outcome {
        Outcome::Loaded => format!("The loader would now load {name}:"),
        _ => format!(
            "The loader would now reply: {}.",
            answer.message.trim_end_matches('.')
        ),
    };
    let mut text = style.wrap("", "", &says);
    for plan in &answer.plans {
        let steps: Vec<&str> = plan.steps.iter().map(|step| step.module.as_str()).collect();
        text.push_str(&style.wrap("  ", "  ", &steps.join(" ")));
    }
    for line in &answer.ineffective {
        let says = format!("{} has no effect: {}.", line.source, line.reason);
        text.push_str(&style.wrap("", "  ", &says));
    }
    text
}

/// Formats a duration in a readable unit.
#[must_use]
pub fn duration(usec: i64) -> String {
    match usec {
        ..1000 => format!("{usec} µs"),
        1000..1_000_000 => format!("{} ms", usec / 1000),
        _ => format!("{}.{} s", usec / 1_000_000, usec % 1_000_000 / 100_000),
    }
}

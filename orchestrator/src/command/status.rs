//! The table that `rdma-hotplug status` prints. Pure: replies in, text out. Must never print it.

use interfaces::loader::{ModuleResult, Outcome};
use interfaces::orchestrator::{
    DescribeReply, Device, Function, Module, ModuleState, Target, TargetState,
};
use serde::Serialize;

use super::style::{self, Cell, Style, Tone};

/// The data that `status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The devices in the order of their indexes.
    pub devices: Vec<Device>,
    /// The functions that have no device yet.
    pub functions: Vec<Function>,
    /// The state of the service as a whole.
    #[serde(flatten)]
    pub whole: DescribeReply,
    /// The time of these replies, in µs of CLOCK_MONOTONIC.
    #[serde(skip)]
    pub now: i64,
}

/// The time after which `status` shows a load that is still running, in µs.
const LONG: i64 = 10_000_000;

/// Renders the table, and below it a line for each thing that is missing or wrong.
#[must_use]
pub fn render(status: &Status, style: &Style) -> String {
    let mut text = String::new();
    if status.devices.is_empty() && !status.whole.detector_connected {
        text.push_str("the RDMA devices are unknown\n");
    } else if status.devices.is_empty() {
        text.push_str("no RDMA devices\n");
    } else {
        let heads = [
            "DEVICE", "PROTOCOL", "DRIVER", "STATE", "MODULES", "TARGETS",
        ];
        let heads = heads.iter().map(|head| Cell::plain(*head)).collect();
        let rows = status.devices.iter().map(row);
        let rows: Vec<Vec<Cell>> = [heads].into_iter().chain(rows).collect();
        text.push_str(&style.table(&rows));
    }
    if !status.functions.is_empty() {
        text.push('\n');
        let heads = ["FUNCTION", "DRIVER", "STATE"].map(Cell::plain).to_vec();
        let rows = status.functions.iter().map(|function| {
            let driver = function.driver.as_deref().unwrap_or("-");
            vec![
                Cell::plain(&function.name),
                Cell::plain(driver),
                Cell::new(style::function_state(function.state)),
            ]
        });
        let rows: Vec<Vec<Cell>> = [heads].into_iter().chain(rows).collect();
        text.push_str(&style.table(&rows));
    }
    let notes = notes(status);
    if !notes.is_empty() {
        text.push('\n');
        let notes = notes.iter().map(|note| style.wrap("", "    ", note));
        text.extend(notes);
    }
    text
}

/// Returns a message for each thing that is missing or wrong.
fn notes(status: &Status) -> Vec<String> {
    let whole = &status.whole;
    let devices = status.devices.iter().flat_map(|device| {
        let things = device.waiting_for.iter();
        things.map(|thing| format!("{} waits for {thing}", device.name))
    });
    let loading = whole.loading.iter().filter_map(|loading| {
        let since = status.now.saturating_sub(loading.since_usec);
        let takes = super::explain::duration(since);
        let module = &loading.module;
        (since > LONG).then(|| {
            format!(
                "module {module} has been initialising for {takes}; the kernel log may say more"
            )
        })
    });
    let devices = devices.chain(loading);
    let targets = status.devices.iter().flat_map(|device| {
        let failed = device.targets.iter().filter_map(|target| {
            let (word, _) = style::target_state(target.state);
            let message = target.message.as_deref()?;
            Some(format!("{} is {word}: {message}", target.name))
        });
        failed.collect::<Vec<_>>()
    });
    let devices = devices.chain(targets);
    let functions = status.functions.iter();
    let functions = functions.map(|f| format!("{} waits for {}", f.name, f.waiting_for));
    let mut notes: Vec<String> = devices.chain(functions).collect();
    if !whole.detector_connected {
        let known = match status.devices.is_empty() && status.functions.is_empty() {
            true => "",
            false => ": showing the last known state",
        };
        notes.push(format!("the detector has not replied{known}"));
    }
    if whole.service_manager_connected == Some(false) {
        notes.push(
            "the service manager cannot be reached: the system bus is not running, or not running yet".to_owned(),
        );
    }
    if let Some(reason) = &whole.paused {
        notes.push(format!(
            "paused, nothing is loaded, started or stopped: {reason}"
        ));
    }
    notes.extend(whole.left_behind.iter().cloned());
    let errors = whole.rule_errors.iter();
    notes.extend(errors.map(|error| format!("invalid rules file: {error}")));
    notes
}

fn row(device: &Device) -> Vec<Cell> {
    let protocols = match device.protocols.as_slice() {
        [] => "-".to_owned(),
        protocols => protocols.join(","),
    };
    vec![
        Cell::plain(&device.name),
        Cell::plain(protocols),
        Cell::plain(device.driver.as_deref().unwrap_or("-")),
        Cell::new(style::state(device.state)),
        modules(&device.modules),
        targets(&device.targets),
    ]
}

/// Returns the number of live modules, and that of all modules but those that this kernel does not
/// ship or that are excluded.
fn modules(modules: &[Module]) -> Cell {
    let live = modules
        .iter()
        .filter(|m| m.state == ModuleState::Live)
        .count();
    let shipped = modules
        .iter()
        .filter(|m| !matches!(m.state, ModuleState::Missing | ModuleState::Excluded))
        .count();
    share(live, shipped)
}

/// Returns the number of active targets, and that of all targets that stand for the device.
fn targets(targets: &[Target]) -> Cell {
    let mut states = targets.iter().map(|target| target.state);
    if states.clone().any(|state| state == TargetState::Unknown) {
        return Cell::plain("?");
    }
    let active = states
        .by_ref()
        .filter(|state| *state == TargetState::Active);
    share(active.count(), targets.len())
}

fn share(part: usize, whole: usize) -> Cell {
    match whole {
        0 => Cell::plain("-"),
        _ => Cell::plain(format!("{part}/{whole}")),
    }
}

/// Renders the output of `rdma-hotplug load`: a line for each module.
#[must_use]
pub fn render_results(results: &[ModuleResult], style: &Style) -> String {
    let rows: Vec<Vec<Cell>> = results
        .iter()
        .map(|result| {
            let state = match result.outcome {
                Outcome::Loaded => ("loaded", Tone::Good),
                Outcome::AlreadyLoaded => ("live before", Tone::Good),
                Outcome::Builtin => ("built in", Tone::Good),
                Outcome::Missing => ("not shipped", Tone::Plain),
                Outcome::Unknown => ("not known", Tone::Pending),
                Outcome::Denied if result.is_excluded() => ("excluded", Tone::Plain),
                Outcome::Denied => ("denied", Tone::Bad),
                Outcome::Failed => ("failed", Tone::Bad),
                Outcome::Loading => ("loading", Tone::Pending),
            };
            let message = result.message.clone().unwrap_or_default();
            vec![
                Cell::plain(&result.module),
                Cell::new(state),
                Cell::plain(message),
            ]
        })
        .collect();
    style.table(&rows)
}

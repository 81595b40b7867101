//! The tests of the machine: events as input, and actions as text.

mod devices;
mod explore;
mod functions;
mod modules;
mod start;
mod tables;
mod targets;
pub mod world;

use std::path::PathBuf;

use interfaces::detector::{self, FunctionState, Kind, Port, Protocol, WaitsFor};
use interfaces::loader::{Denier, ModuleResult, Outcome};
use interfaces::orchestrator::{Condition, State};

use super::*;
use crate::journal::story;
use crate::rules::Source;

pub const SECOND: i64 = 1_000_000;
pub const PATIENCE: Timeouts = Timeouts {
    start: 30 * SECOND,
    function: 30 * SECOND,
    driver: 5 * SECOND,
};

/// The rules of most tests.
pub const RULES: &str = r#"
[[rule]]
modules = ["ib_uverbs", "rdma_ucm"]
[[rule]]
protocol = ["infiniband"]
modules = ["ib_umad"]
[[function]]
driver = ["cxgb4"]
modules = ["iw_cxgb4"]
"#;

pub fn device(index: i64, name: &str, protocols: &[Protocol]) -> detector::Device {
    let port = |(at, protocol): (usize, &Protocol)| Port {
        number: i64::try_from(at).unwrap() + 1,
        protocol: *protocol,
        link_layer: None,
        state: None,
        speed_mbps: None,
        netdev: None,
        gid_types: Vec::new(),
        umad: None,
        issm: None,
    };
    detector::Device {
        index,
        name: name.to_owned(),
        kernel_name: None,
        name_assigned_by_user: None,
        kind: Kind::Function,
        node_guid: None,
        system_image_guid: None,
        node_type: None,
        driver: None,
        module: None,
        pci_address: None,
        pci_id: None,
        physical_function: None,
        function_number: None,
        parent: None,
        firmware_version: None,
        board_id: None,
        netns_mode: None,
        in_other_netns: false,
        not_answering: None,
        uverbs: None,
        ports: protocols.iter().enumerate().map(port).collect(),
    }
}

/// Returns a device with all its nodes.
pub fn whole(index: i64, name: &str, protocols: &[Protocol]) -> detector::Device {
    let mut device = device(index, name, protocols);
    device.uverbs = Some(format!("uverbs{index}"));
    for port in &mut device.ports {
        port.umad = Some(format!("umad{index}{}", port.number));
    }
    device
}

pub fn sources(text: &str) -> Sources {
    Sources {
        rules: vec![Source {
            path: PathBuf::from("test.toml"),
            text: Ok(text.to_owned()),
        }],
        lists: Vec::new(),
    }
}

/// A machine with the current time.
pub struct Script {
    pub machine: Machine,
    pub now: i64,
}

impl Script {
    /// Returns a machine with these rules that has just started, at second 100.
    pub fn new(rules: &str) -> Self {
        let mut script = Self {
            machine: Machine::new(),
            now: 100 * SECOND,
        };
        script.tell(Event::Begins(PATIENCE));
        script.tell(Event::Rules(sources(rules)));
        let errors = script.machine.rules.errors();
        assert!(errors.is_empty(), "{errors:?}");
        script
    }

    /// Returns a machine without devices whose start is complete. It has no connection to the
    /// service manager.
    pub fn started(rules: &str) -> Self {
        let mut script = Self::new(rules);
        script.tell(Event::SnapshotBegins);
        script.tell(Event::SnapshotEnds);
        script
    }

    /// Returns a machine without devices whose start is complete, with a connection to the service
    /// manager.
    pub fn with_bus(rules: &str) -> Self {
        let mut script = Self::started(rules);
        script.tell(Event::Targets(Vec::new()));
        script
    }

    /// Passes an event to the machine. Returns the decisions and the states of devices as text.
    pub fn tell(&mut self, event: Event) -> Vec<String> {
        let actions = self.machine.step(event, self.now);
        // After each event, a serialized state must stay the same when it is read and serialized
        // again.
        let state = serde_json::to_string(&self.machine).unwrap();
        let again: Machine = serde_json::from_str(&state).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), state);
        actions.iter().filter_map(words).collect()
    }

    /// Passes several events to the machine.
    pub fn all(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<String> {
        events
            .into_iter()
            .flat_map(|event| self.tell(event))
            .collect()
    }

    /// Adds a device, or changes it.
    pub fn there(&mut self, device: detector::Device) -> Vec<String> {
        self.tell(Event::Device(Box::new(device)))
    }

    /// Passes the loader's result to the machine.
    pub fn answer(&mut self, module: &str, outcome: Outcome) -> Vec<String> {
        self.tell(answer(module, outcome))
    }

    /// Advances the time, with each deadline on the way.
    pub fn wait(&mut self, seconds: i64) -> Vec<String> {
        let end = self.now + seconds * SECOND;
        let mut told = Vec::new();
        while let Some(deadline) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            told.extend(self.tell(Event::Deadline));
        }
        self.now = end;
        told
    }

    pub fn device(&self, index: i64) -> interfaces::orchestrator::Device {
        self.machine.explain(None, Some(index)).unwrap().device
    }

    pub fn waiting_for(&self, index: i64) -> String {
        self.device(index).waiting_for.join("; ")
    }
}

fn words(action: &Action) -> Option<String> {
    match action {
        Action::Publish(device) => Some(format!("{} {:?}", device.name, device.state)),
        Action::Withdraw(index) => Some(format!("withdraw {index}")),
        Action::PublishFunction(function) => {
            Some(format!("{} {:?}", function.name, function.state))
        }
        Action::WithdrawFunction(name) => Some(format!("withdraw {name}")),
        Action::Known => None,
        Action::Settled(settled) => Some(format!("settled: {settled}")),
        Action::SetFlag(flag, up) => Some(format!("flag {} {up}", flag.name())),
        decision => story::say(decision),
    }
}

/// Returns only the decisions, without the states.
pub fn decisions(told: &[String]) -> Vec<&str> {
    let shown = [
        "Registered",
        "Ready",
        "Unmanaged",
        "Capable",
        "Personality",
        "Stuck",
    ];
    let is_shown = |words: &&str| {
        shown.iter().any(|state| words.ends_with(state))
            || words.starts_with("withdraw")
            || words.starts_with("settled")
    };
    told.iter()
        .map(String::as_str)
        .filter(|w| !is_shown(w))
        .collect()
}

pub fn answer(module: &str, outcome: Outcome) -> Event {
    Event::Module(Box::new(ModuleResult::new(module, outcome)))
}

pub fn failure(module: &str, errno: &str) -> Event {
    let mut result = ModuleResult::failed(module, format!("the kernel says {errno}"));
    result.errno_name = Some(errno.to_owned());
    Event::Module(Box::new(result))
}

pub fn job(unit: &str, outcome: JobOutcome) -> Event {
    Event::Job(UnitName::parse(unit).unwrap(), Verb::Start, outcome)
}

pub fn stop_job(unit: &str, outcome: JobOutcome) -> Event {
    Event::Job(UnitName::parse(unit).unwrap(), Verb::Stop, outcome)
}

pub fn is(unit: &str, activity: UnitActivity) -> Event {
    Event::Target(UnitName::parse(unit).unwrap(), activity)
}

pub fn function(
    name: &str,
    state: FunctionState,
    waits_for: Option<WaitsFor>,
    driver: Option<&str>,
) -> Event {
    Event::Function(Box::new(detector::Function {
        name: name.to_owned(),
        bus: "pci".to_owned(),
        state,
        since_usec: 100 * SECOND,
        waits_for,
        driver: driver.map(str::to_owned),
        module: None,
        modalias: None,
        pci_id: None,
        pci_address: Some(name.to_owned()),
    }))
}

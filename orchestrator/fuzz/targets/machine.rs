//! The fuzz target of the machine: random events in any order. An event must be the same after the
//! journal. A machine that is restored from its checkpoint before each step must decide like one
//! that keeps running. A replay of the records must make the same decisions. After everything is
//! removed, the state must not have grown.
#![no_main]

use interfaces::journal::record::What;
use interfaces::journal::{self, MAGIC, RecordReader, Record};
use interfaces::names::{ModuleAlias, ModuleName, UnitName};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use orchestrator::journal::{replay, wire};
use orchestrator::machine::{
    Action, Event, JobOutcome, Machine, Timeouts, UnitActivity, Verb,
};
use orchestrator::rules::{Source, Sources};
use serde_json::json;

/// The maximum growth of the state after everything is removed, in bytes.
const LEFT: usize = 4096;
const SECOND: i64 = 1_000_000;

const MODULES: [&str; 5] = ["ib_uverbs", "rdma_ucm", "ib_umad", "iw_cxgb4", "opa_vnic"];
const MODALIASES: [&str; 2] = ["pci:v000015B3d00001017", "auxiliary:mlx5_core.rdma"];
const UNITS: [&str; 3] = [
    "rdma-device@mlx5_0.target",
    "rdma-device@mlx5_1.target",
    "rdma-hotplug-hardware.target",
];
const OUTCOMES: [&str; 7] = [
    "loaded",
    "alreadyLoaded",
    "builtin",
    "denied",
    "missing",
    "failed",
    "loading",
];
const RULES: [&str; 4] = [
    "[[rule]]\nmodules = [\"ib_uverbs\", \"rdma_ucm\"]\n",
    "[[rule]]\nprotocol = [\"infiniband\"]\nmodules = [\"ib_umad\"]\n\
     [[function]]\ndriver = [\"cxgb4\"]\nmodules = [\"iw_cxgb4\"]\n",
    "[[rule]]\nmanage = false\n",
    "[[rule]]\nmodules = \n",
];

fn name(input: &mut Unstructured<'_>) -> Result<ModuleName> {
    Ok(ModuleName::parse(input.choose(&MODULES)?).expect("a name of a module"))
}

/// Returns a random device. It is made from JSON, so that optional fields need not be named here.
fn device(input: &mut Unstructured<'_>, index: i64) -> Result<Event> {
    let protocols = ["infiniband", "roce", "iwarp", "opa", "usnic", "unknown"];
    let mut ports = Vec::new();
    for number in 1..=input.int_in_range(0..=2)? {
        ports.push(json!({
            "number": number,
            "protocol": input.choose(&protocols)?,
            "gidTypes": [],
            "netdev": input.arbitrary::<bool>()?.then_some("eth0"),
            "umad": input.arbitrary::<bool>()?.then_some("umad0"),
        }));
    }
    let device = json!({
        "index": index,
        "name": input.choose(&["mlx5_0", "mlx5_1", "rx\u{9b}e0", ""])?,
        "kind": input.choose(&["function", "virtualFunction", "software", "smi"])?,
        "pciAddress": input.choose(&[None, Some("0000:01:00.0"), Some("0000:01:00.1")])?,
        "inOtherNetns": input.arbitrary::<bool>()?,
        "uverbs": input.arbitrary::<bool>()?.then_some("uverbs0"),
        "ports": ports,
    });
    let device = serde_json::from_value(device).expect("a device cannot be decoded");
    Ok(Event::Device(Box::new(device)))
}

fn function(input: &mut Unstructured<'_>, name: &str) -> Result<Event> {
    let function = json!({
        "name": name,
        "bus": "pci",
        "state": input.choose(&["capable", "personality", "registered"])?,
        "sinceUSec": input.int_in_range(0..=100 * SECOND)?,
        "waitsFor": input.choose(&[None, Some("driver"), Some("module"), Some("registration")])?,
        "driver": input.choose(&[None, Some("cxgb4"), Some("mlx5_core")])?,
        "modalias": input.choose(&[None, Some(MODALIASES[0]), Some(MODALIASES[1]), Some("a b")])?,
        "pciAddress": input.choose(&[None, Some("0000:01:00.0"), Some("0000:01:00.1")])?,
    });
    let function = serde_json::from_value(function).expect("a function cannot be decoded");
    Ok(Event::Function(Box::new(function)))
}

/// Returns a random event of the service manager.
fn of_units(input: &mut Unstructured<'_>) -> Result<Event> {
    let unit = UnitName::parse(input.choose(&UNITS)?).expect("a name of a unit");
    let activity = *input.choose(&[
        UnitActivity::Active,
        UnitActivity::Inactive,
        UnitActivity::Failed,
        UnitActivity::Changing,
    ])?;
    let verb = *input.choose(&[Verb::Start, Verb::Stop])?;
    Ok(match input.int_in_range(0..=8)? {
        0 => Event::Targets(vec![(unit, activity)]),
        1 => Event::ServiceManagerLost,
        2 => Event::UnitFilesRead,
        3 => Event::Target(unit, activity),
        4 => Event::Job(unit, verb, JobOutcome::Masked),
        5 => Event::Job(unit, verb, JobOutcome::Ended("failed".to_owned())),
        6 => Event::Job(unit, verb, JobOutcome::Refused("no".to_owned())),
        _ => Event::Job(unit, verb, JobOutcome::Done),
    })
}

fn rules(input: &mut Unstructured<'_>) -> Result<Event> {
    let source = |path: &str, text: Result<&str, &str>| Source {
        path: path.into(),
        text: text.map(str::to_owned).map_err(str::to_owned),
    };
    let mut sources = Sources::default();
    for path in ["10-any.toml", "20-any.toml"] {
        if input.arbitrary()? {
            sources.rules.push(source(path, Ok(input.choose(&RULES)?)));
        }
    }
    if input.ratio(1, 8)? {
        sources.rules.push(source("30-any.toml", Err("no")));
    }
    Ok(Event::Rules(sources))
}

fn event(input: &mut Unstructured<'_>) -> Result<Event> {
    let index = input.int_in_range(0..=3)?;
    let slot = *input.choose(&["0000:01:00.0", "0000:01:00.1"])?;
    Ok(match input.int_in_range(0..=21)? {
        0 => Event::Begins(Timeouts {
            start: input.int_in_range(0..=90 * SECOND)?,
            function: input.int_in_range(0..=90 * SECOND)?,
            driver: input.int_in_range(0..=10 * SECOND)?,
        }),
        1 => Event::SnapshotBegins,
        2..=4 => device(input, index)?,
        5 => Event::DeviceGone(index),
        6 | 7 => function(input, slot)?,
        8 => Event::FunctionGone(slot.to_owned()),
        9 => match input.int_in_range(0..=2)? {
            0 => Event::ModuleThere(name(input)?),
            1 => Event::ModuleGone(name(input)?),
            _ => Event::ModulesThere(vec![name(input)?, name(input)?]),
        },
        10 => Event::SnapshotEnds,
        11 => Event::DetectorLost,
        12 | 13 => {
            let result = json!({
                "module": name(input)?.as_str(),
                "outcome": input.choose(&OUTCOMES)?,
                "standsFor": input.choose(&[None, Some(["rdma_ucm"])])?,
                "chain": [],
                "durationUSec": 1,
                "message": input.arbitrary::<bool>()?.then_some("a sentence"),
            });
            let result = serde_json::from_value(result).expect("an answer cannot be decoded");
            Event::Module(Box::new(result))
        }
        18..=20 => of_units(input)?,
        21 => Event::Driver {
            function: slot.to_owned(),
            modalias: ModuleAlias::parse(input.choose(&MODALIASES)?).expect("a modalias"),
            excluded: input.arbitrary::<bool>()?.then(|| "a line says so".to_owned()),
        },
        14 => Event::Deadline,
        15 => rules(input)?,
        16 => match input.arbitrary()? {
            true => Event::ModulesInstalled,
            false => Event::Reconcile,
        },
        _ => match input.arbitrary()? {
            true => Event::Pause("by chance".to_owned()),
            false => Event::Resume,
        },
    })
}

/// A machine that keeps running, one that is restored before each step, and their journal.
struct Story {
    running: Machine,
    restored: Machine,
    now: i64,
    journal: Vec<u8>,
}

fn state(machine: &Machine) -> String {
    wire::checkpoint(machine).expect("a checkpoint").state
}

fn decisions(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(Action::is_decision).collect()
}

impl Story {
    fn new() -> Self {
        let mut story = Self {
            running: Machine::new(),
            restored: Machine::new(),
            now: 0,
            journal: MAGIC.to_vec(),
        };
        let checkpoint = wire::checkpoint(&story.running).expect("a checkpoint");
        story.write(What::Checkpoint(checkpoint));
        story
    }

    fn write(&mut self, what: What) {
        self.journal.extend(journal::encode(&Record {
            monotonic_usec: self.now,
            realtime_usec: self.now,
            what: Some(what),
        }));
    }

    /// Passes an event to both machines. The second one gets it from the journal.
    fn step(&mut self, event: Event) {
        let what = wire::of_event(&event);
        self.write(what.clone());
        let What::Event(record) = what else {
            panic!("an event is kept as something else");
        };
        let again = wire::event(&record).expect("an event that was kept cannot be read");
        assert_eq!(wire::of_event(&again), What::Event(record));

        let checkpoint = wire::checkpoint(&self.restored).expect("a checkpoint");
        self.restored = wire::machine(&checkpoint).expect("a checkpoint cannot be read");
        let decided = decisions(self.running.step(event, self.now));
        let restored = decisions(self.restored.step(again, self.now));
        assert_eq!(decided, restored);
        assert_eq!(state(&self.running), state(&self.restored));
        for action in &decided {
            if let Some(what) = wire::of_action(action) {
                self.write(what);
            }
        }
    }
}

/// Removes everything, and reports that to the machines. Returns the size of the state in bytes.
fn leave(story: &mut Story) -> usize {
    story.step(Event::SnapshotBegins);
    story.step(Event::SnapshotEnds);
    story.step(Event::Rules(Sources::default()));
    state(&story.running).len()
}

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let least = leave(&mut Story::new());
    let mut story = Story::new();
    while !input.is_empty() {
        story.now += input.int_in_range(0..=5 * SECOND)?;
        let event = event(input)?;
        story.step(event);
    }
    let left = leave(&mut story);
    assert!(left <= least + LEFT, "{}", state(&story.running));

    let records = RecordReader::new(story.journal.as_slice()).expect("a journal");
    let records = records.map(|record| record.expect("a record that was written"));
    for step in replay::replay(records, None).expect("a journal can be replayed") {
        assert_eq!(step.made, step.recorded, "{:?}", step.event);
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = play(&mut Unstructured::new(bytes));
});

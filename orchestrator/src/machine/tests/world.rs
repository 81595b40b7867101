//! The random model for the machine: devices are added and removed at random, a loader and a
//! service manager reply after arbitrary delays, and the process may die at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use interfaces::orchestrator::State;

pub const RULES: &str = r#"
[[rule]]
modules = ["ib_uverbs", "rdma_ucm"]
roles = ["shared"]
[[rule]]
protocol = ["infiniband"]
modules = ["ib_umad"]
roles = ["fabric"]
[[function]]
driver = ["cxgb4"]
modules = ["iw_cxgb4"]
"#;
const OTHER_RULES: &str = "[[rule]]\nmodules = [\"ib_uverbs\"]\nroles = [\"shared\", \"other\"]\n";

/// The state of everything outside the orchestrator's process. It outlives the process.
pub struct World {
    pub random: fastrand::Rng,
    pub devices: BTreeMap<i64, detector::Device>,
    pub active: BTreeSet<UnitName>,
    rules: &'static str,
    next_index: i64,
    /// The requests without a reply. They are lost with the process.
    pub owed: VecDeque<Action>,
    pub now: i64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            devices: BTreeMap::new(),
            active: BTreeSet::new(),
            rules: RULES,
            next_index: 1,
            owed: VecDeque::new(),
            now: 100 * SECOND,
        }
    }

    /// Returns the first events of a process.
    pub fn beginning(&self) -> Vec<Event> {
        let devices = self.devices.values().cloned();
        let devices = devices.map(|device| Event::Device(Box::new(device)));
        let mut events = vec![
            Event::Begins(PATIENCE),
            Event::Rules(sources(self.rules)),
            Event::SnapshotBegins,
        ];
        events.extend(devices);
        events.extend([Event::SnapshotEnds, self.targets()]);
        events
    }

    /// Returns the service manager's list of active targets.
    fn targets(&self) -> Event {
        let active = self.active.iter().cloned();
        Event::Targets(active.map(|unit| (unit, UnitActivity::Active)).collect())
    }

    /// Returns an event in its current form: jobs may have ended since it was made.
    pub fn fresh(&self, event: Event) -> Event {
        match event {
            Event::Targets(_) => self.targets(),
            event => event,
        }
    }

    /// Starts or stops one of our targets, like a user or another unit.
    fn meddle(&mut self) -> Option<Event> {
        let known: Vec<UnitName> = self.active.union(&self.wanted()).cloned().collect();
        let unit = self.random.choice(known)?;
        let activity = match self.active.remove(&unit) {
            true => UnitActivity::Inactive,
            false => {
                self.active.insert(unit.clone());
                UnitActivity::Active
            }
        };
        Some(Event::Target(unit, activity))
    }

    /// Returns the events of a random change.
    pub fn chance(&mut self) -> Vec<Event> {
        self.now += self.random.i64(1..3 * SECOND);
        match self.random.u32(0..21) {
            0..6 => vec![self.plug()],
            6..9 => self.unplug().into_iter().collect(),
            9..11 => self.rename().into_iter().collect(),
            11 => {
                self.rules = if self.random.bool() {
                    RULES
                } else {
                    OTHER_RULES
                };
                vec![Event::Rules(sources(self.rules))]
            }
            12 => vec![Event::Reconcile],
            13 => vec![Event::Pause("chance".to_owned()), Event::Resume],
            // The bus or the process is lost, and with it the pending requests.
            14 => vec![Event::ServiceManagerLost, self.targets()],
            19 => self.meddle().into_iter().collect(),
            18 => self.beginning(),
            15 => {
                let name = ModuleName::parse("rdma_ucm").unwrap();
                vec![match self.random.bool() {
                    true => Event::ModuleGone(name),
                    false => Event::ModuleThere(name),
                }]
            }
            16 => vec![function(
                "0000:c1:00.0",
                FunctionState::Capable,
                Some(WaitsFor::Module),
                Some("cxgb4"),
            )],
            17 => vec![Event::FunctionGone("0000:c1:00.0".to_owned())],
            _ => vec![Event::Deadline],
        }
    }

    /// Removes the pending requests that an event loses.
    pub fn lose(&mut self, event: &Event) {
        // Some of them are done, without a reply.
        let done = self.owed.len() * usize::from(self.random.bool());
        for _ in 0..done {
            if matches!(event, Event::Begins(_) | Event::ServiceManagerLost)
                && matches!(
                    self.owed.front(),
                    Some(Action::StartUnit { .. } | Action::StopUnit { .. })
                )
            {
                let _ = self.answer();
            } else {
                self.owed.rotate_left(1.min(self.owed.len()));
            }
        }
        match event {
            Event::Begins(_) => self.owed.clear(),
            Event::ServiceManagerLost => {
                let is_load = |action: &Action| matches!(action, Action::Load { .. });
                self.owed.retain(is_load);
            }
            _ => {}
        }
    }

    fn plug(&mut self) -> Event {
        let protocol = if self.random.bool() {
            Protocol::Infiniband
        } else {
            Protocol::Roce
        };
        let index = self.next_index;
        self.next_index += 1;
        let device = whole(
            index,
            &format!("mlx5_{}", self.random.u32(0..4)),
            &[protocol],
        );
        self.devices.insert(index, device.clone());
        Event::Device(Box::new(device))
    }

    fn any(&mut self) -> Option<i64> {
        let indexes: Vec<i64> = self.devices.keys().copied().collect();
        self.random.choice(indexes)
    }

    fn unplug(&mut self) -> Option<Event> {
        let index = self.any()?;
        self.devices.remove(&index);
        Some(Event::DeviceGone(index))
    }

    fn rename(&mut self) -> Option<Event> {
        let index = self.any()?;
        let name = format!("ib{}", self.random.u32(0..4));
        let device = self.devices.get_mut(&index)?;
        device.name = name;
        Some(Event::Device(Box::new(device.clone())))
    }

    /// Answers a pending request.
    pub fn answer(&mut self) -> Vec<Event> {
        self.now += 1000;
        match self.owed.pop_front() {
            None => Vec::new(),
            Some(Action::Load { modules, .. }) => {
                let names = modules.iter().map(ModuleName::as_str);
                names.map(|name| answer(name, Outcome::Loaded)).collect()
            }
            Some(Action::StartUnit { unit, .. }) => {
                self.active.insert(unit.clone());
                vec![Event::Job(unit, Verb::Start, JobOutcome::Done)]
            }
            Some(Action::StopUnit { unit, .. }) => {
                let outcome = match self.active.remove(&unit) {
                    true => JobOutcome::Done,
                    false => JobOutcome::NotNeeded,
                };
                vec![Event::Job(unit, Verb::Stop, outcome)]
            }
            // A path unit starts the target.
            Some(Action::SetFlag(flag, true)) => {
                let unit = UnitName::parse(&flag.target()).unwrap();
                self.active.insert(unit.clone());
                vec![Event::Target(unit, UnitActivity::Active)]
            }
            Some(_) => Vec::new(),
        }
    }

    /// Adds the machine's decisions to the pending requests.
    pub fn owe(&mut self, actions: &[Action]) {
        let decided = actions.iter().filter(|action| action.is_decision());
        self.owed.extend(decided.cloned());
    }

    /// Returns the targets that the current devices should have.
    pub fn wanted(&self) -> BTreeSet<UnitName> {
        let rules = Rules::read(&sources(self.rules), &Rules::default());
        let wanted = self.devices.values().flat_map(|device| {
            let ports = device.ports.iter();
            let flags = ports.filter_map(|port| Flag::of(port.protocol));
            let flags = flags.chain([Flag::Hardware]);
            crate::targets::of_device(device, &rules.wanted(device).roles, flags).0
        });
        wanted.map(|claim| claim.name).collect()
    }

    /// Answers all pending requests, until there are no more.
    pub fn settle(&mut self, machine: &mut Machine) {
        for _ in 0..100_000 {
            let mut answers = self.answer();
            if answers.is_empty() && self.owed.is_empty() {
                let Some(deadline) = machine.next_deadline() else {
                    return;
                };
                self.now = self.now.max(deadline);
                answers.push(Event::Deadline);
            }
            for event in answers {
                let actions = machine.step(event, self.now);
                self.owe(&actions);
            }
        }
        panic!("it never settles: {:?}", self.owed);
    }

    /// Checks that the final state is right.
    pub fn assert_as_wanted(&self, machine: &Machine) {
        assert_eq!(self.active, self.wanted());
        let indexes: Vec<i64> = machine.devices.keys().copied().collect();
        assert_eq!(indexes, self.devices.keys().copied().collect::<Vec<_>>());
        for index in indexes {
            let device = machine.explain(None, Some(index)).unwrap().device;
            assert!(
                device.state == State::Ready
                    || device.waiting_for.iter().all(|w| w.contains("unloaded")),
                "{device:?}"
            );
        }
        assert!(machine.describe().settled || machine.functions.len() > 0);
    }
}

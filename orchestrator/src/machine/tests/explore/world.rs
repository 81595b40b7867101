//! The model of the explorer: the state of the simulated host, the messages in transit to the
//! machine, the pending requests, and the possible moves.

mod truth;

use std::collections::VecDeque;

use super::super::*;

/// The current time, in µs. It is large, so that times differ from all other numbers.
pub const NOW: i64 = 1_000_000_000_000_000;

/// The rules. Only the second device needs the second module.
const RULES: &str = "[[rule]]\nmodules = [\"m0\"]\n[[rule]]\nname = [\"d1\"]\nmodules = [\"m1\"]\n";

const MODULES: [&str; 2] = ["m0", "m1"];
/// The targets of both devices and of the hardware flag.
const UNITS: [&str; 3] = [
    "rdma-device@d0.target",
    "rdma-device@d1.target",
    "rdma-hotplug-hardware.target",
];
/// The maximum number of messages in transit. A model with more unread messages is like one that
/// loses the connection.
const MAX_HEARD: usize = 4;

/// The loader's result for a module that is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ground {
    Loads,
    Excluded,
    Denied,
    Missing,
    Unknown,
    /// A permanent failure.
    Invalid,
    /// A temporary failure.
    Busy,
}

/// The result of the start of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    Works,
    Fails,
    /// An administrator has masked it.
    Masked,
}

/// A result of the loader that the machine has not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Loaded,
    AlreadyLoaded,
    Not(Ground),
}

/// A message of the detector that the machine has not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Heard {
    Begins,
    There(usize),
    Gone(usize),
    Module(usize, bool),
    Modules([bool; 2]),
    Ends,
}

/// A message of the service manager that the machine has not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Job(usize, Verb, Start),
    Is(usize, bool),
    UnitFilesRead,
}

/// A move: a single change of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    // Moves that happen by themselves.
    LoaderLooks(usize),
    LoaderAnswers(usize),
    DetectorIsHeard,
    DetectorIsBack,
    BusIsHeard,
    BusIsBack,
    JobEnds(usize),
    PathUnitStarts,
    Installed,
    Deadline,
    // Disturbances.
    Plug(usize),
    Unplug(usize),
    Replug(usize),
    AdminLoads(usize),
    AdminUnloads(usize),
    GroundIs(usize, Ground),
    UnitIs(usize, Start),
    AdminStops(usize),
    AdminStarts(usize),
    DetectorIsLost,
    BusIsLost,
    ProcessDies,
    Pause,
    Resume,
    Reconcile,
}

/// The state of everything outside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    there: [bool; 2],
    live: [bool; 2],
    grounds: [Ground; 2],
    /// An administrator has unloaded the module, and it was not loaded since.
    unloaded: [bool; 2],
    /// The module is requested, and the loader has not looked for it.
    requested: [bool; 2],
    /// The loader's result, which the machine has not received.
    answers: [Option<Answer>; 2],
    /// True if a module that has a result may be requested again.
    reason: [bool; 2],
    /// The machine received the report that the requested module is not loaded, before or after the
    /// load.
    doubted: [bool; 2],
    connected: bool,
    heard: VecDeque<Heard>,
    active: [bool; 3],
    starts: [Start; 3],
    jobs: [Option<Verb>; 3],
    bus: bool,
    told: VecDeque<Told>,
    /// The file that the path unit watches.
    flag: bool,
    /// The path unit for installed modules has been triggered.
    installed: bool,
    /// An administrator has requested a pause.
    paused: bool,
    /// The number of disturbances that are left.
    pub left: u8,
}

/// Returns the first events of a new process.
pub fn beginning() -> Vec<Event> {
    vec![Event::Begins(PATIENCE), Event::Rules(sources(RULES))]
}

fn record(device: usize) -> Event {
    let index = i64::try_from(device).unwrap() + 1;
    Event::Device(Box::new(super::super::whole(
        index,
        &format!("d{device}"),
        &[],
    )))
}

fn index(device: usize) -> i64 {
    i64::try_from(device).unwrap() + 1
}

fn unit(unit: usize) -> UnitName {
    UnitName::parse(UNITS[unit]).unwrap()
}

fn activity(active: bool) -> UnitActivity {
    match active {
        true => UnitActivity::Active,
        false => UnitActivity::Inactive,
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            there: [false; 2],
            live: [false; 2],
            grounds: [Ground::Loads; 2],
            unloaded: [false; 2],
            requested: [false; 2],
            answers: [None; 2],
            reason: [true; 2],
            doubted: [false; 2],
            connected: false,
            heard: VecDeque::new(),
            active: [false; 3],
            starts: [Start::Works; 3],
            jobs: [None; 3],
            bus: false,
            told: VecDeque::new(),
            flag: false,
            installed: false,
            paused: false,
            left: 0,
        }
    }

    /// Adds both devices before the first query to the detector. The ground and the start apply to
    /// the second device.
    pub fn plug_all(&mut self, ground: Ground, start: Start) {
        self.there = [true; 2];
        self.grounds[1] = ground;
        self.starts[1] = start;
    }

    /// Returns the moves that happen by themselves, the nearest first.
    fn quiet_moves(&self, machine: &Machine) -> Vec<Move> {
        let mut moves = Vec::new();
        if !self.heard.is_empty() {
            moves.push(Move::DetectorIsHeard);
        }
        if !self.told.is_empty() {
            moves.push(Move::BusIsHeard);
        }
        for module in 0..2 {
            if self.requested[module] {
                moves.push(Move::LoaderLooks(module));
            }
            if self.answers[module].is_some() {
                moves.push(Move::LoaderAnswers(module));
            }
        }
        for unit in 0..3 {
            if self.jobs[unit].is_some() {
                moves.push(Move::JobEnds(unit));
            }
        }
        if self.flag && !self.active[2] && self.jobs[2].is_none() && self.starts[2] == Start::Works
        {
            moves.push(Move::PathUnitStarts);
        }
        if self.installed {
            moves.push(Move::Installed);
        }
        if !self.connected {
            moves.push(Move::DetectorIsBack);
        }
        if !self.bus {
            moves.push(Move::BusIsBack);
        }
        if machine.next_deadline().is_some() {
            moves.push(Move::Deadline);
        }
        moves
    }

    /// Returns the next move of an undisturbed model. A deadline passes only if nothing else
    /// happens.
    pub fn quiet_move(&self, machine: &Machine) -> Option<Move> {
        self.quiet_moves(machine).into_iter().next()
    }

    /// Returns all possible moves.
    pub fn moves(&self, machine: &Machine) -> Vec<Move> {
        let mut moves = self.quiet_moves(machine);
        if self.left == 0 {
            return moves;
        }
        let room = self.heard.len() < MAX_HEARD && self.told.len() < MAX_HEARD;
        if room {
            for at in 0..2 {
                match self.there[at] {
                    true => moves.extend([Move::Unplug(at), Move::Replug(at)]),
                    false => moves.push(Move::Plug(at)),
                }
                match self.live[at] {
                    true => moves.push(Move::AdminUnloads(at)),
                    false => moves.push(Move::AdminLoads(at)),
                }
                let grounds = [
                    Ground::Loads,
                    Ground::Excluded,
                    Ground::Denied,
                    Ground::Missing,
                    Ground::Unknown,
                    Ground::Invalid,
                    Ground::Busy,
                ];
                let others = grounds.into_iter().filter(|g| *g != self.grounds[at]);
                moves.extend(others.map(|ground| Move::GroundIs(at, ground)));
            }
            for unit in 0..3 {
                moves.push(match self.active[unit] {
                    true => Move::AdminStops(unit),
                    false => Move::AdminStarts(unit),
                });
                let starts = [Start::Works, Start::Fails, Start::Masked].into_iter();
                let others = starts.filter(|start| *start != self.starts[unit]);
                moves.extend(others.map(|start| Move::UnitIs(unit, start)));
            }
        }
        if self.connected {
            moves.push(Move::DetectorIsLost);
        }
        if self.bus {
            moves.push(Move::BusIsLost);
        }
        moves.push(match self.paused {
            false => Move::Pause,
            true => Move::Resume,
        });
        moves.extend([Move::ProcessDies, Move::Reconcile]);
        moves
    }

    /// Performs a move, and returns the events that the machine receives.
    pub fn take(&mut self, step: Move) -> Vec<Event> {
        match step {
            Move::LoaderLooks(at) => {
                self.look(at);
                Vec::new()
            }
            Move::LoaderAnswers(at) => {
                let answer = self.answers[at].take();
                self.reason[at] |= std::mem::take(&mut self.doubted[at]);
                answer
                    .into_iter()
                    .map(|answer| self.answer(at, answer))
                    .collect()
            }
            Move::DetectorIsHeard => self.hear(),
            Move::DetectorIsBack => {
                self.connected = true;
                self.heard = self.snapshot();
                Vec::new()
            }
            Move::BusIsHeard => self.told.pop_front().map(event_of).into_iter().collect(),
            Move::BusIsBack => {
                self.bus = true;
                let active = (0..3).filter(|at| self.active[*at]);
                let active = active.map(|at| (unit(at), UnitActivity::Active));
                vec![Event::Targets(active.collect())]
            }
            Move::JobEnds(at) => {
                self.end_job(at);
                Vec::new()
            }
            Move::PathUnitStarts => {
                self.turn(2, true);
                Vec::new()
            }
            Move::Installed => {
                self.installed = false;
                self.give_reason();
                vec![Event::ModulesInstalled]
            }
            Move::Deadline => {
                // A retry after a pause, or the second request after a change on disk.
                self.give_reason();
                vec![Event::Deadline]
            }
            _ => {
                self.left -= 1;
                self.disturb(step)
            }
        }
    }

    fn disturb(&mut self, step: Move) -> Vec<Event> {
        match step {
            Move::Plug(at) => {
                self.there[at] = true;
                self.send(Heard::There(at));
            }
            Move::Unplug(at) => {
                self.there[at] = false;
                self.send(Heard::Gone(at));
            }
            Move::Replug(at) => {
                self.send(Heard::Gone(at));
                self.send(Heard::There(at));
            }
            Move::AdminLoads(at) => self.turn_module(at, true),
            Move::AdminUnloads(at) => {
                self.turn_module(at, false);
                self.unloaded[at] = true;
            }
            Move::GroundIs(at, ground) => {
                self.grounds[at] = ground;
                // A path unit sees the changed file. No event reports that a driver works again.
                self.installed = true;
            }
            Move::UnitIs(at, start) => {
                let before = std::mem::replace(&mut self.starts[at], start);
                // systemctl reloads the unit files when it masks or unmasks a unit.
                if self.bus && (before == Start::Masked || start == Start::Masked) {
                    self.told.push_back(Told::UnitFilesRead);
                }
            }
            Move::AdminStops(at) => self.turn(at, false),
            Move::AdminStarts(at) => self.turn(at, true),
            Move::DetectorIsLost => {
                self.connected = false;
                self.heard.clear();
                return vec![Event::DetectorLost];
            }
            Move::BusIsLost => {
                self.bus = false;
                self.told.clear();
                return vec![Event::ServiceManagerLost];
            }
            Move::ProcessDies => return self.die(),
            Move::Pause => {
                self.paused = true;
                return vec![Event::Pause("work".to_owned())];
            }
            Move::Resume => {
                self.paused = false;
                self.give_reason();
                return vec![Event::Resume];
            }
            Move::Reconcile => {
                self.give_reason();
                return vec![Event::Reconcile];
            }
            other => panic!("{other:?} disturbs nothing"),
        }
        Vec::new()
    }

    /// Starts a new process, which continues from the journal. Messages are lost, jobs are not.
    fn die(&mut self) -> Vec<Event> {
        self.requested = [false; 2];
        self.answers = [None; 2];
        self.doubted = [false; 2];
        self.heard.clear();
        self.told.clear();
        self.connected = false;
        self.bus = false;
        self.reason = [true; 2];
        beginning()
    }

    /// Returns the detector's messages to a new subscriber.
    fn snapshot(&self) -> VecDeque<Heard> {
        let there = (0..2).filter(|at| self.there[*at]).map(Heard::There);
        let first = [Heard::Begins, Heard::Modules(self.live)];
        first
            .into_iter()
            .chain(there)
            .chain([Heard::Ends])
            .collect()
    }

    fn send(&mut self, heard: Heard) {
        if self.connected {
            self.heard.push_back(heard);
        }
    }

    fn hear(&mut self) -> Vec<Event> {
        let Some(heard) = self.heard.pop_front() else {
            return Vec::new();
        };
        for at in 0..2 {
            let absent = match heard {
                Heard::Module(module, there) => module == at && !there,
                Heard::Modules(live) => !live[at],
                _ => false,
            };
            let asked = self.requested[at] || self.answers[at].is_some();
            self.doubted[at] |= absent && asked;
        }
        if !matches!(heard, Heard::Module(..)) {
            // A device that is added, or observed again after a lost connection, may request its
            // modules again.
            self.reason = [true; 2];
        }
        vec![match heard {
            Heard::Begins => Event::SnapshotBegins,
            Heard::There(at) => record(at),
            Heard::Gone(at) => Event::DeviceGone(index(at)),
            Heard::Module(at, there) => {
                self.reason[at] = true;
                let name = ModuleName::parse(MODULES[at]).unwrap();
                match there {
                    true => Event::ModuleThere(name),
                    false => Event::ModuleGone(name),
                }
            }
            Heard::Modules(live) => {
                let live = (0..2).filter(|at| live[*at]);
                let names = live.map(|at| ModuleName::parse(MODULES[at]).unwrap());
                // A module that no device wants.
                let other = ModuleName::parse("xfs").unwrap();
                Event::ModulesThere([other].into_iter().chain(names).collect())
            }
            Heard::Ends => Event::SnapshotEnds,
        }]
    }

    /// Allows a new request of each module, after the current one.
    fn give_reason(&mut self) {
        for at in 0..2 {
            self.reason[at] = true;
            self.doubted[at] |= self.requested[at] || self.answers[at].is_some();
        }
    }

    fn turn_module(&mut self, at: usize, live: bool) {
        self.live[at] = live;
        self.unloaded[at] = false;
        self.send(Heard::Module(at, live));
    }

    /// Loads a module, or determines why it cannot be loaded.
    fn look(&mut self, at: usize) {
        self.requested[at] = false;
        // Reports that the machine receives from now on are newer than the result.
        self.reason[at] = false;
        self.answers[at] = Some(match (self.live[at], self.grounds[at]) {
            (true, _) => Answer::AlreadyLoaded,
            (false, Ground::Loads) => {
                self.turn_module(at, true);
                Answer::Loaded
            }
            (false, ground) => Answer::Not(ground),
        });
    }

    fn answer(&self, at: usize, answer: Answer) -> Event {
        let result = |outcome| {
            let mut result = ModuleResult::new(MODULES[at], outcome);
            let shipped = outcome != Outcome::Missing && outcome != Outcome::Unknown;
            result.stands_for = shipped.then(|| vec![MODULES[at].to_owned()]);
            result
        };
        let failed = |errno: &str| {
            let mut result = result(Outcome::Failed);
            result.errno_name = Some(errno.to_owned());
            result
        };
        Event::Module(Box::new(match answer {
            Answer::Loaded => result(Outcome::Loaded),
            Answer::AlreadyLoaded => result(Outcome::AlreadyLoaded),
            Answer::Not(Ground::Excluded) => {
                let mut result = result(Outcome::Denied);
                result.denied_by = Some(Denier::Blacklist);
                result
            }
            Answer::Not(Ground::Denied) => result(Outcome::Denied),
            Answer::Not(Ground::Missing) => result(Outcome::Missing),
            Answer::Not(Ground::Unknown) => result(Outcome::Unknown),
            Answer::Not(Ground::Busy) => failed("EBUSY"),
            Answer::Not(Ground::Invalid | Ground::Loads) => failed("EINVAL"),
        }))
    }

    /// Changes the state of a target, and reports that to subscribers.
    fn turn(&mut self, at: usize, active: bool) {
        if self.active[at] != active {
            self.active[at] = active;
            if self.bus {
                self.told.push_back(Told::Is(at, active));
            }
        }
    }

    fn end_job(&mut self, at: usize) {
        let Some(verb) = self.jobs[at].take() else {
            return;
        };
        let end = match verb {
            Verb::Start => self.starts[at],
            Verb::Stop => Start::Works,
        };
        if end == Start::Works {
            self.turn(at, verb == Verb::Start);
        }
        if self.bus {
            self.told.push_back(Told::Job(at, verb, end));
        }
    }
}

fn event_of(told: Told) -> Event {
    match told {
        Told::Job(at, verb, end) => {
            let outcome = match end {
                Start::Works => JobOutcome::Done,
                Start::Fails => JobOutcome::Ended("failed".to_owned()),
                Start::Masked => JobOutcome::Masked,
            };
            Event::Job(unit(at), verb, outcome)
        }
        Told::UnitFilesRead => Event::UnitFilesRead,
        Told::Is(at, active) => Event::Target(unit(at), activity(active)),
    }
}

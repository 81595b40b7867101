//! The world of the explorer: what is there, what is on its way to the machine, what was asked for,
//! and what can happen next.

mod truth;

use std::collections::VecDeque;

use super::super::*;

/// The present, in µs. Large, so that a time is told from every other number.
pub const NOW: i64 = 1_000_000_000_000_000;

/// The rules: the second module is for the second device alone.
const RULES: &str = "[[rule]]\nmodules = [\"m0\"]\n[[rule]]\nname = [\"d1\"]\nmodules = [\"m1\"]\n";

const MODULES: [&str; 2] = ["m0", "m1"];
/// The targets of both devices, and of the hardware flag.
const UNITS: [&str; 3] = [
    "rdma-device@d0.target",
    "rdma-device@d1.target",
    "rdma-hotplug-hardware.target",
];
/// What is on its way at most: a world that goes on without being heard is the same as one that
/// loses the connection.
const MOST_HEARD: usize = 4;

/// What the loader would come to with a module that is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ground {
    Loads,
    Excluded,
    Denied,
    Missing,
    Unknown,
    /// A failure for good.
    Invalid,
    /// A failure that may be over soon.
    Busy,
}

/// What becomes of a unit that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    Works,
    Fails,
    /// An administrator has masked it.
    Masked,
}

/// What the loader has come to, and has not been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Loaded,
    AlreadyLoaded,
    Not(Ground),
}

/// What the detector has sent and the machine has not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Heard {
    Begins,
    There(usize),
    Gone(usize),
    Module(usize, bool),
    Modules([bool; 2]),
    Ends,
}

/// What the service manager has sent and the machine has not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Job(usize, Verb, Start),
    Is(usize, bool),
    UnitFilesRead,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    // By itself.
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
    // What disturbs.
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

/// Everything outside of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    there: [bool; 2],
    live: [bool; 2],
    grounds: [Ground; 2],
    /// An administrator has unloaded it, and it was not loaded since.
    unloaded: [bool; 2],
    /// Asked for; the loader has not looked.
    requested: [bool; 2],
    /// The loader has looked, and its answer is on its way.
    answers: [Option<Answer>; 2],
    /// Why a module that was answered may be asked for again.
    reason: [bool; 2],
    /// The machine heard that it is not there while it was asked for, before the load or after it.
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
    /// An administrator has asked for a pause.
    paused: bool,
    /// How often the world may still be disturbed.
    pub left: u8,
}

/// What a new process does first.
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

    /// Both devices are there when the detector is asked first, and the second's module and target are so.
    pub fn plug_all(&mut self, ground: Ground, start: Start) {
        self.there = [true; 2];
        self.grounds[1] = ground;
        self.starts[1] = start;
    }

    /// What happens by itself, the nearest first.
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

    /// The one of them that a quiet world takes. Time goes on when nothing else happens.
    pub fn quiet_move(&self, machine: &Machine) -> Option<Move> {
        self.quiet_moves(machine).into_iter().next()
    }

    /// Everything that can happen now.
    pub fn moves(&self, machine: &Machine) -> Vec<Move> {
        let mut moves = self.quiet_moves(machine);
        if self.left == 0 {
            return moves;
        }
        let room = self.heard.len() < MOST_HEARD && self.told.len() < MOST_HEARD;
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

    /// Has something happen; gives what the machine hears of it now.
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
                // What is tried again after a pause, or looked at a second time.
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
                // A path unit sees the file that says so. A driver that works again says nothing.
                self.installed = true;
            }
            Move::UnitIs(at, start) => {
                let before = std::mem::replace(&mut self.starts[at], start);
                // systemctl has unit files read again when it masks and unmasks.
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

    /// A new process, which goes on from the journal: what was on its way is lost, jobs are not.
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

    /// What the detector sends to one who has just come.
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
            // A device that comes, or is seen again after a loss, asks again.
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
                // That of another module, which no device wants.
                let other = ModuleName::parse("xfs").unwrap();
                Event::ModulesThere([other].into_iter().chain(names).collect())
            }
            Heard::Ends => Event::SnapshotEnds,
        }]
    }

    /// Everything may be asked for again, after what is under way.
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

    /// The loader has a module inserted, or finds out why not.
    fn look(&mut self, at: usize) {
        self.requested[at] = false;
        // What the machine hears from now on is newer than the answer.
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

    /// A target changes its state, and its subscribers hear of it.
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

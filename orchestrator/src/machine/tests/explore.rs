//! The explorer: all sequences of events in a small model. The model has two devices, two modules,
//! their targets, a loader, a service manager and a detector with arbitrary delays, administrators
//! who interfere, and a process that may die at any moment. The search is breadth-first over the
//! states of machine and model together, so that the first path to a violation is a shortest one.
//!
//! The number of disturbances is limited; everything else happens by itself. In each state the
//! model must confirm the machine's reports. From each state, after the last disturbance, both must
//! reach the right final state. `RDMA_HOTPLUG_DISTURBANCES` sets the number of disturbances.

mod sabotage;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use interfaces::journal::record::What;

use super::*;
use crate::journal::wire;
use sabotage::Sabotage;
use world::{Ground, Move, Start, World};

/// The maximum number of moves until an undisturbed model reaches its final state.
const LONGEST_QUIET: usize = 400;

/// A state of the machine and the model, with the time.
#[derive(Clone)]
struct State {
    machine: Machine,
    world: World,
    now: i64,
}

/// A violation, and the path to it from the first state.
struct Violation {
    path: Vec<Move>,
    what: String,
}

/// The result of an exploration.
struct Explored {
    states: usize,
    moves: usize,
    violation: Option<Violation>,
}

impl State {
    fn new(sabotage: Sabotage) -> Self {
        let mut state = Self {
            machine: Machine::new(),
            world: World::new(),
            now: world::NOW,
        };
        state.tell(world::beginning(), sabotage).unwrap();
        state
    }

    /// Returns the state after both devices were added and everything has settled. The ground and
    /// the start apply to the module that only the second device wants, and to its target.
    fn settled(ground: Ground, start: Start) -> Self {
        let mut state = Self::new(Sabotage::Nothing);
        state.world.plug_all(ground, start);
        while let Some(step) = state.world.quiet_move(&state.machine) {
            let (next, said) = state.after(step, Sabotage::Nothing);
            said.unwrap();
            state = next;
        }
        state.world.is_the_right_end(&state.machine).unwrap();
        state
    }

    fn key(&self) -> u128 {
        let machine = canonical(&self.machine, self.now);
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &machine, &self.world).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        hash(0) << 64 | hash(1)
    }

    /// Returns the state after a move, and the violation, if there is one.
    fn after(&self, step: Move, sabotage: Sabotage) -> (Self, Result<(), String>) {
        let mut next = self.clone();
        let events = next.world.take(step);
        let said = next.tell(events, sabotage);
        (next, said)
    }

    /// Passes events to the machine, and its actions to the model.
    fn tell(&mut self, events: Vec<Event>, sabotage: Sabotage) -> Result<(), String> {
        for event in events {
            // The event is encoded and decoded as in the journal.
            let event = match wire::of_event(&event) {
                What::Event(record) => wire::event(&record).unwrap(),
                other => panic!("{other:?}"),
            };
            if matches!(event, Event::Begins(_)) {
                let state = serde_json::to_vec(&self.machine).unwrap();
                self.machine = serde_json::from_slice(&state).unwrap();
            }
            if matches!(event, Event::Deadline) {
                let deadline = self.machine.next_deadline();
                self.now = deadline.unwrap_or(self.now).max(self.now);
            }
            let actions = sabotage.step(&mut self.machine, event, self.now);
            self.world.owe(&actions, &self.machine)?;
        }
        self.world.bears_out(&self.machine)
    }
}

/// Returns the machine's state for comparison. Times are relative to the current time, times long
/// past are equal, and counts have an upper bound.
fn canonical(machine: &Machine, now: i64) -> Vec<u8> {
    let text = serde_json::to_vec(machine).unwrap();
    let mut state = Vec::with_capacity(text.len());
    let mut key: &[u8] = &[];
    let mut rest = text.as_slice();
    while let Some(first) = rest.first() {
        let len = match first {
            b'"' => 2 + rest[1..].iter().position(|byte| *byte == b'"').unwrap(),
            b'0'..=b'9' => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at(len);
        rest = after;
        if *first == b'"' && rest.first() == Some(&b':') {
            key = token;
        }
        if !first.is_ascii_digit() {
            state.extend_from_slice(token);
            continue;
        }
        let number: i64 = std::str::from_utf8(token).unwrap().parse().unwrap();
        let shown = match key {
            // These are only shown, and decide nothing.
            br#""answered_at""# | br#""took""# | br#""since""# => 0,
            br#""attempts""# | br#""retries""# => number.min(9),
            // Only times are larger than that.
            _ if number > world::NOW / 2 => (number - now).max(-100 * SECOND),
            _ => number,
        };
        state.extend_from_slice(shown.to_string().as_bytes());
    }
    state
}

/// Returns a first state without problems.
fn settled() -> State {
    State::settled(Ground::Loads, Start::Works)
}

/// Returns a first state in which an administrator forbids the module and the target of the second
/// device.
fn troubled() -> State {
    State::settled(Ground::Denied, Start::Masked)
}

/// Visits all states that the model can reach with this number of disturbances.
fn explore(mut first: State, disturbances: usize, most: usize, sabotage: Sabotage) -> Explored {
    first.world.left = disturbances.try_into().unwrap();
    let mut known: HashMap<u128, (u128, Option<Move>)> = HashMap::new();
    let mut quiet: HashSet<u128> = HashSet::new();
    let mut open = VecDeque::new();
    let mut explored = Explored {
        states: 1,
        moves: 0,
        violation: None,
    };
    known.insert(first.key(), (first.key(), None));
    open.push_back(first);
    while let Some(state) = open.pop_front() {
        let here = state.key();
        let path = |last: &[Move]| {
            let mut path: Vec<Move> = last.iter().rev().copied().collect();
            let mut at = here;
            while let Some((before, Some(step))) = known.get(&at) {
                path.push(*step);
                at = *before;
            }
            path.reverse();
            path
        };
        if let Err((last, what)) = comes_to_the_right_end(&state, &mut quiet, sabotage) {
            let path = path(&last);
            explored.violation = Some(Violation { path, what });
            return explored;
        }
        let mut found = Vec::new();
        for step in state.world.moves(&state.machine) {
            explored.moves += 1;
            let (next, said) = state.after(step, sabotage);
            if let Err(what) = said {
                let path = path(&[step]);
                explored.violation = Some(Violation { path, what });
                return explored;
            }
            found.push((step, next));
        }
        for (step, next) in found {
            let key = next.key();
            if explored.states < most && !known.contains_key(&key) {
                known.insert(key, (here, Some(step)));
                explored.states += 1;
                open.push_back(next);
            }
        }
    }
    explored
}

/// Follows the undisturbed model from a state to its final state, and checks that.
fn comes_to_the_right_end(
    from: &State,
    good: &mut HashSet<u128>,
    sabotage: Sabotage,
) -> Result<(), (Vec<Move>, String)> {
    let mut state = from.clone();
    // The number of remaining disturbances makes no difference.
    state.world.left = 0;
    let mut path: Vec<Move> = Vec::new();
    let mut seen: BTreeMap<u128, usize> = BTreeMap::new();
    loop {
        let key = state.key();
        if good.contains(&key) {
            break;
        }
        let next = state.world.quiet_move(&state.machine);
        // Nothing happens, or the same state is reached again.
        if next.is_none() || seen.contains_key(&key) {
            if let Err(what) = state.world.is_the_right_end(&state.machine) {
                return Err((path, what));
            }
            break;
        }
        seen.insert(key, path.len());
        if path.len() > LONGEST_QUIET {
            return Err((path, "a quiet world does not come to its end".to_owned()));
        }
        let Some(step) = next else { break };
        path.push(step);
        let (next, said) = state.after(step, sabotage);
        if let Err(what) = said {
            return Err((path, what));
        }
        state = next;
    }
    good.extend(seen.into_keys());
    Ok(())
}

fn say(violation: &Violation) -> String {
    let path = violation.path.iter();
    let path: Vec<String> = path.map(|step| format!("  {step:?}")).collect();
    format!("{}\n{}", violation.what, path.join("\n"))
}

fn variable(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

#[test]
fn every_explored_sequence_is_reported_correctly_and_reaches_the_right_final_state() {
    let more = variable("RDMA_HOTPLUG_DISTURBANCES", 2);
    let most = variable("RDMA_HOTPLUG_STATES", 5_000);
    for (what, first, disturbances) in [
        ("empty", State::new(Sabotage::Nothing), 1),
        ("settled", settled(), 1),
        ("troubled", troubled(), 1),
        ("empty", State::new(Sabotage::Nothing), more),
        ("settled", settled(), more),
        ("troubled", troubled(), more),
    ] {
        let explored = explore(first, disturbances, most, Sabotage::Nothing);
        let all = match explored.states < most {
            true => ", all that there are",
            false => "",
        };
        println!(
            "{what} world, {disturbances} disturbances: {} states, {} moves{all}",
            explored.states, explored.moves
        );
        if let Some(violation) = explored.violation {
            panic!("{}", say(&violation));
        }
    }
}

/// Checks that the explorer finds each planted defect.
#[test]
fn every_planted_defect_is_found() {
    for sabotage in Sabotage::ALL {
        let explored = explore(troubled(), 2, 50_000, sabotage);
        let violation = explored.violation;
        let violation = violation.unwrap_or_else(|| panic!("{sabotage:?} was not found"));
        println!(
            "{sabotage:?}: found after {} states: {}",
            explored.states,
            say(&violation)
        );
    }
}

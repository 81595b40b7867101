//! Every story of a small world, in every order: two devices, two modules, their targets, a loader, a
//! service manager and a detector that answer when they please, administrators who meddle, and a
//! process that dies at any moment. Breadth-first over the states of machine and world together, so
//! that the first path to a violation is a shortest one.
//!
//! The world may be disturbed a few times; everything else happens by itself. In every state what
//! the machine says has to be borne out, and from every state, when nothing disturbs the world any
//! more, it has to come to the right end. `RDMA_HOTPLUG_DISTURBANCES` sets how many there may be.

mod sabotage;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use interfaces::journal::record::What;

use super::*;
use crate::journal::wire;
use sabotage::Sabotage;
use world::{Ground, Move, Start, World};

/// No quiet world takes longer than this to come to its end, in moves.
const LONGEST_QUIET: usize = 400;

/// A state of both, and the time that it is.
#[derive(Clone)]
struct State {
    machine: Machine,
    world: World,
    now: i64,
}

/// A violation, and the moves that lead to it from the beginning.
struct Violation {
    path: Vec<Move>,
    what: String,
}

/// What an exploration came to.
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

    /// The same when both devices are there, and this has become of the module that only the second one
    /// wants, and of its target.
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

    /// The state after a move, and what was wrong with it.
    fn after(&self, step: Move, sabotage: Sabotage) -> (Self, Result<(), String>) {
        let mut next = self.clone();
        let events = next.world.take(step);
        let said = next.tell(events, sabotage);
        (next, said)
    }

    /// Tells the machine events, and the world what the machine wants done.
    fn tell(&mut self, events: Vec<Event>, sabotage: Sabotage) -> Result<(), String> {
        for event in events {
            // As the next process reads it.
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

/// The machine's state as it is compared: times are relative to now, what is long past is long past,
/// and counts that no longer matter have their bounds.
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
            // Shown, and decides nothing.
            br#""answered_at""# | br#""took""# | br#""since""# => 0,
            br#""attempts""# | br#""retries""# => number.min(9),
            // No other number is that large.
            _ if number > world::NOW / 2 => (number - now).max(-100 * SECOND),
            _ => number,
        };
        state.extend_from_slice(shown.to_string().as_bytes());
    }
    state
}

/// A beginning in which all is well.
fn settled() -> State {
    State::settled(Ground::Loads, Start::Works)
}

/// One in which an administrator forbids what the second device needs.
fn troubled() -> State {
    State::settled(Ground::Denied, Start::Masked)
}

/// Goes through every state that the world can be brought to by this number of disturbances.
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

/// Follows the quiet world from a state to its end, and compares.
fn comes_to_the_right_end(
    from: &State,
    good: &mut HashSet<u128>,
    sabotage: Sabotage,
) -> Result<(), (Vec<Move>, String)> {
    let mut state = from.clone();
    // How often nothing is left to do makes no difference.
    state.world.left = 0;
    let mut path: Vec<Move> = Vec::new();
    let mut seen: BTreeMap<u128, usize> = BTreeMap::new();
    loop {
        let key = state.key();
        if good.contains(&key) {
            break;
        }
        let next = state.world.quiet_move(&state.machine);
        // Nothing happens any more, or the same again and again.
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
fn every_story_of_a_small_world_is_told_as_it_is_and_comes_to_the_right_end() {
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

/// The explorer finds what is broken on purpose.
#[test]
fn every_defect_that_is_planted_is_found() {
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

//! The tests of journals: a replay always makes the same decisions, and from a journal that ends at
//! any point the orchestrator continues without losing or repeating a job.

use super::*;
use crate::machine::tests::PATIENCE;
use crate::machine::tests::world::World;
use crate::machine::{Action, Event};

/// The number of random journals.
const JOURNALS: u64 = 60;
/// The number of moves in each.
const LENGTH: usize = 120;

/// Returns the first seed, which the environment may set.
fn first_seed() -> u64 {
    let seed = std::env::var("RDMA_HOTPLUG_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("RDMA_HOTPLUG_SEED={seed}");
    seed
}

/// A journal that is written to memory.
struct Writer {
    machine: Machine,
    bytes: Vec<u8>,
    /// The number of records.
    count: usize,
}

impl Writer {
    fn new() -> Self {
        let machine = Machine::new();
        let mut bytes = MAGIC.to_vec();
        let checkpoint = wire::checkpoint(&machine).unwrap();
        bytes.extend(encode(Times::default(), What::Checkpoint(checkpoint)));
        Self {
            machine,
            bytes,
            count: 1,
        }
    }

    fn tell(&mut self, world: &mut World, event: Event) {
        world.lose(&event);
        let event = world.fresh(event);
        let times = Times {
            monotonic: world.now,
            realtime: world.now,
        };
        self.bytes.extend(encode(times, wire::of_event(&event)));
        let actions = self.machine.step(event, world.now);
        self.count += 1;
        for what in actions.iter().filter_map(wire::of_action) {
            self.bytes.extend(encode(times, what));
            self.count += 1;
        }
        world.owe(&actions);
    }
}

/// Returns a random journal, and the model at its end.
fn story(seed: u64) -> (Writer, World) {
    let mut world = World::new(seed);
    let mut writer = Writer::new();
    for event in world.beginning() {
        writer.tell(&mut world, event);
    }
    for _ in 0..LENGTH {
        let events = match world.random.bool() {
            true => world.chance(),
            false => world.answer(),
        };
        for event in events {
            writer.tell(&mut world, event);
        }
    }
    (writer, world)
}

fn records(bytes: &[u8]) -> Vec<Record> {
    let reader = RecordReader::new(bytes).unwrap();
    reader.map_while(Result::ok).collect()
}

#[test]
fn a_replay_makes_the_recorded_decisions() {
    let first = first_seed();
    for seed in first..first + JOURNALS {
        let (writer, _) = story(seed);
        let steps = replay::replay(records(&writer.bytes).into_iter(), None).unwrap();
        for step in steps {
            assert_eq!(step.made, step.recorded, "seed {seed}: {:?}", step.event);
        }
    }
}

#[test]
fn a_resumed_machine_has_the_state_of_the_machine_that_wrote_the_journal() {
    let first = first_seed();
    for seed in first..first + JOURNALS {
        let (writer, _) = story(seed);
        let again = replay::resume(records(&writer.bytes).into_iter())
            .unwrap()
            .unwrap();
        let state = |machine| serde_json::to_string(machine).unwrap();
        assert_eq!(state(&again), state(&writer.machine), "seed {seed}");
    }
}

#[test]
fn a_journal_cut_off_anywhere_is_resumed_without_lost_or_repeated_jobs() {
    let first = first_seed();
    for seed in first..first + 2 {
        let whole = story(seed).0.bytes;
        let mut kept_before = 0;
        for end in MAGIC.len()..=whole.len() {
            // Each number of complete records is tested once.
            let kept = records(whole.get(..end).unwrap());
            if kept.len() == kept_before && end != whole.len() {
                continue;
            }
            kept_before = kept.len();
            go_on(seed, &kept);
        }
    }
}

/// Runs the model up to a point at which the process dies, and starts the next process with the
/// records that were kept.
fn go_on(seed: u64, kept: &[Record]) {
    let mut world = World::new(seed);
    let mut writer = Writer::new();
    let tell = |world: &mut World, writer: &mut Writer, event: Event| -> bool {
        writer.tell(world, event);
        writer.count >= kept.len()
    };
    'world: {
        for event in world.beginning() {
            if tell(&mut world, &mut writer, event) {
                break 'world;
            }
        }
        for _ in 0..LENGTH {
            let events = match world.random.bool() {
                true => world.chance(),
                false => world.answer(),
            };
            for event in events {
                if tell(&mut world, &mut writer, event) {
                    break 'world;
                }
            }
        }
    }
    world.lose(&Event::Begins(PATIENCE));
    let resumed = replay::resume(kept.iter().cloned()).unwrap();
    let mut machine = resumed.unwrap_or_default();
    for event in world.beginning() {
        let actions = machine.step(event, world.now);
        for action in &actions {
            if let Action::StartUnit { unit, .. } = action {
                assert!(
                    !world.active.contains(unit),
                    "seed {seed}: {unit} twice after {}",
                    kept.len()
                );
            }
        }
        world.owe(&actions);
    }
    // A pause may be in effect.
    let actions = machine.step(Event::Resume, world.now);
    world.owe(&actions);
    world.settle(&mut machine);
    let wanted = world.wanted();
    for unit in &wanted {
        assert!(
            world.active.contains(unit),
            "seed {seed}: {unit} lost after {}",
            kept.len()
        );
    }
    let indexes: Vec<i64> = world.devices.keys().copied().collect();
    for index in indexes {
        assert!(machine.explain(None, Some(index)).is_some());
    }
}

#[test]
fn each_random_run_settles_in_exactly_the_wanted_state() {
    let first = first_seed();
    for seed in first..first + JOURNALS {
        let (mut writer, mut world) = story(seed);
        world.settle(&mut writer.machine);
        println!("seed {seed}");
        world.assert_as_wanted(&writer.machine);
    }
}

fn times(at: i64) -> Times {
    Times {
        monotonic: at,
        realtime: at,
    }
}

#[test]
fn a_journal_with_a_torn_last_record_is_resumed_and_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, machine) = Journal::open(dir.path());
    assert!(machine.is_none());
    let mut machine = Machine::new();
    journal.begin(&machine, times(1));
    journal.append(times(2), [wire::of_event(&Event::Pause("why".to_owned()))]);
    let _ = machine.step(Event::Pause("why".to_owned()), 2);
    drop(journal);
    let path = dir.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    let torn = encode(times(3), wire::of_event(&Event::Resume));
    fs::write(&path, [&whole[..], &torn[..torn.len() - 1]].concat()).unwrap();
    let (mut journal, resumed) = Journal::open(dir.path());
    assert_eq!(resumed.unwrap().describe().paused.as_deref(), Some("why"));
    journal.append(times(4), [wire::of_event(&Event::Reconcile)]);
    assert_eq!(history(dir.path()).count(), 3);
}

#[test]
fn a_full_journal_is_rotated_and_loses_no_state() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    let mut machine = Machine::new();
    journal.begin(&machine, times(1));
    let reason = "x".repeat(64 * 1024);
    let mut rotations = 0;
    for at in 2..200 {
        let event = Event::Pause(format!("{at}{reason}"));
        journal.append(times(at), [wire::of_event(&event)]);
        let _ = machine.step(event, at);
        if journal.is_due(at) {
            journal.begin(&machine, times(at));
            rotations += 1;
        }
    }
    assert!(rotations >= 2);
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size(NAME) + size(BEFORE) < 3 * MAX_LEN);
    let (_, resumed) = Journal::open(dir.path());
    assert!(
        resumed
            .unwrap()
            .describe()
            .paused
            .unwrap()
            .starts_with("199x")
    );
}

#[test]
fn a_state_larger_than_the_journal_limit_is_not_written_for_each_event() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    let mut machine = Machine::new();
    let long = "x".repeat(usize::try_from(3 * MAX_LEN).unwrap());
    let _ = machine.step(Event::Pause(long), 1);
    journal.begin(&machine, times(1));
    let mut rotations = 0;
    for at in 2..1000 {
        journal.append(times(at), [wire::of_event(&Event::Pause("y".repeat(8192)))]);
        if journal.is_due(at) {
            journal.begin(&machine, times(at));
            rotations += 1;
        }
    }
    assert!((1..4).contains(&rotations), "{rotations}");
}

#[test]
fn a_rotation_interrupted_between_its_renames_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path());
    journal.begin(&Machine::new(), times(1));
    drop(journal);
    fs::rename(dir.path().join(NAME), dir.path().join(NEW)).unwrap();
    let (journal, machine) = Journal::open(dir.path());
    assert!(machine.is_some() && journal.is_open());
    assert!(dir.path().join(NAME).exists());
}

/// A journal of version 0.1.0, and the state at its end.
const JOURNAL_OF_0_1_0: (&str, &str) = (
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/journal-0.1.0"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/journal-0.1.0.json"),
);

/// Returns the machine's state, as clients receive it.
fn knowledge(machine: &Machine) -> String {
    let devices = (0..100).filter_map(|index| machine.explain(None, Some(index)));
    let devices: Vec<_> = devices.collect();
    let all = serde_json::json!({"all": machine.describe(), "devices": devices});
    format!("{all:#}\n")
}

/// Checks that a later version continues from this journal. A version that begins again must change
/// the test. With `REGENERATE` set the fixture is written; only an unreleased version may do that.
#[test]
fn a_journal_of_version_0_1_0_is_resumed() {
    let (path, knew) = JOURNAL_OF_0_1_0;
    if std::env::var_os("REGENERATE").is_some() {
        let mut world = World::new(1);
        let mut writer = Writer::new();
        for event in world.beginning() {
            writer.tell(&mut world, event);
        }
        for _ in 0..80 {
            for event in world.chance().into_iter().chain(world.answer()) {
                writer.tell(&mut world, event);
            }
        }
        writer.tell(&mut world, Event::Pause("firmware update".to_owned()));
        fs::write(path, &writer.bytes).unwrap();
        fs::write(knew, knowledge(&writer.machine)).unwrap();
    }
    let machine = replay::resume(records(&fs::read(path).unwrap()).into_iter());
    let machine = machine.unwrap().unwrap();
    assert_eq!(knowledge(&machine), fs::read_to_string(knew).unwrap());
    assert_eq!(
        machine.describe().paused.as_deref(),
        Some("firmware update")
    );
}

#[test]
fn the_pause_in_a_journal_of_another_version_is_kept() {
    let checkpoint = |state: &str| {
        What::Checkpoint(interfaces::journal::Checkpoint {
            version: "9.0.0".to_owned(),
            state: state.to_owned(),
        })
    };
    let later = What::Event(interfaces::journal::Event { kind: None });
    let pause = |reason: &str| wire::of_event(&Event::Pause(reason.to_owned()));
    for (records, paused) in [
        (vec![checkpoint("{\"paused\":\"a\"}")], Some("a")),
        (
            vec![checkpoint("{\"paused\":\"a\"}"), later.clone(), pause("b")],
            Some("b"),
        ),
        (
            vec![
                checkpoint("{\"paused\":\"a\"}"),
                wire::of_event(&Event::Resume),
            ],
            None,
        ),
        (vec![checkpoint("{\"paused\":null}"), later], None),
        (vec![checkpoint("not JSON"), pause("b")], Some("b")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let records = records.into_iter().flat_map(|what| encode(times(1), what));
        let bytes: Vec<u8> = MAGIC.iter().copied().chain(records).collect();
        fs::write(dir.path().join(NAME), &bytes).unwrap();
        let (mut journal, machine) = Journal::open(dir.path());
        assert!(!journal.is_open());
        let machine = machine.unwrap_or_default();
        assert_eq!(machine.describe().paused.as_deref(), paused);
        // The old journal stays readable.
        journal.begin(&machine, times(2));
        assert_eq!(fs::read(dir.path().join(BEFORE)).unwrap(), bytes);
        let (_, again) = Journal::open(dir.path());
        assert_eq!(again.unwrap().describe().paused.as_deref(), paused);
    }
}

#[test]
fn an_invalid_journal_file_is_set_aside_and_the_orchestrator_starts_without_state() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(NAME), "not a journal").unwrap();
    let (mut journal, machine) = Journal::open(dir.path());
    assert!(machine.is_none() && !journal.is_open());
    journal.begin(&Machine::new(), times(1));
    assert!(Journal::open(dir.path()).1.is_some());
    assert_eq!(fs::read(dir.path().join(BEFORE)).unwrap(), b"not a journal");
}

#[test]
fn a_journal_that_cannot_be_written_causes_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let (mut journal, machine) = Journal::open(&gone);
    assert!(machine.is_none());
    journal.begin(&Machine::new(), times(1));
    journal.append(times(2), [wire::of_event(&Event::Reconcile)]);
    assert!(!journal.is_open() && history(&gone).next().is_none());
}

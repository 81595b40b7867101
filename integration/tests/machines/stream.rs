//! A random stream of changes, a detector that receives some of the events, and a subscriber that
//! follows the detector's events. Drives the detector's own intake, and scans when its `run.rs` would. Must
//! never help the detector with information that it would not receive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use detector::intake::Intake;
use detector::netlink::Received;
use detector::pending::Pending;
use detector::uevent::Uevent;
use fastrand::Rng;
use interfaces::detector::{Action, Device, Function, SubscribeDevicesReply};
use serde_json::{Value, json};

use super::difference;
use super::host::{RandomHost, Sent};
use super::watcher::Watcher;

/// The delivery of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each event arrives once, and in order.
    Whole,
    /// Some events are lost, duplicated or out of order. Only their sequence numbers show it.
    Torn,
    /// Some events are lost, and the kernel reports it.
    Overrun,
}

/// A subscriber that follows the events.
#[derive(Default)]
struct Subscriber {
    devices: BTreeMap<i64, Device>,
    functions: BTreeMap<(String, String), Function>,
    sequence: i64,
}

impl Subscriber {
    fn follow(&mut self, event: SubscribeDevicesReply) {
        assert!(event.sequence >= self.sequence, "{event:?} is out of order");
        self.sequence = event.sequence;
        if let Some(function) = event.function {
            let key = (function.bus.clone(), function.name.clone());
            let known = match event.action {
                Action::Remove => self.functions.remove(&key),
                _ => self.functions.insert(key, function.clone()),
            };
            let new = event.action == Action::Add;
            assert_eq!(known.is_none(), new, "{:?} {function:?}", event.action);
        } else if let Some(index) = event.index {
            let known = match (event.action, event.device) {
                (Action::Remove, None) => self.devices.remove(&index),
                (_, device) => self.devices.insert(index, device.unwrap()),
            };
            let new = event.action == Action::Add;
            assert_eq!(known.is_none(), new, "{:?} of {index}", event.action);
        }
    }

    /// Returns its records, without the fields that a fresh scan cannot know.
    fn records(&self) -> Value {
        records(self.devices.values(), self.functions.values())
    }
}

fn records<'r>(
    devices: impl Iterator<Item = &'r Device>,
    functions: impl Iterator<Item = &'r Function>,
) -> Value {
    let devices = devices.map(|device| Device {
        kernel_name: None,
        ..device.clone()
    });
    let functions = functions.map(|function| Function {
        since_usec: 0,
        ..function.clone()
    });
    json!({"devices": devices.collect::<Vec<_>>(), "functions": functions.collect::<Vec<_>>()})
}

/// One run.
pub struct Stream {
    host: Arc<Mutex<RandomHost>>,
    rng: Rng,
    way: Way,
    watcher: Watcher,
    subscriber: Subscriber,
    intake: Intake,
    /// True if the detector scans only after it has received all events.
    calm: bool,
    seed: u64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if thread::panicking() {
            let story = self.host().story.join("\n  ");
            println!("{:?}:\n  {story}", self.way);
            println!("RDMA_HOTPLUG_SEED={}", self.seed);
        }
    }
}

impl Stream {
    /// Creates a stream whose changes follow from the seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let host = Arc::new(Mutex::new(RandomHost::new(rng.fork())));
        let watcher = Watcher::new(host.lock().unwrap().tree.root(), &host);
        let way = [Way::Whole, Way::Whole, Way::Torn, Way::Overrun][rng.usize(..4)];
        Self {
            host,
            way,
            watcher,
            subscriber: Subscriber::default(),
            intake: Intake::default(),
            calm: rng.bool(),
            seed,
            rng,
        }
    }

    fn host(&self) -> MutexGuard<'_, RandomHost> {
        self.host
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Alternates changes, receiving and scanning at random. Compares the records each time the
    /// detector has received all events.
    pub fn run(mut self) {
        if !self.calm {
            self.host().restless = [0, 3, 8][self.rng.usize(..3)];
        }
        if self.rng.bool() {
            self.host().crowd();
        }
        for _ in 0..self.rng.usize(1..4) {
            for _ in 0..self.rng.usize(10..40) {
                match self.rng.u8(..8) {
                    0..=3 => self.host().change(),
                    4 | 5 => self.receive_sent(),
                    scan => {
                        if self.calm {
                            self.receive_sent();
                        }
                        match scan {
                            6 => self.scan_pending(),
                            _ => self.scan_periodically(),
                        }
                    }
                }
            }
            self.settle();
        }
    }

    /// Receives the events that were sent, or the first of them.
    fn receive_sent(&mut self) {
        let most = self.host().sent.len();
        let count = match self.calm {
            true => most,
            false => self.rng.usize(..=most),
        };
        let mut sent: Vec<Sent> = self.host().sent.drain(..count).collect();
        match self.way {
            Way::Whole => {}
            Way::Torn => self.tear(&mut sent),
            Way::Overrun => {
                if !sent.is_empty() && self.rng.u8(..4) == 0 {
                    self.tell("an overrun");
                    self.intake.uevent(&Received::Overrun);
                    sent.drain(..self.rng.usize(..sent.len()));
                }
            }
        }
        for sent in sent {
            self.receive(sent.uevent());
        }
    }

    fn receive(&mut self, uevent: Uevent<'_>) {
        self.intake.uevent(&Received::Message(uevent));
    }

    fn tear(&mut self, sent: &mut Vec<Sent>) {
        for _ in 0..self.rng.usize(..3) {
            let (Some(from), Some(to)) = (self.place(sent), self.place(sent)) else {
                return;
            };
            match self.rng.u8(..3) {
                0 => {
                    sent.remove(from);
                }
                1 => sent.insert(to, sent[from].clone()),
                _ => sent.swap(from, to),
            }
        }
    }

    fn place(&mut self, sent: &[Sent]) -> Option<usize> {
        (!sent.is_empty()).then(|| self.rng.usize(..sent.len()))
    }

    fn scan_pending(&mut self) {
        if self.intake.has_pending() {
            self.scan(false);
        }
    }

    /// Makes the periodic scan, which happens if there are devices, or if the intake needs it.
    fn scan_periodically(&mut self) {
        let devices = self.watcher.devices().next().is_some();
        if devices || self.intake.needs_periodic() {
            self.scan(true);
        }
    }

    fn scan(&mut self, periodic: bool) {
        self.tell("a scan");
        let pending = self.intake.take(periodic, false);
        match self.watcher.scan(&pending) {
            Ok((scan, events)) => {
                self.intake.scanned(scan.in_motion);
                for event in events {
                    self.subscriber.follow(event);
                }
                let followed = self.subscriber.records();
                let published = records(self.watcher.devices(), self.watcher.functions());
                self.same(&published, &followed, "the events differ from the records");
            }
            Err(e) => {
                self.tell(&format!("which failed: {e}"));
                self.intake.failed(pending);
            }
        }
    }

    fn tell(&self, what: &str) {
        self.host().story.push(format!("-- {what}"));
    }

    /// Stops the changes, receives all events, makes the next scans, and compares the records.
    fn settle(&mut self) {
        let restless = std::mem::take(&mut self.host().restless);
        self.host().tick();
        while !self.host().sent.is_empty() {
            self.receive_sent();
        }
        if self.way == Way::Torn {
            // The loss of the last event shows in the sequence number of the next one.
            self.host().tick();
            let last = self.host().sent.pop_back().unwrap();
            self.receive(last.uevent());
        }
        self.scan_pending();
        self.scan_periodically();
        let mut fresh = Watcher::new(self.host().tree.root(), &self.host);
        fresh.scan(&Pending::everything()).unwrap();
        let fresh = records(fresh.devices(), fresh.functions());
        let told = self.subscriber.records();
        self.same(&fresh, &told, "a fresh scan differs");
        // Lost events, changes during a scan and reused indexes may leave a wrong kernel name.
        if self.way == Way::Whole && self.calm && !self.host().reuses_indexes() {
            self.kernel_names_are_those_of_the_registration();
        }
        self.host().restless = restless;
    }

    fn same(&self, expected: &Value, found: &Value, what: &str) {
        let lines = difference::between(expected, found);
        assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
    }

    fn kernel_names_are_those_of_the_registration(&self) {
        let host = self.host();
        let registered = host.registered();
        for (index, device) in &self.subscriber.devices {
            if let Some(name) = &device.kernel_name {
                let wrong = format!("the kernel name of {index}, {}", device.name);
                assert_eq!(Some(&name.as_str()), registered.get(index), "{wrong}");
            }
        }
    }
}

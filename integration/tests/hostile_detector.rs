//! A compromised detector against the orchestrator: records of megabytes, more devices than any
//! host has, endless changes, and names that no target can have. The orchestrator counts and names
//! the refused records. Its memory and journal stay small, and the other devices get ready.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong, and what was measured is printed"
)]

mod with_lab;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::lab::Lab;
use interfaces::client::Client;
use interfaces::log::Chain;
use interfaces::orchestrator::{DescribeReply, WaitReply};
use serde_json::{Value, json};
use with_lab::with_lab;

const DETECTOR: &str = "org.rdmahotplug.Detector";
const ORCHESTRATOR: &str = "org.rdmahotplug.Orchestrator";
/// The time after which a step counts as failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The orchestrator's limits: the number of devices, and the bytes of one record.
const MAX_DEVICES: i64 = 4096;
const MAX_RECORD: usize = 256 << 10;
/// The number of records of nearly a megabyte, the maximum size of a message.
const LARGE_RECORDS: i64 = 60;
/// The number of changes of one device, each with a text of nearly the maximum length.
const CHANGES: i64 = 400;
/// The number of devices above the limit.
const TOO_MANY: i64 = 100;

/// The maximum of the orchestrator's peak memory, in KiB: a third of `MemoryMax=`.
const MAX_MEMORY: u64 = 64 * 1024;
/// The maximum size of its files in bytes: two journals, each with a checkpoint of all that may be
/// held and the same size of records behind it.
const MAX_JOURNAL: u64 = 64 << 20;

struct Hostile {
    stream: UnixStream,
    sequence: i64,
}

impl Hostile {
    fn send(&mut self, action: &str, parameters: &Value) {
        self.sequence += 1;
        let mut whole = json!({"action": action, "sequence": self.sequence});
        let parameters = parameters.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(parameters);
        let message = json!({"parameters": whole, "continues": true});
        // The orchestrator may have closed the connection.
        let _ = self.stream.write_all(message.to_string().as_bytes());
        let _ = self.stream.write_all(b"\0");
    }

    fn device(&mut self, action: &str, index: i64, name: &str, board: &str) {
        let device = json!({
            "index": index, "name": name, "kind": "function", "inOtherNetns": false,
            "uverbs": format!("uverbs{index}"), "boardID": board, "ports": [],
        });
        let parameters = json!({"index": index, "name": name, "device": device});
        self.send(action, &parameters);
    }

    /// Sends all hostile records, and two correct devices, one at the beginning and one at the end.
    fn attack(&mut self) {
        self.device("add", 1, "good0", "");
        for index in 0..LARGE_RECORDS {
            self.device("add", 10_000 + index, "large", &"x".repeat(900_000));
        }
        for name in ["", "a/b", "a\u{1b}[31mb", "\u{9b}31m", &"n".repeat(5000)] {
            self.device("add", 20_000, name, "");
        }
        for change in 0..CHANGES {
            let text = format!("{change} {}", "y".repeat(4000));
            self.device("change", 1, "good0", &text);
        }
        for index in 2..=MAX_DEVICES + TOO_MANY {
            self.device("add", index, &format!("many{index}"), "");
        }
        self.send("ready", &json!({}));
        self.send("remove", &json!({"index": 2, "name": "many2"}));
        self.device("add", 30_000, "good1", "");
    }
}

/// Serves on the detector's socket in its place, until the test ends.
fn serve(socket: &Path) {
    fs::remove_file(socket).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                let mut call = Vec::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_until(0, &mut call).unwrap();
                let mut hostile = Hostile {
                    stream,
                    sequence: 0,
                };
                match number {
                    // A record that is longer than the maximum size of a message.
                    0 => hostile.device("add", 1, "huge", &"x".repeat(4 << 20)),
                    _ => hostile.attack(),
                }
                // The connection stays open until the peer closes it.
                let _ = reader.read_until(0, &mut call);
            });
        }
    });
}

async fn describe(lab: &Lab) -> DescribeReply {
    let mut client = Client::connect(&lab.socket(ORCHESTRATOR)).await.unwrap();
    let method = format!("{ORCHESTRATOR}.Describe");
    client.call(&method, &json!({}), TIMEOUT).await.unwrap()
}

/// Waits until a device is ready.
async fn is_ready(lab: &Lab, name: &str) {
    let mut client = Client::connect(&lab.socket(ORCHESTRATOR)).await.unwrap();
    let method = format!("{ORCHESTRATOR}.Wait");
    let arguments = json!({"name": name});
    let waited = client.call::<WaitReply>(&method, &arguments, TIMEOUT).await;
    waited.unwrap_or_else(|e| panic!("{name} does not get ready: {e}"));
}

/// cases.md K6: the orchestrator reported the devices as known and settled before the detector had
/// sent any.
#[test]
fn a_detector_that_accepts_a_connection_and_sends_nothing_does_not_count_as_connected() {
    with_lab(Vec::new(), async |lab| {
        lab.service("rdma-detector").unwrap().kill().await.unwrap();
        let socket = lab.socket(DETECTOR);
        fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let (connected, mut connections) = tokio::sync::mpsc::unbounded_channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = connected.send(stream.unwrap());
            }
        });
        let orchestrator = lab.service("rdma-orchestrator").unwrap().pid().unwrap();
        let mut held = Vec::new();
        loop {
            let stream = connections.recv().await.unwrap();
            let peer = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
            held.push(stream);
            if peer == orchestrator {
                break;
            }
        }
        let described = describe(lab).await;
        assert!(!described.detector_connected && !described.settled);
        let mut client = Client::connect(&lab.socket(ORCHESTRATOR)).await.unwrap();
        let method = format!("{ORCHESTRATOR}.Wait");
        let arguments = json!({"timeoutUSec": 10_000});
        let waited = client.call::<WaitReply>(&method, &arguments, TIMEOUT).await;
        let error = Chain(&waited.unwrap_err()).to_string();
        assert!(error.contains("WaitTimedOut"), "{error}");
    });
}

fn most_memory(pid: impl std::fmt::Display) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let size = line.and_then(|line| line.split_whitespace().nth(1));
    size.unwrap().parse().unwrap()
}

/// Case A11.
#[test]
fn records_of_a_hostile_detector_are_refused_at_bounded_cost_and_valid_devices_become_ready() {
    with_lab(Vec::new(), async |lab| {
        lab.service("rdma-detector").unwrap().kill().await.unwrap();
        serve(&lab.socket(DETECTOR));
        is_ready(lab, "good0").await;
        is_ready(lab, "good1").await;

        let described = describe(lab).await;
        let refused = described.refused_records;
        println!(
            "{refused} records refused, the last: {:?}",
            described.last_refused
        );
        assert!(refused >= LARGE_RECORDS + TOO_MANY, "{refused}");
        let last = described.last_refused.unwrap();
        assert!(last.contains(&format!("at most {MAX_DEVICES}")), "{last}");

        let orchestrator = lab.service("rdma-orchestrator").unwrap();
        let pid = orchestrator.pid().unwrap().as_raw_nonzero();
        let log = orchestrator.log();
        let memory = most_memory(pid);
        let large = format!("at most {MAX_RECORD} are accepted");
        assert!(log.contains(&large), "{log}");
        assert!(!log.contains('\u{1b}') && !log.contains('\u{9b}'), "{log}");
        println!("{memory} KiB at most");
        assert!(memory < MAX_MEMORY, "{memory} KiB");

        let kept = fs::read_dir(lab.directory().join("run/rdma-hotplug/orchestrator")).unwrap();
        let kept: u64 = kept
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        println!("{kept} bytes of journal");
        assert!(kept < MAX_JOURNAL, "{kept} bytes");
    });
}

//! Messages that no client should send, in one table for all three services. After each case the
//! service answers a ping, and has no more open files and memory than before.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod with_lab;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration::host::Hardware;
use integration::lab::Lab;
use interfaces::detector::Protocol;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Resource, Rlimit, Uid, getrlimit, prlimit, setrlimit};
use rustix::thread::set_thread_uid;
use serde_json::Value;
use with_lab::with_lab;

/// The time after which a step counts as failed.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The memory that a service may have in addition to before a case, in KiB: what an allocator
/// keeps.
const MEMORY_SLACK: u64 = 16 * 1024;

/// A service under attack.
struct Target {
    interface: &'static str,
    socket: PathBuf,
    pid: Pid,
}

fn targets(lab: &mut Lab) -> Vec<Target> {
    let services = [
        ("rdma-detector", "org.rdmahotplug.Detector"),
        ("rdma-loader", "org.rdmahotplug.Loader"),
        ("rdma-orchestrator", "org.rdmahotplug.Orchestrator"),
    ];
    services
        .into_iter()
        .map(|(service, interface)| Target {
            interface,
            socket: lab.socket(interface),
            pid: lab.service(service).unwrap().pid().unwrap(),
        })
        .collect()
}

impl Target {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Sends one message and reads one reply.
    fn ask(&self, message: &[u8]) -> Value {
        let mut stream = self.connect();
        // The service may reply and close before it has read everything.
        let _ = stream.write_all(message);
        let _ = stream.write_all(b"\0");
        read_message(&mut stream).unwrap_or_else(|| panic!("{}: no answer", self.interface))
    }

    fn ping(&self) {
        let answer = self.ask(br#"{"method":"io.systemd.service.Ping"}"#);
        assert!(answer["error"].is_null(), "{}: {answer}", self.interface);
    }

    fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Returns the resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap()
            .trim()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.pid.as_raw_nonzero().to_string())
            .join(file)
    }

    /// Fails unless the service answers and its resources are as before.
    fn is_as_before(&self, case: &str, files: usize, memory: u64) {
        self.ping();
        let deadline = Instant::now() + TIMEOUT;
        // The service sees the end of a connection a moment after this process does.
        while self.files() > files {
            assert!(
                Instant::now() < deadline,
                "{case}: {} has {} files open, not {files}",
                self.interface,
                self.files()
            );
            std::thread::yield_now();
        }
        let now = self.memory();
        assert!(
            now <= memory + MEMORY_SLACK,
            "{case}: {} has {now} KiB, before {memory} KiB",
            self.interface
        );
    }
}

/// Reads one message from a stream. Returns `None` at its end.
fn read_message(stream: &mut impl Read) -> Option<Value> {
    let mut message = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).ok()? == 1 {
        if byte == [0] {
            return Some(serde_json::from_slice(&message).unwrap());
        }
        message.push(byte[0]);
    }
    None
}

/// Raises this process's limit of open files to the hard limit, and returns it.
fn raise_own_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    usize::try_from(limit.maximum.unwrap_or(1 << 20)).unwrap()
}

fn error_of(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_default()
}

// The cases.

fn half_a_message(target: &Target) {
    let mut stream = target.connect();
    stream.write_all(br#"{"method":"io.systemd."#).unwrap();
}

fn nothing_at_all(target: &Target) {
    drop(target.connect());
}

fn ten_thousand_connections(target: &Target) {
    let most = raise_own_limit();
    assert!(most > 10_500, "this process may open only {most} files");
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..10_000 {
        held.push(target.connect());
    }
    // The last connection gets an error, or waits in the backlog behind those that get one.
    let last = held.last_mut().unwrap();
    if let Some(answer) = read_message(last) {
        assert_eq!(
            error_of(&answer),
            format!("{}.TooManyConnections", target.interface)
        );
        assert!(answer["parameters"]["limit"].is_number());
        refused += 1;
    }
    assert_eq!(refused, 1, "the ten thousandth was taken");
}

fn a_name_of_a_mebibyte(target: &Target) {
    let name = "x".repeat(1 << 20);
    let call = format!(
        r#"{{"method":"{}.List","parameters":{{"name":"{name}"}}}}"#,
        target.interface
    );
    let answer = target.ask(call.as_bytes());
    assert_eq!(
        error_of(&answer),
        format!("{}.MessageTooLong", target.interface)
    );
}

fn a_method_of_a_quarter_mebibyte(target: &Target) {
    let call = format!(r#"{{"method":"{}"}}"#, "x".repeat(250_000));
    let answer = target.ask(call.as_bytes());
    assert_eq!(error_of(&answer), "org.varlink.service.MethodNotFound");
}

fn duplicate_keys(target: &Target) {
    let call = br#"{"method":"a.B","method":"io.systemd.service.Ping"}"#;
    let answer = target.ask(call);
    assert!(answer.is_object());
}

fn deep_nesting(target: &Target) {
    for opening in ["[", "{\"x\":"] {
        let call = format!(
            r#"{{"method":"io.systemd.service.Ping","parameters":{}"#,
            opening.repeat(40_000)
        );
        let answer = target.ask(call.as_bytes());
        assert_eq!(error_of(&answer), "org.varlink.service.InvalidParameter");
    }
}

fn a_lone_surrogate(target: &Target) {
    let answer = target.ask(br#"{"method":"\ud800"}"#);
    assert_eq!(error_of(&answer), "org.varlink.service.InvalidParameter");
    let answer = target.ask(b"{\"method\":\"\xff\xfe\"}");
    assert_eq!(error_of(&answer), "org.varlink.service.InvalidParameter");
}

fn a_million_bytes_without_an_end(target: &Target) {
    let mut stream = target.connect();
    let _ = stream.write_all(&vec![b'x'; 1_000_000]);
    let _ = stream.read_to_end(&mut Vec::new());
}

fn attached_descriptors(target: &Target) {
    let null = fs::File::open("/dev/null").unwrap();
    let mut stream = target.connect();
    for _ in 0..10 {
        let fds = [null.as_fd(); 100];
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let call = b"{\"method\":\"io.systemd.service.Ping\"}\0";
        let slices = [IoSlice::new(call)];
        sendmsg(&stream, &slices, &mut control, SendFlags::NOSIGNAL).unwrap();
        assert!(read_message(&mut stream).unwrap()["error"].is_null());
    }
    // The service keeps no attached file descriptor while the connection is open.
    assert!(target.files() < 100, "{} files", target.files());
}

fn a_disconnect_in_mid_call(target: &Target) {
    for _ in 0..100 {
        let mut stream = target.connect();
        let call = match target.interface {
            "org.rdmahotplug.Loader" => {
                r#"{"method":"org.rdmahotplug.Loader.Load","parameters":{"modules":["ib_umad"]}}"#
            }
            _ => r#"{"method":"io.systemd.service.Ping"}"#,
        };
        stream.write_all(call.as_bytes()).unwrap();
        stream.write_all(b"\0").unwrap();
    }
}

fn subscribers_that_go_without_reading(target: &Target) {
    let subscribe = match target.interface {
        "org.rdmahotplug.Detector" => "SubscribeDevices",
        "org.rdmahotplug.Orchestrator" => "SubscribeStatus",
        _ => return,
    };
    let call = format!(
        "{{\"method\":\"{}.{subscribe}\",\"more\":true}}\0",
        target.interface
    );
    for unread in [0, 400_000] {
        for _ in 0..20 {
            let mut stream = target.connect();
            stream.write_all(call.as_bytes()).unwrap();
            read_message(&mut stream).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let _ = stream.write_all(&vec![b'x'; unread]);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
    }
}

fn a_wrong_uid(target: &Target) {
    let call = match target.interface {
        "org.rdmahotplug.Loader" => {
            r#"{"method":"org.rdmahotplug.Loader.Load","parameters":{"modules":["ib_umad"]}}"#
        }
        "org.rdmahotplug.Orchestrator" => r#"{"method":"org.rdmahotplug.Orchestrator.Reconcile"}"#,
        // The detector permits all other methods to all users.
        _ => r#"{"method":"io.systemd.service.SetLogLevel","parameters":{"level":7}}"#,
    };
    if !rustix::process::getuid().is_root() {
        // Only root can call as another user. The container and VM tests do this too.
        return;
    }
    for directory in target.socket.ancestors().skip(1) {
        if directory == std::env::temp_dir() {
            break;
        }
        fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&target.socket, Permissions::from_mode(0o666)).unwrap();
    let answer = std::thread::scope(|scope| {
        let nobody = Uid::from_raw(65534);
        let call = move || {
            // This changes only the current thread, which ends with the case.
            set_thread_uid(nobody).unwrap();
            target.ask(call.as_bytes())
        };
        scope.spawn(call).join().unwrap()
    });
    assert_eq!(error_of(&answer), "org.varlink.service.PermissionDenied");
}

fn no_file_is_left(target: &Target) {
    // The hard limit, which the service inherited, stays.
    let few = Rlimit {
        current: Some(20),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(Some(target.pid), Resource::Nofile, few).unwrap();
    let held: Vec<UnixStream> = (0..50).map(|_| target.connect()).collect();
    // The connections wait in the socket's backlog until the service can open files again.
    prlimit(Some(target.pid), Resource::Nofile, before).unwrap();
    for mut stream in held {
        stream
            .write_all(b"{\"method\":\"io.systemd.service.Ping\"}\0")
            .unwrap();
        assert!(read_message(&mut stream).unwrap()["error"].is_null());
    }
}

type Case = (&'static str, fn(&Target));

const CASES: [Case; 14] = [
    ("a wrong uid", a_wrong_uid),
    ("nothing at all", nothing_at_all),
    ("half a message", half_a_message),
    ("a name of a mebibyte", a_name_of_a_mebibyte),
    (
        "a method of a quarter mebibyte",
        a_method_of_a_quarter_mebibyte,
    ),
    ("duplicate keys", duplicate_keys),
    ("deep nesting", deep_nesting),
    ("a lone surrogate", a_lone_surrogate),
    (
        "a million bytes without an end",
        a_million_bytes_without_an_end,
    ),
    ("attached descriptors", attached_descriptors),
    ("a disconnect in mid-call", a_disconnect_in_mid_call),
    (
        "subscribers that go without reading",
        subscribers_that_go_without_reading,
    ),
    ("no file is left", no_file_is_left),
    ("ten thousand connections", ten_thousand_connections),
];

#[test]
fn a_service_still_replies_and_frees_its_resources_after_hostile_input() {
    with_lab(Vec::new(), async |lab| {
        let targets = targets(lab);
        // The simulated kernel needs this thread.
        let attacked = tokio::task::spawn_blocking(move || {
            for target in targets {
                // The first call covers what a service allocates on its first use.
                target.ping();
                for (name, case) in CASES {
                    let (files, memory) = (target.files(), target.memory());
                    case(&target);
                    target.is_as_before(name, files, memory);
                }
            }
        });
        attacked.await.unwrap();
    });
}

#[test]
fn a_subscriber_that_stops_reading_costs_a_thousand_others_no_event() {
    const SUBSCRIBERS: usize = 1000;
    const EVENTS: usize = 60;
    raise_own_limit();
    with_lab(Vec::new(), async |lab| {
        let target = targets(lab).remove(0);
        let (files, memory) = (target.files(), target.memory());
        let subscribe =
            b"{\"method\":\"org.rdmahotplug.Detector.SubscribeDevices\",\"more\":true}\0";
        // Each stream with the sequence number of the last event before those that it reads.
        let subscribed = |count: usize| -> Vec<(UnixStream, i64)> {
            let streams: Vec<UnixStream> = (0..count).map(|_| target.connect()).collect();
            let subscribed = streams.into_iter().map(|mut stream| {
                stream.write_all(subscribe).unwrap();
                let modules = read_message(&mut stream).unwrap();
                assert!(modules["parameters"]["modules"].is_array(), "{modules}");
                let told = read_message(&mut stream).unwrap();
                assert_eq!(told["parameters"]["action"], "ready", "{told}");
                let sequence = told["parameters"]["sequence"].as_i64().unwrap();
                (stream, sequence)
            });
            subscribed.collect()
        };
        let stalled = subscribed(1);
        let readers = subscribed(SUBSCRIBERS);
        // A record with many ports is long: a few of them fill the socket of the stalled
        // subscriber.
        let index = lab
            .kernel()
            .plug(Hardware {
                name: "wide0".to_owned(),
                driver: "mlx5_core",
                pci_address: "0000:01:00.0".to_owned(),
                ports: vec![Protocol::Roce; 100],
            })
            .unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            for (reader, mut last) in readers {
                let mut reader = BufReader::new(reader);
                let mut message = Vec::new();
                // Scans merge changes, so not each name is visible. The last one is, and no event
                // is lost or out of order.
                let end = format!("\"name\":\"wide{EVENTS}\"");
                while !String::from_utf8_lossy(&message).contains(&end) {
                    message.clear();
                    assert!(reader.read_until(0, &mut message).unwrap() > 0, "it ended");
                    let sequence = format!("\"sequence\":{}", last + 1);
                    let text = String::from_utf8_lossy(&message);
                    assert!(text.contains(&sequence), "not {sequence}: {text}");
                    last += 1;
                }
            }
        });
        for number in 1..=EVENTS {
            let name = format!("wide{number}");
            lab.kernel().rename(index, &name).unwrap();
            lab.wait_until("the new name", |world| {
                world.devices.values().any(|device| device.name == name)
            })
            .await
            .unwrap();
        }
        reading.await.unwrap();
        drop(stalled);
        target.is_as_before("a stalled subscriber", files + 2, memory);
    });
}

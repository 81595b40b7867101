//! A service under attack, as the kernel and its own replies show it. Must never attack it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration::lab::Lab;
use interfaces::client::Client;
use serde_json::{Value, json};

pub const INTERFACES: [&str; 3] = [
    "org.rdmahotplug.Detector",
    "org.rdmahotplug.Loader",
    "org.rdmahotplug.Orchestrator",
];
const SERVICES: [&str; 3] = ["rdma-detector", "rdma-loader", "rdma-orchestrator"];

/// The time in which memory is given back after an attack.
const MEMORY_BACK_IN: Duration = Duration::from_secs(60);
/// The memory that may remain in use in addition to before, in KiB.
const MEMORY_SLACK: u64 = 16 * 1024;
/// The time in which the files of a closed connection are given back.
const FILES_BACK_IN: Duration = Duration::from_secs(60);
/// The interval between two checks.
const LOOK: Duration = Duration::from_millis(20);

/// A service.
#[derive(Clone)]
pub struct Target {
    pub service: &'static str,
    pub interface: &'static str,
    pub socket: PathBuf,
    proc: PathBuf,
}

/// The resources of a service before an attack.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    files: usize,
    memory: u64,
}

impl Target {
    pub fn all(lab: &mut Lab) -> Vec<Self> {
        let pairs = SERVICES.into_iter().zip(INTERFACES);
        pairs
            .map(|(service, interface)| Self::new(lab, service, interface))
            .collect()
    }

    fn new(lab: &mut Lab, service: &'static str, interface: &'static str) -> Self {
        let socket = lab.socket(interface);
        let pid = lab.service(service).unwrap().pid().unwrap();
        Self {
            service,
            interface,
            socket,
            proc: Path::new("/proc").join(pid.as_raw_nonzero().to_string()),
        }
    }

    /// Returns the same service, which may be a new process.
    pub fn again(&self, lab: &mut Lab) -> Self {
        Self::new(lab, self.service, self.interface)
    }

    pub fn method(&self, name: &str) -> String {
        format!("{}.{name}", self.interface)
    }

    /// Returns the streaming method that all users may call, if the service has one.
    pub fn subscribe(&self) -> Option<String> {
        match self.service {
            "rdma-detector" => Some(self.method("SubscribeDevices")),
            "rdma-orchestrator" => Some(self.method("SubscribeStatus")),
            _ => None,
        }
    }

    pub fn files(&self) -> usize {
        fs::read_dir(self.proc.join("fd")).unwrap().count()
    }

    /// Reads a line of `/proc/PID/status`, in KiB.
    fn memory_of(&self, line: &str) -> u64 {
        let status = fs::read_to_string(self.proc.join("status")).unwrap();
        let found = status.lines().find_map(|found| found.strip_prefix(line));
        let number = found.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    pub fn memory(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    /// Returns the most memory since [`Self::before`], in KiB.
    pub fn most_memory(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    /// Returns the resources in use, and resets the peak of memory (`proc_pid_clear_refs(5)`).
    pub async fn before(&self) -> Before {
        self.ping().await;
        fs::write(self.proc.join("clear_refs"), "5").unwrap();
        Before {
            files: self.files(),
            memory: self.memory(),
        }
    }

    /// Fails unless files and memory are given back in time.
    pub async fn comes_back(&self, before: Before) {
        let files = || self.files() <= before.files;
        let in_time = until(FILES_BACK_IN, files).await;
        let (service, now) = (self.service, self.files());
        assert!(
            in_time,
            "{service} has {now} files open, before {}",
            before.files
        );
        let memory = || self.memory() <= before.memory + MEMORY_SLACK;
        let in_time = until(MEMORY_BACK_IN, memory).await;
        let (now, most) = (self.memory(), self.most_memory());
        let before = before.memory;
        assert!(
            in_time,
            "{service} has {now} KiB, before {before} KiB, at most {most} KiB"
        );
    }

    /// Fails unless the service replies.
    pub async fn ping(&self) {
        self.call("io.systemd.service.Ping", &json!({})).await;
    }

    /// Calls a method as root, and returns the reply.
    pub async fn call(&self, method: &str, parameters: &Value) -> Value {
        let mut client = Client::connect(&self.socket).await.unwrap();
        let answer = client.call(method, parameters, Duration::from_secs(30));
        answer
            .await
            .unwrap_or_else(|e| panic!("{}: {e:?}", self.service))
    }
}

/// Waits until the condition holds. Returns false if it does not hold before `patience` is over.
pub async fn until(patience: Duration, is: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

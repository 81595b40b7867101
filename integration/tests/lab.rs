//! The lab as a user runs it: it plays the scenario, reports its result, and leaves nothing behind
//! however it is ended.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The environment variable that each process of a run has, with the run's own value.
const MARK: &str = "RDMA_HOTPLUG_LAB_TEST";

/// A run of the lab, with its own directory for temporary files.
struct Run {
    tmp: TempDir,
}

impl Run {
    fn new() -> Self {
        Self {
            tmp: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command
            .args(arguments)
            .env("TMPDIR", self.tmp.path())
            .env(MARK, self.tmp.path());
        command
    }

    fn play(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Returns the running processes of this run. This excludes zombies: they have no environment.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.tmp.path().display());
        let entries = fs::read_dir("/proc")
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .filter(|process| {
                let environ = fs::read(process.join("environ")).unwrap_or_default();
                environ
                    .split(|&byte| byte == 0)
                    .any(|v| v == mark.as_bytes())
            })
            .map(|process| {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                format!("{} {}", process.display(), name.trim_end())
            })
            .collect()
    }

    /// Waits until no process of this run is left.
    fn until_no_process(&self) {
        for _ in 0..10_000 {
            if self.processes().is_empty() {
                return;
            }
            std::thread::yield_now();
        }
        panic!("still there: {:?}", self.processes());
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.tmp.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect()
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Reads `count` lines of the lab's output, or all of them. Their number differs between runs,
/// because simultaneous changes are reported as one.
fn read_lines(child: &mut Child, count: usize) -> BufReader<std::process::ChildStdout> {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..count {
        line.clear();
        let ended = stdout.read_line(&mut line).unwrap() == 0;
        if ended || line.contains("The services stay up") {
            break;
        }
    }
    stdout
}

/// Returns the number of lines that a whole run prints.
fn whole_run() -> usize {
    let run = Run::new();
    let output = run.play(&["--verbose"]);
    String::from_utf8(output.stdout).unwrap().lines().count()
}

#[test]
fn the_scenario_reaches_its_expected_end_state_and_leaves_nothing_behind() {
    let run = Run::new();
    let output = run.play(&[]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("Every step ended as required."), "{stdout}");
    for line in [
        "published hfi1_0 (opa)",
        "ready: mlx5_0",
        "started rdma-hw.target",
        "removed hfi1_0",
        "mlx5_0         infiniband,roce  mlx5_core  ready  7/7",
    ] {
        assert!(stdout.contains(line), "{line:?} is not in\n{stdout}");
    }
    assert!(stdout.lines().count() <= 60, "{stdout}");
    for line in stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    run.until_no_process();
    assert!(run.files().is_empty(), "{:?}", run.files());
}

#[test]
fn the_verbose_report_names_each_event() {
    let output = Run::new().play(&["--verbose"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    for line in [
        "inserted rdma_ucm",
        "add hfi1_0 (index 1): opa",
        "mlx5_0 is ready",
        "rdma-hw.target is active",
        "hfi1_0 was removed",
    ] {
        assert!(stdout.contains(line), "{line:?} is not in\n{stdout}");
    }
}

#[test]
fn the_end_state_as_json_is_the_only_text_on_standard_output() {
    let run = Run::new();
    let output = run.play(&["--json"]);
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(state["targetActive"], true);
    let devices = state["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 17);
    assert!(devices.iter().all(|device| device["state"] == "ready"));
    assert_eq!(devices[0]["name"], "mlx5_0");
}

#[test]
fn a_lab_that_is_terminated_at_any_moment_leaves_no_process_and_no_directory() {
    let lines = whole_run();
    for (at, number) in (0..lines + 2).step_by(3).enumerate() {
        let told = if at % 2 == 0 {
            Signal::TERM
        } else {
            Signal::INT
        };
        let run = Run::new();
        let mut child = run.start(&["--stay", "--verbose"]);
        let stdout = read_lines(&mut child, number);
        signal(&child, told);
        drop(stdout);
        let status = child.wait().unwrap();
        run.until_no_process();
        assert!(
            run.files().is_empty(),
            "{told:?} after {number} lines, {status}: {:?}",
            run.files()
        );
    }
}

#[test]
fn a_lab_that_is_killed_at_any_moment_leaves_no_process() {
    let lines = whole_run();
    for number in (0..lines + 2).step_by(6) {
        let run = Run::new();
        let mut child = run.start(&["--stay", "--verbose"]);
        let _stdout = read_lines(&mut child, number);
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        run.until_no_process();
    }
}

#[test]
fn the_lab_runs_in_the_given_directory_until_it_is_terminated() {
    let run = Run::new();
    let dir = run.tmp.path().join("host");
    let mut child = run.start(&["--stay", "--dir", dir.to_str().unwrap()]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("The services stay up") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended");
    }
    for interface in ["Detector", "Loader", "Orchestrator"] {
        let socket = dir.join(format!("run/rdma-hotplug/org.rdmahotplug.{interface}"));
        assert_eq!(
            product(&socket),
            format!("rdma-{}", interface.to_lowercase())
        );
    }
    signal(&child, Signal::TERM);
    assert!(child.wait().unwrap().success());
    run.until_no_process();
    assert!(run.files().is_empty(), "{:?}", run.files());
}

/// Returns the product name of the service on a socket, read with the varlink crate's client.
fn product(socket: &Path) -> String {
    let address = format!("unix:{}", socket.display());
    let connection = varlink::Connection::with_address(&address).unwrap();
    let mut client = varlink::OrgVarlinkServiceClient::new(connection);
    let info = varlink::OrgVarlinkServiceInterface::get_info(&mut client).unwrap();
    info.product.to_string()
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_unchanged() {
    let run = Run::new();
    let dir = run.tmp.path().join("home");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("thesis"), "precious").unwrap();
    let output = run.play(&["--dir", dir.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not empty"));
    assert_eq!(fs::read_to_string(dir.join("thesis")).unwrap(), "precious");
}

#[test]
fn the_next_lab_reuses_and_empties_the_directory_of_a_killed_lab() {
    let run = Run::new();
    let dir = run.tmp.path().join("host");
    fs::create_dir(&dir).unwrap();
    let arguments = ["--stay", "--verbose", "--dir", dir.to_str().unwrap()];
    let mut child = run.start(&arguments);
    let _stdout = read_lines(&mut child, 20);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    run.until_no_process();
    let output = run.play(&["--dir", dir.to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

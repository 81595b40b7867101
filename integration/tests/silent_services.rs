//! The command `rdma-hotplug` against sockets that accept and send nothing, or stop in the middle.
//! It ends in time, with a message. Cases section 6.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A time longer than the command's own deadline, and longer than any host needs to start it.
const LONGEST: Duration = Duration::from_secs(60);

/// Serves on a socket: accepts each connection, sends the replies in `replies`, and is silent from
/// then on.
fn serve(socket: &Path, replies: &'static [&'static str]) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let mut kept: Vec<UnixStream> = Vec::new();
        let mut replies = replies.iter();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Some(reply) = replies.next() {
                let mut call = [0; 4096];
                let _ = stream.read(&mut call).unwrap();
                stream.write_all(reply.as_bytes()).unwrap();
                stream.write_all(&[0]).unwrap();
            }
            kept.push(stream);
        }
    });
}

/// Starts a command against the sockets in `run`. The channel receives its output when it exits.
fn start(run: &Path, arguments: &'static [&'static str]) -> (u32, Receiver<Output>) {
    let socket = |name: &str| run.join(format!("org.rdmahotplug.{name}"));
    let child = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg0("rdma-hotplug")
        .args(arguments)
        .arg("--socket")
        .arg(socket("Orchestrator"))
        .arg("--detector")
        .arg(socket("Detector"))
        .arg("--loader")
        .arg(socket("Loader"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (ended, output) = channel();
    let pid = child.id();
    std::thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
    (pid, output)
}

/// Checks that each command ends in time, with this status and this text in its errors.
fn each_ends(run: &Path, cases: &[(&'static [&'static str], i32, &str)]) {
    let started: Vec<_> = cases.iter().map(|case| start(run, case.0)).collect();
    for ((pid, ended), (arguments, status, sentence)) in started.into_iter().zip(cases) {
        let Ok(output) = ended.recv_timeout(LONGEST) else {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            panic!("{arguments:?} does not end");
        };
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
        assert!(said.starts_with("rdma-hotplug: ") || said.starts_with("waiting for "));
    }
}

#[test]
fn every_command_ends_with_a_message_if_a_service_accepts_and_sends_nothing() {
    let run = TempDir::new().unwrap();
    for name in ["Orchestrator", "Detector", "Loader"] {
        serve(&run.path().join(format!("org.rdmahotplug.{name}")), &[]);
    }
    let orchestrator = "rdma-orchestrator.service";
    each_ends(
        run.path(),
        &[
            (&["status"], 1, orchestrator),
            (&["monitor"], 1, orchestrator),
            (&["monitor", "--devices"], 1, "rdma-detector.service"),
            (&["explain", "mlx5_0"], 1, orchestrator),
            (&["history"], 1, orchestrator),
            (&["history", "mlx5_0"], 1, orchestrator),
            (&["list-modules"], 1, orchestrator),
            (&["list-modules", "--initrd"], 1, orchestrator),
            (&["reconcile"], 1, orchestrator),
            (&["pause", "x"], 1, orchestrator),
            (&["resume"], 1, orchestrator),
            (
                &["wait", "--timeout", "2"],
                3,
                "timed out; still waiting for the orchestrator, which does not answer",
            ),
            (
                &["wait", "mlx5_0", "--timeout", "0.1"],
                3,
                "which does not answer",
            ),
        ],
    );
}

#[test]
fn a_list_that_stops_in_the_middle_ends_with_a_message() {
    let run = TempDir::new().unwrap();
    const RECORD: &str = r#"{"parameters":{"record":{"realtimeUSec":1,"monotonicUSec":1,"kind":"event","what":"x"}},"continues":true}"#;
    serve(&run.path().join("org.rdmahotplug.Orchestrator"), &[RECORD]);
    each_ends(
        run.path(),
        &[(&["history"], 1, "ListHistory: no reply within 10s")],
    );
}

#[test]
fn a_wait_prints_at_once_that_it_waits_for_the_orchestrator() {
    let run = TempDir::new().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (
            &["wait", "mlx5_0"],
            "waiting for the orchestrator (cannot connect to",
        ),
        (&["wait"], "waiting for the orchestrator (cannot connect to"),
    ];
    for (arguments, sentence) in cases {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg0("rdma-hotplug")
            .args(*arguments)
            .arg("--socket")
            .arg(run.path().join("org.rdmahotplug.Orchestrator"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stderr = child.stderr.take().unwrap();
        BufReader::new(stderr).read_line(&mut line).unwrap();
        // The command keeps waiting: a service may be started.
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.starts_with(sentence), "{line}");
    }
}

//! The certification client of the varlink project, in Python, against the server of the three
//! services. Needs python3 with the modules venv and pip, and access to the package index once: the
//! environment stays in `target/`. Must never pass without the client.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The time after which a step counts as failed.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The program of the service, which `interfaces::server` serves.
const SERVICE: &str = env!("CARGO_BIN_EXE_certification");
/// The package to install, with the hash that it must have.
const REQUIREMENTS: &str = include_str!("../certification/requirements.txt");
/// The project's tests of wrong calls, without the server that the project includes.
const WRONG_CALLS: &str = "\
import sys, unittest
from varlink.tests.test_certification import TestService as Project
class TestService(Project):
    address = sys.argv.pop()
    setUpClass = tearDownClass = classmethod(lambda cls: None)
del Project
unittest.main(argv=['certification', 'TestService.test_01', 'TestService.test_client'])
";

/// Serializes the creation of the environment.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

/// Runs a command. Panics with `sentence` if it fails.
fn run(command: &mut Command, sentence: &str) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{sentence}: {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{sentence}: {command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Returns the Python of an environment that has the client, and creates the environment if needed.
fn python() -> PathBuf {
    let _turn = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certification");
    let python = directory.join("bin/python");
    let made = directory.join("made-of");
    if fs::read_to_string(&made).is_ok_and(|of| of == REQUIREMENTS) {
        return python;
    }
    run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&directory),
        "the certification client needs python3 with the modules venv and pip (Debian: python3-venv)",
    );
    run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps"])
            .args([
                "--only-binary",
                ":all:",
                "--require-hashes",
                "--requirement",
            ])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("certification/requirements.txt")),
        "the certification client could not be installed from the Python package index",
    );
    fs::write(made, REQUIREMENTS).unwrap();
    python
}

/// The service on its own socket, until the test ends.
struct Served {
    child: Child,
    socket: PathBuf,
    _directory: TempDir,
}

impl Served {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("socket");
        let mut child = Command::new(SERVICE)
            .env("SYSTEMD_VARLINK_LISTEN", &socket)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the service has ended");
            assert!(Instant::now() < deadline, "the service does not listen");
            std::thread::yield_now();
        }
        Self {
            child,
            socket,
            _directory: directory,
        }
    }

    fn address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the project's client, which prints a final line if all steps succeeded.
fn certify(option: &str) {
    let output = run(
        Command::new(python())
            .args(["-I", "-m", "varlink.tests.test_certification", "--client"])
            .arg(option),
        "the certification client failed",
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("End: {'all_ok': True}"), "{said}");
    assert!(said.ends_with("Certification passed\n"), "{said}");
}

#[test]
fn the_certification_client_passes_over_a_listening_socket() {
    let served = Served::new();
    certify(&format!("--varlink={}", served.address()));
}

#[test]
fn the_certification_client_passes_against_a_service_that_it_starts() {
    certify(&format!("--activate={SERVICE}"));
}

#[test]
fn the_certification_client_gets_errors_for_wrong_calls() {
    let served = Served::new();
    let output = run(
        Command::new(python())
            .args(["-I", "-c", WRONG_CALLS])
            .arg(served.address()),
        "the project's own test of wrong calls failed",
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Ran 2 tests"), "{said}");
}

#[test]
fn the_interface_is_the_text_that_the_project_ships() {
    let shipped = run(
        Command::new(python()).args([
            "-I",
            "-c",
            "import os, varlink.tests, sys; sys.stdout.write(open(os.path.join(os.path.dirname(\
             varlink.tests.__file__), 'org.varlink.certification.varlink')).read())",
        ]),
        "the package has no interface file",
    );
    let ours = include_str!("../src/bin/org.varlink.certification.varlink");
    assert_eq!(String::from_utf8(shipped.stdout).unwrap(), ours);
}

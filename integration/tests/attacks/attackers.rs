//! Attackers, as processes with their own users, and the results that they report. Must never
//! outlive the test.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use integration::lab::Lab;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::target::INTERFACES;

pub const ROOT: u32 = 0;
/// Users that no file of this host names.
pub const STRANGERS: [u32; 3] = [40_001, 40_002, 40_003];

/// The results that an attacker prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "all of it is printed")]
pub struct Tally {
    pub connected: u64,
    pub held: u64,
    pub ended: u64,
    pub calls: u64,
    pub answers: u64,
    pub errors: BTreeMap<String, u64>,
    pub p99_usec: Option<u64>,
    pub max_usec: Option<u64>,
}

/// The attacker program, in a place where each user can run it.
pub struct Attackers {
    program: PathBuf,
}

/// A running attacker.
pub struct Attacker {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    what: String,
}

impl Attackers {
    /// Gives all users access to the lab's sockets and to the attacker program. This includes the
    /// loader's socket, although the installed one admits only root and one group: each server has
    /// to withstand the attacks by itself.
    pub fn let_in(lab: &Lab) -> Self {
        let program = lab.directory().join("attacker");
        fs::copy(env!("CARGO_BIN_EXE_attacker"), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        for interface in INTERFACES {
            let socket = lab.socket(interface);
            for directory in socket.ancestors().skip(1) {
                if directory == std::env::temp_dir() {
                    break;
                }
                fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
            }
            fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        }
        Self { program }
    }

    /// Starts an attacker as `uid`, and returns when it has begun.
    pub async fn start(
        &self,
        uid: u32,
        attack: &str,
        socket: &Path,
        arguments: &[&str],
    ) -> Attacker {
        let mut attacker = self.spawn(uid, attack, socket, arguments);
        attacker.begins().await;
        attacker
    }

    /// Starts an attacker as `uid`.
    pub fn spawn(&self, uid: u32, attack: &str, socket: &Path, arguments: &[&str]) -> Attacker {
        let mut command = if uid == ROOT {
            Command::new(&self.program)
        } else {
            // The service manager shares the processors between users. There is none here, so
            // without nice(1) the attackers would be measured instead of the services.
            let mut command = Command::new("nice");
            command.args(["-n", "19", "setpriv", "--clear-groups"]);
            command.arg(format!("--reuid={uid}"));
            command.arg(format!("--regid={uid}"));
            command.arg(&self.program);
            command
        };
        command.arg(attack).arg(socket).args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let what = format!("{uid}: {attack} {} {arguments:?}", socket.display());
        Attacker { child, said, what }
    }
}

impl Attacker {
    /// Waits until the attacker has begun.
    pub async fn begins(&mut self) {
        let first = self.said.next_line().await.unwrap();
        assert_eq!(first.as_deref(), Some("begun"), "{}", self.what);
    }

    /// Waits until the attacker exits, and returns its results.
    pub async fn ends(mut self) -> Tally {
        let mut line = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut line).await.unwrap();
        let status = self.child.wait().await.unwrap();
        let said = self.said.next_line().await.unwrap();
        assert!(status.success(), "{}: {status}: {said:?}", self.what);
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.what))
    }

    /// Kills the attacker before its time is over.
    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Tally {
    /// Returns the number of times that the service replied with this error of its own interface.
    pub fn refused(&self, error: &str) -> u64 {
        let suffix = format!(".{error}");
        let errors = self.errors.iter();
        let of_that = errors.filter(|(name, _)| name.ends_with(&suffix));
        of_that.map(|(_, count)| count).sum()
    }
}

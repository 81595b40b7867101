//! Attackers as processes of users of their own, and what they have seen. Must never outlive the
//! test.

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
/// Users that no file of this machine names.
pub const STRANGERS: [u32; 3] = [40_001, 40_002, 40_003];

/// What an attacker prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "all of it is printed")]
pub struct Seen {
    pub connected: u64,
    pub held: u64,
    pub ended: u64,
    pub calls: u64,
    pub answers: u64,
    pub errors: BTreeMap<String, u64>,
    pub p99_usec: Option<u64>,
    pub max_usec: Option<u64>,
}

/// The attacker's program where every user can run it.
pub struct Attackers {
    program: PathBuf,
}

/// One attacker that runs.
pub struct Attacker {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    what: String,
}

impl Attackers {
    /// Lets every user reach the lab's sockets and the attacker. All three sockets, although the
    /// installed loader's admits root and one group: each server has to hold by itself.
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

    /// Starts one as `uid`, and returns when it is under way.
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

    /// Starts one as `uid`.
    pub fn spawn(&self, uid: u32, attack: &str, socket: &Path, arguments: &[&str]) -> Attacker {
        let mut command = if uid == ROOT {
            Command::new(&self.program)
        } else {
            // The machine's processors are shared between users by the service manager; without
            // one, the attackers would be measured and not the services.
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
    /// Returns when it is under way.
    pub async fn begins(&mut self) {
        let first = self.said.next_line().await.unwrap();
        assert_eq!(first.as_deref(), Some("begun"), "{}", self.what);
    }

    /// What it has seen, when it has come to its end.
    pub async fn ends(mut self) -> Seen {
        let mut line = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut line).await.unwrap();
        let status = self.child.wait().await.unwrap();
        let said = self.said.next_line().await.unwrap();
        assert!(status.success(), "{}: {status}: {said:?}", self.what);
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.what))
    }

    /// Ends it before its time.
    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Seen {
    /// How often the service answered with this error of its own interface.
    pub fn refused(&self, error: &str) -> u64 {
        let suffix = format!(".{error}");
        let errors = self.errors.iter();
        let of_that = errors.filter(|(name, _)| name.ends_with(&suffix));
        of_that.map(|(_, count)| count).sum()
    }
}

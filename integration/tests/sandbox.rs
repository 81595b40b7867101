//! The sandboxes of the units. Their filters are those of `deploy/seccomp`, and a unit that lacks a
//! directive of the other units gives a reason. Run with `REGENERATE=1` to write the filters again.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use interfaces::sandbox::{self, Condition};
use syscalls::Sysno;

/// Each unit with a sandbox, and the file of its program's system calls.
const UNITS: [(&str, &str); 7] = [
    ("rdma-detector.service", "rdma-detector"),
    ("rdma-loader.service", "rdma-loader"),
    ("rdma-orchestrator.service", "rdma-orchestrator"),
    ("rdma-wait@.service", "rdma-hotplug"),
    ("rdma-settled.service", "rdma-hotplug"),
    ("rdma-hotplug-modules.service", "rdma-hotplug"),
    (
        "rdma-load-modules@.service.d/50-rdma-hotplug.conf",
        "rdma-hotplug",
    ),
];

/// The names of the directives that each of the units has.
const DIRECTIVES: [&str; 35] = [
    "AmbientCapabilities",
    "CapabilityBoundingSet",
    "DevicePolicy",
    "IPAddressDeny",
    "InaccessiblePaths",
    "KeyringMode",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "MemoryMax",
    "NoNewPrivileges",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "RemoveIPC",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TasksMax",
];

/// The maximum width of a line of a unit.
const WIDTH: usize = 96;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn unit_path(unit: &str) -> PathBuf {
    deploy().join("root/usr/lib/systemd/system").join(unit)
}

fn calls(program: &str) -> Vec<sandbox::Line> {
    let path = deploy().join(format!("seccomp/{program}.calls"));
    let text = fs::read_to_string(&path).unwrap();
    sandbox::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the lines of a unit's filter, made from a file of system calls.
fn filter(program: &str) -> Vec<String> {
    let names: BTreeSet<String> = calls(program).into_iter().map(|line| line.call).collect();
    let mut lines = vec!["SystemCallFilter=".to_owned()];
    for name in names {
        let last = lines.last_mut().unwrap();
        if last.len() + name.len() + 1 > WIDTH {
            lines.push(format!("SystemCallFilter={name}"));
        } else if last.ends_with('=') {
            last.push_str(&name);
        } else {
            last.push_str(&format!(" {name}"));
        }
    }
    lines
}

#[test]
fn the_filter_of_each_unit_equals_the_filter_of_its_program() {
    for (unit, program) in UNITS {
        let path = unit_path(unit);
        let text = fs::read_to_string(&path).unwrap();
        let is_filter = |line: &&str| line.starts_with("SystemCallFilter=");
        let found: Vec<&str> = text.lines().filter(is_filter).collect();
        let expected = filter(program);
        if std::env::var_os("REGENERATE").is_some() {
            let mut made: Vec<String> = Vec::new();
            for line in text.lines() {
                if !is_filter(&line) {
                    made.push(line.to_owned());
                } else if !made.iter().any(|line| is_filter(&line.as_str())) {
                    made.extend(expected.iter().cloned());
                }
            }
            fs::write(&path, made.join("\n") + "\n").unwrap();
            continue;
        }
        assert_eq!(found, expected, "{unit}");
    }
}

#[test]
fn each_line_of_a_filter_names_a_system_call_and_gives_a_reason() {
    for program in [
        "rdma-detector",
        "rdma-loader",
        "rdma-orchestrator",
        "rdma-hotplug",
    ] {
        let mut seen = BTreeSet::new();
        for line in calls(program) {
            // Each listed call exists on this architecture. Calls of others cannot run here.
            assert!(
                Sysno::from_str(&line.call).is_ok(),
                "{program}: {}",
                line.call
            );
            for part in line.parts {
                let condition = format!("{:?}", line.condition);
                let key = (part, line.call.clone(), condition);
                assert!(seen.insert(key), "{program}: {} twice", line.call);
            }
        }
    }
}

/// Checks for system calls that bypass Landlock, run a program, or read another process.
#[test]
fn the_system_calls_that_a_service_keeps_cannot_run_a_program_or_bypass_landlock() {
    const NEVER: [&str; 14] = [
        "execve",
        "execveat",
        "fork",
        "vfork",
        "open_by_handle_at",
        "name_to_handle_at",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "io_uring_setup",
        "bpf",
        "mount",
        "init_module",
        "delete_module",
    ];
    for program in ["rdma-detector", "rdma-loader", "rdma-orchestrator"] {
        for line in calls(program) {
            let kept = line.parts.iter().any(|part| part != "start");
            assert!(
                !kept || !NEVER.contains(&line.call.as_str()),
                "{program}: {}",
                line.call
            );
            let by_argument = [
                "socket",
                "mmap",
                "mprotect",
                "prctl",
                "ioctl",
                "clone",
                "finit_module",
            ];
            let open = line.condition == Condition::Always;
            assert!(
                !kept || !open || !by_argument.contains(&line.call.as_str()),
                "{program}: {} whatever its arguments",
                line.call
            );
        }
    }
}

#[test]
fn every_unit_has_each_sandbox_directive_or_a_comment_about_its_absence() {
    for (unit, _) in UNITS {
        let text = fs::read_to_string(unit_path(unit)).unwrap();
        for directive in DIRECTIVES {
            let has = |line: &str| line.starts_with(&format!("{directive}="));
            let says = |line: &str| line.starts_with('#') && line.contains(directive);
            assert!(
                text.lines().any(|line| has(line) || says(line)),
                "{unit} has neither {directive}= nor a comment that says why"
            );
        }
    }
}

//! A stand-in for a compromised service: `taken-over SERVICE` runs in its unit in the place of the
//! service's program. It restricts itself as the program does, and then tries what an attacker
//! would. It writes one line for each attempt, `NAME: done` or `NAME: refused: WHY`. Responsible
//! for holding everything that the program would hold at that time. Must never judge, or be
//! installed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use clap::{Parser, ValueEnum};
use interfaces::activation::Inherited;
use interfaces::sandbox::{restrict_files, restrict_system_calls};
use loader::capabilities;
use loader::config::Config;
use loader::readable::Readable;
use loader::sandbox::Process;
use rustix::io::Errno;
use rustix::process::{Pid, Uid, test_kill_process};
use rustix::system::{delete_module, finit_module, sethostname};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_uid};

/// The targets that links in the orchestrator's directories may have (`orchestrator/src/run.rs`).
const LINKED: [&str; 3] = ["/etc", "/usr", "/dev/null"];

#[derive(Clone, Copy, Parser)]
struct Arguments {
    /// Whose place it takes.
    service: Service,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Detector,
    /// The loader's process that callers reach.
    Loader,
    /// The loader's process that inserts modules.
    Inserter,
    Orchestrator,
}

/// Restricts this process, in the order in which the service's program does.
fn restrict(service: Service) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::parse_from(["rdma-loader"]);
    match service {
        Service::Detector => {
            restrict_files([Path::new("/sys")], [])?;
            let calls = include_str!("../../../deploy/seccomp/rdma-detector.calls");
            restrict_system_calls(calls, "serve")?;
        }
        Service::Loader => {
            let readable = Readable::new(&config);
            capabilities::keep(CapabilitySet::DAC_READ_SEARCH)?;
            loader::sandbox::restrict_files(readable.serving.paths())?;
            loader::sandbox::restrict_system_calls(Process::Serving)?;
        }
        Service::Inserter => {
            let readable = Readable::new(&config);
            let kept = CapabilitySet::SYS_MODULE | CapabilitySet::DAC_READ_SEARCH;
            capabilities::keep(kept)?;
            loader::sandbox::restrict_files(readable.inserting.paths())?;
            loader::sandbox::restrict_system_calls(Process::Inserting)?;
        }
        Service::Orchestrator => {
            let rules = [
                "/etc/rdma-hotplug",
                "/usr/lib/rdma-hotplug",
                "/etc/rdma/modules",
            ];
            let readable = rules.iter().chain(&LINKED).map(Path::new);
            let written = Path::new("/run/rdma-hotplug/orchestrator");
            restrict_files(readable.filter(|path| path.exists()), [written])?;
            let calls = include_str!("../../../deploy/seccomp/rdma-orchestrator.calls");
            restrict_system_calls(calls, "serve")?;
        }
    }
    Ok(())
}

fn write(path: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map(drop)
}

fn every_capability() -> io::Result<()> {
    let all = CapabilitySet::all();
    let sets = CapabilitySets {
        effective: all,
        permitted: all,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

fn init() -> Result<Pid, Errno> {
    Pid::from_raw(1).ok_or(Errno::INVAL)
}

/// Makes the attempts and returns their outcomes by name. `null` was opened before the
/// restrictions.
fn attempts(null: &File) -> Vec<(&'static str, io::Result<()>)> {
    vec![
        // The loader needs this directory for its work; the other two services do not.
        ("read-modprobe.d", fs::read_dir("/etc/modprobe.d").map(drop)),
        ("read-secret", fs::read("/etc/secret").map(drop)),
        ("list-root", fs::read_dir("/root").map(drop)),
        ("read-environment", fs::read("/proc/1/environ").map(drop)),
        ("write-configuration", write("/etc/modprobe.d/pwned.conf")),
        (
            "write-program",
            write("/usr/libexec/rdma-hotplug/rdma-loader"),
        ),
        ("write-runtime", write("/run/pwned")),
        ("write-sysfs", write("/sys/kernel/uevent_helper")),
        ("remove", fs::remove_file("/etc/hostname")),
        (
            "run-program",
            Command::new("/usr/bin/true").status().map(drop),
        ),
        ("internet", UdpSocket::bind("127.0.0.1:0").map(drop)),
        (
            "service-manager",
            UnixStream::connect("/run/systemd/private").map(drop),
        ),
        ("become-root", set_thread_uid(Uid::ROOT).map_err(Into::into)),
        ("every-capability", every_capability()),
        (
            "signal-init",
            init().and_then(test_kill_process).map_err(Into::into),
        ),
        (
            "force-module",
            finit_module(null, c"", 2).map_err(Into::into),
        ),
        (
            "insert-module",
            finit_module(null, c"", 0).map_err(Into::into),
        ),
        (
            "remove-module",
            delete_module(c"dummy", 0).map_err(Into::into),
        ),
        ("host-name", sethostname(b"pwned").map_err(Into::into)),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { service } = Arguments::parse();
    // Taken as the program takes it: an attacker would have the passed descriptors, too.
    let _inherited = Inherited::from_environment()?;
    let null = File::open("/dev/null")?;
    let mut out = io::stdout();
    restrict(service)?;
    for (name, outcome) in attempts(&null) {
        match outcome {
            Ok(()) => writeln!(out, "{name}: done")?,
            Err(e) => writeln!(out, "{name}: refused: {e}")?,
        }
    }
    Ok(())
}

//! The program `deploy`: `stage DESTDIR` lays out the files of rdma-hotplug below a directory, as
//! they are installed. Must never touch anything outside that directory, or start or enable
//! anything: units are enabled by links among the files.

mod programs;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Lays out the files of rdma-hotplug as they are installed.
#[derive(Debug, Parser)]
#[command(name = "deploy", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lay programs, units, users and rules out below DESTDIR.
    ///
    /// A tree with DESTDIR laid over it works at its next boot, once systemd-sysusers has made
    /// the users.
    Stage {
        /// Where; made when it does not exist.
        destdir: PathBuf,
        /// Take the programs from this directory instead of building them.
        #[arg(long, value_name = "DIR")]
        programs: Option<PathBuf>,
    },
}

#[expect(clippy::print_stderr, reason = "saying why it failed")]
fn main() -> ExitCode {
    let Command::Stage { destdir, programs } = Arguments::parse().command;
    let staged = programs
        .map_or_else(programs::build, |dir| Ok(programs::in_directory(&dir)))
        .map_err(|e| e.to_string())
        .and_then(|programs| stage::stage(&destdir, &programs).map_err(|e| e.to_string()));
    match staged {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("deploy: {message}");
            ExitCode::FAILURE
        }
    }
}

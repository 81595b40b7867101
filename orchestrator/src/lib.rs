//! The orchestrator: turns RDMA device events into module loads and systemd units, and says
//! what was done, why, and what is still missing.
//!
//! Responsible for what each device should have and for having it done by others. Must never
//! touch a device or a module itself, hold one device's work back for another's, or wait for a
//! job that is ordered after itself.
//!
//! In reading order:
//! - [`rules`]: which modules and roles a device should have (pure).
//! - [`targets`]: the names of the targets that stand for a device (pure).
//! - [`bounds`]: how much of the detector's records is taken (pure).
//! - [`machine`]: events in, actions out (pure).
//! - [`journal`]: what happened and what was decided, on disk; its replay is pure.
//! - [`board`]: the status of every device, as subscribers see it (pure).
//! - [`peers`]: the detector and the loader, over varlink.
//! - [`barrier`]: where a wait begins: the detector looks once more.
//! - [`policy`]: what the loader says of modules, for everyone.
//! - [`drivers`]: what it says of the drivers of functions.
//! - [`mounts`]: file systems that are mounted over modules and rules.
//! - [`jobs`], [`bus`]: what PID 1 is asked for, by flag files and over the bus.
//! - [`run`]: the loop that carries actions out.
//! - [`server`]: the varlink methods.
//! - [`command`]: what the command `rdma-hotplug` prints (pure).
//! - [`config`]: the command line.

#![forbid(unsafe_code)]

pub mod barrier;
pub mod board;
pub mod bounds;
pub mod bus;
pub mod command;
pub mod config;
pub mod drivers;
pub mod jobs;
pub mod journal;
pub mod machine;
pub mod mounts;
pub mod peers;
pub mod policy;
pub mod rules;
pub mod run;
pub mod server;
pub mod targets;

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// The exit status that has the service manager start the program again: `EX_TEMPFAIL` of
/// `sysexits.h`. The unit names it.
const START_AGAIN: u8 = 75;

/// Runs the program with the arguments and descriptors of this process.
#[must_use]
pub fn main() -> ExitCode {
    let config = config::Config::parse();
    interfaces::log::init(LevelFilter::INFO);
    match run::main(&config) {
        Ok(run::End::Stopped) => ExitCode::SUCCESS,
        Ok(run::End::Outdated) => {
            tracing::info!("other file systems are mounted over the rules: starting again");
            ExitCode::from(START_AGAIN)
        }
        Err(e) => {
            tracing::error!("{}", interfaces::log::Chain(&e));
            ExitCode::FAILURE
        }
    }
}

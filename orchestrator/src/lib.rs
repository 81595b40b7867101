//! The orchestrator. It turns RDMA device events into module loads and systemd units, and reports
//! its actions, their reasons, and what is missing.
//!
//! Responsible for deciding which modules and targets each device needs, and for requesting them
//! from the loader and the service manager. Must never touch a device or a module itself, delay the
//! work for one device because of another, or wait for a job that is ordered after this service.
//!
//! In reading order:
//! - [`rules`]: the modules and roles that a device should have (pure).
//! - [`targets`]: the names of the targets that stand for a device (pure).
//! - [`bounds`]: the limits on the detector's records (pure).
//! - [`machine`]: events in, actions out (pure).
//! - [`journal`]: the record of events and decisions on disk; its replay is pure.
//! - [`status_table`]: the status table, as subscribers see it (pure).
//! - [`published`]: the published state. [`wait`]: the conditions of a wait (pure).
//! - [`inbox`]: the messages to the decision loop.
//! - [`sources`]: the rules files on disk.
//! - [`peers`]: the detector and the loader, over varlink.
//! - [`barrier`]: the barrier at the start of a wait: a new scan by the detector.
//! - [`policy`]: the loader's plans and policy, for all users.
//! - [`drivers`]: the exclusions of drivers of functions, as the loader reports them.
//! - [`mounts`]: file systems that are mounted over modules and rules.
//! - [`flags`], [`bus`]: requests to PID 1, through flag files and over the bus.
//! - [`run`]: the decision loop, and the executor of its actions.
//! - [`server`]: the varlink methods.
//! - [`command`]: the command `rdma-hotplug`; the files that make its texts are pure.
//! - [`config`]: the command line.

#![forbid(unsafe_code)]

pub mod barrier;
pub mod bounds;
pub mod bus;
pub mod command;
pub mod config;
pub mod drivers;
pub mod flags;
pub mod inbox;
pub mod journal;
pub mod machine;
pub mod mounts;
pub mod peers;
pub mod policy;
pub mod published;
pub mod rules;
pub mod run;
pub mod server;
pub mod sources;
pub mod status_table;
pub mod targets;
pub mod wait;

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// The exit status that makes the service manager start the program again: `EX_TEMPFAIL` of
/// `sysexits.h`. The unit file lists it.
const START_AGAIN: u8 = 75;

/// Runs the program with the arguments and descriptors of this process.
#[must_use]
pub fn main() -> ExitCode {
    let config = config::Config::parse();
    interfaces::log::init(LevelFilter::INFO);
    match run::main(&config) {
        Ok(run::End::Stopped) => ExitCode::SUCCESS,
        Ok(run::End::Outdated) => {
            tracing::info!("file systems were mounted over the rules: restarting");
            ExitCode::from(START_AGAIN)
        }
        Err(e) => {
            tracing::error!("{}", interfaces::log::Chain(&e));
            ExitCode::FAILURE
        }
    }
}

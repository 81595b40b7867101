//! The detector: publishes the RDMA devices of this machine as the kernel knows them.
//!
//! Responsible for listening to the kernel (uevents, sysfs, `NETLINK_RDMA`) and for one record
//! a device that is right again soon after anything was lost. Must never load, start or decide
//! anything, and must never open a `NETLINK_RDMA` socket before `ib_core` is there: opening
//! one makes the kernel load it.
//!
//! In reading order:
//! - [`uevent`], [`nldev`]: what the kernel says, decoded (pure).
//! - [`pending`], [`pace`], [`barrier`]: what to look at because of it, when, and who waits for that (pure).
//! - [`refusal`]: records that cannot be used (pure).
//! - [`reading`]: one device being read, and how far that has come (pure).
//! - [`node`], [`device`], [`function`]: the records, put together (pure).
//! - [`inventory`]: all records, and what changed between two looks (pure).
//! - [`netlink`], [`sysfs`]: where the kernel is asked.
//! - [`look`]: one look, at what may be different.
//! - [`run`]: the loop: listen, look, publish.
//! - [`memory`]: what is done when a storm is over.
//! - [`server`]: the varlink methods.
//! - [`config`]: the command line.

pub mod barrier;
pub mod config;
pub mod device;
pub mod function;
pub mod inventory;
pub mod look;
pub mod memory;
pub mod netlink;
pub mod nldev;
pub mod node;
pub mod pace;
pub mod pending;
pub mod reading;
pub mod refusal;
pub mod run;
pub mod server;
pub mod sysfs;
pub mod uevent;

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// Runs the program with the arguments and descriptors of this process.
#[must_use]
pub fn main() -> ExitCode {
    let config = config::Config::parse();
    interfaces::log::init(LevelFilter::INFO);
    match run::main(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{}", interfaces::log::Chain(&e));
            ExitCode::FAILURE
        }
    }
}

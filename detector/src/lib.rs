//! The detector: publishes the RDMA devices of this host as the kernel knows them.
//!
//! Responsible for listening to the kernel (uevents, sysfs, `NETLINK_RDMA`), and for one record per
//! device that is correct again soon after events were lost. Must never load, start or decide
//! anything, and must never open a `NETLINK_RDMA` socket before `ib_core` is there: opening one
//! makes the kernel load it.
//!
//! In reading order:
//! - [`uevent`], [`nldev`]: the decoders of the kernel's messages (pure).
//! - [`pending`], [`intake`]: the objects to scan, as the kernel's messages name them (pure).
//! - [`interval`]: the time of the next scan (pure). [`barrier`]: the callers that wait for it.
//! - [`refusal`]: unusable records (pure).
//! - [`reading`]: the progress of reading one device (pure).
//! - [`node`], [`device`], [`function`]: the assembly of the records (pure).
//! - [`inventory`]: all records, and the changes between two scans (pure).
//! - [`netlink`], [`sysfs`]: the access to the kernel.
//! - [`scan`]: one scan of the objects that may have changed.
//! - [`run`]: the event loop: listen, scan, publish.
//! - [`trim`]: the release of memory after a storm.
//! - [`server`]: the varlink methods.
//! - [`config`]: the command line.

pub mod barrier;
pub mod config;
pub mod device;
pub mod function;
pub mod intake;
pub mod interval;
pub mod inventory;
pub mod netlink;
pub mod nldev;
pub mod node;
pub mod pending;
pub mod reading;
pub mod refusal;
pub mod run;
pub mod scan;
pub mod server;
pub mod sysfs;
pub mod trim;
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

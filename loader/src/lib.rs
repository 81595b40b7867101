//! The loader: inserts the kernel modules that its own policy names, each with what it depends
//! on, for root and for the orchestrator.
//!
//! Responsible for one typed answer for each module that is asked for. Must never take a path,
//! an option or a command from a caller, run a program, or load what no file of its policy
//! names, dependencies of what is named excepted.
//!
//! In reading order:
//! - [`index`], [`alias`]: depmod's index files and the patterns in them (pure).
//! - [`plan`]: which files to insert for a name, in which order (pure).
//! - [`policy`]: what may be loaded (pure).
//! - [`module_dir`]: the module tree of the running kernel.
//! - [`kernel`]: what the kernel has and how it is given a module.
//! - [`load`]: one request from name to answer.
//! - [`run`]: start-up, and the threads that loads run on.
//! - [`server`]: the varlink methods.
//! - [`config`]: the command line.

#![forbid(unsafe_code)]

pub mod alias;
pub mod config;
pub mod index;
pub mod kernel;
pub mod load;
pub mod module_dir;
pub mod plan;
pub mod policy;
pub mod run;
pub mod server;

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// Runs the program with the arguments and descriptors of this process, giving modules to
/// `kernel`.
#[must_use]
pub fn main(kernel: impl kernel::Kernel) -> ExitCode {
    let config = config::Config::parse();
    interfaces::log::init(LevelFilter::INFO);
    match run::main(&config, kernel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{}", interfaces::log::Chain(&e));
            ExitCode::FAILURE
        }
    }
}

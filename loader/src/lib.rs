//! The loader: inserts the kernel modules that its own policy names, each with what it depends
//! on, for root and for the orchestrator.
//!
//! Responsible for one typed answer for each module that is asked for. Must never take a path,
//! an option or a command from a caller, run a program, or load what no file of its policy
//! names, dependencies of what is named excepted.
//!
//! In reading order:
//! - [`index`], [`alias`]: depmod's index files and the patterns in them (pure).
//! - [`command_line`], [`modprobe_d`]: what the boot loader and the administrator say (pure).
//! - [`plan`]: what to insert for a name, in which order, as modprobe would (pure).
//! - [`policy`], [`verdict`]: what may be loaded, and what is to become of a name (pure).
//! - [`schedule`]: what to load next (pure).
//! - [`snapshot`], [`module_dir`], [`image`]: what is on disk.
//! - [`kernel`]: what the kernel has and how it is given a module.
//! - [`fork`]: the split into the process that serves and the one that inserts.
//! - [`message`], [`link`]: what the two tell each other (the first is pure), and over what.
//! - [`insert`], [`inserter`]: one module, and the process that inserts modules.
//! - [`questions`]: what waits for the thread that plans.
//! - [`load`]: a request from names to answers.
//! - [`explain`]: what would become of a name, in words (pure).
//! - [`readable`], [`capabilities`], [`sandbox`]: what each process keeps, and takes from itself.
//! - [`run`]: start-up of the serving process, and its threads.
//! - [`server`]: the varlink methods.
//! - [`offline`]: plans for a system that is not running.
//! - [`config`]: the command line.

pub mod alias;
pub mod capabilities;
pub mod command_line;
pub mod config;
pub mod explain;
pub mod fork;
pub mod image;
pub mod index;
pub mod insert;
pub mod inserter;
pub mod kernel;
pub mod link;
pub mod load;
pub mod message;
pub mod modprobe_d;
pub mod module_dir;
pub mod offline;
pub mod plan;
pub mod policy;
pub mod questions;
pub mod readable;
pub mod run;
pub mod sandbox;
pub mod schedule;
pub mod server;
pub mod snapshot;
pub mod verdict;

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// Runs the program with the arguments and descriptors of this process, giving modules to
/// `kernel`. Call it before the process has a second thread: it becomes two processes, of which
/// each returns.
#[must_use]
pub fn main(kernel: impl kernel::Kernel) -> ExitCode {
    let config = config::Config::parse();
    if let Some(config::Command::Plan(plan)) = &config.command {
        interfaces::log::init(LevelFilter::WARN);
        return exit_code(offline::main(plan, &run::running_release()));
    }
    // Once for both.
    let readable = readable::Readable::new(&config);
    // Before the log, which opens a socket: each process has its own.
    let side = fork::fork();
    interfaces::log::init(LevelFilter::INFO);
    let ended = match side {
        Ok(fork::Side::Serving(socket)) => run::main(&config, readable, link::Link::new(socket)),
        Ok(fork::Side::Inserting(socket)) => {
            inserter::main(&config, &readable, link::Link::new(socket), kernel)
        }
        Err(e) => Err(run::Error::Fork(e)),
    };
    exit_code(ended.map(|()| ExitCode::SUCCESS))
}

fn exit_code<E: std::error::Error>(outcome: Result<ExitCode, E>) -> ExitCode {
    outcome.unwrap_or_else(|e| {
        tracing::error!("{}", interfaces::log::Chain(&e));
        ExitCode::FAILURE
    })
}

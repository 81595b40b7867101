//! The loader: inserts the kernel modules that its own policy names, each with its dependencies,
//! for root and for the orchestrator.
//!
//! Responsible for one typed result for each requested module. Must never accept a path, an option
//! or a command from a caller, run a program, or load a module that no file of its policy names,
//! except the dependencies of named modules.
//!
//! In reading order:
//! - [`index`], [`alias`]: depmod's index files and the patterns in them (pure).
//! - [`command_line`], [`modprobe_d`]: the settings of the boot loader and the administrator
//!   (pure).
//! - [`plan`]: the modules to insert for a name, in the order of modprobe (pure).
//! - [`policy`], [`verdict`]: the modules that may be loaded, and the decision on a name (pure).
//! - [`schedule`]: the next module to load (pure).
//! - [`snapshot`], [`module_dir`], [`image`]: the files on disk.
//! - [`kernel`]: the modules in the kernel, and the system call that inserts one.
//! - [`fork`]: the split into the process that serves and the one that inserts.
//! - [`message`], [`link`]: the messages between the two (pure), and the socket for them.
//! - [`insert`], [`inserter`]: the insertion of one module, and the process that inserts modules.
//! - [`queue`]: the queue of the planning thread.
//! - [`load`]: a request, from names to results.
//! - [`explain`]: the predicted result for a name, as text (pure).
//! - [`readable`], [`capabilities`], [`sandbox`]: the files and privileges that each process keeps.
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
pub mod queue;
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

/// Runs the program with the arguments and descriptors of this process, and inserts modules into
/// `kernel`. Call it before the process has a second thread: it forks, and returns in both
/// processes.
#[must_use]
pub fn main(kernel: impl kernel::Kernel) -> ExitCode {
    let config = config::Config::parse();
    if let Some(config::Command::Plan(plan)) = &config.command {
        interfaces::log::init(LevelFilter::WARN);
        return exit_code(offline::main(plan, &run::running_release()));
    }
    // Computed once for both processes.
    let readable = readable::Readable::new(&config);
    // Before the log, which opens a socket: each process needs its own.
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

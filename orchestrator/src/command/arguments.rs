//! The command line of `rdma-hotplug`. Must never read anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use interfaces::orchestrator::Condition;

/// Says what rdma-hotplug did for this machine's RDMA devices, why, and what is missing.
#[derive(Debug, Parser)]
#[command(
    name = "rdma-hotplug",
    version,
    max_term_width = 80,
    after_help = "Exit status: 0 the question was answered, 1 it could not be, 2 wrong usage,\n\
                  3 not in time, 4 nothing is called so, 5 not permitted."
)]
pub struct Arguments {
    /// The orchestrator's socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/rdma-hotplug/org.rdmahotplug.Orchestrator"
    )]
    pub socket: PathBuf,
    /// The loader's socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/rdma-hotplug/org.rdmahotplug.Loader"
    )]
    pub loader: PathBuf,
    /// The detector's socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/rdma-hotplug/org.rdmahotplug.Detector"
    )]
    pub detector: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; by default show the status.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show each RDMA device, how far it has come, and what is missing.
    Status,
    /// Show changes as they happen, until interrupted.
    #[command(after_help = "Example: rdma-hotplug monitor --json | jq .device.name")]
    Monitor {
        /// Follow the detector's records in the place of the orchestrator's status.
        #[arg(long)]
        devices: bool,
    },
    /// Say why a device is as it is, or why a module was loaded or was not.
    #[command(
        after_help = "Examples:\n  rdma-hotplug explain mlx5_0\n  rdma-hotplug explain ib_umad"
    )]
    Explain {
        /// A device, a function without one, or a kernel module.
        name: String,
    },
    /// Wait for a device, or without one until everything is settled.
    #[command(after_help = "Examples:\n  rdma-hotplug wait\n  \
        rdma-hotplug wait mlx5_0 --timeout 60\n  \
        rdma-hotplug wait mlx5_0 --condition verbs --condition netdev")]
    Wait(Wait),
    /// Show what happened and what was decided.
    #[command(after_help = "Example: rdma-hotplug history mlx5_0 --limit 20")]
    History {
        /// Only what is about this device, which has to be there.
        device: Option<String>,
        /// Only the last so many records.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Decide again what a journal tells, and show it beside what was decided then.
    #[command(after_help = "Example: rdma-hotplug replay \
        /run/rdma-hotplug/orchestrator/journal --rules ./rules.d")]
    Replay {
        /// The journal.
        file: PathBuf,
        /// Decide by the rules in this directory, and not by those of the time. Repeatable, in
        /// the order of precedence.
        #[arg(long = "rules", value_name = "DIR")]
        rules: Vec<PathBuf>,
        /// With --rules: where rdma-core's lists of modules are.
        #[arg(long, value_name = "DIR", default_value = crate::config::LISTS)]
        lists: PathBuf,
    },
    /// Check files of rules.
    Rules {
        /// What to do with them.
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Have the modules of one of rdma-core's lists loaded. Only for root.
    #[command(after_help = "Example: rdma-hotplug load infiniband")]
    Load {
        /// The list: a file of /etc/rdma/modules without its suffix .conf.
        list: String,
        /// Where the lists are.
        #[arg(long, value_name = "DIR", default_value = crate::config::LISTS)]
        lists: PathBuf,
    },
    /// Compare what is wanted with what is, and ask for everything again. Only for root.
    Reconcile {
        /// Only ask again for modules that this kernel did not have, or that failed.
        #[arg(long)]
        missing: bool,
    },
    /// Load and start nothing until 'resume', for maintenance. Only for root.
    #[command(after_help = "Example: rdma-hotplug pause firmware update")]
    Pause {
        /// Why, for everybody who asks.
        #[arg(required = true)]
        reason: Vec<String>,
    },
    /// End a pause and catch up. Only for root.
    Resume,
    /// List the kernel modules that this machine's RDMA devices need, a line each.
    ListModules {
        /// With their drivers and everything that they depend on, as an initrd has to have them.
        #[arg(long)]
        initrd: bool,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What to do with files of rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Say what rules mean, what they select on this machine, and what is wrong with them.
    ///
    /// Works without the services, and says what it cannot find out then. Exit status 1 when a
    /// file is invalid.
    #[command(after_help = "Examples:\n  rdma-hotplug rules check\n  \
        rdma-hotplug rules check ./60-storage.toml")]
    Check {
        /// The files; by default those that the orchestrator uses. Repeatable.
        #[arg(value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Without FILES: the directories to read, in the order of their precedence. Repeatable.
        #[arg(
            long = "rules",
            value_name = "DIR",
            conflicts_with = "files",
            default_values = crate::config::RULES,
            value_hint = ValueHint::DirPath
        )]
        rules: Vec<PathBuf>,
        /// Where rdma-core's lists of modules are.
        #[arg(long, value_name = "DIR", default_value = crate::config::LISTS)]
        lists: PathBuf,
    },
}

/// What to wait for.
#[derive(Debug, Args)]
pub struct Wait {
    /// The device, whether or not it is there yet.
    pub device: Option<String>,
    /// What has to be true of it; by default ready. Repeatable.
    #[arg(
        long = "condition",
        value_name = "CONDITION",
        value_enum,
        requires = "device"
    )]
    pub conditions: Vec<WaitCondition>,
    /// How long at most, in seconds; without an end by default.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// For units: say READY when it is so, and stay until the device is gone.
    #[arg(long, requires = "device", conflicts_with = "timeout")]
    pub notify: bool,
}

/// A condition to wait for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WaitCondition {
    /// the kernel has registered it
    Registered,
    /// its modules are live
    Modules,
    /// its node for verbs is there
    Verbs,
    /// its nodes for management datagrams are there
    Umad,
    /// the connection manager is there
    Cm,
    /// its network interfaces are there
    Netdev,
    /// its targets are active
    Targets,
    /// all of that but netdev and targets, as far as it concerns it
    Ready,
}

impl From<WaitCondition> for Condition {
    fn from(condition: WaitCondition) -> Self {
        match condition {
            WaitCondition::Registered => Self::Registered,
            WaitCondition::Modules => Self::Modules,
            WaitCondition::Verbs => Self::Verbs,
            WaitCondition::Umad => Self::Umad,
            WaitCondition::Cm => Self::Cm,
            WaitCondition::Netdev => Self::Netdev,
            WaitCondition::Targets => Self::Targets,
            WaitCondition::Ready => Self::Ready,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

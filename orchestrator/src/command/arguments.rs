//! The command line of `rdma-hotplug`. Pure. Must never read anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use interfaces::orchestrator::Condition;

/// Shows the RDMA devices of this machine, what rdma-hotplug did for them and why, and what is missing.
#[derive(Debug, Parser)]
#[command(
    name = "rdma-hotplug",
    version,
    max_term_width = 80,
    after_help = "Exit status: 0 success, 1 failure, 2 invalid usage, 3 timed out, 4 not found,\n\
                  5 permission denied."
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
    /// The command. The default is 'status'.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show each RDMA device, its state, and what is missing.
    Status,
    /// Print changes as they happen, until interrupted.
    #[command(after_help = "Example: rdma-hotplug monitor --json | jq .device.name")]
    Monitor {
        /// Follow the detector's records instead of the orchestrator's status.
        #[arg(long)]
        devices: bool,
    },
    /// Explain the state of a device, or why a module was loaded or not.
    #[command(
        after_help = "Examples:\n  rdma-hotplug explain mlx5_0\n  rdma-hotplug explain ib_umad"
    )]
    Explain {
        /// A device, a function without one, or a kernel module.
        name: String,
    },
    /// Wait for a device, or until everything is settled.
    #[command(after_help = "Examples:\n  rdma-hotplug wait\n  \
        rdma-hotplug wait mlx5_0 --timeout 60\n  \
        rdma-hotplug wait mlx5_0 --condition verbs --condition netdev")]
    Wait(Wait),
    /// Show past events and decisions.
    #[command(after_help = "Example: rdma-hotplug history mlx5_0 --limit 20")]
    History {
        /// Only records of this device, which must be present.
        device: Option<String>,
        /// Only the last N records.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Repeat the decisions of a journal, and compare them with the recorded ones.
    #[command(after_help = "Example: rdma-hotplug replay \
        /run/rdma-hotplug/orchestrator/journal --rules ./rules.d")]
    Replay {
        /// The journal.
        file: PathBuf,
        /// Use the rules in this directory instead of the recorded rules. Repeatable, in the order
        /// of precedence.
        #[arg(long = "rules", value_name = "DIR")]
        rules: Vec<PathBuf>,
        /// With --rules: the directory of rdma-core's lists of modules.
        #[arg(long, value_name = "DIR", default_value = crate::config::LISTS)]
        lists: PathBuf,
    },
    /// Check rules files.
    Rules {
        /// The command.
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Load the modules of one of rdma-core's lists. Only for root.
    #[command(after_help = "Example: rdma-hotplug load infiniband")]
    Load {
        /// The list: a file of /etc/rdma/modules without its suffix .conf.
        list: String,
        /// The directory of the lists.
        #[arg(long, value_name = "DIR", default_value = crate::config::LISTS)]
        lists: PathBuf,
    },
    /// Request again every module and target that is not in its wanted state. Only for root.
    Reconcile {
        /// Only request modules again that are not live and were not unloaded.
        #[arg(long)]
        missing: bool,
    },
    /// Load, start and stop nothing until 'resume', for maintenance. Only for root.
    #[command(after_help = "Example: rdma-hotplug pause firmware update")]
    Pause {
        /// The reason, which 'status' shows to all users.
        #[arg(required = true)]
        reason: Vec<String>,
    },
    /// End a pause, and catch up. Only for root.
    Resume,
    /// List the kernel modules that this machine's RDMA devices need, one per line.
    ListModules {
        /// Include drivers and dependencies, as an initrd needs them.
        #[arg(long)]
        initrd: bool,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The commands for rules files.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show the meaning of rules, what they select on this machine, and their errors.
    ///
    /// Works without the services, and then names what it cannot find out. Exits with 1 if a file
    /// is invalid.
    #[command(after_help = "Examples:\n  rdma-hotplug rules check\n  \
        rdma-hotplug rules check ./60-storage.toml")]
    Check {
        /// The files. The default is all files that the orchestrator reads. Repeatable.
        #[arg(value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Without FILES: the directories to read, in the order of precedence. Repeatable.
        #[arg(
            long = "rules",
            value_name = "DIR",
            conflicts_with = "files",
            default_values = crate::config::RULES,
            value_hint = ValueHint::DirPath
        )]
        rules: Vec<PathBuf>,
        /// The directory of rdma-core's lists of modules.
        #[arg(long, value_name = "DIR", default_value = crate::config::LISTS)]
        lists: PathBuf,
    },
}

/// The arguments of 'wait'.
#[derive(Debug, Args)]
pub struct Wait {
    /// The device, which need not be present yet.
    pub device: Option<String>,
    /// The condition to wait for. The default is 'ready'. Repeatable.
    #[arg(
        long = "condition",
        value_name = "CONDITION",
        value_enum,
        requires = "device"
    )]
    pub conditions: Vec<WaitCondition>,
    /// The longest time to wait, in seconds. The default is no limit.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// For units: notify READY when the conditions are met, and exit when the device is removed.
    #[arg(long, requires = "device", conflicts_with = "timeout")]
    pub notify: bool,
}

/// A condition to wait for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WaitCondition {
    /// the kernel has registered the device
    Registered,
    /// its modules are live
    Modules,
    /// its node for verbs exists
    Verbs,
    /// its nodes for management datagrams exist
    Umad,
    /// the connection manager is available
    Cm,
    /// its network interfaces exist
    Netdev,
    /// its targets are active
    Targets,
    /// all conditions that apply to the device, except netdev and targets
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

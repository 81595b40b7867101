//! The loader's command line. Must never read anything.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::offline::PlanArgs;
use crate::snapshot::MODPROBE_D;

/// Inserts the kernel modules that its policy names, as org.rdmahotplug.Loader.
///
/// Needs CAP_SYS_MODULE in the initial user namespace. Takes the socket 'varlink' from the
/// service manager.
#[derive(Clone, Debug, Parser)]
#[command(name = "rdma-loader", version)]
pub struct Config {
    /// What to do instead.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where sysfs is mounted.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// Where the module trees are, one directory a kernel release.
    #[arg(long, value_name = "DIR", default_value = "/lib/modules")]
    pub modules: PathBuf,
    /// The kernel release, by default the running kernel's.
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// Directories of modprobe.d(5), in the order of their precedence. Repeatable.
    #[arg(long = "modprobe-d", value_name = "DIR", default_values = MODPROBE_D)]
    pub modprobe_d: Vec<PathBuf>,
    /// The kernel command line.
    #[arg(long, value_name = "FILE", default_value = "/proc/cmdline")]
    pub command_line: PathBuf,
    /// Directories of policy files (*.toml), in the order of their precedence. Repeatable.
    #[arg(long = "policy", value_name = "DIR", default_values = [
        "/etc/rdma-hotplug/loader.d",
        "/run/rdma-hotplug/loader.d",
        "/usr/lib/rdma-hotplug/loader.d",
    ])]
    pub policy: Vec<PathBuf>,
    /// The user, by name or number, who may load beside root.
    #[arg(long, value_name = "USER", default_value = "rdma-orchestrator")]
    pub orchestrator: String,
    /// Where user names are looked up.
    #[arg(long, value_name = "FILE", default_value = "/etc/passwd")]
    pub passwd: PathBuf,
    /// Exit when nobody has been connected for this long, in seconds; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub idle: u64,
    /// How much is taken from peers, like connections=1024; Describe lists the names. Repeatable.
    #[arg(
        long = "limit",
        value_name = "NAME=VALUE",
        env = "RDMA_HOTPLUG_LIMITS",
        value_delimiter = ' '
    )]
    pub limits: Vec<String>,
    /// Listen here when no socket was passed.
    #[arg(long, value_name = "PATH", env = "SYSTEMD_VARLINK_LISTEN")]
    pub listen: Option<PathBuf>,
}

/// What the program can do beside its service.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print what modprobe would do.
    Plan(PlanArgs),
}

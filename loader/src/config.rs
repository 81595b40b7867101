//! The loader's command line. Pure. Must never read anything.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::offline::PlanArgs;
use crate::snapshot::MODPROBE_D;

/// Inserts the kernel modules that its policy names, as org.rdmahotplug.Loader.
///
/// Needs CAP_SYS_MODULE in the initial user namespace. Uses the socket 'varlink' of the
/// service manager.
#[derive(Clone, Debug, Parser)]
#[command(name = "rdma-loader", version)]
pub struct Config {
    /// A command instead of the service.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The mount point of sysfs.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// The directory of the module trees, which has one directory for each kernel release.
    #[arg(long, value_name = "DIR", default_value = "/lib/modules")]
    pub modules: PathBuf,
    /// The kernel release. The default is that of the running kernel.
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// The directories of modprobe.d(5), in the order of precedence. Repeatable.
    #[arg(long = "modprobe-d", value_name = "DIR", default_values = MODPROBE_D)]
    pub modprobe_d: Vec<PathBuf>,
    /// The kernel command line.
    #[arg(long, value_name = "FILE", default_value = "/proc/cmdline")]
    pub command_line: PathBuf,
    /// The directories of policy files (*.toml), in the order of precedence. Repeatable.
    #[arg(long = "policy", value_name = "DIR", default_values = [
        "/etc/rdma-hotplug/loader.d",
        "/run/rdma-hotplug/loader.d",
        "/usr/lib/rdma-hotplug/loader.d",
    ])]
    pub policy: Vec<PathBuf>,
    /// The user, by name or number, that may load modules in addition to root.
    #[arg(long, value_name = "USER", default_value = "rdma-orchestrator")]
    pub orchestrator: String,
    /// The file in which user names are looked up.
    #[arg(long, value_name = "FILE", default_value = "/etc/passwd")]
    pub passwd: PathBuf,
    /// The time in seconds without a client after which the service exits; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub idle: u64,
    /// A limit for clients, like connections=1024. Describe lists the names. Repeatable.
    #[arg(
        long = "limit",
        value_name = "NAME=VALUE",
        env = "RDMA_HOTPLUG_LIMITS",
        value_delimiter = ' '
    )]
    pub limits: Vec<String>,
    /// The socket to listen on if none was passed.
    #[arg(long, value_name = "PATH", env = "SYSTEMD_VARLINK_LISTEN")]
    pub listen: Option<PathBuf>,
}

/// The commands besides the service.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print what modprobe would do.
    Plan(PlanArgs),
}

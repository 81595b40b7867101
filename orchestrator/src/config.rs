//! The orchestrator's command line. Pure. Must never read anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The directories of rules files, in order of precedence.
pub const RULES: [&str; 3] = [
    "/etc/rdma-hotplug/rules.d",
    "/run/rdma-hotplug/rules.d",
    "/usr/lib/rdma-hotplug/rules.d",
];
/// The directory of rdma-core's lists of modules.
pub const LISTS: &str = "/etc/rdma/modules";

/// Loads kernel modules and starts systemd targets for RDMA devices, as
/// org.rdmahotplug.Orchestrator.
///
/// Uses the socket 'varlink' of the service manager.
#[derive(Clone, Debug, Parser)]
#[command(name = "rdma-orchestrator", version)]
pub struct Config {
    /// The detector's socket.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/rdma-hotplug/org.rdmahotplug.Detector"
    )]
    pub detector: PathBuf,
    /// The loader's socket.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/rdma-hotplug/org.rdmahotplug.Loader"
    )]
    pub loader: PathBuf,
    /// The directories of rules files (*.toml), in the order of precedence. Repeatable.
    #[arg(long = "rules", value_name = "DIR", default_values = RULES)]
    pub rules: Vec<PathBuf>,
    /// The directory of rdma-core's lists of modules (*.conf), which rules refer to.
    #[arg(long, value_name = "DIR", default_value = LISTS)]
    pub lists: PathBuf,
    /// The directory of the journal, and of the flag files that path units watch.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/rdma-hotplug/orchestrator"
    )]
    pub runtime_directory: PathBuf,
    /// The longest time of the start, in seconds. Then READY is sent, even if devices are not ready.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub boot_deadline: Duration,
    /// The time in seconds after which a function without an RDMA device is stuck.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub stuck_after: Duration,
    /// The time in seconds that the start waits for a function without an RDMA device after its last
    /// change.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub driver_grace: Duration,
    /// The address of the bus of the service manager.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "unix:path=/run/dbus/system_bus_socket"
    )]
    pub bus: String,
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

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

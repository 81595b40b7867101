//! The orchestrator's command line. Must never read anything.

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

/// Turns RDMA device events into module loads and systemd units, as
/// org.rdmahotplug.Orchestrator.
///
/// Takes the socket 'varlink' from the service manager.
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
    /// Directories of rules files (*.toml), in the order of their precedence. Repeatable.
    #[arg(long = "rules", value_name = "DIR", default_values = RULES)]
    pub rules: Vec<PathBuf>,
    /// Where rdma-core's lists of modules are (*.conf), which rules refer to.
    #[arg(long, value_name = "DIR", default_value = LISTS)]
    pub lists: PathBuf,
    /// Where the journal and the flag files that path units watch are written.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/rdma-hotplug/orchestrator"
    )]
    pub runtime_directory: PathBuf,
    /// How long the start waits for what is being set up, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub boot_deadline: Duration,
    /// After how long a function without an RDMA device is stuck, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub stuck_after: Duration,
    /// How long the start waits for a function without an RDMA device after something of it has
    /// changed, in seconds: udev or a driver may be at work.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub driver_grace: Duration,
    /// The address of the bus that the service manager is on.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "unix:path=/run/dbus/system_bus_socket"
    )]
    pub bus: String,
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

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

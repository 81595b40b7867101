//! The orchestrator's command line. Must never read anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

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
    #[arg(long = "rules", value_name = "DIR", default_values = [
        "/etc/rdma-hotplug/rules.d",
        "/run/rdma-hotplug/rules.d",
        "/usr/lib/rdma-hotplug/rules.d",
    ])]
    pub rules: Vec<PathBuf>,
    /// Where the flag file that path units watch is written.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/rdma-hotplug/orchestrator"
    )]
    pub runtime_directory: PathBuf,
    /// How long the start waits for the modules of devices that the kernel has registered
    /// already, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub boot_deadline: Duration,
    /// Listen here when no socket was passed.
    #[arg(long, value_name = "PATH", env = "SYSTEMD_VARLINK_LISTEN")]
    pub listen: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

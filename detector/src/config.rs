//! The detector's command line. Pure. Must never read anything.

use std::path::PathBuf;

use clap::Parser;

/// Publishes the RDMA devices of this machine over varlink, as org.rdmahotplug.Detector.
///
/// Uses these sockets of the service manager: 'varlink'; 'uevent', a netlink socket of the
/// family kobject-uevent, group 1, which is opened here if it is not passed; 'rdma-netlink' for
/// NETLINK_RDMA requests. Without the last one a socket is opened as soon as ib_core is loaded.
#[derive(Clone, Debug, Parser)]
#[command(name = "rdma-detector", version)]
pub struct Config {
    /// The mount point of sysfs.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// The user, by name or number, that has reserved capacity in addition to root.
    #[arg(long, value_name = "USER", default_value = "rdma-orchestrator")]
    pub orchestrator: String,
    /// The file in which user names are looked up.
    #[arg(long, value_name = "FILE", default_value = "/etc/passwd")]
    pub passwd: PathBuf,
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

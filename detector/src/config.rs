//! The detector's command line. Must never read anything.

use std::path::PathBuf;

use clap::Parser;

/// Publishes the RDMA devices of this machine over varlink, as org.rdmahotplug.Detector.
///
/// Takes from the service manager: the socket 'varlink', and 'uevent', a netlink socket of the
/// family kobject-uevent, group 1, which is opened here when it is not passed. A socket
/// 'rdma-netlink' is used for NETLINK_RDMA requests where it is passed; otherwise one is opened
/// as soon as ib_core is there.
#[derive(Clone, Debug, Parser)]
#[command(name = "rdma-detector", version)]
pub struct Config {
    /// Where sysfs is mounted.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// The user, by name or number, whose connections have a place of their own beside root's.
    #[arg(long, value_name = "USER", default_value = "rdma-orchestrator")]
    pub orchestrator: String,
    /// Where user names are looked up.
    #[arg(long, value_name = "FILE", default_value = "/etc/passwd")]
    pub passwd: PathBuf,
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

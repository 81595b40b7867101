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
    /// Listen here when no socket was passed.
    #[arg(long, value_name = "PATH", env = "SYSTEMD_VARLINK_LISTEN")]
    pub listen: Option<PathBuf>,
}

//! The paths of the lab's host, and the arguments and descriptors of the services. Must never start
//! anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::{DetectorSockets, KERNEL_VARIABLE};
use crate::service_manager::Service;

/// The kernel release of the lab's module tree.
const RELEASE: &str = "6.12-lab";

/// The index files that depmod made for a Debian kernel's RDMA modules.
const MODULE_INDEXES: [(&str, &[u8]); 3] = [
    (
        "modules.dep.bin",
        include_bytes!("../../loader/tests/fixtures/modules/modules.dep.bin"),
    ),
    (
        "modules.alias.bin",
        include_bytes!("../../loader/tests/fixtures/modules/modules.alias.bin"),
    ),
    (
        "modules.builtin.bin",
        include_bytes!("../../loader/tests/fixtures/modules/modules.builtin.bin"),
    ),
];
const MODULES_DEP: &str = include_str!("../../loader/tests/fixtures/modules/modules.dep");
const RULES: &str =
    include_str!("../../deploy/root/usr/lib/rdma-hotplug/rules.d/50-rdma-core.toml");
const POLICY: &str = include_str!("../../deploy/root/usr/lib/rdma-hotplug/loader.d/50-rdma.toml");

/// Makes the directories of a host: its runtime directory, its modules, and the shipped
/// configuration.
///
/// # Errors
/// Fails if a file cannot be written.
pub fn make_directories(dir: &Path) -> io::Result<()> {
    for made in ["run/lab", "run/rdma-hotplug/orchestrator", "log"] {
        fs::create_dir_all(dir.join(made))?;
    }
    lay_out_modules(&dir.join("lib/modules").join(RELEASE))?;
    // This kernel decompresses modules as Debian's does, and has an empty command line.
    for made in ["sys/module", "etc/modprobe.d", "proc"] {
        fs::create_dir_all(dir.join(made))?;
    }
    fs::write(dir.join("sys/module/compression"), "xz\n")?;
    fs::write(dir.join("proc/cmdline"), "\n")?;
    for (directory, file, text) in [
        ("rules.d", "50-rdma-core.toml", RULES),
        ("loader.d", "50-rdma.toml", POLICY),
    ] {
        let directory = dir.join("usr/lib/rdma-hotplug").join(directory);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}

/// Returns the path of the socket of an interface.
#[must_use]
pub fn socket(dir: &Path, interface: &str) -> PathBuf {
    dir.join("run/rdma-hotplug").join(interface)
}

/// Returns the three services as their units would start them, with the lab's roots and
/// descriptors.
///
/// # Errors
/// Fails if a socket cannot be made.
pub fn services(dir: &Path, modules: &Path, sockets: DetectorSockets) -> io::Result<Vec<Service>> {
    let (run, log) = (dir.join("run/lab"), dir.join("log"));
    let rules = dir.join("usr/lib/rdma-hotplug");
    let own_user = rustix::process::getuid().as_raw().to_string();
    let detector = Service::new("rdma-detector", &run, &log)?
        .argument("--sysfs", dir.join("sys"))
        .pass("uevent", sockets.uevent)
        .pass("rdma-netlink", sockets.rdma_netlink)
        .listen(&socket(dir, "org.rdmahotplug.Detector"))?;
    let loader = Service::new("rdma-loader", &run, &log)?
        .argument("--sysfs", dir.join("sys"))
        .argument("--modules", dir.join("lib/modules"))
        .argument("--release", RELEASE)
        .argument("--modprobe-d", dir.join("etc/modprobe.d"))
        .argument("--command-line", dir.join("proc/cmdline"))
        .argument("--policy", rules.join("loader.d"))
        .argument("--orchestrator", own_user)
        // The lab would not start it again.
        .argument("--idle", "0")
        .variable(KERNEL_VARIABLE, modules)
        .listen(&socket(dir, "org.rdmahotplug.Loader"))?;
    let orchestrator = Service::new("rdma-orchestrator", &run, &log)?
        .argument("--detector", socket(dir, "org.rdmahotplug.Detector"))
        .argument("--loader", socket(dir, "org.rdmahotplug.Loader"))
        .argument("--rules", rules.join("rules.d"))
        .argument("--lists", dir.join("etc/rdma/modules"))
        // There is no bus on this host.
        .argument(
            "--bus",
            format!("unix:path={}", dir.join("run/bus").display()),
        )
        .argument(
            "--runtime-directory",
            dir.join("run/rdma-hotplug/orchestrator"),
        )
        .listen(&socket(dir, "org.rdmahotplug.Orchestrator"))?;
    Ok(vec![detector, loader, orchestrator])
}

/// Lays out a module tree with depmod's indexes of a real tree, and a file for each module. The
/// file holds only the bytes that are checked before the kernel accepts the module.
fn lay_out_modules(root: &Path) -> io::Result<()> {
    const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
    fs::create_dir_all(root)?;
    for (name, bytes) in MODULE_INDEXES {
        fs::write(root.join(name), bytes)?;
    }
    // The file that depmod writes last.
    fs::write(root.join("modules.devname"), "")?;
    for path in MODULES_DEP
        .lines()
        .filter_map(|line| line.split(':').next())
    {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, XZ_MAGIC)?;
    }
    Ok(())
}

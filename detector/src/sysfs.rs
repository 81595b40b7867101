//! What sysfs says of RDMA devices. Responsible for reading below the root that it is given
//! and nowhere else; must never write there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use interfaces::names::DeviceName;

use crate::device::SysfsDevice;

/// A sysfs mount.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The sysfs that is mounted at `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether the kernel has its RDMA core, built in or as a module.
    #[must_use]
    pub fn has_ib_core(&self) -> bool {
        self.root.join("class/infiniband").exists()
    }

    /// What is there of the device called `name`. What is not there, or gone meanwhile, is left
    /// out: the event that tells of it leads to another look.
    #[must_use]
    pub fn device(&self, name: &DeviceName) -> SysfsDevice {
        let device = self.root.join("class/infiniband").join(name.as_str());
        SysfsDevice {
            link_layers: link_layers(&device.join("ports")).unwrap_or_default(),
            driver: fs::canonicalize(device.join("device/driver"))
                .ok()
                .and_then(|driver| last_component(&driver)),
            pci_address: fs::canonicalize(device.join("device"))
                .ok()
                .and_then(|parent| nearest_pci_address(&parent)),
        }
    }
}

fn link_layers(ports: &Path) -> io::Result<BTreeMap<u32, String>> {
    let mut link_layers = BTreeMap::new();
    for entry in fs::read_dir(ports)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let link_layer = fs::read_to_string(entry.path().join("link_layer"));
        if let (Some(number), Ok(link_layer)) = (number, link_layer) {
            link_layers.insert(number, link_layer.trim_end().to_owned());
        }
    }
    Ok(link_layers)
}

fn last_component(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// The last component of `path` that is a PCI address, `DDDD:BB:DD.F` in hexadecimal.
fn nearest_pci_address(path: &Path) -> Option<String> {
    path.ancestors()
        .filter_map(last_component)
        .find(|component| is_pci_address(component))
}

fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, len: usize| {
        part.len() >= len && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut parts = text.split([':', '.']);
    let four = [parts.next(), parts.next(), parts.next(), parts.next()];
    matches!(four, [Some(domain), Some(bus), Some(slot), Some(function)]
        if hex(domain, 4) && hex(bus, 2) && hex(slot, 2) && hex(function, 1))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_below_a_pci_function_is_described() {
        let root = tempfile::tempdir().unwrap();
        let function = root
            .path()
            .join("devices/pci0000:c0/0000:c0:01.1/0000:c1:00.0");
        let device = function.join("infiniband/mlx5_0");
        fs::create_dir_all(device.join("ports/1")).unwrap();
        fs::create_dir_all(device.join("ports/2")).unwrap();
        fs::write(device.join("ports/1/link_layer"), "InfiniBand\n").unwrap();
        fs::write(device.join("ports/2/link_layer"), "Ethernet\n").unwrap();
        symlink(&function, device.join("device")).unwrap();
        let driver = root.path().join("bus/pci/drivers/mlx5_core");
        fs::create_dir_all(&driver).unwrap();
        symlink(driver, function.join("driver")).unwrap();
        fs::create_dir_all(root.path().join("class/infiniband")).unwrap();
        symlink(device, root.path().join("class/infiniband/mlx5_0")).unwrap();

        let sysfs = Sysfs::new(root.path().to_owned());
        assert!(sysfs.has_ib_core());
        assert_eq!(
            sysfs.device(&DeviceName::parse("mlx5_0").unwrap()),
            SysfsDevice {
                link_layers: [(1, "InfiniBand".into()), (2, "Ethernet".into())].into(),
                driver: Some("mlx5_core".into()),
                pci_address: Some("0000:c1:00.0".into()),
            }
        );
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::new(root.path().to_owned());
        assert!(!sysfs.has_ib_core());
        let none = sysfs.device(&DeviceName::parse("rxe0").unwrap());
        assert_eq!(none, SysfsDevice::default());
    }

    #[test]
    fn only_a_whole_pci_address_counts() {
        assert!(is_pci_address("0000:c1:00.0"));
        assert!(is_pci_address("10000:c1:00.0"));
        for text in ["pci0000:c0", "virtual", "0000:c1:00", "0000:c1:00.0.1", ""] {
            assert!(!is_pci_address(text), "{text}");
        }
    }
}

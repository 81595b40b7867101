//! The reader of sysfs for RDMA devices, their nodes, and their functions. Responsible for reading
//! only below the given root; must never write there. Objects that are missing, or that are removed
//! during the scan, are left out: the event for them leads to the next scan.

mod directory;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use interfaces::names::DeviceName;

use crate::device::speed_mbps;
use crate::function::{self, ModuleState, SysfsFunction};
use crate::nldev::NldevPort;
use crate::node::{Node, Purpose};
use crate::reading::{Progress, Step};
use crate::refusal::{Refusal, entry_name};
use crate::uevent::last_component;
use directory::{Directory, line_at};

/// The number of empty places in a GID table after which the search ends. The kernel fills the
/// table from its start, with one GID of each type first. The table may have hundreds of places,
/// and each is a file.
const MAX_EMPTY_GIDS: u32 = 4;

/// The number of places after which a GID table has no second type.
const MAX_GIDS: u32 = 1024;

/// A sysfs mount.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

/// The directory of a device during a reading.
pub struct Place {
    device: Directory,
    /// The directory of the parent object.
    function: Option<Directory>,
    physical_function: Option<String>,
    pci_address: Option<String>,
}

impl Sysfs {
    /// Creates a reader for the sysfs that is mounted at `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns true if the kernel has its RDMA core, built in or as a module.
    #[must_use]
    pub fn has_ib_core(&self) -> bool {
        self.root.join("class/infiniband").exists()
    }

    /// Returns true if there is an RDMA device with this name.
    #[must_use]
    pub fn has_device(&self, name: &str) -> bool {
        let link = self.root.join("class/infiniband").join(name);
        link.symlink_metadata().is_ok()
    }

    /// Returns the names of all RDMA devices.
    #[must_use]
    pub fn device_names(&self) -> BTreeSet<String> {
        let class = self.root.join("class/infiniband");
        names(&class, "RDMA device", &mut Vec::new())
            .into_iter()
            .collect()
    }

    /// Finds the device called `name`, without involving a driver. Returns `None` if it has been
    /// removed.
    pub fn place(&self, name: &DeviceName, progress: &Progress) -> Option<Place> {
        let link = self.root.join("class/infiniband").join(name.as_str());
        // A link in the directory is relative to the directory's real path.
        let path = self.devpath(&link).map_or(link, |path| self.below(&path));
        let device = Directory::open(&path)?;
        let link = device.link("device");
        let parent = link.and_then(|target| self.resolved(&path, &target));
        let function = device.directory("device").filter(|_| parent.is_some());
        let place = Place {
            physical_function: function.as_ref().and_then(|f| f.link_name("physfn")),
            pci_address: parent.as_deref().and_then(nearest_pci_address),
            device,
            function,
        };
        let function = place.function.as_ref();
        progress.learns(|reading| {
            let sysfs = &mut reading.sysfs;
            sysfs.driver = function.and_then(|f| f.link_name("driver"));
            sysfs.module = function.and_then(|f| f.link_name("driver/module"));
            sysfs.physical_function.clone_from(&place.physical_function);
            sysfs.pci_address.clone_from(&place.pci_address);
            sysfs.parent = parent;
        });
        Some(place)
    }

    /// Reads the attributes of the device in this place, which has these ports.
    pub fn attributes(&self, place: &Place, ports: &[NldevPort], progress: &Progress) {
        self.attributes_above(place, progress);
        if let Some(netdev) = ports.first().and_then(|port| port.netdev.as_deref()) {
            progress.asks(Step::Attribute("device/net/phys_port_name"));
            let netdev = Directory::open(&self.root.join("class/net").join(netdev));
            let port_name = netdev.and_then(|netdev| netdev.line("phys_port_name"));
            progress.learns(|reading| reading.sysfs.port_name = port_name);
        }
        progress.asks(Step::Attribute("parent"));
        let parent = place.device.line("parent");
        progress.learns(|reading| reading.sysfs.parent_netdev = parent);
        progress.asks(Step::Attribute("board_id"));
        let board_id = place.device.line("board_id");
        progress.learns(|reading| reading.sysfs.board_id = board_id);
        for port in ports {
            read_port(&place.device, port.number, progress);
        }
    }

    /// Reads the attributes of the function below which the device is.
    fn attributes_above(&self, place: &Place, progress: &Progress) {
        let Some(function) = &place.function else {
            return;
        };
        progress.asks(Step::Attribute("device/sfnum"));
        let subfunction = function.line("sfnum").and_then(|n| n.parse().ok());
        progress.asks(Step::Attribute("device/physfn"));
        let virtual_function = || {
            let physical = place.physical_function.as_deref()?;
            let pair = (physical, place.pci_address.as_deref()?);
            let physical = function.directory("physfn")?;
            let number = |file| physical.line(file);
            virtual_function(pair, &number("sriov_offset")?, &number("sriov_stride")?)
        };
        let virtual_function = virtual_function();
        progress.asks(Step::Attribute("device/vendor"));
        let address = place.pci_address.as_deref();
        let pci_id = address.and_then(|address| self.pci_id(address));
        progress.learns(|reading| {
            reading.sysfs.subfunction = subfunction;
            reading.sysfs.virtual_function = virtual_function;
            reading.sysfs.pci_id = pci_id;
        });
    }

    /// Reads the vendor and device id of a PCI function.
    fn pci_id(&self, address: &str) -> Option<(u32, u32)> {
        let function = Directory::open(&self.root.join("bus/pci/devices").join(address))?;
        let number = |file| hexadecimal(&function.line(file)?);
        number("vendor").zip(number("device"))
    }

    /// Returns the names of all objects of ib_uverbs and ib_umad, nodes and others. Also returns
    /// the unusable ones.
    #[must_use]
    pub fn node_names(&self) -> (BTreeSet<String>, Vec<Refusal>) {
        let mut refused = Vec::new();
        let classes = ["infiniband_verbs", "infiniband_mad"];
        let class = |class| names(&self.root.join("class").join(class), "node", &mut refused);
        let all = classes.map(class);
        (all.into_iter().flatten().collect(), refused)
    }

    /// Reads the node called `name`. Returns `None` if it is not a node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Node> {
        let class = if name.starts_with("uverbs") {
            "infiniband_verbs"
        } else {
            "infiniband_mad"
        };
        let node = self.root.join("class").join(class).join(name);
        let port = || line_at(&node.join("port"))?.parse().ok();
        Some(Node {
            device: line_at(&node.join("ibdev"))?,
            purpose: Purpose::of(name, port)?,
        })
    }

    /// Reads all functions on which an RDMA device may be created, by their paths below sysfs, at
    /// most `most`. Also returns those that are left out.
    #[must_use]
    pub fn functions(&self, most: usize) -> (BTreeMap<String, SysfsFunction>, Vec<Refusal>) {
        let mut functions = BTreeMap::new();
        let mut refused = Vec::new();
        for bus in ["pci", "auxiliary"] {
            let devices = self.root.join("bus").join(bus).join("devices");
            for name in names(&devices, "function", &mut refused) {
                let devpath = self.devpath(&devices.join(name));
                let Some((path, function)) = devpath.and_then(|path| {
                    let function = self.function(&path)?;
                    Some((path, function))
                }) else {
                    continue;
                };
                if functions.len() < most {
                    functions.insert(path, function);
                } else {
                    refused.push(too_many_functions(&path));
                }
            }
        }
        (functions, refused)
    }

    /// Reads the function at `devpath`, if an RDMA device may be created on it.
    #[must_use]
    pub fn function(&self, devpath: &str) -> Option<SysfsFunction> {
        let name = entry_name(last_component(devpath).as_bytes())
            .ok()?
            .to_owned();
        let directory = self.below(devpath);
        let bus = link_name(&directory.join("subsystem"))?;
        let driver = link_name(&directory.join("driver"));
        let number = |file| hexadecimal(&line_at(&directory.join(file))?);
        let module = link_name(&directory.join("driver/module"));
        let needs = driver.as_deref().and_then(function::protocol_module);
        let function = SysfsFunction {
            pci_address: nearest_pci_address(devpath),
            driver_registers: module.is_some_and(|module| self.uses_ib_core(&module)),
            has_netdev: directory.join("net").exists(),
            protocol_module: needs.map(|module| (module, self.module_state(module))),
            class: number("class"),
            id: number("vendor").zip(number("device")),
            modalias: match driver {
                None => line_at(&directory.join("modalias")),
                Some(_) => None,
            },
            name,
            bus,
            driver,
        };
        function.may_register().then_some(function)
    }

    /// Returns the names of all modules, in any state, and of those built-in modules that have a
    /// directory in sysfs.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("module"));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Reads the state of a module. A built-in module has no `initstate`, and is always live.
    #[must_use]
    pub fn module_state(&self, module: &str) -> ModuleState {
        let module = self.root.join("module").join(module);
        match line_at(&module.join("initstate")).as_deref() {
            Some("live") => ModuleState::Live,
            Some(_) => ModuleState::InMotion,
            None if module.exists() => ModuleState::Live,
            None => ModuleState::Absent,
        }
    }

    /// Returns true if a module uses ib_core. A PCI driver that uses it registers RDMA devices
    /// itself.
    fn uses_ib_core(&self, module: &str) -> bool {
        self.root
            .join("module/ib_core/holders")
            .join(module)
            .exists()
    }

    /// Returns the target of a link as a path below sysfs. The kernel's links in sysfs point to the
    /// real path of the object, so no other link needs to be resolved.
    fn devpath(&self, link: &Path) -> Option<String> {
        self.resolved(link.parent()?, &fs::read_link(link).ok()?)
    }

    /// Resolves `target`, the content of a link in `directory`, to a path below sysfs.
    fn resolved(&self, directory: &Path, target: &Path) -> Option<String> {
        let mut path = PathBuf::new();
        for component in directory.join(target).components() {
            match component {
                Component::ParentDir => {
                    path.pop();
                }
                component => path.push(component),
            }
        }
        let below = path.strip_prefix(&self.root).ok()?.to_str()?;
        Some(format!("/{below}"))
    }

    fn below(&self, devpath: &str) -> PathBuf {
        self.root.join(devpath.trim_start_matches('/'))
    }
}

fn read_port(device: &Directory, number: u32, progress: &Progress) {
    let Some(port) = device.directory(&format!("ports/{number}")) else {
        return;
    };
    progress.asks(Step::OfPort(number, "link_layer"));
    let link_layer = port.line("link_layer");
    progress.learns_of_port(number, |port| port.link_layer = link_layer);
    progress.asks(Step::OfPort(number, "rate"));
    let rate = port.line("rate").and_then(|rate| speed_mbps(&rate));
    progress.learns_of_port(number, |port| port.speed_mbps = rate);
    let types = port.directory("gid_attrs/types");
    let types = types.map(|types| gid_types(&types, number, progress));
    progress.learns_of_port(number, |port| port.gid_types = types.unwrap_or_default());
}

/// Reads the types of the existing GIDs, each once. The kernel returns EINVAL for an empty place
/// (`drivers/infiniband/core/sysfs.c`).
fn gid_types(types: &Directory, port: u32, progress: &Progress) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut empty = 0;
    for place in 0u32.. {
        progress.asks(Step::GidType(port, place));
        match types.line(&place.to_string()) {
            Some(kind) => {
                found.insert(kind);
            }
            None => empty += 1,
        }
        // There are only two types.
        if empty == MAX_EMPTY_GIDS || found.len() == 2 || place == MAX_GIDS {
            break;
        }
    }
    found.into_iter().collect()
}

/// Returns the names of the entries in a directory, without unusable ones.
fn names(directory: &Path, kind: &str, refused: &mut Vec<Refusal>) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        match entry_name(name.as_bytes()) {
            Ok(name) => names.push(name.to_owned()),
            Err(reason) => refused.push(Refusal::named(kind, name.as_bytes(), reason)),
        }
    }
    names
}

/// Creates the refusal of a function beyond the limit.
#[must_use]
pub fn too_many_functions(devpath: &str) -> Refusal {
    let name = last_component(devpath).as_bytes();
    Refusal::named("function", name, "there are too many functions")
}

/// Parses a number of a PCI attribute, like `0x020000`.
fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Returns the last component of a link's target.
fn link_name(link: &Path) -> Option<String> {
    name_of(&fs::read_link(link).ok()?)
}

/// Returns the last component of a path, if it can be published.
fn name_of(target: &Path) -> Option<String> {
    let name = entry_name(target.file_name()?.as_bytes());
    name.ok().map(str::to_owned)
}

/// Returns the last component of `path` that is a PCI address, `DDDD:BB:DD.F` in hexadecimal.
fn nearest_pci_address(path: &str) -> Option<String> {
    let address = path
        .rsplit('/')
        .find(|component| routing_id(component).is_some());
    address.map(str::to_owned)
}

/// Parses a PCI address to its domain and routing id (bus, device and function).
fn routing_id(address: &str) -> Option<(u32, u32)> {
    let (rest, function) = address.split_once('.')?;
    let mut parts = rest.split(':');
    let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = |part: &str, len| {
        let whole = part.len() >= len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then(|| u32::from_str_radix(part, 16).ok())?
    };
    let domain = hexadecimal(domain, 4)?;
    let (bus, device) = (hexadecimal(bus, 2)?, hexadecimal(device, 2)?);
    let function = hexadecimal(function, 1)?;
    let fits = parts.next().is_none() && bus < 256 && device < 32 && function < 8;
    fits.then_some((domain, bus << 8 | device << 3 | function))
}

/// Returns the number of a virtual function. Its routing id is that of the physical function plus
/// `offset`, plus `stride` for each virtual function before it (PCI Express, SR-IOV capability). A
/// search for its `virtfnN` would be quadratic.
fn virtual_function((physical, function): (&str, &str), offset: &str, stride: &str) -> Option<u32> {
    let distance = routing_id(function)?
        .1
        .checked_sub(routing_id(physical)?.1)?;
    let beyond = distance.checked_sub(offset.parse().ok()?)?;
    match stride.parse().ok()? {
        // A device with only one virtual function may have a stride of 0.
        0 => Some(0),
        stride => Some(beyond / stride),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Reading;

    #[test]
    fn missing_sysfs_entries_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::new(root.path().to_owned());
        assert!(!sysfs.has_ib_core());
        let (name, progress) = (DeviceName::parse("rxe0").unwrap(), Progress::default());
        assert!(sysfs.place(&name, &progress).is_none());
        assert_eq!(progress.take(), Reading::default());
        assert!(sysfs.device_names().is_empty());
        assert_eq!(sysfs.node_names(), (BTreeSet::new(), Vec::new()));
        assert_eq!(sysfs.node("uverbs0"), None);
        assert_eq!(sysfs.functions(1), (BTreeMap::new(), Vec::new()));
    }

    #[test]
    fn only_a_complete_and_valid_pci_address_has_a_routing_id() {
        assert_eq!(routing_id("0000:c1:00.1"), Some((0, 0xc101)));
        assert_eq!(routing_id("10000:c1:1f.7"), Some((0x10000, 0xc1ff)));
        for text in [
            "pci0000:c0",
            "virtual",
            "0000:c1:00",
            "0000:c1:00.0.1",
            "",
            "0000:c1:20.0",
            "0000:+1:00.0",
        ] {
            assert_eq!(routing_id(text), None, "{text}");
        }
    }

    #[test]
    fn the_number_of_a_virtual_function_comes_from_its_routing_id() {
        let number = |function, stride| virtual_function(("0000:c1:00.0", function), "2", stride);
        assert_eq!(number("0000:c1:00.2", "1"), Some(0));
        assert_eq!(number("0000:c1:01.1", "1"), Some(7));
        assert_eq!(number("0000:c1:00.6", "2"), Some(2));
        assert_eq!(number("0000:c1:00.2", "0"), Some(0));
        // The address is below the first virtual function, or the stride is not a number.
        assert_eq!(number("0000:c1:00.1", "1"), None);
        assert_eq!(number("0000:c1:00.2", "x"), None);
    }
}

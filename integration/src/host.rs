//! The hardware of the lab's host: the RDMA devices that are plugged in, and the sysfs tree that
//! shows them. Responsible for matching the kernel's own tree in the places that the services read.
//! Must never announce a change: that is the kernel's part.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use interfaces::detector::Protocol;

/// A device to plug in.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The name that its driver gives it.
    pub name: String,
    /// The driver of the PCI function.
    pub driver: &'static str,
    /// The PCI function.
    pub pci_address: String,
    /// The protocols of its ports.
    pub ports: Vec<Protocol>,
}

/// A device that is plugged in.
#[derive(Clone, Debug)]
pub struct Plugged {
    /// The hardware, with its current name.
    pub hardware: Hardware,
    /// The path below sysfs, beginning with `/`.
    pub devpath: String,
}

/// A node that a module has made for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `infiniband_verbs` or `infiniband_mad`.
    pub subsystem: &'static str,
    /// Its name, like `uverbs0`.
    pub name: String,
    /// The index of its device.
    index: u32,
    /// The number of its port, if it belongs to a port.
    port: Option<usize>,
}

impl Node {
    /// Returns the path below sysfs.
    #[must_use]
    pub fn devpath(&self) -> String {
        format!("/devices/virtual/{}/{}", self.subsystem, self.name)
    }
}

/// The simulated host.
#[derive(Debug)]
pub struct SimulatedHost {
    sysfs: PathBuf,
    devices: BTreeMap<u32, Plugged>,
    nodes: Vec<Node>,
    next_index: u32,
}

impl SimulatedHost {
    /// Creates a host without RDMA hardware, whose sysfs is at `sysfs`.
    ///
    /// # Errors
    /// Fails if the tree cannot be made.
    pub fn new(sysfs: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(sysfs.join("class"))?;
        fs::create_dir_all(sysfs.join("module"))?;
        Ok(Self {
            sysfs,
            devices: BTreeMap::new(),
            nodes: Vec::new(),
            next_index: 0,
        })
    }

    /// Returns the devices by their index.
    #[must_use]
    pub fn devices(&self) -> &BTreeMap<u32, Plugged> {
        &self.devices
    }

    /// Plugs in a device. Its driver and `ib_core` are loaded, as udev does through the driver's
    /// own aliases.
    ///
    /// # Errors
    /// Fails if the tree cannot be changed.
    pub fn plug(&mut self, hardware: Hardware) -> io::Result<(u32, Plugged)> {
        let function = format!("/devices/pci0000:c0/{}", hardware.pci_address);
        let devpath = format!("{function}/infiniband/{}", hardware.name);
        let directory = self.below(&devpath);
        for (at, protocol) in hardware.ports.iter().enumerate() {
            let port = directory.join(format!("ports/{}", at + 1));
            fs::create_dir_all(&port)?;
            fs::write(port.join("link_layer"), link_layer(*protocol))?;
        }
        let driver = self.below(&format!("/bus/pci/drivers/{}", hardware.driver));
        fs::create_dir_all(&driver)?;
        symlink(&driver, self.below(&function).join("driver"))?;
        symlink(self.below(&function), directory.join("device"))?;
        self.link(&hardware.name, &devpath)?;
        self.insert_module("ib_core")?;
        let index = self.next_index;
        self.next_index += 1;
        let plugged = Plugged { hardware, devpath };
        self.devices.insert(index, plugged.clone());
        Ok((index, plugged))
    }

    /// Renames a device, and returns its previous path.
    ///
    /// # Errors
    /// Fails if there is no such device, or if the tree cannot be changed.
    pub fn rename(&mut self, index: u32, name: &str) -> io::Result<(String, Plugged)> {
        let Some(mut plugged) = self.devices.get(&index).cloned() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let before = plugged.devpath.clone();
        let parent = before.rsplit_once('/').map_or("", |(parent, _)| parent);
        plugged.devpath = format!("{parent}/{name}");
        fs::remove_file(self.class_entry(&plugged.hardware.name))?;
        fs::rename(self.below(&before), self.below(&plugged.devpath))?;
        self.link(name, &plugged.devpath)?;
        name.clone_into(&mut plugged.hardware.name);
        self.devices.insert(index, plugged.clone());
        // The kernel reports the current name of the device in each node.
        for node in self.nodes.iter().filter(|node| node.index == index) {
            self.write_node(node)?;
        }
        Ok((before, plugged))
    }

    /// Unplugs a device, and returns the nodes that were removed with it.
    ///
    /// # Errors
    /// Fails if there is no such device, or if the tree cannot be changed.
    pub fn unplug(&mut self, index: u32) -> io::Result<(Plugged, Vec<Node>)> {
        let Some(plugged) = self.devices.remove(&index) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (gone, stay) = std::mem::take(&mut self.nodes)
            .into_iter()
            .partition(|node| node.index == index);
        self.nodes = stay;
        for node in &gone {
            fs::remove_dir_all(self.node_entry(node))?;
        }
        fs::remove_file(self.class_entry(&plugged.hardware.name))?;
        let function = self.below(&plugged.devpath).join("../..");
        fs::remove_dir_all(fs::canonicalize(function)?)?;
        Ok((plugged, gone))
    }

    /// Makes the missing nodes of the live modules, and returns them.
    ///
    /// # Errors
    /// Fails if the tree cannot be changed.
    pub fn make_nodes(&mut self) -> io::Result<Vec<Node>> {
        let (verbs, mad) = (self.is_live("ib_uverbs"), self.is_live("ib_umad"));
        let mut made = Vec::new();
        for (index, plugged) in &self.devices {
            let node = |subsystem, name, port| Node {
                subsystem,
                name,
                index: *index,
                port,
            };
            if verbs {
                made.push(node("infiniband_verbs", format!("uverbs{index}"), None));
            }
            for port in (1..).take(if mad { plugged.hardware.ports.len() } else { 0 }) {
                let name = format!("umad{index}{port:02}");
                made.push(node("infiniband_mad", name, Some(port)));
            }
        }
        made.retain(|node| !self.nodes.contains(node));
        for node in &made {
            self.write_node(node)?;
        }
        self.nodes.extend(made.iter().cloned());
        Ok(made)
    }

    /// Returns true if a module is live.
    #[must_use]
    pub fn is_live(&self, module: &str) -> bool {
        self.sysfs.join("module").join(module).exists()
    }

    fn write_node(&self, node: &Node) -> io::Result<()> {
        let directory = self.node_entry(node);
        fs::create_dir_all(&directory)?;
        if let Some(plugged) = self.devices.get(&node.index) {
            fs::write(directory.join("ibdev"), &plugged.hardware.name)?;
        }
        match node.port {
            Some(port) => fs::write(directory.join("port"), port.to_string()),
            None => Ok(()),
        }
    }

    fn node_entry(&self, node: &Node) -> PathBuf {
        self.sysfs
            .join("class")
            .join(node.subsystem)
            .join(&node.name)
    }

    /// Shows a module as live.
    ///
    /// # Errors
    /// Fails if the tree cannot be changed.
    pub fn insert_module(&self, module: &str) -> io::Result<()> {
        let directory = self.sysfs.join("module").join(module);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("initstate"), "live\n")
    }

    /// Removes a module from the tree.
    ///
    /// # Errors
    /// Fails if the tree cannot be changed.
    pub fn remove_module(&self, module: &str) -> io::Result<()> {
        fs::remove_dir_all(self.sysfs.join("module").join(module))
    }

    /// Plugs in a function without a bound driver: an InfiniBand controller by its class. Returns
    /// its path.
    ///
    /// # Errors
    /// Fails if the tree cannot be changed.
    pub fn plug_function(&self, address: &str, modalias: &str) -> io::Result<String> {
        const INFINIBAND_CONTROLLER: &str = "0x020700\n";
        let devpath = format!("/devices/pci0000:c0/{address}");
        let directory = self.below(&devpath);
        let bus = self.below("/bus/pci");
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(bus.join("devices"))?;
        fs::write(directory.join("class"), INFINIBAND_CONTROLLER)?;
        fs::write(directory.join("modalias"), format!("{modalias}\n"))?;
        symlink(&bus, directory.join("subsystem"))?;
        symlink(&directory, bus.join("devices").join(address))?;
        Ok(devpath)
    }

    /// Unplugs such a function, and returns its previous path.
    ///
    /// # Errors
    /// Fails if there is no such function, or if the tree cannot be changed.
    pub fn unplug_function(&self, address: &str) -> io::Result<String> {
        let devpath = format!("/devices/pci0000:c0/{address}");
        fs::remove_file(self.below("/bus/pci/devices").join(address))?;
        fs::remove_dir_all(self.below(&devpath))?;
        Ok(devpath)
    }

    fn link(&self, name: &str, devpath: &str) -> io::Result<()> {
        fs::create_dir_all(self.sysfs.join("class/infiniband"))?;
        symlink(self.below(devpath), self.class_entry(name))
    }

    fn class_entry(&self, name: &str) -> PathBuf {
        self.sysfs.join("class/infiniband").join(name)
    }

    fn below(&self, devpath: &str) -> PathBuf {
        self.sysfs.join(Path::new(devpath.trim_start_matches('/')))
    }
}

fn link_layer(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Infiniband | Protocol::Opa => "InfiniBand\n",
        _ => "Ethernet\n",
    }
}

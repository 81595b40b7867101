//! A machine that changes at random, as the kernel would change it: tree, answers, and the
//! uevents that it sends. Some changes come while it is being asked. Must never send an event
//! that the kernel does not, nor keep one back.

use std::collections::{BTreeMap, VecDeque};

use detector::uevent::Uevent;
use fastrand::Rng;
use integration::wire::{Answer, Request};

use super::nldev::{Answers, Table};
use super::tree::Tree;

const BUS: &str = "devices/pci0000:c0";
/// Few names, so that they are soon another device's.
const NAMES: [&str; 5] = ["mlx5_0", "mlx5_1", "ibp1", "rocep1", "rxe0"];
const DRIVERS: [(&str, &str); 3] = [
    ("mlx5_core", "mlx5_core"),
    ("cxgb4", "cxgb4"),
    ("efa", "efa"),
];

/// A uevent that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    action: &'static str,
    devpath: String,
    devpath_old: Option<String>,
    subsystem: &'static str,
    sequence: u64,
}

impl Sent {
    /// As it is decoded.
    pub fn uevent(&self) -> Uevent<'_> {
        Uevent {
            action: self.action,
            devpath: &self.devpath,
            devpath_old: self.devpath_old.as_deref(),
            subsystem: self.subsystem,
            sequence: self.sequence,
        }
    }
}

/// The RDMA core is loaded in two steps: its module is announced before it has a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    Absent,
    Loading,
    Live,
}

/// A function of the PCI bus.
struct Function {
    path: String,
    driver: Option<&'static str>,
    /// Its auxiliary device, and whether a driver is bound to that.
    auxiliary: Option<(String, bool)>,
}

/// An RDMA device.
struct Device {
    name: String,
    registered: String,
    /// The object that it hangs below.
    parent: Option<String>,
    ports: u32,
    /// Each node's path.
    nodes: BTreeMap<String, String>,
}

impl Device {
    fn above(&self) -> &str {
        self.parent.as_deref().unwrap_or("devices/virtual")
    }
}

/// The machine.
pub struct Host {
    /// Its sysfs.
    pub tree: Tree,
    /// The events that nobody has received yet.
    pub sent: VecDeque<Sent>,
    /// What happened, for whoever has to find out why.
    pub story: Vec<String>,
    /// Of how many requests one finds the machine changed; none when it is 0.
    pub restless: u8,
    table: Table,
    rng: Rng,
    core: Core,
    functions: BTreeMap<String, Function>,
    devices: BTreeMap<u32, Device>,
    next_index: u32,
    next_number: u32,
    reloads: u32,
    sequence: u64,
}

impl Answers for Host {
    fn answer(&mut self, request: Request) -> Answer {
        if self.restless > 0 && self.rng.u8(..self.restless) == 0 {
            self.change();
        }
        self.table.answer(request)
    }
}

impl Host {
    /// A machine with nothing in it.
    pub fn new(rng: Rng) -> Self {
        let tree = Tree::new();
        for bus in ["pci", "auxiliary"] {
            tree.directory(&format!("bus/{bus}/devices"));
        }
        for (driver, module) in DRIVERS {
            make_driver(&tree, "pci", driver, module);
        }
        make_driver(&tree, "auxiliary", "mlx5_ib.rdma", "mlx5_ib");
        Self {
            tree,
            sent: VecDeque::new(),
            story: Vec::new(),
            restless: 0,
            table: Table::new(),
            rng,
            core: Core::Absent,
            functions: BTreeMap::new(),
            devices: BTreeMap::new(),
            next_index: 0,
            next_number: 0,
            reloads: 0,
            sequence: 0,
        }
    }

    /// The name that each device was registered under.
    pub fn registered(&self) -> BTreeMap<i64, &str> {
        let devices = self.devices.iter();
        devices
            .map(|(index, device)| (i64::from(*index), device.registered.as_str()))
            .collect()
    }

    /// Whether an index may have been another device's.
    pub fn reuses_indexes(&self) -> bool {
        self.reloads > 0
    }

    /// Something that has nothing to do with RDMA happens.
    pub fn tick(&mut self) {
        self.send("change", "devices/virtual/block/loop0", "block");
    }

    /// Changes something.
    pub fn change(&mut self) {
        match self.rng.u8(..32) {
            0..=3 => self.plug_or_unplug(),
            4..=6 => self.bind_or_unbind(),
            7..=10 => self.change_auxiliary(),
            11..=17 => self.register(),
            18..=19 => self.unregister_one(),
            20..=22 => self.rename(),
            23..=25 => self.change_port(),
            26..=28 => self.change_node(),
            29 => self.load_or_unload_protocol_module(),
            _ => self.load_or_unload_core(),
        }
    }

    fn send(&mut self, action: &'static str, path: &str, subsystem: &'static str) {
        self.send_moved(action, path, None, subsystem);
    }

    fn send_moved(
        &mut self,
        action: &'static str,
        path: &str,
        old: Option<&str>,
        subsystem: &'static str,
    ) {
        self.sequence += 1;
        self.story.push(format!("{action} {path}"));
        self.sent.push_back(Sent {
            action,
            devpath: format!("/{path}"),
            devpath_old: old.map(|old| format!("/{old}")),
            subsystem,
            sequence: self.sequence,
        });
    }

    fn any_function(&mut self) -> Option<String> {
        self.rng.choice(self.functions.keys()).cloned()
    }

    fn any_device(&mut self) -> Option<u32> {
        self.rng.choice(self.devices.keys()).copied()
    }

    fn free_name(&mut self) -> Option<&'static str> {
        let taken = |name: &&str| self.devices.values().any(|device| device.name == **name);
        let free = NAMES.iter().filter(|name| !taken(name));
        self.rng.choice(free.collect::<Vec<_>>()).copied()
    }

    fn plug_or_unplug(&mut self) {
        let address = format!("0000:c1:00.{}", self.rng.u8(..3));
        if self.functions.contains_key(&address) {
            self.unplug(&address);
            return;
        }
        let path = format!("{BUS}/{address}");
        let class = self.rng.choice(["0x020000", "0x020700"]).unwrap();
        self.tree.file(&format!("{path}/class"), class);
        self.tree.link_to(&format!("{path}/subsystem"), "bus/pci");
        let in_bus = format!("bus/pci/devices/{address}");
        self.tree.link_to(&in_bus, &path);
        self.send("add", &path, "pci");
        let function = Function {
            path,
            driver: None,
            auxiliary: None,
        };
        self.functions.insert(address, function);
    }

    fn unplug(&mut self, address: &str) {
        self.unbind(address);
        let function = self.functions.remove(address).unwrap();
        self.tree.remove(&format!("bus/pci/devices/{address}"));
        self.tree.remove(&function.path);
        self.send("remove", &function.path, "pci");
    }

    fn bind_or_unbind(&mut self) {
        let Some(address) = self.any_function() else {
            return;
        };
        if self.functions[&address].driver.is_some() {
            self.unbind(&address);
            return;
        }
        let (driver, _) = self.rng.choice(DRIVERS).unwrap();
        if driver == "efa" && self.core != Core::Live {
            return;
        }
        let function = self.functions.get_mut(&address).unwrap();
        function.driver = Some(driver);
        let path = function.path.clone();
        let link = format!("{path}/driver");
        self.tree
            .link_to(&link, &format!("bus/pci/drivers/{driver}"));
        self.send("bind", &path, "pci");
    }

    fn unbind(&mut self, address: &str) {
        self.remove_auxiliary(address);
        let function = self.functions.get_mut(address).unwrap();
        let path = function.path.clone();
        if function.driver.take().is_some() {
            self.unregister_below(&path);
            self.tree.remove(&format!("{path}/driver"));
            self.send("unbind", &path, "pci");
        }
    }

    fn change_auxiliary(&mut self) {
        let Some(address) = self.any_function() else {
            return;
        };
        let function = &self.functions[&address];
        let mlx5 = function.driver == Some("mlx5_core");
        match &function.auxiliary {
            None if mlx5 => {
                let path = format!("{}/mlx5_core.rdma.{}", function.path, self.next_number);
                self.next_number += 1;
                let name = path.rsplit('/').next().unwrap();
                let subsystem = format!("{path}/subsystem");
                self.tree.link_to(&subsystem, "bus/auxiliary");
                let in_bus = format!("bus/auxiliary/devices/{name}");
                self.tree.link_to(&in_bus, &path);
                self.send("add", &path, "auxiliary");
                self.functions.get_mut(&address).unwrap().auxiliary = Some((path, false));
            }
            Some((path, false)) if self.core == Core::Live => {
                let path = path.clone();
                let driver = "bus/auxiliary/drivers/mlx5_ib.rdma";
                self.tree.link_to(&format!("{path}/driver"), driver);
                self.send("bind", &path, "auxiliary");
                self.functions.get_mut(&address).unwrap().auxiliary = Some((path, true));
            }
            Some((_, true)) if self.rng.bool() => self.unbind_auxiliary(&address),
            Some(_) => self.remove_auxiliary(&address),
            None => {}
        }
    }

    fn unbind_auxiliary(&mut self, address: &str) {
        let function = self.functions.get_mut(address).unwrap();
        if let Some((path, true)) = function.auxiliary.clone() {
            function.auxiliary = Some((path.clone(), false));
            let above = function.path.clone();
            self.unregister_below(&above);
            self.tree.remove(&format!("{path}/driver"));
            self.send("unbind", &path, "auxiliary");
        }
    }

    fn remove_auxiliary(&mut self, address: &str) {
        self.unbind_auxiliary(address);
        let function = self.functions.get_mut(address).unwrap();
        if let Some((path, _)) = function.auxiliary.take() {
            let name = path.rsplit('/').next().unwrap();
            self.tree.remove(&format!("bus/auxiliary/devices/{name}"));
            self.tree.remove(&path);
            self.send("remove", &path, "auxiliary");
        }
    }

    /// Where an RDMA device can come from now: below a function, or by software.
    fn parents(&self) -> Vec<Option<String>> {
        let used = |path: &String| {
            self.devices
                .values()
                .any(|d| d.parent.as_ref() == Some(path))
        };
        let protocol_module = self.tree.has("module/iw_cxgb4");
        let ready = self.functions.values().filter(|function| {
            let bound = matches!(function.auxiliary, Some((_, true)));
            match function.driver {
                Some("efa") => true,
                Some("cxgb4") => protocol_module,
                _ => bound,
            }
        });
        let free = ready.map(|f| f.path.clone()).filter(|path| !used(path));
        free.map(Some).chain([None]).collect()
    }

    fn register(&mut self) {
        if self.core != Core::Live {
            return;
        }
        let Some(name) = self.free_name() else { return };
        let parent = self.rng.choice(self.parents()).unwrap();
        let device = Device {
            name: name.to_owned(),
            registered: name.to_owned(),
            parent,
            ports: self.rng.u32(1..=2),
            nodes: BTreeMap::new(),
        };
        let index = self.next_index;
        self.next_index += 1;
        let path = format!("{}/infiniband/{name}", device.above());
        let ports = device.ports;
        self.table.line(&format!(
            "device index={index} name={name} ports={ports} node_guid=1 node_type=1 protocol=ib"
        ));
        for number in 1..=ports {
            let line = format!("port device={index} number={number} state=1");
            self.table.line(&line);
            let port = format!("{path}/ports/{number}");
            self.tree.file(&format!("{port}/link_layer"), "InfiniBand");
            let rate = format!("{port}/rate");
            self.tree.file(&rate, "2.5 Gb/sec (1X SDR)");
        }
        if let Some(parent) = &device.parent {
            self.tree.link_to(&format!("{path}/device"), parent);
        }
        let class = format!("class/infiniband/{name}");
        self.tree.link_to(&class, &path);
        self.devices.insert(index, device);
        // Nodes come first, where the modules that make them are there.
        for _ in 0..self.rng.u8(..3) {
            self.add_node(index);
        }
        self.send("add", &path, "infiniband");
    }

    fn unregister_one(&mut self) {
        if let Some(index) = self.any_device() {
            self.unregister(index);
        }
    }

    fn unregister_below(&mut self, parent: &str) {
        let below = self.devices.iter();
        let below = below.filter(|(_, device)| device.parent.as_deref() == Some(parent));
        let indexes: Vec<u32> = below.map(|(index, _)| *index).collect();
        for index in indexes {
            self.unregister(index);
        }
    }

    fn unregister(&mut self, index: u32) {
        while let Some(name) = self.devices[&index].nodes.keys().next().cloned() {
            self.remove_node(index, &name);
        }
        let device = self.devices.remove(&index).unwrap();
        self.table.devices.remove(&index);
        self.table.ports.retain(|(of, _), _| *of != index);
        let path = format!("{}/infiniband/{}", device.above(), device.name);
        let class = format!("class/infiniband/{}", device.name);
        self.tree.remove(&class);
        self.tree.remove(&path);
        self.send("remove", &path, "infiniband");
    }

    fn rename(&mut self) {
        let (Some(index), Some(name)) = (self.any_device(), self.free_name()) else {
            return;
        };
        let device = self.devices.get_mut(&index).unwrap();
        let old = std::mem::replace(&mut device.name, name.to_owned());
        let (before, after) = self.tree.rename_rdma_device(&old, name);
        let fields = self.table.devices.get_mut(&index).unwrap();
        fields.set("name", Some(name));
        self.send_moved("move", &after, Some(&before), "infiniband");
    }

    /// The kernel does not tell of a port's state; of a network interface it does.
    fn change_port(&mut self) {
        let Some(index) = self.any_device() else {
            return;
        };
        let device = &self.devices[&index];
        let number = self.rng.u32(1..=device.ports);
        let path = format!("{}/infiniband/{}", device.above(), device.name);
        let port = self.table.ports.get_mut(&(index, number)).unwrap();
        match self.rng.u8(..3) {
            0 => {
                let netdev = port.get("netdev").is_none().then_some("eth0");
                port.set("netdev", netdev);
                let action = netdev.map_or("remove", |_| "add");
                self.send(action, "devices/virtual/net/eth0", "net");
            }
            _ => {
                let (state, rate) = match port.get("state") {
                    Some("1") => ("4", "100 Gb/sec (4X EDR)"),
                    _ => ("1", "2.5 Gb/sec (1X SDR)"),
                };
                port.set("state", Some(state));
                self.story.push(format!("{path} port {number}: {state}"));
                self.tree.file(&format!("{path}/ports/{number}/rate"), rate);
            }
        }
    }

    fn change_node(&mut self) {
        let Some(index) = self.any_device() else {
            return;
        };
        match self.devices[&index].nodes.keys().next().cloned() {
            Some(name) if self.rng.bool() => self.remove_node(index, &name),
            _ => self.add_node(index),
        }
    }

    /// Makes a node that the device does not have yet, if there is one left. Its number is the
    /// least that is free, as the kernel's is.
    fn add_node(&mut self, index: u32) {
        let device = &self.devices[&index];
        let port = self.rng.u32(1..=device.ports);
        let kind = self.rng.choice(["uverbs", "umad", "issm"]).unwrap();
        let of_port = |path: &String| {
            let port_file = self.tree.root().join(path).join("port");
            std::fs::read_to_string(port_file).ok()
        };
        let same = device.nodes.iter().any(|(name, path)| {
            let at = of_port(path).is_none_or(|at| at.trim_end() == port.to_string());
            name.starts_with(kind) && at
        });
        if same {
            return;
        }
        let (class, subsystem) = match kind {
            "uverbs" => ("infiniband_verbs", "infiniband_verbs"),
            _ => ("infiniband_mad", "infiniband_mad"),
        };
        let free = |number: &u32| !self.tree.has(&format!("class/{class}/{kind}{number}"));
        let name = format!("{kind}{}", (0..).find(free).unwrap());
        let path = format!("{}/{class}/{name}", device.above());
        self.tree.file(&format!("{path}/ibdev"), &device.name);
        if kind != "uverbs" {
            self.tree.file(&format!("{path}/port"), &port.to_string());
        }
        self.tree.link_to(&format!("class/{class}/{name}"), &path);
        self.send("add", &path, subsystem);
        let device = self.devices.get_mut(&index).unwrap();
        device.nodes.insert(name, path);
    }

    fn remove_node(&mut self, index: u32, name: &str) {
        let device = self.devices.get_mut(&index).unwrap();
        let path = device.nodes.remove(name).unwrap();
        let subsystem = match name.starts_with("uverbs") {
            true => "infiniband_verbs",
            false => "infiniband_mad",
        };
        self.tree.remove(&format!("class/{subsystem}/{name}"));
        self.tree.remove(&path);
        self.send("remove", &path, subsystem);
    }

    fn load_or_unload_protocol_module(&mut self) {
        let module = "module/iw_cxgb4";
        if !self.tree.has(module) {
            self.tree.directory(module);
            self.send("add", module, "module");
            return;
        }
        let functions = self.functions.values();
        let of_module = functions.filter(|function| function.driver == Some("cxgb4"));
        let paths: Vec<String> = of_module.map(|function| function.path.clone()).collect();
        for path in paths {
            self.unregister_below(&path);
        }
        self.tree.remove(module);
        self.send("remove", module, "module");
    }

    fn load_or_unload_core(&mut self) {
        match self.core {
            Core::Absent => {
                self.tree.directory("module/ib_core/holders");
                self.send("add", "module/ib_core", "module");
                self.core = Core::Loading;
            }
            Core::Loading => {
                self.tree.directory("class/infiniband");
                self.tree
                    .link_to("module/ib_core/holders/efa", "module/efa");
                self.story.push("ib_core is live".to_owned());
                self.core = Core::Live;
            }
            // Seldom, for it takes everything along.
            Core::Live if self.rng.u8(..4) == 0 => self.unload_core(),
            Core::Live => {}
        }
    }

    fn unload_core(&mut self) {
        for address in self.functions.keys().cloned().collect::<Vec<_>>() {
            self.unbind_auxiliary(&address);
            if self.functions[&address].driver == Some("efa") {
                self.unbind(&address);
            }
        }
        for index in self.devices.keys().copied().collect::<Vec<_>>() {
            self.unregister(index);
        }
        for class in ["infiniband", "infiniband_verbs", "infiniband_mad"] {
            if self.tree.has(&format!("class/{class}")) {
                self.tree.remove(&format!("class/{class}"));
            }
        }
        self.tree.remove("module/ib_core");
        self.send("remove", "module/ib_core", "module");
        self.core = Core::Absent;
        // Indexes begin anew.
        self.next_index = 0;
        self.reloads += 1;
        if self.rng.bool() {
            self.load_or_unload_core();
            self.load_or_unload_core();
            self.register();
        }
    }
}

fn make_driver(tree: &Tree, bus: &str, driver: &str, module: &str) {
    tree.directory(&format!("module/{module}"));
    let link = format!("bus/{bus}/drivers/{driver}/module");
    tree.link_to(&link, &format!("module/{module}"));
}

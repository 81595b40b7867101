//! A simulated host that changes at random, as the kernel would change it: the tree, the replies,
//! and the uevents. Some changes happen while the detector reads the state. Must never send an
//! event that the kernel does not send, nor withhold one.

#[path = "host/rdma.rs"]
mod rdma;

use std::collections::{BTreeMap, VecDeque};

use detector::uevent::Uevent;
use fastrand::Rng;
use integration::wire::{Answer, Request};

use super::nldev::{Answers, Table};
use super::tree::Tree;
use rdma::Device;

const BUS: &str = "devices/pci0000:c0";
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
    /// Returns the event in its decoded form.
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

/// The state of the RDMA core. It is loaded in two steps: the kernel announces its module before it
/// has a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    Absent,
    Loading,
    Live,
}

/// A function on the PCI bus.
struct Function {
    path: String,
    driver: Option<&'static str>,
    /// The function's auxiliary device, and true if a driver is bound to it.
    auxiliary: Option<(String, bool)>,
}

/// The simulated host.
pub struct RandomHost {
    /// The sysfs tree.
    pub tree: Tree,
    /// The events that are sent and not yet received.
    pub sent: VecDeque<Sent>,
    /// The changes so far, printed if a test fails.
    pub story: Vec<String>,
    /// One in this number of requests changes the host before its reply. 0 means that none does.
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

impl Answers for RandomHost {
    fn answer(&mut self, request: Request) -> Answer {
        if self.restless > 0 && self.rng.u8(..self.restless) == 0 {
            self.change();
        }
        self.table.answer(request)
    }
}

impl RandomHost {
    /// Creates an empty host.
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

    /// Returns the name under which each device was registered.
    pub fn registered(&self) -> BTreeMap<i64, &str> {
        let devices = self.devices.iter();
        devices
            .map(|(index, device)| (i64::from(*index), device.registered.as_str()))
            .collect()
    }

    /// Returns true if a new device may have the index of an earlier one.
    pub fn reuses_indexes(&self) -> bool {
        self.reloads > 0
    }

    /// Sends an event that is unrelated to RDMA.
    pub fn tick(&mut self) {
        self.send("change", "devices/virtual/block/loop0", "block");
    }

    /// Makes a random change.
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
        // Some functions are used only for their virtual functions.
        if self.rng.u8(..4) > 0 {
            self.tree.directory(&format!("{path}/net/eth1"));
        }
        self.send("bind", &path, "pci");
    }

    fn unbind(&mut self, address: &str) {
        self.remove_auxiliary(address);
        let function = self.functions.get_mut(address).unwrap();
        let path = function.path.clone();
        if function.driver.take().is_some() {
            self.unregister_below(&path);
            self.tree.remove(&format!("{path}/driver"));
            if self.tree.has(&format!("{path}/net")) {
                self.tree.remove(&format!("{path}/net"));
            }
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

    fn load_or_unload_protocol_module(&mut self) {
        let module = "module/iw_cxgb4";
        if !self.tree.has(module) {
            // The kernel announces a module before its initialisation, and sends no event at its
            // end.
            self.tree.file(&format!("{module}/initstate"), "coming");
            self.send("add", module, "module");
            return;
        }
        if !self.protocol_module_is_live() {
            self.tree.file(&format!("{module}/initstate"), "live");
            self.story.push("iw_cxgb4 is live".to_owned());
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

    fn protocol_module_is_live(&self) -> bool {
        let state = self.tree.root().join("module/iw_cxgb4/initstate");
        std::fs::read_to_string(state).is_ok_and(|state| state == "live\n")
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
            // Rare, because it removes all devices.
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
        // Indexes start at 0 again.
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

//! Random changes of the RDMA devices of a host, of their ports and of their nodes. Must never
//! leave anything of a removed device behind.

use std::collections::BTreeMap;

use super::{Core, RandomHost};

/// Few names, so that a new device soon reuses one.
const NAMES: [&str; 16] = [
    "mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3", "ibp1", "ibp2", "rocep1", "rocep2", "rxe0", "rxe1",
    "rxe2", "rxe3", "rxe4", "rxe5", "rxe6", "rxe7",
];

/// An RDMA device.
pub(super) struct Device {
    name: String,
    pub(super) registered: String,
    /// The parent object.
    parent: Option<String>,
    ports: u32,
    /// The path of each node.
    nodes: BTreeMap<String, String>,
}

impl Device {
    fn above(&self) -> &str {
        self.parent.as_deref().unwrap_or("devices/virtual")
    }
}

impl RandomHost {
    fn any_device(&mut self) -> Option<u32> {
        self.rng.choice(self.devices.keys()).copied()
    }

    fn free_name(&mut self) -> Option<&'static str> {
        let taken = |name: &&str| self.devices.values().any(|device| device.name == **name);
        let free = NAMES.iter().filter(|name| !taken(name));
        self.rng.choice(free.collect::<Vec<_>>()).copied()
    }

    /// Returns the possible parents of a new RDMA device: functions, or none for a software device.
    fn parents(&self) -> Vec<Option<String>> {
        let used = |path: &String| {
            self.devices
                .values()
                .any(|d| d.parent.as_ref() == Some(path))
        };
        let protocol_module = self.protocol_module_is_live();
        let ready = self.functions.values().filter(|function| {
            let bound = matches!(function.auxiliary, Some((_, true)));
            match function.driver {
                Some("efa") => true,
                Some("cxgb4") => {
                    protocol_module && self.tree.has(&format!("{}/net", function.path))
                }
                _ => bound,
            }
        });
        let free = ready.map(|f| f.path.clone()).filter(|path| !used(path));
        free.map(Some).chain([None]).collect()
    }

    pub(super) fn register(&mut self) {
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
        // Nodes appear first, if the modules that create them are loaded.
        for _ in 0..self.rng.u8(..3) {
            self.add_node(index);
        }
        self.send("add", &path, "infiniband");
    }

    /// Loads the RDMA core and registers many devices.
    pub fn crowd(&mut self) {
        while self.core != Core::Live {
            self.load_or_unload_core();
        }
        for _ in 0..NAMES.len() - 4 {
            self.register();
        }
    }

    pub(super) fn unregister_one(&mut self) {
        if let Some(index) = self.any_device() {
            self.unregister(index);
        }
    }

    pub(super) fn unregister_below(&mut self, parent: &str) {
        let below = self.devices.iter();
        let below = below.filter(|(_, device)| device.parent.as_deref() == Some(parent));
        let indexes: Vec<u32> = below.map(|(index, _)| *index).collect();
        for index in indexes {
            self.unregister(index);
        }
    }

    pub(super) fn unregister(&mut self, index: u32) {
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

    pub(super) fn rename(&mut self) {
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

    /// Changes a port. The kernel sends no event for a port's state, but it does for a network
    /// interface.
    pub(super) fn change_port(&mut self) {
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

    pub(super) fn change_node(&mut self) {
        let Some(index) = self.any_device() else {
            return;
        };
        match self.devices[&index].nodes.keys().next().cloned() {
            Some(name) if self.rng.bool() => self.remove_node(index, &name),
            _ => self.add_node(index),
        }
    }

    /// Creates a node that the device does not have yet, if there is one. Its number is the lowest
    /// free one, as in the kernel.
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
}

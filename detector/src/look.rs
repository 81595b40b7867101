//! Looking: the kernel is asked what is true, and only what may be different is read anew.
//! Responsible for what is known of each device being of one moment: whatever was read is
//! compared with the kernel's list once more. Blocks, for a device's firmware may; must never be
//! called where others wait. Must never publish or decide anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::{Device, NetnsMode};
use interfaces::names::NameError;

use crate::device::assemble;
use crate::function::SysfsFunction;
use crate::inventory::{Found, Seen};
use crate::netlink::{RdmaSocket, RequestError};
use crate::nldev::{NldevDevice, NldevError, NldevPort, NldevSystem, Query};
use crate::node::{self, DeviceNodes, Node};
use crate::pending::Pending;
use crate::sysfs::Sysfs;

/// What the kernel answers for a device that it does not have (`nldev_port_get_dumpit()`).
const EINVAL: i32 = 22;
/// The same, for one that is about to go.
const ENODEV: i32 = 19;
/// How often the list is compared again while devices change under a look. What changes after
/// that has an event of its own.
const ROUNDS: u32 = 3;

/// Where the kernel is asked, and what it said last.
pub struct Eyes {
    sysfs: Sysfs,
    /// The socket that was passed. One of our own is opened for each look: ib_core cannot be
    /// unloaded while a socket of its family is open.
    passed: Option<RdmaSocket>,
    known: BTreeMap<u32, Known>,
    nodes: BTreeMap<String, Node>,
    functions: Arc<BTreeMap<String, SysfsFunction>>,
    system: NldevSystem,
    /// Names that were refused, so that each is logged once.
    refused: BTreeSet<String>,
}

/// How much of a device is to be read anew, whatever is known of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// The ports; the rest when they are different.
    Ports,
    Record,
}

struct Known {
    device: NldevDevice,
    ports: Vec<NldevPort>,
    found: Found,
}

/// What a look gave.
#[derive(Debug)]
pub struct Looked {
    /// What there is.
    pub seen: Seen,
    /// Whether ib_core is there.
    pub ib_core: bool,
    /// How the kernel's RDMA core is set up; as it is without a device when there is none.
    pub system: NldevSystem,
    /// So many devices were read anew.
    pub device_reads: i64,
}

impl Eyes {
    /// Eyes that have not looked.
    #[must_use]
    pub fn new(sysfs: Sysfs, passed: Option<RdmaSocket>) -> Self {
        Self {
            sysfs,
            passed,
            known: BTreeMap::new(),
            nodes: BTreeMap::new(),
            functions: Arc::default(),
            system: NldevSystem::default(),
            refused: BTreeSet::new(),
        }
    }

    /// Looks at what is pending, and says what there is.
    ///
    /// # Errors
    /// When the kernel's answer cannot be used. What is pending is so still.
    pub fn look(&mut self, pending: &Pending) -> Result<Looked, RequestError> {
        let ib_core = self.sysfs.has_ib_core();
        let mut device_reads = 0;
        if ib_core {
            self.look_at_nodes(pending);
            let mut passed = self.passed.take();
            let outcome = match &mut passed {
                Some(passed) => self.look_at_devices(passed, pending),
                None => RdmaSocket::open()
                    .map_err(RequestError::from)
                    .and_then(|mut own| self.look_at_devices(&mut own, pending)),
            };
            self.passed = passed;
            device_reads = outcome?;
        } else {
            self.known.clear();
            self.nodes.clear();
            self.system = NldevSystem::default();
        }
        self.look_at_functions(pending);
        Ok(Looked {
            seen: Seen {
                devices: self
                    .known
                    .values()
                    .map(|known| known.found.clone())
                    .collect(),
                functions: Arc::clone(&self.functions),
                with_nodes: self
                    .nodes
                    .values()
                    .map(|node| node.device.clone())
                    .collect(),
                exclusive: self.system.netns_shared == Some(false),
            },
            ib_core,
            system: self.system,
            device_reads,
        })
    }

    fn look_at_nodes(&mut self, pending: &Pending) {
        if pending.everything {
            self.nodes = self.sysfs.nodes();
            return;
        }
        // Those of a renamed device belong to another name now.
        let mut nodes = self.nodes_of(|device| pending.names.contains(device));
        nodes.extend(pending.nodes.iter().cloned());
        self.read_nodes(&nodes);
    }

    /// The nodes of the devices with these names.
    fn nodes_of(&self, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let nodes = self.nodes.iter();
        let wanted = nodes.filter(|(_, node)| is_wanted(&node.device));
        wanted.map(|(name, _)| name.clone()).collect()
    }

    fn read_nodes(&mut self, names: &BTreeSet<String>) {
        for name in names {
            match self.sysfs.node(name) {
                Some(node) => self.nodes.insert(name.clone(), node),
                None => self.nodes.remove(name),
            };
        }
    }

    /// Compares the kernel's list with what is known until nothing differs, so that whatever is
    /// read of a name was read while it was that device's.
    fn look_at_devices(
        &mut self,
        rdma: &mut RdmaSocket,
        pending: &Pending,
    ) -> Result<i64, RequestError> {
        let system = system(rdma)?;
        // It stands in every record.
        let everything = pending.everything || system != self.system;
        self.system = system;
        let mut reads = 0;
        for round in 0..ROUNDS {
            let listed = self.list(rdma)?;
            self.forget_all_but(&listed);
            let nodes = std::mem::take(&mut self.nodes);
            let by_device = node::by_device(&nodes);
            let mut read = 0;
            for device in listed {
                let nodes = by_device
                    .get(device.name.as_str())
                    .cloned()
                    .unwrap_or_default();
                let named = everything || pending.names_device(&device);
                let wanted = match (round, named, pending.ports) {
                    (0, true, _) => Wanted::Record,
                    (0, false, true) => Wanted::Ports,
                    _ => Wanted::Nothing,
                };
                read += i64::from(self.look_at_device(rdma, device, &nodes, wanted)?);
            }
            self.nodes = nodes;
            reads += read;
            if read == 0 {
                break;
            }
        }
        self.name_registrations(pending);
        Ok(reads)
    }

    /// Forgets the devices that are not listed, and to whom the nodes of those belong that are
    /// listed under another name.
    fn forget_all_but(&mut self, listed: &[NldevDevice]) {
        let listed: BTreeMap<u32, &NldevDevice> = listed.iter().map(|d| (d.index, d)).collect();
        self.known.retain(|index, _| listed.contains_key(index));
        let renamed = self.known.values().filter(|known| {
            let listed = listed.get(&known.device.index);
            listed.is_some_and(|device| device.name != known.device.name)
        });
        let renamed: BTreeSet<&str> = renamed.map(|known| known.device.name.as_str()).collect();
        let nodes = self.nodes_of(|device| renamed.contains(device));
        self.read_nodes(&nodes);
    }

    /// Reads a device when something of it may be different; says whether it was read.
    fn look_at_device(
        &mut self,
        rdma: &mut RdmaSocket,
        device: NldevDevice,
        nodes: &DeviceNodes,
        wanted: Wanted,
    ) -> Result<bool, RequestError> {
        let known = self.known.get(&device.index);
        let same = known.is_some_and(|known| known.device == device && has_nodes(known, nodes));
        let stale = !same || wanted == Wanted::Record;
        if !stale && wanted == Wanted::Nothing {
            return Ok(false);
        }
        let ports = match rdma.ask(Query::Ports(device.index), NldevPort::parse) {
            Ok(ports) => ports,
            // Gone since it was listed; its uevent leads to the next look.
            Err(RequestError::Reply(NldevError::Refused(EINVAL | ENODEV))) => {
                self.known.remove(&device.index);
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        if !stale && known.is_some_and(|known| known.ports == ports) {
            return Ok(false);
        }
        let netdev = ports.first().and_then(|port| port.netdev.as_deref());
        let sysfs = self.sysfs.device(&device.name, netdev);
        let mut record = assemble(&device, &ports, &sysfs, nodes, netns_mode(self.system));
        record.kernel_name = known.and_then(|known| known.found.record.kernel_name.clone());
        let record = match known {
            Some(known) if *known.found.record == record => Arc::clone(&known.found.record),
            _ => Arc::new(record),
        };
        let found = Found {
            record,
            parent: sysfs.parent,
        };
        self.known.insert(
            device.index,
            Known {
                device,
                ports,
                found,
            },
        );
        Ok(true)
    }

    fn list(&mut self, rdma: &mut RdmaSocket) -> Result<Vec<NldevDevice>, RequestError> {
        let listed = rdma.ask(Query::Devices, parse_named)?;
        // One name that is none must not hide the others' devices.
        let named = listed.into_iter().filter_map(|device| match device {
            Ok(device) => Some(device),
            Err(e) => {
                let message = e.to_string();
                if !self.refused.contains(&message) {
                    tracing::warn!("a device is left out: {message}");
                    self.refused.insert(message);
                }
                None
            }
        });
        Ok(named.collect())
    }

    /// Notes the name that a device was registered under, which only its event has told.
    fn name_registrations(&mut self, pending: &Pending) {
        if pending.kernel_names.is_empty() {
            return;
        }
        for known in self.known.values_mut() {
            let record = &known.found.record;
            let registered = pending.kernel_names.get(&record.name);
            if let Some(registered) = registered.filter(|_| record.kernel_name.is_none()) {
                let mut named = Device::clone(record);
                named.kernel_name = Some(registered.clone());
                known.found.record = Arc::new(named);
            }
        }
    }

    fn look_at_functions(&mut self, pending: &Pending) {
        if pending.everything || pending.all_functions {
            self.functions = Arc::new(self.sysfs.functions());
        } else if !pending.functions.is_empty() {
            let functions = Arc::make_mut(&mut self.functions);
            for devpath in &pending.functions {
                match self.sysfs.function(devpath) {
                    Some(function) => functions.insert(devpath.clone(), function),
                    None => functions.remove(devpath),
                };
            }
        }
    }
}

/// How the kernel shares devices between network namespaces, where it says so.
#[must_use]
pub fn netns_mode(system: NldevSystem) -> Option<NetnsMode> {
    match system.netns_shared? {
        true => Some(NetnsMode::Shared),
        false => Some(NetnsMode::Exclusive),
    }
}

/// Whether the record names these nodes.
fn has_nodes(known: &Known, nodes: &DeviceNodes) -> bool {
    let record = &known.found.record;
    let umad = record.ports.iter().filter_map(|port| port.umad.as_ref());
    let issm = record.ports.iter().filter_map(|port| port.issm.as_ref());
    record.uverbs == nodes.uverbs && umad.eq(nodes.umad.values()) && issm.eq(nodes.issm.values())
}

/// Kernels before 5.2 do not know the question.
fn system(rdma: &mut RdmaSocket) -> Result<NldevSystem, RequestError> {
    match rdma.ask(Query::System, NldevSystem::parse) {
        Ok(answers) => Ok(answers.first().copied().unwrap_or_default()),
        Err(RequestError::Reply(NldevError::Refused(_))) => Ok(NldevSystem::default()),
        Err(e) => Err(e),
    }
}

/// Keeps a name that is none apart from a reply that cannot be read.
fn parse_named(payload: &[u8]) -> Result<Result<NldevDevice, NameError>, NldevError> {
    match NldevDevice::parse(payload) {
        Err(NldevError::Name(e)) => Ok(Err(e)),
        other => other.map(Ok),
    }
}

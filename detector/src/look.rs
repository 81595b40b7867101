//! Looking: the kernel is asked what is true, and only what may be different is read anew.
//! Responsible for what is known of each device being of one moment: whatever was read is
//! compared with the kernel's list once more. Blocks, for a device's firmware may; must never be
//! called where others wait. Must never publish or decide anything.

mod listed;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::{Device, NetnsMode};
use interfaces::names::ModuleName;

use crate::device::assemble;
use crate::function::SysfsFunction;
use crate::inventory::{Found, Seen};
use crate::netlink::{RdmaSocket, RequestError};
use crate::nldev::{NldevError, NldevPort, NldevSystem, Query};
use crate::node::DeviceNodes;
use crate::pending::Pending;
use crate::refusal::{Refusal, Refusals};
use crate::sysfs::{Sysfs, too_many_functions};
use listed::{Listed, Told};
use nodes::Nodes;

/// The most devices that are published, several times what the largest machines have.
const MAX_DEVICES: usize = 4096;
/// The most functions that are published.
const MAX_FUNCTIONS: usize = 4096;
/// What the kernel answers for a device that it does not have (`nldev_port_get_dumpit()`).
const EINVAL: i32 = 22;
/// The same, for one that is about to go.
const ENODEV: i32 = 19;
/// How often is read what changes under a look. What changes after that has an event of its own.
const ROUNDS: u32 = 3;
/// Asking for one device costs about as much as this many of a list do.
const OF_A_LIST: usize = 2;

/// Where the kernel is asked, and what it said last.
pub struct Eyes {
    sysfs: Sysfs,
    /// The socket that was passed. One of our own is opened for each look: ib_core cannot be
    /// unloaded while a socket of its family is open.
    passed: Option<RdmaSocket>,
    known: BTreeMap<u32, Known>,
    /// The highest index of a device so far: they are given in order.
    highest: Option<u32>,
    nodes: Nodes,
    functions: Arc<BTreeMap<String, SysfsFunction>>,
    system: NldevSystem,
    /// What was left out, so that each is logged once.
    refusals: Refusals,
}

/// A device of which something is to be read.
struct Due {
    index: u32,
    /// What the kernel's list says of it, when that is not what is known.
    told: Option<Told>,
    /// Whether nothing of it is to be read but the ports, as long as they are the same.
    ports_alone: bool,
}

struct Known {
    /// What the kernel's list said of it.
    reply: Box<[u8]>,
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
    /// Whether something may be different soon without an event.
    pub in_motion: bool,
    /// So many different records were left out since the start: 0 to 256.
    pub refused: i64,
    /// The last 8 of them, and why.
    pub last_refused: Vec<String>,
}

impl Eyes {
    /// Eyes that have not looked.
    #[must_use]
    pub fn new(sysfs: Sysfs, passed: Option<RdmaSocket>) -> Self {
        Self {
            sysfs,
            passed,
            known: BTreeMap::new(),
            highest: None,
            nodes: Nodes::default(),
            functions: Arc::default(),
            system: NldevSystem::default(),
            refusals: Refusals::default(),
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
            self.nodes = Nodes::default();
            self.highest = None;
            self.system = NldevSystem::default();
        }
        let same_functions = !self.look_at_functions(pending);
        let modules = self.look_at_modules(pending);
        Ok(Looked {
            in_motion: self.functions.values().any(SysfsFunction::is_in_motion),
            seen: self.seen(modules, same_functions),
            ib_core,
            system: self.system,
            device_reads,
            refused: i64::try_from(self.refusals.count()).unwrap_or(i64::MAX),
            last_refused: self.refusals.last().map(ToString::to_string).collect(),
        })
    }

    fn seen(&self, modules: BTreeMap<String, bool>, same_functions: bool) -> Seen {
        let exclusive = self.system.netns_shared == Some(false);
        Seen {
            devices: self.known.values().map(|k| k.found.clone()).collect(),
            functions: Arc::clone(&self.functions),
            same_functions,
            modules,
            // They are many, and matter only where a device can be elsewhere.
            with_nodes: match exclusive {
                true => self.nodes.owners(),
                false => BTreeSet::new(),
            },
            exclusive,
        }
    }

    /// Whether each module that came or went is there.
    fn look_at_modules(&mut self, pending: &Pending) -> BTreeMap<String, bool> {
        let mut modules = BTreeMap::new();
        for name in &pending.modules {
            match ModuleName::parse(name) {
                Ok(_) => {
                    modules.insert(name.clone(), self.sysfs.has_module(name));
                }
                Err(e) => self.refuse(Refusal::at("a module", e)),
            }
        }
        modules
    }

    /// Leaves one record out. Which one, is said in the log once.
    fn refuse(&mut self, refusal: Refusal) {
        let message = refusal.to_string();
        if self.refusals.note(refusal) {
            tracing::warn!("left out: {message}");
        }
    }

    fn refuse_each(&mut self, refused: Vec<Refusal>) {
        for refusal in refused {
            self.refuse(refusal);
        }
    }

    fn look_at_nodes(&mut self, pending: &Pending) {
        if pending.everything || pending.all_nodes {
            let refused = self.nodes.read_all(&self.sysfs);
            self.refuse_each(refused);
        } else {
            // Those of a renamed device belong to another name now.
            self.nodes.read_of(&self.sysfs, &pending.names);
            self.nodes.read(&self.sysfs, &pending.nodes);
        }
    }

    /// Reads what may be different, and then asks again what was read, until nothing differs: so
    /// whatever is read of a name was read while it was that device's.
    fn look_at_devices(
        &mut self,
        rdma: &mut RdmaSocket,
        pending: &Pending,
    ) -> Result<i64, RequestError> {
        let system = self.system(rdma)?;
        // It stands in every record.
        let everything = pending.everything || system != self.system;
        self.system = system;
        let named = match everything || pending.is_of_all() {
            true => None,
            false => self.list_named(rdma, pending)?,
        };
        let listed = match named {
            Some(listed) => listed,
            None => self.list_all(rdma)?,
        };
        let mut due = self.due(listed, everything, pending);
        let mut reads = 0;
        for _ in 0..ROUNDS {
            let read = self.look_at_each(rdma, due)?;
            self.nodes.are_told();
            if read.is_empty() {
                break;
            }
            reads += i64::try_from(read.len()).unwrap_or(i64::MAX);
            due = self.compare(rdma, &read)?;
        }
        self.name_registrations(pending);
        Ok(reads)
    }

    /// How the RDMA core is set up. Kernels before 5.2 do not know the question.
    fn system(&mut self, rdma: &mut RdmaSocket) -> Result<NldevSystem, RequestError> {
        let answers = match rdma.ask(Query::System, NldevSystem::parse) {
            Err(RequestError::Reply(NldevError::Refused(_))) => Vec::new(),
            answers => answers?,
        };
        match answers.into_iter().next() {
            Some(Ok(system)) => Ok(system),
            Some(Err(e)) => {
                self.refuse(Refusal::at("how the RDMA core is set up", e));
                Ok(NldevSystem::default())
            }
            None => Ok(NldevSystem::default()),
        }
    }

    /// The kernel's whole list. What is not in it is forgotten.
    fn list_all(&mut self, rdma: &mut RdmaSocket) -> Result<Vec<Listed>, RequestError> {
        let listed = self.list(rdma)?;
        let listed = self.leave_out_refused(listed);
        self.forget_all_but(&listed);
        self.highest = self
            .highest
            .max(listed.iter().filter_map(Listed::index).max());
        Ok(listed)
    }

    /// Of the kernel's list what is pending, asked for by index, where that costs less than the
    /// whole list. A device that came has the next index; nothing when there is one whose index
    /// is not found that way.
    fn list_named(
        &mut self,
        rdma: &mut RdmaSocket,
        pending: &Pending,
    ) -> Result<Option<Vec<Listed>>, RequestError> {
        let known = self.known.iter().filter(|(index, known)| {
            let name = &known.found.record.name;
            pending.names_device(**index, name) || self.nodes.are_others(name)
        });
        let known = known.map(|(index, _)| *index);
        let asked: BTreeSet<u32> = known.chain(pending.indexes.iter().copied()).collect();
        if (asked.len() + pending.names.len()) * OF_A_LIST > self.known.len() {
            return Ok(None);
        }
        let mut listed = Vec::new();
        for index in asked {
            listed.extend(self.ask_for(rdma, index)?);
        }
        let mut missing = self.missing(pending, &listed);
        while !missing.is_empty() {
            // Whether there is room for one more, the whole list says.
            if self.known.len() + listed.len() >= MAX_DEVICES {
                return Ok(None);
            }
            let next = self.highest.map_or(0, |highest| highest.saturating_add(1));
            let Some(came) = self.ask_for(rdma, next)? else {
                return Ok(None);
            };
            self.highest = Some(next);
            if let Listed::Other(told) = &came {
                missing.remove(told.device.name.as_str());
            }
            listed.push(came);
        }
        Ok(Some(self.leave_out_refused(listed)))
    }

    /// The names that are pending and there, and that no device has of which we know.
    fn missing<'p>(&self, pending: &'p Pending, listed: &[Listed]) -> BTreeSet<&'p str> {
        let here = pending.names.iter().map(String::as_str);
        let mut missing: BTreeSet<&str> = here.filter(|name| self.sysfs.has_device(name)).collect();
        let told = listed.iter().filter_map(|listed| match listed {
            Listed::Same(index) => Some(self.known.get(index)?.found.record.name.as_str()),
            Listed::Other(told) => Some(told.device.name.as_str()),
            Listed::Refused(..) => None,
        });
        for name in told {
            missing.remove(name);
        }
        missing
    }

    /// One entry of the kernel's list; nothing, and forgotten, when there is no such device.
    fn ask_for(
        &mut self,
        rdma: &mut RdmaSocket,
        index: u32,
    ) -> Result<Option<Listed>, RequestError> {
        match rdma.ask(Query::Device(index), |reply| self.listed(reply)) {
            Ok(answer) => Ok(answer.into_iter().next()),
            Err(e) if is_gone(&e) => {
                self.known.remove(&index);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Of what something is to be read.
    fn due(&mut self, listed: Vec<Listed>, everything: bool, pending: &Pending) -> Vec<Due> {
        self.follow_renames(&listed);
        let due = listed.into_iter().filter_map(|listed| match listed {
            Listed::Same(index) => {
                let name = &self.known.get(&index)?.found.record.name;
                let record =
                    everything || pending.names_device(index, name) || self.nodes.are_others(name);
                (record || pending.ports).then_some(Due {
                    index,
                    told: None,
                    ports_alone: !record,
                })
            }
            Listed::Other(told) => Some(Due {
                index: told.device.index,
                told: Some(told),
                ports_alone: false,
            }),
            Listed::Refused(..) => None,
        });
        due.collect()
    }

    /// The nodes of a device that has another name are read anew, for they tell that name.
    fn follow_renames(&mut self, listed: &[Listed]) {
        let renamed = listed.iter().filter_map(|listed| match listed {
            Listed::Other(told) => {
                let known = self.known.get(&told.device.index)?;
                let name = &known.found.record.name;
                (*name != told.device.name.as_str()).then(|| name.clone())
            }
            _ => None,
        });
        self.nodes.read_of(&self.sysfs, &renamed.collect());
    }

    /// Forgets the devices that are not listed.
    fn forget_all_but(&mut self, listed: &[Listed]) {
        let indexes: BTreeSet<u32> = listed.iter().filter_map(Listed::index).collect();
        if indexes.len() != self.known.len() || !self.known.keys().eq(indexes.iter()) {
            self.known.retain(|index, _| indexes.contains(index));
        }
    }

    /// Asks again for those that were read, and says which of them are others by now.
    fn compare(&mut self, rdma: &mut RdmaSocket, read: &[u32]) -> Result<Vec<Due>, RequestError> {
        let mut listed = Vec::new();
        if read.len() * OF_A_LIST > self.known.len() {
            let read: BTreeSet<u32> = read.iter().copied().collect();
            let all = self.list(rdma)?;
            self.forget_all_but(&all);
            // Who came meanwhile has an event of its own.
            listed.extend(all.into_iter().filter(
                |listed| matches!(listed, Listed::Other(told) if read.contains(&told.device.index)),
            ));
        } else {
            for index in read {
                listed.extend(self.ask_for(rdma, *index)?);
            }
            listed = self.leave_out_refused(listed);
        }
        Ok(self.due(listed, false, &Pending::default()))
    }

    /// Reads what is due, and says which devices were read anew.
    fn look_at_each(
        &mut self,
        rdma: &mut RdmaSocket,
        due: Vec<Due>,
    ) -> Result<Vec<u32>, RequestError> {
        let nodes = self.nodes_of_due(&due);
        let mut read = Vec::new();
        for due in due {
            let index = due.index;
            let nodes = nodes.get(&index);
            if self.look_at_device(rdma, due, nodes.unwrap_or(&DeviceNodes::default()))? {
                read.push(index);
            }
        }
        Ok(read)
    }

    fn nodes_of_due(&self, due: &[Due]) -> BTreeMap<u32, DeviceNodes> {
        let named = due.iter().filter_map(|due| {
            let name = match &due.told {
                Some(told) => told.device.name.as_str(),
                None => self.known.get(&due.index)?.found.record.name.as_str(),
            };
            Some((due.index, name))
        });
        let named: Vec<(u32, &str)> = named.collect();
        let nodes = self
            .nodes
            .of(&named.iter().map(|(_, name)| *name).collect());
        let with_nodes = named.into_iter();
        with_nodes
            .filter_map(|(index, name)| Some((index, nodes.get(name)?.clone())))
            .collect()
    }

    /// Reads a device when something of it may be different; says whether it was read.
    fn look_at_device(
        &mut self,
        rdma: &mut RdmaSocket,
        due: Due,
        nodes: &DeviceNodes,
    ) -> Result<bool, RequestError> {
        let ports = match rdma.ask(Query::Ports(due.index), NldevPort::parse) {
            Ok(ports) => self.usable_ports(due.index, ports),
            // Gone since it was listed; its uevent leads to the next look.
            Err(e) if is_gone(&e) => {
                self.known.remove(&due.index);
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        let known = self.known.get(&due.index);
        if due.ports_alone && known.is_some_and(|known| known.ports == ports) {
            return Ok(false);
        }
        let told = match (due.told, known) {
            (Some(told), _) => told,
            (None, Some(known)) => Told::parse(&known.reply)?,
            (None, None) => return Ok(false),
        };
        let netdev = ports.first().and_then(|port| port.netdev.as_deref());
        let numbers: Vec<u32> = ports.iter().map(|port| port.number).collect();
        let sysfs = self.sysfs.device(&told.device.name, &numbers, netdev);
        let mut record = assemble(&told.device, &ports, &sysfs, nodes, netns_mode(self.system));
        record.kernel_name = known.and_then(|known| known.found.record.kernel_name.clone());
        let record = match known {
            Some(known) if *known.found.record == record => Arc::clone(&known.found.record),
            _ => Arc::new(record),
        };
        let known = Known {
            reply: told.reply,
            ports,
            found: Found {
                record,
                parent: sysfs.parent.map(Arc::from),
            },
        };
        self.known.insert(due.index, known);
        Ok(true)
    }

    /// In the order of their numbers.
    fn usable_ports(
        &mut self,
        device: u32,
        ports: Vec<Result<NldevPort, NldevError>>,
    ) -> Vec<NldevPort> {
        let mut usable = BTreeMap::new();
        for port in ports {
            let place = format_args!("a port of the RDMA device with index {device}");
            match port {
                Ok(port) if usable.contains_key(&port.number) => {
                    let reason = format_args!("there are two with the number {}", port.number);
                    self.refuse(Refusal::at(place, reason));
                }
                Ok(port) => {
                    usable.insert(port.number, port);
                }
                Err(e) => self.refuse(Refusal::at(place, e)),
            }
        }
        usable.into_values().collect()
    }

    fn list(&self, rdma: &mut RdmaSocket) -> Result<Vec<Listed>, RequestError> {
        rdma.ask(Query::Devices, |reply| self.listed(reply))
    }

    fn listed(&self, reply: &[u8]) -> Listed {
        Listed::parse(reply, |index| Some(&*self.known.get(&index)?.reply))
    }

    /// One entry that cannot be used must not hide the others' devices.
    fn leave_out_refused(&mut self, listed: Vec<Listed>) -> Vec<Listed> {
        let (usable, refused) = listed::usable(listed, MAX_DEVICES);
        for refused in refused {
            if let Listed::Refused(index, refusal) = refused {
                // What it was before is not true any more.
                index.and_then(|index| self.known.remove(&index));
                self.refuse(refusal);
            }
        }
        usable
    }

    /// Notes the name that a device was registered under, which only its event has told.
    fn name_registrations(&mut self, pending: &Pending) {
        if pending.kernel_names.is_empty() {
            return;
        }
        for known in self.known.values_mut() {
            let record = &known.found.record;
            if record.kernel_name.is_some() {
                continue;
            }
            if let Some(registered) = pending.kernel_names.get(&record.name) {
                let mut named = Device::clone(record);
                named.kernel_name = Some(registered.clone());
                known.found.record = Arc::new(named);
            }
        }
    }

    /// Says whether any was read anew.
    fn look_at_functions(&mut self, pending: &Pending) -> bool {
        if pending.everything || pending.all_functions {
            let (functions, refused) = self.sysfs.functions(MAX_FUNCTIONS);
            self.functions = Arc::new(functions);
            self.refuse_each(refused);
            return true;
        }
        if pending.functions.is_empty() {
            return false;
        }
        let mut refused = Vec::new();
        let functions = Arc::make_mut(&mut self.functions);
        for devpath in &pending.functions {
            match self.sysfs.function(devpath) {
                Some(_) if functions.len() >= MAX_FUNCTIONS && !functions.contains_key(devpath) => {
                    refused.push(too_many_functions(devpath));
                }
                Some(function) => {
                    functions.insert(devpath.clone(), function);
                }
                None => {
                    functions.remove(devpath);
                }
            }
        }
        self.refuse_each(refused);
        true
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

/// Whether the kernel does not have the device that it was asked about.
fn is_gone(e: &RequestError) -> bool {
    matches!(e, RequestError::Reply(NldevError::Refused(EINVAL | ENODEV)))
}

//! The scanner. It queries the kernel, and reads only the devices again that may have changed.
//! Responsible for each cached record describing one moment: after a device is read, it is compared
//! with the kernel's list again. Blocks, because a device's firmware may block; must never be
//! called on a thread that others wait for. Must never publish or decide anything.

mod askers;
mod devices;
mod listed;
mod nodes;
mod question;
mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::{Device, NetnsMode};
use interfaces::names::ModuleName;

use crate::function::{ModuleState, SysfsFunction};
use crate::inventory::{Found, Seen};
use crate::netlink::{RdmaSocket, RequestError};
use crate::nldev::{NldevPort, NldevSystem};
use crate::pending::Pending;
use crate::refusal::{Refusal, Refusals};
use crate::sysfs::{Sysfs, too_many_functions};
use askers::Askers;
use nodes::Nodes;
use silence::Silences;

/// The maximum number of published devices, several times that of the largest hosts.
const MAX_DEVICES: usize = 4096;
/// The maximum number of published functions.
const MAX_FUNCTIONS: usize = 4096;

/// The scanner: the access to the kernel, and the results of the last scan.
pub struct Eyes {
    sysfs: Sysfs,
    askers: Askers,
    known: BTreeMap<u32, Known>,
    /// The highest device index so far. The kernel assigns indexes in ascending order.
    highest: Option<u32>,
    nodes: Nodes,
    functions: Arc<BTreeMap<String, SysfsFunction>>,
    system: NldevSystem,
    /// The devices and requests that do not respond.
    silences: Silences,
    /// The records that were left out, so that each is logged once.
    refusals: Refusals,
    /// The modules that are being initialised or removed. No event reports the end of that.
    moving: BTreeSet<String>,
}

struct Known {
    /// The device's entry in the kernel's list.
    reply: Box<[u8]>,
    ports: Arc<[NldevPort]>,
    found: Found,
}

/// The result of a scan.
#[derive(Debug)]
pub struct Looked {
    /// The observed state.
    pub seen: Seen,
    /// True if ib_core is present.
    pub ib_core: bool,
    /// The settings of the kernel's RDMA core. The default if ib_core is absent.
    pub system: NldevSystem,
    /// The number of devices that were read.
    pub device_reads: i64,
    /// True if the state may change soon without an event.
    pub in_motion: bool,
    /// The number of different records that were left out since the start: 0 to 256.
    pub refused: i64,
    /// The last 8 of them, with the reasons.
    pub last_refused: Vec<String>,
}

impl Eyes {
    /// Creates a scanner with an empty cache.
    #[must_use]
    pub fn new(sysfs: Sysfs, passed: Option<RdmaSocket>) -> Self {
        Self {
            askers: Askers::new(sysfs.clone(), passed),
            sysfs,
            silences: Silences::default(),
            known: BTreeMap::new(),
            highest: None,
            nodes: Nodes::default(),
            functions: Arc::default(),
            system: NldevSystem::default(),
            refusals: Refusals::default(),
            moving: BTreeSet::new(),
        }
    }

    /// Sets `wake`, which is called when a device responds after its deadline.
    #[must_use]
    pub fn waking(self, wake: impl Fn() + Send + Sync + 'static) -> Self {
        self.askers.waking(wake);
        self
    }

    /// Scans the objects in `pending`, and returns the result. `now` is in µs of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// Fails if the kernel's reply cannot be used. The objects in `pending` then stay pending.
    pub fn look(&mut self, pending: &Pending, now: i64) -> Result<Looked, RequestError> {
        let ib_core = self.sysfs.has_ib_core();
        let mut device_reads = 0;
        if ib_core {
            self.look_at_nodes(pending);
            self.askers.begin();
            let outcome = self.look_at_devices(pending, now);
            self.askers.rest();
            device_reads = outcome?;
        } else {
            self.known.clear();
            self.silences = Silences::default();
            self.nodes = Nodes::default();
            self.highest = None;
            self.system = NldevSystem::default();
        }
        let same_functions = !self.look_at_functions(pending);
        let modules = self.look_at_modules(pending);
        Ok(Looked {
            in_motion: !self.moving.is_empty()
                || self.functions.values().any(SysfsFunction::is_in_motion),
            seen: Seen {
                all_modules: pending.everything,
                ..self.seen(modules, same_functions)
            },
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
            all_modules: false,
            // The owners are many, and only matter if devices can be in other network namespaces.
            with_nodes: match exclusive {
                true => self.nodes.owners(),
                false => BTreeSet::new(),
            },
            exclusive,
        }
    }

    /// Returns each module that was added or removed, and true if it is live. Returns all modules
    /// if everything is pending.
    fn look_at_modules(&mut self, pending: &Pending) -> BTreeMap<String, bool> {
        let mut names = std::mem::take(&mut self.moving);
        names.extend(pending.modules.iter().cloned());
        if pending.everything {
            names.extend(self.sysfs.modules());
        }
        let mut modules = BTreeMap::new();
        for name in names {
            if let Err(e) = ModuleName::parse(&name) {
                self.refuse(Refusal::at("a module", e));
                continue;
            }
            match self.sysfs.module_state(&name) {
                ModuleState::Live => drop(modules.insert(name, true)),
                ModuleState::Absent => drop(modules.insert(name, false)),
                ModuleState::InMotion => drop(self.moving.insert(name)),
            }
        }
        modules
    }

    /// Leaves one record out, and logs it once.
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
            // The nodes of a renamed device now belong to another name.
            self.nodes.read_of(&self.sysfs, &pending.names);
            self.nodes.read(&self.sysfs, &pending.nodes);
        }
    }

    /// Records the name that a device was registered with. Only its uevent shows that name.
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

    /// Scans the pending functions. Returns true if any was read.
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

/// Returns the mode in which the kernel shares devices between network namespaces, if it shows one.
#[must_use]
pub fn netns_mode(system: NldevSystem) -> Option<NetnsMode> {
    match system.netns_shared? {
        true => Some(NetnsMode::Shared),
        false => Some(NetnsMode::Exclusive),
    }
}

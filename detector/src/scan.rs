//! The scanner. It queries the kernel, and reads only the devices again that may have changed.
//! Responsible for each cached record describing one moment: after a device is read, it is compared
//! with the kernel's list again. Blocks, because a device's firmware may block; must never be
//! called on a thread that others wait for. Must never publish or decide anything.

mod devices;
mod entry;
mod functions;
mod list;
mod nodes;
mod request;
mod silence;
mod silent;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::NetnsMode;

use crate::function::SysfsFunction;
use crate::inventory::{Found, Observed};
use crate::netlink::{RdmaSocket, RequestError};
use crate::nldev::{NldevPort, NldevSystem};
use crate::pending::Pending;
use crate::refusal::{Refusal, Refusals};
use crate::sysfs::Sysfs;
use nodes::Nodes;
use silence::Silences;
use workers::Workers;

/// The maximum number of published devices, several times that of the largest hosts.
const MAX_DEVICES: usize = 4096;
/// The maximum number of published functions.
const MAX_FUNCTIONS: usize = 4096;

/// The scanner: the access to the kernel, and the results of the last scan.
pub struct Scanner {
    sysfs: Sysfs,
    workers: Workers,
    cached: BTreeMap<u32, Cached>,
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

struct Cached {
    /// The device's entry in the kernel's list.
    reply: Box<[u8]>,
    ports: Arc<[NldevPort]>,
    found: Found,
}

/// The result of a scan.
#[derive(Debug)]
pub struct Scan {
    /// The observed state.
    pub observed: Observed,
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

impl Scanner {
    /// Creates a scanner with an empty cache.
    #[must_use]
    pub fn new(sysfs: Sysfs, passed: Option<RdmaSocket>) -> Self {
        Self {
            workers: Workers::new(sysfs.clone(), passed),
            sysfs,
            silences: Silences::default(),
            cached: BTreeMap::new(),
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
        self.workers.waking(wake);
        self
    }

    /// Scans the objects in `pending`, and returns the result. `now` is in µs of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// Fails if the kernel's reply cannot be used. The objects in `pending` then stay pending.
    pub fn scan(&mut self, pending: &Pending, now: i64) -> Result<Scan, RequestError> {
        let ib_core = self.sysfs.has_ib_core();
        let mut device_reads = 0;
        if ib_core {
            self.scan_nodes(pending);
            self.workers.begin();
            let outcome = self.scan_devices(pending, now);
            self.workers.rest();
            device_reads = outcome?;
        } else {
            self.cached.clear();
            self.silences = Silences::default();
            self.nodes = Nodes::default();
            self.highest = None;
            self.system = NldevSystem::default();
        }
        let same_functions = !self.scan_functions(pending);
        let modules = self.scan_modules(pending);
        Ok(Scan {
            in_motion: !self.moving.is_empty()
                || self.functions.values().any(SysfsFunction::is_in_motion),
            observed: Observed {
                all_modules: pending.everything,
                ..self.observed(modules, same_functions)
            },
            ib_core,
            system: self.system,
            device_reads,
            refused: i64::try_from(self.refusals.count()).unwrap_or(i64::MAX),
            last_refused: self.refusals.last().map(ToString::to_string).collect(),
        })
    }

    fn observed(&self, modules: BTreeMap<String, bool>, same_functions: bool) -> Observed {
        let exclusive = self.system.netns_shared == Some(false);
        Observed {
            devices: self.cached.values().map(|k| k.found.clone()).collect(),
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
}

/// Returns the mode in which the kernel shares devices between network namespaces, if it shows one.
#[must_use]
pub fn netns_mode(system: NldevSystem) -> Option<NetnsMode> {
    match system.netns_shared? {
        true => Some(NetnsMode::Shared),
        false => Some(NetnsMode::Exclusive),
    }
}

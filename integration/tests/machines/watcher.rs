//! A detector without its event loop: the scanner, and the records that follow from its scans. Must
//! never decide which objects to scan.

use std::path::Path;
use std::sync::{Arc, Mutex};

use detector::inventory::Inventory;
use detector::netlink::RequestError;
use detector::pending::Pending;
use detector::scan::{Scan, Scanner};
use detector::sysfs::Sysfs;
use interfaces::clock::now;
use interfaces::detector::{Device, Function, SubscribeDevicesReply};
use serde_json::{Value, json};

use super::nldev::{self, Answers, Line};

/// The detector.
pub struct Watcher {
    scanner: Scanner,
    inventory: Inventory,
    time: i64,
    _line: Line,
}

impl Watcher {
    /// Creates a detector that has not scanned yet.
    pub fn new<A: Answers>(sysfs: &Path, answers: &Arc<Mutex<A>>) -> Self {
        let (socket, line) = nldev::connect(answers);
        Self {
            scanner: Scanner::new(Sysfs::new(sysfs.to_owned()), Some(socket)),
            inventory: Inventory::default(),
            time: 0,
            _line: line,
        }
    }

    /// Scans, and returns the result of the scan and the events that follow from it.
    pub fn scan(
        &mut self,
        pending: &Pending,
    ) -> Result<(Scan, Vec<SubscribeDevicesReply>), RequestError> {
        let scan = self.scanner.scan(pending, now())?;
        self.time += 1;
        let events = self.inventory.replace(&scan.observed, self.time);
        Ok((scan, events))
    }

    /// Returns the devices.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.inventory.devices()
    }

    /// Returns the functions.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.inventory.functions()
    }

    /// Returns all records as the interface writes them, without times.
    pub fn records(&self) -> Value {
        let mut functions = json!(self.functions().collect::<Vec<_>>());
        for function in functions.as_array_mut().unwrap() {
            function.as_object_mut().unwrap().remove("sinceUSec");
        }
        json!({"devices": self.devices().collect::<Vec<_>>(), "functions": functions})
    }
}

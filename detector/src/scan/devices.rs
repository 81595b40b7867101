//! The scan of devices: selects those to read, reads them, and compares them with the kernel's list.
//! Must never store data under a device that it was not read from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::Device;
use interfaces::names::DeviceName;

use super::entry::{Entry, ListedDevice};
use super::list::{EntryReply, OF_A_LIST, not_answering};
use super::request::{Answer, Read, Request};
use super::silence::Subject;
use super::workers::Outcome;
use super::{Cached, Scanner, netns_mode};
use crate::device::{assemble, waits_for_gids};
use crate::inventory::Found;
use crate::netlink::RequestError;
use crate::nldev::NldevPort;
use crate::node::DeviceNodes;
use crate::pending::Pending;
use crate::reading::{Reading, Step};

/// The maximum number of passes in which devices are read, for devices that change during a scan. A
/// later change has its own event.
const ROUNDS: u32 = 3;
/// The reason for which a device was not read.
pub(super) const NO_THREAD: &str = "not read, because too many other devices do not answer";

/// A device to read.
pub(super) struct ToRead {
    pub(super) index: u32,
    /// The entry in the kernel's list, if it differs from the cached one.
    pub(super) listed: Option<ListedDevice>,
    /// True if only the ports must be read, unless they have changed.
    pub(super) ports_alone: bool,
}

impl Scanner {
    /// Reads the devices that may have changed, and then compares them with the kernel's list,
    /// until nothing differs. So data that was read by a device's name belongs to that device.
    pub(super) fn scan_devices(
        &mut self,
        pending: &Pending,
        now: i64,
    ) -> Result<i64, RequestError> {
        let late = self.take_late(now);
        let system = self.system(now)?;
        // These settings are part of each record.
        let everything = pending.everything || system != self.system;
        self.system = system;
        let named = match everything || pending.is_of_all() {
            true => None,
            false => self.list_named(pending, now)?,
        };
        let entries = match named {
            Some(entries) => entries,
            None => self.list_all(now)?,
        };
        let mut to_read = self.select(entries, everything, pending);
        let mut reads = self.take_over_late(late, now);
        for _ in 0..ROUNDS {
            let read = self.read_each(to_read, now)?;
            self.nodes.are_reported();
            if read.is_empty() {
                break;
            }
            reads += i64::try_from(read.len()).unwrap_or(i64::MAX);
            to_read = self.compare(&read, now)?;
        }
        self.name_registrations(pending);
        self.try_again(now);
        Ok(reads)
    }

    /// Selects the devices to read.
    pub(super) fn select(
        &mut self,
        entries: Vec<Entry>,
        everything: bool,
        pending: &Pending,
    ) -> Vec<ToRead> {
        self.follow_renames(&entries);
        let mut to_read = Vec::new();
        for entry in entries {
            let Some(index) = entry.index() else {
                continue;
            };
            if self.silences.has(Subject::Device(index)) {
                self.follow_silent(entry);
                continue;
            }
            let listed = match entry {
                Entry::Changed(listed) => Some(listed),
                _ => None,
            };
            let Some(known) = self.cached.get(&index).filter(|_| listed.is_none()) else {
                to_read.push(ToRead {
                    index,
                    listed,
                    ports_alone: false,
                });
                continue;
            };
            let name = &known.found.record.name;
            let record = everything
                || pending.names_device(index, name)
                || self.nodes.are_others(name)
                || pending.ports && waits_for_gids(&known.found.record);
            if record || pending.ports {
                to_read.push(ToRead {
                    index,
                    listed: None,
                    ports_alone: !record,
                });
            }
        }
        to_read
    }

    /// Reads the nodes of renamed devices again, because a node shows its device's name.
    fn follow_renames(&mut self, entries: &[Entry]) {
        let renamed = entries.iter().filter_map(|entry| match entry {
            Entry::Changed(listed) => {
                let known = self.cached.get(&listed.device.index)?;
                let name = &known.found.record.name;
                (*name != listed.device.name.as_str()).then(|| name.clone())
            }
            _ => None,
        });
        self.nodes.read_of(&self.sysfs, &renamed.collect());
    }

    /// Requests the list entries of the devices that were read, and returns the devices that have
    /// changed since.
    fn compare(&mut self, read: &[u32], now: i64) -> Result<Vec<ToRead>, RequestError> {
        let all = match read.len() * OF_A_LIST > self.cached.len() {
            true => self.list(now)?,
            false => None,
        };
        let entries = match all {
            Some(all) => {
                let read: BTreeSet<u32> = read.iter().copied().collect();
                self.forget_all_but(&all);
                // A new device has its own event.
                let is_read = |entry: &Entry| matches!(entry, Entry::Changed(listed) if read.contains(&listed.device.index));
                all.into_iter().filter(is_read).collect()
            }
            None => {
                let asked = self.request_entries(read, now)?.into_iter();
                let entries = asked.filter_map(|asked| match asked {
                    EntryReply::Listed(entry) => Some(entry),
                    EntryReply::Gone | EntryReply::Silent(_) => None,
                });
                let entries = entries.collect();
                self.leave_out_refused(entries)
            }
        };
        Ok(self.select(entries, false, &Pending::default()))
    }

    /// Reads the selected devices, and returns the indexes of those whose records were rebuilt.
    fn read_each(&mut self, to_read: Vec<ToRead>, now: i64) -> Result<Vec<u32>, RequestError> {
        let nodes = self.nodes_of_due(&to_read);
        let to_read: Vec<(ToRead, Read)> = to_read
            .into_iter()
            .filter_map(|to_read| {
                let read = self.reading_of(&to_read)?;
                Some((to_read, read))
            })
            .collect();
        let (to_read, reads): (Vec<ToRead>, Vec<Read>) = to_read.into_iter().unzip();
        let outcomes = self.send(reads.into_iter().map(Request::Read).collect())?;
        let mut read = Vec::new();
        for (to_read, outcome) in to_read.into_iter().zip(outcomes) {
            let index = to_read.index;
            let (reading, why, request) = match outcome {
                Outcome::Answered(Answer::Read(reading, None)) => {
                    let nodes = nodes.get(&index);
                    if self.take_over(to_read, *reading, nodes.unwrap_or(&DeviceNodes::default())) {
                        read.push(index);
                    }
                    continue;
                }
                Outcome::Answered(Answer::Read(reading, Some(e))) => match not_answering(e)? {
                    Some(why) => (*reading, format!("{}{why}", Step::Ports), None),
                    // The device was removed after it was entries. Its uevent leads to the next
                    // scan.
                    None => {
                        self.cached.remove(&index);
                        continue;
                    }
                },
                Outcome::Silent(step, reading, request) => {
                    (*reading, step.to_string(), Some(request))
                }
                Outcome::NotSent | Outcome::Answered(Answer::Netlink(_)) => {
                    (Reading::default(), NO_THREAD.to_owned(), None)
                }
            };
            self.fall_silent(index, to_read.listed, reading, (&why, request), now);
        }
        Ok(read)
    }

    /// Builds the read request for a device. Returns `None` if the device is no longer cached.
    pub(super) fn reading_of(&self, to_read: &ToRead) -> Option<Read> {
        let known = self.cached.get(&to_read.index);
        let name = match &to_read.listed {
            Some(listed) => listed.device.name.clone(),
            None => DeviceName::parse(&known?.found.record.name).ok()?,
        };
        let ports = known.map(|known| Arc::clone(&known.ports));
        Some(Read {
            index: to_read.index,
            name,
            unless: ports.filter(|_| to_read.ports_alone),
        })
    }

    fn nodes_of_due(&self, to_read: &[ToRead]) -> BTreeMap<u32, DeviceNodes> {
        let named = to_read.iter().filter_map(|to_read| {
            let name = match &to_read.listed {
                Some(listed) => listed.device.name.as_str(),
                None => self.cached.get(&to_read.index)?.found.record.name.as_str(),
            };
            Some((to_read.index, name))
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

    /// Stores the reading of a device. Returns false if only its unchanged ports were read.
    pub(super) fn take_over(
        &mut self,
        to_read: ToRead,
        reading: Reading,
        nodes: &DeviceNodes,
    ) -> bool {
        for refusal in reading.refused {
            self.refuse(refusal);
        }
        if reading.same {
            return false;
        }
        let known = self.cached.get(&to_read.index);
        let listed = match (to_read.listed, known) {
            (Some(listed), _) => Some(listed),
            (None, Some(known)) => ListedDevice::parse(&known.reply).ok(),
            (None, None) => None,
        };
        let Some(listed) = listed else { return false };
        let ports = reading.ports.unwrap_or_default();
        let mode = netns_mode(self.system);
        let mut record = assemble(&listed.device, &ports, &reading.sysfs, nodes, mode);
        record.kernel_name = known.and_then(|known| known.found.record.kernel_name.clone());
        let parent = reading.sysfs.parent.map(Arc::from);
        self.keep(listed.device.index, listed.reply, ports, record, parent);
        true
    }

    pub(super) fn keep(
        &mut self,
        index: u32,
        reply: Box<[u8]>,
        ports: Arc<[NldevPort]>,
        record: Device,
        parent: Option<Arc<str>>,
    ) {
        let record = match self.cached.get(&index) {
            Some(known) if *known.found.record == record => Arc::clone(&known.found.record),
            _ => Arc::new(record),
        };
        let known = Cached {
            reply,
            ports,
            found: Found { record, parent },
        };
        self.cached.insert(index, known);
    }

    /// Records the name that a device was registered with. Only its uevent shows that name.
    fn name_registrations(&mut self, pending: &Pending) {
        if pending.kernel_names.is_empty() {
            return;
        }
        for known in self.cached.values_mut() {
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

    pub(super) fn scan_nodes(&mut self, pending: &Pending) {
        if pending.everything || pending.all_nodes {
            let refused = self.nodes.read_all(&self.sysfs);
            self.refuse_each(refused);
        } else {
            // The nodes of a renamed device now belong to another name.
            self.nodes.read_of(&self.sysfs, &pending.names);
            self.nodes.read(&self.sysfs, &pending.nodes);
        }
    }
}

//! The scan of devices: lists them, selects those to read, and handles devices that do not respond.
//! Must never wait for a device that is known not to respond.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interfaces::detector::Device;
use interfaces::names::DeviceName;

use super::askers::{Outcome, Ticket};
use super::listed::{self, Listed, Told};
use super::question::{Answer, Question, Read, Replies};
use super::silence::Subject;
use super::{Eyes, Known, MAX_DEVICES, netns_mode};
use crate::device::{assemble, renamed, waits_for_gids, with_nodes};
use crate::inventory::Found;
use crate::netlink::RequestError;
use crate::nldev::{NldevDevice, NldevError, NldevSystem, Query};
use crate::node::DeviceNodes;
use crate::pending::Pending;
use crate::reading::{Reading, Step};
use crate::refusal::Refusal;

/// The kernel's error for a device that does not exist (`nldev_port_get_dumpit()`).
const EINVAL: i32 = 22;
/// The kernel's error for a device that is being removed.
const ENODEV: i32 = 19;
/// The maximum number of passes in which devices are read, for devices that change during a scan. A
/// later change has its own event.
const ROUNDS: u32 = 3;
/// The cost of a request for one device, in entries of the whole list.
const OF_A_LIST: usize = 2;
/// The number of indexes that are requested at once if the list does not respond.
const INDEXES_AT_ONCE: u32 = 256;
/// The maximum number of unused indexes that are requested in total.
const MOST_UNUSED: u32 = 4096;
/// The reason for which a device was not read.
const NO_THREAD: &str = "too many devices do not answer";

/// A device to read.
struct Due {
    index: u32,
    /// The entry in the kernel's list, if it differs from the cached one.
    told: Option<Told>,
    /// True if only the ports must be read, unless they have changed.
    ports_alone: bool,
}

/// The result of a request for one list entry.
enum Asked {
    Listed(Listed),
    Gone,
    Silent(u32),
}

impl Eyes {
    /// Reads the devices that may have changed, and then compares them with the kernel's list,
    /// until nothing differs. So data that was read by a device's name belongs to that device.
    pub(super) fn look_at_devices(
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
        let listed = match named {
            Some(listed) => listed,
            None => self.list_all(now)?,
        };
        let mut due = self.due(listed, everything, pending);
        let mut reads = self.take_over_late(late, now);
        for _ in 0..ROUNDS {
            let read = self.look_at_each(due, now)?;
            self.nodes.are_told();
            if read.is_empty() {
                break;
            }
            reads += i64::try_from(read.len()).unwrap_or(i64::MAX);
            due = self.compare(&read, now)?;
        }
        self.name_registrations(pending);
        self.try_again(now);
        Ok(reads)
    }

    fn ask(&self, questions: Vec<Question>) -> Result<Vec<Outcome>, RequestError> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.askers.ask(questions)?)
    }

    /// Sends one request to `NETLINK_RDMA`. Returns `None` if there is no reply, and records that.
    fn ask_one(
        &mut self,
        query: Query,
        subject: Subject,
        now: i64,
    ) -> Result<Option<Replies>, RequestError> {
        let outcome = self.ask(vec![Question::Netlink(query)])?.pop();
        match outcome {
            Some(Outcome::Answered(Answer::Netlink(Err(RequestError::TimedOut)))) | None => {
                self.silences.note(subject, None, now);
                Ok(None)
            }
            Some(Outcome::Answered(Answer::Netlink(answer))) => {
                self.silences.end(subject);
                answer.map(Some)
            }
            Some(Outcome::Silent(_, _, ticket)) => {
                tracing::warn!("{subject} of NETLINK_RDMA does not answer");
                self.silences.note(subject, Some(ticket), now);
                Ok(None)
            }
            Some(Outcome::NotAsked | Outcome::Answered(Answer::Read(..))) => Ok(None),
        }
    }

    /// Returns true if a request may be sent: its subject responds, or its pause is over.
    fn may_ask(&self, subject: Subject, now: i64) -> bool {
        !self.silences.has(subject) || self.silences.due(now).contains(&subject)
    }

    /// Reads the settings of the RDMA core. Kernels before 5.2 do not support this request.
    fn system(&mut self, now: i64) -> Result<NldevSystem, RequestError> {
        if !self.may_ask(Subject::System, now) {
            return Ok(self.system);
        }
        let replies = match self.ask_one(Query::System, Subject::System, now) {
            Err(RequestError::Reply(NldevError::Refused(_))) => return Ok(NldevSystem::default()),
            replies => replies?,
        };
        let Some(replies) = replies else {
            return Ok(self.system);
        };
        let first = replies.iter().next().map(NldevSystem::parse);
        match first {
            Some(Ok(system)) => Ok(system),
            Some(Err(e)) => {
                self.refuse(Refusal::at("how the RDMA core is set up", e));
                Ok(NldevSystem::default())
            }
            None => Ok(NldevSystem::default()),
        }
    }

    /// Reads the kernel's whole list, and drops all other devices from the cache.
    fn list_all(&mut self, now: i64) -> Result<Vec<Listed>, RequestError> {
        let listed = match self.list(now)? {
            Some(listed) => self.leave_out_refused(listed),
            None => self.list_by_index(now)?,
        };
        self.forget_all_but(&listed);
        self.highest = self
            .highest
            .max(listed.iter().filter_map(Listed::index).max());
        Ok(listed)
    }

    /// Reads the kernel's whole list. Returns `None` if the request gets no usable reply.
    fn list(&mut self, now: i64) -> Result<Option<Vec<Listed>>, RequestError> {
        if !self.may_ask(Subject::List, now) {
            return Ok(None);
        }
        match self.ask_one(Query::Devices, Subject::List, now) {
            Ok(Some(replies)) => Ok(Some(
                replies.iter().map(|reply| self.listed(reply)).collect(),
            )),
            Ok(None) => Ok(None),
            // The entries cannot be separated, so each is requested by its index.
            Err(RequestError::Reply(NldevError::Cut)) => {
                self.silences.note(Subject::List, None, now);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Builds the list without the list request, which does not respond. Requests the cached
    /// devices, and the indexes after them until each name in sysfs has an index. A device that
    /// does not respond keeps its cached record.
    fn list_by_index(&mut self, now: i64) -> Result<Vec<Listed>, RequestError> {
        let mut unclaimed = self.sysfs.device_names();
        let mut listed = Vec::new();
        let mut nameless = Vec::new();
        let known: Vec<u32> = self.known.keys().copied().collect();
        let mut next = self.highest.map_or(0, |highest| highest.saturating_add(1));
        let mut unused = 0;
        let mut asked = known;
        loop {
            for asked in self.ask_for(&asked, now)? {
                match asked {
                    Asked::Listed(entry) => {
                        if let Some(name) = self.name_of(&entry) {
                            unclaimed.remove(name);
                        }
                        listed.push(entry);
                    }
                    Asked::Gone => unused += 1,
                    Asked::Silent(index) => match self.known.get(&index) {
                        Some(known) => {
                            unclaimed.remove(&known.found.record.name);
                            listed.push(Listed::Same(index));
                        }
                        None => nameless.push(index),
                    },
                }
            }
            if unclaimed.len() <= nameless.len() || unused > MOST_UNUSED {
                break;
            }
            let end = next.saturating_add(INDEXES_AT_ONCE);
            asked = (next..end).collect();
            next = end;
        }
        // With two or more, the names cannot be assigned.
        if let ([index], 1, Some(name)) = (&nameless[..], unclaimed.len(), unclaimed.first())
            && let Ok(name) = DeviceName::parse(name)
        {
            self.know_by_name(*index, name);
            listed.push(Listed::Same(*index));
        }
        Ok(self.leave_out_refused(listed))
    }

    fn name_of<'l>(&'l self, listed: &'l Listed) -> Option<&'l str> {
        match listed {
            Listed::Same(index) => Some(self.known.get(index)?.found.record.name.as_str()),
            Listed::Other(told) => Some(told.device.name.as_str()),
            Listed::Refused(..) => None,
        }
    }

    /// Adds a device of which only the index and name are known.
    fn know_by_name(&mut self, index: u32, name: DeviceName) {
        let device = NldevDevice::named(index, name);
        let told = Told {
            device,
            reply: Box::default(),
        };
        self.keep_silent(&told, Reading::default(), &Step::Entry.to_string());
    }

    /// Reads the pending entries of the kernel's list by index, if that costs less than the whole
    /// list. A new device has the next index. Returns `None` if the whole list must be read, for
    /// example because a new device is not at the next indexes.
    fn list_named(
        &mut self,
        pending: &Pending,
        now: i64,
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
        let asked: Vec<u32> = asked.into_iter().collect();
        let mut listed = Vec::new();
        for asked in self.ask_for(&asked, now)? {
            match asked {
                Asked::Listed(entry) => listed.push(entry),
                Asked::Silent(index) if self.known.contains_key(&index) => {
                    listed.push(Listed::Same(index));
                }
                Asked::Gone | Asked::Silent(_) => {}
            }
        }
        let missing = self.missing(pending, &listed);
        let (count, missing) = (missing.len(), missing.into_iter().map(str::to_owned));
        let mut missing: BTreeSet<String> = missing.collect();
        // The whole list decides which devices exceed the limit.
        if count > 0 && self.known.len() + count >= MAX_DEVICES {
            return Ok(None);
        }
        let next = self.highest.map_or(0, |highest| highest.saturating_add(1));
        let end = next.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let behind: Vec<u32> = (next..end).collect();
        for (asked, index) in self.ask_for(&behind, now)?.into_iter().zip(next..) {
            let Asked::Listed(came) = asked else {
                return Ok(None);
            };
            self.highest = Some(index);
            if let Listed::Other(told) = &came {
                missing.remove(told.device.name.as_str());
            }
            listed.push(came);
        }
        if !missing.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.leave_out_refused(listed)))
    }

    /// Returns the pending names that exist in sysfs and that no listed device has.
    fn missing<'p>(&self, pending: &'p Pending, listed: &[Listed]) -> BTreeSet<&'p str> {
        let here = pending.names.iter().map(String::as_str);
        let mut missing: BTreeSet<&str> = here.filter(|name| self.sysfs.has_device(name)).collect();
        for name in listed.iter().filter_map(|listed| self.name_of(listed)) {
            missing.remove(name);
        }
        missing
    }

    /// Requests entries of the kernel's list. Sends no request for a device that is known not to
    /// respond. Drops a removed device from the cache.
    fn ask_for(&mut self, indexes: &[u32], now: i64) -> Result<Vec<Asked>, RequestError> {
        let silent = |index: &u32| self.silences.has(Subject::Device(*index));
        let asked: Vec<u32> = indexes.iter().copied().filter(|i| !silent(i)).collect();
        let question = |index: &u32| Question::Netlink(Query::Device(*index));
        let outcomes = self.ask(asked.iter().map(question).collect())?;
        let mut outcomes: BTreeMap<u32, Outcome> = asked.into_iter().zip(outcomes).collect();
        let mut entries = Vec::with_capacity(indexes.len());
        for index in indexes {
            let (why, ticket) = match outcomes.remove(index) {
                None => {
                    entries.push(Asked::Silent(*index));
                    continue;
                }
                Some(Outcome::Answered(Answer::Netlink(Ok(replies)))) => {
                    entries.push(match replies.iter().next() {
                        Some(reply) => Asked::Listed(self.listed(reply)),
                        None => Asked::Gone,
                    });
                    continue;
                }
                Some(Outcome::Answered(Answer::Netlink(Err(e)))) => match not_answering(e)? {
                    Some(why) => (format!("{}{why}", Step::Entry), None),
                    None => {
                        self.known.remove(index);
                        entries.push(Asked::Gone);
                        continue;
                    }
                },
                Some(Outcome::Silent(step, _, ticket)) => (step.to_string(), Some(ticket)),
                Some(Outcome::NotAsked | Outcome::Answered(Answer::Read(..))) => {
                    (NO_THREAD.to_owned(), None)
                }
            };
            self.fall_silent(*index, None, Reading::default(), (&why, ticket), now);
            entries.push(Asked::Silent(*index));
        }
        Ok(entries)
    }

    /// Selects the devices to read.
    fn due(&mut self, listed: Vec<Listed>, everything: bool, pending: &Pending) -> Vec<Due> {
        self.follow_renames(&listed);
        let mut due = Vec::new();
        for listed in listed {
            let Some(index) = listed.index() else {
                continue;
            };
            if self.silences.has(Subject::Device(index)) {
                self.follow_silent(listed);
                continue;
            }
            let told = match listed {
                Listed::Other(told) => Some(told),
                _ => None,
            };
            let Some(known) = self.known.get(&index).filter(|_| told.is_none()) else {
                due.push(Due {
                    index,
                    told,
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
                due.push(Due {
                    index,
                    told: None,
                    ports_alone: !record,
                });
            }
        }
        due
    }

    /// Reads the nodes of renamed devices again, because a node shows its device's name.
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

    /// Drops the devices that are not listed from the cache.
    fn forget_all_but(&mut self, listed: &[Listed]) {
        let indexes: BTreeSet<u32> = listed.iter().filter_map(Listed::index).collect();
        if indexes.len() != self.known.len() || !self.known.keys().eq(indexes.iter()) {
            self.known.retain(|index, _| indexes.contains(index));
        }
        self.silences.retain(|index| indexes.contains(&index));
    }

    /// Requests the list entries of the devices that were read, and returns the devices that have
    /// changed since.
    fn compare(&mut self, read: &[u32], now: i64) -> Result<Vec<Due>, RequestError> {
        let all = match read.len() * OF_A_LIST > self.known.len() {
            true => self.list(now)?,
            false => None,
        };
        let listed = match all {
            Some(all) => {
                let read: BTreeSet<u32> = read.iter().copied().collect();
                self.forget_all_but(&all);
                // A new device has its own event.
                let is_read = |listed: &Listed| matches!(listed, Listed::Other(told) if read.contains(&told.device.index));
                all.into_iter().filter(is_read).collect()
            }
            None => {
                let asked = self.ask_for(read, now)?.into_iter();
                let listed = asked.filter_map(|asked| match asked {
                    Asked::Listed(listed) => Some(listed),
                    Asked::Gone | Asked::Silent(_) => None,
                });
                let listed = listed.collect();
                self.leave_out_refused(listed)
            }
        };
        Ok(self.due(listed, false, &Pending::default()))
    }

    /// Reads the selected devices, and returns the indexes of those whose records were rebuilt.
    fn look_at_each(&mut self, due: Vec<Due>, now: i64) -> Result<Vec<u32>, RequestError> {
        let nodes = self.nodes_of_due(&due);
        let due: Vec<(Due, Read)> = due
            .into_iter()
            .filter_map(|due| {
                let read = self.reading_of(&due)?;
                Some((due, read))
            })
            .collect();
        let (due, reads): (Vec<Due>, Vec<Read>) = due.into_iter().unzip();
        let outcomes = self.ask(reads.into_iter().map(Question::Read).collect())?;
        let mut read = Vec::new();
        for (due, outcome) in due.into_iter().zip(outcomes) {
            let index = due.index;
            let (reading, why, ticket) = match outcome {
                Outcome::Answered(Answer::Read(reading, None)) => {
                    let nodes = nodes.get(&index);
                    if self.take_over(due, *reading, nodes.unwrap_or(&DeviceNodes::default())) {
                        read.push(index);
                    }
                    continue;
                }
                Outcome::Answered(Answer::Read(reading, Some(e))) => match not_answering(e)? {
                    Some(why) => (*reading, format!("{}{why}", Step::Ports), None),
                    // The device was removed after it was listed. Its uevent leads to the next
                    // scan.
                    None => {
                        self.known.remove(&index);
                        continue;
                    }
                },
                Outcome::Silent(step, reading, ticket) => {
                    (*reading, step.to_string(), Some(ticket))
                }
                Outcome::NotAsked | Outcome::Answered(Answer::Netlink(_)) => {
                    (Reading::default(), NO_THREAD.to_owned(), None)
                }
            };
            self.fall_silent(index, due.told, reading, (&why, ticket), now);
        }
        Ok(read)
    }

    /// Builds the read request for a device. Returns `None` if the device is no longer cached.
    fn reading_of(&self, due: &Due) -> Option<Read> {
        let known = self.known.get(&due.index);
        let name = match &due.told {
            Some(told) => told.device.name.clone(),
            None => DeviceName::parse(&known?.found.record.name).ok()?,
        };
        let ports = known.map(|known| Arc::clone(&known.ports));
        Some(Read {
            index: due.index,
            name,
            unless: ports.filter(|_| due.ports_alone),
        })
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

    /// Stores the reading of a device. Returns false if only its unchanged ports were read.
    fn take_over(&mut self, due: Due, reading: Reading, nodes: &DeviceNodes) -> bool {
        for refusal in reading.refused {
            self.refuse(refusal);
        }
        if reading.same {
            return false;
        }
        let known = self.known.get(&due.index);
        let told = match (due.told, known) {
            (Some(told), _) => Some(told),
            (None, Some(known)) => Told::parse(&known.reply).ok(),
            (None, None) => None,
        };
        let Some(told) = told else { return false };
        let ports = reading.ports.unwrap_or_default();
        let mode = netns_mode(self.system);
        let mut record = assemble(&told.device, &ports, &reading.sysfs, nodes, mode);
        record.kernel_name = known.and_then(|known| known.found.record.kernel_name.clone());
        let parent = reading.sysfs.parent.map(Arc::from);
        self.keep(told.device.index, told.reply, ports, record, parent);
        true
    }

    fn keep(
        &mut self,
        index: u32,
        reply: Box<[u8]>,
        ports: Arc<[crate::nldev::NldevPort]>,
        record: Device,
        parent: Option<Arc<str>>,
    ) {
        let record = match self.known.get(&index) {
            Some(known) if *known.found.record == record => Arc::clone(&known.found.record),
            _ => Arc::new(record),
        };
        let known = Known {
            reply,
            ports,
            found: Found { record, parent },
        };
        self.known.insert(index, known);
    }

    /// Records that a device does not respond. It keeps its cached record, or gets one with the
    /// data that was read.
    fn fall_silent(
        &mut self,
        index: u32,
        told: Option<Told>,
        reading: Reading,
        (why, ticket): (&str, Option<Ticket>),
        now: i64,
    ) {
        let subject = Subject::Device(index);
        if !self.silences.has(subject) {
            tracing::warn!(index, "an RDMA device does not answer: {why}");
        }
        self.silences.note(subject, ticket, now);
        let known = self.known.get(&index);
        let told = told.or_else(|| Told::parse(&known?.reply).ok());
        if let Some(told) = told {
            self.keep_silent(&told, reading, why);
        }
    }

    fn keep_silent(&mut self, told: &Told, reading: Reading, why: &str) {
        let name = told.device.name.as_str();
        let nodes = self.nodes.of(&[name].into()).remove(name);
        let nodes = nodes.unwrap_or_default();
        let (mut record, ports, parent) = match self.known.get(&told.device.index) {
            Some(known) => (
                with_nodes(renamed(&known.found.record, &told.device), &nodes),
                Arc::clone(&known.ports),
                known.found.parent.clone(),
            ),
            None => {
                let ports = reading.ports.unwrap_or_default();
                let mode = netns_mode(self.system);
                let record = assemble(&told.device, &ports, &reading.sysfs, &nodes, mode);
                (record, ports, reading.sysfs.parent.map(Arc::from))
            }
        };
        record.not_answering = Some(why.to_owned());
        let reply = told.reply.clone();
        self.keep(told.device.index, reply, ports, record, parent);
    }

    /// Updates the record of a device that does not respond from its list entry.
    fn follow_silent(&mut self, listed: Listed) {
        let told = match listed {
            Listed::Other(told) => told,
            Listed::Same(index) => {
                let known = self.known.get(&index);
                let stale = known.filter(|known| self.nodes.are_others(&known.found.record.name));
                match stale.and_then(|known| Told::parse(&known.reply).ok()) {
                    Some(told) => told,
                    None => return,
                }
            }
            Listed::Refused(..) => return,
        };
        let known = self.known.get(&told.device.index);
        let why = known.and_then(|known| known.found.record.not_answering.clone());
        let why = why.unwrap_or_else(|| Step::Entry.to_string());
        self.keep_silent(&told, Reading::default(), &why);
    }

    /// Takes the readings that arrived after their deadlines, with the indexes of their devices.
    fn take_late(&mut self, now: i64) -> Vec<(u32, Reading)> {
        let mut readings = Vec::new();
        for (ticket, answer) in self.askers.late() {
            let Some(subject) = self.silences.of(ticket) else {
                continue;
            };
            match (subject, answer) {
                (Subject::Device(index), Answer::Read(reading, None)) => {
                    readings.push((index, *reading));
                }
                (Subject::Device(_), _) => self.silences.note(subject, None, now),
                // The request is sent again at once.
                (Subject::System | Subject::List, _) => self.silences.end(subject),
            }
        }
        readings
    }

    /// Stores the late readings. If a device was renamed since its reading began, it is tried again
    /// later.
    fn take_over_late(&mut self, late: Vec<(u32, Reading)>, now: i64) -> i64 {
        let mut reads = 0;
        for (index, reading) in late {
            let subject = Subject::Device(index);
            let Some(known) = self.known.get(&index) else {
                self.silences.end(subject);
                continue;
            };
            let name = known.found.record.name.clone();
            if !reading.same
                && reading
                    .name
                    .as_ref()
                    .is_none_or(|read| read.as_str() != name)
            {
                self.silences.note(subject, None, now);
                continue;
            }
            self.silences.end(subject);
            tracing::info!(index, "RDMA device {name} answers again");
            let nodes = self.nodes.of(&[name.as_str()].into()).remove(name.as_str());
            let due = Due {
                index,
                told: None,
                ports_alone: false,
            };
            if reading.same {
                self.answers_as_before(index);
            } else if self.take_over(due, reading, &nodes.unwrap_or_default()) {
                reads += 1;
            }
        }
        reads
    }

    fn answers_as_before(&mut self, index: u32) {
        if let Some(known) = self.known.get_mut(&index) {
            let mut record = Device::clone(&known.found.record);
            record.not_answering = None;
            known.found.record = Arc::new(record);
        }
    }

    /// Tries the devices again whose pauses are over. The scan does not wait for them.
    fn try_again(&mut self, now: i64) {
        for subject in self.silences.due(now) {
            let Subject::Device(index) = subject else {
                continue;
            };
            let due = Due {
                index,
                told: None,
                ports_alone: false,
            };
            let Some(read) = self.reading_of(&due) else {
                self.silences.end(subject);
                continue;
            };
            match self.askers.ask_apart(Question::Read(read)) {
                Some(ticket) => self.silences.asked(subject, ticket),
                None => return,
            }
        }
    }

    fn listed(&self, reply: &[u8]) -> Listed {
        Listed::parse(reply, |index| Some(&*self.known.get(&index)?.reply))
    }

    /// Leaves out unusable entries, so that one of them does not hide the other devices.
    fn leave_out_refused(&mut self, listed: Vec<Listed>) -> Vec<Listed> {
        let (usable, refused) = listed::usable(listed, MAX_DEVICES);
        for refused in refused {
            if let Listed::Refused(index, refusal) = refused {
                // The cached record is no longer true.
                index.and_then(|index| self.known.remove(&index));
                self.refuse(refusal);
            }
        }
        usable
    }
}

/// Returns the reason why a device does not respond, as a suffix to the request. Returns `None` if
/// there is no such device.
///
/// # Errors
/// Fails if the device is not the cause.
fn not_answering(e: RequestError) -> Result<Option<String>, RequestError> {
    match e {
        RequestError::Reply(NldevError::Refused(EINVAL | ENODEV)) => Ok(None),
        RequestError::TimedOut => Ok(Some(String::new())),
        RequestError::Reply(e) => Ok(Some(format!(": {e}"))),
        RequestError::Io(_) => Err(e),
    }
}

//! The part of a look that is at devices: which there are, which are read, and what becomes of one
//! that does not answer. Must never wait for a device that is known not to answer.

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

/// What the kernel answers for a device that it does not have (`nldev_port_get_dumpit()`).
const EINVAL: i32 = 22;
/// The same, for one that is about to go.
const ENODEV: i32 = 19;
/// How often is read what changes under a look. What changes after that has an event of its own.
const ROUNDS: u32 = 3;
/// Asking for one device costs about as much as this many of a list do.
const OF_A_LIST: usize = 2;
/// Where the list does not answer, this many indexes are asked for at once...
const INDEXES_AT_ONCE: u32 = 256;
/// ...and this many in all that no device has.
const MOST_UNUSED: u32 = 4096;
/// Why a device was not read.
const NO_THREAD: &str = "too many devices do not answer";

/// A device of which something is to be read.
struct Due {
    index: u32,
    /// What the kernel's list says of it, when that is not what is known.
    told: Option<Told>,
    /// Whether nothing of it is to be read but the ports, as long as they are the same.
    ports_alone: bool,
}

/// What became of asking for one entry of the list.
enum Asked {
    Listed(Listed),
    Gone,
    Silent(u32),
}

impl Eyes {
    /// Reads what may be different, and then asks again what was read, until nothing differs: so
    /// whatever is read of a name was read while it was that device's.
    pub(super) fn look_at_devices(
        &mut self,
        pending: &Pending,
        now: i64,
    ) -> Result<i64, RequestError> {
        let late = self.take_late(now);
        let system = self.system(now)?;
        // It stands in every record.
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

    /// Asks one question of `NETLINK_RDMA`; nothing when there is no answer, which is noted.
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

    /// Whether something is to be asked: it answers, or its pause is over.
    fn may_ask(&self, subject: Subject, now: i64) -> bool {
        !self.silences.has(subject) || self.silences.due(now).contains(&subject)
    }

    /// How the RDMA core is set up. Kernels before 5.2 do not know the question.
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

    /// The kernel's whole list. What is not in it is forgotten.
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

    /// Nothing when the list does not answer.
    fn list(&mut self, now: i64) -> Result<Option<Vec<Listed>>, RequestError> {
        if !self.may_ask(Subject::List, now) {
            return Ok(None);
        }
        match self.ask_one(Query::Devices, Subject::List, now) {
            Ok(Some(replies)) => Ok(Some(
                replies.iter().map(|reply| self.listed(reply)).collect(),
            )),
            Ok(None) => Ok(None),
            // Where one entry cannot be told from the next, each is asked for by itself.
            Err(RequestError::Reply(NldevError::Cut)) => {
                self.silences.note(Subject::List, None, now);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The list without the question that does not answer: those that are known, and behind them
    /// as many as sysfs has names for. A device that does not answer either stays as it is known.
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
        // Which name is whose cannot be known where there are two.
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

    /// A device of which nothing but index and name is known.
    fn know_by_name(&mut self, index: u32, name: DeviceName) {
        let device = NldevDevice::named(index, name);
        let told = Told {
            device,
            reply: Box::default(),
        };
        self.keep_silent(&told, Reading::default(), &Step::Entry.to_string());
    }

    /// Of the kernel's list what is pending, asked for by index, where that costs less than the
    /// whole list. A device that came has the next index; nothing when there is one whose index
    /// is not found that way.
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
        // Whether there is room for more, the whole list says.
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

    /// The names that are pending and there, and that no device has of which we know.
    fn missing<'p>(&self, pending: &'p Pending, listed: &[Listed]) -> BTreeSet<&'p str> {
        let here = pending.names.iter().map(String::as_str);
        let mut missing: BTreeSet<&str> = here.filter(|name| self.sysfs.has_device(name)).collect();
        for name in listed.iter().filter_map(|listed| self.name_of(listed)) {
            missing.remove(name);
        }
        missing
    }

    /// Entries of the kernel's list. A device that does not answer is not asked, and one that is
    /// gone is forgotten.
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

    /// Of what something is to be read.
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
        self.silences.retain(|index| indexes.contains(&index));
    }

    /// Asks again for those that were read, and says which of them are others by now.
    fn compare(&mut self, read: &[u32], now: i64) -> Result<Vec<Due>, RequestError> {
        let all = match read.len() * OF_A_LIST > self.known.len() {
            true => self.list(now)?,
            false => None,
        };
        let listed = match all {
            Some(all) => {
                let read: BTreeSet<u32> = read.iter().copied().collect();
                self.forget_all_but(&all);
                // Who came meanwhile has an event of its own.
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

    /// Reads what is due, and says which devices were read anew.
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
                    // Gone since it was listed; its uevent leads to the next look.
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

    /// What is to be read of a device that is due; nothing when it is not known any more.
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

    /// Takes over what was read of a device; says whether that was more than its ports, which are
    /// as they were.
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

    /// A device has not answered: it is shown as it was, or as far as it was read.
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

    /// What the list says of a device that does not answer is shown.
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

    /// The readings that came when they were not waited for any longer, by their devices.
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
                // It is asked again at once.
                (Subject::System | Subject::List, _) => self.silences.end(subject),
            }
        }
        readings
    }

    /// A device that has answered late is known by that, unless it was renamed meanwhile: then it is
    /// tried again.
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

    /// Tries those devices again whose pause is over. Nothing waits for them.
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
}

/// Why a device has not answered, behind what was asked; nothing when there is no such device.
///
/// # Errors
/// When that is not the device's fault.
fn not_answering(e: RequestError) -> Result<Option<String>, RequestError> {
    match e {
        RequestError::Reply(NldevError::Refused(EINVAL | ENODEV)) => Ok(None),
        RequestError::TimedOut => Ok(Some(String::new())),
        RequestError::Reply(e) => Ok(Some(format!(": {e}"))),
        RequestError::Io(_) => Err(e),
    }
}

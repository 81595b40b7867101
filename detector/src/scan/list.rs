//! The kernel's list of devices: read as a whole, or by the indexes that may have changed. Must never
//! send a request for a device that is known not to respond.

use std::collections::{BTreeMap, BTreeSet};

use interfaces::names::DeviceName;

use super::devices::NO_THREAD;
use super::entry::{Entry, ListedDevice, usable};
use super::request::{Answer, Replies, Request};
use super::silence::Subject;
use super::workers::Outcome;
use super::{MAX_DEVICES, Scanner};
use crate::netlink::RequestError;
use crate::nldev::{NldevDevice, NldevError, NldevSystem, Query};
use crate::pending::Pending;
use crate::reading::{Reading, Step};
use crate::refusal::Refusal;

/// The kernel's error for a device that does not exist (`nldev_port_get_dumpit()`).
const EINVAL: i32 = 22;
/// The kernel's error for a device that is being removed.
const ENODEV: i32 = 19;
/// The cost of a request for one device, in entries of the whole list.
pub(super) const OF_A_LIST: usize = 2;
/// The number of indexes that are requested at once if the list does not respond.
const INDEXES_AT_ONCE: u32 = 256;
/// The maximum number of unused indexes that are requested in total.
const MAX_UNUSED: u32 = 4096;

/// The result of a request for one list entry.
pub(super) enum EntryReply {
    Listed(Entry),
    Gone,
    Silent(u32),
}

impl Scanner {
    /// Reads the settings of the RDMA core. Kernels before 5.2 do not support this request.
    pub(super) fn system(&mut self, now: i64) -> Result<NldevSystem, RequestError> {
        if !self.may_send(Subject::System, now) {
            return Ok(self.system);
        }
        let replies = match self.send_one(Query::System, Subject::System, now) {
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
                self.refuse(Refusal::at("the configuration of the RDMA core", e));
                Ok(NldevSystem::default())
            }
            None => Ok(NldevSystem::default()),
        }
    }

    /// Reads the kernel's whole list, and drops all other devices from the cache.
    pub(super) fn list_all(&mut self, now: i64) -> Result<Vec<Entry>, RequestError> {
        let entries = match self.list(now)? {
            Some(entries) => self.leave_out_refused(entries),
            None => self.list_by_index(now)?,
        };
        self.forget_all_but(&entries);
        self.highest = self
            .highest
            .max(entries.iter().filter_map(Entry::index).max());
        Ok(entries)
    }

    /// Reads the kernel's whole list. Returns `None` if the request gets no usable reply.
    pub(super) fn list(&mut self, now: i64) -> Result<Option<Vec<Entry>>, RequestError> {
        if !self.may_send(Subject::List, now) {
            return Ok(None);
        }
        match self.send_one(Query::Devices, Subject::List, now) {
            Ok(Some(replies)) => Ok(Some(
                replies.iter().map(|reply| self.entry(reply)).collect(),
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
    pub(super) fn list_by_index(&mut self, now: i64) -> Result<Vec<Entry>, RequestError> {
        let mut unclaimed = self.sysfs.device_names();
        let mut entries = Vec::new();
        let mut nameless = Vec::new();
        let known: Vec<u32> = self.cached.keys().copied().collect();
        let mut next = self.highest.map_or(0, |highest| highest.saturating_add(1));
        let mut unused = 0;
        let mut asked = known;
        loop {
            for asked in self.request_entries(&asked, now)? {
                match asked {
                    EntryReply::Listed(entry) => {
                        if let Some(name) = self.name_of(&entry) {
                            unclaimed.remove(name);
                        }
                        entries.push(entry);
                    }
                    EntryReply::Gone => unused += 1,
                    EntryReply::Silent(index) => match self.cached.get(&index) {
                        Some(known) => {
                            unclaimed.remove(&known.found.record.name);
                            entries.push(Entry::Same(index));
                        }
                        None => nameless.push(index),
                    },
                }
            }
            if unclaimed.len() <= nameless.len() || unused > MAX_UNUSED {
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
            entries.push(Entry::Same(*index));
        }
        Ok(self.leave_out_refused(entries))
    }

    /// Reads the pending entries of the kernel's list by index, if that costs less than the whole
    /// list. A new device has the next index. Returns `None` if the whole list must be read, for
    /// example because a new device is not at the next indexes.
    pub(super) fn list_named(
        &mut self,
        pending: &Pending,
        now: i64,
    ) -> Result<Option<Vec<Entry>>, RequestError> {
        let known = self.cached.iter().filter(|(index, known)| {
            let name = &known.found.record.name;
            pending.names_device(**index, name) || self.nodes.are_others(name)
        });
        let known = known.map(|(index, _)| *index);
        let asked: BTreeSet<u32> = known.chain(pending.indexes.iter().copied()).collect();
        if (asked.len() + pending.names.len()) * OF_A_LIST > self.cached.len() {
            return Ok(None);
        }
        let asked: Vec<u32> = asked.into_iter().collect();
        let mut entries = Vec::new();
        for asked in self.request_entries(&asked, now)? {
            match asked {
                EntryReply::Listed(entry) => entries.push(entry),
                EntryReply::Silent(index) if self.cached.contains_key(&index) => {
                    entries.push(Entry::Same(index));
                }
                EntryReply::Gone | EntryReply::Silent(_) => {}
            }
        }
        let missing = self.missing(pending, &entries);
        let (count, missing) = (missing.len(), missing.into_iter().map(str::to_owned));
        let mut missing: BTreeSet<String> = missing.collect();
        // The whole list decides which devices exceed the limit.
        if count > 0 && self.cached.len() + count >= MAX_DEVICES {
            return Ok(None);
        }
        let next = self.highest.map_or(0, |highest| highest.saturating_add(1));
        let end = next.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let behind: Vec<u32> = (next..end).collect();
        for (asked, index) in self.request_entries(&behind, now)?.into_iter().zip(next..) {
            let EntryReply::Listed(entry) = asked else {
                return Ok(None);
            };
            self.highest = Some(index);
            if let Entry::Changed(listed) = &entry {
                missing.remove(listed.device.name.as_str());
            }
            entries.push(entry);
        }
        if !missing.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.leave_out_refused(entries)))
    }

    /// Returns the pending names that exist in sysfs and that no entries device has.
    pub(super) fn missing<'p>(&self, pending: &'p Pending, entries: &[Entry]) -> BTreeSet<&'p str> {
        let here = pending.names.iter().map(String::as_str);
        let mut missing: BTreeSet<&str> = here.filter(|name| self.sysfs.has_device(name)).collect();
        for name in entries.iter().filter_map(|entry| self.name_of(entry)) {
            missing.remove(name);
        }
        missing
    }

    /// Requests entries of the kernel's list. Sends no request for a device that is known not to
    /// respond. Drops a removed device from the cache.
    pub(super) fn request_entries(
        &mut self,
        indexes: &[u32],
        now: i64,
    ) -> Result<Vec<EntryReply>, RequestError> {
        let silent = |index: &u32| self.silences.has(Subject::Device(*index));
        let asked: Vec<u32> = indexes.iter().copied().filter(|i| !silent(i)).collect();
        let request = |index: &u32| Request::Netlink(Query::Device(*index));
        let outcomes = self.send(asked.iter().map(request).collect())?;
        let mut outcomes: BTreeMap<u32, Outcome> = asked.into_iter().zip(outcomes).collect();
        let mut entries = Vec::with_capacity(indexes.len());
        for index in indexes {
            let (why, request) = match outcomes.remove(index) {
                None => {
                    entries.push(EntryReply::Silent(*index));
                    continue;
                }
                Some(Outcome::Answered(Answer::Netlink(Ok(replies)))) => {
                    entries.push(match replies.iter().next() {
                        Some(reply) => EntryReply::Listed(self.entry(reply)),
                        None => EntryReply::Gone,
                    });
                    continue;
                }
                Some(Outcome::Answered(Answer::Netlink(Err(e)))) => match not_answering(e)? {
                    Some(why) => (format!("{}{why}", Step::Entry), None),
                    None => {
                        self.cached.remove(index);
                        entries.push(EntryReply::Gone);
                        continue;
                    }
                },
                Some(Outcome::Silent(step, _, request)) => (step.to_string(), Some(request)),
                Some(Outcome::NotSent | Outcome::Answered(Answer::Read(..))) => {
                    (NO_THREAD.to_owned(), None)
                }
            };
            self.fall_silent(*index, None, Reading::default(), (&why, request), now);
            entries.push(EntryReply::Silent(*index));
        }
        Ok(entries)
    }

    pub(super) fn entry(&self, reply: &[u8]) -> Entry {
        Entry::parse(reply, |index| Some(&*self.cached.get(&index)?.reply))
    }

    /// Leaves out unusable entries, so that one of them does not hide the other devices.
    pub(super) fn leave_out_refused(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let (usable, refused) = usable(entries, MAX_DEVICES);
        for refused in refused {
            if let Entry::Refused(index, refusal) = refused {
                // The cached record is no longer true.
                index.and_then(|index| self.cached.remove(&index));
                self.refuse(refusal);
            }
        }
        usable
    }

    /// Drops the devices that are not entries from the cache.
    pub(super) fn forget_all_but(&mut self, entries: &[Entry]) {
        let indexes: BTreeSet<u32> = entries.iter().filter_map(Entry::index).collect();
        if indexes.len() != self.cached.len() || !self.cached.keys().eq(indexes.iter()) {
            self.cached.retain(|index, _| indexes.contains(index));
        }
        self.silences.retain(|index| indexes.contains(&index));
    }

    pub(super) fn name_of<'e>(&'e self, entry: &'e Entry) -> Option<&'e str> {
        match entry {
            Entry::Same(index) => Some(self.cached.get(index)?.found.record.name.as_str()),
            Entry::Changed(listed) => Some(listed.device.name.as_str()),
            Entry::Refused(..) => None,
        }
    }

    /// Adds a device of which only the index and name are known.
    pub(super) fn know_by_name(&mut self, index: u32, name: DeviceName) {
        let device = NldevDevice::named(index, name);
        let listed = ListedDevice {
            device,
            reply: Box::default(),
        };
        self.keep_silent(&listed, Reading::default(), &Step::Entry.to_string());
    }

    /// Sends one request to `NETLINK_RDMA`. Returns `None` if there is no reply, and records that.
    pub(super) fn send_one(
        &mut self,
        query: Query,
        subject: Subject,
        now: i64,
    ) -> Result<Option<Replies>, RequestError> {
        let outcome = self.send(vec![Request::Netlink(query)])?.pop();
        match outcome {
            Some(Outcome::Answered(Answer::Netlink(Err(RequestError::TimedOut)))) | None => {
                self.silences.note(subject, None, now);
                Ok(None)
            }
            Some(Outcome::Answered(Answer::Netlink(answer))) => {
                self.silences.end(subject);
                answer.map(Some)
            }
            Some(Outcome::Silent(_, _, request)) => {
                tracing::warn!("NETLINK_RDMA does not respond to the request for {subject}");
                self.silences.note(subject, Some(request), now);
                Ok(None)
            }
            Some(Outcome::NotSent | Outcome::Answered(Answer::Read(..))) => Ok(None),
        }
    }

    /// Returns true if a request may be sent: its subject responds, or its pause is over.
    pub(super) fn may_send(&self, subject: Subject, now: i64) -> bool {
        !self.silences.has(subject) || self.silences.due(now).contains(&subject)
    }

    pub(super) fn send(&self, requests: Vec<Request>) -> Result<Vec<Outcome>, RequestError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.workers.send(requests)?)
    }
}

/// Returns the reason why a device does not respond, as a suffix to the request. Returns `None` if
/// there is no such device.
///
/// # Errors
/// Fails if the device is not the cause.
pub(super) fn not_answering(e: RequestError) -> Result<Option<String>, RequestError> {
    match e {
        RequestError::Reply(NldevError::Refused(EINVAL | ENODEV)) => Ok(None),
        RequestError::TimedOut => Ok(Some(String::new())),
        RequestError::Reply(e) => Ok(Some(format!(": {e}"))),
        RequestError::Io(_) => Err(e),
    }
}

//! The devices that do not respond: their records, and the readings that arrive late. Must never wait
//! for them.

use std::sync::Arc;

use interfaces::detector::Device;

use super::devices::ToRead;
use super::entry::{Entry, ListedDevice};
use super::request::{Answer, Request};
use super::silence::Subject;
use super::workers::RequestId;
use super::{Scanner, netns_mode};
use crate::device::{assemble, renamed, with_nodes};
use crate::reading::{Reading, Step};

impl Scanner {
    /// Records that a device does not respond. It keeps its cached record, or gets one with the
    /// data that was read.
    pub(super) fn fall_silent(
        &mut self,
        index: u32,
        listed: Option<ListedDevice>,
        reading: Reading,
        (why, request): (&str, Option<RequestId>),
        now: i64,
    ) {
        let subject = Subject::Device(index);
        if !self.silences.has(subject) {
            tracing::warn!(index, "an RDMA device does not answer: {why}");
        }
        self.silences.note(subject, request, now);
        let known = self.cached.get(&index);
        let listed = listed.or_else(|| ListedDevice::parse(&known?.reply).ok());
        if let Some(listed) = listed {
            self.keep_silent(&listed, reading, why);
        }
    }

    pub(super) fn keep_silent(&mut self, listed: &ListedDevice, reading: Reading, why: &str) {
        let name = listed.device.name.as_str();
        let nodes = self.nodes.of(&[name].into()).remove(name);
        let nodes = nodes.unwrap_or_default();
        let (mut record, ports, parent) = match self.cached.get(&listed.device.index) {
            Some(known) => (
                with_nodes(renamed(&known.found.record, &listed.device), &nodes),
                Arc::clone(&known.ports),
                known.found.parent.clone(),
            ),
            None => {
                let ports = reading.ports.unwrap_or_default();
                let mode = netns_mode(self.system);
                let record = assemble(&listed.device, &ports, &reading.sysfs, &nodes, mode);
                (record, ports, reading.sysfs.parent.map(Arc::from))
            }
        };
        record.not_answering = Some(why.to_owned());
        let reply = listed.reply.clone();
        self.keep(listed.device.index, reply, ports, record, parent);
    }

    /// Updates the record of a device that does not respond from its list entry.
    pub(super) fn follow_silent(&mut self, entry: Entry) {
        let listed = match entry {
            Entry::Changed(listed) => listed,
            Entry::Same(index) => {
                let known = self.cached.get(&index);
                let stale = known.filter(|known| self.nodes.are_others(&known.found.record.name));
                match stale.and_then(|known| ListedDevice::parse(&known.reply).ok()) {
                    Some(listed) => listed,
                    None => return,
                }
            }
            Entry::Refused(..) => return,
        };
        let known = self.cached.get(&listed.device.index);
        let why = known.and_then(|known| known.found.record.not_answering.clone());
        let why = why.unwrap_or_else(|| Step::Entry.to_string());
        self.keep_silent(&listed, Reading::default(), &why);
    }

    /// Takes the readings that arrived after their deadlines, with the indexes of their devices.
    pub(super) fn take_late(&mut self, now: i64) -> Vec<(u32, Reading)> {
        let mut readings = Vec::new();
        for (request, answer) in self.workers.late() {
            let Some(subject) = self.silences.of(request) else {
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
    pub(super) fn take_over_late(&mut self, late: Vec<(u32, Reading)>, now: i64) -> i64 {
        let mut reads = 0;
        for (index, reading) in late {
            let subject = Subject::Device(index);
            let Some(known) = self.cached.get(&index) else {
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
            let to_read = ToRead {
                index,
                listed: None,
                ports_alone: false,
            };
            if reading.same {
                self.answers_as_before(index);
            } else if self.take_over(to_read, reading, &nodes.unwrap_or_default()) {
                reads += 1;
            }
        }
        reads
    }

    pub(super) fn answers_as_before(&mut self, index: u32) {
        if let Some(known) = self.cached.get_mut(&index) {
            let mut record = Device::clone(&known.found.record);
            record.not_answering = None;
            known.found.record = Arc::new(record);
        }
    }

    /// Tries the devices again whose pauses are over. The scan does not wait for them.
    pub(super) fn try_again(&mut self, now: i64) {
        for subject in self.silences.due(now) {
            let Subject::Device(index) = subject else {
                continue;
            };
            let to_read = ToRead {
                index,
                listed: None,
                ports_alone: false,
            };
            let Some(read) = self.reading_of(&to_read) else {
                self.silences.end(subject);
                continue;
            };
            match self.workers.send_apart(Request::Read(read)) {
                Some(request) => self.silences.asked(subject, request),
                None => return,
            }
        }
    }
}

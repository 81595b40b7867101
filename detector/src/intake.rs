//! The event intake: turns the messages of the kernel into the set of objects to scan next, and counts
//! them. Pure. Must never leave out an object whose event may have been lost.

use crate::netlink::{Received, Refused};
use crate::pending::Pending;
use crate::uevent::Uevent;

/// The numbers of messages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The uevents of the kernel.
    pub uevents: i64,
    /// The messages of the RDMA monitor.
    pub monitor_messages: i64,
    /// The uevents that did not have the sequence number after that of the previous one.
    pub sequence_gaps: i64,
    /// The datagrams that were dropped.
    pub dropped_datagrams: i64,
    /// The overflows of a queue of the kernel.
    pub overruns: i64,
}

/// The objects to scan, and the state of the events that lead to them.
#[derive(Debug)]
pub struct Intake {
    pending: Pending,
    /// True if event numbers are missing. The missing events may belong to other network namespaces,
    /// which is common. So all objects are read with the next periodic scan, and no earlier.
    events_missing: bool,
    /// True if a module was being initialised or removed during the last scan. No event reports the
    /// end of that.
    in_motion: bool,
    last_sequence: Option<u64>,
    counts: Counts,
}

impl Default for Intake {
    /// Creates the intake before the first scan, which reads everything.
    fn default() -> Self {
        Self {
            pending: Pending::everything(),
            events_missing: false,
            in_motion: false,
            last_sequence: None,
            counts: Counts::default(),
        }
    }
}

impl Intake {
    /// Returns the numbers of messages since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns true if an object must be scanned because of an event.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns true if a periodic scan is needed although there are no devices.
    #[must_use]
    pub fn needs_periodic(&self) -> bool {
        self.events_missing || self.in_motion
    }

    /// Takes the set for the scan that begins now. `periodic` adds the changes that the kernel does
    /// not always announce; `barrier` adds all objects whose events may be missing.
    pub fn take(&mut self, periodic: bool, barrier: bool) -> Pending {
        let mut pending = std::mem::take(&mut self.pending);
        if barrier {
            pending.merge(Pending::uncertain());
        }
        if periodic {
            pending.merge(match std::mem::take(&mut self.events_missing) {
                true => Pending::uncertain(),
                false => Pending::periodic(),
            });
            pending.all_functions |= self.in_motion;
        }
        pending
    }

    /// Records that a scan has succeeded, and if a module was being initialised or removed.
    pub fn scanned(&mut self, in_motion: bool) {
        self.in_motion = in_motion;
    }

    /// Records that the scan of this set has failed.
    pub fn failed(&mut self, pending: Pending) {
        self.pending.merge(pending);
    }

    /// Adds all ports: a device has responded late, or the monitor was opened.
    pub fn add_ports(&mut self) {
        self.pending.ports = true;
    }

    /// Adds a uevent, or its loss.
    pub fn uevent(&mut self, received: &Received<Uevent<'_>>) {
        match received {
            Received::Message(uevent) => {
                self.counts.uevents += 1;
                self.follow_sequence(uevent.sequence);
                self.pending.uevent(uevent);
            }
            Received::Dropped(reason) => self.dropped(reason),
            Received::Overrun => self.overrun(),
        }
    }

    /// Adds a message of the RDMA monitor, or its loss.
    pub fn monitored(&mut self, received: &Received<Vec<Option<u32>>>) {
        match received {
            Received::Message(indexes) => {
                self.counts.monitor_messages += 1;
                for index in indexes {
                    self.pending.monitored(*index);
                }
            }
            Received::Dropped(reason) => self.dropped(reason),
            Received::Overrun => self.overrun(),
        }
    }

    fn follow_sequence(&mut self, sequence: u64) {
        let expected = self.last_sequence.map(|last| last.wrapping_add(1));
        if expected != Some(sequence) {
            // An event before the first one may be missing, too.
            self.events_missing = true;
            if expected.is_some() {
                self.counts.sequence_gaps += 1;
            }
        }
        self.last_sequence = Some(sequence);
    }

    fn dropped(&mut self, reason: &Refused) {
        self.counts.dropped_datagrams += 1;
        // A truncated datagram may have been an event. A datagram of another sender never was one.
        if matches!(reason, Refused::Truncated) {
            self.pending = Pending::everything();
        }
    }

    fn overrun(&mut self) {
        self.counts.overruns += 1;
        self.pending = Pending::everything();
    }
}

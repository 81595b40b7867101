//! The entries of the kernel's device list, compared with the previous list. While the bytes of an
//! entry are the same, the device is the same, and the entry is not decoded. Pure. Must never leave
//! out other entries because one is unusable.

use std::collections::BTreeSet;
use std::fmt;

use crate::nldev::{NldevDevice, NldevError, device_index};
use crate::refusal::Refusal;

/// A decoded list entry.
pub(super) struct ListedDevice {
    pub(super) device: NldevDevice,
    /// The entry as the kernel sent it.
    pub(super) reply: Box<[u8]>,
}

/// The comparison of one list entry with the cache.
pub(super) enum Entry {
    /// The entry is the same as the cached one. Holds the device index.
    Same(u32),
    /// The entry is new or has changed.
    Changed(ListedDevice),
    /// The entry is unusable. Holds the device index, if the entry has one.
    Refused(Option<u32>, Refusal),
}

impl Entry {
    /// Compares an entry with the last one for the same index, which `known` returns.
    pub(super) fn parse<'k>(reply: &[u8], known: impl FnOnce(u32) -> Option<&'k [u8]>) -> Self {
        let index = match device_index(reply) {
            Ok(index) => index,
            Err(e) => {
                return Self::Refused(None, Refusal::at("an RDMA device without an index", e));
            }
        };
        if known(index) == Some(reply) {
            return Self::Same(index);
        }
        match ListedDevice::parse(reply) {
            Ok(listed) => Self::Changed(listed),
            Err(e) => Self::refused(index, e),
        }
    }

    /// Leaves out the device with this index.
    pub(super) fn refused(index: u32, reason: impl fmt::Display) -> Self {
        let place = format_args!("the RDMA device with index {index}");
        Self::Refused(Some(index), Refusal::at(place, reason))
    }

    /// Returns the index of the device, unless it is left out.
    pub(super) fn index(&self) -> Option<u32> {
        match self {
            Self::Same(index) => Some(*index),
            Self::Changed(listed) => Some(listed.device.index),
            Self::Refused(..) => None,
        }
    }
}

impl ListedDevice {
    pub(super) fn parse(reply: &[u8]) -> Result<Self, NldevError> {
        Ok(Self {
            device: NldevDevice::parse(reply)?,
            reply: reply.into(),
        })
    }
}

/// Separates usable entries from those that are left out. Keeps each index once, and at most `most`
/// entries.
pub(super) fn usable(entries: Vec<Entry>, most: usize) -> (Vec<Entry>, Vec<Entry>) {
    let mut seen = BTreeSet::new();
    let mut left_out = Vec::new();
    let mut usable = Vec::with_capacity(entries.len().min(most));
    for entry in entries {
        match entry.index() {
            None => left_out.push(entry),
            Some(index) if !seen.insert(index) => {
                let place = format_args!("the RDMA device with index {index}");
                left_out.push(Entry::Refused(
                    None,
                    Refusal::at(place, "it is listed twice"),
                ));
            }
            Some(_) if usable.len() < most => usable.push(entry),
            Some(index) => {
                let reason = format_args!("there are more than {most}");
                left_out.push(Entry::refused(index, reason));
            }
        }
    }
    (usable, left_out)
}

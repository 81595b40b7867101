//! The entries of the kernel's device list, compared with the previous list. While the bytes of an
//! entry are the same, the device is the same, and the entry is not decoded. Pure. Must never leave
//! out other entries because one is unusable.

use std::collections::BTreeSet;
use std::fmt;

use crate::nldev::{NldevDevice, NldevError, device_index};
use crate::refusal::Refusal;

/// A decoded list entry.
pub(super) struct Told {
    pub(super) device: NldevDevice,
    /// The entry as the kernel sent it.
    pub(super) reply: Box<[u8]>,
}

/// The comparison of one list entry with the cache.
pub(super) enum Listed {
    /// The entry is the same as the cached one. Holds the device index.
    Same(u32),
    /// The entry is new or has changed.
    Other(Told),
    /// The entry is unusable. Holds the device index, if the entry has one.
    Refused(Option<u32>, Refusal),
}

impl Listed {
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
        match Told::parse(reply) {
            Ok(told) => Self::Other(told),
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
            Self::Other(told) => Some(told.device.index),
            Self::Refused(..) => None,
        }
    }
}

impl Told {
    pub(super) fn parse(reply: &[u8]) -> Result<Self, NldevError> {
        Ok(Self {
            device: NldevDevice::parse(reply)?,
            reply: reply.into(),
        })
    }
}

/// Separates usable entries from those that are left out. Keeps each index once, and at most `most`
/// entries.
pub(super) fn usable(listed: Vec<Listed>, most: usize) -> (Vec<Listed>, Vec<Listed>) {
    let mut seen = BTreeSet::new();
    let mut left_out = Vec::new();
    let mut usable = Vec::with_capacity(listed.len().min(most));
    for listed in listed {
        match listed.index() {
            None => left_out.push(listed),
            Some(index) if !seen.insert(index) => {
                let place = format_args!("the RDMA device with index {index}");
                left_out.push(Listed::Refused(
                    None,
                    Refusal::at(place, "it is listed twice"),
                ));
            }
            Some(_) if usable.len() < most => usable.push(listed),
            Some(index) => {
                let reason = format_args!("there are more than {most}");
                left_out.push(Listed::refused(index, reason));
            }
        }
    }
    (usable, left_out)
}

//! What the kernel's list of devices says, compared with what it said last: while the bytes of an
//! entry are the same, so is the device, and nothing of it is decoded. Pure. Must never leave
//! the others out because one entry cannot be used.

use std::collections::BTreeSet;
use std::fmt;

use crate::nldev::{NldevDevice, NldevError, device_index};
use crate::refusal::Refusal;

/// What the kernel's list says of a device.
pub(super) struct Told {
    pub(super) device: NldevDevice,
    /// As it was sent.
    pub(super) reply: Box<[u8]>,
}

/// One entry of the kernel's list.
pub(super) enum Listed {
    /// As it is known.
    Same(u32),
    /// New, or another than it was.
    Other(Told),
    /// One that cannot be used, of the device with this index where it says one.
    Refused(Option<u32>, Refusal),
}

impl Listed {
    /// `known` is what was last sent of the device with an index.
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

    /// The device, unless it is left out.
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

/// Parts what can be used, each index once and at most `most` of them, from what is left out.
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

//! What the kernel's list of devices says, compared with what it said last: while the bytes of an
//! entry are the same, so is the device, and nothing of it is decoded. Pure. Must never leave
//! the others out because one entry's name is none.

use interfaces::names::NameError;

use crate::nldev::{NldevDevice, NldevError, device_index};

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
    /// With a name that is none.
    Refused(NameError),
}

impl Listed {
    /// `known` is what was last sent of the device with an index.
    pub(super) fn parse<'k>(
        reply: &[u8],
        known: impl FnOnce(u32) -> Option<&'k [u8]>,
    ) -> Result<Self, NldevError> {
        let index = device_index(reply)?;
        if known(index) == Some(reply) {
            return Ok(Self::Same(index));
        }
        match Told::parse(reply) {
            Ok(told) => Ok(Self::Other(told)),
            Err(NldevError::Name(e)) => Ok(Self::Refused(e)),
            Err(e) => Err(e),
        }
    }

    /// The device, unless it is left out.
    pub(super) fn index(&self) -> Option<u32> {
        match self {
            Self::Same(index) => Some(*index),
            Self::Other(told) => Some(told.device.index),
            Self::Refused(_) => None,
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

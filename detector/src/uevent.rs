//! Kernel uevents, decoded: `ACTION@DEVPATH`, then `KEY=VALUE` strings, each ended by a NUL
//! (`lib/kobject_uevent.c`). Pure. Must never trust what a datagram says of itself.

/// The longest uevent that the kernel makes, in bytes: a path and `UEVENT_BUFFER_SIZE` of
/// properties (`include/linux/kobject.h`), with room to spare.
pub const MAX_LEN: usize = 8 * 1024;

/// The most properties that the kernel gives an event (`UEVENT_NUM_ENVP`).
const MAX_PROPERTIES: usize = 64;

/// One event of one kernel object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `change`, `remove`, `move`, `online`, `offline`, `bind`, `unbind`.
    pub action: String,
    /// The object's path below sysfs, beginning with `/`.
    pub devpath: String,
    /// The subsystem that the object belongs to.
    pub subsystem: String,
    /// The kernel's number of the event: grows by one with each.
    pub sequence: u64,
}

/// Why a datagram is no uevent of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UeventError {
    /// It does not begin with `ACTION@DEVPATH`.
    #[error("it does not begin with ACTION@DEVPATH")]
    Header,
    /// It has more properties than the kernel makes.
    #[error("it has more than {MAX_PROPERTIES} properties")]
    TooManyProperties,
    /// A property is missing, not text, or contradicts the header.
    #[error("its {0} is missing or wrong")]
    Property(&'static str),
}

impl Uevent {
    /// Decodes one datagram.
    ///
    /// # Errors
    /// When it is not what the kernel sends. Properties that are not decoded may hold anything.
    pub fn parse(datagram: &[u8]) -> Result<Self, UeventError> {
        let mut strings = datagram.split(|&byte| byte == 0);
        let header = strings.next().and_then(|h| str::from_utf8(h).ok());
        let (action, devpath) = header
            .and_then(|h| h.split_once('@'))
            .ok_or(UeventError::Header)?;
        let properties: Vec<&[u8]> = strings.filter(|s| !s.is_empty()).collect();
        if properties.len() > MAX_PROPERTIES {
            return Err(UeventError::TooManyProperties);
        }
        let text = |key: &'static str| {
            properties
                .iter()
                .find_map(|p| p.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
                .and_then(|value| str::from_utf8(value).ok())
                .filter(|value| !value.contains(char::is_control))
                .ok_or(UeventError::Property(key))
        };
        if text("ACTION")? != action {
            return Err(UeventError::Property("ACTION"));
        }
        if text("DEVPATH")? != devpath || !devpath.starts_with('/') {
            return Err(UeventError::Property("DEVPATH"));
        }
        let sequence = text("SEQNUM")?;
        Ok(Self {
            action: action.to_owned(),
            devpath: devpath.to_owned(),
            subsystem: text("SUBSYSTEM")?.to_owned(),
            sequence: sequence
                .parse()
                .map_err(|_| UeventError::Property("SEQNUM"))?,
        })
    }

    /// Whether the RDMA devices may be other ones after this event.
    #[must_use]
    pub fn concerns_rdma(&self) -> bool {
        matches!(
            self.subsystem.as_str(),
            "infiniband" | "infiniband_verbs" | "infiniband_mad"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &[u8] = b"add@/devices/virtual/infiniband/rxe0\0ACTION=add\0\
        DEVPATH=/devices/virtual/infiniband/rxe0\0SUBSYSTEM=infiniband\0NAME=rxe0\0SEQNUM=2501\0";

    #[test]
    fn a_kernel_event_is_decoded() {
        let uevent = Uevent::parse(ADD).unwrap();
        assert_eq!(uevent.action, "add");
        assert_eq!(uevent.devpath, "/devices/virtual/infiniband/rxe0");
        assert_eq!(uevent.subsystem, "infiniband");
        assert_eq!(uevent.sequence, 2501);
        assert!(uevent.concerns_rdma());
    }

    #[test]
    fn an_event_cut_anywhere_before_its_last_property_is_refused() {
        let last = ADD.len() - "2501\0".len();
        for end in 0..=last {
            assert!(Uevent::parse(&ADD[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_message_of_udev_is_refused() {
        assert_eq!(
            Uevent::parse(b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28"),
            Err(UeventError::Header)
        );
    }

    #[test]
    fn a_header_that_contradicts_the_properties_is_refused() {
        let forged = String::from_utf8_lossy(ADD).replacen("add@", "remove@", 1);
        assert_eq!(
            Uevent::parse(forged.as_bytes()),
            Err(UeventError::Property("ACTION"))
        );
    }

    #[test]
    fn control_characters_are_refused() {
        let forged = String::from_utf8_lossy(ADD).replace("rxe0", "rx\u{1b}0");
        assert_eq!(
            Uevent::parse(forged.as_bytes()),
            Err(UeventError::Property("DEVPATH"))
        );
    }

    #[test]
    fn more_properties_than_the_kernel_makes_are_refused() {
        let mut many = ADD.to_vec();
        many.extend(b"A=1\0".repeat(100));
        assert_eq!(Uevent::parse(&many), Err(UeventError::TooManyProperties));
    }
}

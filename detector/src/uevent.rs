//! The decoder of kernel uevents: `ACTION@DEVPATH`, then `KEY=VALUE` strings, each terminated by a
//! NUL (`lib/kobject_uevent.c`). Pure. Must never trust the contents of a datagram.

/// The longest uevent that the kernel makes, in bytes: a path and `UEVENT_BUFFER_SIZE` of
/// properties (`include/linux/kobject.h`), with room to spare.
pub const MAX_LEN: usize = 8 * 1024;

/// The maximum number of properties of an event in the kernel (`UEVENT_NUM_ENVP`).
const MAX_PROPERTIES: usize = 64;

/// The maximum length of a path, in bytes, and of each of its components (`PATH_MAX`, `NAME_MAX`).
const MAX_PATH: usize = 4096;
const MAX_COMPONENT: usize = 255;

/// One event of one kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uevent<'d> {
    /// `add`, `change`, `remove`, `move`, `online`, `offline`, `bind`, `unbind`.
    pub action: &'d str,
    /// The object's path below sysfs. It begins with `/`, and has no component that is empty, `.`
    /// or `..`.
    pub devpath: &'d str,
    /// The object's previous path, for `move`. It obeys the same rules.
    pub devpath_old: Option<&'d str>,
    /// The subsystem that the object belongs to.
    pub subsystem: &'d str,
    /// The kernel's number of the event. It grows by one with each event of any network namespace.
    pub sequence: u64,
}

/// The reason why a datagram is not a uevent of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UeventError {
    /// It does not begin with `ACTION@DEVPATH`.
    #[error("it does not begin with ACTION@DEVPATH")]
    Header,
    /// It has more properties than the kernel makes.
    #[error("it has more than {MAX_PROPERTIES} properties")]
    TooManyProperties,
    /// A property is missing, not text, or contradicts the header.
    #[error("its {0} is missing or invalid")]
    Property(&'static str),
}

impl<'d> Uevent<'d> {
    /// Decodes one datagram.
    ///
    /// # Errors
    /// Fails if the datagram is not one that the kernel sends. Properties that are not decoded may
    /// contain anything.
    pub fn parse(datagram: &'d [u8]) -> Result<Self, UeventError> {
        let mut strings = datagram.split(|&byte| byte == 0);
        let header = strings.next().and_then(|h| str::from_utf8(h).ok());
        let (action, devpath) = header
            .and_then(|h| h.split_once('@'))
            .ok_or(UeventError::Header)?;
        let mut properties = Properties::default();
        for (number, property) in strings.filter(|s| !s.is_empty()).enumerate() {
            if number == MAX_PROPERTIES {
                return Err(UeventError::TooManyProperties);
            }
            properties.take(property);
        }
        if text(properties.action, "ACTION")? != action {
            return Err(UeventError::Property("ACTION"));
        }
        if text(properties.devpath, "DEVPATH")? != devpath || !is_path(devpath) {
            return Err(UeventError::Property("DEVPATH"));
        }
        let devpath_old = match properties.devpath_old {
            None => None,
            old => Some(text(old, "DEVPATH_OLD")?),
        };
        if devpath_old.is_some_and(|path| !is_path(path)) {
            return Err(UeventError::Property("DEVPATH_OLD"));
        }
        Ok(Self {
            action,
            devpath,
            devpath_old,
            subsystem: text(properties.subsystem, "SUBSYSTEM")?,
            sequence: text(properties.sequence, "SEQNUM")?
                .parse()
                .map_err(|_| UeventError::Property("SEQNUM"))?,
        })
    }

    /// Returns the kernel's name of the object: the last component of its path.
    #[must_use]
    pub fn name(&self) -> &'d str {
        last_component(self.devpath)
    }
}

/// The decoded properties, as in the datagram. The first one counts if a property is repeated.
#[derive(Default)]
struct Properties<'d> {
    action: Option<&'d [u8]>,
    devpath: Option<&'d [u8]>,
    devpath_old: Option<&'d [u8]>,
    subsystem: Option<&'d [u8]>,
    sequence: Option<&'d [u8]>,
}

impl<'d> Properties<'d> {
    fn take(&mut self, property: &'d [u8]) {
        let Some(equals) = property.iter().position(|&byte| byte == b'=') else {
            return;
        };
        let (key, value) = property.split_at(equals);
        let slot = match key {
            b"ACTION" => &mut self.action,
            b"DEVPATH" => &mut self.devpath,
            b"DEVPATH_OLD" => &mut self.devpath_old,
            b"SUBSYSTEM" => &mut self.subsystem,
            b"SEQNUM" => &mut self.sequence,
            _ => return,
        };
        let _ = slot.get_or_insert(value.get(1..).unwrap_or_default());
    }
}

fn text<'d>(value: Option<&'d [u8]>, key: &'static str) -> Result<&'d str, UeventError> {
    value
        .and_then(|value| str::from_utf8(value).ok())
        .filter(|value| !value.contains(char::is_control))
        .ok_or(UeventError::Property(key))
}

/// Returns the last component of a path below sysfs.
#[must_use]
pub fn last_component(devpath: &str) -> &str {
    devpath.rsplit('/').next().unwrap_or_default()
}

fn is_path(path: &str) -> bool {
    let is_component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.len() <= MAX_COMPONENT;
    path.len() <= MAX_PATH
        && path
            .strip_prefix('/')
            .is_some_and(|p| p.split('/').all(is_component))
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
        assert_eq!(uevent.name(), "rxe0");
        assert_eq!(uevent.devpath_old, None);
    }

    #[test]
    fn an_event_truncated_before_its_last_value_is_refused() {
        let last = ADD.len() - "2501\0".len();
        for end in 0..=last {
            assert!(Uevent::parse(&ADD[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_udev_message_is_refused() {
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
    fn an_event_with_too_many_properties_is_refused() {
        let mut many = ADD.to_vec();
        many.extend(b"A=1\0".repeat(100));
        assert_eq!(Uevent::parse(&many), Err(UeventError::TooManyProperties));
    }

    #[test]
    fn a_move_event_gives_the_old_path() {
        let moved = b"move@/devices/a/infiniband/roce0\0ACTION=move\0\
            DEVPATH=/devices/a/infiniband/roce0\0SUBSYSTEM=infiniband\0\
            DEVPATH_OLD=/devices/a/infiniband/mlx5_0\0SEQNUM=9\0";
        let uevent = Uevent::parse(moved).unwrap();
        assert_eq!(uevent.devpath_old, Some("/devices/a/infiniband/mlx5_0"));
    }

    #[test]
    fn invalid_device_paths_are_refused() {
        let long = format!("/devices/{}", "a".repeat(4096));
        for path in [
            "devices/a",
            "/devices/../etc",
            "/devices/./a",
            "/devices//a",
            "/",
            &long,
        ] {
            let add = format!("add@{path}\0ACTION=add\0DEVPATH={path}\0SUBSYSTEM=net\0SEQNUM=1\0");
            let refused = Err(UeventError::Property("DEVPATH"));
            assert_eq!(Uevent::parse(add.as_bytes()), refused, "{path}");
        }
    }
}

//! The limits for the detector's records. An attacker may control the detector's user, and the
//! records are kept in memory and in the journal and are sent to every subscriber. A record that
//! exceeds a limit is refused with a message, and its device or function stays unchanged. Pure.
//! Must never change a record.

use interfaces::detector::{Device, Function};
use serde::{Deserialize, Serialize};

/// The maximum number of devices: more virtual functions than any host has.
const MAX_DEVICES: usize = 4096;
/// The maximum number of functions without a device.
pub const MAX_FUNCTIONS: usize = 4096;
/// The maximum number of ports of a device (`rdma_is_port_valid()`: port numbers have eight bits).
const MAX_PORTS: usize = 255;
/// The maximum size of a function's name in bytes. A sysfs attribute has at most one page.
const MAX_TEXT: usize = 4096;
/// The maximum size of one encoded record in bytes: 255 ports, and a reserve.
const MAX_RECORD: usize = 256 << 10;
/// The maximum size of all records in bytes. A device with one port has about one kilobyte.
const MAX_ALL: usize = 8 << 20;
/// The maximum number of entries in one list.
const MAX_LIST: usize = 64;

/// The size of the records that are held, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The size of all records.
    pub all: usize,
}

/// Returns the size of the encoded record in bytes.
pub fn len(record: &impl Serialize) -> usize {
    /// A writer that only counts bytes.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // A type that is generated from an interface file can always be encoded.
    let _ = serde_json::to_writer(&mut count, record);
    count.0
}

impl Held {
    /// Accounts for a record of `len` bytes that replaces one of `before` bytes. There are `others`
    /// other records of its kind, and at most `most` are allowed.
    fn take(
        &mut self,
        (len, before): (usize, usize),
        (others, most): (usize, usize),
        what: &str,
    ) -> Result<(), String> {
        if len > MAX_RECORD {
            return Err(format!(
                "{what}: a record of {len} bytes; at most {MAX_RECORD} are accepted"
            ));
        }
        if others >= most {
            return Err(format!("{what}: at most {most} are accepted"));
        }
        let all = self.all.saturating_sub(before).saturating_add(len);
        if all > MAX_ALL {
            return Err(format!(
                "{what}: all records have more than {MAX_ALL} bytes"
            ));
        }
        self.change(before, len);
        Ok(())
    }

    /// Accounts for a record of `len` bytes that replaces one of `before` bytes; 0 stands for no
    /// record.
    pub fn change(&mut self, before: usize, len: usize) {
        self.all = self.all.saturating_sub(before).saturating_add(len);
    }

    /// Checks the limits for a device and accounts for it. `before` is the size of its current
    /// record, if it has one, and `others` the number of other devices.
    ///
    /// # Errors
    /// Returns a message if the device exceeds a limit.
    pub fn device(
        &mut self,
        device: &Device,
        before: Option<usize>,
        others: usize,
    ) -> Result<(), String> {
        let what = format!("device {}", printable(&device.name));
        if interfaces::names::DeviceName::parse(&device.name).is_err() {
            return Err(format!("{what}: an invalid name"));
        }
        if device.ports.len() > MAX_PORTS {
            let ports = device.ports.len();
            return Err(format!(
                "{what}: {ports} ports; at most {MAX_PORTS} are accepted"
            ));
        }
        if let Some(port) = device.ports.iter().find(|p| p.gid_types.len() > MAX_LIST) {
            let number = port.number;
            return Err(format!(
                "{what}: port {number} has more than {MAX_LIST} types of GIDs"
            ));
        }
        let len = len(device);
        self.take(
            (len, before.unwrap_or_default()),
            (others, MAX_DEVICES),
            &what,
        )
    }

    /// Checks the limits for a function and accounts for it, like [`Self::device`].
    ///
    /// # Errors
    /// Returns a message if the function exceeds a limit.
    pub fn function(
        &mut self,
        function: &Function,
        before: Option<usize>,
        others: usize,
    ) -> Result<(), String> {
        let what = format!("function {}", printable(&function.name));
        let long = function.name.is_empty() || function.name.len() > MAX_TEXT;
        if long || function.name.chars().any(char::is_control) {
            return Err(format!("{what}: an invalid name"));
        }
        let len = len(function);
        self.take(
            (len, before.unwrap_or_default()),
            (others, MAX_FUNCTIONS),
            &what,
        )
    }
}

/// Returns the beginning of a name that may contain any characters, escaped for a log.
fn printable(name: &str) -> String {
    const MAX_CHARS: usize = 80;
    let begins: String = name.chars().take(MAX_CHARS).collect();
    format!("\"{}\"", begins.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::device;
    use interfaces::detector::Protocol;

    fn refusal(device: &Device) -> String {
        Held::default().device(device, None, 0).unwrap_err()
    }

    #[test]
    fn a_device_that_exceeds_a_limit_or_has_an_invalid_name_is_refused_with_the_reason() {
        let many = vec![Protocol::Roce; 256];
        assert_eq!(
            refusal(&device(1, "a", &many)),
            "device \"a\": 256 ports; at most 255 are accepted"
        );
        let mut long = device(1, "a", &[]);
        long.firmware_version = Some("x".repeat(4 << 20));
        assert!(refusal(&long).ends_with("bytes; at most 262144 are accepted"));
        for name in ["", "a\x1b", "a/b", &"x".repeat(64)] {
            assert!(
                refusal(&device(1, name, &[])).ends_with("an invalid name"),
                "{name:?}"
            );
        }
        let mut types = device(1, "a", &[Protocol::Roce]);
        types.ports[0].gid_types = vec!["x".to_owned(); 65];
        assert!(refusal(&types).ends_with("more than 64 types of GIDs"));
        let other = device(1, "a", &[]);
        let full = Held::default()
            .device(&other, None, MAX_DEVICES)
            .unwrap_err();
        assert_eq!(full, "device \"a\": at most 4096 are accepted");
    }

    #[test]
    fn all_records_share_one_limit_and_a_removed_record_frees_its_share() {
        let mut held = Held::default();
        let mut large = device(1, "a", &[]);
        large.firmware_version = Some("x".repeat(200 << 10));
        let each = len(&large);
        let mut taken = 0;
        while held.device(&large, None, taken).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, MAX_ALL / each);
        // A known device may change, and the removal of a device frees its share.
        assert!(held.device(&large, Some(each), 1).is_ok());
        held.change(each, 0);
        assert!(held.device(&large, None, taken).is_ok());
        assert!(held.all <= MAX_ALL);
    }

    #[test]
    fn a_device_with_255_ports_is_accepted() {
        let mut largest = device(1, &"x".repeat(63), &[Protocol::Roce; 255]);
        for port in &mut largest.ports {
            port.netdev = Some("x".repeat(15));
            port.gid_types = vec!["RoCE v2".to_owned(); 3];
            port.umad = Some("umad123456".to_owned());
            port.issm = Some("issm123456".to_owned());
        }
        assert!(len(&largest) < MAX_RECORD, "{}", len(&largest));
        assert!(Held::default().device(&largest, None, 0).is_ok());
    }
}

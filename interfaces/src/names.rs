//! Names that cross a boundary, validated once when they do. The code behind the boundary may rely
//! on them. Pure. Must never read or look up anything.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason that a string is not a name of the required kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a {kind}: {reason}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    reason: &'static str,
}

impl NameError {
    fn new(kind: &'static str, name: &str, reason: &'static str) -> Self {
        // The caller logs or returns this error, which must not repeat a megabyte.
        let name = name.chars().take(80).collect();
        Self { kind, name, reason }
    }
}

/// The name of a kernel module, or an alias of the same form, in the kernel's spelling: `_`
/// replaces every `-`, as in `modprobe(8)`.
///
/// 1 to 55 of the characters `A-Z a-z 0-9 _ -` (`MODULE_NAME_LEN` in the kernel's
/// `include/linux/module.h` is 56 with the final NUL), not beginning with `-`. A path, option or
/// pattern is never valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleName(String);

impl ModuleName {
    /// The most bytes in a name.
    pub const MAX_LEN: usize = 55;

    /// Checks `name` and converts it to the kernel's spelling.
    ///
    /// # Errors
    /// Fails if `name` is empty, longer than [`Self::MAX_LEN`] bytes, begins with `-`, or has any
    /// other character.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        const KIND: &str = "module name";
        if name.is_empty() {
            return Err(NameError::new(KIND, name, "it is empty"));
        }
        if name.len() > Self::MAX_LEN {
            return Err(NameError::new(KIND, name, "it is longer than 55 bytes"));
        }
        if name.starts_with('-') {
            return Err(NameError::new(KIND, name, "it begins with '-'"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.chars().all(allowed) {
            let reason = "only A-Z, a-z, 0-9, '_' and '-' are allowed";
            return Err(NameError::new(KIND, name, reason));
        }
        Ok(Self(name.replace('-', "_")))
    }

    /// Returns the name in the kernel's spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key with which a module can be looked up: its name, an alias, or the string with which the
/// kernel looks for a device's driver (`modalias` in sysfs), in the spelling of depmod's indexes:
/// `_` replaces every `-`.
///
/// 1 to 255 of the characters `A-Z a-z 0-9 _ - : . , = +`, the first of them a letter, a digit or
/// `_`: it can be part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleAlias(String);

impl ModuleAlias {
    /// The most bytes in an alias.
    pub const MAX_LEN: usize = 255;

    /// Checks `alias` and converts it to the spelling of the indexes.
    ///
    /// # Errors
    /// Fails if `alias` is empty, longer than [`Self::MAX_LEN`] bytes, begins with a character
    /// other than a letter, a digit or `_`, or has any other character.
    pub fn parse(alias: &str) -> Result<Self, NameError> {
        const KIND: &str = "module name or alias";
        if alias.len() > Self::MAX_LEN {
            return Err(NameError::new(KIND, alias, "it is longer than 255 bytes"));
        }
        if !alias.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            let reason = "it does not begin with a letter or digit";
            return Err(NameError::new(KIND, alias, reason));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-:.,=+".contains(c);
        if !alias.chars().all(allowed) {
            let reason = "only A-Z, a-z, 0-9 and '_-:.,=+' are allowed";
            return Err(NameError::new(KIND, alias, reason));
        }
        Ok(Self(alias.replace('-', "_")))
    }

    /// Returns the alias in the spelling of the indexes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an RDMA device: an entry of `/sys/class/infiniband`.
///
/// 1 to 63 bytes (`IB_DEVICE_NAME_MAX` in `rdma_netlink.h` is 64 with the final NUL), without `/`
/// and control characters, and neither `.` nor `..`: it can be part of a path. A blank is unusual,
/// but the kernel accepts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

impl DeviceName {
    /// The most bytes in a name.
    pub const MAX_LEN: usize = 63;

    /// Checks `name`.
    ///
    /// # Errors
    /// Fails if `name` cannot be an entry of `/sys/class/infiniband`.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        const KIND: &str = "device name";
        if name.is_empty() {
            return Err(NameError::new(KIND, name, "it is empty"));
        }
        if name.len() > Self::MAX_LEN {
            return Err(NameError::new(KIND, name, "it is longer than 63 bytes"));
        }
        if name == "." || name == ".." {
            return Err(NameError::new(KIND, name, "it is the name of a directory"));
        }
        if name.contains(|c: char| c == '/' || c.is_control()) {
            let reason = "it contains '/' or a control character";
            return Err(NameError::new(KIND, name, reason));
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a systemd unit that can be started: not a template without its instance.
///
/// 1 to 255 of the characters `A-Z a-z 0-9 : - _ . \ @`. The part after the last dot is a unit type
/// (`systemd.unit(5)`; systemd's `unit_name_is_valid()`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

impl UnitName {
    /// The most bytes in a name.
    pub const MAX_LEN: usize = 255;

    const TYPES: [&str; 11] = [
        "service",
        "socket",
        "target",
        "device",
        "mount",
        "automount",
        "swap",
        "timer",
        "path",
        "slice",
        "scope",
    ];

    /// Checks `name`.
    ///
    /// # Errors
    /// Fails if `name` is not the name of a unit, or is that of a template.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let wrong = |reason| Err(NameError::new("unit name", name, reason));
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let Some((prefix, unit_type)) = name.rsplit_once('.') else {
            return wrong("it does not end in a type of unit");
        };
        if !Self::TYPES.contains(&unit_type) {
            return wrong("it does not end in a type of unit");
        }
        if name.len() > Self::MAX_LEN {
            return wrong("it is longer than 255 bytes");
        }
        if prefix.is_empty() || prefix.starts_with('@') {
            return wrong("it has no name before its type or instance");
        }
        if !name.chars().all(allowed) {
            return wrong("only A-Z, a-z, 0-9 and :-_.\\@ are allowed");
        }
        if prefix.ends_with('@') {
            return wrong("it is a template without an instance");
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The number of the last change that a publisher has sent. It only grows, by one with each change,
/// and starts again at 0 when the publisher restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SequenceNumber(i64);

impl SequenceNumber {
    /// Creates the number before the first change. If it is the time of the start, in µs of
    /// CLOCK_MONOTONIC, numbers grow across restarts.
    #[must_use]
    pub fn starting_at(number: i64) -> Self {
        Self(number)
    }

    /// Counts one change, and returns its number.
    pub fn advance(&mut self) -> Self {
        // At one change each nanosecond this would saturate after 292 years.
        self.0 = self.0.saturating_add(1);
        *self
    }
}

impl From<SequenceNumber> for i64 {
    fn from(number: SequenceNumber) -> Self {
        number.0
    }
}

/// Implements the conversions that every validated name has.
macro_rules! name {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::parse(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(ModuleName);
name!(ModuleAlias);
name!(DeviceName);
name!(UnitName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_in_a_module_name_becomes_an_underscore() {
        assert_eq!(ModuleName::parse("ib-core").unwrap().as_str(), "ib_core");
    }

    #[test]
    fn a_module_name_has_at_most_55_bytes() {
        assert!(ModuleName::parse(&"a".repeat(55)).is_ok());
        assert!(ModuleName::parse(&"a".repeat(56)).is_err());
    }

    #[test]
    fn an_alias_of_the_kernel_is_accepted_and_a_path_or_pattern_is_refused() {
        for alias in [
            "ib-core",
            "pci:v000015B3d00001017sv000015B3sd00000006bc02sc07i00",
            "auxiliary:mlx5_core.rdma",
            "rdma-netlink-subsys-4",
        ] {
            let parsed = ModuleAlias::parse(alias).unwrap();
            assert_eq!(parsed.as_str(), alias.replace('-', "_"));
        }
        let long = "a".repeat(256);
        for alias in [
            "", ".", "..", "../x", "a/b", "a*", "a[b]", "a?", "-r", "a b", "a\n", &long,
        ] {
            assert!(ModuleAlias::parse(alias).is_err(), "{alias:?}");
        }
        assert!(ModuleAlias::parse(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn paths_options_and_patterns_are_not_module_names() {
        for name in [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "/lib/modules/x.ko",
            "./x.ko",
            "ib_core.ko",
            "ib_core\0evil",
            "ib_core\n",
            " ib_core",
            "ib_core ",
            "ib core",
            "ib_core nosuch=1",
            "ib_core;reboot",
            "$(id)",
            "`id`",
            "-r",
            "--remove",
            "-C/etc/x",
            "*",
            "?b_core",
            "ib_c[o]re",
            "]",
            "ib\\core",
            "symbol:ib_register_device",
            "pci:v000015B3d*",
            "İB_CORE",
            "іb_core",
            "ib\u{2011}core",
        ] {
            assert!(ModuleName::parse(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn a_device_name_cannot_leave_its_directory() {
        for name in ["", ".", "..", "a/b", "/", "a\nb", "\u{1b}[2J"] {
            assert!(DeviceName::parse(name).is_err(), "{name:?} was accepted");
        }
        for name in ["rxe0", "mlx5_0", "rocep3s0f1v2", "a:b", "a-b", "a b"] {
            assert_eq!(DeviceName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_unit_name_must_name_a_unit_that_can_be_started() {
        for name in [
            "rdma-hw.target",
            "rdma-ndd.service",
            "srp_daemon_port@mlx5_0:1.service",
            "dev-infiniband-umad0.device",
            "x@a\\x2db.service",
        ] {
            assert_eq!(UnitName::parse(name).unwrap().as_str(), name);
        }
        let long = format!("{}.service", "a".repeat(248));
        for name in [
            "",
            "service",
            ".service",
            "@x.service",
            "x@.service",
            "x.services",
            "x.conf",
            "a/b.service",
            "../x.service",
            "a b.service",
            "%i.service",
            "ü.service",
            &long,
        ] {
            assert!(UnitName::parse(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn a_sequence_only_grows() {
        let mut sequence = SequenceNumber::default();
        assert_eq!(i64::from(sequence), 0);
        assert_eq!(i64::from(sequence.advance()), 1);
        assert!(sequence.advance() > SequenceNumber::default());
    }

    #[test]
    fn an_error_repeats_only_the_start_of_a_long_name() {
        let error = ModuleName::parse(&"x".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}

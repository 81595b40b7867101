//! The names of the targets that stand for RDMA hardware: a device, a port, a role. Their templates
//! are files of this package. Units of other packages attach to them with `WantedBy=`, `PartOf=`
//! and `Upholds=` (`systemd.unit(5)`). Pure. Must never name a unit that this package does not
//! ship.

use std::fmt::Write;

use interfaces::detector::Device;
use interfaces::names::{NameError, UnitName};
use serde::{Deserialize, Serialize};

use crate::machine::Flag;

/// The patterns that the names of our targets match, as the service manager's `ListUnitsByPatterns`
/// accepts them.
pub const PATTERNS: [&str; 5] = [
    "rdma-hotplug-hardware.target",
    "rdma-hotplug@*.target",
    "rdma-device@*.target",
    "rdma-port@*.target",
    "rdma-role@*.target",
];

/// A role that rules give to devices: 1 to 64 of the characters `A-Z a-z 0-9 _`. `-` is not
/// allowed: `%I` of a unit would show it as `/` (`systemd.unit(5)`, "Specifiers").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Role(String);

impl Role {
    /// The most characters that a role may have.
    const MAX_LEN: usize = 64;

    /// Parses the name of a role.
    ///
    /// # Errors
    /// Fails with a message that says what a role is.
    pub fn parse(name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match (1..=Self::MAX_LEN).contains(&name.len()) && name.chars().all(allowed) {
            true => Ok(Self(name.to_owned())),
            false => Err(format!(
                "{name:?} is not a role: 1 to {} of A-Z, a-z, 0-9 and '_'",
                Self::MAX_LEN
            )),
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A target that stands for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The name of the target.
    pub name: UnitName,
    /// True if it stands for that device alone.
    pub of_one: bool,
    /// The flag that makes PID 1 start it.
    pub flag: Option<Flag>,
}

/// Returns the targets of a device with these roles: its own target, one for each port, two for
/// each role, and those of its `flags`. Leaves out a target whose name is too long, and returns a
/// message for it.
#[must_use]
pub fn of_device(
    device: &Device,
    roles: &[Role],
    flags: impl IntoIterator<Item = Flag>,
) -> (Vec<Claim>, Vec<String>) {
    let name = escape(&device.name);
    let own = [format!("rdma-device@{name}.target")];
    let ports = device.ports.iter();
    let ports = ports.map(|port| format!("rdma-port@{name}:{}.target", port.number));
    let of_roles = roles
        .iter()
        .map(|role| format!("rdma-role@{}:{name}.target", role.as_str()));
    let shared = roles
        .iter()
        .map(|role| format!("rdma-role@{}.target", role.as_str()));
    let of_one = own.into_iter().chain(ports).chain(of_roles);
    let of_one = of_one.map(|name| (name, true, None));
    let shared = shared.map(|name| (name, false, None));
    let kinds = flags
        .into_iter()
        .map(|flag| (flag.target(), false, Some(flag)));
    let (mut claims, mut errors) = (Vec::new(), Vec::new());
    for (name, of_one, flag) in of_one.chain(shared).chain(kinds) {
        match UnitName::parse(&name) {
            Ok(name) => claims.push(Claim { name, of_one, flag }),
            Err(e) => errors.push(unnamed(&e)),
        }
    }
    (claims, errors)
}

fn unnamed(error: &NameError) -> String {
    format!("no target name can be made from it: {error}")
}

/// Returns the target that PID 1 starts when it sees a flag.
#[must_use]
pub fn of_flag(flag: Flag) -> Option<UnitName> {
    UnitName::parse(&flag.target()).ok()
}

/// Returns true if a unit of this name is one of our targets.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    PATTERNS
        .iter()
        .any(|pattern| match pattern.split_once('*') {
            None => name == *pattern,
            Some((prefix, suffix)) => {
                let instance = name.strip_prefix(prefix);
                instance.is_some_and(|rest| rest.len() > suffix.len() && rest.ends_with(suffix))
            }
        })
}

/// Returns true if a target of ours stands for one device, one port, or one role of one device: its
/// instance contains the name of a device. All others stand for any number of devices.
#[must_use]
pub fn is_of_one(name: &UnitName) -> bool {
    let name = name.as_str();
    name.starts_with("rdma-device@")
        || name.starts_with("rdma-port@")
        || (name.starts_with("rdma-role@") && name.contains(':'))
}

/// Escapes a string for the name of a unit (`systemd.unit(5)`, "String Escaping for Inclusion in
/// Unit Names").
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if at > 0 => escaped.push('.'),
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b':' | b'_' => escaped.push(byte.into()),
            // Writing to a string cannot fail.
            byte => drop(write!(escaped, "\\x{byte:02x}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::device;
    use interfaces::detector::Protocol;

    fn names(name: &str, roles: &[&str]) -> Vec<String> {
        let roles: Vec<Role> = roles.iter().map(|r| Role::parse(r).unwrap()).collect();
        let device = device(1, name, &[Protocol::Infiniband, Protocol::Roce]);
        let (claims, errors) = of_device(&device, &roles, [Flag::Hardware]);
        assert!(errors.is_empty(), "{errors:?}");
        assert!(claims.iter().all(|c| c.of_one == is_of_one(&c.name)));
        claims
            .into_iter()
            .map(|claim| claim.name.to_string())
            .collect()
    }

    #[test]
    fn a_device_has_its_own_target_one_for_each_port_and_two_for_each_role() {
        assert_eq!(
            names("mlx5_0", &["storage"]),
            [
                "rdma-device@mlx5_0.target",
                "rdma-port@mlx5_0:1.target",
                "rdma-port@mlx5_0:2.target",
                "rdma-role@storage:mlx5_0.target",
                "rdma-role@storage.target",
                "rdma-hotplug-hardware.target",
            ]
        );
    }

    #[test]
    fn a_device_name_is_escaped_in_unit_names_and_only_our_unit_names_are_recognised() {
        let names = names("ib-fixed a", &["x"]);
        assert_eq!(names[0], r"rdma-device@ib\x2dfixed\x20a.target");
        assert!(names.iter().all(|name| is_ours(name)));
        for flag in Flag::all() {
            assert!(is_ours(of_flag(flag).unwrap().as_str()));
        }
        for other in [
            "rdma-device@.target",
            "rdma-hw.target",
            "rdma-device@a.service",
            "xrdma-device@a.target",
            "rdma-hotplug-hardware.target.target",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn a_target_name_that_is_too_long_is_omitted_with_an_error() {
        let (claims, errors) = of_device(&device(1, &"-".repeat(63), &[]), &[], []);
        assert_eq!((claims.len(), errors.len()), (0, 1));
        assert!(
            errors[0].ends_with("it is longer than 255 bytes"),
            "{errors:?}"
        );
    }

    #[test]
    fn a_role_is_a_word_of_at_most_64_characters() {
        assert!(Role::parse("storage_1").is_ok());
        for name in ["", "a-b", "a:b", "a/b", "ä", &"x".repeat(65)] {
            assert!(Role::parse(name).is_err(), "{name}");
        }
    }
}

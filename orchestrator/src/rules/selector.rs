//! What a rule selects devices by. All of its keys have to match, and of each key one of its
//! values; a key that is not there matches everything. Pure. Must never select by what the detector
//! did not tell.

use interfaces::detector::{Device, Function, Kind, Protocol};
use interfaces::names::DeviceName;
use wildmatch::WildMatch;

/// A selector. In patterns `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// A port speaks one of these.
    pub protocol: Option<Vec<Protocol>>,
    /// The driver of the parent device.
    pub driver: Option<Vec<String>>,
    /// Vendor and device of the parent PCI function, like `15b3:101d`.
    pub pci_id: Option<Vec<String>>,
    /// The address of the parent PCI function, like `0000:c1:00.0`.
    pub pci_address: Option<Vec<String>>,
    /// The node GUID.
    pub guid: Option<Vec<String>>,
    /// The name.
    pub name: Option<Vec<String>>,
    /// Whether it is a virtual function.
    pub virtual_function: Option<bool>,
}

impl Selector {
    /// Whether `device` is selected.
    #[must_use]
    pub fn selects(&self, device: &Device) -> bool {
        let is_virtual = device.kind == Kind::VirtualFunction;
        self.selects_port_of(device)
            && matches(self.driver.as_deref(), device.driver.as_deref())
            && matches(self.pci_id.as_deref(), device.pci_id.as_deref())
            && matches(self.pci_address.as_deref(), device.pci_address.as_deref())
            && matches(self.guid.as_deref(), device.node_guid.as_deref())
            && matches(self.name.as_deref(), Some(&device.name))
            && self
                .virtual_function
                .is_none_or(|wanted| wanted == is_virtual)
    }

    /// Whether `function` is selected, by what a function has.
    #[must_use]
    pub fn selects_function(&self, function: &Function) -> bool {
        matches(self.driver.as_deref(), function.driver.as_deref())
            && matches(self.pci_id.as_deref(), function.pci_id.as_deref())
            && matches(self.pci_address.as_deref(), function.pci_address.as_deref())
            && matches(self.name.as_deref(), Some(&function.name))
    }

    fn selects_port_of(&self, device: &Device) -> bool {
        let mut ports = device.ports.iter();
        let wanted = self.protocol.as_ref();
        wanted.is_none_or(|wanted| ports.any(|port| wanted.contains(&port.protocol)))
    }

    /// What it selects by, as its file says it.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let protocol = self.protocol.as_ref().map(|protocols| {
            let names = protocols.iter().map(|p| protocol_name(*p).to_owned());
            names.collect::<Vec<_>>()
        });
        let keys = [
            ("protocol", &protocol),
            ("driver", &self.driver),
            ("pci_id", &self.pci_id),
            ("pci_address", &self.pci_address),
            ("guid", &self.guid),
            ("name", &self.name),
        ];
        let words = keys.into_iter().filter_map(|(key, values)| {
            let values = values.as_ref()?;
            Some(format!("{key} {}", values.join(" or ")))
        });
        let function = self.virtual_function.map(|is| match is {
            true => "virtual function".to_owned(),
            false => "no virtual function".to_owned(),
        });
        words.chain(function).collect()
    }
}

/// The name of a protocol, as it is written.
#[must_use]
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Infiniband => "infiniband",
        Protocol::Roce => "roce",
        Protocol::Iwarp => "iwarp",
        Protocol::Opa => "opa",
        Protocol::Usnic => "usnic",
        Protocol::Unknown => "unknown",
    }
}

fn matches(patterns: Option<&[String]>, value: Option<&str>) -> bool {
    let Some(patterns) = patterns else {
        return true;
    };
    value.is_some_and(|value| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| WildMatch::new(pattern).matches(value))
    })
}

const WILD: [char; 2] = ['*', '?'];

/// What a driver may be called: an entry of a directory.
pub(super) fn is_driver(pattern: &str) -> Result<(), &'static str> {
    match pattern.is_empty() || pattern.contains('/') {
        true => Err("no driver is called so"),
        false => Ok(()),
    }
}

/// A device name, or a pattern that one may have.
pub(super) fn is_name(pattern: &str) -> Result<(), &'static str> {
    let plain = pattern.replace(WILD, "");
    let could_be = plain.is_empty() && !pattern.is_empty() || DeviceName::parse(&plain).is_ok();
    could_be.then_some(()).ok_or("no device is called so")
}

pub(super) fn is_pci_id(pattern: &str) -> Result<(), &'static str> {
    let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c) || WILD.contains(&c);
    let part = |part: &str| {
        part.chars().all(hexadecimal) && (part.len() == 4 || part.contains('*')) && part.len() <= 5
    };
    match pattern.split_once(':') {
        Some((vendor, device)) if part(vendor) && part(device) => Ok(()),
        _ => Err("it is not like 15b3:101d or 15b3:*, in lower case"),
    }
}

pub(super) fn is_pci_address(pattern: &str) -> Result<(), &'static str> {
    let allowed = |c: char| {
        c.is_ascii_digit() || ('a'..='f').contains(&c) || ":.".contains(c) || WILD.contains(&c)
    };
    let whole = pattern.contains('*') || pattern.len() >= "0000:00:00.0".len();
    (pattern.chars().all(allowed) && whole)
        .then_some(())
        .ok_or("it is not like 0000:c1:00.0 or 0000:c1:*, in lower case")
}

pub(super) fn is_guid(pattern: &str) -> Result<(), &'static str> {
    let allowed =
        |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c) || c == ':' || WILD.contains(&c);
    let whole = pattern.contains('*') || pattern.len() == "0000:0000:0000:0000".len();
    (pattern.chars().all(allowed) && whole)
        .then_some(())
        .ok_or("it is not like 0002:c903:0012:3456, in lower case")
}

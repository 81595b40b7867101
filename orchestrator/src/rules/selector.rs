//! The selector of a rule. All of its keys must match, and of each key at least one value; of the
//! keys below `not` none may match. A missing key matches everything. Pure. Must never select by
//! data that the detector did not send.

use std::ops::RangeInclusive;

use interfaces::detector::{Device, Function, Kind, Protocol};
use interfaces::drivers::SPLIT_DRIVERS;

use super::pattern::Pattern;

/// A selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The keys that must all match.
    pub keys: Keys,
    /// The keys of which none may match.
    pub not: Keys,
}

/// The keys with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The protocols, of which a port has one.
    pub protocol: Option<Vec<Protocol>>,
    /// The kinds of devices.
    pub kind: Option<Vec<Kind>>,
    /// True to select virtual functions, false to select all others.
    pub virtual_function: Option<bool>,
    /// The ranges of the number of the virtual function or subfunction.
    pub function_number: Option<Vec<RangeInclusive<i64>>>,
    /// The patterns for the properties that are names.
    pub names: Vec<(Name, Vec<Pattern>)>,
}

/// A property that is matched with patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The driver of the parent device; for a function, its own driver.
    Driver,
    /// The vendor and device of the parent PCI function, like `15b3:101d`.
    PciId,
    /// The address of the parent PCI function, like `0000:c1:00.0`.
    PciAddress,
    /// The address of the physical function of a virtual function or subfunction.
    PhysicalFunction,
    /// The node GUID, like `0002:c903:0012:3456`.
    Guid,
    /// The name of the device.
    Device,
    /// The name of the function on its bus.
    Function,
    /// The network interface of a port.
    Netdev,
}

impl Selector {
    /// Returns true if `device` is selected.
    #[must_use]
    pub fn selects(&self, device: &Device) -> bool {
        self.keys.compare(device).all(|matches| matches)
            && !self.not.compare(device).any(|matches| matches)
    }

    /// Returns true if `function` is selected. Compares the properties that a function has.
    #[must_use]
    pub fn selects_function(&self, function: &Function) -> bool {
        self.keys.compare_function(function).all(|matches| matches)
            && !self.not.compare_function(function).any(|matches| matches)
    }

    /// Returns the selector in the words of a rules file.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let not = self.not.words().into_iter();
        let not = not.map(|words| format!("not {words}"));
        self.keys.words().into_iter().chain(not).collect()
    }

    /// Returns a message if a key can never match because another key excludes all of its values.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let (keys, not) = (&self.keys, &self.not);
        let excludes = |key: &str| Some(format!("not.{key} excludes {key}"));
        if let (Some(wanted), Some(excluded)) = (&keys.protocol, &not.protocol)
            && wanted.iter().all(|protocol| excluded.contains(protocol))
        {
            return excludes("protocol");
        }
        if let (Some(wanted), Some(excluded)) = (&keys.kind, &not.kind)
            && wanted.iter().all(|kind| excluded.contains(kind))
        {
            return excludes("kind");
        }
        if let (Some(kinds), Some(wanted)) = (&keys.kind, keys.is_virtual(not)) {
            let fits = |kind: &Kind| (*kind == Kind::VirtualFunction) == wanted;
            if !kinds.iter().any(fits) {
                return Some("virtual_function excludes kind".to_owned());
            }
        }
        if keys.virtual_function.is_some() && keys.virtual_function == not.virtual_function {
            return excludes("virtual_function");
        }
        keys.names.iter().find_map(|(name, wanted)| {
            let (_, excluded) = not.names.iter().find(|(other, _)| other == name)?;
            let is_excluded = |pattern: &Pattern| {
                excluded.contains(pattern)
                    || pattern.literal().is_some_and(|text| {
                        let mut excluded = excluded.iter();
                        excluded.any(|pattern| pattern.matches(text))
                    })
            };
            let all = wanted.iter().all(is_excluded);
            excludes(name.key()).filter(|_| all)
        })
    }
}

impl Keys {
    /// Returns the required value of `virtual_function`, if there is one.
    fn is_virtual(&self, not: &Self) -> Option<bool> {
        self.virtual_function
            .or(not.virtual_function.map(|excluded| !excluded))
    }

    /// Returns for each key whether it matches.
    fn compare(&self, device: &Device) -> impl Iterator<Item = bool> {
        let ports = || device.ports.iter();
        let protocol = self
            .protocol
            .as_ref()
            .map(|wanted| ports().any(|port| wanted.contains(&port.protocol)));
        let kind = self.kind.as_ref().map(|kinds| kinds.contains(&device.kind));
        let is_virtual = device.kind == Kind::VirtualFunction;
        let virtual_function = self.virtual_function.map(|wanted| wanted == is_virtual);
        let number = self.function_number.as_ref().map(|ranges| {
            let within = |number| ranges.iter().any(|range| range.contains(&number));
            device.function_number.is_some_and(within)
        });
        let names = self.names.iter().map(move |(name, patterns)| {
            let matches = |value: &str| patterns.iter().any(|pattern| pattern.matches(value));
            let one = |value: &Option<String>| value.as_deref().is_some_and(matches);
            match name {
                Name::Driver => one(&device.driver),
                Name::PciId => one(&device.pci_id),
                Name::PciAddress => one(&device.pci_address),
                Name::PhysicalFunction => one(&device.physical_function),
                Name::Guid => one(&device.node_guid),
                Name::Device => matches(&device.name),
                Name::Netdev => device.ports.iter().any(|port| one(&port.netdev)),
                // A device is not a function.
                Name::Function => false,
            }
        });
        let others = [protocol, kind, virtual_function, number];
        others.into_iter().flatten().chain(names)
    }

    /// Returns for each name whether it matches.
    fn compare_function(&self, function: &Function) -> impl Iterator<Item = bool> {
        self.names.iter().map(|(name, patterns)| {
            let matches = |value: &str| patterns.iter().any(|pattern| pattern.matches(value));
            let one = |value: &Option<String>| value.as_deref().is_some_and(matches);
            match name {
                Name::Driver => one(&function.driver),
                Name::PciId => one(&function.pci_id),
                Name::PciAddress => one(&function.pci_address),
                Name::Function => matches(&function.name),
                Name::PhysicalFunction | Name::Guid | Name::Device | Name::Netdev => false,
            }
        })
    }

    fn words(&self) -> Vec<String> {
        fn line<T>(key: &str, values: &[T], text: impl Fn(&T) -> String) -> String {
            let values: Vec<String> = values.iter().map(text).collect();
            format!("{key} {}", values.join(" or "))
        }
        let protocol = self.protocol.as_ref();
        let protocol = protocol.map(|all| line("protocol", all, |p| p.to_string()));
        let kind = self.kind.as_ref();
        let kind = kind.map(|all| line("kind", all, |k| kind_name(*k).to_owned()));
        let number = self.function_number.as_ref();
        let number = number.map(|all| line("function_number", all, range_text));
        let names = self.names.iter();
        let names = names.map(|(name, all)| line(name.key(), all, ToString::to_string));
        let is_virtual = self.virtual_function;
        let is_virtual = is_virtual.map(|is| format!("virtual_function {is}"));
        let first = protocol.into_iter().chain(kind);
        first.chain(names).chain(number).chain(is_virtual).collect()
    }
}

impl Name {
    /// The names for devices, in the order in which they are shown.
    pub const OF_DEVICES: [Self; 7] = [
        Self::Driver,
        Self::PciId,
        Self::PciAddress,
        Self::PhysicalFunction,
        Self::Guid,
        Self::Device,
        Self::Netdev,
    ];
    /// The names for functions.
    pub const OF_FUNCTIONS: [Self; 4] =
        [Self::Driver, Self::PciId, Self::PciAddress, Self::Function];

    /// Returns the key in a rules file.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::PciId => "pci_id",
            Self::PciAddress => "pci_address",
            Self::PhysicalFunction => "physical_function",
            Self::Guid => "guid",
            Self::Device | Self::Function => "name",
            Self::Netdev => "netdev",
        }
    }

    /// Checks that the pattern can match a value of this property.
    ///
    /// # Errors
    /// Returns the reason if the pattern can never match.
    pub fn check(self, pattern: &Pattern, of_functions: bool) -> Result<(), String> {
        // In these patterns, `h` stands for a hexadecimal digit.
        let like = |shapes: &[&str], example: &str| {
            let shapes = shapes.iter().map(|shape| shape.replace('h', "[0-9a-f]"));
            let mut shapes = shapes.filter_map(|shape| Pattern::parse(&shape).ok());
            match shapes.any(|shape| shape.meets(pattern)) {
                true => Ok(()),
                false => Err(format!(
                    "it does not have the form {example}, in lower case"
                )),
            }
        };
        let word = |longest: usize, what: &str| {
            let could = Pattern::of_names().meets(pattern) && pattern.shortest() <= longest;
            could
                .then_some(())
                .ok_or_else(|| format!("no {what} can have such a name"))
        };
        match self {
            Self::PciId => like(&["hhhh:hhhh"], "15b3:101d or 15b3:*"),
            Self::PciAddress | Self::PhysicalFunction => {
                like(&PCI_ADDRESSES, "0000:c1:00.0 or 0000:c1:*")
            }
            Self::Guid => like(&["hhhh:hhhh:hhhh:hhhh"], "0002:c903:0012:3456"),
            Self::Device => word(63, "device"),
            Self::Function => word(255, "function"),
            Self::Netdev => word(15, "network interface"),
            Self::Driver => {
                let module = pattern.literal().unwrap_or_default();
                let made_by = || SPLIT_DRIVERS.iter().filter(|split| split.module == module);
                if of_functions && made_by().any(|split| !split.by_name) {
                    return Err(format!("it is a module; its drivers are named {module}.*"));
                }
                let drivers: Vec<&str> = made_by().map(|split| split.driver).collect();
                match drivers.is_empty() {
                    true => word(255, "driver"),
                    false => Err(format!(
                        "it is the module that makes RDMA devices for the driver {}",
                        drivers.join(" or ")
                    )),
                }
            }
        }
    }
}

/// The patterns of PCI addresses. A domain has four digits, or more if a bridge creates it
/// (`drivers/pci/controller/vmd.c`). A device is at most 1f, and a function at most 7.
const PCI_ADDRESSES: [&str; 5] = [
    "hhhh:hh:[01]h.[0-7]",
    "hhhhh:hh:[01]h.[0-7]",
    "hhhhhh:hh:[01]h.[0-7]",
    "hhhhhhh:hh:[01]h.[0-7]",
    "hhhhhhhh:hh:[01]h.[0-7]",
];

/// Returns the name of a kind, as in rules files.
#[must_use]
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Function => "function",
        Kind::VirtualFunction => "virtual_function",
        Kind::Subfunction => "subfunction",
        Kind::Representor => "representor",
        Kind::Smi => "smi",
        Kind::Software => "software",
    }
}

fn range_text(range: &RangeInclusive<i64>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

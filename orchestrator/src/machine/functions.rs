//! The functions by name, and the auxiliary devices of each PCI function. Pure. Must never hold an
//! auxiliary device that the address of its function does not lead to, or an address that leads to
//! no auxiliary device.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::function::Function;

/// The functions, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(
    from = "BTreeMap<String, Function>",
    into = "BTreeMap<String, Function>"
)]
pub(super) struct Functions {
    by_name: BTreeMap<String, Function>,
    /// The auxiliary devices of a PCI function, by its address.
    of_address: BTreeMap<String, BTreeSet<String>>,
}

impl From<BTreeMap<String, Function>> for Functions {
    fn from(by_name: BTreeMap<String, Function>) -> Self {
        let mut functions = Self::default();
        for (_, function) in by_name {
            functions.insert(function);
        }
        functions
    }
}

impl From<Functions> for BTreeMap<String, Function> {
    fn from(functions: Functions) -> Self {
        functions.by_name
    }
}

impl Functions {
    pub(super) fn get(&self, name: &str) -> Option<&Function> {
        self.by_name.get(name)
    }

    /// Returns a function for changes. Its record must stay unchanged.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Function> {
        self.by_name.get_mut(name)
    }

    pub(super) fn insert(&mut self, function: Function) {
        if let Some(address) = function.belongs_to() {
            let devices = self.of_address.entry(address.to_owned()).or_default();
            devices.insert(function.name().to_owned());
        }
        self.by_name.insert(function.name().to_owned(), function);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Function> {
        let function = self.by_name.remove(name)?;
        if let Some(address) = function.belongs_to()
            && let Some(devices) = self.of_address.get_mut(address)
        {
            devices.remove(name);
            if devices.is_empty() {
                self.of_address.remove(address);
            }
        }
        Some(function)
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Function)> {
        self.by_name.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Function> {
        self.by_name.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Function> {
        self.by_name.values_mut()
    }

    /// Returns the auxiliary devices of the PCI function at this address.
    pub(super) fn of(&self, address: &str) -> impl Iterator<Item = &Function> {
        let names = self.of_address.get(address).into_iter().flatten();
        names.filter_map(|name| self.by_name.get(name))
    }
}

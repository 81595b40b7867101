//! One call of `Wait`: the conditions that it waits for, checked against the status table. Pure. Must
//! never treat an unknown state as met.

use interfaces::names::DeviceName;
use interfaces::orchestrator::{Condition, Device, WaitArgs};
use interfaces::server::CallError;

use crate::status_table::StatusTable;

/// The missing item of a wait whose barrier has not ended.
pub const DETECTOR: &str = "the detector's reply";
/// The missing item while no device and no function waits for anything.
const OTHERS: &str = "the detector's reply, or the jobs of targets";

/// The arguments of one call of `Wait`.
pub struct Wait<'w> {
    /// The name of the device; `None` for everything.
    pub name: Option<&'w str>,
    conditions: &'w [Condition],
}

impl<'w> Wait<'w> {
    /// Checks the arguments.
    ///
    /// # Errors
    /// `InvalidParameter` if the name is invalid, or if there are conditions without a device.
    pub fn parse(arguments: &'w WaitArgs) -> Result<Self, CallError> {
        if let Some(name) = &arguments.name {
            DeviceName::parse(name).map_err(|_| CallError::invalid_parameter("name"))?;
        } else if arguments.conditions.is_some() {
            // Conditions apply only to a device.
            return Err(CallError::invalid_parameter("conditions"));
        }
        Ok(Self {
            name: arguments.name.as_deref(),
            conditions: arguments
                .conditions
                .as_deref()
                .unwrap_or(&[Condition::Ready]),
        })
    }

    /// Checks the wait against the status table. Returns the device once it meets the conditions;
    /// without a name, returns no device once everything is settled.
    #[must_use]
    pub fn check(&self, table: &StatusTable) -> Option<Option<Device>> {
        let Some(name) = self.name else {
            return table.is_settled().then_some(None);
        };
        let mut devices = table.devices().filter(|device| device.name == name);
        let found = devices.find(|device| self.unmet(device).next().is_none());
        found.cloned().map(Some)
    }

    fn unmet(&self, device: &Device) -> impl Iterator<Item = &Condition> {
        let is_met = |wanted: &Condition| {
            let mut conditions = device.conditions.iter();
            conditions.any(|c| c.condition == *wanted && c.met)
        };
        self.conditions.iter().filter(move |wanted| !is_met(wanted))
    }

    /// Returns a message for each missing item.
    #[must_use]
    pub fn missing(&self, table: &StatusTable) -> Vec<String> {
        let devices: Vec<&Device> = table
            .devices()
            .filter(|device| self.name.is_none_or(|name| device.name == name))
            .collect();
        match (self.name, devices.as_slice()) {
            (Some(name), []) => vec![format!("{name}, which is not registered")],
            (Some(_), devices) => devices.iter().flat_map(|d| self.missing_of(d)).collect(),
            (None, devices) => {
                let of_devices = devices.iter().flat_map(|device| {
                    let missing = device.waiting_for.iter();
                    missing.map(|missing| format!("{}: {missing}", device.name))
                });
                let functions = table
                    .functions()
                    .map(|function| format!("{}: {}", function.name, function.waiting_for));
                let missing: Vec<String> = of_devices.chain(functions).collect();
                match missing.is_empty() {
                    true => vec![OTHERS.to_owned()],
                    false => missing,
                }
            }
        }
    }

    fn missing_of(&self, device: &Device) -> Vec<String> {
        match device.waiting_for.as_slice() {
            [] => {
                let unmet = self.unmet(device);
                unmet
                    .map(|condition| format!("{}: {condition}", device.name))
                    .collect()
            }
            missing => {
                let missing = missing.iter();
                missing
                    .map(|missing| format!("{}: {missing}", device.name))
                    .collect()
            }
        }
    }
}

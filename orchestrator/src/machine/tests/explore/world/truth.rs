//! The checks of the model: the actions and reports of the machine after each step, and in the
//! final state.

use std::collections::BTreeSet;

use interfaces::orchestrator::{ModuleState, TargetState};

use super::super::super::*;
use super::{Ground, Heard, MODULES, Start, UNITS, World, index};

impl World {
    /// Carries out the machine's actions.
    ///
    /// # Errors
    /// Returns a message if the machine must not request an action.
    pub fn owe(&mut self, actions: &[Action], machine: &Machine) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Load { modules, .. } => {
                    for name in modules {
                        self.request(name, machine)?;
                    }
                }
                Action::StartUnit { unit, .. } | Action::StopUnit { unit, .. } => {
                    let verb = match action {
                        Action::StartUnit { .. } => Verb::Start,
                        _ => Verb::Stop,
                    };
                    let at = UNITS.iter().position(|known| *known == unit.as_str());
                    let at = at.ok_or_else(|| format!("{unit} is no target of a device"))?;
                    if self.paused {
                        return Err(format!("a job for {unit} in a pause"));
                    }
                    if !self.bus {
                        return Err(format!("a job for {unit} without the bus"));
                    }
                    if verb == Verb::Start && self.claimants(at, machine) == 0 {
                        return Err(format!("{unit} is started for no device"));
                    }
                    // The later job replaces the earlier one.
                    self.jobs[at] = Some(verb);
                }
                Action::SetFlag(Flag::Hardware, up) => self.flag = *up,
                _ => {}
            }
        }
        Ok(())
    }

    fn request(&mut self, name: &ModuleName, machine: &Machine) -> Result<(), String> {
        let at = MODULES.iter().position(|known| *known == name.as_str());
        let at = at.ok_or_else(|| format!("{name} is in no rule"))?;
        if self.paused {
            return Err(format!("{name} is asked for in a pause"));
        }
        if self.requested[at] || self.answers[at].is_some() {
            return Err(format!("{name} is asked for twice at once"));
        }
        if !self.reason[at] {
            return Err(format!("{name} is asked for again without a reason"));
        }
        if machine
            .explain_module(name)
            .is_none_or(|m| m.wanted_by_count == 0)
        {
            return Err(format!("{name} is asked for and no device wants it"));
        }
        self.requested[at] = true;
        Ok(())
    }

    /// Returns the number of known devices that a target stands for.
    fn claimants(&self, unit: usize, machine: &Machine) -> usize {
        match unit {
            2 => machine.devices.len(),
            device => usize::from(machine.devices.contains_key(&index(device))),
        }
    }

    fn wants(device: usize) -> &'static [usize] {
        match device {
            0 => &[0],
            _ => &[0, 1],
        }
    }

    /// Returns true if a message about a module is in transit to the machine, or may have been
    /// lost.
    fn is_in_doubt(&self, module: usize) -> bool {
        let mut heard = self.heard.iter();
        !self.connected
            || self.requested[module]
            || self.answers[module].is_some()
            || self.installed
            || heard.any(|heard| {
                matches!(heard, Heard::Module(at, _) if *at == module)
                    || matches!(heard, Heard::Begins | Heard::Modules(_))
            })
    }

    /// Checks the machine's reports against the model.
    ///
    /// # Errors
    /// Returns a message if a report is not true.
    pub fn bears_out(&self, machine: &Machine) -> Result<(), String> {
        let whole = machine.describe();
        if whole.settled {
            let known: Vec<bool> = (0..2)
                .map(|at| machine.devices.contains_key(&index(at)))
                .collect();
            if self.heard.is_empty() && self.connected && known != self.there {
                return Err("settled, and the devices are others".to_owned());
            }
            if self.requested.contains(&true) {
                return Err("settled, and a module is asked for".to_owned());
            }
        }
        for device in 0..2 {
            let Some(explained) = machine.explain(None, Some(index(device))) else {
                continue;
            };
            if explained.device.state != State::Ready {
                continue;
            }
            for module in Self::wants(device) {
                let decided = matches!(self.grounds[*module], Ground::Excluded | Ground::Missing);
                if !self.live[*module] && !decided && !self.is_in_doubt(*module) {
                    return Err(format!("d{device} is ready without m{module}"));
                }
            }
        }
        Ok(())
    }

    /// Checks the final state.
    ///
    /// # Errors
    /// Returns a message if something is wrong.
    pub fn is_the_right_end(&self, machine: &Machine) -> Result<(), String> {
        let whole = machine.describe();
        let known: Vec<i64> = machine.devices.keys().copied().collect();
        let there: Vec<i64> = (0..2).filter(|at| self.there[*at]).map(index).collect();
        if known != there {
            return Err(format!(
                "it ends with the devices {known:?}, and there are {there:?}"
            ));
        }
        if !whole.detector_connected {
            return Err("it ends without the detector".to_owned());
        }
        // The actions that are suppressed in a pause follow after it.
        if whole.paused.is_some() != self.paused {
            return Err(format!("it ends with the pause {:?}", whole.paused));
        }
        if self.paused {
            return Ok(());
        }
        let wanted: BTreeSet<usize> = (0..2)
            .filter(|at| self.there[*at])
            .flat_map(|at| Self::wants(at).iter().copied())
            .collect();
        for module in wanted {
            self.module_is_right(module, machine)?;
        }
        for device in (0..2).filter(|at| self.there[*at]) {
            self.device_is_right(device, machine)?;
        }
        if self.flag != self.there.contains(&true) && !self.knows_nothing() {
            return Err(format!("it ends with the flag {}", self.flag));
        }
        for (at, name) in UNITS.iter().enumerate() {
            let wanted = match at {
                2 => self.flag,
                device => self.there[device],
            };
            if self.active[at] != wanted && !(wanted && self.starts[at] != Start::Works) {
                return Err(format!("it ends with {} active: {}", name, self.active[at]));
            }
        }
        if !whole.settled && !self.knows_nothing() {
            return Err("it ends unsettled".to_owned());
        }
        Ok(())
    }

    /// Returns true if the state of a module that a device wants is unknown.
    fn knows_nothing(&self) -> bool {
        (0..2).any(|device| {
            let mut wants = Self::wants(device).iter();
            self.there[device]
                && wants.any(|at| !self.live[*at] && self.grounds[*at] == Ground::Unknown)
        })
    }

    fn module_is_right(&self, at: usize, machine: &Machine) -> Result<(), String> {
        let name = ModuleName::parse(MODULES[at]).unwrap();
        let shown = machine.explain_module(&name);
        let state = shown.map(|shown| shown.module.state);
        let right = match (self.live[at], self.grounds[at]) {
            (true, _) => ModuleState::Live,
            (false, Ground::Excluded) => ModuleState::Excluded,
            (false, Ground::Denied) => ModuleState::Denied,
            (false, Ground::Missing) => ModuleState::Missing,
            (false, Ground::Unknown) => ModuleState::Unknown,
            (false, Ground::Invalid | Ground::Busy) => ModuleState::Failed,
            (false, Ground::Loads) => ModuleState::Unloaded,
        };
        let unloaded = self.unloaded[at] && state == Some(ModuleState::Unloaded);
        match unloaded || state == Some(right) && (right != ModuleState::Unloaded) {
            true => Ok(()),
            false => Err(format!(
                "it ends with m{at} {state:?}; it is live: {}, and else: {:?}",
                self.live[at], self.grounds[at]
            )),
        }
    }

    fn device_is_right(&self, device: usize, machine: &Machine) -> Result<(), String> {
        let explained = machine.explain(None, Some(index(device)));
        let mut targets = explained
            .iter()
            .flat_map(|explained| &explained.device.targets);
        if let Some(target) = targets.find(|target| target.name == UNITS[device]) {
            let shown = target.state == TargetState::Active;
            if shown != self.active[device] {
                return Err(format!("it ends with {} {:?}", target.name, target.state));
            }
        }
        let shown = explained.map(|explained| explained.device.state);
        let mut wants = Self::wants(device).iter();
        let ready = wants.all(|at| {
            self.live[*at]
                || !self.unloaded[*at]
                    && matches!(self.grounds[*at], Ground::Excluded | Ground::Missing)
        });
        match shown == Some(State::Ready) {
            is if is == ready => Ok(()),
            // A device whose module was unloaded and is excluded now may have either state.
            _ if self.unloaded.contains(&true) && !ready => Ok(()),
            _ => Err(format!(
                "it ends with d{device} {shown:?}, and ready is {ready}"
            )),
        }
    }
}

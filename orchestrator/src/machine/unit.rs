//! What is known of each unit that a device should have. Pure. Must never stop what it did not
//! start.

use std::collections::BTreeSet;

use interfaces::names::UnitName;
use interfaces::orchestrator::UnitState;
use serde::{Deserialize, Serialize};

use super::Machine;
use super::device::Wanted;
use super::event::{Action, Flag, JobOutcome, UnitActivity, Verb};

/// How far a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Its devices' modules, or the units that it depends on, are not there yet.
    Waiting,
    /// To be started as soon as the service manager can be asked.
    ToStart,
    Starting,
    Active,
    /// To be stopped as soon as the service manager can be asked.
    ToStop,
    Stopping,
    Failed,
    Refused,
    /// Somebody has stopped it.
    Stopped,
}

/// One unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Unit {
    pub phase: Phase,
    pub message: Option<String>,
    /// The devices that should have it.
    pub wanted_by: BTreeSet<i64>,
    /// It became active by a job of ours, so that it is ours to stop.
    pub started: bool,
    /// How often a job was asked for whose outcome is not known.
    pub asked: u32,
}

impl Unit {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Waiting,
            message: None,
            wanted_by: BTreeSet::new(),
            started: false,
            asked: 0,
        }
    }

    /// Whether something is under way that ends by itself.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Stopping)
    }

    /// Whether a job of it has ended, so that it may have changed since by itself.
    pub(super) fn was_asked_for(&self) -> bool {
        let ended = [Phase::Active, Phase::Failed, Phase::Refused, Phase::Stopped];
        ended.contains(&self.phase)
    }

    /// Whether the last job came to nothing.
    fn is_given_up(&self) -> bool {
        matches!(self.phase, Phase::Failed | Phase::Refused)
    }

    /// The state as it is shown to those who want it.
    pub(super) fn state(&self) -> UnitState {
        match self.phase {
            Phase::Waiting => UnitState::Waiting,
            // Wanted again while it is stopped.
            Phase::ToStart | Phase::ToStop | Phase::Stopping => UnitState::Queued,
            Phase::Starting => UnitState::Starting,
            Phase::Active => UnitState::Active,
            Phase::Failed => UnitState::Failed,
            Phase::Refused => UnitState::Refused,
            Phase::Stopped => UnitState::Stopped,
        }
    }

    /// Takes over what became of a job. One that was asked for before the service manager was
    /// lost may be told late, when another one is under way.
    pub(super) fn job(&mut self, verb: Verb, outcome: &JobOutcome) {
        let awaited = match verb {
            Verb::Start => Phase::Starting,
            Verb::Stop => Phase::Stopping,
        };
        if self.phase != awaited {
            return;
        }
        let asked = std::mem::take(&mut self.asked);
        self.message = match outcome {
            JobOutcome::NotNeeded | JobOutcome::Done => None,
            JobOutcome::Ended(result) => Some(format!("its job ended with '{result}'")),
            JobOutcome::NotBegun(why) | JobOutcome::Refused(why) => {
                Some(why.trim_end_matches('.').to_owned())
            }
        };
        self.phase = match (verb, outcome) {
            (Verb::Start, JobOutcome::Done) => {
                self.started = true;
                Phase::Active
            }
            // Asked for once more because an outcome was lost: that job may have been ours.
            (Verb::Start, JobOutcome::NotNeeded) => {
                self.started |= asked > 1;
                Phase::Active
            }
            (Verb::Stop, JobOutcome::Done | JobOutcome::NotNeeded) => {
                self.started = false;
                Phase::Waiting
            }
            // Its own Restart= may bring it up yet.
            (Verb::Start, JobOutcome::Ended(_)) => {
                self.started = true;
                Phase::Failed
            }
            (_, JobOutcome::Ended(_) | JobOutcome::NotBegun(_)) => Phase::Failed,
            (_, JobOutcome::Refused(_)) => Phase::Refused,
        };
    }

    /// Takes over the state that the unit is in, where no job of ours is under way.
    pub(super) fn activity(&mut self, activity: UnitActivity) {
        let phase = match (self.phase, activity) {
            (Phase::Starting | Phase::Stopping, _) | (_, UnitActivity::Changing) => return,
            (Phase::ToStop, UnitActivity::Active) => return,
            (_, UnitActivity::Active) => Phase::Active,
            (Phase::Active, UnitActivity::Inactive) => Phase::Stopped,
            (Phase::Active, UnitActivity::Failed) => Phase::Failed,
            (phase, _) => phase,
        };
        if phase != self.phase {
            self.message = (phase == Phase::Failed).then(|| "it has failed since".to_owned());
            self.phase = phase;
        }
    }

    /// The service manager cannot be asked any more: what it was asked is to be asked again.
    pub(super) fn lost(&mut self) {
        self.phase = match self.phase {
            // Nobody needs it any more, and it may have been started.
            Phase::Starting if self.wanted_by.is_empty() => Phase::ToStop,
            Phase::Starting => Phase::ToStart,
            Phase::Stopping => Phase::ToStop,
            phase => phase,
        };
    }
}

/// What a unit keeps a device from being ready for. One that waits for another unit is not
/// wanted as long as that is not active, and keeps nothing back.
pub(super) fn waiting_for(name: &UnitName, unit: &Unit) -> Option<String> {
    let reason = unit.message.as_deref().unwrap_or("no reason was given");
    match unit.state() {
        UnitState::Active | UnitState::Waiting => None,
        UnitState::Queued => Some(format!("{name}, until the service manager can be asked")),
        UnitState::Starting => Some(format!("{name} to be active")),
        UnitState::Failed => Some(format!("{name}, which failed: {reason}")),
        UnitState::Refused => Some(format!("{name}, which may not be started: {reason}")),
        UnitState::Stopped => Some(format!("{name}, which somebody has stopped")),
    }
}

impl Machine {
    /// Has each unit of a device started as soon as it may be.
    pub(super) fn follow_units(&mut self, index: i64, actions: &mut Vec<Action>) {
        for name in self.units_of(index) {
            self.drive_unit(&name, actions);
        }
    }

    /// Has every unit driven on.
    pub(super) fn drive_units(&mut self, actions: &mut Vec<Action>) {
        let names: Vec<UnitName> = self.units.keys().cloned().collect();
        for name in names {
            self.drive_unit(&name, actions);
        }
    }

    /// Asks for the next job of a unit, where there is one.
    fn drive_unit(&mut self, name: &UnitName, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get(name) else {
            return;
        };
        let wanted = !unit.wanted_by.is_empty();
        let has_leaders = self.has_leaders(name, &unit.wanted_by);
        let may_start = wanted && self.may_start(name, &unit.wanted_by);
        let reason = unit.wanted_by.first().and_then(|index| {
            let device = self.devices.get(index)?;
            Some(device.to_string())
        });
        let reason = reason.unwrap_or_else(|| "nobody needs it".to_owned());
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        unit.phase = match unit.phase {
            Phase::Waiting if may_start => Phase::ToStart,
            Phase::ToStart if !may_start => Phase::Waiting,
            // It may have gone before what it is bound to, as After= has it.
            Phase::Stopped if !has_leaders => Phase::Waiting,
            phase => phase,
        };
        if !self.service_manager || self.paused.is_some() {
            return;
        }
        let unit_name = name.clone();
        match unit.phase {
            Phase::ToStart => {
                unit.phase = Phase::Starting;
                unit.asked = unit.asked.saturating_add(1);
                actions.push(Action::StartUnit {
                    unit: unit_name,
                    reason,
                });
            }
            Phase::ToStop => {
                unit.phase = Phase::Stopping;
                actions.push(Action::StopUnit {
                    unit: unit_name,
                    reason,
                });
            }
            _ => {}
        }
    }

    /// What no device wants any more is stopped where a job of ours started it, and forgotten
    /// where not.
    pub(super) fn abandon_unit(&mut self, name: &UnitName, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        match unit.phase {
            // What it leads to is stopped when it is known.
            Phase::Starting | Phase::Stopping | Phase::ToStop => {}
            // A job before the service manager was lost may have started it.
            Phase::ToStart | Phase::Waiting if unit.asked > 0 => unit.phase = Phase::ToStop,
            Phase::Active if unit.started => unit.phase = Phase::ToStop,
            _ => {
                self.units.remove(name);
                return;
            }
        }
        self.drive_unit(name, actions);
    }

    /// The target of a flag that is gone is to be stopped, when somebody can be asked to.
    pub(super) fn take_down(&mut self, flag: Flag, actions: &mut Vec<Action>) {
        let Ok(target) = UnitName::parse(&flag.target()) else {
            return;
        };
        let unit = self.units.entry(target.clone()).or_insert_with(Unit::new);
        unit.phase = Phase::ToStop;
        self.drive_unit(&target, actions);
    }

    /// The target of a flag that is up is PID 1's.
    pub(super) fn put_up(&mut self, flag: Flag) {
        if let Ok(target) = UnitName::parse(&flag.target()) {
            self.units.remove(&target);
        }
    }

    /// Takes over what became of a job.
    pub(super) fn job(
        &mut self,
        name: &UnitName,
        verb: Verb,
        outcome: &JobOutcome,
        actions: &mut Vec<Action>,
    ) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        unit.job(verb, outcome);
        let wanting = unit.wanted_by.clone();
        if wanting.is_empty() {
            match unit.phase {
                Phase::Starting | Phase::Stopping | Phase::ToStop => {}
                // It was started while the last device went.
                Phase::Active if unit.started => unit.phase = Phase::ToStop,
                // What cannot be stopped stays, and is said.
                Phase::Failed | Phase::Refused if verb == Verb::Stop => return,
                _ => {
                    self.units.remove(name);
                    return;
                }
            }
        }
        self.drive_unit(name, actions);
        self.touched.extend(wanting);
    }

    /// Takes over the state of a unit: of a wanted one, or of one that others wait for.
    pub(super) fn unit(
        &mut self,
        name: &UnitName,
        activity: UnitActivity,
        actions: &mut Vec<Action>,
    ) {
        if let Some(active) = self.watched.get_mut(name) {
            let before = std::mem::replace(active, activity == UnitActivity::Active);
            if *active != before {
                self.drive_units(actions);
                self.touch_wanting_units();
            }
        }
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        unit.activity(activity);
        if unit.wanted_by.is_empty() && unit.is_given_up() && activity == UnitActivity::Inactive {
            // Somebody else has stopped what could not be.
            self.units.remove(name);
            return;
        }
        let wanting = unit.wanted_by.clone();
        if unit.phase == Phase::Stopped {
            // Where what it depends on is gone it went with that, and nobody has stopped it.
            let phase = match (
                self.may_start(name, &wanting),
                self.restores_unit(name, &wanting),
            ) {
                (false, _) => Phase::Waiting,
                (true, true) => Phase::ToStart,
                (true, false) => Phase::Stopped,
            };
            self.set_phase(name, phase);
        }
        self.drive_unit(name, actions);
        self.touched.extend(wanting);
    }

    fn set_phase(&mut self, name: &UnitName, phase: Phase) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.phase = phase;
        }
    }

    /// A sentence for each unit that nobody needs any more and that could not be stopped.
    pub(super) fn left_behind(&self) -> impl Iterator<Item = String> {
        let left = self
            .units
            .iter()
            .filter(|(_, unit)| unit.wanted_by.is_empty());
        left.filter_map(|(name, unit)| {
            let why = unit
                .message
                .as_deref()
                .unwrap_or("the service manager cannot be asked");
            let stays = matches!(unit.phase, Phase::Failed | Phase::Refused | Phase::ToStop);
            stays.then(|| format!("{name} stays up: {why}"))
        })
    }

    pub(super) fn want_unit(
        &mut self,
        index: i64,
        wanted: &Wanted<UnitName>,
        actions: &mut Vec<Action>,
    ) {
        let unit = self
            .units
            .entry(wanted.name.clone())
            .or_insert_with(Unit::new);
        if unit.wanted_by.is_empty() && unit.is_given_up() {
            // What became of stopping it for the last one says nothing of this one.
            unit.phase = Phase::Waiting;
            unit.message = None;
        }
        unit.wanted_by.insert(index);
        for watched in &wanted.while_active {
            if !self.watched.contains_key(watched) {
                self.watched.insert(watched.clone(), false);
                if self.service_manager {
                    actions.push(Action::WatchUnit(watched.clone()));
                }
            }
        }
    }

    pub(super) fn unwant_unit(&mut self, index: i64, name: &UnitName, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        unit.wanted_by.remove(&index);
        if unit.wanted_by.is_empty() {
            self.abandon_unit(name, actions);
        }
    }
}

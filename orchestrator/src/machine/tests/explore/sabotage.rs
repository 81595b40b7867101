//! The planted defects of the machine. The explorer must find each.

use super::super::*;

/// A planted defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    Nothing,
    /// A module that is unloaded stays live.
    UnloadIsNotHeard,
    /// A module that another program loads keeps its old state.
    LoadIsNotHeard,
    /// A device that is missing in a snapshot stays.
    WhatIsGoneStays,
    /// Installed modules are not requested.
    InstallationIsNotHeard,
    /// The next process waits for a load that the last process requested.
    RequestsOutliveTheProcess,
    /// A failed job counts as done.
    FailedJobsAreDone,
    /// Nothing is retried.
    TimersAreLost,
    /// A module with a result is requested again at each event.
    AnswersAreForgotten,
    /// A pause is ignored.
    PauseIsNotHeard,
    /// A target that is no longer needed is not stopped.
    StopsAreLost,
    /// The stop of a target by another program is ignored.
    StopsAreNotHeard,
    /// The unmasking of a unit is ignored.
    UnmaskingIsNotHeard,
    /// A flag stays set.
    FlagsStayUp,
    /// The machine reports that it is settled from the first moment.
    SettledTooSoon,
}

impl Sabotage {
    pub const ALL: [Self; 14] = [
        Self::UnloadIsNotHeard,
        Self::LoadIsNotHeard,
        Self::WhatIsGoneStays,
        Self::InstallationIsNotHeard,
        Self::RequestsOutliveTheProcess,
        Self::FailedJobsAreDone,
        Self::TimersAreLost,
        Self::AnswersAreForgotten,
        Self::PauseIsNotHeard,
        Self::StopsAreLost,
        Self::StopsAreNotHeard,
        Self::UnmaskingIsNotHeard,
        Self::FlagsStayUp,
        Self::SettledTooSoon,
    ];

    /// Performs a step of the machine with this defect.
    pub fn step(self, machine: &mut Machine, event: Event, now: i64) -> Vec<Action> {
        let unheard = matches!(
            (self, &event),
            (Self::UnloadIsNotHeard, Event::ModuleGone(_))
                | (Self::LoadIsNotHeard, Event::ModuleThere(_))
                | (Self::InstallationIsNotHeard, Event::ModulesInstalled)
                | (Self::PauseIsNotHeard, Event::Pause(_))
                | (Self::UnmaskingIsNotHeard, Event::UnitFilesRead)
                | (
                    Self::StopsAreNotHeard,
                    Event::Target(_, UnitActivity::Inactive)
                )
        );
        // The event loop filters events like this.
        let event = machine.concerning(event).filter(|_| !unheard);
        let Some(event) = event else {
            return Vec::new();
        };
        let in_flight: Vec<ModuleName> = machine
            .modules
            .iter()
            .filter(|(_, module)| module.in_flight)
            .map(|(name, _)| name.clone())
            .collect();
        let event = match event {
            Event::Job(unit, verb, _) if self == Self::FailedJobsAreDone => {
                Event::Job(unit, verb, JobOutcome::Done)
            }
            event => event,
        };
        let begins = matches!(event, Event::Begins(_));
        if self == Self::WhatIsGoneStays && matches!(event, Event::SnapshotEnds) {
            let devices = machine.devices.values_mut();
            devices.for_each(|device| device.confirmed = true);
        }
        let mut actions = machine.step(event, now);
        match self {
            Self::RequestsOutliveTheProcess if begins => {
                let modules = machine.modules.iter_mut();
                let waiting = modules.filter(|(name, _)| in_flight.contains(name));
                waiting.for_each(|(_, module)| module.in_flight = true);
                actions.retain(|action| !matches!(action, Action::Load { .. }));
            }
            Self::TimersAreLost => machine.timers.clear(),
            Self::AnswersAreForgotten => {
                let answered = machine.modules.values_mut();
                answered
                    .filter(|module| module.state == ModuleState::Denied)
                    .for_each(|module| module.state = ModuleState::Pending);
                machine.ask_everyone(module::RetryScope::No, &mut actions);
            }
            Self::StopsAreLost => {
                actions.retain(|action| !matches!(action, Action::StopUnit { .. }));
            }
            Self::FlagsStayUp => {
                actions.retain(|action| !matches!(action, Action::SetFlag(_, false)));
            }
            Self::SettledTooSoon => machine.settled = true,
            _ => {}
        }
        actions
    }
}

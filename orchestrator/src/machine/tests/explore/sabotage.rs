//! Ways to break the machine on purpose: the explorer has to find each.

use super::super::*;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    Nothing,
    /// A module that is unloaded stays live.
    UnloadIsNotHeard,
    /// A module that another program loads stays as it was.
    LoadIsNotHeard,
    /// What a snapshot does not show stays.
    WhatIsGoneStays,
    /// What is installed is not asked for.
    InstallationIsNotHeard,
    /// A load that was under way is waited for by the next process.
    RequestsOutliveTheProcess,
    /// A job that failed is taken for done.
    FailedJobsAreDone,
    /// Nothing is tried again.
    TimersAreLost,
    /// What was answered is asked for again at every event.
    AnswersAreForgotten,
    /// A pause is passed over.
    PauseIsNotHeard,
    /// A target that is no longer needed is left.
    StopsAreLost,
    /// A target that another program stops is not seen.
    StopsAreNotHeard,
    /// That a unit is not masked any more is not heard.
    UnmaskingIsNotHeard,
    /// A flag stays up.
    FlagsStayUp,
    /// It is settled from the first moment on.
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

    /// A step of a machine that is broken so.
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
        // As the loop does it.
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
                machine.ask_everyone(module::Again::No, &mut actions);
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

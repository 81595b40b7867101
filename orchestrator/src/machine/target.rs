//! The targets that stand for hardware: the devices determine the wanted state, the service manager
//! reports the actual state, and a job is requested if the two differ. Pure. Must never depend on
//! the program that started a target, nor keep a device from being ready.

use std::collections::BTreeSet;

use interfaces::names::UnitName;
use interfaces::orchestrator::{self, TargetState};
use serde::{Deserialize, Serialize};

use super::event::{Action, Flag, JobOutcome, UnitActivity, Verb};
use super::{Machine, Timer};
use crate::targets::{self, Claim};

/// The first pause before a job is requested again, in µs. It doubles with each attempt...
const FIRST_PAUSE: i64 = 1_000_000;
/// ...up to this.
const LONGEST_PAUSE: i64 = 60_000_000;
/// The maximum number of attempts in a row, until there is another reason for a start. A program
/// that repeatedly stops the target has its reason.
const MAX_ATTEMPTS: u32 = 8;
/// The time after which an active target counts as successfully started, in µs.
const LASTED: i64 = 60_000_000;
/// The time that PID 1 may take to notice a flag, in µs. Then a job starts the flag's target.
const FLAG_PAUSE: i64 = 5_000_000;

/// The reason why the last job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Problem {
    /// The job failed, or was not created.
    Failed(String),
    /// The service manager denied the request.
    Refused(String),
    /// An administrator has masked the unit.
    Masked,
}

/// A target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Target {
    /// The devices that it stands for.
    claimed_by: BTreeSet<i64>,
    /// The device of a target that stands for one device. If two have the same name, the later one.
    owner: Option<i64>,
    /// The device that a target of one device was started for.
    started_for: Option<i64>,
    /// The flag for which PID 1 starts the target.
    flag: Option<Flag>,
    /// The state that the service manager reported last.
    activity: UnitActivity,
    /// The time since which the target is active, in µs.
    active_since: i64,
    /// The job in progress.
    job: Option<Verb>,
    /// The type of the last job and its problem, if it had one.
    problem: Option<(Verb, Problem)>,
    /// The number of jobs in a row.
    attempts: u32,
    /// The time of the next request for a job, in µs.
    retry_at: Option<i64>,
    /// True if no job is requested until there is a change.
    given_up: bool,
}

impl Target {
    fn new(flag: Option<Flag>) -> Self {
        Self {
            claimed_by: BTreeSet::new(),
            owner: None,
            started_for: None,
            flag,
            activity: UnitActivity::Inactive,
            active_since: 0,
            job: None,
            problem: None,
            attempts: 0,
            retry_at: None,
            given_up: false,
        }
    }

    /// Returns true if a job is in progress.
    pub(super) fn is_pending(&self) -> bool {
        self.job.is_some()
    }

    /// Returns true if the target was started for another device than its current one.
    fn is_stale(&self) -> bool {
        let started_for = self.started_for.filter(|_| self.owner.is_some());
        started_for.is_some_and(|device| self.owner != Some(device))
    }

    /// Returns the job that the target needs now. `may_start` is true if its devices allow a start.
    fn due(&self, may_start: bool) -> Option<Verb> {
        let verb = match (self.claimed_by.is_empty(), self.activity) {
            // The devices are removed. The stop cancels a start that still waits for the bus, or
            // for the units that the target is ordered after.
            (true, _) if self.job == Some(Verb::Start) => return Some(Verb::Stop),
            (true, UnitActivity::Active) => Verb::Stop,
            (false, UnitActivity::Active) if self.is_stale() => Verb::Stop,
            (false, UnitActivity::Inactive | UnitActivity::Failed) if may_start => Verb::Start,
            _ => return None,
        };
        let failed = self
            .problem
            .as_ref()
            .is_some_and(|(failed, _)| *failed == verb);
        let waits = verb == Verb::Start && self.retry_at.is_some();
        let blocked =
            self.job.is_some() || waits || failed && (self.given_up || self.retry_at.is_some());
        (!blocked).then_some(verb)
    }

    /// Resets the attempts, after a change that may let the next one succeed.
    fn forget_attempts(&mut self) {
        self.attempts = 0;
        self.retry_at = None;
        self.given_up = false;
        self.problem = None;
    }

    /// Delays the next attempt. The pause gets longer each time.
    fn pause(&mut self, now: i64) {
        match self.attempts {
            0 => {}
            1..MAX_ATTEMPTS => {
                let doublings = self.attempts.saturating_sub(1).min(16);
                let pause = FIRST_PAUSE
                    .saturating_mul(1 << doublings)
                    .min(LONGEST_PAUSE);
                self.retry_at = Some(now.saturating_add(pause));
            }
            _ => self.given_up = true,
        }
    }

    /// Handles the state that the service manager reports.
    fn is_now(&mut self, activity: UnitActivity, now: i64) {
        let before = std::mem::replace(&mut self.activity, activity);
        match activity {
            UnitActivity::Active => {
                self.problem = None;
                self.given_up = false;
                self.retry_at = None;
                if before != activity {
                    self.active_since = now;
                }
                // If another program started the target, the device is unknown: assume the current
                // one.
                self.started_for = self.started_for.or(self.owner);
            }
            UnitActivity::Inactive | UnitActivity::Failed => {
                self.started_for = None;
                if before == UnitActivity::Active && self.job.is_none() {
                    if now.saturating_sub(self.active_since) >= LASTED {
                        self.attempts = 0;
                    }
                    self.pause(now);
                    if self.given_up {
                        let why = "it was stopped after each start".to_owned();
                        self.problem = Some((Verb::Start, Problem::Failed(why)));
                    }
                }
            }
            UnitActivity::Changing => {}
        }
    }

    /// Handles the result of a job.
    fn job(&mut self, verb: Verb, outcome: &JobOutcome, now: i64) {
        // The result may belong to a job from before the connection to the service manager was
        // lost.
        if self.job != Some(verb) {
            return;
        }
        self.job = None;
        let sentence = |why: &str| why.trim_end_matches('.').to_owned();
        let problem = match outcome {
            JobOutcome::Done | JobOutcome::NotNeeded => {
                self.problem = None;
                let activity = match verb {
                    Verb::Start => UnitActivity::Active,
                    Verb::Stop => UnitActivity::Inactive,
                };
                if verb == Verb::Stop {
                    self.attempts = 0;
                }
                self.is_now(activity, now);
                return;
            }
            JobOutcome::Ended(result) => {
                self.pause(now);
                Problem::Failed(format!("its job ended with '{result}'"))
            }
            // The template is missing or invalid: another attempt would not help.
            JobOutcome::NotBegun(why) => {
                self.given_up = true;
                Problem::Failed(sentence(why))
            }
            JobOutcome::Masked => {
                self.given_up = true;
                Problem::Masked
            }
            JobOutcome::Refused(why) => {
                self.given_up = true;
                Problem::Refused(sentence(why))
            }
        };
        self.problem = Some((verb, problem));
    }

    fn message(&self) -> Option<&str> {
        match &self.problem {
            Some((_, Problem::Failed(why) | Problem::Refused(why))) => Some(why),
            Some((_, Problem::Masked)) => Some("an administrator has masked it"),
            None => None,
        }
    }

    fn state(&self, may_start: bool, known: bool) -> TargetState {
        match (self.job, self.activity, &self.problem) {
            (Some(Verb::Start), ..) => TargetState::Starting,
            (Some(Verb::Stop), ..) => TargetState::Stopping,
            _ if !known && may_start => TargetState::Unknown,
            _ if !known => TargetState::Waiting,
            (None, UnitActivity::Active, _) if self.is_stale() => TargetState::Stopping,
            (None, UnitActivity::Active, _) => TargetState::Active,
            (None, _, Some((_, Problem::Failed(_)))) => TargetState::Failed,
            (None, _, Some((_, Problem::Refused(_)))) => TargetState::Refused,
            (None, _, Some((_, Problem::Masked))) => TargetState::Masked,
            (None, UnitActivity::Changing, _) => TargetState::Starting,
            (None, ..) if may_start => TargetState::Inactive,
            (None, ..) => TargetState::Waiting,
        }
    }
}

impl Machine {
    /// Claims the targets that stand for a device now, and releases those that no longer do.
    pub(super) fn claim_targets(&mut self, index: i64, before: &[Claim]) {
        let Some(device) = self.devices.get(&index) else {
            return;
        };
        let claimed: BTreeSet<UnitName> = device.claims.iter().map(|c| c.name.clone()).collect();
        for claim in &device.claims {
            let target = self
                .targets
                .entry(claim.name.clone())
                .or_insert_with(|| Target::new(claim.flag));
            if target.claimed_by.insert(index) {
                // The result of an earlier job does not apply to a new device.
                if target.problem.is_some() {
                    target.forget_attempts();
                }
                if claim.of_one {
                    target.owner = Some(index);
                }
                self.driven.insert(claim.name.clone());
            }
        }
        for claim in before.iter().filter(|claim| !claimed.contains(&claim.name)) {
            self.leave_target(index, &claim.name);
        }
    }

    /// Releases the claim of a device on a target.
    pub(super) fn leave_target(&mut self, index: i64, name: &UnitName) {
        let Some(target) = self.targets.get_mut(name) else {
            return;
        };
        target.claimed_by.remove(&index);
        if target.owner == Some(index) {
            target.owner = target.claimed_by.last().copied();
        }
        self.driven.insert(name.clone());
    }

    /// Marks all targets for a check.
    pub(super) fn drive_every_target(&mut self) {
        self.driven.extend(self.targets.keys().cloned());
    }

    /// Requests the jobs of the targets that are marked for a check.
    pub(super) fn drive_targets(&mut self, now: i64, actions: &mut Vec<Action>) {
        for name in std::mem::take(&mut self.driven) {
            self.drive_target(&name, now, actions);
        }
    }

    fn drive_target(&mut self, name: &UnitName, now: i64, actions: &mut Vec<Action>) {
        let Some(target) = self.targets.get(name) else {
            return;
        };
        self.touched.extend(target.owner);
        // An active target is kept, because it may still be active. All other targets are in the
        // next list of the service manager, if they are active.
        let gone = matches!(
            target.activity,
            UnitActivity::Inactive | UnitActivity::Failed
        );
        if target.claimed_by.is_empty() && !target.is_pending() && gone {
            self.targets.remove(name);
            return;
        }
        // Before the detector's first snapshot has ended, the wanted targets are unknown.
        let may_ask = self.service_manager && self.complete && self.paused.is_none();
        let due = target.due(self.may_start(target)).filter(|_| may_ask);
        let reason = self.reason_of(target);
        let Some(target) = self.targets.get_mut(name) else {
            return;
        };
        let unit = name.clone();
        match due {
            Some(Verb::Start) => {
                target.job = Some(Verb::Start);
                target.attempts = target.attempts.saturating_add(1);
                target.started_for = target.owner;
                actions.push(Action::StartUnit { unit, reason });
            }
            Some(Verb::Stop) => {
                target.job = Some(Verb::Stop);
                target.attempts = target.attempts.saturating_add(1);
                actions.push(Action::StopUnit { unit, reason });
            }
            None => {
                if let Some(at) = target.retry_at.filter(|at| *at > now) {
                    self.timers.insert((at, Timer::Target(unit)));
                }
            }
        }
    }

    /// Returns the reason for a job, for the log.
    fn reason_of(&self, target: &Target) -> String {
        let device = target.owner.or_else(|| target.claimed_by.first().copied());
        match device.and_then(|index| self.devices.get(&index)) {
            None => "no device needs it".to_owned(),
            Some(device) if target.is_stale() => format!("its name is now that of {device}"),
            Some(device) => device.to_string(),
        }
    }

    /// Returns true if one of its devices has the results for its modules. The target of a flag may
    /// start if the flag is set.
    fn may_start(&self, target: &Target) -> bool {
        match target.flag {
            Some(flag) => self.announced.contains(&flag),
            None => {
                let mut devices = target.claimed_by.iter();
                devices.any(|index| !self.unsettled.contains(index))
            }
        }
    }

    /// Schedules a job for the target of a flag. PID 1 starts the target when it notices the flag;
    /// the job is requested only if it does not.
    pub(super) fn expect_target(&mut self, flag: Flag, now: i64) {
        let name = targets::of_flag(flag).filter(|_| self.service_manager);
        let target = name.and_then(|name| Some((self.targets.get_mut(&name)?, name)));
        if let Some((target, name)) = target
            && target.activity != UnitActivity::Active
        {
            target.retry_at = Some(now.saturating_add(FLAG_PAUSE));
            self.driven.insert(name);
        }
    }

    /// Handles the end of a pause: a job may be requested again.
    pub(super) fn retry_target(&mut self, name: &UnitName, time: i64) {
        if let Some(target) = self.targets.get_mut(name)
            && target.retry_at == Some(time)
        {
            target.retry_at = None;
            target.problem = None;
            self.driven.insert(name.clone());
        }
    }

    /// Handles a new connection to the service manager, with the state of our targets.
    pub(super) fn targets_known(&mut self, known: Vec<(UnitName, UnitActivity)>, now: i64) {
        self.service_manager = true;
        let listed: BTreeSet<&UnitName> = known.iter().map(|(name, _)| name).collect();
        for (name, target) in &mut self.targets {
            target.job = None;
            if !listed.contains(name) {
                target.is_now(UnitActivity::Inactive, now);
            }
            target.forget_attempts();
        }
        for (name, activity) in known {
            self.target_is(&name, activity, now);
        }
        self.drive_every_target();
    }

    /// Handles the loss of the connection to the service manager: the results of the jobs are
    /// unknown.
    pub(super) fn targets_unknown(&mut self) {
        self.service_manager = false;
        for target in self.targets.values_mut() {
            target.job = None;
        }
        self.drive_every_target();
    }

    /// Handles a reload of the unit files: earlier errors may no longer apply.
    pub(super) fn unit_files_read(&mut self) {
        for (name, target) in &mut self.targets {
            // Not a target that was stopped after each start.
            if target.given_up && target.attempts < MAX_ATTEMPTS {
                target.forget_attempts();
                self.driven.insert(name.clone());
            }
        }
    }

    /// Handles the state of a target, whichever program has changed it.
    pub(super) fn target_is(&mut self, name: &UnitName, activity: UnitActivity, now: i64) {
        let flag = Flag::all().find(|flag| flag.target() == name.as_str());
        let target = self
            .targets
            .entry(name.clone())
            .or_insert_with(|| Target::new(flag));
        target.is_now(activity, now);
        self.driven.insert(name.clone());
    }

    /// Handles the result of a job.
    pub(super) fn job(&mut self, name: &UnitName, verb: Verb, outcome: &JobOutcome, now: i64) {
        if let Some(target) = self.targets.get_mut(name) {
            target.job(verb, outcome, now);
            self.driven.insert(name.clone());
        }
    }

    /// Allows all targets that were given up to be requested again.
    pub(super) fn reconcile_targets(&mut self) {
        for target in self.targets.values_mut() {
            target.forget_attempts();
        }
        self.drive_every_target();
    }

    /// Returns the targets that stand for this device alone, as they are shown.
    pub(super) fn shown_targets(&self, index: i64) -> Vec<orchestrator::Target> {
        let device = self.devices.get(&index);
        let claims = device.iter().flat_map(|device| &device.claims);
        let of_one = claims.filter(|claim| claim.of_one);
        let known = of_one.filter_map(|claim| Some((&claim.name, self.targets.get(&claim.name)?)));
        // If two devices have the same name, the later one has the target.
        let own = known.filter(|(_, target)| target.owner == Some(index));
        let shown = own.map(|(name, target)| orchestrator::Target {
            name: name.to_string(),
            state: target.state(self.may_start(target), self.service_manager),
            message: target.message().map(str::to_owned),
        });
        shown.collect()
    }

    /// Returns a message for each active target that no device needs and that was not stopped.
    pub(super) fn left_behind(&self) -> impl Iterator<Item = String> {
        let left = self.targets.iter().filter(|(_, target)| {
            target.claimed_by.is_empty()
                && target.activity == UnitActivity::Active
                && target.job.is_none()
                && self.complete
        });
        left.map(|(name, target)| {
            let why = match target.message() {
                Some(why) => why,
                None if self.paused.is_some() => "nothing is stopped during a pause",
                None if !self.service_manager => "the service manager cannot be reached",
                None => "it is stopped later",
            };
            format!("{name} stays active: {why}")
        })
    }
}

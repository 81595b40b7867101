//! The jobs that are still to be requested from the service manager, and their order. Pure. Must
//! never have two calls for one target in progress: the service manager may reply to them in any
//! order.

use std::collections::{BTreeSet, VecDeque};

use interfaces::names::UnitName;

use super::JobRequest;
use crate::targets;

/// The jobs, at most one for each target. Targets that stand for any number of devices come before
/// those that stand for one device: thousands of the latter may wait, and polkit takes some
/// milliseconds for each call.
#[derive(Debug, Default)]
pub(super) struct Queue {
    of_many: VecDeque<JobRequest>,
    of_one: VecDeque<JobRequest>,
    /// The targets with a call in progress.
    calling: BTreeSet<UnitName>,
}

impl Queue {
    /// Adds a job. It replaces a job that still waits for the same target. If it replaces one and
    /// the target is already in the requested state (`is_so`), nothing is queued, and the job is
    /// returned.
    pub(super) fn push(&mut self, ask: JobRequest, is_so: bool) -> Option<JobRequest> {
        let queue = match targets::is_of_one(&ask.unit) {
            true => &mut self.of_one,
            false => &mut self.of_many,
        };
        let waiting = queue.iter().position(|waiting| waiting.unit == ask.unit);
        match waiting.and_then(|at| queue.remove(at)) {
            Some(_) if is_so => Some(ask),
            _ => {
                queue.push_back(ask);
                None
            }
        }
    }

    /// Returns the next job to request, if one may be requested now.
    pub(super) fn next(&mut self) -> Option<JobRequest> {
        for queue in [&mut self.of_many, &mut self.of_one] {
            let free = |ask: &JobRequest| !self.calling.contains(&ask.unit);
            if let Some(ask) = queue.iter().position(free).and_then(|at| queue.remove(at)) {
                self.calling.insert(ask.unit.clone());
                return Some(ask);
            }
        }
        None
    }

    /// Records that the call for this target has its reply.
    pub(super) fn answered(&mut self, unit: &UnitName) {
        self.calling.remove(unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Verb;

    fn ask(unit: &str, verb: Verb) -> JobRequest {
        let unit = UnitName::parse(unit).unwrap();
        JobRequest { unit, verb }
    }

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| Some(queue.next()?.unit.to_string())).collect()
    }

    #[test]
    fn targets_of_many_devices_are_requested_before_targets_of_one_device() {
        let mut queue = Queue::default();
        for unit in [
            "rdma-device@a.target",
            "rdma-role@storage:a.target",
            "rdma-hotplug@iwarp.target",
            "rdma-port@a:1.target",
            "rdma-role@storage.target",
        ] {
            assert_eq!(queue.push(ask(unit, Verb::Start), false), None);
        }
        assert_eq!(
            names(&mut queue),
            [
                "rdma-hotplug@iwarp.target",
                "rdma-role@storage.target",
                "rdma-device@a.target",
                "rdma-role@storage:a.target",
                "rdma-port@a:1.target",
            ]
        );
    }

    #[test]
    fn a_waiting_start_is_withdrawn_by_a_stop_and_no_job_is_requested() {
        let mut queue = Queue::default();
        assert_eq!(
            queue.push(ask("rdma-device@a.target", Verb::Start), false),
            None
        );
        let stop = ask("rdma-device@a.target", Verb::Stop);
        assert_eq!(queue.push(stop.clone(), true), Some(stop));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn a_stop_replaces_a_waiting_start_if_another_program_has_started_the_target() {
        let mut queue = Queue::default();
        queue.push(ask("rdma-device@a.target", Verb::Start), false);
        let stop = ask("rdma-device@a.target", Verb::Stop);
        assert_eq!(queue.push(stop.clone(), false), None);
        assert_eq!(queue.next(), Some(stop));
        queue.answered(&UnitName::parse("rdma-device@a.target").unwrap());
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn a_target_has_one_call_at_a_time_and_other_targets_overtake_it() {
        let mut queue = Queue::default();
        let (start, stop) = (
            ask("rdma-device@a.target", Verb::Start),
            ask("rdma-device@a.target", Verb::Stop),
        );
        queue.push(start.clone(), false);
        assert_eq!(queue.next(), Some(start.clone()));
        assert_eq!(queue.push(stop.clone(), true), None);
        queue.push(ask("rdma-device@b.target", Verb::Start), false);
        assert_eq!(names(&mut queue), ["rdma-device@b.target"]);
        queue.answered(&start.unit);
        assert_eq!(queue.next(), Some(stop));
    }
}

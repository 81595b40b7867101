//! The jobs that the service manager is still to be asked for, and their order. Pure. Must never
//! have two calls for one target under way, for the service manager may answer them in any order.

use std::collections::{BTreeSet, VecDeque};

use interfaces::names::UnitName;

use super::Ask;
use crate::targets;

/// The jobs, of each target one at most. What stands for any number of devices comes before what
/// stands for one: thousands of these may wait, and each call takes polkit some milliseconds.
#[derive(Debug, Default)]
pub(super) struct Queue {
    of_many: VecDeque<Ask>,
    of_one: VecDeque<Ask>,
    /// The targets that a call is under way for.
    calling: BTreeSet<UnitName>,
}

impl Queue {
    /// Adds a job, which takes the place of one that still waits for the same target. Where one did
    /// and the target is as wanted already (`is_so`), nothing is asked, and the job is returned.
    pub(super) fn push(&mut self, ask: Ask, is_so: bool) -> Option<Ask> {
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

    /// The next job to ask for, if any may be asked for now.
    pub(super) fn next(&mut self) -> Option<Ask> {
        for queue in [&mut self.of_many, &mut self.of_one] {
            let free = |ask: &Ask| !self.calling.contains(&ask.unit);
            if let Some(ask) = queue.iter().position(free).and_then(|at| queue.remove(at)) {
                self.calling.insert(ask.unit.clone());
                return Some(ask);
            }
        }
        None
    }

    /// The call for this target was answered.
    pub(super) fn answered(&mut self, unit: &UnitName) {
        self.calling.remove(unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Verb;

    fn ask(unit: &str, verb: Verb) -> Ask {
        let unit = UnitName::parse(unit).unwrap();
        Ask { unit, verb }
    }

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| Some(queue.next()?.unit.to_string())).collect()
    }

    #[test]
    fn what_stands_for_all_comes_before_what_stands_for_one() {
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
    fn a_start_that_still_waits_is_withdrawn_by_a_stop_and_nothing_is_asked() {
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
    fn a_stop_of_what_another_program_has_started_meanwhile_takes_the_starts_place() {
        let mut queue = Queue::default();
        queue.push(ask("rdma-device@a.target", Verb::Start), false);
        let stop = ask("rdma-device@a.target", Verb::Stop);
        assert_eq!(queue.push(stop.clone(), false), None);
        assert_eq!(queue.next(), Some(stop));
        queue.answered(&UnitName::parse("rdma-device@a.target").unwrap());
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn a_target_has_one_call_at_a_time_and_others_pass_it() {
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

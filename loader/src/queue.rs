//! The queue of the planning thread: loads, which go first, and queries for the result that a load
//! would have. Both are bounded. A query whose caller no longer waits is skipped. Must never let a
//! query delay a load.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The maximum number of waiting queries. One needs a millisecond at most.
pub const MAX_EXPLANATIONS: usize = 64;

/// A request that its caller may abandon.
pub trait Queued {
    /// Returns true if the caller has disconnected.
    fn is_abandoned(&self) -> bool;
}

/// A queue of loads `L` and a queue of queries `Q`.
pub struct RequestQueue<L, Q> {
    waiting: Mutex<Waiting<L, Q>>,
    changed: Condvar,
    max_loads: usize,
}

struct Waiting<L, Q> {
    loads: VecDeque<L>,
    explanations: VecDeque<Q>,
    closed: bool,
}

/// The next entry of the queues.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<L, Q> {
    /// A load.
    Load(L),
    /// A query.
    Explanation(Q),
}

impl<L: Queued, Q: Queued> RequestQueue<L, Q> {
    /// Creates two empty queues. The queue of loads holds at most `max_loads`.
    #[must_use]
    pub fn new(max_loads: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                loads: VecDeque::new(),
                explanations: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
            max_loads,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<L, Q>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a load.
    ///
    /// # Errors
    /// Returns the load if too many wait.
    pub fn load(&self, load: L) -> Result<(), L> {
        add(&mut self.waiting().loads, load, self.max_loads)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a query.
    ///
    /// # Errors
    /// Returns the query if too many wait.
    pub fn explain(&self, explanation: Q) -> Result<(), Q> {
        add(
            &mut self.waiting().explanations,
            explanation,
            MAX_EXPLANATIONS,
        )?;
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next entry. Returns `None` after the queues are closed.
    pub fn next(&self) -> Option<Next<L, Q>> {
        let mut waiting = self.waiting();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(load) = waiting.loads.pop_front() {
                return Some(Next::Load(load));
            }
            while let Some(explanation) = waiting.explanations.pop_front() {
                if !explanation.is_abandoned() {
                    return Some(Next::Explanation(explanation));
                }
            }
            let waited = self.changed.wait(waiting);
            waiting = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes all threads that wait for an entry, and drops all entries.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.loads.clear();
        waiting.explanations.clear();
        self.changed.notify_all();
    }
}

fn add<T: Queued>(queue: &mut VecDeque<T>, asked: T, most: usize) -> Result<(), T> {
    if queue.len() >= most {
        queue.retain(|asked| !asked.is_abandoned());
    }
    if queue.len() >= most {
        return Err(asked);
    }
    queue.push_back(asked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Clone, Debug)]
    struct Item(u32, Arc<AtomicBool>);

    impl Queued for Item {
        fn is_abandoned(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn item(number: u32) -> Item {
        Item(number, Arc::default())
    }

    fn number(next: Option<Next<Item, Item>>) -> (&'static str, u32) {
        match next.unwrap() {
            Next::Load(item) => ("load", item.0),
            Next::Explanation(item) => ("explanation", item.0),
        }
    }

    #[test]
    fn loads_come_before_queries_and_each_queue_keeps_its_order() {
        let queue = RequestQueue::new(8);
        for number in 0..3 {
            queue.explain(item(number)).unwrap();
            queue.load(item(number)).unwrap();
        }
        let order: Vec<_> = (0..6).map(|_| number(queue.next())).collect();
        let expected = [
            "load",
            "load",
            "load",
            "explanation",
            "explanation",
            "explanation",
        ];
        assert_eq!(
            order,
            expected
                .into_iter()
                .zip([0, 1, 2, 0, 1, 2])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_full_queue_returns_the_entry_and_abandoned_entries_make_room() {
        let queue = RequestQueue::<Item, Item>::new(2);
        let items: Vec<Item> = (0..).take(MAX_EXPLANATIONS).map(item).collect();
        for explanation in &items {
            queue.explain(explanation.clone()).unwrap();
        }
        assert_eq!(queue.explain(item(99)).unwrap_err().0, 99);
        items[0].1.store(true, Ordering::Relaxed);
        queue.explain(item(100)).unwrap();
        assert_eq!(number(queue.next()), ("explanation", 1));
        for number in 0..2 {
            queue.load(item(number)).unwrap();
        }
        assert_eq!(queue.load(item(3)).unwrap_err().0, 3);
    }

    #[test]
    fn a_query_whose_caller_disconnected_is_skipped() {
        let queue = RequestQueue::<Item, Item>::new(2);
        let gone = item(1);
        queue.explain(gone.clone()).unwrap();
        queue.explain(item(2)).unwrap();
        gone.1.store(true, Ordering::Relaxed);
        assert_eq!(number(queue.next()), ("explanation", 2));
    }

    #[test]
    fn a_waiting_thread_wakes_when_the_queues_are_closed() {
        let queue = RequestQueue::<Item, Item>::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next().is_none());
            queue.close();
            assert!(waiting.join().unwrap());
        });
    }
}

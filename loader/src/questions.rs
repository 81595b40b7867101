//! The queue of the planning thread: loads, which go first, and queries for the result that a load
//! would have. Both are bounded. A query whose caller no longer waits is skipped. Must never let a
//! query delay a load.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The maximum number of waiting queries. One needs a millisecond at most.
pub const MAX_QUESTIONS: usize = 64;

/// A request that its caller may abandon.
pub trait Asked {
    /// Returns true if the caller has disconnected.
    fn is_abandoned(&self) -> bool;
}

/// A queue of loads `L` and a queue of queries `Q`.
pub struct Questions<L, Q> {
    waiting: Mutex<Waiting<L, Q>>,
    changed: Condvar,
    most_loads: usize,
}

struct Waiting<L, Q> {
    loads: VecDeque<L>,
    questions: VecDeque<Q>,
    closed: bool,
}

/// The next entry of the queues.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<L, Q> {
    /// A load.
    Load(L),
    /// A query.
    Question(Q),
}

impl<L: Asked, Q: Asked> Questions<L, Q> {
    /// Creates two empty queues. The queue of loads holds at most `most_loads`.
    #[must_use]
    pub fn new(most_loads: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                loads: VecDeque::new(),
                questions: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
            most_loads,
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
        add(&mut self.waiting().loads, load, self.most_loads)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a query.
    ///
    /// # Errors
    /// Returns the query if too many wait.
    pub fn ask(&self, question: Q) -> Result<(), Q> {
        add(&mut self.waiting().questions, question, MAX_QUESTIONS)?;
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
            while let Some(question) = waiting.questions.pop_front() {
                if !question.is_abandoned() {
                    return Some(Next::Question(question));
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
        waiting.questions.clear();
        self.changed.notify_all();
    }
}

fn add<T: Asked>(queue: &mut VecDeque<T>, asked: T, most: usize) -> Result<(), T> {
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

    impl Asked for Item {
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
            Next::Question(item) => ("question", item.0),
        }
    }

    #[test]
    fn loads_come_before_queries_and_each_queue_keeps_its_order() {
        let queue = Questions::new(8);
        for number in 0..3 {
            queue.ask(item(number)).unwrap();
            queue.load(item(number)).unwrap();
        }
        let order: Vec<_> = (0..6).map(|_| number(queue.next())).collect();
        let expected = ["load", "load", "load", "question", "question", "question"];
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
        let queue = Questions::<Item, Item>::new(2);
        let items: Vec<Item> = (0..).take(MAX_QUESTIONS).map(item).collect();
        for question in &items {
            queue.ask(question.clone()).unwrap();
        }
        assert_eq!(queue.ask(item(99)).unwrap_err().0, 99);
        items[0].1.store(true, Ordering::Relaxed);
        queue.ask(item(100)).unwrap();
        assert_eq!(number(queue.next()), ("question", 1));
        for number in 0..2 {
            queue.load(item(number)).unwrap();
        }
        assert_eq!(queue.load(item(3)).unwrap_err().0, 3);
    }

    #[test]
    fn a_query_whose_caller_disconnected_is_skipped() {
        let queue = Questions::<Item, Item>::new(2);
        let gone = item(1);
        queue.ask(gone.clone()).unwrap();
        queue.ask(item(2)).unwrap();
        gone.1.store(true, Ordering::Relaxed);
        assert_eq!(number(queue.next()), ("question", 2));
    }

    #[test]
    fn a_waiting_thread_wakes_when_the_queues_are_closed() {
        let queue = Questions::<Item, Item>::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next().is_none());
            queue.close();
            assert!(waiting.join().unwrap());
        });
    }
}

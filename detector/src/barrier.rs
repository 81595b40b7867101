//! Calls of `Synchronize` on their way to the look that serves them. Responsible for none being served
//! by a look that began before it. Must never hold more calls than one look serves.

use tokio::sync::{mpsc, oneshot};

/// The most calls that one look serves.
const MOST_BARRIERS: usize = 1024;

/// A call that waits for a look that begins after it: gets the number of the last event, or why the
/// kernel could not be asked.
pub type Barrier = oneshot::Sender<Result<i64, String>>;

/// Calls that wait for a look that begins after them.
pub struct Barriers {
    calls: mpsc::Receiver<Barrier>,
    waiting: Vec<Barrier>,
}

impl Barriers {
    /// The calls that come by `calls`.
    #[must_use]
    pub fn new(calls: mpsc::Receiver<Barrier>) -> Self {
        Self {
            calls,
            waiting: Vec::new(),
        }
    }

    /// Takes in the next call. Those beyond the most that one look serves wait for the look after it.
    pub async fn next(&mut self) {
        if self.waiting.len() < MOST_BARRIERS
            && let Some(barrier) = self.calls.recv().await
        {
            self.waiting.push(barrier);
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those that wait, for the look that begins now.
    pub fn take(&mut self) -> Vec<Barrier> {
        std::mem::take(&mut self.waiting)
    }
}

/// Answers the calls that a look has served.
pub fn reached(barriers: Vec<Barrier>, outcome: &Result<i64, String>) {
    for barrier in barriers {
        // The caller may be gone.
        let _ = barrier.send(outcome.clone());
    }
}

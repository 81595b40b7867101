//! The calls of `Synchronize` that wait for a scan. Responsible for completing a call only with a
//! scan that began after the call. Must never hold more calls than one scan serves.

use tokio::sync::{mpsc, oneshot};

/// The most calls that one scan serves.
const MAX_BARRIERS: usize = 1024;

/// A call that waits for a scan that begins after it. It receives the number of the last event, or
/// the reason why the kernel could not be queried.
pub type Barrier = oneshot::Sender<Result<i64, String>>;

/// The calls that wait for the next scan.
pub struct Barriers {
    calls: mpsc::Receiver<Barrier>,
    waiting: Vec<Barrier>,
}

impl Barriers {
    /// Creates the queue of the calls that arrive through `calls`.
    #[must_use]
    pub fn new(calls: mpsc::Receiver<Barrier>) -> Self {
        Self {
            calls,
            waiting: Vec::new(),
        }
    }

    /// Accepts the next call. Calls beyond the limit of one scan wait for the scan after it.
    pub async fn next(&mut self) {
        if self.waiting.len() < MAX_BARRIERS
            && let Some(barrier) = self.calls.recv().await
        {
            self.waiting.push(barrier);
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Returns true if no call waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes the waiting calls, for the scan that begins now.
    pub fn take(&mut self) -> Vec<Barrier> {
        std::mem::take(&mut self.waiting)
    }
}

/// Replies to the calls that a scan has served.
pub fn reached(barriers: Vec<Barrier>, outcome: &Result<i64, String>) {
    for barrier in barriers {
        // The caller may have disconnected.
        let _ = barrier.send(outcome.clone());
    }
}

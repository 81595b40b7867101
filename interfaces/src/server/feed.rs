//! Subscriptions: a state, and the events that change it. A subscriber gets the state, then
//! every event after it, and starts over after `resync` when it has fallen too far behind.
//! Must never wait for a subscriber: the queue is bounded, and one that lags pays alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Call, CallError};

/// How many events a subscriber may be behind.
const QUEUE_LEN: usize = 1024;

/// A state that can be told as events.
pub trait Snapshot {
    /// What a subscriber gets.
    type Event: Clone + Serialize + Send + Sync + 'static;

    /// The events that lead to the present state, and `ready` behind them.
    fn snapshot(&self) -> Vec<Self::Event>;

    /// The event before a snapshot that replaces what the subscriber knows.
    fn resync(&self) -> Self::Event;
}

/// A state and its subscribers.
pub struct Feed<S: Snapshot> {
    state: Mutex<S>,
    events: broadcast::Sender<S::Event>,
}

impl<S: Snapshot + Default> Default for Feed<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

impl<S: Snapshot> Feed<S> {
    /// A feed that starts with `state`.
    pub fn new(state: S) -> Self {
        Self {
            state: Mutex::new(state),
            events: broadcast::Sender::new(QUEUE_LEN),
        }
    }

    /// Reads the state.
    pub fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(&self.lock())
    }

    /// Changes the state and sends the events that `change` returns, as one step: no subscriber
    /// sees the state without the events, or the events twice.
    pub fn update(&self, change: impl FnOnce(&mut S) -> Vec<S::Event>) {
        let mut state = self.lock();
        for event in change(&mut state) {
            // Without subscribers there is nobody to send to, which is no failure.
            let _ = self.events.send(event);
        }
    }

    /// Answers a subscribing call until its peer is gone.
    ///
    /// # Errors
    /// `ExpectedMore`, or when the peer is gone or does not read.
    pub async fn serve(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        call.require_more()?;
        let (mut events, mut backlog) = self.subscribe();
        loop {
            for event in backlog.drain(..) {
                call.reply_continues(&event).await?;
            }
            match events.recv().await {
                Ok(event) => backlog.push(event),
                Err(RecvError::Lagged(_)) => {
                    backlog.push(self.read(S::resync));
                    let (anew, snapshot) = self.subscribe();
                    events = anew;
                    backlog.extend(snapshot);
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    fn subscribe(&self) -> (broadcast::Receiver<S::Event>, Vec<S::Event>) {
        let state = self.lock();
        (self.events.subscribe(), state.snapshot())
    }

    fn lock(&self) -> MutexGuard<'_, S> {
        // A change that panicked has left the state as it was between two statements of pure
        // code; serving it is better than serving nobody.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

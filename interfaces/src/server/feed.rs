//! Subscriptions: a state, and the events that change it. A subscriber gets the state, then
//! every event after it, and starts over after `resync` when it has fallen too far behind.
//! Must never wait for a subscriber: the queue is bounded, and one that lags pays alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::{Call, CallError};

/// How many events a subscriber may be behind: a storm of a thousand devices at once.
const QUEUE_LEN: usize = 2048;
/// At least this many bytes of events go out in one write, where there are as many. A storm costs each subscriber few system calls.
const WRITE_LEN: usize = 64 * 1024;

/// How long a peer without a place of its own waits between two looks at the state.
const CHECK_PAUSE: Duration = Duration::from_millis(10);

/// One reply as it is sent, shared by all who get it.
type Message = Arc<[u8]>;

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
    state: Mutex<Shared<S>>,
    /// Encoded once, however many subscribers there are.
    events: broadcast::Sender<Message>,
    /// Grows with each change, for those who wait for a state and not for events.
    version: watch::Sender<u64>,
}

/// The state, and its snapshot as it is being sent: shared by all who subscribe between two
/// changes, and gone when the last of them has it.
struct Shared<S> {
    state: S,
    snapshot: Weak<[Message]>,
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
            state: Mutex::new(Shared {
                state,
                snapshot: no_snapshot(),
            }),
            events: broadcast::Sender::new(QUEUE_LEN),
            version: watch::Sender::new(0),
        }
    }

    /// Reads the state.
    pub fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(&self.lock().state)
    }

    /// Changes the state and sends the events that `change` returns, as one step: no subscriber
    /// sees the state without the events, or the events twice.
    pub fn update(&self, change: impl FnOnce(&mut S) -> Vec<S::Event>) {
        let mut shared = self.lock();
        shared.snapshot = no_snapshot();
        for event in change(&mut shared.state) {
            // Without subscribers there is nobody to send to, which is no failure.
            if let Some(event) = encode(&event) {
                let _ = self.events.send(event);
            }
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Waits until `check` finds what it looks for in the state.
    ///
    /// # Errors
    /// When the service stops.
    pub async fn until<R>(
        &self,
        call: &Call<'_>,
        check: impl Fn(&S) -> Option<R>,
    ) -> Result<R, CallError> {
        let mut version = self.version.subscribe();
        let stopping = call.stopping();
        tokio::pin!(stopping);
        loop {
            if let Some(found) = self.read(&check) {
                return Ok(found);
            }
            tokio::select! {
                changed = version.changed() => changed.map_err(|_| CallError::stopped())?,
                () = &mut stopping => return Err(CallError::stopped()),
            }
            if !call.peer().privileged {
                // Hundreds may wait, and a storm changes the state thousands of times.
                tokio::time::sleep(CHECK_PAUSE).await;
            }
        }
    }

    /// Answers a subscribing call until its peer is gone.
    ///
    /// # Errors
    /// `ExpectedMore`, `TooManySubscriptions`, or when the peer is gone, does not read, or the
    /// service stops.
    pub async fn serve(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let _held = call.subscribe()?;
        let stopping = call.stopping();
        tokio::pin!(stopping);
        let mut events = self.begin(call).await?;
        let mut backlog = Vec::new();
        loop {
            let mut event = tokio::select! {
                event = events.recv() => Some(event),
                // As in systemd, a subscriber sees the end of the connection and nothing else.
                () = &mut stopping => return Err(CallError::stopped()),
            };
            let mut len = 0;
            let mut lagged = false;
            while let Some(received) = event.take() {
                match received {
                    Ok(message) => {
                        len += message.len();
                        backlog.push(message);
                        if len < WRITE_LEN {
                            event = here(&mut events);
                        }
                    }
                    Err(RecvError::Lagged(_)) => lagged = true,
                    Err(RecvError::Closed) => return Ok(()),
                }
            }
            if lagged {
                backlog.extend(encode(&self.read(S::resync)));
            }
            // Its room is not kept for each subscriber until the connection ends.
            send(call, &std::mem::take(&mut backlog)).await?;
            if lagged {
                events = self.begin(call).await?;
            }
        }
    }

    /// Sends the snapshot, and says what comes after it.
    async fn begin(&self, call: &mut Call<'_>) -> Result<broadcast::Receiver<Message>, CallError> {
        let (events, snapshot) = self.subscribe();
        send(call, &snapshot).await?;
        Ok(events)
    }

    fn subscribe(&self) -> (broadcast::Receiver<Message>, Arc<[Message]>) {
        let mut shared = self.lock();
        let snapshot = shared.snapshot.upgrade().unwrap_or_else(|| {
            let snapshot = shared.state.snapshot();
            snapshot.iter().filter_map(encode).collect()
        });
        shared.snapshot = Arc::downgrade(&snapshot);
        (self.events.subscribe(), snapshot)
    }

    fn lock(&self) -> MutexGuard<'_, Shared<S>> {
        // A change that panicked has left the state as it was between two statements of pure
        // code; serving it is better than serving nobody.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in a queue already.
fn here(events: &mut broadcast::Receiver<Message>) -> Option<Result<Message, RecvError>> {
    match events.try_recv() {
        Ok(message) => Some(Ok(message)),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Lagged(missed)) => Some(Err(RecvError::Lagged(missed))),
        Err(TryRecvError::Closed) => Some(Err(RecvError::Closed)),
    }
}

/// A snapshot that does not exist.
fn no_snapshot() -> Weak<[Message]> {
    Weak::<[Message; 0]>::new()
}

/// Sends all of `messages`, many in one write.
async fn send(call: &mut Call<'_>, messages: &[Message]) -> Result<(), CallError> {
    let mut write = Vec::new();
    for message in messages {
        write.extend_from_slice(message);
        if write.len() >= WRITE_LEN {
            call.send_encoded(&write).await?;
            write.clear();
        }
    }
    match write.is_empty() {
        true => Ok(()),
        false => call.send_encoded(&write).await,
    }
}

/// One reply as it is sent. Types that are made from an interface file can always be encoded.
fn encode(event: &impl Serialize) -> Option<Message> {
    super::call::encode(event, Some(true)).ok().map(Arc::from)
}

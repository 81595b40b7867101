//! Subscriptions: a state, and the events that change it. A subscriber receives the state, then
//! every event after it, and starts over after `resync` if it falls too far behind. Must never wait
//! for a subscriber: the queue is bounded, and a slow subscriber affects only itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::{Call, CallError};

/// The number of events that a subscriber may be behind: a burst of a thousand devices at once.
const QUEUE_LEN: usize = 2048;
/// The number of bytes of events after which a write is sent, if that many are queued. A burst
/// costs each subscriber few system calls.
const WRITE_LEN: usize = 64 * 1024;

/// The time that a peer without reserved capacity waits between two checks of the state.
const CHECK_PAUSE: Duration = Duration::from_millis(10);

/// One encoded reply, shared by all its receivers.
type Message = Arc<[u8]>;

/// A state that can be sent as events.
pub trait Snapshot {
    /// The type of the events that a subscriber receives.
    type Event: Clone + Serialize + Send + Sync + 'static;

    /// Returns the events that lead to the present state, and `ready` after them.
    fn snapshot(&self) -> Vec<Self::Event>;

    /// Returns the event before a snapshot that replaces the subscriber's state.
    fn resync(&self) -> Self::Event;
}

/// A state and its subscribers.
pub struct Feed<S: Snapshot> {
    state: Mutex<Shared<S>>,
    /// Each event is encoded once, for any number of subscribers.
    events: broadcast::Sender<Message>,
    /// Grows with each change, for callers that wait for a state and not for events.
    version: watch::Sender<u64>,
}

/// The state, and its encoded snapshot: shared by all that subscribe between two changes, and freed
/// after the last of them has received it.
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
    /// Creates a feed that starts with `state`.
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
    /// receives the state without the events, or an event twice.
    pub fn update(&self, change: impl FnOnce(&mut S) -> Vec<S::Event>) {
        let mut shared = self.lock();
        shared.snapshot = no_snapshot();
        for event in change(&mut shared.state) {
            // Without subscribers there is no receiver, which is not an error.
            if let Some(event) = encode(&event) {
                let _ = self.events.send(event);
            }
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Waits until `check` returns a value for the state.
    ///
    /// # Errors
    /// Fails if the service stops.
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
                // Hundreds may wait, and a burst changes the state thousands of times.
                tokio::time::sleep(CHECK_PAUSE).await;
            }
        }
    }

    /// Serves a subscription until its peer disconnects.
    ///
    /// # Errors
    /// `ExpectedMore` or `TooManySubscriptions`. Fails if the peer has disconnected or does not
    /// read, or if the service stops.
    pub async fn serve(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let _held = call.subscribe()?;
        let stopping = call.stopping();
        tokio::pin!(stopping);
        let mut events = self.begin(call).await?;
        let mut backlog = Vec::new();
        loop {
            let mut event = tokio::select! {
                event = events.recv() => Some(event),
                // As in systemd, a subscriber sees only the end of the connection.
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
            // The buffer is freed: otherwise each subscriber would keep it until the connection
            // ends.
            send(call, &std::mem::take(&mut backlog)).await?;
            if lagged {
                events = self.begin(call).await?;
            }
        }
    }

    /// Sends the snapshot, and returns the receiver of the events after it.
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
        // A change that panicked has left the state between two statements of pure code. Serving
        // that state is better than serving no client.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the next message if it is already queued.
fn here(events: &mut broadcast::Receiver<Message>) -> Option<Result<Message, RecvError>> {
    match events.try_recv() {
        Ok(message) => Some(Ok(message)),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Lagged(missed)) => Some(Err(RecvError::Lagged(missed))),
        Err(TryRecvError::Closed) => Some(Err(RecvError::Closed)),
    }
}

/// Returns a reference to no snapshot.
fn no_snapshot() -> Weak<[Message]> {
    Weak::<[Message; 0]>::new()
}

/// Sends all of `messages`, with many in each write.
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

/// Encodes one reply. Types generated from an interface file can always be encoded.
fn encode(event: &impl Serialize) -> Option<Message> {
    super::call::encode(event, Some(true)).ok().map(Arc::from)
}

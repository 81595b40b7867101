//! One call and its replies. Responsible for the replies that a caller receives; must never decide
//! if a caller may do what it requests.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use varlink::Reply;

use std::sync::Arc;

use tokio::sync::watch;

use super::error::CallError;
use super::limits::{Accounts, Full, Hold, LimitState, RateLimit};
use super::message::{Request, counted, offending_key};
use super::peer::Peer;
use crate::Interface;

/// The time for which a peer may leave a reply unread before its connection ends.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The parts of the connection and the server that a call needs.
pub(super) struct Context {
    pub peer: Peer,
    pub stopping: watch::Receiver<bool>,
    pub accounts: Arc<Accounts>,
    pub refusals: Arc<RateLimit>,
    pub interface: Interface,
}

/// One call in progress.
pub struct Call<'c> {
    request: Request,
    context: &'c Context,
    socket: &'c mut OwnedWriteHalf,
    answered: bool,
    /// The bytes that the request takes.
    _held: Hold,
    /// The bytes that the peer has not read yet.
    unread: Hold,
}

impl<'c> Call<'c> {
    /// Creates a call whose replies are sent on `socket`.
    ///
    /// # Errors
    /// Fails if the peer's user has reached a limit.
    pub(super) fn new(
        request: Request,
        context: &'c Context,
        socket: &'c mut OwnedWriteHalf,
    ) -> Result<Self, CallError> {
        let mut held = context.accounts.bytes(context.peer);
        // The parameters are held twice: as text, and decoded.
        let len = counted(request.parameters.len()).saturating_mul(2);
        held.set(len).map_err(|full| context.full(full))?;
        Ok(Self {
            request,
            context,
            socket,
            answered: false,
            _held: held,
            unread: context.accounts.bytes(context.peer),
        })
    }

    /// Returns the full name of the method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.request.method
    }

    /// Returns the caller.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.context.peer
    }

    /// Returns true if the caller accepts more than one reply.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.request.more
    }

    /// Refuses a caller that accepts only one reply.
    ///
    /// # Errors
    /// `org.varlink.service.ExpectedMore`.
    pub fn require_more(&self) -> Result<(), CallError> {
        if self.wants_more() {
            Ok(())
        } else {
            Err(CallError::named("org.varlink.service.ExpectedMore"))
        }
    }

    /// Counts this call as a subscription, until the hold is dropped.
    ///
    /// # Errors
    /// `ExpectedMore`, or `TooManySubscriptions` of the service's own interface.
    pub(super) fn subscribe(&self) -> Result<Hold, CallError> {
        self.require_more()?;
        let taken = self.context.accounts.subscription(self.context.peer);
        taken.map_err(|full| self.context.full(full))
    }

    /// Returns every limit of the server, and the number of refusals for each.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitState> {
        self.context.accounts.states()
    }

    /// Completes when the service stops, which also ends every subscription.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.context.stopping.clone();
        async move {
            // An error means that the server was dropped, which is a stop as well.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    /// Decodes the arguments.
    ///
    /// # Errors
    /// `org.varlink.service.InvalidParameter` with the name of the parameter that is missing,
    /// unknown, or of the wrong type.
    pub fn arguments<T: DeserializeOwned>(&mut self) -> Result<T, CallError> {
        let mut json = serde_json::Deserializer::from_str(&self.request.parameters);
        serde_path_to_error::deserialize(&mut json)
            .map_err(|e| CallError::invalid_parameter(&offending_key(&e)))
    }

    /// Sends the last reply.
    ///
    /// # Errors
    /// Fails if the peer has disconnected or does not read.
    pub async fn reply(&mut self, parameters: &impl Serialize) -> Result<(), CallError> {
        self.answered = true;
        self.send(parameters, None).await
    }

    /// Sends a reply that other replies follow.
    ///
    /// # Errors
    /// Fails if the peer has disconnected or does not read.
    pub async fn reply_continues(&mut self, parameters: &impl Serialize) -> Result<(), CallError> {
        self.send(parameters, Some(true)).await
    }

    /// Sends a reply that is already encoded and that other replies follow.
    pub(super) async fn send_encoded(&mut self, message: &[u8]) -> Result<(), CallError> {
        send(self.socket, message, &mut self.unread).await
    }

    /// Sends one reply for each value of `next`, which is called only after the previous reply was
    /// sent: replies that a peer does not read are not held in memory. Returns `empty` if there are
    /// no values. A caller that accepts only one reply receives `ExpectedMore`, unless it named one
    /// item and there is exactly one value.
    ///
    /// # Errors
    /// `empty` or `ExpectedMore`. Fails if the peer has disconnected or does not read.
    pub async fn reply_each<T: Serialize>(
        &mut self,
        mut next: impl FnMut() -> Option<T>,
        one_named: bool,
        empty: CallError,
    ) -> Result<(), CallError> {
        if !one_named {
            self.require_more()?;
        }
        let Some(mut reply) = next() else {
            return Err(empty);
        };
        while let Some(after) = next() {
            self.require_more()?;
            self.reply_continues(&reply).await?;
            reply = after;
            // Other tasks run now: a long list must not delay them.
            tokio::task::yield_now().await;
        }
        self.reply(&reply).await
    }

    /// Ends the call: sends its error, or an empty reply if it has not sent a last reply.
    pub(super) async fn finish(mut self, outcome: Result<(), CallError>) -> Result<(), CallError> {
        if outcome.as_ref().is_err_and(CallError::is_refusal) {
            let Peer { uid, pid, .. } = self.context.peer;
            if let Some(more) = self.context.refusals.due(Instant::now()) {
                let method = self.method();
                tracing::warn!(peer.uid = uid, peer.pid = pid, more, "refused {method}");
            }
        }
        match outcome {
            Ok(()) if self.answered => Ok(()),
            Ok(()) => self.reply(&Map::new()).await,
            Err(error) if self.request.oneway => match error {
                CallError::Answer { .. } => Ok(()),
                lost @ CallError::ConnectionLost(_) => Err(lost),
            },
            Err(error) => answer(self.socket, &error, &mut self.unread).await,
        }
    }

    async fn send(
        &mut self,
        parameters: &impl Serialize,
        continues: Option<bool>,
    ) -> Result<(), CallError> {
        if self.request.oneway {
            return Ok(());
        }
        let message = encode(parameters, continues)?;
        send(self.socket, &message, &mut self.unread).await
    }
}

impl Context {
    /// Returns the error for a limit that was reached. It is logged at most once a second.
    pub fn full(&self, full: Full) -> CallError {
        let Peer { uid, pid, .. } = self.peer;
        if let Some(more) = self.refusals.due(Instant::now()) {
            tracing::warn!(peer.uid = uid, peer.pid = pid, more, "refused: {full}");
        }
        CallError::full(self.interface, full)
    }
}

/// Sends `error` to a peer whose connection is refused, without waiting for the peer to read.
pub(super) fn answer_and_close(stream: &tokio::net::UnixStream, error: &CallError) {
    if let CallError::Answer { name, parameters } = error {
        let parameters = Some(Value::Object(parameters.clone()));
        let reply = Reply::error(name.clone(), parameters);
        if let Ok(message) = message(&reply) {
            let _ = stream.try_write(&message);
        }
    }
}

/// Sends `error` if it is a varlink error.
pub(super) async fn answer(
    socket: &mut OwnedWriteHalf,
    error: &CallError,
    unread: &mut Hold,
) -> Result<(), CallError> {
    match error {
        CallError::Answer { name, parameters } => {
            let parameters = Some(Value::Object(parameters.clone()));
            let reply = message(&Reply::error(name.clone(), parameters))?;
            send(socket, &reply, unread).await
        }
        CallError::ConnectionLost(e) => Err(CallError::ConnectionLost(e.kind().into())),
    }
}

/// Encodes a reply with these parameters. The result is that of [`Reply`], which would need a copy
/// of the parameters.
pub(super) fn encode(parameters: &impl Serialize, continues: Option<bool>) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Borrowed<'p, P> {
        #[serde(skip_serializing_if = "Option::is_none")]
        continues: Option<bool>,
        parameters: &'p P,
    }
    message(&Borrowed {
        continues,
        parameters,
    })
}

/// Encodes a message with its final NUL.
fn message(reply: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut message = serde_json::to_vec(reply)?;
    message.push(0);
    Ok(message)
}

/// Sends `message`, and counts in `unread` the bytes that the peer does not read at once.
async fn send(
    socket: &mut OwnedWriteHalf,
    message: &[u8],
    unread: &mut Hold,
) -> Result<(), CallError> {
    // A message that the socket accepts at once, as it nearly always does, needs no timer.
    let written = match socket.try_write(message) {
        Ok(written) => written,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
        Err(e) => return Err(e.into()),
    };
    let rest = message.get(written..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    if unread.set(counted(message.len())).is_err() {
        // An error cannot follow a truncated reply.
        return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
    }
    let sent = tokio::time::timeout(WRITE_TIMEOUT, socket.write_all(rest)).await;
    // Setting it to zero never fails.
    let _ = unread.set(0);
    match sent {
        Ok(written) => Ok(written?),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoding is tested")]
    struct Arguments {
        modules: Vec<String>,
        filter: Option<Filter>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoding is tested")]
    struct Filter {
        index: i64,
    }

    #[test]
    fn the_error_names_the_offending_parameter() {
        for (arguments, expected) in [
            (r"{}", "modules"),
            (r#"{"modules":"x"}"#, "modules"),
            (r#"{"modules":["x",1]}"#, "modules[1]"),
            (r#"{"modules":[],"zzz":1}"#, "zzz"),
            (r#"{"modules":[],"filter":{}}"#, "filter.index"),
            (r#"{"modules":[],"filter":{"index":1,"x":1}}"#, "filter.x"),
            (r#"{"modules":[],"filter":{"index":1.5}}"#, "filter.index"),
        ] {
            let mut json = serde_json::Deserializer::from_str(arguments);
            let error = serde_path_to_error::deserialize::<_, Arguments>(&mut json).unwrap_err();
            assert_eq!(offending_key(&error), expected, "{arguments}");
        }
    }
}

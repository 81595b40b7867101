//! One call and its replies. Responsible for what a caller is told; must never decide whether
//! a caller may do what it asks.

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
use super::limits::{Accounts, Full, Hold, LimitState, Pace};
use super::message::{Request, counted, offending_key};
use super::peer::Peer;
use crate::Interface;

/// How long a peer may leave a reply unread before its connection ends.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a call needs of its connection and its server.
pub(super) struct Context {
    pub peer: Peer,
    pub stopping: watch::Receiver<bool>,
    pub accounts: Arc<Accounts>,
    pub refusals: Arc<Pace>,
    pub interface: Interface,
}

/// One call that is being answered.
pub struct Call<'c> {
    request: Request,
    context: &'c Context,
    socket: &'c mut OwnedWriteHalf,
    answered: bool,
    /// What the request takes, and what its peer has not read yet.
    _held: Hold,
    unread: Hold,
}

impl<'c> Call<'c> {
    /// A call that is to be answered on `socket`.
    ///
    /// # Errors
    /// When the peer's user holds as much as it may.
    pub(super) fn new(
        request: Request,
        context: &'c Context,
        socket: &'c mut OwnedWriteHalf,
    ) -> Result<Self, CallError> {
        let mut held = context.accounts.bytes(context.peer);
        // As text, and decoded.
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

    /// The full name of the method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.request.method
    }

    /// Who is calling.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.context.peer
    }

    /// Whether the caller takes more than one reply.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.request.more
    }

    /// Refuses a caller that takes one reply only.
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

    /// Counts this call as a subscription, for as long as the hold lives.
    ///
    /// # Errors
    /// `ExpectedMore`, or `TooManySubscriptions` of the service's own interface.
    pub(super) fn subscribe(&self) -> Result<Hold, CallError> {
        self.require_more()?;
        let taken = self.context.accounts.subscription(self.context.peer);
        taken.map_err(|full| self.context.full(full))
    }

    /// Every limit of the server, and how often each was reached.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitState> {
        self.context.accounts.states()
    }

    /// Completes when the service stops, and with it every subscription.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.context.stopping.clone();
        async move {
            // An error means that the server is gone, which is a stop as well.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    /// The arguments, decoded.
    ///
    /// # Errors
    /// `org.varlink.service.InvalidParameter` that names the parameter which is missing,
    /// unknown, or of the wrong type.
    pub fn arguments<T: DeserializeOwned>(&mut self) -> Result<T, CallError> {
        let mut json = serde_json::Deserializer::from_str(&self.request.parameters);
        serde_path_to_error::deserialize(&mut json)
            .map_err(|e| CallError::invalid_parameter(&offending_key(&e)))
    }

    /// Sends the last reply.
    ///
    /// # Errors
    /// When the peer is gone or does not read.
    pub async fn reply(&mut self, parameters: &impl Serialize) -> Result<(), CallError> {
        self.answered = true;
        self.send(parameters, None).await
    }

    /// Sends a reply that others follow.
    ///
    /// # Errors
    /// When the peer is gone or does not read.
    pub async fn reply_continues(&mut self, parameters: &impl Serialize) -> Result<(), CallError> {
        self.send(parameters, Some(true)).await
    }

    /// Sends a reply that is encoded already and that others follow.
    pub(super) async fn send_encoded(&mut self, message: &[u8]) -> Result<(), CallError> {
        send(self.socket, message, &mut self.unread).await
    }

    /// Sends one reply for each value of `next`, which is asked when the reply before was sent:
    /// what a peer does not read is not held. Sends `empty` when there is none. A caller that takes
    /// one reply gets `ExpectedMore` unless there is just one and it asked for it.
    ///
    /// # Errors
    /// `empty`, `ExpectedMore`, or when the peer is gone or does not read.
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
            // The others' turn: a long list must not keep them waiting.
            tokio::task::yield_now().await;
        }
        self.reply(&reply).await
    }

    /// Ends the call: sends the error that it ended with, or an empty reply when it has sent
    /// no last one.
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
    /// The error for a limit that was reached, which the log tells once a second at most.
    pub fn full(&self, full: Full) -> CallError {
        let Peer { uid, pid, .. } = self.peer;
        if let Some(more) = self.refusals.due(Instant::now()) {
            tracing::warn!(peer.uid = uid, peer.pid = pid, more, "refused: {full}");
        }
        CallError::full(self.interface, full)
    }
}

/// Sends `error` to a peer that is not taken, as far as that goes without waiting for it.
pub(super) fn answer_and_close(stream: &tokio::net::UnixStream, error: &CallError) {
    if let CallError::Answer { name, parameters } = error {
        let parameters = Some(Value::Object(parameters.clone()));
        let reply = Reply::error(name.clone(), parameters);
        if let Ok(message) = message(&reply) {
            let _ = stream.try_write(&message);
        }
    }
}

/// Sends `error`, when it is one that has an answer.
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

/// A reply with these parameters as it is sent. The same as [`Reply`], which would have to have
/// them copied into it.
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

/// A message as it is sent, its NUL included.
fn message(reply: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut message = serde_json::to_vec(reply)?;
    message.push(0);
    Ok(message)
}

/// Sends `message`, and counts in `unread` what the peer does not read at once.
async fn send(
    socket: &mut OwnedWriteHalf,
    message: &[u8],
    unread: &mut Hold,
) -> Result<(), CallError> {
    // What the socket takes at once, as it nearly always does, needs no timer.
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
        // A reply that is cut cannot be followed by an error.
        return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
    }
    let sent = tokio::time::timeout(WRITE_TIMEOUT, socket.write_all(rest)).await;
    // Nothing is always taken.
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
    fn the_offending_parameter_is_named() {
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

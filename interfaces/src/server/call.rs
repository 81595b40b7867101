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
use super::limits::{Counter, Pace, Ticket};
use super::message::{Request, offending_key};
use super::peer::Peer;
use crate::Interface;

/// How long a peer may leave a reply unread before its connection ends.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a call needs of its connection and its server.
pub(super) struct Context {
    pub peer: Peer,
    pub stopping: watch::Receiver<bool>,
    pub subscriptions: Arc<Counter>,
    pub refusals: Arc<Pace>,
    pub interface: Interface,
}

/// One call that is being answered.
pub struct Call<'c> {
    request: Request,
    context: &'c Context,
    socket: &'c mut OwnedWriteHalf,
    answered: bool,
}

impl<'c> Call<'c> {
    pub(super) fn new(
        request: Request,
        context: &'c Context,
        socket: &'c mut OwnedWriteHalf,
    ) -> Self {
        Self {
            request,
            context,
            socket,
            answered: false,
        }
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

    /// Counts this call as a subscription, for as long as the ticket lives.
    ///
    /// # Errors
    /// `ExpectedMore`, or `TooManySubscriptions` of the service's own interface.
    pub(super) fn subscribe(&self) -> Result<Ticket, CallError> {
        self.require_more()?;
        let taken = self.context.subscriptions.take(self.context.peer.uid);
        taken.map_err(|full| {
            CallError::limit(
                self.context.interface,
                "TooManySubscriptions",
                "limit",
                full.0,
            )
        })
    }

    /// Completes when the service stops, and with it every subscription.
    pub(super) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
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
        send(self.socket, message).await
    }

    /// Sends one reply for each of `replies`, or `empty` when there are none. A caller that
    /// takes one reply gets `ExpectedMore` unless there is just one and it asked for it.
    ///
    /// # Errors
    /// `empty`, `ExpectedMore`, or when the peer is gone or does not read.
    pub async fn reply_each<T: Serialize>(
        &mut self,
        mut replies: Vec<T>,
        one_named: bool,
        empty: CallError,
    ) -> Result<(), CallError> {
        if !one_named {
            self.require_more()?;
        }
        let Some(last) = replies.pop() else {
            return Err(empty);
        };
        if !replies.is_empty() {
            self.require_more()?;
        }
        for reply in &replies {
            self.reply_continues(reply).await?;
        }
        self.reply(&last).await
    }

    /// Ends the call: sends the error that it ended with, or an empty reply when it has sent
    /// no last one.
    pub(super) async fn finish(mut self, outcome: Result<(), CallError>) -> Result<(), CallError> {
        if outcome.as_ref().is_err_and(CallError::is_refusal) {
            let Peer { uid, pid } = self.context.peer;
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
            Err(error) => answer(self.socket, &error).await,
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
        send(self.socket, &encode(parameters, continues)?).await
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

/// Sends `error`, when it is one that a peer can be told.
pub(super) async fn answer(
    socket: &mut OwnedWriteHalf,
    error: &CallError,
) -> Result<(), CallError> {
    match error {
        CallError::Answer { name, parameters } => {
            let parameters = Some(Value::Object(parameters.clone()));
            write(socket, &Reply::error(name.clone(), parameters)).await
        }
        CallError::ConnectionLost(e) => Err(CallError::ConnectionLost(e.kind().into())),
    }
}

async fn write(socket: &mut OwnedWriteHalf, reply: &Reply) -> Result<(), CallError> {
    send(socket, &message(reply)?).await
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

async fn send(socket: &mut OwnedWriteHalf, message: &[u8]) -> Result<(), CallError> {
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
    match tokio::time::timeout(WRITE_TIMEOUT, socket.write_all(rest)).await {
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

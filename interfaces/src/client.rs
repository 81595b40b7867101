//! A varlink client over one connection: one call with one reply, or one call with a stream of
//! replies; and a subscription that outlives its connection. Every error names the socket and the
//! method. Must never repeat a call by itself: only a subscription is renewed.

mod subscription;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;
use varlink::{Reply, Request};

pub use subscription::{Backoff, Followed, Subscription};

/// The time for which connecting to a full socket is tried.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// The longest reply that is read, in bytes. The reply for a device with 255 ports takes a quarter
/// of it. Without a limit a compromised service could fill this process's memory.
const MAX_REPLY_LEN: u64 = 1024 * 1024;

/// An error of a call, with its socket and method.
#[derive(Debug, thiserror::Error)]
#[error("{}", place(.socket, .method))]
pub struct ClientError {
    /// The socket that was called.
    pub socket: PathBuf,
    /// The full name of the method; empty when connecting failed.
    pub method: String,
    /// The error.
    #[source]
    pub kind: ClientErrorKind,
}

fn place(socket: &Path, method: &str) -> String {
    match method {
        "" => format!("cannot connect to {}", socket.display()),
        method => format!("{}: {method}", socket.display()),
    }
}

/// The kinds of errors of a call.
#[derive(Debug, thiserror::Error)]
pub enum ClientErrorKind {
    /// The socket cannot be connected to, written or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The service closed the connection before the last reply.
    #[error("the service ended the connection")]
    Disconnected,
    /// No reply arrived within the deadline.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// A reply is longer than this client reads.
    #[error("a reply is longer than {MAX_REPLY_LEN} bytes")]
    TooLong,
    /// The reply does not match the interface.
    #[error("a reply cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The service replied with a varlink error.
    #[error("{name}{}", .parameters.as_ref().map(|p| format!(" {p}")).unwrap_or_default())]
    Answered {
        /// The error's full name.
        name: String,
        /// Its parameters.
        parameters: Option<Value>,
    },
}

/// One connection to a varlink service.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`. If the socket's backlog is full, waits for up to
    /// [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// Fails if nothing listens at `path`, or if the backlog stays full.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let connected = loop {
            match UnixStream::connect(path).await {
                // A non-blocking connect returns EAGAIN if the backlog is full (`unix(7)`).
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                connected => break connected,
            }
        };
        match connected {
            Ok(stream) => Ok(Self {
                socket: path.to_owned(),
                stream: BufReader::new(stream),
            }),
            Err(e) => Err(ClientError {
                socket: path.to_owned(),
                method: String::new(),
                kind: e.into(),
            }),
        }
    }

    /// Calls `method` and waits for its one reply, for `deadline` at most.
    ///
    /// # Errors
    /// See [`ClientErrorKind`]. After an error other than [`Answered`](ClientErrorKind::Answered)
    /// the connection must not be used again.
    pub async fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        arguments: &impl Serialize,
        deadline: Duration,
    ) -> Result<R, ClientError> {
        let exchange = async {
            self.send(method, arguments, None).await?;
            let (reply, _) = self.receive().await?;
            Ok(reply)
        };
        let outcome = match tokio::time::timeout(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientErrorKind::TimedOut(deadline)),
        };
        outcome.map_err(|kind| self.error(method, kind))
    }

    /// Calls `method` with the `more` flag. The stream takes over the connection.
    ///
    /// # Errors
    /// Fails if the call cannot be sent.
    pub async fn stream(
        mut self,
        method: &'static str,
        arguments: &impl Serialize,
    ) -> Result<Replies, ClientError> {
        match self.send(method, arguments, Some(true)).await {
            Ok(()) => Ok(Replies {
                client: self,
                method,
                ended: false,
            }),
            Err(kind) => Err(self.error(method, kind)),
        }
    }

    async fn send(
        &mut self,
        method: &str,
        arguments: &impl Serialize,
        more: Option<bool>,
    ) -> Result<(), ClientErrorKind> {
        let request = Request {
            more,
            ..Request::create(method, Some(serde_json::to_value(arguments)?))
        };
        let mut message = serde_json::to_vec(&request)?;
        message.push(0);
        Ok(self.stream.write_all(&message).await?)
    }

    /// Returns the next reply, and true if another reply follows.
    async fn receive<R: DeserializeOwned>(&mut self) -> Result<(R, bool), ClientErrorKind> {
        let mut message = Vec::new();
        (&mut self.stream)
            .take(MAX_REPLY_LEN)
            .read_until(0, &mut message)
            .await?;
        if message.pop() != Some(0) {
            let cut = message.len() as u64 + 1 >= MAX_REPLY_LEN;
            return Err(if cut {
                ClientErrorKind::TooLong
            } else {
                ClientErrorKind::Disconnected
            });
        }
        let reply: Reply = serde_json::from_slice(&message)?;
        if let Some(name) = reply.error {
            return Err(ClientErrorKind::Answered {
                name: name.into_owned(),
                parameters: reply.parameters,
            });
        }
        let parameters = reply
            .parameters
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Ok((
            serde_json::from_value(parameters)?,
            reply.continues == Some(true),
        ))
    }

    fn error(&self, method: &str, kind: ClientErrorKind) -> ClientError {
        ClientError {
            socket: self.socket.clone(),
            method: method.to_owned(),
            kind,
        }
    }
}

/// The replies to one call with the `more` flag.
#[derive(Debug)]
pub struct Replies {
    client: Client,
    method: &'static str,
    ended: bool,
}

impl Replies {
    /// Returns the next reply, or nothing after the last. Waits without a deadline.
    ///
    /// Not cancel safe: a dropped future may have consumed a part of a reply.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn next<R: DeserializeOwned>(&mut self) -> Result<Option<R>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        match self.client.receive().await {
            Ok((reply, continues)) => {
                self.ended = !continues;
                Ok(Some(reply))
            }
            Err(kind) => {
                self.ended = true;
                Err(self.client.error(self.method, kind))
            }
        }
    }

    /// Returns the next reply as [`Self::next`] does, but waits for at most `deadline`.
    ///
    /// # Errors
    /// See [`ClientErrorKind`]. No reply follows an error.
    pub async fn next_within<R: DeserializeOwned>(
        &mut self,
        deadline: Duration,
    ) -> Result<Option<R>, ClientError> {
        match tokio::time::timeout(deadline, self.next()).await {
            Ok(reply) => reply,
            Err(_) => {
                self.ended = true;
                let kind = ClientErrorKind::TimedOut(deadline);
                Err(self.client.error(self.method, kind))
            }
        }
    }
}

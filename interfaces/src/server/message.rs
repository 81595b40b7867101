//! Messages of the varlink wire: JSON objects, each terminated by one NUL byte. Responsible for
//! finding the end of a message, checking its envelope, and counting the bytes that are read ahead.
//! Must never inspect the parameters of a message.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;

use super::CallError;
use super::limits::{Full, Hold, Limit};
use crate::Interface;

/// The time that a message may take from its first byte to its last, and the time that a full input
/// may wait behind a call.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of bytes that one read requests: most calls are shorter. Every idle connection holds
/// a buffer of this size.
const READ_LEN: usize = 1024;
/// The number of input bytes of a connection that are not counted.
pub const FREE_LEN: usize = 4 * READ_LEN;

/// The time within which a call must arrive for the reader to poll for the next one without
/// sleeping, and the time for which it polls. A wakeup takes about as long as a call.
const PROMPT: Duration = Duration::from_micros(100);

/// True if another process can send while this process polls.
static HAS_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1));

/// The interval of the checks that a peer that sends nothing more is still connected.
const HANGUP_INTERVAL: Duration = Duration::from_secs(1);

/// The reason that a message ends its connection.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The message is too long, or the peer's user has reached a limit.
    #[error("{0}")]
    Full(Full),
    /// The peer disconnected in the middle of a message.
    #[error("the connection ended within a message")]
    Cut,
    /// The rest of a message did not arrive in time.
    #[error("the rest of a message did not arrive within {MESSAGE_TIMEOUT:?}")]
    TimedOut,
    /// Not JSON.
    #[error("a message is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("a message is not a JSON object")]
    NotAnObject,
    /// A key of the envelope is missing, unknown, or has a value of the wrong type.
    #[error("a message is invalid at {:?}", .0.chars().take(80).collect::<String>())]
    Envelope(String),
    /// The socket failed.
    #[error("cannot read a message")]
    Io(#[from] io::Error),
}

impl Malformed {
    /// Returns the error that the peer receives before its connection ends.
    pub fn answer(&self, interface: Interface) -> CallError {
        match self {
            Self::Full(full) => CallError::full(interface, *full),
            Self::TimedOut => {
                let limit = u64::try_from(MESSAGE_TIMEOUT.as_micros()).unwrap_or(u64::MAX);
                CallError::limit(interface, "MessageTimedOut", "timeoutUSec", limit)
            }
            Self::Envelope(key) => CallError::invalid_parameter(key),
            _ => CallError::invalid_parameter("message"),
        }
    }
}

/// One call as it was received.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// The text of a JSON object. The service decodes it once its type is known.
    pub parameters: String,
    pub more: bool,
    pub oneway: bool,
}

/// The keys that a message may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'m> {
    #[serde(borrow)]
    method: Cow<'m, str>,
    #[serde(borrow, default)]
    parameters: Option<&'m RawValue>,
    #[serde(default)]
    more: Option<bool>,
    #[serde(default)]
    oneway: Option<bool>,
}

/// Checks the envelope of one message.
pub fn parse(message: &[u8]) -> Result<Request, Malformed> {
    let wrong = |key: &str| Malformed::Envelope(key.to_owned());
    let mut json = serde_json::Deserializer::from_slice(message);
    // serde would accept a list as the fields in their order.
    if !is_object(message) {
        return Err(Malformed::NotAnObject);
    }
    let envelope: Envelope<'_> =
        serde_path_to_error::deserialize(&mut json).map_err(|e| match e.inner().classify() {
            Category::Data => wrong(&offending_key(&e)),
            _ => Malformed::NotJson(e.into_inner()),
        })?;
    json.end().map_err(Malformed::NotJson)?;
    let (more, oneway) = (envelope.more == Some(true), envelope.oneway == Some(true));
    if more && oneway {
        return Err(wrong("oneway"));
    }
    let parameters = envelope.parameters.map_or("{}", RawValue::get);
    if !is_object(parameters.as_bytes()) {
        return Err(wrong("parameters"));
    }
    Ok(Request {
        method: envelope.method.into_owned(),
        parameters: parameters.to_owned(),
        more,
        oneway,
    })
}

fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// Returns the name of the key that could not be decoded.
///
/// The path covers a value of the wrong type. serde reports a missing or unknown field at the
/// object that should hold it, with the field's name only in the text.
pub(super) fn offending_key(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let text = error.inner().to_string();
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix)?.split_once('`'));
    let path = error.path().to_string();
    match (path.as_str(), named) {
        (_, None) => path,
        (".", Some((field, _))) => field.to_owned(),
        (_, Some((field, _))) if path == field || path.ends_with(&format!(".{field}")) => path,
        (_, Some((field, _))) => format!("{path}.{field}"),
    }
}

/// A reader that cuts the byte stream of one connection into messages.
pub struct MessageReader {
    socket: OwnedReadHalf,
    /// The bytes that were read; those before `start` were already taken.
    buffer: Vec<u8>,
    start: usize,
    /// The end of the part of `buffer` that was searched for a NUL, so that no byte is searched
    /// twice.
    searched: usize,
    ended: bool,
    /// True if the last message arrived promptly.
    prompt: bool,
    /// The hold that counts the bytes of `buffer`.
    held: Hold,
    longest: usize,
    most_waiting: usize,
}

/// The reason that a call in progress is of no use to its peer.
#[derive(Debug)]
pub enum Gone {
    /// The peer cannot receive replies.
    Peer,
    /// The peer has sent more than may wait behind a call.
    Overfull(Full),
}

impl MessageReader {
    /// Creates a reader of `socket` that counts its bytes in `held`.
    pub fn new(socket: OwnedReadHalf, held: Hold) -> Self {
        let len = |limit| usize::try_from(held.limit(limit)).unwrap_or(usize::MAX);
        Self {
            longest: len(Limit::MessageBytes),
            most_waiting: len(Limit::WaitingBytes),
            socket,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            ended: false,
            prompt: false,
            held,
        }
    }

    /// Returns the next message without its NUL, or nothing at the end of the stream. Cancel safe:
    /// the bytes that were read are kept.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.pending() == 0 && !self.ended {
            // A peer may stay silent between messages without a time limit.
            self.fill_between_messages().await?;
        }
        // A message that arrives complete, as nearly all do, needs no timer.
        if let Some(message) = self.take() {
            return Ok(Some(message));
        }
        match tokio::time::timeout(MESSAGE_TIMEOUT, self.rest_of_message()).await {
            Ok(message) => message,
            Err(_) => Err(Malformed::TimedOut),
        }
    }

    async fn rest_of_message(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            if self.pending() > self.longest {
                return Err(Malformed::Full(self.held.refuse(Limit::MessageBytes)));
            }
            if self.ended {
                return if self.pending() == 0 {
                    Ok(None)
                } else {
                    Err(Malformed::Cut)
                };
            }
            self.fill().await?;
        }
    }

    /// Takes the next message from the buffer if it is complete.
    fn take(&mut self) -> Option<Vec<u8>> {
        let unseen = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = unseen.iter().position(|&byte| byte == 0) else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + at;
        let message = self
            .buffer
            .get(self.start..end)
            .unwrap_or_default()
            .to_vec();
        self.start = end + 1;
        self.searched = self.start;
        Some(message)
    }

    /// Completes when a call in progress is of no use: the peer cannot receive replies, or more
    /// input waits behind the call than is allowed. Reads ahead, because the end of the stream is
    /// only seen after the input before it was read.
    ///
    /// A peer that only shut down its sending side still waits for replies and counts as connected.
    /// A full input may wait for [`MESSAGE_TIMEOUT`]: the unread input may contain the peer's own
    /// end of the connection, so that its hangup would never be seen (`SCM_RIGHTS`, `unix(7)`).
    pub async fn gone(&mut self) -> Gone {
        while !self.ended && self.pending() <= self.most_waiting {
            match self.fill().await {
                Ok(()) => {}
                Err(Malformed::Full(_)) => break,
                Err(_) => return Gone::Peer,
            }
        }
        let full_since = (!self.ended).then(Instant::now);
        // The socket stays readable from here on. Only a periodic check shows that the other
        // direction has ended as well.
        while !hung_up(&self.socket) {
            if full_since.is_some_and(|since| since.elapsed() >= MESSAGE_TIMEOUT) {
                return Gone::Overfull(self.held.refuse(Limit::WaitingBytes));
            }
            tokio::time::sleep(HANGUP_INTERVAL).await;
        }
        Gone::Peer
    }

    /// Returns the number of bytes that were read and not taken.
    fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Polls for the next message of a peer that sends one after the other, before it sleeps. A
    /// peer that has sent only one message is not polled.
    async fn fill_between_messages(&mut self) -> Result<(), Malformed> {
        let start = Instant::now();
        let look = self.prompt && *HAS_PROCESSORS;
        let outcome = 'filled: {
            let mut filled = pin!(self.fill());
            while look && start.elapsed() < PROMPT {
                let looked = poll_fn(|cx| Poll::Ready(filled.as_mut().poll(cx))).await;
                if let Poll::Ready(outcome) = looked {
                    break 'filled outcome;
                }
                // Other tasks run now, and tokio polls all sockets.
                tokio::task::yield_now().await;
            }
            filled.await
        };
        self.prompt = start.elapsed() < PROMPT;
        outcome
    }

    async fn fill(&mut self) -> Result<(), Malformed> {
        // Taken bytes are removed here and not with each message: a pipeline of small messages
        // would otherwise be moved once for each.
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.make_room()?;
        self.ended = self.socket.read_buf(&mut self.buffer).await? == 0;
        Ok(())
    }

    /// Makes room for the next bytes, and counts it. A buffer that grew for a long message shrinks
    /// after that message was taken.
    fn make_room(&mut self) -> Result<(), Malformed> {
        let len = self.buffer.len();
        if len + READ_LEN <= FREE_LEN && self.buffer.capacity() > FREE_LEN {
            self.buffer.shrink_to(FREE_LEN);
        }
        if self.buffer.capacity() - len < READ_LEN {
            let capacity = (len + READ_LEN).max(2 * self.buffer.capacity());
            self.held.set(counted(capacity)).map_err(Malformed::Full)?;
            self.buffer.reserve_exact(capacity - len);
        }
        // A smaller amount than before is always accepted.
        let _ = self.held.set(counted(self.buffer.capacity()));
        Ok(())
    }
}

/// Returns the part of `len` bytes that is counted: the free amount of every connection is not.
pub fn counted(len: usize) -> u64 {
    match len <= FREE_LEN {
        true => 0,
        false => len as u64,
    }
}

/// Returns true if both directions of the connection are closed (`POLLHUP`, `poll(2)`).
fn hung_up(socket: &OwnedReadHalf) -> bool {
    let stream: &tokio::net::UnixStream = socket.as_ref();
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())];
    let _ = poll(&mut fds, Some(&Timespec::default()));
    fds.iter()
        .any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_at(message: &str) -> String {
        match parse(message.as_bytes()) {
            Err(Malformed::Envelope(key)) => key,
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn an_envelope_error_names_its_key() {
        assert_eq!(wrong_at("{}"), "method");
        assert_eq!(wrong_at(r#"{"method":1}"#), "method");
        assert_eq!(
            wrong_at(r#"{"method":"a.B","parameters":[]}"#),
            "parameters"
        );
        assert_eq!(wrong_at(r#"{"method":"a.B","more":"yes"}"#), "more");
        assert_eq!(
            wrong_at(r#"{"method":"a.B","more":true,"oneway":true}"#),
            "oneway"
        );
        assert_eq!(wrong_at(r#"{"method":"a.B","upgrade":true}"#), "upgrade");
        assert_eq!(wrong_at(r#"{"method":"a.B","zzz":1}"#), "zzz");
    }

    #[test]
    fn a_message_that_is_not_a_json_object_is_malformed() {
        for message in [
            "",
            "x",
            "[]",
            "1",
            "{\"method\":\"a.B\"",
            "{\"method\":\"\\ud800\"}",
        ] {
            assert!(matches!(
                parse(message.as_bytes()),
                Err(Malformed::NotJson(_) | Malformed::NotAnObject)
            ));
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(
            parse(deep.as_bytes()),
            Err(Malformed::NotAnObject)
        ));
        let deep = format!(
            "{{\"method\":\"a.B\",\"parameters\":{}",
            "[".repeat(100_000)
        );
        let parsed = parse(deep.as_bytes());
        assert!(matches!(parsed, Err(Malformed::NotJson(_))), "{parsed:?}");
    }

    #[test]
    fn missing_null_and_empty_parameters_are_equal() {
        for message in [
            r#"{"method":"a.B"}"#,
            r#"{"method":"a.B","parameters":null}"#,
            r#"{"method":"a.B","parameters":{}}"#,
        ] {
            assert_eq!(parse(message.as_bytes()).unwrap().parameters, "{}");
        }
    }
}

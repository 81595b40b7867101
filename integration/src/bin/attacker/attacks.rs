//! The attacks. Every reaction of the service is counted, and the attack continues to its end. Must
//! never run longer than its arguments allow.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::tally::Tally;

/// The length limit of a message, in bytes.
const MESSAGE_LEN: usize = 256 * 1024;
/// The time that an attack waits if the socket's backlog is full, or after a refusal.
const PAUSE: Duration = Duration::from_millis(1);
/// The time that the service has to read the input that a client leaves behind.
const SOON: Duration = Duration::from_millis(500);
/// The most descriptors in one `sendmsg(2)` (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// The observations that the connections of an attack share.
type Shared = Arc<Mutex<Tally>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Tally> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Encodes a call with its final NUL.
pub fn call(method: &str, parameters: &str, more: bool) -> Vec<u8> {
    let more = if more { ",\"more\":true" } else { "" };
    format!("{{\"method\":\"{method}\",\"parameters\":{parameters}{more}}}\0").into_bytes()
}

/// Reports on stderr that the attack has begun: every connection was made, or cannot be made.
#[expect(clippy::print_stderr, reason = "what waits for it reads this")]
pub fn begun() {
    eprintln!("begun");
}

/// Connects as soon as possible; returns nothing if that fails until `until`.
async fn connect(socket: &Path, until: Instant, seen: &Shared) -> Option<UnixStream> {
    while Instant::now() < until {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                lock(seen).connected();
                return Some(stream);
            }
            Err(e) => {
                lock(seen).failed(&e);
                sleep(PAUSE).await;
            }
        }
    }
    None
}

/// Reads and counts replies, until `until` or until the service ends the connection.
async fn watch(stream: &mut UnixStream, until: Instant, seen: &Shared) {
    let mut unread = Vec::new();
    loop {
        match timeout_at(until, stream.read_buf(&mut unread)).await {
            Err(_) => return,
            Ok(Ok(0)) => return lock(seen).ended(),
            Ok(Ok(_)) => count(&mut unread, seen),
            Ok(Err(e)) => {
                let mut seen = lock(seen);
                seen.failed(&e);
                return seen.ended();
            }
        }
    }
}

/// Counts the complete replies in `unread`.
fn count(unread: &mut Vec<u8>, seen: &Shared) {
    let Some(last) = unread.iter().rposition(|byte| *byte == 0) else {
        return;
    };
    let whole: Vec<u8> = unread.drain(..=last).collect();
    let mut seen = lock(seen);
    for message in whole
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
    {
        seen.answer(message);
    }
}

/// Sends `bytes`, as far as the service accepts them until `until`. Returns true if all were sent.
async fn send(stream: &mut UnixStream, bytes: &[u8], until: Instant, seen: &Shared) -> bool {
    match timeout_at(until, stream.write_all(bytes)).await {
        Ok(Ok(())) => true,
        Ok(Err(e)) => {
            lock(seen).failed(&e);
            false
        }
        Err(_) => false,
    }
}

/// Runs `one` on each of `count` concurrent connections.
async fn each<F>(
    socket: PathBuf,
    count: usize,
    until: Instant,
    one: impl Fn(UnixStream, Shared) -> F,
) -> Tally
where
    F: Future<Output = ()> + Send + 'static,
{
    let seen = Shared::default();
    let mut connections = JoinSet::new();
    for _ in 0..count {
        let Some(stream) = connect(&socket, until, &seen).await else {
            break;
        };
        connections.spawn(one(stream, Arc::clone(&seen)));
        // The connections made so far run while others are made.
        tokio::task::yield_now().await;
    }
    begun();
    while connections.join_next().await.is_some() {}
    std::mem::take(&mut *lock(&seen))
}

pub async fn idle(socket: PathBuf, count: usize, until: Instant) -> Tally {
    each(socket, count, until, |mut stream, seen| async move {
        watch(&mut stream, until, &seen).await;
    })
    .await
}

pub async fn half(socket: PathBuf, count: usize, until: Instant) -> Tally {
    let mut part = b"{\"method\":\"io.systemd.service.Ping\",\"parameters\":{\"x\":\"".to_vec();
    part.resize(MESSAGE_LEN, b'x');
    let part = Arc::new(part);
    each(socket, count, until, move |mut stream, seen| {
        let part = Arc::clone(&part);
        async move {
            send(&mut stream, &part, until, &seen).await;
            watch(&mut stream, until, &seen).await;
        }
    })
    .await
}

pub async fn flood(socket: PathBuf, until: Instant) -> Tally {
    let seen = Shared::default();
    begun();
    while connect(&socket, until, &seen).await.is_some() {
        lock(&seen).left();
        // Signals and timers are handled now.
        tokio::task::yield_now().await;
    }
    std::mem::take(&mut *lock(&seen))
}

pub async fn pipeline(
    socket: PathBuf,
    connections: usize,
    until: Instant,
    call: Vec<u8>,
    read: bool,
) -> Tally {
    let (calls, socket) = (Arc::new(call.repeat(64)), Arc::new(socket));
    let seen = Shared::default();
    let mut pipelines = JoinSet::new();
    for _ in 0..connections {
        let (calls, socket) = (Arc::clone(&calls), Arc::clone(&socket));
        let seen = Arc::clone(&seen);
        pipelines.spawn(async move {
            // After the service ends a connection, the next is made.
            while let Some(stream) = connect(&socket, until, &seen).await {
                pipeline_once(stream, until, &calls, read, &seen).await;
                sleep(PAUSE).await;
            }
        });
    }
    begun();
    while pipelines.join_next().await.is_some() {}
    std::mem::take(&mut *lock(&seen))
}

async fn pipeline_once(
    stream: UnixStream,
    until: Instant,
    calls: &[u8],
    read: bool,
    seen: &Shared,
) {
    let (mut answers, mut questions) = stream.into_split();
    let write = async {
        loop {
            match timeout_at(until, questions.write_all(calls)).await {
                Ok(Ok(())) => lock(seen).calls += 64,
                Ok(Err(e)) => return lock(seen).failed(&e),
                Err(_) => return,
            }
        }
    };
    if read {
        let reading = async {
            let mut unread = Vec::new();
            while let Ok(Ok(1..)) = timeout_at(until, answers.read_buf(&mut unread)).await {
                count(&mut unread, seen);
            }
        };
        tokio::select! {
            () = write => {}
            () = reading => {}
        }
    } else {
        write.await;
        let mut unread = Vec::new();
        // Reads the reason, if the service ended the connection.
        if let Ok(Ok(_)) = tokio::time::timeout(PAUSE, answers.read_buf(&mut unread)).await {
            count(&mut unread, seen);
        }
    }
    lock(seen).ended();
}

pub async fn stalled(socket: PathBuf, count: usize, until: Instant, call: Vec<u8>) -> Tally {
    let call = Arc::new(call);
    each(socket, count, until, move |mut stream, seen| {
        let call = Arc::clone(&call);
        async move {
            if send(&mut stream, &call, until, &seen).await {
                lock(&seen).calls += 1;
            }
            sleep_until(until).await;
            // Counts the replies that have arrived, for example the reason for a refusal.
            let end = Instant::now() + PAUSE;
            watch(&mut stream, end, &seen).await;
        }
    })
    .await
}

/// Sends the input that the service keeps, and returns. The descriptor of each connection is sent
/// over the connection itself, so that only the service's reading releases it.
pub async fn own_end(socket: PathBuf, connections: usize, call: Vec<u8>) -> Tally {
    let seen = Shared::default();
    let until = Instant::now() + Duration::from_secs(10);
    begun();
    for _ in 0..connections {
        let Some(mut stream) = connect(&socket, until, &seen).await else {
            break;
        };
        if send(&mut stream, &call, until, &seen).await {
            lock(&seen).calls += 1;
        }
        // The service reads ahead up to one message: the bytes after that stay in the socket.
        let soon = Instant::now() + SOON;
        send(&mut stream, &vec![b'x'; MESSAGE_LEN + 1], soon, &seen).await;
        let own = || send_descriptors(&stream, b"x", &[stream.as_fd()]);
        let own = timeout_at(soon, stream.async_io(Interest::WRITABLE, own)).await;
        match own {
            Ok(Ok(())) => {}
            Ok(Err(e)) => lock(&seen).failed(&e),
            Err(_) => lock(&seen).error("NotSent"),
        }
        let mut unread = Vec::new();
        // Counts an immediate refusal.
        if let Ok(Ok(_)) = tokio::time::timeout(PAUSE, stream.read_buf(&mut unread)).await {
            count(&mut unread, &seen);
        }
        lock(&seen).left();
    }
    std::mem::take(&mut *lock(&seen))
}

pub async fn descriptors(socket: PathBuf, count: usize, until: Instant) -> Tally {
    let null = std::fs::File::open("/dev/null");
    each(socket, count, until, move |mut stream, seen| {
        let null = null.as_ref().ok().and_then(|null| null.try_clone().ok());
        async move {
            let fds = null.as_ref().map(|null| vec![null.as_fd(); MAX_FDS]);
            let fds = fds.unwrap_or_default();
            while Instant::now() < until {
                match send_descriptors(&stream, b" ", &fds) {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(e) => {
                        lock(&seen).failed(&e);
                        break;
                    }
                }
            }
            watch(&mut stream, until, &seen).await;
        }
    })
    .await
}

fn send_descriptors(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

pub async fn questions(socket: PathBuf, until: Instant, call: Vec<u8>) -> Tally {
    let seen = Shared::default();
    begun();
    while let Some(mut stream) = connect(&socket, until, &seen).await {
        if send(&mut stream, &call, until, &seen).await {
            lock(&seen).calls += 1;
        }
        lock(&seen).left();
        tokio::task::yield_now().await;
    }
    std::mem::take(&mut *lock(&seen))
}

pub async fn waits(socket: PathBuf, count: usize, until: Instant) -> Tally {
    let call = |blanks: &str| {
        let parameters = format!("{{\"name\":\"does_not_come\"{blanks}}}");
        call("org.rdmahotplug.Orchestrator.Wait", &parameters, false)
    };
    // Blanks are ignored, but must be kept until the parameters are decoded.
    let blanks = MESSAGE_LEN.saturating_sub(call("").len());
    let call = Arc::new(call(&" ".repeat(blanks)));
    each(socket, count, until, move |mut stream, seen| {
        let call = Arc::clone(&call);
        async move {
            if send(&mut stream, &call, until, &seen).await {
                lock(&seen).calls += 1;
            }
            watch(&mut stream, until, &seen).await;
        }
    })
    .await
}

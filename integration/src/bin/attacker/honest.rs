//! The honest caller: makes one call after the other, and measures the time of each. Must never
//! send the next call before it has the reply to the last.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::tally::Tally;

/// The time that a call may take before it counts as lost.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a failure, or after a full backlog.
const PAUSE: Duration = Duration::from_millis(1);

/// Calls until `until`; with `connect` each call uses a new connection.
pub async fn calls(socket: PathBuf, until: Instant, call: Vec<u8>, connect: bool) -> Tally {
    let mut seen = Tally::default();
    let mut connection = None;
    crate::attacks::begun();
    while Instant::now() < until {
        let start = Instant::now();
        let asked = ask(&socket, connection.take(), &call, &mut seen);
        match timeout(TIMEOUT, asked).await {
            Ok(Ok(stream)) => {
                seen.took(start.elapsed());
                if connect {
                    seen.left();
                } else {
                    connection = Some(stream);
                }
                continue;
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::Other => {
                // An error reply is counted, and its time is as valid as that of any other reply.
                seen.took(start.elapsed());
                seen.left();
            }
            Ok(Err(e)) => {
                seen.failed(&e);
                seen.left();
            }
            Err(_) => {
                seen.error("TimedOut");
                seen.left();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

/// Makes one call and reads its replies up to the last.
async fn ask(
    socket: &Path,
    connection: Option<UnixStream>,
    call: &[u8],
    seen: &mut Tally,
) -> io::Result<UnixStream> {
    let mut stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = connected(socket).await?;
            seen.connected();
            stream
        }
    };
    // The service may refuse the call before it has read it. Its reply arrives nevertheless.
    let written = stream.write_all(call).await;
    if written.is_ok() {
        seen.calls += 1;
    }
    let mut unread = Vec::new();
    loop {
        while let Some(end) = unread.iter().position(|byte| *byte == 0) {
            let message: Vec<u8> = unread.drain(..=end).collect();
            let message = message.strip_suffix(b"\0").unwrap_or_default();
            if seen.answer(message) {
                return Err(io::ErrorKind::Other.into());
            }
            if !contains(message, b"\"continues\":true") {
                return Ok(stream);
            }
        }
        if stream.read_buf(&mut unread).await? == 0 {
            written?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Connects as `connect(2)` does on a blocking socket: waits if the backlog is full.
async fn connected(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

//! A subscription that outlives its connection: if the service disconnects, it is renewed and
//! begins again with a snapshot. Must never hide that it was renewed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{Client, ClientError, ClientErrorKind, Replies};

/// The longest pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A pause that doubles with each consecutive failure. The time waited is random, so that clients
/// that lost the same service do not all reconnect at the same moment.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST_PAUSE }
    }
}

impl Backoff {
    /// Waits for between half of the pause and all of it.
    pub async fn wait(&mut self) {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(jittered(pause, chance())).await;
    }

    /// Starts again with the first pause, after a success.
    pub fn reset(&mut self) {
        self.pause = FIRST_PAUSE;
    }
}

fn jittered(pause: Duration, chance: u16) -> Duration {
    pause / 2 + pause / 2 * u32::from(chance) / u32::from(u16::MAX)
}

/// Returns a random number from 0 to `u16::MAX`; the middle if the kernel has no random bytes yet.
fn chance() -> u16 {
    let mut bytes = [0; 2];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(_) => u16::from_ne_bytes(bytes),
        Err(_) => u16::MAX / 2,
    }
}

/// An event of a subscription.
#[derive(Debug)]
pub enum Followed<R> {
    /// A connection was made: a snapshot follows.
    Begins,
    /// A reply.
    Reply(R),
    /// The connection was lost, or could not be made. The next call tries again.
    Lost(ClientError),
}

/// A subscription that outlives its connection.
#[derive(Debug)]
pub struct Subscription {
    socket: PathBuf,
    method: &'static str,
    arguments: Value,
    backoff: Backoff,
    failed: bool,
    replies: Option<Replies>,
    since: Option<Instant>,
}

impl Subscription {
    /// Creates a subscription by `method` at `socket`. Does not connect yet.
    #[must_use]
    pub fn new(socket: PathBuf, method: &'static str, arguments: &impl Serialize) -> Self {
        Self {
            socket,
            method,
            arguments: serde_json::to_value(arguments).unwrap_or_default(),
            backoff: Backoff::default(),
            failed: false,
            replies: None,
            since: None,
        }
    }

    /// Waits for the next event. After a loss it waits before it connects again.
    ///
    /// Not cancel safe: a dropped future may have consumed a part of a reply.
    pub async fn next<R: DeserializeOwned>(&mut self) -> Followed<R> {
        let Some(replies) = &mut self.replies else {
            return self.connect().await;
        };
        match replies.next().await {
            Ok(Some(reply)) => Followed::Reply(reply),
            Ok(None) => self.lost(ClientErrorKind::Disconnected),
            Err(e) => self.lost(e.kind),
        }
    }

    async fn connect<R>(&mut self) -> Followed<R> {
        if self.failed {
            self.backoff.wait().await;
        }
        let connected = match Client::connect(&self.socket).await {
            Ok(client) => client.stream(self.method, &self.arguments).await,
            Err(e) => Err(e),
        };
        match connected {
            Ok(replies) => {
                self.replies = Some(replies);
                self.since = Some(Instant::now());
                Followed::Begins
            }
            Err(e) => self.lost(e.kind),
        }
    }

    fn lost<R>(&mut self, kind: ClientErrorKind) -> Followed<R> {
        // A connection resets the backoff only if it lasted. One reply is not enough: a service
        // whose second reply cannot be read would be called again at short intervals.
        let lasted = |since: Instant| since.elapsed() > LONGEST_PAUSE;
        if self.replies.take().is_some() && self.since.is_some_and(lasted) {
            self.backoff.reset();
        }
        self.failed = true;
        Followed::Lost(ClientError {
            socket: self.socket.clone(),
            method: self.method.to_owned(),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jittered_pause_is_between_half_and_all_of_the_pause() {
        let pause = Duration::from_millis(100);
        assert_eq!(jittered(pause, 0), Duration::from_millis(50));
        assert_eq!(jittered(pause, u16::MAX), Duration::from_millis(100));
        let middle = jittered(pause, u16::MAX / 2);
        assert!(middle > Duration::from_millis(74) && middle < Duration::from_millis(76));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_longest_pause() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            let start = tokio::time::Instant::now();
            let pause = backoff.pause;
            backoff.wait().await;
            let waited = start.elapsed();
            // The timer counts whole milliseconds.
            assert!(
                waited + Duration::from_millis(1) >= pause / 2,
                "{waited:?} of {pause:?}"
            );
            assert!(
                waited <= pause + Duration::from_millis(1),
                "{waited:?} of {pause:?}"
            );
        }
        assert_eq!(backoff.pause, LONGEST_PAUSE);
    }
}

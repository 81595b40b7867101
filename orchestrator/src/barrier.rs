//! The barrier at the start of every wait: the detector scans again, and the orchestrator takes in
//! the resulting records. Responsible for serving any number of waits with one call to the detector
//! at a time. Must never let a wait continue before all changes that the kernel had announced are
//! known.

use std::path::{Path, PathBuf};
use std::time::Duration;

use interfaces::client::{Backoff, Client, ClientError};
use interfaces::detector::{self, SynchronizeArgs, SynchronizeReply};
use interfaces::log::Chain;
use tokio::sync::{mpsc, oneshot};

/// The time the detector may take to reply. A device that does not respond delays it by a second or
/// two.
const DEADLINE: Duration = Duration::from_secs(30);

/// A wait that begins. It receives the sequence number of the detector's event that it must
/// observe.
pub type Begun = oneshot::Sender<i64>;

/// Calls the detector at `socket` for the waits from `begun`, and repeats a failed call until it
/// succeeds.
pub async fn synchronize(socket: PathBuf, mut begun: mpsc::Receiver<Begun>) {
    let mut backoff = Backoff::default();
    while let Some(first) = begun.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = begun.try_recv() {
            waiting.push(next);
        }
        let mut failed = false;
        while !waiting.is_empty() {
            match synchronize_once(&socket).await {
                Ok(sequence) => {
                    backoff.reset();
                    for wait in waiting.drain(..) {
                        // The caller may have disconnected.
                        let _ = wait.send(sequence);
                    }
                }
                Err(e) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!("cannot start waits yet: {}", Chain(&e));
                    }
                    backoff.wait().await;
                    waiting.retain(|wait| !wait.is_closed());
                }
            }
        }
    }
}

async fn synchronize_once(socket: &Path) -> Result<i64, ClientError> {
    let mut client = Client::connect(socket).await?;
    let arguments = SynchronizeArgs {};
    let SynchronizeReply { sequence } = client
        .call(detector::SYNCHRONIZE, &arguments, DEADLINE)
        .await?;
    Ok(sequence)
}

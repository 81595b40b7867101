//! The barrier that every wait begins with: the detector looks once more, and what it says because of
//! that is taken in. Responsible for any number of waits asking the detector by one call at a time.
//! Must never let a wait go on before what the kernel had announced is known.

use std::path::{Path, PathBuf};
use std::time::Duration;

use interfaces::client::{Backoff, Client, ClientError};
use interfaces::detector::{self, SynchronizeArgs, SynchronizeReply};
use interfaces::log::Chain;
use tokio::sync::{mpsc, oneshot};

/// How long the detector may take. A device that does not answer costs it a second or two.
const DEADLINE: Duration = Duration::from_secs(30);

/// A wait that begins: gets the number of the detector's event that it has to see.
pub type Begun = oneshot::Sender<i64>;

/// Asks the detector at `socket` for each wait of `begun`, as often as it takes.
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
                        // The caller may be gone.
                        let _ = wait.send(sequence);
                    }
                }
                Err(e) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!("waits cannot begin yet: {}", Chain(&e));
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

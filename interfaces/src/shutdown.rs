//! How a service is told to stop: SIGTERM by the service manager, SIGINT by a person. Must
//! never end anything itself.

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// Catches both signals from now on. The future completes at the first, after telling the
/// service manager that the stop has begun.
///
/// # Errors
/// When the signals cannot be caught.
pub fn requested() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    })
}

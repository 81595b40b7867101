//! The destination of log records: the journal if standard error is connected to it
//! (`$JOURNAL_STREAM`, `systemd.exec(5)`), so that fields stay fields; otherwise standard error,
//! for people. Must never be called by anything but a program's `main`.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// The handle that changes the level while the program runs.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging at `level` and above. A second call changes nothing.
pub fn init(level: LevelFilter) {
    let (level, handle) = reload::Layer::new(level);
    let _ = LEVEL.set(handle);
    let registry = tracing_subscriber::registry().with(level);
    let journal = stderr_is_the_journal().then(tracing_journald::layer);
    // The first subscriber stays. A second call has no way to report its error.
    let _ = match journal {
        Some(Ok(journal)) => registry.with(journal).try_init(),
        _ => {
            let stderr = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal());
            registry.with(stderr).try_init()
        }
    };
}

/// Returns the level as in `syslog(3)`, from 0 to 7: the highest that is logged.
#[must_use]
pub fn level() -> u8 {
    let level = LEVEL.get().and_then(reload::Handle::clone_current);
    match level.unwrap_or(LevelFilter::INFO) {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => 3,
        LevelFilter::WARN => 4,
        LevelFilter::INFO => 6,
        _ => 7,
    }
}

/// Sets the level as in `syslog(3)`. Returns false if `level` is invalid.
#[must_use]
pub fn set_level(level: i64) -> bool {
    let filter = match level {
        0..=3 => LevelFilter::ERROR,
        4 => LevelFilter::WARN,
        5 | 6 => LevelFilter::INFO,
        7 => LevelFilter::DEBUG,
        _ => return false,
    };
    LEVEL
        .get()
        .is_none_or(|handle| handle.reload(filter).is_ok())
}

/// Compares `$JOURNAL_STREAM` with standard error. The variable is `DEVICE:INODE` of the stream
/// that the service manager connected; a program that inherited the variable but writes elsewhere
/// must not take that stream for its own.
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// An error with all its causes, in one line: `what was done: why it failed: why that failed`.
pub struct Chain<'e>(pub &'e dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors of libraries contain the text of their cause.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

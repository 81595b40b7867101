//! Why there is nothing to judge. Must never lose which file or module it was.

use std::io;
use std::path::PathBuf;

use crate::plan::PlanError;
use crate::snapshot::SnapshotError;

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
pub enum Unplanned {
    /// What is on disk cannot be used.
    #[error("what is on disk cannot be used, and might forbid it")]
    Snapshot(#[from] SnapshotError),
    /// What is in the kernel cannot be told.
    #[error("{} is not there: is sysfs mounted?", .0.display())]
    NoSysfs(PathBuf),
    /// There is no plan.
    #[error("it cannot be planned")]
    Plan(#[from] PlanError),
    /// It came after the start, and this process may not read it.
    #[error("{} has come, or leads elsewhere, since the loader started; the loader starts again: \
             ask again", .0.display())]
    Outdated(PathBuf),
}

impl Unplanned {
    /// The file that this process may not read, when that is why.
    #[must_use]
    pub fn unreadable(&self) -> Option<PathBuf> {
        match self {
            Self::Snapshot(SnapshotError::Read(path, e))
                if e.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(path.clone())
            }
            Self::NoSysfs(path) if path.is_dir() => Some(path.clone()),
            _ => None,
        }
    }

    /// Whether the next start of the loader has another answer.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Outdated(_))
    }
}

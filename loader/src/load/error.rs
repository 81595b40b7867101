//! The reasons that a name cannot be judged. Pure. Must never lose the file or module concerned.

use std::io;
use std::path::PathBuf;

use crate::plan::PlanError;
use crate::snapshot::SnapshotError;

/// The reason that a name cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The files on disk cannot be used.
    #[error("the files on disk cannot be used, and may forbid it")]
    Snapshot(#[from] SnapshotError),
    /// The modules in the kernel cannot be determined.
    #[error("{} does not exist: sysfs is not mounted", .0.display())]
    NoSysfs(PathBuf),
    /// There is no plan.
    #[error("it cannot be planned")]
    Plan(#[from] PlanError),
    /// A file appeared after the start, and this process may not read it.
    #[error("{} was added or changed since the loader started; the loader restarts: request the \
             module again", .0.display())]
    Outdated(PathBuf),
}

impl VerdictError {
    /// Returns the file that this process may not read, if that is the reason.
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

    /// Returns true if the next start of the loader may give another result.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Outdated(_))
    }
}

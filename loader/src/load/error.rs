//! Why something was not loaded. Must never lose which file or module it was.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::MAX_PARAMETERS;
use crate::module_dir::OpenError;
use crate::plan::PlanError;
use crate::snapshot::SnapshotError;
use crate::verdict::meaning;

/// Why a module is not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its file cannot be read or decompressed.
    #[error("{0} cannot be read")]
    Image(String, #[source] io::Error),
    /// Its parameters cannot be given to the kernel.
    #[error("its parameters are longer than {MAX_PARAMETERS} bytes")]
    Parameters,
    /// The kernel has refused it.
    #[error("{0}: {reason}", reason = meaning(*.1))]
    Refused(String, Errno),
    /// This program has made a mistake with it.
    #[error("the loader failed on its file; its log says how")]
    Panic,
    /// The kernel has taken it, and there is nothing of its name.
    #[error("{0} holds a module of another name")]
    OtherName(String),
}

impl LoadError {
    /// The errno, for who wants one.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Open(e) => Errno::from_raw(e.errno()),
            Self::Image(_, e) => e.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw),
            Self::Parameters => Errno::E2BIG,
            Self::Refused(_, errno) => *errno,
            Self::OtherName(_) => Errno::ENOEXEC,
            Self::Panic => Errno::ENOTRECOVERABLE,
        }
    }
}

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
pub enum Unplanned {
    /// What is on disk cannot be used.
    #[error("what is on disk cannot be used, and might forbid it")]
    Snapshot(#[from] SnapshotError),
    /// Nobody can say what is in the kernel.
    #[error("{} is not there: is sysfs mounted?", .0.display())]
    NoSysfs(PathBuf),
    /// There is no plan.
    #[error("it cannot be planned")]
    Plan(#[from] PlanError),
}

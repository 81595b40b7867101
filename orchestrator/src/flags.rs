//! The flag files that path units watch. Until the bus is up, an unprivileged process cannot send
//! requests to PID 1. PID 1 therefore starts the targets for RDMA hardware itself when a flag file
//! appears (`systemd.path(5)`). Must never wait for a job.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::machine::Flag;

/// The files that `rdma-hotplug-hardware.path` and `rdma-hotplug@PROTOCOL.path` watch.
#[derive(Debug)]
pub struct Flags {
    directory: PathBuf,
}

impl Flags {
    /// Creates the flags in the runtime directory. Writes nothing yet.
    #[must_use]
    pub fn new(runtime_directory: &Path) -> Self {
        Self {
            directory: runtime_directory.to_owned(),
        }
    }

    /// Creates the flag file, so that PID 1 starts the flag's target; or removes it, so that the
    /// target can be stopped. While the file exists, PID 1 starts the target again.
    ///
    /// # Errors
    /// Fails if the file cannot be created or removed; the error names the file.
    pub fn set(&self, flag: Flag, up: bool) -> io::Result<()> {
        let path = self.directory.join(file_name(flag));
        let outcome = match up {
            true => File::create(&path).map(drop),
            false => match fs::remove_file(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            },
        };
        outcome.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }
}

fn file_name(flag: Flag) -> String {
    match flag {
        Flag::Hardware => flag.name().to_owned(),
        protocol => format!("protocol-{}", protocol.name()),
    }
}

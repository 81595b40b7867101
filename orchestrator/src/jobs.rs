//! The flag files that path units watch. Before the bus is there nobody without privilege can
//! ask PID 1 for anything; so it starts the targets for RDMA hardware by itself, when it sees a
//! file (`systemd.path(5)`). Must never wait for a job.

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
    /// The flags in the runtime directory. Nothing is written yet.
    #[must_use]
    pub fn new(runtime_directory: &Path) -> Self {
        Self {
            directory: runtime_directory.to_owned(),
        }
    }

    /// Has PID 1 start the flag's target; or lets it be stopped, for while the file is there PID 1
    /// starts it again.
    ///
    /// # Errors
    /// When the file cannot be made or removed; the error names it.
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

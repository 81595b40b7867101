//! What PID 1 is asked for. Before the bus is there nobody without privilege can ask it for
//! anything, so a path unit watches a flag file, and PID 1 starts the target by itself
//! (`systemd.path(5)`). Must never wait for a job.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The file that `rdma-hotplug-hardware.path` watches.
#[derive(Debug)]
pub struct HardwareFlag {
    path: PathBuf,
}

impl HardwareFlag {
    /// The flag in the runtime directory. Nothing is written yet.
    #[must_use]
    pub fn new(runtime_directory: &Path) -> Self {
        Self {
            path: runtime_directory.join("hardware"),
        }
    }

    /// Has PID 1 start `rdma-hotplug-hardware.target`.
    ///
    /// # Errors
    /// When the file cannot be made; the error names it.
    pub fn raise(&self) -> io::Result<()> {
        File::create(&self.path)
            .map(drop)
            .map_err(|e| self.named(&e))
    }

    /// Lets the target be stopped: while the file is there, PID 1 starts it again.
    ///
    /// # Errors
    /// When the file is there and cannot be removed; the error names it.
    pub fn lower(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.named(&e)),
            _ => Ok(()),
        }
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

//! The programs that are installed: built by cargo, or taken from a directory. Must never decide
//! where they are installed.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

/// The programs by their file names.
pub const NAMES: [&str; 4] = [
    "rdma-detector",
    "rdma-loader",
    "rdma-orchestrator",
    "rdma-hotplug",
];

/// The reason that there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// cargo cannot be run.
    #[error("cannot run cargo: {0}")]
    Run(#[from] io::Error),
    /// cargo failed; it has printed the reason.
    #[error("cargo build failed")]
    Failed,
    /// cargo did not report the path of a program.
    #[error("cargo build made no {0}")]
    NotMade(&'static str),
}

/// A message from cargo about one artifact.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// Builds the programs for release and returns their paths.
pub fn build() -> Result<Vec<PathBuf>, BuildError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let made = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
        ])
        .args(["-p", "detector", "-p", "loader", "-p", "orchestrator"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !made.status.success() {
        return Err(BuildError::Failed);
    }
    let executables: Vec<PathBuf> = made
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok()?.executable)
        .collect();
    NAMES
        .iter()
        .map(|name| {
            let found = executables.iter().find(|path| path.ends_with(name));
            found.cloned().ok_or(BuildError::NotMade(name))
        })
        .collect()
}

/// Returns the paths of the programs in a directory.
pub fn in_directory(directory: &Path) -> Vec<PathBuf> {
    NAMES.iter().map(|name| directory.join(name)).collect()
}

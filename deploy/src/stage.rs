//! The layout of the files below `deploy/root`, and of the programs, below a directory. Must never
//! follow a link out of that directory: links are copied as links.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The directory of the daemons; their units name it.
const LIBEXEC: &str = "usr/libexec/rdma-hotplug";
/// The directory of the command.
const BIN: &str = "usr/bin";

/// The file that could not be laid out, and the error.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
pub struct StageError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// Lays out all files below `destdir`.
pub fn stage(destdir: &Path, programs: &[PathBuf]) -> Result<(), StageError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("root");
    copy_tree(&root, destdir)?;
    for program in programs {
        let name = program.file_name().unwrap_or_default();
        let directory = if name == "rdma-hotplug" { BIN } else { LIBEXEC };
        let directory = destdir.join(directory);
        make_directory(&directory)?;
        copy_file(program, &directory.join(name), 0o755)?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), StageError> {
    make_directory(to)?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(at(&source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            copy_link(&source, &target)?;
        } else {
            copy_file(&source, &target, 0o644)?;
        }
    }
    Ok(())
}

/// Makes a directory and its parents, readable by all users regardless of the umask.
fn make_directory(path: &Path) -> Result<(), StageError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    fs::create_dir(path).map_err(at(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(at(path))
}

fn copy_file(from: &Path, to: &Path, mode: u32) -> Result<(), StageError> {
    // A running program cannot be written, but it can be replaced.
    remove_if_there(to)?;
    fs::copy(from, to).map_err(at(from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(at(to))
}

fn copy_link(from: &Path, to: &Path) -> Result<(), StageError> {
    remove_if_there(to)?;
    let target = fs::read_link(from).map_err(at(from))?;
    symlink(target, to).map_err(at(to))
}

fn remove_if_there(path: &Path) -> Result<(), StageError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(path)(e)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |error| StageError { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stages a tree with stand-ins for the programs.
    fn staged() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let programs: Vec<PathBuf> = crate::programs::in_directory(&dir.path().join("made"));
        fs::create_dir(dir.path().join("made")).unwrap();
        for program in &programs {
            fs::write(program, "program").unwrap();
        }
        stage(&dir.path().join("destdir"), &programs).unwrap();
        dir
    }

    fn units(destdir: &Path) -> Vec<(PathBuf, String)> {
        let directory = destdir.join("usr/lib/systemd/system");
        let entries = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
        let files = entries.filter(|path| path.is_file());
        files
            .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
            .collect()
    }

    #[test]
    fn every_program_that_a_unit_starts_exists_with_mode_755() {
        let dir = staged();
        let destdir = dir.path().join("destdir");
        let mut started = 0;
        for (unit, text) in units(&destdir) {
            for line in text.lines() {
                let command = line.strip_prefix("ExecStart=/");
                let Some(program) = command.and_then(|c| c.split(' ').next()) else {
                    continue;
                };
                let mode = fs::metadata(destdir.join(program))
                    .unwrap_or_else(|e| panic!("{}: {program}: {e}", unit.display()))
                    .permissions()
                    .mode();
                assert_eq!(mode & 0o777, 0o755, "{program}");
                started += 1;
            }
        }
        assert_eq!(started, 6);
    }

    #[test]
    fn sysusers_creates_every_user_that_a_unit_names() {
        let dir = staged();
        let destdir = dir.path().join("destdir");
        let sysusers =
            fs::read_to_string(destdir.join("usr/lib/sysusers.d/rdma-hotplug.conf")).unwrap();
        for (unit, text) in units(&destdir) {
            for user in text.lines().filter_map(|line| line.strip_prefix("User=")) {
                let made = sysusers
                    .lines()
                    .any(|l| l.split_whitespace().nth(1) == Some(user));
                assert!(made, "{}: {user}", unit.display());
            }
        }
    }

    #[test]
    fn every_enablement_link_leads_to_a_unit() {
        let dir = staged();
        let system = dir.path().join("destdir/usr/lib/systemd/system");
        let mut links = 0;
        for wants in [
            "sockets.target.wants",
            "sysinit.target.wants",
            "paths.target.wants",
        ] {
            for entry in fs::read_dir(system.join(wants)).unwrap() {
                let link = entry.unwrap().path();
                assert!(link.is_symlink(), "{}", link.display());
                assert!(link.exists(), "{} leads nowhere", link.display());
                links += 1;
            }
        }
        assert_eq!(links, 12);
    }

    #[test]
    fn a_staged_tree_can_be_staged_again() {
        let dir = staged();
        let made = crate::programs::in_directory(&dir.path().join("made"));
        stage(&dir.path().join("destdir"), &made).unwrap();
    }
}

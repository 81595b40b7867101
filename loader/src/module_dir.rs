//! The module files of one kernel, opened with care. Must never open anything outside the
//! module trees, nor wait in opening.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// Permission bits that let others than its owner change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a file is not given to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened.
    #[error("{}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// Its path, or what it is a link to, is outside of the module trees.
    #[error("{} is outside of the module trees", .0.display())]
    Outside(PathBuf),
    /// It is a directory, a device or the like.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Somebody else than root, or this process's user, may have written it.
    #[error("{} can be written by others than root", .0.display())]
    Untrusted(PathBuf),
}

impl OpenError {
    /// The errno, for who wants one.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Open(_, e) => e.raw_os_error().unwrap_or_default(),
            _ => rustix::io::Errno::PERM.raw_os_error(),
        }
    }
}

/// The directory of one kernel's modules, `/lib/modules/RELEASE`.
#[derive(Clone, Debug)]
pub struct ModuleDir {
    /// Where all kernels' modules are: a link may lead to another kernel's, as those of RHEL's
    /// weak-updates do.
    trees: PathBuf,
    root: PathBuf,
}

impl ModuleDir {
    /// The directory of `release` below `trees`. Nothing is looked at yet.
    #[must_use]
    pub fn new(trees: &Path, release: &str) -> Self {
        Self {
            trees: trees.to_owned(),
            root: trees.join(release),
        }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a module's file is there.
    #[must_use]
    pub fn has(&self, path: &[u8]) -> bool {
        fs::metadata(self.root.join(OsStr::from_bytes(path))).is_ok()
    }

    /// Opens a module's file for reading.
    ///
    /// # Errors
    /// When it cannot be opened or must not be trusted.
    pub fn open(&self, path: &[u8]) -> Result<File, OpenError> {
        let path = Path::new(OsStr::from_bytes(path));
        let is_inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !is_inside {
            return Err(OpenError::Outside(path.to_owned()));
        }
        let path = self.root.join(path);
        // open(2) and not openat2(2): RestrictSUIDSGID= answers the latter with ENOSYS, because
        // no filter can look into its argument. O_NONBLOCK: a FIFO in the place of a module must
        // not hold a thread for ever.
        let opened = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path);
        let file = opened.map_err(|e| OpenError::Open(path.clone(), e))?;
        let wrong = |e| OpenError::Open(path.clone(), e);
        let metadata = file.metadata().map_err(wrong)?;
        if !metadata.is_file() {
            return Err(OpenError::NotAFile(path));
        }
        // The loader's own user owns nothing where it is installed.
        let own = rustix::process::geteuid().as_raw();
        let is_trusted = metadata.uid() == 0 || metadata.uid() == own;
        if !is_trusted || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(OpenError::Untrusted(path));
        }
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let really = fs::read_link(link).map_err(wrong)?;
        let trees = fs::canonicalize(&self.trees).map_err(wrong)?;
        if !really.starts_with(trees) {
            return Err(OpenError::Outside(really));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_tree_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("6.12")).unwrap();
        fs::write(dir.path().join("outside.ko"), "x").unwrap();
        let modules = ModuleDir::new(dir.path(), "6.12");
        let absolute = dir.path().join("6.12/inside.ko");
        for path in [
            "../outside.ko",
            "/etc/passwd",
            "kernel/../../outside.ko",
            ".",
            "",
        ] {
            let opened = modules.open(path.as_bytes());
            assert!(
                matches!(opened, Err(OpenError::Outside(_) | OpenError::NotAFile(_))),
                "{path}"
            );
        }
        let opened = modules.open(absolute.as_os_str().as_bytes());
        assert!(matches!(opened, Err(OpenError::Outside(_))));
    }

    #[test]
    fn a_link_to_another_kernels_module_is_followed_and_one_out_of_the_trees_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let trees = dir.path().join("modules");
        for kernel in ["6.12", "6.13"] {
            fs::create_dir_all(trees.join(kernel)).unwrap();
        }
        fs::write(trees.join("6.13/x.ko"), "x").unwrap();
        fs::write(dir.path().join("y.ko"), "y").unwrap();
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, trees.join("6.12").join(name)).unwrap();
        };
        link(&trees.join("6.13/x.ko"), "weak-update.ko");
        link(&dir.path().join("y.ko"), "evil.ko");
        let modules = ModuleDir::new(&trees, "6.12");
        assert!(modules.open(b"weak-update.ko").is_ok());
        assert!(matches!(
            modules.open(b"evil.ko"),
            Err(OpenError::Outside(_))
        ));
    }

    #[test]
    fn a_file_of_somebody_else_is_not_trusted() {
        if !rustix::process::geteuid().is_root() {
            // Only root can make one.
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("6.12")).unwrap();
        let file = dir.path().join("6.12/x.ko");
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
        let opened = ModuleDir::new(dir.path(), "6.12").open(b"x.ko");
        assert!(matches!(opened, Err(OpenError::Untrusted(_))));
    }
}

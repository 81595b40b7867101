//! The module files of one kernel, checked before use. A link may lead to a file outside of the
//! module trees only if root alone can have put it there. Must never open a file that another user
//! could have written or replaced, nor block in open(2).

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// The permission bits that let users other than the owner change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The reason that a file is not passed to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened.
    #[error("{}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// The path itself leads out of the module trees.
    #[error("{} is outside the module trees", .0.display())]
    Outside(PathBuf),
    /// The file is a link out of the module trees to a place that users other than root can change.
    #[error(
        "{} is outside the module trees, and {} is writable by users other than root",
        file.display(), directory.display()
    )]
    Replaceable {
        /// The target of the link.
        file: PathBuf,
        /// The directory in its path that others can write.
        directory: PathBuf,
    },
    /// The file is a directory, a device or the like.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A user other than root and this process's user may have written the file.
    #[error("{} is writable by users other than root", .0.display())]
    Untrusted(PathBuf),
}

impl OpenError {
    /// Returns the errno.
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
    /// The directory of all kernels' module trees: a link may lead to another kernel's tree, as
    /// those of RHEL's weak-updates do.
    trees: PathBuf,
    root: PathBuf,
}

impl ModuleDir {
    /// Returns the directory of `release` below `trees`. Reads nothing yet.
    #[must_use]
    pub fn new(trees: &Path, release: &str) -> Self {
        Self {
            trees: trees.to_owned(),
            root: trees.join(release),
        }
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns true if a module's file exists.
    #[must_use]
    pub fn has(&self, path: &[u8]) -> bool {
        fs::metadata(self.root.join(OsStr::from_bytes(path))).is_ok()
    }

    /// Opens a module's file for reading.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or must not be trusted.
    pub fn open(&self, path: &[u8]) -> Result<File, OpenError> {
        let path = Path::new(OsStr::from_bytes(path));
        let is_inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !is_inside {
            return Err(OpenError::Outside(path.to_owned()));
        }
        let path = self.root.join(path);
        // open(2) and not openat2(2): RestrictSUIDSGID= makes the latter fail with ENOSYS, because
        // a seccomp filter cannot read its argument. O_NONBLOCK: a FIFO in the place of a module
        // must not block a thread for ever.
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
        if !is_roots(&metadata) {
            return Err(OpenError::Untrusted(path));
        }
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let really = fs::read_link(link).map_err(wrong)?;
        let trees = fs::canonicalize(&self.trees).map_err(wrong)?;
        if !really.starts_with(trees)
            && let Some(directory) = first_not_roots(&really)
        {
            return Err(OpenError::Replaceable {
                directory: directory.to_owned(),
                file: really,
            });
        }
        Ok(file)
    }
}

/// Returns true if root alone can write the file. The loader's own user counts as root: it owns
/// nothing on an installed system.
fn is_roots(metadata: &Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let is_owned = metadata.uid() == 0 || metadata.uid() == own;
    is_owned && metadata.mode() & WRITABLE_BY_OTHERS == 0
}

/// Returns the first directory above `path` that users other than root can write. `path` must not
/// contain links. The sticky bit makes no difference: another user may have created the next
/// directory in the path.
fn first_not_roots(path: &Path) -> Option<&Path> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let mut above = above.into_iter().rev();
    above.find(|directory| !fs::symlink_metadata(directory).is_ok_and(|found| is_roots(&found)))
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

    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Creates module trees with one kernel that has a link `x.ko` to `target`.
    fn linked(dir: &Path, target: &Path) -> ModuleDir {
        let trees = dir.join("modules");
        fs::create_dir_all(trees.join("6.12")).unwrap();
        symlink(target, trees.join("6.12/x.ko")).unwrap();
        ModuleDir::new(&trees, "6.12")
    }

    #[test]
    fn a_link_to_another_kernels_module_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("modules/6.13/x.ko");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "x").unwrap();
        assert!(linked(dir.path(), &file).open(b"x.ko").is_ok());
    }

    #[test]
    fn a_link_out_of_the_trees_is_not_followed_through_a_directory_that_others_can_write() {
        // Temporary directories are in a directory that all users can write.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.ko");
        fs::write(&file, "x").unwrap();
        let opened = linked(dir.path(), &file).open(b"x.ko");
        let Err(OpenError::Replaceable { directory, .. }) = opened else {
            panic!("{opened:?}");
        };
        assert!(
            !is_roots(&fs::metadata(&directory).unwrap()),
            "{directory:?}"
        );
        assert!(dir.path().starts_with(directory));
    }

    /// Case S3 (nixpkgs#334180): a module tree of links into another store.
    #[test]
    fn a_link_is_followed_only_if_root_alone_can_write_each_directory_on_the_way() {
        // The directory of this test program usually belongs to the developer.
        let built = std::env::current_exe().unwrap();
        let built = fs::canonicalize(built.parent().unwrap()).unwrap();
        let store = tempfile::tempdir_in(&built).unwrap();
        let file = store.path().join("one/two/x.ko");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "x").unwrap();
        if let Some(directory) = first_not_roots(&file) {
            println!("skipped: others can write {}", directory.display());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let modules = linked(dir.path(), &file);
        assert!(modules.open(b"x.ko").is_ok());
        let one = store.path().join("one");
        for mode in [0o775, 0o757, 0o1777] {
            fs::set_permissions(&one, fs::Permissions::from_mode(mode)).unwrap();
            let error = modules.open(b"x.ko").unwrap_err();
            assert!(error.to_string().contains(one.to_str().unwrap()), "{error}");
            assert_eq!(error.errno(), rustix::io::Errno::PERM.raw_os_error());
        }
        fs::set_permissions(&one, fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&one, Some(65534), None).unwrap();
            assert!(matches!(
                modules.open(b"x.ko"),
                Err(OpenError::Replaceable { .. })
            ));
        }
    }

    #[test]
    fn a_module_file_of_another_user_is_not_trusted() {
        if !rustix::process::geteuid().is_root() {
            // Only root can create such a file.
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

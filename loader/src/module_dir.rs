//! The module tree of one kernel: its index files, read again when depmod has replaced them,
//! and its module files, opened with care. Must never open anything outside the tree that it
//! is given, nor wait in opening.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;

use crate::index::{Index, IndexError};
use crate::plan::{Indexes, Step};

/// The longest index file that is read, in bytes. Debian's largest has 1.5 MB.
const MAX_INDEX_LEN: u64 = 64 * 1024 * 1024;
/// Permission bits that let others than its owner change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why the module tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModuleDirError {
    /// An index file cannot be read.
    #[error("{}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// An index file is no index.
    #[error("{}", .0.display())]
    Index(PathBuf, #[source] IndexError),
    /// depmod kept replacing the files while they were read.
    #[error("{}: the index files keep changing", .0.display())]
    Changing(PathBuf),
}

/// What tells one generation of a file from another.
type Stamp = (u64, u64, i64, i64, u64);

/// The directory of one kernel's modules, `/lib/modules/RELEASE`.
pub struct ModuleDir {
    root: PathBuf,
    cached: Mutex<Option<(Vec<Stamp>, Arc<Indexes>)>>,
}

impl ModuleDir {
    /// The directory at `root`. Nothing is read yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            cached: Mutex::new(None),
        }
    }

    /// The index files as they are now, all of one generation.
    ///
    /// # Errors
    /// When one of them cannot be read or is no index.
    pub fn indexes(&self) -> Result<Arc<Indexes>, ModuleDirError> {
        const ATTEMPTS: usize = 5;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..ATTEMPTS {
            let stamps = self.stamps()?;
            if let Some((known, indexes)) = &*cached
                && *known == stamps
            {
                return Ok(Arc::clone(indexes));
            }
            let indexes = Arc::new(self.read()?);
            if self.stamps()? == stamps {
                *cached = Some((stamps, Arc::clone(&indexes)));
                return Ok(indexes);
            }
        }
        Err(ModuleDirError::Changing(self.root.clone()))
    }

    /// Opens a module's file for reading.
    ///
    /// # Errors
    /// `EPERM` when it is not a regular file, or not one that only root, or this
    /// process's user, can have written; otherwise what `open(2)` says.
    pub fn open(&self, step: &Step) -> io::Result<File> {
        // open(2) and not openat2(2): RestrictSUIDSGID= answers the latter with ENOSYS, because
        // no filter can look into its argument. O_NONBLOCK: a FIFO in the place of a module must
        // not hold a thread for ever.
        let file = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.root.join(&step.path))?;
        let metadata = file.metadata()?;
        // The loader's own user owns nothing where it is installed.
        let own = rustix::process::geteuid().as_raw();
        let trusted = metadata.uid() == 0 || metadata.uid() == own;
        if metadata.is_file() && trusted && metadata.mode() & WRITABLE_BY_OTHERS == 0 {
            Ok(file)
        } else {
            Err(rustix::io::Errno::PERM.into())
        }
    }

    fn paths(&self) -> [PathBuf; 3] {
        [
            "modules.dep.bin",
            "modules.alias.bin",
            "modules.builtin.bin",
        ]
        .map(|name| self.root.join(name))
    }

    fn stamps(&self) -> Result<Vec<Stamp>, ModuleDirError> {
        self.paths()
            .iter()
            .map(|path| {
                let m = fs::metadata(path).map_err(|e| ModuleDirError::Read(path.clone(), e))?;
                Ok((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
            })
            .collect()
    }

    fn read(&self) -> Result<Indexes, ModuleDirError> {
        let [dependencies, aliases, builtin] = self.paths();
        Ok(Indexes {
            dependencies: read_index(&dependencies)?,
            aliases: read_index(&aliases)?,
            builtin: read_index(&builtin)?,
        })
    }
}

/// Reads into memory rather than mapping: a file that is cut while it is mapped kills its
/// reader with SIGBUS.
fn read_index(path: &Path) -> Result<Index, ModuleDirError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_INDEX_LEN).read_to_end(&mut bytes))
        .map_err(|e| ModuleDirError::Read(path.to_owned(), e))?;
    Index::parse(bytes).map_err(|e| ModuleDirError::Index(path.to_owned(), e))
}

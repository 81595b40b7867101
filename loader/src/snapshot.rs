//! All files that a plan depends on, as of one moment: depmod's index files, `modprobe.d(5)` and
//! the kernel command line. They are read again when any of them has changed. Must never return a
//! mixture of two generations, and never skip a file that it cannot read: it might be the one that
//! forbids a module.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::index::{Index, IndexError};
use crate::modprobe_d::{self, Config};
use crate::plan::Indexes;

/// The longest index file that is read, in bytes. Debian's largest has 1.5 MB.
const MAX_INDEX_LEN: u64 = 64 << 20;
/// The longest configuration file that is read, in bytes.
const MAX_CONFIG_LEN: u64 = 16 << 20;
/// The maximum number of configuration files.
const MAX_CONFIG_FILES: usize = 10_000;
/// The margin for coarse file timestamps: a file that changed less than this before it was read may
/// change again with the same timestamps.
const TICK: Duration = Duration::from_millis(100);

/// The time after the last write of an index in which indexes without depmod's last file count as
/// half-written. On a slow disk, depmod needs seconds.
const DEPMOD: Duration = Duration::from_secs(60);

/// The maximum number of invalid lines that are logged.
const MAX_TOLD: usize = 20;

/// The indexes that are read, in the order in which depmod writes them.
const INDEXES: [&str; 5] = [
    "modules.dep.bin",
    "modules.alias.bin",
    "modules.symbols.bin",
    "modules.builtin.bin",
    "modules.builtin.alias.bin",
];
/// The last file that depmod writes (`tools/depmod.c`). depmod replaces each file with rename(2).
const LAST_INDEX: &str = "modules.devname";

/// The directories of modprobe, in the order of their precedence.
pub const MODPROBE_D: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

/// The reason that the files on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or directory cannot be read.
    #[error("{}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// An index file is invalid.
    #[error("{}", .0.display())]
    Index(PathBuf, #[source] IndexError),
    /// A file is longer than the limit.
    #[error("{} is longer than {} bytes", .0.display(), .1)]
    TooLong(PathBuf, u64),
    /// There are more files than the limit.
    #[error("{}: more than {MAX_CONFIG_FILES} configuration files", .0.display())]
    TooMany(PathBuf),
    /// The files kept changing while they were read.
    #[error("{}: it keeps changing", .0.display())]
    Changing(PathBuf),
}

/// The reason that a module may exist although the indexes do not name it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// There is no index of modules.
    #[error("{} does not exist: the modules of this kernel are not installed, or depmod has not been run", .0.display())]
    Absent(PathBuf),
    /// depmod has written some of its files, and not yet the last one.
    #[error("depmod is writing the files in {}", .0.display())]
    BeingWritten(PathBuf),
}

/// The paths to read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The root for the resolution of symbolic links, if there is one.
    pub root: Option<PathBuf>,
    /// The module tree, `/lib/modules/RELEASE`.
    pub module_tree: PathBuf,
    /// Directories of `modprobe.d(5)`, in the order of their precedence.
    pub modprobe_d: Vec<PathBuf>,
    /// The kernel command line.
    pub command_line: PathBuf,
    /// The reader.
    pub reader: Semantics,
}

/// The reader of a snapshot. One must match modprobe, the other must refuse in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Semantics {
    /// A program that needs modprobe's plans. The blacklist of the opt-in file applies, and a
    /// missing command line is empty.
    Modprobe,
    /// The service. The blacklist of the opt-in file does not apply. A missing command line is an
    /// error, because it might forbid a module.
    Loader,
}

/// The files on disk at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The index files of depmod.
    pub indexes: Indexes,
    /// `modprobe.d(5)` and the kernel command line.
    pub config: Config,
    generation: Generation,
}

/// The version of all files: the stamp of each file and directory, and the content of the command
/// line, which has no timestamp.
#[derive(Debug, PartialEq, Eq)]
struct Generation {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// The configuration files, in the order in which they count.
    config_files: Vec<PathBuf>,
    command_line: Vec<u8>,
}

/// The version of one file: device, inode, modification and change time, size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }
}

/// The cache of the current snapshot.
pub struct Snapshots {
    sources: Sources,
    kept: Mutex<Option<Arc<Snapshot>>>,
}

impl Snapshots {
    /// Creates a cache of `sources`. Reads nothing yet.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            kept: Mutex::new(None),
        }
    }

    /// Returns the current snapshot. Reads the files only if they have changed.
    ///
    /// # Errors
    /// Fails if any of them cannot be read.
    pub fn current(&self) -> Result<Arc<Snapshot>, SnapshotError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = SystemTime::now();
        let generation = self.sources.generation()?;
        if let Some(snapshot) = &*kept
            && snapshot.generation == generation
        {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(self.sources.read(generation)?);
        for problem in snapshot.config.problems.iter().take(MAX_TOLD) {
            let (source, word) = (&problem.source, &problem.word);
            tracing::warn!("{source}: modprobe does not know '{word}' and ignores the line");
        }
        let settled = snapshot.generation.is_older_than(before, TICK);
        *kept = settled.then(|| Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

impl Snapshot {
    /// Returns the reason that the indexes may be incomplete, or `None` if they are complete.
    #[must_use]
    pub fn doubt(&self, module_tree: &Path, now: SystemTime) -> Option<Doubt> {
        if self.indexes.dependencies.is_none() {
            return Some(Doubt::Absent(module_tree.join(INDEXES[0])));
        }
        let is_half_written = self.generation.is_half_written(module_tree, now);
        is_half_written.then(|| Doubt::BeingWritten(module_tree.to_owned()))
    }
}

impl Generation {
    /// Returns true if depmod may be running: an index is newer than the last file, and was written
    /// a moment ago. In a copied tree, the order of the files may be wrong permanently.
    fn is_half_written(&self, module_tree: &Path, now: SystemTime) -> bool {
        let modified = |name: &str| {
            let path = module_tree.join(name);
            let (_, stamp) = self.stamps.iter().find(|(stamped, _)| *stamped == path)?;
            stamp.map(|stamp| stamp.modified)
        };
        let Some(newest) = INDEXES.iter().filter_map(|name| modified(name)).max() else {
            return false;
        };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = u64::try_from(newest.0).map(Duration::from_secs);
        let age = written.ok().and_then(|written| now.checked_sub(written));
        let is_behind = match modified(LAST_INDEX) {
            Some(last) => last < newest,
            // The first run of depmod, or a tree that was put together by hand: every plan needs
            // the aliases.
            None => modified("modules.alias.bin").is_none(),
        };
        is_behind && age.is_some_and(|age| age < DEPMOD)
    }

    /// Returns true if nothing has changed in the last `tick` before `now`.
    fn is_older_than(&self, now: SystemTime, tick: Duration) -> bool {
        let limit = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let limit = limit.saturating_sub(tick);
        let limit = (
            i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            i64::from(limit.subsec_nanos()),
        );
        let mut stamps = self.stamps.iter().filter_map(|(_, stamp)| stamp.as_ref());
        stamps.all(|stamp| stamp.modified < limit && stamp.changed < limit)
    }
}

impl Sources {
    /// Reads everything once.
    ///
    /// # Errors
    /// Fails if any of it cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        self.read(self.generation()?)
    }

    /// Reads the files of `generation`, or of a later one that has replaced it.
    fn read(&self, mut generation: Generation) -> Result<Snapshot, SnapshotError> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            let indexes = self.indexes()?;
            let config = self.config(&generation)?;
            let after = self.generation()?;
            if after == generation {
                return Ok(Snapshot {
                    indexes,
                    config,
                    generation,
                });
            }
            generation = after;
        }
        Err(SnapshotError::Changing(self.module_tree.clone()))
    }

    fn index_paths(&self) -> [PathBuf; 5] {
        INDEXES.map(|name| self.module_tree.join(name))
    }

    fn indexes(&self) -> Result<Indexes, SnapshotError> {
        let read = |path: &Path| -> Result<Option<Index>, SnapshotError> {
            let Some(bytes) = self.read_file(path, MAX_INDEX_LEN)? else {
                return Ok(None);
            };
            let index = Index::parse(bytes);
            index
                .map(Some)
                .map_err(|e| SnapshotError::Index(path.to_owned(), e))
        };
        // depmod leaves these empty if the kernel's package has no modules.builtin.
        let read_unless_empty = |path: &Path| match fs::metadata(self.inside(path)) {
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Ok(None),
            _ => read(path),
        };
        let [dependencies, aliases, symbols, builtin, builtin_aliases] = self.index_paths();
        Ok(Indexes {
            dependencies: read(&dependencies)?,
            aliases: read(&aliases)?,
            symbols: read(&symbols)?,
            builtin: read_unless_empty(&builtin)?,
            builtin_aliases: read_unless_empty(&builtin_aliases)?,
        })
    }

    fn config(&self, generation: &Generation) -> Result<Config, SnapshotError> {
        let mut config = Config::default();
        for path in &generation.config_files {
            if let Some(text) = self.read_file(path, MAX_CONFIG_LEN)? {
                config.add_file(path, &text);
            }
        }
        config.add_command_line(&generation.command_line);
        if self.reader == Semantics::Loader {
            config.admit_opted_in();
        }
        Ok(config)
    }

    /// Returns the configuration files in the order in which they count.
    fn config_files(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut directories = Vec::new();
        for directory in &self.modprobe_d {
            let wrong = |e| SnapshotError::Read(directory.clone(), e);
            let entries = match fs::read_dir(self.inside(directory)) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(wrong(e)),
            };
            let mut names = Vec::new();
            for entry in entries {
                let name = entry.map_err(wrong)?.file_name();
                let path = directory.join(&name);
                // A directory, or a link that leads nowhere, hides nothing (modprobe.d(5)).
                match fs::metadata(self.inside(&path)) {
                    Ok(metadata) if metadata.is_dir() => {}
                    Ok(_) => names.push(name),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(SnapshotError::Read(path, e)),
                }
                if names.len() > MAX_CONFIG_FILES {
                    return Err(SnapshotError::TooMany(directory.clone()));
                }
            }
            directories.push((directory.clone(), names));
        }
        Ok(modprobe_d::in_order(&self.module_tree, &directories))
    }

    fn generation(&self) -> Result<Generation, SnapshotError> {
        let config_files = self.config_files()?;
        let last = self.module_tree.join(LAST_INDEX);
        let files = self.index_paths().into_iter().chain([last]);
        let files = files.chain(self.modprobe_d.iter().chain(&config_files).cloned());
        let stamps = files.map(|path| {
            let stamp = match fs::metadata(self.inside(&path)) {
                Ok(metadata) => Some(Stamp::of(&metadata)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(SnapshotError::Read(path, e)),
            };
            Ok((path, stamp))
        });
        Ok(Generation {
            stamps: stamps.collect::<Result<_, _>>()?,
            config_files,
            command_line: self.read_command_line()?,
        })
    }

    fn read_command_line(&self) -> Result<Vec<u8>, SnapshotError> {
        match self.read_file(&self.command_line, MAX_CONFIG_LEN)? {
            None if self.reader == Semantics::Loader => {
                let missing = io::ErrorKind::NotFound.into();
                Err(SnapshotError::Read(self.command_line.clone(), missing))
            }
            line => Ok(line.unwrap_or_default()),
        }
    }

    /// Returns the content of a file, or `None` if it does not exist.
    ///
    /// The file is read into memory rather than mapped: if a mapped file is truncated, its reader
    /// gets SIGBUS. `O_NONBLOCK`: a FIFO in its place must not block the caller.
    fn read_file(&self, path: &Path, max: u64) -> Result<Option<Vec<u8>>, SnapshotError> {
        let wrong = |e| SnapshotError::Read(path.to_owned(), e);
        let opened = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.inside(path));
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(wrong(e)),
        };
        let kind = file.metadata().map_err(wrong)?.file_type();
        // A link to /dev/null masks a file.
        if !kind.is_file() && !kind.is_char_device() {
            return Err(wrong(io::ErrorKind::InvalidInput.into()));
        }
        let mut bytes = Vec::new();
        let read = file.take(max + 1).read_to_end(&mut bytes);
        if read.map_err(wrong)? as u64 > max {
            return Err(SnapshotError::TooLong(path.to_owned(), max));
        }
        Ok(Some(bytes))
    }

    /// Returns the real location of `path`: itself, or as seen from inside the root.
    fn inside(&self, path: &Path) -> PathBuf {
        let Some(root) = &self.root else {
            return path.to_owned();
        };
        resolve_inside(root, path).unwrap_or_else(|_| {
            // It does not exist. The caller's open(2) fails with the same result.
            root.join(path.strip_prefix("/").unwrap_or(path))
        })
    }
}

/// Resolves the links of `path` with `root` as their root (`RESOLVE_IN_ROOT`, `openat2(2)`).
///
/// # Errors
/// Fails if there is nothing at `path`.
pub fn resolve_inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let directory = File::open(root)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = openat2(directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    fs::read_link(link)
}

#[cfg(test)]
mod tests;

//! Mounts over the directories of modules, of modprobe's configuration, and of rules.
//! systemd-sysext(8) and systemd-confext(8) mount a file system over `/usr` and `/etc` of a running
//! system, and no inotify(7) watch reports that. Responsible for noticing it. Must never read what
//! is mounted.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use tokio::sync::watch;

/// A mount at or below one of these changes which modules may be loaded.
const TREES: [&str; 3] = ["/etc", "/lib", "/usr"];
/// The delay between a change and the comparison of the mounts. A refresh unmounts and mounts, and
/// on a host with containers unrelated mounts change all the time.
const PAUSE: Duration = Duration::from_millis(500);

/// The mounts of this process over [`TREES`].
pub struct Mounts {
    table: File,
    known: Vec<String>,
}

impl Mounts {
    /// Opens `/proc/self/mountinfo`, and records the current mounts.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or read.
    pub fn open() -> io::Result<Self> {
        let mut table = File::open("/proc/self/mountinfo")?;
        let known = read(&mut table)?;
        Ok(Self { table, known })
    }

    /// Starts a thread that waits for changes of the mounts, and returns a receiver that is
    /// notified of each change. The thread ends with the process.
    ///
    /// # Errors
    /// Fails if the thread cannot be created.
    pub fn follow(mut self) -> io::Result<watch::Receiver<()>> {
        let (changed, changes) = watch::channel(());
        let follow = move || {
            loop {
                match self.change() {
                    Ok(()) => {
                        changed.send_replace(());
                    }
                    Err(e) => return tracing::error!("cannot follow /proc/self/mountinfo: {e}"),
                }
            }
        };
        let thread = thread::Builder::new().name("mounts".to_owned());
        thread.spawn(follow)?;
        Ok(changes)
    }

    /// Waits until the mounts differ from the cached ones.
    fn change(&mut self) -> io::Result<()> {
        loop {
            wait(&self.table)?;
            let now = read(&mut self.table)?;
            if now != self.known {
                self.known = now;
                return Ok(());
            }
        }
    }
}

/// Waits for a change, and for [`PAUSE`] after it.
fn wait(table: &File) -> io::Result<()> {
    // proc_pid_mountinfo(5): a change marks the open file with an exceptional condition, until the
    // next poll(2).
    let mut fds = [PollFd::new(table, PollFlags::PRI)];
    retry_on_intr(|| poll(&mut fds, None))?;
    thread::sleep(PAUSE);
    Ok(())
}

fn read(file: &mut File) -> io::Result<Vec<String>> {
    let mut table = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut table)?;
    Ok(over_trees(&String::from_utf8_lossy(&table)))
}

/// Returns the lines of a mount table that are about [`TREES`]. The fifth field is the mount point.
fn over_trees(table: &str) -> Vec<String> {
    let is_over = |line: &&str| {
        let point = line.split(' ').nth(4).map(Path::new);
        point.is_some_and(|point| TREES.iter().any(|tree| point.starts_with(tree)))
    };
    table.lines().filter(is_over).map(str::to_owned).collect()
}

/// Paths, with the files and directories that they led to at one time. Landlock rules apply to
/// those, and not to what is mounted over them later.
pub struct Places(Vec<(PathBuf, Option<(u64, u64)>)>);

impl Places {
    /// Records the file or directory that each path leads to now.
    pub fn now(paths: impl Iterator<Item = PathBuf>) -> Self {
        let place = |path: PathBuf| {
            let found = inode(&path);
            (path, found)
        };
        Self(paths.map(place).collect())
    }

    /// Returns the paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Returns true if a path leads to another file or directory now.
    #[must_use]
    pub fn are_outdated(&self) -> bool {
        self.0.iter().any(|(path, found)| inode(path) != *found)
    }
}

/// Returns the device and inode numbers of the file that a path leads to.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_outside_the_watched_trees_are_ignored() {
        let root = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw";
        let sysext = "200 22 0:68 / /usr ro,nodev shared:99 - overlay sysext ro";
        let modules = "201 22 0:69 / /usr/lib/modules/6.12 ro - squashfs /dev/loop1 ro";
        let other = "202 22 0:70 / /usrlocal rw - tmpfs tmpfs rw";
        let pod = "203 22 0:71 / /var/lib/containers/a\\040b rw - tmpfs tmpfs rw";
        let table = [root, sysext, modules, other, pod, "", "malformed"].join("\n");
        assert_eq!(over_trees(&table), [sysext, modules]);
    }

    #[test]
    fn a_replaced_directory_makes_the_places_outdated() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join("rules.d");
        fs::create_dir(&rules).unwrap();
        let places = Places::now([rules.clone(), dir.path().join("later")].into_iter());
        assert!(!places.are_outdated());
        fs::write(rules.join("a.toml"), "").unwrap();
        assert!(!places.are_outdated());
        fs::rename(&rules, dir.path().join("old")).unwrap();
        fs::create_dir(&rules).unwrap();
        assert!(places.are_outdated());
    }
}

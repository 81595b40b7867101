//! Mounts over the trees that modules, what decides about them, and rules come from: systemd-sysext(8)
//! and systemd-confext(8) lay a file system over `/usr` and `/etc` of a running system, and no
//! inotify(7) watch reports that. Responsible for noticing it. Must never read what is mounted.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use tokio::sync::watch;

/// A mount at one of these, or below it, changes what may be loaded.
const TREES: [&str; 3] = ["/etc", "/lib", "/usr"];
/// How long after a change the mounts are compared: a refresh unmounts and mounts, and on a machine
/// with containers mounts of others come all the time.
const PAUSE: Duration = Duration::from_millis(500);

/// The mounts of this process over [`TREES`].
pub struct Mounts {
    table: File,
    known: Vec<String>,
}

impl Mounts {
    /// Opens `/proc/self/mountinfo`, and notes the mounts of now.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open() -> io::Result<Self> {
        let mut table = File::open("/proc/self/mountinfo")?;
        let known = read(&mut table)?;
        Ok(Self { table, known })
    }

    /// Starts a thread that waits for other mounts. What is returned changes with them. The thread ends
    /// with the process.
    ///
    /// # Errors
    /// When the thread cannot be made.
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

    /// Waits until the mounts are other ones than those that are known.
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

/// Waits for a change, and until it is over.
fn wait(table: &File) -> io::Result<()> {
    // proc_pid_mountinfo(5): a change is an exceptional condition of the open file, until the next
    // poll(2).
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

/// The lines of a table that are about [`TREES`]. The fifth field is the mount point.
fn over_trees(table: &str) -> Vec<String> {
    let is_over = |line: &&str| {
        let point = line.split(' ').nth(4).map(Path::new);
        point.is_some_and(|point| TREES.iter().any(|tree| point.starts_with(tree)))
    };
    table.lines().filter(is_over).map(str::to_owned).collect()
}

/// Files and directories as they were at some time. Landlock's rules hold these, and not what is
/// mounted over them later.
pub struct Places(Vec<(PathBuf, Option<(u64, u64)>)>);

impl Places {
    /// What these paths lead to now.
    pub fn now(paths: impl Iterator<Item = PathBuf>) -> Self {
        let place = |path: PathBuf| {
            let found = inode(&path);
            (path, found)
        };
        Self(paths.map(place).collect())
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Whether a path leads elsewhere now.
    #[must_use]
    pub fn are_outdated(&self) -> bool {
        self.0.iter().any(|(path, found)| inode(path) != *found)
    }
}

/// The device and the inode of what a path leads to.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_table_only_what_lies_over_the_trees_counts() {
        let root = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw";
        let sysext = "200 22 0:68 / /usr ro,nodev shared:99 - overlay sysext ro";
        let modules = "201 22 0:69 / /usr/lib/modules/6.12 ro - squashfs /dev/loop1 ro";
        let other = "202 22 0:70 / /usrlocal rw - tmpfs tmpfs rw";
        let pod = "203 22 0:71 / /var/lib/containers/a\\040b rw - tmpfs tmpfs rw";
        let table = [root, sysext, modules, other, pod, "", "malformed"].join("\n");
        assert_eq!(over_trees(&table), [sysext, modules]);
    }

    #[test]
    fn a_directory_that_is_replaced_makes_places_outdated() {
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

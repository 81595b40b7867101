//! What the loader's processes read while they run: the module trees, the kernel's state, its
//! command line, `modprobe.d(5)`, the policy, and where links in these lead. Looked up at the
//! start, because a process cannot widen what it has restricted itself to. Must never name a
//! directory above one of these: with `CAP_DAC_READ_SEARCH` all below it could be read.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::run::release;

/// The most directory entries that are looked at in a module tree. Debian's has 5,000.
const MAX_ENTRIES: usize = 100_000;
/// What depmod leaves out of a module tree: links to the kernel's sources.
const SOURCES: [&str; 2] = ["build", "source"];

/// The files and directories that may be read, each by the path that has no links in it, with its
/// device and inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<PathBuf, (u64, u64)>);

impl Places {
    /// What the inserting process reads: modules, and whether they are live.
    #[must_use]
    pub fn of_modules(config: &Config) -> Self {
        let mut places = Self::default();
        places.add(&config.modules);
        places.add(&config.sysfs.join("module"));
        let tree = config.modules.join(release(config));
        if !places.contains(&tree) {
            places.add(&tree);
        }
        let mut left = MAX_ENTRIES;
        places.add_links_of_modules(&tree, &SOURCES, &mut left);
        if left == 0 {
            let tree = tree.display();
            tracing::warn!("{tree}: links behind {MAX_ENTRIES} entries are not followed");
        }
        places
    }

    /// What the serving process reads: that, and what decides.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut places = Self::of_modules(config);
        // The directory: the inode of /proc/cmdline changes when caches are dropped, and a rule
        // for the earlier one would be lost.
        if let Some(directory) = config.command_line.parent() {
            places.add(directory);
        }
        for directory in config.modprobe_d.iter().chain(&config.policy) {
            places.add(directory);
            places.add_linked_files(directory);
        }
        places
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Adds what `path` leads to, where there is something.
    fn add(&mut self, path: &Path) -> Option<Metadata> {
        let path = fs::canonicalize(path).ok()?;
        let metadata = fs::metadata(&path).ok()?;
        self.0.insert(path, (metadata.dev(), metadata.ino()));
        Some(metadata)
    }

    /// Adds what the links in a directory of configuration lead to: files, and `/dev/null`.
    fn add_linked_files(&mut self, directory: &Path) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        for link in links {
            let target = fs::metadata(link.path()).map(|metadata| metadata.file_type());
            if target.is_ok_and(|kind| kind.is_file() || kind.is_char_device()) {
                self.add(&link.path());
            }
        }
    }

    /// Adds what the links below a directory of modules lead to: a directory with all that is in
    /// it, or a file with the name of a module or of an index. Leaves out the entries `without`.
    /// Looks at `left` entries at most.
    fn add_links_of_modules(&mut self, directory: &Path, without: &[&str], left: &mut usize) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return;
            }
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if without.iter().any(|other| name == *other) {
                continue;
            }
            if kind.is_dir() {
                self.add_links_of_modules(&path, &[], left);
            } else if kind.is_symlink() && !self.contains(&path) {
                let target = fs::metadata(&path);
                if target.is_ok_and(|target| target.is_dir()) {
                    // From here on it is one of the places, so that a circle of links ends.
                    self.add(&path);
                    self.add_links_of_modules(&path, &[], left);
                } else if is_of_modules(&name.to_string_lossy()) {
                    self.add(&path);
                }
            }
        }
    }

    /// Whether what `path` leads to is one of the places, or below one.
    fn contains(&self, path: &Path) -> bool {
        let Ok(path) = fs::canonicalize(path) else {
            return false;
        };
        path.ancestors().any(|path| self.0.contains_key(path))
    }
}

/// Whether a file of a module tree with that name is read.
fn is_of_modules(name: &str) -> bool {
    name.starts_with("modules.") || name.contains(".ko")
}

/// What was readable at the start, and whether that is still all that is there.
#[derive(Clone, Debug)]
pub struct Readable {
    config: Config,
    at_start: Places,
}

impl Readable {
    /// As `config` says, and as it is on disk now.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            at_start: Places::of(config),
        }
    }

    /// The places.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.at_start
    }

    /// Whether a start of now would make other places readable than this one has: a directory has
    /// come or was replaced, or a link leads elsewhere.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        Places::of(&self.config) != self.at_start
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;

    /// A module tree, a store beside it, and one directory of configuration of each kind.
    struct Disk(TempDir);

    impl Disk {
        fn new() -> Self {
            let disk = Self(tempfile::tempdir().unwrap());
            for directory in ["modules/6.12/kernel", "sys/module", "proc", "store", "etc"] {
                fs::create_dir_all(disk.at(directory)).unwrap();
            }
            fs::write(disk.at("proc/cmdline"), "quiet\n").unwrap();
            disk
        }

        fn at(&self, path: &str) -> PathBuf {
            // Without links, as places are.
            fs::canonicalize(self.0.path()).unwrap().join(path)
        }

        fn write(&self, path: &str) -> PathBuf {
            let path = self.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            path
        }

        fn config(&self) -> Config {
            let option = |name: &str, path: &str| format!("--{name}={}", self.at(path).display());
            Config::parse_from([
                "rdma-loader".to_owned(),
                "--release=6.12".to_owned(),
                option("modules", "modules"),
                option("sysfs", "sys"),
                option("command-line", "proc/cmdline"),
                option("modprobe-d", "etc/modprobe.d"),
                option("policy", "etc/loader.d"),
            ])
        }

        /// The places, as paths below the directory.
        fn places(&self) -> Vec<String> {
            let places = Places::of(&self.config());
            let below = |path: &Path| {
                let below = path.strip_prefix(self.at("")).unwrap_or(path);
                below.display().to_string()
            };
            places.paths().map(below).collect()
        }
    }

    const ALWAYS: [&str; 3] = ["modules", "proc", "sys/module"];

    #[test]
    fn a_directory_that_is_not_there_makes_nothing_above_it_readable() {
        let disk = Disk::new();
        assert_eq!(disk.places(), ALWAYS);
    }

    #[test]
    fn a_link_in_a_directory_of_configuration_makes_its_target_readable_and_no_sibling() {
        let disk = Disk::new();
        for (directory, file) in [("etc/modprobe.d", "a.conf"), ("etc/loader.d", "b.toml")] {
            disk.write(&format!("{directory}/own"));
            let target = disk.write(&format!("store/{file}"));
            symlink(target, disk.at(directory).join(file)).unwrap();
            symlink(disk.at("store"), disk.at(directory).join("directory")).unwrap();
            symlink("/nonexistent", disk.at(directory).join("nothing")).unwrap();
        }
        let configured = ["etc/loader.d", "etc/modprobe.d"];
        let linked = ["store/a.conf", "store/b.toml"];
        let mut expected: Vec<&str> = ALWAYS.into_iter().chain(configured).chain(linked).collect();
        expected.sort_unstable();
        assert_eq!(disk.places(), expected);
    }

    #[test]
    fn links_of_a_module_tree_are_followed_and_those_to_sources_are_not() {
        let disk = Disk::new();
        let module = disk.write("store/one/x.ko.xz");
        disk.write("store/two/y.ko.xz");
        symlink(disk.write("store/three/z.ko"), disk.at("store/two/z.ko")).unwrap();
        disk.write("sources/Makefile");
        let tree = disk.at("modules/6.12");
        symlink(module, tree.join("kernel/x.ko.xz")).unwrap();
        symlink(disk.at("store/two"), tree.join("updates")).unwrap();
        symlink(disk.at("modules"), tree.join("circle")).unwrap();
        symlink(disk.at("sources"), tree.join("build")).unwrap();
        symlink(disk.write("secret"), tree.join("readme")).unwrap();
        let linked = ["store/one/x.ko.xz", "store/three/z.ko", "store/two"];
        let mut expected: Vec<&str> = ALWAYS.into_iter().chain(linked).collect();
        expected.sort_unstable();
        assert_eq!(disk.places(), expected);
    }

    #[test]
    fn a_directory_that_comes_is_replaced_or_is_linked_elsewhere_is_noticed() {
        let disk = Disk::new();
        let readable = Readable::new(&disk.config());
        assert!(!readable.is_outdated());
        disk.write("etc/modprobe.d/a.conf");
        assert!(readable.is_outdated(), "a directory came");

        let readable = Readable::new(&disk.config());
        disk.write("etc/modprobe.d/b.conf");
        assert!(!readable.is_outdated(), "a file is below a place");
        fs::rename(disk.at("etc/modprobe.d"), disk.at("etc/old")).unwrap();
        disk.write("etc/modprobe.d/a.conf");
        assert!(readable.is_outdated(), "a directory was replaced");

        let readable = Readable::new(&disk.config());
        symlink(disk.write("store/c.conf"), disk.at("etc/modprobe.d/c.conf")).unwrap();
        assert!(readable.is_outdated(), "a link came");
    }
}

//! The files that the loader's processes read at run time: the module trees, the state of the
//! kernel, its command line, `modprobe.d(5)`, the policy, and the targets of links in these.
//! Resolved at the start, because a process cannot widen its own restrictions. Must never name a
//! directory above one of these: with `CAP_DAC_READ_SEARCH` everything below it could be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::config::Config;
use crate::index::Index;
use crate::load::read_policy;
use crate::plan::dependency_line;
use crate::run::release;

/// The files of a module tree that are read besides modules.
const INDEXES: [&str; 7] = [
    "modules.dep.bin",
    "modules.alias.bin",
    "modules.symbols.bin",
    "modules.builtin.bin",
    "modules.builtin.alias.bin",
    "modules.softdep",
    "modules.weakdep",
];

/// The files and directories that may be read, each by its path without links, with its device and
/// inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<PathBuf, (u64, u64)>);

impl Places {
    /// Returns the places of the inserting process: the modules, and their state.
    fn of_modules(config: &Config) -> Self {
        let mut places = Self::default();
        places.add(&config.modules);
        places.add(&config.sysfs.join("module"));
        let tree = config.modules.join(release(config));
        if !places.contains(&tree) {
            places.add(&tree);
        }
        places.add_links_of_modules(config, &tree);
        places
    }

    /// Adds the configuration, which only the serving process reads.
    fn and_of_configuration(mut self, config: &Config) -> Self {
        // The directory and not the file: the inode of /proc/cmdline changes when caches are
        // dropped, and a rule for the earlier inode would be lost.
        if let Some(directory) = config.command_line.parent() {
            self.add(directory);
        }
        for directory in config.modprobe_d.iter().chain(&config.policy) {
            self.add(directory);
            self.add_linked_files(directory);
        }
        self
    }

    /// Returns the paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Adds the target of `path`, if it exists.
    fn add(&mut self, path: &Path) {
        if let Ok(path) = fs::canonicalize(path)
            && let Ok(metadata) = fs::metadata(&path)
        {
            self.0.insert(path, (metadata.dev(), metadata.ino()));
        }
    }

    /// Adds the targets of the links in a configuration directory: files, and `/dev/null`.
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

    /// Adds the targets of links in the part of the module tree that is read: the indexes, and the
    /// files of the modules that the policy names and of their dependencies. A whole tree has
    /// thousands of entries: if it is not cached, a check of each takes seconds.
    fn add_links_of_modules(&mut self, config: &Config, tree: &Path) {
        for index in INDEXES {
            self.add_link(&tree.join(index));
        }
        let mut inside = HashMap::new();
        for file in module_files(config, tree) {
            let file = Path::new(OsStr::from_bytes(&file));
            // A file with any other path is never opened.
            let is_below = file
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            let path = tree.join(file);
            let Some(directory) = path.parent().filter(|_| is_below) else {
                continue;
            };
            let is_inside = inside
                .entry(directory.to_owned())
                .or_insert_with(|| self.contains(directory));
            if !*is_inside && !self.contains(&path) {
                self.add(&path);
            } else {
                self.add_link(&path);
            }
        }
    }

    /// Adds the target of `path` if `path` itself is a link that leads out of the places.
    fn add_link(&mut self, path: &Path) {
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if is_link && !self.contains(path) {
            self.add(path);
        }
    }

    /// Returns true if the target of `path` is one of the places, or below one.
    fn contains(&self, path: &Path) -> bool {
        let Ok(path) = fs::canonicalize(path) else {
            return false;
        };
        path.ancestors().any(|path| self.0.contains_key(path))
    }
}

/// Returns the files of the modules that the policy names and of all their dependencies, below
/// `tree`. There are none without a policy or an index: nothing can be loaded then.
fn module_files(config: &Config, tree: &Path) -> BTreeSet<Vec<u8>> {
    let mut files = BTreeSet::new();
    let index = tree.join("modules.dep.bin");
    // A read of a FIFO in its place would block for ever.
    let is_file = fs::metadata(&index).is_ok_and(|found| found.is_file());
    let bytes = is_file.then(|| fs::read(index).unwrap_or_default());
    let bytes = bytes.unwrap_or_default();
    let (Ok(index), Ok(policy)) = (Index::parse(bytes), read_policy(&config.policy)) else {
        return files;
    };
    for (module, _) in policy.modules() {
        let line = index.find(module.as_str().as_bytes()).ok().flatten();
        if let Some((file, dependencies)) = line.and_then(dependency_line) {
            files.insert(file.to_owned());
            files.extend(dependencies.map(<[u8]>::to_owned));
        }
    }
    files
}

/// The places of each process as of the start, with a check that they are up to date.
#[derive(Clone, Debug)]
pub struct Readable {
    config: Config,
    /// The places of the serving process.
    pub serving: Places,
    /// The places of the inserting process.
    pub inserting: Places,
}

impl Readable {
    /// Resolves the places that `config` names, as they are on disk now.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let inserting = Places::of_modules(config);
        Self {
            config: config.clone(),
            serving: inserting.clone().and_of_configuration(config),
            inserting,
        }
    }

    /// Returns true if a start now would make other places readable: a directory was added or
    /// replaced, or a link leads elsewhere.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        Self::new(&self.config).serving != self.serving
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;

    /// A module tree, a store beside it, and one configuration directory of each kind.
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
            // Without links, like the places.
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

        /// Returns the places, as paths relative to the directory.
        fn places(&self) -> Vec<String> {
            let places = Readable::new(&self.config()).serving;
            let below = |path: &Path| {
                let below = path.strip_prefix(self.at("")).unwrap_or(path);
                below.display().to_string()
            };
            places.paths().map(below).collect()
        }
    }

    const ALWAYS: [&str; 3] = ["modules", "proc", "sys/module"];

    #[test]
    fn a_missing_directory_does_not_make_its_parent_readable() {
        let disk = Disk::new();
        assert_eq!(disk.places(), ALWAYS);
    }

    #[test]
    fn a_link_in_a_configuration_directory_makes_only_its_target_readable() {
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

    /// Creates a module's file in a store, and a link to it in the tree.
    fn store(disk: &Disk, to: &str, path: &str) {
        let link = disk.at("modules/6.12/kernel").join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(disk.write(&format!("store/{to}")), link).unwrap();
    }

    #[test]
    fn only_links_to_indexes_and_to_modules_that_the_policy_needs_are_followed() {
        let disk = Disk::new();
        let policy = disk.write("etc/loader.d/a.toml");
        let text = "[[allow]]\npurpose = \"test\"\nmodules = [\"ib_uverbs\", \"crc8\"]\n";
        fs::write(policy, text).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/modules");
        let index = disk.at("store/index");
        fs::copy(fixtures.join("modules.dep.bin"), &index).unwrap();
        symlink(index, disk.at("modules/6.12/modules.dep.bin")).unwrap();
        let core = "drivers/infiniband/core";
        store(&disk, "uverbs/x.ko.xz", &format!("{core}/ib_uverbs.ko.xz"));
        store(&disk, "core/x.ko.xz", &format!("{core}/ib_core.ko.xz"));
        store(&disk, "umad/x.ko.xz", &format!("{core}/ib_umad.ko.xz"));
        // The directory of the file is a link, not the file itself.
        disk.write("store/lib/crc8.ko.xz");
        symlink(disk.at("store/lib"), disk.at("modules/6.12/kernel/lib")).unwrap();
        disk.write("sources/Makefile");
        symlink(disk.at("sources"), disk.at("modules/6.12/build")).unwrap();
        let linked = [
            "etc/loader.d",
            "store/core/x.ko.xz",
            "store/index",
            "store/lib/crc8.ko.xz",
            "store/uverbs/x.ko.xz",
        ];
        let mut expected: Vec<&str> = ALWAYS.into_iter().chain(linked).collect();
        expected.sort_unstable();
        assert_eq!(disk.places(), expected);
    }

    #[test]
    fn an_added_or_replaced_directory_and_an_added_link_are_noticed() {
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

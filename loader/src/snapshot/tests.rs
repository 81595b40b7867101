//! Tests of the detection of changes on disk, and of the refusal to guess at unreadable files.

use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

/// A module tree and three configuration directories.
struct Disk {
    dir: TempDir,
    snapshots: Snapshots,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for directory in ["modules", "etc", "usr"] {
            fs::create_dir(at(directory)).unwrap();
        }
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/modules");
        for name in ["modules.dep.bin", "modules.alias.bin"] {
            fs::copy(fixtures.join(name), at("modules").join(name)).unwrap();
        }
        fs::write(at("cmdline"), "quiet\n").unwrap();
        let snapshots = Snapshots::new(Sources {
            root: None,
            module_tree: at("modules"),
            modprobe_d: vec![at("etc"), at("run"), at("usr")],
            command_line: at("cmdline"),
            reader: Semantics::Modprobe,
        });
        Self { dir, snapshots }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.dir.path().join(path), text).unwrap();
    }

    /// Returns the modules that are blacklisted now.
    fn blacklist(&self) -> Vec<String> {
        let snapshot = self.snapshots.current().unwrap();
        let lines = snapshot.config.blacklist.iter();
        let names = lines.map(|line| String::from_utf8_lossy(&line.module).into_owned());
        names.collect()
    }

    fn error(&self) -> String {
        let error = self.snapshots.current().unwrap_err();
        interfaces::log::Chain(&error).to_string()
    }
}

#[test]
fn every_kind_of_change_is_noticed_at_once() {
    let disk = Disk::new();
    assert!(disk.blacklist().is_empty());
    disk.write("usr/a.conf", "blacklist a\n");
    assert_eq!(disk.blacklist(), ["a"]);
    // In place and with the same length: neither the directory nor the size shows it (quirk 22).
    disk.write("usr/a.conf", "blacklist b\n");
    assert_eq!(disk.blacklist(), ["b"]);
    disk.write("etc/a.conf", "blacklist c\n");
    assert_eq!(disk.blacklist(), ["c"]);
    disk.write("cmdline", "modprobe.blacklist=d\n");
    assert_eq!(disk.blacklist(), ["c", "d"]);
    fs::create_dir(disk.dir.path().join("run")).unwrap();
    disk.write("run/0.conf", "blacklist e\n");
    assert_eq!(disk.blacklist(), ["e", "c", "d"]);
    disk.write("modules/modules.softdep", "blacklist f\n");
    assert_eq!(disk.blacklist(), ["e", "c", "f", "d"]);
    fs::remove_file(disk.dir.path().join("etc/a.conf")).unwrap();
    assert_eq!(disk.blacklist(), ["e", "b", "f", "d"]);
}

#[test]
fn a_removed_index_is_noticed() {
    let disk = Disk::new();
    let has_aliases = || disk.snapshots.current().unwrap().indexes.aliases.is_some();
    assert!(has_aliases());
    fs::remove_file(disk.dir.path().join("modules/modules.alias.bin")).unwrap();
    assert!(!has_aliases());
}

#[test]
fn a_dangling_link_and_a_directory_hide_no_file_and_a_link_to_dev_null_does() {
    let disk = Disk::new();
    disk.write("usr/a.conf", "blacklist a\n");
    disk.write("usr/b.conf", "blacklist b\n");
    let etc = disk.dir.path().join("etc");
    symlink("/nonexistent", etc.join("a.conf")).unwrap();
    fs::create_dir(etc.join("c.conf")).unwrap();
    symlink("/dev/null", etc.join("b.conf")).unwrap();
    assert_eq!(disk.blacklist(), ["a"]);
}

#[test]
fn a_fifo_or_an_invalid_index_is_an_error_and_never_left_out() {
    let disk = Disk::new();
    disk.write("etc/a.conf", "blacklist a\n");
    let fifo = disk.dir.path().join("etc/b.conf");
    let mode = rustix::fs::Mode::from(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    assert!(disk.error().contains("b.conf"), "{}", disk.error());
    fs::remove_file(&fifo).unwrap();
    assert_eq!(disk.blacklist(), ["a"]);
    disk.write("modules/modules.dep.bin", "no index");
    assert!(disk.error().contains("modules.dep.bin"), "{}", disk.error());
}

#[test]
fn a_file_without_read_permission_is_an_error_and_never_left_out() {
    if rustix::process::geteuid().is_root() {
        // Root can read everything. The virtual machine covers this case.
        return;
    }
    let disk = Disk::new();
    disk.write("etc/a.conf", "blacklist a\n");
    let path = disk.dir.path().join("etc/a.conf");
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    assert!(disk.error().contains("a.conf"), "{}", disk.error());
}

#[test]
fn a_file_beyond_the_size_limit_is_an_error_and_a_long_line_is_not() {
    let disk = Disk::new();
    disk.write("etc/a.conf", &"x".repeat(8 << 20));
    let snapshot = disk.snapshots.current().unwrap();
    assert_eq!(snapshot.config.problems.len(), 1);
    let longer = File::create(disk.dir.path().join("etc/a.conf")).unwrap();
    longer.set_len(MAX_CONFIG_LEN + 1).unwrap();
    assert!(disk.error().contains("longer"), "{}", disk.error());
}

#[test]
fn links_are_resolved_inside_the_root() {
    let disk = Disk::new();
    disk.write("usr/real", "blacklist a\n");
    symlink("/usr/real", disk.dir.path().join("etc/a.conf")).unwrap();
    let sources = Sources {
        root: Some(disk.dir.path().to_owned()),
        module_tree: "/modules".into(),
        modprobe_d: vec!["/etc".into()],
        command_line: "/cmdline".into(),
        reader: Semantics::Modprobe,
    };
    assert_eq!(sources.snapshot().unwrap().config.blacklist.len(), 1);
}

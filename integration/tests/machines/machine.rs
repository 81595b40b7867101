//! A host as its file describes it, and the records that are expected of it. Must never know what
//! the detector reports.
//!
//! A file begins with comments: a description of the host, and `From:` with the source of the
//! facts. `[sysfs]` follows: `path = content`, `path -> target`, and `path/` for a directory, with
//! its entries below and indented. `[netlink]` has the replies, as `key=value` pairs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::nldev::Table;
use super::tree::Tree;

/// The host.
pub struct Machine {
    /// The name of its files.
    pub name: String,
    /// The sysfs tree.
    pub tree: Tree,
    /// The replies of `NETLINK_RDMA`.
    pub table: Arc<Mutex<Table>>,
    /// The expected records.
    pub expected: Value,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines")
}

/// Reads all hosts, sorted by name.
pub fn all() -> Vec<Machine> {
    let entries = fs::read_dir(directory()).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let file = entry.unwrap().file_name().into_string().unwrap();
            Some(file.strip_suffix(".machine")?.to_owned())
        })
        .collect();
    names.sort();
    names.iter().map(|name| read(name)).collect()
}

/// Reads the host with this name.
pub fn read(name: &str) -> Machine {
    let file = |suffix: &str| {
        let path = directory().join(format!("{name}.{suffix}"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let text = file("machine");
    let (header, rest) = text.split_once("[sysfs]\n").expect("[sysfs]");
    let (sysfs, netlink) = rest.split_once("[netlink]\n").expect("[netlink]");
    let comments = header.lines().all(|l| l.is_empty() || l.starts_with('#'));
    assert!(
        comments && header.contains("# From: "),
        "{name} does not say where its facts are from"
    );
    let tree = plant(sysfs);
    let mut table = Table::new();
    for line in netlink.lines().filter(|line| !line.is_empty()) {
        table.line(line);
    }
    Machine {
        name: name.to_owned(),
        tree,
        table: Arc::new(Mutex::new(table)),
        expected: serde_json::from_str(&file("json")).unwrap(),
    }
}

fn plant(sysfs: &str) -> Tree {
    let tree = Tree::new();
    let mut above: Vec<&str> = Vec::new();
    let mut links = Vec::new();
    for line in sysfs.lines().filter(|line| !line.is_empty()) {
        let entry = line.trim_start();
        above.truncate((line.len() - entry.len()) / 2);
        let path = |name: &str| [above.as_slice(), &[name]].concat().join("/");
        if let Some(name) = entry.strip_suffix('/') {
            tree.directory(&path(name));
            above.push(name);
        } else if let Some((name, target)) = entry.split_once(" -> ") {
            tree.link(&path(name), target);
            links.push(path(name));
        } else {
            let (name, content) = entry.split_once(" = ").expect(entry);
            tree.file(&path(name), content);
        }
    }
    for link in links {
        assert!(tree.has(&link), "{link} leads nowhere");
    }
    tree
}

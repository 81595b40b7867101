//! A sysfs tree in its own directory, with links as the kernel makes them: relative, up to the
//! nearest common parent directory. Must never announce a change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The tree. Paths in it are relative to its root.
pub struct Tree {
    root: TempDir,
}

impl Tree {
    /// Creates an empty tree.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root }
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        assert!(!path.starts_with('/'), "{path} is not below the tree");
        self.root().join(path)
    }

    /// Returns true if the path exists. A dangling link does not count.
    pub fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// Creates a directory and its parents.
    pub fn directory(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    fn directory_above(&self, path: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
    }

    /// Writes an attribute.
    pub fn file(&self, path: &str, content: &str) {
        self.directory_above(path);
        fs::write(self.at(path), format!("{content}\n")).unwrap();
    }

    /// Creates a link with the text `target`, which is relative to the directory of the link.
    pub fn link(&self, path: &str, target: &str) {
        self.directory_above(path);
        symlink(target, self.at(path)).unwrap();
    }

    /// Creates a link to the object at `object`, as the kernel writes it.
    pub fn link_to(&self, path: &str, object: &str) {
        let here: Vec<&str> = path.split('/').collect();
        let there: Vec<&str> = object.split('/').collect();
        let (here, above) = (&here[..here.len() - 1], &there[..there.len() - 1]);
        let shared = here.iter().zip(above).take_while(|(h, t)| h == t).count();
        let up = vec![".."; here.len() - shared];
        self.link(path, &[&up, &there[shared..]].concat().join("/"));
    }

    /// Removes a file, or a directory with all its entries.
    pub fn remove(&self, path: &str) {
        let path = self.at(path);
        match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    /// Renames an RDMA device, as `ib_device_rename()` does. Returns its path before and after.
    pub fn rename_rdma_device(&self, old: &str, new: &str) -> (String, String) {
        let class = format!("class/infiniband/{old}");
        let target = fs::canonicalize(self.at(&class)).unwrap();
        let root = fs::canonicalize(self.root()).unwrap();
        let before = target.strip_prefix(root).unwrap().to_str().unwrap();
        let after = format!("{}/{new}", before.rsplit_once('/').unwrap().0);
        fs::rename(self.at(before), self.at(&after)).unwrap();
        self.remove(&class);
        self.link_to(&format!("class/infiniband/{new}"), &after);
        for class in ["class/infiniband_verbs", "class/infiniband_mad"] {
            for node in fs::read_dir(self.at(class)).into_iter().flatten() {
                let ibdev = node.unwrap().path().join("ibdev");
                // The class directory has an attribute in addition to its nodes.
                if fs::read_to_string(&ibdev).is_ok_and(|name| name.trim_end() == old) {
                    fs::write(ibdev, format!("{new}\n")).unwrap();
                }
            }
        }
        (before.to_owned(), after)
    }
}

//! The rules files and rdma-core's lists, as they are on disk. Must never leave out a file that cannot
//! be read: it is a source with an error.

use std::path::{Path, PathBuf};

use interfaces::dropin::{self, DropIn};

use crate::rules::{Source, Sources};

/// Reads the rules of `directories`, and rdma-core's lists in `lists`. A file that cannot be read
/// becomes a source that contains the error.
#[must_use]
pub fn read_rules(directories: &[PathBuf], lists: &Path) -> Sources {
    Sources {
        rules: sources(dropin::read(directories, ".toml")),
        lists: sources(dropin::read(&[lists.to_owned()], ".conf")),
    }
}

/// Reads the rules of one file, and rdma-core's lists in `lists`.
#[must_use]
pub fn read_rules_file(file: &Path, lists: &Path) -> Sources {
    Sources {
        rules: sources(vec![dropin::read_one(file.to_owned())]),
        lists: sources(dropin::read(&[lists.to_owned()], ".conf")),
    }
}

fn sources(files: Vec<DropIn>) -> Vec<Source> {
    let source = |file: DropIn| Source {
        path: file.path,
        text: file.text.map_err(|e| e.to_string()),
    };
    files.into_iter().map(source).collect()
}

//! Configuration directories as systemd merges them (`systemd.unit(5)`, "drop-in"): the files of
//! all directories are in the order of their names, and a name in an earlier directory hides the
//! same name in a later one. Responsible for finding and reading the files; must never interpret
//! their contents.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The longest file that is read, in bytes. A longer file is an error; it is not truncated.
pub const MAX_FILE_LEN: u64 = 256 * 1024;

/// One file with its text or read error; or a directory that cannot be listed.
#[derive(Debug)]
pub struct DropIn {
    /// The path.
    pub path: PathBuf,
    /// The text, or the error.
    pub text: io::Result<String>,
    /// True if a file of the same name in an earlier directory hides it.
    pub hidden: bool,
}

/// Reads every file whose name ends with `suffix` and does not start with a dot.
///
/// `directories` are in the order of their precedence, usually `/etc`, `/run`, `/usr/lib`. A
/// directory that does not exist counts as empty. A directory that cannot be listed is a separate
/// entry with the error, before all files. Files of the same name follow each other in the order of
/// their directories. A link to `/dev/null` hides its name in the directories after its own, and is
/// not read.
#[must_use]
pub fn read(directories: &[PathBuf], suffix: &str) -> Vec<DropIn> {
    let mut read = Vec::new();
    let mut files: BTreeMap<OsString, Vec<PathBuf>> = BTreeMap::new();
    for directory in directories {
        match names(directory, suffix) {
            Ok(names) => {
                for name in names {
                    let path = directory.join(&name);
                    files.entry(name).or_default().push(path);
                }
            }
            Err(e) => read.push(DropIn {
                path: directory.clone(),
                text: Err(e),
                hidden: false,
            }),
        }
    }
    for paths in files.into_values() {
        let paths = paths.into_iter().take_while(|path| !hides(path));
        read.extend(paths.enumerate().map(|(number, path)| DropIn {
            text: read_file(&path),
            path,
            hidden: number > 0,
        }));
    }
    read
}

/// Reads one file, as [`read`] reads each.
#[must_use]
pub fn read_one(path: PathBuf) -> DropIn {
    DropIn {
        text: read_file(&path),
        path,
        hidden: false,
    }
}

/// Returns the names in a directory.
fn names(directory: &Path, suffix: &str) -> io::Result<Vec<OsString>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(suffix.as_bytes()) && !bytes.starts_with(b".") {
            names.push(name);
        }
    }
    Ok(names)
}

fn hides(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn read_file(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_FILE_LEN {
        return Err(io::Error::other(format!(
            "longer than {MAX_FILE_LEN} bytes"
        )));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn texts(directories: &[PathBuf]) -> Vec<String> {
        let files = read(directories, ".toml").into_iter();
        let files = files.filter(|file| !file.hidden);
        files.map(|file| file.text.unwrap()).collect()
    }

    #[test]
    fn a_file_of_an_earlier_directory_hides_later_ones_and_files_are_sorted_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, lib) = (dir.path().join("etc"), dir.path().join("lib"));
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("10-a.toml"), "vendor a").unwrap();
        fs::write(lib.join("20-b.toml"), "vendor b").unwrap();
        fs::write(lib.join("30-c.toml"), "vendor c").unwrap();
        fs::write(etc.join("20-b.toml"), "admin b").unwrap();
        fs::write(etc.join("15-x.conf"), "other suffix").unwrap();
        symlink("/dev/null", etc.join("30-c.toml")).unwrap();
        assert_eq!(texts(&[etc, lib]), ["vendor a", "admin b"]);
    }

    #[test]
    fn hidden_files_follow_the_file_that_hides_them_up_to_a_link_to_dev_null() {
        let dir = tempfile::tempdir().unwrap();
        let directories: Vec<PathBuf> = ["etc", "run", "lib"].map(|d| dir.path().join(d)).into();
        for directory in &directories {
            fs::create_dir_all(directory).unwrap();
            let name = directory.file_name().unwrap();
            fs::write(directory.join("10-a.toml"), name.as_encoded_bytes()).unwrap();
        }
        symlink("/dev/null", directories[1].join("20-b.toml")).unwrap();
        for at in [0, 2] {
            fs::write(directories[at].join("20-b.toml"), "b").unwrap();
        }
        let files = read(&directories, ".toml").into_iter();
        let files: Vec<(String, bool)> = files.map(|f| (f.text.unwrap(), f.hidden)).collect();
        let expected = [("etc", false), ("run", true), ("lib", true), ("b", false)];
        assert_eq!(
            files,
            expected.map(|(text, hidden)| (text.to_owned(), hidden))
        );
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_an_error_entry_and_does_not_affect_others() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, lib) = (dir.path().join("etc"), dir.path().join("lib"));
        fs::write(&etc, "a file").unwrap();
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("10-a.toml"), "vendor a").unwrap();
        let files = read(&[etc.clone(), lib], ".toml");
        assert_eq!(files[0].path, etc);
        assert!(files[0].text.is_err());
        assert_eq!(files[1].text.as_ref().unwrap(), "vendor a");
    }

    #[test]
    fn a_missing_directory_is_empty() {
        assert!(texts(&[PathBuf::from("/nonexistent/rdma")]).is_empty());
    }

    #[test]
    fn an_unreadable_file_does_not_affect_other_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("10-directory.toml")).unwrap();
        fs::write(dir.path().join("20-good.toml"), "good").unwrap();
        let files = read(&[dir.path().to_owned()], ".toml");
        assert!(files[0].text.is_err());
        assert_eq!(files[1].text.as_ref().unwrap(), "good");
    }
}

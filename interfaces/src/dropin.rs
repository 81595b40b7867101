//! Configuration directories as systemd merges them (`systemd.unit(5)`, "drop-in"): files of
//! all directories in the order of their names, and a name in an earlier directory hides the
//! same name in a later one. Responsible for finding and reading the files; must never
//! interpret what they say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The longest file that is read, in bytes. A longer one is an error and not cut.
pub const MAX_FILE_LEN: u64 = 256 * 1024;

/// One file, and its text or why it could not be read.
#[derive(Debug)]
pub struct DropIn {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: io::Result<String>,
}

/// Reads every file whose name ends with `suffix` and does not start with a dot.
///
/// `directories` are in the order of their precedence, usually `/etc`, `/run`, `/usr/lib`. A
/// directory that does not exist is empty. A link to `/dev/null` hides a name and is not read.
///
/// # Errors
/// When a directory exists and cannot be listed. A file that cannot be read is an error in its
/// own entry and takes no other file down.
pub fn read(directories: &[PathBuf], suffix: &str) -> io::Result<Vec<DropIn>> {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(with_path(&e, directory)),
        };
        for entry in entries {
            let name = entry.map_err(|e| with_path(&e, directory))?.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.ends_with(suffix.as_bytes()) && !bytes.starts_with(b".") {
                let path = directory.join(&name);
                files.entry(name).or_insert(path);
            }
        }
    }
    Ok(files
        .into_values()
        .filter(|path| !hides(path))
        .map(|path| DropIn {
            text: read_file(&path),
            path,
        })
        .collect())
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

fn with_path(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn texts(directories: &[PathBuf]) -> Vec<String> {
        read(directories, ".toml")
            .unwrap()
            .into_iter()
            .map(|file| file.text.unwrap())
            .collect()
    }

    #[test]
    fn an_earlier_directory_hides_the_same_name_and_names_give_the_order() {
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
    fn a_missing_directory_is_empty() {
        assert!(texts(&[PathBuf::from("/nonexistent/rdma")]).is_empty());
    }

    #[test]
    fn an_unreadable_file_takes_no_other_down() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("10-directory.toml")).unwrap();
        fs::write(dir.path().join("20-good.toml"), "good").unwrap();
        let files = read(&[dir.path().to_owned()], ".toml").unwrap();
        assert!(files[0].text.is_err());
        assert_eq!(files[1].text.as_ref().unwrap(), "good");
    }
}

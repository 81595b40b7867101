//! An open directory of sysfs. The kernel resolves each component of a path under a lock that all
//! of sysfs shares, and that a storm of new devices holds. So the attributes of one object are read
//! through its directory, not by their paths. Must never be kept: the object can be removed, and
//! its directory is then empty.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::path::Arg;

use crate::refusal::{MAX_NAME, printable};

/// The size of the read buffer, larger than any GUID, name or number. Longer attributes are cut.
const ATTRIBUTE_LEN: usize = 1024;

/// An open directory.
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory at `path`.
    pub(super) fn open(path: &Path) -> Option<Self> {
        Some(Self(open(CWD, path)?))
    }

    /// Opens the directory `name` in this directory.
    pub(super) fn directory(&self, name: &str) -> Option<Self> {
        Some(Self(open(&self.0, name)?))
    }

    /// Reads the single line of the attribute `name`. Waits for the driver, forever if it does not
    /// respond.
    pub(super) fn line(&self, name: &str) -> Option<String> {
        line(&self.0, name, OFlags::empty())
    }

    /// Returns the target of a link, unresolved.
    pub(super) fn link(&self, name: &str) -> Option<PathBuf> {
        let target = readlinkat(&self.0, name, Vec::new()).ok()?;
        Some(target.into_string().ok()?.into())
    }

    /// Returns the last component of a link's target.
    pub(super) fn link_name(&self, name: &str) -> Option<String> {
        super::name_of(&self.link(name)?)
    }
}

/// Reads the single line of the attribute at `path`, if it is available at once. That is always so
/// for attributes that involve no driver.
pub(super) fn line_at(path: &Path) -> Option<String> {
    line(CWD, path, OFlags::NONBLOCK)
}

fn open(at: impl std::os::fd::AsFd, path: impl Arg) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty()).ok()
}

/// Reads the single line of an attribute. Returns `None` if the line is unprintable, or longer than
/// a published text may be.
fn line(at: impl std::os::fd::AsFd, path: impl Arg, more: OFlags) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | more;
    let file = openat(at, path, flags, Mode::empty()).ok()?;
    // An attribute fits into a page, and the kernel returns it with the first read.
    let mut page = [0; ATTRIBUTE_LEN];
    let len = rustix::io::read(&file, &mut page).ok()?;
    let line = page.get(..len)?.trim_ascii_end();
    printable(line, MAX_NAME).ok().map(str::to_owned)
}

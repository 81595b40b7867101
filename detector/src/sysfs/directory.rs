//! A directory of sysfs that is open, and what stands in it. Each part of a path is looked up
//! under a lock that all of sysfs shares, and that a storm of new devices holds: what is read of
//! one object is read from its directory, not along its path. Must never be kept: the object of an
//! open directory can go, and then nothing is in it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::path::Arg;

use crate::refusal::{MAX_NAME, printable};

/// More than is read of any attribute: GUIDs, names and numbers. A longer one is cut.
const ATTRIBUTE_LEN: usize = 1024;

/// An open directory.
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// The one at `path`.
    pub(super) fn open(path: &Path) -> Option<Self> {
        Some(Self(open(CWD, path)?))
    }

    /// The one called `name` in this one.
    pub(super) fn directory(&self, name: &str) -> Option<Self> {
        Some(Self(open(&self.0, name)?))
    }

    /// The only line of the attribute that is called `name`. Waits for the driver, for ever where it
    /// does not answer.
    pub(super) fn line(&self, name: &str) -> Option<String> {
        line(&self.0, name, OFlags::empty())
    }

    /// What a link leads to, as it is written.
    pub(super) fn link(&self, name: &str) -> Option<PathBuf> {
        let target = readlinkat(&self.0, name, Vec::new()).ok()?;
        Some(target.into_string().ok()?.into())
    }

    /// The last component of that.
    pub(super) fn link_name(&self, name: &str) -> Option<String> {
        super::name_of(&self.link(name)?)
    }
}

/// The only line of the attribute at `path`, when it is there at once. What no driver is asked for
/// is.
pub(super) fn line_at(path: &Path) -> Option<String> {
    line(CWD, path, OFlags::NONBLOCK)
}

fn open(at: impl std::os::fd::AsFd, path: impl Arg) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty()).ok()
}

/// Nothing where a terminal should not be sent it, or where it is longer than what is published.
fn line(at: impl std::os::fd::AsFd, path: impl Arg, more: OFlags) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | more;
    let file = openat(at, path, flags, Mode::empty()).ok()?;
    // The kernel gives an attribute, which fits into a page, with the first read.
    let mut page = [0; ATTRIBUTE_LEN];
    let len = rustix::io::read(&file, &mut page).ok()?;
    let line = page.get(..len)?.trim_ascii_end();
    printable(line, MAX_NAME).ok().map(str::to_owned)
}

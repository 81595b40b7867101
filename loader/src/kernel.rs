//! What the kernel has, and how it is given a module. Must never wait for anything but the
//! kernel itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use interfaces::loader::ModuleState;
use interfaces::names::ModuleName;
use rustix::system::finit_module;

use crate::plan::Step;

/// `MODULE_INIT_COMPRESSED_FILE` (`include/uapi/linux/module.h`).
const COMPRESSED_FILE: i32 = 4;

/// The one call that this program exists for. A trait, so that where nothing may be loaded a
/// stand-in can take the kernel's place.
pub trait Kernel: Send + Sync + 'static {
    /// Inserts the module in `image`, the open file of `step`, without parameters. `flags` as in
    /// `finit_module(2)`. Returns when the module's own initialisation has ended.
    ///
    /// # Errors
    /// The kernel's errno.
    fn finit_module(&self, step: &Step, image: &File, flags: i32) -> io::Result<()>;
}

/// The running kernel.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Kernel for Linux {
    fn finit_module(&self, _: &Step, image: &File, flags: i32) -> io::Result<()> {
        Ok(finit_module(image, c"", flags)?)
    }
}

/// Whether a module is in the kernel, as its `initstate` in sysfs says. A directory without one
/// is that of a module whose initialisation has just begun.
#[must_use]
pub fn state(sysfs: &Path, module: &ModuleName) -> ModuleState {
    let directory = sysfs.join("module").join(module.as_str());
    match fs::read_to_string(directory.join("initstate")) {
        Ok(state) => match state.trim_end() {
            "live" => ModuleState::Live,
            "going" => ModuleState::Going,
            _ => ModuleState::Coming,
        },
        Err(_) if directory.exists() => ModuleState::Coming,
        Err(_) => ModuleState::Absent,
    }
}

/// The flags that the kernel needs for this file: by what is in it, not by its name.
///
/// # Errors
/// When the file cannot be read.
pub fn flags_for(image: &File) -> io::Result<i32> {
    const XZ: &[u8] = b"\xfd7zXZ\0";
    const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
    const GZIP: &[u8] = b"\x1f\x8b";
    let mut start = [0; 6];
    let len = image.read_at(&mut start, 0)?;
    let start = start.get(..len).unwrap_or_default();
    let compressed = [XZ, ZSTD, GZIP]
        .iter()
        .any(|magic| start.starts_with(magic));
    Ok(if compressed { COMPRESSED_FILE } else { 0 })
}

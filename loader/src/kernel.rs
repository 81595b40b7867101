//! What the kernel has, and how it is given a module. Must never wait for anything but the
//! kernel itself.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use interfaces::loader::ModuleState;
use interfaces::names::ModuleName;
use rustix::system::finit_module;

/// The one call that this program exists for. A trait, so that where nothing may be loaded a
/// stand-in can take the kernel's place.
pub trait Kernel: Send + Sync + 'static {
    /// Inserts `module`, whose open file is `image`, with `parameters`. `flags` as in
    /// `finit_module(2)`. Returns when the module's own initialisation has ended.
    ///
    /// # Errors
    /// The kernel's errno.
    fn finit_module(
        &self,
        module: &ModuleName,
        image: &File,
        parameters: &CStr,
        flags: i32,
    ) -> io::Result<()>;
}

/// The running kernel.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Kernel for Linux {
    fn finit_module(
        &self,
        _: &ModuleName,
        image: &File,
        parameters: &CStr,
        flags: i32,
    ) -> io::Result<()> {
        Ok(finit_module(image, parameters, flags)?)
    }
}

/// Whether a module is in the kernel, as its `initstate` in sysfs says. A directory without one
/// is that of a module whose initialisation has just begun.
#[must_use]
pub fn state(sysfs: &Path, module: &str) -> ModuleState {
    let directory = sysfs.join("module").join(module);
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

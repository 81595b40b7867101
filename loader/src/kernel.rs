//! The modules in the kernel, and the system call that inserts one. Must never wait for anything
//! but the kernel itself.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use interfaces::loader::ModuleState;
use interfaces::names::ModuleName;
use rustix::system::finit_module;

/// The one system call that this program exists for. A trait, so that a stand-in can replace the
/// kernel where nothing may be loaded.
pub trait Kernel: Send + Sync + 'static {
    /// Inserts `module` from the open file `image` with `parameters`. `flags` are those of
    /// `finit_module(2)`. Returns when the module's own initialisation has ended.
    ///
    /// # Errors
    /// Returns the errno of the kernel.
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

/// Returns the state of a module in the kernel, from its `initstate` in sysfs. A directory without
/// that file belongs to a module whose initialisation has just begun.
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

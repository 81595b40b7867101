//! The insertion of one module, from its file to the result from the kernel. Runs in the inserting
//! process. Must never pass the kernel a file that it has not opened through the module tree
//! itself.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use interfaces::loader::ModuleState;
use nix::errno::Errno;

use crate::image::{self, Compression};
use crate::kernel::{self, Kernel};
use crate::message::{Failure, MAX_PARAMETERS, Order, Outcome};
use crate::module_dir::{ModuleDir, OpenError};
use crate::verdict::{meaning, text};

/// The resources of an insertion.
pub struct Inserter<K> {
    /// The module tree.
    pub modules: ModuleDir,
    /// The directory of sysfs.
    pub sysfs: PathBuf,
    /// The kernel that receives the modules.
    pub kernel: K,
    /// The format that the kernel decompresses itself.
    pub compression: Compression,
}

/// The reason that a module is not in the kernel.
#[derive(Debug, thiserror::Error)]
enum InsertError {
    /// Its file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its file cannot be read or decompressed.
    #[error("{0} cannot be read")]
    Image(String, #[source] io::Error),
    /// Its parameters cannot be passed to the kernel.
    #[error("its parameters are longer than {MAX_PARAMETERS} bytes, or contain a NUL")]
    Parameters,
    /// The kernel refused it.
    #[error("{0}: {reason}", reason = meaning(*.1))]
    Refused(String, Errno),
    /// The kernel accepted it, but no module of its name is live.
    #[error("{0} contains a module of a different name")]
    OtherName(String),
}

impl InsertError {
    fn errno(&self) -> i32 {
        match self {
            Self::Open(e) => e.errno(),
            Self::Image(_, e) => e.raw_os_error().unwrap_or(Errno::EINVAL as i32),
            Self::Parameters => Errno::E2BIG as i32,
            Self::Refused(_, errno) => *errno as i32,
            Self::OtherName(_) => Errno::ENOEXEC as i32,
        }
    }
}

impl<K: Kernel> Inserter<K> {
    /// Executes an order. Returns when the module's own initialisation has ended.
    pub fn carry_out(&self, order: &Order) -> Outcome {
        match self.insert(order) {
            Ok(true) => Outcome::Inserted,
            Ok(false) => Outcome::WasLive,
            Err(e) => Outcome::Failed(Failure {
                errno: e.errno(),
                message: interfaces::log::Chain(&e).to_string(),
            }),
        }
    }

    /// Inserts the module. Returns false if it was live already.
    fn insert(&self, order: &Order) -> Result<bool, InsertError> {
        let is_live = || kernel::state(&self.sysfs, order.module.as_str()) == ModuleState::Live;
        if is_live() {
            return Ok(false);
        }
        let path = text(&order.path);
        let file = self.modules.open(&order.path)?;
        let (image, flags) = image::for_kernel(file, self.compression)
            .map_err(|e| InsertError::Image(path.clone(), e))?;
        if order.parameters.len() > MAX_PARAMETERS {
            return Err(InsertError::Parameters);
        }
        let parameters =
            CString::new(order.parameters.clone()).map_err(|_| InsertError::Parameters)?;
        let outcome = loop {
            let kernel = &self.kernel;
            match kernel.finit_module(&order.module, &image, &parameters, flags) {
                // A signal arrived during the wait for another program's load. No signal is meant
                // for this thread.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(()) if is_live() => Ok(true),
            Ok(()) => Err(InsertError::OtherName(path)),
            // Another program was faster, which is as good. If the module is not live, its own
            // initialisation returned the error.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_live() => Ok(false),
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or_default();
                Err(InsertError::Refused(path, Errno::from_raw(errno)))
            }
        }
    }
}

//! One module, from its file to the kernel's answer. Runs in the inserting process. Must never
//! give the kernel a file that it has not opened through the module tree itself.

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

/// Everything that an insertion needs.
pub struct Inserter<K> {
    /// Where modules come from.
    pub modules: ModuleDir,
    /// Where the kernel says what it has.
    pub sysfs: PathBuf,
    /// Where modules go.
    pub kernel: K,
    /// What the kernel decompresses by itself.
    pub compression: Compression,
}

/// Why a module is not in the kernel.
#[derive(Debug, thiserror::Error)]
enum InsertError {
    /// Its file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its file cannot be read or decompressed.
    #[error("{0} cannot be read")]
    Image(String, #[source] io::Error),
    /// Its parameters cannot be given to the kernel.
    #[error("its parameters are longer than {MAX_PARAMETERS} bytes, or have a NUL in them")]
    Parameters,
    /// The kernel has refused it.
    #[error("{0}: {reason}", reason = meaning(*.1))]
    Refused(String, Errno),
    /// The kernel has taken it, and there is nothing of its name.
    #[error("{0} holds a module of another name")]
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
    /// Carries out an order. Returns when the module's own initialisation has ended.
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

    /// Whether the module was inserted, and not live already.
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
                // A signal while it waited for another program's load: none is meant for it.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(()) if is_live() => Ok(true),
            Ok(()) => Err(InsertError::OtherName(path)),
            // Another program was faster, which is as good; unless it is the module's own
            // initialisation that says so.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_live() => Ok(false),
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or_default();
                Err(InsertError::Refused(path, Errno::from_raw(errno)))
            }
        }
    }
}

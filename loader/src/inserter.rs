//! The inserting process: the one that holds `CAP_SYS_MODULE`. It executes the orders of the
//! serving process until that process ends. It exits when the kernel has finished the last of them.
//! Must never act on a signal, parse untrusted text, or exit while the kernel initialises a module
//! for it: a thread that exits inside `finit_module(2)` leaves a driver half initialised.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use rustix::thread::{CapabilitySet, set_name};

use crate::capabilities;
use crate::config::Config;
use crate::image::Compression;
use crate::insert::Inserter;
use crate::kernel::Kernel;
use crate::link::Link;
use crate::message::{Answer, Failure, Order, Outcome};
use crate::module_dir::ModuleDir;
use crate::readable::Readable;
use crate::run::{Error, release};
use crate::sandbox::{self, Process};

/// The maximum number of concurrent insertions, each on its own thread. A module is never in flight
/// twice. The modules in flight are therefore at most those of the policy and their dependencies:
/// 80 with the policy as shipped. A module whose initialisation never ends keeps its thread, and
/// takes none from the others.
pub const MAX_AT_ONCE: usize = 256;

/// The stack size of an insertion thread, in bytes. The decompressors keep their buffers on the
/// heap.
const STACK: usize = 256 << 10;

/// Inserts the modules that the serving process orders over `link`, until that process ends.
/// Restricts access to the file system to `readable`.
///
/// # Errors
/// Fails if this process cannot drop the privileges that it does not need.
pub fn main<K: Kernel>(
    config: &Config,
    readable: &Readable,
    link: Link,
    kernel: K,
) -> Result<(), Error> {
    // Only the serving process handles a stop. Threads inherit this mask.
    let blocked = SigSet::all().thread_block();
    blocked.map_err(|e| Error::Runtime(e.into()))?;
    // The name that ps(1) shows. A failure does no harm.
    let _ = set_name(c"rdma-inserter");
    let inserter = Inserter {
        modules: ModuleDir::new(&config.modules, &release(config)),
        sysfs: config.sysfs.clone(),
        kernel,
        compression: Compression::of_kernel(&config.sysfs),
    };
    let kept = CapabilitySet::SYS_MODULE | CapabilitySet::DAC_READ_SEARCH;
    capabilities::keep(kept).map_err(Error::Sandbox)?;
    sandbox::restrict_files(readable.inserting.paths()).map_err(Error::Sandbox)?;
    sandbox::restrict_system_calls(Process::Inserting).map_err(Error::Sandbox)?;
    serve(&Arc::new(link), &Arc::new(inserter));
    Ok(())
}

/// Executes orders until no more can arrive, and waits for the last.
pub fn serve<K: Kernel>(link: &Arc<Link>, inserter: &Arc<Inserter<K>>) {
    let insertions = Arc::new(Insertions::default());
    loop {
        match next(link) {
            Ok(Some(order)) => begin(order, link, inserter, &insertions),
            Ok(None) => break,
            Err(e) => {
                tracing::error!("invalid message from the serving process: {e}");
                break;
            }
        }
    }
    insertions.wait_for_the_last();
}

fn next(link: &Link) -> io::Result<Option<Order>> {
    let record = link.receive()?;
    let order = record.map(|record| Order::decode(&record)).transpose();
    order.map_err(io::Error::other)
}

/// Executes an order on a new thread.
fn begin<K: Kernel>(
    order: Order,
    link: &Arc<Link>,
    inserter: &Arc<Inserter<K>>,
    insertions: &Arc<Insertions>,
) {
    let id = order.id;
    let Some(place) = insertions.take_place() else {
        answer(
            link,
            id,
            busy(&format!("{MAX_AT_ONCE} modules are being initialised")),
        );
        return;
    };
    let (their_link, inserter) = (Arc::clone(link), Arc::clone(inserter));
    let builder = thread::Builder::new().name("insert".to_owned());
    let spawned = builder.stack_size(STACK).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| inserter.carry_out(&order)));
        let outcome = outcome.unwrap_or_else(|_| Outcome::Failed(panicked()));
        answer(&their_link, order.id, outcome);
        drop(place);
    });
    if let Err(e) = spawned {
        answer(
            link,
            id,
            busy(&format!("cannot start a thread for it: {e}")),
        );
    }
}

/// Returns a failure that a retry may avoid.
fn busy(message: &str) -> Outcome {
    Outcome::Failed(Failure {
        errno: Errno::EAGAIN as i32,
        message: message.to_owned(),
    })
}

fn panicked() -> Failure {
    Failure {
        errno: Errno::ENOTRECOVERABLE as i32,
        message: "the loader failed on its file; see the loader's log".to_owned(),
    }
}

fn answer(link: &Link, id: u64, outcome: Outcome) {
    let record = Answer { id, outcome }.encode();
    let sent = record
        .map_err(io::Error::other)
        .map(|record| link.send(&record));
    match sent {
        // The serving process has ended, and no caller needs the result.
        Ok(_) => {}
        Err(e) => tracing::error!("cannot send a result: {e}"),
    }
}

/// The number of insertions in progress.
#[derive(Default)]
struct Insertions {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Insertions {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more insertion until the returned value is dropped. Returns `None` at the limit.
    fn take_place(self: &Arc<Self>) -> Option<Place> {
        let mut count = self.count();
        if *count >= MAX_AT_ONCE {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(self)))
    }

    fn wait_for_the_last(&self) {
        let mut count = self.count();
        while *count > 0 {
            let waited = self.ended.wait(count);
            count = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// An insertion in progress.
struct Place(Arc<Insertions>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.0.count();
        *count = count.saturating_sub(1);
        self.0.ended.notify_all();
    }
}

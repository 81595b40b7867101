//! `rdma-loader plan`: plans for any module tree, in the format of `modprobe -D`, so that the two
//! can be compared. Must never load a module or query the loaded ones.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::plan::{Plan, PlanError, Planner};
use crate::snapshot::{MODPROBE_D, Semantics, Snapshot, SnapshotError, Sources, resolve_inside};

/// Print the plan of modprobe, in the format of 'modprobe --show-depends'.
///
/// Reads DIR/lib/modules/RELEASE, the modprobe.d directories in DIR, and DIR/proc/cmdline.
/// Exits with 1 if a name is not found.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  rdma-loader plan rdma_ucm
  rdma-loader plan --root /srv/image --kernel 6.12.0-amd64 mlx5_ib ib_iser
  cut -d' ' -f1 /proc/modules | rdma-loader plan --stdin")]
pub struct PlanArgs {
    /// The root directory of the system.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The kernel release. The default is that of the running kernel.
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// Plan nothing for a blacklisted module that is requested by its name, like 'modprobe -b'.
    #[arg(short = 'b', long)]
    use_blacklist: bool,
    /// Read names from standard input, one per line, and print '== NAME' before each plan.
    #[arg(long)]
    stdin: bool,
    /// Module names or aliases.
    #[arg(value_name = "NAME")]
    names: Vec<std::ffi::OsString>,
}

/// The reason that nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The files cannot be read.
    #[error("cannot plan")]
    Snapshot(#[from] SnapshotError),
    /// Standard input or output failed.
    #[error("cannot read names or print plans")]
    Io(#[from] io::Error),
}

/// Prints the plans of all names.
///
/// # Errors
/// Fails if the files or the standard streams cannot be used. A name that is not found is not an
/// error, but gives a non-zero exit status.
pub fn main(args: &PlanArgs, release: &str) -> Result<ExitCode, OfflineError> {
    let offline = Offline::new(args, args.kernel.as_deref().unwrap_or(release))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut all_found = true;
    for name in &args.names {
        all_found &= offline.print(name.as_bytes(), &mut out)?;
    }
    if args.stdin {
        for name in io::stdin().lock().split(b'\n') {
            let name = name?;
            out.write_all(&[b"== ", name.as_slice(), b"\n"].concat())?;
            all_found &= offline.print(&name, &mut out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(!all_found)))
}

/// A system that is not running.
struct Offline {
    root: PathBuf,
    /// The module tree, as seen from inside the root.
    module_tree: PathBuf,
    snapshot: Snapshot,
    use_blacklist: bool,
}

impl Offline {
    fn new(args: &PlanArgs, release: &str) -> Result<Self, SnapshotError> {
        let sources = Sources {
            root: Some(args.root.clone()),
            module_tree: Path::new("/lib/modules").join(release),
            modprobe_d: MODPROBE_D.map(PathBuf::from).to_vec(),
            command_line: PathBuf::from("/proc/cmdline"),
            reader: Semantics::Modprobe,
        };
        Ok(Self {
            root: args.root.clone(),
            module_tree: sources.module_tree.clone(),
            snapshot: sources.snapshot()?,
            use_blacklist: args.use_blacklist,
        })
    }

    /// Prints the plans of a name. Returns false if there are none, or if planning fails.
    fn print(&self, name: &[u8], out: &mut impl Write) -> io::Result<bool> {
        match self.plans(name) {
            Ok(plans) if plans.is_empty() => {
                self.complain(name, "not found");
                Ok(false)
            }
            Ok(plans) => {
                for plan in plans {
                    self.print_plan(&plan, out)?;
                }
                Ok(true)
            }
            Err(e) => {
                self.complain(name, &interfaces::log::Chain(&e).to_string());
                Ok(false)
            }
        }
    }

    fn plans(&self, name: &[u8]) -> Result<Vec<Plan>, PlanError> {
        let exists = |path: &[u8]| {
            let path = self.module_tree.join(OsStr::from_bytes(path));
            resolve_inside(&self.root, &path).is_ok()
        };
        let planner = Planner {
            indexes: &self.snapshot.indexes,
            config: &self.snapshot.config,
            exists: &exists,
            admit: &|_| true,
            merge_softdeps: false,
        };
        let found = planner.look_up(name)?;
        found.iter().map(|found| planner.plan(found)).collect()
    }

    fn print_plan(&self, plan: &Plan, out: &mut impl Write) -> io::Result<()> {
        // modprobe applies a blacklist to names only on request, and then still reports success.
        if plan.blacklisted.is_some() && (plan.by_alias || self.use_blacklist) {
            return Ok(());
        }
        let path = |file: &[u8]| {
            let path = self.module_tree.join(OsStr::from_bytes(file));
            path.into_os_string().into_encoded_bytes()
        };
        for line in plan.steps.iter().filter_map(|step| step.printed(path)) {
            out.write_all(&[line.as_slice(), b"\n"].concat())?;
        }
        Ok(())
    }

    #[expect(
        clippy::print_stderr,
        reason = "a command says on standard error what it lacks"
    )]
    fn complain(&self, name: &[u8], what: &str) {
        let name = String::from_utf8_lossy(name);
        eprintln!(
            "rdma-loader: {name}: {what} in {}",
            self.module_tree.display()
        );
    }
}

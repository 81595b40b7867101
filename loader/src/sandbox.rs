//! What this process takes from itself, once it has what it needs: on top of its unit's sandbox,
//! and where it runs without one. Nothing here can be taken back. Must never give up what a
//! later request, a log record or a stop still needs.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr,
};
use libc::{ENOSYS, EPERM, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// `MODULE_INIT_COMPRESSED_FILE`: the only flag that is ever needed. The others have the kernel
/// take modules of other kernels.
const COMPRESSED_FILE: u64 = 4;

/// Leaves nothing of the file system but reading `readable`: files, and directories with all that
/// is below them. One that is not there is left out, and so is what may stand above it. A kernel
/// without Landlock is left as it is.
///
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn restrict_files<'p>(readable: impl Iterator<Item = &'p Path>) -> io::Result<()> {
    restrict_files_to(readable).map_err(io::Error::other)
}

fn restrict_files_to<'p>(
    readable: impl Iterator<Item = &'p Path>,
) -> Result<(), landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?;
    for path in readable {
        if let Ok(fd) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, reading(path)))?;
        }
    }
    ruleset.restrict_self()?;
    Ok(())
}

fn reading(path: &Path) -> BitFlags<AccessFs> {
    if path.is_dir() {
        AccessFs::ReadFile | AccessFs::ReadDir
    } else {
        AccessFs::ReadFile.into()
    }
}

/// Which of the two processes is restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The one that callers are connected to. It makes no thread and inserts nothing.
    Serving,
    /// The one that inserts modules. It makes a thread for each, and accepts no connection.
    Inserting,
}

/// Leaves the system calls that `process` needs. Every other one fails with `EPERM`, on all
/// threads: never with `ENOSYS`, which would read as a kernel without modules. `clone3(2)` alone
/// does: the C library makes threads by `clone(2)` then, whose flags a filter can look at.
///
/// # Errors
/// When the kernel refuses.
pub fn restrict_system_calls(process: Process) -> io::Result<()> {
    for program in filters(process).map_err(io::Error::other)? {
        seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The filters of [`restrict_system_calls`], in the order in which they are applied. Of the
/// verdicts of several filters the strictest counts (`seccomp(2)`).
///
/// # Errors
/// When one cannot be built for this processor.
pub fn filters(process: Process) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    Ok(match process {
        Process::Serving => vec![filter(process)?],
        Process::Inserting => vec![without_clone3()?, filter(process)?],
    })
}

/// Answers `clone3(2)` as a kernel does that does not have it.
fn without_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let missing = SeccompAction::Errno(ENOSYS.cast_unsigned());
    let rules = [(libc::SYS_clone3, Vec::new())].into_iter().collect();
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, missing, architecture)?.try_into()
}

fn filter(process: Process) -> Result<BpfProgram, seccompiler::BackendError> {
    let own = match process {
        Process::Serving => SERVING,
        Process::Inserting => INSERTING,
    };
    let allowed = ALLOWED.iter().chain(own);
    let mut rules: Vec<(c_long, Vec<SeccompRule>)> =
        allowed.map(|call| (*call, Vec::new())).collect();
    let when = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let unix = libc::AF_UNIX.cast_unsigned().into();
    let executable = libc::PROT_EXEC.cast_unsigned().into();
    if process == Process::Inserting {
        let thread = libc::CLONE_THREAD.cast_unsigned().into();
        let name = libc::PR_SET_NAME.cast_unsigned().into();
        rules.extend([
            // What this program is for, without a flag that forces a module in.
            (
                libc::SYS_finit_module,
                vec![
                    when(2, SeccompCmpOp::Eq, 0)?,
                    when(2, SeccompCmpOp::Eq, COMPRESSED_FILE)?,
                ],
            ),
            // A thread, but no process.
            (
                libc::SYS_clone,
                vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?],
            ),
            // Its name.
            (libc::SYS_prctl, vec![when(0, SeccompCmpOp::Eq, name)?]),
        ]);
    }
    rules.extend([
        // The service manager is told of states over a socket of its own each time.
        (libc::SYS_socket, vec![when(0, SeccompCmpOp::Eq, unix)?]),
        // Memory, but none that could be run.
        (
            libc::SYS_mmap,
            vec![when(2, SeccompCmpOp::MaskedEq(executable), 0)?],
        ),
        (
            libc::SYS_mprotect,
            vec![when(2, SeccompCmpOp::MaskedEq(executable), 0)?],
        ),
    ]);
    let architecture = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(EPERM.cast_unsigned());
    SeccompFilter::new(
        rules.into_iter().collect(),
        refuse,
        SeccompAction::Allow,
        architecture,
    )?
    .try_into()
}

/// What the serving process may beside [`ALLOWED`].
const SERVING: &[c_long] = &[
    // Connections, and who is behind them.
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Waiting for any of them.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What the inserting process may beside [`ALLOWED`]: what the C library does on a new thread.
const INSERTING: &[c_long] = &[
    // The first filter answers it.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    // A stand-in for the kernel ends what it sends.
    libc::SYS_shutdown,
];

/// What both processes may, whatever its arguments. `open_by_handle_at(2)` must never be here: it
/// reads around Landlock with CAP_DAC_READ_SEARCH.
const ALLOWED: &[c_long] = &[
    // The socket between the two, and the log's.
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_connect,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    // Files: opening is Landlock's to judge.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    // A module that the kernel cannot decompress, and long log records.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    // Memory and threads, as the C library keeps them.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_prlimit64,
    // Time, where the vDSO does not give it.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Signals, and the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Runs `test` on a thread that has given everything up.
    fn restricted<T: Send>(
        process: Process,
        readable: &[PathBuf],
        test: impl FnOnce() -> T + Send,
    ) -> T {
        thread::scope(|scope| {
            let restricted = || {
                restrict_files(readable.iter().map(PathBuf::as_path)).unwrap();
                for program in filters(process).unwrap() {
                    seccompiler::apply_filter(&program).unwrap();
                }
                test()
            };
            scope.spawn(restricted).join().unwrap()
        })
    }

    fn errno<T>(outcome: io::Result<T>) -> Option<i32> {
        outcome.err().and_then(|e| e.raw_os_error())
    }

    fn assert_refused(what: &str, errno: Option<i32>) {
        let refused = matches!(errno, Some(libc::EPERM | libc::EACCES));
        assert!(refused, "{what}: {errno:?}");
    }

    #[test]
    fn what_is_not_needed_fails() {
        for process in [Process::Serving, Process::Inserting] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("file");
            fs::write(&file, "x").unwrap();
            let readable = [dir.path().to_owned()];
            let file = &file;
            let errnos = restricted(process, &readable, move || {
                [
                    ("write", errno(fs::write(file, "y"))),
                    ("make", errno(fs::write(file.with_extension("new"), "y"))),
                    ("remove", errno(fs::remove_file(file))),
                    ("read", errno(fs::read("/etc/passwd"))),
                    ("list", errno(fs::read_dir("/"))),
                    ("run", errno(Command::new("/bin/true").status())),
                    ("internet", errno(std::net::UdpSocket::bind("127.0.0.1:0"))),
                ]
            });
            for (what, errno) in errnos {
                assert_refused(what, errno);
            }
            assert_eq!(fs::read(file).unwrap(), b"x");
        }
    }

    #[test]
    fn the_inserting_process_makes_threads_and_the_serving_one_does_not() {
        let spawn = || thread::Builder::new().name("insert".to_owned()).spawn(|| 7);
        let made = restricted(Process::Inserting, &[], || spawn().unwrap().join().unwrap());
        assert_eq!(made, 7);
        let refused = restricted(Process::Serving, &[], || errno(spawn()));
        assert_refused("a thread", refused);
    }

    #[test]
    fn a_module_cannot_be_forced_or_removed_nor_inserted_by_the_serving_process() {
        use rustix::system::{delete_module, finit_module, init_module};
        let file = tempfile::tempfile().unwrap();
        let errnos = restricted(Process::Inserting, &[], || {
            [
                finit_module(&file, c"", 1),
                finit_module(&file, c"", 2 | 4),
                init_module(b"x", c""),
                delete_module(c"nosuch_module", 0),
            ]
            .map(|outcome| outcome.unwrap_err())
        });
        assert_eq!(errnos, [rustix::io::Errno::PERM; 4]);
        let serving = restricted(Process::Serving, &[], || finit_module(&file, c"", 0));
        assert_eq!(serving, Err(rustix::io::Errno::PERM));
    }

    #[test]
    fn a_secret_beside_what_may_be_read_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("etc/modprobe.d")).unwrap();
        // Of root alone, as /etc/shadow and /etc/modprobe.d/CIS.conf are. CAP_DAC_READ_SEARCH,
        // which root has, reads them both.
        for name in ["etc/shadow", "etc/modprobe.d/CIS.conf", "etc/linked"] {
            fs::write(at(name), name).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(at("etc/shadow"), at("etc/modprobe.d/later.conf")).unwrap();
        let readable = [
            at("etc/modprobe.d"),
            at("etc/linked"),
            at("etc/loader.d/that/is/not/there"),
        ];
        for process in [Process::Serving, Process::Inserting] {
            let read = |name: &str| fs::read(at(name));
            let (own, linked, refused) = restricted(process, &readable, || {
                (
                    read("etc/modprobe.d/CIS.conf"),
                    read("etc/linked"),
                    [
                        ("the secret", errno(read("etc/shadow"))),
                        ("a link to it", errno(read("etc/modprobe.d/later.conf"))),
                        ("a way up", errno(read("etc/modprobe.d/../shadow"))),
                        ("the directory", errno(fs::read_dir(at("etc")))),
                        ("its handle", open_by_handle()),
                    ],
                )
            });
            assert_eq!(own.unwrap(), b"etc/modprobe.d/CIS.conf");
            assert_eq!(linked.unwrap(), b"etc/linked");
            for (what, errno) in refused {
                assert_refused(what, errno);
            }
        }
    }

    /// The errno of open_by_handle_at(2), which asks for CAP_DAC_READ_SEARCH and not for a path.
    /// Without the filter the pointer that is none would be EFAULT, or EPERM without that
    /// capability.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    fn open_by_handle() -> Option<i32> {
        // SAFETY: the kernel checks the pointer, and writes nothing.
        let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, libc::AT_FDCWD, 0, 0) };
        (fd < 0).then(io::Error::last_os_error)?.raw_os_error()
    }

    #[test]
    fn what_is_needed_still_works() {
        for process in [Process::Serving, Process::Inserting] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("file");
            fs::write(&file, "x").unwrap();
            let readable = [dir.path().to_owned()];
            let (read, memory, socket) = restricted(process, &readable, || {
                let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC);
                let socket = std::os::unix::net::UnixDatagram::unbound();
                (fs::read(&file).unwrap(), memory.is_ok(), socket.is_ok())
            });
            assert_eq!(read, b"x");
            assert!(memory && socket);
        }
    }
}

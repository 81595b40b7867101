//! What this process takes from itself, once it has what it needs: on top of its unit's sandbox,
//! and where it runs without one. Nothing here can be taken back. Must never give up what a
//! later request, a log record or a stop still needs.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr,
};
use libc::{EPERM, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// `MODULE_INIT_COMPRESSED_FILE`: the only flag that is ever needed. The others have the kernel
/// take modules of other kernels.
const COMPRESSED_FILE: u64 = 4;

/// Leaves nothing of the file system but reading below `readable`. Where one of them is not
/// there yet, the nearest directory above it that is, so that it can come later. A kernel
/// without Landlock is left as it is.
///
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn restrict_files(readable: &[PathBuf]) -> io::Result<()> {
    restrict_files_to(readable).map_err(io::Error::other)
}

fn restrict_files_to(readable: &[PathBuf]) -> Result<(), landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?;
    for path in readable {
        if let Some(fd) = nearest(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, reading()))?;
        }
    }
    ruleset.restrict_self()?;
    Ok(())
}

fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

fn nearest(path: &Path) -> Option<PathFd> {
    path.ancestors().find_map(|path| PathFd::new(path).ok())
}

/// Leaves the system calls that serving and loading need. Every other one fails with `EPERM`, on
/// all threads: never with `ENOSYS`, which would read as a kernel without modules.
///
/// # Errors
/// When the kernel refuses.
pub fn restrict_system_calls() -> io::Result<()> {
    let program = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

/// The filter of [`restrict_system_calls`].
///
/// # Errors
/// When it cannot be built for this processor.
pub fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: Vec<(c_long, Vec<SeccompRule>)> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let when = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let unix = libc::AF_UNIX.cast_unsigned().into();
    let executable = libc::PROT_EXEC.cast_unsigned().into();
    rules.extend([
        // What this program is for, without a flag that forces a module in.
        (
            libc::SYS_finit_module,
            vec![
                when(2, SeccompCmpOp::Eq, 0)?,
                when(2, SeccompCmpOp::Eq, COMPRESSED_FILE)?,
            ],
        ),
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

/// What is allowed whatever its arguments.
const ALLOWED: &[c_long] = &[
    // Serving: connections, and who is behind them.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_connect,
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
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Runs `test` on a thread that has given everything up.
    fn restricted<T: Send>(readable: &[PathBuf], test: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let restricted = || {
                restrict_files(readable).unwrap();
                seccompiler::apply_filter(&filter().unwrap()).unwrap();
                test()
            };
            scope.spawn(restricted).join().unwrap()
        })
    }

    fn errno<T>(outcome: io::Result<T>) -> Option<i32> {
        outcome.err().and_then(|e| e.raw_os_error())
    }

    #[test]
    fn what_is_not_needed_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let readable = [dir.path().to_owned()];
        let file = &file;
        let errnos = restricted(&readable, move || {
            [
                ("write", errno(fs::write(file, "y"))),
                ("make", errno(fs::write(file.with_extension("new"), "y"))),
                ("remove", errno(fs::remove_file(file))),
                ("read", errno(fs::read("/etc/passwd"))),
                ("list", errno(fs::read_dir("/"))),
                ("run", errno(Command::new("/bin/true").status())),
                ("thread", errno(thread::Builder::new().spawn(|| ()))),
                ("internet", errno(std::net::UdpSocket::bind("127.0.0.1:0"))),
            ]
        });
        for (what, errno) in errnos {
            let refused = matches!(errno, Some(libc::EPERM | libc::EACCES));
            assert!(refused, "{what}: {errno:?}");
        }
        assert_eq!(fs::read(file).unwrap(), b"x");
    }

    #[test]
    fn a_module_cannot_be_forced_or_removed() {
        use rustix::system::{delete_module, finit_module, init_module};
        let file = tempfile::tempfile().unwrap();
        let errnos = restricted(&[], move || {
            [
                finit_module(&file, c"", 1),
                finit_module(&file, c"", 2 | 4),
                init_module(b"x", c""),
                delete_module(c"nosuch_module", 0),
            ]
            .map(|outcome| outcome.unwrap_err())
        });
        assert_eq!(errnos, [rustix::io::Errno::PERM; 4]);
    }

    #[test]
    fn what_is_needed_still_works() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let later = dir.path().join("later/x");
        let readable = [later.clone()];
        let later = &later;
        let (read, memory, socket) = restricted(&readable, move || {
            let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC);
            let socket = std::os::unix::net::UnixDatagram::unbound();
            (fs::read(file).unwrap(), memory.is_ok(), socket.is_ok())
        });
        assert_eq!(read, b"x", "{} may come", later.display());
        assert!(memory && socket);
    }
}

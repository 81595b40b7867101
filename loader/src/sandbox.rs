//! The privileges that each of the loader's two processes drops once it is set up: in addition to
//! the sandbox of its unit, and also without one. A dropped privilege cannot be regained. Must
//! never drop a privilege that a later request, a log record or a stop still needs.

use std::io;
use std::path::Path;

use interfaces::sandbox;

/// The system calls that stay allowed, one per line.
const CALLS: &str = include_str!("../../deploy/seccomp/rdma-loader.calls");

/// Restricts access to the file system to reading `readable`: files, and directories with
/// everything below them.
///
/// # Errors
/// Fails if the kernel supports Landlock and refuses.
pub fn restrict_files<'p>(readable: impl Iterator<Item = &'p Path>) -> io::Result<()> {
    Ok(sandbox::restrict_files(readable, [])?)
}

/// The process to restrict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The process that callers connect to. It creates no threads and inserts nothing.
    Serving,
    /// The process that inserts modules. It creates a thread for each, and accepts no connections.
    Inserting,
}

impl Process {
    /// Returns the name of its section in the file of system calls.
    fn part(self) -> &'static str {
        match self {
            Self::Serving => "serve",
            Self::Inserting => "insert",
        }
    }
}

/// Restricts all threads to the system calls that `process` needs. Any other call fails with
/// `EPERM`, never with `ENOSYS`, which would look like a kernel without modules.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn restrict_system_calls(process: Process) -> io::Result<()> {
    Ok(sandbox::restrict_system_calls(CALLS, process.part())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Runs `test` on a thread with all restrictions.
    fn restricted<T: Send>(
        process: Process,
        readable: &[PathBuf],
        test: impl FnOnce() -> T + Send,
    ) -> T {
        thread::scope(|scope| {
            let restricted = || {
                restrict_files(readable.iter().map(PathBuf::as_path)).unwrap();
                for program in sandbox::filters(CALLS, process.part()).unwrap() {
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
    fn unneeded_operations_fail() {
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
    fn only_the_inserting_process_can_create_threads() {
        let spawn = || thread::Builder::new().name("insert".to_owned()).spawn(|| 7);
        let made = restricted(Process::Inserting, &[], || spawn().unwrap().join().unwrap());
        assert_eq!(made, 7);
        let refused = restricted(Process::Serving, &[], || errno(spawn()));
        assert_refused("a thread", refused);
    }

    #[test]
    fn modules_cannot_be_forced_or_removed_and_the_serving_process_cannot_insert_them() {
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
    fn a_secret_beside_the_readable_paths_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("etc/modprobe.d")).unwrap();
        // Readable by root alone, as /etc/shadow and /etc/modprobe.d/CIS.conf are.
        // CAP_DAC_READ_SEARCH, which root has, allows reading both.
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

    /// Returns the errno of open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH and no path.
    /// Without the filter the invalid pointer would give EFAULT, or EPERM without that capability.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    fn open_by_handle() -> Option<i32> {
        // SAFETY: the kernel checks the pointer, and writes nothing.
        let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, libc::AT_FDCWD, 0, 0) };
        (fd < 0).then(io::Error::last_os_error)?.raw_os_error()
    }

    #[test]
    fn needed_operations_still_work() {
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

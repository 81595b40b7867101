//! The restrictions that a service puts on itself after its start: in addition to its unit's
//! sandbox, and also if it runs without one. A file of `deploy/seccomp` lists the system calls that
//! stay allowed, one per line with its reason; the unit's `SystemCallFilter=` is generated from the
//! same file. No restriction can be lifted again. Must never allow more than the file lists.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::str::FromStr;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use syscalls::Sysno;

/// The numbers of ENOSYS and EPERM (`errno(3)`) on every architecture that seccompiler supports.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The reason that a file of system calls cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A line is not `PARTS: CALL [CONDITION] # REASON`.
    #[error("line {0} does not have the form 'PARTS: CALL [CONDITION] # REASON'")]
    Line(usize),
    /// A condition is not `ARGUMENT=VALUE`, `ARGUMENT&MASK=VALUE` or `ENOSYS`.
    #[error("line {0}: {1:?} does not have the form ARGUMENT=VALUE, ARGUMENT&MASK=VALUE or ENOSYS")]
    Condition(usize, String),
    /// The filter cannot be built for this processor.
    #[error("the filter cannot be made")]
    Backend(#[from] seccompiler::BackendError),
    /// The kernel refuses the filter.
    #[error("the kernel refuses the filter")]
    Apply(#[source] seccompiler::Error),
    /// The kernel has Landlock and rejects the rules.
    #[error("the kernel refuses the rules for files")]
    Landlock(#[from] landlock::RulesetError),
}

/// The condition under which a system call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Allowed with any arguments.
    Always,
    /// Allowed if this argument, counted from 0, has this value under this mask. Only the lower 32
    /// bits are compared.
    Argument {
        /// The number of the argument.
        argument: u8,
        /// The mask.
        mask: u32,
        /// The value under the mask.
        value: u32,
    },
    /// Never allowed; it fails as on a kernel that does not have the call.
    Missing,
}

/// One line of a file of system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The parts of the program that need the call.
    pub parts: Vec<String>,
    /// The name of the call.
    pub call: String,
    /// The condition under which it is allowed.
    pub condition: Condition,
    /// The reason that it is needed.
    pub reason: String,
}

/// Reads a file of system calls. Empty lines and lines that begin with `#` are ignored.
///
/// # Errors
/// Fails if a line is invalid.
pub fn parse(text: &str) -> Result<Vec<Line>, SandboxError> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| parse_line(number, line))
        .collect()
}

fn parse_line(number: usize, line: &str) -> Result<Line, SandboxError> {
    let invalid = || SandboxError::Line(number);
    let (what, reason) = line.split_once('#').ok_or_else(invalid)?;
    let (parts, call) = what.split_once(':').ok_or_else(invalid)?;
    let mut words = call.split_whitespace();
    let call = words.next().ok_or_else(invalid)?.to_owned();
    let condition = match words.next() {
        None => Condition::Always,
        Some(text) => {
            condition(text).ok_or_else(|| SandboxError::Condition(number, text.to_owned()))?
        }
    };
    let parts: Vec<String> = parts.split_whitespace().map(str::to_owned).collect();
    let reason = reason.trim().to_owned();
    if parts.is_empty() || reason.is_empty() || words.next().is_some() {
        return Err(invalid());
    }
    Ok(Line {
        parts,
        call,
        condition,
        reason,
    })
}

fn condition(text: &str) -> Option<Condition> {
    if text == "ENOSYS" {
        return Some(Condition::Missing);
    }
    let (argument, value) = text.split_once('=')?;
    let (argument, mask) = match argument.split_once('&') {
        Some((argument, mask)) => (argument, number(mask)?),
        None => (argument, u32::MAX),
    };
    Some(Condition::Argument {
        argument: argument.parse().ok().filter(|argument| *argument < 6)?,
        mask,
        value: number(value)?,
    })
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Allows only the system calls that `part` needs according to the file `text`, on all threads.
/// Every other call fails with `EPERM`.
///
/// # Errors
/// Fails if the file is invalid, or if the kernel refuses the filter.
pub fn restrict_system_calls(text: &str, part: &str) -> Result<(), SandboxError> {
    for program in filters(text, part)? {
        seccompiler::apply_filter_all_threads(&program).map_err(SandboxError::Apply)?;
    }
    Ok(())
}

/// Returns the filters of [`restrict_system_calls`], in the order in which they are applied. The
/// strictest verdict of all filters takes effect (`seccomp(2)`).
///
/// # Errors
/// Fails if the file is invalid, or if a filter cannot be built for this processor.
pub fn filters(text: &str, part: &str) -> Result<Vec<BpfProgram>, SandboxError> {
    let lines = parse(text)?;
    let (mut allowed, mut missing) = (BTreeMap::new(), BTreeMap::new());
    for line in lines
        .iter()
        .filter(|line| line.parts.iter().any(|p| p == part))
    {
        // A call that this processor does not have cannot be made.
        let Ok(call) = Sysno::from_str(&line.call) else {
            continue;
        };
        let call = i64::from(call.id());
        let rules: &mut Vec<SeccompRule> = allowed.entry(call).or_default();
        match line.condition {
            Condition::Always => {}
            Condition::Argument {
                argument,
                mask,
                value,
            } => rules.push(rule(argument, mask, value)?),
            Condition::Missing => {
                missing.insert(call, Vec::new());
            }
        }
    }
    let mut programs = Vec::new();
    if !missing.is_empty() {
        programs.push(program(
            missing,
            SeccompAction::Allow,
            SeccompAction::Errno(ENOSYS),
        )?);
    }
    programs.push(program(
        allowed,
        SeccompAction::Errno(EPERM),
        SeccompAction::Allow,
    )?);
    Ok(programs)
}

fn rule(argument: u8, mask: u32, value: u32) -> Result<SeccompRule, SandboxError> {
    let operator = match mask {
        u32::MAX => SeccompCmpOp::Eq,
        mask => SeccompCmpOp::MaskedEq(mask.into()),
    };
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()?)
}

/// Restricts access to the file system to reading `readable` and below, and writing below
/// `writable`. A path that does not exist is skipped, and no parent directory is allowed in its
/// place. A kernel without Landlock applies no restriction. Connecting to sockets is not restricted
/// (`landlock(7)`).
///
/// # Errors
/// Fails if the kernel has Landlock and rejects the rules.
pub fn restrict_files<'p>(
    readable: impl IntoIterator<Item = &'p Path>,
    writable: impl IntoIterator<Item = &'p Path>,
) -> Result<(), SandboxError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?;
    let readable = readable.into_iter().map(|path| (path, reading(path)));
    let writable = writable.into_iter().map(|path| (path, writing()));
    for (path, access) in readable.chain(writable) {
        if let Ok(fd) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    ruleset.restrict_self()?;
    Ok(())
}

fn reading(path: &Path) -> BitFlags<AccessFs> {
    match path.is_dir() {
        true => AccessFs::ReadFile | AccessFs::ReadDir,
        false => AccessFs::ReadFile.into(),
    }
}

/// Returns the rights to create, write, rename and remove files in one directory. Links, device
/// nodes and directories cannot be made.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
}

/// Wraps the error in an [`io::Error`], for a service's own error type.
impl From<SandboxError> for io::Error {
    fn from(error: SandboxError) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::thread;

    use super::*;

    const TEXT: &str = "\
# A comment.

serve: socket 0=1            # AF_UNIX
serve: mmap 2&4=0            # memory that cannot be run
start: execve                # the program itself
serve insert: read           # files
insert: clone3 ENOSYS        # clone is used instead
";

    #[test]
    fn a_line_has_parts_a_call_a_condition_and_a_reason() {
        let lines = parse(TEXT).unwrap();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[1].condition,
            Condition::Argument {
                argument: 2,
                mask: 4,
                value: 0
            }
        );
        assert_eq!(lines[3].parts, ["serve", "insert"]);
        assert_eq!(lines[4].condition, Condition::Missing);
        assert_eq!(lines[0].reason, "AF_UNIX");
    }

    #[test]
    fn the_error_names_the_invalid_line() {
        for (text, expected) in [
            ("\nserve: read\n", "line 2 does not have the form"),
            ("read # why\n", "line 1 does not have the form"),
            ("serve: read #\n", "line 1 does not have the form"),
            (": read # why\n", "line 1 does not have the form"),
            (
                "serve: read 0=1 1=2 # why\n",
                "line 1 does not have the form",
            ),
            (
                "serve: read 6=1 # why\n",
                "line 1: \"6=1\" does not have the form",
            ),
            (
                "serve: read x # why\n",
                "line 1: \"x\" does not have the form",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    /// Runs `test` on a thread that is restricted to these calls and these files.
    fn restricted<T: Send>(
        files: (&[&Path], &[&Path]),
        calls: Option<&str>,
        test: impl FnOnce() -> T + Send,
    ) -> T {
        thread::scope(|scope| {
            let restricted = || {
                restrict_files(files.0.iter().copied(), files.1.iter().copied()).unwrap();
                for program in calls
                    .map(|c| filters(c, "test").unwrap())
                    .into_iter()
                    .flatten()
                {
                    seccompiler::apply_filter(&program).unwrap();
                }
                test()
            };
            scope.spawn(restricted).join().unwrap()
        })
    }

    #[test]
    fn unlisted_system_calls_and_arguments_are_refused() {
        let calls = "
            test: socket 0=1                 # AF_UNIX
            test: close                      # a socket
            test: clone3 ENOSYS              # none
            test: rt_sigprocmask             # the end of the thread
            test: sigaltstack                # the same
            test: munmap                     # the same
            test: madvise                    # the same
            test: futex                      # the same
            test: exit                       # the same
            test: mmap                       # memory
            test: mprotect                   # memory
            test: brk                        # memory
        ";
        let (unix, internet, thread) = restricted((&[], &[]), Some(calls), || {
            let unix = std::os::unix::net::UnixDatagram::unbound().is_ok();
            let internet = std::net::UdpSocket::bind("127.0.0.1:0").map(drop);
            let thread = thread::Builder::new().spawn(|| ()).map(drop);
            (unix, internet.unwrap_err().raw_os_error(), thread.is_ok())
        });
        assert!(unix && !thread);
        assert_eq!(internet, Some(1));
    }

    #[test]
    fn only_the_listed_paths_can_be_read_and_only_the_writable_directory_written() {
        let dir = tempfile::tempdir().unwrap();
        let (read, write) = (dir.path().join("read"), dir.path().join("write"));
        for path in [&read, &write] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("x"), "x").unwrap();
        }
        fs::write(dir.path().join("secret"), "x").unwrap();
        let outcomes = restricted((&[&read], &[&write]), None, || {
            [
                ("read", fs::read(read.join("x")).is_ok(), true),
                (
                    "write below read",
                    fs::write(read.join("y"), "y").is_ok(),
                    false,
                ),
                ("write", fs::write(write.join("y"), "y").is_ok(), true),
                (
                    "rename",
                    fs::rename(write.join("y"), write.join("z")).is_ok(),
                    true,
                ),
                (
                    "link",
                    std::os::unix::fs::symlink("/", write.join("l")).is_ok(),
                    false,
                ),
                ("secret", fs::read(dir.path().join("secret")).is_ok(), false),
                ("list", fs::read_dir("/").is_ok(), false),
                ("run", Command::new("/bin/true").status().is_ok(), false),
            ]
        });
        for (what, done, expected) in outcomes {
            assert_eq!(done, expected, "{what}");
        }
    }
}

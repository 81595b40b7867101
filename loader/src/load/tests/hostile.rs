//! Hostile requests, configurations and files: each gives a typed result without a call of
//! finit_module(2), and the loader keeps working. Invalid names are refused earlier
//! (`interfaces::names`, and `integration/tests/services.rs` over the socket).

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// The modules that the policy of these tests allows.
const ALLOWED: [&str; 3] = ["ib_uverbs", "ib_umad", "evil"];

/// A description, a function that prepares a rig and returns the name to request, and the result.
type Case = (&'static str, fn(&Rig) -> &'static str, Expected);

/// The expected result.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Denied(Denier),
    Failed(&'static str),
    Missing,
    /// A failure with a message that contains this text.
    VerdictError(&'static str),
}

const CASES: &[Case] = &[
    ("a name in capitals", |_| "IB_UVERBS", Expected::Missing),
    (
        "the longest name that there can be",
        |_| "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        Expected::Missing,
    ),
    ("off", |_| "off", Expected::Missing),
    ("kernel", |_| "kernel", Expected::Missing),
    ("fs-ext4", |_| "fs-ext4", Expected::Missing),
    (
        "a real module that no file names",
        |_| "mlx5_core",
        Expected::Denied(Denier::Policy),
    ),
    (
        "what a module needs that no file names",
        |_| "rdmavt",
        Expected::Denied(Denier::Policy),
    ),
    (
        "an allowed name that is an alias of another module",
        |rig| {
            rig.configure("x.conf", "alias ib_uverbs mlx5_core\n");
            "ib_uverbs"
        },
        Expected::Denied(Denier::Policy),
    ),
    (
        "an alias of one module that is allowed and one that is not",
        |rig| {
            rig.configure("x.conf", "alias both ib_uverbs\nalias bo* mlx5_core\n");
            "both"
        },
        Expected::Denied(Denier::Policy),
    ),
    (
        "an allowed name that is an alias of nothing",
        |rig| {
            rig.configure("x.conf", "alias ib_uverbs evil\n");
            "ib_uverbs"
        },
        Expected::Missing,
    ),
    (
        "an install line",
        |rig| {
            rig.configure("x.conf", "install ib_uverbs touch /tmp/evil\n");
            "ib_uverbs"
        },
        Expected::Denied(Denier::InstallLine),
    ),
    (
        "an install line that forbids",
        |rig| {
            rig.configure("x.conf", "install ib_uverbs /bin/false\n");
            "ib_uverbs"
        },
        Expected::Denied(Denier::InstallLine),
    ),
    (
        "an install line for a dependency",
        |rig| {
            rig.configure("x.conf", "install ib_c* /bin/true\n");
            "ib_uverbs"
        },
        Expected::Denied(Denier::InstallLine),
    ),
    (
        "an install line that makes a module",
        |rig| {
            rig.configure("x.conf", "install evil touch /tmp/evil\n");
            "evil"
        },
        Expected::Denied(Denier::InstallLine),
    ),
    (
        "a blacklist in a file",
        |rig| {
            rig.configure("x.conf", "blacklist ib-uverbs\n");
            "ib_uverbs"
        },
        Expected::Denied(Denier::Blacklist),
    ),
    (
        "a blacklist for modprobe on the command line",
        |rig| {
            rig.boot_with("modprobe.blacklist=x,ib_uverbs");
            "ib_uverbs"
        },
        Expected::Denied(Denier::KernelCommandLine),
    ),
    (
        "a blacklist for the kernel on the command line",
        |rig| {
            rig.boot_with("module_blacklist=ib_uverbs");
            "ib_uverbs"
        },
        Expected::Denied(Denier::KernelCommandLine),
    ),
    (
        "a blacklist for the kernel that names a dependency",
        |rig| {
            rig.boot_with("module_blacklist=x,ib_core");
            "ib_uverbs"
        },
        Expected::Denied(Denier::KernelCommandLine),
    ),
    (
        "a command line longer than modprobe reads, with a quote that never ends",
        |rig| {
            let long = format!("module_blacklist=ib_uverbs {} a.b=\"", "x".repeat(9000));
            rig.boot_with(&long);
            "ib_uverbs"
        },
        Expected::Denied(Denier::KernelCommandLine),
    ),
    (
        "an index of another format",
        |rig| {
            damage(rig, |bytes| bytes[5] = 3);
            "ib_uverbs"
        },
        Expected::VerdictError("format 3"),
    ),
    (
        "an index that is none",
        |rig| {
            damage(rig, |bytes| bytes[0] = 0);
            "ib_uverbs"
        },
        Expected::VerdictError("not a depmod index"),
    ),
    (
        "an index whose root leads nowhere",
        |rig| {
            damage(rig, |bytes| bytes[9..12].fill(0xff));
            "ib_uverbs"
        },
        Expected::VerdictError("corrupt"),
    ),
    (
        "a file that is a link out of the tree, to where others can write",
        |rig| {
            let outside = rig.dir.path().join("outside.ko");
            fs::write(&outside, b"\xfd7zXZ\0").unwrap();
            replace(rig, |path| symlink(outside, path).unwrap());
            "ib_uverbs"
        },
        Expected::Failed("EPERM"),
    ),
    (
        "a file that is a link to nothing",
        |rig| {
            replace(rig, |path| symlink("/nonexistent", path).unwrap());
            "ib_uverbs"
        },
        Expected::Failed("ENOENT"),
    ),
    (
        "a file that is a directory",
        |rig| {
            replace(rig, |path| fs::create_dir(path).unwrap());
            "ib_uverbs"
        },
        Expected::Failed("EPERM"),
    ),
    (
        "a file that is a device",
        |rig| {
            replace(rig, |path| symlink("/dev/zero", path).unwrap());
            "ib_uverbs"
        },
        Expected::Failed("EPERM"),
    ),
    (
        "a file that is a FIFO",
        |rig| {
            replace(rig, make_fifo);
            "ib_uverbs"
        },
        Expected::Failed("EPERM"),
    ),
    (
        "a file that all may write",
        |rig| {
            let path = rig.module_file("core/ib_core.ko.xz");
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            "ib_uverbs"
        },
        Expected::Failed("EPERM"),
    ),
    (
        "a file that is gone",
        |rig| {
            replace(rig, |_| ());
            "ib_uverbs"
        },
        Expected::Failed("ENOENT"),
    ),
    (
        "a file that only pretends to be compressed, as the kernel does not",
        |rig| {
            replace(rig, |path| fs::write(path, b"\x1f\x8bevil").unwrap());
            "ib_uverbs"
        },
        Expected::Failed("EINVAL"),
    ),
    (
        "parameters longer than a page",
        |rig| {
            let line = format!("options ib_core x={}\n", "y".repeat(MAX_PARAMETERS));
            rig.configure("x.conf", &line);
            "ib_uverbs"
        },
        Expected::Failed("E2BIG"),
    ),
    (
        "a configuration file that is a FIFO",
        |rig| {
            make_fifo(&rig.dir.path().join("modprobe.d/x.conf"));
            "ib_uverbs"
        },
        Expected::VerdictError("x.conf"),
    ),
    (
        "a configuration file of megabytes",
        |rig| {
            let path = rig.dir.path().join("modprobe.d/x.conf");
            File::create(path).unwrap().set_len(17 << 20).unwrap();
            "ib_uverbs"
        },
        Expected::VerdictError("longer than"),
    ),
    (
        "a machine without /proc",
        |rig| {
            fs::remove_file(rig.dir.path().join("cmdline")).unwrap();
            "ib_uverbs"
        },
        Expected::VerdictError("cmdline"),
    ),
    (
        "a machine without /sys",
        |rig| {
            fs::remove_dir_all(rig.dir.path().join("sys")).unwrap();
            "ib_uverbs"
        },
        Expected::VerdictError("sysfs"),
    ),
    (
        "more configuration files than anybody means",
        |rig| {
            for number in 0..=10_000 {
                rig.configure(&format!("{number}.conf"), "");
            }
            "ib_uverbs"
        },
        Expected::VerdictError("configuration files"),
    ),
    (
        "soft dependencies without an end",
        |rig| {
            let line = format!("softdep * pre:{}\n", " ib_umad".repeat(20_000));
            rig.configure("x.conf", &line);
            "ib_uverbs"
        },
        Expected::VerdictError("soft dependencies"),
    ),
];

/// Changes the index of dependencies.
fn damage(rig: &Rig, change: impl FnOnce(&mut Vec<u8>)) {
    let path = rig.dir.path().join("modules/6.12/modules.dep.bin");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Replaces the file of ib_core.
fn replace(rig: &Rig, put: impl FnOnce(&Path)) {
    let path = rig.module_file("core/ib_core.ko.xz");
    fs::remove_file(&path).unwrap();
    put(&path);
}

#[test]
fn hostile_requests_and_configurations_never_reach_the_kernel() {
    for (case, prepare, expected) in CASES {
        let rig = Rig::new(&ALLOWED, &[]);
        let name = prepare(&rig);
        let result = rig.load(name);
        let message = result.message.clone().unwrap_or_default();
        match expected {
            Expected::Denied(by) => {
                assert_eq!(result.outcome, Outcome::Denied, "{case}: {result:?}");
                assert_eq!(result.denied_by, Some(*by), "{case}");
                let told = result.source.is_some() || *by == Denier::Policy;
                assert!(told && !message.is_empty(), "{case}: {result:?}");
            }
            Expected::Failed(errno) => {
                assert_eq!(result.outcome, Outcome::Failed, "{case}: {result:?}");
                assert_eq!(result.errno_name.as_deref(), Some(*errno), "{case}");
                assert!(message.contains("ib_core") || message.contains('/') || *errno == "E2BIG");
            }
            Expected::Missing => {
                assert_eq!(result.outcome, Outcome::Missing, "{case}: {result:?}");
                assert!(!message.is_empty(), "{case}");
            }
            Expected::VerdictError(says) => {
                assert_eq!(result.outcome, Outcome::Failed, "{case}: {result:?}");
                assert!(message.contains(says), "{case}: {message}");
            }
        }
        assert_eq!(rig.given(), Vec::<String>::new(), "{case}");
        // The loader keeps working: each request gets its results.
        rig.load("nosuch");
    }
}

#[test]
fn a_truncated_or_damaged_index_never_loads_an_unrelated_module() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let path = rig.dir.path().join("modules/6.12/modules.dep.bin");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..at]).unwrap();
        rig.load("ib_uverbs");
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        fs::write(&path, flipped).unwrap();
        rig.load("ib_uverbs");
    }
    for module in rig.given() {
        assert!(
            ["ib_core", "ib_uverbs"].contains(&module.as_str()),
            "{module}"
        );
    }
}

#[test]
fn a_cycle_of_soft_dependencies_ends_and_the_modules_are_loaded() {
    let rig = Rig::new(&ALLOWED, &[]);
    let lines = "softdep ib_uverbs pre: ib_umad post: ib_uverbs\nsoftdep ib_umad pre: ib_uverbs\n";
    rig.configure("x.conf", lines);
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
    assert_eq!(rig.given().len(), 3);
}

#[test]
fn odd_bytes_in_a_configuration_file_affect_only_their_own_line() {
    let rig = Rig::new(&ALLOWED, &[]);
    for (name, text) in [
        ("bom.conf", "\u{feff}blacklist ib_uverbs\n"),
        ("crlf.conf", "blacklist ib_uverbs\r\n"),
        ("nul.conf", "blacklist ib_uverbs\0\0\0x\0"),
        ("open.conf", "blacklist"),
        ("long.conf", &"x".repeat(8 << 20)),
    ] {
        rig.configure(name, text);
    }
    // Only the line that a NUL ends is a blacklist line.
    let result = rig.load("ib_uverbs");
    assert_eq!(result.denied_by, Some(Denier::Blacklist));
    assert!(result.source.unwrap().ends_with("nul.conf:1"));
}

#[test]
fn a_load_during_a_swap_of_the_index_succeeds_or_fails_cleanly() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let path = rig.dir.path().join("modules/6.12/modules.dep.bin");
    let whole = fs::read(&path).unwrap();
    thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            for number in 0..200 {
                let next = path.with_extension("new");
                let end = if number % 2 == 0 { whole.len() } else { 0 };
                fs::write(&next, &whole[..end]).unwrap();
                fs::rename(&next, &path).unwrap();
            }
        });
        while !swapping.is_finished() {
            let outcome = rig.load("ib_uverbs").outcome;
            let expected = [Outcome::Loaded, Outcome::AlreadyLoaded, Outcome::Failed];
            assert!(expected.contains(&outcome), "{outcome:?}");
        }
    });
}

//! The loader on a real kernel. It leaves the same modules as modprobe, and it reports when the
//! kernel, a file or a line of configuration prevents a load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use crate::rig::{self, Evidence};

const KERNEL_LINE: &str = "rdma_test.loader module_blacklist=ib_srpt modprobe.blacklist=ib_isert \
                           ib_srp.cmd_sg_entries=33";

static LOADER: LazyLock<Evidence> =
    LazyLock::new(|| rig::boot_with("vm", &[], "vm-loader", &[&images()], KERNEL_LINE));
static SIG_ENFORCE: LazyLock<Evidence> =
    LazyLock::new(|| locked("vm-sig-enforce", "module.sig_enforce=1"));
static LOCKDOWN: LazyLock<Evidence> = LazyLock::new(|| locked("vm-lockdown", "lockdown=integrity"));

fn locked(name: &str, argument: &str) -> Evidence {
    let line = format!("rdma_test.locked {argument}");
    rig::boot_with("vm", &[], name, &[&images()], &line)
}

/// Creates a layer with the guest's ib_umad in all states that a file can have. Created once.
fn images() -> PathBuf {
    static LAYER: LazyLock<PathBuf> = LazyLock::new(|| {
        let layer = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-images");
        let images = layer.join("usr/lib/rdma-hotplug-tests/images");
        fs::create_dir_all(&images).unwrap();
        let compressed = fs::read(guests_umad()).unwrap();
        let signed = xz_decompressed(&guests_umad());
        let mut flipped = signed.clone();
        // A place in the middle is in the code.
        flipped[signed.len() / 2] ^= 1;
        for (name, content) in [
            ("truncated", &compressed[..compressed.len() / 2]),
            ("junk", b"this is no module"),
            ("flipped", &flipped),
            ("unsigned", without_signature(&signed)),
            ("empty", b""),
        ] {
            fs::write(images.join(name), content).unwrap();
        }
        fs::write(images.join("gzip"), gzip(&signed)).unwrap();
        layer
    });
    LAYER.clone()
}

fn guests_umad() -> PathBuf {
    let tree = std::env::var_os("RDMA_HOTPLUG_TREE").expect("integration/run-tests sets it");
    let modules = Path::new(&tree).join("root/usr/lib/modules");
    let release = fs::read_dir(modules).unwrap().next().unwrap().unwrap();
    let release = release.path();
    release.join("kernel/drivers/infiniband/core/ib_umad.ko.xz")
}

fn xz_decompressed(path: &Path) -> Vec<u8> {
    let output = Command::new("xz").arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "xz: {}", output.status);
    output.stdout
}

fn gzip(input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("gzip");
    command
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    output.stdout
}

/// Returns a module without the data that `scripts/sign-file` appends: the signature, 12 bytes that
/// end with its length, and a magic string.
fn without_signature(module: &[u8]) -> &[u8] {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    let rest = module.strip_suffix(MAGIC).expect("it is signed");
    let (rest, length) = rest.split_last_chunk::<4>().unwrap();
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
    &rest[..rest.len() - 8 - length]
}

fn result(evidence: &Evidence, name: &str) -> Value {
    evidence.json(name)["results"][0].clone()
}

fn assert_failed(evidence: &Evidence, name: &str, errno: &str) {
    let result = result(evidence, name);
    assert_eq!(result["outcome"], "failed", "{name}: {result}");
    assert_eq!(result["errnoName"], errno, "{name}: {result}");
    assert!(result["message"].is_string(), "{name}: {result}");
}

fn assert_denied(evidence: &Evidence, name: &str, by: &str, source: &str) {
    let result = result(evidence, name);
    assert_eq!(result["outcome"], "denied", "{name}: {result}");
    assert_eq!(result["deniedBy"], by, "{name}: {result}");
    assert_eq!(result["source"], source, "{name}: {result}");
}

#[test]
fn the_loader_leaves_the_same_modules_and_parameters_as_modprobe() {
    let results = LOADER.json("allowed/loaded");
    let results = results["results"].as_array().unwrap();
    let outcome = |module: &str| {
        let found = results.iter().find(|result| result["module"] == module);
        found.unwrap_or_else(|| panic!("{module}"))["outcome"].clone()
    };
    for module in [
        "ib_uverbs",
        "rdma_ucm",
        "ib_iser",
        "rpcrdma",
        "qedr",
        "rds_rdma",
    ] {
        assert_eq!(outcome(module), "loaded", "{module}");
    }
    assert_eq!(outcome("opa_vnic"), "missing");
    assert_eq!(outcome("ib_srpt"), "denied");
    assert_eq!(outcome("ib_isert"), "denied");
    LOADER.assert_succeeded("allowed/unload");
    let live = LOADER.text("allowed/live");
    assert!(live.lines().count() > 20, "{live}");
    assert_eq!(live, LOADER.text("allowed/modprobe-live"));
    let parameters = LOADER.text("allowed/parameters");
    assert!(
        parameters.contains("ib_iser/parameters/max_lun:17"),
        "{parameters}"
    );
    assert!(
        parameters.contains("ib_srp/parameters/cmd_sg_entries:33"),
        "{parameters}"
    );
    assert_eq!(parameters, LOADER.text("allowed/modprobe-parameters"));
}

#[test]
fn each_request_is_logged_in_one_line_with_its_caller_and_its_outcome() {
    let log = LOADER.text("allowed/log");
    let records = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<Value> = records
        .filter(|record: &Value| {
            let message = record["MESSAGE"].as_str().unwrap_or_default();
            message.starts_with("load: ")
        })
        .collect();
    assert_eq!(records.len(), 1, "{log}");
    let record = &records[0];
    let message = record["MESSAGE"].as_str().unwrap();
    assert!(
        message.contains("ib_srpt=denied by kernelCommandLine"),
        "{message}"
    );
    assert_eq!(
        record["F_PEER_UID"]
            .as_str()
            .or(record["PEER_UID"].as_str()),
        Some("0")
    );
    assert!(log.contains("ib_core"), "{log}");
}

#[test]
fn the_kernels_error_for_a_bad_file_is_reported_by_its_name() {
    for (image, errno) in [
        ("truncated", "EINVAL"),
        ("junk", "ENOEXEC"),
        ("flipped", "EKEYREJECTED"),
        ("empty", "EINVAL"),
        ("writable", "EPERM"),
        ("busy", "ETXTBSY"),
        ("gone", "ENOENT"),
    ] {
        assert_failed(&LOADER, &format!("images/{image}"), errno);
    }
}

#[test]
fn a_file_that_the_kernel_accepts_is_loaded() {
    // Like modprobe, the loader can load a file that only root can read.
    for image in ["unsigned", "gzip", "unreadable", "whole"] {
        let result = result(&LOADER, &format!("images/{image}"));
        assert_eq!(result["outcome"], "loaded", "{image}: {result}");
    }
}

#[test]
fn the_source_of_a_denial_is_named() {
    let line = "the kernel command line";
    assert_denied(
        &LOADER,
        "configuration/kernel-blacklist",
        "kernelCommandLine",
        line,
    );
    assert_denied(
        &LOADER,
        "configuration/modprobe-blacklist",
        "kernelCommandLine",
        line,
    );
    let file = "/etc/modprobe.d/test.conf:1";
    assert_denied(&LOADER, "configuration/install-line", "installLine", file);
    let install = result(&LOADER, "configuration/install-line");
    assert_eq!(install["command"], "touch /run/install-line-ran");
    assert!(!LOADER.succeeded("configuration/install-line-ran"));
    assert_denied(&LOADER, "configuration/blacklist", "blacklist", file);
    assert_failed(&LOADER, "configuration/bad-parameter", "EINVAL");
    let unknown = result(&LOADER, "configuration/unknown-parameter");
    assert_eq!(unknown["outcome"], "loaded", "{unknown}");
}

/// Cases S1 and S2 (RHEL9-CIS#219, #285; secureblue#391, security-misc#50).
#[test]
fn files_that_only_root_can_read_count_as_they_do_for_modprobe() {
    // A file of modprobe.d of mode 0600 and module trees of mode 0700.
    let secret = result(&LOADER, "configuration/secret");
    assert_eq!(secret["outcome"], "loaded", "{secret}");
    let file = "/etc/modprobe.d/test.conf:1";
    assert_denied(&LOADER, "configuration/secret-ban", "blacklist", file);
    let live = LOADER.text("configuration/live");
    assert!(live.lines().any(|module| module == "ib_umad"), "{live}");
    assert!(!live.lines().any(|module| module == "ib_iser"), "{live}");
    // After the removal of the file, it forbids nothing.
    assert_eq!(LOADER.json("configuration/explain")["outcome"], "loaded");
}

#[test]
fn a_link_that_was_added_after_the_start_fails_the_load_with_eagain_and_is_named() {
    let before = result(&LOADER, "configuration/opted-in-before");
    assert_eq!(before["outcome"], "failed", "{before}");
    assert_eq!(before["errnoName"], "EAGAIN", "{before}");
    let message = before["message"].as_str().unwrap();
    assert!(message.contains("/etc/modprobe.d/"), "{message}");
}

#[test]
fn opt_in_mode_hides_a_driver_from_udev_and_not_from_the_loader() {
    let live = LOADER.text("configuration/opted-in-udev");
    assert!(!live.lines().any(|module| module == "mlx5_ib"), "{live}");
    let result = result(&LOADER, "configuration/opted-in");
    assert_eq!(result["outcome"], "loaded", "{result}");
}

#[test]
fn a_load_with_modules_disabled_fails_and_the_reason_is_shown() {
    assert_failed(&LOADER, "disabled/disabled", "EPERM");
    let message = result(&LOADER, "disabled/disabled")["message"].clone();
    assert!(
        message.as_str().unwrap().contains("modules_disabled"),
        "{message}"
    );
}

#[test]
fn the_module_list_is_loaded_as_by_modprobe_and_both_times_are_printed() {
    let seconds = |who: &str, round: usize| {
        let uptime = |when: &str| -> f64 {
            let text = LOADER.text(&format!("speed/{who}-{round}.{when}"));
            text.split(' ').next().unwrap().parse().unwrap()
        };
        uptime("after") - uptime("before")
    };
    for round in 1..=3 {
        // Both leave the same modules, so the times are comparable.
        let live = |who: &str| LOADER.text(&format!("speed/{who}-{round}.live"));
        assert_eq!(live("loader"), live("modprobe"));
        println!(
            "round {round}: loader {:.2} s, modprobe -a {:.2} s of guest time",
            seconds("loader", round),
            seconds("modprobe", round)
        );
    }
}

#[test]
fn only_signed_modules_are_loaded_under_sig_enforce() {
    assert_failed(&SIG_ENFORCE, "locked/unsigned", "EKEYREJECTED");
    assert_failed(&SIG_ENFORCE, "locked/flipped", "EKEYREJECTED");
    assert_eq!(result(&SIG_ENFORCE, "locked/signed")["outcome"], "loaded");
}

#[test]
fn only_signed_modules_are_loaded_under_lockdown() {
    assert_failed(&LOCKDOWN, "locked/unsigned", "EPERM");
    let message = result(&LOCKDOWN, "locked/unsigned")["message"].clone();
    assert!(message.as_str().unwrap().contains("lockdown"), "{message}");
    assert_eq!(result(&LOCKDOWN, "locked/signed")["outcome"], "loaded");
}

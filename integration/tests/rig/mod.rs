//! The two rigs that boot a guest: the parameters of a boot, and the evidence that its scenario
//! kept. Must never guess paths: `integration/run-tests` passes them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Serializes the boots: two guests would compete for the processors, and their measurements would
/// be useless.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The evidence of one boot.
pub struct Evidence {
    /// The directory of the evidence. It has one directory per case, with the output of each
    /// command.
    pub results: PathBuf,
}

/// Boots the guest of `rig` (`vm` or `container`) with the staged files and the rig's own layer
/// over it, and returns the evidence. `name` tells boots of one rig apart. `options` come first.
///
/// # Panics
/// Panics if the guest does not switch itself off, or if its scenario fails.
pub fn boot_with(
    rig: &str,
    options: &[&OsStr],
    name: &str,
    layers: &[&Path],
    append: &str,
) -> Evidence {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&results);
    let mut command = Command::new(here.join(rig).join("boot"));
    command
        .args(options)
        .arg("--tree")
        .arg(given("RDMA_HOTPLUG_TREE"))
        .arg("--results")
        .arg(&results)
        .arg("--layer")
        .arg(given("RDMA_HOTPLUG_STAGED"))
        .arg("--layer")
        .arg(here.join(rig).join("layer"));
    for layer in layers {
        command.arg("--layer").arg(layer);
    }
    let output = command.args(["--append", append]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{rig}/boot: {said}");
    #[expect(
        clippy::print_stderr,
        reason = "of a run that was begun again, and why"
    )]
    if !said.is_empty() {
        eprint!("{said}");
    }
    let evidence = Evidence { results };
    assert_eq!(
        evidence.text("scenario.exit"),
        "success exited 0",
        "{}",
        evidence.text("scenario.log")
    );
    evidence
}

pub fn given(variable: &str) -> PathBuf {
    env::var_os(variable).map_or_else(
        || panic!("{variable} is not set: integration/run-tests runs this rung"),
        PathBuf::from,
    )
}

impl Evidence {
    /// Returns the output kept under `name`, without trailing white space.
    pub fn text(&self, name: &str) -> String {
        let path = self.results.join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim_end().to_owned()
    }

    /// Returns the JSON output kept under `name`.
    pub fn json(&self, name: &str) -> serde_json::Value {
        let text = self.text(name);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}: {text}"))
    }

    /// Returns true if the command kept under `name` succeeded.
    pub fn succeeded(&self, name: &str) -> bool {
        self.text(&format!("{name}.status")) == "0"
    }

    /// Fails unless the command kept under `name` succeeded.
    pub fn assert_succeeded(&self, name: &str) {
        let errors = self.text(&format!("{name}.err"));
        assert!(
            self.succeeded(name),
            "{name}: {}\n{errors}",
            self.text(name)
        );
    }

    /// Returns the varlink error of the call kept under `name`.
    pub fn varlink_error(&self, name: &str) -> String {
        assert!(!self.succeeded(name), "{name}: {}", self.text(name));
        let errors = self.text(&format!("{name}.err"));
        let error = errors.split("failed: ").nth(1).unwrap_or(&errors);
        error.lines().next().unwrap_or_default().to_owned()
    }

    /// Fails unless the caller kept under `name` was refused when it connected.
    pub fn assert_not_admitted(&self, name: &str) {
        let errors = self.text(&format!("{name}.err"));
        let refused = !self.succeeded(name) && errors.contains("Permission denied");
        assert!(refused, "{name}: {}\n{errors}", self.text(name));
    }

    /// Returns a property of one unit from the output of `systemctl show --property=Id,…`.
    pub fn property(&self, name: &str, unit: &str, property: &str) -> String {
        let text = self.text(name);
        let blocks: Vec<&str> = text.split("\n\n").collect();
        let id = format!("Id={unit}");
        let block = blocks.iter().find(|b| b.lines().any(|line| line == id));
        let block = block.unwrap_or_else(|| panic!("{unit} is not in {name}: {text}"));
        let prefix = format!("{property}=");
        let value = block.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_default().to_owned()
    }

    /// Returns a time in µs of guest time from such an output.
    pub fn microseconds(&self, name: &str, unit: &str, property: &str) -> u64 {
        self.property(name, unit, property).parse().unwrap()
    }
}

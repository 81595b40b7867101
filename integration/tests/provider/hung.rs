//! Modules whose initialisation does not end, on a real kernel and under a real service manager:
//! the operations that they delay, and those that they do not. The rig checks that the guest
//! switches itself off.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use crate::rig::{self, Evidence};

/// The number of modules that hung.sh loads before the restart.
const HUNG: usize = 19;

static BOOT: LazyLock<Evidence> = LazyLock::new(|| {
    let kernel = rig::given("RDMA_HOTPLUG_KERNEL_TRIXIE");
    let options = ["--kernel".as_ref(), kernel.as_os_str()];
    rig::boot_with("vm", &options, "vm-hung", &[&impatient()], "rdma_test.hung")
});

/// Creates a layer with a service manager whose two stop timeouts are 5 s each, instead of 90 s.
fn impatient() -> PathBuf {
    let layer = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-impatient");
    let directory = layer.join("usr/lib/systemd/system.conf.d");
    fs::create_dir_all(&directory).unwrap();
    let text = "[Manager]\nDefaultTimeoutStopSec=5s\n";
    fs::write(directory.join("impatient.conf"), text).unwrap();
    layer
}

fn outcomes(name: &str) -> Vec<String> {
    let reply = BOOT.json(&format!("hung/{name}"));
    let results = reply["results"].as_array().unwrap();
    let outcome = |result: &Value| result["outcome"].as_str().unwrap().to_owned();
    results.iter().map(outcome).collect()
}

fn seconds(name: &str) -> f64 {
    let text = BOOT.text(&format!("hung/{name}"));
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Returns the modules that are being loaded, each with its start time in µs.
fn loading(name: &str) -> Vec<(String, i64)> {
    let described = BOOT.json(&format!("hung/{name}"));
    let loading = described["loading"].as_array().unwrap().iter();
    let loading = loading.map(|loading| {
        let module = loading["module"].as_str().unwrap().to_owned();
        (module, loading["sinceUSec"].as_i64().unwrap())
    });
    loading.collect()
}

#[test]
fn hung_modules_delay_no_other_load_and_are_listed_with_their_start_time() {
    BOOT.assert_succeeded("hung/tree");
    BOOT.assert_succeeded("hung/all-hang");
    assert_eq!(outcomes("first"), vec!["loading"; HUNG]);
    assert_eq!(BOOT.text("hung/states"), "coming");
    let mut named = loading("described");
    named.sort();
    assert_eq!(named.len(), HUNG);
    #[expect(
        clippy::cast_precision_loss,
        reason = "µs of a guest that is minutes old"
    )]
    for (module, since) in named {
        assert!(module.starts_with("rdma_test_sleeper_"), "{module}");
        let since = since as f64 / 1e6;
        let (began, ended) = (seconds("began"), seconds("stop-begins"));
        assert!((began - 1.0..=ended).contains(&since), "{module}: {since}");
    }
    assert_eq!(outcomes("meanwhile"), ["loaded"]);
    BOOT.assert_succeeded("hung/told");
    let log = BOOT.text("hung/log");
    let told = |module: usize| {
        let line = format!("rdma_test_sleeper_{module} takes longer");
        log.matches(&line).count()
    };
    assert_eq!(told(2), 1, "{log}");
}

#[test]
fn the_loader_restarts_within_seconds_despite_hung_modules_and_loads_others() {
    for restart in ["stop", "kill"] {
        BOOT.assert_succeeded(&format!("hung/{restart}"));
        BOOT.assert_succeeded(&format!("hung/{restart}-serves"));
        let took = seconds(&format!("{restart}-ends")) - seconds(&format!("{restart}-begins"));
        println!("{restart}: {took:.2} s of guest time");
        // The loader takes 4 s, and an emulated service manager the rest.
        assert!(took < 10.0, "{restart}: {took}");
    }
    assert_ne!(BOOT.text("hung/stop-pid"), BOOT.text("hung/kill-pid"));
    assert_eq!(outcomes("later"), ["loaded"]);
    assert_eq!(outcomes("last"), ["loaded"]);
    let failed = BOOT.text("hung/failed-units");
    assert!(!failed.contains("rdma-loader"), "{failed}");
}

#[test]
fn a_hung_module_is_left_to_the_kernel_and_a_second_load_waits_for_the_first() {
    // The inserting processes: the first two loaders', and then the third's too.
    assert_eq!(BOOT.text("hung/left-over").lines().count(), 2);
    assert_eq!(BOOT.text("hung/left-over-last").lines().count(), 3);
    assert_eq!(outcomes("second"), ["loading", "loading"]);
    let mut named: Vec<String> = loading("described-again")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    named.sort();
    assert_eq!(named, ["rdma_test_sleeper_1", "rdma_test_sleeper_20"]);
    assert_eq!(BOOT.text("hung/still"), "coming");
    let kernel = BOOT.text("hung/kernel-log");
    assert!(
        !kernel.contains("BUG:") && !kernel.contains("Oops"),
        "{kernel}"
    );
}

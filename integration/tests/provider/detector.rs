//! The detector on the kernels of Debian 13 and Debian 12, with devices of all kinds. Its records
//! equal the output of rdma(8) and sysfs, field by field, after each change, and no subscriber
//! misses an event in a storm. The cost of a storm in time and memory, compared with udevd, is a
//! benchmark of the feature `benchmark`, which `integration/run-tests` leaves out. Must never trust
//! the detector's output in a guest without comparing it with the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use crate::rig::{self, Evidence};

static TRIXIE: LazyLock<Evidence> = LazyLock::new(|| boot("trixie"));
static BOOKWORM: LazyLock<Evidence> = LazyLock::new(|| boot("bookworm"));

fn boot(suite: &str) -> Evidence {
    let kernel = rig::given(&format!("RDMA_HOTPLUG_KERNEL_{}", suite.to_uppercase()));
    let options = [
        "--kernel".as_ref(),
        kernel.as_os_str(),
        "--timeout".as_ref(),
        OsStr::new("1200"),
    ];
    let costs = match cfg!(feature = "benchmark") {
        true => " rdma_test.costs",
        false => "",
    };
    let line = format!(
        "rdma_test.detector rdma_test.storm rdma_test.kills={}{costs}",
        kills()
    );
    // The rig's own option comes first.
    rig::boot_with(
        "vm",
        &options,
        &format!("vm-detector-{suite}"),
        &[&witness()],
        &line,
    )
}

/// Returns the number of times that the detector is killed in a storm. Each takes seconds under
/// emulation.
fn kills() -> i64 {
    let kills = std::env::var("RDMA_HOTPLUG_KILLS").ok();
    kills.map_or(20, |kills| kills.parse().unwrap())
}

/// Creates a layer with the witness.
fn witness() -> PathBuf {
    let layer = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-witness");
    let programs = layer.join("usr/lib/rdma-hotplug-tests");
    fs::create_dir_all(&programs).unwrap();
    fs::copy(rig::given("RDMA_HOTPLUG_WITNESS"), programs.join("witness")).unwrap();
    layer
}

/// Runs a check on both kernels: the one with the RDMA monitor and the one without.
fn on_both(judge: impl Fn(&Evidence)) {
    for (kernel, evidence) in [("trixie", &TRIXIE), ("bookworm", &BOOKWORM)] {
        println!("on the kernel of {kernel}");
        judge(evidence);
    }
}

/// Returns the devices that the detector reported in a case, by name.
fn told(evidence: &Evidence, name: &str) -> BTreeMap<String, Value> {
    if !evidence.succeeded(name) {
        return BTreeMap::new();
    }
    let replies = evidence.json(name);
    let devices = replies.as_array().unwrap().iter();
    let devices = devices.map(|reply| reply["device"].clone());
    devices
        .map(|d| (d["name"].as_str().unwrap().to_owned(), d))
        .collect()
}

/// Fails unless all steps of a case succeeded.
fn assert_all_succeeded(evidence: &Evidence, case: &str) {
    let files = fs::read_dir(evidence.results.join(case)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = names.filter(|name| name.ends_with(".status")).collect();
    assert!(!kept.is_empty(), "nothing was kept in {case}");
    for name in kept {
        let name = name.trim_end_matches(".status");
        evidence.assert_succeeded(&format!("{case}/{name}"));
    }
}

/// Returns the attributes of sysfs that were kept, by path.
fn sysfs(evidence: &Evidence, case: &str) -> BTreeMap<String, String> {
    let text = evidence.text(&format!("{case}/sysfs"));
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    // A GUID contains colons as well: the path ends at the first colon.
    lines
        .map(|(path, value)| (path.to_owned(), value.trim().to_owned()))
        .collect()
}

fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// Compares each field of each record of a case with rdma(8) and sysfs.
fn assert_true(evidence: &Evidence, case: &str) {
    let told = told(evidence, &format!("{case}/told"));
    let sysfs = sysfs(evidence, case);
    let devices = evidence.json(&format!("{case}/dev"));
    let links = evidence.json(&format!("{case}/link"));
    let names: BTreeSet<&str> = devices
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["ifname"].as_str().unwrap())
        .collect();
    assert_eq!(
        told.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        names,
        "{case}"
    );
    for device in devices.as_array().unwrap() {
        let name = device["ifname"].as_str().unwrap();
        let record = &told[name];
        let attribute = |path: &str| sysfs.get(&format!("{name}/{path}")).map(String::as_str);
        let field = |field: &str| record[field].as_str();
        assert_eq!(record["index"], device["ifindex"], "{case}: {name}");
        assert_eq!(field("nodeGUID"), attribute("node_guid"), "{case}: {name}");
        assert_eq!(
            field("systemImageGUID"),
            attribute("sys_image_guid"),
            "{case}: {name}"
        );
        assert_eq!(
            field("firmwareVersion"),
            attribute("fw_ver"),
            "{case}: {name}"
        );
        assert_eq!(field("boardID"), attribute("board_id"), "{case}: {name}");
        // sysfs has `1: CA`, the detector has `CA`.
        let node_type = attribute("node_type").and_then(|t| t.split_once(": "));
        assert_eq!(
            field("nodeType"),
            node_type.map(|(_, name)| name),
            "{case}: {name}"
        );
        assert_eq!(
            field("driver"),
            attribute("driver").map(last_component),
            "{case}: {name}"
        );
        assert_eq!(
            field("module"),
            attribute("module").map(last_component),
            "{case}: {name}"
        );
        assert_eq!(
            field("uverbs"),
            node(&sysfs, name, "", "uverbs"),
            "{case}: {name}"
        );
        assert_eq!(record["inOtherNetns"], false, "{case}: {name}");
        let ports = record["ports"].as_array().unwrap();
        let of_device: Vec<&Value> = links
            .as_array()
            .unwrap()
            .iter()
            .filter(|l| l["ifindex"] == device["ifindex"])
            .collect();
        assert_eq!(ports.len(), of_device.len(), "{case}: {name}");
        for (port, link) in ports.iter().zip(of_device) {
            let number = port["number"].to_string();
            let what = format!("{case}: {name}/{number}");
            assert_eq!(port["number"], link["port"], "{what}");
            let attribute = |file: &str| attribute(&format!("ports/{number}/{file}"));
            assert_eq!(
                port["linkLayer"].as_str(),
                attribute("link_layer"),
                "{what}"
            );
            // sysfs has `4: ACTIVE`, rdma(8) has `ACTIVE`, the detector has `active`.
            assert_eq!(
                port["state"].as_str().unwrap().to_uppercase(),
                link["state"].as_str().unwrap(),
                "{what}"
            );
            assert_eq!(port["netdev"], link["netdev"], "{what}");
            assert_eq!(
                port["speedMbps"].as_i64(),
                attribute("rate").map(rate_in_mbps),
                "{what}"
            );
            assert_eq!(
                port["umad"].as_str(),
                node(&sysfs, name, &number, "umad"),
                "{what}"
            );
            assert_eq!(
                port["issm"].as_str(),
                node(&sysfs, name, &number, "issm"),
                "{what}"
            );
            assert_eq!(
                gid_types(port),
                gid_types_in(&sysfs, name, &number),
                "{what}"
            );
        }
        if let Some(protocol) = device["protocol"].as_str() {
            assert_eq!(port_protocol(&ports[0]), protocol, "{case}: {name}");
        }
    }
}

/// Returns the protocol of a port as rdma(8) names it.
fn port_protocol(port: &Value) -> &str {
    match port["protocol"].as_str().unwrap() {
        "infiniband" => "ib",
        "iwarp" => "iw",
        other => other,
    }
}

/// Parses `100 Gb/sec (4X EDR)`. The number has only decimal digits and a point.
fn rate_in_mbps(rate: &str) -> i64 {
    let gigabits: f64 = rate.split(' ').next().unwrap().parse().unwrap();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rates are whole numbers of Mbit/s"
    )]
    let megabits = (gigabits * 1000.0).round() as i64;
    megabits
}

/// Returns the node of a device and port whose name begins with `kind`.
fn node<'s>(
    sysfs: &'s BTreeMap<String, String>,
    device: &str,
    port: &str,
    kind: &str,
) -> Option<&'s str> {
    let prefix = format!("{device}/node/{port}/{kind}");
    let mut nodes = sysfs.keys().filter(|path| path.starts_with(&prefix));
    nodes.next().map(|path| last_component(path))
}

fn gid_types(port: &Value) -> BTreeSet<String> {
    let types = port["gidTypes"].as_array().unwrap().iter();
    types.map(|t| t.as_str().unwrap().to_owned()).collect()
}

fn gid_types_in(sysfs: &BTreeMap<String, String>, device: &str, port: &str) -> BTreeSet<String> {
    let prefix = format!("{device}/ports/{port}/gid_attrs/types/");
    let types = sysfs.iter().filter(|(path, _)| path.starts_with(&prefix));
    types.map(|(_, kind)| kind.clone()).collect()
}

#[test]
fn the_record_of_each_kind_of_device_equals_the_kernels_data() {
    on_both(|evidence| {
        for (protocol, driver, first, second) in [
            ("ib", "mlx5_core", "infiniband", "infiniband"),
            ("roce", "bnxt_en", "roce", "roce"),
            ("iw", "cxgb4", "iwarp", "iwarp"),
            ("opa", "hfi1", "opa", "opa"),
            ("usnic", "enic", "usnic", "usnic"),
            ("none", "efa", "unknown", "unknown"),
            ("mixed", "mlx4_core", "infiniband", "roce"),
        ] {
            let case = format!("kind-{protocol}");
            assert_all_succeeded(evidence, &case);
            assert_true(evidence, &case);
            let told = told(evidence, &format!("{case}/told"));
            let record = &told[&format!("p_{protocol}")];
            assert_eq!(record["ports"][0]["protocol"], first, "{case}");
            assert_eq!(record["ports"][1]["protocol"], second, "{case}");
            assert_eq!(record["driver"], driver, "{case}");
            assert_eq!(record["kind"], "function", "{case}");
            assert_eq!(record["kernelName"], format!("p_{protocol}"), "{case}");
            assert_eq!(record["netnsMode"], "shared", "{case}");
        }
    });
}

#[test]
fn the_record_of_a_device_equals_the_kernels_data_after_each_change() {
    on_both(|evidence| {
        for case in ["renamed", "port-down", "netdev", "port-type", "came-again"] {
            assert_all_succeeded(evidence, case);
            assert_true(evidence, case);
        }
    });
}

#[test]
fn a_renamed_device_keeps_its_index_and_shows_its_kernel_name() {
    on_both(|evidence| {
        let before = &told(evidence, "kind-ib/told")["p_ib"];
        let after = &told(evidence, "renamed/told")["renamed0"];
        assert_eq!(before["index"], after["index"]);
        assert_eq!(after["kernelName"], "p_ib");
        assert_eq!(before["ports"], after["ports"]);
    });
}

#[test]
fn a_device_that_is_added_again_under_its_name_gets_a_new_index() {
    on_both(|evidence| {
        let before = told(evidence, "came-again/before")["p_none"]["index"].as_i64();
        let after = told(evidence, "came-again/told")["p_none"]["index"].as_i64();
        assert!(after > before, "{before:?} {after:?}");
    });
}

#[test]
fn a_device_in_another_network_namespace_stays_listed_and_is_marked() {
    on_both(|evidence| {
        assert_all_succeeded(evidence, "elsewhere");
        let before = &told(evidence, "elsewhere/before")["moved0"];
        let away = &told(evidence, "elsewhere/away")["moved0"];
        let back = &told(evidence, "elsewhere/told")["moved0"];
        assert_eq!(before["netnsMode"], "exclusive");
        assert_eq!(away["index"], before["index"]);
        assert_eq!(back["index"], before["index"]);
        assert_true(evidence, "elsewhere");
    });
}

#[test]
fn a_function_shows_its_progress_towards_a_device() {
    on_both(|evidence| {
        assert_all_succeeded(evidence, "function");
        assert_true(evidence, "function");
        let functions = evidence.json("function/functions");
        let functions = functions.as_array().unwrap();
        let one = &functions
            .iter()
            .find(|f| f["function"]["name"] == "rdma_provider.rdma.0")
            .unwrap()["function"];
        assert_eq!(one["bus"], "auxiliary");
        assert_eq!(one["state"], "registered");
        assert!(one["waitsFor"].is_null());
        assert!(one["sinceUSec"].as_i64().unwrap() > 0);
    });
}

#[test]
fn a_message_that_is_not_from_the_kernel_is_counted_and_changes_nothing() {
    on_both(|evidence| {
        assert_all_succeeded(evidence, "forged");
        assert_true(evidence, "forged");
        assert!(!told(evidence, "forged/told").contains_key("forged0"));
    });
}

#[test]
fn a_queue_overflow_costs_a_scan_and_no_device() {
    on_both(|evidence| {
        assert_all_succeeded(evidence, "overrun");
        let overruns = evidence.json("overrun/describe")["overruns"]
            .as_i64()
            .unwrap();
        assert!(overruns >= 1);
        assert_true(evidence, "overrun");
        let told = told(evidence, "overrun/told");
        assert_eq!(told.keys().filter(|name| name.starts_with('o')).count(), 60);
    });
}

#[test]
fn the_rdma_monitor_is_used_if_the_kernel_has_it_and_pins_no_module() {
    on_both(|evidence| assert_all_succeeded(evidence, "unloaded"));
    let of = |evidence: &Evidence| evidence.json("forged/describe")["monitor"].clone();
    assert_eq!(of(&TRIXIE), true);
    assert_eq!(of(&BOOKWORM), false);
    let messages = TRIXIE.json("forged/describe")["monitorMessages"]
        .as_i64()
        .unwrap();
    assert!(messages > 0);
}

#[test]
fn the_kernel_logs_no_warning() {
    on_both(|evidence| {
        for case in ["elsewhere", "killed"] {
            let log = evidence.text(&format!("{case}/kernel-log"));
            for word in ["WARNING:", "BUG:", "Oops"] {
                assert!(!log.contains(word), "{case}: {log}");
            }
        }
    });
}

#[test]
fn a_thousand_devices_in_one_storm_reach_every_subscriber() {
    on_both(|evidence| {
        assert_all_succeeded(evidence, "storm");
        let told = told(evidence, "storm/told");
        assert_eq!(told.len(), 1001);
        let report = evidence.json("storm/subscribers");
        assert_eq!(report["same"], true);
        assert_eq!(
            report["contradictions"].as_array().unwrap().len(),
            0,
            "{}",
            report["contradictions"]
        );
        assert_eq!(report["lost"], 0);
        assert_eq!(
            by_index(&report),
            told.values()
                .map(|d| (d["index"].to_string(), d.clone()))
                .collect()
        );
        let later = evidence.json("storm/subscribers-later");
        assert_eq!(later["same"], true);
        assert!(by_index(&later).is_empty());
    });
}

/// Returns the records of the first subscriber, by index.
fn by_index(report: &Value) -> BTreeMap<String, Value> {
    let devices = report["first"]["devices"].as_object().unwrap();
    devices
        .iter()
        .map(|(index, record)| (index.clone(), record.clone()))
        .collect()
}

fn number(evidence: &Evidence, name: &str) -> i64 {
    evidence.text(name).parse().unwrap()
}

#[test]
fn a_detector_that_is_killed_repeatedly_in_a_storm_loses_no_device() {
    on_both(|evidence| {
        assert_all_succeeded(evidence, "killed");
        let restarts = number(evidence, "killed/restarts");
        assert_eq!(
            restarts,
            number(evidence, "killed/restarts-before") + kills()
        );
        let told = told(evidence, "killed/told");
        // One of four devices is left from each storm, and all from the last three.
        let count = usize::try_from(kills()).unwrap();
        assert_eq!(told.len(), count + 3 * 3);
        let report = evidence.json("killed/subscribers");
        assert_eq!(report["same"], true);
        assert_eq!(report["contradictions"].as_array().unwrap().len(), 0);
        assert_eq!(
            by_index(&report),
            told.values()
                .map(|d| (d["index"].to_string(), d.clone()))
                .collect()
        );
        assert_true(evidence, "killed");
    });
}

/// The cost of a storm in time, memory and processor time, which depends on the load of the host.
#[cfg(feature = "benchmark")]
mod costs {
    use super::*;

    /// Returns the guest time in µs, from a copy of /proc/uptime.
    fn uptime(evidence: &Evidence, name: &str) -> i64 {
        let text = evidence.text(name);
        let (seconds, hundredths) = text.split(' ').next().unwrap().split_once('.').unwrap();
        seconds.parse::<i64>().unwrap() * 1_000_000 + hundredths.parse::<i64>().unwrap() * 10_000
    }

    #[test]
    fn the_last_device_of_a_storm_is_published_within_a_second_of_the_kernels_last_add() {
        on_both(|evidence| {
            let added = uptime(evidence, "storm/ended");
            let last = evidence.json("storm/subscribers")["last_event"]
                .as_i64()
                .unwrap();
            let storm = added - uptime(evidence, "storm/began");
            println!(
                "1,000 devices in {} ms; the last event {} ms later",
                storm / 1000,
                (last - added) / 1000
            );
            assert!(last - added < 1_000_000, "{} µs", last - added);
        });
    }

    #[test]
    fn the_detector_frees_its_memory_after_a_storm() {
        on_both(|evidence| {
            let of = |when: &str| {
                number(
                    evidence,
                    &format!("storm/{when}.rdma-detector.service.memory"),
                )
            };
            let (before, after, later) = (of("before"), of("after"), of("later"));
            println!("{before} KiB before, {after} KiB with 1,000 devices, {later} KiB after");
            // The allocator keeps some memory for the next storm.
            assert!(
                later < before + 2048,
                "{before} KiB before, {later} KiB after"
            );
        });
    }

    /// Returns the processor time of a service at that point, in µs: the total, and the part in
    /// user space.
    fn cpu(evidence: &Evidence, when: &str, service: &str) -> (i64, i64) {
        let text = evidence.text(&format!("storm/{when}.{service}.service.cpu"));
        let field = |name: &str| -> i64 {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let (_, value) = lines.find(|(key, _)| *key == name).unwrap();
            value.parse().unwrap()
        };
        (field("usage_usec"), field("user_usec"))
    }

    #[test]
    fn a_storm_costs_at_most_a_tenth_of_the_cpu_time_of_udevd_and_its_workers() {
        on_both(|evidence| {
            let spent = |service: &str| {
                let before = cpu(evidence, "before", service);
                let after = cpu(evidence, "after", service);
                (after.0 - before.0, after.1 - before.1)
            };
            let (ours, theirs) = (spent("rdma-detector"), spent("systemd-udevd"));
            println!(
                "CPU: {} ms, {} of it in user space; systemd-udevd {} ms: 1/{}",
                ours.0 / 1000,
                ours.1 / 1000,
                theirs.0 / 1000,
                theirs.0 / ours.0.max(1)
            );
            assert!(ours.0 > 0 && ours.0 * 10 <= theirs.0);
        });
    }
}

//! The detector's scanner on hosts of many kinds: sysfs trees as the kernel makes them and replies
//! in its wire format, without root and without hardware. Also incremental scans, and random
//! streams of changes with lost events. Must never depend on the devices of the host that runs the
//! tests.
//!
//! Prints its seed. RDMA_HOTPLUG_SEED sets another seed, and RDMA_HOTPLUG_STREAMS the number of
//! streams that start from it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong, and a seed has to be seen"
)]

#[path = "machines/cases.rs"]
mod cases;
#[path = "machines/corrupt.rs"]
mod corrupt;
#[path = "machines/crowd.rs"]
mod crowd;
#[path = "machines/difference.rs"]
mod difference;
#[path = "machines/host.rs"]
mod host;
#[path = "machines/incremental.rs"]
mod incremental;
#[path = "machines/machine.rs"]
mod machine;
#[path = "machines/nldev.rs"]
mod nldev;
#[path = "machines/silent.rs"]
mod silent;
#[path = "machines/stream.rs"]
mod stream;
#[path = "machines/tree.rs"]
mod tree;
#[path = "machines/watcher.rs"]
mod watcher;

use detector::pending::Pending;
use machine::Machine;
use stream::Stream;
use watcher::Watcher;

/// The default number of streams.
const STREAMS: u64 = 100;
/// The default seed of the first stream.
const SEED: u64 = 1;

fn asked_for(variable: &str, otherwise: u64) -> u64 {
    let given = std::env::var(variable).ok();
    let number = given.map_or(otherwise, |number| number.parse().unwrap());
    println!("{variable}={number}");
    number
}

fn watch(machine: &Machine) -> Watcher {
    Watcher::new(machine.tree.root(), &machine.table)
}

#[test]
fn every_simulated_host_yields_its_expected_records() {
    let machines = machine::all();
    assert!(machines.len() >= 13);
    let mut differences = Vec::new();
    for machine in machines {
        let mut watcher = watch(&machine);
        watcher.scan(&Pending::everything()).unwrap();
        let found = difference::between(&machine.expected, &watcher.records());
        differences.extend(found.iter().map(|line| format!("{}: {line}", machine.name)));
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn a_second_scan_publishes_no_event() {
    for machine in machine::all() {
        let mut watcher = watch(&machine);
        watcher.scan(&Pending::everything()).unwrap();
        let (_, events) = watcher.scan(&Pending::everything()).unwrap();
        assert!(events.is_empty(), "{}: {events:?}", machine.name);
    }
}

#[test]
fn netlink_is_queried_only_on_hosts_with_the_rdma_core() {
    for machine in machine::all() {
        watch(&machine).scan(&Pending::everything()).unwrap();
        let asked = machine.table.lock().unwrap().asked > 0;
        let core = machine.tree.has("class/infiniband");
        assert_eq!(asked, core, "{}", machine.name);
    }
}

#[test]
fn a_subscriber_that_follows_the_events_reaches_the_state_of_a_fresh_scan() {
    let seed = asked_for("RDMA_HOTPLUG_SEED", SEED);
    for number in 0..asked_for("RDMA_HOTPLUG_STREAMS", STREAMS) {
        Stream::new(seed.wrapping_add(number)).run();
    }
}

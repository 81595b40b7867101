//! Datagrams on the detector's uevent socket that are not events of the kernel. Each is counted,
//! changes no published record, and hides no later event. Must never treat a datagram as hostile
//! that the kernel could send.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod with_lab;

use std::time::{Duration, Instant};

use integration::host::Hardware;
use integration::lab::Lab;
use interfaces::client::Client;
use interfaces::detector::{DESCRIBE, DescribeArgs, DescribeReply, LIST, ListArgs, ListReply};
use interfaces::detector::{Device, Protocol};
use interfaces::orchestrator::State;
use with_lab::with_lab;

const DETECTOR: &str = "org.rdmahotplug.Detector";
/// The time after which a step counts as failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns an event of a missing device that looks like the kernel's.
fn uevent(path: &str, sequence: &str) -> Vec<u8> {
    let header = format!("add@{path}\0ACTION=add\0DEVPATH={path}\0");
    format!("{header}SUBSYSTEM=infiniband\0SEQNUM={sequence}\0").into_bytes()
}

/// Returns the hostile datagrams, each with a description of its error.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let device = "/devices/virtual/infiniband/forged0";
    let whole = uevent(device, "1");
    let name = |name: &str| uevent(&format!("/devices/virtual/infiniband/{name}"), "1");
    let replaced = |from: &str, to: &[u8]| {
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes());
        let (before, after) = whole.split_at(at.unwrap());
        [before, to, &after[from.len()..]].concat()
    };
    vec![
        ("one NUL", b"\0".to_vec()),
        ("no text", vec![0xff; 512]),
        ("NULs alone", vec![0; 4096]),
        ("no properties", format!("add@{device}").into_bytes()),
        (
            "a message of udev",
            b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28".to_vec(),
        ),
        (
            "longer than any",
            [whole.clone(), vec![b'x'; 8 * 1024]].concat(),
        ),
        ("the longest datagram", vec![b'A'; 100_000]),
        ("a name of 4 KiB", name(&"x".repeat(4096))),
        ("a name of 256 bytes", name(&"x".repeat(256))),
        ("a path of 8 KiB", name(&"x/".repeat(4000))),
        ("a way out", name("../../../../etc/passwd")),
        ("a path that is none", uevent("forged0", "1")),
        ("a terminal's escape", name("\u{1b}[2Jforged0")),
        ("a line of its own", name("forged0\nMESSAGE=forged")),
        ("a control character of Unicode", name("\u{9b}31mforged0")),
        (
            "a name that is no text",
            replaced("forged0", b"\xc3\x28forged"),
        ),
        ("two actions", replaced("add@", b"remove@")),
        (
            "two paths",
            replaced("DEVPATH=/devices", b"DEVPATH=/elsewhere"),
        ),
        ("no subsystem", replaced("SUBSYSTEM=", b"SYSTEM=")),
        ("no number", uevent(device, "")),
        ("a number below 0", uevent(device, "-1")),
        ("a number above all", uevent(device, "18446744073709551616")),
        (
            "too many properties",
            [whole.clone(), b"A=1\0".repeat(1000)].concat(),
        ),
    ]
}

async fn client(lab: &Lab) -> Client {
    Client::connect(&lab.socket(DETECTOR)).await.unwrap()
}

async fn counters(lab: &Lab) -> DescribeReply {
    let mut client = client(lab).await;
    let described = client.call(DESCRIBE, &DescribeArgs {}, TIMEOUT).await;
    described.unwrap()
}

async fn device(lab: &Lab, name: &str) -> Device {
    let only = ListArgs {
        name: Some(name.to_owned()),
        index: None,
    };
    let mut client = client(lab).await;
    let listed: ListReply = client.call(LIST, &only, TIMEOUT).await.unwrap();
    listed.device
}

async fn all_are_counted(lab: &Lab, before: &DescribeReply, count: i64) -> DescribeReply {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let now = counters(lab).await;
        if now.dropped_datagrams >= before.dropped_datagrams + count {
            return now;
        }
        assert!(Instant::now() < deadline, "{now:?}");
    }
}

fn roce(name: &str, address: &str) -> Hardware {
    Hardware {
        name: name.to_owned(),
        driver: "bnxt_en",
        pci_address: address.to_owned(),
        ports: vec![Protocol::Roce],
    }
}

#[test]
fn a_datagram_that_is_not_a_kernel_event_is_counted_and_changes_nothing() {
    with_lab(vec![roce("first0", "0000:01:00.0")], async |lab| {
        // The record of this device no longer changes.
        lab.wait_until("the first device to be ready", |world| {
            world.devices.values().any(|d| d.state == State::Ready)
        })
        .await
        .unwrap();
        let (before, record) = (counters(lab).await, device(lab, "first0").await);
        let hostile = hostile();
        let count = i64::try_from(hostile.len()).unwrap();
        for (what, datagram) in &hostile {
            let sent = lab.kernel().send_datagram(datagram).await;
            assert!(sent.is_ok(), "{what}: {sent:?}");
        }
        let after = all_are_counted(lab, &before, count).await;
        assert_eq!(after.dropped_datagrams, before.dropped_datagrams + count);
        // None of them was taken for an event.
        assert_eq!(after.uevents, before.uevents);
        assert_eq!(after.overruns, before.overruns);
        assert_eq!(device(lab, "first0").await, record);

        lab.kernel().plug(roce("second0", "0000:02:00.0")).unwrap();
        lab.wait_until("the device behind them", |world| {
            world
                .devices
                .values()
                .any(|device| device.name == "second0")
        })
        .await
        .unwrap();
        assert_eq!(device(lab, "first0").await, record);
    });
}

#[test]
fn a_flood_of_invalid_datagrams_blocks_no_caller_and_causes_few_scans() {
    with_lab(vec![roce("first0", "0000:01:00.0")], async |lab| {
        let before = counters(lab).await;
        let (_, long) = hostile().swap_remove(5);
        for _ in 0..10_000 {
            // Waits while the queue is full, so that no datagram is lost and each is counted.
            lab.kernel().send_datagram(&long).await.unwrap();
        }
        let after = all_are_counted(lab, &before, 10_000).await;
        assert_eq!(after.dropped_datagrams, before.dropped_datagrams + 10_000);
        // Each may have hidden an event. One scan covers many of them.
        assert!(after.scans - before.scans < 1_000, "{after:?}");
    });
}

//! The benchmark of the detector's two costs. The first is decoding uevents on one core, compared
//! with the crate kobject-uevent, which decodes the same datagrams. The second is scanning a host
//! with a thousand RDMA devices, whose tree is in a directory and whose `NETLINK_RDMA` is a thread
//! of this process. Prints medians and ratios; that it passes proves nothing.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints, and a panic is how it says what is wrong"
)]

#[path = "../tests/machines/crowd.rs"]
mod crowd;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/machines/nldev.rs"]
mod nldev;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/machines/tree.rs"]
mod tree;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/machines/watcher.rs"]
mod watcher;

use std::hint::black_box;
use std::time::Instant;

use detector::pending::Pending;
use detector::uevent::Uevent;
use kobject_uevent::UEvent;
use watcher::Watcher;

const ROUNDS: usize = 15;
/// The number of datagrams in a round.
const EVENTS: usize = 100_000;
const DEVICES: u32 = 1_000;

fn main() {
    decoding();
    looking();
}

fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}

/// Returns the uevents of a new virtual function of an RDMA device, as the kernel sends them.
fn datagrams() -> Vec<Vec<u8>> {
    const FUNCTION: &str = "/devices/pci0000:c0/0000:c0:01.1/0000:c1:00.2";
    let auxiliary = format!("{FUNCTION}/mlx5_core.rdma.2");
    let events: [(&str, String, &str, &[&str]); 7] = [
        (
            "add",
            FUNCTION.to_owned(),
            "pci",
            &[
                "PCI_CLASS=20000",
                "PCI_ID=15B3:101E",
                "PCI_SUBSYS_ID=15B3:0051",
                "PCI_SLOT_NAME=0000:c1:00.2",
                "MODALIAS=pci:v000015B3d0000101Esv000015B3sd00000051bc02sc00i00",
            ],
        ),
        (
            "bind",
            FUNCTION.to_owned(),
            "pci",
            &["DRIVER=mlx5_core", "PCI_SLOT_NAME=0000:c1:00.2"],
        ),
        (
            "add",
            auxiliary,
            "auxiliary",
            &["MODALIAS=auxiliary:mlx5_core.rdma"],
        ),
        (
            "add",
            format!("{FUNCTION}/net/eth2"),
            "net",
            &["INTERFACE=eth2", "IFINDEX=7"],
        ),
        (
            "add",
            format!("{FUNCTION}/infiniband_verbs/uverbs2"),
            "infiniband_verbs",
            &[
                "MAJOR=231",
                "MINOR=194",
                "DEVNAME=infiniband/uverbs2",
                "DEVMODE=0666",
            ],
        ),
        (
            "add",
            format!("{FUNCTION}/infiniband/mlx5_2"),
            "infiniband",
            &["NAME=mlx5_2"],
        ),
        (
            "change",
            "/devices/virtual/block/dm-0".to_owned(),
            "block",
            &["DM_COOKIE=6334327", "DISK_MEDIA_CHANGE=1", "DEVTYPE=disk"],
        ),
    ];
    let datagram = |(at, (action, path, subsystem, more)): (usize, &(_, String, _, &[&str]))| {
        let more: String = more
            .iter()
            .map(|property| format!("{property}\0"))
            .collect();
        let sequence = 40_000 + at;
        format!(
            "{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM={subsystem}\0\
             {more}SEQNUM={sequence}\0"
        )
        .into_bytes()
    };
    events.iter().enumerate().map(datagram).collect()
}

fn decoding() {
    let datagrams = datagrams();
    let measure = |decode: &dyn Fn(&[u8])| {
        let start = Instant::now();
        for datagram in datagrams.iter().cycle().take(EVENTS) {
            decode(datagram);
        }
        EVENTS as f64 / start.elapsed().as_secs_f64()
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(&|datagram| {
            black_box(Uevent::parse(datagram).unwrap());
        }));
        theirs.push(measure(&|datagram| {
            black_box(UEvent::from_netlink_packet(datagram).unwrap());
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "uevents decoded a second on one core: {ours:.0}, by kobject-uevent {theirs:.0}: \
         {:.1} times as many",
        ours / theirs
    );
}

/// Measures one scan and the events that it produces, in ms.
fn scan(watcher: &mut Watcher, pending: &Pending) -> f64 {
    let start = Instant::now();
    black_box(watcher.scan(pending).unwrap());
    start.elapsed().as_secs_f64() * 1e3
}

fn looking() {
    let (tree, table) = crowd::of_software(DEVICES);
    let mut first = Vec::new();
    for _ in 0..ROUNDS {
        let mut watcher = Watcher::new(tree.root(), &table);
        first.push(scan(&mut watcher, &Pending::everything()));
    }
    let mut watcher = Watcher::new(tree.root(), &table);
    scan(&mut watcher, &Pending::everything());
    let mut one = Pending::default();
    one.names.insert("rxe500".to_owned());
    let mut again = |pending: &Pending| {
        let scans = (0..ROUNDS).map(|_| scan(&mut watcher, pending));
        median(scans.collect())
    };
    let (first, one, periodic) = (median(first), again(&one), again(&Pending::periodic()));
    println!(
        "{DEVICES} devices: the first scan {first:.1} ms, {:.0} µs a device; one that something \
         happened to {one:.2} ms, 1/{:.0} of it; all ports {periodic:.1} ms",
        first * 1e3 / f64::from(DEVICES),
        first / one
    );
}

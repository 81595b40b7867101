//! The benchmark of the loader's plans, compared with libkmod's: all modules of the guest's kernel,
//! each planned in one process that has everything in memory; and a request for a list of loaded
//! modules, over the socket. Prints the minimum of several rounds and ratios; that it passes proves
//! nothing.
//!
//! Needs RDMA_HOTPLUG_TREE, which is the output of `integration/guest/build-tree`, and a C
//! compiler.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints, and a panic is how it says what is wrong"
)]

#[path = "../tests/modprobe/oracle.rs"]
mod oracle;
#[path = "../tests/with_lab/mod.rs"]
mod with_lab;

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use loader::plan::Planner;
use oracle::{Oracle, Script};
use with_lab::with_lab;

const ROUNDS: usize = 20;
const CALLS: usize = 2_000;

fn main() {
    plans();
    loaded_list();
}

fn plans() {
    let oracle = Oracle::build();
    let listing = std::fs::read_to_string(oracle.module_tree().join("modules.dep")).unwrap();
    let name = |line: &str| {
        let path = line.split(':').next().unwrap();
        let file = path.rsplit('/').next().unwrap();
        file.split('.').next().unwrap().to_owned()
    };
    let script = Script {
        names: listing.lines().map(name).collect(),
        ..Script::of_the_guest(&oracle)
    };
    let snapshot = script.sources().snapshot().unwrap();
    let tree = &script.module_tree;
    let on_disk = |path: &[u8]| tree.join(str::from_utf8(path).unwrap()).exists();
    let measure = |exists: &dyn Fn(&[u8]) -> bool| {
        let planner = Planner {
            indexes: &snapshot.indexes,
            config: &snapshot.config,
            exists,
            admit: &|_| true,
            merge_softdeps: false,
        };
        let round = || {
            let start = Instant::now();
            for name in &script.names {
                for found in planner.look_up(name.as_bytes()).unwrap() {
                    black_box(planner.plan(&found).unwrap());
                }
            }
            start.elapsed().as_nanos() as f64
        };
        (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min)
    };
    let count = script.names.len() as f64;
    let theirs = oracle.nanoseconds(&script, ROUNDS) as f64;
    let service = measure(&|_| true);
    let command = measure(&on_disk);
    let each = |all: f64| all / count / 1_000.0;
    println!(
        "{count} modules: {:.2} µs a plan, libkmod {:.2} µs: {:.1} times as fast",
        each(service),
        each(theirs),
        theirs / service
    );
    println!(
        "the same with a look for every file, as libkmod does: {:.2} µs: {:.1} times as fast",
        each(command),
        theirs / command
    );
}

fn loaded_list() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket("org.rdmahotplug.Loader");
        let measured = tokio::task::spawn_blocking(move || {
            let mut stream = BufReader::new(UnixStream::connect(socket).unwrap());
            let call = b"{\"method\":\"org.rdmahotplug.Loader.Load\",\"parameters\":{\"modules\":\
                         [\"ib_uverbs\",\"rdma_ucm\",\"ib_umad\",\"ib_ipoib\",\"rpcrdma\"]}}\0";
            let mut reply = Vec::new();
            let mut times: Vec<f64> = Vec::new();
            for _ in 0..CALLS {
                reply.clear();
                let start = Instant::now();
                stream.get_mut().write_all(call).unwrap();
                stream.read_until(0, &mut reply).unwrap();
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            let reply = String::from_utf8(reply).unwrap();
            assert_eq!(reply.matches("alreadyLoaded").count(), 5, "{reply}");
            times.sort_by(f64::total_cmp);
            (times[CALLS / 2], times[CALLS * 99 / 100])
        });
        let (median, p99) = measured.await.unwrap();
        println!("a list of five that is loaded already: {median:.0} µs, p99 {p99:.0} µs");
    });
}

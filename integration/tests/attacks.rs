//! Attacks of unprivileged users on the three services. Each attack does what one user can do, and
//! root and the devices must not notice it. The bounds are those of the design. A bound of time is
//! multiplied on a host that runs other work. Needs root to run attackers as other users.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong, and what was measured is printed"
)]

#[path = "attacks/attackers.rs"]
mod attackers;
#[path = "attacks/shares.rs"]
mod shares;
#[path = "attacks/storm.rs"]
mod storm;
#[path = "attacks/target.rs"]
mod target;
mod with_lab;

use std::time::{Duration, Instant};

use attackers::{Attackers, ROOT, STRANGERS, Tally};
use integration::host::Hardware;
use integration::lab::Lab;
use interfaces::detector::Protocol;
use interfaces::orchestrator::State;
use serde_json::json;
use target::Target;
use with_lab::with_lab;

/// The factor by which a host that runs other work may exceed a bound of time. A benchmark runs
/// alone.
const NOISE: u32 = if cfg!(feature = "benchmark") { 1 } else { 4 };
/// The time in which root gets a reply, at the 99th percentile.
const ANSWER: Duration = Duration::from_millis(100);
/// The time in which a service exits.
const STOP: Duration = Duration::from_secs(5);
/// The additional time, compared with an undisturbed service, for a load of a live module.
const LOAD: Duration = Duration::from_millis(500);
/// The time in which a short history is returned.
const HISTORY: Duration = Duration::from_secs(1);
/// The most memory of a service under one user's worst attack, in KiB.
const MAX_MEMORY: u64 = 64 * 1024;
/// The maximum number of connections of one user.
const CONNECTIONS: usize = 64;
/// The number of files that a service opens for itself while it serves.
const OWN_FILES: usize = 64;
const PING: &str = "io.systemd.service.Ping";

/// Serializes the tests, because each measures times.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn under_attack(test: impl AsyncFnOnce(&mut Lab, &Attackers)) {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(
        rustix::process::getuid().is_root(),
        "needs root: integration/run-tests container runs this"
    );
    with_lab(Vec::new(), async |lab| {
        let attackers = Attackers::let_in(lab);
        test(lab, &attackers).await;
    });
}

fn roce(number: u32) -> Hardware {
    Hardware {
        name: format!("mlx5_{number}"),
        driver: "mlx5_core",
        pci_address: format!("0000:{:02x}:{:02x}.0", 1 + number / 32, number % 32),
        ports: vec![Protocol::Roce],
    }
}

/// Plugs a device in, waits until it is ready, and returns the time that this took.
async fn gets_ready(lab: &mut Lab, number: u32) -> Duration {
    let start = Instant::now();
    let index = lab.kernel().plug(roce(number)).unwrap();
    lab.wait_until("a device to be ready", |world| {
        let device = world.devices.get(&i64::from(index));
        device.is_some_and(|device| device.state == State::Ready)
    })
    .await
    .unwrap();
    start.elapsed()
}

/// Fails unless root always got a reply within the bound.
fn assert_served(what: &str, seen: &Tally, bound: Duration) {
    println!("{what}: {seen:?}");
    assert!(seen.answers > 0, "{what}: {seen:?}");
    assert!(seen.errors.is_empty(), "{what}: {seen:?}");
    let p99 = Duration::from_micros(seen.p99_usec.unwrap());
    assert!(p99 <= bound * NOISE, "{what}: {p99:?}: {seen:?}");
}

/// Calls all services as root for some seconds, with a new connection for each call.
async fn root_is_served(attackers: &Attackers, targets: &[Target], seconds: &str) {
    let mut callers = Vec::new();
    for target in targets {
        let arguments = [seconds, PING, "--connect"];
        let caller = attackers.start(ROOT, "calls", &target.socket, &arguments);
        callers.push((target.service, caller.await));
    }
    for (service, caller) in callers {
        assert_served(service, &caller.ends().await, ANSWER);
    }
}

/// Case A1.
#[test]
fn two_users_that_hold_all_their_connections_do_not_block_root() {
    under_attack(async |lab, attackers| {
        let targets = Target::all(lab);
        for target in &targets {
            let before = target.before().await;
            let mut holders = Vec::new();
            for (uid, count) in [(STRANGERS[0], "1280"), (STRANGERS[1], "256")] {
                let arguments = [count, "6"];
                let holder = attackers.start(uid, "idle", &target.socket, &arguments);
                holders.push(holder.await);
            }
            root_is_served(attackers, &targets, "2").await;
            let files = target.files();
            let most = 2 * CONNECTIONS + OWN_FILES;
            assert!(files <= most, "{}: {files} files", target.service);
            for holder in holders {
                let seen = holder.ends().await;
                let refused = seen.refused("TooManyConnections");
                let held = seen.connected - seen.ended;
                println!("{}: held {held}, refused {refused}", target.service);
                assert!(held <= CONNECTIONS as u64, "{}: {seen:?}", target.service);
                assert_eq!(refused + held, seen.connected, "{}", target.service);
            }
            target.comes_back(before).await;
        }
    });
}

/// Case A1.
#[test]
fn a_device_becomes_ready_while_two_users_hold_all_their_connections() {
    under_attack(async |lab, attackers| {
        let mut holders = Vec::new();
        for target in Target::all(lab) {
            for uid in [STRANGERS[0], STRANGERS[1]] {
                let holder = attackers.start(uid, "idle", &target.socket, &["1536", "300"]);
                holders.push(holder.await);
            }
        }
        // A restarted service has to get its connections as well.
        lab.service("rdma-orchestrator")
            .unwrap()
            .kill()
            .await
            .unwrap();
        lab.restart("rdma-orchestrator").await.unwrap();
        let orchestrator = Target::all(lab).pop().unwrap();
        let is_ready = async || {
            let wait = json!({"name": "mlx5_0"});
            let answer = orchestrator.call(&orchestrator.method("Wait"), &wait).await;
            assert_eq!(answer["device"]["state"], "ready");
        };
        lab.kernel().plug(roce(0)).unwrap();
        is_ready().await;
        for holder in holders {
            holder.stop().await;
        }
    });
}

/// Case A2.
#[test]
fn a_connection_does_not_outlive_a_client_that_sent_its_own_socket_over_it() {
    under_attack(async |lab, attackers| {
        for target in Target::all(lab) {
            let Some(subscribe) = target.subscribe() else {
                continue;
            };
            let mut calls = vec![vec![subscribe, "{}".to_owned(), "--more".to_owned()]];
            if target.service == "rdma-orchestrator" {
                let wait = r#"{"name":"does_not_come"}"#.to_owned();
                calls.push(vec![target.method("Wait"), wait]);
            }
            for call in calls {
                let before = target.before().await;
                let mut arguments: Vec<&str> = call.iter().map(String::as_str).collect();
                arguments.push("--count=16");
                let attack = attackers.start(STRANGERS[0], "own-end", &target.socket, &arguments);
                let seen = attack.await.ends().await;
                println!("{}: {seen:?}", target.service);
                let sent = seen.calls - seen.errors.get("NotSent").unwrap_or(&0);
                assert!(sent > 0, "{seen:?}");
                target.comes_back(before).await;
            }
        }
    });
}

/// Case A3.
#[test]
fn a_service_under_attack_stops_in_time_and_starts_again() {
    under_attack(async |lab, attackers| {
        for target in Target::all(lab) {
            let mut attack = Vec::new();
            let pipeline = ["64", "300", PING, "--read"];
            for uid in STRANGERS {
                let socket = &target.socket;
                attack.push(attackers.start(uid, "pipeline", socket, &pipeline).await);
                attack.push(attackers.start(uid, "flood", socket, &["300"]).await);
                attack.push(attackers.start(uid, "half", socket, &["16", "300"]).await);
            }
            let service = target.service;
            lab.service(service).unwrap().terminate().unwrap();
            let start = Instant::now();
            // Between two checks, the lab's own tasks run.
            while !lab.service(service).unwrap().has_ended().unwrap() {
                let bound = STOP * 2;
                assert!(start.elapsed() < bound, "{service} runs after {bound:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            println!("{service} ended after {:?}", start.elapsed());
            lab.restart(service).await.unwrap();
            let target = target.again(lab);
            // This call queues behind the connections in the backlog from the time the service was
            // down.
            let first = attackers.start(ROOT, "calls", &target.socket, &["1", PING, "--connect"]);
            let first = first.await.ends().await;
            assert!(first.answers > 0 && first.errors.is_empty(), "{first:?}");
            root_is_served(attackers, &[target], "2").await;
            for attacker in attack {
                attacker.stop().await;
            }
        }
    });
}

/// Case A4.
#[test]
fn abandoned_requests_delay_no_load_and_keep_no_memory() {
    under_attack(async |lab, attackers| {
        gets_ready(lab, 0).await;
        let loader = Target::all(lab).remove(1);
        let before = loader.before().await;
        let explain = ["10", &loader.method("Explain"), r#"{"module":"ib_uverbs"}"#];
        let mut questions = Vec::new();
        for uid in [STRANGERS[0], STRANGERS[1]] {
            let one = attackers.start(uid, "questions", &loader.socket, &explain);
            questions.push(one.await);
        }
        let load = ["5", &loader.method("Load"), r#"{"modules":["ib_uverbs"]}"#];
        let root = attackers.start(ROOT, "calls", &loader.socket, &load).await;
        assert_served("Load under questions", &root.ends().await, LOAD);
        for one in questions {
            println!("questions: {:?}", one.ends().await);
        }
        let start = Instant::now();
        let modules = json!({"modules": ["ib_uverbs"]});
        loader.call(&loader.method("Load"), &modules).await;
        let after = start.elapsed();
        assert!(after <= LOAD * NOISE, "{after:?} after the questions");
        loader.comes_back(before).await;
    });
}

/// Case A7.
#[test]
fn a_short_history_is_sent_at_once_while_other_clients_do_not_read_a_long_one() {
    under_attack(async |lab, attackers| {
        let orchestrator = Target::all(lab).remove(2);
        let history = orchestrator.method("ListHistory");
        // The history must be longer than what a socket buffers.
        let index = lab.kernel().plug(roce(0)).unwrap();
        for number in 0..600 {
            let name = format!("renamed{number}");
            lab.kernel().rename(index, &name).unwrap();
            lab.wait_until("the device's name", |world| {
                let device = world.devices.get(&i64::from(index));
                device.is_some_and(|device| device.name == name)
            })
            .await
            .unwrap();
        }
        let before = orchestrator.before().await;
        let mut stalled = Vec::new();
        for uid in STRANGERS {
            let socket = &orchestrator.socket;
            let arguments = ["8", "10", &history];
            stalled.push(attackers.start(uid, "stalled", socket, &arguments).await);
        }
        let short = ["5", &history, r#"{"limit":1}"#, "--more"];
        let root = attackers.start(ROOT, "calls", &orchestrator.socket, &short);
        assert_served("ListHistory limit:1", &root.await.ends().await, HISTORY);
        let stranger = attackers.start(STRANGERS[0], "calls", &orchestrator.socket, &short);
        assert_served("a stranger's", &stranger.await.ends().await, HISTORY);
        for one in stalled {
            println!("stalled: {:?}", one.ends().await);
        }
        orchestrator.comes_back(before).await;
    });
}

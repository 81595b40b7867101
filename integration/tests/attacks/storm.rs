//! All attacks at once: three users attack all three sockets, while devices are added and removed
//! and root calls methods and loads modules.

use std::time::{Duration, Instant};

use serde_json::json;

use super::attackers::{Attacker, Attackers, ROOT, STRANGERS};
use super::target::{Before, Target};
use super::{ANSWER, LOAD, MAX_MEMORY, NOISE, PING, assert_served, gets_ready, under_attack};

/// The additional time, compared with an undisturbed run, in which a device gets ready.
const LATER: Duration = Duration::from_secs(2);
/// A time longer than the storm, in seconds: the test stops the attackers.
const SECONDS: &str = "600";
/// The number of devices that are added and removed during the storm.
const DEVICES: u32 = 8;

/// Starts all attacks on one socket as each user. Returns the attackers that hold resources and
/// those that are busy.
fn attacks(attackers: &Attackers, target: &Target) -> (Vec<Attacker>, Vec<Attacker>) {
    let interface = json!({"interface": target.interface}).to_string();
    let describe = "org.varlink.service.GetInterfaceDescription";
    let history = target.method("ListHistory");
    let question = match target.service {
        "rdma-loader" => (target.method("Explain"), r#"{"module":"ib_uverbs"}"#),
        _ => (target.method("List"), "{}"),
    };
    let subscribe = target.subscribe();
    let mut holding: Vec<(&str, Vec<&str>)> = vec![
        ("idle", vec!["32", SECONDS]),
        ("half", vec!["16", SECONDS]),
        ("descriptors", vec!["8", SECONDS]),
    ];
    if let Some(subscribe) = &subscribe {
        holding.push(("stalled", vec!["32", SECONDS, subscribe]));
        holding.push(("own-end", vec![subscribe, "--more", "--count=4"]));
    }
    if target.service == "rdma-orchestrator" {
        holding.push(("waits", vec!["32", SECONDS]));
        holding.push(("stalled", vec!["4", SECONDS, &history]));
    }
    let busy: Vec<(&str, Vec<&str>)> = vec![
        ("flood", vec![SECONDS]),
        ("pipeline", vec!["8", SECONDS, PING, "--read"]),
        ("pipeline", vec!["8", SECONDS, describe, &interface]),
        ("questions", vec![SECONDS, &question.0, question.1]),
    ];
    let spawn = |attacks: Vec<(&str, Vec<&str>)>| {
        let each = STRANGERS.into_iter().flat_map(|uid| {
            let attacks = attacks.iter();
            attacks.map(move |(attack, arguments)| (uid, *attack, arguments))
        });
        each.map(|(uid, attack, arguments)| attackers.spawn(uid, attack, &target.socket, arguments))
            .collect()
    };
    (spawn(holding), spawn(busy))
}

#[test]
fn devices_become_ready_and_root_is_served_during_attacks_by_three_users() {
    under_attack(async |lab, attackers| {
        // The first device is slower than the others: modules are loaded for it.
        gets_ready(lab, 0).await;
        let undisturbed = gets_ready(lab, 1).await;
        let targets = Target::all(lab);
        let mut before: Vec<Before> = Vec::new();
        for target in &targets {
            before.push(target.before().await);
        }
        let mut storm = Vec::new();
        let start = Instant::now();
        for target in &targets {
            let (holding, busy) = attacks(attackers, target);
            storm.extend(holding.into_iter().chain(busy));
        }
        for attacker in &mut storm {
            attacker.begins().await;
        }
        println!("{} attackers after {:?}", storm.len(), start.elapsed());
        let mut callers = Vec::new();
        for target in &targets {
            for arguments in [&["10", PING][..], &["10", PING, "--connect"]] {
                let caller = attackers.start(ROOT, "calls", &target.socket, arguments);
                callers.push((target.service, ANSWER, caller.await));
            }
        }
        let load = [
            "10",
            "org.rdmahotplug.Loader.Load",
            r#"{"modules":["ib_uverbs"]}"#,
        ];
        let loads = attackers.start(ROOT, "calls", &targets[1].socket, &load);
        callers.push(("Load", LOAD, loads.await));

        for number in 2..2 + DEVICES {
            let start = Instant::now();
            let ready = gets_ready(lab, number).await;
            println!("device {number}: ready after {ready:?}, undisturbed {undisturbed:?}");
            assert!(ready <= undisturbed + LATER * NOISE, "{ready:?}");
            let index = *lab.world().devices.keys().next_back().unwrap();
            lab.kernel().unplug(u32::try_from(index).unwrap()).unwrap();
            lab.wait_until("the device to be gone", |world| {
                !world.devices.contains_key(&index)
            })
            .await
            .unwrap();
            assert!(start.elapsed() <= undisturbed + 2 * LATER * NOISE);
        }
        for (what, bound, caller) in callers {
            assert_served(what, &caller.ends().await, bound);
        }
        for attacker in storm {
            attacker.stop().await;
        }
        for (target, before) in targets.iter().zip(before) {
            let most = target.most_memory();
            println!("{}: at most {most} KiB", target.service);
            target.comes_back(before).await;
            assert!(most <= MAX_MEMORY, "{}: {most} KiB", target.service);
        }
        // No event was lost: the list has exactly the devices that were plugged in and stayed.
        let names = lab.world().devices.values().map(|device| &device.name);
        assert_eq!(names.collect::<Vec<_>>(), ["mlx5_0", "mlx5_1"]);
    });
}

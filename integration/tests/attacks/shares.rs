//! The resources of a service that one user can use: connections, subscriptions, files and memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::attackers::{ROOT, STRANGERS};
use super::target::{Target, until};
use super::{ANSWER, CONNECTIONS, MAX_MEMORY, OWN_FILES, PING, assert_served, roce, under_attack};

/// Case A5.
#[test]
fn attacks_by_one_user_take_bounded_memory_and_the_service_frees_it_afterwards() {
    under_attack(async |lab, attackers| {
        for target in Target::all(lab) {
            let before = target.before().await;
            let describe = "org.varlink.service.GetInterfaceDescription";
            let interface = json!({"interface": target.interface}).to_string();
            let mut worst: Vec<(&str, Vec<&str>)> = vec![
                ("half", vec!["1280", "4"]),
                ("pipeline", vec!["64", "4", describe, &interface]),
                ("descriptors", vec!["64", "4"]),
            ];
            let subscribe = target.subscribe();
            if let Some(subscribe) = &subscribe {
                worst.push(("stalled", vec!["1024", "4", subscribe]));
            }
            if target.service == "rdma-orchestrator" {
                worst.push(("waits", vec!["1280", "4"]));
            }
            for (attack, arguments) in &worst {
                let one = attackers.start(STRANGERS[0], attack, &target.socket, arguments);
                let one = one.await;
                // The renames send notifications to the clients that do not read.
                let index = lab.kernel().plug(roce(0)).unwrap();
                for number in 0..50 {
                    let name = format!("renamed{number}");
                    lab.kernel().rename(index, &name).unwrap();
                    tokio::task::yield_now().await;
                }
                lab.kernel().unplug(index).unwrap();
                let seen = one.ends().await;
                let most = target.most_memory();
                println!("{} {attack}: {most} KiB, {seen:?}", target.service);
                let service = target.service;
                assert!(most <= MAX_MEMORY, "{service} {attack}: {most} KiB");
            }
            target.comes_back(before).await;
        }
    });
}

/// Case A6.
#[test]
fn a_flood_of_connections_opens_a_bounded_number_of_files() {
    under_attack(async |lab, attackers| {
        let targets = Target::all(lab);
        for target in &targets {
            let before = target.before().await;
            let mut flood = Vec::new();
            for uid in [STRANGERS[0], STRANGERS[0], STRANGERS[1]] {
                flood.push(attackers.start(uid, "flood", &target.socket, &["6"]).await);
            }
            let root = attackers.start(ROOT, "calls", &target.socket, &["4", PING, "--connect"]);
            let root = root.await;
            let start = Instant::now();
            let mut most = 0;
            while start.elapsed() < Duration::from_secs(4) {
                most = most.max(target.files());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            println!("{}: at most {most} files", target.service);
            let bound = 2 * CONNECTIONS + OWN_FILES;
            assert!(most <= bound, "{}: {most} files", target.service);
            assert_served(target.service, &root.ends().await, ANSWER);
            for one in flood {
                one.ends().await;
            }
            target.comes_back(before).await;
        }
    });
}

#[test]
fn every_service_names_its_limits_and_counts_refusals() {
    under_attack(async |lab, attackers| {
        for target in Target::all(lab) {
            let idle = attackers.start(STRANGERS[0], "idle", &target.socket, &["100", "1"]);
            let seen = idle.await.ends().await;
            let described = target.call(&target.method("Describe"), &json!({})).await;
            let limits = described["limits"].as_array().cloned().unwrap_or_default();
            let of = |name: &str| {
                let limit = limits.iter().find(|limit| limit["name"] == name);
                limit.cloned().unwrap_or(Value::Null)
            };
            for (name, value) in [
                ("connections", 512),
                ("connectionsPerUid", CONNECTIONS),
                ("connectionsPrivileged", 1536),
                ("subscriptionsPerUid", 16),
                ("bytesPerUid", 4 << 20),
                ("bytes", 32 << 20),
            ] {
                assert_eq!(of(name)["value"], value, "{}: {name}", target.service);
            }
            let refused = of("connectionsPerUid")["refused"].clone();
            assert_eq!(refused, seen.refused("TooManyConnections"));
        }
    });
}

#[test]
fn a_user_with_the_maximum_of_subscriptions_gets_a_typed_error_for_the_next() {
    under_attack(async |lab, attackers| {
        for target in Target::all(lab) {
            let Some(subscribe) = target.subscribe() else {
                continue;
            };
            let arguments = ["40", "2", subscribe.as_str()];
            let stalled = attackers.start(STRANGERS[0], "stalled", &target.socket, &arguments);
            let stalled = stalled.await;
            // Another user has its own share.
            let call = attackers.start(STRANGERS[1], "calls", &target.socket, &["1", PING]);
            assert_served("another user", &call.await.ends().await, ANSWER);
            let seen = stalled.ends().await;
            assert_eq!(seen.refused("TooManySubscriptions"), 40 - 16, "{seen:?}");
            let back = || target.files() <= OWN_FILES;
            assert!(until(Duration::from_secs(60), back).await);
        }
    });
}

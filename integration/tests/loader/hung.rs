//! Modules whose initialisation does not end: the loads that they delay, and those that they do
//! not. The loader's two processes are the real ones. Only the kernel is simulated.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use integration::lab::Lab;
use interfaces::client::Client;
use interfaces::loader::{DESCRIBE, DescribeReply, LIST, LOAD, ListReply, LoadReply, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::index;
use crate::with_lab::with_lab;
use crate::{DEADLINE, LOADER, load};

/// The number of modules that hang: more than the loader ever had threads.
const HUNG: usize = 40;

/// Gives the lab a module tree of a hundred modules, and a policy that names them.
async fn with_many_modules(lab: &mut Lab) -> Vec<String> {
    let tree = fs::read_dir(lab.directory().join("lib/modules")).unwrap();
    let tree = tree.map(|entry| entry.unwrap().path()).next().unwrap();
    let names = index::lay_out(&tree, "test_", b"\xfd7zXZ\0");
    let policy = lab.directory().join("usr/lib/rdma-hotplug/loader.d");
    let text = format!("[[allow]]\npurpose = \"test\"\nmodules = {names:?}\n");
    fs::write(policy.join("60-test.toml"), text).unwrap();
    let loader = lab.service("rdma-loader").unwrap();
    kill_process(loader.pid().unwrap(), Signal::HUP).unwrap();
    let socket = lab.socket(LOADER);
    until("the policy names them", async || {
        let client = Client::connect(&socket).await.unwrap();
        let mut listed = client.stream(LIST, &json!({})).await.unwrap();
        let mut named = false;
        while let Some(reply) = listed.next::<ListReply>().await.unwrap() {
            named |= reply.module == names[0];
        }
        named
    })
    .await;
    names
}

/// Waits until the condition holds.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}

async fn describe(socket: &Path) -> DescribeReply {
    let mut client = Client::connect(socket).await.unwrap();
    client.call(DESCRIBE, &json!({}), DEADLINE).await.unwrap()
}

async fn until_loading(socket: &Path, count: usize) -> DescribeReply {
    let mut described = describe(socket).await;
    until("the kernel is at work", async || {
        described = describe(socket).await;
        described.loading.len() == count
    })
    .await;
    described
}

/// Returns the inserting processes of this lab's loaders.
fn inserters(lab: &Lab) -> Vec<Pid> {
    let dir = lab.directory().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let inserters = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        let is_ours = read("comm")? == "rdma-inserter\n" && read("cmdline")?.contains(&dir);
        is_ours.then(|| Pid::from_raw(pid))?
    });
    inserters.collect()
}

async fn until_inserters(lab: &Lab, count: usize) {
    until("the inserting processes", async || {
        inserters(lab).len() == count
    })
    .await;
}

/// Waits until the loader exits after a signal.
async fn until_ended(lab: &mut Lab) {
    until("the loader has ended", async || {
        lab.service("rdma-loader").unwrap().has_ended().unwrap()
    })
    .await;
}

#[test]
fn many_hung_modules_delay_no_other_load_no_stop_and_no_start() {
    with_lab(Vec::new(), async |lab| {
        let names = with_many_modules(lab).await;
        let socket = lab.socket(LOADER);
        let (hung, others) = names.split_at(HUNG);
        lab.kernel().hold_only(hung.iter().map(String::as_str));
        let mut waiting = Client::connect(&socket).await.unwrap();
        let arguments = json!({"modules": hung});
        let call = waiting.call::<LoadReply>(LOAD, &arguments, DEADLINE);
        let meanwhile = async {
            let before = interfaces::clock::now();
            let described = until_loading(&socket, HUNG).await;
            let mut named: Vec<String> =
                described.loading.iter().map(|l| l.module.clone()).collect();
            named.sort();
            assert_eq!(named, hung);
            for loading in &described.loading {
                // The age is at most that of the lab.
                let age = interfaces::clock::now() - loading.since_usec;
                assert!((0..60_000_000).contains(&age), "{age} {before}");
            }
            let results = load(&socket, json!({"modules": others[..20]}))
                .await
                .results;
            assert!(
                results
                    .iter()
                    .all(|result| result.outcome == Outcome::Loaded)
            );
            let begin = Instant::now();
            lab.service("rdma-loader").unwrap().terminate().unwrap();
            until_ended(lab).await;
            begin.elapsed()
        };
        let (answer, took) = tokio::join!(call, meanwhile);
        println!("the stop took {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        for result in answer.unwrap().results {
            assert_eq!(result.outcome, Outcome::Loading, "{result:?}");
            assert!(result.message.unwrap().contains("is stopping"));
        }
        // The kernel still initialises the modules, so the first inserting process still runs.
        lab.restart("rdma-loader").await.unwrap();
        until_inserters(lab, 2).await;
        let results = load(&socket, json!({"modules": others[20..40]}))
            .await
            .results;
        assert!(
            results
                .iter()
                .all(|result| result.outcome == Outcome::Loaded)
        );
        // The same module again: the loader waits for the kernel, and the module is then live.
        let arguments = json!({"modules": [hung[0]]});
        let mut again = Client::connect(&socket).await.unwrap();
        let call = again.call::<LoadReply>(LOAD, &arguments, DEADLINE);
        let released = async {
            until_loading(&socket, 1).await;
            lab.kernel().hold_only([]);
        };
        let (answer, ()) = tokio::join!(call, released);
        let outcome = answer.unwrap().results[0].outcome;
        assert!(
            matches!(outcome, Outcome::Loaded | Outcome::AlreadyLoaded),
            "{outcome:?}"
        );
        until_inserters(lab, 1).await;
        let mut inserted = lab.kernel().inserted();
        inserted.retain(|module| hung.contains(module));
        inserted.sort();
        assert_eq!(inserted, hung, "each once");
    });
}

#[test]
fn a_killed_loader_leaves_no_half_initialised_module_and_no_process() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        lab.kernel().hold_only(["ib_core"]);
        let mut waiting = Client::connect(&socket).await.unwrap();
        let arguments = json!({"modules": ["ib_uverbs"]});
        let call = waiting.call::<LoadReply>(LOAD, &arguments, DEADLINE);
        let killed = async {
            until_loading(&socket, 1).await;
            lab.service("rdma-loader").unwrap().kill().await.unwrap();
        };
        let (answer, ()) = tokio::join!(call, killed);
        assert!(answer.is_err(), "its service is gone");
        // The inserting process continues.
        until_inserters(lab, 1).await;
        lab.kernel().hold_only([]);
        let core = |module: &String| module == "ib_core";
        lab.wait_until("the load", |world| world.inserted.iter().any(core))
            .await
            .unwrap();
        until_inserters(lab, 0).await;
        lab.restart("rdma-loader").await.unwrap();
        let results = load(&socket, json!({"modules": ["ib_uverbs"]}))
            .await
            .results;
        assert_eq!(results[0].outcome, Outcome::Loaded);
    });
}

#[test]
fn a_stop_without_loads_leaves_no_process() {
    with_lab(Vec::new(), async |lab| {
        until_inserters(lab, 1).await;
        lab.service("rdma-loader").unwrap().terminate().unwrap();
        until_ended(lab).await;
        until_inserters(lab, 0).await;
    });
}

#[test]
fn a_kill_of_the_inserting_process_fails_its_loads_and_the_loader_exits_for_a_restart() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        lab.kernel().hold_only(["ib_core"]);
        let mut waiting = Client::connect(&socket).await.unwrap();
        let arguments = json!({"modules": ["ib_uverbs"]});
        let call = waiting.call::<LoadReply>(LOAD, &arguments, DEADLINE);
        let killed = async {
            until_loading(&socket, 1).await;
            kill_process(inserters(lab)[0], Signal::KILL).unwrap();
        };
        let (answer, ()) = tokio::join!(call, killed);
        let result = answer.unwrap().results.remove(0);
        assert_eq!(result.outcome, Outcome::Failed);
        assert_eq!(result.errno_name.as_deref(), Some("EAGAIN"));
        assert!(result.message.unwrap().contains("inserting process"));
        until_ended(lab).await;
        let log = lab.service("rdma-loader").unwrap().log();
        assert!(log.contains("the inserting process has exited"), "{log}");
        lab.kernel().hold_only([]);
        lab.restart("rdma-loader").await.unwrap();
        let results = load(&socket, json!({"modules": ["ib_uverbs"]}))
            .await
            .results;
        let outcome = results[0].outcome;
        assert!(
            matches!(outcome, Outcome::Loaded | Outcome::AlreadyLoaded),
            "{outcome:?}"
        );
    });
}

/// `CAP_DAC_READ_SEARCH` and `CAP_SYS_MODULE` (`include/uapi/linux/capability.h`).
const READ_SEARCH: u64 = 1 << 2;
const SYS_MODULE: u64 = 1 << 16;

/// Returns a set of capabilities of a process.
fn capabilities(pid: Pid, set: &str) -> u64 {
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(set))
        .unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

#[test]
fn only_the_inserting_process_may_insert_modules() {
    with_lab(Vec::new(), async |lab| {
        until_inserters(lab, 1).await;
        // A process that replies has already dropped its capabilities.
        load(&lab.socket(LOADER), json!({"modules": ["ib_umad"]})).await;
        let serving = lab.service("rdma-loader").unwrap().pid().unwrap();
        let inserting = inserters(lab)[0];
        let own = capabilities(rustix::process::getpid(), "CapPrm");
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(capabilities(serving, set), own & READ_SEARCH, "{set}");
            let both = READ_SEARCH | SYS_MODULE;
            assert_eq!(capabilities(inserting, set), own & both, "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(capabilities(serving, set) | capabilities(inserting, set), 0);
        }
    });
}

//! The loader over its socket: the requests that a caller can make, those that it cannot make, and
//! its waiting time. The loader's own tests and those in the virtual machine cover files and
//! configuration.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

#[path = "loader/hung.rs"]
mod hung;
#[path = "loader/index.rs"]
mod index;
mod with_lab;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use integration::lab::Lab;
use interfaces::client::{Client, ClientError, ClientErrorKind};
use interfaces::loader::{EXPLAIN, LOAD, LoadReply, Outcome};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use with_lab::with_lab;

const LOADER: &str = "org.rdmahotplug.Loader";
const DEADLINE: Duration = Duration::from_secs(30);

async fn load(socket: &Path, arguments: Value) -> LoadReply {
    let mut client = Client::connect(socket).await.unwrap();
    client.call(LOAD, &arguments, DEADLINE).await.unwrap()
}

/// Returns all modules that the kernel inserted. Ends with a module that no other caller has
/// requested.
async fn inserted(lab: &mut Lab) -> Vec<String> {
    load(&lab.socket(LOADER), json!({"modules": ["ib_umad"]})).await;
    let umad = |module: &String| module == "ib_umad";
    lab.wait_until("the end", |world| world.inserted.iter().any(umad))
        .await
        .unwrap();
    lab.world().inserted.clone()
}

/// Returns the parameter for which a call was refused.
fn wrong_parameter(answer: &Result<LoadReply, ClientError>) -> String {
    match answer.as_ref().map_err(|e| &e.kind) {
        Err(ClientErrorKind::Answered { name, parameters }) => {
            assert_eq!(name, "org.varlink.service.InvalidParameter");
            let parameters = parameters.as_ref().unwrap();
            parameters["parameter"].as_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_invalid_module_name_never_reaches_the_kernel() {
    let long = "a".repeat(56);
    let longer = "a".repeat(5_000);
    let crash = format!("[{}", "A".repeat(9_000));
    let names = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/lib/modules/x.ko",
        "./x.ko",
        "ib_core.ko",
        "ib_core.ko.xz",
        "ib_core\0evil",
        "ib_core\n",
        " ib_core",
        "ib_core\t",
        "ib core",
        "ib_core nosuch=1",
        "ib_core;reboot",
        "$(id)",
        "`id`",
        "-r",
        "--remove",
        "-C/etc/x",
        "*",
        "ib_*",
        "?b_core",
        "ib_c[o]re",
        "]",
        "ib\\core",
        "İB_CORE",
        "іb_core",
        "ib\u{2011}core",
        "symbol:ib_register_device",
        "pci:v000015B3d00001017sv*",
        "char-major-10:200",
        "~",
        &long,
        &longer,
        &crash,
    ];
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        let mut client = Client::connect(&socket).await.unwrap();
        for name in names {
            // All or nothing: with one invalid name, the loader does not load the other module
            // either.
            let arguments = json!({"modules": ["ib_uverbs", name]});
            let answer = client.call::<LoadReply>(LOAD, &arguments, DEADLINE).await;
            assert_eq!(wrong_parameter(&answer), "modules[1]", "{name:?}");
        }
        for name in [
            "IB_CORE", "off", "null", "kernel", "modprobe", "fs-ext4", "dccp",
        ] {
            let results = load(&socket, json!({"modules": [name]})).await.results;
            let outcome = results[0].outcome;
            assert!(
                matches!(outcome, Outcome::Missing | Outcome::Denied),
                "{name}"
            );
        }
        assert_eq!(inserted(lab).await, ["ib_core", "ib_umad"]);
    });
}

#[test]
fn parameters_flags_and_directories_are_refused_and_not_ignored() {
    with_lab(Vec::new(), async |lab| {
        let mut client = Client::connect(&lab.socket(LOADER)).await.unwrap();
        for (field, value) in [
            ("parameters", json!("x=1")),
            ("options", json!("x=1")),
            ("flags", json!(1)),
            ("dir", json!("/tmp")),
            ("release", json!("6.1")),
            ("timeoutUSec", json!(0)),
            ("timeoutUSec", json!(-1)),
            ("timeoutUSec", json!("1s")),
            ("ordered", json!(1)),
        ] {
            let mut arguments = json!({"modules": ["ib_uverbs"]});
            arguments[field] = value;
            let answer = client.call::<LoadReply>(LOAD, &arguments, DEADLINE).await;
            assert_eq!(wrong_parameter(&answer), field);
        }
        assert_eq!(inserted(lab).await, ["ib_core", "ib_umad"]);
    });
}

#[test]
fn a_call_that_times_out_gets_the_outcome_loading_and_can_be_repeated() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        lab.kernel().hold_modules(true);
        let arguments = json!({"modules": ["ib_uverbs", "nosuch"], "timeoutUSec": 50_000});
        let results = load(&socket, arguments).await.results;
        let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
        assert_eq!(outcomes, [Outcome::Loading, Outcome::Missing]);
        lab.kernel().hold_modules(false);
        let results = load(&socket, json!({"modules": ["ib_uverbs"]}))
            .await
            .results;
        let later = results[0].outcome;
        assert!(
            matches!(later, Outcome::Loaded | Outcome::AlreadyLoaded),
            "{later:?}"
        );
        assert_eq!(inserted(lab).await, ["ib_core", "ib_uverbs", "ib_umad"]);
    });
}

#[test]
fn a_load_continues_when_its_caller_disconnects_and_sighup_arrives() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        lab.kernel().hold_modules(true);
        {
            let mut client = Client::connect(&socket).await.unwrap();
            let arguments = json!({"modules": ["ib_uverbs"]});
            let moment = Duration::from_millis(50);
            let answer = client.call::<LoadReply>(LOAD, &arguments, moment).await;
            assert!(answer.is_err(), "it was held");
        }
        let pid = lab.service("rdma-loader").unwrap().pid().unwrap();
        for _ in 0..200 {
            kill_process(pid, Signal::HUP).unwrap();
        }
        lab.kernel().hold_modules(false);
        let uverbs = |module: &String| module == "ib_uverbs";
        lab.wait_until("the load", |world| world.inserted.iter().any(uverbs))
            .await
            .unwrap();
        let results = load(&socket, json!({"modules": ["ib_uverbs"]}))
            .await
            .results;
        assert_eq!(results[0].outcome, Outcome::AlreadyLoaded);
    });
}

#[test]
fn thousands_of_identical_requests_load_each_module_once() {
    const CALLERS: usize = 8;
    const REQUESTS: usize = 500;
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let socket = socket.clone();
            callers.spawn(async move {
                let mut client = Client::connect(&socket).await.unwrap();
                // The same name three times, in two spellings: each gets its result.
                let arguments =
                    json!({"modules": ["rdma_ucm", "ib_uverbs", "ib-uverbs", "rdma_ucm"]});
                for _ in 0..REQUESTS {
                    let reply: LoadReply = client.call(LOAD, &arguments, DEADLINE).await.unwrap();
                    assert_eq!(reply.results.len(), 4);
                    for result in reply.results {
                        let outcome = result.outcome;
                        assert!(matches!(outcome, Outcome::Loaded | Outcome::AlreadyLoaded));
                    }
                }
            });
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
        let mut inserted = inserted(lab).await;
        let len = inserted.len();
        inserted.sort();
        inserted.dedup();
        assert_eq!(inserted.len(), len, "{inserted:?}");
    });
}

/// Requests explanations on many connections at once, closes them before the replies, and begins
/// again, until `over`. Returns the number of requests.
fn flood(socket: &Path, over: &AtomicBool) -> usize {
    const CALLERS: usize = 48;
    let question = json!({"method": EXPLAIN, "parameters": {"module": "ib_iser"}}).to_string();
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        let mut callers: Vec<UnixStream> = Vec::new();
        for _ in 0..CALLERS {
            let mut caller = UnixStream::connect(socket).unwrap();
            caller.write_all(question.as_bytes()).unwrap();
            caller.write_all(&[0]).unwrap();
            callers.push(caller);
        }
        asked += CALLERS;
    }
    asked
}

/// Ends the flood, also if the test fails.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_load_gets_its_reply_during_a_flood_of_requests_from_disconnected_clients() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        // Like the orchestrator, the client is connected before the flood. A full backlog is not
        // tested here.
        let mut client = Client::connect(&socket).await.unwrap();
        let over = Over(Arc::default());
        let (flooded, flag) = (socket.clone(), Arc::clone(&over.0));
        let flooding = std::thread::spawn(move || flood(&flooded, &flag));
        let mut loads = Vec::new();
        for module in [
            "ib_uverbs",
            "ib_umad",
            "iw_cm",
            "rdma_ucm",
            "ib_iser",
            "ib_srp",
        ] {
            let begin = Instant::now();
            let arguments = json!({"modules": [module]});
            let reply = client.call::<LoadReply>(LOAD, &arguments, DEADLINE).await;
            let results = reply.unwrap().results;
            let outcome = results[0].outcome;
            assert!(matches!(
                outcome,
                Outcome::Loaded | Outcome::AlreadyLoaded | Outcome::Missing
            ));
            loads.push(begin.elapsed());
        }
        drop(over);
        let asked = flooding.join().unwrap();
        println!("{asked} questions; loads took {loads:?}");
        // At least one of the loads had a processor to itself.
        let quickest = loads.iter().min().unwrap();
        assert!(*quickest < Duration::from_millis(500), "{loads:?}");
    });
}

//! The three services as processes, called over their sockets: the replies to bad input, and the
//! effects of a restart.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod with_lab;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use integration::host::Hardware;
use integration::lab::Observed;
use integration::scenario;
use interfaces::client::{Client, ClientErrorKind, Followed, Subscription};
use interfaces::detector::{Protocol, SUBSCRIBE_DEVICES};
use interfaces::loader::{LOAD, LoadArgs, LoadReply, Outcome};
use interfaces::orchestrator::{SUBSCRIBE_STATUS, State, WAIT};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use with_lab::with_lab;

const DETECTOR: &str = "org.rdmahotplug.Detector";
const LOADER: &str = "org.rdmahotplug.Loader";
const ORCHESTRATOR: &str = "org.rdmahotplug.Orchestrator";
const DEADLINE: Duration = Duration::from_secs(30);

fn roce_device(name: &str) -> Hardware {
    Hardware {
        name: name.to_owned(),
        driver: "bnxt_en",
        pci_address: "0000:01:00.0".to_owned(),
        ports: vec![Protocol::Roce],
    }
}

/// Sends one raw message, reads to the end of the connection, and returns the decoded replies.
fn answers(socket: &Path, message: &[u8]) -> Vec<Value> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(message).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
        .split(|&byte| byte == 0)
        .filter(|reply| !reply.is_empty())
        .map(|reply| serde_json::from_slice(reply).unwrap())
        .collect()
}

/// Returns the error of a call, and its parameters.
fn error(socket: &Path, call: &Value) -> (String, Value) {
    let mut message = serde_json::to_vec(call).unwrap();
    message.push(0);
    let answers = answers(socket, &message);
    assert_eq!(answers.len(), 1, "{call}: {answers:?}");
    (
        answers[0]["error"].as_str().unwrap().to_owned(),
        answers[0]["parameters"].clone(),
    )
}

fn still_answers(socket: &Path) {
    let info = json!({"method": "org.varlink.service.GetInfo"}).to_string() + "\0";
    let answers = answers(socket, info.as_bytes());
    assert!(
        answers[0]["parameters"]["product"].is_string(),
        "{answers:?}"
    );
}

async fn load(socket: &Path, modules: &[&str]) -> LoadReply {
    let arguments = LoadArgs {
        modules: modules.iter().map(|&m| m.to_owned()).collect(),
        reason: Some("test".to_owned()),
        ordered: None,
        timeout_usec: None,
    };
    let mut client = Client::connect(socket).await.unwrap();
    client.call(LOAD, &arguments, DEADLINE).await.unwrap()
}

#[test]
fn an_invalid_call_gets_an_error_that_names_the_fault_and_loads_nothing() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        let invalid = "org.varlink.service.InvalidParameter";
        for (parameters, parameter) in [
            (json!({}), "modules"),
            (json!({"modules": "ib_uverbs"}), "modules"),
            (json!({"modules": ["ib_uverbs", 1]}), "modules[1]"),
            (
                json!({"modules": ["ib_uverbs"], "options": "x=1"}),
                "options",
            ),
            (json!({"modules": ["ib_uverbs"], "reason": 1}), "reason"),
            (
                json!({"modules": ["ib_uverbs", "../../evil"]}),
                "modules[1]",
            ),
            (json!({"modules": ["ib_uverbs", ""]}), "modules[1]"),
            (json!({"modules": ["/lib/modules/x.ko"]}), "modules[0]"),
            (json!({"modules": ["ib_core nosuch=1"]}), "modules[0]"),
            (json!({"modules": vec!["ib_uverbs"; 65]}), "modules"),
        ] {
            let call = json!({"method": LOAD, "parameters": parameters});
            let (name, named) = error(&socket, &call);
            assert_eq!(name, invalid, "{call}");
            assert_eq!(named["parameter"], parameter, "{call}");
        }
        let not_found = "org.varlink.service.MethodNotFound";
        for method in [
            "org.rdmahotplug.Loader.Unload",
            "org.example.Foo",
            "Load",
            "",
        ] {
            let (name, named) = error(&socket, &json!({"method": method}));
            assert_eq!(
                (name.as_str(), &named["method"]),
                (not_found, &json!(method))
            );
        }
        still_answers(&socket);
        assert!(lab.world().inserted.is_empty());
    });
}

#[test]
fn an_invalid_message_gets_an_error_and_ends_only_its_connection() {
    with_lab(Vec::new(), async |lab| {
        for interface in [DETECTOR, LOADER, ORCHESTRATOR] {
            let socket = lab.socket(interface);
            let long = vec![b'x'; 1 << 20];
            for (message, parameter) in [
                (&b"not json\0"[..], "message"),
                (b"[]\0", "message"),
                (b"{\"method\":\"org.varlink.service.GetInfo\"", "message"),
                (b"\0", "message"),
                (b"\xff\xfe\0", "message"),
                (b"{}\0", "method"),
                (b"{\"method\":1}\0", "method"),
                (b"{\"method\":\"a.B\",\"zzz\":1}\0", "zzz"),
                (
                    b"{\"method\":\"a.B\",\"more\":true,\"oneway\":true}\0",
                    "oneway",
                ),
            ] {
                let answers = answers(&socket, message);
                assert_eq!(answers.len(), 1, "{message:?}: {answers:?}");
                assert_eq!(
                    answers[0]["parameters"]["parameter"], parameter,
                    "{message:?}"
                );
            }
            // The service may close the connection before an endless message is written completely.
            let mut stream = UnixStream::connect(&socket).unwrap();
            let _ = stream.write_all(&long);
            let _ = stream.read_to_end(&mut Vec::new());
            still_answers(&socket);
        }
    });
}

#[test]
fn every_module_gets_its_own_outcome() {
    with_lab(vec![roce_device("bnxt_re0")], async |lab| {
        lab.wait_until("the device to be ready", |world| {
            world
                .devices
                .values()
                .any(|device| device.state == State::Ready)
        })
        .await
        .unwrap();
        let before = lab.world().inserted.len();
        let asked = ["nosuch", "hfi1", "ib-uverbs", "virtio_pci", "ib_umad"];
        let reply = load(&lab.socket(LOADER), &asked).await;
        let outcomes: Vec<(&str, Outcome)> = reply
            .results
            .iter()
            .map(|result| (result.module.as_str(), result.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("nosuch", Outcome::Missing),
                ("hfi1", Outcome::Denied),
                ("ib_uverbs", Outcome::AlreadyLoaded),
                ("virtio_pci", Outcome::Builtin),
                ("ib_umad", Outcome::Loaded),
            ]
        );
        lab.wait_until("ib_umad", |world| world.inserted.len() == before + 1)
            .await
            .unwrap();
        assert_eq!(lab.world().inserted.last().unwrap(), "ib_umad");
    });
}

#[test]
fn a_subscription_without_more_and_an_empty_list_have_their_own_errors() {
    with_lab(Vec::new(), async |lab| {
        for (interface, subscribe) in [
            (DETECTOR, "SubscribeDevices"),
            (ORCHESTRATOR, "SubscribeStatus"),
        ] {
            let socket = lab.socket(interface);
            let (name, _) = error(
                &socket,
                &json!({"method": format!("{interface}.{subscribe}")}),
            );
            assert_eq!(name, "org.varlink.service.ExpectedMore");
            let list = format!("{interface}.List");
            let (name, _) = error(&socket, &json!({"method": list}));
            assert_eq!(name, "org.varlink.service.ExpectedMore");
            let (name, _) = error(&socket, &json!({"method": list, "more": true}));
            assert_eq!(name, format!("{interface}.NoSuchDevice"));
            let one = json!({"method": list, "parameters": {"name": "mlx5_0"}});
            assert_eq!(error(&socket, &one).0, format!("{interface}.NoSuchDevice"));
        }
    });
}

#[test]
fn a_pipeline_gets_replies_in_order_and_a_oneway_call_gets_no_reply() {
    with_lab(Vec::new(), async |lab| {
        let info = "org.varlink.service.GetInfo";
        let calls = [
            json!({"method": info}),
            json!({"method": info, "oneway": true}),
            json!({"method": "a.B", "oneway": true}),
            json!({"method": "a.B"}),
            json!({"method": info}),
        ];
        let pipeline: String = calls.iter().map(|call| format!("{call}\0")).collect();
        let answers = answers(&lab.socket(DETECTOR), pipeline.as_bytes());
        assert_eq!(answers.len(), 3);
        assert!(answers[0]["parameters"]["product"].is_string());
        assert_eq!(answers[1]["error"], "org.varlink.service.MethodNotFound");
        assert!(answers[2]["parameters"]["product"].is_string());
    });
}

#[test]
fn a_device_plugged_in_while_the_detector_is_down_is_found_after_its_restart() {
    with_lab(scenario::at_boot(), async |lab| {
        lab.service("rdma-detector").unwrap().kill().await.unwrap();
        lab.kernel().plug(roce_device("bnxt_re0")).unwrap();
        lab.restart("rdma-detector").await.unwrap();
        lab.wait_until("both devices to be ready", |world| {
            let ready = world.devices.values().filter(|d| d.state == State::Ready);
            ready.count() == 2
        })
        .await
        .unwrap();
    });
}

/// Cases K7: 16 devices are plugged in, and a client calls Wait at once.
#[test]
fn a_wait_covers_every_device_that_the_kernel_has_announced() {
    with_lab(Vec::new(), async |lab| {
        for round in 0..5 {
            let plugged: Vec<u32> = (0..16)
                .map(|number| {
                    let mut device = roce_device(&format!("bnxt_re{number}"));
                    device.pci_address = format!("0000:{:02x}:00.0", number + 1);
                    lab.kernel().plug(device).unwrap()
                })
                .collect();
            let mut client = Client::connect(&lab.socket(ORCHESTRATOR)).await.unwrap();
            let settled = client.call::<Value>(WAIT, &json!({}), DEADLINE).await;
            settled.unwrap();
            let socket = lab.socket(ORCHESTRATOR);
            let list = json!({"method": format!("{ORCHESTRATOR}.List"), "more": true});
            let listed = answers_async(&socket, &list).await;
            assert_eq!(listed.len(), 16, "round {round}");
            for reply in &listed {
                assert_eq!(reply["parameters"]["device"]["state"], "ready", "{reply}");
            }
            for index in plugged {
                lab.kernel().unplug(index).unwrap();
            }
        }
    });
}

#[test]
fn a_wait_that_begins_while_the_detector_is_down_ends_after_its_restart() {
    with_lab(Vec::new(), async |lab| {
        lab.service("rdma-detector").unwrap().kill().await.unwrap();
        lab.kernel().plug(roce_device("bnxt_re0")).unwrap();
        let mut client = Client::connect(&lab.socket(ORCHESTRATOR)).await.unwrap();
        let hasty = json!({"timeoutUSec": 300_000});
        let refused = client.call::<Value>(WAIT, &hasty, DEADLINE).await;
        let ClientErrorKind::Answered { name, parameters } = refused.unwrap_err().kind else {
            panic!("not answered");
        };
        assert_eq!(name, "org.rdmahotplug.Orchestrator.WaitTimedOut");
        let missing = json!({"waitingFor": ["the detector's reply"]});
        assert_eq!(parameters, Some(missing));
        let all = json!({});
        let waited = client.call::<Value>(WAIT, &all, DEADLINE);
        let (settled, restarted) = tokio::join!(waited, lab.restart("rdma-detector"));
        restarted.unwrap();
        settled.unwrap();
        let socket = lab.socket(ORCHESTRATOR);
        let list = json!({"method": format!("{ORCHESTRATOR}.List"), "more": true});
        let listed = answers_async(&socket, &list).await;
        assert_eq!(listed[0]["parameters"]["device"]["state"], "ready");
    });
}

#[test]
fn a_device_waits_for_a_loader_that_is_down_and_becomes_ready_after_its_restart() {
    with_lab(Vec::new(), async |lab| {
        lab.service("rdma-loader").unwrap().kill().await.unwrap();
        lab.kernel().plug(roce_device("bnxt_re0")).unwrap();
        lab.wait_until("the device to wait", |world| {
            world
                .devices
                .values()
                .any(|device| device.state == State::Registered)
        })
        .await
        .unwrap();
        lab.restart("rdma-loader").await.unwrap();
        lab.wait_until("the device to be ready", |world| {
            world
                .devices
                .values()
                .any(|device| device.state == State::Ready)
        })
        .await
        .unwrap();
    });
}

#[test]
fn the_last_unplug_stops_the_target_and_a_replug_starts_it_again() {
    with_lab(Vec::new(), async |lab| {
        for _ in 0..3 {
            let index = lab.kernel().plug(roce_device("bnxt_re0")).unwrap();
            lab.wait_until("rdma-hw.target", |world| world.target_active)
                .await
                .unwrap();
            lab.kernel().unplug(index).unwrap();
            lab.wait_until("no rdma-hw.target", |world| !world.target_active)
                .await
                .unwrap();
        }
    });
}

#[test]
fn a_client_error_contains_the_socket_and_the_method() {
    with_lab(Vec::new(), async |lab| {
        let socket = lab.socket(LOADER);
        let mut client = Client::connect(&socket).await.unwrap();
        let error = client
            .call::<Value>("org.example.Foo", &json!({}), DEADLINE)
            .await
            .unwrap_err();
        assert_eq!(error.socket, socket);
        assert_eq!(error.method, "org.example.Foo");
        assert!(matches!(error.kind, ClientErrorKind::Answered { .. }));
    });
}

/// Reads a subscription up to the `ready` of its next snapshot, and returns the events on the way.
async fn snapshot(subscription: &mut Subscription) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match subscription.next::<Value>().await {
            Followed::Begins => told.push("begins".to_owned()),
            Followed::Lost(_) => told.push("lost".to_owned()),
            Followed::Reply(reply) => {
                let action = reply["action"].as_str().unwrap().to_owned();
                let ready = action == "ready";
                told.push(action);
                if ready {
                    // Attempts while the service is down yield only repeated `lost` events.
                    told.dedup();
                    return told;
                }
            }
        }
    }
}

#[test]
fn a_subscriber_resumes_with_a_snapshot_after_a_restart_of_its_service() {
    for (service, interface, method) in [
        ("rdma-detector", DETECTOR, SUBSCRIBE_DEVICES),
        ("rdma-orchestrator", ORCHESTRATOR, SUBSCRIBE_STATUS),
    ] {
        with_lab(vec![roce_device("bnxt_re0")], async |lab| {
            let ready = |world: &Observed| world.devices.values().any(|d| d.state == State::Ready);
            lab.wait_until("the device to be ready", ready)
                .await
                .unwrap();
            let mut subscription = Subscription::new(lab.socket(interface), method, &json!({}));
            assert_eq!(
                snapshot(&mut subscription).await,
                ["begins", "add", "ready"]
            );
            lab.service(service).unwrap().kill().await.unwrap();
            lab.restart(service).await.unwrap();
            let mut resumed = snapshot(&mut subscription).await;
            // The orchestrator may accept the subscription before it knows the device. It then
            // sends the device later.
            if resumed == ["lost", "begins", "ready"] {
                resumed.insert(2, "add".to_owned());
            }
            assert_eq!(resumed, ["lost", "begins", "add", "ready"], "{service}");
        });
    }
}

#[test]
fn a_caller_whose_service_is_killed_gets_an_error_and_does_not_hang() {
    with_lab(Vec::new(), async |lab| {
        lab.kernel().hold_modules(true);
        let load = json!({"modules": ["ib_uverbs"]});
        let wait = json!({"name": "mlx5_0"});
        for (service, interface, method, arguments) in [
            ("rdma-loader", LOADER, LOAD, load),
            ("rdma-orchestrator", ORCHESTRATOR, WAIT, wait),
        ] {
            let mut client = Client::connect(&lab.socket(interface)).await.unwrap();
            let call = client.call::<Value>(method, &arguments, DEADLINE);
            let killed = async {
                // A reply to a later call shows that the service has read this one from the socket.
                still_answers_async(&lab.socket(interface)).await;
                kill_process(lab.service(service).unwrap().pid().unwrap(), Signal::KILL).unwrap();
            };
            let (answer, ()) = tokio::join!(call, killed);
            let error = answer.unwrap_err();
            assert!(
                matches!(
                    error.kind,
                    ClientErrorKind::Disconnected | ClientErrorKind::Io(_)
                ),
                "{service}: {error:?}"
            );
        }
    });
}

/// Does the same as [`answers`] for a call, while this thread serves the lab.
async fn answers_async(socket: &Path, call: &Value) -> Vec<Value> {
    let (socket, message) = (socket.to_owned(), format!("{call}\0"));
    tokio::task::spawn_blocking(move || answers(&socket, message.as_bytes()))
        .await
        .unwrap()
}

async fn still_answers_async(socket: &Path) {
    let mut client = Client::connect(socket).await.unwrap();
    let ping = "io.systemd.service.Ping";
    client
        .call::<Value>(ping, &json!({}), DEADLINE)
        .await
        .unwrap();
}

#[test]
fn a_stop_lets_a_load_that_ends_in_time_reply_to_its_caller() {
    with_lab(Vec::new(), async |lab| {
        lab.kernel().hold_modules(true);
        let mut client = Client::connect(&lab.socket(LOADER)).await.unwrap();
        let arguments = json!({"modules": ["ib_uverbs"]});
        let call = client.call::<LoadReply>(LOAD, &arguments, DEADLINE);
        let stopped = async {
            still_answers_async(&lab.socket(LOADER)).await;
            let loader = lab.service("rdma-loader").unwrap();
            loader.terminate().unwrap();
            // Clients that connect from now on wait for the next start. That the service no longer
            // accepts a connection shows that the stop has begun.
            let mut accepted = true;
            while accepted {
                let mut late = Client::connect(&lab.socket(LOADER)).await.unwrap();
                let moment = Duration::from_millis(100);
                let ping = "io.systemd.service.Ping";
                accepted = late.call::<Value>(ping, &json!({}), moment).await.is_ok();
            }
            assert!(!lab.service("rdma-loader").unwrap().has_ended().unwrap());
            lab.kernel().hold_modules(false);
        };
        let (answer, ()) = tokio::join!(call, stopped);
        let results = answer.unwrap().results;
        assert_eq!(results[0].outcome, Outcome::Loaded);
        lab.service("rdma-loader").unwrap().stop().await;
    });
}

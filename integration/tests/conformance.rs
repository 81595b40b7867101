//! The three services, called by clients of other projects: the varlink crate's blocking client and
//! the zlink crate's. (The container test calls them with systemd's varlinkctl.) Both run the same
//! table of requests.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod with_lab;

use std::path::Path;

use integration::lab::Lab;
use integration::scenario;
use interfaces::Interface;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use with_lab::with_lab;

/// A reply's parameters, or the error's name and parameters.
type Answer = Result<Value, (String, Value)>;

/// A request: a method, its parameters, and the number of replies to read under `more`.
struct Question {
    method: String,
    parameters: Value,
    more: Option<usize>,
}

/// A client of another project.
trait Client {
    async fn ask(socket: &Path, question: Question) -> Vec<Answer>;
}

/// The varlink crate's blocking client.
struct VarlinkCrate;

impl Client for VarlinkCrate {
    async fn ask(socket: &Path, question: Question) -> Vec<Answer> {
        let address = format!("unix:{}", socket.display());
        // The client blocks, and the simulated kernel runs on this thread.
        let asked = tokio::task::spawn_blocking(move || {
            let connection = varlink::Connection::with_address(&address).unwrap();
            let mut call = varlink::MethodCall::<Value, Value, varlink::Error>::new(
                connection,
                question.method,
                question.parameters,
            );
            match question.more {
                None => vec![answer(call.call())],
                Some(count) => {
                    let replies = call.more().unwrap();
                    replies.take(count).map(answer).collect()
                }
            }
        });
        asked.await.unwrap()
    }
}

fn answer(reply: Result<Value, varlink::Error>) -> Answer {
    use varlink::ErrorKind;
    reply.map_err(|error| {
        let named = |name: &str, key: &str, value: &str| {
            (format!("org.varlink.service.{name}"), json!({ key: value }))
        };
        match error.kind() {
            ErrorKind::VarlinkErrorReply(reply) => (
                reply.error.clone().unwrap().into_owned(),
                reply.parameters.clone().unwrap_or_default(),
            ),
            ErrorKind::InvalidParameter(name) => named("InvalidParameter", "parameter", name),
            ErrorKind::MethodNotFound(name) => named("MethodNotFound", "method", name),
            ErrorKind::InterfaceNotFound(name) => named("InterfaceNotFound", "interface", name),
            other => panic!("{other:?}"),
        }
    })
}

/// The zlink crate's client.
struct ZlinkCrate;

#[derive(Debug, Serialize)]
struct ZlinkCall {
    method: String,
    parameters: Value,
}

#[derive(Debug, Deserialize)]
struct ZlinkError {
    error: String,
    #[serde(default)]
    parameters: Value,
}

impl Client for ZlinkCrate {
    async fn ask(socket: &Path, question: Question) -> Vec<Answer> {
        let mut connection = zlink::tokio::unix::connect(socket).await.unwrap();
        let call = zlink::Call::new(ZlinkCall {
            method: question.method,
            parameters: question.parameters,
        });
        let call = call.set_more(question.more.is_some());
        connection.send_call(&call, Vec::new()).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..question.more.unwrap_or(1) {
            let reply = match connection.receive_reply::<Value, ZlinkError>().await {
                Ok((reply, _)) => reply,
                // The errors of org.varlink.service have their own type.
                Err(zlink::Error::VarlinkService(error)) => {
                    let error = serde_json::to_value(&error).unwrap();
                    Err(serde_json::from_value(error).unwrap())
                }
                Err(other) => panic!("{other}"),
            };
            match reply {
                Ok(reply) => {
                    let last = reply.continues() != Some(true);
                    answers.push(Ok(reply.into_parameters().unwrap_or_default()));
                    if last {
                        break;
                    }
                }
                Err(ZlinkError { error, parameters }) => {
                    answers.push(Err((error, parameters)));
                    break;
                }
            }
        }
        answers
    }
}

async fn one<C: Client>(socket: &Path, method: &str, parameters: Value) -> Answer {
    let question = Question {
        method: method.to_owned(),
        parameters,
        more: None,
    };
    let mut answers = C::ask(socket, question).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn some<C: Client>(socket: &Path, method: &str, count: usize) -> Vec<Answer> {
    let question = Question {
        method: method.to_owned(),
        parameters: json!({}),
        more: Some(count),
    };
    C::ask(socket, question).await
}

fn error(name: &str, key: &str, value: &str) -> Answer {
    Err((format!("org.varlink.service.{name}"), json!({ key: value })))
}

/// Checks all that each service has to answer in the same way.
async fn every_service_conforms<C: Client>(lab: &Lab) {
    for (interface, wrong_type) in [
        (
            interfaces::detector::INTERFACE,
            ("List", json!({"name": 1}), "name"),
        ),
        (
            interfaces::loader::INTERFACE,
            ("Load", json!({"modules": [1]}), "modules[0]"),
        ),
        (
            interfaces::orchestrator::INTERFACE,
            ("List", json!({"index": "x"}), "index"),
        ),
    ] {
        let Interface { name, text } = interface;
        let socket = lab.socket(name);
        let info = one::<C>(&socket, "org.varlink.service.GetInfo", json!({}))
            .await
            .unwrap();
        let served = info["interfaces"].as_array().unwrap();
        for expected in ["org.varlink.service", "io.systemd.service", name] {
            assert!(served.iter().any(|served| served == expected), "{info}");
        }
        for key in ["vendor", "product", "version", "url"] {
            assert!(info[key].is_string(), "{key}: {info}");
        }

        let describe = "org.varlink.service.GetInterfaceDescription";
        let described = one::<C>(&socket, describe, json!({"interface": name}))
            .await
            .unwrap();
        assert_eq!(described["description"], text);
        let unknown = one::<C>(&socket, describe, json!({"interface": "a.b"})).await;
        assert_eq!(unknown, error("InterfaceNotFound", "interface", "a.b"));

        let ping = one::<C>(&socket, "io.systemd.service.Ping", json!({})).await;
        assert_eq!(ping, Ok(json!({})));

        let method = format!("{name}.Nonsense");
        for method in [method.as_str(), "org.example.Other.Method"] {
            let unknown = one::<C>(&socket, method, json!({})).await;
            assert_eq!(unknown, error("MethodNotFound", "method", method));
        }
        let extra = one::<C>(&socket, "io.systemd.service.Ping", json!({"zzz": 1})).await;
        assert_eq!(extra, error("InvalidParameter", "parameter", "zzz"));
        let (method, parameters, parameter) = wrong_type;
        let wrong = one::<C>(&socket, &format!("{name}.{method}"), parameters).await;
        assert_eq!(wrong, error("InvalidParameter", "parameter", parameter));
    }
}

/// Checks that the streams are as documented.
async fn streams_conform<C: Client>(lab: &Lab) {
    // The detector's stream begins with the kernel's modules.
    for (interface, subscribe, actions) in [
        (
            "org.rdmahotplug.Detector",
            "SubscribeDevices",
            &["add", "add", "ready"][..],
        ),
        (
            "org.rdmahotplug.Orchestrator",
            "SubscribeStatus",
            &["add", "ready"],
        ),
    ] {
        let socket = lab.socket(interface);
        let listed = some::<C>(&socket, &format!("{interface}.List"), 10).await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].as_ref().unwrap()["device"]["name"], "mlx5_0");

        let method = format!("{interface}.{subscribe}");
        let told = some::<C>(&socket, &method, actions.len()).await;
        let said = told.iter().map(|reply| &reply.as_ref().unwrap()["action"]);
        assert_eq!(said.collect::<Vec<_>>(), *actions, "{told:?}");

        let without_more = one::<C>(&socket, &format!("{interface}.{subscribe}"), json!({})).await;
        let (error, _) = without_more.unwrap_err();
        assert_eq!(error, "org.varlink.service.ExpectedMore");
        let named = one::<C>(&socket, &format!("{interface}.List"), json!({"name": "x"})).await;
        assert_eq!(named.unwrap_err().0, format!("{interface}.NoSuchDevice"));
    }
    let loader = lab.socket("org.rdmahotplug.Loader");
    let modules = json!({"modules": ["nosuch", "ib_uverbs"]});
    let reply = one::<C>(&loader, "org.rdmahotplug.Loader.Load", modules)
        .await
        .unwrap();
    assert_eq!(reply["results"][0]["outcome"], "missing");
    assert_eq!(reply["results"][1]["outcome"], "alreadyLoaded");
}

async fn conforms<C: Client>(lab: &mut Lab) {
    lab.wait_until("the device to be ready", |world| {
        let mut devices = world.devices.values();
        devices.any(|d| d.state == interfaces::orchestrator::State::Ready)
    })
    .await
    .unwrap();
    every_service_conforms::<C>(lab).await;
    streams_conform::<C>(lab).await;
}

#[test]
fn the_varlink_crate_understands_every_service() {
    with_lab(scenario::at_boot(), async |lab| {
        conforms::<VarlinkCrate>(lab).await;
    });
}

#[test]
fn the_zlink_crate_understands_every_service() {
    with_lab(scenario::at_boot(), async |lab| {
        conforms::<ZlinkCrate>(lab).await;
    });
}

//! The varlink project's certification service, `org.varlink.certification`, on the server of the
//! three services. A client of a different implementation calls its methods in their order, and
//! passes to each the values that the previous method returned. Listens on the socket of a service
//! manager or of `$SYSTEMD_VARLINK_LISTEN`. Must never be installed, and never accept a call that
//! differs from the interface's text.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use interfaces::Interface;
use interfaces::activation::Inherited;
use interfaces::lifecycle::Signals;
use interfaces::server::{self, Admission, Call, CallError, Service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The interface as the PyPI package `varlink` 31.0.0 ships it.
const INTERFACE: Interface = Interface {
    name: "org.varlink.certification",
    text: include_str!("org.varlink.certification.varlink"),
};

/// The methods after `Start`, in the order in which a client must call them.
const STEPS: [&str; 12] = [
    "Test01", "Test02", "Test03", "Test04", "Test05", "Test06", "Test07", "Test08", "Test09",
    "Test10", "Test11", "End",
];
/// The number of replies of `Test10`.
const REPLIES: usize = 10;

// The arguments, as in the interface's text.

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ClientArgs {
    client_id: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test02Args {
    client_id: String,
    bool: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test03Args {
    client_id: String,
    int: i64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test04Args {
    client_id: String,
    float: f64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test05Args {
    client_id: String,
    string: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test06Args {
    client_id: String,
    bool: bool,
    int: i64,
    float: f64,
    string: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test07Args {
    client_id: String,
    r#struct: Basic,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test08Args {
    client_id: String,
    map: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test09Args {
    client_id: String,
    set: Set,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test10Args {
    client_id: String,
    mytype: MyType,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Test11Args {
    client_id: String,
    last_more_replies: Vec<String>,
}

/// A set of strings: each is a key whose value is empty.
type Set = BTreeMap<String, NoArguments>;

/// One value of each basic type.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Basic {
    bool: bool,
    int: i64,
    float: f64,
    string: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    first: i64,
    second: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Number {
    One,
    Two,
    Three,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Foo,
    Bar,
    Baz,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Anonymous {
    foo: bool,
    bar: bool,
}

/// The type that the interface calls `Interface`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    foo: Option<Vec<Option<BTreeMap<String, Word>>>>,
    anon: Anonymous,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MyType {
    object: Map<String, Value>,
    r#enum: Number,
    r#struct: Pair,
    array: Vec<String>,
    dictionary: BTreeMap<String, String>,
    stringset: Set,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nullable: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nullable_array_struct: Option<Vec<Pair>>,
    interface: Nested,
}

// The values that one method returns, and that the client must pass to the next.

fn basic() -> Value {
    json!({"bool": false, "int": 2, "float": PI, "string": "a lot of string"})
}

fn map() -> Value {
    json!({"foo": "Foo", "bar": "Bar"})
}

fn set() -> Value {
    json!({"one": {}, "two": {}, "three": {}})
}

fn my_type() -> Value {
    json!({
        "object": {
            "method": "org.varlink.certification.Test09",
            "parameters": {"map": map()},
        },
        "enum": "two",
        "struct": {"first": 1, "second": "2"},
        "array": ["one", "two", "three"],
        "dictionary": map(),
        "stringset": set(),
        "interface": {
            "foo": [
                null,
                {"foo": "foo", "bar": "bar"},
                null,
                {"one": "foo", "two": "bar"},
            ],
            "anon": {"foo": true, "bar": false},
        },
    })
}

fn replies() -> Vec<String> {
    let numbers = 1..=REPLIES;
    numbers
        .map(|number| format!("Reply number {number}"))
        .collect()
}

/// The clients that have started, by their ids, each with the index of its next step in [`STEPS`].
#[derive(Default)]
struct Certification {
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    next: BTreeMap<String, usize>,
    begun: u64,
}

impl Certification {
    fn with_clients<R>(&self, change: impl FnOnce(&mut Clients) -> R) -> R {
        change(&mut self.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self) -> String {
        self.with_clients(|clients| {
            clients.begun += 1;
            let id = format!("client-{}", clients.begun);
            clients.next.insert(id.clone(), 0);
            id
        })
    }

    /// Performs one step of a client: decodes the arguments and compares them with `wants`, to
    /// which it adds the client's id. A client that differs is removed, as the interface's own
    /// servers do it.
    fn step<A>(&self, call: &mut Call<'_>, mut wants: Value) -> Result<(), CallError>
    where
        A: DeserializeOwned + Serialize,
    {
        let arguments: A = call.arguments()?;
        let got = serde_json::to_value(&arguments).map_err(io::Error::from)?;
        let id = got.get("client_id").and_then(Value::as_str);
        let id = id.unwrap_or_default().to_owned();
        if let Value::Object(fields) = &mut wants {
            fields.insert("client_id".to_owned(), id.clone().into());
        }
        let step = STEPS.iter().position(|name| is_method(call, name));
        let expected = self.with_clients(|clients| clients.next.get(&id).copied());
        let Some(expected) = expected else {
            let name = "org.varlink.certification.ClientIdError";
            return Err(CallError::named(name));
        };
        let more = is_method(call, "Test10");
        if step == Some(expected) && call.wants_more() == more && got == wants {
            self.with_clients(|clients| clients.next.insert(id, expected + 1));
            return Ok(());
        }
        self.with_clients(|clients| clients.next.remove(&id));
        let method = STEPS.get(expected).copied().unwrap_or_default();
        let wants = json!({
            "method": format!("{}.{method}", INTERFACE.name),
            "more": method == "Test10",
            "parameters": wants,
        });
        let got = json!({
            "method": call.method(),
            "more": call.wants_more(),
            "parameters": got,
        });
        Err(certification_error(&wants, &got))
    }

    async fn more(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        self.step::<Test10Args>(call, json!({"mytype": my_type()}))?;
        let mut replies = replies();
        let last = replies.pop();
        for reply in replies {
            call.reply_continues(&json!({"string": reply})).await?;
        }
        call.reply(&json!({"string": last})).await
    }

    /// Handles a call that must be oneway. A oneway call receives no reply, so only other calls
    /// receive this error.
    fn oneway(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let replies = replies();
        self.step::<Test11Args>(call, json!({"last_more_replies": replies}))?;
        let flags = |oneway: bool| json!({"method": call.method(), "oneway": oneway});
        Err(certification_error(&flags(true), &flags(false)))
    }
}

fn is_method(call: &Call<'_>, name: &str) -> bool {
    let method = call.method().strip_prefix(INTERFACE.name);
    method.and_then(|method| method.strip_prefix('.')) == Some(name)
}

fn certification_error(wants: &Value, got: &Value) -> CallError {
    CallError::answer(
        "org.varlink.certification.CertificationError",
        json!({"wants": wants, "got": got}),
    )
}

impl Service for Certification {
    const PRODUCT: &'static str = "certification";
    const INTERFACE: Interface = INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let method = call.method().to_owned();
        let name = method.rsplit('.').next().unwrap_or_default();
        let returned = match name {
            "Start" => {
                let NoArguments {} = call.arguments()?;
                json!({"client_id": self.begin()})
            }
            "Test01" => {
                self.step::<ClientArgs>(call, json!({}))?;
                json!({"bool": true})
            }
            "Test02" => {
                self.step::<Test02Args>(call, json!({"bool": true}))?;
                json!({"int": 1})
            }
            "Test03" => {
                self.step::<Test03Args>(call, json!({"int": 1}))?;
                json!({"float": 1.0})
            }
            "Test04" => {
                self.step::<Test04Args>(call, json!({"float": 1.0}))?;
                json!({"string": "ping"})
            }
            "Test05" => {
                self.step::<Test05Args>(call, json!({"string": "ping"}))?;
                basic()
            }
            "Test06" => {
                self.step::<Test06Args>(call, basic())?;
                json!({"struct": basic()})
            }
            "Test07" => {
                self.step::<Test07Args>(call, json!({"struct": basic()}))?;
                json!({"map": map()})
            }
            "Test08" => {
                self.step::<Test08Args>(call, json!({"map": map()}))?;
                json!({"set": set()})
            }
            "Test09" => {
                self.step::<Test09Args>(call, json!({"set": set()}))?;
                json!({"mytype": my_type()})
            }
            "Test10" => return self.more(call).await,
            "Test11" => return self.oneway(call),
            "End" => {
                self.step::<ClientArgs>(call, json!({}))?;
                json!({"all_ok": true})
            }
            _ => return Err(CallError::method_not_found(&method)),
        };
        call.reply(&returned).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listen = std::env::var_os("SYSTEMD_VARLINK_LISTEN").map(PathBuf::from);
    let endpoint = Inherited::from_environment()?.take_varlink(listen.as_deref())?;
    let service = Arc::new(Certification::default());
    let mut signals = Signals::catch()?;
    server::serve(endpoint, service, &mut signals, None, Admission::default()).await
}

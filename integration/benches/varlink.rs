//! The benchmark of the varlink server, compared with zlink's: the same method, the same client, in
//! the same run. Prints medians and ratios; that it passes proves nothing. Run with
//! `cargo bench -p integration`.
//!
//! Rounds alternate between the two servers, so that other load of the host affects both.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "zlink's macro documents nothing, a benchmark prints, and a panic is how it says what is wrong"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use interfaces::Interface;
use interfaces::activation::Endpoint;
use interfaces::lifecycle::Signals;
use interfaces::server::{Admission, Call, CallError, Feed, Service, Snapshot, serve};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zlink::notified::State as _;

const ROUNDS: usize = 7;
const CALLS: usize = 20_000;
const SUBSCRIBERS: usize = 1_000;
const EVENTS: usize = 30;
/// The time that an operation may take before it counts as failed.
const TIMEOUT: Duration = Duration::from_secs(20);

const ECHO: &[u8] =
    b"{\"method\":\"org.example.bench.Echo\",\"parameters\":{\"text\":\"hello\"}}\0";
const PUBLISH: &[u8] = b"{\"method\":\"org.example.bench.Publish\",\"parameters\":{}}\0";
const SUBSCRIBE: &[u8] =
    b"{\"method\":\"org.example.bench.Subscribe\",\"parameters\":{},\"more\":true}\0";

/// The event that a subscriber receives: about as long as a device record.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    number: i64,
    text: String,
}

fn event(number: i64) -> Event {
    Event {
        number,
        text: "x".repeat(400),
    }
}

// The server of this project.

#[derive(Default)]
struct Numbers(i64);

impl Snapshot for Numbers {
    type Event = Event;

    fn snapshot(&self) -> Vec<Event> {
        vec![event(self.0)]
    }

    fn resync(&self) -> Event {
        event(-1)
    }
}

#[derive(Default)]
struct Ours {
    feed: Feed<Numbers>,
}

impl Service for Ours {
    const PRODUCT: &'static str = "bench";
    const INTERFACE: Interface = Interface {
        name: "org.example.bench",
        text: "interface org.example.bench\n",
    };

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            "org.example.bench.Echo" => {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Arguments {
                    text: String,
                }
                let Arguments { text } = call.arguments()?;
                call.reply(&json!({ "text": text })).await
            }
            "org.example.bench.Publish" => {
                self.feed.update(|numbers| {
                    numbers.0 += 1;
                    vec![event(numbers.0)]
                });
                let number = self.feed.read(|numbers| numbers.0);
                call.reply(&json!({ "number": number })).await
            }
            "org.example.bench.Subscribe" => self.feed.serve(call).await,
            method => Err(CallError::method_not_found(method)),
        }
    }
}

fn run_ours(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async {
            let mut signals = Signals::catch().unwrap();
            let service = Arc::new(Ours::default());
            serve(
                Endpoint::Listening(listener),
                service,
                &mut signals,
                None,
                Admission::default(),
            )
            .await
            .unwrap();
        });
    });
}

// The server of zlink.

#[derive(Debug, Serialize, zlink::introspect::Type)]
struct Text {
    text: String,
}

#[derive(Debug, Serialize, zlink::introspect::Type)]
struct Number {
    number: i64,
}

#[derive(Clone, Debug, Serialize, zlink::introspect::Type)]
struct ZlinkEvent {
    number: i64,
    text: String,
}

struct Theirs {
    state: zlink::tokio::notified::State<ZlinkEvent, ZlinkEvent>,
}

#[zlink::service(interface = "org.example.bench")]
impl Theirs {
    async fn echo(&mut self, text: String) -> Text {
        Text { text }
    }

    async fn publish(&mut self) -> Number {
        let Event { number, text } = event(self.state.get().number + 1);
        self.state.set(ZlinkEvent { number, text }).await;
        Number { number }
    }

    #[zlink(more)]
    async fn subscribe(&self, more: bool) -> zlink::tokio::notified::Stream<ZlinkEvent> {
        assert!(more);
        self.state.stream()
    }
}

fn run_theirs(socket: &Path) {
    let socket = socket.to_owned();
    thread::spawn(move || {
        let Event { number, text } = event(0);
        runtime().block_on(async {
            let listener = zlink::tokio::unix::bind(&socket).unwrap();
            let state = zlink::tokio::notified::State::new(ZlinkEvent { number, text });
            let server = zlink::Server::new(listener, Theirs { state });
            server.run().await.unwrap();
        });
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

// The client, which sends the same bytes to both.

struct Connection {
    stream: BufReader<UnixStream>,
    message: Vec<u8>,
}

impl Connection {
    fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream: BufReader::new(stream),
            message: Vec::new(),
        }
    }

    fn send(&mut self, message: &[u8]) {
        self.stream.get_mut().write_all(message).unwrap();
    }

    fn receive(&mut self) {
        assert!(self.receive_in_time(), "no reply");
    }

    /// Returns true if a complete message arrived before the timeout. A partial message is kept.
    fn receive_in_time(&mut self) -> bool {
        if self.message.last() == Some(&0) {
            self.message.clear();
        }
        let _ = self.stream.read_until(0, &mut self.message);
        self.message.last() == Some(&0)
    }

    fn timeout(&self, timeout: Duration) {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(timeout)).unwrap();
    }

    /// Causes an event and returns its number.
    fn publish(&mut self) -> i64 {
        self.send(PUBLISH);
        self.receive();
        number(&self.message)
    }

    /// Receives events up to the one with this number.
    fn receive_up_to(&mut self, event: i64) {
        while number(&self.message) < event {
            self.receive();
        }
    }
}

/// Returns the calls per second and the 99th percentile, over `count` concurrent connections.
fn calls(socket: &Path, count: usize) -> (f64, Duration) {
    let start = Instant::now();
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let mut connection = Connection::open(socket);
            thread::spawn(move || {
                let mut times = Vec::with_capacity(CALLS / count);
                for _ in 0..CALLS / count {
                    let start = Instant::now();
                    connection.send(ECHO);
                    connection.receive();
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    let seconds = start.elapsed().as_secs_f64();
    times.sort();
    (times.len() as f64 / seconds, times[times.len() * 99 / 100])
}

/// Returns the median time from the cause of an event to its arrival at the last subscriber.
fn fan_out(socket: &Path, stalled: usize) -> Duration {
    let subscribe = || {
        let mut connection = Connection::open(socket);
        connection.send(SUBSCRIBE);
        connection
    };
    let _stalled: Vec<Connection> = (0..stalled).map(|_| subscribe()).collect();
    let mut subscribers: Vec<Connection> = (0..SUBSCRIBERS).map(|_| subscribe()).collect();
    let mut publisher = Connection::open(socket);
    // One server sends the current state at once and the other does not, so a subscription is known
    // to exist only after an event has arrived. A subscriber that missed an event gets the next.
    let mut newest = publisher.publish();
    for subscriber in &mut subscribers {
        subscriber.timeout(Duration::from_millis(100));
        while !subscriber.receive_in_time() {
            newest = publisher.publish();
        }
        subscriber.timeout(TIMEOUT);
    }
    for subscriber in &mut subscribers {
        subscriber.receive_up_to(newest);
    }
    let mut times = Vec::new();
    for _ in 0..EVENTS {
        let start = Instant::now();
        let event = publisher.publish();
        for subscriber in &mut subscribers {
            subscriber.receive_up_to(event);
        }
        times.push(start.elapsed());
    }
    median(&mut times)
}

fn number(message: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(message);
    let number = text.split("\"number\":").nth(1).unwrap();
    number.split([',', '}']).next().unwrap().parse().unwrap()
}

fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let sockets: [PathBuf; 2] = ["ours", "zlink"].map(|name| dir.path().join(name));
    raise_file_limit();
    run_ours(&sockets[0]);
    run_theirs(&sockets[1]);
    for socket in &sockets {
        while UnixStream::connect(socket).is_err() {
            thread::yield_now();
        }
    }
    for count in [1, 8] {
        let mut rates = [Vec::new(), Vec::new()];
        let mut tails = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (at, socket) in sockets.iter().enumerate() {
                let (rate, tail) = calls(socket, count);
                rates[at].push(rate);
                tails[at].push(tail.as_secs_f64() * 1e6);
            }
        }
        let [ours, theirs] = rates.map(|mut rates| median(&mut rates));
        println!(
            "{count} connections: {ours:.0} calls/s, zlink {theirs:.0}: {:.2} times",
            ours / theirs
        );
        let [ours, theirs] = tails.map(|mut tails| median(&mut tails));
        println!(
            "{count} connections: p99 {ours:.0} µs, zlink {theirs:.0} µs: {:.2} times",
            theirs / ours
        );
    }
    let mut times = [Vec::new(), Vec::new()];
    let mut with_stalled = Vec::new();
    for _ in 0..ROUNDS {
        for (at, socket) in sockets.iter().enumerate() {
            times[at].push(fan_out(socket, 0).as_secs_f64() * 1e3);
        }
        // zlink's server is left out: one subscriber that stops reading stops the whole server.
        with_stalled.push(fan_out(&sockets[0], 1).as_secs_f64() * 1e3);
    }
    let [ours, theirs] = times.map(|mut times| median(&mut times));
    println!(
        "one event to {SUBSCRIBERS} subscribers: {ours:.1} ms, zlink {theirs:.1} ms: {:.2} times",
        theirs / ours
    );
    let stalled = median(&mut with_stalled);
    println!(
        "the same with one stalled: {stalled:.1} ms, {:.2} of the time without",
        stalled / ours
    );
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

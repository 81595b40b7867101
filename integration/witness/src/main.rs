//! A witness in the guest, for tasks that the guest's own tools cannot do.
//! `witness follow SOCKET N FILE` subscribes N times to the detector and applies every event as a
//! subscriber must. It writes the resulting account into FILE on each SIGUSR1, and a last time on
//! SIGTERM. `witness forge` sends messages that look like uevents to all listeners for the kernel's
//! uevents. Received data is only stored, with its time, until an account is requested: a witness
//! that decoded a hundred subscriptions as they arrive would be slower than the service that it
//! observes. Responsible for evidence; must never judge it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use interfaces::detector::{Action, Function, SUBSCRIBE_DEVICES};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

/// The pause before the next connection after one was lost.
const RECONNECT: Duration = Duration::from_millis(50);

#[derive(Parser)]
enum Command {
    /// Subscribes and keeps account.
    Follow {
        /// The detector's socket.
        socket: PathBuf,
        /// How many subscriptions.
        subscribers: usize,
        /// Where the account is written.
        file: PathBuf,
    },
    /// Sends what looks like uevents.
    Forge,
}

/// One reply.
#[derive(Deserialize)]
struct Reply {
    parameters: Told,
}

/// The required fields of a reply; the device record stays as text.
#[derive(Clone, Deserialize)]
struct Told {
    action: Action,
    sequence: i64,
    index: Option<i64>,
    device: Option<Box<RawValue>>,
    function: Option<Function>,
    module: Option<String>,
    modules: Option<Vec<String>>,
}

/// The state of one subscriber.
#[derive(Clone, Default, Serialize)]
struct Account {
    devices: BTreeMap<i64, Box<RawValue>>,
    functions: BTreeMap<String, Function>,
    events: u64,
    resyncs: u64,
    /// The number of times that the connection was lost or could not be made.
    lost: u64,
    /// Events whose number is lower than the last, and events that are impossible.
    contradictions: Vec<String>,
    sequence: i64,
    /// The time of the last event, in µs of CLOCK_MONOTONIC.
    last_event: i64,
}

impl Account {
    fn take(&mut self, told: Told) {
        self.events += 1;
        if told.sequence < self.sequence {
            self.contradictions
                .push(format!("{} after {}", told.sequence, self.sequence));
        }
        self.sequence = told.sequence;
        match (told.action, told.index, told.device, told.function) {
            (Action::Add | Action::Change, Some(index), Some(device), _) => {
                self.devices.insert(index, device);
            }
            (Action::Remove, Some(index), ..) => {
                if self.devices.remove(&index).is_none() {
                    self.contradictions
                        .push(format!("{index} was removed twice"));
                }
            }
            (Action::Add | Action::Change, _, _, Some(function)) => {
                self.functions.insert(function.name.clone(), function);
            }
            (Action::Remove, _, _, Some(function)) => {
                self.functions.remove(&function.name);
            }
            (Action::Resync, ..) => {
                self.resyncs += 1;
                self.forget();
            }
            (Action::Ready, ..) => {}
            _ if told.module.is_some() || told.modules.is_some() => {}
            _ => self
                .contradictions
                .push("a reply without its record".to_owned()),
        }
    }

    fn forget(&mut self) {
        self.devices.clear();
        self.functions.clear();
        self.sequence = 0;
    }

    fn knows_the_same(&self, other: &Self) -> bool {
        let records = |account: &Self| -> Vec<String> {
            account
                .devices
                .values()
                .map(|device| device.get().to_owned())
                .collect()
        };
        self.functions == other.functions && records(self) == records(other)
    }
}

/// The account that is written.
#[derive(Serialize)]
struct Report<'a> {
    /// True if all subscribers have the same state.
    same: bool,
    /// The state of the first subscriber.
    first: &'a Account,
    events: u64,
    resyncs: u64,
    lost: u64,
    last_event: i64,
    contradictions: Vec<&'a String>,
}

fn report<'a>(accounts: &[&'a Account]) -> Option<Report<'a>> {
    let first = *accounts.first()?;
    Some(Report {
        same: accounts.iter().all(|account| account.knows_the_same(first)),
        first,
        events: accounts.iter().map(|account| account.events).sum(),
        resyncs: accounts.iter().map(|account| account.resyncs).sum(),
        lost: accounts.iter().map(|account| account.lost).sum(),
        last_event: accounts.iter().map(|account| account.last_event).max()?,
        contradictions: accounts
            .iter()
            .flat_map(|account| &account.contradictions)
            .collect(),
    })
}

/// One subscription: its account, and the data received since.
#[derive(Default)]
struct Subscriber {
    account: Account,
    unread: Vec<u8>,
}

/// Decoded replies by their text: a reply to all subscribers is decoded once.
type Decoded = HashMap<Vec<u8>, Result<Told, String>>;

impl Subscriber {
    /// Applies the received replies to the account, except for an incomplete last reply.
    fn read(&mut self, decoded: &mut Decoded) {
        let unread = std::mem::take(&mut self.unread);
        let mut replies = unread.split(|byte| *byte == 0).peekable();
        while let Some(reply) = replies.next() {
            if replies.peek().is_none() {
                self.unread = reply.to_owned();
            } else {
                self.take(reply, decoded);
            }
        }
    }

    fn take(&mut self, reply: &[u8], decoded: &mut Decoded) {
        if !decoded.contains_key(reply) {
            let told = serde_json::from_slice::<Reply>(reply);
            let told = told
                .map(|reply| reply.parameters)
                .map_err(|e| e.to_string());
            decoded.insert(reply.to_owned(), told);
        }
        match decoded.get(reply).cloned() {
            Some(Ok(told)) => self.account.take(told),
            Some(Err(e)) => self.account.contradictions.push(e),
            None => {}
        }
    }

    /// Starts a new connection, on which everything is sent again.
    fn begin(&mut self) {
        self.read(&mut Decoded::new());
        self.unread.clear();
        self.account.forget();
    }
}

type Subscribers = Arc<Mutex<Vec<Subscriber>>>;

fn with_one<R>(
    subscribers: &Subscribers,
    number: usize,
    change: impl FnOnce(&mut Subscriber) -> R,
) -> Option<R> {
    let mut subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
    subscribers.get_mut(number).map(change)
}

async fn follow(socket: PathBuf, number: usize, subscribers: Subscribers) {
    loop {
        // After any end of a connection, everything is sent again on the next.
        let _ = follow_once(&socket, number, &subscribers).await;
        with_one(&subscribers, number, |subscriber| {
            subscriber.account.lost += 1;
        });
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn follow_once(
    socket: &Path,
    number: usize,
    subscribers: &Subscribers,
) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    let call = json!({"method": SUBSCRIBE_DEVICES, "parameters": {}, "more": true});
    stream.write_all(format!("{call}\0").as_bytes()).await?;
    with_one(subscribers, number, Subscriber::begin);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        let Some(came) = buffer.get(..len).filter(|came| !came.is_empty()) else {
            return Ok(());
        };
        with_one(subscribers, number, |subscriber| {
            subscriber.account.last_event = now();
            subscriber.unread.extend_from_slice(came);
        });
    }
}

/// Writes the report atomically: a reader of the file sees a complete account.
fn write(subscribers: &Subscribers, file: &Path) -> std::io::Result<()> {
    let mut subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
    let mut decoded = Decoded::new();
    for subscriber in subscribers.iter_mut() {
        subscriber.read(&mut decoded);
    }
    let accounts: Vec<&Account> = subscribers.iter().map(|one| &one.account).collect();
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&report(&accounts))?)?;
    std::fs::rename(new, file)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let (socket, subscribers, file) = match Command::parse() {
        Command::Forge => return forge(),
        Command::Follow {
            socket,
            subscribers,
            file,
        } => (socket, subscribers, file),
    };
    let mut written = signal(SignalKind::user_defined1())?;
    let mut stopped = signal(SignalKind::terminate())?;
    let all: Vec<Subscriber> = (0..subscribers).map(|_| Subscriber::default()).collect();
    let all = Subscribers::new(Mutex::new(all));
    for number in 0..subscribers {
        tokio::spawn(follow(socket.clone(), number, Arc::clone(&all)));
    }
    loop {
        tokio::select! {
            _ = written.recv() => write(&all, &file)?,
            _ = stopped.recv() => return write(&all, &file),
        }
    }
}

/// Sends well-formed uevents of a device that does not exist: only their sender shows that they are
/// forged.
fn forge() -> std::io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(KOBJECT_UEVENT),
    )?;
    let everyone = SocketAddrNetlink::new(0, 1);
    for action in ["add", "remove"] {
        let path = "/devices/virtual/infiniband/forged0";
        let uevent = format!(
            "{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=infiniband\0SEQNUM=1\0"
        );
        sendto(&socket, uevent.as_bytes(), SendFlags::empty(), &everyone)?;
    }
    Ok(())
}

fn now() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

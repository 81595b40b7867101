//! A witness in the guest, for what the tools of a guest cannot do: `witness follow SOCKET N FILE`
//! subscribes N times to the detector, takes every event as a subscriber must, and writes what
//! that comes to into FILE whenever it is told to by SIGUSR1, and at SIGTERM for the last time;
//! `witness forge` sends what looks like uevents to everyone who listens to the kernel's.
//! Responsible for evidence; must never judge it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use interfaces::client::{Followed, Subscription};
use interfaces::detector::{Action, Function, SUBSCRIBE_DEVICES, SubscribeDevicesArgs};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::signal::unix::{SignalKind, signal};

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

/// What is needed of a reply; the record stays as it was written.
#[derive(Debug, Deserialize)]
struct Told {
    action: Action,
    sequence: i64,
    index: Option<i64>,
    device: Option<Box<RawValue>>,
    function: Option<Function>,
}

/// What one subscriber knows.
#[derive(Clone, Default, Serialize)]
struct Account {
    devices: BTreeMap<i64, Box<RawValue>>,
    functions: BTreeMap<String, Function>,
    events: u64,
    resyncs: u64,
    /// Times the connection was lost.
    lost: u64,
    /// Events whose number did not grow, or that said what cannot be.
    contradictions: Vec<String>,
    sequence: i64,
    /// When the last event came, in µs of CLOCK_MONOTONIC.
    last_event: i64,
}

impl Account {
    fn take(&mut self, told: Told) {
        self.events += 1;
        self.last_event = now();
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

/// What is written.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether all subscribers know the same.
    same: bool,
    /// What the first one knows.
    first: &'a Account,
    events: u64,
    resyncs: u64,
    lost: u64,
    last_event: i64,
    contradictions: Vec<&'a String>,
}

fn report(accounts: &[Account]) -> Option<Report<'_>> {
    let first = accounts.first()?;
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

type Accounts = Arc<Mutex<Vec<Account>>>;

async fn follow(socket: PathBuf, number: usize, accounts: Accounts) {
    let mut subscription = Subscription::new(socket, SUBSCRIBE_DEVICES, &SubscribeDevicesArgs {});
    loop {
        let followed = subscription.next::<Told>().await;
        let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(account) = accounts.get_mut(number) else {
            return;
        };
        match followed {
            Followed::Begins => account.forget(),
            Followed::Reply(told) => account.take(told),
            Followed::Lost(_) => account.lost += 1,
        }
    }
}

/// Whoever reads the file sees a whole account.
fn write(accounts: &Accounts, file: &Path) -> std::io::Result<()> {
    let accounts = accounts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
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
    let accounts = Accounts::new(Mutex::new(vec![Account::default(); subscribers]));
    for number in 0..subscribers {
        tokio::spawn(follow(socket.clone(), number, Arc::clone(&accounts)));
    }
    loop {
        tokio::select! {
            _ = written.recv() => write(&accounts, &file)?,
            _ = stopped.recv() => return write(&accounts, &file),
        }
    }
}

/// Well-formed, of a device that is not there: only its sender says that it is not true.
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

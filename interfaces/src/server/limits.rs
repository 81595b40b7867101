//! The limits on the resources that peers hold: connections, subscriptions and bytes, for one user
//! and for all users together, in one table. Root, the service's own user and its configured peers
//! have reserved capacity. Pure counting behind a lock. Must never interpret a call.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::peer::Peer;

/// The limits, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections of all users without reserved capacity.
    Connections,
    /// Connections of one user without reserved capacity.
    ConnectionsPerUid,
    /// Connections of root, the service's own user and its configured peers.
    ConnectionsPrivileged,
    /// Subscriptions of one user without reserved capacity.
    SubscriptionsPerUid,
    /// Bytes held for all users without reserved capacity.
    Bytes,
    /// Bytes held for one user without reserved capacity.
    BytesPerUid,
    /// Bytes held for root, the service's own user and its configured peers.
    BytesPrivileged,
    /// Bytes of one message.
    MessageBytes,
    /// Bytes that wait behind a call of the same connection.
    WaitingBytes,
}

/// One row of the table.
struct Row {
    limit: Limit,
    name: &'static str,
    default: u64,
}

/// Every limit, its name in `Describe` and in `$RDMA_HOTPLUG_LIMITS`, and its default.
const TABLE: [Row; 9] = [
    // Eight users at their own limit use all of it; a ninth then needs reserved capacity. Each
    // connection takes a descriptor and up to 10 KiB.
    Row::new(Limit::Connections, "connections", 512),
    // A monitoring agent needs one or two, an interactive user a few.
    Row::new(Limit::ConnectionsPerUid, "connectionsPerUid", 64),
    // A thousand subscribers of root, and the connections between the services.
    Row::new(Limit::ConnectionsPrivileged, "connectionsPrivileged", 1536),
    // Each subscriber costs a write with every event.
    Row::new(Limit::SubscriptionsPerUid, "subscriptionsPerUid", 16),
    // Half of the most memory that a service may use (64 MB).
    Row::new(Limit::Bytes, "bytes", 32 << 20),
    // Sixteen messages of the greatest length.
    Row::new(Limit::BytesPerUid, "bytesPerUid", 4 << 20),
    // The same amount for the trusted users.
    Row::new(Limit::BytesPrivileged, "bytesPrivileged", 32 << 20),
    // The longest useful call has 64 module names.
    Row::new(Limit::MessageBytes, "messageBytes", 256 << 10),
    // Several hundred calls that a client sends before it reads the first reply.
    Row::new(Limit::WaitingBytes, "waitingBytes", 256 << 10),
];

impl Row {
    const fn new(limit: Limit, name: &'static str, default: u64) -> Self {
        Self {
            limit,
            name,
            default,
        }
    }
}

/// The value of every limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([u64; TABLE.len()]);

/// An invalid entry of `$RDMA_HOTPLUG_LIMITS`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The entry is not like NAME=VALUE.
    #[error("limit {0:?} does not have the form NAME=VALUE")]
    Form(String),
    /// No limit has that name.
    #[error("limit {0:?} does not exist; the limits are {names}", names = names())]
    Name(String),
    /// The value is not a whole number of at least 1.
    #[error("limit {0} needs a whole number of at least 1, not {1:?}")]
    Value(&'static str, String),
}

fn names() -> String {
    TABLE.map(|row| row.name).join(", ")
}

impl Default for Limits {
    fn default() -> Self {
        Self(TABLE.map(|row| row.default))
    }
}

impl Limits {
    /// Returns the defaults, replaced by `entries` of the form `connections=1024`.
    ///
    /// # Errors
    /// Fails if an entry is invalid.
    pub fn parse(entries: &[String]) -> Result<Self, LimitError> {
        let mut limits = Self::default();
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            let form = || LimitError::Form(entry.clone());
            let (name, value) = entry.split_once('=').ok_or_else(form)?;
            let row = TABLE.iter().find(|row| row.name == name);
            let row = row.ok_or_else(|| LimitError::Name(name.to_owned()))?;
            let parsed = value.parse().ok().filter(|value| *value > 0);
            let invalid = || LimitError::Value(row.name, value.to_owned());
            limits.set(row.limit, parsed.ok_or_else(invalid)?);
        }
        Ok(limits)
    }

    /// Returns the value of one limit.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.0.get(limit as usize).copied().unwrap_or_default()
    }

    /// Sets one limit.
    pub fn set(&mut self, limit: Limit, value: u64) {
        if let Some(slot) = self.0.get_mut(limit as usize) {
            *slot = value;
        }
    }
}

/// One limit as `Describe` returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The name.
    pub name: &'static str,
    /// The value of the limit.
    pub value: i64,
    /// The number of refusals since the start.
    pub refused: i64,
}

/// Implements the conversion into the same three fields of each service's `Describe`.
macro_rules! limit_of {
    ($($contract:ident),+) => {
        $(impl From<LimitState> for crate::$contract::Limit {
            fn from(state: LimitState) -> Self {
                Self {
                    name: state.name.to_owned(),
                    value: state.value,
                    refused: state.refused,
                }
            }
        })+
    };
}

limit_of!(detector, loader, orchestrator);

/// A limit that was reached, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit.
    pub limit: Limit,
    /// Its value.
    pub value: u64,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TABLE.iter().find(|row| row.limit == self.limit);
        let name = name.map_or("", |row| row.name);
        write!(f, "the limit {name} of {} is reached", self.value)
    }
}

/// The resources that peers hold, and the number of refusals for each limit.
#[derive(Debug)]
pub struct Accounts {
    limits: Limits,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    strangers: Account,
    privileged: Account,
    by_uid: HashMap<u32, Account>,
    refused: [i64; TABLE.len()],
}

/// The resources that one user, or a class of users, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    connections: u64,
    subscriptions: u64,
    bytes: u64,
}

/// The kind of resource of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Connections,
    Subscriptions,
    Bytes,
}

impl Account {
    fn of(&mut self, resource: Resource) -> &mut u64 {
        match resource {
            Resource::Connections => &mut self.connections,
            Resource::Subscriptions => &mut self.subscriptions,
            Resource::Bytes => &mut self.bytes,
        }
    }
}

/// A resource that a peer holds, until this value is dropped.
#[derive(Debug)]
pub struct Hold {
    accounts: Arc<Accounts>,
    peer: Peer,
    resource: Resource,
    amount: u64,
}

impl Accounts {
    /// Creates accounts in which nothing is held.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            held: Mutex::default(),
        })
    }

    /// Counts a connection of `peer`.
    pub fn connection(self: &Arc<Self>, peer: Peer) -> Result<Hold, Full> {
        self.hold(peer, Resource::Connections, 1)
    }

    /// Counts a subscription of `peer`.
    pub fn subscription(self: &Arc<Self>, peer: Peer) -> Result<Hold, Full> {
        self.hold(peer, Resource::Subscriptions, 1)
    }

    /// Creates a hold of zero bytes.
    pub fn bytes(self: &Arc<Self>, peer: Peer) -> Hold {
        Hold {
            accounts: Arc::clone(self),
            peer,
            resource: Resource::Bytes,
            amount: 0,
        }
    }

    /// Counts a refusal.
    fn refused(&self, limit: Limit) -> Full {
        if let Some(count) = self.lock().refused.get_mut(limit as usize) {
            *count += 1;
        }
        Full {
            limit,
            value: self.limits.get(limit),
        }
    }

    /// Returns every limit, and the number of refusals for each.
    pub fn states(&self) -> Vec<LimitState> {
        let refused = self.lock().refused;
        let rows = TABLE.iter().zip(refused);
        let state = |(row, refused): (&Row, i64)| LimitState {
            name: row.name,
            value: i64::try_from(self.limits.get(row.limit)).unwrap_or(i64::MAX),
            refused,
        };
        rows.map(state).collect()
    }

    fn hold(self: &Arc<Self>, peer: Peer, resource: Resource, amount: u64) -> Result<Hold, Full> {
        let mut hold = Hold {
            accounts: Arc::clone(self),
            peer,
            resource,
            amount: 0,
        };
        hold.set(amount)?;
        Ok(hold)
    }

    /// Returns the limits of a resource: for the peer's class, and for the peer alone.
    fn limits_of(peer: Peer, resource: Resource) -> (Option<Limit>, Option<Limit>) {
        match (resource, peer.privileged) {
            (Resource::Connections, true) => (Some(Limit::ConnectionsPrivileged), None),
            (Resource::Connections, false) => {
                (Some(Limit::Connections), Some(Limit::ConnectionsPerUid))
            }
            (Resource::Subscriptions, true) => (None, None),
            (Resource::Subscriptions, false) => (None, Some(Limit::SubscriptionsPerUid)),
            (Resource::Bytes, true) => (Some(Limit::BytesPrivileged), None),
            (Resource::Bytes, false) => (Some(Limit::Bytes), Some(Limit::BytesPerUid)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn class(&mut self, peer: Peer) -> &mut Account {
        match peer.privileged {
            true => &mut self.privileged,
            false => &mut self.strangers,
        }
    }
}

impl Hold {
    /// Returns the value of a limit.
    pub fn limit(&self, limit: Limit) -> u64 {
        self.accounts.limits.get(limit)
    }

    /// Counts a refusal for a limit of a different kind than this hold.
    pub fn refuse(&self, limit: Limit) -> Full {
        self.accounts.refused(limit)
    }

    /// Replaces the held amount by `amount`. If that exceeds a limit, the held amount does not
    /// change.
    pub fn set(&mut self, amount: u64) -> Result<(), Full> {
        let (peer, resource) = (self.peer, self.resource);
        let (of_all, of_one) = Accounts::limits_of(peer, resource);
        let mut held = self.accounts.lock();
        let others = *held.class(peer).of(resource) - self.amount;
        let account = held.by_uid.entry(peer.uid).or_default();
        let own = *account.of(resource) - self.amount;
        let reached = [(of_one, own), (of_all, others)]
            .into_iter()
            .filter_map(|(limit, before)| Some((limit?, before)))
            .find(|(limit, before)| {
                before.saturating_add(amount) > self.accounts.limits.get(*limit)
            });
        // A smaller amount than before is always accepted.
        if let Some((limit, _)) = reached.filter(|_| amount > self.amount) {
            drop(held);
            return Err(self.accounts.refused(limit));
        }
        *account.of(resource) = own + amount;
        // The entry of a user that holds nothing is removed.
        if *account == Account::default() {
            held.by_uid.remove(&peer.uid);
        }
        *held.class(peer).of(resource) = others + amount;
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Setting it to zero never fails.
        let _ = self.set(0);
    }
}

/// The interval at which refusals are logged: a peer that is refused a thousand times a second must
/// not push important records out of the log.
const PACE: Duration = Duration::from_secs(1);

/// The rate limit of log records.
#[derive(Debug, Default)]
pub struct RateLimit {
    state: Mutex<(Option<Instant>, u64)>,
}

impl RateLimit {
    /// Returns nothing if no record may be logged now, otherwise the number of records that were
    /// left out since the last.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < PACE) {
            state.1 += 1;
            None
        } else {
            *state = (Some(now), 0);
            Some(left_out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Peer {
        Peer {
            uid,
            pid: None,
            privileged: uid < 2,
        }
    }

    fn accounts(entries: &[&str]) -> Arc<Accounts> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        Accounts::new(Limits::parse(&entries).unwrap())
    }

    fn full(limit: Limit, value: u64) -> Full {
        Full { limit, value }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_limits() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.limit as usize, at, "{}", row.name);
        }
    }

    #[test]
    fn each_user_and_all_users_together_have_a_limit() {
        let accounts = accounts(&["connections=3", "connectionsPerUid=2"]);
        let mut held = vec![
            accounts.connection(peer(10)).unwrap(),
            accounts.connection(peer(10)).unwrap(),
        ];
        let refused = accounts.connection(peer(10)).unwrap_err();
        assert_eq!(refused, full(Limit::ConnectionsPerUid, 2));
        held.push(accounts.connection(peer(11)).unwrap());
        let refused = accounts.connection(peer(12)).unwrap_err();
        assert_eq!(refused, full(Limit::Connections, 3));
        held.remove(0);
        assert!(accounts.connection(peer(12)).is_ok());
        let refused = |name: &str| {
            let states = accounts.states();
            states
                .iter()
                .find(|state| state.name == name)
                .unwrap()
                .refused
        };
        assert_eq!(
            (refused("connections"), refused("connectionsPerUid")),
            (1, 1)
        );
    }

    #[test]
    fn privileged_callers_have_reserved_connections() {
        let accounts = accounts(&[
            "connections=2",
            "connectionsPerUid=2",
            "connectionsPrivileged=3",
        ]);
        let strangers: Vec<Hold> = (0..2)
            .map(|_| accounts.connection(peer(10)).unwrap())
            .collect();
        let privileged: Vec<Hold> = (0..3)
            .map(|at| accounts.connection(peer(at % 2)).unwrap())
            .collect();
        let refused = accounts.connection(peer(0)).unwrap_err();
        assert_eq!(refused, full(Limit::ConnectionsPrivileged, 3));
        drop((strangers, privileged));
        assert!(accounts.lock().by_uid.is_empty());
        assert_eq!(accounts.lock().strangers, Account::default());
        assert_eq!(accounts.lock().privileged, Account::default());
    }

    #[test]
    fn held_bytes_grow_and_shrink_and_are_released_on_drop() {
        let accounts = accounts(&["bytes=100", "bytesPerUid=60"]);
        let mut one = accounts.bytes(peer(10));
        let mut two = accounts.bytes(peer(11));
        one.set(60).unwrap();
        assert_eq!(one.set(61), Err(full(Limit::BytesPerUid, 60)));
        assert_eq!(two.set(41), Err(full(Limit::Bytes, 100)));
        one.set(50).unwrap();
        two.set(50).unwrap();
        drop(one);
        two.set(60).unwrap();
        drop(two);
        assert!(accounts.lock().by_uid.is_empty());
    }

    #[test]
    fn the_error_names_the_invalid_limit() {
        let error = |entry: &str| Limits::parse(&[entry.to_owned()]).unwrap_err().to_string();
        assert_eq!(error("x"), "limit \"x\" does not have the form NAME=VALUE");
        assert!(
            error("conections=1")
                .starts_with("limit \"conections\" does not exist; the limits are connections, ")
        );
        for value in ["0", "-1", "", "1k", "99999999999999999999"] {
            assert_eq!(
                error(&format!("bytes={value}")),
                format!("limit bytes needs a whole number of at least 1, not {value:?}")
            );
        }
    }

    #[test]
    fn a_flood_is_logged_once_a_second_with_the_number_of_suppressed_messages() {
        let rate_limit = RateLimit::default();
        let start = Instant::now();
        assert_eq!(rate_limit.due(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(rate_limit.due(start + PACE / 2), None);
        }
        assert_eq!(rate_limit.due(start + PACE), Some(1000));
    }
}

//! How much a service takes: connections and subscriptions, of one user and in all. Pure
//! counting behind a lock. Must never know what is counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most connections, in all; fewer where the process may not open as many files.
pub const MAX_CONNECTIONS: usize = 1536;
/// The most connections of one user.
pub const MAX_CONNECTIONS_PER_UID: usize = 1280;
/// The most subscriptions of one user.
pub const MAX_SUBSCRIPTIONS_PER_UID: usize = 1024;

/// Counts what users have, up to a limit.
#[derive(Debug)]
pub struct Counter {
    total: usize,
    per_uid: usize,
    held: Mutex<HashMap<u32, usize>>,
}

/// One that was counted, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    counter: Arc<Counter>,
    uid: u32,
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub u64);

impl Counter {
    /// A counter that takes `total` in all and `per_uid` of one user.
    pub fn new(total: usize, per_uid: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_uid,
            held: Mutex::default(),
        })
    }

    /// Counts one more of `uid`. Root is held to the total alone: who keeps others out must not
    /// keep the administrator out.
    pub fn take(self: &Arc<Self>, uid: u32) -> Result<Ticket, Full> {
        let mut held = self.lock();
        if held.values().sum::<usize>() >= self.total {
            return Err(Full(self.total as u64));
        }
        let own = held.entry(uid).or_default();
        if uid != 0 && *own >= self.per_uid {
            return Err(Full(self.per_uid as u64));
        }
        *own += 1;
        Ok(Ticket {
            counter: Arc::clone(self),
            uid,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut held = self.counter.lock();
        if let Some(own) = held.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            // A user who has nothing any more leaves nothing behind.
            if *own == 0 {
                held.remove(&self.uid);
            }
        }
    }
}

/// How often refusals are logged: whoever is refused a thousand times a second must not push
/// what matters out of the journal.
const PACE: Duration = Duration::from_secs(1);

/// Keeps log records apart.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Pace {
    /// Whether a record is due, and if so how many were left out since the last.
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

    #[test]
    fn a_user_and_all_users_together_have_a_limit() {
        let counter = Counter::new(5, 2);
        let mut tickets = vec![counter.take(1).unwrap(), counter.take(1).unwrap()];
        assert_eq!(counter.take(1).unwrap_err(), Full(2));
        tickets.push(counter.take(2).unwrap());
        tickets.push(counter.take(0).unwrap());
        tickets.push(counter.take(0).unwrap());
        assert_eq!(counter.take(3).unwrap_err(), Full(5));
        tickets.remove(0);
        assert!(counter.take(1).is_ok());
    }

    #[test]
    fn a_flood_is_logged_once_a_second_with_how_much_was_left_out() {
        let pace = Pace::default();
        let start = Instant::now();
        assert_eq!(pace.due(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(pace.due(start + PACE / 2), None);
        }
        assert_eq!(pace.due(start + PACE), Some(1000));
    }

    #[test]
    fn root_is_held_to_the_total_alone() {
        let counter = Counter::new(4, 1);
        let held: Vec<Ticket> = (0..4).map(|_| counter.take(0).unwrap()).collect();
        assert_eq!(counter.take(0).unwrap_err(), Full(4));
        drop(held);
        assert!(counter.lock().is_empty());
    }
}

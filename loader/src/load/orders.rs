//! The connection between the schedule and the inserting process: sends orders, receives results,
//! and tracks the modules that the kernel initialises. Must never hold the lock of the state while
//! it sends, nor let a module whose initialisation hangs delay one that does not need it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use interfaces::clock;
use interfaces::loader::Loading;
use nix::errno::Errno;

use super::Loader;
use super::MAX_REQUESTS;
use super::open_request::{OpenRequest, State};
use crate::inserter::MAX_AT_ONCE;
use crate::link::Link;
use crate::message::{Answer, Failure, MessageError, Order, Outcome};
use crate::schedule::Node;

/// The time after which a load in progress is logged, in µs.
const LONG: i64 = 30_000_000;

/// The work in progress, and the requests that wait for it.
#[derive(Default)]
pub struct Orders {
    state: Mutex<State>,
    changed: Condvar,
}

impl Orders {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the maximum number of requests wait for modules.
    pub(super) fn is_full(&self) -> bool {
        self.state().open.len() >= MAX_REQUESTS
    }

    /// Adds a request and the modules that it waits for.
    pub(super) fn add(&self, nodes: Vec<Node>, open_request: OpenRequest) {
        let mut state = self.state();
        let id = state.schedule.add(nodes);
        state.open.insert(id, open_request);
        // There may be nothing left to wait for.
        state.answer(id);
        self.changed.notify_all();
    }

    /// Returns true if any work is in progress.
    pub fn is_busy(&self) -> bool {
        let state = self.state();
        !state.schedule.is_empty() || !state.in_flight.is_empty()
    }

    /// Returns true if the kernel is initialising a module for this loader.
    pub fn is_in_flight(&self) -> bool {
        !self.state().in_flight.is_empty()
    }

    /// Returns the modules that the kernel is initialising, the oldest first.
    pub fn loading(&self) -> Vec<Loading> {
        let state = self.state();
        let loading = state.in_flight.values().map(|in_flight| Loading {
            module: in_flight.module.to_string(),
            since_usec: in_flight.since,
        });
        loading.collect()
    }

    /// Stops the sending of orders.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Returns true if the inserting process has ended before this one.
    pub fn is_lost(&self) -> bool {
        self.state().lost.is_some()
    }
}

impl Loader {
    /// Sends orders over `link` as soon as they can be executed, until the work is closed. May
    /// block while the inserting process does not read.
    pub fn give_orders(&self, link: &Link) {
        while let Some(order) = self.next_order() {
            let record = match order.encode() {
                Ok(record) => record,
                Err(e) => {
                    self.ended(order.id, Outcome::Failed(too_long(&e)));
                    continue;
                }
            };
            if let Err(e) = link.send(&record) {
                self.lose(&e.to_string());
            }
        }
    }

    /// Waits for the next order. Logs slow loads while it waits.
    fn next_order(&self) -> Option<Order> {
        let mut state = self.work.state();
        loop {
            if state.closed {
                return None;
            }
            let now = clock::now();
            if let Some(why) = state.lost.clone() {
                while let Some(order) = state.order(now) {
                    end(&mut state, order.id, Outcome::Failed(why.clone()));
                }
            } else if state.in_flight.len() < MAX_AT_ONCE
                && let Some(order) = state.order(now)
            {
                return Some(order);
            }
            let waited = match tell_of_long(&mut state, now) {
                None => self.work.changed.wait(state),
                Some(wait) => {
                    let waited = self.work.changed.wait_timeout(state, wait);
                    waited
                        .map(|(state, _)| state)
                        .map_err(|e| PoisonError::new(e.into_inner().0))
                }
            };
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Receives results over `link` until no more can arrive.
    pub fn take_answers(&self, link: &Link) {
        let why = loop {
            match link.receive() {
                Ok(Some(record)) => match Answer::decode(&record) {
                    Ok(answer) => self.ended(answer.id, answer.outcome),
                    Err(e) => break e.to_string(),
                },
                Ok(None) => break "it has exited".to_owned(),
                Err(e) => break e.to_string(),
            }
        };
        self.lose(&why);
    }

    /// Records the result of an order, and answers the requests that waited for it.
    fn ended(&self, id: u64, mut outcome: Outcome) {
        if let Outcome::Failed(failure) = &mut outcome
            && failure.errno == Errno::EACCES as i32
            && self.ends_outdated()
        {
            failure.errno = Errno::EAGAIN as i32;
            failure.message +=
                "; it was added after the loader started, which restarts: request the module again";
        }
        if let Outcome::Failed(failure) = &mut outcome
            && failure.errno == Errno::EPERM as i32
            && self.has_modules_disabled()
        {
            failure.message += "; kernel.modules_disabled is 1 until the next boot";
        }
        let mut state = self.work.state();
        end(&mut state, id, outcome);
        self.work.changed.notify_all();
    }

    /// Returns true if the kernel no longer accepts modules (`kernel.modules_disabled`, sysctl(8)).
    fn has_modules_disabled(&self) -> bool {
        std::fs::read(&self.modules_disabled).is_ok_and(|text| text.starts_with(b"1"))
    }

    /// Fails all present and future orders: without the inserting process nothing can be inserted.
    /// Makes this process exit. Does nothing if the work is already closed or lost.
    fn lose(&self, why: &str) {
        let mut state = self.work.state();
        if state.closed || state.lost.is_some() {
            return;
        }
        let message = format!("the inserting process has failed: {why}");
        tracing::error!("{message}");
        let failure = Failure {
            errno: Errno::EAGAIN as i32,
            message: format!("{message}; the loader restarts: request the module again"),
        };
        let open: Vec<u64> = state.in_flight.keys().copied().collect();
        for id in open {
            end(&mut state, id, Outcome::Failed(failure.clone()));
        }
        state.lost = Some(failure);
        self.work.changed.notify_all();
        drop(state);
        self.end.send_replace(true);
    }
}

fn end(state: &mut State, id: u64, outcome: Outcome) {
    let Some(ended) = state.in_flight.remove(&id) else {
        tracing::warn!("a result for the unknown order {id}");
        return;
    };
    if ended.told {
        let seconds = clock::now().saturating_sub(ended.since) / 1_000_000;
        tracing::info!(
            "the initialisation of {} has ended after {seconds} s",
            ended.module
        );
    }
    let outcome = match outcome {
        Outcome::Inserted => Ok(true),
        Outcome::WasLive => Ok(false),
        Outcome::Failed(failure) => Err(Arc::new(failure)),
    };
    for id in state.schedule.done(&ended.module, &outcome) {
        state.answer(id);
    }
}

/// Logs each slow load once. Returns the time until the next load becomes slow.
fn tell_of_long(state: &mut State, now: i64) -> Option<Duration> {
    let mut next: Option<i64> = None;
    for in_flight in state
        .in_flight
        .values_mut()
        .filter(|in_flight| !in_flight.told)
    {
        let due = in_flight.since.saturating_add(LONG);
        if due > now {
            next = Some(next.map_or(due, |next| next.min(due)));
            continue;
        }
        in_flight.told = true;
        tracing::warn!(
            "the initialisation of {} takes longer than {} s and cannot be interrupted",
            in_flight.module,
            LONG / 1_000_000
        );
    }
    let wait = next?.saturating_sub(now).max(0).cast_unsigned();
    Some(Duration::from_micros(wait))
}

fn too_long(error: &MessageError) -> Failure {
    Failure {
        errno: Errno::E2BIG as i32,
        message: error.to_string(),
    }
}

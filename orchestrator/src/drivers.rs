//! The drivers of functions that an administrator keeps from being loaded. The loader is queried
//! with the modalias that the kernel searches a driver for, one function at a time. Must never load
//! a driver: udev or a rule does that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use interfaces::client::Backoff;
use interfaces::names::ModuleAlias;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::bounds::MAX_FUNCTIONS;
use crate::machine::Event;
use crate::policy::Policy;

/// The modalias of a function, and the time of the last request for it.
type Open = (ModuleAlias, Instant);

/// The functions whose drivers the loader has not reported on yet.
pub struct Drivers {
    open: Mutex<BTreeMap<String, Open>>,
    more: Notify,
    policy: Arc<Policy>,
}

impl Drivers {
    /// Creates an empty set of functions. Sends no query yet.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            open: Mutex::default(),
            more: Notify::new(),
            policy,
        }
    }

    /// Requests a query to the loader for a function's driver. It replaces a pending query for the
    /// same function.
    pub fn ask(&self, function: String, modalias: ModuleAlias) {
        let mut open = self.open();
        // While the loader does not reply, functions may be added and removed without limit.
        if open.len() < MAX_FUNCTIONS || open.contains_key(&function) {
            open.insert(function, (modalias, Instant::now()));
            self.more.notify_one();
        }
    }

    /// Queries the loader until `events` is closed, and sends the results there.
    pub async fn follow(self: Arc<Self>, events: UnboundedSender<Event>) {
        let mut backoff = Backoff::default();
        while !events.is_closed() {
            let next = self
                .open()
                .first_key_value()
                .map(|(function, open)| (function.clone(), open.clone()));
            let Some((function, open)) = next else {
                self.more.notified().await;
                continue;
            };
            let (modalias, since) = open.clone();
            match self.policy.exclusion(modalias.clone(), since).await {
                Ok(excluded) => {
                    backoff.reset();
                    self.answered(&function, &open);
                    let driver = Event::Driver {
                        function,
                        modalias,
                        excluded,
                    };
                    let _ = events.send(driver);
                }
                Err(why) => {
                    tracing::debug!("the driver of {function} is unknown: {why}");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Removes a query that has its result, unless a newer query has replaced it.
    fn answered(&self, function: &str, answered: &Open) {
        let mut open = self.open();
        if open.get(function) == Some(answered) {
            open.remove(function);
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

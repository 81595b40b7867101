//! Whether an administrator keeps the drivers of functions from being loaded: the loader is asked by what
//! the kernel looks for a driver by, one function at a time. Must never have a driver loaded: that is
//! udev's, or a rule's.

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

/// What a driver is looked for by, and when that was asked last.
type Open = (ModuleAlias, Instant);

/// The functions whose drivers are not known yet.
pub struct Drivers {
    open: Mutex<BTreeMap<String, Open>>,
    more: Notify,
    policy: Arc<Policy>,
}

impl Drivers {
    /// Of no function. Nothing is asked yet.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            open: Mutex::default(),
            more: Notify::new(),
            policy,
        }
    }

    /// Has the loader asked for a function's driver, in the place of what is to be asked for it.
    pub fn ask(&self, function: String, modalias: ModuleAlias) {
        let mut open = self.open();
        // While the loader does not answer, others may come and go without an end.
        if open.len() < MAX_FUNCTIONS || open.contains_key(&function) {
            open.insert(function, (modalias, Instant::now()));
            self.more.notify_one();
        }
    }

    /// Asks the loader for ever, and tells `events` its answers.
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
                    tracing::debug!("the driver of {function} is not known: {why}");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Not where it was asked again meanwhile.
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

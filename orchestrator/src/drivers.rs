//! Whether an administrator keeps the drivers of functions from being loaded: the loader is asked by what
//! the kernel looks for a driver by, one function at a time. Must never have a driver loaded: that is
//! udev's, or a rule's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interfaces::client::Backoff;
use interfaces::names::ModuleAlias;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::bounds::MAX_FUNCTIONS;
use crate::machine::Event;
use crate::policy::Policy;

/// The functions whose drivers are not known yet.
pub struct Drivers {
    open: Mutex<BTreeMap<String, ModuleAlias>>,
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
            open.insert(function, modalias);
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
                .map(|(f, m)| (f.clone(), m.clone()));
            let Some((function, modalias)) = next else {
                self.more.notified().await;
                continue;
            };
            match self.policy.exclusion(modalias.clone()).await {
                Ok(excluded) => {
                    backoff.reset();
                    self.answered(&function, &modalias);
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

    /// Not where it was asked for by another alias meanwhile.
    fn answered(&self, function: &str, modalias: &ModuleAlias) {
        let mut open = self.open();
        if open.get(function) == Some(modalias) {
            open.remove(function);
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, ModuleAlias>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

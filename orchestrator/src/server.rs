//! The orchestrator's varlink methods, and what they answer from. Must never change anything:
//! every method here only tells.

use std::sync::{Arc, Mutex, PoisonError};

use interfaces::Interface;
use interfaces::orchestrator::{
    self, DescribeArgs, DescribeReply, Device, ListArgs, ListReply, SubscribeStatusArgs,
};
use interfaces::server::{Call, CallError, Feed, Service};

use crate::board::Board;
use crate::machine::Machine;

/// What callers can see: the devices, and the state of the whole.
pub struct Published {
    devices: Feed<Board>,
    whole: Mutex<DescribeReply>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            devices: Feed::default(),
            whole: Mutex::new(DescribeReply {
                detector_connected: false,
                hardware_announced: false,
                rule_files: Vec::new(),
                rule_errors: Vec::new(),
            }),
        }
    }
}

impl Published {
    /// Shows a device's status.
    pub fn put(&self, device: Device) {
        self.devices.update(|board| {
            let (name, state) = (device.name.clone(), device.state);
            let waiting_for = device.waiting_for.join("; ");
            let events = board.put(device);
            if !events.is_empty() {
                tracing::info!(waiting_for, "{name} is {state:?}");
            }
            events
        });
    }

    /// Shows a device no longer.
    pub fn remove(&self, index: i64) {
        self.devices.update(|board| {
            let events = board.remove(index);
            for event in &events {
                tracing::info!(
                    index,
                    "{} is gone",
                    event.name.as_deref().unwrap_or_default()
                );
            }
            events
        });
    }

    /// Shows the state of the whole.
    pub fn describe(&self, machine: &Machine) {
        let summary = machine.summary();
        let files = machine.rules().files().iter();
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = DescribeReply {
            detector_connected: summary.connected,
            hardware_announced: summary.announced,
            rule_files: files.map(|file| file.display().to_string()).collect(),
            rule_errors: machine.rules().errors().to_vec(),
        };
    }
}

/// `org.rdmahotplug.Orchestrator`.
pub struct Orchestrator {
    published: Arc<Published>,
}

impl Orchestrator {
    /// Serves what is published.
    #[must_use]
    pub fn new(published: Arc<Published>) -> Self {
        Self { published }
    }

    async fn list(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListArgs { name, index } = call.arguments()?;
        let one_named = name.is_some() || index.is_some();
        let replies = self.published.devices.read(|board| {
            board
                .devices()
                .filter(|d| name.as_ref().is_none_or(|name| d.name == *name))
                .filter(|d| index.is_none_or(|index| d.index == index))
                .map(|d| ListReply { device: d.clone() })
                .collect()
        });
        let none = CallError::named(orchestrator::NO_SUCH_DEVICE);
        call.reply_each(replies, one_named, none).await
    }
}

impl Service for Orchestrator {
    const PRODUCT: &'static str = "rdma-orchestrator";
    const INTERFACE: Interface = orchestrator::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            orchestrator::LIST => self.list(call).await,
            orchestrator::SUBSCRIBE_STATUS => {
                let SubscribeStatusArgs {} = call.arguments()?;
                self.published.devices.serve(call).await
            }
            orchestrator::DESCRIBE => {
                let DescribeArgs {} = call.arguments()?;
                let whole = self
                    .published
                    .whole
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                call.reply(&whole).await
            }
            method => Err(CallError::method_not_found(method)),
        }
    }
}

//! The detector's varlink methods, and what they answer from. Must never ask the kernel: what
//! is published is what the last scan has shown.

use std::sync::{Arc, Mutex, PoisonError};

use interfaces::Interface;
use interfaces::detector::{
    self, DescribeArgs, DescribeReply, Device, ListArgs, ListReply, SubscribeDevicesArgs,
};
use interfaces::server::{Call, CallError, Feed, Service};

use crate::inventory::Inventory;

/// What callers can see: the devices, and the counters.
pub struct Published {
    devices: Feed<Inventory>,
    counters: Mutex<DescribeReply>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            devices: Feed::default(),
            counters: Mutex::new(DescribeReply {
                uevents: 0,
                dropped_datagrams: 0,
                overruns: 0,
                scans: 0,
                ib_core: false,
            }),
        }
    }
}

impl Published {
    /// Takes over what a scan has shown and tells the subscribers what is different.
    pub fn replace(&self, devices: Vec<Device>) {
        self.devices.update(|inventory| {
            let events = inventory.replace(devices);
            for event in &events {
                if let Some(name) = &event.name {
                    tracing::info!(index = event.index, "{:?} {name}", event.action);
                }
            }
            events
        });
    }

    /// Changes the counters.
    pub fn count(&self, change: impl FnOnce(&mut DescribeReply)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn counters(&self) -> DescribeReply {
        self.counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// `org.rdmahotplug.Detector`.
pub struct Detector {
    published: Arc<Published>,
}

impl Detector {
    /// Serves what is published.
    #[must_use]
    pub fn new(published: Arc<Published>) -> Self {
        Self { published }
    }

    async fn list(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListArgs { name, index } = call.arguments()?;
        let one_named = name.is_some() || index.is_some();
        let known = |inventory: &Inventory| inventory.is_complete().then_some(());
        self.published.devices.until(call, known).await?;
        let replies = self.published.devices.read(|inventory| {
            inventory
                .devices()
                .filter(|d| name.as_ref().is_none_or(|name| d.name == *name))
                .filter(|d| index.is_none_or(|index| d.index == index))
                .map(|d| ListReply { device: d.clone() })
                .collect()
        });
        let none = CallError::named(detector::NO_SUCH_DEVICE);
        call.reply_each(replies, one_named, none).await
    }
}

impl Service for Detector {
    const PRODUCT: &'static str = "rdma-detector";
    const INTERFACE: Interface = detector::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            detector::LIST => self.list(call).await,
            detector::SUBSCRIBE_DEVICES => {
                let SubscribeDevicesArgs {} = call.arguments()?;
                self.published.devices.serve(call).await
            }
            detector::DESCRIBE => {
                let DescribeArgs {} = call.arguments()?;
                call.reply(&self.published.counters()).await
            }
            method => Err(CallError::method_not_found(method)),
        }
    }
}

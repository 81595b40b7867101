//! The detector's varlink methods, and the published state that they return. Must never query the
//! kernel: the published state is the result of the last scan.

use std::sync::{Arc, Mutex, PoisonError};

use interfaces::Interface;
use interfaces::clock::now;
use interfaces::detector::{
    self, Action, DescribeArgs, DescribeReply, ListArgs, ListFunctionsArgs, ListFunctionsReply,
    ListReply, SubscribeDevicesArgs, SynchronizeArgs, SynchronizeReply,
};
use interfaces::names::SequenceNumber;
use interfaces::server::{Call, CallError, Feed, Service};

use tokio::sync::{mpsc, oneshot};

use crate::barrier::Barrier;
use crate::intake::Counts;
use crate::inventory::Inventory;
use crate::scan::{Scan, netns_mode};

/// The state that callers can see: the devices, the functions, and the counters.
pub struct Published {
    inventory: Feed<Inventory>,
    counters: Mutex<DescribeReply>,
    asking_since: Mutex<Option<i64>>,
}

impl Published {
    /// Creates an empty state. The numbers of events begin at `now`, in µs of CLOCK_MONOTONIC.
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self {
            inventory: Feed::new(Inventory::new(SequenceNumber::starting_at(now))),
            counters: Mutex::new(DescribeReply {
                uevents: 0,
                dropped_datagrams: 0,
                overruns: 0,
                sequence_gaps: 0,
                monitor_messages: 0,
                scans: 0,
                device_reads: 0,
                failed_scans: 0,
                refused_records: 0,
                refused: Vec::new(),
                asking_usec: None,
                ib_core: false,
                monitor: false,
                netns_mode: None,
                limits: Vec::new(),
            }),
            asking_since: Mutex::default(),
        }
    }

    /// Publishes the result of a scan, and sends the differences to the subscribers. Returns the
    /// number of events. `now` is in µs of CLOCK_MONOTONIC.
    pub fn replace(&self, scan: &Scan, now: i64) -> usize {
        self.count(|counters| {
            counters.ib_core = scan.ib_core;
            counters.device_reads += scan.device_reads;
            counters.netns_mode = netns_mode(scan.system);
            counters.refused_records = scan.refused;
            counters.refused.clone_from(&scan.last_refused);
        });
        let mut count = 0;
        self.inventory.update(|inventory| {
            let events = inventory.replace(&scan.observed, now);
            count = events.len();
            for event in &events {
                if let Some(name) = &event.name {
                    match event.action {
                        Action::Change => tracing::debug!(index = event.index, "change {name}"),
                        action => tracing::info!(index = event.index, "{action} {name}"),
                    }
                } else if let Some(function) = &event.function {
                    let Some(waits_for) = function.waits_for else {
                        continue;
                    };
                    tracing::info!(
                        "{} {}, which waits for its {waits_for}",
                        event.action,
                        function.name
                    );
                }
            }
            events
        });
        count
    }

    /// Returns the number of the last event.
    #[must_use]
    pub fn sequence(&self) -> i64 {
        self.inventory.read(Inventory::sequence).into()
    }

    /// Returns true if there is a device.
    #[must_use]
    pub fn has_devices(&self) -> bool {
        self.inventory
            .read(|inventory| inventory.devices().next().is_some())
    }

    /// Sets the counters of messages.
    pub fn count_messages(&self, counts: Counts) {
        self.count(|counters| {
            counters.uevents = counts.uevents;
            counters.monitor_messages = counts.monitor_messages;
            counters.sequence_gaps = counts.sequence_gaps;
            counters.dropped_datagrams = counts.dropped_datagrams;
            counters.overruns = counts.overruns;
        });
    }

    /// Changes the counters.
    pub fn count<R>(&self, change: impl FnOnce(&mut DescribeReply) -> R) -> R {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records the time since when a scan is in progress, in µs of CLOCK_MONOTONIC, or `None`
    /// without a scan.
    pub fn asking_since(&self, since: Option<i64>) {
        *self
            .asking_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn counters(&self) -> DescribeReply {
        let asking_since = *self
            .asking_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        DescribeReply {
            asking_usec: asking_since.map(|since| now() - since),
            ..self
                .counters
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }
    }
}

/// The service `org.rdmahotplug.Detector`.
pub struct Detector {
    published: Arc<Published>,
    barriers: mpsc::Sender<Barrier>,
}

impl Detector {
    /// Creates the service for the published state. Calls that wait for a scan go to `barriers`.
    #[must_use]
    pub fn new(published: Arc<Published>, barriers: mpsc::Sender<Barrier>) -> Self {
        Self {
            published,
            barriers,
        }
    }

    async fn synchronize(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let SynchronizeArgs {} = call.arguments()?;
        let (barrier, reached) = oneshot::channel();
        let sent = self.barriers.send(barrier).await;
        sent.map_err(|_| CallError::stopped())?;
        match reached.await.map_err(|_| CallError::stopped())? {
            Ok(sequence) => call.reply(&SynchronizeReply { sequence }).await,
            Err(why) => Err(CallError::with(detector::NOT_SYNCHRONIZED, "message", &why)),
        }
    }

    async fn list(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListArgs { name, index } = call.arguments()?;
        let one_named = name.is_some() || index.is_some();
        let known = |inventory: &Inventory| inventory.is_complete().then_some(());
        self.published.inventory.until(call, known).await?;
        let mut last = None;
        let next = || {
            self.published.inventory.read(|inventory| {
                let device = inventory
                    .devices()
                    .filter(|d| last.is_none_or(|last| d.index > last))
                    .filter(|d| name.as_ref().is_none_or(|name| d.name == *name))
                    .find(|d| index.is_none_or(|index| d.index == index))?;
                last = Some(device.index);
                Some(ListReply {
                    device: device.clone(),
                })
            })
        };
        let none = CallError::named(detector::NO_SUCH_DEVICE);
        call.reply_each(next, one_named, none).await
    }

    async fn list_functions(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListFunctionsArgs { name } = call.arguments()?;
        let known = |inventory: &Inventory| inventory.is_complete().then_some(());
        self.published.inventory.until(call, known).await?;
        let mut last: Option<String> = None;
        let next = || {
            self.published.inventory.read(|inventory| {
                let function = inventory
                    .functions()
                    .filter(|f| last.as_ref().is_none_or(|last| f.name > *last))
                    .find(|f| name.as_ref().is_none_or(|name| f.name == *name))?
                    .clone();
                last = Some(function.name.clone());
                Some(ListFunctionsReply { function })
            })
        };
        let none = CallError::named(detector::NO_SUCH_FUNCTION);
        call.reply_each(next, name.is_some(), none).await
    }
}

impl Service for Detector {
    const PRODUCT: &'static str = "rdma-detector";
    const INTERFACE: Interface = detector::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            detector::LIST => self.list(call).await,
            detector::LIST_FUNCTIONS => self.list_functions(call).await,
            detector::SUBSCRIBE_DEVICES => {
                let SubscribeDevicesArgs {} = call.arguments()?;
                self.published.inventory.serve(call).await
            }
            detector::SYNCHRONIZE => self.synchronize(call).await,
            detector::DESCRIBE => {
                let DescribeArgs {} = call.arguments()?;
                let limits = call.limits().into_iter().map(Into::into);
                let reply = DescribeReply {
                    limits: limits.collect(),
                    ..self.published.counters()
                };
                call.reply(&reply).await
            }
            method => Err(CallError::method_not_found(method)),
        }
    }
}

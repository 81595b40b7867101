//! The loop: listen first, then scan; after each event that concerns RDMA scan again, and
//! publish what is different. Events only say that something happened: what is true is always
//! asked of the kernel. Must never decide what a change means.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use interfaces::activation::Inherited;
use interfaces::detector::Device;
use interfaces::lifecycle::{self, Wishes};
use interfaces::names::NameError;
use interfaces::server;
use tokio::time::Instant;

use crate::config::Config;
use crate::device::assemble;
use crate::netlink::{DumpError, RdmaSocket, Received, Refused, UeventSocket};
use crate::nldev::{NldevDevice, NldevError, NldevPort, Query};
use crate::server::{Detector, Published};
use crate::sysfs::Sysfs;

/// How long after a scan that failed the next one is tried without an event.
const RETRY: Duration = Duration::from_secs(1);

/// What the kernel answers for a device that it does not have (`nldev_port_get_dumpit()`).
const EINVAL: i32 = 22;
/// The same, for one that is about to go.
const ENODEV: i32 = 19;

/// Why the detector cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket that was passed, or should have been, cannot be used.
    #[error("cannot use the sockets that were passed")]
    Activation(#[source] io::Error),
    /// The uevent socket failed.
    #[error("cannot receive uevents")]
    Uevents(#[source] io::Error),
    /// The runtime, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Runs the detector until it is told to stop.
///
/// # Errors
/// See [`Error`].
pub fn main(config: Config) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(run(config))
}

async fn run(config: Config) -> Result<(), Error> {
    let mut wishes = Wishes::catch().map_err(Error::Runtime)?;
    let mut inherited = Inherited::from_environment().map_err(Error::Activation)?;
    let uevents = match inherited.take("uevent") {
        Some(fd) => UeventSocket::adopt(fd),
        None => UeventSocket::open(),
    }
    .map_err(Error::Activation)?;
    let rdma = inherited
        .take("rdma-netlink")
        .map(RdmaSocket::adopt)
        .transpose()
        .map_err(Error::Activation)?;
    let endpoint = inherited
        .take_varlink(config.listen.as_deref())
        .map_err(Error::Activation)?;

    let published = Arc::new(Published::default());
    let mut eyes = Eyes {
        sysfs: Sysfs::new(config.sysfs),
        passed: rdma,
        refused: BTreeSet::new(),
    };
    // The socket is open: whatever happens from here on is an event. So what this scan shows
    // can only be older than the events, never newer.
    let retry = !eyes.scan(&published).await;
    lifecycle::ready("following the kernel");
    let service = Arc::new(Detector::new(Arc::clone(&published)));
    tokio::select! {
        served = server::serve(endpoint, service, &mut wishes, None) => served.map_err(Error::Runtime),
        failed = follow(&uevents, &mut eyes, &published, retry) => Err(Error::Uevents(failed)),
    }
}

/// Scans after each event that concerns RDMA. Ends only when the socket fails.
async fn follow(
    uevents: &UeventSocket,
    eyes: &mut Eyes,
    published: &Published,
    mut retry: bool,
) -> io::Error {
    let mut deadline = Instant::now() + RETRY;
    loop {
        let received = tokio::select! {
            received = uevents.receive() => received.map(Some),
            // A deadline and not a pause: events of others must not put it off.
            () = tokio::time::sleep_until(deadline), if retry => Ok(None),
        };
        let mut due = match received {
            Ok(Some(received)) => concerns_rdma(&received, published),
            Ok(None) => true,
            Err(e) => return e,
        };
        // One scan serves every event that is already here: what comes while a scan runs costs one
        // more together, and not one each.
        loop {
            match uevents.try_receive() {
                Ok(Some(received)) => due |= concerns_rdma(&received, published),
                Ok(None) => break,
                Err(e) => return e,
            }
        }
        if due {
            retry = !eyes.scan(published).await;
            deadline = Instant::now() + RETRY;
        }
    }
}

/// Counts what was received, and says whether the devices may be other ones after it.
fn concerns_rdma(received: &Received, published: &Published) -> bool {
    match received {
        Received::Uevent(uevent) => {
            published.count(|counters| counters.uevents += 1);
            let concerns = uevent.concerns_rdma();
            if concerns {
                tracing::debug!(
                    sequence = uevent.sequence,
                    "{} {}",
                    uevent.action,
                    uevent.devpath
                );
            }
            concerns
        }
        Received::Dropped(reason) => {
            published.count(|counters| counters.dropped_datagrams += 1);
            tracing::warn!("dropped a datagram from the uevent socket: {reason}");
            // What was cut off may have been an event; what others sent never was.
            matches!(reason, Refused::Truncated)
        }
        Received::Overrun => {
            published.count(|counters| counters.overruns += 1);
            tracing::warn!("uevents were lost: reading every device anew");
            true
        }
    }
}

/// Where the kernel is asked.
struct Eyes {
    sysfs: Sysfs,
    /// The socket that was passed. One of our own is opened for each scan: ib_core cannot be
    /// unloaded while a socket of its family is open.
    passed: Option<RdmaSocket>,
    /// Names that were refused, so that each is logged once.
    refused: BTreeSet<String>,
}

impl Eyes {
    /// Reads every device and publishes what is different. Says whether that worked: what was
    /// published before stays when it did not.
    async fn scan(&mut self, published: &Published) -> bool {
        let ib_core = self.sysfs.has_ib_core();
        let outcome = if ib_core {
            self.devices().await
        } else {
            Ok(Vec::new())
        };
        published.count(|counters| {
            counters.scans += 1;
            counters.ib_core = ib_core;
        });
        match outcome {
            Ok(devices) => {
                published.replace(devices);
                true
            }
            Err(e) => {
                tracing::warn!("cannot read the devices: {}", interfaces::log::Chain(&e));
                false
            }
        }
    }

    async fn devices(&mut self) -> Result<Vec<Device>, DumpError> {
        let mut own;
        let rdma = match &mut self.passed {
            Some(passed) => passed,
            None => {
                own = RdmaSocket::open()?;
                &mut own
            }
        };
        let mut devices = Vec::new();
        for device in rdma.dump(Query::Devices, parse_named).await? {
            let device = match device {
                Ok(device) => device,
                // One name that is none must not hide the others' devices.
                Err(e) => {
                    let message = e.to_string();
                    if !self.refused.contains(&message) {
                        tracing::warn!("a device is left out: {message}");
                        self.refused.insert(message);
                    }
                    continue;
                }
            };
            match rdma
                .dump(Query::Ports(device.index), NldevPort::parse)
                .await
            {
                Ok(ports) => {
                    let sysfs = self.sysfs.device(&device.name);
                    devices.push(assemble(&device, &ports, &sysfs));
                }
                // Gone since the first dump; its uevent leads to the next scan.
                Err(DumpError::Reply(NldevError::Refused(EINVAL | ENODEV))) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(devices)
    }
}

/// Keeps a name that is none apart from a reply that cannot be read.
fn parse_named(payload: &[u8]) -> Result<Result<NldevDevice, NameError>, NldevError> {
    match NldevDevice::parse(payload) {
        Err(NldevError::Name(e)) => Ok(Err(e)),
        other => other.map(Ok),
    }
}

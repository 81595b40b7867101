//! A host, its three services, and their state as observed from outside. Must never inspect a
//! service: all its knowledge is from the sockets, the kernel and the flag file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interfaces::client::{Client, Replies};
use interfaces::detector::{SUBSCRIBE_DEVICES, SubscribeDevicesArgs, SubscribeDevicesReply};
use interfaces::log::Chain;
use interfaces::orchestrator::{
    Action, Device, SUBSCRIBE_STATUS, SubscribeStatusArgs, SubscribeStatusReply,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::host::{Hardware, SimulatedHost};
use crate::kernel::{KernelEvent, LabKernel};
use crate::layout;
use crate::report::Report;
use crate::service_manager::Service;

/// The time that an operation in the lab may take before it counts as failed. A lab on a busy host
/// is slow, but a broken lab waits for ever.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The interval at which the stand-in for the path unit checks its file.
const PATH_UNIT_INTERVAL: Duration = Duration::from_millis(5);
/// An observed event.
#[derive(Debug)]
enum Observation {
    Kernel(KernelEvent),
    Detector(Box<SubscribeDevicesReply>),
    Orchestrator(Box<SubscribeStatusReply>),
    Target(bool),
    Lost(String),
}

/// The state of the lab, as observed from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The orchestrator's devices by their index.
    #[serde(serialize_with = "values")]
    pub devices: BTreeMap<i64, Device>,
    /// Every module that the kernel accepted, in order, once for each time.
    pub inserted: Vec<String>,
    /// True if `rdma-hw.target` is active.
    #[serde(rename = "targetActive")]
    pub target_active: bool,
}

/// Serializes the devices as a list: each device contains its index.
fn values<S: serde::Serializer>(devices: &BTreeMap<i64, Device>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(devices.values())
}

/// A running lab.
pub struct Lab {
    dir: PathBuf,
    program: PathBuf,
    kernel: LabKernel,
    services: Vec<Service>,
    observer: Observer,
    sender: UnboundedSender<Observation>,
}

/// The observed state, and the report on which it is printed.
struct Observer {
    world: Observed,
    report: Report,
    seen: UnboundedReceiver<Observation>,
}

impl Lab {
    /// Lays out a host in `dir`, which must be empty, with `hardware` plugged in before any service
    /// runs. `program` is the lab's own program, from which services are started.
    ///
    /// # Errors
    /// Fails if the directory or the sockets cannot be made.
    pub fn lay_out(
        dir: &Path,
        program: &Path,
        hardware: Vec<Hardware>,
        report: Report,
    ) -> io::Result<Self> {
        layout::make_directories(dir)?;
        let mut host = SimulatedHost::new(dir.join("sys"))?;
        for device in hardware {
            host.plug(device)?;
        }
        let (sender, seen) = unbounded_channel();
        let (events, mut kernel_events) = unbounded_channel();
        let modules = dir.join("run/lab/kernel");
        let (kernel, sockets) = LabKernel::start(host, &modules, events)?;
        let forward = sender.clone();
        tokio::spawn(async move {
            while let Some(event) = kernel_events.recv().await {
                let _ = forward.send(Observation::Kernel(event));
            }
        });
        let services = layout::services(dir, &modules, sockets)?;
        Ok(Self {
            dir: dir.to_owned(),
            program: program.to_owned(),
            kernel,
            services,
            observer: Observer {
                world: Observed::default(),
                report,
                seen,
            },
            sender,
        })
    }

    /// Starts every service, subscribes to them, and waits until the last has sent READY.
    ///
    /// # Errors
    /// Fails if a service does not become ready.
    pub async fn start(&mut self) -> io::Result<()> {
        // The order does not matter: the sockets exist before the services.
        for service in &mut self.services {
            service.start(&self.program)?;
        }
        self.follow();
        for service in &mut self.services {
            let name = service.name();
            self.observer.watch_until(service.ready()).await?;
            self.observer.report.started(name);
        }
        Ok(())
    }

    /// Returns the kernel of the host.
    #[must_use]
    pub fn kernel(&self) -> &LabKernel {
        &self.kernel
    }

    /// Returns the report.
    pub fn report(&mut self) -> &mut Report {
        &mut self.observer.report
    }

    /// Returns the observed state.
    #[must_use]
    pub fn world(&self) -> &Observed {
        &self.observer.world
    }

    /// Returns the directory of the host.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Returns the socket of an interface.
    #[must_use]
    pub fn socket(&self, interface: &str) -> PathBuf {
        layout::socket(&self.dir, interface)
    }

    /// Returns a service by its name.
    pub fn service(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|s| s.name() == name)
    }

    /// Starts a service again after it was killed.
    ///
    /// # Errors
    /// Fails if there is no service of that name, or if it does not become ready.
    pub async fn restart(&mut self, name: &str) -> io::Result<()> {
        let program = self.program.clone();
        let mut services = self.services.iter_mut();
        let service = services
            .find(|s| s.name() == name)
            .ok_or(io::ErrorKind::NotFound)?;
        service.start(&program)?;
        self.observer.watch_until(service.ready()).await
    }

    /// Waits until the observed state satisfies a condition.
    ///
    /// # Errors
    /// Fails if it does not within [`TIMEOUT`]; the error contains `what`.
    pub async fn wait_until(
        &mut self,
        what: &str,
        is: impl Fn(&Observed) -> bool,
    ) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while !is(&self.observer.world) {
            match tokio::time::timeout_at(deadline, self.observer.seen.recv()).await {
                Ok(Some(seen)) => self.observer.see(seen),
                Ok(None) | Err(_) => return Err(self.in_vain(what)),
            }
        }
        Ok(())
    }

    /// Continues to print observed events, for ever.
    pub async fn stay(&mut self) {
        for service in &self.services {
            tokio::spawn(service.hear());
        }
        while let Some(seen) = self.observer.seen.recv().await {
            self.observer.see(seen);
        }
    }

    /// Stops every service and waits until all have exited.
    pub async fn stop(&mut self) {
        for service in &mut self.services {
            service.stop().await;
        }
    }

    fn in_vain(&self, what: &str) -> io::Error {
        let mut message = format!(
            "timed out waiting for: {what}\nknown: {:#?}",
            self.observer.world
        );
        for service in &self.services {
            message.push_str(&format!("\nlog of {}:\n{}", service.name(), service.log()));
        }
        io::Error::new(io::ErrorKind::TimedOut, message)
    }

    /// Subscribes to the two services that can be subscribed to, and watches the flag.
    fn follow(&self) {
        let detector = self.socket("org.rdmahotplug.Detector");
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let arguments = SubscribeDevicesArgs {};
            follow(&detector, SUBSCRIBE_DEVICES, &arguments, &sender, |reply| {
                Observation::Detector(Box::new(reply))
            })
            .await;
        });
        let orchestrator = self.socket("org.rdmahotplug.Orchestrator");
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let arguments = SubscribeStatusArgs {};
            follow(
                &orchestrator,
                SUBSCRIBE_STATUS,
                &arguments,
                &sender,
                |reply| Observation::Orchestrator(Box::new(reply)),
            )
            .await;
        });
        let flag = self.dir.join("run/rdma-hotplug/orchestrator/hardware");
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut active = false;
            while !sender.is_closed() {
                if flag.exists() != active {
                    active = !active;
                    let _ = sender.send(Observation::Target(active));
                }
                tokio::time::sleep(PATH_UNIT_INTERVAL).await;
            }
        });
    }
}

impl Observer {
    /// Prints observed events until `done` completes.
    async fn watch_until(&mut self, done: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let deadline = tokio::time::sleep(TIMEOUT);
        tokio::pin!(done, deadline);
        loop {
            tokio::select! {
                outcome = &mut done => return outcome,
                Some(seen) = self.seen.recv() => self.see(seen),
                () = &mut deadline => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn see(&mut self, seen: Observation) {
        match seen {
            Observation::Kernel(event) => {
                self.report.kernel(&event);
                if let KernelEvent::Inserted(module) = event {
                    self.world.inserted.push(module);
                }
            }
            Observation::Detector(reply) => self.report.detector(&reply),
            Observation::Orchestrator(reply) => {
                self.report.orchestrator(&reply);
                let reply = *reply;
                match (reply.action, reply.index, reply.device) {
                    (Action::Add | Action::Change, Some(index), Some(device)) => {
                        self.world.devices.insert(index, device);
                    }
                    (Action::Remove, Some(index), _) => {
                        self.world.devices.remove(&index);
                    }
                    (Action::Resync, _, _) => self.world.devices.clear(),
                    _ => {}
                }
            }
            Observation::Target(active) => {
                self.world.target_active = active;
                self.report.target("rdma-hw.target", active);
            }
            Observation::Lost(what) => self.report.note(&what),
        }
    }
}

/// Forwards the replies of one service, until the end of the connection.
async fn follow<R: DeserializeOwned>(
    socket: &Path,
    method: &'static str,
    arguments: &impl Serialize,
    sender: &UnboundedSender<Observation>,
    seen: impl Fn(R) -> Observation,
) {
    let replies = async {
        let client = Client::connect(socket).await?;
        client.stream(method, arguments).await
    };
    let lost = match replies.await {
        Ok(mut replies) => tell(&mut replies, sender, seen).await,
        Err(e) => Chain(&e).to_string(),
    };
    let _ = sender.send(Observation::Lost(lost));
}

async fn tell<R: DeserializeOwned>(
    replies: &mut Replies,
    sender: &UnboundedSender<Observation>,
    seen: impl Fn(R) -> Observation,
) -> String {
    loop {
        match replies.next().await {
            Ok(Some(reply)) => {
                if sender.send(seen(reply)).is_err() {
                    return "no observer is left".to_owned();
                }
            }
            Ok(None) => return "a subscription ended".to_owned(),
            Err(e) => return Chain(&e).to_string(),
        }
    }
}

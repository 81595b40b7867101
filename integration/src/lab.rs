//! A host, its three services, and what is seen of them from outside. Must never look into a
//! service: what it knows it has from the sockets, the kernel and the flag file.

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

use crate::host::{Hardware, Host};
use crate::journey::Journey;
use crate::kernel::{KernelEvent, LabKernel};
use crate::layout;
use crate::service_manager::Service;

/// How long anything in the lab may take before it counts as failed. A lab on a busy machine is
/// slow, a broken one waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the stand-in for the path unit looks at its file.
const PATH_UNIT_INTERVAL: Duration = Duration::from_millis(5);
/// Something that was seen.
#[derive(Debug)]
enum Seen {
    Kernel(KernelEvent),
    Detector(Box<SubscribeDevicesReply>),
    Orchestrator(Box<SubscribeStatusReply>),
    Target(bool),
    Lost(String),
}

/// All that is known of the lab from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct World {
    /// The orchestrator's devices by their index.
    #[serde(serialize_with = "values")]
    pub devices: BTreeMap<i64, Device>,
    /// Every module that the kernel took, in order, as often as it took it.
    pub inserted: Vec<String>,
    /// Whether `rdma-hw.target` is active.
    #[serde(rename = "targetActive")]
    pub target_active: bool,
}

/// Each device says its index itself.
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
    sender: UnboundedSender<Seen>,
}

/// What has been seen, and where it is told.
struct Observer {
    world: World,
    journey: Journey,
    seen: UnboundedReceiver<Seen>,
}

impl Lab {
    /// Lays a host out in `dir`, which must be empty, with `hardware` plugged in before anything
    /// runs. `program` is the lab's own, from which services are started.
    ///
    /// # Errors
    /// When the directory or the sockets cannot be made.
    pub fn lay_out(
        dir: &Path,
        program: &Path,
        hardware: Vec<Hardware>,
        journey: Journey,
    ) -> io::Result<Self> {
        layout::make_directories(dir)?;
        let mut host = Host::new(dir.join("sys"))?;
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
                let _ = forward.send(Seen::Kernel(event));
            }
        });
        let services = layout::services(dir, &modules, sockets)?;
        Ok(Self {
            dir: dir.to_owned(),
            program: program.to_owned(),
            kernel,
            services,
            observer: Observer {
                world: World::default(),
                journey,
                seen,
            },
            sender,
        })
    }

    /// Starts every service and waits until the last has said READY, then follows them.
    ///
    /// # Errors
    /// When a service does not get ready.
    pub async fn start(&mut self) -> io::Result<()> {
        // The order does not matter: the sockets are there before any of them.
        for service in &mut self.services {
            service.start(&self.program)?;
        }
        self.follow();
        for service in &mut self.services {
            let name = service.name();
            self.observer.watch_until(service.ready()).await?;
            self.observer
                .journey
                .tell("PID 1", &format!("{name} is ready"));
        }
        Ok(())
    }

    /// The hardware.
    #[must_use]
    pub fn kernel(&self) -> &LabKernel {
        &self.kernel
    }

    /// What is printed.
    pub fn journey(&mut self) -> &mut Journey {
        &mut self.observer.journey
    }

    /// All that is known.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.observer.world
    }

    /// Where the host is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// The socket of an interface.
    #[must_use]
    pub fn socket(&self, interface: &str) -> PathBuf {
        layout::socket(&self.dir, interface)
    }

    /// A service by its name.
    pub fn service(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|s| s.name() == name)
    }

    /// Starts a service again after it was killed.
    ///
    /// # Errors
    /// When there is none of that name, or it does not get ready.
    pub async fn restart(&mut self, name: &str) -> io::Result<()> {
        let program = self.program.clone();
        let mut services = self.services.iter_mut();
        let service = services
            .find(|s| s.name() == name)
            .ok_or(io::ErrorKind::NotFound)?;
        service.start(&program)?;
        self.observer.watch_until(service.ready()).await
    }

    /// Waits until the world is as it should be.
    ///
    /// # Errors
    /// When it is not after [`PATIENCE`]; the error says what it was waiting for.
    pub async fn wait_until(&mut self, what: &str, is: impl Fn(&World) -> bool) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is(&self.observer.world) {
            match tokio::time::timeout_at(deadline, self.observer.seen.recv()).await {
                Ok(Some(seen)) => self.observer.see(seen),
                Ok(None) | Err(_) => return Err(self.in_vain(what)),
            }
        }
        Ok(())
    }

    /// Goes on telling what is seen, for ever.
    pub async fn stay(&mut self) {
        for service in &self.services {
            tokio::spawn(service.hear());
        }
        while let Some(seen) = self.observer.seen.recv().await {
            self.observer.see(seen);
        }
    }

    /// Ends every service and waits until all have ended.
    pub async fn stop(&mut self) {
        for service in &mut self.services {
            service.stop().await;
        }
    }

    fn in_vain(&self, what: &str) -> io::Error {
        let mut message = format!(
            "waited in vain for: {what}\nknown: {:#?}",
            self.observer.world
        );
        for service in &self.services {
            message.push_str(&format!("\nlog of {}:\n{}", service.name(), service.log()));
        }
        io::Error::new(io::ErrorKind::TimedOut, message)
    }

    /// Follows the two services that can be followed, and the flag.
    fn follow(&self) {
        let detector = self.socket("org.rdmahotplug.Detector");
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let arguments = SubscribeDevicesArgs {};
            follow(&detector, SUBSCRIBE_DEVICES, &arguments, &sender, |reply| {
                Seen::Detector(Box::new(reply))
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
                |reply| Seen::Orchestrator(Box::new(reply)),
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
                    let _ = sender.send(Seen::Target(active));
                }
                tokio::time::sleep(PATH_UNIT_INTERVAL).await;
            }
        });
    }
}

impl Observer {
    /// Tells what is seen until `done` completes.
    async fn watch_until(&mut self, done: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(done, deadline);
        loop {
            tokio::select! {
                outcome = &mut done => return outcome,
                Some(seen) = self.seen.recv() => self.see(seen),
                () = &mut deadline => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Kernel(event) => {
                self.journey.kernel(&event);
                if let KernelEvent::Inserted(module) = event {
                    self.world.inserted.push(module);
                }
            }
            Seen::Detector(reply) => self.journey.detector(&reply),
            Seen::Orchestrator(reply) => {
                self.journey.orchestrator(&reply);
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
            Seen::Target(active) => {
                self.world.target_active = active;
                let what = if active { "active" } else { "no longer wanted" };
                self.journey
                    .tell("PID 1", &format!("rdma-hw.target is {what}"));
            }
            Seen::Lost(what) => self.journey.tell("lab", &what),
        }
    }
}

/// Tells what one service publishes, to the end of the connection.
async fn follow<R: DeserializeOwned>(
    socket: &Path,
    method: &'static str,
    arguments: &impl Serialize,
    sender: &UnboundedSender<Seen>,
    seen: impl Fn(R) -> Seen,
) {
    let replies = async {
        let client = Client::connect(socket).await?;
        client.stream(method, arguments).await
    };
    let lost = match replies.await {
        Ok(mut replies) => tell(&mut replies, sender, seen).await,
        Err(e) => Chain(&e).to_string(),
    };
    let _ = sender.send(Seen::Lost(lost));
}

async fn tell<R: DeserializeOwned>(
    replies: &mut Replies,
    sender: &UnboundedSender<Seen>,
    seen: impl Fn(R) -> Seen,
) -> String {
    loop {
        match replies.next().await {
            Ok(Some(reply)) => {
                if sender.send(seen(reply)).is_err() {
                    return "nobody looks any more".to_owned();
                }
            }
            Ok(None) => return "a subscription ended".to_owned(),
            Err(e) => return Chain(&e).to_string(),
        }
    }
}

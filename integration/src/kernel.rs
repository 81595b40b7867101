//! The kernel's part in the lab: announces changes with uevents, replies to `NETLINK_RDMA` dumps in
//! the real wire format, and accepts modules. Must never do what the real kernel would not.

use std::collections::BTreeSet;
use std::env;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interfaces::detector::Protocol;
use interfaces::names::ModuleName;
use loader::kernel::Kernel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::host::{Hardware, Plugged, SimulatedHost};
use crate::wire::{self, Answer, EINVAL, Request, attribute, text};

/// The variable that gives the socket of the lab's kernel to the loader's process.
pub const KERNEL_VARIABLE: &str = "RDMA_HOTPLUG_LAB_KERNEL";

/// The error of finit_module(2) for a module that is live.
const EEXIST: i32 = 17;

/// An action of the kernel.
#[derive(Clone, Debug)]
pub enum KernelEvent {
    /// It sent a uevent.
    Uevent {
        /// `add`, `move`, `remove`.
        action: &'static str,
        /// The object.
        devpath: String,
    },
    /// It accepted a module.
    Inserted(String),
}

/// The modules whose initialisation does not finish.
#[derive(Default)]
struct Held {
    all: bool,
    modules: BTreeSet<String>,
}

/// The lab's kernel.
#[derive(Clone)]
pub struct LabKernel {
    host: Arc<Mutex<SimulatedHost>>,
    sequence: Arc<Mutex<u64>>,
    uevents: Arc<UnixDatagram>,
    held: Arc<watch::Sender<Held>>,
    refused: Arc<Mutex<BTreeSet<String>>>,
    inserted: Arc<Mutex<Vec<String>>>,
    events: UnboundedSender<KernelEvent>,
}

/// The detector's ends of its two sockets to the kernel. The process that starts the detector keeps
/// them, so that data sent while the detector does not run stays queued.
pub struct DetectorSockets {
    /// For uevents.
    pub uevent: OwnedFd,
    /// For `NETLINK_RDMA`.
    pub rdma_netlink: OwnedFd,
}

impl LabKernel {
    /// Starts the kernel of `host`, which accepts modules on the socket at `modules`.
    ///
    /// # Errors
    /// Fails if a socket cannot be made.
    pub fn start(
        host: SimulatedHost,
        modules: &Path,
        events: UnboundedSender<KernelEvent>,
    ) -> io::Result<(Self, DetectorSockets)> {
        let (uevents, uevent) = UnixDatagram::pair()?;
        uevents.set_nonblocking(true)?;
        let (rdma, rdma_netlink) = UnixDatagram::pair()?;
        rdma.set_nonblocking(true)?;
        let kernel = Self {
            host: Arc::new(Mutex::new(host)),
            sequence: Arc::default(),
            uevents: Arc::new(uevents),
            held: Arc::default(),
            refused: Arc::default(),
            inserted: Arc::default(),
            events,
        };
        let rdma = tokio::net::UnixDatagram::from_std(rdma)?;
        tokio::spawn(kernel.clone().answer_requests(rdma));
        tokio::spawn(kernel.clone().take_modules(UnixListener::bind(modules)?));
        let sockets = DetectorSockets {
            uevent: uevent.into(),
            rdma_netlink: rdma_netlink.into(),
        };
        Ok((kernel, sockets))
    }

    /// Holds or releases all modules: while they are held, no module becomes live.
    pub fn hold_modules(&self, held: bool) {
        self.held.send_modify(|now| now.all = held);
    }

    /// Holds these modules and releases those of the last call: their initialisation does not
    /// finish.
    pub fn hold_only<'m>(&self, modules: impl IntoIterator<Item = &'m str>) {
        let modules = modules.into_iter().map(str::to_owned).collect();
        self.held.send_modify(|now| now.modules = modules);
    }

    /// Makes the kernel refuse a module with `EINVAL`.
    pub fn refuse(&self, module: &str) {
        let refused = self.refused.lock();
        let mut refused = refused.unwrap_or_else(PoisonError::into_inner);
        refused.insert(module.to_owned());
    }

    /// Returns true if a module is live.
    #[must_use]
    pub fn is_live(&self, module: &str) -> bool {
        self.host().is_live(module)
    }

    /// Inserts a module as another program would.
    ///
    /// # Errors
    /// Fails if the host's tree cannot be changed.
    pub fn insert(&self, module: &str) -> io::Result<()> {
        self.host().insert_module(module)?;
        self.send("add", "module", &format!("/module/{module}"))?;
        self.make_nodes()
    }

    /// Removes an unused module as an administrator would.
    ///
    /// # Errors
    /// Fails if it is not live, or if the host's tree cannot be changed.
    pub fn remove(&self, module: &str) -> io::Result<()> {
        self.host().remove_module(module)?;
        self.send("remove", "module", &format!("/module/{module}"))
    }

    /// Plugs in a function without a bound driver.
    ///
    /// # Errors
    /// Fails if the host's tree cannot be changed.
    pub fn plug_function(&self, address: &str, modalias: &str) -> io::Result<()> {
        let devpath = self.host().plug_function(address, modalias)?;
        self.send("add", "pci", &devpath)
    }

    /// Unplugs such a function.
    ///
    /// # Errors
    /// Fails if there is no such function, or if the host's tree cannot be changed.
    pub fn unplug_function(&self, address: &str) -> io::Result<()> {
        let devpath = self.host().unplug_function(address)?;
        self.send("remove", "pci", &devpath)
    }

    /// Returns every module that was accepted, in order.
    #[must_use]
    pub fn inserted(&self) -> Vec<String> {
        let inserted = self.inserted.lock();
        inserted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Plugs in a device.
    ///
    /// # Errors
    /// Fails if the host's tree cannot be changed.
    pub fn plug(&self, hardware: Hardware) -> io::Result<u32> {
        let (index, plugged) = self.host().plug(hardware)?;
        // The nodes of live modules appear before the device's own event (ib_register_device()).
        self.make_nodes()?;
        self.send("add", "infiniband", &plugged.devpath)?;
        Ok(index)
    }

    /// Renames a device.
    ///
    /// # Errors
    /// Fails if there is no such device, or if the host's tree cannot be changed.
    pub fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        let (_, plugged) = self.host().rename(index, name)?;
        self.send("move", "infiniband", &plugged.devpath)
    }

    /// Unplugs a device.
    ///
    /// # Errors
    /// Fails if there is no such device, or if the host's tree cannot be changed.
    pub fn unplug(&self, index: u32) -> io::Result<()> {
        let (plugged, nodes) = self.host().unplug(index)?;
        for node in nodes {
            self.send("remove", node.subsystem, &node.devpath())?;
        }
        self.send("remove", "infiniband", &plugged.devpath)
    }

    fn make_nodes(&self) -> io::Result<()> {
        let made = self.host().make_nodes()?;
        for node in made {
            self.send("add", node.subsystem, &node.devpath())?;
        }
        Ok(())
    }

    /// Sends a datagram unchanged, which is not an event: a socket pair carries any bytes. Waits if
    /// the queue is full.
    ///
    /// # Errors
    /// Fails if the detector's end is closed, or if the datagram is too long for a socket.
    pub async fn send_datagram(&self, datagram: &[u8]) -> io::Result<()> {
        loop {
            match self.uevents.send(datagram) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                sent => return sent.map(drop),
            }
        }
    }

    fn host(&self) -> MutexGuard<'_, SimulatedHost> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, action: &'static str, subsystem: &str, devpath: &str) -> io::Result<()> {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        *sequence += 1;
        let datagram = format!(
            "{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0\
             SUBSYSTEM={subsystem}\0SEQNUM={sequence}\0"
        );
        // A full queue loses the event, as in the real kernel.
        match self.uevents.send(datagram.as_bytes()) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
        let devpath = devpath.to_owned();
        let _ = self.events.send(KernelEvent::Uevent { action, devpath });
        Ok(())
    }

    async fn take_modules(self, listener: UnixListener) {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let kernel = self.clone();
            tokio::spawn(async move {
                let mut module = String::new();
                let asked = stream.read_to_string(&mut module).await;
                let mut held = kernel.held.subscribe();
                let ended = |held: &Held| !held.all && !held.modules.contains(&module);
                let _ = held.wait_for(ended).await;
                let taken = match asked {
                    Ok(_) => kernel.take_module(&module),
                    Err(e) => Err(e),
                };
                let errno = taken.map_or_else(|e| e.raw_os_error().unwrap_or(EINVAL), |()| 0);
                let _ = stream.write_all(&errno.to_ne_bytes()).await;
            });
        }
    }

    /// Makes a module live, and makes the nodes that it provides for every RDMA device.
    fn take_module(&self, module: &str) -> io::Result<()> {
        if self.host().is_live(module) {
            return Err(io::Error::from_raw_os_error(EEXIST));
        }
        let refused = self.refused.lock();
        if refused
            .unwrap_or_else(PoisonError::into_inner)
            .contains(module)
        {
            return Err(io::Error::from_raw_os_error(EINVAL));
        }
        self.host().insert_module(module)?;
        let inserted = self.inserted.lock();
        let mut inserted = inserted.unwrap_or_else(PoisonError::into_inner);
        inserted.push(module.to_owned());
        drop(inserted);
        let _ = self.events.send(KernelEvent::Inserted(module.to_owned()));
        self.send("add", "module", &format!("/module/{module}"))?;
        self.make_nodes()
    }

    async fn answer_requests(self, socket: tokio::net::UnixDatagram) {
        let mut request = [0; 4096];
        while let Ok(len) = socket.recv(&mut request).await {
            let request = request.get(..len).unwrap_or_default();
            for datagram in wire::respond(request, |request| self.answer(request)) {
                if socket.send(&datagram).await.is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&self, request: Request) -> Answer {
        let host = self.host();
        match request {
            Request::Devices => {
                let devices = host.devices().iter();
                Ok(devices
                    .map(|(index, device)| device_attributes(*index, device))
                    .collect())
            }
            Request::Device(index) => match host.devices().get(&index) {
                Some(device) => Ok(vec![device_attributes(index, device)]),
                None => Err(EINVAL),
            },
            Request::Ports(index) => match host.devices().get(&index) {
                Some(device) => Ok(port_attributes(index, device)),
                None => Err(EINVAL),
            },
            // The mode is shared between network namespaces, and there is no monitor.
            Request::System => Ok(vec![attribute(wire::SYS_NETNS_MODE, &[1])]),
        }
    }
}

fn device_attributes(index: u32, device: &Plugged) -> Vec<u8> {
    let hardware = &device.hardware;
    let guid = 0x0002_c903_0000_0000 + u64::from(index);
    let mut attributes = attribute(wire::DEV_INDEX, &index.to_ne_bytes());
    attributes.extend(text(wire::DEV_NAME, &hardware.name));
    attributes.extend(text(wire::FW_VERSION, "20.43.1014"));
    attributes.extend(attribute(wire::NODE_GUID, &guid.to_ne_bytes()));
    attributes.extend(attribute(wire::DEV_NODE_TYPE, &[1]));
    let protocol = match hardware.ports.first() {
        Some(Protocol::Infiniband) => "ib",
        Some(Protocol::Roce) => "roce",
        Some(Protocol::Opa) => "opa",
        Some(Protocol::Iwarp) => "iw",
        Some(Protocol::Usnic) => "usnic",
        Some(Protocol::Unknown) | None => return attributes,
    };
    attributes.extend(text(wire::DEV_PROTOCOL, protocol));
    attributes
}

fn port_attributes(index: u32, device: &Plugged) -> Vec<Vec<u8>> {
    let active = 4;
    (1..)
        .zip(&device.hardware.ports)
        .map(|(number, _): (u32, _)| {
            let mut attributes = attribute(wire::DEV_INDEX, &index.to_ne_bytes());
            attributes.extend(attribute(wire::PORT_INDEX, &number.to_ne_bytes()));
            attributes.extend(attribute(wire::PORT_STATE, &[active]));
            attributes
        })
        .collect()
}

/// The lab's kernel as the loader's process sees it: one connection per module.
pub struct RemoteKernel {
    socket: PathBuf,
}

impl RemoteKernel {
    /// Returns the kernel that [`KERNEL_VARIABLE`] names.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let socket = env::var_os(KERNEL_VARIABLE)?.into();
        Some(Self { socket })
    }
}

impl Kernel for RemoteKernel {
    fn finit_module(&self, module: &ModuleName, _: &File, _: &CStr, _: i32) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(module.as_str().as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut errno = [0; 4];
        stream.read_exact(&mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

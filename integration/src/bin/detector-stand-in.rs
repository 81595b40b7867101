//! A stand-in for the detector, for guests whose kernel has no RDMA: `detector-stand-in FIFO`
//! serves org.rdmahotplug.Detector with the devices that lines of the FIFO add and remove:
//! `add INDEX NAME PROTOCOL...` and `del INDEX`. Must never be installed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use interfaces::Interface;
use interfaces::activation::Inherited;
use interfaces::detector::{
    self, Action, Device, Kind, ListArgs, ListReply, Port, Protocol, SubscribeDevicesArgs,
    SubscribeDevicesReply, SynchronizeArgs, SynchronizeReply,
};
use interfaces::lifecycle::Signals;
use interfaces::server::{self, Admission, Call, CallError, Feed, Service, Snapshot};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

/// The devices by their index.
#[derive(Default)]
struct Devices {
    devices: BTreeMap<i64, Device>,
    sequence: i64,
}

impl Devices {
    fn told(&self, action: Action, device: Option<&Device>) -> SubscribeDevicesReply {
        SubscribeDevicesReply {
            action,
            sequence: self.sequence,
            index: device.map(|device| device.index),
            name: device.map(|device| device.name.clone()),
            device: device.filter(|_| action != Action::Remove).cloned(),
            function: None,
            module: None,
            modules: None,
        }
    }

    /// Applies a line of the FIFO; returns nothing if the line has no effect.
    fn take(&mut self, line: &str) -> Option<SubscribeDevicesReply> {
        let mut words = line.split_whitespace();
        let (verb, index) = (words.next()?, words.next()?.parse().ok()?);
        self.sequence += 1;
        if verb == "del" {
            let device = self.devices.remove(&index)?;
            return Some(self.told(Action::Remove, Some(&device)));
        }
        let device = device(index, words.next()?, words);
        let before = self.devices.insert(index, device.clone());
        let action = match before {
            Some(_) => Action::Change,
            None => Action::Add,
        };
        Some(self.told(action, Some(&device)))
    }
}

/// Returns a device with all of its nodes.
fn device<'w>(index: i64, name: &str, protocols: impl Iterator<Item = &'w str>) -> Device {
    let port = |(number, protocol): (i64, &str)| Port {
        number,
        protocol: match protocol {
            "infiniband" => Protocol::Infiniband,
            "roce" => Protocol::Roce,
            "iwarp" => Protocol::Iwarp,
            "opa" => Protocol::Opa,
            "usnic" => Protocol::Usnic,
            _ => Protocol::Unknown,
        },
        link_layer: None,
        state: None,
        speed_mbps: None,
        netdev: None,
        gid_types: Vec::new(),
        umad: Some(format!("umad{index}{number}")),
        issm: None,
    };
    Device {
        index,
        name: name.to_owned(),
        kernel_name: None,
        name_assigned_by_user: None,
        kind: Kind::Function,
        node_guid: None,
        system_image_guid: None,
        node_type: None,
        driver: None,
        module: None,
        pci_address: None,
        pci_id: None,
        physical_function: None,
        function_number: None,
        parent: None,
        firmware_version: None,
        board_id: None,
        netns_mode: None,
        in_other_netns: false,
        not_answering: None,
        uverbs: Some(format!("uverbs{index}")),
        ports: (1..).zip(protocols).map(port).collect(),
    }
}

impl Snapshot for Devices {
    type Event = SubscribeDevicesReply;

    fn snapshot(&self) -> Vec<SubscribeDevicesReply> {
        let devices = self.devices.values();
        let devices = devices.map(|device| self.told(Action::Add, Some(device)));
        devices.chain([self.told(Action::Ready, None)]).collect()
    }

    fn resync(&self) -> SubscribeDevicesReply {
        self.told(Action::Resync, None)
    }
}

struct StandIn {
    feed: Arc<Feed<Devices>>,
}

impl Service for StandIn {
    const PRODUCT: &'static str = "detector-stand-in";
    const INTERFACE: Interface = detector::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            detector::LIST => {
                let ListArgs { name, .. } = call.arguments()?;
                let devices: Vec<_> = self.feed.read(|devices| {
                    let devices = devices.devices.values().cloned();
                    devices.map(|device| ListReply { device }).collect()
                });
                let none = CallError::named(detector::NO_SUCH_DEVICE);
                let mut devices = devices.into_iter();
                call.reply_each(|| devices.next(), name.is_some(), none)
                    .await
            }
            detector::SUBSCRIBE_DEVICES => {
                let SubscribeDevicesArgs {} = call.arguments()?;
                self.feed.serve(call).await
            }
            detector::SYNCHRONIZE => {
                let SynchronizeArgs {} = call.arguments()?;
                let sequence = self.feed.read(|devices| devices.sequence);
                call.reply(&SynchronizeReply { sequence }).await
            }
            method => Err(CallError::method_not_implemented(method)),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let fifo = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    let listen = std::env::var_os("SYSTEMD_VARLINK_LISTEN").map(PathBuf::from);
    let endpoint = Inherited::from_environment()?.take_varlink(listen.as_deref())?;
    let feed = Arc::new(Feed::new(Devices::default()));
    // The FIFO is open for writing as well, so that it never reaches its end.
    let lines = pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(&fifo)?;
    let mut lines = BufReader::new(lines).lines();
    let told = Arc::clone(&feed);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            told.update(|devices| devices.take(&line).into_iter().collect());
        }
    });
    let mut signals = Signals::catch()?;
    server::serve(
        endpoint,
        Arc::new(StandIn { feed }),
        &mut signals,
        None,
        Admission::default(),
    )
    .await
}

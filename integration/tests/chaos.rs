//! Chaos: hardware is added and removed while each of the three services is killed at random
//! moments. In the end everything is as without the kills: the same devices, ready, each module
//! inserted once, and a journal whose replay makes the same decisions.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod with_lab;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use ::orchestrator::journal::{self, replay};
use integration::environment::number;
use integration::host::Hardware;
use integration::lab::Lab;
use interfaces::client::{Client, ClientError};
use interfaces::detector::Protocol;
use interfaces::orchestrator::{
    self, Device, ListArgs, ListReply, ModuleState, State, WaitArgs, WaitReply,
};
use with_lab::with_lab;

const SERVICES: [&str; 3] = ["rdma-detector", "rdma-loader", "rdma-orchestrator"];
const DEADLINE: Duration = Duration::from_secs(30);
/// The modules of a device with one RoCE port.
const ROCE: [&str; 5] = ["ib_iser", "ib_uverbs", "rdma_ucm", "svcrdma", "xprtrdma"];

/// The hardware that is plugged in, by the kernel's index: the name and the protocol of each
/// device.
type Plugged = BTreeMap<u32, (String, Protocol)>;

/// Changes the hardware once, at random.
fn chance(random: &mut fastrand::Rng, lab: &Lab, plugged: &mut Plugged, next: &mut u32) {
    let any = random.choice(plugged.keys().copied().collect::<Vec<_>>());
    match (random.u32(0..10), any) {
        (0..3, Some(index)) if plugged.len() > 2 => {
            lab.kernel().unplug(index).unwrap();
            plugged.remove(&index);
        }
        (3..6, Some(index)) => {
            let name = format!("renamed{next}");
            *next += 1;
            lab.kernel().rename(index, &name).unwrap();
            plugged.get_mut(&index).unwrap().0 = name;
        }
        _ if plugged.len() < 12 => {
            let protocol = match random.u32(0..3) {
                0 => Protocol::Infiniband,
                1 => Protocol::Opa,
                _ => Protocol::Roce,
            };
            let name = format!("device{next}");
            let hardware = Hardware {
                name: name.clone(),
                driver: "mlx5_core",
                pci_address: format!("{:04x}:{:02x}:00.0", *next >> 8, *next & 0xff),
                ports: vec![protocol],
            };
            *next += 1;
            let index = lab.kernel().plug(hardware).unwrap();
            plugged.insert(index, (name, protocol));
        }
        _ => {}
    }
}

async fn settled(socket: &Path) -> Result<(), ClientError> {
    let args = WaitArgs {
        name: None,
        conditions: None,
        timeout_usec: None,
    };
    let mut client = Client::connect(socket).await?;
    let WaitReply { device: None } = client.call(orchestrator::WAIT, &args, DEADLINE).await? else {
        panic!("a device where everything was waited for");
    };
    Ok(())
}

async fn devices(socket: &Path) -> Vec<Device> {
    let args = ListArgs {
        name: None,
        index: None,
    };
    let client = Client::connect(socket).await.unwrap();
    let mut replies = client.stream(orchestrator::LIST, &args).await.unwrap();
    let mut devices = Vec::new();
    while let Ok(Some(ListReply { device })) = replies.next().await {
        devices.push(device);
    }
    devices
}

/// Returns true if the listed devices are those that are plugged in, and all of them are ready.
fn is_as_it_is(devices: &[Device], plugged: &Plugged) -> bool {
    let told: BTreeMap<i64, (String, bool)> = devices
        .iter()
        .map(|device| {
            (
                device.index,
                (device.name.clone(), device.state == State::Ready),
            )
        })
        .collect();
    let is: BTreeMap<i64, (String, bool)> = plugged
        .iter()
        .map(|(index, (name, _))| (i64::from(*index), (name.clone(), true)))
        .collect();
    told == is
}

#[test]
fn services_that_are_killed_at_random_moments_end_in_the_correct_state() {
    let kills = number("RDMA_HOTPLUG_KILLS", 40);
    let seed = number("RDMA_HOTPLUG_SEED", fastrand::u64(..));
    with_lab(Vec::new(), async |lab| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut plugged, mut next) = (Plugged::new(), 0);
        for round in 0..kills * 3 {
            for _ in 0..random.u32(0..4) {
                chance(&mut random, lab, &mut plugged, &mut next);
            }
            // The kill happens at a moment without an event, while the services work on these
            // changes.
            for _ in 0..random.u32(0..400) {
                tokio::task::yield_now().await;
            }
            let service = SERVICES[usize::try_from(round % 3).unwrap()];
            lab.service(service).unwrap().kill().await.unwrap();
            lab.restart(service).await.unwrap();
        }
        let socket = lab.socket("org.rdmahotplug.Orchestrator");
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            settled(&socket).await.unwrap();
            let told = devices(&socket).await;
            if is_as_it_is(&told, &plugged) {
                break;
            }
            let in_time = tokio::time::Instant::now() < deadline;
            assert!(in_time, "seed {seed}: {told:#?}, not {plugged:#?}");
        }
        for device in devices(&socket).await {
            let mut live: Vec<&str> = device
                .modules
                .iter()
                .filter(|module| module.state == ModuleState::Live)
                .map(|module| module.name.as_str())
                .collect();
            live.sort_unstable();
            assert!(
                ROCE.iter().all(|module| live.contains(module)),
                "seed {seed}: {device:?}"
            );
        }
        // However often a module was requested, the kernel inserted it once.
        let inserted = lab.kernel().inserted();
        let once: BTreeSet<&String> = inserted.iter().collect();
        assert_eq!(once.len(), inserted.len(), "seed {seed}: {inserted:?}");
        replays(&lab.directory().join("run/rdma-hotplug/orchestrator"), seed);
    });
}

/// Replays the journal that all of these processes wrote one after the other.
fn replays(directory: &Path, seed: u64) {
    let records = journal::read(&directory.join("journal")).unwrap();
    let records = records.map_while(Result::ok);
    for step in replay::replay(records, None).unwrap() {
        // A kill may cut off the last decisions of a step.
        let same = step.made.starts_with(&step.recorded);
        assert!(same, "seed {seed}: {step:?}");
    }
}

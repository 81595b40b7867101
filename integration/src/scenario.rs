//! The scenario of the lab, and its required end: boot with a two-port HCA, an Omni-Path card
//! plugged in, a burst of virtual functions, an unplug. Must never derive the expected result from
//! what happened: it is written down here.

use std::io;

use interfaces::detector::Protocol;
use interfaces::orchestrator::{ModuleState, State};

use crate::host::Hardware;
use crate::lab::{Lab, Observed};

/// The number of virtual functions in the burst.
pub const VIRTUAL_FUNCTIONS: u32 = 16;

/// The modules that rdma-core's lists name for a device with an InfiniBand and an Ethernet port.
const INFINIBAND: [&str; 7] = [
    "ib_iser",
    "ib_uverbs",
    "rdma_ucm",
    "xprtrdma",
    "svcrdma",
    "ib_ipoib",
    "ib_umad",
];
/// The modules for Omni-Path, without `opa_vnic`, which Debian's kernel does not have.
const OMNI_PATH: [&str; 7] = INFINIBAND;
/// The modules for RoCE.
const ROCE: [&str; 5] = ["ib_iser", "ib_uverbs", "rdma_ucm", "xprtrdma", "svcrdma"];

/// Every module that must be inserted for these devices, except `ib_core`, which is loaded with the
/// first driver.
const INSERTED: [&str; 15] = [
    "configfs",
    "ib_cm",
    "ib_ipoib",
    "ib_iser",
    "ib_umad",
    "ib_uverbs",
    "iw_cm",
    "libiscsi",
    "rdma_cm",
    "rdma_ucm",
    "rpcrdma",
    "scsi_common",
    "scsi_mod",
    "scsi_transport_iscsi",
    "sunrpc",
];

/// Returns the HCA that is plugged in at boot.
#[must_use]
pub fn at_boot() -> Vec<Hardware> {
    vec![Hardware {
        name: "mlx5_0".to_owned(),
        driver: "mlx5_core",
        pci_address: "0000:c1:00.0".to_owned(),
        ports: vec![Protocol::Infiniband, Protocol::Roce],
    }]
}

/// Plays the scenario, from its start on, on a lab that was laid out with [`at_boot`].
///
/// # Errors
/// Fails if a step does not have its required result.
pub async fn play(lab: &mut Lab) -> io::Result<()> {
    lab.report()
        .step("1. The host boots with a two-port HCA, one port InfiniBand and one Ethernet.");
    lab.report().plugged();
    lab.start().await?;
    lab.wait_until("mlx5_0 to be ready", |world| {
        ready(world, "mlx5_0", &INFINIBAND)
    })
    .await?;
    lab.wait_until("rdma-hw.target", |world| world.target_active)
        .await?;

    lab.report()
        .step("2. An Omni-Path card is hotplugged: another protocol on a running host.");
    lab.report().plugged();
    let omni_path = lab.kernel().plug(Hardware {
        name: "hfi1_0".to_owned(),
        driver: "hfi1",
        pci_address: "0000:c2:00.0".to_owned(),
        ports: vec![Protocol::Opa],
    })?;
    lab.wait_until("hfi1_0 to be ready", |world| {
        ready(world, "hfi1_0", &OMNI_PATH) && has(world, "hfi1_0", "opa_vnic", ModuleState::Missing)
    })
    .await?;

    lab.report()
        .step("3. The HCA gets 16 virtual functions, each renamed at once, as udev does it.");
    for number in 0..VIRTUAL_FUNCTIONS {
        lab.report().plugged();
        // As in the kernel: every new function gets the name that the previous function has just
        // given up.
        let index = lab.kernel().plug(virtual_function(number))?;
        lab.kernel().rename(index, &virtual_function_name(number))?;
    }
    lab.wait_until("every virtual function to be ready", |world| {
        (0..VIRTUAL_FUNCTIONS).all(|number| ready(world, &virtual_function_name(number), &ROCE))
    })
    .await?;

    lab.report()
        .step("4. The Omni-Path card is pulled out while everything is in use.");
    lab.kernel().unplug(omni_path)?;
    lab.wait_until("hfi1_0 to be gone", |world| {
        world.devices.values().all(|device| device.name != "hfi1_0")
    })
    .await?;
    lab.report().end_step();
    check(lab.world()).map_err(io::Error::other)
}

/// Checks that the state is as required at the end.
///
/// # Errors
/// Returns a message with the difference.
pub fn check(world: &Observed) -> Result<(), String> {
    let mut expected = vec!["mlx5_0".to_owned()];
    expected.extend((0..VIRTUAL_FUNCTIONS).map(virtual_function_name));
    let names: Vec<String> = world.devices.values().map(|d| d.name.clone()).collect();
    if names != expected {
        return Err(format!("the devices are {names:?}, not {expected:?}"));
    }
    for device in world.devices.values() {
        if device.state != State::Ready {
            return Err(format!(
                "{} waits for {:?}",
                device.name, device.waiting_for
            ));
        }
    }
    let mut inserted = world.inserted.clone();
    inserted.sort();
    if inserted != INSERTED {
        return Err(format!(
            "the kernel was given {inserted:?}, not {INSERTED:?} once each"
        ));
    }
    if !world.target_active {
        return Err("rdma-hw.target is not active".to_owned());
    }
    Ok(())
}

fn ready(world: &Observed, name: &str, modules: &[&str]) -> bool {
    let mut devices = world.devices.values().filter(|device| device.name == name);
    devices.any(|device| device.state == State::Ready)
        && modules
            .iter()
            .all(|module| has(world, name, module, ModuleState::Live))
}

fn has(world: &Observed, name: &str, module: &str, state: ModuleState) -> bool {
    let devices = world.devices.values().filter(|device| device.name == name);
    let mut modules = devices.flat_map(|device| &device.modules);
    modules.any(|m| m.name == module && m.state == state)
}

fn virtual_function(number: u32) -> Hardware {
    Hardware {
        name: "mlx5_1".to_owned(),
        driver: "mlx5_core",
        pci_address: format!("0000:c1:{:02x}.{}", 1 + number / 8, number % 8),
        ports: vec![Protocol::Roce],
    }
}

fn virtual_function_name(number: u32) -> String {
    format!("rocep193s0v{number}")
}

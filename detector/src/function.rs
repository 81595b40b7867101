//! The functions that RDMA devices are created on, and the progress of each towards registration.
//! Pure. Uses the names of those drivers only whose RDMA devices another module creates without an
//! auxiliary device in between. Must never conclude from any other name that a function can do
//! RDMA.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::pci_id;
use interfaces::detector::{Function, FunctionState, WaitsFor};
use interfaces::drivers::SPLIT_DRIVERS;

/// PCI classes without their programming interface (`include/linux/pci_ids.h`, and the PCI Code and
/// ID Assignment Specification): InfiniBand and host fabric controllers, and InfiniBand as a serial
/// bus.
const CLASSES: [u32; 3] = [0x0207, 0x0208, 0x0c06];

/// The middle part of an auxiliary device's name, if the device is for an RDMA driver: the names of
/// the kernel's mlx5, mlx4, bnxt_en, ice, i40e, idpf, mana, ionic and similar drivers.
const PERSONALITIES: [&str; 5] = ["rdma", "rdma-rep", "ib", "roce", "iwarp"];

/// Huawei's functions with RoCE (`hns_roce_hw_v2_pci_tbl` in `drivers/infiniband/hw/hns`).
/// Functions with and without RoCE have the same driver and the class Ethernet. A client module of
/// that driver registers the RDMA devices. The ids of the functions with RoCE lead to that module.
const HUAWEI: u32 = 0x19e5;
const HUAWEI_WITH_ROCE: [u32; 7] = [0xa222, 0xa223, 0xa224, 0xa225, 0xa226, 0xa228, 0xa22f];

/// The state of a module in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// The module is absent.
    Absent,
    /// The module is being initialised or removed. No event reports the end of that.
    InMotion,
    /// The module is loaded or built in.
    Live,
}

/// A function as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysfsFunction {
    /// The name on its bus.
    pub name: String,
    /// The bus.
    pub bus: String,
    /// The PCI class, with the programming interface.
    pub class: Option<u32>,
    /// The PCI vendor and device id.
    pub id: Option<(u32, u32)>,
    /// The driver that is bound to it.
    pub driver: Option<String>,
    /// True if the module of that driver uses ib_core, and so registers RDMA devices itself.
    pub driver_registers: bool,
    /// True if the driver has created a network interface for it.
    pub has_netdev: bool,
    /// The module that creates RDMA devices for its driver, if that is a separate module, and the
    /// state of that module.
    pub protocol_module: Option<(&'static str, ModuleState)>,
    /// The address of the nearest PCI function, which may be this function.
    pub pci_address: Option<String>,
    /// The alias with which the kernel finds a driver, while none is bound.
    pub modalias: Option<String>,
}

/// Returns the module that creates RDMA devices for this driver, if no alias leads to that module.
/// Such a module is loaded by its name only.
#[must_use]
pub fn protocol_module(driver: &str) -> Option<&'static str> {
    let mut named = SPLIT_DRIVERS.iter().filter(|split| split.by_name);
    named
        .find(|split| split.driver == driver)
        .map(|split| split.module)
}

/// Returns true if the module is the protocol module of any driver.
#[must_use]
pub fn is_protocol_module(module: &str) -> bool {
    let mut named = SPLIT_DRIVERS.iter().filter(|split| split.by_name);
    named.any(|split| split.module == module)
}

impl SysfsFunction {
    /// Returns true if an RDMA device may be created on this function.
    #[must_use]
    pub fn may_register(&self) -> bool {
        self.is_personality() || self.is_capable()
    }

    fn is_personality(&self) -> bool {
        let mut middle = self.name.split('.').skip(1);
        self.bus == "auxiliary" && middle.any(|part| PERSONALITIES.contains(&part))
    }

    fn is_capable(&self) -> bool {
        let by_class = || {
            let class = self.class.map(|class| class >> 8);
            class.is_some_and(|class| CLASSES.contains(&class))
        };
        self.bus == "pci"
            && (by_class() || self.driver_registers || self.has_roce_id() || self.is_served())
    }

    fn has_roce_id(&self) -> bool {
        self.id
            .is_some_and(|(vendor, id)| vendor == HUAWEI && HUAWEI_WITH_ROCE.contains(&id))
    }

    /// Returns true if another module creates RDMA devices for its driver. That module does so for
    /// network interfaces: Chelsio's functions 0 to 3, which are bound for their virtual functions
    /// only, have none. For Huawei's functions the id decides, because not all of them have RoCE.
    fn is_served(&self) -> bool {
        let huawei = self.id.is_some_and(|(vendor, _)| vendor == HUAWEI);
        self.protocol_module.is_some() && self.has_netdev && !huawei
    }

    /// Returns the module that it needs and that is not live.
    fn lacks_module(&self) -> Option<&'static str> {
        let (module, state) = self.protocol_module?;
        (state != ModuleState::Live).then_some(module)
    }

    fn waits_for(&self) -> WaitsFor {
        match (&self.driver, self.lacks_module()) {
            (None, _) => WaitsFor::Driver,
            (Some(_), Some(_)) => WaitsFor::Module,
            (Some(_), None) => WaitsFor::Registration,
        }
    }

    /// Returns true if its record may change soon without an event.
    #[must_use]
    pub fn is_in_motion(&self) -> bool {
        matches!(self.protocol_module, Some((_, ModuleState::InMotion)))
    }
}

/// Builds the records of all functions, by their paths below sysfs. `parents` are the paths of the
/// parent objects of RDMA devices. `before` are the previous records: a record keeps its time while
/// its state stays the same. `now` is in µs of CLOCK_MONOTONIC.
#[must_use]
pub fn records(
    functions: &BTreeMap<String, SysfsFunction>,
    parents: &BTreeSet<&str>,
    before: &BTreeMap<String, Function>,
    now: i64,
) -> BTreeMap<String, Function> {
    let with_personality: BTreeSet<&str> = functions
        .iter()
        .filter(|(_, function)| function.is_personality())
        .filter_map(|(devpath, _)| parent_of(devpath))
        .collect();
    // A driver places its RDMA device below its own object, or below the parent of that object. A
    // device below a personality is also the device of the function above.
    let is_personality = |path: &str| {
        functions
            .get(path)
            .is_some_and(SysfsFunction::is_personality)
    };
    let above = parents.iter().filter(|parent| is_personality(parent));
    let above = above.filter_map(|parent| parent_of(parent));
    let registered: BTreeSet<&str> = parents.iter().copied().chain(above).collect();
    let record = |(devpath, function): (&String, &SysfsFunction)| {
        let personality = function.is_personality();
        let has_device = registered.contains(devpath.as_str())
            || (personality && parent_of(devpath).is_some_and(|above| parents.contains(above)));
        let state = if has_device {
            FunctionState::Registered
        } else if personality || with_personality.contains(devpath.as_str()) {
            FunctionState::Personality
        } else {
            FunctionState::Capable
        };
        let known = before.get(devpath).filter(|known| known.state == state);
        let record = Function {
            name: function.name.clone(),
            bus: function.bus.clone(),
            state,
            since_usec: known.map_or(now, |known| known.since_usec),
            waits_for: (!has_device).then(|| function.waits_for()),
            driver: function.driver.clone(),
            module: function
                .lacks_module()
                .filter(|_| !has_device)
                .map(str::to_owned),
            modalias: function
                .modalias
                .clone()
                .filter(|_| !has_device && function.driver.is_none()),
            pci_id: function.id.filter(|_| function.bus == "pci").map(pci_id),
            pci_address: function.pci_address.clone(),
        };
        (devpath.clone(), record)
    };
    functions.iter().map(record).collect()
}

fn parent_of(devpath: &str) -> Option<&str> {
    Some(devpath.rsplit_once('/')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: &str = "/devices/pci0000:c0/0000:c1:00.0";
    const AUXILIARY: &str = "/devices/pci0000:c0/0000:c1:00.0/mlx5_core.rdma.0";

    fn pci(class: u32, driver: Option<&str>) -> SysfsFunction {
        SysfsFunction {
            name: "0000:c1:00.0".into(),
            bus: "pci".into(),
            class: Some(class),
            id: None,
            driver: driver.map(str::to_owned),
            driver_registers: false,
            has_netdev: true,
            protocol_module: driver
                .and_then(protocol_module)
                .map(|module| (module, ModuleState::Absent)),
            pci_address: Some("0000:c1:00.0".into()),
            modalias: None,
        }
    }

    fn auxiliary(name: &str, driver: Option<&str>) -> SysfsFunction {
        SysfsFunction {
            name: name.into(),
            bus: "auxiliary".into(),
            class: None,
            ..pci(0, driver)
        }
    }

    fn judged(
        functions: &[(&str, SysfsFunction)],
        parents: &[&str],
    ) -> Vec<(FunctionState, Option<WaitsFor>)> {
        let functions = functions
            .iter()
            .map(|(path, f)| ((*path).to_owned(), f.clone()))
            .collect();
        let parents = parents.iter().copied().collect();
        let records = records(&functions, &parents, &BTreeMap::new(), 1);
        records.values().map(|f| (f.state, f.waits_for)).collect()
    }

    #[test]
    fn the_class_driver_id_or_auxiliary_name_of_a_function_makes_it_capable() {
        assert!(pci(0x02_0700, None).may_register());
        assert!(pci(0x02_0800, None).may_register());
        assert!(pci(0x02_0000, Some("cxgb4")).may_register());
        assert!(!pci(0x02_0000, Some("mlx5_core")).may_register());
        for (id, capable) in [
            (0xa221, false),
            (0xa222, true),
            (0xa22e, false),
            (0xa22f, true),
        ] {
            let hns3 = SysfsFunction {
                id: Some((HUAWEI, id)),
                ..pci(0x02_0000, Some("hns3"))
            };
            assert_eq!(hns3.may_register(), capable, "{id:x}");
        }
        let for_virtual_functions_only = SysfsFunction {
            has_netdev: false,
            ..pci(0x02_0000, Some("cxgb4"))
        };
        assert!(!for_virtual_functions_only.may_register());
        assert!(
            SysfsFunction {
                driver_registers: true,
                ..pci(0x02_0000, Some("efa"))
            }
            .may_register()
        );
        for name in [
            "mlx5_core.rdma.0",
            "mlx5_core.rdma-rep.3",
            "ice.roce.1",
            "i40e.iwarp.0",
            "idpf.8086.rdma.core.0",
        ] {
            assert!(auxiliary(name, None).may_register(), "{name}");
        }
        for name in [
            "mlx5_core.eth.0",
            "mlx5_core.sf.4",
            "mlx5_core.multiport.0",
            "rdma",
        ] {
            assert!(!auxiliary(name, None).may_register(), "{name}");
        }
    }

    #[test]
    fn a_function_shows_whether_it_waits_for_a_driver_a_module_or_a_registration() {
        use FunctionState::{Capable, Personality, Registered};
        let none = pci(0x02_0700, None);
        assert_eq!(
            judged(&[(NIC, none)], &[]),
            [(Capable, Some(WaitsFor::Driver))]
        );
        let by_name = pci(0x02_0000, Some("cxgb4"));
        assert_eq!(
            judged(&[(NIC, by_name.clone())], &[]),
            [(Capable, Some(WaitsFor::Module))]
        );
        assert_eq!(judged(&[(NIC, by_name)], &[NIC]), [(Registered, None)]);
        let nic = pci(0x02_0700, Some("mlx5_core"));
        let unbound = auxiliary("mlx5_core.rdma.0", None);
        assert_eq!(
            judged(&[(NIC, nic.clone()), (AUXILIARY, unbound)], &[]),
            [
                (Personality, Some(WaitsFor::Registration)),
                (Personality, Some(WaitsFor::Driver))
            ]
        );
        let bound = auxiliary("mlx5_core.rdma.0", Some("mlx5_ib.rdma"));
        let both = [(NIC, nic), (AUXILIARY, bound)];
        assert_eq!(
            judged(&both, &[])[1],
            (Personality, Some(WaitsFor::Registration))
        );
        // Below the PCI function, like mlx5_ib, or below the auxiliary device itself.
        assert_eq!(judged(&both, &[NIC]), [(Registered, None); 2]);
        assert_eq!(judged(&both, &[AUXILIARY]), [(Registered, None); 2]);
    }

    #[test]
    fn the_modalias_is_published_while_no_driver_is_bound() {
        let told = |driver, parents: &[&str]| {
            let function = SysfsFunction {
                modalias: Some("pci:v000015B3d00001017".to_owned()),
                ..pci(0x02_0700, driver)
            };
            let functions = BTreeMap::from([(NIC.to_owned(), function)]);
            let parents = parents.iter().copied().collect();
            let records = records(&functions, &parents, &BTreeMap::new(), 1);
            records[NIC].modalias.clone()
        };
        assert_eq!(told(None, &[]).as_deref(), Some("pci:v000015B3d00001017"));
        assert_eq!(told(Some("mlx5_core"), &[]), None);
        assert_eq!(told(None, &[NIC]), None);
    }

    #[test]
    fn a_function_waits_for_its_protocol_module_until_the_module_is_live() {
        for (state, waits_for) in [
            (ModuleState::Absent, WaitsFor::Module),
            (ModuleState::InMotion, WaitsFor::Module),
            (ModuleState::Live, WaitsFor::Registration),
        ] {
            let function = SysfsFunction {
                protocol_module: Some(("iw_cxgb4", state)),
                ..pci(0x02_0000, Some("cxgb4"))
            };
            assert_eq!(function.is_in_motion(), state == ModuleState::InMotion);
            let judged = judged(&[(NIC, function)], &[]);
            assert_eq!(judged, [(FunctionState::Capable, Some(waits_for))]);
        }
    }

    #[test]
    fn since_usec_changes_only_with_the_state_of_the_function() {
        let functions = BTreeMap::from([(NIC.to_owned(), pci(0x02_0700, None))]);
        let bound = BTreeMap::from([(NIC.to_owned(), pci(0x02_0700, Some("mlx5_core")))]);
        let first = records(&functions, &BTreeSet::new(), &BTreeMap::new(), 5);
        let second = records(&bound, &BTreeSet::new(), &first, 9);
        assert_eq!(second[NIC].since_usec, 5);
        let third = records(&bound, &BTreeSet::from([NIC]), &second, 12);
        assert_eq!(third[NIC].since_usec, 12);
    }
}

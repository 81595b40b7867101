//! The RDMA hardware of this host, as the detector knows it, and the modules behind it. Pure. Must
//! never name a module that neither the kernel nor the table of split drivers names.

use std::collections::BTreeSet;

use interfaces::detector::{Device, Function};
use interfaces::drivers;

/// The RDMA hardware of this host.
#[derive(Clone, Debug, Default)]
pub struct Hardware {
    /// The devices.
    pub devices: Vec<Device>,
    /// The functions.
    pub functions: Vec<Function>,
}

impl Hardware {
    /// Returns the modules of the drivers: that of the function, and that of its RDMA device if
    /// another module creates it. For a driver whose RDMA module was renamed, returns both names; a
    /// kernel has one of them.
    #[must_use]
    pub fn modules(&self) -> BTreeSet<String> {
        let mut modules = BTreeSet::new();
        for device in &self.devices {
            modules.extend(device.module.clone());
            modules.extend(device.driver.as_deref().into_iter().flat_map(of_driver));
        }
        for function in &self.functions {
            let driver = function.driver.as_deref();
            match function.bus.as_str() {
                "auxiliary" => {
                    let module = driver.and_then(drivers::module_of_auxiliary_driver);
                    modules.extend(module.map(str::to_owned));
                }
                _ => modules.extend(driver.into_iter().flat_map(of_driver)),
            }
            modules.extend(function.module.clone());
        }
        modules
    }
}

fn of_driver(driver: &str) -> impl Iterator<Item = String> {
    drivers::rdma_modules(driver).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use interfaces::detector::FunctionState;

    use super::*;
    use crate::machine::tests::device;

    /// cases.md K8: the module of the RDMA driver itself.
    #[test]
    fn the_modules_of_a_split_driver_include_the_module_that_makes_its_rdma_devices() {
        for (driver, module, expected) in [
            ("mlx5_core", "mlx5_core", &["mlx5_core", "mlx5_ib"][..]),
            ("mlx4_core", "mlx4_core", &["mlx4_core", "mlx4_ib"]),
            ("bnxt_en", "bnxt_en", &["bnxt_en", "bnxt_re"]),
            ("ice", "ice", &["ice", "irdma"]),
            ("i40e", "i40e", &["i40e", "i40iw", "irdma"]),
            ("mana", "mana", &["mana", "mana_ib"]),
            ("ionic", "ionic", &["ionic", "ionic_rdma"]),
            ("cxgb4", "cxgb4", &["cxgb4", "iw_cxgb4"]),
            ("be2net", "be2net", &["be2net", "ocrdma"]),
            ("qede", "qede", &["qede", "qedr"]),
            ("hns3", "hns3", &["hns3", "hns_roce_hw_v2"]),
            ("hfi1", "hfi1", &["hfi1"]),
        ] {
            let mut record = device(1, "a", &[]);
            record.driver = Some(driver.to_owned());
            record.module = Some(module.to_owned());
            let hardware = Hardware {
                devices: vec![record],
                functions: Vec::new(),
            };
            let expected: BTreeSet<String> = expected.iter().map(|m| (*m).to_owned()).collect();
            assert_eq!(hardware.modules(), expected);
        }
    }

    /// A driver that no table has: the kernel names the driver of an auxiliary device after its
    /// module.
    #[test]
    fn the_driver_of_an_auxiliary_device_names_its_module() {
        let personality = Function {
            name: "vendor_core.rdma.0".to_owned(),
            bus: "auxiliary".to_owned(),
            state: FunctionState::Registered,
            since_usec: 0,
            waits_for: None,
            driver: Some("vendor_ib.rdma".to_owned()),
            module: None,
            modalias: None,
            pci_id: None,
            pci_address: Some("0000:c1:00.0".to_owned()),
        };
        let hardware = Hardware {
            devices: Vec::new(),
            functions: vec![personality],
        };
        assert_eq!(hardware.modules(), BTreeSet::from(["vendor_ib".to_owned()]));
    }
}

//! The drivers whose RDMA devices another kernel module makes (`drivers/infiniband/hw` in the
//! kernel). Responsible for their names alone. Pure. Must never be used to decide if a function
//! supports RDMA: the name of its driver does not show that.

/// A driver of functions, and the module that makes RDMA devices from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitDriver {
    /// The driver that is bound to the function.
    pub driver: &'static str,
    /// The module that makes its RDMA devices.
    pub module: &'static str,
    /// True if no alias leads to the module, so that it must be loaded by name.
    pub by_name: bool,
}

/// All split drivers. A driver whose module differs between kernel versions is listed with both
/// modules.
pub const SPLIT_DRIVERS: [SplitDriver; 13] = [
    by_alias("mlx5_core", "mlx5_ib"),
    by_alias("mlx4_core", "mlx4_ib"),
    by_alias("bnxt_en", "bnxt_re"),
    by_alias("ice", "irdma"),
    by_alias("i40e", "irdma"),
    by_alias("i40e", "i40iw"),
    by_alias("idpf", "irdma"),
    by_alias("mana", "mana_ib"),
    by_alias("ionic", "ionic_rdma"),
    by_name("cxgb4", "iw_cxgb4"),
    by_name("be2net", "ocrdma"),
    by_name("qede", "qedr"),
    by_name("hns3", "hns_roce_hw_v2"),
];

const fn by_alias(driver: &'static str, module: &'static str) -> SplitDriver {
    SplitDriver {
        driver,
        module,
        by_name: false,
    }
}

const fn by_name(driver: &'static str, module: &'static str) -> SplitDriver {
    SplitDriver {
        driver,
        module,
        by_name: true,
    }
}

/// Returns the modules that may make the RDMA devices of this driver. A kernel has at most one of
/// them.
pub fn rdma_modules(driver: &str) -> impl Iterator<Item = &'static str> {
    let split = SPLIT_DRIVERS.iter();
    split
        .filter(move |split| split.driver == driver)
        .map(|split| split.module)
}

/// Returns the module of an auxiliary device's driver. The kernel composes the name of such a
/// driver from its module, a dot, and a name (`__auxiliary_driver_register` in
/// `drivers/base/auxiliary.c`).
#[must_use]
pub fn module_of_auxiliary_driver(driver: &str) -> Option<&str> {
    let (module, _) = driver.split_once('.')?;
    (!module.is_empty()).then_some(module)
}

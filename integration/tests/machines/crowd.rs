//! A host with many identical RDMA devices. Must never hold more than the devices need.

use std::sync::{Arc, Mutex};

use super::nldev::Table;
use super::tree::Tree;

/// Creates a host with `count` software devices.
pub fn of_software(count: u32) -> (Tree, Arc<Mutex<Table>>) {
    let tree = Tree::new();
    let mut table = Table::new();
    for index in 0..count {
        let path = format!("devices/virtual/infiniband/rxe{index}");
        tree.file(&format!("{path}/ports/1/link_layer"), "Ethernet");
        tree.link_to(&format!("class/infiniband/rxe{index}"), &path);
        let name = format!("rxe{index}");
        let fixed = "ports=1 node_guid=1 sys_image_guid=1 node_type=1 protocol=roce";
        table.line(&format!("device index={index} name={name} {fixed}"));
        table.line(&format!("port device={index} number=1 state=4"));
    }
    (tree, Arc::new(Mutex::new(table)))
}

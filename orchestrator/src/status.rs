//! The table that `rdma-hotplug status` prints. Pure: devices in, text out. Must never print it.

use interfaces::orchestrator::{DescribeReply, Device, ModuleState, State};

/// The column heads.
const HEADS: [&str; 5] = ["DEVICE", "PROTOCOL", "DRIVER", "STATE", "MODULES"];

/// The table, and below it a line for each thing that is missing or wrong.
#[must_use]
pub fn render(devices: &[Device], whole: &DescribeReply) -> String {
    let rows: Vec<[String; 5]> = devices.iter().map(row).collect();
    let mut text = String::new();
    if rows.is_empty() {
        text.push_str("no RDMA devices\n");
    } else {
        let heads = HEADS.map(str::to_owned);
        let width = |column: usize| {
            let cells = rows
                .iter()
                .chain([&heads])
                .filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
        for row in [&heads].into_iter().chain(&rows) {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells.map(|(c, w)| format!("{c:<w$}", w = *w)).collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
    }
    for device in devices {
        for thing in &device.waiting_for {
            text.push_str(&format!("{} waits for {thing}\n", device.name));
        }
    }
    if !whole.detector_connected {
        text.push_str("the detector cannot be reached: this is what was known before\n");
    }
    if let Some(reason) = &whole.paused {
        text.push_str(&format!(
            "nothing is loaded or started at present: {reason}\n"
        ));
    }
    for error in &whole.rule_errors {
        text.push_str(&format!("a rules file is not in use: {error}\n"));
    }
    text
}

fn row(device: &Device) -> [String; 5] {
    let live = |m: &&interfaces::orchestrator::Module| m.state == ModuleState::Live;
    let shipped = |m: &&interfaces::orchestrator::Module| m.state != ModuleState::Missing;
    [
        device.name.clone(),
        device.protocols.join(","),
        device.driver.clone().unwrap_or_else(|| "-".to_owned()),
        match device.state {
            State::Registered => "registered",
            State::Ready => "ready",
        }
        .to_owned(),
        format!(
            "{} of {} live",
            device.modules.iter().filter(live).count(),
            device.modules.iter().filter(shipped).count()
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use interfaces::orchestrator::Module;

    fn whole() -> DescribeReply {
        DescribeReply {
            detector_connected: true,
            hardware_announced: true,
            paused: None,
            rule_files: Vec::new(),
            rule_errors: Vec::new(),
        }
    }

    fn module(name: &str, state: ModuleState) -> Module {
        Module {
            name: name.to_owned(),
            state,
            rule: "50-rdma-core.toml".to_owned(),
            message: None,
        }
    }

    #[test]
    fn devices_stand_in_a_table_and_what_is_missing_below_it() {
        let devices = [
            Device {
                index: 1,
                name: "mlx5_0".to_owned(),
                state: State::Ready,
                protocols: vec!["infiniband".to_owned(), "roce".to_owned()],
                driver: Some("mlx5_core".to_owned()),
                pci_address: None,
                modules: vec![
                    module("ib_uverbs", ModuleState::Live),
                    module("opa_vnic", ModuleState::Missing),
                ],
                waiting_for: Vec::new(),
            },
            Device {
                index: 2,
                name: "rxe0".to_owned(),
                state: State::Registered,
                protocols: vec!["roce".to_owned()],
                driver: None,
                pci_address: None,
                modules: vec![module("ib_uverbs", ModuleState::Pending)],
                waiting_for: vec!["module ib_uverbs to be loaded".to_owned()],
            },
        ];
        let expected = "\
DEVICE  PROTOCOL         DRIVER     STATE       MODULES
mlx5_0  infiniband,roce  mlx5_core  ready       1 of 1 live
rxe0    roce             -          registered  0 of 1 live
rxe0 waits for module ib_uverbs to be loaded
";
        assert_eq!(render(&devices, &whole()), expected);
    }

    #[test]
    fn a_machine_without_rdma_says_so() {
        assert_eq!(render(&[], &whole()), "no RDMA devices\n");
    }

    #[test]
    fn a_lost_detector_and_bad_rules_are_said() {
        let whole = DescribeReply {
            detector_connected: false,
            rule_errors: vec!["10-x.toml: line 1: oh".to_owned()],
            ..whole()
        };
        let text = render(&[], &whole);
        assert!(text.contains("cannot be reached"));
        assert!(text.contains("10-x.toml"));
    }
}

//! The tests of the shipped rules: they equal rdma-core's lists of modules and daemons, row by row.

use super::*;
use crate::rules::tests::SHIPPED;

const EVERY: [&str; 5] = ["ib_iser", "ib_uverbs", "rdma_ucm", "xprtrdma", "svcrdma"];

/// Returns the modules and flags for a device with these ports.
fn leads_to(protocols: &[Protocol]) -> (Vec<String>, Vec<String>) {
    let mut script = Script::started(SHIPPED);
    let _ = script.there(whole(1, "d0", protocols));
    let device = script.device(1);
    let modules: Vec<String> = device.modules.iter().map(|m| m.name.clone()).collect();
    let answers = modules.iter().map(|module| answer(module, Outcome::Loaded));
    let told = script.all(answers.collect::<Vec<_>>());
    let flags = told.iter().filter_map(|words| {
        let flag = words.strip_prefix("flag ")?.strip_suffix(" true")?;
        Some(flag.to_owned())
    });
    (modules, flags.collect())
}

#[test]
fn each_protocol_loads_the_modules_and_sets_the_flags_of_its_row() {
    for (protocol, more, flag) in [
        (
            Protocol::Infiniband,
            &["ib_ipoib", "ib_umad"][..],
            Some("infiniband"),
        ),
        (
            Protocol::Opa,
            &["ib_ipoib", "ib_umad", "opa_vnic"],
            Some("opa"),
        ),
        (Protocol::Iwarp, &["iw_cm"], Some("iwarp")),
        (Protocol::Roce, &[], Some("roce")),
        (Protocol::Usnic, &[], Some("usnic")),
        (Protocol::Unknown, &[], None),
    ] {
        let (modules, flags) = leads_to(&[protocol]);
        assert_eq!(modules, [&EVERY[..], more].concat(), "{protocol:?}");
        let mut expected = vec!["hardware"];
        expected.extend(flag);
        assert_eq!(flags, expected, "{protocol:?}");
    }
}

#[test]
fn a_device_with_several_protocols_gets_the_modules_and_flags_of_each_row_once() {
    let (modules, flags) = leads_to(&[Protocol::Roce, Protocol::Opa, Protocol::Infiniband]);
    assert_eq!(
        modules,
        [&EVERY[..], &["ib_ipoib", "ib_umad", "opa_vnic"]].concat()
    );
    assert_eq!(flags, ["hardware", "infiniband", "roce", "opa"]);
}

#[test]
fn drivers_without_an_alias_are_loaded_for_their_functions() {
    for (driver, module) in [
        ("cxgb4", "iw_cxgb4"),
        ("be2net", "ocrdma"),
        ("qede", "qedr"),
    ] {
        let mut script = Script::started(SHIPPED);
        let told = script.tell(function(
            "0000:c1:00.0",
            FunctionState::Capable,
            Some(WaitsFor::Module),
            Some(driver),
        ));
        assert_eq!(
            decisions(&told),
            [format!("load {module} for 0000:c1:00.0")]
        );
    }
}

//! Plans over the index files of a Debian kernel.

use super::*;

fn indexes() -> Indexes {
    let parse = |bytes: &[u8]| Index::parse(bytes.to_vec()).unwrap();
    Indexes {
        dependencies: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.dep.bin"
        )),
        aliases: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.alias.bin"
        )),
        builtin: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.builtin.bin"
        )),
    }
}

fn steps(name: &str) -> Vec<String> {
    match indexes()
        .look_up(&ModuleName::parse(name).unwrap())
        .unwrap()
    {
        Lookup::Modules(plans) => plans
            .into_iter()
            .flat_map(|plan| plan.steps)
            .map(|step| step.module.to_string())
            .collect(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn dependencies_come_before_what_needs_them() {
    assert_eq!(steps("ib_core"), ["ib_core"]);
    assert_eq!(steps("ib_uverbs"), ["ib_core", "ib_uverbs"]);
    let rdma_ucm = steps("rdma_ucm");
    let at = |module: &str| rdma_ucm.iter().position(|m| m == module).unwrap();
    assert!(at("ib_core") < at("ib_cm"));
    assert!(at("ib_cm") < at("rdma_cm"));
    assert!(at("iw_cm") < at("rdma_cm"));
    assert!(at("rdma_cm") < at("rdma_ucm"));
}

#[test]
fn an_alias_stands_for_its_module() {
    assert_eq!(steps("xprtrdma"), steps("rpcrdma"));
    assert_eq!(steps("svcrdma"), steps("rpcrdma"));
}

#[test]
fn what_is_built_in_and_what_is_missing_are_told_apart() {
    let look_up = |name| indexes().look_up(&ModuleName::parse(name).unwrap());
    assert_eq!(look_up("opa_vnic").unwrap(), Lookup::Missing);
    assert_eq!(look_up("virtio_pci").unwrap(), Lookup::Builtin);
}

#[test]
fn a_path_outside_the_tree_is_refused() {
    for path in ["/etc/passwd", "../x.ko", "kernel/../../x.ko"] {
        assert_eq!(step(path), Err(PlanError::Outside(path.to_owned())));
    }
}

//! The tests of rules files: the devices that they select, and the errors of invalid files.

use interfaces::detector::{Kind, Protocol};

use super::*;
use crate::machine::tests::{device, whole};

pub const SHIPPED: &str =
    include_str!("../../../deploy/root/usr/lib/rdma-hotplug/rules.d/50-rdma-core.toml");

fn source(path: &str, text: &str) -> Source {
    Source {
        path: PathBuf::from(path),
        text: Ok(text.to_owned()),
    }
}

fn read(files: &[(&str, &str)]) -> Rules {
    let sources = Sources {
        rules: files
            .iter()
            .map(|(path, text)| source(path, text))
            .collect(),
        lists: Vec::new(),
    };
    Rules::read(&sources, &Rules::default())
}

/// Returns the shipped rules, with these lists of rdma-core.
pub fn shipped(lists: &[(&str, &str)]) -> Rules {
    let sources = Sources {
        rules: vec![source("50-rdma-core.toml", SHIPPED)],
        lists: lists
            .iter()
            .map(|(path, text)| source(path, text))
            .collect(),
    };
    Rules::read(&sources, &Rules::default())
}

fn modules(rules: &Rules, device: &Device) -> Vec<String> {
    let wanted = rules.wanted(device).modules.into_iter();
    wanted.map(|module| module.name.to_string()).collect()
}

/// Returns the only error of a file.
fn error(text: &str) -> String {
    let rules = read(&[
        ("10-x.toml", text),
        ("20-good.toml", "[[rule]]\nmodules = [\"rds_rdma\"]\n"),
    ]);
    assert_eq!(rules.errors().len(), 1, "{:?}", rules.errors());
    // The other file stays in use.
    assert_eq!(
        modules(&rules, &device(1, "a", &[Protocol::Roce])),
        ["rds_rdma"]
    );
    rules.errors()[0].to_string()
}

#[test]
fn a_typo_is_refused_with_its_line_and_a_suggestion() {
    for (text, expected) in [
        (
            "\n[[rule]]\nmodulse = [\"ib_core\"]\n",
            "10-x.toml:3: unknown key 'modulse'",
        ),
        (
            "[[rule]]\nprotocol = [\"infinband\"]\nmodules = [\"ib_core\"]\n",
            "10-x.toml:2: unknown protocol \"infinband\"",
        ),
        (
            "[[rulez]]\nmodules = [\"ib_core\"]\n",
            "10-x.toml:1: unknown key 'rulez'",
        ),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}");
        let meant = ["modules", "infiniband", "rule"];
        assert!(
            meant
                .iter()
                .any(|m| error.ends_with(&format!("did you mean {m}?"))),
            "{error}"
        );
    }
}

const VERBS: &str = "[[rule]]\nmodules = [\"ib_uverbs\"]\n";
const RDS: &str = "[[rule]]\nmodules = [\"rds_rdma\"]\n";
const INVALID: &str = "[[rule]]\nmodulse = []\n";

fn of_roce(rules: &Rules) -> Vec<String> {
    modules(rules, &device(1, "a", &[Protocol::Roce]))
}

/// cases.md K3: a copy with a typo in /etc disabled the shipped file.
#[test]
fn an_invalid_file_does_not_hide_another_file_of_the_same_name() {
    let files = [("/etc/50-a.toml", INVALID), ("/usr/50-a.toml", VERBS)];
    let rules = read(&files);
    assert_eq!(of_roce(&rules), ["ib_uverbs"]);
    let error = rules.errors()[0].to_string();
    assert!(
        error.starts_with("/etc/50-a.toml:2: unknown key 'modulse'"),
        "{error}"
    );
    assert!(
        error.ends_with(" (/usr/50-a.toml is in use instead)"),
        "{error}"
    );
    assert!(
        rules
            .summary()
            .starts_with("rules files in use: 1; one refused: /etc/50-a.toml:2:")
    );
    // A usable file hides the others, which are not even parsed.
    let rules = read(&[("/etc/50-a.toml", RDS), ("/usr/50-a.toml", INVALID)]);
    assert_eq!(of_roce(&rules), ["rds_rdma"]);
    assert!(rules.errors().is_empty());
    assert_eq!(rules.summary(), "rules files in use: 1");
}

#[test]
fn the_last_good_version_of_an_invalid_file_takes_precedence_over_hidden_files() {
    let files = |text: &str| Sources {
        rules: vec![
            source("/etc/50-a.toml", text),
            source("/usr/50-a.toml", VERBS),
        ],
        lists: Vec::new(),
    };
    let before = Rules::read(&files(RDS), &Rules::default());
    let rules = Rules::read(&files(INVALID), &before);
    assert_eq!(of_roce(&rules), ["rds_rdma"]);
    let error = rules.errors()[0].to_string();
    assert!(
        error.ends_with(" (its last good version stays in use)"),
        "{error}"
    );
}

/// cases.md K4.
#[test]
fn a_directory_that_cannot_be_listed_keeps_its_files_in_use_and_others_still_apply() {
    let listed = Sources {
        rules: vec![
            source("/etc/rules.d/50-a.toml", RDS),
            source("/usr/rules.d/50-a.toml", INVALID),
            source("/usr/rules.d/60-b.toml", VERBS),
        ],
        lists: vec![source("/etc/rdma/modules/x.conf", "ib_umad\n")],
    };
    let unlisted = |path: &str| Source {
        path: PathBuf::from(path),
        text: Err("Permission denied".to_owned()),
    };
    let sources = Sources {
        rules: vec![
            unlisted("/etc/rules.d"),
            source("/usr/rules.d/50-a.toml", INVALID),
            source("/usr/rules.d/60-b.toml", VERBS),
        ],
        lists: vec![unlisted("/etc/rdma/modules")],
    };
    let before = Rules::read(&listed, &Rules::default());
    let rules = Rules::read(&sources, &before);
    assert_eq!(of_roce(&rules), ["rds_rdma", "ib_uverbs"]);
    assert_eq!(rules.in_use(), &listed_in_use());
    assert_eq!(rules.errors().len(), 2, "{:?}", rules.errors());
    let again = Rules::read(&sources, &rules);
    assert_eq!(again.in_use(), rules.in_use());
    // At the start there are no earlier versions: only the readable files are in use.
    let rules = Rules::read(&sources, &Rules::default());
    assert_eq!(of_roce(&rules), ["ib_uverbs"]);
    let errors: Vec<String> = rules.errors().iter().map(ToString::to_string).collect();
    assert_eq!(errors[0], "/etc/rdma/modules: Permission denied");
    assert_eq!(errors[1], "/etc/rules.d: Permission denied");
    assert!(
        errors[2].starts_with("/usr/rules.d/50-a.toml:2:"),
        "{errors:?}"
    );
}

/// Returns the usable sources of the test above.
fn listed_in_use() -> Sources {
    Sources {
        rules: vec![
            source("/etc/rules.d/50-a.toml", RDS),
            source("/usr/rules.d/60-b.toml", VERBS),
        ],
        lists: vec![source("/etc/rdma/modules/x.conf", "ib_umad\n")],
    }
}

#[test]
fn an_invalid_rule_is_refused_with_its_line_and_the_reason() {
    for (text, expected) in [
        (
            "[[rule]]\nprotocol = []\nmodules = [\"ib_core\"]\n",
            ":2: protocol is empty: the rule can never select anything",
        ),
        (
            "[[rule]]\nname = [\"a/b\"]\nmodules = [\"ib_core\"]\n",
            ":2: name \"a/b\" can never match: no device can have such a name",
        ),
        (
            "[[rule]]\npci_id = [\"15B3:101D\"]\nmodules = [\"ib_core\"]\n",
            ":2: pci_id \"15B3:101D\" can never match: it does not have the form 15b3:101d or 15b3:*, in lower case",
        ),
        (
            "[[rule]]\npci_address = [\"c1:00.0\"]\nmodules = [\"ib_core\"]\n",
            ":2: pci_address \"c1:00.0\" can never match: it does not have the form 0000:c1:00.0 or 0000:c1:*, in lower case",
        ),
        (
            "[[rule]]\nguid = [\"0x2c903\"]\nmodules = [\"ib_core\"]\n",
            ":2: guid \"0x2c903\" can never match: it does not have the form 0002:c903:0012:3456, in lower case",
        ),
        (
            "[[rule]]\n\nroles = [\n\"storage\",\n\"a-b\"]\n",
            ":5: \"a-b\" is not a role: 1 to 64 of A-Z, a-z, 0-9 and '_'",
        ),
        (
            "[[rule]]\nroles = [\"../a.service\"]\n",
            ":2: \"../a.service\" is not a role: 1 to 64 of A-Z, a-z, 0-9 and '_'",
        ),
        (
            "[[rule]]\nunits = [\"a.service\"]\n",
            ":2: unknown key 'units'; did you mean roles, with the unit attached to rdma-role@ROLE.target by WantedBy=?",
        ),
        (
            "[[rule]]\nmodules = [\"/tmp/x.ko\"]\n",
            ":2: \"/tmp/x.ko\" is not a module name: only A-Z, a-z, 0-9, '_' and '-' are allowed",
        ),
        (
            "[[rule]]\nlist = \"../passwd\"\n",
            ":2: \"../passwd\" is not a list: write the file's name without .conf",
        ),
        (
            "[[rule]]\nprotocol = [\"roce\"]\n",
            ":1: it requests nothing: no modules, list, roles or manage",
        ),
        (
            "[[rule]]\nmanage = false\nmodules = [\"ib_core\"]\n",
            ":1: a rule with manage = false must not request anything",
        ),
        (
            "[[function]]\nmodules = [\"a\"]\n",
            ":1: it is for every function: name a driver, pci_id, pci_address or name",
        ),
    ] {
        assert_eq!(error(text), format!("10-x.toml{expected}"));
    }
    for text in [
        "[[rule]\n",
        "rule = 3\n",
        "\u{0}",
        "[[rule]]\nmodules = \"ib_core\"\n",
    ] {
        assert!(error(text).starts_with("10-x.toml:"), "{text:?}");
    }
}

/// cases.md section 9: selectors that can never match were accepted, which fails open for `manage =
/// false`, and the messages of refused ones did not help.
#[test]
fn a_selector_that_can_never_match_is_refused_with_the_reason() {
    let rule = |keys: &str| format!("[[rule]]\n{keys}\nmanage = false\n");
    for (keys, expected) in [
        (
            "driver = [\"a|b\"]",
            "driver \"a|b\" can never match: '|' separates nothing here: write each name as a string of its own",
        ),
        (
            "driver = [\"mlx5_ib\"]",
            "driver \"mlx5_ib\" can never match: it is the module that makes RDMA devices for the driver mlx5_core",
        ),
        (
            "not.driver = [\"irdma\"]",
            "driver \"irdma\" can never match: it is the module that makes RDMA devices for the driver ice or i40e or idpf",
        ),
        (
            "pci_address = [\"ffffffffffff\"]",
            "pci_address \"ffffffffffff\" can never match: it does not have the form 0000:c1:00.0 or 0000:c1:*, in lower case",
        ),
        (
            "pci_address = [\"0000:c1:20.0\"]",
            "pci_address \"0000:c1:20.0\" can never match: it does not have the form 0000:c1:00.0 or 0000:c1:*, in lower case",
        ),
        (
            "physical_function = [\"0000:c1:00.8\"]",
            "physical_function \"0000:c1:00.8\" can never match: it does not have the form 0000:c1:00.0 or 0000:c1:*, in lower case",
        ),
        (
            "pci_id = [\"15b3*101d:\"]",
            "pci_id \"15b3*101d:\" can never match: it does not have the form 15b3:101d or 15b3:*, in lower case",
        ),
        (
            "guid = [\"*g*\"]",
            "guid \"*g*\" can never match: it does not have the form 0002:c903:0012:3456, in lower case",
        ),
        (
            "netdev = [\"a-name-of-sixteen\"]",
            "netdev \"a-name-of-sixteen\" can never match: no network interface can have such a name",
        ),
        (
            "name = [\"mlx5_[0-3\"]",
            "name \"mlx5_[0-3\" can never match: a '[' without its ']'",
        ),
        (
            "kind = [\"vf\"]",
            "unknown kind \"vf\"; known are function, virtual_function, subfunction, representor, smi, software",
        ),
        (
            "function_number = [\"7-0\"]",
            "function_number \"7-0\" can never match: it does not have the form 3 or \"0-7\"",
        ),
        (
            "function_number = [-1]",
            "function_number \"-1\" can never match: it does not have the form 3 or \"0-7\"",
        ),
        (
            "driver = \"mlx5_core\"",
            "driver takes an array of strings; write driver = [\"mlx5_core\"]",
        ),
        (
            "virtual_function = \"yes\"",
            "virtual_function takes true or false, not a string",
        ),
        (
            "not = [\"mlx5_0\"]",
            "'not' is a table, not an array; write not.name = [\"...\"]",
        ),
        (
            "not.modules = [\"a\"]",
            "unknown key 'modules'; known here: protocol, kind, driver, pci_id, pci_address, physical_function, function_number, guid, name, netdev, virtual_function",
        ),
    ] {
        assert_eq!(error(&rule(keys)), format!("10-x.toml:2: {expected}"));
    }
    for (keys, expected) in [
        (
            "name = [\"mlx5_0\"]\nnot.name = [\"mlx5_*\"]",
            "not.name excludes name",
        ),
        (
            "protocol = [\"roce\"]\nnot.protocol = [\"roce\", \"opa\"]",
            "not.protocol excludes protocol",
        ),
        (
            "kind = [\"smi\"]\nnot.kind = [\"smi\"]",
            "not.kind excludes kind",
        ),
        (
            "kind = [\"software\"]\nvirtual_function = true",
            "virtual_function excludes kind",
        ),
        (
            "virtual_function = true\nnot.virtual_function = true",
            "not.virtual_function excludes virtual_function",
        ),
    ] {
        let expected = format!("10-x.toml:1: the rule can never select anything: {expected}");
        assert_eq!(error(&rule(keys)), expected);
    }
    for (text, expected) in [
        (
            "[rule]\nmodules = [\"a\"]\n",
            "1: [rule] is a single table; write [[rule]]",
        ),
        (
            "\n[function]\nname = [\"a\"]\n",
            "2: [function] is a single table; write [[function]]",
        ),
        (
            "rule = 3\n",
            "1: 'rule' is not a key with a value; write [[rule]]",
        ),
        (
            "[[function]]\ndriver = [\"mlx5_ib\"]\nmanage = false\n",
            "2: driver \"mlx5_ib\" can never match: it is a module; its drivers are named mlx5_ib.*",
        ),
        (
            "[[function]]\nnot.name = [\"a\"]\nmodules = [\"a\"]\n",
            "1: it is for every function: name a driver, pci_id, pci_address or name",
        ),
    ] {
        assert_eq!(error(text), format!("10-x.toml:{expected}"));
    }
}

#[test]
fn a_file_that_becomes_invalid_keeps_its_last_good_version_and_the_status_shows_it() {
    let good = read(&[("10-x.toml", "[[rule]]\nmodules = [\"ib_core\"]\n")]);
    let bad = Sources {
        rules: vec![source("10-x.toml", "[[rule]]\nmodulse = 1\n")],
        lists: Vec::new(),
    };
    let rules = Rules::read(&bad, &good);
    assert_eq!(modules(&rules, &device(1, "a", &[])), ["ib_core"]);
    let error = rules.errors()[0].to_string();
    assert!(
        error.ends_with("(its last good version stays in use)"),
        "{error}"
    );
    // The version stays in use after another read, and is dropped when the file is removed.
    let rules = Rules::read(&bad, &rules);
    assert_eq!(modules(&rules, &device(1, "a", &[])), ["ib_core"]);
    let rules = Rules::read(&Sources::default(), &rules);
    assert!(modules(&rules, &device(1, "a", &[])).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_the_reason() {
    let sources = Sources {
        rules: vec![Source {
            path: PathBuf::from("10-x.toml"),
            text: Err("longer than 262144 bytes".to_owned()),
        }],
        lists: Vec::new(),
    };
    let rules = Rules::read(&sources, &Rules::default());
    assert_eq!(
        rules.errors()[0].to_string(),
        "10-x.toml: longer than 262144 bytes"
    );
}

#[test]
fn a_selector_matches_if_one_value_of_each_key_matches() {
    let mut device = whole(3, "mlx5_0", &[Protocol::Infiniband]);
    device.driver = Some("mlx5_core".to_owned());
    device.pci_id = Some("15b3:101d".to_owned());
    device.pci_address = Some("0000:c1:00.2".to_owned());
    device.node_guid = Some("0002:c903:0012:3456".to_owned());
    device.kind = Kind::VirtualFunction;
    device.physical_function = Some("0000:c1:00.0".to_owned());
    device.function_number = Some(3);
    device.ports[0].netdev = Some("ibp193s0".to_owned());
    for (selector, selects) in [
        ("protocol = [\"roce\", \"infiniband\"]", true),
        ("protocol = [\"roce\"]", false),
        ("driver = [\"mlx*\"]", true),
        ("driver = [\"mlx4_core\"]", false),
        ("pci_id = [\"15b3:*\"]", true),
        ("pci_id = [\"15b3:1017\", \"15b3:101d\"]", true),
        ("pci_id = [\"8086:*\"]", false),
        ("pci_address = [\"0000:c1:*\"]", true),
        ("pci_address = [\"0000:c2:00.2\"]", false),
        ("guid = [\"0002:c903:0012:3456\"]", true),
        ("guid = [\"0002:c903:0012:3457\"]", false),
        ("name = [\"mlx5_?\"]", true),
        ("name = [\"mlx5_??\"]", false),
        ("virtual_function = true", true),
        ("virtual_function = false", false),
        ("name = [\"mlx5_[0-3]\"]", true),
        ("name = [\"mlx5_[!0-3]\"]", false),
        ("kind = [\"subfunction\", \"virtual_function\"]", true),
        ("kind = [\"function\"]", false),
        ("physical_function = [\"0000:c1:00.0\"]", true),
        ("physical_function = [\"0000:c1:00.1\"]", false),
        ("function_number = [1, 3]", true),
        ("function_number = [\"0-7\"]", true),
        ("function_number = [\"4-7\", 0]", false),
        ("netdev = [\"ibp*\"]", true),
        ("netdev = [\"eth*\"]", false),
        ("not.name = [\"rxe*\", \"siw*\"]", true),
        ("not.name = [\"rxe*\", \"mlx5_0\"]", false),
        (
            "driver = [\"mlx5_core\"]\nnot.kind = [\"subfunction\"]",
            true,
        ),
        // One matching key is enough.
        (
            "not = { driver = [\"hfi1\"], pci_id = [\"15b3:*\"] }",
            false,
        ),
        ("not.virtual_function = true", false),
        ("not.function_number = [3]", false),
        ("not.netdev = [\"eth0\"]", true),
        // A property that the device does not have does not match.
        ("not.guid = [\"0002:c903:0012:3457\"]", true),
        ("name = [\"*\"]\ndriver = [\"hfi1\"]", false),
    ] {
        let rules = read(&[(
            "x.toml",
            &format!("[[rule]]\n{selector}\nmodules = [\"ib_core\"]\n"),
        )]);
        assert_eq!(!modules(&rules, &device).is_empty(), selects, "{selector}");
    }
}

#[test]
fn a_list_of_rdma_core_replaces_the_modules_of_the_rule() {
    let infiniband = device(1, "a", &[Protocol::Infiniband]);
    let list = "# comment\n; comment\n\n  ib_umad\nib-srpt\n";
    let rules = shipped(&[("/etc/rdma/modules/infiniband.conf", list)]);
    assert!(rules.errors().is_empty(), "{:?}", rules.errors());
    let every = ["ib_iser", "ib_uverbs", "rdma_ucm", "xprtrdma", "svcrdma"];
    assert_eq!(
        modules(&rules, &infiniband),
        [&every[..], &["ib_umad", "ib_srpt"]].concat()
    );
    let wanted = rules.wanted(&infiniband).modules;
    assert_eq!(
        &*wanted[5].file,
        Path::new("/etc/rdma/modules/infiniband.conf")
    );
    // An empty list requests nothing.
    let rules = shipped(&[("/etc/rdma/modules/rdma.conf", "")]);
    assert_eq!(
        modules(&rules, &device(1, "a", &[Protocol::Roce])),
        Vec::<String>::new()
    );
}

#[test]
fn an_invalid_line_of_a_list_is_reported_and_the_other_lines_apply() {
    let rules = shipped(&[("/etc/rdma/modules/rdma.conf", "ib_core\n../x\nib_cm\n")]);
    assert_eq!(
        modules(&rules, &device(1, "a", &[Protocol::Roce])),
        ["ib_core", "ib_cm"]
    );
    let error = rules.errors()[0].to_string();
    assert!(
        error.starts_with("/etc/rdma/modules/rdma.conf:2: "),
        "{error}"
    );
}

#[test]
fn a_device_has_the_roles_of_all_matching_rules_each_once() {
    let rules = read(&[(
        "x.toml",
        "[[rule]]\nroles = [\"storage\", \"mpi\"]\n\
         [[rule]]\nprotocol = [\"roce\"]\nroles = [\"lossless\", \"mpi\"]\n\
         [[rule]]\nprotocol = [\"opa\"]\nroles = [\"other\"]\n",
    )]);
    let wants = rules.wanted(&device(1, "a", &[Protocol::Roce]));
    let roles: Vec<&str> = wants.roles.iter().map(Role::as_str).collect();
    assert_eq!(roles, ["storage", "mpi", "lossless"]);
}

#[test]
fn saved_rules_are_restored_with_their_errors() {
    let rules = read(&[
        ("10-x.toml", "[[rule]]\nmodules = [\"ib_core\"]\n"),
        ("20-y.toml", "oh"),
    ]);
    let saved = serde_json::to_string(&SavedRules::from(rules.clone())).unwrap();
    let again: Rules = serde_json::from_str::<SavedRules>(&saved).unwrap().into();
    assert_eq!(again.errors(), rules.errors());
    assert_eq!(modules(&again, &device(1, "a", &[])), ["ib_core"]);
}

//! Tests of plans over the index files of a Debian kernel, and of the modprobe quirks that the
//! plans must have. `integration/tests/modprobe.rs` compares them with libkmod itself.

use std::path::Path;

use super::*;
use crate::modprobe_d;

mod kmod;

/// The RDMA modules of a Debian kernel, and lines of `modprobe.d(5)`.
struct TestTree {
    indexes: Indexes,
    config: Config,
    absent: Vec<&'static str>,
    merge_softdeps: bool,
}

impl TestTree {
    fn new(lines: &str) -> Self {
        let mut config = Config::default();
        config.add_file(Path::new("test.conf"), lines.as_bytes());
        Self::with(config)
    }

    fn with(config: Config) -> Self {
        let parse = |bytes: &[u8]| Some(Index::parse(bytes.to_vec()).unwrap());
        let indexes = Indexes {
            dependencies: parse(include_bytes!(
                "../../tests/fixtures/modules/modules.dep.bin"
            )),
            aliases: parse(include_bytes!(
                "../../tests/fixtures/modules/modules.alias.bin"
            )),
            builtin: parse(include_bytes!(
                "../../tests/fixtures/modules/modules.builtin.bin"
            )),
            ..Indexes::default()
        };
        Self {
            indexes,
            config,
            absent: Vec::new(),
            merge_softdeps: false,
        }
    }

    /// Returns one plan for each module that the name stands for.
    fn plans(&self, name: &str) -> Result<Vec<Plan>, PlanError> {
        let exists = |path: &[u8]| {
            let path = String::from_utf8_lossy(path);
            !self.absent.iter().any(|absent| path.contains(absent))
        };
        let planner = Planner {
            indexes: &self.indexes,
            config: &self.config,
            exists: &exists,
            admit: &|_| true,
            merge_softdeps: self.merge_softdeps,
        };
        let found = planner.look_up(name.as_bytes())?;
        found.iter().map(|found| planner.plan(found)).collect()
    }

    /// Returns the output of `modprobe -D`, without the directories of the files.
    fn printed(&self, name: &str) -> Vec<String> {
        let plans = self.plans(name).unwrap();
        let base = |file: &[u8]| {
            let file = file.rsplit(|byte| *byte == b'/').next().unwrap();
            file.strip_suffix(b".ko.xz").unwrap().to_vec()
        };
        let steps = plans.iter().flat_map(|plan| &plan.steps);
        let lines = steps.filter_map(|step| step.printed(base));
        let short = |line: Vec<u8>| {
            let line = String::from_utf8(line).unwrap();
            line.strip_prefix("insmod ").unwrap_or(&line).to_owned()
        };
        lines.map(short).collect()
    }
}

const UVERBS: [&str; 2] = ["ib_core ", "ib_uverbs "];

#[test]
fn dependencies_are_loaded_before_the_modules_that_need_them() {
    let world = TestTree::new("");
    assert_eq!(world.printed("ib_core"), ["ib_core "]);
    assert_eq!(world.printed("ib-uverbs"), UVERBS);
    let rdma_ucm = world.printed("rdma_ucm");
    let at = |module: &str| rdma_ucm.iter().position(|m| m.trim() == module).unwrap();
    assert!(at("ib_core") < at("ib_cm"));
    assert!(at("ib_cm") < at("rdma_cm"));
    assert!(at("iw_cm") < at("rdma_cm"));
    assert!(at("rdma_cm") < at("rdma_ucm"));
}

#[test]
fn an_alias_stands_for_its_module() {
    let world = TestTree::new("");
    assert_eq!(world.printed("xprtrdma"), world.printed("rpcrdma"));
    assert_eq!(world.printed("svcrdma"), world.printed("rpcrdma"));
}

#[test]
fn a_missing_module_has_no_plan_and_an_unbalanced_bracket_is_an_error() {
    assert_eq!(TestTree::new("").plans("opa_vnic").unwrap(), []);
    assert_eq!(TestTree::new("").plans("a[b"), Err(PlanError::Bracket));
    assert_eq!(TestTree::new("").plans("a]b"), Err(PlanError::Bracket));
}

// The quirks of kmod 34.2, in the order of their discovery.

#[test]
fn quirk_01_only_the_first_softdep_line_of_a_module_counts() {
    let lines = "softdep ib_uverbs pre: iw_cm\nsoftdep ib_uverbs pre: ib_umad\n";
    let mut world = TestTree::new(lines);
    assert_eq!(
        world.printed("ib_uverbs"),
        ["ib_core ", "ib_core ", "iw_cm ", "ib_uverbs "]
    );
    world.merge_softdeps = true;
    assert!(world.printed("ib_uverbs").contains(&"ib_umad ".to_owned()));
}

#[test]
fn quirk_02_a_second_blank_before_pre_hides_it() {
    let world = TestTree::new("softdep ib_uverbs  pre: iw_cm\n");
    assert_eq!(world.printed("ib_uverbs"), UVERBS);
    let world = TestTree::new("softdep ib_uverbs iw_cm pre: \n");
    assert_eq!(world.printed("ib_uverbs"), UVERBS);
}

#[test]
fn quirk_03_files_are_sorted_by_name_together_with_the_softdeps_of_the_kernel() {
    let tree = Path::new("/lib/modules/6.12");
    let directory = |path: &str, names: &[&str]| {
        let names = names.iter().map(std::ffi::OsString::from);
        (path.into(), names.collect())
    };
    let files = modprobe_d::in_order(
        tree,
        &[
            directory("/etc/modprobe.d", &["zz.conf", "aa.conf", ".x.conf", "x"]),
            directory("/usr/lib/modprobe.d", &["mm.conf", "aa.conf", ".conf"]),
        ],
    );
    let expected = [
        "/etc/modprobe.d/aa.conf",
        "/usr/lib/modprobe.d/mm.conf",
        "/lib/modules/6.12/modules.softdep",
        "/lib/modules/6.12/modules.weakdep",
        "/etc/modprobe.d/zz.conf",
    ];
    assert_eq!(files, expected.map(std::path::PathBuf::from));
}

#[test]
fn quirk_04_a_blacklist_on_the_command_line_matches_exact_names() {
    let mut config = Config::default();
    config.add_command_line(b"modprobe.blacklist=ib-umad,iw_cm");
    let plans = TestTree::with(config);
    assert_eq!(plans.plans("ib_umad").unwrap()[0].blacklisted, None);
    let blacklisted = &plans.plans("iw_cm").unwrap()[0].blacklisted;
    assert_eq!(*blacklisted, Some(Source::CommandLine));
}

#[test]
fn quirk_05_a_blacklisted_module_is_loaded_as_a_dependency() {
    let world = TestTree::new("blacklist ib_core\nblacklist iw_cm\nsoftdep ib_uverbs pre: iw_cm\n");
    let plan = &world.plans("ib_uverbs").unwrap()[0];
    assert_eq!(plan.blacklisted, None);
    assert!(world.printed("ib_uverbs").contains(&"iw_cm ".to_owned()));
    assert!(world.plans("ib-core").unwrap()[0].blacklisted.is_some());
}

#[test]
fn quirk_06_a_comment_begins_only_in_the_first_column() {
    let world = TestTree::new("# c\n # c\noptions ib_core a=1 # c\n");
    assert_eq!(world.printed("ib_core"), ["ib_core a=1 # c "]);
    assert_eq!(world.config.problems.len(), 1);
    assert_eq!(world.config.problems[0].source.to_string(), "test.conf:2");
}

#[test]
fn quirk_07_a_backslash_joins_lines_and_is_dropped_elsewhere() {
    let world = TestTree::new("options ib_core b=2\\\nc=3 d=\\x\n");
    assert_eq!(world.printed("ib_core"), ["ib_core b=2c=3 d=x "]);
}

#[test]
fn quirk_08_a_carriage_return_belongs_to_the_word() {
    let world = TestTree::new("blacklist ib_core\r\noptions ib_core a=1\r\n");
    assert_eq!(world.plans("ib_core").unwrap()[0].blacklisted, None);
    assert_eq!(world.printed("ib_core"), ["ib_core a=1\r "]);
}

#[test]
fn quirk_09_a_nul_ends_the_line() {
    let world = TestTree::new("options ib_core a=1\0 b=2\noptions ib_core c=3\n");
    assert_eq!(world.printed("ib_core"), ["ib_core a=1 c=3 "]);
}

#[test]
fn quirk_10_one_missing_file_makes_modprobe_forget_all_dependencies() {
    let mut world = TestTree::new("");
    world.absent = vec!["ib_core.ko"];
    assert_eq!(world.printed("rdma_ucm"), ["rdma_ucm "]);
}

#[test]
fn quirk_11_an_alias_hides_a_module_from_requests_and_not_from_dependants() {
    let world = TestTree::new("alias ib_core off\n");
    assert!(world.printed("ib_core").is_empty());
    assert_eq!(world.plans("ib_core").unwrap()[0].module, b"off");
    assert_eq!(world.printed("ib_uverbs"), UVERBS);
}

#[test]
fn quirk_12_an_install_line_can_name_a_pattern() {
    let world = TestTree::new("install ib_c* /bin/true\n");
    let printed = world.printed("ib_cm");
    assert_eq!(printed, ["install /bin/true ", "install /bin/true "]);
}

#[test]
fn quirk_13_a_soft_dependency_makes_modprobe_forget_the_install_line() {
    let world = TestTree::new("install ib_uverbs /bin/false\nsoftdep ib_uverbs pre: iw_cm\n");
    assert_eq!(world.printed("ib_uverbs").last().unwrap(), "ib_uverbs ");
}

#[test]
fn quirk_14_the_install_line_of_a_dependency_always_counts() {
    // `modprobe -i` is not offered: the install line of a dependency would still count.
    let world = TestTree::new("install ib_core /bin/false\n");
    assert_eq!(
        world.printed("ib_uverbs"),
        ["install /bin/false ", "ib_uverbs "]
    );
}

#[test]
fn quirk_15_an_install_line_creates_a_module_of_its_name() {
    let world = TestTree::new("install nosuch /bin/true\nremove gone /bin/true\n");
    assert_eq!(world.printed("nosuch"), ["install /bin/true "]);
    assert!(world.printed("gone").is_empty());
    assert_eq!(world.plans("gone").unwrap()[0].module, b"gone");
    assert_eq!(world.plans("other").unwrap(), []);
}

#[test]
fn quirk_16_a_module_name_ends_at_the_first_dot() {
    let world = TestTree::new("install ib_core.x /bin/true\n");
    assert_eq!(world.plans("ib_core.x").unwrap()[0].module, b"ib_core");
    assert_eq!(world.printed("ib_core.x"), ["install /bin/true "]);
}

#[test]
fn quirk_17_a_dash_within_brackets_stays_in_a_pattern_and_becomes_an_underscore_in_a_name() {
    assert_eq!(underscored(b"a-b[c-d]e-f").unwrap(), b"a_b[c-d]e_f");
    assert_eq!(*module_name(b"a-b[c-d]"), *b"a_b[c_d]");
    let world = TestTree::new("alias x[a-c]-y ib_core\n");
    assert_eq!(world.printed("xb-y"), ["ib_core "]);
    assert!(world.printed("x_-y").is_empty());
}

#[test]
fn quirk_18_options_can_be_given_to_a_pattern() {
    let world = TestTree::new("alias my* ib_core\noptions my* a=1\noptions mything b=2\n");
    assert_eq!(world.printed("mything"), ["ib_core a=1 "]);
    let world = TestTree::new("options xprtrdma a=1\n");
    assert_eq!(world.printed("xprtrdma").last().unwrap(), "rpcrdma a=1 ");
    assert_eq!(world.printed("svcrdma").last().unwrap(), "rpcrdma ");
}

#[test]
fn quirk_19_all_options_lines_count_in_their_order() {
    let mut config = Config::default();
    config.add_file(
        Path::new("a.conf"),
        b"options ib_core a=1\toptions\noptions ib-core a=2\n",
    );
    config.add_command_line(b"ib_core.a=3 ib_core.b");
    let world = TestTree::with(config);
    assert_eq!(world.printed("ib_core"), ["ib_core a=1 options a=2 a=3 b "]);
}

#[test]
fn quirk_20_an_alias_is_found_without_the_dependency_index() {
    let mut world = TestTree::new("");
    world.indexes.dependencies = None;
    let plans = world.plans("xprtrdma").unwrap();
    assert_eq!(plans[0].module, b"rpcrdma");
    assert_eq!(plans[0].steps[0].action, Action::Absent);
}

#[test]
fn quirk_21_a_built_in_module_needs_nothing() {
    let world = TestTree::new("alias mine virtio_pci\n");
    assert_eq!(world.printed("virtio_pci"), ["builtin virtio_pci"]);
    assert_eq!(world.printed("mine"), ["builtin virtio_pci"]);
}

// Quirk 22 concerns the detection of changes: see `snapshot`.

#[test]
fn a_cycle_of_soft_dependencies_ends() {
    let world = TestTree::new("softdep ib_uverbs pre: ib_umad\nsoftdep ib_umad pre: ib_uverbs\n");
    let printed = world.printed("ib_uverbs");
    assert_eq!(printed.last().unwrap(), "ib_uverbs ");
    assert!(printed.contains(&"ib_umad ".to_owned()));
}

#[test]
fn soft_dependencies_beyond_the_limits_are_an_error() {
    use std::fmt::Write;
    let mut chain = String::new();
    for number in 0..MAX_DEPTH + 10 {
        let next = number + 1;
        writeln!(
            chain,
            "alias c{number} d{number}\nsoftdep d{number} pre: c{next}"
        )
        .unwrap();
    }
    assert_eq!(TestTree::new(&chain).plans("c0"), Err(PlanError::TooMuch));
    let wide = format!("softdep * pre:{}\n", " ib_core".repeat(MAX_STEPS + 1));
    assert_eq!(
        TestTree::new(&wide).plans("ib_uverbs"),
        Err(PlanError::TooMuch)
    );
}

#[test]
fn pre_softdeps_are_loaded_before_the_module_and_post_softdeps_after_it() {
    let world = TestTree::new("softdep ib_uverbs pre: ib_umad post: iw_cm\n");
    let plan = &world.plans("ib_uverbs").unwrap()[0];
    let at = |module: &str| {
        let mut steps = plan.steps.iter();
        steps
            .position(|step| step.module == module.as_bytes())
            .unwrap()
    };
    let uverbs = at("ib_uverbs");
    assert!(plan.steps[uverbs].after.contains(&at("ib_umad")));
    assert!(plan.steps[at("iw_cm")].after.contains(&uverbs));
    assert!(plan.steps[uverbs].required);
    assert!(!plan.steps[at("iw_cm")].required);
}

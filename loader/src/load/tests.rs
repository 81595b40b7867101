//! Loads against a kernel that keeps what it is given in a directory.

use std::fs::{self, File};

use tempfile::TempDir;

use super::*;

/// Accepts every module whose name is not in `refused`, once.
struct FakeKernel {
    sysfs: PathBuf,
    refused: Vec<(&'static str, i32)>,
    given: Mutex<Vec<String>>,
    /// Modules that somebody else inserts in the moment in which they are given.
    races: Mutex<Vec<&'static str>>,
}

impl Kernel for FakeKernel {
    fn finit_module(&self, step: &Step, _: &File, flags: i32) -> io::Result<()> {
        assert_eq!(flags, 4, "{} is compressed", step.module);
        let name = step.module.as_str();
        self.given.lock().unwrap().push(name.to_owned());
        let live = || {
            let module = self.sysfs.join("module").join(name);
            fs::create_dir_all(&module)?;
            fs::write(module.join("initstate"), "live\n")
        };
        if self.races.lock().unwrap().contains(&name) {
            live()?;
        }
        if let Some((_, errno)) = self.refused.iter().find(|(module, _)| *module == name) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        live()
    }
}

struct Rig {
    dir: TempDir,
    loader: Loader<FakeKernel>,
}

impl Rig {
    fn new(allowed: &[&str], refused: &[(&'static str, i32)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("modules/6.12");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/modules");
        fs::create_dir_all(&root).unwrap();
        for entry in fs::read_dir(&fixtures).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), root.join(entry.file_name())).unwrap();
        }
        let listing = fs::read_to_string(fixtures.join("modules.dep")).unwrap();
        for path in listing.lines().map(|line| line.split(':').next().unwrap()) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"\xfd7zXZ\0").unwrap();
        }
        let mut policy = Policy::default();
        let modules: Vec<String> = allowed.iter().map(|m| format!("{m:?}")).collect();
        let text = format!(
            "[[allow]]\npurpose = \"test\"\nmodules = [{}]\n",
            modules.join(",")
        );
        policy.add(Path::new("test.toml"), &text);
        assert!(policy.refused().is_empty());
        let sysfs = dir.path().join("sys");
        Self {
            loader: Loader {
                policy: Mutex::new(Arc::new(policy)),
                policy_directories: Vec::new(),
                modules: module_dir(&dir.path().join("modules"), "6.12"),
                sysfs: sysfs.clone(),
                kernel: FakeKernel {
                    sysfs,
                    refused: refused.to_vec(),
                    given: Mutex::default(),
                    races: Mutex::default(),
                },
            },
            dir,
        }
    }

    fn load(&self, name: &str) -> ModuleResult {
        self.loader.load(&ModuleName::parse(name).unwrap())
    }

    fn given(&self) -> Vec<String> {
        self.loader.kernel.given.lock().unwrap().clone()
    }

    fn module_file(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("modules/6.12/kernel/drivers/infiniband")
            .join(path)
    }
}

#[test]
fn a_module_is_loaded_with_its_dependencies_and_then_is_already_loaded() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let first = rig.load("ib-uverbs");
    assert_eq!(first.outcome, Outcome::Loaded);
    assert_eq!(first.chain, ["ib_core", "ib_uverbs"]);
    let second = rig.load("ib_uverbs");
    assert_eq!(second.outcome, Outcome::AlreadyLoaded);
    assert_eq!(rig.given(), ["ib_core", "ib_uverbs"]);
}

#[test]
fn what_no_policy_file_names_is_denied_and_the_kernel_is_not_asked() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    for (name, culprit) in [("mlx5_core", None), ("xprtrdma", Some("rpcrdma"))] {
        let result = rig.load(name);
        assert_eq!(result.outcome, Outcome::Denied, "{name}");
        assert_eq!(result.denied_by, Some(Denier::Policy));
        assert_eq!(result.culprit.as_deref(), culprit);
    }
    // A dependency is implied, but not allowed by itself.
    assert_eq!(rig.load("ib_core").outcome, Outcome::Denied);
    assert!(rig.given().is_empty());
}

#[test]
fn an_alias_counts_as_the_module_that_it_stands_for() {
    let rig = Rig::new(&["rpcrdma"], &[]);
    assert_eq!(rig.load("svcrdma").outcome, Outcome::Loaded);
    assert_eq!(rig.load("xprtrdma").outcome, Outcome::AlreadyLoaded);
}

#[test]
fn a_module_that_the_kernel_does_not_ship_is_missing() {
    let rig = Rig::new(&["opa_vnic"], &[]);
    assert_eq!(rig.load("opa_vnic").outcome, Outcome::Missing);
    assert!(rig.given().is_empty());
}

#[test]
fn a_refusal_of_the_kernel_names_the_module_and_the_errno() {
    let enokey = 126;
    let rig = Rig::new(&["rdma_ucm"], &[("ib_cm", enokey)]);
    let result = rig.load("rdma_ucm");
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.culprit.as_deref(), Some("ib_cm"));
    assert_eq!(result.errno_name.as_deref(), Some("ENOKEY"));
    assert!(!rig.given().contains(&"rdma_ucm".to_owned()));
}

#[test]
fn losing_a_race_for_a_dependency_is_no_failure() {
    let eexist = 17;
    let rig = Rig::new(&["ib_uverbs"], &[("ib_core", eexist)]);
    rig.loader.kernel.races.lock().unwrap().push("ib_core");
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Loaded);
    assert_eq!(result.chain, ["ib_uverbs"]);
}

#[test]
fn a_module_that_itself_says_that_something_exists_has_failed() {
    let eexist = 17;
    let rig = Rig::new(&["ib_uverbs"], &[("ib_core", eexist)]);
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.errno_name.as_deref(), Some("EEXIST"));
}

#[test]
fn a_module_file_that_others_may_have_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let file = rig.module_file("core/ib_core.ko.xz");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.errno_name.as_deref(), Some("EPERM"));
    assert!(rig.given().is_empty());
}

#[test]
fn a_fifo_in_the_place_of_a_module_is_refused_and_holds_nobody() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let file = rig.module_file("core/ib_core.ko.xz");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    assert_eq!(rig.load("ib_uverbs").errno_name.as_deref(), Some("EPERM"));
    assert!(rig.given().is_empty());
}

#[test]
fn a_module_file_that_is_gone_is_named() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    fs::remove_file(rig.module_file("core/ib_core.ko.xz")).unwrap();
    let result = rig.load("ib_uverbs");
    assert_eq!(result.errno_name.as_deref(), Some("ENOENT"));
    assert_eq!(result.culprit.as_deref(), Some("ib_core"));
}

#[test]
fn indexes_that_depmod_replaced_are_read_again() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
    let index = rig.dir.path().join("modules/6.12/modules.dep.bin");
    fs::write(&index, b"not an index").unwrap();
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(result.message.unwrap().contains("modules.dep.bin"));
}

#[test]
fn an_explanation_is_what_load_then_does_and_does_nothing_itself() {
    let rig = Rig::new(&["ib_uverbs", "opa_vnic"], &[]);
    let explain = |name: &str| {
        rig.loader
            .explain(&ModuleName::parse(name).unwrap())
            .unwrap()
    };
    for name in ["ib_uverbs", "mlx5_core", "opa_vnic", "virtio_pci"] {
        let explained = explain(name);
        assert!(rig.given().is_empty(), "{name}");
        if name != "ib_uverbs" {
            assert_eq!(explained.outcome, rig.load(name).outcome, "{name}");
        }
    }
    let verbs = explain("ib-uverbs");
    assert_eq!(verbs.outcome, Outcome::Loaded);
    assert_eq!(verbs.plans[0].purpose.as_deref(), Some("test"));
    let steps: Vec<&str> = verbs.plans[0]
        .steps
        .iter()
        .map(|s| s.module.as_str())
        .collect();
    assert_eq!(steps, ["ib_core", "ib_uverbs"]);
    rig.load("ib_uverbs");
    assert_eq!(explain("ib_uverbs").outcome, Outcome::AlreadyLoaded);
}

#[test]
fn the_list_says_what_is_live() {
    let rig = Rig::new(&["ib_uverbs", "ib_umad"], &[]);
    rig.load("ib_uverbs");
    let listed = rig.loader.list();
    let states: Vec<(&str, ModuleState)> = listed
        .iter()
        .map(|m| (m.module.as_str(), m.state))
        .collect();
    assert_eq!(
        states,
        [
            ("ib_umad", ModuleState::Absent),
            ("ib_uverbs", ModuleState::Live)
        ]
    );
}

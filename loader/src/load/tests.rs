//! Tests of loads with a fake kernel that keeps its modules in a directory.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Condvar;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use interfaces::loader::Denier;
use interfaces::server::Peer;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::Config;
use crate::image::Compression;
use crate::insert::Inserter;
use crate::inserter;
use crate::kernel::Kernel;
use crate::link::Link;
use crate::message::MAX_PARAMETERS;
use crate::snapshot::{Semantics, Sources};

mod hostile;

/// A module that the kernel received, and its parameters.
type Given = (String, String);

/// A kernel that accepts each module once, if the dependencies are live, as the real one does.
struct FakeKernel {
    sysfs: PathBuf,
    /// All dependencies of each module.
    needs: HashMap<String, Vec<String>>,
    refused: Vec<(&'static str, i32)>,
    given: Mutex<Vec<Given>>,
    /// The modules that another program inserts at the same moment.
    races: Mutex<Vec<&'static str>>,
    /// The modules that are being inserted, and the highest number of them at once.
    inside: Mutex<(BTreeSet<String>, usize)>,
    /// The number of modules that must be inside before any of them continues.
    meet: Mutex<usize>,
    met: Condvar,
    /// The modules whose initialisation does not end while they are in this set.
    held: Mutex<BTreeSet<String>>,
    released: Condvar,
}

impl FakeKernel {
    fn is_live(&self, name: &str) -> bool {
        kernel::state(&self.sysfs, name) == ModuleState::Live
    }

    fn make_live(&self, name: &str) -> io::Result<()> {
        let module = self.sysfs.join("module").join(name);
        fs::create_dir_all(&module)?;
        fs::write(module.join("initstate"), "live\n")
    }

    /// Waits until the required number of modules has entered, and while this module is held.
    fn enter(&self, name: &str) {
        let mut inside = self.inside.lock().unwrap();
        assert!(inside.0.insert(name.to_owned()), "{name} twice at once");
        inside.1 = inside.1.max(inside.0.len());
        self.met.notify_all();
        let meet = *self.meet.lock().unwrap();
        while inside.1 < meet {
            inside = self.met.wait(inside).unwrap();
        }
        drop(inside);
        let mut held = self.held.lock().unwrap();
        while held.contains(name) {
            held = self.released.wait(held).unwrap();
        }
    }

    fn hold(&self, names: &[&str]) {
        let names = names.iter().map(|&name| name.to_owned());
        *self.held.lock().unwrap() = names.collect();
        self.released.notify_all();
    }
}

impl Kernel for FakeKernel {
    fn finit_module(
        &self,
        module: &ModuleName,
        _: &File,
        parameters: &CStr,
        flags: i32,
    ) -> io::Result<()> {
        let name = module.as_str();
        assert_eq!(flags, 4, "{name} is compressed");
        let parameters = parameters.to_str().unwrap().to_owned();
        self.given
            .lock()
            .unwrap()
            .push((name.to_owned(), parameters));
        self.enter(name);
        let missing = self.needs.get(name).into_iter().flatten();
        let missing = missing.filter(|needed| !self.is_live(needed)).count();
        if self.races.lock().unwrap().contains(&name) {
            self.make_live(name)?;
        }
        self.inside.lock().unwrap().0.remove(name);
        if let Some((_, errno)) = self.refused.iter().find(|(module, _)| *module == name) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        if missing > 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.make_live(name)
    }
}

/// The threads of both the serving process and the inserting process, in one process.
struct Rig {
    dir: TempDir,
    loader: Arc<Loader>,
    inserter: Arc<Inserter<FakeKernel>>,
    link: Arc<Link>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.loader.work.close();
        self.link.close();
    }
}

impl Rig {
    fn new(allowed: &[&str], refused: &[(&'static str, i32)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("modules/6.12");
        let sysfs = dir.path().join("sys");
        for directory in [&root, &sysfs.join("module"), &dir.path().join("modprobe.d")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(sysfs.join("module/compression"), "xz\n").unwrap();
        fs::write(dir.path().join("cmdline"), "quiet\n").unwrap();
        let policies = dir.path().join("policy");
        allow(&policies, allowed);
        let needs = lay_out_modules(&root);
        let modules = ModuleDir::new(&dir.path().join("modules"), "6.12");
        let option =
            |name: &str, path: &str| format!("--{name}={}", dir.path().join(path).display());
        let config = Config::parse_from([
            "rdma-loader".to_owned(),
            "--release=6.12".to_owned(),
            option("modules", "modules"),
            option("sysfs", "sys"),
            option("command-line", "cmdline"),
            option("modprobe-d", "modprobe.d"),
            option("policy", "policy"),
        ]);
        let loader = Arc::new(Loader {
            policy: Mutex::new(Arc::new(
                read_policy(std::slice::from_ref(&policies)).unwrap(),
            )),
            policy_directories: vec![policies],
            snapshots: Snapshots::new(Sources {
                root: None,
                module_tree: root,
                modprobe_d: vec![dir.path().join("modprobe.d")],
                command_line: dir.path().join("cmdline"),
                reader: Semantics::Loader,
            }),
            modules: modules.clone(),
            sysfs: sysfs.clone(),
            modules_disabled: dir.path().join("modules_disabled"),
            readable: Readable::new(&config),
            end: watch::Sender::new(false),
            work: Orders::default(),
        });
        let inserter = Arc::new(Inserter {
            modules,
            sysfs: sysfs.clone(),
            kernel: FakeKernel {
                sysfs,
                needs,
                refused: refused.to_vec(),
                given: Mutex::default(),
                races: Mutex::default(),
                inside: Mutex::default(),
                meet: Mutex::default(),
                met: Condvar::new(),
                held: Mutex::default(),
                released: Condvar::new(),
            },
            compression: Compression::Xz,
        });
        let link = connect(&loader, &inserter);
        Self {
            dir,
            loader,
            inserter,
            link,
        }
    }

    /// Writes a file of modprobe.d.
    fn configure(&self, name: &str, lines: &str) {
        fs::write(self.dir.path().join("modprobe.d").join(name), lines).unwrap();
    }

    fn boot_with(&self, command_line: &str) {
        fs::write(self.dir.path().join("cmdline"), command_line).unwrap();
    }

    fn request(&self, names: &[&str], ordered: bool) -> Vec<ModuleResult> {
        let mut results = self.begin(names, ordered);
        let mut all = Vec::new();
        while let Some(result) = results.blocking_recv() {
            all.push(result);
        }
        all.sort_by_key(|(position, _)| *position);
        assert_eq!(all.len(), names.len(), "each has its answer");
        all.into_iter().map(|(_, result)| result).collect()
    }

    /// Sends a request, and does not wait for the results.
    fn begin(&self, names: &[&str], ordered: bool) -> UnboundedReceiver<(usize, ModuleResult)> {
        let (answers, results) = unbounded_channel();
        self.loader.submit(Request {
            modules: names
                .iter()
                .map(|name| ModuleName::parse(name).unwrap())
                .collect(),
            ordered,
            peer: Peer {
                uid: 0,
                pid: None,
                privileged: true,
            },
            reason: "test".to_owned(),
            start: Instant::now(),
            answers,
        });
        results
    }

    fn load(&self, name: &str) -> ModuleResult {
        self.request(&[name], false).remove(0)
    }

    /// Returns the modules that the kernel received, in order.
    fn given(&self) -> Vec<String> {
        let given = self.inserter.kernel.given.lock().unwrap();
        given.iter().map(|(module, _)| module.clone()).collect()
    }

    fn module_file(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("modules/6.12/kernel/drivers/infiniband")
            .join(path)
    }
}

/// Starts the threads of both sides, which end with the link.
fn connect(loader: &Arc<Loader>, inserter: &Arc<Inserter<FakeKernel>>) -> Arc<Link> {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (ours, theirs) = (Arc::new(Link::new(pair.0)), Arc::new(Link::new(pair.1)));
    let inserter = Arc::clone(inserter);
    thread::spawn(move || inserter::serve(&theirs, &inserter));
    let (giver, outward) = (Arc::clone(loader), Arc::clone(&ours));
    thread::spawn(move || giver.give_orders(&outward));
    let (taker, inward) = (Arc::clone(loader), Arc::clone(&ours));
    thread::spawn(move || taker.take_answers(&inward));
    ours
}

/// Writes a policy file that names these modules.
fn allow(policies: &Path, allowed: &[&str]) {
    let modules: Vec<String> = allowed.iter().map(|m| format!("{m:?}")).collect();
    let text = format!(
        "[[allow]]\npurpose = \"test\"\nmodules = [{}]\n",
        modules.join(",")
    );
    fs::create_dir_all(policies).unwrap();
    fs::write(policies.join("test.toml"), text).unwrap();
}

fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::from(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Copies depmod's files, and creates a file for each module that looks like one. Returns the
/// dependencies of each module.
fn lay_out_modules(root: &Path) -> HashMap<String, Vec<String>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/modules");
    for entry in fs::read_dir(&fixtures).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), root.join(entry.file_name())).unwrap();
    }
    // The last file that depmod writes.
    fs::write(root.join("modules.devname"), "").unwrap();
    let listing = fs::read_to_string(fixtures.join("modules.dep")).unwrap();
    let name = |path: &str| {
        let file = path.rsplit('/').next().unwrap();
        file.split('.').next().unwrap().replace('-', "_")
    };
    let lines = listing.lines().map(|line| line.split_once(':').unwrap());
    lines
        .map(|(path, needs)| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, b"\xfd7zXZ\0").unwrap();
            (name(path), needs.split_whitespace().map(name).collect())
        })
        .collect()
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
fn a_module_that_no_policy_file_names_is_denied_without_a_kernel_call() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    for (name, culprit) in [("mlx5_core", None), ("xprtrdma", Some("rpcrdma"))] {
        let result = rig.load(name);
        assert_eq!(result.outcome, Outcome::Denied, "{name}");
        assert_eq!(result.denied_by, Some(Denier::Policy));
        assert_eq!(result.culprit.as_deref(), culprit);
    }
    assert!(rig.given().is_empty());
}

/// cases.md L2 (spdk#1724): lists name ib_core, ib_cm and rdma_cm, too.
#[test]
fn a_dependency_of_an_allowed_module_may_be_requested_by_name() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    assert_eq!(rig.load("ib_core").outcome, Outcome::Loaded);
    assert_eq!(rig.given(), ["ib_core"]);
    let explained = rig.loader.explain(&ModuleAlias::parse("ib_core").unwrap());
    let plan = explained.unwrap().plans.remove(0);
    assert_eq!(plan.purpose.as_deref(), Some("needed by ib_uverbs: test"));
}

#[test]
fn an_alias_counts_as_the_module_that_it_stands_for() {
    let rig = Rig::new(&["rpcrdma"], &[]);
    assert_eq!(rig.load("svcrdma").outcome, Outcome::Loaded);
    assert_eq!(rig.load("xprtrdma").outcome, Outcome::AlreadyLoaded);
}

/// Case section 4: a query by modalias shows whether a driver is excluded. The policy has no effect
/// on that.
#[test]
fn an_explanation_by_modalias_shows_the_line_that_excludes_the_driver() {
    const MODALIAS: &str = "pci:v000015B3d00001017sv000015B3sd00000006bc02sc07i00";
    for (policy, line, excluded) in [
        ("mlx5_core", "", None),
        ("ib_umad", "", None),
        (
            "mlx5_core",
            "blacklist mlx5_core",
            Some("blacklists mlx5_core"),
        ),
        (
            "ib_umad",
            "blacklist mlx5_core",
            Some("blacklists mlx5_core"),
        ),
        (
            "mlx5_core",
            "install mlx5_core /bin/false",
            Some("forbids mlx5_core"),
        ),
        ("mlx5_core", "blacklist mlx5_ib", None),
    ] {
        let rig = Rig::new(&[policy], &[]);
        rig.configure("test.conf", line);
        let explained = rig.loader.explain(&ModuleAlias::parse(MODALIAS).unwrap());
        let explained = explained.unwrap();
        assert_eq!(explained.plans[0].module, "mlx5_core");
        let why = explained.exclusion();
        let says = |expected: &str| why.as_ref().is_some_and(|why| why.contains(expected));
        assert!(
            excluded.map_or(why.is_none(), says),
            "{policy}, {line}: {why:?}"
        );
    }
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
fn a_lost_race_for_a_dependency_is_not_a_failure() {
    let eexist = 17;
    let rig = Rig::new(&["ib_uverbs"], &[("ib_core", eexist)]);
    rig.inserter.kernel.races.lock().unwrap().push("ib_core");
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Loaded);
    assert_eq!(result.chain, ["ib_uverbs"]);
}

#[test]
fn a_module_whose_own_initialisation_returns_eexist_has_failed() {
    let eexist = 17;
    let rig = Rig::new(&["ib_uverbs"], &[("ib_core", eexist)]);
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.errno_name.as_deref(), Some("EEXIST"));
}

#[test]
fn a_module_file_that_other_users_can_write_is_refused() {
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
fn a_fifo_in_the_place_of_a_module_file_is_refused_without_blocking() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let file = rig.module_file("core/ib_core.ko.xz");
    fs::remove_file(&file).unwrap();
    make_fifo(&file);
    assert_eq!(rig.load("ib_uverbs").errno_name.as_deref(), Some("EPERM"));
    assert!(rig.given().is_empty());
}

#[test]
fn the_result_names_the_module_of_a_missing_file() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    fs::remove_file(rig.module_file("core/ib_core.ko.xz")).unwrap();
    let result = rig.load("ib_uverbs");
    assert_eq!(result.errno_name.as_deref(), Some("ENOENT"));
    assert_eq!(result.culprit.as_deref(), Some("ib_core"));
    assert!(rig.given().is_empty());
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
fn an_explanation_predicts_the_result_of_a_load_and_loads_nothing() {
    let rig = Rig::new(&["ib_uverbs", "opa_vnic"], &[]);
    let explain = |name: &str| {
        let name = ModuleAlias::parse(name).unwrap();
        rig.loader.explain(&name).unwrap()
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
fn the_list_shows_the_state_of_each_allowed_module() {
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

#[test]
fn modules_get_the_parameters_of_modprobe_d_and_the_command_line() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    rig.configure(
        "x.conf",
        "options ib_core a=1\noptions ib-uverbs\tb=2\tc=3\n",
    );
    rig.boot_with("quiet ib_core.d=\"4 5\"");
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
    let given = rig.inserter.kernel.given.lock().unwrap();
    let expected = [("ib_core", "a=1 d=\"4 5\" "), ("ib_uverbs", "b=2 c=3 ")];
    assert_eq!(*given, expected.map(|(m, p)| (m.to_owned(), p.to_owned())));
}

#[test]
fn independent_modules_are_inserted_at_the_same_time() {
    let rig = Rig::new(&["ib_umad", "ib_uverbs", "iw_cm"], &[]);
    assert_eq!(rig.load("ib_umad").outcome, Outcome::Loaded);
    // Both need only ib_core, which is live now. Neither returns before the other has entered.
    *rig.inserter.kernel.meet.lock().unwrap() = 2;
    let results = rig.request(&["ib_uverbs", "iw_cm"], false);
    assert!(
        results
            .iter()
            .all(|result| result.outcome == Outcome::Loaded)
    );
}

#[test]
fn each_module_of_an_ordered_request_waits_for_the_previous_one() {
    for _ in 0..20 {
        let rig = Rig::new(&["ib_umad", "ib_uverbs", "iw_cm"], &[]);
        rig.request(&["iw_cm", "ib_uverbs", "ib_umad"], true);
        assert_eq!(rig.given(), ["ib_core", "iw_cm", "ib_uverbs", "ib_umad"]);
        assert_eq!(rig.inserter.kernel.inside.lock().unwrap().1, 1);
    }
}

#[test]
fn a_module_of_many_simultaneous_requests_is_inserted_once() {
    let rig = Rig::new(&["ib_umad", "ib_uverbs", "iw_cm", "rdma_ucm"], &[]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for result in rig.request(&["rdma_ucm", "ib_umad", "ib_uverbs", "iw_cm"], false) {
                    let outcome = result.outcome;
                    assert!(matches!(outcome, Outcome::Loaded | Outcome::AlreadyLoaded));
                }
            });
        }
    });
    let mut given = rig.given();
    let len = given.len();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), len, "{given:?}");
}

#[test]
fn a_failure_stops_only_the_modules_that_need_the_failed_one() {
    let enokey = 126;
    let rig = Rig::new(&["rdma_ucm", "ib_umad"], &[("ib_cm", enokey)]);
    let results = rig.request(&["rdma_ucm", "ib_umad", "nosuch"], false);
    let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Failed, Outcome::Loaded, Outcome::Missing]
    );
    assert_eq!(results[0].culprit.as_deref(), Some("ib_cm"));
    assert!(results[0].message.as_ref().unwrap().contains("signature"));
}

#[test]
fn a_soft_dependency_may_fail_and_is_loaded_only_if_the_policy_names_it() {
    let enodev = 19;
    let rig = Rig::new(&["ib_uverbs", "iw_cm"], &[("iw_cm", enodev)]);
    rig.configure("x.conf", "softdep ib_uverbs pre: iw_cm ib_umad\n");
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Loaded);
    assert_eq!(rig.given(), ["ib_core", "iw_cm", "ib_uverbs"]);
    let explained = rig
        .loader
        .explain(&ModuleAlias::parse("ib_uverbs").unwrap());
    assert_eq!(explained.unwrap().plans[0].left_out, ["ib_umad"]);
}

/// Case L6: a module that was denied is allowed by the next file, without a reload.
#[test]
fn a_policy_change_applies_to_the_next_request() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let denied = rig.load("ib_umad");
    assert_eq!(denied.denied_by, Some(Denier::Policy));
    allow(&rig.dir.path().join("policy"), &["ib_uverbs", "ib_umad"]);
    assert_eq!(rig.load("ib_umad").outcome, Outcome::Loaded);
    // A file that cannot be parsed does not affect the others.
    fs::write(rig.dir.path().join("policy/zz.toml"), "[[allow").unwrap();
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
}

/// Case L7: kernel.modules_disabled=1 from sysctl.d (systemd#13540).
#[test]
fn a_refusal_because_of_modules_disabled_names_the_sysctl() {
    let eperm = 1;
    let rig = Rig::new(&["ib_uverbs"], &[("ib_core", eperm)]);
    let said = || rig.load("ib_uverbs").message.unwrap();
    assert!(!said().contains("is 1"));
    fs::write(rig.dir.path().join("modules_disabled"), "1\n").unwrap();
    assert!(said().ends_with("kernel.modules_disabled is 1 until the next boot"));
}

/// depmod writes such files if there is no modules.builtin (observed with kmod 34).
#[test]
fn an_empty_builtin_index_names_nothing_and_any_other_empty_index_is_damaged() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let empty = |name: &str| fs::write(rig.dir.path().join("modules/6.12").join(name), "");
    empty("modules.builtin.bin").unwrap();
    empty("modules.builtin.alias.bin").unwrap();
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
    empty("modules.alias.bin").unwrap();
    let result = rig.load("ib_umad");
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(result.message.unwrap().contains("modules.alias.bin"));
}

/// Case K1: an update has removed the modules of the running kernel (drbd#77, mkosi#3702).
#[test]
fn a_module_that_is_not_live_is_unknown_while_the_indexes_are_missing() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let tree = rig.dir.path().join("modules/6.12");
    let away = rig.dir.path().join("modules/away");
    fs::rename(&tree, &away).unwrap();
    let result = rig.load("ib_uverbs");
    assert_eq!(result.outcome, Outcome::Unknown);
    let index = tree.join("modules.dep.bin");
    let said = result.message.unwrap();
    assert!(
        said.starts_with(&format!("{} does not exist", index.display())),
        "{said}"
    );
    let explained = rig
        .loader
        .explain(&ModuleAlias::parse("ib_uverbs").unwrap());
    assert_eq!(explained.unwrap().outcome, Outcome::Unknown);
    // A live module is known, whatever is on disk.
    rig.inserter.kernel.make_live("ib_umad").unwrap();
    assert_eq!(rig.load("ib_umad").outcome, Outcome::AlreadyLoaded);
    fs::rename(&away, &tree).unwrap();
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
}

/// Case K2: depmod renames modules.dep.bin second and modules.devname last (image-tools#156).
#[test]
fn a_module_that_a_half_written_index_generation_lacks_is_unknown() {
    let rig = Rig::new(&["ib_uverbs", "opa_vnic"], &[]);
    let file = |name: &str| rig.dir.path().join("modules/6.12").join(name);
    let written = |name: &str, age: u64| {
        let time = SystemTime::now() - Duration::from_secs(age);
        let file = File::options().append(true).open(file(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    let outcome = || rig.load("opa_vnic").outcome;
    assert_eq!(outcome(), Outcome::Missing, "the last file is the newest");
    let indexes = [
        "modules.dep.bin",
        "modules.alias.bin",
        "modules.builtin.bin",
    ];
    for index in indexes {
        for name in indexes.into_iter().chain(["modules.devname"]) {
            written(name, 300);
        }
        written(index, 2);
        assert_eq!(
            outcome(),
            Outcome::Unknown,
            "{index} is newer than the last"
        );
        // A copied tree has its files in any order.
        written(index, 100);
        assert_eq!(outcome(), Outcome::Missing, "{index} was written long ago");
    }
    written("modules.dep.bin", 2);
    written("modules.devname", 1);
    assert_eq!(outcome(), Outcome::Missing);
    // Before the first run of depmod has ended, there is no last file.
    fs::remove_file(file("modules.devname")).unwrap();
    assert_eq!(outcome(), Outcome::Missing);
    fs::remove_file(file("modules.alias.bin")).unwrap();
    let result = rig.load("opa_vnic");
    assert_eq!(result.outcome, Outcome::Unknown);
    assert!(result.message.unwrap().starts_with("depmod is writing"));
    // A module that the index names can be loaded.
    assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
}

/// Case S7: a ban also applies to the dependencies of a soft dependency.
#[test]
fn a_soft_dependency_is_left_out_if_a_ban_applies_to_its_dependencies() {
    let ban = "install sunrpc /bin/false\n";
    let lines = "softdep sunrpc pre: configfs\nsoftdep ib_umad post: rpcrdma\n";
    let rig = Rig::new(&["ib_umad", "rpcrdma"], &[]);
    rig.configure("x.conf", &format!("{ban}{lines}"));
    assert_eq!(rig.load("ib_umad").outcome, Outcome::Loaded);
    assert_eq!(rig.given(), ["ib_core", "ib_umad"]);
    let explained = rig.loader.explain(&ModuleAlias::parse("ib_umad").unwrap());
    assert_eq!(explained.unwrap().plans[0].left_out, ["rpcrdma"]);

    fs::write(rig.dir.path().join("cmdline"), "module_blacklist=sunrpc\n").unwrap();
    rig.configure("x.conf", lines);
    assert_eq!(rig.load("ib_umad").outcome, Outcome::AlreadyLoaded);
    let explained = rig.loader.explain(&ModuleAlias::parse("ib_umad").unwrap());
    assert_eq!(explained.unwrap().plans[0].left_out, ["rpcrdma"]);

    // A live module needs no permission. The policy does not name the soft dependency of sunrpc.
    rig.inserter.kernel.make_live("sunrpc").unwrap();
    let explained = rig.loader.explain(&ModuleAlias::parse("ib_umad").unwrap());
    assert_eq!(explained.unwrap().plans[0].left_out, ["configfs"]);
}

#[test]
fn a_module_of_the_opt_in_file_is_loaded_unless_another_file_blacklists_it() {
    let rig = Rig::new(&["mlx5_ib", "irdma"], &[]);
    rig.configure(
        "rdma-hotplug-opt-in.conf",
        "blacklist mlx5_ib\nblacklist irdma\n",
    );
    rig.configure("admin.conf", "blacklist irdma\n");
    assert_eq!(rig.load("mlx5_ib").outcome, Outcome::Loaded);
    let denied = rig.load("irdma");
    assert_eq!(denied.denied_by, Some(Denier::Blacklist));
    assert!(denied.source.unwrap().ends_with("admin.conf:1"));
}

#[test]
fn each_module_of_an_ordered_request_waits_for_all_earlier_ones() {
    for _ in 0..20 {
        let rig = Rig::new(&["rdma_ucm", "ib_core", "ib_umad"], &[]);
        rig.request(&["rdma_ucm", "ib_core", "ib_umad"], true);
        assert_eq!(rig.given().last().unwrap(), "ib_umad");
    }
}

#[test]
fn a_forbidden_module_is_not_loaded_as_a_soft_dependency() {
    for line in ["blacklist iw_cm", "install iw_cm /bin/false"] {
        let rig = Rig::new(&["ib_uverbs", "iw_cm"], &[]);
        rig.configure("x.conf", &format!("softdep ib_uverbs pre: iw_cm\n{line}\n"));
        assert_eq!(rig.load("ib_uverbs").outcome, Outcome::Loaded);
        assert_eq!(rig.given(), ["ib_core", "ib_uverbs"], "{line}");
    }
}

#[test]
fn an_install_line_forbids_its_module_despite_soft_dependencies() {
    let rig = Rig::new(&["ib_uverbs", "iw_cm"], &[]);
    rig.configure(
        "x.conf",
        "softdep ib_uverbs pre: iw_cm\ninstall ib_uverbs /bin/false\n",
    );
    assert_eq!(rig.load("ib_uverbs").denied_by, Some(Denier::InstallLine));
    assert!(rig.given().is_empty());
}

/// Waits until the kernel initialises this number of modules, and returns their names.
fn loading(rig: &Rig, count: usize) -> Vec<String> {
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let loading = rig.loader.work.loading();
        if loading.len() == count {
            return loading.into_iter().map(|loading| loading.module).collect();
        }
        assert!(Instant::now() < deadline, "{loading:?}");
        thread::yield_now();
    }
}

#[test]
fn a_module_whose_initialisation_hangs_delays_only_the_modules_that_need_it() {
    let hung = [
        "configfs",
        "bnxt_en",
        "mlx4_core",
        "sunrpc",
        "udp_tunnel",
        "ib_cm",
        "iw_cm",
    ];
    let rig = Rig::new(&[&hung[..], &["ib_umad", "rdma_cm"]].concat(), &[]);
    rig.inserter.kernel.hold(&hung);
    let before = interfaces::clock::now();
    let mut waiting = rig.begin(&[&hung[..], &["rdma_cm"]].concat(), false);
    let mut named = loading(&rig, hung.len());
    named.sort();
    let mut expected = hung;
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(rig.load("ib_umad").outcome, Outcome::Loaded);
    assert!(waiting.try_recv().is_err());
    assert!(rig.loader.work.is_busy());
    for loading in rig.loader.work.loading() {
        assert!((before..=interfaces::clock::now()).contains(&loading.since_usec));
    }
    rig.inserter.kernel.hold(&[]);
    for _ in 0..=hung.len() {
        let (_, result) = waiting.blocking_recv().unwrap();
        assert_eq!(result.outcome, Outcome::Loaded, "{result:?}");
    }
    loading(&rig, 0);
}

#[test]
fn the_end_of_the_inserting_process_fails_all_current_and_later_loads_with_a_message() {
    let rig = Rig::new(&["ib_uverbs", "ib_umad"], &[]);
    let (ours, theirs) = {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Link::new(pair.0), Link::new(pair.1))
    };
    rig.inserter.kernel.hold(&["ib_core"]);
    let mut waiting = rig.begin(&["ib_uverbs"], false);
    loading(&rig, 1);
    drop(theirs);
    rig.loader.take_answers(&ours);
    let (_, result) = waiting.blocking_recv().unwrap();
    let later = rig.load("ib_umad");
    for result in [result, later] {
        assert_eq!(result.outcome, Outcome::Failed);
        assert_eq!(result.errno_name.as_deref(), Some("EAGAIN"));
        assert!(result.message.unwrap().contains("inserting process"));
    }
    assert!(rig.loader.work.is_lost() && *rig.loader.end.borrow());
    rig.inserter.kernel.hold(&[]);
}

#[test]
fn garbage_from_the_inserting_process_counts_as_its_end() {
    for garbage in [&b"garbage"[..], &[b'x'; crate::message::MAX_LEN + 1]] {
        let rig = Rig::new(&["ib_uverbs"], &[]);
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        Link::new(pair.1).send(garbage).unwrap();
        rig.loader.take_answers(&Link::new(pair.0));
        assert!(rig.loader.work.is_lost());
    }
}

#[test]
fn garbage_from_the_serving_process_ends_the_inserting_process_and_inserts_nothing() {
    let rig = Rig::new(&["ib_uverbs"], &[]);
    let evil = br#"{"id":1,"module":"../evil","path":[47],"parameters":[]}"#;
    for garbage in [&b"garbage"[..], evil, &[b'x'; crate::message::MAX_LEN + 1]] {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (ours, theirs) = (Link::new(pair.0), Arc::new(Link::new(pair.1)));
        ours.send(garbage).unwrap();
        inserter::serve(&theirs, &rig.inserter);
    }
    assert!(rig.given().is_empty());
}

#[test]
fn the_inserting_process_refuses_paths_outside_the_module_trees() {
    let rig = Rig::new(&[], &[]);
    for path in ["/etc/hostname", "../../modprobe.d/x", "kernel/../../../x"] {
        let outcome = rig.inserter.carry_out(&crate::message::Order {
            id: 1,
            module: ModuleName::parse("evil").unwrap(),
            path: path.into(),
            parameters: Vec::new(),
        });
        let crate::message::Outcome::Failed(failure) = outcome else {
            panic!("{path}: {outcome:?}");
        };
        assert_eq!(failure.errno, Errno::EPERM as i32, "{path}");
    }
    assert!(rig.given().is_empty());
}

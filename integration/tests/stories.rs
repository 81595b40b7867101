//! Random stories of a host with its three services: hardware is added and removed, administrators
//! load, remove, forbid and permit modules, packages replace depmod's files, and services are
//! killed. After each quiet moment, the replies of the services are compared with the model. One
//! lab runs many stories, one after the other; `RDMA_HOTPLUG_STORIES` sets their number.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

mod with_lab;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use integration::environment::number;
use integration::host::Hardware;
use integration::lab::Lab;
use interfaces::client::{Client, ClientErrorKind};
use interfaces::detector::{self, Protocol};
use interfaces::loader;
use interfaces::orchestrator::{
    self, DescribeArgs, DescribeReply, Device, ExplainArgs, ExplainModuleArgs, ExplainModuleReply,
    ExplainReply, Function, FunctionState, ListFunctionsReply, ListReply, Module, ModuleState,
    ReconcileArgs, State, WaitArgs, WaitReply,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use with_lab::with_lab;

const SERVICES: [&str; 3] = ["rdma-detector", "rdma-loader", "rdma-orchestrator"];
const DEADLINE: Duration = Duration::from_secs(60);
/// The time from a change on disk to the orchestrator's second request for modules
/// (`orchestrator/src/machine.rs`), and the time that the loads of that request may take.
const SECOND_LOOK: Duration = Duration::from_secs(2);
const SECOND_LOOK_TAKES: Duration = Duration::from_millis(500);
/// Modules without users, so that each can be removed and forbidden alone.
const LEAVES: [&str; 5] = ["ib_ipoib", "ib_iser", "ib_umad", "rdma_ucm", "rpcrdma"];
/// A function without a driver, and the alias that leads to its driver.
const FUNCTION: &str = "ffff:00:00.0";
const DRIVER: &str = "mlx5_core";
const MODALIAS: &str = "pci:v000015B3d00001017sv000015B3sd00000006bc02sc07i00";
/// The administrator's file.
const BANS: &str = "stories.conf";

/// Returns the modules that rdma-core's lists name for a device with such ports.
fn wanted(protocol: Protocol) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::from(["ib_iser", "ib_uverbs", "rdma_ucm", "svcrdma", "xprtrdma"]);
    match protocol {
        Protocol::Infiniband => names.extend(["ib_ipoib", "ib_umad"]),
        Protocol::Opa => names.extend(["ib_ipoib", "ib_umad", "opa_vnic"]),
        _ => {}
    }
    names
}

/// Returns the module of a name.
fn stands_for(name: &str) -> &str {
    match name {
        "svcrdma" | "xprtrdma" => "rpcrdma",
        name => name,
    }
}

/// A device that is plugged in.
#[derive(Clone, Debug)]
struct Plugged {
    name: String,
    protocol: Protocol,
}

impl Plugged {
    /// Returns true if a rule requests this module for the device, under any name.
    fn wants(&self, module: &str) -> bool {
        let mut names = wanted(self.protocol).into_iter();
        names.any(|name| stands_for(name) == module)
    }
}

/// The model: the state of the host, except for what the kernel itself shows.
#[derive(Debug, Default)]
struct Truth {
    devices: BTreeMap<u32, Plugged>,
    function: bool,
    /// The modules that modprobe.d forbids.
    banned: BTreeSet<&'static str>,
    /// The modules that the policy does not list.
    denied: BTreeSet<&'static str>,
    /// The module that the kernel refuses.
    refused: &'static str,
    /// The modules that an administrator removed, each with the number of the first device that was
    /// added later.
    removed: BTreeMap<&'static str, u32>,
    /// True if depmod's index is missing.
    no_index: bool,
    /// The time of the orchestrator's second look after the last change on disk.
    second_look: Option<Instant>,
    /// The number of the next device.
    next: u32,
    /// The changes so far, printed if a test fails.
    story: Vec<String>,
}

/// The runner of the stories, one after the other on one lab.
struct Teller<'l> {
    lab: &'l mut Lab,
    random: fastrand::Rng,
    truth: Truth,
    policy: String,
}

impl Teller<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.lab.directory().join(path)
    }

    fn tell(&mut self, what: String) {
        self.truth.story.push(what);
    }

    /// Makes one random change.
    async fn chance(&mut self) {
        // Without an index there is little to compare.
        if self.truth.no_index && self.random.bool() {
            return self.index().await;
        }
        match self.random.u32(0..20) {
            0..4 => self.plug(),
            4..6 => self.unplug(),
            6 => self.rename(),
            7..9 => self.insert(),
            9..11 => self.remove(),
            11..13 => self.ban().await,
            13 => self.deny().await,
            14 => self.function().await,
            15 => self.index().await,
            16 => self.replace_directory().await,
            _ => self.kill().await,
        }
    }

    fn plug(&mut self) {
        if self.truth.devices.len() >= 6 {
            return;
        }
        let protocol = self
            .random
            .choice([Protocol::Infiniband, Protocol::Opa, Protocol::Roce]);
        let (protocol, next) = (protocol.unwrap(), self.truth.next);
        let name = format!("device{next}");
        self.truth.next += 1;
        let hardware = Hardware {
            name: name.clone(),
            driver: DRIVER,
            pci_address: format!("{:04x}:{:02x}:00.0", next >> 8, next & 0xff),
            ports: vec![protocol],
        };
        let index = self.lab.kernel().plug(hardware).unwrap();
        self.tell(format!("{name} ({index}, {protocol:?}) is plugged in"));
        self.truth.devices.insert(index, Plugged { name, protocol });
    }

    fn any_device(&mut self) -> Option<u32> {
        let indexes: Vec<u32> = self.truth.devices.keys().copied().collect();
        self.random.choice(indexes)
    }

    fn unplug(&mut self) {
        if let Some(index) = self.any_device() {
            self.lab.kernel().unplug(index).unwrap();
            self.tell(format!("{index} is pulled out"));
            self.truth.devices.remove(&index);
        }
    }

    fn rename(&mut self) {
        if let Some(index) = self.any_device() {
            let name = format!("renamed{}", self.truth.next);
            self.truth.next += 1;
            self.lab.kernel().rename(index, &name).unwrap();
            self.tell(format!("{index} is called {name}"));
            self.truth.devices.get_mut(&index).unwrap().name = name;
        }
    }

    fn leaf(&mut self) -> &'static str {
        self.random.choice(LEAVES).unwrap()
    }

    /// Inserts a module, as another program would.
    fn insert(&mut self) {
        let leaf = self.leaf();
        if !self.lab.kernel().is_live(leaf) {
            self.lab.kernel().insert(leaf).unwrap();
            self.tell(format!("{leaf} is inserted by others"));
            self.truth.removed.remove(leaf);
        }
    }

    fn remove(&mut self) {
        let leaf = self.leaf();
        if self.lab.kernel().is_live(leaf) {
            self.lab.kernel().remove(leaf).unwrap();
            self.tell(format!("{leaf} is removed"));
            self.truth.removed.insert(leaf, self.truth.next);
        }
    }

    async fn ban(&mut self) {
        let leaf = self.leaf();
        if !self.truth.banned.remove(leaf) {
            self.truth.banned.insert(leaf);
        }
        self.write_bans().await;
    }

    async fn write_bans(&mut self) {
        let line = |name: &&str| format!("blacklist {name}\n");
        let text: String = self.truth.banned.iter().map(line).collect();
        // Editors replace files in this way.
        let new = self.path("etc/modprobe.d/new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path("etc/modprobe.d").join(BANS)).unwrap();
        self.tell(format!("banned are {:?}", self.truth.banned));
        self.path_unit().await;
    }

    async fn deny(&mut self) {
        let leaf = self.leaf();
        if !self.truth.denied.remove(leaf) {
            self.truth.denied.insert(leaf);
        }
        let without = |text: String, name: &&str| text.replace(&format!("\"{name}\""), "\"other\"");
        let text = self.truth.denied.iter().fold(self.policy.clone(), without);
        let policy = self.path("usr/lib/rdma-hotplug/loader.d/50-rdma.toml");
        fs::write(policy.with_extension("new"), text).unwrap();
        fs::rename(policy.with_extension("new"), policy).unwrap();
        self.tell(format!("denied are {:?}", self.truth.denied));
        self.path_unit().await;
    }

    /// Adds or removes a function whose driver is banned. (The services would wait for a driver
    /// that may still be loaded.)
    async fn function(&mut self) {
        if self.truth.function {
            self.lab.kernel().unplug_function(FUNCTION).unwrap();
            self.tell("the function is pulled out".to_owned());
            self.truth.function = false;
            self.truth.banned.remove(DRIVER);
            self.write_bans().await;
        } else {
            self.truth.banned.insert(DRIVER);
            self.write_bans().await;
            self.lab.kernel().plug_function(FUNCTION, MODALIAS).unwrap();
            self.tell("a function without a driver is plugged in".to_owned());
            self.truth.function = true;
        }
    }

    /// Removes depmod's index, or puts it back.
    async fn index(&mut self) {
        let tree = self.path("lib/modules/6.12-lab");
        let (index, away) = (tree.join("modules.dep.bin"), tree.join("away"));
        if self.truth.no_index {
            fs::rename(away, index).unwrap();
            self.tell("the index is back".to_owned());
            self.truth.no_index = false;
            self.path_unit().await;
        } else {
            fs::rename(index, away).unwrap();
            self.tell("the index is away".to_owned());
            self.truth.no_index = true;
        }
    }

    /// Replaces a directory by a new one, as a mount does. The loader may not read it.
    async fn replace_directory(&mut self) {
        let (directory, old) = (self.path("etc/modprobe.d"), self.path("etc/old"));
        fs::rename(&directory, &old).unwrap();
        fs::create_dir(&directory).unwrap();
        for entry in fs::read_dir(&old).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
        }
        fs::remove_dir_all(old).unwrap();
        self.tell("modprobe.d is another directory".to_owned());
        // The loader exits by itself when it gets a request, and there is no service manager to
        // start it again.
        self.restart("rdma-loader").await;
        self.path_unit().await;
    }

    async fn kill(&mut self) {
        // A start waits for unknown modules.
        if !self.truth.no_index {
            let service = self.random.choice(SERVICES).unwrap();
            // The kill happens at a moment without an event, while the services work on a change.
            for _ in 0..self.random.u32(0..200) {
                tokio::task::yield_now().await;
            }
            self.restart(service).await;
        }
    }

    async fn restart(&mut self, service: &'static str) {
        self.lab.service(service).unwrap().kill().await.unwrap();
        self.lab.restart(service).await.unwrap();
        self.tell(format!("{service} was killed"));
    }

    /// Does what rdma-hotplug-modules.path does when files of modules change on disk.
    async fn path_unit(&mut self) {
        let args = ReconcileArgs {
            only_missing: Some(true),
        };
        let _: Value = self
            .call("Orchestrator", orchestrator::RECONCILE, &args)
            .await;
        self.truth.second_look = Some(Instant::now() + SECOND_LOOK);
    }

    async fn connect(&self, service: &str) -> Client {
        let socket = self.lab.socket(&format!("org.rdmahotplug.{service}"));
        Client::connect(&socket).await.unwrap()
    }

    async fn call<R: DeserializeOwned>(
        &self,
        service: &str,
        method: &'static str,
        args: &impl Serialize,
    ) -> R {
        let mut client = self.connect(service).await;
        client.call(method, args, DEADLINE).await.unwrap()
    }

    async fn all<R: DeserializeOwned>(&self, service: &str, method: &'static str) -> Vec<R> {
        let client = self.connect(service).await;
        let mut replies = client.stream(method, &json!({})).await.unwrap();
        let mut all = Vec::new();
        while let Ok(Some(reply)) = replies.next().await {
            all.push(reply);
        }
        all
    }

    /// Waits for all devices. Returns true if they are settled, and false if a module is unknown.
    async fn wait(&self) -> bool {
        // With unknown modules, a single call would never return.
        loop {
            match self.wait_once().await {
                Some(true) => return true,
                Some(false) => {}
                None => continue,
            }
            let listed: Vec<ListReply> = self.all("Orchestrator", orchestrator::LIST).await;
            let mut modules = listed.iter().flat_map(|reply| &reply.device.modules);
            if modules.any(|module| module.state == ModuleState::Unknown) {
                return false;
            }
        }
    }

    /// Returns `None` if the time was over before the detector had answered.
    async fn wait_once(&self) -> Option<bool> {
        let timeout = self.truth.no_index.then_some(100_000);
        let args = WaitArgs {
            name: None,
            conditions: None,
            timeout_usec: timeout,
        };
        let mut client = self.connect("Orchestrator").await;
        let waited: Result<WaitReply, _> = client.call(orchestrator::WAIT, &args, DEADLINE).await;
        match waited {
            Ok(reply) => {
                assert!(reply.device.is_none());
                Some(true)
            }
            Err(e) => match &e.kind {
                ClientErrorKind::Answered { name, parameters }
                    if name == orchestrator::WAIT_TIMED_OUT =>
                {
                    assert!(self.truth.no_index, "timed out: {e:?}");
                    let missing = parameters.as_ref().unwrap()["waitingFor"].as_array();
                    let detector = |what: &Value| {
                        what.as_str()
                            .is_some_and(|what| what.starts_with("the detector's reply"))
                    };
                    (!missing.unwrap().iter().any(detector)).then_some(false)
                }
                _ => panic!("{e:?}"),
            },
        }
    }

    /// Returns true if a device wants the module.
    fn is_wanted(&self, leaf: &str) -> bool {
        let mut devices = self.truth.devices.values();
        devices.any(|device| device.wants(leaf))
    }

    /// Returns the error in the reported state of a module, or `None` if it is right.
    fn falsehood(&self, module: &Module) -> Option<String> {
        let (name, state) = (stands_for(&module.name), module.state);
        let is = |expected: ModuleState| {
            (state != expected).then(|| format!("{state:?}, and not {expected:?}"))
        };
        if self.lab.kernel().is_live(name) {
            return is(ModuleState::Live);
        }
        if state == ModuleState::Live || state == ModuleState::Pending {
            return Some(format!("{state:?}, and it is not live"));
        }
        // The state from before the removal of the index stays: the path unit does not notice the
        // removal.
        if self.truth.no_index {
            return None;
        }
        // A module that an administrator removed stays unloaded until a device is added that wants
        // it.
        if state == ModuleState::Unloaded {
            let Some(since) = self.truth.removed.get(name) else {
                return Some("Unloaded, and nobody has removed it".to_owned());
            };
            let later = self.truth.devices.range(since..);
            let mut later = later.filter(|(_, device)| device.wants(name));
            return later
                .next()
                .map(|_| "Unloaded, and a device has come since".to_owned());
        }
        if name == "opa_vnic" {
            return is(ModuleState::Missing);
        }
        if self.truth.denied.contains(name) {
            return is(ModuleState::Denied);
        }
        if self.truth.banned.contains(name) {
            let names_the_file = module.message.as_ref().is_some_and(|m| m.contains(BANS));
            return is(ModuleState::Excluded)
                .or_else(|| (!names_the_file).then(|| format!("{:?}", module.message)));
        }
        if self.truth.refused == name {
            return is(ModuleState::Failed);
        }
        Some(format!("{state:?}, and nothing is against it"))
    }

    /// Compares all reports of the services with the model. A second look of the orchestrator requests
    /// modules again, so a check during which it fell is not of one moment, and is repeated once.
    async fn check(&self) -> Result<(), String> {
        let start = Instant::now();
        let checked = self.check_once().await;
        let fell_into_it = self.truth.second_look.is_some_and(|second_look| {
            start <= second_look + SECOND_LOOK_TAKES && second_look <= Instant::now()
        });
        match checked {
            Err(_) if fell_into_it => self.check_once().await,
            checked => checked,
        }
    }

    async fn check_once(&self) -> Result<(), String> {
        let settled = self.wait().await;
        let listed: Vec<ListReply> = self.all("Orchestrator", orchestrator::LIST).await;
        let devices: BTreeMap<i64, Device> = listed
            .into_iter()
            .map(|reply| (reply.device.index, reply.device))
            .collect();
        let names: BTreeMap<i64, &str> = devices
            .iter()
            .map(|(index, device)| (*index, device.name.as_str()))
            .collect();
        let is: BTreeMap<i64, &str> = self
            .truth
            .devices
            .iter()
            .map(|(index, device)| (i64::from(*index), device.name.as_str()))
            .collect();
        if names != is {
            return Err(format!("devices {names:?}, and not {is:?}"));
        }
        let mut unknown = false;
        for (index, device) in &devices {
            self.check_device(device).await?;
            unknown |= device
                .modules
                .iter()
                .any(|m| m.state == ModuleState::Unknown);
            let args = ExplainArgs {
                name: None,
                index: Some(*index),
            };
            let explained: ExplainReply = self
                .call("Orchestrator", orchestrator::EXPLAIN, &args)
                .await;
            if explained.device != *device {
                return Err(format!("{device:?}, explained as {:?}", explained.device));
            }
        }
        if settled == unknown {
            return Err(format!(
                "settled is {settled}, and modules are unknown: {unknown}"
            ));
        }
        let described: DescribeReply = self
            .call("Orchestrator", orchestrator::DESCRIBE, &DescribeArgs {})
            .await;
        if described.settled != settled || !described.detector_connected {
            return Err(format!("{described:?}"));
        }
        self.check_modules().await?;
        self.check_functions().await?;
        self.check_others().await
    }

    async fn check_device(&self, device: &Device) -> Result<(), String> {
        let plugged = &self.truth.devices[&u32::try_from(device.index).unwrap()];
        let names: BTreeSet<&str> = device.modules.iter().map(|m| m.name.as_str()).collect();
        if names != wanted(plugged.protocol) {
            return Err(format!("{} wants {names:?}", device.name));
        }
        for module in &device.modules {
            if let Some(why) = self.falsehood(module) {
                return Err(format!("{} for {}: {why}", module.name, device.name));
            }
        }
        let holds_back = |module: &Module| {
            let state = module.state;
            !matches!(
                state,
                ModuleState::Live | ModuleState::Missing | ModuleState::Excluded
            )
        };
        let ready = !device.modules.iter().any(holds_back);
        if (device.state == State::Ready) != ready {
            return Err(format!("{device:#?}"));
        }
        Ok(())
    }

    async fn check_modules(&self) -> Result<(), String> {
        for leaf in LEAVES {
            let args = ExplainModuleArgs {
                module: leaf.to_owned(),
            };
            let mut client = self.connect("Orchestrator").await;
            let explained: Result<ExplainModuleReply, _> = client
                .call(orchestrator::EXPLAIN_MODULE, &args, DEADLINE)
                .await;
            match explained {
                Ok(reply) if self.is_wanted(leaf) => {
                    if let Some(why) = self.falsehood(&reply.module) {
                        return Err(format!("{leaf}, explained: {why}"));
                    }
                }
                // Without an index, the module of a name is unknown.
                Err(_) if self.truth.no_index || !self.is_wanted(leaf) => {}
                other => return Err(format!("{leaf}: {other:?}")),
            }
        }
        Ok(())
    }

    async fn check_functions(&self) -> Result<(), String> {
        let listed: Vec<ListFunctionsReply> =
            self.all("Orchestrator", orchestrator::LIST_FUNCTIONS).await;
        let functions: Vec<Function> = listed.into_iter().map(|reply| reply.function).collect();
        match (functions.as_slice(), self.truth.function) {
            ([], false) => Ok(()),
            ([function], true)
                if function.state == FunctionState::Excluded
                    && function.waiting_for.contains(BANS) =>
            {
                Ok(())
            }
            // Without an index, a function's module is unknown, and the function is not reported.
            ([_], true) if self.truth.no_index => Ok(()),
            (functions, _) => Err(format!("functions: {functions:?}")),
        }
    }

    async fn check_others(&self) -> Result<(), String> {
        let listed: Vec<detector::ListReply> = self.all("Detector", detector::LIST).await;
        let names: BTreeSet<&str> = listed.iter().map(|r| r.device.name.as_str()).collect();
        let is: BTreeSet<&str> = self
            .truth
            .devices
            .values()
            .map(|d| d.name.as_str())
            .collect();
        if names != is {
            return Err(format!("the detector lists {names:?}, and not {is:?}"));
        }
        let listed: Vec<loader::ListReply> = self.all("Loader", loader::LIST).await;
        for reply in listed {
            let live = self.lab.kernel().is_live(&reply.module);
            if (reply.state == loader::ModuleState::Live) != live {
                return Err(format!("the loader lists {reply:?}"));
            }
        }
        Ok(())
    }
}

/// Case sections 1 to 4 and 6, in any combination.
#[test]
fn the_replies_of_the_services_match_the_model_after_any_story() {
    let stories = number("RDMA_HOTPLUG_STORIES", 120);
    let seed = number("RDMA_HOTPLUG_SEED", fastrand::u64(..));
    with_lab(Vec::new(), async |lab| {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = lab
            .directory()
            .join("usr/lib/rdma-hotplug/loader.d/50-rdma.toml");
        let policy = fs::read_to_string(policy).unwrap();
        let truth = Truth {
            refused: random.choice(LEAVES).unwrap(),
            ..Truth::default()
        };
        lab.kernel().refuse(truth.refused);
        let mut teller = Teller {
            lab,
            random,
            truth,
            policy,
        };
        for story in 0..stories {
            for _ in 0..teller.random.u32(1..5) {
                teller.chance().await;
            }
            let checked = teller.check().await;
            let truth = &teller.truth;
            if let Err(why) = checked {
                let last = truth.story.len().saturating_sub(40);
                let lines = truth.story[last..].join("\n  ");
                let log = |name: &str| {
                    let path = teller.lab.directory().join(format!("log/{name}.log"));
                    let log = fs::read_to_string(path).unwrap_or_default();
                    let last = log.lines().rev().take(30).collect::<Vec<_>>();
                    last.into_iter().rev().collect::<Vec<_>>().join("\n  ")
                };
                let logs = SERVICES
                    .map(|name| format!("{name}:\n  {}", log(name)))
                    .join("\n");
                panic!(
                    "RDMA_HOTPLUG_SEED={seed}, story {story}: {why}\n  {lines}\n{logs}\nrefused: {}",
                    truth.refused
                );
            }
            teller.tell(format!("-- story {story} ends"));
        }
    });
}

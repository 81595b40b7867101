//! The planner compared with libkmod 34.2: all modules, many aliases, and random configurations.
//! The two must not differ in anything. Needs the guest tree, whose libkmod and module tree are
//! used, and a C compiler. Does not need root.
//!
//! Prints its seed. RDMA_HOTPLUG_SEED replays a seed.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong, and a seed has to be seen"
)]

#[path = "modprobe/configuration.rs"]
mod configuration;
#[path = "modprobe/oracle.rs"]
mod oracle;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use integration::kernel::KERNEL_VARIABLE;
use loader::plan::Planner;
use loader::policy::Policy;
use loader::snapshot::Sources;
use oracle::{Oracle, Script};
use tempfile::TempDir;

const POLICY: &str = include_str!("../../deploy/root/usr/lib/rdma-hotplug/loader.d/50-rdma.toml");
/// The least number of names to compare, over all modules and aliases.
const MIN_NAMES: usize = 60_000;
/// The number of random configurations to try, each with many names.
const CONFIGURATIONS: usize = 2_000;

fn seed() -> u64 {
    let given = std::env::var("RDMA_HOTPLUG_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("RDMA_HOTPLUG_SEED={seed}");
    seed
}

/// Returns the names on the lines of one of depmod's text files.
fn words(path: &Path, word: usize) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.filter_map(|line| line.split(' ').nth(word));
    words.map(str::to_owned).collect()
}

fn module_names(tree: &Path) -> Vec<String> {
    let paths = words(&tree.join("modules.dep"), 0);
    let file = |path: String| path.rsplit('/').next().unwrap().to_owned();
    let names = paths.into_iter().map(file);
    names
        .map(|file| file.split('.').next().unwrap().to_owned())
        .collect()
}

/// Returns a text that a pattern matches, with the wildcards filled at random.
fn instance(pattern: &str, rng: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => {
                for _ in 0..[0, 0, 1, 4, 8][rng.usize(..5)] {
                    text.push(char::from(*rng.choice(b"0123456789ABCDEF").unwrap()));
                }
            }
            '?' => text.push(rng.alphanumeric()),
            '[' => {
                let inside: Vec<char> = rest.by_ref().take_while(|c| *c != ']').collect();
                text.push(*inside.first().unwrap());
            }
            c => text.push(c),
        }
    }
    text
}

/// Returns a text with random changes.
fn mutation(text: &str, rng: &mut fastrand::Rng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..rng.usize(1..3) {
        let at = rng.usize(..=chars.len());
        let c = char::from(*rng.choice(b"aAz09_-.:*?[]\\ ~").unwrap());
        match rng.u8(..3) {
            0 => chars.insert(at, c),
            1 if at < chars.len() => chars[at] = c,
            _ => drop((at < chars.len()).then(|| chars.remove(at))),
        }
    }
    chars.into_iter().collect()
}

/// Returns our planner's results for all names, in the oracle's output format.
fn ours(sources: &Sources, names: &[String]) -> Vec<String> {
    let snapshot = sources.snapshot().unwrap();
    let exists = |path: &[u8]| {
        let path = String::from_utf8_lossy(path).into_owned();
        sources.module_tree.join(path).exists()
    };
    let planner = Planner {
        indexes: &snapshot.indexes,
        config: &snapshot.config,
        exists: &exists,
        admit: &|_| true,
        merge_softdeps: false,
    };
    names
        .iter()
        .map(|name| answer(&planner, &sources.module_tree, name))
        .collect()
}

fn answer(planner: &Planner<'_>, tree: &Path, name: &str) -> String {
    let mut answer = String::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for found in planner.look_up(name.as_bytes()).unwrap_or_default() {
        answer += &format!("module {}\n", text(&found.module));
        let plan = planner.plan(&found).unwrap();
        if plan.blacklisted.is_some() && plan.by_alias {
            continue;
        }
        let path = |file: &[u8]| tree.join(text(file)).display().to_string().into_bytes();
        for line in plan.steps.iter().filter_map(|step| step.printed(path)) {
            answer += &text(&line);
            answer.push('\n');
        }
    }
    answer
}

/// Runs all scripts on both, and fails at the first difference.
fn compare(oracle: &Oracle, scripts: &[Script]) {
    let theirs = oracle.answers(scripts);
    let mut theirs = theirs.into_iter();
    for script in scripts {
        let sources = script.sources();
        for (name, ours) in script.names.iter().zip(ours(&sources, &script.names)) {
            let theirs = theirs.next().unwrap();
            assert_eq!(ours, theirs, "{name:?} with {}", script.told());
        }
    }
}

#[test]
fn every_module_and_alias_of_a_debian_kernel_has_the_plan_that_libkmod_makes() {
    let oracle = Oracle::build();
    let mut rng = fastrand::Rng::with_seed(seed());
    let tree = oracle.module_tree();
    let mut names = module_names(&tree);
    let modules = names.len();
    names.extend(
        words(&tree.join("modules.builtin"), 0)
            .into_iter()
            .map(|path| {
                let file = path.rsplit('/').next().unwrap();
                file.split('.').next().unwrap().to_owned()
            }),
    );
    for pattern in words(&tree.join("modules.alias"), 1) {
        let instance = instance(&pattern, &mut rng);
        names.push(mutation(&instance, &mut rng));
        names.push(instance);
        if rng.u8(..4) == 0 {
            names.push(pattern);
        }
    }
    let symbols = words(&tree.join("modules.symbols"), 1);
    names.extend(symbols.into_iter().filter(|_| rng.u8(..8) == 0));
    names.extend((0..2_000).map(|_| mutation("ib_core", &mut rng)));
    names.retain(|name| !name.contains('\n') && !name.is_empty());
    assert!(
        modules > 4_000 && names.len() > MIN_NAMES,
        "{}",
        names.len()
    );
    println!("{modules} modules, {} names in all", names.len());
    let script = Script {
        names,
        ..Script::of_the_guest(&oracle)
    };
    compare(&oracle, &[script]);
}

#[test]
fn random_configurations_give_the_plans_that_libkmod_makes() {
    let oracle = Oracle::build();
    let mut rng = fastrand::Rng::with_seed(seed());
    let dir = TempDir::new().unwrap();
    let trees = configuration::trees(&oracle.module_tree(), dir.path(), &mut rng);
    let all_modules = module_names(&oracle.module_tree());
    // The batches keep the number of files on disk small.
    for batch in 0..CONFIGURATIONS / 100 {
        let batch = dir.path().join(batch.to_string());
        let scripts: Vec<Script> = (0..100)
            .map(|number| {
                let at = batch.join(number.to_string());
                configuration::random(&at, &trees, &all_modules, &mut rng)
            })
            .collect();
        compare(&oracle, &scripts);
        fs::remove_dir_all(&batch).unwrap();
    }
}

/// Case S5 (nvme-cli#651): no module that uses the RDMA core is missing from the shipped policy, except
/// drivers of RDMA devices, which udev loads, and the core itself.
#[test]
fn the_shipped_policy_names_every_consumer_of_rdma_in_debians_kernel() {
    let path = Path::new("/usr/lib/rdma-hotplug/loader.d/50-rdma.toml");
    let mut policy = Policy::default();
    policy.add(path, POLICY);
    assert_eq!(policy.refused(), [""; 0]);
    let dependencies = fs::read_to_string(Oracle::build().module_tree().join("modules.dep"));
    let mut consumers = 0;
    for line in dependencies.unwrap().lines() {
        let (module, needs) = line.split_once(':').unwrap();
        let devices = ["infiniband/core/", "infiniband/hw/", "infiniband/sw/"];
        if !needs.contains("/ib_core.ko") || devices.iter().any(|part| module.contains(part)) {
            continue;
        }
        let file = module.rsplit('/').next().unwrap();
        let name = file.split('.').next().unwrap().replace('-', "_");
        assert!(policy.allowance(name.as_bytes()).is_some(), "{module}");
        consumers += 1;
    }
    assert!(consumers >= 12, "{consumers}");
}

#[test]
fn the_plan_command_prints_the_output_of_modprobe() {
    let oracle = Oracle::build();
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut names = module_names(&oracle.module_tree());
    rng.shuffle(&mut names);
    names.truncate(150);
    names.extend(["xprtrdma", "ib-core", "virtio_pci", "nosuch", "ib_qib"].map(str::to_owned));
    let root = oracle.root();
    let mut printed = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg0("rdma-loader")
        .env(KERNEL_VARIABLE, "/nonexistent")
        .args(["plan", "--stdin", "--kernel", &oracle.release(), "--root"])
        .arg(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = names.join("\n") + "\n";
    std::io::Write::write_all(&mut printed.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let printed = printed.wait_with_output().unwrap();
    let ours = String::from_utf8(printed.stdout).unwrap();
    let theirs: String = names
        .iter()
        .map(|name| format!("== {name}\n{}", oracle.modprobe(name)))
        .collect();
    assert_eq!(ours, theirs);
    // One of the modules is missing.
    assert_eq!(printed.status.code(), Some(1));
}

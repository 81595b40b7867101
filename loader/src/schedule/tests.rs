//! Tests of the schedule with a model of the kernel that has its own clock: the required order, and
//! the distance of the total time from its lower bound.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// The seeds. A failing test prints its seed.
const SEEDS: std::ops::Range<u64> = 0..300;

fn name(name: &str) -> ModuleName {
    ModuleName::parse(name).unwrap()
}

fn node(module: &str, weight: u64, needs: &[usize], after: &[usize]) -> Node {
    Node {
        module: name(module),
        weight,
        needs: needs.to_vec(),
        after: after.to_vec(),
    }
}

/// A model of the kernel: the live modules, the clock, and all modules that it received.
struct Model {
    schedule: Schedule<&'static str>,
    /// The load time of each module, in µs.
    costs: HashMap<ModuleName, u64>,
    /// The modules that fail.
    broken: Vec<ModuleName>,
    live: BTreeSet<ModuleName>,
    given: Vec<ModuleName>,
    now: u64,
    most_at_once: usize,
    /// The nodes of each request, for checks.
    nodes: BTreeMap<RequestId, Vec<Node>>,
}

impl Model {
    fn new(costs: HashMap<ModuleName, u64>) -> Self {
        Self {
            schedule: Schedule::default(),
            costs,
            broken: Vec::new(),
            live: BTreeSet::new(),
            given: Vec::new(),
            now: 0,
            most_at_once: 0,
            nodes: BTreeMap::new(),
        }
    }

    fn add(&mut self, nodes: Vec<Node>) -> RequestId {
        let id = self.schedule.add(nodes.clone());
        self.nodes.insert(id, nodes);
        id
    }

    /// Runs until nothing is left to do, on this number of threads. Returns the elapsed time.
    fn run(&mut self, threads: usize) -> u64 {
        let start = self.now;
        let mut running: BTreeMap<(u64, ModuleName), Result<bool, &'static str>> = BTreeMap::new();
        loop {
            while running.len() < threads
                && let Some((id, at)) = self.schedule.start()
            {
                let (module, outcome) = self.give(id, at);
                let busy = running.keys().any(|(_, other)| *other == module);
                assert!(!busy, "{module} twice at once");
                let cost = match outcome {
                    Ok(false) => 0,
                    _ => self.costs.get(&module).copied().unwrap_or(1),
                };
                running.insert((self.now + cost, module), outcome);
            }
            self.most_at_once = self.most_at_once.max(running.len());
            let Some(((end, module), outcome)) = running.pop_first() else {
                return self.now - start;
            };
            self.now = end;
            if outcome == Ok(true) {
                self.live.insert(module.clone());
            }
            self.schedule.done(&module, &outcome);
        }
    }

    /// Gives the kernel a module, after a check that this is allowed.
    fn give(&mut self, id: RequestId, at: usize) -> (ModuleName, Result<bool, &'static str>) {
        let nodes = &self.nodes[&id];
        let node = &nodes[at];
        let module = node.module.clone();
        for needed in &node.needs {
            let needed = &nodes[*needed].module;
            assert!(self.live.contains(needed), "{module} before {needed}");
        }
        let ends = self.schedule.ends(id);
        for before in &node.after {
            assert!(ends[*before].is_some(), "{module} too early");
        }
        if self.live.contains(&module) {
            return (module, Ok(false));
        }
        self.given.push(module.clone());
        let broken = self.broken.contains(&module);
        let outcome = if broken { Err("broken") } else { Ok(true) };
        (module, outcome)
    }

    fn end(&self, id: RequestId, at: usize) -> End<&'static str> {
        self.schedule.ends(id)[at].unwrap().clone()
    }
}

/// The dependencies and costs of the RDMA modules of a Debian kernel.
struct Debian {
    needs: HashMap<String, Vec<String>>,
    /// The size in bytes, and the load time in µs.
    costs: HashMap<String, (u64, u64)>,
}

impl Debian {
    fn new() -> Self {
        let listing = include_str!("../../tests/fixtures/modules/modules.dep");
        let name = |path: &str| {
            let file = path.rsplit('/').next().unwrap();
            file.split('.').next().unwrap().replace('-', "_")
        };
        let lines = listing.lines().map(|line| line.split_once(':').unwrap());
        let needs = lines.map(|(path, needs)| {
            (
                name(path),
                needs.split_whitespace().rev().map(name).collect(),
            )
        });
        let costs = include_str!("../../tests/fixtures/costs.tsv").lines();
        let costs = costs.filter(|line| !line.starts_with('#')).map(|line| {
            let mut fields = line.split('\t');
            let module = fields.next().unwrap().to_owned();
            let mut number = || fields.next().unwrap().parse().unwrap();
            (module, (number(), number()))
        });
        Self {
            needs: needs.collect(),
            costs: costs.collect(),
        }
    }

    /// Returns the nodes of a list of modules, weighted by the size of their files alone: the
    /// loader knows nothing else.
    fn nodes(&self, modules: &[&str]) -> Vec<Node> {
        let mut order: Vec<&str> = Vec::new();
        for module in modules {
            let needs = self.needs[*module].iter().map(String::as_str);
            for one in needs.chain([*module]) {
                if !order.contains(&one) {
                    order.push(one);
                }
            }
        }
        let at = |module: &String| order.iter().position(|other| other == module).unwrap();
        let node = |module: &&str| Node {
            module: name(module),
            weight: self.costs[*module].0,
            needs: self.needs[*module].iter().map(at).collect(),
            after: Vec::new(),
        };
        order.iter().map(node).collect()
    }

    fn model(&self) -> Model {
        let costs = self.costs.iter();
        Model::new(
            costs
                .map(|(module, (_, cost))| (name(module), *cost))
                .collect(),
        )
    }
}

/// Returns the total cost, and the cost of the costliest chain. No schedule can be faster than the
/// second, nor than the first divided by the number of threads.
fn bounds(nodes: &[Node], costs: &HashMap<ModuleName, u64>) -> (u64, u64) {
    let mut ends: Vec<u64> = Vec::new();
    for node in nodes {
        let earlier = node.needs.iter().chain(&node.after).map(|at| ends[*at]);
        ends.push(earlier.max().unwrap_or_default() + costs[&node.module]);
    }
    let total = nodes.iter().map(|node| costs[&node.module]).sum();
    (total, ends.into_iter().max().unwrap_or_default())
}

const MLX5_HOST: [&str; 10] = [
    "ib_uverbs",
    "rdma_ucm",
    "ib_umad",
    "ib_ipoib",
    "iw_cm",
    "rpcrdma",
    "ib_iser",
    "ib_cm",
    "rdma_cm",
    "mlx5_ib",
];

#[test]
fn the_schedule_of_real_hosts_is_within_a_tenth_of_the_lower_bound() {
    let debian = Debian::new();
    let with = |driver: &'static str| {
        let mut modules = MLX5_HOST;
        modules[9] = driver;
        modules.to_vec()
    };
    let everything: Vec<&str> = debian.needs.keys().map(String::as_str).collect();
    let sets = [
        ("mlx5", with("mlx5_ib")),
        ("hfi1", with("hfi1")),
        ("irdma", with("irdma")),
        ("everything", everything),
    ];
    for (set, modules) in sets {
        for threads in [1, 2, 4, 8, 16] {
            let nodes = debian.nodes(&modules);
            let mut model = debian.model();
            let (total, chain) = bounds(&nodes, &model.costs);
            model.add(nodes);
            let took = model.run(threads);
            let bound = chain.max(total / threads as u64);
            println!("{set}, {threads} threads: {took} µs, at least {bound}, one by one {total}");
            assert!(took * 10 <= bound * 11, "{set}, {threads} threads");
            if set == "mlx5" && threads == 2 {
                assert!(
                    total * 10 >= took * 19,
                    "{total} µs one by one, {took} by two"
                );
            }
        }
    }
}

/// Returns a random request: each node may need and follow some of the earlier ones. As in a
/// kernel, a module has the same dependencies in every request.
fn random(random: &mut fastrand::Rng, pool: usize) -> Vec<Node> {
    let order: Vec<usize> = (0..pool).filter(|_| random.u8(..3) > 0).collect();
    let needed =
        |module: usize, other: usize| other < module && (module * 7 + other * 3).is_multiple_of(5);
    let mut nodes: Vec<Node> = Vec::new();
    for (at, module) in order.iter().enumerate() {
        let earlier = 0..at;
        let needs: Vec<usize> = earlier
            .clone()
            .filter(|other| needed(*module, order[*other]))
            .collect();
        let after: Vec<usize> = earlier.filter(|_| random.u8(..8) == 0).collect();
        nodes.push(node(
            &format!("m{module}"),
            random.u64(1..1000),
            &needs,
            &after,
        ));
    }
    nodes
}

#[test]
fn random_requests_keep_the_order_and_load_no_module_twice() {
    for seed in SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let costs = (0..20).map(|m| (name(&format!("m{m}")), rng.u64(1..1000)));
        let mut model = Model::new(costs.collect());
        let mut pool = 0;
        for _ in 0..rng.usize(1..6) {
            pool = rng.usize(1..20);
            let nodes = random(&mut rng, pool);
            model.add(nodes);
        }
        let threads = rng.usize(1..6);
        model.run(threads);
        let given = model.given.len();
        model.given.sort();
        model.given.dedup();
        assert_eq!(given, model.given.len(), "seed {seed}: {pool}");
        assert!(model.most_at_once <= threads, "seed {seed}");
        for (id, nodes) in &model.nodes {
            for at in 0..nodes.len() {
                let end = model.end(*id, at);
                assert!(matches!(end, End::Live | End::Inserted(_)), "seed {seed}");
            }
        }
    }
}

#[test]
fn no_schedule_exceeds_the_bound_of_list_scheduling() {
    for seed in SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = random(&mut rng, 40);
        let costs = nodes.iter().map(|node| (node.module.clone(), node.weight));
        let mut model = Model::new(costs.collect());
        let (total, chain) = bounds(&nodes, &model.costs);
        model.add(nodes);
        let threads = rng.u64(1..9);
        let took = model.run(usize::try_from(threads).unwrap());
        // Graham's bound: a thread is idle only while the costliest chain runs.
        let bound = total / threads + chain - chain / threads + 1;
        assert!(took <= bound, "seed {seed}: {took} µs, {bound} at most");
    }
}

#[test]
fn a_failure_stops_exactly_the_modules_that_depend_on_it() {
    for seed in SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = random(&mut rng, 20);
        let mut model = Model::new(HashMap::new());
        model.broken = (0..20)
            .filter(|_| rng.u8(..6) == 0)
            .map(|m| name(&format!("m{m}")))
            .collect();
        let id = model.add(nodes.clone());
        model.run(rng.usize(1..4));
        let mut is_live: Vec<bool> = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let held_up = node.needs.iter().any(|needed| !is_live[*needed]);
            let broken = model.broken.contains(&node.module);
            is_live.push(!held_up && !broken);
            match model.end(id, at) {
                End::Live | End::Inserted(_) => assert!(is_live[at], "seed {seed}"),
                End::Failed(_) => assert!(broken && !held_up, "seed {seed}"),
                End::Untried(culprit) => {
                    assert!(held_up, "seed {seed}");
                    assert!(
                        matches!(model.end(id, culprit), End::Failed(_)),
                        "seed {seed}"
                    );
                }
            }
        }
    }
}

#[test]
fn two_requests_with_opposite_orders_both_finish() {
    let mut model = Model::new(HashMap::new());
    model.add(vec![node("a", 1, &[], &[]), node("b", 1, &[], &[0])]);
    model.add(vec![node("b", 1, &[], &[]), node("a", 1, &[], &[0])]);
    model.run(2);
    assert_eq!(model.given.len(), 2);
}

#[test]
fn a_later_request_shares_a_load_in_progress() {
    let mut schedule: Schedule<&str> = Schedule::default();
    let first = schedule.add(vec![node("a", 1, &[], &[])]);
    assert_eq!(schedule.start(), Some((first, 0)));
    let second = schedule.add(vec![node("a", 1, &[], &[]), node("b", 1, &[0], &[])]);
    assert_eq!(schedule.start(), None);
    schedule.done(&name("a"), &Err("broken"));
    assert_eq!(schedule.ends(second)[0], Some(&End::Failed("broken")));
    assert_eq!(schedule.ends(second)[1], Some(&End::Untried(0)));
    // A later request tries it again.
    let third = schedule.add(vec![node("a", 1, &[], &[])]);
    assert_eq!(schedule.start(), Some((third, 0)));
    for id in [first, second, third] {
        schedule.remove(id);
    }
    assert!(schedule.is_empty());
}

#[test]
fn no_module_of_a_removed_request_is_started() {
    let mut schedule: Schedule<&str> = Schedule::default();
    let id = schedule.add(vec![node("a", 1, &[], &[]), node("b", 1, &[], &[])]);
    assert!(schedule.start().is_some());
    schedule.remove(id);
    assert_eq!(schedule.start(), None);
    schedule.done(&name("a"), &Ok(true));
    assert!(schedule.is_empty());
}

//! The requests that wait for modules, and their results, each sent as soon as it is known. Must
//! never delay the result of one name for another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use interfaces::loader::{ModuleResult, Outcome};
use interfaces::names::ModuleName;
use interfaces::server::Peer;
use nix::errno::Errno;
use tokio::sync::mpsc::UnboundedSender;

use super::graph::{Insertion, Placed};
use crate::message::{Failure, Order};
use crate::queue::Queued;
use crate::schedule::{End, RequestId, Schedule};

/// All waiting requests.
#[derive(Default)]
pub struct State {
    /// The schedule of their modules.
    pub schedule: Schedule<Arc<Failure>>,
    /// The requests themselves.
    pub open: HashMap<RequestId, OpenRequest>,
    /// The orders that the inserting process has not answered, by their numbers.
    pub in_flight: BTreeMap<u64, InFlight>,
    /// The number of the next order.
    pub next_order: u64,
    /// The reason that nothing can be inserted any longer.
    pub lost: Option<Failure>,
    /// True if no more orders are sent.
    pub closed: bool,
}

/// A module that the kernel is initialising.
pub struct InFlight {
    /// The module.
    pub module: ModuleName,
    /// The start time, in µs of CLOCK_MONOTONIC.
    pub since: i64,
    /// True if the log reports the load as slow.
    pub told: bool,
}

/// One call of `Load`.
pub struct Request {
    /// The requested modules.
    pub modules: Vec<ModuleName>,
    /// True if each module waits for the one before it.
    pub ordered: bool,
    /// The caller.
    pub peer: Peer,
    /// The reason, in the caller's words.
    pub reason: String,
    /// The time of arrival.
    pub start: Instant,
    /// The channel for the results, each with its position in the request. The caller may have
    /// disconnected.
    pub answers: UnboundedSender<(usize, ModuleResult)>,
}

impl Queued for Request {
    fn is_abandoned(&self) -> bool {
        self.answers.is_closed()
    }
}

/// A request with pending results.
pub struct OpenRequest {
    request: Request,
    /// The outcome of each answered name, for the log.
    told: Vec<String>,
    targets: Vec<Target>,
    /// The file of each node.
    pub insertions: Vec<Insertion>,
}

/// A name of a request that needs modules to be loaded.
struct Target {
    position: usize,
    /// All nodes that are inserted for it, by their position among the insertions.
    nodes: Vec<usize>,
    /// The nodes that must not fail: the modules that the name stands for.
    required: Vec<usize>,
    /// The names of these modules, and of those that were live already.
    stands_for: Option<Vec<String>>,
}

impl OpenRequest {
    /// Creates a open_request without results and without targets.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            told: Vec::new(),
            targets: Vec::new(),
            insertions: Vec::new(),
        }
    }

    /// Makes the name at `position` wait for these nodes, and fail if a required one fails.
    pub fn wait_for(&mut self, position: usize, placed: Placed, stands_for: Option<Vec<String>>) {
        self.targets.push(Target {
            position,
            nodes: placed.nodes,
            required: placed.required,
            stands_for,
        });
    }

    /// Sends the result of the name at `position`.
    pub fn answer(&mut self, position: usize, mut result: ModuleResult) {
        let took = self.request.start.elapsed().as_micros();
        result.duration_usec = i64::try_from(took).unwrap_or(i64::MAX);
        let outcome = match (&result.denied_by, &result.errno_name) {
            (Some(by), _) => format!("{} by {by}", result.outcome),
            (_, Some(errno)) => format!("{} {errno}", result.outcome),
            _ => result.outcome.to_string(),
        };
        self.told.push(format!("{}={outcome}", result.module));
        let _ = self.request.answers.send((position, result));
    }

    /// Logs one line for each request: the caller, the reason and the outcomes.
    fn log(&self, inserted: &[&str]) {
        let request = &self.request;
        let took = request.start.elapsed().as_micros();
        tracing::info!(
            peer.uid = request.peer.uid,
            peer.pid = request.peer.pid,
            reason = request.reason,
            inserted = inserted.join(" "),
            duration_usec = u64::try_from(took).unwrap_or(u64::MAX),
            "load: {}",
            self.told.join(" ")
        );
    }
}

impl State {
    /// Returns the next order, if there is one. It counts as in flight from now on.
    pub fn order(&mut self, now: i64) -> Option<Order> {
        loop {
            let (id, at) = self.schedule.start()?;
            let open_request = self.open.get(&id);
            let Some(insertion) = open_request.and_then(|t| t.insertions.get(at)).cloned() else {
                continue;
            };
            let order = Order {
                id: self.next_order,
                module: insertion.module,
                path: insertion.path,
                parameters: insertion.parameters,
            };
            self.next_order += 1;
            let in_flight = InFlight {
                module: order.module.clone(),
                since: now,
                told: false,
            };
            self.in_flight.insert(order.id, in_flight);
            return Some(order);
        }
    }

    /// Sends the results of each target of a request whose nodes have all ended.
    pub fn answer(&mut self, id: RequestId) {
        let ends = self.schedule.ends(id);
        let Some(open_request) = self.open.get_mut(&id) else {
            return;
        };
        let end = |at: &usize| ends.get(*at).copied().flatten();
        let (done, open) = std::mem::take(&mut open_request.targets)
            .into_iter()
            .partition(|target: &Target| target.nodes.iter().all(|at| end(at).is_some()));
        open_request.targets = open;
        for target in done {
            let result = open_request.result(&target, &ends);
            open_request.answer(target.position, result);
        }
        if open_request.targets.is_empty() {
            let all: Vec<usize> = (0..ends.len()).collect();
            let inserted = open_request.chain(&all, &ends);
            open_request.log(&inserted);
            self.open.remove(&id);
            self.schedule.remove(id);
        }
    }
}

type Ends<'e> = [Option<&'e End<Arc<Failure>>>];

impl OpenRequest {
    fn result(&self, target: &Target, ends: &Ends<'_>) -> ModuleResult {
        let name = self.request.modules.get(target.position);
        let name = name.map(ToString::to_string).unwrap_or_default();
        let mut result = ModuleResult::new(name, Outcome::AlreadyLoaded);
        result.stands_for.clone_from(&target.stands_for);
        let chain = self.chain(&target.nodes, ends);
        if !chain.is_empty() {
            result.outcome = Outcome::Loaded;
        }
        result.chain = chain.into_iter().map(str::to_owned).collect();
        let mut required = target.required.iter();
        if let Some((at, failure)) = required.find_map(|at| failure(*at, ends)) {
            let module = self
                .insertions
                .get(at)
                .map(|insertion| insertion.module.as_str());
            result.outcome = Outcome::Failed;
            result.errno_name = Some(format!("{:?}", Errno::from_raw(failure.errno)));
            result.message = Some(failure.message.clone());
            result.culprit = module.filter(|m| *m != result.module).map(str::to_owned);
        }
        result
    }

    /// Returns the modules that were inserted for these nodes, in the order of insertion.
    fn chain(&self, nodes: &[usize], ends: &Ends<'_>) -> Vec<&str> {
        let mut inserted: Vec<(u64, &str)> = nodes
            .iter()
            .filter_map(|at| match ends.get(*at)? {
                Some(End::Inserted(order)) => {
                    Some((*order, self.insertions.get(*at)?.module.as_str()))
                }
                _ => None,
            })
            .collect();
        inserted.sort_unstable();
        inserted.into_iter().map(|(_, module)| module).collect()
    }
}

/// Returns the node that kept this one from being live, and its failure.
fn failure<'e>(at: usize, ends: &Ends<'e>) -> Option<(usize, &'e Failure)> {
    match ends.get(at)?.as_ref()? {
        End::Failed(failure) => Some((at, failure)),
        End::Untried(culprit) if *culprit != at => failure(*culprit, ends),
        End::Untried(_) | End::Live | End::Inserted(_) => None,
    }
}

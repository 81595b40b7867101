//! Requests that wait for modules, and their answers, each as soon as it is known. Must never
//! keep an answer back for another's sake.

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
use crate::questions::Asked;
use crate::schedule::{End, RequestId, Schedule};

/// All requests that wait.
#[derive(Default)]
pub struct State {
    /// What they wait for.
    pub schedule: Schedule<Arc<Failure>>,
    /// Who waits.
    pub tickets: HashMap<RequestId, Ticket>,
    /// What the inserting process was ordered and has not answered, by the orders' numbers.
    pub in_flight: BTreeMap<u64, InFlight>,
    /// The next order's number.
    pub next_order: u64,
    /// Why nothing can be inserted any more.
    pub lost: Option<Failure>,
    /// Whether no more orders are given.
    pub closed: bool,
}

/// A module that the kernel initialises.
pub struct InFlight {
    /// The module.
    pub module: ModuleName,
    /// Since when, in µs of CLOCK_MONOTONIC.
    pub since: i64,
    /// Whether the log says that it takes long.
    pub told: bool,
}

/// One call of `Load`.
pub struct Request {
    /// What is asked for.
    pub modules: Vec<ModuleName>,
    /// Whether each waits for the one before it.
    pub ordered: bool,
    /// Who asks.
    pub peer: Peer,
    /// Why, in the caller's words.
    pub reason: String,
    /// When it came.
    pub start: Instant,
    /// Where answers go, each with its position among what was asked for. The caller may be gone.
    pub answers: UnboundedSender<(usize, ModuleResult)>,
}

impl Asked for Request {
    fn is_abandoned(&self) -> bool {
        self.answers.is_closed()
    }
}

/// A request some of whose answers are still to come.
pub struct Ticket {
    request: Request,
    /// What became of each name that was answered, for the log.
    told: Vec<String>,
    targets: Vec<Target>,
    /// The file of each node.
    pub insertions: Vec<Insertion>,
}

/// A name of a request for which something has to be loaded.
struct Target {
    position: usize,
    /// All that is inserted for it, by its position among the insertions.
    nodes: Vec<usize>,
    /// What must not fail: the modules that the name stands for.
    required: Vec<usize>,
    /// The names of those, and of such as were live.
    stands_for: Option<Vec<String>>,
}

impl Ticket {
    /// A request of which nothing is answered and nothing has to be waited for yet.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            told: Vec::new(),
            targets: Vec::new(),
            insertions: Vec::new(),
        }
    }

    /// Has the name at `position` wait for these nodes, and fail with one that is required.
    pub fn wait_for(&mut self, position: usize, placed: Placed, stands_for: Option<Vec<String>>) {
        self.targets.push(Target {
            position,
            nodes: placed.nodes,
            required: placed.required,
            stands_for,
        });
    }

    /// Tells what became of the name at `position`.
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

    /// One line a request: who, why, what became of it.
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
    /// What to order now, if anything: it counts as in flight from here on.
    pub fn order(&mut self, now: i64) -> Option<Order> {
        loop {
            let (id, at) = self.schedule.start()?;
            let ticket = self.tickets.get(&id);
            let Some(insertion) = ticket.and_then(|t| t.insertions.get(at)).cloned() else {
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

    /// Answers the targets of a request whose every module has come to its end.
    pub fn answer(&mut self, id: RequestId) {
        let ends = self.schedule.ends(id);
        let Some(ticket) = self.tickets.get_mut(&id) else {
            return;
        };
        let end = |at: &usize| ends.get(*at).copied().flatten();
        let (done, open) = std::mem::take(&mut ticket.targets)
            .into_iter()
            .partition(|target: &Target| target.nodes.iter().all(|at| end(at).is_some()));
        ticket.targets = open;
        for target in done {
            let result = ticket.result(&target, &ends);
            ticket.answer(target.position, result);
        }
        if ticket.targets.is_empty() {
            let all: Vec<usize> = (0..ends.len()).collect();
            let inserted = ticket.chain(&all, &ends);
            ticket.log(&inserted);
            self.tickets.remove(&id);
            self.schedule.remove(id);
        }
    }
}

type Ends<'e> = [Option<&'e End<Arc<Failure>>>];

impl Ticket {
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

    /// What was inserted of these nodes, in the order in which it was.
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

/// The node that kept this one from being live, and why.
fn failure<'e>(at: usize, ends: &Ends<'e>) -> Option<(usize, &'e Failure)> {
    match ends.get(at)?.as_ref()? {
        End::Failed(failure) => Some((at, failure)),
        End::Untried(culprit) if *culprit != at => failure(*culprit, ends),
        End::Untried(_) | End::Live | End::Inserted(_) => None,
    }
}

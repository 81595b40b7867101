//! The choice of the next module to load: the modules of each request in the order of its plan,
//! independent ones in parallel, the longest path to a result first. A module is never loaded twice
//! at once, however many requests need it. Pure: the schedule does not know who executes a load and
//! how long that takes. Must never start a dependency after the module that needs it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use interfaces::names::ModuleName;

/// The identifier of a request.
pub type RequestId = u64;

/// A module that a request needs in the kernel.
#[derive(Clone, Debug)]
pub struct Node {
    /// The module.
    pub module: ModuleName,
    /// The estimated duration of its load, in any unit that is the same for all.
    pub weight: u64,
    /// The positions of the earlier nodes that it cannot be loaded without.
    pub needs: Vec<usize>,
    /// The positions of the earlier nodes that must end before it, with any outcome.
    pub after: Vec<usize>,
}

/// The outcome of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<F> {
    /// It was live already.
    Live,
    /// It was inserted, with its number among all insertions.
    Inserted(u64),
    /// It failed.
    Failed(F),
    /// It was not tried, because this node failed.
    Untried(usize),
}

/// The requests without complete results.
#[derive(Debug)]
pub struct Schedule<F> {
    requests: BTreeMap<RequestId, Vec<Tracked<F>>>,
    /// The nodes that can be started now, the longest path first.
    ready: BTreeSet<(Reverse<u64>, RequestId, usize)>,
    running: BTreeSet<ModuleName>,
    next_id: RequestId,
    insertions: u64,
}

#[derive(Debug)]
struct Tracked<F> {
    module: ModuleName,
    needs: Vec<usize>,
    /// The nodes that wait for it.
    before: Vec<usize>,
    waiting_for: usize,
    /// The weight of the heaviest chain of nodes that begins with it.
    length: u64,
    end: Option<End<F>>,
}

impl<F: Clone> Default for Schedule<F> {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            ready: BTreeSet::new(),
            running: BTreeSet::new(),
            next_id: 0,
            insertions: 0,
        }
    }
}

impl<F: Clone> Schedule<F> {
    /// Adds a request. The earlier nodes that a node names must precede it in `nodes`. Other
    /// positions are ignored.
    pub fn add(&mut self, nodes: Vec<Node>) -> RequestId {
        let id = self.next_id;
        self.next_id += 1;
        let mut tracked: Vec<Tracked<F>> = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.into_iter().enumerate() {
            let earlier: BTreeSet<usize> = node.needs.iter().chain(&node.after).copied().collect();
            let mut waiting_for = 0;
            for other in earlier {
                if let Some(other) = tracked.get_mut(other) {
                    other.before.push(at);
                    waiting_for += 1;
                }
            }
            tracked.push(Tracked {
                module: node.module,
                needs: node.needs,
                before: Vec::new(),
                waiting_for,
                length: node.weight,
                end: None,
            });
        }
        for at in (0..tracked.len()).rev() {
            let behind = tracked.get(at).map(|node| {
                let lengths = node.before.iter().filter_map(|&other| tracked.get(other));
                lengths.map(|other| other.length).max().unwrap_or_default()
            });
            if let Some(node) = tracked.get_mut(at) {
                node.length = node.length.saturating_add(behind.unwrap_or_default());
                if node.waiting_for == 0 {
                    self.ready.insert((Reverse(node.length), id, at));
                }
            }
        }
        self.requests.insert(id, tracked);
        id
    }

    /// Returns the module to load now, if there is one: a request, and the position of a node in
    /// it. The module counts as running until [`Self::done`].
    pub fn start(&mut self) -> Option<(RequestId, usize)> {
        let mut ready = self.ready.iter();
        let (module, id, at) = ready.find_map(|(_, id, at)| {
            let module = &self.requests.get(id)?.get(*at)?.module;
            (!self.running.contains(module)).then(|| (module.clone(), *id, *at))
        })?;
        self.running.insert(module);
        Some((id, at))
    }

    /// Records the outcome of a module that was started: inserted, live before, or failed. The
    /// outcome applies to each request that was ready to start the module. Returns these requests.
    pub fn done(&mut self, module: &ModuleName, outcome: &Result<bool, F>) -> Vec<RequestId> {
        self.running.remove(module);
        let end = match outcome {
            Ok(true) => {
                self.insertions += 1;
                End::Inserted(self.insertions)
            }
            Ok(false) => End::Live,
            Err(failure) => End::Failed(failure.clone()),
        };
        let is_it = |(_, id, at): &&(_, RequestId, usize)| {
            let node = self.requests.get(id).and_then(|nodes| nodes.get(*at));
            node.is_some_and(|node| node.module == *module)
        };
        let concerned: Vec<_> = self.ready.iter().filter(is_it).copied().collect();
        for (_, id, at) in &concerned {
            self.end(*id, *at, end.clone());
        }
        concerned.into_iter().map(|(_, id, _)| id).collect()
    }

    /// Ends a node. If it failed, also ends the nodes that cannot be loaded without it.
    fn end(&mut self, id: RequestId, at: usize, end: End<F>) {
        let Some(nodes) = self.requests.get_mut(&id) else {
            return;
        };
        let mut ended = vec![(at, end)];
        while let Some((at, end)) = ended.pop() {
            let Some(node) = nodes.get_mut(at) else {
                continue;
            };
            self.ready.remove(&(Reverse(node.length), id, at));
            let culprit = match &end {
                End::Live | End::Inserted(_) => None,
                End::Failed(_) => Some(at),
                End::Untried(culprit) => Some(*culprit),
            };
            node.end = Some(end);
            for other in std::mem::take(&mut node.before) {
                let Some(waiting) = nodes.get_mut(other) else {
                    continue;
                };
                waiting.waiting_for = waiting.waiting_for.saturating_sub(1);
                if waiting.end.is_some() {
                    continue;
                }
                if let Some(culprit) = culprit.filter(|_| waiting.needs.contains(&at)) {
                    ended.push((other, End::Untried(culprit)));
                } else if waiting.waiting_for == 0 {
                    self.ready.insert((Reverse(waiting.length), id, other));
                }
            }
        }
    }

    /// Returns the outcomes of the nodes of a request so far, in order.
    pub fn ends(&self, id: RequestId) -> Vec<Option<&End<F>>> {
        let nodes = self.requests.get(&id);
        let nodes = nodes.into_iter().flatten();
        nodes.map(|node| node.end.as_ref()).collect()
    }

    /// Removes a request and its nodes that were not started.
    pub fn remove(&mut self, id: RequestId) {
        self.requests.remove(&id);
        self.ready.retain(|(_, request, _)| *request != id);
    }

    /// Returns true if no request is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

#[cfg(test)]
mod tests;

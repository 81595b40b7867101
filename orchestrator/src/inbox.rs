//! The inbox of the decision loop: events, and queries that only the machine can answer. Must never
//! hold a query whose caller has disconnected longer than its turn takes.

use interfaces::names::{ModuleName, UnitName};
use interfaces::orchestrator::{DescribeReply, ExplainModuleReply, ExplainReply};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::machine::Event;

/// A message to the decision loop.
#[derive(Debug)]
pub enum Message {
    /// An event for the machine.
    Event(Event),
    /// An event of the detector, if its record makes one, and the sequence number up to which its
    /// events have arrived; no number while a snapshot is incomplete.
    Detector(Option<Event>, Option<i64>),
    /// A request of a caller. The permit limits the number of requests that wait for a reply.
    Query(Query, Option<OwnedSemaphorePermit>),
}

/// A request that only the machine can answer.
#[derive(Debug)]
pub enum Query {
    /// The state of the service as a whole.
    Describe(oneshot::Sender<DescribeReply>),
    /// The explanation of one device, by its name, its index or both.
    Explain(
        Option<String>,
        Option<i64>,
        oneshot::Sender<Option<ExplainReply>>,
    ),
    /// The targets that stand for a device, by its name, its index or both.
    Targets(Option<String>, Option<i64>, oneshot::Sender<Vec<UnitName>>),
    /// The explanation of one module.
    ExplainModule(ModuleName, oneshot::Sender<Option<ExplainModuleReply>>),
}

impl Query {
    /// Returns true if the caller has disconnected.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Describe(to) => to.is_closed(),
            Self::Explain(_, _, to) => to.is_closed(),
            Self::Targets(_, _, to) => to.is_closed(),
            Self::ExplainModule(_, to) => to.is_closed(),
        }
    }
}

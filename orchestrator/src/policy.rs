//! The loader's plans, policy and state, for all users: the loader's own socket admits only root
//! and this service. Results are kept for a second, and callers' queries are sent one at a time.
//! Must never load anything, and never judge a module itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interfaces::client::{Client, ClientError, ClientErrorKind};
use interfaces::loader::{self, DescribeArgs, ExplainArgs, ListArgs};
use interfaces::log::Chain;
use interfaces::names::ModuleAlias;
use interfaces::orchestrator::Loading;
use serde_json::Value;
use tokio::sync::Semaphore;

/// The time a result stays valid.
const KEPT: Duration = Duration::from_secs(1);
/// The most results that are kept. A plan has a few kilobytes.
const MAX_KEPT: usize = 64;
/// The time the loader may take to reply. It plans from disk, which may be busy.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most modules of a policy that are listed.
const MAX_LISTED: usize = 4096;

/// A result, or a message that says why it is missing.
type CachedReply = Result<Arc<[Value]>, String>;

/// A query to the loader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Query {
    /// The plan for a module.
    Plan(ModuleAlias),
    /// The modules that its policy names.
    List,
    /// The loader's state.
    Describe,
}

/// The loader's recent results.
pub struct Policy {
    socket: PathBuf,
    /// The results, and the start times of their queries.
    kept: Mutex<BTreeMap<Query, (Instant, CachedReply)>>,
    /// Held while the loader is queried for a caller.
    asking: Semaphore,
}

impl Policy {
    /// Creates an empty cache for the loader at `socket`. Sends no query yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            kept: Mutex::default(),
            asking: Semaphore::new(1),
        }
    }

    /// Returns the loader's plan for a module, as its `Explain` replies.
    ///
    /// # Errors
    /// Fails with a message if the loader cannot be queried or has no result.
    pub async fn plan(&self, module: ModuleAlias) -> Result<Value, String> {
        first(self.answer(Query::Plan(module)).await)
    }

    /// Returns the reason why an administrator keeps the drivers of this modalias from being
    /// loaded, or `None` if no configuration line does. The result of a query from before `since`
    /// does not count: its inputs may have changed.
    ///
    /// # Errors
    /// Fails with a message if the loader cannot be queried or has no result.
    pub async fn exclusion(
        &self,
        modalias: ModuleAlias,
        since: Instant,
    ) -> Result<Option<String>, String> {
        let of = Query::Plan(modalias);
        // This query does not wait behind those of callers, which may be many.
        let kept = self.kept(&of, Some(since)).filter(Result::is_ok);
        let answer = match kept {
            Some(answer) => answer,
            None => self.query_now(of).await,
        };
        let plan = first(answer)?;
        let reply = serde_json::from_value(plan);
        let reply: loader::ExplainReply = reply.map_err(|e| format!("the loader's reply: {e}"))?;
        Ok(reply.exclusion())
    }

    /// Returns the modules that the policy names, as the loader's `List` replies.
    ///
    /// # Errors
    /// Fails with a message if the loader cannot be queried or has no result.
    pub async fn list(&self) -> Result<Arc<[Value]>, String> {
        self.answer(Query::List).await
    }

    /// Returns the modules that the kernel is loading, the longest first; nothing if the loader
    /// does not reply.
    pub async fn loading(&self) -> Vec<Loading> {
        let described = self.answer(Query::Describe).await;
        let described = described.unwrap_or_default();
        let described = described.first().cloned().map(serde_json::from_value);
        let Some(Ok(loader::DescribeReply { loading, .. })) = described else {
            return Vec::new();
        };
        let loading = loading.into_iter().map(|loading| Loading {
            module: loading.module,
            since_usec: loading.since_usec,
        });
        loading.collect()
    }

    /// Returns a result for a caller. Queries the loader for one caller at a time.
    async fn answer(&self, of: Query) -> CachedReply {
        if let Some(answer) = self.kept(&of, kept_since()) {
            return answer;
        }
        let Ok(_asking) = self.asking.acquire().await else {
            return Err("the orchestrator is stopping".to_owned());
        };
        // The previous caller may have requested the same.
        match self.kept(&of, kept_since()) {
            Some(answer) => answer,
            None => self.query_now(of).await,
        }
    }

    async fn query_now(&self, of: Query) -> CachedReply {
        let begun = Instant::now();
        let asked = tokio::time::timeout(TIMEOUT, self.query(&of)).await;
        let answer = match asked {
            Ok(Ok(values)) => Ok(Arc::from(values)),
            Ok(Err(e)) => Err(sentence(&e)),
            Err(_) => Err(format!(
                "no reply from the loader within {} s",
                TIMEOUT.as_secs()
            )),
        };
        self.keep(of, begun, answer.clone());
        answer
    }

    async fn query(&self, of: &Query) -> Result<Vec<Value>, ClientError> {
        let mut client = Client::connect(&self.socket).await?;
        match of {
            Query::Plan(module) => {
                let args = ExplainArgs {
                    module: module.to_string(),
                };
                let plan = match client.call(loader::EXPLAIN, &args, TIMEOUT).await {
                    // The loader may restart to read new files: the next instance can reply.
                    Err(e) if is_no_plan(&e) => {
                        let mut client = Client::connect(&self.socket).await?;
                        client.call(loader::EXPLAIN, &args, TIMEOUT).await?
                    }
                    plan => plan?,
                };
                Ok(vec![plan])
            }
            Query::List => {
                let mut listed = Vec::new();
                let mut replies = client.stream(loader::LIST, &ListArgs {}).await?;
                while let Some(reply) = replies.next::<Value>().await? {
                    if listed.len() < MAX_LISTED {
                        listed.push(reply);
                    }
                }
                Ok(listed)
            }
            Query::Describe => {
                let args = DescribeArgs {};
                Ok(vec![client.call(loader::DESCRIBE, &args, TIMEOUT).await?])
            }
        }
    }

    fn kept(&self, of: &Query, since: Option<Instant>) -> Option<CachedReply> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, answer) = kept.get(of)?;
        (Some(*begun) >= since).then(|| answer.clone())
    }

    fn keep(&self, of: Query, begun: Instant, answer: CachedReply) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (begun, _)| begun.elapsed() < KEPT);
        if kept.len() < MAX_KEPT {
            kept.insert(of, (begun, answer));
        }
    }
}

/// Returns the earliest start of a query whose kept result is still valid.
fn kept_since() -> Option<Instant> {
    Instant::now().checked_sub(KEPT)
}

fn first(plans: CachedReply) -> Result<Value, String> {
    let plan = plans?.first().cloned();
    plan.ok_or_else(|| "the loader has not answered".to_owned())
}

fn is_no_plan(error: &ClientError) -> bool {
    matches!(&error.kind, ClientErrorKind::Answered { name, .. } if name == loader::NO_PLAN)
}

/// Returns the message for the user. The loader's own message says more than the name of its error.
fn sentence(error: &ClientError) -> String {
    if let ClientErrorKind::Answered { name, parameters } = &error.kind
        && name == loader::NO_PLAN
        && let Some(message) = parameters.as_ref().and_then(|p| p.get("message")?.as_str())
    {
        return message.to_owned();
    }
    format!("the loader cannot be reached: {}", Chain(error))
}

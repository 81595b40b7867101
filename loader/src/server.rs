//! The varlink methods of the loader: access control, arguments, and one result for each module.
//! Must never load on the thread that serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use interfaces::Interface;
use interfaces::loader::{
    self, DescribeArgs, DescribeReply, ExplainArgs, ExplainReply, ListArgs, LoadArgs, LoadReply,
    ModuleResult, Outcome,
};
use interfaces::names::{ModuleAlias, ModuleName};
use interfaces::server::{Call, CallError, Service};
use serde_json::Map;
use tokio::sync::{mpsc, oneshot, watch};

use crate::load::{Explanation, Loader, Queue, Request, busy, log_policy};
use crate::queue::MAX_EXPLANATIONS;

/// The message for a result that did not arrive.
const BROKEN: &str = "the loader failed; see its log";
/// The message for a call that is not answered in time before a stop.
const STOPPING: &str =
    "the loader is stopping; loads in progress continue: request the module again";

/// The service `org.rdmahotplug.Loader`.
pub struct Server {
    loader: Arc<Loader>,
    orchestrator: Option<u32>,
    queue: Arc<Queue>,
    grace_is_over: watch::Receiver<bool>,
}

impl Server {
    /// Creates the service of `loader` for root and the user `orchestrator`, if there is one.
    /// Requests that read from disk go to `queue`. Once `grace_is_over`, calls return the results
    /// that are available.
    pub fn new(
        loader: Arc<Loader>,
        orchestrator: Option<u32>,
        queue: Arc<Queue>,
        grace_is_over: watch::Receiver<bool>,
    ) -> Self {
        let server = Self {
            loader,
            orchestrator,
            queue,
            grace_is_over,
        };
        log_policy(&server.loader.policy());
        server
    }

    async fn load(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let peer = call.peer();
        peer.is_root_or(self.orchestrator).granted()?;
        let asked = Requested::of(call)?;
        let (answers, mut results) = mpsc::unbounded_channel();
        let request = Request {
            modules: asked.modules.clone(),
            ordered: asked.ordered,
            peer,
            reason: asked.reason,
            start: Instant::now(),
            answers,
        };
        if self.queue.load(request).is_err() {
            let results = asked.modules.iter().map(busy).collect();
            return call.reply(&LoadReply { results }).await;
        }
        let stopping = self.stopping();
        tokio::pin!(stopping);
        let mut open: Vec<Option<ModuleName>> = asked.modules.into_iter().map(Some).collect();
        let mut held: Vec<(usize, ModuleResult)> = Vec::new();
        let (rest, why) = loop {
            let waited = tokio::select! {
                biased;
                waited = next_before(asked.deadline, &mut results) => waited,
                () = &mut stopping => break (Outcome::Loading, Some(STOPPING)),
            };
            let (position, result) = match waited {
                Waited::Answer(answer) => answer,
                Waited::TimedOut => break (Outcome::Loading, None),
                Waited::Ended => break (Outcome::Failed, Some(BROKEN)),
            };
            if let Some(answered) = open.get_mut(position) {
                *answered = None;
            }
            if call.wants_more() && !held.is_empty() {
                let known = std::mem::take(&mut held);
                call.reply_continues(&reply(known)).await?;
            }
            held.push((position, result));
        };
        let open = open.into_iter().enumerate();
        held.extend(open.filter_map(|(position, module)| {
            let mut result = ModuleResult::new(module?, rest);
            result.message = why.map(str::to_owned);
            Some((position, result))
        }));
        call.reply(&reply(held)).await
    }

    async fn explain(&self, module: ModuleAlias) -> Result<ExplainReply, CallError> {
        let (answer, answered) = oneshot::channel();
        let question = Explanation {
            name: module,
            answer,
        };
        if self.queue.explain(question).is_err() {
            return Err(CallError::Answer {
                name: loader::TOO_MANY_QUESTIONS.into(),
                parameters: Map::from_iter([("limit".to_owned(), MAX_EXPLANATIONS.into())]),
            });
        }
        let explained = tokio::select! {
            biased;
            explained = answered => explained.map_err(|_| no_plan(BROKEN))?,
            () = self.stopping() => return Err(no_plan(STOPPING)),
        };
        explained.map_err(|e| no_plan(&interfaces::log::Chain(&e).to_string()))
    }

    /// Completes when a stop no longer waits for results.
    fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut over = self.grace_is_over.clone();
        async move {
            // An error means that no stop can arrive any longer: the process is about to exit.
            let _ = over.wait_for(|over| *over).await;
        }
    }
}

fn no_plan(message: &str) -> CallError {
    CallError::with(loader::NO_PLAN, "message", message)
}

/// The arguments of `Load`, checked.
struct Requested {
    modules: Vec<ModuleName>,
    ordered: bool,
    reason: String,
    deadline: Option<Instant>,
}

impl Requested {
    fn of(call: &mut Call<'_>) -> Result<Self, CallError> {
        let arguments: LoadArgs = call.arguments()?;
        let deadline = match arguments.timeout_usec.map(u64::try_from) {
            None => None,
            Some(Ok(usec @ 1..)) => Instant::now().checked_add(Duration::from_micros(usec)),
            Some(_) => return Err(CallError::invalid_parameter("timeoutUSec")),
        };
        Ok(Self {
            modules: validate(&arguments.modules)?,
            ordered: arguments.ordered.unwrap_or_default(),
            reason: loggable(&arguments.reason.unwrap_or_default()),
            deadline,
        })
    }
}

/// The result of a wait for one module.
enum Waited<T> {
    Answer(T),
    /// The deadline has passed.
    TimedOut,
    /// There are no more results.
    Ended,
}

/// Waits for the next result, until the deadline or the end of the results.
async fn next_before<T>(
    deadline: Option<Instant>,
    results: &mut mpsc::UnboundedReceiver<T>,
) -> Waited<T> {
    let received = match deadline {
        None => Ok(results.recv().await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), results.recv()).await,
    };
    match received {
        Ok(Some(answer)) => Waited::Answer(answer),
        Ok(None) => Waited::Ended,
        Err(_) => Waited::TimedOut,
    }
}

/// Builds a reply with the results in the order of the request.
fn reply(mut results: Vec<(usize, ModuleResult)>) -> LoadReply {
    results.sort_by_key(|(position, _)| *position);
    LoadReply {
        results: results.into_iter().map(|(_, result)| result).collect(),
    }
}

/// Removes control characters from a caller's text, and cuts it to a length for the log.
fn loggable(reason: &str) -> String {
    const MAX_CHARS: usize = 200;
    let printable = reason.chars().filter(|c| !c.is_control());
    printable.take(MAX_CHARS).collect()
}

/// Checks all names before anything is done for the first.
fn validate(modules: &[String]) -> Result<Vec<ModuleName>, CallError> {
    if modules.len() > loader::MAX_MODULES {
        return Err(CallError::invalid_parameter("modules"));
    }
    let parse = |(at, name): (usize, &String)| {
        ModuleName::parse(name).map_err(|_| CallError::invalid_parameter(&format!("modules[{at}]")))
    };
    modules.iter().enumerate().map(parse).collect()
}

impl Service for Server {
    const PRODUCT: &'static str = "rdma-loader";
    const INTERFACE: Interface = loader::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            loader::LOAD => self.load(call).await,
            loader::EXPLAIN => {
                let ExplainArgs { module } = call.arguments()?;
                let module = ModuleAlias::parse(&module)
                    .map_err(|_| CallError::invalid_parameter("module"))?;
                let reply = self.explain(module).await?;
                call.reply(&reply).await
            }
            loader::LIST => {
                let ListArgs {} = call.arguments()?;
                let none = CallError::named(loader::NO_MODULES);
                let mut modules = self.loader.list().into_iter();
                call.reply_each(|| modules.next(), false, none).await
            }
            loader::DESCRIBE => {
                let DescribeArgs {} = call.arguments()?;
                let loading = self.loader.work.loading();
                let limits = call.limits().into_iter().map(Into::into).collect();
                call.reply(&DescribeReply { loading, limits }).await
            }
            method => Err(CallError::method_not_found(method)),
        }
    }

    fn reload(&self) -> Option<String> {
        if self.loader.ends_outdated() {
            // The next call starts a loader that may read these files.
            return Some("the files to read have changed: restarting".to_owned());
        }
        Some(match self.loader.reload() {
            Ok(policy) => format!("the policy names {} modules", policy.len()),
            Err(e) => {
                tracing::error!("the previous policy stays in use: {e}");
                format!("the previous policy stays in use: {e}")
            }
        })
    }

    fn is_busy(&self) -> bool {
        self.loader.work.is_busy()
    }
}

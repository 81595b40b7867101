//! The orchestrator's varlink methods. Lists and waits are served from the published status, the
//! history from the journal, plans and the policy from the loader, and everything else from the
//! machine. Must never decide anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use interfaces::Interface;
use interfaces::names::{ModuleAlias, ModuleName, UnitName};
use interfaces::orchestrator::{
    self, AttachedUnit, DescribeArgs, DescribeReply, Device, ExplainArgs, ExplainModuleArgs,
    Function, ListArgs, ListFunctionsArgs, ListFunctionsReply, ListHistoryArgs, ListHistoryReply,
    ListPolicyArgs, ListPolicyReply, ListReply, PauseArgs, PauseReply, PlanModuleArgs,
    PlanModuleReply, ReconcileArgs, ReconcileReply, ResumeArgs, ResumeReply, SubscribeStatusArgs,
    WaitArgs, WaitReply,
};
use interfaces::server::{Call, CallError, Peer, Service};
use serde_json::json;
use tokio::sync::mpsc::{Sender, UnboundedSender};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::barrier::Begun;
use crate::bus::UnitQuery;
use crate::config::Config;
use crate::inbox::{Message, Query};
use crate::journal::{self, story};
use crate::machine::Event;
use crate::policy::Policy;
use crate::published::Published;
use crate::rules::Rules;
use crate::sources::read_rules;
use crate::status_table::StatusTable;
use crate::wait::{DETECTOR, Wait};

/// The service `org.rdmahotplug.Orchestrator`.
pub struct Orchestrator {
    published: Arc<Published>,
    messages: UnboundedSender<Message>,
    unit_queries: Sender<UnitQuery>,
    waits: Sender<Begun>,
    policy: Arc<Policy>,
    rules: Vec<PathBuf>,
    lists: PathBuf,
    runtime_directory: PathBuf,
    /// The permits for the requests of callers without reserved capacity.
    queries: Arc<Semaphore>,
}

/// The time the service manager may take to list the units attached to targets.
const UNIT_QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// The most requests of callers without reserved capacity that wait for the machine.
const MAX_QUERIES: usize = 64;

impl Orchestrator {
    /// Creates the service. It serves the status in `published` and the loader's results from
    /// `policy`, sends requests and events to `messages`, and queries the service manager through
    /// `unit_queries` and the detector through `waits`.
    #[must_use]
    pub fn new(
        published: Arc<Published>,
        policy: Arc<Policy>,
        messages: UnboundedSender<Message>,
        (unit_queries, waits): (Sender<UnitQuery>, Sender<Begun>),
        config: &Config,
    ) -> Self {
        Self {
            published,
            messages,
            unit_queries,
            waits,
            policy,
            rules: config.rules.clone(),
            lists: config.lists.clone(),
            runtime_directory: config.runtime_directory.clone(),
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
        }
    }

    async fn list(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListArgs { name, index } = call.arguments()?;
        let one_named = name.is_some() || index.is_some();
        let mut last = None;
        let next = || {
            self.published.table.read(|table| {
                let mut devices = table.devices().filter(|d| is(d, name.as_deref(), index));
                let device = devices.find(|d| last.is_none_or(|last| d.index > last))?;
                last = Some(device.index);
                Some(ListReply {
                    device: device.clone(),
                })
            })
        };
        let none = CallError::named(orchestrator::NO_SUCH_DEVICE);
        call.reply_each(next, one_named, none).await
    }

    async fn list_functions(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListFunctionsArgs {} = call.arguments()?;
        let mut last: Option<String> = None;
        let next = || {
            self.published.table.read(|table| {
                let mut functions = table.functions();
                let after = |f: &&Function| last.as_ref().is_none_or(|last| f.name > *last);
                let function = functions.find(after)?.clone();
                last = Some(function.name.clone());
                Some(ListFunctionsReply { function })
            })
        };
        let none = CallError::named(orchestrator::NO_SUCH_FUNCTION);
        call.reply_each(next, false, none).await
    }

    async fn explain(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ExplainArgs { name, index } = call.arguments()?;
        if name.is_none() && index.is_none() {
            return Err(CallError::invalid_parameter("name"));
        }
        let peer = call.peer();
        let (of, at) = (name.clone(), index);
        let found = self.ask(peer, |to| Query::Explain(of, at, to)).await?;
        let Some(mut reply) = found else {
            return Err(CallError::named(orchestrator::NO_SUCH_DEVICE));
        };
        let asked = self.ask(peer, |to| Query::Targets(name, index, to));
        reply.attached = self.attached(asked.await?).await;
        call.reply(&reply).await
    }

    /// Returns the units attached to `targets`; `None` if the service manager cannot be queried.
    async fn attached(&self, targets: Vec<UnitName>) -> Option<Vec<AttachedUnit>> {
        let (to, answer) = oneshot::channel();
        self.unit_queries.try_send(UnitQuery { targets, to }).ok()?;
        tokio::time::timeout(UNIT_QUERY_TIMEOUT, answer)
            .await
            .ok()?
            .ok()
    }

    async fn explain_module(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ExplainModuleArgs { module } = call.arguments()?;
        let name =
            ModuleName::parse(&module).map_err(|_| CallError::invalid_parameter("module"))?;
        match self
            .ask(call.peer(), |to| Query::ExplainModule(name, to))
            .await?
        {
            Some(reply) => call.reply(&reply).await,
            None => Err(CallError::named(orchestrator::NO_SUCH_MODULE)),
        }
    }

    async fn wait(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let arguments: WaitArgs = call.arguments()?;
        let wait = Wait::parse(&arguments)?;
        let timeout = match arguments.timeout_usec.map(u64::try_from) {
            Some(Ok(timeout)) => Some(Duration::from_micros(timeout)),
            Some(Err(_)) => return Err(CallError::invalid_parameter("timeoutUSec")),
            None => None,
        };
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let table = &self.published.table;
        loop {
            let sequence = table.read(StatusTable::sequence);
            // A caller that does not wait gets the state that is known.
            if timeout != Some(Duration::ZERO) {
                match before(end, self.synchronize(call)).await {
                    Some(synchronized) => synchronized?,
                    None => return Err(timed_out(&[DETECTOR.to_owned()])),
                }
            }
            let found = table.until(call, |table| wait.check(table));
            match before(end, found).await {
                // A module that became live since the barrier began creates device nodes, which its
                // scan may have missed. A barrier during which nothing changes has missed nothing.
                Some(Ok(_))
                    if wait.name.is_none()
                        && timeout != Some(Duration::ZERO)
                        && table.read(StatusTable::sequence) != sequence => {}
                Some(found) => return call.reply(&WaitReply { device: found? }).await,
                None => {
                    let missing = table.read(|table| wait.missing(table));
                    return Err(timed_out(&missing));
                }
            }
        }
    }

    /// Waits until all changes that the kernel had announced before the call are taken in.
    async fn synchronize(&self, call: &Call<'_>) -> Result<(), CallError> {
        let stopped = |_| CallError::stopped();
        let barrier = async {
            let (begun, answer) = oneshot::channel();
            self.waits.send(begun).await.ok()?;
            let sequence = answer.await.ok()?;
            let mut heard = self.published.heard.subscribe();
            let reached = |heard: &Option<i64>| heard.is_some_and(|heard| heard >= sequence);
            heard.wait_for(reached).await.ok().map(drop)
        };
        tokio::select! {
            reached = barrier => reached.ok_or(()).map_err(stopped),
            () = call.stopping() => Err(CallError::stopped()),
        }
    }

    async fn list_history(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let ListHistoryArgs { index, limit } = call.arguments()?;
        call.require_more()?;
        let limit = match limit.map(usize::try_from) {
            Some(Ok(limit)) if limit > 0 => Some(limit),
            Some(_) => return Err(CallError::invalid_parameter("limit")),
            None => None,
        };
        let records = || {
            let told = journal::history(&self.runtime_directory).filter_map(|r| story::tell(&r));
            told.filter(move |record| index.is_none() || record.index == index)
        };
        // The journal is read once to be counted and once to be sent: nothing is held for a peer
        // that does not read. A new file that is begun between the two is seen only the second
        // time.
        let mut skipped = 0;
        if let Some(limit) = limit {
            let mut count = 0_usize;
            for _ in records() {
                count += 1;
                // Other tasks get a turn from time to time.
                if count.is_multiple_of(64) {
                    tokio::task::yield_now().await;
                }
            }
            skipped = count.saturating_sub(limit);
        }
        let mut wanted = records().skip(skipped).take(limit.unwrap_or(usize::MAX));
        let next = || wanted.next().map(|record| ListHistoryReply { record });
        let none = CallError::named(orchestrator::NO_SUCH_RECORD);
        call.reply_each(next, false, none).await
    }

    /// Sends a request to the machine, and returns its reply.
    async fn ask<T>(
        &self,
        peer: Peer,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<T, CallError> {
        let permit = match peer.privileged {
            true => None,
            false => {
                let permit = Arc::clone(&self.queries).acquire_owned().await;
                Some(permit.map_err(|_| CallError::stopped())?)
            }
        };
        let (to, answer) = oneshot::channel();
        let _ = self.messages.send(Message::Query(query(to), permit));
        answer.await.map_err(|_| CallError::stopped())
    }

    async fn describe(&self, peer: Peer) -> Result<DescribeReply, CallError> {
        self.ask(peer, Query::Describe).await
    }

    /// Sends an event to the machine, and waits until the machine has taken it in.
    async fn want(&self, call: &Call<'_>, event: Event) -> Result<(), CallError> {
        tracing::info!(peer.pid = call.peer().pid, "{}", call.method());
        let _ = self.messages.send(Message::Event(event));
        self.describe(call.peer()).await.map(drop)
    }
}

/// Returns the output of `future`, or `None` if `end` passes first.
async fn before<T>(end: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => tokio::time::timeout_at(end, future).await.ok(),
        None => Some(future.await),
    }
}

fn timed_out(missing: &[String]) -> CallError {
    let parameters = json!({ "waitingFor": missing });
    CallError::answer(orchestrator::WAIT_TIMED_OUT, parameters)
}

fn unavailable(message: &str) -> CallError {
    CallError::with(orchestrator::LOADER_UNAVAILABLE, "message", message)
}

fn is(device: &Device, name: Option<&str>, index: Option<i64>) -> bool {
    name.is_none_or(|name| device.name == name) && index.is_none_or(|i| device.index == i)
}

impl Service for Orchestrator {
    const PRODUCT: &'static str = "rdma-orchestrator";
    const INTERFACE: Interface = orchestrator::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            orchestrator::LIST => self.list(call).await,
            orchestrator::LIST_FUNCTIONS => self.list_functions(call).await,
            orchestrator::SUBSCRIBE_STATUS => {
                let SubscribeStatusArgs {} = call.arguments()?;
                self.published.table.serve(call).await
            }
            orchestrator::DESCRIBE => {
                let DescribeArgs {} = call.arguments()?;
                let limits = call.limits().into_iter().map(Into::into);
                // A stopped loader is not started only to report that it loads nothing.
                let loading = match self.published.is_loading() {
                    true => self.policy.loading().await,
                    false => Vec::new(),
                };
                let whole = DescribeReply {
                    loading,
                    limits: limits.collect(),
                    ..self.describe(call.peer()).await?
                };
                call.reply(&whole).await
            }
            orchestrator::EXPLAIN => self.explain(call).await,
            orchestrator::EXPLAIN_MODULE => self.explain_module(call).await,
            orchestrator::PLAN_MODULE => {
                let PlanModuleArgs { module } = call.arguments()?;
                let module = ModuleAlias::parse(&module)
                    .map_err(|_| CallError::invalid_parameter("module"))?;
                let plan = self
                    .policy
                    .plan(module)
                    .await
                    .map_err(|e| unavailable(&e))?;
                call.reply(&PlanModuleReply { plan }).await
            }
            orchestrator::LIST_POLICY => {
                let ListPolicyArgs {} = call.arguments()?;
                call.require_more()?;
                let listed = self.policy.list().await.map_err(|e| unavailable(&e))?;
                let mut modules = listed.iter();
                let next = || {
                    let module = modules.next()?.clone();
                    Some(ListPolicyReply { module })
                };
                let none = CallError::named(orchestrator::NO_SUCH_MODULE);
                call.reply_each(next, false, none).await
            }
            orchestrator::WAIT => self.wait(call).await,
            orchestrator::RECONCILE => {
                let ReconcileArgs { only_missing } = call.arguments()?;
                // A unit of ours makes this call when modules were installed.
                let own = rustix::process::geteuid().as_raw();
                call.peer().is_root_or(Some(own)).granted()?;
                let event = match only_missing {
                    Some(true) => Event::ModulesInstalled,
                    _ => Event::Reconcile,
                };
                self.want(call, event).await?;
                call.reply(&ReconcileReply {}).await
            }
            orchestrator::PAUSE => {
                let PauseArgs { reason } = call.arguments()?;
                call.peer().is_root_or(None).granted()?;
                self.want(call, Event::Pause(reason)).await?;
                call.reply(&PauseReply {}).await
            }
            orchestrator::RESUME => {
                let ResumeArgs {} = call.arguments()?;
                call.peer().is_root_or(None).granted()?;
                if self.describe(call.peer()).await?.paused.is_none() {
                    return Err(CallError::named(orchestrator::NOT_PAUSED));
                }
                self.want(call, Event::Resume).await?;
                call.reply(&ResumeReply {}).await
            }
            orchestrator::LIST_HISTORY => self.list_history(call).await,
            method => Err(CallError::method_not_found(method)),
        }
    }

    fn reload(&self) -> Option<String> {
        let sources = read_rules(&self.rules, &self.lists);
        let status = Rules::read(&sources, &Rules::default()).summary();
        let _ = self.messages.send(Message::Event(Event::Rules(sources)));
        Some(status)
    }
}

//! The loader's varlink methods: who may call, what is asked for, one answer a module. Must
//! never load on the thread that serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use interfaces::Interface;
use interfaces::loader::{self, ExplainArgs, ListArgs, LoadArgs, LoadReply, ModuleResult};
use interfaces::names::ModuleName;
use interfaces::server::{Call, CallError, Peer, Service};
use tokio::sync::mpsc;

use crate::kernel::Kernel;
use crate::load::Loader;
use crate::run::Jobs;

/// The most modules that one call may ask for.
const MAX_MODULES: usize = 64;

/// `org.rdmahotplug.Loader`.
pub struct Server<K> {
    loader: Arc<Loader<K>>,
    orchestrator: Option<u32>,
    jobs: Jobs,
    /// Loads that have not come to their end, whether or not anybody waits for them.
    under_way: Arc<AtomicUsize>,
}

impl<K: Kernel> Server<K> {
    /// Serves `loader` to root and to the user `orchestrator`, when there is one.
    pub fn new(loader: Arc<Loader<K>>, orchestrator: Option<u32>, jobs: Jobs) -> Self {
        let server = Self {
            loader,
            orchestrator,
            jobs,
            under_way: Arc::default(),
        };
        server.log_policy();
        server
    }

    fn log_policy(&self) {
        let policy = self.loader.policy();
        for refused in policy.refused() {
            tracing::error!("a policy file allows nothing: {refused}");
        }
        if policy.is_empty() {
            tracing::warn!("the policy names no module: nothing can be loaded");
        }
    }

    async fn load(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let peer = call.peer();
        peer.is_root_or(self.orchestrator).granted()?;
        let LoadArgs { modules, reason } = call.arguments()?;
        let modules = validate(&modules)?;
        let reason = loggable(&reason.unwrap_or_default());
        let mut results = self.start(modules, peer, reason);
        if call.wants_more() {
            let mut held: Option<ModuleResult> = None;
            while let Some(result) = results.recv().await {
                if let Some(known) = held.replace(result) {
                    let results = vec![known];
                    call.reply_continues(&LoadReply { results }).await?;
                }
            }
            let results = held.into_iter().collect();
            call.reply(&LoadReply { results }).await
        } else {
            let mut all = Vec::new();
            while let Some(result) = results.recv().await {
                all.push(result);
            }
            call.reply(&LoadReply { results: all }).await
        }
    }

    /// Starts the work. It goes on to its end whether or not anybody waits for the results.
    fn start(
        &self,
        modules: Vec<ModuleName>,
        peer: Peer,
        reason: String,
    ) -> mpsc::UnboundedReceiver<ModuleResult> {
        let (sender, results) = mpsc::unbounded_channel();
        let loader = Arc::clone(&self.loader);
        let under_way = Arc::clone(&self.under_way);
        under_way.fetch_add(1, Ordering::Relaxed);
        self.jobs.run(move || {
            let mut outcomes = Vec::new();
            for module in &modules {
                let result = loader.load(module);
                outcomes.push(format!("{module}={:?}", result.outcome));
                // The client may be gone.
                let _ = sender.send(result);
            }
            let outcomes = outcomes.join(" ");
            tracing::info!(peer.uid, peer.pid, reason, "load: {outcomes}");
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
        results
    }
}

/// A caller's words, cut to what a log line should carry.
fn loggable(reason: &str) -> String {
    const MAX_CHARS: usize = 200;
    let printable = reason.chars().filter(|c| !c.is_control());
    printable.take(MAX_CHARS).collect()
}

/// All names are checked before anything is done for the first.
fn validate(modules: &[String]) -> Result<Vec<ModuleName>, CallError> {
    if modules.len() > MAX_MODULES {
        return Err(CallError::invalid_parameter("modules"));
    }
    let parse = |(at, name): (usize, &String)| {
        ModuleName::parse(name).map_err(|_| CallError::invalid_parameter(&format!("modules[{at}]")))
    };
    modules.iter().enumerate().map(parse).collect()
}

impl<K: Kernel> Service for Server<K> {
    const PRODUCT: &'static str = "rdma-loader";
    const INTERFACE: Interface = loader::INTERFACE;

    async fn call(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        match call.method() {
            loader::LOAD => self.load(call).await,
            loader::EXPLAIN => {
                let ExplainArgs { module } = call.arguments()?;
                let module = ModuleName::parse(&module)
                    .map_err(|_| CallError::invalid_parameter("module"))?;
                match self.loader.explain(&module) {
                    Ok(reply) => call.reply(&reply).await,
                    Err(message) => Err(CallError::with(loader::NO_INDEXES, "message", &message)),
                }
            }
            loader::LIST => {
                let ListArgs {} = call.arguments()?;
                let none = CallError::named(loader::NO_MODULES);
                call.reply_each(self.loader.list(), false, none).await
            }
            method => Err(CallError::method_not_found(method)),
        }
    }

    fn reload(&self) -> Option<String> {
        Some(match self.loader.reload() {
            Ok(len) => {
                self.log_policy();
                format!("the policy names {len} modules")
            }
            Err(e) => {
                tracing::error!("the old policy stays: {e}");
                format!("the old policy stays: {e}")
            }
        })
    }

    fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }
}

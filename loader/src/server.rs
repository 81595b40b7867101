//! The loader's varlink methods: who may call, what is asked for, one answer a module. Must
//! never load on the thread that serves.

use std::sync::Arc;

use interfaces::Interface;
use interfaces::loader::{self, LoadArgs, LoadReply, ModuleResult};
use interfaces::names::ModuleName;
use interfaces::server::{Call, CallError, Peer, Service};
use tokio::sync::mpsc;

use crate::kernel::Kernel;
use crate::load::Loader;
use crate::policy::{Authorisation, Callers};
use crate::run::LoadThreads;

/// The most modules that one call may ask for.
const MAX_MODULES: usize = 64;

/// `org.rdmahotplug.Loader`.
pub struct Server<K> {
    loader: Arc<Loader<K>>,
    callers: Callers,
    threads: LoadThreads,
}

impl<K: Kernel> Server<K> {
    /// Serves `loader` to `callers`.
    pub fn new(loader: Arc<Loader<K>>, callers: Callers, threads: LoadThreads) -> Self {
        Self {
            loader,
            callers,
            threads,
        }
    }

    async fn load(&self, call: &mut Call<'_>) -> Result<(), CallError> {
        let peer = call.peer();
        match self.callers.authorise(peer) {
            Authorisation::Granted => {}
            Authorisation::Refused => {
                tracing::warn!(
                    peer.uid,
                    peer.pid,
                    "refused a load: not root or the orchestrator"
                );
                return Err(CallError::permission_denied());
            }
        }
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
        self.threads.run(move || {
            let mut outcomes = Vec::new();
            for module in &modules {
                let result = loader.load(module);
                outcomes.push(format!("{module}={:?}", result.outcome));
                // The client may be gone.
                let _ = sender.send(result);
            }
            let outcomes = outcomes.join(" ");
            tracing::info!(peer.uid, peer.pid, reason, "load: {outcomes}");
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
            method => Err(CallError::method_not_found(method)),
        }
    }
}

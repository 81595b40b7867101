//! The calls of the command to the services. Must never interpret a reply beyond what the contracts
//! say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interfaces::client::{Client, ClientError, ClientErrorKind, Replies};
use interfaces::detector;
use interfaces::loader::{self, LoadArgs, LoadReply, ModuleResult};
use interfaces::log::Chain;
use interfaces::names::ModuleName;
use interfaces::orchestrator::{
    self, DescribeArgs, ExplainArgs, ExplainModuleArgs, ExplainReply, ListArgs, ListFunctionsArgs,
    ListFunctionsReply, ListReply, PlanModuleArgs, PlanModuleReply,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::check::{Checked, RefusedModule};
use super::explain::{Explained, ExplainedModule};
use super::hardware::Hardware;
use super::status::Status;
use crate::rules::Rules;

/// The time a service may take to reply, and from one reply to the next.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The time a load may take. The initialisation of a driver can be slow.
const LOAD_DEADLINE: Duration = Duration::from_secs(600);

/// The sockets of the services.
pub struct Services {
    /// The orchestrator's socket.
    pub orchestrator: PathBuf,
    /// The loader's socket.
    pub loader: PathBuf,
    /// The detector's socket.
    pub detector: PathBuf,
}

impl Services {
    /// Calls a method of the orchestrator that has one reply.
    pub(super) async fn tell<R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &impl Serialize,
    ) -> Result<R, ClientError> {
        call(&self.orchestrator, method, arguments).await
    }

    /// Calls a method that has many replies.
    pub(super) async fn follow(
        &self,
        socket: &Path,
        method: &'static str,
        arguments: &impl Serialize,
    ) -> Result<Replies, ClientError> {
        Client::connect(socket)
            .await?
            .stream(method, arguments)
            .await
    }

    /// Returns everything that `status` shows.
    pub(super) async fn status(&self) -> Result<Status, ClientError> {
        let whole = self.tell(orchestrator::DESCRIBE, &DescribeArgs {}).await?;
        Ok(Status {
            devices: self.devices().await?,
            functions: self.functions().await?,
            whole,
            now: interfaces::clock::now(),
        })
    }

    async fn devices(&self) -> Result<Vec<orchestrator::Device>, ClientError> {
        let all = ListArgs {
            name: None,
            index: None,
        };
        let replies = self
            .follow(&self.orchestrator, orchestrator::LIST, &all)
            .await?;
        let none = orchestrator::NO_SUCH_DEVICE;
        collect(replies, none, |ListReply { device }| device).await
    }

    async fn functions(&self) -> Result<Vec<orchestrator::Function>, ClientError> {
        let all = ListFunctionsArgs {};
        let method = orchestrator::LIST_FUNCTIONS;
        let replies = self.follow(&self.orchestrator, method, &all).await?;
        let none = orchestrator::NO_SUCH_FUNCTION;
        collect(replies, none, |ListFunctionsReply { function }| function).await
    }

    /// Returns the kernel's index of a device.
    pub(super) async fn index_of(&self, name: &str) -> Result<i64, Error> {
        let devices = self.devices().await?;
        let mut named = devices.iter().filter(|device| device.name == name);
        let found = named.next().map(|device| device.index);
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// Explains a name: that of a device, a function or a module.
    pub(super) async fn explain(&self, name: &str) -> Result<Explained, Error> {
        let args = ExplainArgs {
            name: Some(name.to_owned()),
            index: None,
        };
        match self
            .tell::<ExplainReply>(orchestrator::EXPLAIN, &args)
            .await
        {
            Ok(reply) => return Ok(Explained::Device(Box::new(reply))),
            Err(e) if is_answer(&e.kind, orchestrator::NO_SUCH_DEVICE) => {}
            Err(e) => return Err(e.into()),
        }
        let functions = self.functions().await?;
        if let Some(function) = functions.into_iter().find(|f| f.name == name) {
            return Ok(Explained::Function(Box::new(function)));
        }
        let not_found = |_| Error::NotFound(name.to_owned());
        let module = ModuleName::parse(name).map_err(not_found)?;
        let explained = self.explain_module(&module).await?;
        let known = explained.wanted.is_some()
            || explained
                .loader
                .as_ref()
                .is_some_and(|answer| answer.outcome != loader::Outcome::Missing);
        match known {
            true => Ok(Explained::Module(Box::new(explained))),
            false => Err(Error::NotFound(name.to_owned())),
        }
    }

    async fn explain_module(&self, name: &ModuleName) -> Result<ExplainedModule, Error> {
        let args = ExplainModuleArgs {
            module: name.to_string(),
        };
        let wanted = match self.tell(orchestrator::EXPLAIN_MODULE, &args).await {
            Ok(reply) => Some(reply),
            Err(e) if is_answer(&e.kind, orchestrator::NO_SUCH_MODULE) => None,
            Err(e) => return Err(e.into()),
        };
        Ok(ExplainedModule {
            name: name.to_string(),
            wanted,
            // The loader's plan is optional.
            loader: self.plan(name).await.ok(),
        })
    }

    /// Returns the loader's plan for a module, through the orchestrator, which serves all users.
    async fn plan(&self, name: &ModuleName) -> Result<loader::ExplainReply, Error> {
        let args = PlanModuleArgs {
            module: name.to_string(),
        };
        let reply = self.tell::<PlanModuleReply>(orchestrator::PLAN_MODULE, &args);
        serde_json::from_value(reply.await?.plan).map_err(|e| Error::Io(e.into()))
    }

    /// Returns the modules that the devices of this host need. For an initrd, adds their drivers
    /// and all dependencies, and returns the names of the modules themselves.
    pub(super) async fn modules(&self, initrd: bool) -> Result<BTreeSet<String>, Error> {
        let mut wanted = BTreeSet::new();
        for device in self.devices().await? {
            wanted.extend(device.modules.into_iter().map(|module| module.name));
        }
        for function in self.functions().await? {
            wanted.extend(function.modules.into_iter().map(|module| module.name));
        }
        if !initrd {
            return Ok(wanted);
        }
        wanted.append(&mut self.hardware().await?.modules());
        let mut resolved = BTreeSet::new();
        for name in wanted {
            let explained = self.plan(&ModuleName::parse(&name)?).await?;
            let steps = explained.plans.into_iter().flat_map(|plan| plan.steps);
            let inserted = steps.filter(|step| step.action == loader::StepAction::Insert);
            resolved.extend(inserted.map(|step| step.module));
        }
        Ok(resolved)
    }

    /// Returns the devices and functions of this host, as the detector knows them.
    async fn hardware(&self) -> Result<Hardware, ClientError> {
        let all = detector::ListArgs {
            name: None,
            index: None,
        };
        let replies = self.follow(&self.detector, detector::LIST, &all).await?;
        let none = detector::NO_SUCH_DEVICE;
        let devices = collect(replies, none, |detector::ListReply { device }| device).await?;
        let all = detector::ListFunctionsArgs { name: None };
        let method = detector::LIST_FUNCTIONS;
        let replies = self.follow(&self.detector, method, &all).await?;
        let none = detector::NO_SUCH_FUNCTION;
        let function = |detector::ListFunctionsReply { function }| function;
        let functions = collect(replies, none, function).await?;
        Ok(Hardware { devices, functions })
    }

    /// Checks rules against this host. The result lists what cannot be found out.
    pub(super) async fn check(&self, rules: &[Rules]) -> Checked {
        let hardware = self.hardware().await;
        let mut checked = Checked::of(rules, hardware.as_ref().ok());
        if let Err(e) = hardware {
            let what = format!("what the rules select here: {}", Chain(&e));
            checked.unknown.push(what);
        }
        let rules = checked.rules.iter();
        let names: BTreeSet<&String> = rules.flat_map(|rule| &rule.modules).collect();
        let mut refused = Vec::new();
        for name in names {
            let Ok(module) = ModuleName::parse(name) else {
                continue;
            };
            match self.plan(&module).await {
                Ok(plan) if plan.outcome == loader::Outcome::Denied => {
                    refused.push(RefusedModule {
                        name: name.clone(),
                        message: plan.message,
                    });
                }
                Ok(_) => {}
                Err(e) => {
                    let what = format!("which modules the loader refuses: {}", Chain(&e));
                    checked.unknown.push(what);
                    break;
                }
            }
        }
        checked.modules = refused;
        checked
    }

    /// Loads the modules of a list, and returns their results.
    pub(super) async fn load(&self, list: &str, lists: &Path) -> Result<Vec<ModuleResult>, Error> {
        let path = lists.join(format!("{list}.conf"));
        let text = match list.contains('/') {
            true => {
                let why = format!("{list}: not the name of a list: it contains '/'");
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why).into());
            }
            false => fs::read_to_string(&path)
                .map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))?,
        };
        let (modules, errors) = crate::rules::parse_list(&path, &text);
        let mut results: Vec<ModuleResult> = errors
            .into_iter()
            .map(|error| ModuleResult::failed("-", error.to_string()))
            .collect();
        for modules in modules.chunks(loader::MAX_MODULES) {
            let args = LoadArgs {
                modules: modules.iter().map(ToString::to_string).collect(),
                reason: Some(format!("{}", path.display())),
                ordered: None,
                timeout_usec: None,
            };
            let mut client = Client::connect(&self.loader).await?;
            let reply: LoadReply = client.call(loader::LOAD, &args, LOAD_DEADLINE).await?;
            results.extend(reply.results);
        }
        Ok(results)
    }
}

/// Checks that a service responds at all.
pub(super) async fn answers(socket: &Path) -> Result<(), ClientError> {
    let info = "org.varlink.service.GetInfo";
    let _: serde_json::Value = call(socket, info, &serde_json::json!({})).await?;
    Ok(())
}

async fn call<R: DeserializeOwned>(
    socket: &Path,
    method: &str,
    arguments: &impl Serialize,
) -> Result<R, ClientError> {
    let mut client = Client::connect(socket).await?;
    client.call(method, arguments, DEADLINE).await
}

/// Returns all replies to a call. The error `none` means that there are no replies.
async fn collect<R: DeserializeOwned, T>(
    mut replies: Replies,
    none: &str,
    of: impl Fn(R) -> T,
) -> Result<Vec<T>, ClientError> {
    let mut all = Vec::new();
    loop {
        match replies.next_within(DEADLINE).await {
            Ok(Some(reply)) => all.push(of(reply)),
            Ok(None) => return Ok(all),
            Err(e) if is_answer(&e.kind, none) => return Ok(all),
            Err(e) => return Err(e),
        }
    }
}

/// Returns true if a service replied with this error.
pub(super) fn is_answer(kind: &ClientErrorKind, error: &str) -> bool {
    matches!(kind, ClientErrorKind::Answered { name, .. } if name == error)
}

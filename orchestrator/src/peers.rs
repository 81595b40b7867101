//! The detector and the loader, over varlink. Either may restart at any time: a lost connection is
//! made again, after a pause that grows. Must never decide anything: their records and results go
//! to the machine unchanged.

use std::path::{Path, PathBuf};

use interfaces::client::{Backoff, Client, ClientError, ClientErrorKind, Followed, Subscription};
use interfaces::detector::{self, Action, SubscribeDevicesArgs, SubscribeDevicesReply};
use interfaces::loader::{self, LoadArgs, LoadReply, ModuleResult};
use interfaces::log::Chain;
use interfaces::names::ModuleName;
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Message;
use crate::machine::Event;

/// Follows the detector until `messages` is closed, and sends its records there.
pub async fn follow_detector(socket: PathBuf, messages: UnboundedSender<Message>) {
    let arguments = SubscribeDevicesArgs {};
    let mut subscription = Subscription::new(socket, detector::SUBSCRIBE_DEVICES, &arguments);
    let mut connected = true;
    let mut answered = false;
    let mut complete = false;
    while !messages.is_closed() {
        let message = match subscription.next::<SubscribeDevicesReply>().await {
            // A peer that accepts and sends nothing does not count as connected yet.
            Followed::Begins => {
                answered = false;
                complete = false;
                continue;
            }
            Followed::Reply(reply) => {
                connected = true;
                if !std::mem::replace(&mut answered, true) {
                    let _ = messages.send(Message::Event(Event::SnapshotBegins));
                }
                match reply.action {
                    Action::Ready => complete = true,
                    Action::Resync => complete = false,
                    _ => {}
                }
                let heard = complete.then_some(reply.sequence);
                Message::Detector(event(reply), heard)
            }
            Followed::Lost(e) => {
                // Logged once per loss: while the detector cannot be reached, every attempt fails
                // the same way.
                if std::mem::take(&mut connected) {
                    tracing::warn!("lost the connection to the detector: {}", Chain(&e));
                }
                Message::Detector(Some(Event::DetectorLost), None)
            }
        };
        let _ = messages.send(message);
    }
}

/// The most module names that are accepted, many times the number in a kernel.
const MAX_MODULES: usize = 4096;

/// Returns an event with the kernel's module names, or `None` if there are too many. Leaves out
/// invalid names.
fn modules(names: &[String]) -> Option<Event> {
    let parsed = names.iter().filter_map(|name| ModuleName::parse(name).ok());
    (names.len() <= MAX_MODULES).then(|| Event::ModulesThere(parsed.collect()))
}

/// Converts a reply into an event. Returns `None` for a reply that lacks what its action needs.
fn event(reply: SubscribeDevicesReply) -> Option<Event> {
    match reply.action {
        Action::Add | Action::Change => match (reply.device, reply.function) {
            (Some(device), _) => Some(Event::Device(Box::new(device))),
            (None, Some(function)) => Some(Event::Function(Box::new(function))),
            (None, None) => match reply.modules {
                Some(names) => modules(&names),
                None => module(reply.module).map(Event::ModuleThere),
            },
        },
        Action::Remove => match (reply.index, reply.function, reply.module) {
            (Some(index), ..) => Some(Event::DeviceGone(index)),
            (None, Some(function), _) => Some(Event::FunctionGone(function.name)),
            (None, None, name) => module(name).map(Event::ModuleGone),
        },
        Action::Resync => Some(Event::SnapshotBegins),
        Action::Ready => Some(Event::SnapshotEnds),
    }
}

/// Parses the kernel's name of a module, which may be any string.
fn module(name: Option<String>) -> Option<ModuleName> {
    ModuleName::parse(&name?).ok()
}

/// Loads `modules` through the loader and sends the result of each to `events`. Calls the loader
/// until each module has a result.
pub async fn load(
    socket: PathBuf,
    mut modules: Vec<ModuleName>,
    reason: String,
    events: UnboundedSender<Event>,
) {
    let mut backoff = Backoff::default();
    while !modules.is_empty() {
        match load_once(&socket, &mut modules, &reason, &events).await {
            Ok(()) => backoff.reset(),
            Err(e) if is_final(&e.kind) => {
                let message = Chain(&e).to_string();
                tracing::error!("the loader refused a request for modules: {message}");
                for module in modules.drain(..) {
                    let failed = ModuleResult::failed(module, message.as_str());
                    let _ = events.send(Event::Module(Box::new(failed)));
                }
            }
            Err(e) => {
                tracing::warn!("cannot load modules yet: {}", Chain(&e));
                backoff.wait().await;
            }
        }
    }
}

/// Makes one call. Removes each module that has a result from `modules`.
async fn load_once(
    socket: &Path,
    modules: &mut Vec<ModuleName>,
    reason: &str,
    events: &UnboundedSender<Event>,
) -> Result<(), ClientError> {
    let asked = modules.iter().take(loader::MAX_MODULES);
    let arguments = LoadArgs {
        modules: asked.map(ToString::to_string).collect(),
        reason: Some(reason.to_owned()),
        ordered: None,
        timeout_usec: None,
    };
    let before = modules.len();
    let client = Client::connect(socket).await?;
    let mut replies = client.stream(loader::LOAD, &arguments).await?;
    while let Some(LoadReply { results }) = replies.next().await? {
        for result in results {
            modules.retain(|module| module.as_str() != result.module);
            let _ = events.send(Event::Module(Box::new(result)));
        }
    }
    if modules.len() == before {
        // A reply without any result would be requested again without end.
        return Err(disconnected(socket, loader::LOAD));
    }
    Ok(())
}

/// Returns true if a retry cannot help. It can help against `TooManyConnections`: other clients may
/// hold all connections for a while.
fn is_final(kind: &ClientErrorKind) -> bool {
    const FULL: &str = "org.rdmahotplug.Loader.TooManyConnections";
    matches!(kind, ClientErrorKind::Answered { name, .. } if name != FULL)
}

fn disconnected(socket: &Path, method: &str) -> ClientError {
    ClientError {
        socket: socket.to_owned(),
        method: method.to_owned(),
        kind: ClientErrorKind::Disconnected,
    }
}

//! The detector and the loader, over varlink. Both may be restarted at any time: a lost
//! connection is taken up again, after a pause that grows. Must never decide anything: what
//! they say goes to the machine as it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use interfaces::client::{Client, ClientError, ClientErrorKind};
use interfaces::detector::{self, Action, SubscribeDevicesArgs, SubscribeDevicesReply};
use interfaces::loader::{self, LoadArgs, LoadReply, ModuleResult, Outcome};
use interfaces::log::Chain;
use interfaces::names::ModuleName;
use tokio::sync::mpsc::UnboundedSender;

use crate::machine::Event;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The most modules that the loader takes in one call.
const MODULES_PER_CALL: usize = 64;

/// A pause that doubles with each failure in a row.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Follows the detector for ever and tells `events` what it says.
pub async fn follow_detector(socket: PathBuf, events: UnboundedSender<Event>) {
    let mut pause = Pause::new();
    let mut connected = true;
    loop {
        let mut told = false;
        let lost = subscription(&socket, &events, &mut told).await;
        if told {
            pause = Pause::new();
        }
        if told || connected {
            tracing::warn!("the detector cannot be followed: {}", Chain(&lost));
        }
        connected = false;
        if events.send(Event::DetectorLost).is_err() {
            return;
        }
        pause.wait().await;
    }
}

/// One connection to the detector, to its end. `told` says whether it told anything.
async fn subscription(
    socket: &Path,
    events: &UnboundedSender<Event>,
    told: &mut bool,
) -> ClientError {
    let replies = async {
        let client = Client::connect(socket).await?;
        let arguments = SubscribeDevicesArgs {};
        client.stream(detector::SUBSCRIBE_DEVICES, &arguments).await
    };
    let mut replies = match replies.await {
        Ok(replies) => replies,
        Err(e) => return e,
    };
    let mut begun = false;
    loop {
        match replies.next::<SubscribeDevicesReply>().await {
            Ok(Some(reply)) => {
                // The first reply is the begin of the snapshot that every subscription starts
                // with, and only then are the devices before it put in question.
                if !begun {
                    begun = true;
                    let _ = events.send(Event::SnapshotBegins);
                }
                *told = true;
                if let Some(event) = event(reply) {
                    let _ = events.send(event);
                }
            }
            Ok(None) => return disconnected(socket, detector::SUBSCRIBE_DEVICES),
            Err(e) => return e,
        }
    }
}

/// A reply that lacks what its action needs says nothing.
fn event(reply: SubscribeDevicesReply) -> Option<Event> {
    match reply.action {
        Action::Add | Action::Change => reply.device.map(|d| Event::Device(Box::new(d))),
        Action::Remove => reply.index.map(Event::Removed),
        Action::Resync => Some(Event::SnapshotBegins),
        Action::Ready => Some(Event::SnapshotEnds),
    }
}

/// Has `modules` loaded and tells `events` the answer for each, however often the loader has to
/// be asked.
pub async fn load(
    socket: PathBuf,
    mut modules: Vec<ModuleName>,
    reason: String,
    events: UnboundedSender<Event>,
) {
    let mut pause = Pause::new();
    while !modules.is_empty() {
        match load_once(&socket, &mut modules, &reason, &events).await {
            Ok(()) => {}
            Err(e) if is_final(&e.kind) => {
                let message = Chain(&e).to_string();
                tracing::error!("the loader refuses: {message}");
                for module in modules.drain(..) {
                    let _ = events.send(Event::Module(Box::new(refused(&module, &message))));
                }
            }
            Err(e) => {
                tracing::warn!("the loader cannot be asked: {}", Chain(&e));
                pause.wait().await;
            }
        }
    }
}

/// One call. Takes every module that got its answer out of `modules`.
async fn load_once(
    socket: &Path,
    modules: &mut Vec<ModuleName>,
    reason: &str,
    events: &UnboundedSender<Event>,
) -> Result<(), ClientError> {
    let asked = modules.iter().take(MODULES_PER_CALL);
    let arguments = LoadArgs {
        modules: asked.map(ToString::to_string).collect(),
        reason: Some(reason.to_owned()),
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
        // An answer without a result for anything would be asked for without an end.
        return Err(disconnected(socket, loader::LOAD));
    }
    Ok(())
}

/// Whether asking again cannot help.
fn is_final(kind: &ClientErrorKind) -> bool {
    matches!(kind, ClientErrorKind::Answered { .. })
}

fn refused(module: &ModuleName, message: &str) -> ModuleResult {
    ModuleResult {
        module: module.to_string(),
        outcome: Outcome::Failed,
        chain: Vec::new(),
        duration_usec: 0,
        denied_by: None,
        culprit: None,
        errno_name: None,
        message: Some(message.to_owned()),
    }
}

fn disconnected(socket: &Path, method: &str) -> ClientError {
    ClientError {
        socket: socket.to_owned(),
        method: method.to_owned(),
        kind: ClientErrorKind::Disconnected,
    }
}

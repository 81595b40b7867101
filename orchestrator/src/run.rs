//! The loop: events to the machine, its actions to the world. Must never decide anything, and
//! never wait for what an action leads to.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use interfaces::activation::{Endpoint, Inherited};
use interfaces::lifecycle::{self, Wishes};
use interfaces::server;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::Config;
use crate::jobs::HardwareFlag;
use crate::machine::{Action, Event, Machine};
use crate::peers;
use crate::rules::Rules;
use crate::server::{Orchestrator, Published};

/// Why the orchestrator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sockets that were passed, or should have been, cannot be used.
    #[error("cannot use the sockets that were passed")]
    Activation(#[source] io::Error),
    /// A directory of rules cannot be read.
    #[error("cannot read the rules")]
    Rules(#[source] io::Error),
    /// The runtime, the signals or the varlink socket failed.
    #[error("cannot run")]
    Runtime(#[source] io::Error),
}

/// Runs the orchestrator until it is told to stop.
///
/// # Errors
/// See [`Error`].
pub fn main(config: &Config) -> Result<(), Error> {
    let mut inherited = Inherited::from_environment().map_err(Error::Activation)?;
    let endpoint = inherited
        .take_varlink(config.listen.as_deref())
        .map_err(Error::Activation)?;
    let rules = read_rules(&config.rules).map_err(Error::Rules)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(run(config, endpoint, rules))
}

async fn run(config: &Config, endpoint: Endpoint, rules: Rules) -> Result<(), Error> {
    let mut wishes = Wishes::catch().map_err(Error::Runtime)?;
    let (events, queue) = unbounded_channel();
    let published = Arc::new(Published::default());
    let hands = Hands {
        loader: config.loader.clone(),
        flag: HardwareFlag::new(&config.runtime_directory),
        published: Arc::clone(&published),
        events: events.clone(),
    };
    let requests = events.clone();
    let deadline = config.boot_deadline;
    // Started by a client for itself alone, it says what it is and does nothing: the machine's
    // orchestrator is another one.
    if matches!(endpoint, Endpoint::Listening(_)) {
        let detector = config.detector.clone();
        tokio::spawn(peers::follow_detector(detector, events.clone()));
        tokio::spawn(async move {
            tokio::time::sleep(deadline).await;
            let _ = events.send(Event::BootDeadline);
        });
        tokio::spawn(decide(Machine::new(rules), queue, hands));
    }
    let service = Orchestrator::new(published, requests, config.rules.clone());
    let service = Arc::new(service);
    server::serve(endpoint, service, &mut wishes, None)
        .await
        .map_err(Error::Runtime)
}

/// Reads the rules of `directories`.
///
/// # Errors
/// When a directory exists and cannot be listed.
pub fn read_rules(directories: &[PathBuf]) -> io::Result<Rules> {
    let mut rules = Rules::default();
    for file in interfaces::dropin::read(directories, ".toml")? {
        match &file.text {
            Ok(text) => rules.add(&file.path, text),
            Err(e) => rules.refuse(&file.path, &e.to_string()),
        }
    }
    for error in rules.errors() {
        tracing::error!("a rules file is not in use: {error}");
    }
    Ok(rules)
}

async fn decide(mut machine: Machine, mut queue: UnboundedReceiver<Event>, hands: Hands) {
    hands.published.describe(&machine);
    while let Some(event) = queue.recv().await {
        let actions = machine.step(event);
        hands.published.describe(&machine);
        for action in actions {
            hands.carry_out(action);
        }
    }
}

/// What actions need.
struct Hands {
    loader: PathBuf,
    flag: HardwareFlag,
    published: Arc<Published>,
    events: UnboundedSender<Event>,
}

impl Hands {
    fn carry_out(&self, action: Action) {
        match action {
            Action::Load { modules, reason } => {
                let load = peers::load(self.loader.clone(), modules, reason, self.events.clone());
                tokio::spawn(load);
            }
            Action::Publish(shown) => self.published.put(*shown),
            Action::Settled(settled) => self.published.settled(settled),
            Action::Withdraw(index) => self.published.remove(index),
            Action::AnnounceHardware => {
                tracing::info!("RDMA hardware is set up: having rdma-hw.target started");
                Self::log_failure(self.flag.raise());
            }
            Action::WithdrawHardware => Self::log_failure(self.flag.lower()),
            Action::Started { status } => {
                tracing::info!("{status}");
                lifecycle::ready(&status);
            }
        }
    }

    fn log_failure(outcome: io::Result<()>) {
        if let Err(e) = outcome {
            tracing::error!("rdma-hw.target cannot follow the hardware: {e}");
        }
    }
}

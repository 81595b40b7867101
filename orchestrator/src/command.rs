//! The command `rdma-hotplug`: queries the services and prints the replies. The files of its
//! subcommands build the texts without reading or printing; `wait` alone prints its progress. Must
//! never do anything that a varlink client could not do.

pub mod arguments;
pub mod ask;
pub mod check;
pub mod explain;
mod failure;
pub mod hardware;
pub mod history;
pub mod monitor;
pub mod replay;
pub mod status;
pub mod style;
mod wait;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use interfaces::client::{ClientError, ClientErrorKind};
use interfaces::detector::{SUBSCRIBE_DEVICES, SubscribeDevicesArgs};
use interfaces::loader::{ModuleResult, Outcome};
use interfaces::log::Chain;
use interfaces::names::NameError;
use interfaces::orchestrator::{
    self, ListHistoryArgs, ListHistoryReply, PauseArgs, PauseReply, ReconcileArgs, ReconcileReply,
    Record, ResumeArgs, ResumeReply, SUBSCRIBE_STATUS, SubscribeStatusArgs, SubscribeStatusReply,
};
use serde::Serialize;

use crate::journal;
use crate::rules::{Rules, RulesError};
use crate::sources::{read_rules, read_rules_file};
use arguments::{Arguments, Command, RulesCommand};
use ask::Services;
use style::Style;

/// An error of the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A service cannot be reached, or replies with an error.
    #[error(transparent)]
    Service(#[from] ClientError),
    /// No device, function or wanted module has this name.
    #[error("no device, function or wanted module has the name {0:?}")]
    NotFound(String),
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The wait has timed out. The texts name what is still missing.
    #[error("timed out; still waiting for {}", .0.join("; "))]
    TimedOut(Vec<String>),
    /// Some modules were not loaded; the output names them.
    #[error("some modules were not loaded")]
    NotLoaded,
    /// Some rules files are invalid; the output names them.
    #[error("some files are invalid")]
    InvalidRules,
    /// A rules file for a replay is invalid.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A journal cannot be replayed.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// A journal's records cannot be replayed.
    #[error("cannot replay")]
    Replay(#[from] journal::replay::ReplayError),
    /// A file cannot be read, or the output cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Returns the exit status, as `--help` lists it.
    fn status(&self) -> u8 {
        match self {
            Self::TimedOut(_) => 3,
            Self::NotFound(_) => 4,
            Self::Service(e) => match &e.kind {
                ClientErrorKind::Answered { name, .. } => match name.as_str() {
                    orchestrator::WAIT_TIMED_OUT => 3,
                    orchestrator::NO_SUCH_DEVICE | orchestrator::NO_SUCH_RECORD => 4,
                    "org.varlink.service.PermissionDenied" => 5,
                    _ => 1,
                },
                _ => 1,
            },
            _ => 1,
        }
    }
}

/// Runs the command with the arguments of this process.
#[must_use]
#[expect(clippy::print_stderr, reason = "saying why it failed")]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Io)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closes the pipe early is not a failure.
        Err(Error::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let said = match &e {
                Error::Service(e) => failure::describe(e),
                e => Chain(e).to_string(),
            };
            eprintln!("rdma-hotplug: {}", style::encode(said, !is_utf8()));
            ExitCode::from(e.status())
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let services = Services {
        orchestrator: arguments.socket,
        loader: arguments.loader,
        detector: arguments.detector,
    };
    let out = Out {
        json: arguments.json,
        style: terminal_style(),
        ascii: !is_utf8(),
    };
    match arguments.command.unwrap_or(Command::Status) {
        Command::Status => {
            let status = services.status().await?;
            out.print(&status, |style| status::render(&status, style))
        }
        Command::Monitor { devices } => monitor(&services, &out, devices).await,
        Command::Explain { name } => {
            let explained = services.explain(&name).await?;
            out.print(&explained, |style| explain::render(&explained, style))
        }
        Command::Wait(wait) => wait::run(&services, &out, wait).await,
        Command::History { device, limit } => {
            let records = services.history(device.as_deref(), limit).await?;
            out.print(&records, |style| history::render(&records, style))
        }
        Command::Replay { file, rules, lists } => {
            let made = replayed(&file, &rules, &lists)?;
            out.print(&made, |style| replay::render(&made, style))
        }
        Command::Rules { command } => check_rules(&services, &out, command).await,
        Command::Load { list, lists } => load(&services, &out, &list, &lists).await,
        Command::Reconcile { missing } => {
            let args = ReconcileArgs {
                only_missing: missing.then_some(true),
            };
            let ReconcileReply {} = services.tell(orchestrator::RECONCILE, &args).await?;
            Ok(())
        }
        Command::Pause { reason } => {
            let args = PauseArgs {
                reason: reason.join(" "),
            };
            let PauseReply {} = services.tell(orchestrator::PAUSE, &args).await?;
            Ok(())
        }
        Command::Resume => {
            let ResumeReply {} = services.tell(orchestrator::RESUME, &ResumeArgs {}).await?;
            Ok(())
        }
        Command::ListModules { initrd } => {
            let modules = services.modules(initrd).await?;
            out.print(&modules, |_| {
                modules.iter().map(|m| format!("{m}\n")).collect()
            })
        }
        Command::Completions { shell } => {
            Ok(io::stdout().write_all(completions(shell).as_bytes())?)
        }
    }
}

/// Returns the script that completes the command in a shell.
fn completions(shell: Shell) -> String {
    let generate = |name: &'static str| {
        let mut text = Vec::new();
        let mut command = Arguments::command().name(name);
        clap_complete::generate(shell, &mut command, name, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    match shell {
        // The bash script of clap_complete 4.6 takes a hyphen in the name of a command for the
        // border between two commands, and then completes nothing after a subcommand.
        Shell::Bash => {
            let text = generate("rdma_hotplug");
            text.replace("default rdma_hotplug\n", "default rdma-hotplug\n")
        }
        _ => generate("rdma-hotplug"),
    }
}

/// The form of the output.
pub(crate) struct Out {
    json: bool,
    style: Style,
    /// True if the locale is not UTF-8: the output is ASCII then.
    ascii: bool,
}

impl Out {
    fn print<T: Serialize>(
        &self,
        answer: &T,
        render: impl FnOnce(&Style) -> String,
    ) -> Result<(), Error> {
        let text = match self.json {
            true => format!(
                "{}\n",
                serde_json::to_string(answer).map_err(io::Error::from)?
            ),
            false => style::encode(render(&self.style), self.ascii),
        };
        let mut stdout = io::stdout();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

/// Returns the style of text on standard output.
#[must_use]
pub fn terminal_style() -> Style {
    Style::of(io::stdout().is_terminal() && takes_colour(), columns())
}

/// Returns true if the user and the terminal accept colour: `NO_COLOR` (no-color.org), and `TERM`
/// (`environ(7)`).
fn takes_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns true if the locale's characters are those of UTF-8: the first variable that is set
/// decides (`locale(7)`).
fn is_utf8() -> bool {
    let variables = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let mut set = variables.filter_map(|name| std::env::var(name).ok());
    let locale = set.find(|value| !value.is_empty()).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Returns the number of columns of the terminal; 80 if there is no terminal or it has less than
/// 40.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    match size.map(|size| usize::from(size.ws_col)) {
        Ok(columns) if columns >= 40 => columns,
        _ => 80,
    }
}

/// Follows the orchestrator, or the detector, until the connection ends.
async fn monitor(services: &Services, out: &Out, devices: bool) -> Result<(), Error> {
    // Distinguishes a service that does not respond from one that has nothing to report.
    let socket = match devices {
        true => &services.detector,
        false => &services.orchestrator,
    };
    ask::answers(socket).await?;
    if devices {
        let args = SubscribeDevicesArgs {};
        let mut replies = services
            .follow(&services.detector, SUBSCRIBE_DEVICES, &args)
            .await?;
        while let Some(reply) = replies.next::<serde_json::Value>().await? {
            out.print(&reply, |_| format!("{}{reply}\n", monitor::stamp(&now())))?;
        }
        return Ok(());
    }
    let args = SubscribeStatusArgs {};
    let mut replies = services
        .follow(&services.orchestrator, SUBSCRIBE_STATUS, &args)
        .await?;
    while let Some(reply) = replies.next::<SubscribeStatusReply>().await? {
        out.print(&reply, |style| monitor::render(&reply, &now(), style))?;
    }
    Ok(())
}

fn now() -> jiff::ZonedDateTime {
    jiff::ZonedDateTime::now()
}

/// Replays a journal, with the rules that it records or with those of other directories.
fn replayed(
    file: &Path,
    rules: &[std::path::PathBuf],
    lists: &Path,
) -> Result<Vec<replay::Row>, Error> {
    let mut records = Vec::new();
    for record in journal::read(file)? {
        // A record that a crash has cut off ends the journal.
        let Ok(record) = record else { break };
        records.push(record);
    }
    let sources = match rules {
        [] => None,
        rules => Some(read_rules(rules, lists)),
    };
    if let Some(sources) = &sources {
        let errors = Rules::read(sources, &Rules::default());
        if let Some(error) = errors.errors().first() {
            return Err(Error::Rules(error.clone()));
        }
    }
    let steps = journal::replay::replay(records.into_iter(), sources.as_ref())?;
    Ok(replay::rows(&steps))
}

/// Checks rules files, and prints the result.
async fn check_rules(services: &Services, out: &Out, command: RulesCommand) -> Result<(), Error> {
    let RulesCommand::Check {
        files,
        rules,
        lists,
    } = command;
    let of = |sources| Rules::read(&sources, &Rules::default());
    let rules = match files.as_slice() {
        [] => vec![of(read_rules(&rules, &lists))],
        // Each file is checked by itself: two files of the same name would mask each other.
        files => {
            let files = files.iter();
            files
                .map(|file| of(read_rules_file(file, &lists)))
                .collect()
        }
    };
    let checked = services.check(&rules).await;
    out.print(&checked, |style| check::render(&checked, style))?;
    match checked.errors.is_empty() {
        true => Ok(()),
        false => Err(Error::InvalidRules),
    }
}

/// Loads the modules of one of rdma-core's lists, and prints the result of each module.
async fn load(services: &Services, out: &Out, list: &str, lists: &Path) -> Result<(), Error> {
    let results = services.load(list, lists).await?;
    out.print(&results, |style| status::render_results(&results, style))?;
    // As for systemd-modules-load, a module that the administrator has excluded is not a failure.
    let failed = |result: &ModuleResult| match result.outcome {
        Outcome::Failed | Outcome::Unknown => true,
        Outcome::Denied => !result.is_excluded(),
        _ => false,
    };
    match results.iter().any(failed) {
        true => Err(Error::NotLoaded),
        false => Ok(()),
    }
}

impl Services {
    /// Returns the history, or only that of one device if it is named.
    async fn history(
        &self,
        device: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Vec<Record>, Error> {
        let index = match device {
            Some(name) => Some(self.index_of(name).await?),
            None => None,
        };
        let args = ListHistoryArgs {
            index,
            limit: limit.map(i64::from),
        };
        let mut replies = self
            .follow(&self.orchestrator, orchestrator::LIST_HISTORY, &args)
            .await?;
        let mut records = Vec::new();
        while let Some(ListHistoryReply { record }) = replies.next_within(ask::DEADLINE).await? {
            records.push(record);
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests;

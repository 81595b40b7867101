//! The command `rdma-hotplug`: asks the orchestrator and prints what it says. Must never do
//! anything that a varlink client could not do.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use interfaces::client::{Client, ClientError, ClientErrorKind};
use interfaces::log::Chain;
use interfaces::orchestrator::{
    DESCRIBE, DescribeArgs, DescribeReply, Device, LIST, ListArgs, ListReply, NO_SUCH_DEVICE,
};
use orchestrator::status::render;
use serde::Serialize;

/// How long the orchestrator may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Shows what rdma-hotplug knows of this machine's RDMA devices.
///
/// Exit status: 0 when the question was answered, 1 when it could not be, 2 for wrong usage.
#[derive(Debug, Parser)]
#[command(name = "rdma-hotplug", version)]
struct Arguments {
    /// The orchestrator's socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/rdma-hotplug/org.rdmahotplug.Orchestrator"
    )]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show each RDMA device, how far it has come, and what is missing.
    Status,
}

/// What `status --json` prints.
#[derive(Serialize)]
struct Status {
    devices: Vec<Device>,
    #[serde(flatten)]
    whole: DescribeReply,
}

#[expect(clippy::print_stderr, reason = "saying why it failed")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Command::Status = arguments.command;
    let answer = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
        .and_then(|runtime| {
            let asked = async { tokio::time::timeout(DEADLINE, status(&arguments.socket)).await };
            match runtime.block_on(asked) {
                Ok(status) => status.map_err(|e| Chain(&e).to_string()),
                Err(_) => Err(format!("no answer within {DEADLINE:?}")),
            }
        });
    match answer {
        Ok(status) => {
            let text = if arguments.json {
                format!("{}\n", serde_json::json!(status))
            } else {
                render(&status.devices, &status.whole)
            };
            // A reader that has had enough is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("rdma-hotplug: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn status(socket: &Path) -> Result<Status, ClientError> {
    let mut client = Client::connect(socket).await?;
    let whole = client.call(DESCRIBE, &DescribeArgs {}, DEADLINE).await?;
    let all = ListArgs {
        name: None,
        index: None,
    };
    let mut replies = client.stream(LIST, &all).await?;
    let mut devices = Vec::new();
    loop {
        match replies.next().await {
            Ok(Some(ListReply { device })) => devices.push(device),
            Ok(None) => break,
            Err(e) if is_empty(&e.kind) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(Status { devices, whole })
}

/// That there is no device is an answer too.
fn is_empty(kind: &ClientErrorKind) -> bool {
    matches!(kind, ClientErrorKind::Answered { name, .. } if name == NO_SUCH_DEVICE)
}

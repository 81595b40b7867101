//! The program `lab`: plays the scenario and reports if it ended as required. Under another name it
//! runs as one of the services that it starts, or as the command. Must never leave a process or a
//! temporary directory behind.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use integration::kernel::RemoteKernel;
use integration::lab::Lab;
use integration::report::Report;
use integration::{scenario, service_manager};
use orchestrator::command::style::Style;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Plays RDMA hotplug on a simulated host, without root and without hardware. The three services run
/// as three processes on varlink sockets; only the hardware and the kernel modules are simulated.
///
/// Exit status: 0 if every step had its required result, 1 if not, 2 for invalid usage, 128 and the
/// signal's number if a signal ended the run.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Arguments {
    /// Keep the services running after the last step, until a signal.
    #[arg(long)]
    stay: bool,
    /// Print every event as it happens.
    #[arg(long)]
    verbose: bool,
    /// The directory of the host, which must be empty or not exist. The lab removes its files from it.
    /// The default is a temporary directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the state at the end as JSON, and the report on standard error.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let name = env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some(service_manager::ACTIVATE) => failed(&service_manager::activate()),
        Some("rdma-detector") => detector::main(),
        Some("rdma-loader") => match RemoteKernel::from_environment() {
            Some(kernel) => loader::main(kernel),
            None => failed(&io::Error::other("no kernel was given")),
        },
        Some("rdma-orchestrator") => orchestrator::main(),
        Some("rdma-hotplug") => orchestrator::command::main(),
        _ => lab(&Arguments::parse()),
    }
}

fn lab(arguments: &Arguments) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match outcome {
        Ok(code) => code,
        Err(e) => failed(&e),
    }
}

#[expect(clippy::print_stderr, reason = "saying why it failed")]
fn failed(error: &io::Error) -> ExitCode {
    eprintln!("lab: {error}");
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    // The signals are caught before anything is made that must be removed again.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let ended = async {
        tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        }
    };
    let dir = Directory::open(arguments.dir.as_deref())?;
    let report = match arguments.json {
        true => Report::new(Box::new(io::stderr()), Style::plain(), arguments.verbose),
        false => Report::new(
            Box::new(io::stdout()),
            orchestrator::command::terminal_style(),
            arguments.verbose,
        ),
    };
    let program = env::current_exe()?;
    let mut lab = Lab::lay_out(dir.path(), &program, scenario::at_boot(), report)?;
    let mut played = false;
    let outcome = tokio::select! {
        outcome = play(arguments, &mut lab, &mut played) => outcome.map(|()| ExitCode::SUCCESS),
        signal = ended => Ok(match (played, u8::try_from(signal.as_raw_value())) {
            (true, _) => ExitCode::SUCCESS,
            (false, Ok(number)) => ExitCode::from(128 + number),
            (false, Err(_)) => ExitCode::FAILURE,
        }),
    };
    lab.stop().await;
    outcome
}

/// Plays the scenario to its end, and with `--stay` continues after it.
async fn play(arguments: &Arguments, lab: &mut Lab, played: &mut bool) -> io::Result<()> {
    scenario::play(lab).await?;
    if arguments.json {
        let mut stdout = io::stdout();
        serde_json::to_writer_pretty(&mut stdout, lab.world())?;
        writeln!(stdout)?;
    }
    let orchestrator = lab.socket("org.rdmahotplug.Orchestrator");
    if !arguments.json {
        lab.report()
            .step("The result, as 'rdma-hotplug status' prints it. Every step ended as required.");
        lab.report().print("");
        status(&orchestrator).await?;
    }
    if arguments.stay {
        *played = true;
        let sockets = orchestrator.parent().unwrap_or(Path::new("/")).display();
        let report = lab.report();
        report.step("The services stay up until Ctrl-C. Query them from another terminal:");
        report.print(&format!("  SOCKETS={sockets}"));
        report.print(
            "  cargo run -p orchestrator --bin rdma-hotplug -- \\\n    \
             --socket $SOCKETS/org.rdmahotplug.Orchestrator explain mlx5_0",
        );
        report.print(
            "  varlinkctl call --more $SOCKETS/org.rdmahotplug.Detector \\\n    \
             org.rdmahotplug.Detector.List '{}'",
        );
        report.follow();
        lab.stay().await;
    } else if !arguments.json {
        lab.report()
            .step("Next: keep the services running, show every event, or install them:");
        for command in [
            "cargo run --release -- --stay",
            "cargo run --release -- --verbose",
            "cargo run --release -p deploy -- stage DESTDIR",
        ] {
            lab.report().print(&format!("  {command}"));
        }
    }
    Ok(())
}

/// Runs `rdma-hotplug status`, which is this program under another name.
async fn status(socket: &Path) -> io::Result<()> {
    let status = Command::new(env::current_exe()?)
        .arg0("rdma-hotplug")
        .arg("--socket")
        .arg(socket)
        .arg("status")
        .status()
        .await?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other("rdma-hotplug status failed")),
    }
}

/// The directory of the host, and the part of it that must be removed at the end.
enum Directory {
    Temporary(tempfile::TempDir),
    Given { path: PathBuf, made: bool },
}

/// The file that marks a directory as a lab's, so that the remains of a killed lab may be removed.
const MARKER: &str = ".rdma-hotplug-lab";

impl Directory {
    fn open(given: Option<&Path>) -> io::Result<Self> {
        let Some(path) = given else {
            let dir = tempfile::Builder::new()
                .prefix("rdma-hotplug-lab.")
                .tempdir()?;
            return Ok(Self::Temporary(dir));
        };
        let made = !path.exists();
        fs::create_dir_all(path)?;
        let path = fs::canonicalize(path)?;
        if path.join(MARKER).exists() {
            clear(&path)?;
        }
        if fs::read_dir(&path)?.next().is_some() {
            return Err(io::Error::other(format!("{}: not empty", path.display())));
        }
        fs::write(path.join(MARKER), "")?;
        Ok(Self::Given { path, made })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given { path, .. } => path,
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Self::Given { path, made } = self {
            let _ = clear(path);
            if *made {
                let _ = fs::remove_dir(path);
            }
        }
    }
}

/// Removes the files that the lab lays out, and the marker last: if the lab is killed before that,
/// it leaves a directory that the next lab may clear.
fn clear(path: &Path) -> io::Result<()> {
    for laid_out in ["run", "sys", "proc", "etc", "lib", "usr", "log"] {
        match fs::remove_dir_all(path.join(laid_out)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    fs::remove_file(path.join(MARKER))
}

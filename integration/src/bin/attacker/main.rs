//! The attacks that one user can make on a varlink service, and an honest caller:
//! `attacker ATTACK SOCKET …` runs one attack, prints `begun` on stderr once the attack has begun,
//! and prints its observations as one line of JSON. Each attack is bounded in count and time by its
//! arguments. Responsible for evidence; must never judge it, and never end because it was refused.

mod attacks;
mod honest;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;

use tally::Tally;

/// Where, and for how long.
#[derive(Args)]
struct Target {
    /// The service's socket.
    socket: PathBuf,
}

/// A call.
#[derive(Args)]
struct Question {
    /// The full name of the method.
    method: String,
    /// The parameters, a JSON object.
    #[arg(default_value = "{}")]
    parameters: String,
}

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Subcommand)]
enum Attack {
    /// Holds connections and says nothing.
    Idle {
        #[command(flatten)]
        target: Target,
        count: usize,
        seconds: u64,
    },
    /// Holds connections that have sent a message of 256 KiB without its end.
    Half {
        #[command(flatten)]
        target: Target,
        count: usize,
        seconds: u64,
    },
    /// Connects and closes, again and again.
    Flood {
        #[command(flatten)]
        target: Target,
        seconds: u64,
    },
    /// Sends call after call on each connection without waiting for answers.
    Pipeline {
        #[command(flatten)]
        target: Target,
        connections: usize,
        seconds: u64,
        #[command(flatten)]
        question: Question,
        /// Reads the answers; without this they stay unread.
        #[arg(long)]
        read: bool,
    },
    /// Calls with `more` on each connection and does not read.
    Stalled {
        #[command(flatten)]
        target: Target,
        count: usize,
        seconds: u64,
        #[command(flatten)]
        question: Question,
    },
    /// Sends a call that takes long, 256 KiB behind it, and the connection's own end; then exits.
    OwnEnd {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        question: Question,
        /// Calls with `more`.
        #[arg(long)]
        more: bool,
        /// On how many connections.
        #[arg(long, default_value_t = 1)]
        count: usize,
    },
    /// Sends descriptors with parts of a message, as many as the kernel takes.
    Descriptors {
        #[command(flatten)]
        target: Target,
        count: usize,
        seconds: u64,
    },
    /// Connects, calls and leaves without the answer, again and again.
    Questions {
        #[command(flatten)]
        target: Target,
        seconds: u64,
        #[command(flatten)]
        question: Question,
    },
    /// Waits for a device that does not come, with 256 KiB of parameters on each connection.
    Waits {
        #[command(flatten)]
        target: Target,
        count: usize,
        seconds: u64,
    },
    /// Calls, one call after the other, and measures each answer.
    Calls {
        #[command(flatten)]
        target: Target,
        seconds: u64,
        #[command(flatten)]
        question: Question,
        /// Connects for each call, and measures that with it.
        #[arg(long)]
        connect: bool,
        /// Calls with `more`; the answer's time is that of its last reply.
        #[arg(long)]
        more: bool,
    },
}

/// Raises the limit of open files to the hard limit.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With a lower limit the attack is smaller, which its counts show.
    let _ = setrlimit(Resource::Nofile, raised);
}

async fn run(attack: Attack) -> Tally {
    let until = |seconds| Instant::now() + Duration::from_secs(seconds);
    match attack {
        Attack::Idle {
            target,
            count,
            seconds,
        } => attacks::idle(target.socket, count, until(seconds)).await,
        Attack::Half {
            target,
            count,
            seconds,
        } => attacks::half(target.socket, count, until(seconds)).await,
        Attack::Flood { target, seconds } => attacks::flood(target.socket, until(seconds)).await,
        Attack::Pipeline {
            target,
            connections,
            seconds,
            question,
            read,
        } => {
            let call = attacks::call(&question.method, &question.parameters, false);
            attacks::pipeline(target.socket, connections, until(seconds), call, read).await
        }
        Attack::Stalled {
            target,
            count,
            seconds,
            question,
        } => {
            let call = attacks::call(&question.method, &question.parameters, true);
            attacks::stalled(target.socket, count, until(seconds), call).await
        }
        Attack::OwnEnd {
            target,
            question,
            more,
            count,
        } => {
            let call = attacks::call(&question.method, &question.parameters, more);
            attacks::own_end(target.socket, count, call).await
        }
        Attack::Descriptors {
            target,
            count,
            seconds,
        } => attacks::descriptors(target.socket, count, until(seconds)).await,
        Attack::Questions {
            target,
            seconds,
            question,
        } => {
            let call = attacks::call(&question.method, &question.parameters, false);
            attacks::questions(target.socket, until(seconds), call).await
        }
        Attack::Waits {
            target,
            count,
            seconds,
        } => attacks::waits(target.socket, count, until(seconds)).await,
        Attack::Calls {
            target,
            seconds,
            question,
            connect,
            more,
        } => {
            let call = attacks::call(&question.method, &question.parameters, more);
            honest::calls(target.socket, until(seconds), call, connect).await
        }
    }
}

#[expect(clippy::print_stdout, reason = "what was seen is what this is for")]
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    raise_file_limit();
    println!("{}", run(arguments.attack).await.line());
}

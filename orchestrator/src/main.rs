//! The program `rdma-orchestrator`. All code is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator::main()
}

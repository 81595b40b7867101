//! The program `rdma-hotplug`. Must never contain more than this call.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator::command::main()
}

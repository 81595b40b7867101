//! The command `rdma-hotplug`. Must never hold more than this call.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator::command::main()
}

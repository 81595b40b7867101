//! The program `rdma-loader`. All code is in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    loader::main(loader::kernel::Linux)
}

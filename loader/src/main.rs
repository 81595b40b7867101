//! The program `rdma-loader`. Everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    loader::main(loader::kernel::Linux)
}

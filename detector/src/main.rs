//! The program `rdma-detector`. Everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    detector::main()
}

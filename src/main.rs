//! The `opmesh` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    opmesh::cli::main()
}

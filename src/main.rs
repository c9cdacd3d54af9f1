//! The binary: run the command line, report a failure in one place, exit with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vitadapt::commands::main() as u8)
}

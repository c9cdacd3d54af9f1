//! The binary: run the command line, report a failure in one place, exit with its code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vitadapt::system::allocator::keep_freed_memory();
    vitadapt::system::signals::outlive_file_limits();
    vitadapt::system::threads::leave_cores_to_workers();
    ExitCode::from(vitadapt::commands::main() as u8)
}

//! Floor 7: argv to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    momo::cli::run(std::env::args_os())
}

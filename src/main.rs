//! Floor 7: argv to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    momo::cli::run(std::env::args_os(), |_, _| {
        Err("this build has no daemon".to_owned())
    })
}

//! `momo completions`: what a shell wants to know about the flags.

use clap::Args;
use clap_complete::Shell;

use super::exit::Failure;
use super::print;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// The shell
    shell: Shell,
}

pub(super) fn run(flags: &Flags, mut definition: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut definition, "momo", &mut script);
    print::out(&String::from_utf8_lossy(&script))
}

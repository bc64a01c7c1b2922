//! `momo completions`: what a shell wants to know about the flags.

use clap::Args;
use clap_complete::Shell;

use super::exit::Failure;
use super::print;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo completions bash > /etc/bash_completion.d/momo
  momo completions zsh > ~/.zfunc/_momo
  momo completions fish > ~/.config/fish/completions/momo.fish")]
pub(super) struct Flags {
    /// The shell
    shell: Shell,
}

pub(super) fn run(flags: &Flags, mut definition: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut definition, "momo", &mut script);
    print::out(&String::from_utf8_lossy(&script))
}

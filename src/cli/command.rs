//! The subcommands, and the way from argv to an exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use super::exit::Failure;
use super::{
    argv, catalog, check, client, cluster, completions, get, lfd, ls, mode, node, print, put,
    recover, rm, scrub, secret, server, stat, status,
};

const EXAMPLES: &str = "\
Examples:
  momo check                          is the configuration right, and what does it say
  momo server --id 0                  run daemon 0 (the original's: momo -imp server -id 0)
  momo cluster up                     run all daemons of this machine, watched and restarted
  momo client --file report.pdf       upload by the Momo protocol (momo -imp client -file report.pdf)
  momo put report.pdf photos.tar      upload by the text door
  tar c src | momo put - --name src.tar
  momo get report.pdf -o /tmp/        read back, verified
  momo ls; momo stat report.pdf       what is there, and where its copies are
  momo mode 1                         change the replication mode to chain

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 outcome unknown (ask `momo stat NAME`).";

/// A replicated file store: OK means kept.
#[derive(Debug, Parser)]
#[command(name = "momo", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one daemon of the configuration
    Server(server::Flags),
    /// Run one daemon in a process that is watched, killed when it hangs, and started again when it ends
    Lfd(lfd::Flags),
    /// Run all daemons of the configuration that belong on this machine, watched; end them, show them
    Cluster(cluster::Flags),
    /// Check the configuration and print what holds
    Check(check::Flags),
    /// Upload a file by the Momo protocol
    Client(client::Flags),
    /// Upload files by the text door
    Put(put::Flags),
    /// Read files back, verified
    Get(get::Flags),
    /// List files
    Ls(ls::Flags),
    /// Show a file: size, digests, version, where its copies are
    Stat(stat::Flags),
    /// Delete files
    Rm(rm::Flags),
    /// Show the replication mode and its history, or change it
    Mode(mode::Flags),
    /// Show the cluster: daemons, leader, mode, what is under-replicated
    Status(status::Flags),
    /// The members of the cluster: list, drain, take in and out
    Node(node::Flags),
    /// When the majority is lost for good: let one daemon go on alone; or let a daemon ask anew
    Recover(recover::Flags),
    /// A readable copy of the catalog: write it out, take it in
    Catalog(catalog::Flags),
    /// Have every copy read again, or show how far that is and what was found
    Scrub(scrub::Flags),
    /// The secret that the daemons of a cluster share
    Secret(secret::Flags),
    /// Completions for a shell
    Completions(completions::Flags),
}

/// Does what `args` (program name first) asks.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let definition = Line::command();
    let args = match argv::normalise(args, &long_flags(&definition)) {
        Ok(args) => args,
        Err(why) => return end(Err(Failure::Usage(why))),
    };
    let line = match Line::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => {
            // Help goes to standard output, errors to standard error; a closed pipe is the end of either.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    end(match line.command {
        Command::Server(flags) => server::run(&flags),
        Command::Lfd(flags) => lfd::run(&flags),
        Command::Cluster(flags) => cluster::run(&flags),
        Command::Check(flags) => check::run(&flags),
        Command::Client(flags) => client::run(&flags),
        Command::Put(flags) => put::run(&flags),
        Command::Get(flags) => get::run(&flags),
        Command::Ls(flags) => ls::run(&flags),
        Command::Stat(flags) => stat::run(&flags),
        Command::Rm(flags) => rm::run(&flags),
        Command::Mode(flags) => mode::run(&flags),
        Command::Status(flags) => status::run(&flags),
        Command::Node(flags) => node::run(&flags),
        Command::Recover(flags) => recover::run(&flags),
        Command::Catalog(flags) => catalog::run(&flags),
        Command::Scrub(flags) => scrub::run(&flags),
        Command::Secret(flags) => secret::run(&flags),
        Command::Completions(flags) => completions::run(&flags, Line::command()),
    })
}

/// Says why, and turns it into the exit code.
fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if !matches!(failure, Failure::Closed) {
        let text = format!("momo: {}\n", failure.to_string().replace('\n', "\nmomo: "));
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
    if matches!(failure, Failure::Usage(_)) {
        print::warn("`momo --help` shows the usage");
    }
    failure.code()
}

/// Every long flag of every subcommand.
fn long_flags(definition: &clap::Command) -> Vec<String> {
    let own = definition
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .map(str::to_owned);
    own.chain(["help".to_owned(), "version".to_owned()])
        .chain(definition.get_subcommands().flat_map(long_flags))
        .collect()
}

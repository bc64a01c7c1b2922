//! `momo status`: the cluster as the daemon that answers sees it.

use clap::Args;

use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use super::text::{Client, Stop, elsewhere};
use crate::wire::text::{Request, Verdict, verdict};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo status
  momo status --server 10.0.0.2:3333
  momo status --json | jq .under_replicated")]
pub(super) struct Flags {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut client = Client::new(&flags.dial)?;
    if !flags.json {
        let lines = client.question(&Request::Status)?;
        return print::out(&(lines.join("\n") + "\n"));
    }
    let line = client.ask(|session| {
        session
            .send(&Request::StatusJson)
            .map_err(|error| elsewhere(&error))?;
        let line = session.line().map_err(Stop::of_question)?;
        match verdict(&line) {
            Verdict::Err(why) => Err(Stop::Err(why.to_owned()).of_question()),
            _ if serde_json::from_str::<serde_json::Value>(&line).is_ok() => Ok(line),
            _ => Err(Stop::Nonsense(line).of_question()),
        }
    })?;
    print::out(&format!("{line}\n"))
}

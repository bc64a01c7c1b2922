//! `momo mode`: the replication mode, its history, and changing it.

use clap::Args;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use super::text::Client;
use crate::base::time::Wall;
use crate::wire::record::{Mode, ModeRecord};
use crate::wire::text::{Request, parse_mode};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo mode
  momo mode chain
  momo mode 2
  momo mode --history")]
pub(super) struct Flags {
    /// The new mode: 0 none, 1 chain, 2 splay, 3 primary-splay (the digit or the name)
    #[arg(value_parser = mode)]
    mode: Option<Mode>,
    /// Show earlier changes too, newest first
    #[arg(long, conflicts_with = "mode")]
    history: bool,
    /// One JSON object a change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut client = Client::new(&flags.dial)?;
    let lines = match flags.mode {
        Some(mode) => client.change(&Request::SetMode(mode))?,
        None if flags.history => client.question(&Request::ModeHistory)?,
        None => client.question(&Request::Mode)?,
    };
    let mut text = String::new();
    for line in &lines {
        let change = parse_mode(line)
            .ok_or_else(|| Failure::Failed(format!("reply not understood: {line}")))?;
        text.push_str(&if flags.json {
            as_json(&change)
        } else {
            for_people(&change)
        });
    }
    print::out(&text)
}

fn as_json(change: &ModeRecord) -> String {
    let value = json!({
        "mode": change.new, "name": change.new.name(), "old": change.old,
        "timestamp": change.timestamp, "cause": change.cause,
    });
    format!("{value}\n")
}

fn for_people(change: &ModeRecord) -> String {
    let since = Wall(change.timestamp).rfc3339();
    let (new, old) = (change.new, change.old);
    format!(
        "{} {:<14} since {since}, before {} {} ({})\n",
        new.digit(),
        new.name(),
        old.digit(),
        old.name(),
        change.cause
    )
}

fn mode(text: &str) -> Result<Mode, String> {
    let named = |mode: &&Mode| mode.name() == text || mode.digit().to_string() == text;
    Mode::ALL
        .iter()
        .find(named)
        .copied()
        .ok_or_else(|| "is 0, 1, 2 or 3, or none, chain, splay or primary-splay".to_owned())
}

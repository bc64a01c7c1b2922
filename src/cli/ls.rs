//! `momo ls`: the names of the catalog.

use std::fmt::Write as _;
use std::io::{BufRead, ErrorKind};

use clap::Args;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use super::text::{Client, Session, Stop, Trouble, elsewhere};
use crate::wire::parsed::Parsed;
use crate::wire::text::{LIST_HEAD, LIST_HEAD_STALE, ListRow, Request, Verdict, verdict};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo ls
  momo ls 2026/
  momo ls --json | jq -r .name")]
pub(super) struct Flags {
    /// Only names that begin so
    prefix: Option<String>,
    /// One JSON object a file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut rows = Client::new(&flags.dial)?.ask(|session| {
        session
            .send(&Request::List)
            .map_err(|error| elsewhere(&error))?;
        list(session)
    })?;
    if let Some(prefix) = &flags.prefix {
        rows.retain(|row| row.name.starts_with(prefix));
    }
    let mut text = String::new();
    if flags.json {
        for row in &rows {
            let row = json!({ "name": row.name, "start": row.start, "size": row.size });
            let _ = writeln!(text, "{row}");
        }
    } else {
        let width = rows
            .iter()
            .map(|row| row.size.to_string().len())
            .max()
            .unwrap_or_default();
        for row in &rows {
            let _ = writeln!(text, "{:>width$}  {}", row.size, row.name);
        }
    }
    print::out(&text)
}

/// Rows up to the end of the connection; a listing that breaks off within a row is refused.
fn list(session: &mut Session) -> Result<Vec<ListRow>, Trouble> {
    let head = session.line().map_err(Stop::of_question)?;
    if head == LIST_HEAD_STALE.trim_end() {
        print::warn("no leader confirmed in time that this is how things stand");
    } else if head != LIST_HEAD.trim_end() {
        return Err(match verdict(&head) {
            Verdict::Err(why) => Stop::Err(why.to_owned()).of_question(),
            _ => Stop::Nonsense(head).of_question(),
        });
    }
    let mut rows = Vec::new();
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let ended = match session.reader().read_until(b'\n', &mut pending) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(elsewhere(&error)),
        };
        match ListRow::parse(&pending) {
            Parsed::Complete { value, .. } => {
                rows.push(value);
                pending.clear();
            }
            Parsed::Incomplete if !ended => {}
            Parsed::Incomplete if pending.is_empty() => return Ok(rows),
            Parsed::Incomplete | Parsed::Malformed(_) => {
                return Err(Trouble::Elsewhere("the listing broke off".to_owned()));
            }
        }
    }
}

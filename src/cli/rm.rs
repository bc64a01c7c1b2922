//! `momo rm`: deletes files.

use clap::Args;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use super::text::Client;
use crate::base::path::FilePath;
use crate::wire::text::Request;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo rm report.pdf
  momo rm 2025/a.log 2025/b.log")]
pub(super) struct Flags {
    /// Names to delete
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// One JSON object a file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut client = Client::new(&flags.dial)?;
    let mut worst = None;
    for name in &flags.names {
        match one(&mut client, name) {
            Ok(()) if flags.json => print::json(&json!({ "name": name, "deleted": true }))?,
            Ok(()) => print::out(&format!("{name}: deleted\n"))?,
            Err(failure) if flags.names.len() == 1 => return Err(failure),
            Err(failure) => {
                print::warn(&failure.to_string());
                worst = Some(failure.worse(worst));
            }
        }
    }
    worst.map_or(Ok(()), |failure| Err(failure.of_several()))
}

fn one(client: &mut Client, name: &str) -> Result<(), Failure> {
    let path = FilePath::new(name).map_err(|why| Failure::Failed(format!("{name:?}: {why}")))?;
    let result = client.change(&Request::Delete { name: path });
    result.map(drop).map_err(|failure| failure.about(name))
}

//! `momo stat`: what is known of files.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::Failure;
use super::print;
use super::text::Client;
use crate::base::path::FilePath;
use crate::wire::text::{Request, Stated};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo stat report.pdf
  momo stat --json report.pdf photos.tar")]
pub(super) struct Flags {
    /// Names to show
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
    for (position, name) in flags.names.iter().enumerate() {
        match one(flags, &mut client, name) {
            Ok(text) => {
                let gap = if position > 0 && !flags.json {
                    "\n"
                } else {
                    ""
                };
                print::out(&format!("{gap}{text}"))?;
            }
            Err(failure) if flags.names.len() == 1 => return Err(failure),
            Err(failure) => {
                print::warn(&failure.to_string());
                worst = Some(failure.worse(worst));
            }
        }
    }
    worst.map_or(Ok(()), |failure| Err(failure.of_several()))
}

fn one(flags: &Flags, client: &mut Client, name: &str) -> Result<String, Failure> {
    let path = FilePath::new(name).map_err(|why| Failure::Failed(format!("{name:?}: {why}")))?;
    let lines = client
        .question(&Request::Stat { name: path })
        .map_err(|failure| failure.about(name))?;
    let stated = Stated::parse(lines.iter().map(String::as_str)).ok_or_else(|| {
        Failure::Failed(format!(
            "{name}: reply not understood: {}",
            lines.join(" | ")
        ))
    })?;
    Ok(if flags.json {
        format!("{}\n", as_json(&stated))
    } else {
        for_people(&stated)
    })
}

fn as_json(stated: &Stated) -> serde_json::Value {
    let parts: Vec<_> = stated
        .parts
        .iter()
        .map(|part| json!({ "size": part.size, "sha256": part.sha256, "nodes": part.nodes }))
        .collect();
    json!({
        "name": stated.name, "version": stated.version, "size": stated.size,
        "sha256": stated.sha256, "md5": stated.md5, "strategy": stated.strategy,
        "class": stated.class, "want": stated.want, "created": stated.created,
        "modified": stated.modified, "parts": parts, "earlier": stated.earlier,
        "stale": stated.stale,
    })
}

fn for_people(stated: &Stated) -> String {
    let mut text = String::new();
    let mut row = |what: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{what:<10} {value}");
        }
    };
    let numbers = |items: Vec<String>| items.join(", ");
    row("name", &stated.name);
    row("size", &format!("{} bytes", stated.size));
    row("version", &stated.version.to_string());
    row("sha256", &stated.sha256.to_string());
    row(
        "md5",
        &stated.md5.map(|md5| md5.to_string()).unwrap_or_default(),
    );
    row("strategy", &stated.strategy);
    row("class", &stated.class);
    row("created", &stated.created);
    row("modified", &stated.modified);
    for (position, part) in stated.parts.iter().enumerate() {
        let nodes = numbers(part.nodes.iter().map(ToString::to_string).collect());
        let on = format!("{} of {} on {nodes}", part.nodes.len(), stated.want);
        if stated.parts.len() == 1 {
            row("copies", &on);
        } else {
            row(
                &format!("part {position}"),
                &format!("{} bytes, copies {on}", part.size),
            );
        }
    }
    row(
        "earlier",
        &numbers(stated.earlier.iter().map(ToString::to_string).collect()),
    );
    row(
        "stale",
        if stated.stale {
            "yes: no leader confirmed this"
        } else {
            ""
        },
    );
    text
}

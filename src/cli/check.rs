//! `momo check`: every error of the configuration at once, or what it comes to.

use clap::Args;
use serde_json::json;

use super::exit::Failure;
use super::locate::ConfFlag;
use super::{print, secret, server};
use crate::config::{Config, manual};

const EXAMPLES: &str = "\
Examples:
  momo check
  momo check --conf /etc/momo/momo.conf --id 0 --quiet
  momo check --keys";

#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\nKeys of the configuration:\n\n{}", manual::list())
)]
pub(super) struct Flags {
    #[command(flatten)]
    conf: ConfFlag,
    /// List every key with its kind, default and meaning, and read no file
    #[arg(long, conflicts_with_all = ["id", "json"])]
    keys: bool,
    /// Also require that the configuration has this [daemon.N]
    #[arg(long, value_name = "N")]
    id: Option<u16>,
    /// Say nothing when all is well
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print the configuration as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.keys {
        return print::out(&manual::list());
    }
    let config = flags.conf.load()?;
    if let Some(id) = flags.id {
        server::known(&config, id)?;
    }
    secret::check(&config)?;
    if flags.quiet {
        return Ok(());
    }
    if flags.json {
        return print::json(&as_json(&config));
    }
    let voters: Vec<String> = config.voters().iter().map(ToString::to_string).collect();
    print::out(&format!(
        "# {}: {} daemons, voters {}\n{}",
        config.file.display(),
        config.daemons.len(),
        voters.join(", "),
        config.print()
    ))
}

/// Section to key to value, all as text; what is not set is null.
fn as_json(config: &Config) -> serde_json::Value {
    let mut sections = serde_json::Map::new();
    for setting in config.effective() {
        let section = sections.entry(setting.section).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.insert(setting.key.to_owned(), json!(setting.value));
        }
    }
    serde_json::Value::Object(sections)
}

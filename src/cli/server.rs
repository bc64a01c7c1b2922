//! `momo server`: checks everything that can be checked before a daemon starts, then runs it.

use clap::Args;

use super::exit::Failure;
use super::locate::ConfFlag;
use super::{logging, secret};
use crate::base::id::NodeId;
use crate::config::Config;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo server --id 0
  momo server --id 2 --conf /etc/momo/momo.conf
  momo -imp server -id 0")]
pub(super) struct Flags {
    /// Which [daemon.N] of the configuration to run
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u16,
    #[command(flatten)]
    conf: ConfFlag,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let id = known(&config, flags.id)?;
    secret::check(&config)?;
    logging::start(&config);
    crate::server::run(&config, id).map_err(|error| Failure::Failed(error.to_string()))
}

/// The daemon's number, if the file has it.
pub(super) fn known(config: &Config, id: u16) -> Result<NodeId, Failure> {
    let id = NodeId(id);
    if config.daemon(id).is_some() {
        return Ok(id);
    }
    let there: Vec<String> = config.daemons.keys().map(ToString::to_string).collect();
    Err(Failure::Failed(format!(
        "{}: no [daemon.{id}]; there are {}",
        config.file.display(),
        there.join(", ")
    )))
}

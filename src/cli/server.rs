//! `momo server`: checks everything that can be checked before a daemon starts, then runs it.

use clap::Args;

use super::exit::Failure;
use super::locate::ConfFlag;
use super::{logging, secret};
use crate::base::id::NodeId;
use crate::config::Config;

/// What runs a daemon until it is told to stop; the error is for the operator.
pub type Serve = fn(Config, NodeId) -> Result<(), String>;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Which [daemon.N] of the configuration to run
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u16,
    #[command(flatten)]
    conf: ConfFlag,
}

pub(super) fn run(flags: &Flags, serve: Serve) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let id = known(&config, flags.id)?;
    secret::check(&config)?;
    logging::start(&config);
    serve(config, id).map_err(Failure::Failed)
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

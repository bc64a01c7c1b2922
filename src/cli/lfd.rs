//! `momo lfd`: the local fault detector, which starts one daemon's process, hears its heartbeats and starts it again.

use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use super::locate::ConfFlag;
use super::{logging, secret, server};
use crate::base::id::NodeId;
use crate::config::Config;
use crate::server::supervise::{self, Charge};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo lfd --id 0
  momo lfd --id 2 --conf /etc/momo/momo.conf
  momo lfd --id 7 --join host0:3333

The daemon's process is killed and started again when its heartbeats stay away for lfd.timeout, and started again whenever
it ends, after a wait that grows to lfd.backoff. SIGTERM or Ctrl-C lets it drain and ends both; a second one does not wait.

Exit codes: 0 stopped as asked, 1 not started, or the daemon had to be killed in the end.")]
pub(super) struct Flags {
    /// Which [daemon.N] of the configuration to look after
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u16,
    #[command(flatten)]
    meeting: server::MeetingFlags,
    #[command(flatten)]
    conf: ConfFlag,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let id = server::known(&config, flags.id)?;
    supervise(&config, vec![id], flags.meeting.words(), "lfd")
}

/// Looks after these daemons until a signal comes; each is started with the words of `meeting` too.
pub(super) fn supervise(
    config: &Config,
    daemons: Vec<NodeId>,
    meeting: Vec<String>,
    by: &'static str,
) -> Result<(), Failure> {
    secret::check(config)?;
    logging::start(config, None);
    let charge = Charge {
        config,
        daemons,
        program: program()?,
        conf: config.file.clone(),
        meeting,
        by,
    };
    supervise::run(&charge).map_err(|error| Failure::Failed(error.to_string()))
}

/// This program's file. Its name is kept and not the open file, so that a new version runs from the next start on.
pub(super) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("cannot tell where this program is: {error}")))
}

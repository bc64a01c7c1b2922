//! `momo server`: checks everything that can be checked before a daemon starts, then runs it.

use std::time::Duration;

use clap::Args;

use super::exit::Failure;
use super::locate::ConfFlag;
use super::{logging, secret};
use crate::base::id::NodeId;
use crate::config::{Config, HostPort, field};
use crate::server::{Meeting, notify};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo server --id 0
  momo server --id 2 --conf /etc/momo/momo.conf
  momo server --id 7 --join host0:3333      become a member of a running cluster
  momo -imp server -id 0")]
pub(super) struct Flags {
    /// Which [daemon.N] of the configuration to run
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u16,
    #[command(flatten)]
    meeting: MeetingFlags,
    #[command(flatten)]
    conf: ConfFlag,
    /// The process that supervises this one: ends with it, and tells it on standard input how it goes
    #[arg(long, value_name = "PID", hide = true, requires = "heartbeat")]
    supervisor: Option<u32>,
    /// How often the supervisor is told that this process is alive
    #[arg(long, value_name = "TIME", hide = true, value_parser = field::time)]
    heartbeat: Option<Duration>,
}

/// How the daemon meets the others, where the configuration does not say.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct MeetingFlags {
    /// Become a member of the cluster that the daemon at this address belongs to; the configuration may hold this daemon alone
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    join: Option<HostPort>,
    /// Where the other daemons reach this one, if not at the address it listens on
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<HostPort>,
}

impl MeetingFlags {
    /// The same as words of a command line.
    pub(super) fn words(&self) -> Vec<String> {
        let said = [("--join", &self.join), ("--advertise", &self.advertise)];
        said.into_iter()
            .filter_map(|(flag, address)| Some([flag.to_owned(), address.as_ref()?.to_string()]))
            .flatten()
            .collect()
    }
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if let Some(supervisor) = flags.supervisor {
        notify::end_with(supervisor)
            .and_then(|()| notify::supervised(flags.heartbeat))
            .map_err(|error| Failure::Failed(format!("not supervised: {error}")))?;
    }
    let config = flags.conf.load()?;
    let id = known(&config, flags.id)?;
    secret::check(&config)?;
    logging::start(&config, flags.supervisor.map(|_| id));
    let meeting = Meeting {
        join: flags.meeting.join.clone(),
        advertise: flags.meeting.advertise.clone(),
    };
    crate::server::run(&config, id, &meeting).map_err(|error| Failure::Failed(error.to_string()))
}

/// An address as the configuration spells it, of a port that can be dialled.
fn address(text: &str) -> Result<HostPort, String> {
    let address = field::address(text)?;
    if address.port == 0 {
        return Err("port 0 is no address to be reached at".to_owned());
    }
    Ok(address)
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

//! `momo recover`: what an operator does to a stopped daemon when the majority of the voters is lost for good, or when its cluster will not have it any more.

use std::fmt::Write as _;

use clap::Args;

use super::exit::Failure;
use super::locate::ConfFlag;
use super::{catalog, print, server};
use crate::base::id::NodeId;
use crate::engine::recover::{Findings, Stopped};
use crate::server::settings;

#[derive(Args, Debug)]
#[command(after_help = "\
Both work on a daemon that does not run, and say what they are about to do before they do it.

Examples:
  momo recover --force --id 0       the other voters are lost for good: daemon 0 goes on alone, as another cluster
  momo recover --rejoin --id 2      daemon 2 was removed, or belongs to the cluster of before: it gives up its catalog,
                                    keeps its objects, and is taken in as a new daemon when it starts again")]
pub(super) struct Flags {
    /// Which [daemon.N] of the configuration
    #[arg(long, value_name = "N")]
    id: u16,
    /// Go on alone: this daemon becomes the only one that votes
    #[arg(long, conflicts_with = "rejoin", required_unless_present = "rejoin")]
    force: bool,
    /// Give up the catalog here, keep the objects
    #[arg(long)]
    rejoin: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    conf: ConfFlag,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let id = server::known(&config, flags.id)?;
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let settings = settings::engine(&config, id).map_err(|error| failed(&error))?;
    let stopped = Stopped::open(&settings).map_err(|error| failed(&error))?;
    let findings = stopped.findings().map_err(|error| failed(&error))?;
    let statement = if flags.force {
        alone(id, &findings)
    } else {
        rejoin(id, &findings)
    };
    if flags.yes {
        print::warn(&statement);
    } else {
        print::confirm(&statement)?;
    }
    if flags.force {
        let cluster = stopped.go_on_alone().map_err(|error| failed(&error))?;
        print::out(&format!(
            "daemon {id} goes on as cluster {cluster}: start it, then run `momo recover --rejoin` on each other daemon \
             that comes back, or empty its directories; `momo node remove` takes out those that never will\n"
        ))
    } else {
        // Its locks are let go: what it had open is put aside.
        drop(stopped);
        let aside = catalog::forget(&config, id)?;
        print::out(&format!(
            "daemon {id} remembers no cluster{aside}; start it, with --join HOST:PORT if it was removed\n"
        ))
    }
}

/// What going on alone means, and what it may lose.
fn alone(id: NodeId, findings: &Findings) -> String {
    let mut text = format!("daemon {id}");
    if let Some(cluster) = findings.cluster {
        let _ = write!(text, " of cluster {cluster}");
    }
    let (mut voters, mut applied) = (Vec::new(), 0);
    if let Some(head) = &findings.head {
        applied = head.index;
        voters = head
            .voters
            .iter()
            .filter_map(|id| NodeId::from_raft(*id))
            .collect();
    }
    let others: Vec<String> = voters
        .iter()
        .filter(|voter| **voter != id)
        .map(ToString::to_string)
        .collect();
    let last = findings.last_index;
    let _ = write!(text, ": its catalog stands at change {applied}");
    if last > applied {
        let _ = write!(
            text,
            ", its log holds {} more, which may or may not have been acknowledged and will all be taken as if they had",
            last - applied
        );
    }
    let _ = write!(
        text,
        ".\nThe other voters are {}. WHAT THEY ACKNOWLEDGED AFTER CHANGE {last} IS LOST: uploads, deletions, changes of \
         mode and of members.",
        if others.is_empty() {
            "none".to_owned()
        } else {
            others.join(", ")
        }
    );
    match findings.acknowledged {
        Some((node, index)) if index > last => {
            let _ = write!(
                text,
                " Daemon {node} had change {index}: at least {} changes are lost.",
                index - last
            );
        }
        _ => {
            let _ = write!(
                text,
                " This daemon knows of none, which does not mean that there is none."
            );
        }
    }
    if !voters.contains(&id) {
        let _ = write!(
            text,
            "\nThis daemon has no vote: it may be far behind. A voter that is left would be a better choice."
        );
    }
    if let Some(why) = &findings.damaged {
        let _ = write!(
            text,
            "\nIts log cannot be used ({why}): it goes on from its catalog."
        );
    }
    if let Some(why) = &findings.out {
        let _ = write!(text, "\nIt takes no part in its cluster: {why}.");
    }
    let _ = write!(
        text,
        "\nIf a majority of the voters can still be started, do that instead. After this, daemon {id} alone decides, as \
         another cluster; the others are shut out, also if they come back, until each gives up its own catalog."
    );
    text
}

/// What asking anew means.
fn rejoin(id: NodeId, findings: &Findings) -> String {
    let mut text = format!("daemon {id} gives up its catalog and keeps its objects.");
    match (&findings.out, findings.cluster) {
        (Some(why), _) => {
            let _ = write!(text, " Now: {why}.");
        }
        (None, Some(cluster)) => {
            let _ = write!(
                text,
                "\nIT IS STILL A MEMBER of cluster {cluster}, as far as it knows: if too few others are left, what was \
                 acknowledged may be lost with its catalog."
            );
        }
        (None, None) => text.push_str(" It remembers no cluster."),
    }
    text
}

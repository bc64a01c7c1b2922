//! Who holds what, counted over the whole catalog when somebody asks, and kept while it holds; and what the leader remembers of the nodes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::id::NodeId;
use crate::base::table::TableError;
use crate::core::catalog;
use crate::core::holdings::{Progress, Survey};
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::wire::admin::{Holdings, Overview};
use crate::wire::command::Code;
use crate::wire::peer::{Answer, Request};

/// A count is used again for so many times as long as it took, though the catalog has changed since.
const REST: u32 = 4;
/// The leader has so long to say what it remembers.
const LEADER: Duration = Duration::from_secs(1);

/// The last count.
#[derive(Debug, Default)]
pub struct Census {
    last: Mutex<Option<(Arc<Counted>, Instant, Duration)>>,
}

/// What each node holds.
#[derive(Debug)]
pub struct Counted {
    /// The index the catalog stood at.
    pub index: u64,
    /// By node.
    pub holdings: BTreeMap<NodeId, Holdings>,
}

/// Counts all copies, unless the last count still holds, or was made at `least` or later and too short a time ago to
/// make another.
pub fn count(engine: &Engine, least: u64) -> Result<Arc<Counted>, Failure> {
    // Whoever asks meanwhile waits for this count and takes it.
    let mut kept = engine.census.last.lock();
    let tables = engine.catalog()?;
    let head = catalog::applied(&tables).map_err(tables_failed)?;
    let index = head.map_or(0, |head| head.index);
    if let Some((counted, at, took)) = &*kept {
        let rests = at.elapsed() < *took * REST && counted.index >= least;
        if counted.index == index || rests {
            return Ok(Arc::clone(counted));
        }
    }
    let began = Instant::now();
    let mut survey = Survey::new(&tables).map_err(tables_failed)?;
    let mut page = || -> Result<Progress, TableError> { survey.page(&tables) };
    while page().map_err(tables_failed)? == Progress::More {
        if engine.is_stopping() {
            let why = "this node stops";
            return Err(Failure::refused(Code::Unavailable, why));
        }
    }
    let counted = Arc::new(Counted {
        index,
        holdings: survey.holdings(),
    });
    *kept = Some((Arc::clone(&counted), Instant::now(), began.elapsed()));
    Ok(counted)
}

/// What the leader remembers of the nodes, this node when nobody leads; `None` when it does not say so in time.
pub fn overview(engine: &Arc<Engine>) -> Option<Overview> {
    let leader = engine.report().leader.unwrap_or(engine.node());
    if leader == engine.node() {
        return engine.overview();
    }
    if !engine.is_well(leader) {
        return None;
    }
    let asked = ask(engine, leader);
    if let Err(error) = &asked {
        log::debug!(target: "momo::overview", "node {leader}: {error}");
    }
    asked.ok()
}

fn ask(engine: &Arc<Engine>, leader: NodeId) -> io::Result<Overview> {
    let mut lent = engine.peers.lend(leader)?;
    lent.stream.set_timeouts(LEADER, LEADER)?;
    lent.stream.send(&Request::Overview)?;
    match lent.stream.receive_value()? {
        Answer::Overview(overview) => {
            lent.keep();
            Ok(overview)
        }
        Answer::Error { message } => Err(io::Error::other(message)),
        _ => Err(io::Error::other("an answer to another question")),
    }
}

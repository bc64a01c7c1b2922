//! Bringing a node up and down: open what is on disk, finish what a crash interrupted, start the threads, and stop them in order.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::base::id::{Boot, ClusterId, NodeId};
use crate::base::limit::{DRIVER_QUEUE, JOB_QUEUE};
use crate::base::table::TableError;
use crate::core::catalog::{self, query};
use crate::core::node::{Event, Fatal, LogRecord, Memory, Node, Recovered};
use crate::core::settings::Settings as CoreSettings;
use crate::engine::bulk::Peers;
use crate::engine::clock;
use crate::engine::links::Links;
use crate::engine::queue::{Sender, bounded};
use crate::engine::settings::Settings;
use crate::engine::shared::{Engine, Parts};
use crate::engine::visible::Visible;
use crate::engine::world::{Production, checkpoint, drive, fact, tend_tree};
use crate::engine::writer;
use crate::engine::{collector, jobs, load, roster, scrub};
use crate::store::disk::RealDisk;
use crate::store::layout::{DataDirs, OpenError, StateDir};
use crate::store::log::{self, LogBase, LogError, RaftLog};
use crate::store::objects::{Objects, StoreError};
use crate::store::tables::CatalogTables;
use crate::store::tree::Tree;
use crate::wire::command::{BirthMember, KNOWS, Operation};
use crate::wire::peer::SnapshotHead;
use crate::wire::record::from_row;

/// Names in the visible tree that wait to be linked, at most.
const TREE_QUEUE: usize = 4_096;
/// Work for the log that waits, at most.
const LOG_QUEUE: usize = 4_096;
/// Checkpoints asked for and not begun, at most; one covers all that wait.
const CHECKPOINT_QUEUE: usize = 64;
/// How often a node that is not registered as it is now says so.
const REGISTER: Duration = Duration::from_millis(100);
/// Starts are numbered by the calendar's milliseconds, so that a wiped node does not begin again below what it had reached.
pub(super) const NANOS_PER_MS: u64 = 1_000_000;
/// Time for the driver to hand over leadership before it stops.
const HANDOVER: Duration = Duration::from_millis(500);

/// Why a node does not come up. All are the operator's to mend, or the disk's.
#[derive(Debug)]
pub enum StartError {
    /// Data or state directories.
    Open(OpenError),
    /// The object store.
    Store(StoreError),
    /// The catalog's tables.
    Tables(TableError),
    /// The Raft log.
    Log(LogError),
    /// What was found does not fit together.
    Core(Fatal),
    /// A recovery by force was cut short.
    Recovering,
    /// Anything else the system refused.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Tables(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Core(error) => error.fmt(f),
            Self::Recovering => f.write_str(
                "a recovery was cut short: finish it with `momo recover --force` and the same --id",
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

macro_rules! from {
    ($($variant:ident($error:ty)),*) => {
        $(impl From<$error> for StartError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}
from!(
    Open(OpenError),
    Store(StoreError),
    Tables(TableError),
    Log(LogError),
    Core(Fatal),
    Io(io::Error)
);

/// A node that is up.
pub struct Running {
    /// What doors and peers go through.
    pub engine: Arc<Engine>,
    /// Ends with a reason when the node cannot go on.
    pub failed: crossbeam_channel::Receiver<String>,
    threads: Vec<JoinHandle<()>>,
    events: Sender<Event>,
}

/// Opens the node's directories and starts its threads.
pub fn start(settings: Settings) -> Result<Running, StartError> {
    let opened = DataDirs::open(
        &settings.data,
        settings.state_dir.as_deref(),
        settings.node,
        clock::wall().0 / NANOS_PER_MS,
    )?;
    for warning in &opened.warnings {
        ::log::warn!(target: "momo::data", "{warning}");
    }
    let objects = Objects::open(&opened.dirs, settings.durability)?;
    let tree = Tree::open(&opened.dirs)?;
    let tables = CatalogTables::open(&opened.state.tables_path())?;
    if read_fact(&opened.state, fact::RECOVERING)?.is_some() {
        return Err(StartError::Recovering);
    }
    let (log, recovered) = recover(&opened.state, &tables)?;

    let join = joining(&opened.state, settings.join.as_deref(), &recovered)?;
    let settings = Settings { join, ..settings };

    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let core_settings = core_settings(&settings, opened.boot, random);
    let mut node = Node::new(core_settings, recovered, &tables)?;
    let report = node.report();
    if let Some(cluster) = report.cluster {
        // A process that ended between its memory of a cluster and the marks.
        opened.dirs.set_cluster(cluster)?;
    }

    let addresses = settings
        .members
        .iter()
        .filter(|member| member.id != settings.node)
        .map(|member| (member.id, member.peer.clone()))
        .collect();
    let peers = Arc::new(Peers::new(
        settings.node,
        settings.secret.clone(),
        addresses,
        settings.fixed_addresses,
        settings.hop_stall,
    ));
    if let Some(cluster) = opened.cluster.or(report.cluster) {
        peers.set_cluster(cluster);
    }
    let listed = query::nodes(&tables)?.into_iter();
    peers.listed(&listed.map(|m| (m.id, m.address)).collect::<Vec<_>>());
    let stopping = Arc::new(AtomicBool::new(false));
    let (events, driver_events) = bounded(DRIVER_QUEUE);
    let links = Links::start(&peers, &events, &stopping)?;
    let engine = Arc::new(Engine::new(Parts {
        settings,
        boot: opened.boot,
        objects,
        visible: Visible::new(tree),
        tables,
        dirs: opened.dirs,
        state: opened.state,
        peers,
        links,
        stopping,
        events: events.clone(),
        report,
    }));

    let (failing, failed) = crossbeam_channel::bounded::<String>(4);
    let (log_work, log_queue) = bounded(LOG_QUEUE);
    let (tree_work, tree_queue) = bounded(TREE_QUEUE);
    let (checkpoint_work, checkpoint_queue) = bounded(CHECKPOINT_QUEUE);
    let (job_work, job_queue) = crossbeam_channel::bounded(JOB_QUEUE);
    let mut threads = Vec::new();
    let mut spawn = |name: &str, body: Box<dyn FnOnce() + Send>| -> io::Result<()> {
        let builder = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(1024 * 1024);
        threads.push(builder.spawn(body)?);
        Ok(())
    };

    let (persisted, fail) = (events.clone(), failing.clone());
    spawn(
        "log",
        Box::new(move || {
            if let Err(error) = writer::run(log, &log_queue, &persisted) {
                let _ = fail.try_send(format!("the Raft log: {error}"));
            }
        }),
    )?;
    let mut world = Production {
        engine: Arc::clone(&engine),
        log: log_work,
        tree: tree_work,
        checkpoints: checkpoint_work,
        jobs: job_work,
        events: events.clone(),
        soon: Vec::new(),
    };
    let (shared, answer, fail) = (Arc::clone(&engine), events.clone(), failing.clone());
    spawn(
        "checkpoint",
        Box::new(move || {
            if let Err(error) = checkpoint(&shared, &checkpoint_queue, &answer) {
                let _ = fail.try_send(error.to_string());
            }
        }),
    )?;
    let fail = failing;
    spawn(
        "driver",
        Box::new(move || {
            if let Err(error) = drive(&mut node, &mut world, &driver_events) {
                let _ = fail.try_send(error.to_string());
            }
        }),
    )?;
    let shared = Arc::clone(&engine);
    spawn("tree", Box::new(move || tend_tree(&shared, &tree_queue)))?;
    for _ in 0..engine.settings.repair_in.max(1) {
        let (shared, queue) = (Arc::clone(&engine), job_queue.clone());
        spawn("copy", Box::new(move || jobs::run(&shared, &queue)))?;
    }
    for (name, body) in [
        ("heartbeat", load::beat as fn(&Arc<Engine>)),
        ("sampler", load::sample),
        ("collector", collector::run),
        ("scrub", scrub::run),
        ("register", register),
        ("roster", roster::follow),
    ] {
        let shared = Arc::clone(&engine);
        spawn(name, Box::new(move || body(&shared)))?;
    }
    if let Some(address) = engine.settings.join.clone() {
        let shared = Arc::clone(&engine);
        spawn("join", Box::new(move || roster::find(&shared, &address)))?;
    }
    Ok(Running {
        engine,
        failed,
        threads,
        events,
    })
}

impl Running {
    /// Hands over leadership, then stops every thread; returns when they have ended or `patience` is over.
    pub fn stop(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if self.events.send_timeout(Event::Stepdown, HANDOVER).is_ok() {
            let until = Instant::now() + HANDOVER.min(patience / 2);
            while self.engine.report().leader == Some(self.engine.node())
                && self.engine.report().voters.len() > 1
                && Instant::now() < until
            {
                thread::park_timeout(Duration::from_millis(10));
            }
        }
        self.engine.stopping.store(true, Ordering::Release);
        let _ = self.events.try_send(Event::Time);
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::park_timeout(Duration::from_millis(5));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        // What was applied is on stable storage in the log; this only shortens the next start.
        if let Err(error) = self.engine.tables.checkpoint() {
            ::log::warn!(target: "momo::stop", "{error}");
        }
    }
}

/// Where to ask for membership: as the operator says, or as it was said to a start before that came to nothing yet.
fn joining(
    state: &StateDir,
    said: Option<&str>,
    recovered: &Recovered,
) -> Result<Option<String>, StartError> {
    let last = recovered.memory.iter().rev().find(|memory| {
        let about_others = matches!(memory, Memory::Acknowledged(_));
        !about_others
    });
    let member = matches!(last, Some(Memory::Born(_) | Memory::Admitted(_)));
    match said {
        Some(address) => {
            if !member {
                state.write_fact(fact::JOINING, address.as_bytes())?;
            }
            Ok(Some(address.to_owned()))
        }
        None if member => Ok(None),
        None => {
            let written = read_fact(state, fact::JOINING)?;
            Ok(written.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        }
    }
}

/// Opens the log and finishes what a crash may have interrupted between tables and log.
pub(super) fn recover(
    state: &StateDir,
    tables: &CatalogTables,
) -> Result<(RaftLog<RealDisk>, Recovered), StartError> {
    #[derive(Deserialize)]
    struct Installing {
        head: SnapshotHead,
        hard_state: Vec<u8>,
    }

    state.prepare_facts(&fact::ALL);
    let (mut log, mut found) = match RaftLog::open(RealDisk, &state.log_dir()) {
        Ok(opened) => opened,
        Err(LogError::Damaged(why)) => {
            // Remembered over further starts, until the core has the log emptied: an empty log looks like a new one.
            state.write_fact(fact::LOST, why.as_bytes())?;
            RaftLog::create_anew(RealDisk, &state.log_dir())?
        }
        Err(error) => return Err(error.into()),
    };
    let mut damaged =
        read_fact(state, fact::LOST)?.map(|why| String::from_utf8_lossy(&why).into_owned());
    if let Some(bytes) = read_fact(state, fact::FORGETTING)? {
        if !bytes.is_empty() {
            tables.replace(std::iter::empty())?;
            log.reset(LogBase { index: 0, term: 0 }, &[])?;
            state.write_fact(fact::FORGETTING, b"")?;
            state.write_fact(fact::LOST, b"")?;
            damaged = None;
            found = log::Recovered::default();
        }
    } else if damaged.is_none()
        && let Some(bytes) = read_fact(state, fact::INSTALLING)?
        && let Ok(installing) = serde_json::from_slice::<Installing>(&bytes)
        && catalog::applied(tables)?.is_some_and(|head| head == installing.head)
        && !leads_to(&found, &installing.head)
    {
        // The tables were swapped, the log was not yet started anew behind them.
        let base = LogBase {
            index: installing.head.index,
            term: installing.head.term,
        };
        log.reset(base, &installing.hard_state)?;
        found = log::Recovered {
            hard_state: Some(installing.hard_state),
            base,
            entries: Vec::new(),
        };
    }
    let mut memory = Vec::new();
    if let Some(bytes) = read_fact(state, fact::BIRTH)? {
        memory.push(Memory::Born(from_row(&bytes)?));
    }
    if let Some(bytes) = read_fact(state, fact::ADMITTED)? {
        memory.push(Memory::Admitted(from_row::<ClusterId>(&bytes)?));
    }
    if let Some(bytes) = read_fact(state, fact::OUT)? {
        let (cluster, why) = from_row::<(ClusterId, String)>(&bytes)?;
        memory.push(Memory::Out { cluster, why });
    }
    if let Some(bytes) = read_fact(state, fact::ACKNOWLEDGED)? {
        memory.push(Memory::Acknowledged(from_row::<Vec<(NodeId, u64)>>(
            &bytes,
        )?));
    }
    let recovered = Recovered {
        damaged,
        hard_state: found.hard_state,
        base_index: found.base.index,
        base_term: found.base.term,
        entries: found
            .entries
            .into_iter()
            .map(|entry| LogRecord {
                index: entry.index,
                term: entry.term,
                bytes: entry.bytes,
            })
            .collect(),
        memory,
    };
    Ok((log, recovered))
}

/// Whether the log has the entry at which the tables stand: of that index and of that term. What lies behind an entry of
/// another term belongs to a leader that was overruled.
fn leads_to(found: &log::Recovered, head: &SnapshotHead) -> bool {
    let base = (found.base.index, found.base.term);
    base == (head.index, head.term)
        || found
            .entries
            .iter()
            .any(|entry| (entry.index, entry.term) == (head.index, head.term))
}

pub(super) fn read_fact(state: &StateDir, name: &str) -> io::Result<Option<Vec<u8>>> {
    Ok(state.read_fact(name)?.filter(|bytes| !bytes.is_empty()))
}

fn core_settings(settings: &Settings, boot: Boot, random: [u8; 24]) -> CoreSettings {
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&random[..16]);
    let mut seed = [0; 8];
    seed.copy_from_slice(&random[16..]);
    let cluster = ClusterId(u128::from_be_bytes(cluster).max(1));
    let mut core = CoreSettings::new(settings.node, boot, u64::from_be_bytes(seed), cluster);
    let mut votes_left = settings.voters;
    core.members = settings
        .members
        .iter()
        .map(|member| {
            let votes = member.manages && votes_left > 0;
            votes_left -= usize::from(votes);
            BirthMember {
                id: member.id,
                name: member.name.clone(),
                address: member.peer.clone(),
                votes,
                stores: member.stores,
                manages: member.manages,
            }
        })
        .collect();
    core.voters = settings.voters;
    core.joins = settings.join.is_some();
    core.membership_grace = settings.membership_grace;
    if let Some(first) = settings.modes.first() {
        core.mode = *first;
    }
    core.raft_tick = settings.raft_tick;
    core.election_ticks = settings.election_ticks;
    core.heartbeat_ticks = settings.raft_heartbeat_ticks;
    core.heartbeat_interval = settings.heartbeat_interval;
    core.heartbeat_timeout = settings.heartbeat_timeout;
    core.repair_grace = settings.repair_grace;
    core.garbage_grace = settings.garbage_grace;
    core.repair_in = settings.repair_in;
    core.repair_out = settings.repair_out;
    core.repair_bandwidth = settings.repair_bandwidth;
    core
}

/// Says what this node is whenever the catalog has it differently: at every start, and when a directory is lost or found again.
fn register(engine: &Arc<Engine>) {
    let mut wait = REGISTER;
    while !engine.is_stopping() {
        thread::park_timeout(wait);
        wait = (wait * 2).min(Duration::from_secs(1));
        if !engine.report().born || engine.report().leader.is_none() {
            wait = REGISTER;
            continue;
        }
        let Ok(Some(known)) = query::node(&engine.tables, engine.node()) else {
            continue;
        };
        let Some(member) = engine.settings.member(engine.node()) else {
            return;
        };
        let dirs = engine.objects.dirs();
        let mut dirs: Vec<_> = dirs
            .iter()
            .filter(|dir| !dir.lost)
            .map(|dir| dir.id)
            .collect();
        // As the catalog keeps them.
        dirs.sort_unstable();
        if known.boot == engine.boot
            && known.dirs == dirs
            && known.address == member.peer
            && known.name == member.name
            && known.knows == KNOWS
        {
            continue;
        }
        let registered = engine.commit(Operation::Register {
            node: engine.node(),
            name: member.name.clone(),
            address: member.peer.clone(),
            dirs,
            stores: member.stores,
            manages: member.manages,
            boot: engine.boot,
            knows: KNOWS,
        });
        match registered {
            Ok(_) => {
                ::log::info!(target: "momo::registered", "node {} is registered (start {})", engine.node(), engine.boot.0);
            }
            Err(failure) => ::log::warn!(target: "momo::register", "not registered yet: {failure}"),
        }
    }
}

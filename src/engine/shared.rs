//! What the engine's threads share: the stores, the links, the queue to the driver, and the few waits between them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::base::digest::Sha256;
use crate::base::id::{Boot, ClusterId, NodeId, OperationId, Ticket};
use crate::base::table::TableError;
use crate::base::time::Mono;
use crate::core::catalog::{self, query};
use crate::core::node::{Answered, Event, Report};
use crate::engine::bulk::Peers;
use crate::engine::census::Census;
use crate::engine::clock;
use crate::engine::collector::Candidates;
use crate::engine::content::Laggards;
use crate::engine::legs::LegBoard;
use crate::engine::links::Links;
use crate::engine::pace::Pace;
use crate::engine::permits::Permits;
use crate::engine::pins::Pins;
use crate::engine::queue::{Sender, bounded};
use crate::engine::scrub::Scrub;
use crate::engine::settings::Settings;
use crate::engine::verbs::Failure;
use crate::engine::visible::Visible;
use crate::store::layout::{DataDirs, StateDir};
use crate::store::objects::Objects;
use crate::store::tables::{CatalogTables, TableSnapshot};
use crate::wire::admin::Overview;
use crate::wire::command::{Code, Operation, Reply};
use crate::wire::record::ObjectRecord;

/// Time the driver has, beyond a request's own deadline, to say that the deadline has passed.
const DRIVER_GRACE: Duration = Duration::from_secs(2);

/// Time for the driver to say what it remembers.
const OVERVIEW: Duration = Duration::from_secs(1);

/// Time between two log lines that say reads are stale.
const SAY_STALE: Duration = Duration::from_secs(10);
/// See [`Engine::is_meeting`].
const MEET: Duration = Duration::from_secs(2);

/// A driver that has taken no event for so long hangs: it takes one at least every half second.
const DRIVER_HANGS: Duration = Duration::from_secs(10);

/// One node's engine, shared by all its threads.
pub struct Engine {
    /// What the operator asked for.
    pub settings: Settings,
    /// This start.
    pub boot: Boot,
    /// When this process began.
    pub started: Instant,
    /// Objects on this node.
    pub objects: Objects,
    /// The visible tree.
    pub visible: Visible,
    /// The catalog's tables.
    pub tables: CatalogTables,
    /// Data directories.
    pub dirs: DataDirs,
    /// Log, tables and facts.
    pub state: StateDir,
    /// Other members.
    pub peers: Arc<Peers>,
    /// Control links.
    pub links: Links,
    /// How many connections for bytes may be opened (rule R20).
    pub permits: Arc<Permits>,
    /// Objects held for uploads (rule R5).
    pub pins: Pins,
    /// Primary-splay uploads and their legs (rule R22).
    pub legs: LegBoard,
    /// Objects that may be garbage (rule R6).
    pub candidates: Candidates,
    /// Holders that lately kept reads waiting.
    pub laggards: Laggards,
    /// How the scrub stands, and what it and reads found.
    pub scrub: Scrub,
    /// A data directory was empty at this start, and what the catalog counts here has not been compared with it yet.
    pub comparing: AtomicBool,
    /// What each node holds, as last counted.
    pub census: Census,
    /// Set when the process stops.
    pub stopping: Arc<AtomicBool>,
    /// Open connections, for the figures; kept by the server.
    pub connections: AtomicU64,
    /// Copy jobs queued or running.
    pub jobs: AtomicU64,
    /// Objects that copy jobs are bringing.
    pub fetching: Mutex<HashSet<Sha256>>,
    /// How fast repair may go.
    pub pace: Pace,
    events: Sender<Event>,
    answers: Mutex<HashMap<Ticket, Sender<Answered>>>,
    tickets: AtomicU64,
    uploads: AtomicU64,
    report: RwLock<Report>,
    driven: AtomicU64,
    applied: Mutex<u64>,
    applied_changed: Condvar,
    /// When it was last said that reads are stale, and how many were not spoken of since.
    stale_said: Mutex<(Option<Instant>, u64)>,
}

/// The parts an [`Engine`] is made of.
pub struct Parts {
    /// See [`Engine::settings`].
    pub settings: Settings,
    /// See [`Engine::boot`].
    pub boot: Boot,
    /// See [`Engine::objects`].
    pub objects: Objects,
    /// See [`Engine::visible`].
    pub visible: Visible,
    /// See [`Engine::tables`].
    pub tables: CatalogTables,
    /// See [`Engine::dirs`].
    pub dirs: DataDirs,
    /// See [`Engine::state`].
    pub state: StateDir,
    /// See [`Engine::peers`].
    pub peers: Arc<Peers>,
    /// See [`Engine::links`].
    pub links: Links,
    /// See [`Engine::stopping`].
    pub stopping: Arc<AtomicBool>,
    /// The driver's queue.
    pub events: Sender<Event>,
    /// What the core said at start.
    pub report: Report,
}

impl Engine {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let (node, applied) = (parts.settings.node, parts.report.applied);
        let pace = Pace::new(parts.settings.repair_bandwidth);
        let comparing = parts.dirs.dirs.iter().any(|dir| dir.fresh);
        Self {
            settings: parts.settings,
            boot: parts.boot,
            started: Instant::now(),
            objects: parts.objects,
            visible: parts.visible,
            tables: parts.tables,
            dirs: parts.dirs,
            state: parts.state,
            permits: Arc::new(Permits::new(1 + parts.peers.wanted().len())),
            peers: parts.peers,
            links: parts.links,
            pins: Pins::default(),
            legs: LegBoard::default(),
            candidates: Candidates::default(),
            laggards: Laggards::default(),
            scrub: Scrub::new(node),
            comparing: AtomicBool::new(comparing),
            census: Census::default(),
            stopping: parts.stopping,
            connections: AtomicU64::new(0),
            jobs: AtomicU64::new(0),
            fetching: Mutex::default(),
            pace,
            events: parts.events,
            answers: Mutex::new(HashMap::new()),
            tickets: AtomicU64::new(1),
            uploads: AtomicU64::new(1),
            report: RwLock::new(parts.report),
            driven: AtomicU64::new(clock::mono().0),
            applied: Mutex::new(applied),
            applied_changed: Condvar::new(),
            stale_said: Mutex::default(),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.settings.node
    }

    /// True once the process is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// An id for a new upload.
    pub fn next_upload(&self) -> OperationId {
        let sequence = self.uploads.fetch_add(1, Ordering::Relaxed);
        OperationId {
            node: self.node(),
            boot: self.boot,
            sequence,
        }
    }

    /// A consistent view of the catalog as applied here. Refused while there is none: a node that was emptied and is
    /// filled again must not say of every name that it does not exist.
    pub fn catalog(&self) -> Result<TableSnapshot, Failure> {
        let tables = self.tables.snapshot().map_err(tables_failed)?;
        if catalog::applied(&tables).map_err(tables_failed)?.is_none() {
            let why = "this node has no catalog yet, it is being brought up to date";
            return Err(Failure::refused(Code::Unavailable, why));
        }
        Ok(tables)
    }

    /// What the core last said of itself.
    pub fn report(&self) -> Report {
        self.report.read().clone()
    }

    /// The driver's word on what is so now.
    pub fn set_report(&self, report: Report) {
        let applied = report.applied;
        *self.report.write() = report;
        let mut known = self.applied.lock();
        // It falls only when this node was emptied: what was applied before is not here any more.
        if applied != *known {
            *known = applied;
            drop(known);
            self.applied_changed.notify_all();
        }
    }

    /// The driver has taken an event.
    pub fn driven(&self) {
        self.driven.store(clock::mono().0, Ordering::Relaxed);
    }

    /// Whether the driver has taken an event lately: a watchdog's question.
    pub fn is_driven(&self) -> bool {
        clock::mono() - Mono(self.driven.load(Ordering::Relaxed)) < DRIVER_HANGS
    }

    /// Waits until `index` is applied here; false when `patience` ran out first.
    pub fn wait_applied(&self, index: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut applied = self.applied.lock();
        while *applied < index {
            if self
                .applied_changed
                .wait_until(&mut applied, deadline)
                .timed_out()
            {
                return *applied >= index;
            }
        }
        true
    }

    /// Puts an event into the driver's queue; false when it stayed full for `patience` or the driver is gone.
    pub fn tell(&self, event: Event, patience: Duration) -> bool {
        self.events.send_timeout(event, patience).is_ok()
    }

    /// A node proved that it belongs to another cluster.
    pub fn meet(&self, node: NodeId, cluster: ClusterId) {
        self.peers.meet(&self.events, node, cluster);
    }

    fn ask(&self, patience: Duration, event: impl FnOnce(Ticket) -> Event) -> Option<Answered> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = bounded(1);
        self.answers.lock().insert(ticket, sender);
        let answer = if self.tell(event(ticket), patience) {
            receiver
                .recv_timeout(patience + DRIVER_GRACE)
                .unwrap_or(Answered::Unknown)
        } else {
            self.answers.lock().remove(&ticket);
            return None;
        };
        self.answers.lock().remove(&ticket);
        Some(answer)
    }

    /// The driver answers a thread.
    pub fn answer(&self, ticket: Ticket, answer: Answered) {
        let waiting = self.answers.lock().remove(&ticket);
        if let Some(sender) = waiting {
            let _ = sender.try_send(answer);
        }
    }

    /// Why nothing can be committed for now: nobody leads, and fewer voters than a majority can be reached. Said at once rather than after a deadline.
    pub fn shortage(&self) -> Option<Failure> {
        loop {
            let report = self.report();
            let voters = report.voters.len();
            let up = report
                .voters
                .iter()
                .filter(|voter| self.is_up(**voter))
                .count();
            if report.leader.is_some() || voters == 0 || up * 2 > voters {
                return None;
            }
            if !self.is_meeting() {
                let why = report.waiting.unwrap_or_default();
                return Some(Failure::refused(Code::Unavailable, why));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Whether this node has just started: it may not have met the others yet, and refuses nothing because they are not there.
    pub fn is_meeting(&self) -> bool {
        self.started.elapsed() < MEET && !self.is_stopping()
    }

    /// Has `operation` committed: its index and version, a refusal, or unknown.
    pub fn commit(&self, operation: Operation) -> Result<Committed, Failure> {
        if let Some(failure) = self.shortage() {
            return Err(failure);
        }
        let patience = self.settings.commit_deadline;
        let deadline = clock::mono() + patience;
        let answer = self.ask(patience, |ticket| Event::Propose {
            ticket,
            operation,
            deadline,
        });
        match answer {
            None => Err(Failure::refused(Code::Unavailable, "busy, try again")),
            Some(Answered::Committed {
                index,
                reply: Reply::Done { version },
            }) => Ok(Committed { index, version }),
            Some(
                Answered::Committed {
                    reply: Reply::Rejected { code, message },
                    ..
                }
                | Answered::Refused {
                    reply: Reply::Rejected { code, message },
                },
            ) => Err(Failure::Refused { code, message }),
            Some(Answered::Unknown) => Err(Failure::Unknown {
                message: "no leader confirmed it in time".to_owned(),
            }),
            Some(
                Answered::Refused {
                    reply: Reply::Done { .. },
                }
                | Answered::Fresh
                | Answered::Stale
                | Answered::Overview(_),
            ) => Err(Failure::refused(
                Code::Internal,
                "the driver answered another question",
            )),
        }
    }

    /// Rule R1: waits until everything acknowledged before is applied here. True when fresh, false when no leader
    /// confirmed it in time. While a leader is known it is asked again: only without one, and not at once after the start, is what lies here served.
    pub fn fresh(&self) -> bool {
        let patience = self.settings.read_fresh;
        let until = Instant::now() + self.settings.commit_deadline.max(patience);
        loop {
            let deadline = clock::mono() + patience;
            match self.ask(patience, |ticket| Event::Read { ticket, deadline }) {
                Some(Answered::Fresh) => return true,
                Some(_) if Instant::now() < until && !self.is_stopping() => {
                    if self.report.read().leader.is_none() && !self.is_meeting() {
                        break;
                    }
                }
                _ => break,
            }
        }
        self.say_stale();
        false
    }

    /// What this node remembers of the others; `None` while its driver is busy.
    pub fn overview(&self) -> Option<Overview> {
        match self.ask(OVERVIEW, |ticket| Event::Overview { ticket }) {
            Some(Answered::Overview(overview)) => Some(*overview),
            _ => None,
        }
    }

    /// One line every while: a node without a leader says it for every read otherwise.
    fn say_stale(&self) {
        let mut said = self.stale_said.lock();
        let (at, unsaid) = &mut *said;
        *unsaid += 1;
        if at.is_none_or(|at| at.elapsed() >= SAY_STALE) {
            log::warn!(
                target: "momo::read_stale",
                "no leader confirmed a read in time: serving what is here ({unsaid} since this was last said)"
            );
            (*at, *unsaid) = (Some(Instant::now()), 0);
        }
    }

    /// Whether a node can be reached now: this one always.
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.node() || self.links.is_up(node)
    }

    /// Whether a node can be reached and has not just failed to take or give bytes.
    pub fn is_well(&self, node: NodeId) -> bool {
        self.is_up(node) && !self.peers.is_suspect(node)
    }

    /// Pins of a settled upload: objects that lie here where they do not count become candidates for collection.
    pub fn settle(&self, upload: OperationId) -> Result<(), TableError> {
        let several = self.dirs.dirs.len() > 1;
        for sha256 in self.pins.settle(upload) {
            let counted = |object: &ObjectRecord| {
                let mut copies = object.copies.iter();
                copies.any(|copy| copy.node == self.node())
            };
            // With several directories it may count in one and lie in another.
            if several
                || !query::object(&self.tables, &sha256)?
                    .as_ref()
                    .is_some_and(counted)
            {
                self.candidates.add(sha256);
            }
        }
        Ok(())
    }

    /// Whether this node itself holds the object, on disk, now.
    pub fn holds(&self, sha256: &Sha256) -> bool {
        matches!(self.objects.stat(sha256), Ok(Some(_)))
    }
}

/// A committed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// See [`Reply::Done`].
    pub version: crate::base::id::Version,
}

/// A failure of the tables as a door sees it.
#[allow(clippy::needless_pass_by_value)]
pub fn tables_failed(error: TableError) -> Failure {
    Failure::refused(Code::Internal, error.to_string())
}

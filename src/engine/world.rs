//! The world the core acts upon in production: tables, log, links, threads. Effects are carried out here, in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::{RecvTimeoutError, TrySendError};

use crate::base::path::FilePath;
use crate::base::table::{TableError, Tables};
use crate::core::node::{Effect, Event, Fatal, Level, Memory, Node};
use crate::engine::clock;
use crate::engine::driver::{World, turn};
use crate::engine::jobs::Job;
use crate::engine::queue::{Receiver, Sender, bounded};
use crate::engine::shared::Engine;
use crate::engine::snapshot;
use crate::engine::writer::LogWork;
use crate::store::log::LogBase;
use crate::wire::record::to_row;

/// Facts beside log and tables.
pub mod fact {
    /// The cluster's birth certificate.
    pub const BIRTH: &str = "birth";
    /// The cluster this node was admitted to.
    pub const ADMITTED: &str = "admitted";
    /// Why this node has no part in its cluster any more; empty while it has.
    pub const OUT: &str = "out";
    /// This node was told to ask for membership, and at which address; empty once it is a member.
    pub const JOINING: &str = "joining";
    /// A recovery by force that is under way, see [`crate::engine::recover`]; empty when none is.
    pub const RECOVERING: &str = "recovering";
    /// What voters acknowledged (rule R13).
    pub const ACKNOWLEDGED: &str = "acknowledged";
    /// A snapshot that is being put in place.
    pub const INSTALLING: &str = "installing";
    /// Why the log cannot be trusted; empty once it has been emptied by order of the core.
    pub const LOST: &str = "lost";
    /// Log and tables are being emptied.
    pub const FORGETTING: &str = "forgetting";
    /// Where the scrub is.
    pub const SCRUB: &str = "scrub";
    /// All of them.
    pub const ALL: [&str; 10] = [
        BIRTH,
        ADMITTED,
        OUT,
        JOINING,
        RECOVERING,
        ACKNOWLEDGED,
        INSTALLING,
        LOST,
        FORGETTING,
        SCRUB,
    ];
}

/// Longest wait of the driver when the core has no deadline.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// What the visible tree's thread is told.
#[derive(Debug)]
pub enum TreeWork {
    /// A name changed.
    Touched(FilePath),
    /// Everything may have changed.
    Rebuild,
}

/// The production world.
pub struct Production {
    /// What the threads share.
    pub engine: Arc<Engine>,
    /// The log writer's queue.
    pub log: Sender<LogWork>,
    /// The visible tree's queue.
    pub tree: Sender<TreeWork>,
    /// The checkpoint thread's queue: indexes the tables stand at.
    pub checkpoints: Sender<u64>,
    /// The copy workers' queue.
    pub jobs: crossbeam_channel::Sender<Job>,
    /// The driver's own queue, for what helpers report.
    pub events: Sender<Event>,
    /// Events that follow from effects at once.
    pub soon: Vec<Event>,
}

fn disk(error: impl std::fmt::Display) -> Fatal {
    Fatal::Disk(error.to_string())
}

impl World for Production {
    fn tables(&self) -> &dyn Tables {
        &self.engine.tables
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Fatal> {
        let engine = &self.engine;
        match effect {
            Effect::Send { to, message } => engine.links.send(to, message),
            Effect::Write(batch) => engine.tables.write(&batch)?,
            Effect::Append(append) => self.log.send(LogWork::Append(append)).map_err(disk)?,
            Effect::CutLog { index, term } => {
                self.log
                    .send(LogWork::Cut(LogBase { index, term }))
                    .map_err(disk)?;
            }
            Effect::Answer { ticket, answer } => engine.answer(ticket, answer),
            Effect::Checkpoint { applied } => self.checkpoints.send(applied).map_err(disk)?,
            Effect::FetchSnapshot { from } => {
                let (engine, events) = (Arc::clone(engine), self.events.clone());
                let fetch = move || {
                    let head = match snapshot::fetch(&engine, from) {
                        Ok(head) => Some(head),
                        Err(error) => {
                            log::warn!(target: "momo::snapshot", "node {from}: catalog not fetched: {error}");
                            None
                        }
                    };
                    let _ = events.send(Event::SnapshotFetched { head });
                };
                let started = thread::Builder::new().name("snapshot".into()).spawn(fetch);
                if let Err(error) = started {
                    log::warn!(target: "momo::snapshot", "node {from}: catalog not fetched: {error}");
                    self.soon.push(Event::SnapshotFetched { head: None });
                }
            }
            Effect::InstallSnapshot {
                head,
                hard_state,
                number,
            } => {
                let installing = serde_json::json!({"head": head, "hard_state": hard_state});
                engine
                    .state
                    .write_fact(fact::INSTALLING, &to_row(&installing))
                    .map_err(disk)?;
                snapshot::install(engine, &head)?;
                let base = LogBase {
                    index: head.index,
                    term: head.term,
                };
                let reset = LogWork::Reset {
                    base,
                    hard_state,
                    number,
                };
                self.log.send(reset).map_err(disk)?;
                self.touch(TreeWork::Rebuild);
            }
            Effect::Forget => self.forget()?,
            Effect::Remember(memory) => self.remember(&memory)?,
            Effect::Touched { path } if engine.visible.is_expected(&path) => {}
            Effect::Touched { path } => self.touch(TreeWork::Touched(path)),
            Effect::Unreferenced { sha256 } => engine.candidates.add(sha256),
            Effect::Settled { upload } => engine.settle(upload)?,
            Effect::StartFetch { fetch, leader } => {
                let job = fetch.job;
                engine.jobs.fetch_add(1, Ordering::Relaxed);
                if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                    self.jobs.try_send(Job { fetch, leader })
                {
                    engine.jobs.fetch_sub(1, Ordering::Relaxed);
                    let error = Some("the queue is full".to_owned());
                    self.soon.push(Event::FetchEnded { job, leader, error });
                }
            }
            Effect::Say { level, event, text } => say(level, event, &text),
        }
        Ok(())
    }
}

impl Production {
    /// Empties tables and log, durably. The mark stands only while that is under way: a crash in between is finished at
    /// the next start, and a start after that must find nothing that tells it to empty what has been built up since.
    fn forget(&self) -> Result<(), Fatal> {
        let engine = &self.engine;
        let mark = |bytes| engine.state.write_fact(fact::FORGETTING, bytes);
        mark(b"{}".as_slice()).map_err(disk)?;
        engine.tables.replace(std::iter::empty())?;
        let (done, emptied) = bounded(1);
        self.log.send(LogWork::Forget(done)).map_err(disk)?;
        // The writer ends, and with it the queue, when the log cannot be emptied.
        emptied
            .recv()
            .ok_or_else(|| disk("the log could not be emptied"))?;
        engine.state.write_fact(fact::LOST, b"").map_err(disk)?;
        mark(b"".as_slice()).map_err(disk)
    }

    /// The memory first, the marks then: a node that has marked its directories and remembers nothing would later be born
    /// into a cluster of its own, and find that they belong to another. The start writes marks that are lacking.
    fn remember(&self, memory: &Memory) -> Result<(), Fatal> {
        let engine = &self.engine;
        let (facts, cluster) = match memory {
            Memory::Born(birth) => (vec![(fact::BIRTH, to_row(birth))], Some(birth.cluster)),
            Memory::Admitted(cluster) => {
                let admitted = (fact::ADMITTED, to_row(cluster));
                let facts = vec![
                    admitted,
                    (fact::OUT, Vec::new()),
                    (fact::JOINING, Vec::new()),
                ];
                (facts, Some(*cluster))
            }
            Memory::Out { cluster, why } => (vec![(fact::OUT, to_row(&(cluster, why)))], None),
            Memory::Acknowledged(indexes) => (vec![(fact::ACKNOWLEDGED, to_row(indexes))], None),
        };
        if let Some(cluster) = cluster {
            engine.dirs.may_be_of(cluster).map_err(disk)?;
        }
        for (name, value) in facts {
            engine.state.write_fact(name, &value).map_err(disk)?;
        }
        if let Some(cluster) = cluster {
            engine.dirs.set_cluster(cluster).map_err(disk)?;
            engine.peers.set_cluster(cluster);
        }
        Ok(())
    }

    fn touch(&self, work: TreeWork) {
        if self.tree.try_send(work).is_err() {
            self.engine.visible.fell_behind();
        }
    }
}

fn say(level: Level, event: &str, text: &str) {
    let level = match level {
        Level::Error => log::Level::Error,
        Level::Warn => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
    };
    log::log!(target: &format!("momo::{event}"), level, "{text}");
}

/// The driver: one event, one turn, until the node stops.
pub fn drive(
    node: &mut Node,
    world: &mut Production,
    events: &Receiver<Event>,
) -> Result<(), Fatal> {
    let mut last = None;
    while !world.engine.is_stopping() {
        let event = match world.soon.pop() {
            Some(event) => event,
            None => match wait(node, events) {
                Some(event) => event,
                None => return Ok(()),
            },
        };
        world.engine.driven();
        turn(node, world, event, clock::now())?;
        let report = node.report();
        if last.as_ref() != Some(&report) {
            world.engine.set_report(report.clone());
            last = Some(report);
        }
    }
    Ok(())
}

/// The next event, or the passing of time; `None` when nobody can send any more.
fn wait(node: &Node, events: &Receiver<Event>) -> Option<Event> {
    let wait = node
        .deadline()
        .map_or(LONGEST_WAIT, |deadline| deadline - clock::mono());
    match events.recv_timeout(wait.min(LONGEST_WAIT)) {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => Some(Event::Time),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// The checkpoint thread: whatever is written by the time it begins becomes durable, which is at least what was asked for.
pub fn checkpoint(
    engine: &Engine,
    work: &Receiver<u64>,
    events: &Sender<Event>,
) -> Result<(), TableError> {
    while let Some(mut applied) = work.recv() {
        applied = work.try_iter().last().unwrap_or(applied);
        engine.tables.checkpoint()?;
        let _ = events.send(Event::Checkpointed { applied });
    }
    Ok(())
}

/// The visible tree's thread: names one by one as they change, and all of them after a start, a snapshot or when it fell behind. For that it
/// waits until the catalog here is up to date: what is only not applied yet must not vanish meanwhile.
pub fn tend_tree(engine: &Arc<Engine>, work: &Receiver<TreeWork>) {
    engine.visible.fell_behind();
    while !engine.is_stopping() {
        let done = match work.recv_timeout(LONGEST_WAIT) {
            Ok(TreeWork::Touched(path)) => engine.visible.reconcile(&engine.tables, &path),
            Ok(TreeWork::Rebuild) => {
                engine.visible.fell_behind();
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let up_to_date =
            || engine.report().born && engine.report().leader.is_some() && engine.fresh();
        let rebuilt = if engine.visible.is_behind() && up_to_date() && engine.visible.catch_up() {
            engine.visible.rebuild(&engine.tables)
        } else {
            Ok(())
        };
        for error in [done, rebuilt].into_iter().filter_map(Result::err) {
            log::error!(target: "momo::tree", "{error}");
        }
    }
}

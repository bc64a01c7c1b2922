//! A daemon's threads around the core, as happenings: uploads that land on several nodes, copy workers, registration, the collector of garbage, scrubbing.
//!
//! What the core decides and what the catalog says is the production code; what a thread does between two events is told here again, step by step and with everything that may come between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use momo::base::canary::{self, Canary};
use momo::base::digest::Sha256;
use momo::base::id::{Boot, DirId, NodeId, OperationId, Ticket};
use momo::base::limit::JOB_QUEUE;
use momo::base::time::Mono;
use momo::core::catalog::query;
use momo::core::node::{Answered, Event};
use momo::core::replication::{self, Candidate, Plan as Road, Reach, View};
use momo::wire::command::{Code, Operation, PlacedPart, Put, Reply};
use momo::wire::peer::{Fetch, Hop};
use momo::wire::record::{Administrative, Copy, Mode, Part};

use crate::checkers::copies::Copies;
use crate::clients::{Content, Request};
use crate::cluster::{Cluster, Happening};
use crate::plan::{Plan, below};
use crate::shelves::File;

/// How long a thread waits for a commit.
const COMMIT_DEADLINE: u64 = 10_000_000;
/// An upload goes on with the copies it has by then (rule R11).
const HOP_STALL: u64 = 3_000_000;
/// The collector's period.
const LOOK: u64 = 500_000;

/// What a daemon's threads remember; gone with its process.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default)]
pub struct Daemon {
    /// Objects held for uploads (rule R5), since when.
    pub pins: BTreeMap<OperationId, (u64, BTreeSet<Sha256>)>,
    /// Objects that may be garbage, since when.
    pub candidates: BTreeMap<Sha256, u64>,
    /// Copies counted here that were not found, or are bad.
    pub lost: BTreeSet<Sha256>,
    /// Uploads to be abandoned.
    pub given_up: BTreeSet<OperationId>,
    /// Written and not yet synced: a crash may take them.
    pub sealing: Vec<(DirId, Sha256, File)>,
    /// What was compared with the catalog: the snapshot, and the directories.
    walked: Option<(u64, Vec<DirId>)>,
    walking: bool,
    collecting: bool,
    registering: bool,
    jobs: VecDeque<(Fetch, NodeId)>,
    running: bool,
}

impl Daemon {
    fn is_pinned(&self, sha256: &Sha256) -> bool {
        self.pins.values().any(|(_, held)| held.contains(sha256))
    }

    fn pin(&mut self, upload: OperationId, sha256: Sha256, now: u64) {
        let held = self.pins.entry(upload).or_insert((now, BTreeSet::new()));
        held.1.insert(sha256);
    }

    /// Whether nothing is under way or left to do.
    pub fn is_idle(&self) -> bool {
        !self.running
            && self.jobs.is_empty()
            && self.pins.is_empty()
            && self.lost.is_empty()
            && self.given_up.is_empty()
            && self.candidates.is_empty()
            && self.walked.is_some()
            && !self.walking
            && !self.collecting
    }
}

/// What a thread waits for the core to answer.
#[derive(Clone, Debug)]
pub enum Errand {
    Register,
    /// An operator's word.
    Word(Operation),
    Abandon(OperationId),
    Disown(Sha256),
    /// A fresh read before everything here is compared with the catalog.
    Walk,
    /// A fresh read before these are judged.
    Collect(Vec<Sha256>),
    /// An upload that holds an object is abandoned before the object is judged.
    Release(Sha256, OperationId),
    Adopt(Sha256),
    /// The copy that a job made is counted.
    Count(Fetch, NodeId, OperationId),
}

/// An upload on its way to several nodes.
pub struct Transfer {
    client: usize,
    node: NodeId,
    boot: u64,
    put: Put,
    content: Content,
    road: Road,
    waiting: BTreeSet<NodeId>,
    copies: Vec<Copy>,
}

/// What happens to bytes.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// A body has reached a node of the plan.
    Reached(OperationId, NodeId),
    /// It is synced there.
    Sealed(OperationId, NodeId, u64, DirId),
    /// The entry node hears what became of it.
    Landed(OperationId, NodeId, Option<Copy>),
    /// The entry node waits no longer.
    Due(OperationId),
    /// A copy worker has pulled an object from a holder, or not: the order, who gave it, which holder.
    Pulled(NodeId, u64, Box<Fetch>, NodeId, usize),
    /// What it pulled is synced.
    Stored(NodeId, u64, Box<Fetch>, NodeId, OperationId, DirId),
    /// The collector looks.
    Look(NodeId, u64),
    /// Every copy is read.
    Scrub(NodeId, u64),
}

fn flat(hops: &[Hop], into: &mut Vec<NodeId>) {
    for hop in hops {
        into.push(hop.node);
        flat(&hop.next, into);
    }
}

fn nodes(copies: &[Copy]) -> usize {
    query::distinct_nodes(copies)
}

impl Cluster {
    fn daemon(&mut self, node: NodeId) -> &mut Daemon {
        &mut self.seats.get_mut(&node).expect("a seat").daemon
    }

    fn later(&mut self, wait: u64, bytes: Bytes) {
        self.at(self.now + wait, Happening::Bytes(bytes));
    }

    /// A daemon's threads begin.
    pub fn wake_threads(&mut self, node: NodeId) {
        let boot = self.boot(node);
        let (look, scrub) = (self.random.below(LOOK), self.random.below(4_000_000));
        self.later(look, Bytes::Look(node, boot));
        self.later(scrub, Bytes::Scrub(node, boot));
    }

    /// A thread asks the core.
    pub fn errand(
        &mut self,
        node: NodeId,
        errand: Errand,
        ask: Option<Operation>,
    ) -> Result<(), String> {
        if !self.alive(node) {
            return Ok(());
        }
        let ticket = self.clients.ticket();
        self.errands.insert(ticket.0, (node, errand));
        let deadline = Mono(self.now + COMMIT_DEADLINE);
        let event = match ask {
            Some(operation) => Event::Propose {
                ticket,
                operation,
                deadline,
            },
            None => Event::Read {
                ticket,
                deadline: Mono(self.now + 500_000),
            },
        };
        self.turn(node, event)
    }

    /// The core answers a thread; false when the ticket is none of a thread's.
    pub fn errand_done(
        &mut self,
        node: NodeId,
        ticket: Ticket,
        answer: &Answered,
    ) -> Result<bool, String> {
        let Some((_, errand)) = self.errands.remove(&ticket.0) else {
            return Ok(false);
        };
        let code = match answer {
            Answered::Committed { reply, .. } | Answered::Refused { reply } => match reply {
                Reply::Done { .. } => None,
                Reply::Rejected { code, .. } => Some(*code),
            },
            Answered::Unknown | Answered::Stale => Some(Code::Unavailable),
            Answered::Fresh | Answered::Overview(_) => None,
        };
        let unknown = matches!(answer, Answered::Unknown);
        let now = self.now;
        match errand {
            Errand::Register => self.daemon(node).registering = false,
            Errand::Word(operation) => {
                let word = code.map_or("done", Code::word).to_lowercase();
                self.words.push(word);
                let open = matches!(operation, Operation::Administer { .. });
                if code.is_some_and(|code| code != Code::NotFound) && open && self.calm {
                    self.later_operator(operation);
                }
            }
            Errand::Abandon(upload) => {
                if matches!(code, None | Some(Code::Conflict)) {
                    self.settle(node, upload);
                } else {
                    self.daemon(node).given_up.insert(upload);
                }
            }
            Errand::Disown(sha256) => {
                if !matches!(code, None | Some(Code::NotFound)) {
                    self.daemon(node).lost.insert(sha256);
                }
            }
            Errand::Walk => {
                self.daemon(node).walking = false;
                if code.is_none() {
                    self.walk(node);
                }
            }
            Errand::Collect(due) => {
                self.daemon(node).collecting = false;
                for sha256 in due {
                    if code.is_none() {
                        self.judge_object(node, sha256)?;
                    } else {
                        self.daemon(node).candidates.insert(sha256, now);
                    }
                }
            }
            Errand::Release(sha256, upload) => {
                if matches!(code, None | Some(Code::Conflict)) {
                    self.daemon(node).pins.remove(&upload);
                }
                // What was committed meanwhile may be unknown here: judged after another read.
                self.daemon(node).candidates.insert(sha256, now);
            }
            Errand::Adopt(sha256) => {
                if code.is_some() {
                    self.daemon(node).candidates.insert(sha256, now);
                }
            }
            Errand::Count(fetch, leader, upload) => {
                if unknown {
                    self.daemon(node).given_up.insert(upload);
                } else {
                    self.settle(node, upload);
                }
                let error = code.map(|code| code.word().to_owned());
                self.job_ended(node, &fetch, leader, error)?;
            }
        }
        Ok(true)
    }

    // Uploads.

    /// A client sends a file to a node; the answer comes when it is committed, or at once when nobody takes it.
    pub fn upload(&mut self, client: usize, node: NodeId, put: Put, content: Content) {
        let Some(road) = self.road(node) else {
            self.count("no road");
            self.again(client);
            return;
        };
        let mut targets = Vec::new();
        flat(&road.hops, &mut targets);
        targets.extend(road.local.then_some(node));
        let upload = put.upload;
        let transfer = Transfer {
            client,
            node,
            boot: self.boot(node),
            put,
            content,
            road,
            waiting: targets.iter().copied().collect(),
            copies: Vec::new(),
        };
        self.transfers.insert(upload, transfer);
        for target in targets {
            let wait = if self.random.one_in(20) {
                self.random.below(HOP_STALL + 1_000_000)
            } else {
                500 + self.random.below(30_000)
            };
            self.later(wait, Bytes::Reached(upload, target));
        }
        self.later(HOP_STALL, Bytes::Due(upload));
    }

    /// The plan of the mode in force, as this node sees the others.
    fn road(&self, node: NodeId) -> Option<Road> {
        let tables = &self.seats[&node].machine.tables;
        crate::world::head(tables)?;
        let mode = match query::mode(tables).ok()?.new {
            Mode::PrimarySplay => Mode::Splay,
            mode => mode,
        };
        let members = query::nodes(tables).ok()?;
        let candidates = members
            .into_iter()
            .filter(|m| m.stores && m.administrative != Administrative::Dead)
            .map(|m| Candidate {
                node: m.id,
                open: m.administrative == Administrative::Alive
                    && (m.id == node || self.network.is_up(node, m.id)),
            });
        let view = View {
            entry: node,
            nodes: candidates.collect(),
            replicas: 3,
            min_copies: 2,
            reach: Reach::Around,
        };
        replication::by_mode(mode).plan(&view).ok()
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.alive(to) && (from == to || self.network.joined(from, to))
    }

    pub fn bytes(&mut self, bytes: Bytes) -> Result<(), String> {
        match bytes {
            Bytes::Reached(upload, target) => {
                let Some(transfer) = self.transfers.get(&upload) else {
                    return Ok(());
                };
                let (entry, content) = (transfer.node, transfer.content);
                let dir = self.shelves[&target].roomiest();
                let Some(dir) = dir.filter(|_| self.reaches(entry, target)) else {
                    self.later(1_000, Bytes::Landed(upload, target, None));
                    return Ok(());
                };
                let now = self.now;
                let file = File {
                    size: content.size,
                    upload,
                    whole: true,
                };
                // Pinned before it is sealed, so that no collector comes between.
                self.daemon(target).pin(upload, content.sha256, now);
                let sealing = (dir, content.sha256, file);
                self.daemon(target).sealing.push(sealing);
                let sync = 100 + self.random.below(self.plan.sync.0);
                let boot = self.boot(target);
                self.later(sync, Bytes::Sealed(upload, target, boot, dir));
            }
            Bytes::Sealed(upload, target, boot, dir) if self.is_running(target, boot) => {
                let daemon = self.daemon(target);
                let mine =
                    |(at, _, file): &(DirId, Sha256, File)| *at == dir && file.upload == upload;
                let Some(place) = daemon.sealing.iter().position(mine) else {
                    return Ok(());
                };
                let (_, sha256, file) = daemon.sealing.remove(place);
                self.place(target, dir, sha256, file);
                let copy = Copy { node: target, dir };
                let wait = self.random.below(10_000);
                self.later(wait, Bytes::Landed(upload, target, Some(copy)));
            }
            Bytes::Landed(upload, target, copy) => {
                let Some(entry) = self.transfers.get(&upload).map(|t| t.node) else {
                    return Ok(());
                };
                let heard = self.reaches(entry, target);
                let Some(transfer) = self.transfers.get_mut(&upload) else {
                    return Ok(());
                };
                transfer.waiting.remove(&target);
                transfer.copies.extend(copy.filter(|_| heard));
                if transfer.waiting.is_empty() {
                    self.uploaded(upload)?;
                }
            }
            Bytes::Due(upload) => self.uploaded(upload)?,
            Bytes::Pulled(node, boot, fetch, leader, holder) if self.is_running(node, boot) => {
                self.pulled(node, *fetch, leader, holder)?;
            }
            Bytes::Stored(node, boot, fetch, leader, upload, dir)
                if self.is_running(node, boot) =>
            {
                let daemon = self.daemon(node);
                let mine = |(_, _, file): &(DirId, Sha256, File)| file.upload == upload;
                let Some(place) = daemon.sealing.iter().position(mine) else {
                    return Ok(());
                };
                let (_, sha256, file) = daemon.sealing.remove(place);
                self.place(node, dir, sha256, file);
                let add = Operation::AddCopy {
                    sha256,
                    size: file.size,
                    copy: Copy { node, dir },
                };
                self.errand(node, Errand::Count(*fetch, leader, upload), Some(add))?;
            }
            Bytes::Look(node, boot) if self.is_running(node, boot) => {
                let jitter = self.random.below(50_000);
                self.later(LOOK + jitter, Bytes::Look(node, boot));
                self.look(node)?;
            }
            Bytes::Scrub(node, boot) if self.is_running(node, boot) => {
                self.later(5_000_000, Bytes::Scrub(node, boot));
                self.scrub(node);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_running(&self, node: NodeId, boot: u64) -> bool {
        self.boot(node) == boot && self.alive(node)
    }

    /// An object is durable in its place.
    pub fn place(&mut self, node: NodeId, dir: DirId, sha256: Sha256, file: File) {
        // It takes the place of what was brought for others, and is theirs too.
        let pins = &self.daemon(node).pins;
        let others = pins
            .iter()
            .filter(|(upload, (_, held))| **upload != file.upload && held.contains(&sha256));
        let held: Vec<OperationId> = others.map(|(upload, _)| *upload).collect();
        let shelves = self.shelves.get_mut(&node).expect("shelves");
        shelves.place(dir, sha256, file, held);
        self.copies.placed(node, dir, sha256);
    }

    /// All nodes of an upload's plan have answered, or the entry node waits no longer.
    fn uploaded(&mut self, upload: OperationId) -> Result<(), String> {
        let Some(transfer) = self.transfers.remove(&upload) else {
            return Ok(());
        };
        let Transfer {
            client,
            node,
            boot,
            mut put,
            content,
            road,
            mut copies,
            ..
        } = transfer;
        if !self.is_running(node, boot) {
            return Ok(());
        }
        if nodes(&copies) < usize::from(road.min) {
            self.count("too few copies");
            self.daemon(node).given_up.insert(upload);
            self.again(client);
            return Ok(());
        }
        copies.sort_unstable();
        put.size = content.size;
        put.sha256 = content.sha256;
        put.parts = vec![PlacedPart {
            part: Part {
                size: content.size,
                sha256: content.sha256,
            },
            copies,
        }];
        (put.want, put.min) = (road.want, road.min);
        self.count("uploads");
        self.ask(client, node, Request::Change(Operation::Put(put)))
    }

    /// The processes of an entry node ended: its clients see their connections break.
    pub fn cut_transfers(&mut self, node: NodeId) {
        let gone: Vec<OperationId> = self
            .transfers
            .iter()
            .filter(|(_, transfer)| transfer.node == node)
            .map(|(upload, _)| *upload)
            .collect();
        for upload in gone {
            if let Some(transfer) = self.transfers.remove(&upload) {
                self.again(transfer.client);
            }
        }
        self.errands.retain(|_, (of, _)| *of != node);
    }

    /// How a put of this node ended.
    pub fn put_ended(&mut self, node: NodeId, put: &Put, kept: bool) {
        if kept {
            self.settle(node, put.upload);
        } else if !put.parts.is_empty() {
            self.daemon(node).given_up.insert(put.upload);
        }
    }

    /// What an upload held may go, unless it is counted here.
    pub fn settle(&mut self, node: NodeId, upload: OperationId) {
        let now = self.now;
        let Some((_, held)) = self.daemon(node).pins.remove(&upload) else {
            return;
        };
        for sha256 in held {
            let tables = &self.seats[&node].machine.tables;
            let object = query::object(tables, &sha256).expect("tables in memory");
            let counted = object.is_some_and(|o| o.copies.iter().any(|copy| copy.node == node));
            if !counted || self.plan.dirs > 1 {
                self.daemon(node).candidates.entry(sha256).or_insert(now);
            }
        }
    }

    // Copy jobs.

    /// The core orders a copy.
    pub fn start_fetch(
        &mut self,
        node: NodeId,
        fetch: Fetch,
        leader: NodeId,
    ) -> Result<(), String> {
        self.count("jobs");
        let waiting = self.seats[&node].daemon.jobs.len();
        self.storm.ordered(self.now, node, &fetch, waiting)?;
        let daemon = self.daemon(node);
        if daemon.jobs.len() >= JOB_QUEUE {
            let (job, error) = (fetch.job, Some("the queue is full".to_owned()));
            return self.turn(node, Event::FetchEnded { job, leader, error });
        }
        daemon.jobs.push_back((fetch, leader));
        self.next_job(node);
        Ok(())
    }

    fn next_job(&mut self, node: NodeId) {
        let boot = self.boot(node);
        let wait = 1_000 + self.random.below(200_000);
        let daemon = self.daemon(node);
        if daemon.running {
            return;
        }
        if let Some((fetch, leader)) = daemon.jobs.pop_front() {
            daemon.running = true;
            self.later(wait, Bytes::Pulled(node, boot, Box::new(fetch), leader, 0));
        }
    }

    fn pulled(
        &mut self,
        node: NodeId,
        fetch: Fetch,
        leader: NodeId,
        index: usize,
    ) -> Result<(), String> {
        let Some(holder) = fetch.holders.get(index).copied() else {
            return self.job_ended(node, &fetch, leader, Some("no holder has it".to_owned()));
        };
        let boot = self.boot(node);
        let reached = holder != node && self.reaches(node, holder);
        if reached && self.shelves[&holder].serves(&fetch.sha256) {
            let Some(dir) = self.shelves[&node].roomiest() else {
                return self.job_ended(node, &fetch, leader, Some("disk".to_owned()));
            };
            let upload = self.clients.upload_id(node, Boot(boot));
            let now = self.now;
            let file = File {
                size: fetch.size,
                upload,
                whole: true,
            };
            let daemon = self.daemon(node);
            daemon.pin(upload, fetch.sha256, now);
            daemon.sealing.push((dir, fetch.sha256, file));
            let sync = 100 + self.random.below(self.plan.sync.0);
            let stored = Bytes::Stored(node, boot, Box::new(fetch), leader, upload, dir);
            self.later(sync, stored);
            return Ok(());
        }
        if reached {
            self.daemon(holder).lost.insert(fetch.sha256);
        }
        let wait = 1_000 + self.random.below(100_000);
        self.later(
            wait,
            Bytes::Pulled(node, boot, Box::new(fetch), leader, index + 1),
        );
        Ok(())
    }

    fn job_ended(
        &mut self,
        node: NodeId,
        fetch: &Fetch,
        leader: NodeId,
        error: Option<String>,
    ) -> Result<(), String> {
        self.count(if error.is_some() {
            "jobs failed"
        } else {
            "jobs done"
        });
        self.daemon(node).running = false;
        self.next_job(node);
        let job = fetch.job;
        self.turn(node, Event::FetchEnded { job, leader, error })
    }

    // The collector.

    fn look(&mut self, node: NodeId) -> Result<(), String> {
        self.register(node)?;
        let Some(report) = self.report(node).filter(|report| report.born) else {
            return Ok(());
        };
        for upload in std::mem::take(&mut self.daemon(node).given_up) {
            self.errand(
                node,
                Errand::Abandon(upload),
                Some(Operation::Abandon { upload }),
            )?;
        }
        for sha256 in std::mem::take(&mut self.daemon(node).lost) {
            self.disown(node, sha256)?;
        }
        let now = (report.snapshot, self.shelves[&node].ids());
        let daemon = self.daemon(node);
        if daemon.walked.as_ref() != Some(&now) {
            if !daemon.walking {
                daemon.walking = true;
                self.errand(node, Errand::Walk, None)?;
            }
            return Ok(());
        }
        let (grace, clock, boot) = (self.plan.garbage_grace, self.now, self.boot(node));
        let daemon = self.daemon(node);
        let overdue = |(id, (since, _)): &(&OperationId, &(u64, BTreeSet<Sha256>))| {
            (id.node, id.boot.0) != (node, boot) && clock - *since > grace
        };
        let overdue: Vec<OperationId> = daemon
            .pins
            .iter()
            .filter(overdue)
            .map(|(id, _)| *id)
            .collect();
        daemon.given_up.extend(overdue);
        if daemon.collecting {
            return Ok(());
        }
        let is_due = |(_, since): &(&Sha256, &u64)| clock - **since >= grace;
        let due: Vec<Sha256> = daemon
            .candidates
            .iter()
            .filter(is_due)
            .map(|(s, _)| *s)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        for sha256 in &due {
            daemon.candidates.remove(sha256);
        }
        if canary::is(Canary::CollectWithoutRead) {
            for sha256 in due {
                self.judge_object(node, sha256)?;
            }
            return Ok(());
        }
        daemon.collecting = true;
        self.errand(node, Errand::Collect(due), None)
    }

    /// Says what this node is until the catalog knows.
    fn register(&mut self, node: NodeId) -> Result<(), String> {
        let tables = &self.seats[&node].machine.tables;
        let boot = Boot(self.boot(node));
        let dirs = self.shelves[&node].ids();
        let known = query::node(tables, node).expect("tables in memory");
        if known.is_some_and(|known| known.boot == boot && known.dirs == dirs)
            || std::mem::replace(&mut self.daemon(node).registering, true)
        {
            return Ok(());
        }
        let register = Plan::registration(node, boot, dirs);
        self.errand(node, Errand::Register, Some(register))
    }

    /// Copies counted here that are not here, or not whole, are dropped from the catalog.
    fn disown(&mut self, node: NodeId, sha256: Sha256) -> Result<(), String> {
        let tables = &self.seats[&node].machine.tables;
        let Some(object) = query::object(tables, &sha256).expect("tables in memory") else {
            return Ok(());
        };
        if self.daemon(node).is_pinned(&sha256) {
            // Bytes for it are just coming in: what is bad now may be good then.
            self.daemon(node).lost.insert(sha256);
            return Ok(());
        }
        for copy in object.copies {
            let file = self.shelves[&node].file(copy.dir, &sha256);
            if copy.node != node || file.is_some_and(|file| file.whole) {
                continue;
            }
            let drop = Operation::DropCopy {
                sha256,
                copy,
                others: 0,
            };
            self.errand(node, Errand::Disown(sha256), Some(drop))?;
        }
        Ok(())
    }

    /// Compares what the catalog counts here with what lies here, and makes candidates of what it does not count.
    fn walk(&mut self, node: NodeId) {
        let (now, boot) = (self.now, self.boot(node));
        let Some(report) = self.report(node) else {
            return;
        };
        let tables = &self.seats[&node].machine.tables;
        let objects = query::objects_after(tables, None, usize::MAX).expect("tables in memory");
        let here = |copy: &&Copy| copy.node == node;
        let mut lost = Vec::new();
        for (sha256, object) in &objects {
            let absent = |copy: &Copy| self.shelves[&node].file(copy.dir, sha256).is_none();
            if object.copies.iter().filter(here).any(absent) {
                lost.push(*sha256);
            }
        }
        let mut found = Vec::new();
        for (dir, sha256, file) in self.shelves[&node].list() {
            let copy = Copy { node, dir };
            let object = query::object(tables, &sha256).expect("tables in memory");
            let counted = object.is_some_and(|object| object.copies.contains(&copy));
            let mut uploads = self.shelves[&node].held(dir, &sha256);
            uploads.push(file.upload);
            for upload in uploads {
                let pending = query::is_pending(tables, upload).expect("tables in memory");
                found.push((sha256, upload, counted, pending));
            }
        }
        let walked = (report.snapshot, self.shelves[&node].ids());
        let daemon = self.daemon(node);
        daemon.walked = Some(walked);
        daemon.lost.extend(lost);
        for (sha256, upload, counted, pending) in found {
            // Its upload may still be put: held until that is settled (rule R5). One of this start is held already, or settled.
            if (upload.node, upload.boot.0) != (node, boot) && (pending || !counted) {
                daemon.pin(upload, sha256, now);
            }
            if !counted {
                daemon.candidates.insert(sha256, now);
            }
        }
    }

    fn judge_object(&mut self, node: NodeId, sha256: Sha256) -> Result<(), String> {
        let now = self.now;
        let boot = self.boot(node);
        let stats = self.shelves[&node].stats(&sha256);
        if stats.is_empty() {
            return Ok(());
        }
        let grace = self.plan.garbage_grace;
        let daemon = self.daemon(node);
        let holders = daemon
            .pins
            .iter()
            .filter(|(_, (_, held))| held.contains(&sha256));
        let holder = holders.map(|(upload, (since, _))| (*upload, *since)).next();
        if let Some((upload, since)) = holder {
            let own = upload.node == node && upload.boot.0 == boot;
            if own || now - since < grace {
                daemon.candidates.insert(sha256, now);
                return Ok(());
            }
            let abandon = Operation::Abandon { upload };
            return self.errand(node, Errand::Release(sha256, upload), Some(abandon));
        }
        for (dir, file) in stats {
            let copy = Copy { node, dir };
            let tables = &self.seats[&node].machine.tables;
            if crate::world::head(tables).is_none() {
                self.daemon(node).candidates.insert(sha256, now);
                return Ok(());
            }
            match query::object(tables, &sha256).expect("tables in memory") {
                Some(object) if object.copies.contains(&copy) => continue,
                Some(object) if file.whole && nodes(&object.copies) < usize::from(object.want) => {
                    let size = object.size;
                    let add = Operation::AddCopy { sha256, size, copy };
                    self.errand(node, Errand::Adopt(sha256), Some(add))?;
                    continue;
                }
                _ => {}
            }
            let truth = self.truth.as_ref().ok_or("nobody was born")?;
            Copies::removed(truth, copy, &sha256)?;
            self.count("collected");
            let shelves = self.shelves.get_mut(&node).expect("shelves");
            shelves.remove(dir, &sha256);
            self.copies.collected(&self.shelves, sha256);
            self.trace.line(
                self.now,
                format_args!("node {node} collects {sha256} in {dir}"),
            );
        }
        Ok(())
    }

    /// Reads every copy that the catalog counts here.
    fn scrub(&mut self, node: NodeId) {
        let tables = &self.seats[&node].machine.tables;
        let objects = query::objects_after(tables, None, usize::MAX).expect("tables in memory");
        let mut lost = Vec::new();
        for (sha256, object) in objects {
            for copy in object.copies.iter().filter(|copy| copy.node == node) {
                let file = self.shelves[&node].file(copy.dir, &sha256);
                if !file.is_some_and(|file| file.whole) {
                    lost.push(sha256);
                }
            }
        }
        self.daemon(node).lost.extend(lost);
    }

    /// An operator at some node says something about a member.
    pub fn operator(&mut self, operation: Operation) -> Result<(), String> {
        let living: Vec<NodeId> = self
            .nodes()
            .into_iter()
            .filter(|n| self.alive(*n))
            .collect();
        if living.is_empty() {
            return Ok(());
        }
        let node = living[below(&mut self.random, living.len())];
        self.errand(node, Errand::Word(operation.clone()), Some(operation))
    }

    fn later_operator(&mut self, operation: Operation) {
        self.at(self.now + 500_000, Happening::Operator(operation));
    }
}

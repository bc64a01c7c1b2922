//! A cluster in one thread: machines, network, clients and what goes wrong, driven by one seeded queue of happenings through the production turn loop.

use std::collections::{BTreeMap, BTreeSet};

use momo::base::id::{Boot, DirId, NodeId, OperationId, Ticket};
use momo::base::path::FilePath;
use momo::base::random::{Random, mix};
use momo::base::time::{Mono, Now, Wall};
use momo::core::catalog::query;
use momo::core::node::{Answered, Event, LinkState, Node, Report};
use momo::engine::driver::turn;
use momo::wire::command::{Birth, Expect, Operation, Reply};
use momo::wire::peer::{Figures, Message};

use crate::checkers::agreement::Agreement;
use crate::checkers::copies::{Copies, Disks};
use crate::checkers::leaders::Leaders;
use crate::checkers::storm::Storm;
use crate::checkers::truth::Truth;
use crate::checkers::{answers, leaks, order};
use crate::clients::{Clients, Deed, Outcome, Request};
use crate::daemon::{Bytes, Daemon, Errand, Transfer};
use crate::network::{Change, Network};
use crate::plan::{Plan, below};
use crate::shelves::Shelves;
use crate::trace::Trace;
use crate::world::{Asked, DiskWork, Machine, head};

/// Without faults everything must be well after so long.
const RECOVERY: u64 = 200_000_000;
/// When all is well nothing more may happen for so long.
const REST: u64 = 5_000_000;
/// But for so many entries: a handed over lead, late verdicts.
const VERDICTS: u64 = 6;
/// A node that is woken so often in a millisecond spins.
const WAKES: u32 = 200;

pub enum Happening {
    Wake(NodeId, u64),
    Deliver {
        from: NodeId,
        to: NodeId,
        connection: u64,
        message: Box<Message>,
    },
    Connected(NodeId, NodeId),
    Noticed(NodeId, NodeId, u64),
    /// A sender misses acknowledgements.
    Starved(NodeId, NodeId),
    Synced(NodeId, u64, usize),
    Checkpointed(NodeId, u64),
    Fetched(NodeId, u64, NodeId),
    Sample(NodeId, u64),
    Client(usize),
    Fault,
    Start(NodeId),
    Heal,
    /// Bytes of objects move, and what follows.
    Bytes(Bytes),
    /// An operator's word.
    Operator(Operation),
    /// A member was taken out.
    Removed(NodeId),
    /// A voter that has what another has not loses its disk, and the leader ends.
    Witness(NodeId, NodeId),
    /// A fault of a machine's disks ends.
    Mended(NodeId),
    /// The disk says that it has what it does not have.
    Lie(NodeId, u64, u64),
}

/// A machine and the process on it, if one runs.
pub struct Seat {
    pub machine: Machine,
    pub daemon: Daemon,
    pub node: Option<Node>,
    pub boot: u64,
    /// The process stands still until then.
    pub stopped_until: u64,
    /// How far the machine's clock is off.
    pub clock: i64,
    wake: Option<(u64, u64)>,
    syncing: bool,
    wakes: (u64, u32),
}

/// The whole simulation of a seed.
pub struct Cluster {
    pub plan: Plan,
    pub random: Random,
    pub now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub seats: BTreeMap<NodeId, Seat>,
    pub network: Network,
    pub clients: Clients,
    /// Machines that take no part: they have not joined yet, or were removed.
    pub absent: BTreeSet<NodeId>,
    /// Machines that came by asking.
    pub joiners: BTreeSet<NodeId>,
    /// What threads wait for, by ticket.
    pub errands: BTreeMap<u64, (NodeId, Errand)>,
    pub transfers: BTreeMap<OperationId, Transfer>,
    pub shelves: Disks,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// No fault comes before.
    pub quiet_until: u64,
    /// An older state of a machine, for a restored disk.
    pub image: Option<(NodeId, crate::world::Disk)>,
    pub dirs_made: u64,
    leaders: Leaders,
    agreement: Agreement,
    birth: Option<Birth>,
    pub truth: Option<Truth>,
    pub copies: Copies,
    pub storm: Storm,
    /// The last thing that kept all from being well.
    unwell: String,
    /// What nodes said, if a script listens; and answers to operators.
    heard: Option<Vec<String>>,
    pub words: Vec<String>,
    pub trace: Trace,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Cluster {
    pub fn new(plan: Plan) -> Self {
        let seats = (0..plan.nodes + plan.spares).map(|id| {
            let seat = Seat {
                machine: Machine::default(),
                daemon: Daemon::default(),
                node: None,
                boot: 0,
                stopped_until: 0,
                clock: 0,
                wake: None,
                syncing: false,
                wakes: (0, 0),
            };
            (NodeId(id), seat)
        });
        let seats: BTreeMap<NodeId, Seat> = seats.collect();
        let mut dirs_made = 0;
        let shelves = seats.keys().map(|node| {
            let first = dirs_made + 1;
            dirs_made += plan.dirs;
            (*node, Shelves::new((first..=dirs_made).map(DirId)))
        });
        let shelves = shelves.collect();
        Self {
            absent: (plan.nodes..plan.nodes + plan.spares).map(NodeId).collect(),
            joiners: BTreeSet::new(),
            errands: BTreeMap::new(),
            transfers: BTreeMap::new(),
            shelves,
            quiet_until: 0,
            image: None,
            dirs_made,
            truth: None,
            copies: Copies::default(),
            storm: Storm::default(),
            unwell: String::new(),
            heard: None,
            words: Vec::new(),
            random: Random::new(mix(plan.seed)),
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            seats,
            network: Network::default(),
            clients: Clients::new(plan.clients, mix(plan.seed ^ 0xc11e)),
            calm: false,
            leaders: Leaders::default(),
            agreement: Agreement::default(),
            birth: None,
            trace: Trace::new(),
            counts: BTreeMap::new(),
            plan,
        }
    }

    /// Starts all nodes in the first half second.
    pub fn start_all(&mut self) {
        for node in self.nodes() {
            let at = self.random.below(500_000);
            self.at(at, Happening::Start(node));
        }
    }

    /// Lets things happen until `what` holds, for so many microseconds at most.
    pub fn until(&mut self, limit: u64, what: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = self.now + limit;
        while !what(self) {
            if self.now > end {
                return Err(format!("never came true: {:#?}", self.reports()));
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(((at, _), happening)) = self.queue.pop_first() else {
            return Err("nothing happens any more".to_owned());
        };
        self.now = at;
        self.happen(happening)
    }

    /// How a node stands.
    pub fn report(&self, node: NodeId) -> Option<Report> {
        self.seats.get(&node)?.node.as_ref().map(Node::report)
    }

    /// A node's machine.
    pub fn machine(&mut self, node: NodeId) -> &mut Machine {
        &mut self.seats.get_mut(&node).expect("a seat").machine
    }

    /// Cuts a node off from all others, or joins all.
    pub fn isolate(&mut self, node: Option<NodeId>) {
        let sides = node.into_iter().map(|node| (node, 1)).collect();
        self.network.split(&self.nodes(), &sides);
        self.links();
    }

    /// A put of a name at a node; how it ended is the last of what was done.
    pub fn put(&mut self, node: NodeId, name: &str) -> Result<Outcome, String> {
        let path = FilePath::new(name).expect("a good name");
        let boot = Boot(self.boot(node));
        let put = self.clients.put(node, boot, path, Expect::Any);
        let before = self.clients.history.len();
        self.ask(usize::MAX, node, Request::Change(put))?;
        self.until(60_000_000, |cluster| {
            let mut later = cluster.clients.history.iter().skip(before);
            later.any(|done| matches!(&done.request, Request::Change(Operation::Put(p)) if p.path.as_str() == name))
        })?;
        let done = self.clients.history.last().ok_or("nothing was done")?;
        Ok(done.outcome.clone())
    }

    /// A read of a name at a node.
    pub fn read(&mut self, node: NodeId, name: &str) -> Result<Outcome, String> {
        let path = FilePath::new(name).map_err(|error| error.to_string())?;
        let before = self.clients.history.len();
        self.ask(usize::MAX, node, Request::Read(path))?;
        self.until(60_000_000, |cluster| {
            let mut later = cluster.clients.history.iter().skip(before);
            later.any(|done| matches!(&done.request, Request::Read(p) if p.as_str() == name))
        })?;
        let done = self.clients.history.last().ok_or("nothing was done")?;
        Ok(done.outcome.clone())
    }

    /// An operator's word, and how it was taken.
    pub fn word(&mut self, operation: Operation) -> Result<String, String> {
        let before = self.words.len();
        self.operator(operation)?;
        self.until(60_000_000, |cluster| cluster.words.len() > before)?;
        Ok(self.words[before].clone())
    }

    /// From now on what nodes say is kept.
    pub fn hear(&mut self) {
        self.heard = Some(Vec::new());
    }

    /// What they said since this was last asked.
    pub fn heard(&mut self) -> Vec<String> {
        self.heard.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Everything that was seen, against what is in the log.
    pub fn judge(&mut self) -> Result<(), String> {
        let truth = self.truth.as_ref().ok_or("nobody was born")?;
        answers::judge(truth, &self.clients.history)?;
        order::judge(&self.clients.history)?;
        self.counts.insert("commands", truth.len() as u64);
        self.counts.insert("terms", self.leaders.terms() as u64);
        self.counts
            .insert("requests", self.clients.history.len() as u64);
        self.counts.insert("gone", self.copies.gone(truth)?);
        Ok(())
    }

    /// Lets the seed run its course; the first thing that does not hold.
    pub fn run(&mut self) -> Result<(), String> {
        self.start_all();
        for client in 0..self.clients.count {
            self.at(500_000, Happening::Client(client));
        }
        let first = 2_000_000 + self.random.below(2_000_000);
        self.at(first, Happening::Fault);
        self.at(self.plan.faults_until, Happening::Heal);
        let end = self.plan.faults_until + RECOVERY;
        let mut said = false;
        let mut look = self.plan.faults_until;
        while self.now < end {
            self.step()?;
            if !self.calm || self.now < look {
                continue;
            }
            look = self.now + 20_000;
            if let Some(why) = self.unwell()? {
                self.unwell = why;
            } else if said {
                self.rest()?;
                return self.judge();
            } else {
                // Once more for all: each node commits and reads.
                said = true;
                for node in self.nodes() {
                    self.last_words(node)?;
                }
            }
        }
        Err(format!(
            "not well after the faults: {}: {:#?}",
            self.unwell,
            self.reports()
        ))
    }

    /// What is not as it should be; `None` when all is.
    fn unwell(&self) -> Result<Option<String>, String> {
        if self.clients.open() > 0 || !self.transfers.is_empty() {
            return Ok(Some("clients wait".to_owned()));
        }
        if !self.is_well() {
            return Ok(Some("not all stand at the same place".to_owned()));
        }
        let truth = self.truth.as_ref().ok_or("nobody was born")?;
        let seats = self.seats.iter();
        let seats = seats.filter(|(id, _)| !self.absent.contains(id));
        let seats =
            seats.map(|(id, seat)| (*id, seat.node.as_ref().map(Node::report), &seat.daemon));
        Ok(match self.copies.missing(truth, &self.shelves)? {
            Some(missing) => Some(missing),
            None => match leaks::left(seats, &self.errands) {
                Some(left) => Some(left),
                None => Copies::litter(truth, &self.shelves)?,
            },
        })
    }

    /// All is well: for a while nothing is ordered, and nothing is committed.
    fn rest(&mut self) -> Result<(), String> {
        let end = self.now + REST;
        let before = (self.storm.total(), self.agreement.last());
        while self.now < end {
            self.step()?;
        }
        // The lead may just go to where it belongs.
        let late = end + REST;
        while let Some(why) = self.unwell()? {
            if self.now > late {
                return Err(format!("well, and then not any more: {why}"));
            }
            self.step()?;
        }
        let after = (self.storm.total(), self.agreement.last());
        if before.0 != after.0 || after.1 - before.1 > VERDICTS {
            return Err(format!(
                "all was well, and from {before:?} it went on to {after:?}"
            ));
        }
        Ok(())
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        let all = self.seats.keys().copied();
        all.filter(|node| !self.absent.contains(node)).collect()
    }

    pub fn reports(&self) -> Vec<(NodeId, Option<Report>)> {
        let report = |seat: &Seat| seat.node.as_ref().map(Node::report);
        let seats = self.seats.iter().filter(|(n, _)| !self.absent.contains(n));
        seats.map(|(n, s)| (*n, report(s))).collect()
    }

    pub fn alive(&self, node: NodeId) -> bool {
        self.seats
            .get(&node)
            .is_some_and(|seat| seat.node.is_some())
    }

    pub fn boot(&self, node: NodeId) -> u64 {
        self.seats[&node].boot
    }

    pub fn at(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.queue
            .insert((at.max(self.now), self.sequence), happening);
    }

    /// All run, all have a vote who should, and all stand at the same place.
    pub fn is_well(&self) -> bool {
        let reports: Vec<Report> = self.reports().into_iter().filter_map(|(_, r)| r).collect();
        let Some(first) = reports.first() else {
            return false;
        };
        let members = self.nodes().len();
        reports.len() == members
            && reports.iter().all(|report| {
                report.leader.is_some()
                    && report.leader == first.leader
                    && report.applied == first.applied
                    && report.applied == self.agreement.last()
                    && report.voters.len() == self.plan.voters
                    && report.learners.len() == members - self.plan.voters
            })
    }

    fn last_words(&mut self, node: NodeId) -> Result<(), String> {
        let path = FilePath::new("last/words").expect("a good name");
        let boot = Boot(self.boot(node));
        let put = self.clients.put(node, boot, path.clone(), Expect::Any);
        self.ask(usize::MAX, node, Request::Change(put))?;
        self.ask(usize::MAX, node, Request::Read(path))
    }

    /// Whose process must run for this to happen.
    fn concerns(happening: &Happening) -> Option<NodeId> {
        match happening {
            Happening::Wake(node, _)
            | Happening::Deliver { to: node, .. }
            | Happening::Connected(node, _)
            | Happening::Noticed(node, ..)
            | Happening::Synced(node, ..)
            | Happening::Checkpointed(node, _)
            | Happening::Fetched(node, ..)
            | Happening::Sample(node, _)
            | Happening::Bytes(
                Bytes::Look(node, _)
                | Bytes::Scrub(node, _)
                | Bytes::Reached(_, node)
                | Bytes::Sealed(_, node, ..)
                | Bytes::Pulled(node, ..)
                | Bytes::Stored(node, ..),
            ) => Some(*node),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        if let Some(node) = Self::concerns(&happening)
            && self.seats[&node].stopped_until > self.now
        {
            // The process stands still: it finds all that when it goes on.
            let until = self.seats[&node].stopped_until;
            self.at(until, happening);
            return Ok(());
        }
        match happening {
            Happening::Wake(node, boot) if self.boot(node) == boot && self.alive(node) => {
                let now = self.now / 1_000;
                let seat = self.seats.get_mut(&node).expect("a seat");
                seat.wake = None;
                seat.wakes = if seat.wakes.0 == now {
                    (now, seat.wakes.1 + 1)
                } else {
                    (now, 0)
                };
                if seat.wakes.1 > WAKES {
                    return Err(format!("node {node} spins: {:?}", self.reports()));
                }
                self.turn(node, Event::Time)
            }
            Happening::Deliver {
                from,
                to,
                connection,
                message,
            } if self.network.arrives(from, to, connection) && self.alive(to) => {
                let message = *message;
                self.turn(to, Event::Received { from, message })
            }
            Happening::Connected(from, to) => {
                let alive = self.alive(from) && self.alive(to);
                if self.network.connected(from, to, alive) {
                    let (node, state) = (to, LinkState::Up);
                    self.turn(from, Event::Link { node, state })?;
                }
                self.links();
                Ok(())
            }
            Happening::Noticed(from, to, boot) if self.boot(from) == boot => {
                self.network.noticed(from, to);
                let (node, state) = (to, LinkState::Down);
                self.turn(from, Event::Link { node, state })?;
                self.links();
                Ok(())
            }
            Happening::Starved(from, to) => {
                if self.network.starved(from, to) {
                    let boot = self.boot(from);
                    self.at(self.now + 1, Happening::Noticed(from, to, boot));
                }
                Ok(())
            }
            Happening::Bytes(bytes) => self.bytes(bytes),
            Happening::Operator(operation) => self.operator(operation),
            Happening::Removed(node) => self.removed(node),
            Happening::Witness(victim, leader) => self.lose_a_witness(victim, leader),
            Happening::Mended(node) => {
                let shelves = self.shelves.get_mut(&node).expect("shelves");
                (shelves.full, shelves.failing) = (false, false);
                Ok(())
            }
            Happening::Synced(node, boot, count) if self.boot(node) == boot && self.alive(node) => {
                self.synced(node, count)
            }
            Happening::Lie(node, boot, number) if self.boot(node) == boot => {
                self.turn(node, Event::Persisted { number })
            }
            Happening::Checkpointed(node, boot) if self.boot(node) == boot && self.alive(node) => {
                let machine = &mut self.seats.get_mut(&node).expect("a seat").machine;
                let Some((applied, tables)) = machine.checkpoint.take() else {
                    return Ok(());
                };
                machine.disk.tables = tables;
                self.turn(node, Event::Checkpointed { applied })
            }
            Happening::Fetched(node, boot, from) if self.boot(node) == boot => {
                let tables = self
                    .network
                    .is_up(node, from)
                    .then(|| self.seats[&from].machine.tables.clone());
                let head = tables.as_ref().and_then(head);
                let machine = &mut self.seats.get_mut(&node).expect("a seat").machine;
                machine.fetched = tables;
                self.turn(node, Event::SnapshotFetched { head })
            }
            Happening::Sample(node, boot) if self.boot(node) == boot && self.alive(node) => {
                self.at(self.now + 500_000, Happening::Sample(node, boot));
                let figures = Figures::default();
                self.turn(node, Event::Sampled { figures })
            }
            Happening::Client(client) => self.client(client),
            Happening::Fault => self.fault(),
            Happening::Start(node) if !self.alive(node) && !self.absent.contains(&node) => {
                self.start(node)
            }
            Happening::Heal => {
                self.network.split(&[], &BTreeMap::new());
                if self.now >= self.plan.faults_until && !self.calm {
                    self.become_calm()?;
                }
                self.links();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Gives a node an event and sees to what follows.
    pub fn turn(&mut self, node: NodeId, event: Event) -> Result<(), String> {
        let now = Now {
            mono: Mono(self.now),
            wall: Wall(
                (1_700_000_000_000_000_000 + self.now * 1_000)
                    .saturating_add_signed(self.seats[&node].clock),
            ),
        };
        let seat = self.seats.get_mut(&node).expect("a seat");
        let Some(core) = &mut seat.node else {
            return Ok(());
        };
        let kind = kind(&event);
        turn(core, &mut seat.machine, event, now)
            .map_err(|fatal| format!("node {node}: {fatal}"))?;
        let report = core.report();
        let asked = std::mem::take(&mut seat.machine.asked);
        let boot = seat.boot;
        if let Some(at) = seat.wake.take() {
            self.queue.remove(&at);
        }
        let seat = self.seats.get_mut(&node).expect("a seat");
        if let Some(deadline) = seat.node.as_ref().and_then(Node::deadline) {
            self.sequence += 1;
            let at = (deadline.0.max(self.now + 1), self.sequence);
            seat.wake = Some(at);
            self.queue.insert(at, Happening::Wake(node, boot));
        }
        self.trace.line(
            self.now,
            format_args!(
                "node {node} {kind}: {:?} term {} leader {:?} applied {} committed {} asked {}",
                report.role,
                report.term,
                report.leader,
                report.applied,
                report.committed,
                asked.len()
            ),
        );
        self.leaders.look(node, &report)?;
        for asked in asked {
            self.carry(node, boot, asked)?;
        }
        Ok(())
    }

    fn carry(&mut self, node: NodeId, boot: u64, asked: Asked) -> Result<(), String> {
        match asked {
            Asked::Send(to, message) => {
                let arrivals = self
                    .network
                    .send(&self.plan, &mut self.random, self.now, node, to);
                for (at, connection) in arrivals {
                    let message = Box::new(message.clone());
                    self.at(
                        at,
                        Happening::Deliver {
                            from: node,
                            to,
                            connection,
                            message,
                        },
                    );
                }
            }
            Asked::Answer(ticket, answer) => self.answered(node, ticket, answer)?,
            Asked::Checkpoint => {
                let at = self.now + 1_000 + self.random.below(self.plan.sync.1);
                self.at(at, Happening::Checkpointed(node, boot));
            }
            Asked::Fetch(from) => {
                self.count("fetches");
                let at = self.now + 5_000 + self.random.below(200_000);
                self.at(at, Happening::Fetched(node, boot, from));
            }
            Asked::Sync => self.sync(node),
            Asked::Say(text) => {
                if let Some(heard) = &mut self.heard {
                    heard.push(format!("node {node}: {text}"));
                }
                self.trace
                    .line(self.now, format_args!("node {node} says {text}"));
            }
            Asked::Applied(from, to) => {
                let mut gone = Vec::new();
                let seat = &self.seats[&node];
                for index in from + 1..=to {
                    if let Some(record) = seat.machine.entry(index) {
                        self.agreement.applied(index, record.term)?;
                        if let Some(truth) = self.truth.as_mut().filter(|t| t.index < index)
                            && let Some(step) = truth.apply(record)?
                        {
                            self.copies.applied(truth, &self.shelves, &step)?;
                            if let (Operation::Remove { node, .. }, Reply::Done { .. }) =
                                (&step.operation, &step.reply)
                            {
                                gone.push(*node);
                            }
                        }
                    } else if index > 1 {
                        return Err(format!("node {node} applied {index}, not in its log"));
                    }
                }
                self.agreement.tables(to, &seat.machine.tables)?;
                for node in gone {
                    self.at(self.now, Happening::Removed(node));
                }
            }
            Asked::Installed(index) => {
                self.count("snapshots");
                self.agreement
                    .tables(index, &self.seats[&node].machine.tables)?;
            }
            Asked::Born(birth) => {
                let first = self.birth.get_or_insert_with(|| birth.clone());
                if *first != birth {
                    return Err(format!("a second birth: {first:?}, {birth:?}"));
                }
                self.truth.get_or_insert_with(|| Truth::new(&birth));
            }
            Asked::Unreferenced(sha256) => {
                let now = self.now;
                let seat = self.seats.get_mut(&node).expect("a seat");
                seat.daemon.candidates.entry(sha256).or_insert(now);
            }
            Asked::Settled(upload) => self.settle(node, upload),
            Asked::StartFetch(fetch, leader) => self.start_fetch(node, fetch, leader)?,
            // The only voter may lose a term that nobody else has heard of, and use it again.
            Asked::Appended(_) if self.plan.voters == 1 => {}
            Asked::Appended(records) => self.agreement.appended(records)?,
        }
        Ok(())
    }

    /// Starts a sync of everything that waits for the disk, unless one is under way.
    fn sync(&mut self, node: NodeId) {
        let seat = self.seats.get_mut(&node).expect("a seat");
        let waiting = seat.machine.disk.pending.len();
        if seat.syncing || waiting == 0 {
            return;
        }
        seat.syncing = true;
        let boot = seat.boot;
        let slow = self.random.one_in(self.plan.slow);
        let most = if slow {
            self.plan.sync.1
        } else {
            self.plan.sync.0
        };
        let at = self.now + 100 + self.random.below(most);
        self.at(at, Happening::Synced(node, boot, waiting));
        if self.plan.disk_lies {
            let pending = self.seats[&node].machine.disk.pending.iter();
            if let Some(number) = pending.rev().find_map(DiskWork::number) {
                self.at(self.now + 1, Happening::Lie(node, boot, number));
            }
        }
    }

    fn synced(&mut self, node: NodeId, count: usize) -> Result<(), String> {
        let seat = self.seats.get_mut(&node).expect("a seat");
        seat.syncing = false;
        let disk = &mut seat.machine.disk;
        let count = count.min(disk.pending.len());
        let mut numbers = Vec::new();
        for _ in 0..count {
            let (number, records) = disk.complete();
            numbers.extend(number);
            self.agreement.appended(records)?;
        }
        // The writer may report each, or only the last of a group.
        let from = if self.random.one_in(2) {
            numbers.len().saturating_sub(1)
        } else {
            0
        };
        for number in numbers.into_iter().skip(from) {
            self.turn(node, Event::Persisted { number })?;
        }
        self.sync(node);
        Ok(())
    }

    pub fn start(&mut self, node: NodeId) -> Result<(), String> {
        let seat = self.seats.get_mut(&node).expect("a seat");
        seat.boot += 1;
        seat.machine.start();
        seat.daemon = Daemon::default();
        seat.stopped_until = 0;
        seat.syncing = false;
        seat.wake = None;
        let boot = seat.boot;
        let mut settings = self.plan.settings(node, Boot(boot));
        settings.joins = self.joiners.contains(&node);
        let recovered = seat.machine.disk.recovered();
        let core = Node::new(settings, recovered, &seat.machine.tables)
            .map_err(|fatal| format!("node {node} does not start: {fatal}"))?;
        seat.node = Some(core);
        self.trace
            .line(self.now, format_args!("node {node} starts, boot {boot}"));
        self.turn(node, Event::Time)?;
        self.at(self.now + 1_000, Happening::Sample(node, boot));
        self.wake_threads(node);
        self.links();
        Ok(())
    }

    /// The process ends at once; of what waits for the disk a part may still arrive there.
    pub fn crash(&mut self, node: NodeId) -> Result<(), String> {
        self.trace
            .line(self.now, format_args!("node {node} crashes"));
        let seat = self.seats.get_mut(&node).expect("a seat");
        seat.node = None;
        let pending = seat.machine.disk.pending.len() as u64;
        if !self.plan.disk_lies {
            for _ in 0..self.random.below(pending + 1) {
                let (_, records) = seat.machine.disk.complete();
                self.agreement.appended(records)?;
            }
        }
        seat.machine.disk.pending.clear();
        if let Some((_, tables)) = seat.machine.checkpoint.take()
            && self.random.one_in(2)
        {
            seat.machine.disk.tables = tables;
        }
        for (dir, sha256, file) in
            std::mem::take(&mut self.seats.get_mut(&node).expect("a seat").daemon.sealing)
        {
            // It may have got there, though nobody knows.
            if self.random.one_in(2) {
                self.place(node, dir, sha256, file);
            }
        }
        self.network.died(node);
        self.cut_transfers(node);
        for client in self.clients.abandon(node, self.now) {
            self.again(client);
        }
        self.links();
        Ok(())
    }

    pub fn wipe(&mut self, node: NodeId) {
        let seat = self.seats.get_mut(&node).expect("a seat");
        seat.machine.disk = crate::world::Disk::default();
        if self.image.as_ref().is_some_and(|(of, _)| *of == node) {
            self.image = None;
        }
        for dir in self.shelves[&node].ids() {
            self.swap(node, dir);
        }
        self.trace
            .line(self.now, format_args!("node {node} is wiped"));
        self.count("wipes");
    }

    /// Compares every link with what could be.
    pub fn links(&mut self) {
        let nodes = self.nodes();
        for from in &nodes {
            for to in &nodes {
                if from == to {
                    continue;
                }
                let alive = self.alive(*from) && self.alive(*to);
                let boot = self.boot(*from);
                match self.network.compare(*from, *to, alive) {
                    Some(Change::Connect) => {
                        let at = self.now + 100 + self.random.below(100_000);
                        self.at(at, Happening::Connected(*from, *to));
                    }
                    Some(Change::Break) => {
                        let at = self.now + self.random.below(400_000);
                        self.at(at, Happening::Noticed(*from, *to, boot));
                    }
                    Some(Change::Starve) => {
                        let at = self.now + 200_000 + self.random.below(3_000_000);
                        self.at(at, Happening::Starved(*from, *to));
                    }
                    None => {}
                }
            }
        }
    }

    fn client(&mut self, client: usize) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let nodes = self.nodes();
        let node = nodes[below(&mut self.random, nodes.len())];
        if !self.alive(node) {
            self.again(client);
            return Ok(());
        }
        match self.clients.next(node, Boot(self.boot(node))) {
            Deed::Ask(request) => self.ask(client, node, request),
            Deed::Upload(put, content) => {
                self.upload(client, node, put, content);
                Ok(())
            }
        }
    }

    pub fn ask(&mut self, client: usize, node: NodeId, request: Request) -> Result<(), String> {
        let patience = if client == usize::MAX {
            30_000_000
        } else {
            200_000 + self.random.below(3_000_000)
        };
        let deadline = Mono(self.now + patience);
        let ticket = self.clients.begin(client, node, request.clone(), self.now);
        let event = match request {
            Request::Change(operation) => Event::Propose {
                ticket,
                operation,
                deadline,
            },
            Request::Read(_) => Event::Read { ticket, deadline },
        };
        self.turn(node, event)
    }

    pub fn again(&mut self, client: usize) {
        if client != usize::MAX {
            let at = self.now + 1_000 + self.random.below(60_000);
            self.at(at, Happening::Client(client));
        }
    }

    fn answered(&mut self, node: NodeId, ticket: Ticket, answer: Answered) -> Result<(), String> {
        if self.errand_done(node, ticket, &answer)? {
            return Ok(());
        }
        let machine = &self.seats[&node].machine;
        let outcome = match answer {
            Answered::Committed { index, reply } => {
                if machine.applied() < index {
                    return Err(format!("node {node} answers before it applied {index}"));
                }
                self.count("committed");
                Outcome::Committed { index, reply }
            }
            Answered::Refused { .. } => {
                self.count("refused");
                Outcome::Refused
            }
            Answered::Unknown => {
                self.count("unknown");
                Outcome::Unknown
            }
            Answered::Overview(_) => {
                return Err(format!("node {node} was asked nothing like that"));
            }
            Answered::Stale => {
                self.count("stale");
                Outcome::Stale
            }
            Answered::Fresh => {
                let path = self.clients.reads(ticket).ok_or("a read nobody made")?;
                let found = query::file(&machine.tables, path).map_err(|e| e.to_string())?;
                let outcome = Outcome::Fresh {
                    applied: machine.applied(),
                    found: found.map(|record| record.upload),
                };
                self.count("fresh");
                outcome
            }
        };
        self.trace.line(
            self.now,
            format_args!("node {node} answers {}: {outcome:?}", ticket.0),
        );
        let Some((client, done)) = self.clients.end(ticket, outcome, self.now) else {
            return Err(format!("ticket {} is answered twice", ticket.0));
        };
        if let Request::Change(Operation::Put(put)) = &done.request {
            let kept = matches!(
                &done.outcome,
                Outcome::Committed {
                    reply: Reply::Done { .. },
                    ..
                }
            );
            let put = put.clone();
            self.put_ended(node, &put, kept);
        }
        self.again(client);
        Ok(())
    }
}

fn kind(event: &Event) -> String {
    match event {
        Event::Received { from, message } => {
            let what = match message {
                Message::Raft { bytes } => {
                    use protobuf::Message as _;
                    let message = raft::eraftpb::Message::parse_from_bytes(bytes);
                    message.map_or_else(
                        |_| "raft".to_owned(),
                        |m| {
                            format!(
                                "{:?} term {} index {} commit {} entries {} reject {}",
                                m.get_msg_type(),
                                m.term,
                                m.index,
                                m.commit,
                                m.entries.len(),
                                m.reject
                            )
                        },
                    )
                }
                other => format!("{other:?}"),
            };
            format!("from {from} {what}")
        }
        other => format!("{other:?}"),
    }
}

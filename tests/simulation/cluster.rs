//! A cluster in one thread: machines, network, clients and what goes wrong, driven by one seeded queue of happenings through the production turn loop.

use std::collections::{BTreeMap, BTreeSet};

use momo::base::id::{Boot, DirId, NodeId, Ticket};
use momo::base::path::FilePath;
use momo::base::random::{Random, mix};
use momo::base::time::{Mono, Now, Wall};
use momo::core::catalog::query;
use momo::core::node::{Answered, Event, LinkState, Node, Report, Role};
use momo::engine::driver::turn;
use momo::wire::command::{Birth, Expect, Operation};
use momo::wire::peer::{Figures, Message};

use crate::checkers::agreement::Agreement;
use crate::checkers::answers::Truth;
use crate::checkers::leaders::Leaders;
use crate::clients::{Clients, Outcome, Request};
use crate::network::{Change, Network};
use crate::plan::{Plan, below};
use crate::trace::Trace;
use crate::world::{Asked, DiskWork, Machine, head};

/// Without faults everything must be well after so long.
const RECOVERY: u64 = 120_000_000;
/// A node that is woken so often in a millisecond spins.
const WAKES: u32 = 200;

enum Happening {
    Wake(NodeId, u64),
    Deliver {
        from: NodeId,
        to: NodeId,
        connection: u64,
        message: Box<Message>,
    },
    Connected(NodeId, NodeId),
    Noticed(NodeId, NodeId, u64),
    Synced(NodeId, u64, usize),
    Checkpointed(NodeId, u64),
    Fetched(NodeId, u64, NodeId),
    Sample(NodeId, u64),
    Client(usize),
    Fault,
    Start(NodeId),
    Heal,
    /// The disk says that it has what it does not have.
    Lie(NodeId, u64, u64),
}

struct Seat {
    machine: Machine,
    node: Option<Node>,
    boot: u64,
    wake: Option<(u64, u64)>,
    syncing: bool,
    wakes: (u64, u32),
}

/// The whole simulation of a seed.
pub struct Cluster {
    plan: Plan,
    random: Random,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    seats: BTreeMap<NodeId, Seat>,
    network: Network,
    clients: Clients,
    calm: bool,
    leaders: Leaders,
    agreement: Agreement,
    birth: Option<Birth>,
    pub trace: Trace,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Cluster {
    pub fn new(plan: Plan) -> Self {
        let seats = (0..plan.nodes).map(|id| {
            let seat = Seat {
                machine: Machine::default(),
                node: None,
                boot: 0,
                wake: None,
                syncing: false,
                wakes: (0, 0),
            };
            (NodeId(id), seat)
        });
        let seats = seats.collect();
        Self {
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
        self.network
            .split(node.into_iter().map(|node| (node, 1)).collect());
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

    /// Everything that was seen, against what is in the log.
    pub fn judge(&mut self) -> Result<(), String> {
        let committed = self.agreement.committed()?;
        let birth = self.birth.as_ref().ok_or("nobody was born")?;
        let truth = Truth::new(birth, &committed)?;
        truth.judge(&self.clients.history)?;
        self.counts.insert("commands", truth.len() as u64);
        self.counts.insert("terms", self.leaders.terms() as u64);
        self.counts
            .insert("requests", self.clients.history.len() as u64);
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
        let mut wells = 0;
        while self.now < end {
            self.step()?;
            if self.calm && self.clients.open() == 0 && self.is_well() {
                wells += 1;
                if wells == 1 {
                    // Once more for all: each node commits and reads.
                    for node in self.nodes() {
                        self.last_words(node)?;
                    }
                } else {
                    return self.judge();
                }
            }
        }
        Err(format!(
            "no progress after the faults: {:#?}",
            self.reports()
        ))
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.seats.keys().copied().collect()
    }

    fn reports(&self) -> Vec<(NodeId, Option<Report>)> {
        let report = |seat: &Seat| seat.node.as_ref().map(Node::report);
        self.seats.iter().map(|(n, s)| (*n, report(s))).collect()
    }

    fn alive(&self, node: NodeId) -> bool {
        self.seats
            .get(&node)
            .is_some_and(|seat| seat.node.is_some())
    }

    fn boot(&self, node: NodeId) -> u64 {
        self.seats[&node].boot
    }

    fn at(&mut self, at: u64, happening: Happening) {
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
        reports.len() == self.seats.len()
            && reports.iter().all(|report| {
                report.leader.is_some()
                    && report.leader == first.leader
                    && report.applied == first.applied
                    && report.applied == self.agreement.last()
                    && report.voters.len() == self.plan.voters
                    && report.learners.len() == self.seats.len() - self.plan.voters
            })
    }

    fn last_words(&mut self, node: NodeId) -> Result<(), String> {
        let path = FilePath::new("last/words").expect("a good name");
        let boot = Boot(self.boot(node));
        let put = self.clients.put(node, boot, path.clone(), Expect::Any);
        self.ask(usize::MAX, node, Request::Change(put))?;
        self.ask(usize::MAX, node, Request::Read(path))
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
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
            Happening::Start(node) if !self.alive(node) => self.start(node),
            Happening::Heal => {
                self.network.split(BTreeMap::new());
                if self.now >= self.plan.faults_until {
                    self.trace.line(self.now, format_args!("calm"));
                    self.calm = true;
                    for node in self.nodes() {
                        if !self.alive(node) {
                            self.start(node)?;
                        }
                    }
                }
                self.links();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Gives a node an event and sees to what follows.
    fn turn(&mut self, node: NodeId, event: Event) -> Result<(), String> {
        let now = Now {
            mono: Mono(self.now),
            wall: Wall(1_700_000_000_000_000_000 + self.now * 1_000),
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
                self.trace
                    .line(self.now, format_args!("node {node} says {text}"));
            }
            Asked::Applied(from, to) => {
                let seat = &self.seats[&node];
                for index in from + 1..=to {
                    if let Some(record) = seat.machine.entry(index) {
                        self.agreement.applied(index, record.term)?;
                    } else if index > 1 {
                        return Err(format!("node {node} applied {index}, not in its log"));
                    }
                }
                self.agreement.tables(to, &seat.machine.tables)?;
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
            }
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
        seat.syncing = false;
        seat.wake = None;
        let boot = seat.boot;
        let settings = self.plan.settings(node, Boot(boot));
        let recovered = seat.machine.disk.recovered();
        let core = Node::new(settings, recovered, &seat.machine.tables)
            .map_err(|fatal| format!("node {node} does not start: {fatal}"))?;
        seat.node = Some(core);
        self.trace
            .line(self.now, format_args!("node {node} starts, boot {boot}"));
        self.turn(node, Event::Time)?;
        self.at(self.now + 1_000, Happening::Sample(node, boot));
        let registers = Operation::Register {
            node,
            name: format!("n{node}"),
            address: format!("10.0.0.{node}:1"),
            dirs: vec![DirId(u64::from(node.0) + 1)],
            stores: true,
            manages: usize::from(node.0) < self.plan.voters.max(3),
            boot: Boot(boot),
            knows: 1,
        };
        self.ask(usize::MAX, node, Request::Change(registers))?;
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
        self.network.died(node);
        for client in self.clients.abandon(node, self.now) {
            self.again(client);
        }
        self.links();
        Ok(())
    }

    pub fn wipe(&mut self, node: NodeId) {
        let seat = self.seats.get_mut(&node).expect("a seat");
        seat.machine.disk = crate::world::Disk::default();
        self.trace
            .line(self.now, format_args!("node {node} is wiped"));
        self.count("wipes");
    }

    /// Compares every link with what could be.
    fn links(&mut self) {
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
                    None => {}
                }
            }
        }
    }

    fn client(&mut self, client: usize) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let node = self.nodes()[below(&mut self.random, usize::from(self.plan.nodes))];
        if !self.alive(node) {
            self.again(client);
            return Ok(());
        }
        let request = self.clients.next(node, Boot(self.boot(node)));
        self.ask(client, node, request)
    }

    fn ask(&mut self, client: usize, node: NodeId, request: Request) -> Result<(), String> {
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

    fn again(&mut self, client: usize) {
        if client != usize::MAX {
            let at = self.now + 1_000 + self.random.below(60_000);
            self.at(at, Happening::Client(client));
        }
    }

    fn answered(&mut self, node: NodeId, ticket: Ticket, answer: Answered) -> Result<(), String> {
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
        let Some(client) = self.clients.end(ticket, outcome, self.now) else {
            return Err(format!("ticket {} is answered twice", ticket.0));
        };
        self.again(client);
        Ok(())
    }

    /// Something goes wrong.
    fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let gap = 50_000 + self.random.below(self.plan.fault_gap);
        self.at(self.now + gap, Happening::Fault);
        let nodes = self.nodes();
        let mut victim = nodes[below(&mut self.random, nodes.len())];
        let leads = |(_, report): &(NodeId, Option<Report>)| {
            report.as_ref().is_some_and(|r| r.role == Role::Leader)
        };
        if self.random.one_in(3)
            && let Some((leader, _)) = self.reports().iter().find(|report| leads(report))
        {
            victim = *leader;
        }
        match self.random.below(8) {
            0..=3 if self.plan.crashes && self.alive(victim) => {
                let wipe = self.plan.wipes && self.random.one_in(3) && self.may_wipe(victim);
                self.crash(victim)?;
                self.count("crashes");
                if wipe {
                    self.wipe(victim);
                }
                let away = if self.random.one_in(3) {
                    self.random.below(8_000_000)
                } else {
                    self.random.below(500_000)
                };
                self.at(self.now + 10_000 + away, Happening::Start(victim));
            }
            4..=5 if self.plan.partitions => {
                let mut sides = BTreeMap::new();
                if self.random.one_in(2) {
                    sides.insert(victim, 1);
                } else {
                    for node in nodes {
                        sides.insert(node, self.random.below(2));
                    }
                }
                self.count("partitions");
                self.trace
                    .line(self.now, format_args!("partition {sides:?}"));
                self.network.split(sides);
                self.links();
                let healed = self.now + 100_000 + self.random.below(4_000_000);
                if healed < self.plan.faults_until {
                    self.at(healed, Happening::Heal);
                }
            }
            6 => self.turn(victim, Event::Stepdown)?,
            _ => {}
        }
        Ok(())
    }

    /// A disk may be lost only while all the others have what it had, or a majority could be gone.
    fn may_wipe(&self, victim: NodeId) -> bool {
        let voter = usize::from(victim.0) < self.plan.voters;
        self.is_placid() && !(voter && self.plan.voters == 1)
    }

    fn is_placid(&self) -> bool {
        let reports = self.reports();
        let voters: BTreeSet<usize> = reports
            .iter()
            .filter_map(|(_, report)| Some(report.as_ref()?.voters.len()))
            .collect();
        reports.iter().all(|(_, report)| report.is_some()) && voters == [self.plan.voters].into()
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

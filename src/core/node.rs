//! The core's face: events in, effects out. This file only routes; each topic that owns state has a file of its own.
//!
//! One law: call [`Node::handle`] with one event, then [`Node::poll`] until it gives `None`. Effects are carried out in order.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::catalog::{self, Note};
use super::consensus::{Consensus, Stepped};
use super::health::{self, Health};
use super::log::Log;
use super::membership::{BIRTH_INDEX, Membership, Step};
use super::proposals::Proposals;
use super::reads::{Reads, Waiter};
use super::repair::{self, Progress, Repair};
use super::settings::Settings;
use super::turn::Turn;
use crate::base::digest::Sha256;
use crate::base::id::{ClusterId, NodeId, OperationId, Ticket};
use crate::base::path::FilePath;
use crate::base::table::{Batch, TableError, Tables};
use crate::base::time::{Mono, Now};
use crate::wire::admin::Overview;
use crate::wire::command::{Birth, Command, KNOWS, Operation, Reply};
use crate::wire::peer::{Fetch, Figures, JobId, Message, SnapshotHead};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed; also sent when [`Node::deadline`] is reached.
    Time,
    /// A peer's message, from an authenticated connection.
    Received {
        /// Who sent it.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// The outgoing control link to a peer came up, or it is lost.
    Link {
        /// Which peer.
        node: NodeId,
        /// Up or down.
        state: LinkState,
    },
    /// A thread of this node asks to have something committed. Answered by [`Effect::Answer`], always, at `deadline` at the latest.
    Propose {
        /// Whose answer it is.
        ticket: Ticket,
        /// What to commit.
        operation: Operation,
        /// When the answer becomes "unknown".
        deadline: Mono,
    },
    /// A thread needs a fresh read (rule R1). Answered once everything acknowledged before is applied here, or as stale at `deadline`.
    Read {
        /// Whose answer it is.
        ticket: Ticket,
        /// When it serves what it has.
        deadline: Mono,
    },
    /// A thread asks what this node remembers of the others. Answered by [`Answered::Overview`] at once.
    Overview {
        /// Whose answer it is.
        ticket: Ticket,
    },
    /// The log has everything up to and with this append on stable storage.
    Persisted {
        /// The append's number.
        number: u64,
    },
    /// The tables have everything up to this index on stable storage.
    Checkpointed {
        /// The applied index in the durable tables.
        applied: u64,
    },
    /// The catalog of another member has been fetched and lies ready to be installed, or not.
    SnapshotFetched {
        /// What it stands for; `None` when fetching failed.
        head: Option<SnapshotHead>,
    },
    /// A copy job given by [`Effect::StartFetch`] ended.
    FetchEnded {
        /// Which.
        job: JobId,
        /// Who gave it.
        leader: NodeId,
        /// Why it failed.
        error: Option<String>,
    },
    /// This node's own figures, every heartbeat interval.
    Sampled {
        /// The figures.
        figures: Figures,
    },
    /// Hand over leadership, if held, because this process is about to stop.
    Stepdown,
    /// An operator's word that the cluster is to be born although not all members of the file are within reach (rule R13).
    Init,
    /// A peer proved that it goes on as another cluster, made from this node's by force (`momo recover`).
    Superseded {
        /// Who.
        by: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
}

/// State of the control link to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connected and authenticated.
    Up,
    /// Broken or refused.
    Down,
}

/// Something to be done, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to a peer; may be dropped when its queue is full.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Make these changes to the tables now, before any later effect. They carry the applied index with them.
    Write(Batch),
    /// Append to the log; answer with [`Event::Persisted`] once it is synced. Several may be under way; they complete in order.
    Append(Append),
    /// The log up to and with this index is no longer needed.
    CutLog {
        /// Last index to forget.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// Answer a thread.
    Answer {
        /// Whose ticket.
        ticket: Ticket,
        /// What.
        answer: Answered,
    },
    /// Write the tables' changes so far to stable storage when convenient; answer with [`Event::Checkpointed`].
    Checkpoint {
        /// The applied index they stand at.
        applied: u64,
    },
    /// Fetch the catalog from this member; answer with [`Event::SnapshotFetched`].
    FetchSnapshot {
        /// From whom.
        from: NodeId,
    },
    /// Put the fetched catalog in place of the tables, durably, then start the log anew behind it; answer with [`Event::Persisted`].
    InstallSnapshot {
        /// What it stands for.
        head: SnapshotHead,
        /// The hard state to keep.
        hard_state: Vec<u8>,
        /// Number for the answer.
        number: u64,
    },
    /// Remember durably, before any later effect: the birth, or the cluster this node belongs to.
    Remember(Memory),
    /// Empty log and tables, durably, before any later effect: they are damaged or older than what this node once acknowledged, and it starts anew without a vote.
    Forget,
    /// A name changed: bring the visible tree in line with the catalog.
    Touched {
        /// Which name.
        path: FilePath,
    },
    /// An object lost its last reference, or this node's copy was dropped: look whether it can go (rule R6).
    Unreferenced {
        /// Which object.
        sha256: Sha256,
    },
    /// An upload was put or abandoned: its pins may go (rule R5).
    Settled {
        /// Which upload.
        upload: OperationId,
    },
    /// Fetch a copy of an object; answer with [`Event::FetchEnded`].
    StartFetch {
        /// The order.
        fetch: Fetch,
        /// Who gave it.
        leader: NodeId,
    },
    /// Something a person should read in the log.
    Say {
        /// How important.
        level: Level,
        /// Name of the event, in `snake_case`, as in the specs.
        event: &'static str,
        /// One line.
        text: String,
    },
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Needs a person.
    Error,
    /// Could need one.
    Warn,
    /// Worth knowing.
    Info,
    /// For those who look closely.
    Debug,
}

/// Entries and hard state to be put on stable storage together.
#[derive(Clone, Debug)]
pub struct Append {
    /// Grows by one each time.
    pub number: u64,
    /// Raft's hard state when it changed, protobuf.
    pub hard_state: Option<Vec<u8>>,
    /// New entries: index, term, protobuf. They may overwrite a suffix of what is there.
    pub entries: Vec<LogRecord>,
}

/// An entry on its way to the log or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// The entry, protobuf.
    pub bytes: Vec<u8>,
}

/// What a node must not forget outside log and tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// It is born into this cluster.
    Born(Birth),
    /// It belongs to this cluster, without a vote until the cluster says otherwise.
    Admitted(ClusterId),
    /// It has no part in this cluster any more.
    Out {
        /// The cluster.
        cluster: ClusterId,
        /// Why, for people.
        why: String,
    },
    /// The highest index each voter acknowledged, by node (rule R13).
    Acknowledged(Vec<(NodeId, u64)>),
}

/// What a start of the process found on disk.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Why the log cannot be trusted (rule R15): damage that is not a torn tail, or a log that is gone although something is remembered. The rest but `memory` is ignored then.
    pub damaged: Option<String>,
    /// The newest hard state in the log.
    pub hard_state: Option<Vec<u8>>,
    /// Index of the last entry that was cut off; 0 when none ever was.
    pub base_index: u64,
    /// The term of that entry.
    pub base_term: u64,
    /// The entries from `base_index + 1`, without gaps.
    pub entries: Vec<LogRecord>,
    /// What was remembered, oldest first; of a kind, the last counts.
    pub memory: Vec<Memory>,
}

/// This node must stop; what it has acknowledged is on disk.
#[derive(Debug)]
pub enum Fatal {
    /// What is on the disk cannot be right: an operator must look.
    Damaged(String),
    /// The log holds a kind of command that this program is too old for: an operator must upgrade it.
    TooOld(String),
    /// The tables or the log could not be read or written.
    Disk(String),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "damaged state: {why}"),
            Self::TooOld(why) => write!(f, "program too old: {why}"),
            Self::Disk(why) => write!(f, "disk: {why}"),
        }
    }
}

impl std::error::Error for Fatal {}

impl From<TableError> for Fatal {
    fn from(error: TableError) -> Self {
        Self::Disk(error.to_string())
    }
}

/// What a node does in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: it is not a member yet, or not any more.
    Outside,
    /// Follows without a vote.
    Learner,
    /// Follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// How this node stands, after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The cluster, once known.
    pub cluster: Option<ClusterId>,
    /// Whether this node takes part: it has been born or admitted, and its log is whole.
    pub born: bool,
    /// What it does.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Index applied.
    pub applied: u64,
    /// Index known to be committed.
    pub committed: u64,
    /// Voters, sorted.
    pub voters: Vec<NodeId>,
    /// Learners, sorted.
    pub learners: Vec<NodeId>,
    /// Members this node has a link to, itself included, sorted.
    pub up: Vec<NodeId>,
    /// Why nothing can be committed now, for people: "1 of 3 daemons up, 2 needed". `None` when there is a leader.
    pub waiting: Option<String>,
    /// Index of the last snapshot installed since the start, 0 when none was.
    pub snapshot: u64,
    /// Proposals of this node under way.
    pub proposals: usize,
    /// Reads of this node under way.
    pub reads: usize,
    /// How repair goes on, where this node leads.
    pub repair: Progress,
}

/// The core of a node: everything it decides, and nothing it does.
pub struct Node {
    settings: Settings,
    effects: VecDeque<Effect>,
    membership: Membership,
    /// `None` while this node is not a member.
    consensus: Option<Consensus>,
    /// The birth whose rows the tables do not have yet.
    unwritten: Option<Birth>,
    /// The log to start Raft with at the first event.
    start: Option<Log>,
    proposals: Proposals,
    reads: Reads,
    health: Health,
    repair: Repair,
    checkpoints: Checkpoints,
    /// Number of the last effect handed to the disk.
    number: u64,
    /// A fetch of the catalog is under way that Raft had asked for before it was left.
    fetching: bool,
    leader: Option<NodeId>,
    role: Role,
}

/// When the tables go to the disk.
struct Checkpoints {
    /// Where they stood when that was last asked for.
    asked: u64,
    /// When that was.
    at: Mono,
    under_way: bool,
    entries: u64,
    period: Duration,
}

/// Rounds of Raft and its users in one turn; more means that they chase each other for ever.
const ROUNDS: usize = 10_000;
/// How long the leader's own verdicts are proposed for.
const VERDICT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a refusal waits for the read that confirms it.
const DOUBT_DEADLINE: Duration = Duration::from_secs(2);

impl Node {
    /// A node as it was when its process ended. Nothing happens before the first event.
    pub fn new(
        settings: Settings,
        recovered: Recovered,
        tables: &dyn Tables,
    ) -> Result<Self, Fatal> {
        let found = Found::look(recovered, catalog::applied(tables)?)?;
        let membership = Membership::new(&settings, &found.memory, found.lost);
        let health = Health::new(health::Settings {
            node: settings.node,
            interval: settings.heartbeat_interval,
            timeout: settings.heartbeat_timeout,
        });
        let repair = Repair::new(repair::Settings {
            seed: settings.seed ^ settings.boot.0,
            grace: settings.repair_grace,
            incoming: settings.repair_in,
            outgoing: settings.repair_out,
            bandwidth: settings.repair_bandwidth,
            // Until the node that dropped it has said so with its next figures.
            lingers: settings.garbage_grace + settings.heartbeat_interval * 2,
        });
        Ok(Self {
            effects: VecDeque::new(),
            membership,
            consensus: None,
            unwritten: found.unwritten,
            start: found.log,
            proposals: Proposals::new(&settings),
            reads: Reads::new(&settings),
            health,
            repair,
            checkpoints: Checkpoints {
                asked: 0,
                at: Mono::default(),
                under_way: false,
                entries: settings.checkpoint_entries,
                period: settings.checkpoint_period,
            },
            number: 0,
            fetching: false,
            leader: None,
            role: Role::Outside,
            settings,
        })
    }

    /// Takes one event. Every effect of the event before must have been polled.
    pub fn handle(&mut self, event: Event, now: Now, tables: &dyn Tables) -> Result<(), Fatal> {
        assert!(self.effects.is_empty(), "effects of the last turn are left");
        let mut turn = Turn::new(now, tables);
        self.begin(&mut turn)?;
        self.route(&mut turn, event)?;
        self.settle(&mut turn)?;
        if let Some(raft) = &mut self.consensus {
            raft.seal(&mut turn)?;
            self.number = raft.number();
        }
        turn.finish(&mut self.effects);
        Ok(())
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to give [`Event::Time`] at the latest, if nothing else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        let raft = self.consensus.as_ref().map(Consensus::deadline);
        [
            raft,
            self.membership.deadline(),
            self.proposals.deadline(),
            self.reads.deadline(),
            self.health.deadline(),
            self.repair.deadline(),
            self.checkpoints
                .deadline(self.applied())
                .filter(|_| !self.is_installing()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How this node stands.
    pub fn report(&self) -> Report {
        let raft = self.consensus.as_ref();
        let head = raft.map(Consensus::head);
        let nodes = |ids: Option<&Vec<u64>>| {
            let ids = ids.into_iter().flatten();
            ids.filter_map(|id| NodeId::from_raft(*id)).collect()
        };
        let leader = raft.and_then(Consensus::leader);
        Report {
            cluster: self.membership.cluster(),
            born: self.membership.is_member(),
            role: raft.map_or(Role::Outside, Consensus::role),
            leader,
            term: raft.map_or(0, Consensus::term),
            applied: self.applied(),
            committed: raft.map_or(0, Consensus::committed),
            voters: nodes(head.map(|head| &head.voters)),
            learners: nodes(head.map(|head| &head.learners)),
            up: self.membership.up().into_iter().collect(),
            waiting: leader.is_none().then(|| self.membership.shortage(head)),
            snapshot: raft.map_or(0, Consensus::snapshot),
            proposals: self.proposals.len(),
            reads: self.reads.len(),
            repair: self.repair.progress(),
        }
    }

    /// What this node remembers of the others.
    fn overview(&self) -> Overview {
        let raft = self.consensus.as_ref();
        Overview {
            node: self.settings.node,
            term: raft.map_or(0, Consensus::term),
            leads: raft.is_some_and(Consensus::leads),
            nodes: self.health.overview(),
            repair: self.repair.progress(),
        }
    }

    fn is_installing(&self) -> bool {
        let raft = self.consensus.as_ref();
        raft.is_some_and(Consensus::is_installing)
    }

    fn applied(&self) -> u64 {
        self.consensus.as_ref().map_or(0, |raft| raft.head().index)
    }

    /// The first event starts Raft with what was found.
    fn begin(&mut self, turn: &mut Turn<'_>) -> Result<(), Fatal> {
        let Some(log) = self.start.take() else {
            return Ok(());
        };
        if let Some(birth) = self.unwritten.take() {
            Self::write_birth(turn, &birth);
        }
        self.checkpoints.asked = log.applied().index;
        self.checkpoints.at = turn.mono();
        self.start_raft(turn, log)
    }

    fn start_raft(&mut self, turn: &Turn<'_>, log: Log) -> Result<(), Fatal> {
        let mut raft = Consensus::new(&self.settings, log, self.number, turn.mono())?;
        raft.set_fetching(self.fetching);
        self.consensus = Some(raft);
        Ok(())
    }

    fn write_birth(turn: &mut Turn<'_>, birth: &Birth) {
        let head = head_at_birth(birth);
        turn.tables.batch = catalog::born(birth);
        catalog::set_applied(&mut turn.tables.batch, &head);
        turn.log(Effect::CutLog {
            index: head.index,
            term: head.term,
        });
    }

    fn route(&mut self, turn: &mut Turn<'_>, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Received { from, message } if from != self.settings.node => {
                self.received(turn, from, message)?;
            }
            Event::Time | Event::Received { .. } => {}
            Event::Link { node, state } => {
                let raft = self.consensus.as_ref();
                self.membership.link(turn, node, state, raft);
                self.health.link(node, state, turn.mono());
                if state == LinkState::Up {
                    self.repair.linked(turn.mono());
                } else {
                    self.repair.unlinked(node, turn.mono());
                    if let Some(raft) = &mut self.consensus {
                        raft.lost(node);
                    }
                }
            }
            Event::Propose {
                ticket,
                operation,
                deadline,
            } => self.proposals.add(turn, Some(ticket), operation, deadline),
            Event::Read { ticket, deadline } => {
                self.reads.add(turn, Waiter::Thread(ticket), deadline);
            }
            Event::Overview { ticket } => {
                let overview = Box::new(self.overview());
                turn.answer(ticket, Answered::Overview(overview));
            }
            Event::Persisted { number } => {
                if let Some(raft) = &mut self.consensus
                    && let Some(head) = raft.persisted(turn, number)
                {
                    // Installed durably: nothing to put on disk until more is applied.
                    self.checkpoints.asked = self.checkpoints.asked.max(head.index);
                    self.checkpoints.under_way = false;
                    let raft = &*raft;
                    self.membership.reconfigured(turn, raft);
                }
            }
            Event::Checkpointed { applied } => {
                self.checkpoints.under_way = false;
                // One that was under way when this node was emptied says nothing about the tables it has now.
                let of_these = applied <= self.checkpoints.asked;
                if let Some(raft) = self.consensus.as_mut().filter(|_| of_these) {
                    let keep = (self.settings.log_keep_entries, self.settings.log_keep_bytes);
                    raft.checkpointed(turn, applied, keep.0, keep.1);
                }
            }
            Event::SnapshotFetched { head } => {
                self.fetching = false;
                if let Some(raft) = &mut self.consensus {
                    raft.fetched(turn, head);
                }
            }
            Event::FetchEnded { job, leader, error } => {
                if leader == self.settings.node {
                    self.repair.ended(job, error, turn.mono());
                } else {
                    turn.send(leader, Message::Fetched { job, error });
                }
            }
            Event::Sampled { figures } => self.sampled(turn, figures),
            Event::Init => {
                let step = self.membership.init(turn);
                self.take(turn, step)?;
            }
            Event::Superseded { by, cluster } => {
                let step = self.membership.superseded(turn, by, cluster);
                self.take(turn, step)?;
            }
            Event::Stepdown => {
                let up = self.membership.up();
                if let Some(raft) = &mut self.consensus {
                    raft.step_down(turn, &up);
                }
            }
        }
        Ok(())
    }

    fn received(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        message: Message,
    ) -> Result<(), Fatal> {
        match message {
            Message::Raft { bytes } => {
                let greeted = self.membership.greeted(turn, from, self.consensus.as_ref());
                if let (true, Some(raft)) = (greeted, &mut self.consensus)
                    && raft.step(turn, from, &bytes) == Stepped::Behind
                {
                    let step = self.membership.behind(turn, from, raft);
                    self.take(turn, step)?;
                }
            }
            Message::Hello(hello) => {
                let raft = self.consensus.as_mut();
                let step = self.membership.hello(turn, from, hello, raft);
                self.take(turn, step)?;
            }
            Message::Birth(birth) => self.membership.birth(from, birth),
            Message::Admit { cluster } => {
                let step = self.membership.admitted(turn, from, cluster);
                self.take(turn, step)?;
            }
            Message::Removed { cluster, index } => {
                let raft = self.consensus.as_ref();
                let step = self.membership.removed(turn, cluster, index, raft);
                self.take(turn, step)?;
            }
            Message::Propose { command, again } => {
                let raft = self.consensus.as_mut();
                self.proposals.asked(turn, raft, from, &command, again)?;
            }
            Message::Proposed { id, fate } => {
                let applied = self.applied();
                self.proposals.proposed(turn, from, id, fate, applied);
            }
            Message::Heartbeat { boot, figures } => {
                let raft = self.consensus.as_ref();
                self.membership.applied(from, boot, figures.applied, raft);
                self.health.heartbeat(from, boot, figures, turn.mono());
            }
            Message::Fetch(fetch) => turn.last(Effect::StartFetch {
                fetch,
                leader: from,
            }),
            Message::Fetched { job, error } => self.repair.ended(job, error, turn.mono()),
        }
        Ok(())
    }

    /// This node's own sign of life: to the leader, and from the leader to all.
    fn sampled(&mut self, turn: &mut Turn<'_>, mut figures: Figures) {
        figures.applied = self.applied();
        figures.term = self.consensus.as_ref().map_or(0, Consensus::term);
        let boot = self.settings.boot;
        let leader = self.consensus.as_ref().and_then(Consensus::leader);
        for node in self.membership.up() {
            if node == self.settings.node {
                continue;
            }
            if leader == Some(self.settings.node) || leader == Some(node) {
                let figures = figures.clone();
                turn.send(node, Message::Heartbeat { boot, figures });
            }
        }
        let node = self.settings.node;
        self.health.heartbeat(node, boot, figures, turn.mono());
    }

    /// What membership decided about this node.
    fn take(&mut self, turn: &mut Turn<'_>, step: Option<Step>) -> Result<(), Fatal> {
        match step {
            None => {}
            Some(Step::Born(birth)) => {
                Self::write_birth(turn, &birth);
                let log = Log::new_cluster(head_at_birth(&birth));
                self.start_raft(turn, log)?;
            }
            Some(Step::Admitted) => {
                self.checkpoints.asked = 0;
                self.checkpoints.under_way = false;
                self.start_raft(turn, Log::new_member())?;
            }
            Some(Step::Leave) => {
                self.fetching = self.consensus.as_ref().is_some_and(Consensus::is_fetching);
                self.consensus = None;
            }
        }
        Ok(())
    }

    /// Lets time pass and works everything off that has become possible, until nothing is left.
    fn settle(&mut self, turn: &mut Turn<'_>) -> Result<(), Fatal> {
        let up = self.membership.up();
        if let Some(raft) = &mut self.consensus {
            raft.pass(turn, &up);
        }
        for _ in 0..ROUNDS {
            self.drain(turn)?;
            let step = self.membership.work(turn, self.consensus.as_mut())?;
            self.take(turn, step)?;
            let deadline = turn.mono() + VERDICT_DEADLINE;
            for operation in self.membership.operations() {
                self.proposals.add(turn, None, operation, deadline);
            }
            self.watch(turn);
            self.verdicts(turn)?;
            self.orders(turn)?;
            self.requests(turn, &up)?;
            let more = self.consensus.as_ref().is_some_and(Consensus::has_more);
            if !more {
                // What is put in place by a snapshot is durable with it.
                if !self.is_installing() {
                    let applied = self.applied();
                    self.checkpoints.work(turn, applied);
                }
                return Ok(());
            }
        }
        unreachable!("a turn without an end");
    }

    /// Applies what is committed.
    fn drain(&mut self, turn: &mut Turn<'_>) -> Result<(), Fatal> {
        let Some(raft) = &mut self.consensus else {
            return Ok(());
        };
        while let Some(progressed) = raft.advance(turn)? {
            for (number, index) in progressed.reads {
                self.reads.confirmed(number, index);
            }
            let mut changes = progressed.changes.iter().peekable();
            for (index, content) in progressed.commands {
                // However entries are grouped, each command sees the configuration of its place in the log.
                while let Some(head) = changes.next_if(|head| head.index < index) {
                    catalog::set_applied(&mut turn.tables.batch, head);
                }
                let command = read_command(index, &content)?;
                let applied = catalog::apply(&mut turn.tables, index, &command)?;
                for note in applied.notes {
                    carry_out(turn, note)?;
                }
                self.proposals
                    .applied(turn, index, command.id, &applied.reply);
            }
            if progressed.moved {
                catalog::set_applied(&mut turn.tables.batch, raft.head());
            }
            if !progressed.changes.is_empty() {
                self.membership.reconfigured(turn, raft);
            }
        }
        Ok(())
    }

    /// Notes changes of the lead.
    fn watch(&mut self, turn: &mut Turn<'_>) {
        let raft = self.consensus.as_ref();
        let leader = raft.and_then(Consensus::leader);
        let role = raft.map_or(Role::Outside, Consensus::role);
        let term = raft.map_or(0, Consensus::term);
        if leader != self.leader {
            self.leader = leader;
            self.reads.new_leader();
            match leader {
                Some(node) => turn.say(
                    Level::Info,
                    "leader",
                    format!("node {node} leads in term {term}"),
                ),
                None => turn.say(
                    Level::Warn,
                    "no_leader",
                    self.membership.shortage(raft.map(Consensus::head)),
                ),
            }
        }
        self.role = role;
    }

    /// The leader's verdicts on who lives.
    fn verdicts(&mut self, turn: &mut Turn<'_>) -> Result<(), Fatal> {
        let serves = self.consensus.as_ref().is_some_and(Consensus::serves);
        let verdicts = self.health.tick(turn.mono(), serves, &turn.tables)?;
        for (level, event, text) in self.health.remarks() {
            turn.say(level, event, text);
        }
        let deadline = turn.mono() + VERDICT_DEADLINE;
        for operation in verdicts {
            self.proposals.add(turn, None, operation, deadline);
        }
        Ok(())
    }

    /// The leader's orders to copy, and what repair has committed.
    fn orders(&mut self, turn: &mut Turn<'_>) -> Result<(), Fatal> {
        let raft = self.consensus.as_ref();
        let term = raft.filter(|raft| raft.serves()).map(Consensus::term);
        let now = turn.mono();
        let work = self.repair.tick(now, term, &turn.tables, &self.health)?;
        for operation in work.operations {
            let deadline = now + VERDICT_DEADLINE;
            self.proposals.add(turn, None, operation, deadline);
        }
        for (level, event, text) in work.says {
            turn.say(level, event, text);
        }
        let leader = self.settings.node;
        for (node, fetch) in work.orders {
            if node == leader {
                turn.last(Effect::StartFetch { fetch, leader });
            } else {
                turn.send_last(node, Message::Fetch(fetch));
            }
        }
        Ok(())
    }

    /// Proposals and reads.
    fn requests(&mut self, turn: &mut Turn<'_>, up: &BTreeSet<NodeId>) -> Result<(), Fatal> {
        let (membership, raft) = (&self.membership, self.consensus.as_ref());
        let head = raft.map(|raft| raft.head().clone());
        let shortage = || membership.shortage(head.as_ref());
        let raft = self.consensus.as_mut();
        self.proposals.work(turn, raft, up, &shortage)?;
        for id in self.proposals.doubts() {
            let deadline = turn.mono() + DOUBT_DEADLINE;
            self.reads.add(turn, Waiter::Doubt(id), deadline);
        }
        let applied = self.applied();
        let judged = self.reads.answer(turn, applied);
        let Some(raft) = &mut self.consensus else {
            return Ok(());
        };
        for id in judged {
            self.proposals.judge(turn, raft, id)?;
        }
        let known = raft.leader().is_some();
        if let Some(number) = self.reads.ask(turn.mono(), known) {
            raft.read_index(number, self.settings.boot.0);
        }
        Ok(())
    }
}

impl Checkpoints {
    fn work(&mut self, turn: &mut Turn<'_>, applied: u64) {
        let waiting = applied.saturating_sub(self.asked);
        let due = self.deadline(applied).is_some_and(|at| at <= turn.mono());
        if due || (waiting >= self.entries && !self.under_way) {
            self.asked = applied;
            self.at = turn.mono();
            self.under_way = true;
            turn.last(Effect::Checkpoint { applied });
        }
    }

    fn deadline(&self, applied: u64) -> Option<Mono> {
        (applied > self.asked && !self.under_way).then(|| self.at + self.period)
    }
}

/// What to make of what was found on disk.
struct Found {
    memory: Vec<Memory>,
    log: Option<Log>,
    unwritten: Option<Birth>,
    lost: Option<String>,
}

impl Found {
    fn look(recovered: Recovered, applied: Option<SnapshotHead>) -> Result<Self, Fatal> {
        let Recovered {
            damaged,
            hard_state,
            base_index,
            base_term,
            entries,
            memory,
        } = recovered;
        let mut found = Self {
            memory,
            log: None,
            unwritten: None,
            lost: damaged,
        };
        let mut base = (base_index, base_term);
        let out = found.memory.iter().rev().find_map(|memory| match memory {
            Memory::Born(_) | Memory::Admitted(_) => Some(None),
            Memory::Out { why, .. } => Some(Some(why.clone())),
            Memory::Acknowledged(_) => None,
        });
        if let Some(Some(why)) = out {
            found.lost = Some(why);
            return Ok(found);
        }
        let past = found.memory.iter().rev().find_map(|memory| match memory {
            Memory::Born(birth) => Some(Some(birth)),
            Memory::Admitted(_) => Some(None),
            Memory::Out { .. } | Memory::Acknowledged(_) => None,
        });
        let applied = match (past, applied) {
            (None, applied) => {
                if applied.is_some() || base.0 > 0 || !entries.is_empty() {
                    let why = "there is a catalog or a log, but no memory of a cluster";
                    return Err(Fatal::Damaged(why.to_owned()));
                }
                return Ok(found);
            }
            (Some(Some(birth)), None) if base.0 <= BIRTH_INDEX => {
                // Born, and the tables never reached the disk: the whole log is there.
                found.unwritten = Some(birth.clone());
                head_at_birth(birth)
            }
            (Some(None), None) if base.0 == 0 && entries.is_empty() => Log::nothing(),
            (Some(_), None) => {
                let why = "the catalog is gone, and the log does not begin at its birth";
                found.lost.get_or_insert(why.to_owned());
                return Ok(found);
            }
            (Some(_), Some(applied)) => applied,
        };
        if past.is_some_and(|past| past.is_some()) && base.0 == 0 {
            // Where the log begins is known from the birth, should it not have been written down.
            base = (BIRTH_INDEX, BIRTH_INDEX);
        }
        if found.lost.is_some() {
            found.unwritten = None;
            return Ok(found);
        }
        match Log::recover(base, &entries, hard_state.as_deref(), applied) {
            Ok(log) => found.log = Some(log),
            Err(why) => {
                found.unwritten = None;
                found.lost = Some(why);
            }
        }
        Ok(found)
    }
}

/// Where the tables of a new cluster stand.
pub fn head_at_birth(birth: &Birth) -> SnapshotHead {
    let seats = |votes: bool| {
        let members = birth.members.iter().filter(|m| m.votes == votes);
        let mut ids: Vec<u64> = members.map(|m| m.id.raft()).collect();
        ids.sort_unstable();
        ids
    };
    SnapshotHead {
        index: BIRTH_INDEX,
        term: BIRTH_INDEX,
        voters: seats(true),
        learners: seats(false),
    }
}

/// An entry of the log as a command; what this program cannot know it must not skip.
fn read_command(index: u64, content: &[u8]) -> Result<Command, Fatal> {
    #[derive(serde::Deserialize)]
    struct Generation {
        v: u32,
    }
    let generation: Generation = serde_json::from_slice(content)
        .map_err(|error| Fatal::Damaged(format!("entry {index} is no command: {error}")))?;
    if generation.v > KNOWS {
        return Err(Fatal::TooOld(format!(
            "entry {index} is a command of generation {}, this program knows {KNOWS}",
            generation.v
        )));
    }
    serde_json::from_slice(content)
        .map_err(|error| Fatal::TooOld(format!("entry {index} is an unknown command: {error}")))
}

fn carry_out(turn: &mut Turn<'_>, note: Note) -> Result<(), Fatal> {
    match note {
        Note::Touched(path) => turn.last(Effect::Touched { path }),
        Note::Unreferenced(sha256) => turn.last(Effect::Unreferenced { sha256 }),
        Note::Settled(upload) => turn.last(Effect::Settled { upload }),
        Note::Mode => {
            let mode = catalog::query::mode(&turn.tables)?;
            let text = format!(
                "old={} new={} timestamp={} cause={:?}",
                mode.old.digit(),
                mode.new.digit(),
                mode.timestamp,
                mode.cause
            );
            turn.say(Level::Info, "mode_changed", text);
        }
    }
    Ok(())
}

/// The answer to a thread.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// A proposal was committed at `index` and is applied here.
    Committed {
        /// Its place in the log.
        index: u64,
        /// What applying said.
        reply: Reply,
    },
    /// A proposal was refused before it was proposed: nothing changed.
    Refused {
        /// Why.
        reply: Reply,
    },
    /// The outcome of a proposal is not known.
    Unknown,
    /// A read may go on: what was acknowledged before is applied here.
    Fresh,
    /// A read may go on with what there is: no leader confirmed it in time.
    Stale,
    /// What this node remembers of the others.
    Overview(Box<Overview>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Boot;
    use crate::base::table::MemoryTables;
    use crate::base::time::Wall;
    use crate::wire::command::BirthMember;
    use crate::wire::record::Mode;

    fn birth() -> Birth {
        let member = |id| BirthMember {
            id: NodeId(id),
            name: format!("n{id}"),
            address: "127.0.0.1:1".to_owned(),
            votes: true,
            stores: true,
            manages: true,
        };
        Birth {
            cluster: ClusterId(5),
            members: (0..3).map(member).collect(),
            mode: Mode::Chain,
            time: Wall(1),
        }
    }

    fn start(recovered: Recovered, tables: &MemoryTables) -> Result<Node, Fatal> {
        let mut settings = Settings::new(NodeId(0), Boot(2), 7, ClusterId(1));
        settings.members = birth().members;
        Node::new(settings, recovered, tables)
    }

    fn drained(node: &mut Node, event: Event, tables: &MemoryTables) -> Vec<Effect> {
        node.handle(event, Now::default(), tables).unwrap();
        std::iter::from_fn(|| node.poll()).collect()
    }

    #[test]
    fn a_log_without_a_memory_of_a_cluster_stops_the_node() {
        let recovered = Recovered {
            base_index: 7,
            base_term: 2,
            ..Recovered::default()
        };
        let node = start(recovered, &MemoryTables::default());
        assert!(matches!(node, Err(Fatal::Damaged(_))));
    }

    #[test]
    fn a_birth_that_was_remembered_and_not_written_is_written_at_the_next_start() {
        let recovered = Recovered {
            memory: vec![Memory::Born(birth())],
            ..Recovered::default()
        };
        let mut tables = MemoryTables::default();
        let mut node = start(recovered, &tables).unwrap();
        for effect in drained(&mut node, Event::Time, &tables) {
            if let Effect::Write(batch) = effect {
                tables.write(&batch);
            }
        }
        let head = catalog::applied(&tables).unwrap().unwrap();
        assert_eq!((head.index, head.voters), (1, vec![1, 2, 3]));
        assert_eq!(node.report().applied, 1);
    }

    #[test]
    fn a_damaged_log_makes_a_node_that_waits_and_says_why() {
        let recovered = Recovered {
            damaged: Some("a record in the middle is broken".to_owned()),
            memory: vec![Memory::Born(birth())],
            ..Recovered::default()
        };
        let tables = MemoryTables::default();
        let mut node = start(recovered, &tables).unwrap();
        drained(&mut node, Event::Time, &tables);
        let report = node.report();
        assert!(!report.born);
        assert_eq!(report.role, Role::Outside);
        assert!(report.waiting.unwrap().contains("is broken"));
    }

    #[test]
    fn a_command_of_a_later_generation_stops_the_node() {
        assert!(matches!(
            read_command(9, br#"{"v":99,"id":{"n":0,"b":1,"s":1},"op":"teleport"}"#),
            Err(Fatal::TooOld(_))
        ));
        assert!(matches!(
            read_command(9, br#"{"v":1,"id":{"n":0,"b":1,"s":1},"op":"teleport"}"#),
            Err(Fatal::TooOld(_))
        ));
        assert!(matches!(read_command(9, b"noise"), Err(Fatal::Damaged(_))));
    }
}

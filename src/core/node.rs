//! The core's face: events in, effects out. This file only routes; each topic that owns state has a file of its own.
//!
//! One law: call [`Node::handle`] with one event, then [`Node::poll`] until it gives `None`. Effects are carried out in order.

use std::collections::VecDeque;
use std::fmt;

use super::settings::Settings;
use crate::base::digest::Sha256;
use crate::base::id::{ClusterId, NodeId, OperationId, Ticket};
use crate::base::path::FilePath;
use crate::base::table::{Batch, TableError, Tables};
use crate::base::time::{Mono, Now};
use crate::wire::command::{Birth, Operation, Reply};
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
}

/// The core of a node: everything it decides, and nothing it does.
pub struct Node {
    settings: Settings,
    effects: VecDeque<Effect>,
}

impl Node {
    /// A node as it was when its process ended. Nothing happens before the first event.
    pub fn new(
        settings: Settings,
        _recovered: Recovered,
        _tables: &dyn Tables,
    ) -> Result<Self, Fatal> {
        Ok(Self {
            settings,
            effects: VecDeque::new(),
        })
    }

    /// Takes one event. Every effect of the event before must have been polled.
    pub fn handle(&mut self, _event: Event, _now: Now, _tables: &dyn Tables) -> Result<(), Fatal> {
        assert!(self.effects.is_empty(), "effects of the last turn are left");
        Ok(())
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to give [`Event::Time`] at the latest, if nothing else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        None
    }

    /// How this node stands.
    pub fn report(&self) -> Report {
        let _ = &self.settings;
        unimplemented!()
    }
}

/// The answer to a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

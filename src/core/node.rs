//! The core's face: events in, effects out. This file only routes; each topic that owns state has a file of its own.
//!
//! One law: call [`Node::handle`] with one event, then [`Node::poll`] until it gives `None`. Effects are carried out in order.

use crate::base::digest::Sha256;
use crate::base::id::{ClusterId, NodeId, OperationId, Ticket};
use crate::base::path::FilePath;
use crate::base::table::Batch;
use crate::base::time::Mono;
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

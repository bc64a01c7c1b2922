//! What a door may ask of this node: a few verbs that block until they are done, refused or given up at their deadline.

use std::fmt;
use std::io::{self, Read, Write};

use serde::Serialize;

use crate::base::digest::{Md5, Sha256};
use crate::base::id::{NodeId, Version};
use crate::base::path::FilePath;
pub use crate::core::repair::Progress;
use crate::wire::admin::NodeHealth;
use crate::wire::command::{Code, Expect};
use crate::wire::record::{FileRecord, Mode, ModeRecord};
use crate::wire::scrub::ScrubStatus;

/// The verbs. [`crate::engine::Handle`] is the real thing; doors take `&dyn Verbs`, so that a test can stand in.
pub trait Verbs: Send + Sync {
    /// Which node this is.
    fn node(&self) -> NodeId;

    /// Keeps a file: reads exactly `request.size` bytes from `body` (fewer only when it fails), and returns once the bytes are synced on as many nodes as the strategy asks and the name is committed.
    fn put(&self, request: &Put, body: &mut dyn Read) -> Result<Kept, Failure>;

    /// Opens a file for reading: the newest version, or the one asked for.
    fn get(&self, path: &FilePath, version: Option<Version>) -> Result<Box<dyn Content>, Failure>;

    /// What the catalog knows of a name.
    fn stat(&self, path: &FilePath) -> Result<Stat, Failure>;

    /// At most `limit` files whose path begins with `prefix` and comes after `after`, by name.
    fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Listing, Failure>;

    /// Removes a name; the version removed.
    fn remove(&self, path: &FilePath, expect: Expect) -> Result<Version, Failure>;

    /// The mode in force: what this node knows now, without asking others.
    fn mode(&self) -> ModeRecord;

    /// The mode to answer to a Momo client that sent this timestamp: what the look-back triple says for this node.
    fn negotiate(&self, timestamp: u64) -> Mode;

    /// The mode after a fresh read, and its history, newest first, at most `limit` changes.
    fn mode_history(&self, limit: usize) -> Result<Vec<ModeRecord>, Failure>;

    /// Changes the mode; `timestamp` in Unix nanoseconds, or `None` for now.
    fn set_mode(
        &self,
        new: Mode,
        timestamp: Option<u64>,
        cause: &str,
    ) -> Result<ModeRecord, Failure>;

    /// The members as this node sees them, by id.
    fn members(&self) -> Vec<Member>;

    /// One screen about this node and its cluster.
    fn status(&self) -> Status;
}

/// A file to be kept.
#[derive(Clone, Debug)]
pub struct Put {
    /// The name.
    pub path: FilePath,
    /// Bytes that the body will bring.
    pub size: u64,
    /// How to place it.
    pub strategy: Strategy,
    /// Class by name; `default` when the writer named none.
    pub class: String,
    /// Digest the writer says the bytes have: compared, and refused when different.
    pub sha256: Option<Sha256>,
    /// The same for MD5.
    pub md5: Option<Md5>,
    /// What must be under the name when the put is committed.
    pub expect: Expect,
}

/// How a put chooses its strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By the mode in force, around the members: primary-splay becomes splay, since this client sends once.
    Current,
    /// By name (`none`, `chain`, `splay`...).
    Named(String),
    /// The digit that the Momo door answered: chain goes onward only, primary-splay expects legs at this node.
    Negotiated(Mode),
    /// A leg of a primary-splay upload whose put is made by node 0 (rule R22).
    Leg,
}

/// A file that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// MD5, when the request asked for one.
    pub md5: Option<Md5>,
    /// The version made; for a leg whose put was already superseded, the version that superseded it.
    pub version: Version,
    /// Durable copies counted at that moment (the fewest of any part; 1 for an empty file's name).
    pub copies: usize,
    /// Pieces.
    pub parts: usize,
    /// Strategy that placed it.
    pub strategy: String,
}

/// Why something was not done.
#[derive(Debug)]
pub enum Failure {
    /// Refused: nothing changed.
    Refused {
        /// Which kind of no.
        code: Code,
        /// Why, for people: ends up in the reply and in the log.
        message: String,
    },
    /// The outcome is not known: it may become visible later, whole (rule R5).
    Unknown {
        /// Why, for people.
        message: String,
    },
    /// The body could not be read to its end: nothing changed, and the connection is of no further use.
    Body(io::Error),
}

impl Failure {
    /// A refusal.
    pub fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } => f.write_str(message),
            Self::Unknown { message } => write!(f, "outcome unknown: {message}"),
            Self::Body(error) => write!(f, "body: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// An open file.
pub trait Content {
    /// Its row in the catalog.
    fn record(&self) -> &FileRecord;

    /// True when no leader confirmed in time that this is the newest (rule R1).
    fn stale(&self) -> bool;

    /// Copies `length` bytes from `offset` to `to`, every block verified before it leaves; on a bad or lost copy the next takes over at that byte.
    /// An error means that fewer bytes were written: the door must break the connection rather than let a short body pass for a whole one.
    fn copy_to(&mut self, offset: u64, length: u64, to: &mut dyn Write) -> Result<(), ReadFailure>;
}

/// Why a body stopped.
#[derive(Debug)]
pub enum ReadFailure {
    /// The receiver went away or was too slow.
    Receiver(io::Error),
    /// No copy within reach has the rest.
    Source(String),
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receiver(error) => write!(f, "receiver: {error}"),
            Self::Source(why) => f.write_str(why),
        }
    }
}

/// What is known of a name.
#[derive(Clone, Debug, Serialize)]
pub struct Stat {
    /// Its row.
    pub record: FileRecord,
    /// Nodes that hold each part durably.
    pub holders: Vec<Vec<NodeId>>,
    /// Earlier versions kept, newest first.
    pub earlier: Vec<Version>,
    /// See [`Content::stale`].
    pub stale: bool,
}

/// A page of a listing.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// The files.
    pub files: Vec<FileRecord>,
    /// Whether there may be more after the last.
    pub more: bool,
    /// See [`Content::stale`].
    pub stale: bool,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its peer address.
    pub address: String,
    /// Where its text door listens, `host:port` as configured.
    pub text_address: String,
    /// Whether it answers.
    pub alive: bool,
    /// `leader`, `voter`, `learner`.
    pub role: String,
    /// What an operator said: `alive`, `readonly`, `drain`, `down`, `dead`.
    pub administrative: String,
    /// Free bytes in its data directories, when known.
    pub free_bytes: Option<u64>,
    /// Total bytes of its data directories, when known.
    pub total_bytes: Option<u64>,
    /// How its life is seen, with its last figures: of the leader's memory, where that could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<NodeHealth>,
    /// Of a node that is being drained: whether it may be stopped for good, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
}

/// How far a node is drained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drained {
    /// Objects that it is still needed for.
    pub needed: u64,
    /// Their bytes.
    pub needed_bytes: u64,
    /// Nothing is left that would be missed.
    pub safe_to_stop: bool,
    /// Why it is not, for people; empty when it is.
    pub why: String,
}

/// How the copies that are missing come about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Bytes of the copies that are missing, as far as they have been counted.
    pub bytes_left: u64,
    /// Whether copies are still being counted anew, after a node came, went, or changed its directories.
    pub recounting: bool,
    /// Copy jobs queued or running on this node.
    pub here: u64,
    /// What the leader knows besides; `None` when it could not be asked.
    pub leading: Option<Progress>,
}

/// One screen.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// Cluster id, once born.
    pub cluster: Option<String>,
    /// `ready`, `comparing` (after a start with an empty directory, until what is lost is known), `waiting` (with why), `starting`.
    pub state: String,
    /// Why it is not ready, for people: "1 of 3 daemons up, 2 needed".
    pub detail: String,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Applied index.
    pub applied: u64,
    /// Voters alive and in all.
    pub voters: (usize, usize),
    /// Members.
    pub members: Vec<Member>,
    /// Mode.
    pub mode: ModeRecord,
    /// Objects with fewer copies than wanted.
    pub under_replicated: u64,
    /// How repair goes on.
    pub repair: Repair,
    /// This node's scrub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubStatus>,
    /// Open connections here.
    pub connections: u64,
    /// `full`, `data` or `none`.
    pub durability: String,
    /// Seconds since this process began.
    pub uptime_s: u64,
    /// Program version.
    pub version: String,
}

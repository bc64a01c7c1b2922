//! What an operator's command line and a node say to each other on an administrative connection (rule R21).
//!
//! It begins like every peer connection (`wire/peer.rs`), in a role of its own; after the handshake each [`Request`] is
//! a control frame, answered by an [`Answer`] before the next. Any node answers: what must be committed goes to the leader
//! as every proposal does.

use serde::{Deserialize, Serialize};

use super::command::Code;
use super::lines::Entry;
use super::peer::Figures;
use super::record::{Administrative, NodeRecord};
use super::scrub::ScrubStatus;
use crate::base::id::{ClusterId, NodeId};
use crate::base::path::FilePath;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "r", rename_all = "snake_case")]
pub enum Request {
    /// The members, as they stand. Answered by [`Answer::Nodes`].
    Nodes {
        /// The copies are to be counted as of this place in the log, or later.
        #[serde(default)]
        since: u64,
    },
    /// Who belongs, and where each is reached: what a node needs that asks to be a member. Answered by [`Answer::Roster`].
    Roster,
    /// The node that is asked gives birth to the cluster, although not all members of its file are within reach. Answered
    /// by [`Answer::Done`].
    Init,
    /// Says what a node is to be from now on. Answered by [`Answer::Done`] once it is committed.
    Administer {
        /// Which node.
        node: NodeId,
        /// The new state.
        state: Administrative,
    },
    /// Makes a node a member. Answered by [`Answer::Done`].
    Add {
        /// Its number, of no member now.
        node: NodeId,
        /// Its name.
        name: String,
        /// Its peer address, `host:port`.
        address: String,
        /// Keeps objects.
        stores: bool,
        /// May vote.
        manages: bool,
    },
    /// Takes a node out for good; refused while it is needed. Answered by [`Answer::Done`].
    Remove {
        /// Which node.
        node: NodeId,
        /// Also while it holds copies that the others need, and when nobody can take over its vote.
        force: bool,
    },
    /// The catalog as JSON lines (`wire/lines.rs`). Answered by [`Answer::Export`], the bytes in block frames, and a
    /// [`super::peer::BodyEnd`] with their digest.
    Export,
    /// Takes files of another catalog into this one, as far as their objects are found on its nodes. Answered by
    /// [`Answer::Imported`].
    Import {
        /// At most [`IMPORT_AT_ONCE`] of them.
        files: Vec<Entry>,
        /// Whether files may be there already: then those that are the same stay, and others are refused.
        begun: bool,
        /// Only says what would become of them.
        dry_run: bool,
    },
    /// How the scrub of the node that is asked stands. Answered by [`Answer::Scrub`].
    Scrub {
        /// It is to begin a pass over all of its copies.
        #[serde(default)]
        begin: bool,
    },
}

/// Files that one [`Request::Import`] may bring.
pub const IMPORT_AT_ONCE: usize = 256;

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "a", rename_all = "snake_case")]
pub enum Answer {
    /// Committed and applied on the node that answers.
    Done {
        /// Its place in the log.
        index: u64,
    },
    /// The members.
    Nodes(Nodes),
    /// A node's scrub, and whom else to ask for theirs.
    Scrub {
        /// How it stands; of a node that keeps no copies nothing is to be said.
        scrub: Option<Box<ScrubStatus>>,
        /// The members that keep copies.
        members: Vec<Keeper>,
    },
    /// Who belongs.
    Roster(Roster),
    /// The copy of the catalog follows.
    Export,
    /// What became of each file that was brought, in that order.
    Imported {
        /// One for each.
        outcomes: Vec<Outcome>,
    },
    /// Nothing changed.
    Refused {
        /// Which kind of no.
        code: Code,
        /// Why, for people.
        message: String,
    },
    /// It may be committed yet, or not: ask again.
    Unknown {
        /// Why, for people.
        message: String,
    },
}

/// A member that keeps copies, and where it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its peer door, `host:port`.
    pub address: String,
}

/// Who belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The cluster; `None` before its birth.
    pub cluster: Option<ClusterId>,
    /// Each member, by id.
    pub members: Vec<Listed>,
}

/// A member and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its number.
    pub node: NodeId,
    /// Its peer address, `host:port`.
    pub address: String,
    /// Whether it answers, by the leader's verdict.
    pub alive: bool,
}

/// What became of a file of another catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the catalog now, or would be.
    Taken {
        /// The fewest copies that were found of any part.
        copies: u32,
        /// Earlier versions of which not every part was found: they are left out.
        lost_versions: u32,
    },
    /// It is there already, the same.
    Same,
    /// Of its newest version not every part was found: it is left out.
    Lost,
    /// Not taken.
    Refused {
        /// Why, for people.
        message: String,
    },
}

/// The members of a cluster at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nodes {
    /// The node that answers.
    pub node: NodeId,
    /// The cluster; `None` before its birth.
    pub cluster: Option<ClusterId>,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// The index up to which the answering node has applied the log.
    pub applied: u64,
    /// Objects that lie on fewer nodes than wanted.
    pub under_replicated: u64,
    /// Bytes of the copies that are missing.
    #[serde(default)]
    pub bytes_left: u64,
    /// Whether copies are still being counted anew, after a node came, went, or changed its directories.
    #[serde(default)]
    pub recounting: bool,
    /// How repair goes on; `None` when the leader could not be asked.
    #[serde(default)]
    pub repair: Option<Progress>,
    /// Whether no leader confirmed in time that this is how it stands (rule R1).
    pub stale: bool,
    /// The index up to which the copies have been counted for [`Holdings`].
    pub counted: u64,
    /// Each member, by id.
    pub nodes: Vec<NodeState>,
}

/// A member and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its row in the catalog.
    #[serde(flatten)]
    pub record: NodeRecord,
    /// Whether it votes now.
    pub votes: bool,
    /// What the leader remembers of it; `None` when the leader could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<NodeHealth>,
    /// What it holds, and what of that the others cannot do without.
    #[serde(default)]
    pub holdings: Holdings,
    /// Why it is not safe to stop it for good, for people; `None` when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsafe_to_stop: Option<String>,
}

/// What a node holds by the catalog, and what of that would be missed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Objects of which it has a copy.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, objects that would have too few copies on nodes that answer and stay, were it gone.
    pub needed: u64,
    /// Their bytes.
    pub needed_bytes: u64,
    /// Of these, objects of which it has the only copy within reach.
    pub only_here: u64,
    /// Names of a few files it is needed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<FilePath>,
}

/// What a node remembers and no log has: the leader's word is the one that counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Whose memory it is.
    pub node: NodeId,
    /// Raft's term there.
    pub term: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Each node it knows, by id.
    pub nodes: Vec<NodeHealth>,
    /// How repair goes on, by its lead.
    #[serde(default)]
    pub repair: Progress,
}

/// How repair goes on, as its leader knows; since this node began to lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Copy jobs ordered and not ended.
    pub jobs: u64,
    /// Objects found short of copies and not ordered yet, as far as it has looked.
    pub queued: u64,
    /// Copies made.
    pub copies_done: u64,
    /// Their bytes.
    pub bytes_done: u64,
    /// Bytes a second, over the last seconds.
    pub bytes_per_s: u64,
}

/// How a node's life is seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Which.
    pub node: NodeId,
    /// Whether it answers, as far as that can be said now.
    pub up: bool,
    /// Milliseconds since its last sign of life; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// Milliseconds since it was found alive or dead; `None` when it has been so for as long as this is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Its link was lost or refused, and it has given no sign of life since.
    #[serde(default)]
    pub suspected: bool,
    /// Times in a row that it died soon after coming back.
    #[serde(default)]
    pub flaps: u32,
    /// Its last figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

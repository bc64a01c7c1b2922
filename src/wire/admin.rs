//! What an operator's command line and a node say to each other on an administrative connection (rule R21).
//!
//! It begins like every peer connection (`wire/peer.rs`), in a role of its own; after the handshake each [`Request`] is
//! a control frame, answered by an [`Answer`] before the next. Any node answers: what must be committed goes to the leader
//! as every proposal does.

use serde::{Deserialize, Serialize};

use super::command::Code;
use super::peer::Figures;
use super::record::{Administrative, NodeRecord};
use crate::base::id::{ClusterId, NodeId};

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "r", rename_all = "snake_case")]
pub enum Request {
    /// The members, as they stand. Answered by [`Answer::Nodes`].
    Nodes,
    /// Says what a node is to be from now on. Answered by [`Answer::Done`] once it is committed.
    Administer {
        /// Which node.
        node: NodeId,
        /// The new state.
        state: Administrative,
    },
}

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
    /// Whether no leader confirmed in time that this is how it stands (rule R1).
    pub stale: bool,
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
    /// Its last figures, from the leader's memory; `None` when none are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

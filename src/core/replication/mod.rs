//! Replication strategies: pure functions from who is alive and where the bytes come in to a plan. To add one: a file and a row in [`ALL`].

use crate::base::id::NodeId;
use crate::wire::peer::Hop;

/// What a strategy sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where the bytes come in.
    pub entry: NodeId,
    /// Storage members in order of id: the entry too.
    pub nodes: Vec<Candidate>,
    /// Copies a whole-file strategy makes where there are so many nodes.
    pub replicas: u8,
    /// Whether a road may go on from the last node to the first.
    pub reach: Reach,
}

/// A storage member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// Takes new objects now: reachable, in full use, with room.
    pub open: bool,
}

/// How far a chain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To greater ids only, as the Momo protocol has it.
    Onward,
    /// Around to the first.
    Around,
}

/// What the engine carries out, without asking which strategy made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the entry node keeps the bytes itself.
    pub local: bool,
    /// To whom the entry node sends while it receives.
    pub hops: Vec<Hop>,
    /// Nodes to which the client sends itself (rule R22).
    pub legs: Vec<NodeId>,
    /// Copies there should be in the end.
    pub want: u8,
    /// Copies there must be before the put is proposed.
    pub min: u8,
    /// Copies to wait for before the put is proposed while their nodes live.
    pub acks: u8,
}

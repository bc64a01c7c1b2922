//! What the operator asked for, as far as the engine is concerned: plain values, all meaningful.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::id::NodeId;
use crate::engine::handshake::Secret;
use crate::store::objects::Durability;
use crate::wire::record::Mode;

/// A member of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSettings {
    /// `N` of `[daemon.N]`.
    pub id: NodeId,
    /// Name for people.
    pub name: String,
    /// Where its peer door listens, `host:port`.
    pub peer: String,
    /// Where its text door listens, `host:port`.
    pub text: String,
    /// Keeps objects.
    pub stores: bool,
    /// May vote.
    pub manages: bool,
}

/// Settings of one node's engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// All members of the file, this one too, by id.
    pub members: Vec<MemberSettings>,
    /// Another member's peer door: this node asks there to be made a member, and is not born into a cluster of its own.
    pub join: Option<String>,
    /// How long a voter may be dead before a spare takes over its vote.
    pub membership_grace: Duration,
    /// Members of the file are dialled at its addresses and nowhere else.
    pub fixed_addresses: bool,
    /// How many of them vote: 1, 3 or 5.
    pub voters: usize,
    /// Data directories, at least one.
    pub data: Vec<PathBuf>,
    /// The block device to watch, when the operator named one; otherwise those under the data directories.
    pub drive: Option<PathBuf>,
    /// Log, tables and facts; the first data directory's `.momo/state` when `None`.
    pub state_dir: Option<PathBuf>,
    /// The cluster's secret.
    pub secret: Secret,
    /// What "synced" means.
    pub durability: Durability,
    /// Copies of whole-file strategies where there are so many nodes.
    pub replicas: u8,
    /// Rule R12.
    pub min_copies: u8,
    /// The order of modes, from idle to loaded; the first is the start state.
    pub modes: Vec<Mode>,
    /// Whether the controller may change the mode.
    pub polymorphic: bool,
    /// Time between two load samples.
    pub sample_interval: Duration,
    /// Step back when nothing moved for so long.
    pub fallback_interval: Duration,
    /// Shares of 1.
    pub min_threshold: f64,
    /// Shares of 1.
    pub max_threshold: f64,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence after which a node counts as dead.
    pub heartbeat_timeout: Duration,
    /// Raft's tick.
    pub raft_tick: Duration,
    /// Ticks of silence before an election, at least.
    pub election_ticks: usize,
    /// Ticks between Raft heartbeats.
    pub raft_heartbeat_ticks: usize,
    /// How long a read waits for a leader before it serves what it has (rule R1).
    pub read_fresh: Duration,
    /// How long a write waits for its commit.
    pub commit_deadline: Duration,
    /// A hop that takes no bytes for so long is left out (rule R11).
    pub hop_stall: Duration,
    /// How long a body may pause before its connection is given up.
    pub body_pause: Duration,
    /// How long legs and their upload wait for each other (rule R22).
    pub leg_wait: Duration,
    /// Grace before unreferenced objects go (rule R6).
    pub garbage_grace: Duration,
    /// Time in which every copy is read again; zero for not at all.
    pub scrub_period: Duration,
    /// Most bytes a second that a scrub reads.
    pub scrub_bandwidth: u64,
    /// Grace before a dead node's copies are made again.
    pub repair_grace: Duration,
    /// Copies that repair has a node take in at the same time, at least 1.
    pub repair_in: usize,
    /// Copies that repair has a node give out at the same time, at least 1.
    pub repair_out: usize,
    /// Bytes a second that repair takes in here at most; 0 for any number.
    pub repair_bandwidth: u64,
}

impl Settings {
    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&MemberSettings> {
        self.members.iter().find(|member| member.id == id)
    }
}

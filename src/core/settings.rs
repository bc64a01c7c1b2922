//! What the core is told once, at its construction: who it is, who the others are, and how patient to be.

use std::time::Duration;

use crate::base::id::{Boot, ClusterId, NodeId};
use crate::base::limit;
use crate::wire::command::BirthMember;
use crate::wire::record::Mode;

/// The core's settings. [`Settings::new`] gives the defaults; the engine changes what the operator asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this node is.
    pub node: NodeId,
    /// Which start of it this is.
    pub boot: Boot,
    /// Where jitter and election timeouts come from; need not be secret.
    pub seed: u64,
    /// The id a new cluster gets should this node draw up its birth: random, never used twice.
    pub cluster: ClusterId,
    /// The members by the configuration file, sorted by id, this node among them.
    pub members: Vec<BirthMember>,
    /// Voters there should be, if that is more than the cluster was born with: spares get a vote while there are fewer.
    pub voters: usize,
    /// This node asks to be made a member of a cluster, and is not born into one of its own.
    pub joins: bool,
    /// How long a voter may be dead before a spare takes over its vote.
    pub membership_grace: Duration,
    /// The mode a new cluster starts with.
    pub mode: Mode,
    /// Raft's unit of time.
    pub raft_tick: Duration,
    /// Ticks without a leader before an election: at least so many, less than twice as many.
    pub election_ticks: usize,
    /// Ticks between two heartbeats of a Raft leader.
    pub heartbeat_ticks: usize,
    /// Time between two signs of life of a node.
    pub heartbeat_interval: Duration,
    /// Silence after which a node counts as dead.
    pub heartbeat_timeout: Duration,
    /// How long a node may be dead before copies are made again elsewhere.
    pub repair_grace: Duration,
    /// How long a node keeps what nothing refers to any more, or a copy that was dropped.
    pub garbage_grace: Duration,
    /// Copies a node takes in at the same time.
    pub repair_in: usize,
    /// Copies a node gives out at the same time.
    pub repair_out: usize,
    /// Bytes a second that a node takes in at most; 0 for any number. Jobs are given the time they need at that pace.
    pub repair_bandwidth: u64,
    /// First wait before a proposal is sent again; doubles up to sixteen times itself.
    pub propose_retry: Duration,
    /// First wait before a read is asked for again; doubles up to sixteen times itself.
    pub read_retry: Duration,
    /// Applied entries between two checkpoints of the tables.
    pub checkpoint_entries: u64,
    /// Time between two checkpoints of the tables.
    pub checkpoint_period: Duration,
    /// Entries kept behind the checkpoint.
    pub log_keep_entries: u64,
    /// Bytes of entries kept behind the checkpoint.
    pub log_keep_bytes: usize,
}

impl Settings {
    /// Settings with every default; the caller fills in `members` and, when it differs, `voters`.
    pub fn new(node: NodeId, boot: Boot, seed: u64, cluster: ClusterId) -> Self {
        Self {
            node,
            boot,
            seed,
            cluster,
            members: Vec::new(),
            voters: 3,
            joins: false,
            membership_grace: Duration::from_mins(2),
            mode: Mode::None,
            raft_tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            heartbeat_interval: Duration::from_secs(5),
            heartbeat_timeout: Duration::from_secs(15),
            repair_grace: Duration::from_mins(2),
            garbage_grace: Duration::from_mins(10),
            repair_in: limit::JOBS_IN,
            repair_out: limit::JOBS_OUT,
            repair_bandwidth: 0,
            propose_retry: Duration::from_millis(100),
            read_retry: Duration::from_millis(25),
            checkpoint_entries: limit::CHECKPOINT_ENTRIES,
            checkpoint_period: limit::CHECKPOINT_PERIOD,
            log_keep_entries: limit::LOG_KEEP_ENTRIES,
            log_keep_bytes: limit::LOG_KEEP_BYTES,
        }
    }

    /// Shortest time in which an election happens.
    pub fn election(&self) -> Duration {
        self.raft_tick
            .saturating_mul(u32::try_from(self.election_ticks).unwrap_or(u32::MAX))
    }
}

//! Every limit of the program, with its reason; what depends on another is related to it here.

use std::time::Duration;

/// Longest path of a file, in bytes: two full components and folders fit, and a table key stays small.
pub const PATH_BYTES: usize = 1_024;
/// Longest path component, in bytes: ext4 and XFS allow 255; `.part-NNN-of-NNN` (16) must still fit behind it.
pub const COMPONENT_BYTES: usize = 239;
const _: () = assert!(COMPONENT_BYTES + ".part-NNN-of-NNN".len() <= 255);

/// Longest line a text door accepts, in bytes, its line end included.
pub const LINE_BYTES: usize = 64 * 1024;
/// Longest JSON object on the `change_replication` port, in bytes; original senders stay under 64.
pub const CHANGE_BYTES: usize = 4 * 1024;
/// Largest file, in bytes (8 EiB less one): sizes stay positive in every language that reads the catalog.
pub const FILE_BYTES: u64 = i64::MAX as u64;

/// Bytes of a body that are read, hashed, written and forwarded as one block. A block's CRC32C travels with it.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks of one upload in memory at the same time, in all stages together.
pub const BLOCKS_IN_FLIGHT: usize = 8;
/// Read buffer of a connection before a body starts: a thousand idle connections stay cheap.
pub const IDLE_BUFFER_BYTES: usize = 4 * 1024;
/// Writeback is started every so many bytes, so that the sync at the end is short.
pub const WRITEBACK_BYTES: u64 = 8 * 1024 * 1024;

/// Largest control frame between peers (Raft messages, proposals, answers), in bytes.
pub const FRAME_BYTES: usize = 4 * 1024 * 1024;
/// Largest command in the Raft log, in bytes: a put of a path, its copies and its digests is under 4 KiB.
pub const COMMAND_BYTES: usize = 64 * 1024;
/// Entries a Raft message carries at most, in bytes.
pub const RAFT_MESSAGE_BYTES: u64 = 1024 * 1024;
const _: () = assert!(RAFT_MESSAGE_BYTES + (COMMAND_BYTES as u64) < FRAME_BYTES as u64);
/// Entries proposed and not yet committed, in bytes; beyond it a leader answers "busy".
pub const UNCOMMITTED_BYTES: u64 = 16 * 1024 * 1024;

/// Connection threads of a daemon.
pub const CONNECTION_SLOTS: usize = 1_024;
/// Connections that wait for a slot; beyond it they are refused in their protocol's words.
pub const CONNECTION_QUEUE: usize = 256;
/// Slots that only authenticated peers may take (rule R20), of those above.
pub const PEER_SLOTS: usize = 64;
const _: () = assert!(PEER_SLOTS * 2 < CONNECTION_SLOTS);
/// Connections for bytes that a node opens to one peer for one purpose (rule R20), at most.
pub const BULK_MOST: usize = 64;
/// The same in a cluster of any size.
pub const BULK_FEWEST: usize = 4;
/// Shared out between the members: of a node's slots half stay for its own clients when all others write through it.
pub const BULK_SHARE: usize = CONNECTION_SLOTS / 4;
/// How long an upload or a read waits for such a connection before it is refused as busy.
pub const BULK_WAIT: Duration = Duration::from_secs(5);
/// Stack of a connection thread, in bytes.
pub const CONNECTION_STACK_BYTES: usize = 256 * 1024;

/// Events waiting for the driver; a thread that finds it full waits up to its own deadline.
pub const DRIVER_QUEUE: usize = 4_096;
/// Messages waiting for one peer's control link; Raft repeats what is dropped.
pub const LINK_QUEUE: usize = 1_024;
/// Copy jobs waiting for the replication worker (spec: a bounded queue of 1,000); the catalog remembers what does not fit.
pub const JOB_QUEUE: usize = 1_000;
/// Copies a node takes in at the same time, unless the operator says otherwise.
pub const JOBS_IN: usize = 2;
/// Copies a node gives out at the same time, unless the operator says otherwise.
pub const JOBS_OUT: usize = 4;

/// Log entries between two checkpoints of the tables, at most.
pub const CHECKPOINT_ENTRIES: u64 = 4_096;
/// Time between two checkpoints of the tables while anything changes.
pub const CHECKPOINT_PERIOD: Duration = Duration::from_secs(1);
/// Entries kept behind the checkpoint for followers that are a little late; further back they get a snapshot.
pub const LOG_KEEP_ENTRIES: u64 = 4_096;
/// The same in bytes, so that large commands do not fill memory.
pub const LOG_KEEP_BYTES: usize = 4 * 1024 * 1024;
/// A log segment, in bytes, preallocated so that a full disk cannot stop a deletion.
pub const LOG_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Rows of the tables kept in memory between checkpoints; beyond it a writer waits for one.
pub const TABLE_RECENT_ROWS: usize = 64 * 1024;
/// redb's page cache, in bytes (its default is 1 GiB).
pub const TABLE_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Disk reserved beyond the end of the tables' file, in bytes, or a twentieth of a small disk: deletions go on when it is full.
pub const TABLE_AHEAD_BYTES: u64 = 64 * 1024 * 1024;

/// Replies kept per node and boot for commands that are sent again (rule R4); also the most commands one node may have outstanding.
pub const REPLIES_KEPT: u64 = 4_096;
/// Earlier versions kept per file.
pub const VERSIONS_KEPT: usize = 3;
/// A change of mode dated further ahead of the leader's clock than this is refused (rule R19).
pub const MODE_AHEAD: Duration = Duration::from_mins(5);
/// Space kept free on a disk for log and tables (rule R18): below it new objects are refused and deletes still work.
pub const RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// Most voters a cluster may have.
pub const VOTERS: usize = 5;
/// Most nodes of a cluster; `[daemon.N]` with N at or above it is refused.
pub const NODES: u16 = 1_024;

//! What nodes say to each other: control messages between cores, and requests and answers on bulk connections.
//!
//! A peer connection begins with [`MAGIC`] and the handshake of rule R20; after it both sides send frames:
//! ```text
//! kind(1) zero(3) length(4, little-endian) crc32c of the payload(4, little-endian) payload(length)
//! ```
//! A control connection carries [`Message`]s one way. A bulk connection carries one [`Request`] after another, each answered before the next.

use serde::{Deserialize, Serialize};

use super::admin::Overview;
use super::command::{Birth, BirthMember, Command, Reply};
use super::record::{Copy, Mode};
use crate::base::digest::{Md5, Sha256};
use crate::base::id::{Boot, ClusterId, DirId, NodeId, OperationId};
use crate::base::limit::{BLOCK_BYTES, FRAME_BYTES};
use crate::base::path::FilePath;

/// The first bytes of a peer connection; no other protocol begins so.
pub const MAGIC: [u8; 8] = *b"\x01momo-p1";

/// From one core to another. Any may be lost or come twice; Raft's own travel in order per link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "m", rename_all = "snake_case")]
pub enum Message {
    /// A Raft message, protobuf; sent as a frame of its own kind.
    Raft {
        /// The encoded `eraftpb::Message`.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// Who I am and what I remember (rule R13): sent when a link comes up, and answered in kind.
    Hello(Hello),
    /// The cluster is born; only from the member with the lowest id, and only to the empty.
    Birth(Birth),
    /// You are a member of this cluster again, without a vote for now.
    Admit {
        /// The cluster.
        cluster: ClusterId,
    },
    /// You were removed from this cluster; only from its leader.
    Removed {
        /// The cluster.
        cluster: ClusterId,
        /// When in commit order: who has applied more than that knows better.
        index: u64,
    },
    /// Please propose this (rule R3). Answered by `Proposed` or not at all.
    Propose {
        /// The command, with its id.
        command: Command,
        /// Whether it may have been sent before. Then it is not checked but proposed, and applying it says what becomes of it: a copy of it may be on its way to the log.
        #[serde(default)]
        again: bool,
    },
    /// What became of a command sent by `Propose`.
    Proposed {
        /// The command's id.
        id: OperationId,
        /// Its fate.
        fate: Fate,
    },
    /// Signs of life and figures, to the leader and back.
    Heartbeat {
        /// The sender's start.
        boot: Boot,
        /// Its figures.
        figures: Figures,
    },
    /// Fetch a copy of this object (leader to target).
    Fetch(Fetch),
    /// A fetch ended (target to leader).
    Fetched {
        /// The job.
        job: JobId,
        /// Why it failed; `None` when the copy is durable and being committed.
        error: Option<String>,
    },
}

/// What a node is and remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its cluster; `None` for an empty node.
    pub cluster: Option<ClusterId>,
    /// Its start.
    pub boot: Boot,
    /// Born, and nothing has happened since: its log holds nothing beyond the birth.
    pub newborn: Option<Birth>,
    /// The last index of its log.
    pub last_index: u64,
    /// The highest index the *receiver* ever acknowledged to the sender; a receiver whose log is shorter has been restored from something older, and must not vote.
    pub remembers: u64,
    /// Whether this is the answer to a `Hello`.
    pub answer: bool,
    /// Where the sender's peer door is reached now, `host:port`; empty when it does not say.
    #[serde(default)]
    pub address: String,
    /// The sender asks to be made a member, as this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins: Option<BirthMember>,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Committed and applied on the leader at `index`.
    Committed {
        /// Its place in the log.
        index: u64,
        /// What applying answered.
        reply: Reply,
    },
    /// Not proposed: this node does not lead.
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Not proposed: refused by the check before the proposal, or the leader is busy.
    Refused {
        /// Why.
        reply: Reply,
    },
}

/// Figures of a node, in the leader's memory only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Bytes of its data directories, together.
    pub total_bytes: u64,
    /// Of these, free for objects.
    pub free_bytes: u64,
    /// Share of time its busiest disk was busy since the last figures, 0 to 1.
    pub io_busy: f64,
    /// Share of CPU time used, 0 to 1.
    pub cpu_used: f64,
    /// Share of memory used, 0 to 1.
    pub memory_used: f64,
    /// Open connections.
    pub connections: u32,
    /// Copy jobs queued or running.
    pub jobs: u32,
    /// Index applied.
    pub applied: u64,
    /// Raft's term.
    #[serde(default)]
    pub term: u64,
    /// Program version.
    #[serde(default)]
    pub version: String,
}

/// A copy job's identity: a stray or repeated order does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// Term of the leader that gave it.
    pub term: u64,
    /// Its number in that term.
    pub sequence: u64,
}

/// An order to fetch an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The job.
    pub job: JobId,
    /// The object.
    pub sha256: Sha256,
    /// Its size.
    pub size: u64,
    /// Who has it, best first.
    pub holders: Vec<NodeId>,
}

/// A node and those it passes the bytes on to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Who receives.
    pub node: NodeId,
    /// To whom it passes on while it receives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<Self>,
}

/// What a bulk connection is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "r", rename_all = "snake_case")]
pub enum Request {
    /// Keep these bytes: `size` bytes follow as block frames, then [`BodyEnd`]. Answered by [`Answer::Stored`].
    Store {
        /// The upload they belong to; pinned until put or abandoned.
        upload: OperationId,
        /// Which part of it.
        part: u16,
        /// Bytes to come.
        size: u64,
        /// To whom to pass them on.
        next: Vec<Hop>,
    },
    /// Send blocks of an object. Answered by [`Answer::Content`] and block frames.
    Read {
        /// The object.
        sha256: Sha256,
        /// First block wanted, from 0.
        block: u64,
        /// Blocks wanted.
        count: u64,
    },
    /// Rows of the catalog for a member that is too far behind: block frames of rows, then [`BodyEnd`].
    Snapshot,
    /// A leg of a primary-splay upload is durable here (rule R22). Answered by [`Answer::Leg`].
    Leg(Leg),
    /// Is this object there and whole? Answered by [`Answer::Content`] without body, or an error.
    Probe {
        /// The object.
        sha256: Sha256,
    },
    /// Which of these objects are there, whole by name and size? Those asked for in the name of an upload are pinned for
    /// it. Answered by [`Answer::Found`].
    Find {
        /// At most [`FIND_AT_ONCE`] of them.
        objects: Vec<Sought>,
    },
    /// What do you remember of the others? Answered by [`Answer::Overview`].
    Overview,
    /// Are you there?
    Ping,
}

/// Objects that one [`Request::Find`] may ask for: the answer stays far below a frame.
pub const FIND_AT_ONCE: usize = 4_096;

/// An object that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// The object.
    pub sha256: Sha256,
    /// The upload it is to be held for (rule R5), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<OperationId>,
}

/// A durable leg, reported to daemon 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The name.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// MD5.
    pub md5: Md5,
    /// SHA-256.
    pub sha256: Sha256,
    /// Where it lies.
    pub copy: Option<Copy>,
    /// The leg's own upload id, for its pin.
    pub upload: OperationId,
}

/// The end of a body: what the sender computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyEnd {
    /// Digest of the whole; `None` when the sender gives up and the bytes are void.
    pub sha256: Option<Sha256>,
}

/// Answers on a bulk connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "a", rename_all = "snake_case")]
pub enum Answer {
    /// These copies are durable: the answering node's and those behind it.
    Stored {
        /// Node and directory of each.
        copies: Vec<Copy>,
        /// Nodes that did not keep it.
        missed: Vec<Missed>,
    },
    /// The object is here.
    Content {
        /// Its size.
        size: u64,
    },
    /// What became of a leg: `Some` index once a command that counts it is committed, `None` when no upload claims it.
    Leg {
        /// The committed index to wait for.
        committed: Option<u64>,
        /// The mode in force, for the log.
        mode: Mode,
    },
    /// Where a snapshot stands: applied index and term, configuration, in front of its rows.
    Snapshot(SnapshotHead),
    /// What this node remembers of the others.
    Overview(Overview),
    /// Of each object asked for, in that order, where it lies and its size; none when it does not.
    Found {
        /// Directories and sizes.
        objects: Vec<Vec<(DirId, u64)>>,
    },
    /// I am here; also sent every second while a leg waits for its upload.
    Pong,
    /// Not done; the connection can be used again unless a body was under way.
    Error {
        /// Why.
        message: String,
    },
}

/// A node that should have kept the bytes and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Which.
    pub node: NodeId,
    /// Why, for the log.
    pub why: String,
    /// It answers too slowly: not to be tried again for this upload.
    pub stalled: bool,
}

/// What a snapshot of the catalog stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// Last index applied in it.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// Voters and learners (Raft ids) at that index.
    pub voters: Vec<u64>,
    /// See `voters`.
    pub learners: Vec<u64>,
}

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 12;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON value.
    Control,
    /// A Raft message.
    Raft,
    /// Bytes of an object, or rows of a snapshot.
    Block,
}

/// A frame's header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Bytes that follow.
    pub length: u32,
    /// Their CRC32C.
    pub crc: u32,
}

impl Header {
    /// The header as bytes.
    pub fn print(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = match self.kind {
            Kind::Control => 1,
            Kind::Raft => 2,
            Kind::Block => 3,
        };
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Bytes as a header; `None` for an unknown kind, or a length over the limit of its kind.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [kind, 0, 0, 0, l0, l1, l2, l3, c0, c1, c2, c3] = bytes else {
            return None;
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let (kind, most) = match kind {
            1 => (Kind::Control, FRAME_BYTES),
            2 => (Kind::Raft, FRAME_BYTES),
            3 => (Kind::Block, BLOCK_BYTES),
            _ => return None,
        };
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        (length as usize <= most).then_some(Self { kind, length, crc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_parses_to_what_was_printed_and_nothing_oversized_does() {
        let header = Header {
            kind: Kind::Block,
            length: 77,
            crc: 0xdead_beef,
        };
        assert_eq!(Header::parse(header.print()), Some(header));
        let most = u32::try_from(BLOCK_BYTES).unwrap() + 1;
        assert_eq!(
            Header::parse(
                Header {
                    length: most,
                    ..header
                }
                .print()
            ),
            None
        );
        assert_eq!(Header::parse([9; HEADER_BYTES]), None);
    }

    #[test]
    fn messages_survive_the_way_through_json() {
        let message = Message::Propose {
            command: Command {
                v: 1,
                id: OperationId {
                    node: NodeId(1),
                    boot: Boot(2),
                    sequence: 3,
                },
                operation: super::super::command::Operation::Abandon {
                    upload: OperationId {
                        node: NodeId(1),
                        boot: Boot(2),
                        sequence: 9,
                    },
                },
            },
            again: true,
        };
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
    }
}

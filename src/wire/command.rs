//! Commands of the Raft log and the replies to them: JSON, `{"v":1,"id":{..},"op":"put",..}`. A command carries everything that applying it needs.

use serde::{Deserialize, Serialize};

use super::record::{Administrative, Copy, Mode, Part};
use crate::base::digest::{Md5, Sha256};
use crate::base::id::{Boot, ClusterId, DirId, NodeId, OperationId, Version};
use crate::base::path::FilePath;
use crate::base::time::Wall;

/// The newest kind of command this program knows. A kind is proposed only when every member knows it.
pub const KNOWS: u32 = 1;

/// An entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The kind's generation; a node stops at one above [`KNOWS`] rather than guess.
    pub v: u32,
    /// Its identity: a command that is sent again is answered and not repeated (rule R4). Sequences count from 1 per boot.
    pub id: OperationId,
    /// What to do.
    #[serde(flatten)]
    pub operation: Operation,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// Makes a version of a file visible.
    Put(Put),
    /// Removes a name and its kept versions.
    Delete {
        /// The name.
        path: FilePath,
        /// What must be there.
        expect: Expect,
    },
    /// A node now holds a durable, verified copy of an object.
    AddCopy {
        /// The object.
        sha256: Sha256,
        /// Its size, checked.
        size: u64,
        /// Who holds it.
        copy: Copy,
    },
    /// A copy is no longer there, or no longer needed.
    DropCopy {
        /// The object.
        sha256: Sha256,
        /// Whose copy.
        copy: Copy,
        /// Refused unless so many other copies remain (rule R10); 0 when the copy is already lost.
        others: u8,
    },
    /// The upload will never be put (rule R5): a put of it that comes later is a no-op, and its pins may go.
    Abandon {
        /// The upload.
        upload: OperationId,
    },
    /// Changes the mode.
    SetMode {
        /// The mode from now on.
        new: Mode,
        /// Unix nanoseconds; must be greater than the last change's.
        timestamp: u64,
        /// Who or what asks.
        cause: String,
    },
    /// A node says what it is, at every start and when its directories change.
    Register {
        /// Which node.
        node: NodeId,
        /// Its name.
        name: String,
        /// Its peer address.
        address: String,
        /// Directories in service.
        dirs: Vec<DirId>,
        /// Keeps objects.
        stores: bool,
        /// May vote.
        manages: bool,
        /// This start.
        boot: Boot,
        /// Newest command kind it knows.
        knows: u32,
    },
    /// The leader's verdict on a node.
    Observe {
        /// Which node.
        node: NodeId,
        /// Answers or not.
        alive: bool,
        /// The start the verdict is about; void when the node has registered a later one.
        boot: Boot,
    },
    /// The leader waits no longer for a dead node: its copies count no more, until it has compared them.
    GiveUp {
        /// Which node.
        node: NodeId,
        /// The start the verdict is about; void when the node has registered a later one, or lives.
        boot: Boot,
    },
    /// A node that was given up, or whose directories changed, has compared what the catalog counts there with what
    /// lies there: its copies count again.
    Compared {
        /// Which node.
        node: NodeId,
        /// The start in which it compared.
        boot: Boot,
    },
    /// Counts the copies of the next objects anew, after a node's copies came to count or not to count any more.
    Recount,
    /// An operator's word on a node.
    Administer {
        /// Which node.
        node: NodeId,
        /// The new state.
        state: Administrative,
    },
    /// Makes a node a member: without a vote, and without directories until it registers.
    Add {
        /// Which node; not a member now.
        node: NodeId,
        /// Its name.
        name: String,
        /// Its peer address.
        address: String,
        /// Keeps objects.
        stores: bool,
        /// May vote.
        manages: bool,
    },
    /// Takes a node out for good. Its vote goes to a spare, and its copies stop counting.
    Remove {
        /// Which node.
        node: NodeId,
        /// Also when nobody can take over its vote: there is one voter less then.
        force: bool,
    },
    /// The copies of a node that is dead for good or was removed stop counting, a page of objects at a time; the leader
    /// sends one after another until the last.
    DropCopies {
        /// Which node.
        node: NodeId,
        /// The last object of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Sha256>,
    },
}

/// The content of a put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The upload that brought the bytes: pinned on every node that acknowledged it.
    pub upload: OperationId,
    /// The name.
    pub path: FilePath,
    /// Bytes of the whole.
    pub size: u64,
    /// Digest of the whole.
    pub sha256: Sha256,
    /// MD5 of the whole, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5>,
    /// Strategy by name.
    pub strategy: String,
    /// Class by name.
    pub class: String,
    /// The pieces, each with the copies that are durable now. Empty for an empty file.
    pub parts: Vec<PlacedPart>,
    /// Copies each piece should have in the end.
    pub want: u8,
    /// Copies each piece must have now, or the put is rejected (rule R12, counted again at apply).
    pub min: u8,
    /// What must be under the name.
    pub expect: Expect,
    /// Owner, where the door knows identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The entry node's clock.
    pub time: Wall,
}

/// A piece and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedPart {
    /// Size and digest.
    #[serde(flatten)]
    pub part: Part,
    /// Durable copies.
    pub copies: Vec<Copy>,
}

/// What a writer expects to find under the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Anything or nothing.
    #[default]
    Any,
    /// Nothing.
    Absent,
    /// Exactly this version.
    Version(Version),
}

/// What applying a command answered; the same on every node, kept for repeated commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done {
        /// The version that a put made or a delete removed; else the command's place in the log.
        version: Version,
    },
    /// Nothing changed.
    Rejected {
        /// Which kind of no.
        code: Code,
        /// Why, for people.
        message: String,
    },
}

/// Kinds of refusal; the words of the name server's protocol, used by all doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request makes no sense.
    Invalid,
    /// Not for this caller.
    Unauthorized,
    /// No such file, node or version.
    NotFound,
    /// Something else is there, or it changed.
    Conflict,
    /// Not now: too few nodes, no leader, no room, no copy within reach.
    Unavailable,
    /// The node cannot go on with this.
    Internal,
}

impl Code {
    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A cluster's birth certificate: the same on every member (rule R13). Not a log entry: it is what the log starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The new cluster's id.
    pub cluster: ClusterId,
    /// Members and whether each votes, sorted by id.
    pub members: Vec<BirthMember>,
    /// The mode to start with.
    pub mode: Mode,
    /// Clock of the node that drew it up.
    pub time: Wall,
}

/// A member at birth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthMember {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its peer address, `host:port`.
    pub address: String,
    /// Whether it votes.
    pub votes: bool,
    /// Whether it keeps objects.
    pub stores: bool,
    /// Whether it may ever vote.
    pub manages: bool,
}

//! Rows of the catalog's tables: what is remembered about files, objects, nodes and the mode. JSON, so that old rows survive new fields.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::base::digest::{Md5, Sha256};
use crate::base::id::{Boot, DirId, NodeId, OperationId, Version};
pub use crate::base::mode::Mode;
use crate::base::path::FilePath;
use crate::base::table::TableError;
use crate::base::time::Wall;

/// One version of a file (tables `files` and `history`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The file's name.
    pub path: FilePath,
    /// When in commit order this version was made.
    pub version: Version,
    /// Bytes of the whole file.
    pub size: u64,
    /// SHA-256 of the whole file (of one of several parts: of the part hashes).
    pub sha256: Sha256,
    /// MD5 of the whole file, where the door that took it needed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5>,
    /// Name of the replication strategy that placed it (`core/replication`).
    pub strategy: String,
    /// Class the writer asked for.
    pub class: String,
    /// The pieces in order; empty for an empty file.
    pub parts: Vec<Part>,
    /// Copies each part should have.
    pub want: u8,
    /// Who owns it, when it came by a door that knows identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When the name was first created, by the clock of the entry node.
    pub created: Wall,
    /// When this version was written, by the clock of the entry node.
    pub modified: Wall,
    /// The upload that brought the bytes.
    pub upload: OperationId,
}

/// A piece of a file: one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Bytes of the piece, never 0.
    pub size: u64,
    /// The object that holds it.
    pub sha256: Sha256,
}

/// A durable copy: a node *and* the directory on it (rule R9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Copy {
    /// The node.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// Its data directory.
    #[serde(rename = "d")]
    pub dir: DirId,
}

/// Where an object lies (table `objects`). The row is removed with the last reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Bytes.
    pub size: u64,
    /// Durable copies, sorted, each once.
    pub copies: Vec<Copy>,
    /// How many versions of files refer to it.
    pub references: u32,
    /// Copies it should have: the most any of its references asked for.
    pub want: u8,
    /// Where it stands in the table `debts`, if it does: see [`ObjectRecord::LOST`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<u8>,
    /// Whether it stands in the table `surplus`: it has copies that may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}

impl ObjectRecord {
    /// The place among the debts of an object that has no copy at all: behind all that can be helped. The place of any
    /// other is the number of nodes whose copies count.
    pub const LOST: u8 = u8::MAX;
}

/// What an operator said about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Administrative {
    /// In full use.
    #[default]
    Alive,
    /// Serves what it has, takes nothing new.
    Readonly,
    /// About to leave.
    Drain,
    /// Known to be away for a while.
    Down,
    /// Gone for good.
    Dead,
}

/// A member of the cluster (table `nodes`).
#[allow(clippy::struct_excessive_bools, reason = "a row of independent facts")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Where its peer door listens, `host:port`.
    pub address: String,
    /// Whether it may vote.
    pub manages: bool,
    /// Whether it keeps objects.
    pub stores: bool,
    /// What an operator said.
    #[serde(default)]
    pub administrative: Administrative,
    /// Whether the leader finds it answering.
    pub alive: bool,
    /// Its data directories that are in service.
    #[serde(default)]
    pub dirs: Vec<DirId>,
    /// The start it last registered with.
    pub boot: Boot,
    /// The newest kind of command it understands.
    pub knows: u32,
    /// Dead for longer than the grace period: none of its copies counts until it has compared them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Directories it had and has no more: no copy in them counts (rule R9).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<DirId>,
}

/// A node that was removed (table `meta`), until its number is used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its number.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// When in commit order it was removed.
    pub removed: Version,
    /// Its vote goes even if nobody takes it over.
    pub force: bool,
}

/// How far the copies of a node that is gone for good are dropped (table `meta`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Whose copies.
    pub node: NodeId,
    /// The last object looked at.
    pub after: Option<Sha256>,
}

/// The look-back triple: the last change of mode (tables `modes` and `meta`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRecord {
    /// The mode before.
    pub old: Mode,
    /// The mode since.
    pub new: Mode,
    /// When, in Unix nanoseconds; strictly greater than the change before.
    pub timestamp: u64,
    /// Who or what changed it, for people.
    pub cause: String,
}

/// A value as a row.
pub fn to_row<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("rows hold nothing that JSON cannot say")
}

/// A row as a value; what does not parse is a damaged table.
pub fn from_row<T: DeserializeOwned>(row: &[u8]) -> Result<T, TableError> {
    serde_json::from_slice(row)
        .map_err(|error| TableError(format!("a row does not parse: {error}")))
}

//! What the object store says of itself: how durable it is, why it did not do something, and figures.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::base::digest::Sha256;
use crate::base::id::{DirId, OperationId};

/// What "sealed" means. An operator may lower it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// File and directory are synced.
    #[default]
    Full,
    /// The file's data is synced, its name is not.
    Data,
    /// Nothing is synced.
    None,
}

/// Why the store did not do it.
#[derive(Debug)]
pub enum StoreError {
    /// No directory has room above its reserve (rule R18).
    Full,
    /// No directory takes new objects.
    NoDirectory,
    /// The bytes read are not the bytes written: this copy is bad, at or after this block.
    Damaged {
        /// The object.
        sha: Sha256,
        /// The block, from 0.
        block: u64,
    },
    /// Blocks of the wrong length or number were written: the sender's mistake.
    WrongLength,
    /// A call failed; when the disk is to blame, its directory takes no new objects for now.
    Io(io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("disk full"),
            Self::NoDirectory => f.write_str("no data directory is in service for new objects"),
            Self::Damaged { sha, block } => write!(f, "object {sha} is damaged at block {block}"),
            Self::WrongLength => f.write_str("blocks do not add up to the announced size"),
            Self::Io(error) => write!(f, "object store: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// An object as its attribute describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Length of its file, in bytes.
    pub size: u64,
    /// The directory that holds it.
    pub dir: DirId,
    /// The upload that brought it.
    pub upload: OperationId,
}

/// A directory's figures, for status and placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirFigures {
    /// Its id.
    pub id: DirId,
    /// Where it is.
    pub path: PathBuf,
    /// Size of its file system, in bytes.
    pub total: u64,
    /// Free for us, in bytes, the reserve not taken off.
    pub free: u64,
    /// Kept free, in bytes (rule R18).
    pub reserve: u64,
    /// It takes no new objects since an error; what it holds is still read.
    pub failed: bool,
    /// Not even its folders can be read.
    pub lost: bool,
}

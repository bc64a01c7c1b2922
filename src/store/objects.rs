//! Objects: immutable bytes under their SHA-256, in one or more directories.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::layout::DataDirs;
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
    /// Every directory is out of service.
    NoDirectory,
    /// The bytes read are not the bytes written: this copy is bad at this block.
    Damaged {
        /// The object.
        sha: Sha256,
        /// The block, from 0.
        block: u64,
    },
    /// Blocks of the wrong length or number were written: the sender's mistake.
    WrongLength,
    /// A call failed; when the disk is to blame, its directory is out of service now.
    Io(io::Error),
}

/// An object as its attribute describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Length in bytes.
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
    /// Out of service after an error.
    pub failed: bool,
}

/// The object store; shared by all threads.
pub struct Objects {}

/// An object being written. Dropped unsealed, it leaves nothing.
pub struct Incoming {}

/// An object being read. Goes on reading the same bytes when the object is replaced or removed.
pub struct ObjectReader {}

impl Objects {
    /// The store over `dirs`. Looks through what an earlier process left unsealed.
    pub fn open(dirs: &DataDirs, durability: Durability) -> Result<Self, StoreError> {
        let _ = (dirs, durability);
        unimplemented!()
    }

    /// Begins an object of `size` bytes (not 0: empty files have no object) in the directory with most room.
    pub fn create(&self, size: u64, upload: OperationId) -> Result<Incoming, StoreError> {
        let _ = (size, upload);
        unimplemented!()
    }

    /// The object for reading, or `None` when no directory in service holds it.
    pub fn reader(&self, sha: &Sha256) -> Result<Option<ObjectReader>, StoreError> {
        let _ = sha;
        unimplemented!()
    }

    /// What is known of the object, or `None`.
    pub fn stat(&self, sha: &Sha256) -> Result<Option<ObjectStat>, StoreError> {
        let _ = sha;
        unimplemented!()
    }

    /// Removes the object from `dir` (or from every directory) if `guard` says so under the object's lock (rule R6); true when something was removed.
    pub fn remove(
        &self,
        sha: &Sha256,
        dir: Option<DirId>,
        guard: impl FnOnce() -> bool,
    ) -> Result<bool, StoreError> {
        let _ = (sha, dir, guard());
        unimplemented!()
    }

    /// Every sealed object, directory by directory, read lazily. Objects that come or go meanwhile may or may not be seen.
    pub fn list(&self) -> impl Iterator<Item = (Sha256, ObjectStat)> + '_ {
        std::iter::empty()
    }

    /// Figures of every directory, in the order of the configuration.
    pub fn dirs(&self) -> Vec<DirFigures> {
        unimplemented!()
    }
}

impl Incoming {
    /// Writes the next block: `BLOCK_BYTES` long, the last one shorter if need be. `crc` is its CRC32C, checked by the caller.
    pub fn write(&mut self, block: &[u8], crc: u32) -> Result<(), StoreError> {
        let _ = (block, crc);
        unimplemented!()
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        unimplemented!()
    }

    /// Bytes that were written, from `offset`; fills `buf` (rule R11: the entry node sends from disk).
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let _ = (offset, buf);
        unimplemented!()
    }

    /// Keeps the object under `sha`: durable when it returns. The directory is the one `create` chose.
    pub fn seal(self, sha: &Sha256) -> Result<DirId, StoreError> {
        let _ = sha;
        unimplemented!()
    }
}

impl ObjectReader {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// Number of blocks.
    pub fn block_count(&self) -> u64 {
        unimplemented!()
    }

    /// Reads block `index` into `buf` (replacing its content), checked; returns its CRC32C.
    pub fn read_block(&mut self, index: u64, buf: &mut Vec<u8>) -> Result<u32, StoreError> {
        let _ = (index, buf);
        unimplemented!()
    }

    /// The file, for `sendfile` towards who verifies himself (rule R17).
    pub fn file(&self) -> &File {
        unimplemented!()
    }
}

//! The one place with file system calls: the disk as the Raft log sees it, and what objects need beyond std.

use std::io;
use std::path::Path;

/// A disk as the Raft log uses it: few calls, so that a test can lose and tear what was not synced.
pub trait Disk: Send {
    /// An open file of this disk.
    type File: DiskFile;

    /// Names in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A new file (replacing one of that name) of `size` zero bytes whose content is synced; the name is not.
    fn create(&self, path: &Path, size: u64) -> io::Result<Self::File>;
    /// An existing file, for writing in place.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames atomically; durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after `sync_dir`.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file of a [`Disk`], written in place.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

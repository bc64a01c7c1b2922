//! The visible tree: what a person expects from `ls` and `tar`, hard links to objects, made to follow the catalog.

use std::io;

use super::layout::DataDirs;
use crate::base::digest::Sha256;
use crate::base::path::FilePath;

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The name shows the object (or the empty file).
    Shown,
    /// The name is absent: removed, or its object is not held here.
    Absent,
    /// A file that is not ours stands in the way; it is left alone and was logged once.
    Blocked,
}

/// The visible trees of all data directories. Not synced: rebuilt at start.
pub struct Tree {}

impl Tree {
    /// The tree over `dirs`.
    pub fn open(dirs: &DataDirs) -> io::Result<Self> {
        let _ = dirs;
        unimplemented!()
    }

    /// Makes the name show `wanted` (digest and size), or nothing. Doing it again changes nothing.
    pub fn reconcile(&self, path: &FilePath, wanted: Option<(Sha256, u64)>) -> io::Result<Linked> {
        let _ = (path, wanted);
        unimplemented!()
    }

    /// Makes the name show the object; as `reconcile` with a file.
    pub fn link(&self, path: &FilePath, sha: &Sha256, size: u64) -> io::Result<Linked> {
        self.reconcile(path, Some((*sha, size)))
    }

    /// Takes the name away, and folders it leaves empty.
    pub fn unlink(&self, path: &FilePath) -> io::Result<()> {
        self.reconcile(path, None).map(drop)
    }

    /// At start: removes names of ours that `wanted` does not know, then makes the name of every one of `files`.
    pub fn rebuild(
        &self,
        files: impl Iterator<Item = (FilePath, Sha256, u64)>,
        wanted: impl Fn(&FilePath) -> Option<(Sha256, u64)>,
    ) -> io::Result<()> {
        let _ = (files, wanted);
        unimplemented!()
    }
}

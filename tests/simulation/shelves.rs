//! A machine's data directories: which object lies where, whole or not, and what a crash leaves of what was not synced.

use std::collections::BTreeMap;

use momo::base::digest::Sha256;
use momo::base::id::{DirId, OperationId};

/// An object as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub size: u64,
    /// The upload that brought it; it stands beside the bytes.
    pub upload: OperationId,
    /// Its bytes are those of its name.
    pub whole: bool,
}

/// The data directories of a machine: what survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Shelves {
    dirs: BTreeMap<DirId, BTreeMap<Sha256, File>>,
    held: BTreeMap<(DirId, Sha256), Vec<OperationId>>,
    /// Nothing new fits.
    pub full: bool,
    /// Writes fail.
    pub failing: bool,
}

impl Shelves {
    /// Empty directories of these ids.
    pub fn new(ids: impl IntoIterator<Item = DirId>) -> Self {
        Self {
            held: BTreeMap::new(),
            dirs: ids.into_iter().map(|id| (id, BTreeMap::new())).collect(),
            full: false,
            failing: false,
        }
    }

    /// Directories in service, sorted.
    pub fn ids(&self) -> Vec<DirId> {
        self.dirs.keys().copied().collect()
    }

    /// Where a new object goes, unless nothing can be written: the emptiest directory.
    pub fn roomiest(&self) -> Option<DirId> {
        let open = !self.full && !self.failing;
        let dirs = self.dirs.iter().filter(|_| open);
        dirs.min_by_key(|(id, files)| (files.len(), **id))
            .map(|(id, _)| *id)
    }

    /// A file takes its place, and that of an older one of the same name (rule R7).
    /// Puts a file under its name; `held` are the other uploads that hold it now.
    pub fn place(&mut self, dir: DirId, sha256: Sha256, file: File, held: Vec<OperationId>) {
        if let Some(files) = self.dirs.get_mut(&dir) {
            files.insert(sha256, file);
            self.held.insert((dir, sha256), held);
        }
    }

    /// The other uploads that a file was held for when it got its name.
    pub fn held(&self, dir: DirId, sha256: &Sha256) -> Vec<OperationId> {
        self.held.get(&(dir, *sha256)).cloned().unwrap_or_default()
    }

    pub fn file(&self, dir: DirId, sha256: &Sha256) -> Option<&File> {
        self.dirs.get(&dir)?.get(sha256)
    }

    /// The object in every directory that has it.
    pub fn stats(&self, sha256: &Sha256) -> Vec<(DirId, File)> {
        let found = self.dirs.iter();
        found
            .filter_map(|(dir, files)| Some((*dir, *files.get(sha256)?)))
            .collect()
    }

    /// Whether some directory holds the object, whole.
    pub fn serves(&self, sha256: &Sha256) -> bool {
        self.stats(sha256).iter().any(|(_, file)| file.whole)
    }

    /// Everything there is.
    pub fn list(&self) -> Vec<(DirId, Sha256, File)> {
        let all = self.dirs.iter();
        all.flat_map(|(dir, files)| files.iter().map(|(sha256, file)| (*dir, *sha256, *file)))
            .collect()
    }

    pub fn remove(&mut self, dir: DirId, sha256: &Sha256) -> bool {
        let files = self.dirs.get_mut(&dir);
        files.is_some_and(|files| files.remove(sha256).is_some())
    }

    /// The bytes change under the file's name.
    pub fn spoil(&mut self, dir: DirId, sha256: &Sha256) {
        if let Some(file) = self.dirs.get_mut(&dir).and_then(|d| d.get_mut(sha256)) {
            file.whole = false;
        }
    }

    /// An empty directory in place of another.
    pub fn swap(&mut self, old: DirId, new: DirId) {
        self.dirs.remove(&old);
        self.dirs.insert(new, BTreeMap::new());
    }
}

//! Rule R8: keeps the visible tree in line with the catalog. Each name is looked up and linked under a lock of its own, so that the last look wins.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::base::digest::Sha256;
use crate::base::path::FilePath;
use crate::base::random::mix;
use crate::base::table::{TableError, Tables};
use crate::core::catalog::query;
use crate::store::tree::Tree;

/// Locks over names, by hash.
const STRIPES: usize = 64;

/// The visible tree and its locks.
pub struct Visible {
    tree: Tree,
    stripes: Vec<Mutex<()>>,
    behind: AtomicBool,
    /// Names that a connection's thread is about to reconcile itself, when their commit is applied.
    expected: Mutex<BTreeSet<FilePath>>,
}

impl Visible {
    /// Over an opened tree.
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            behind: AtomicBool::new(false),
            expected: Mutex::default(),
        }
    }

    /// The caller will reconcile `path` itself: the tree's thread need not, until the guard is dropped.
    pub fn expect(&self, path: &FilePath) -> Expected<'_> {
        let first = self.expected.lock().insert(path.clone());
        Expected {
            visible: self,
            path: first.then(|| path.clone()),
        }
    }

    /// Whether somebody else reconciles `path`.
    pub fn is_expected(&self, path: &FilePath) -> bool {
        let expected = self.expected.lock();
        !expected.is_empty() && expected.contains(path)
    }

    /// A change could not be queued: the whole tree is to be looked at.
    pub fn fell_behind(&self) {
        self.behind.store(true, Ordering::Release);
    }

    /// Whether it has fallen behind.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Whether it fell behind since the last question.
    pub fn catch_up(&self) -> bool {
        self.behind.swap(false, Ordering::AcqRel)
    }

    /// Makes the link of `path` what the catalog says it is, or removes it.
    pub fn reconcile(&self, tables: &dyn Tables, path: &FilePath) -> Result<(), TableError> {
        let hash = path
            .as_str()
            .bytes()
            .fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        let stripe = usize::try_from(hash % STRIPES as u64).unwrap_or_default();
        let _one_at_a_time = self.stripes[stripe].lock();
        let wanted = wanted(tables, path)?;
        if let Err(error) = self.tree.reconcile(path, wanted) {
            log::warn!(target: "momo::tree", "{path}: not linked in the visible tree: {error}");
        }
        Ok(())
    }

    /// An object has come that was not here when its names were applied: their links are made now.
    pub fn show(&self, tables: &dyn Tables, sha256: &Sha256) -> Result<(), TableError> {
        for path in query::names(tables, sha256)? {
            self.reconcile(tables, &path)?;
        }
        Ok(())
    }

    /// An object's file is gone from the directory at `data`: takes it back from one of its names, if one still shows it.
    /// The bytes are not looked at.
    pub fn give_back(
        &self,
        tables: &dyn Tables,
        data: &Path,
        sha256: &Sha256,
    ) -> Result<bool, TableError> {
        for path in query::names(tables, sha256)? {
            match self.tree.give_back(data, &path, sha256) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => log::debug!(target: "momo::tree", "{path}: {error}"),
            }
        }
        Ok(false)
    }

    /// Makes the whole tree what the catalog says, at start and after a snapshot: the names that stand there, then those that should.
    pub fn rebuild(&self, tables: &dyn Tables) -> Result<(), TableError> {
        let mut failed = None;
        let looked = self.tree.each(|path| {
            if let Err(error) = self.reconcile(tables, path) {
                failed = Some(error);
            }
            Ok(())
        });
        if let Err(error) = looked {
            log::warn!(target: "momo::tree", "the visible tree could not be looked through: {error}");
        }
        let mut after = String::new();
        loop {
            let page = query::list(tables, "", &after, 512)?;
            let Some(last) = page.last() else {
                return failed.map_or(Ok(()), Err);
            };
            last.path.as_str().clone_into(&mut after);
            for record in &page {
                self.reconcile(tables, &record.path)?;
            }
        }
    }
}

/// A promise to reconcile a name, kept or not when it is dropped.
pub struct Expected<'a> {
    visible: &'a Visible,
    path: Option<FilePath>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            self.visible.expected.lock().remove(path);
        }
    }
}

/// The object behind a whole file's name; files of several parts are not in the tree under their own name.
fn whole(record: &crate::wire::record::FileRecord) -> Option<(Sha256, u64)> {
    match record.parts.as_slice() {
        [] => Some((record.sha256, 0)),
        [part] => Some((part.sha256, part.size)),
        _ => None,
    }
}

fn wanted(tables: &dyn Tables, path: &FilePath) -> Result<Option<(Sha256, u64)>, TableError> {
    Ok(query::file(tables, path)?.as_ref().and_then(whole))
}

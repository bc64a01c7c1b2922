//! Rule R22 at daemon 0: the meeting place of a primary-splay upload and the legs that other daemons report for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::digest::{Md5, Sha256};
use crate::base::path::FilePath;
use crate::wire::record::Copy;

/// Uploads whose fate is remembered for late legs, at most.
const REMEMBERED: usize = 1_024;
/// How long.
const MEMORY: Duration = Duration::from_mins(1);

/// What ties legs and upload together: the name and what the client said of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// MD5 of the header.
    pub md5: Md5,
}

#[derive(Debug)]
enum Stage {
    /// The body is still coming in, or the put is being made.
    Open,
    /// Committed at this index with these copies.
    Committed {
        index: u64,
        sha256: Sha256,
        copies: Vec<Copy>,
        at: Instant,
    },
    /// It came to nothing.
    Failed,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    stage: Mutex<(Stage, Vec<(Sha256, Copy)>)>,
    changed: Condvar,
}

/// Uploads of this daemon that expect legs.
#[derive(Debug, Default)]
pub struct LegBoard {
    entries: Mutex<Vec<Arc<Entry>>>,
    added: Condvar,
}

/// What became of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The put that counts it is committed at this index.
    Counted(u64),
    /// The put is committed at this index without it: add the copy.
    Late(u64),
    /// No upload claims it.
    Nobody,
    /// Still open: ask again.
    Waiting,
}

/// An upload's place on the board; taken off as failed when dropped without [`Expecting::committed`].
#[derive(Debug)]
pub struct Expecting<'a> {
    board: &'a LegBoard,
    entry: Arc<Entry>,
    done: bool,
}

impl LegBoard {
    /// Puts up an upload, before its body is read.
    pub fn expect(&self, key: Key) -> Expecting<'_> {
        let entry = Arc::new(Entry {
            key,
            stage: Mutex::new((Stage::Open, Vec::new())),
            changed: Condvar::new(),
        });
        let mut entries = self.entries.lock();
        entries.retain(|entry| match &entry.stage.lock().0 {
            Stage::Open => true,
            Stage::Committed { at, .. } => at.elapsed() < MEMORY,
            Stage::Failed => false,
        });
        if entries.len() >= REMEMBERED
            && let Some(old) = entries
                .iter()
                .position(|e| !matches!(e.stage.lock().0, Stage::Open))
        {
            entries.remove(old);
        }
        entries.push(Arc::clone(&entry));
        drop(entries);
        self.added.notify_all();
        Expecting {
            board: self,
            entry,
            done: false,
        }
    }

    /// Reports a leg and waits: up to `patience` for an upload to claim it, then `slice` at a time for that upload's fate.
    pub fn report(&self, key: &Key, sha256: Sha256, copy: Copy, patience: Duration) -> Reported {
        let deadline = Instant::now() + patience;
        let mut entries = self.entries.lock();
        loop {
            // The newest first: a name sent twice in a row belongs to the later upload.
            let claims = |entry: &&Arc<Entry>| {
                entry.key == *key
                    && match &entry.stage.lock().0 {
                        Stage::Open => true,
                        Stage::Committed { sha256: theirs, .. } => *theirs == sha256,
                        Stage::Failed => false,
                    }
            };
            if let Some(entry) = entries.iter().rev().find(claims) {
                let entry = Arc::clone(entry);
                drop(entries);
                let leg = (sha256, copy);
                let mut stage = entry.stage.lock();
                // One of each is enough, however often it is reported.
                if !stage.1.contains(&leg) {
                    stage.1.push(leg);
                }
                drop(stage);
                entry.changed.notify_all();
                return Reported {
                    entry: Some(entry),
                    sha256,
                    copy,
                };
            }
            if self.added.wait_until(&mut entries, deadline).timed_out() {
                return Reported {
                    entry: None,
                    sha256,
                    copy,
                };
            }
        }
    }
}

/// A leg that has been reported.
#[derive(Debug)]
pub struct Reported {
    entry: Option<Arc<Entry>>,
    sha256: Sha256,
    copy: Copy,
}

impl Reported {
    /// Waits at most `slice` for the fate of the upload that claims it.
    pub fn wait(&self, slice: Duration) -> Claim {
        let Some(entry) = &self.entry else {
            return Claim::Nobody;
        };
        let deadline = Instant::now() + slice;
        let mut stage = entry.stage.lock();
        loop {
            match &stage.0 {
                Stage::Committed {
                    index,
                    sha256,
                    copies,
                    ..
                } if *sha256 == self.sha256 => {
                    return if copies.contains(&self.copy) {
                        Claim::Counted(*index)
                    } else {
                        Claim::Late(*index)
                    };
                }
                Stage::Committed { .. } | Stage::Failed => return Claim::Nobody,
                Stage::Open => {}
            }
            if entry.changed.wait_until(&mut stage, deadline).timed_out() {
                return Claim::Waiting;
            }
        }
    }
}

impl Expecting<'_> {
    /// Waits until `enough` legs with these bytes are in, at most `patience`; the copies they brought.
    pub fn legs(&self, sha256: Sha256, enough: usize, patience: Duration) -> Vec<Copy> {
        let deadline = Instant::now() + patience;
        let mut stage = self.entry.stage.lock();
        loop {
            let copies: Vec<Copy> = stage
                .1
                .iter()
                .filter(|leg| leg.0 == sha256)
                .map(|leg| leg.1)
                .collect();
            if copies.len() >= enough
                || self
                    .entry
                    .changed
                    .wait_until(&mut stage, deadline)
                    .timed_out()
            {
                return copies;
            }
        }
    }

    /// The put is committed: tells every leg.
    pub fn committed(mut self, index: u64, sha256: Sha256, copies: Vec<Copy>) {
        self.done = true;
        self.entry.stage.lock().0 = Stage::Committed {
            index,
            sha256,
            copies,
            at: Instant::now(),
        };
        self.entry.changed.notify_all();
    }
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.entry.stage.lock().0 = Stage::Failed;
        self.entry.changed.notify_all();
        self.board
            .entries
            .lock()
            .retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::{md5, sha256};
    use crate::base::id::{DirId, NodeId};

    const NOW: Duration = Duration::ZERO;

    fn key() -> Key {
        Key {
            path: FilePath::new("a").unwrap(),
            size: 3,
            md5: md5(b"abc"),
        }
    }

    fn copy(node: u16) -> Copy {
        Copy {
            node: NodeId(node),
            dir: DirId(1),
        }
    }

    #[test]
    fn a_leg_counts_when_the_put_names_it_and_is_late_when_not() {
        let (board, sha) = (LegBoard::default(), sha256(b"abc"));
        let upload = board.expect(key());
        let first = board.report(&key(), sha, copy(1), NOW);
        assert_eq!(first.wait(NOW), Claim::Waiting);
        assert_eq!(upload.legs(sha, 1, NOW), [copy(1)]);
        upload.committed(7, sha, vec![copy(0), copy(1)]);
        assert_eq!(first.wait(NOW), Claim::Counted(7));
        assert_eq!(
            board.report(&key(), sha, copy(2), NOW).wait(NOW),
            Claim::Late(7)
        );
    }

    #[test]
    fn a_leg_that_nobody_claims_or_whose_upload_fails_is_its_own() {
        let (board, sha) = (LegBoard::default(), sha256(b"abc"));
        assert_eq!(
            board.report(&key(), sha, copy(1), NOW).wait(NOW),
            Claim::Nobody
        );
        let upload = board.expect(key());
        let leg = board.report(&key(), sha, copy(1), NOW);
        drop(upload);
        assert_eq!(leg.wait(NOW), Claim::Nobody);
        assert_eq!(
            board.report(&key(), sha, copy(1), NOW).wait(NOW),
            Claim::Nobody
        );
    }

    #[test]
    fn a_leg_with_other_bytes_of_the_same_md5_is_not_counted() {
        let (board, sha) = (LegBoard::default(), sha256(b"abc"));
        let upload = board.expect(key());
        let leg = board.report(&key(), sha256(b"other"), copy(1), NOW);
        assert!(upload.legs(sha, 1, NOW).is_empty());
        upload.committed(7, sha, vec![copy(0)]);
        assert_eq!(leg.wait(NOW), Claim::Nobody);
    }
}

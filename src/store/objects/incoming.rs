//! An object on its way in: blocks are written into `tmp/`, and sealing gives them their name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::disk::{self, LinkOutcome};
use super::attribute::{ATTRIBUTE, Attribute, HELD, checksum_of, encode_held};
use super::directory::{Directory, object_path};
use super::model::{Durability, StoreError};
use super::shared::Shared;
use crate::base::digest::Sha256;
use crate::base::id::{DirId, OperationId};
use crate::base::limit::{BLOCK_BYTES, WRITEBACK_BYTES};

/// An object being written. Dropped unsealed, it leaves nothing.
pub struct Incoming {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: usize,
    pub(super) name: String,
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) written: u64,
    /// How far blocks are reserved and writeback was started.
    pub(super) reserved: u64,
    pub(super) handed_over: u64,
    pub(super) upload: OperationId,
    pub(super) crcs: Vec<u32>,
}

impl Incoming {
    /// Writes the next block: `BLOCK_BYTES` long, the last one as long as what is left. `crc` is its CRC32C, checked by the caller.
    pub fn write(&mut self, block: &[u8], crc: u32) -> Result<(), StoreError> {
        let rest = self.size - self.written;
        if block.len() as u64 != rest.min(BLOCK_BYTES as u64) || block.is_empty() {
            return Err(StoreError::WrongLength);
        }
        let written = self.reserve_ahead(block.len() as u64);
        let written = written.and_then(|()| disk::write_at(&self.file, self.written, block));
        written.map_err(|error| self.directory().blame(error))?;
        self.directory()
            .announced
            .fetch_sub(block.len() as u64, Ordering::Relaxed);
        self.written += block.len() as u64;
        self.crcs.push(crc);
        let behind = self.written - self.handed_over;
        if behind >= WRITEBACK_BYTES && self.shared.durability != Durability::None {
            disk::start_writeback(&self.file, self.handed_over, behind);
            self.handed_over = self.written;
        }
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that were written, from `offset`; fills `buf` (rule R11: the entry node sends from disk).
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let read = self.file.read_exact_at(buf, offset);
        read.map_err(|error| self.directory().blame(error))
    }

    /// Keeps the object under `sha`: durable when it returns. The directory is the one `create` chose. The caller has
    /// pinned `sha` before (rule R5): what nothing refers to may be removed at any time. `held` says which other uploads
    /// hold these bytes now: the file takes the place of the one that was brought for them, so that it is theirs too, and
    /// a start knows it.
    pub fn seal(
        self,
        sha: &Sha256,
        held: &dyn Fn() -> Vec<OperationId>,
    ) -> Result<DirId, StoreError> {
        if self.written != self.size {
            return Err(StoreError::WrongLength);
        }
        let dir = self.directory();
        let known = held();
        let sealed = self.describe(sha, &known);
        let sealed = sealed.and_then(|()| self.keep(dir, sha, known, held));
        sealed.map_err(|error| dir.blame(error))?;
        Ok(dir.id)
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.shared.dirs[self.dir]
    }

    /// Reserves blocks well ahead of a long object, so that it lies in one piece; a short one is placed when written back.
    fn reserve_ahead(&mut self, length: u64) -> io::Result<()> {
        const AHEAD: u64 = 8 * WRITEBACK_BYTES;
        if self.size <= WRITEBACK_BYTES || self.written + length <= self.reserved {
            return Ok(());
        }
        let ahead = AHEAD.min(self.size - self.written);
        disk::reserve(&self.file, self.written, ahead)?;
        self.reserved = self.written + ahead;
        Ok(())
    }

    fn describe(&self, sha: &Sha256, held: &[OperationId]) -> io::Result<()> {
        let attribute = Attribute {
            sha: *sha,
            size: self.size,
            upload: self.upload,
            crc: checksum_of(&self.crcs),
        };
        disk::set_attribute(&self.file, ATTRIBUTE, &attribute.encode())?;
        if !held.is_empty() {
            disk::set_attribute(&self.file, HELD, &encode_held(held))?;
        }
        disk::make_read_only(&self.file)
    }

    /// Under the object's lock, before the file takes a name: whether others came to hold these bytes since `known`, which
    /// the file says then.
    fn hold(&self, known: &mut Vec<OperationId>, now: Vec<OperationId>) -> io::Result<bool> {
        let more = now.iter().any(|upload| !known.contains(upload));
        if more {
            disk::make_writable(&self.file)?;
            disk::set_attribute(&self.file, HELD, &encode_held(&now))?;
            disk::make_read_only(&self.file)?;
            *known = now;
        }
        Ok(more)
    }

    fn keep(
        &self,
        dir: &Directory,
        sha: &Sha256,
        mut known: Vec<OperationId>,
        held: &dyn Fn() -> Vec<OperationId>,
    ) -> io::Result<()> {
        let durability = self.shared.durability;
        let sync = |file: &File| match durability {
            Durability::Full => disk::sync_all(file),
            Durability::Data => disk::sync_data(file),
            Durability::None => Ok(()),
        };
        let folder = &dir.syncs[usize::from(sha.0[0])];
        let failures = folder.failures();
        let path = object_path(sha);
        let mut hidden = false;
        let linked = {
            let _lock = self.shared.lock(sha);
            match disk::facts_at(&dir.objects, &path) {
                // What has the name already stays listed: it was sealed, or its own thread says that it is not.
                Ok(Some(_)) => Ok(LinkOutcome::Taken),
                Ok(None) => {
                    hidden = true;
                    dir.unsealed.lock().push(*sha);
                    self.hold(&mut known, held())
                        .and_then(|_| disk::link(&dir.tmp, &self.name, &dir.objects, &path))
                }
                Err(error) => Err(error),
            }
        };
        let kept = linked.and_then(|outcome| {
            sync(&self.file)?;
            if outcome != LinkOutcome::Linked {
                // Rule R7: what has the name may be worth nothing; what takes it is durable by now.
                let _lock = self.shared.lock(sha);
                if self.hold(&mut known, held())? {
                    sync(&self.file)?;
                }
                disk::rename(&dir.tmp, &self.name, &dir.objects, &path)?;
            }
            if durability == Durability::Full {
                folder.sync(failures, || dir.sync_folder(sha))?;
            }
            Ok(())
        });
        if kept.is_err() {
            // A file that may be worth nothing must not keep the name once the one in `tmp/` is gone.
            let _lock = self.shared.lock(sha);
            let named = disk::facts_at(&dir.objects, &path)?.map(|facts| facts.identity);
            if named == Some(disk::facts(&self.file)?.identity) {
                dir.unlink(sha)?;
            }
        } else {
            self.shared.keep_sidecar(dir, sha, &self.crcs);
        }
        if hidden {
            dir.no_longer_unsealed(sha);
        }
        kept
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let dir = self.directory();
        dir.announced
            .fetch_sub(self.size - self.written, Ordering::Relaxed);
        // What cannot be removed now is removed at the next start.
        let _ = disk::unlink(&dir.tmp, &self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::*;
    use super::super::{ObjectStat, Objects};
    use super::*;
    use crate::base::digest::{crc32c, sha256};
    use crate::store::layout::DataDirs;

    #[test]
    fn objects_of_every_length_come_back_and_leave_nothing_in_tmp() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let mut kept = BTreeMap::new();
        for length in [
            1,
            4096,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            3 * BLOCK_BYTES,
        ] {
            let bytes = some_bytes(length, length as u64);
            let incoming = fill(&objects, &bytes);
            let mut again = vec![0; length.min(700)];
            incoming.read_at(0, &mut again).unwrap();
            assert_eq!(again, bytes[..again.len()]);
            let sha = sha256(&bytes);
            assert!(objects.stat(&sha).unwrap().is_none());
            assert_eq!(incoming.seal(&sha, &Vec::new).unwrap(), dirs.dirs[0].id);
            kept.insert(sha, bytes);
        }
        assert_eq!(in_tmp(root.path()), 0);
        for (sha, bytes) in &kept {
            assert_eq!(&content(&objects, sha).unwrap(), bytes);
            let stat = objects.stat(sha).unwrap().unwrap();
            let size = bytes.len() as u64;
            assert_eq!(
                stat,
                ObjectStat {
                    size,
                    dir: dirs.dirs[0].id,
                    upload: UPLOAD
                }
            );
            assert!(objects.verify(sha, objects.dirs()[0].id).unwrap());
        }
        let listed: BTreeMap<_, _> = objects.list().collect();
        assert!(listed.keys().eq(kept.keys()));
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_is_held_for_both_uploads() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        let bytes = some_bytes(5_000, 1);
        let sha = sha256(&bytes);
        let other = OperationId {
            sequence: UPLOAD.sequence + 1,
            ..UPLOAD
        };
        fill(&objects, &bytes).seal(&sha, &|| vec![other]).unwrap();
        assert_eq!(objects.held(&sha).unwrap(), [other]);
        // One that comes to hold it while the next is on its way is known too, and one that is settled is not any more.
        let asked = std::cell::Cell::new(0);
        let late = || {
            asked.set(asked.get() + 1);
            vec![other; usize::from(asked.get() > 1)]
        };
        fill(&objects, &bytes).seal(&sha, &late).unwrap();
        assert_eq!(objects.held(&sha).unwrap(), [other]);
        fill(&objects, &bytes).seal(&sha, &Vec::new).unwrap();
        assert_eq!(objects.held(&sha).unwrap(), []);
        assert_eq!(content(&objects, &sha).unwrap(), bytes);
    }

    #[test]
    fn an_upload_that_is_dropped_or_short_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        let mut incoming = objects.create(BLOCK_BYTES as u64 + 5, UPLOAD).unwrap();
        let block = vec![1; BLOCK_BYTES];
        assert!(matches!(
            incoming.write(&block[1..], 0),
            Err(StoreError::WrongLength)
        ));
        incoming.write(&block, crc32c(&block)).unwrap();
        assert!(matches!(
            incoming.write(&block[..6], 0),
            Err(StoreError::WrongLength)
        ));
        assert!(matches!(
            incoming.seal(&sha256(&block), &Vec::new),
            Err(StoreError::WrongLength)
        ));
        drop(objects.create(7, UPLOAD).unwrap());
        assert_eq!(in_tmp(root.path()), 0);
        assert_eq!(objects.list().count(), 0);
        assert!(objects.reader(&sha256(&block)).unwrap().is_none());
    }

    #[test]
    fn threads_that_seal_the_same_bytes_all_succeed() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        for round in 0..20 {
            let bytes = some_bytes(5000, round);
            let sha = sha256(&bytes);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| fill(&objects, &bytes).seal(&sha, &Vec::new).unwrap());
                }
            });
            assert_eq!(content(&objects, &sha).unwrap(), bytes);
        }
        assert_eq!(in_tmp(root.path()), 0);
        assert_eq!(objects.list().count(), 20);
    }

    #[test]
    fn a_seal_that_cannot_sync_leaves_no_name() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let (_dirs, objects) = open(std::slice::from_ref(&data));
        let sha = sha256(b"bytes");
        let incoming = fill(&objects, b"bytes");
        // Links go by what is open, syncs of a folder by path.
        let moved = root.path().join("moved");
        std::fs::rename(&data, &moved).unwrap();
        assert!(matches!(
            incoming.seal(&sha, &Vec::new),
            Err(StoreError::Io(_))
        ));
        std::fs::rename(&moved, &data).unwrap();
        assert!(!file_of(&data, &sha).exists());
        assert_eq!(in_tmp(&data), 0);
        assert!(objects.dirs()[0].failed);
        assert!(objects.try_failed());
        assert_eq!(keep(&objects, b"bytes"), sha);
    }

    #[test]
    fn every_durability_keeps_objects() {
        for durability in [Durability::Full, Durability::Data, Durability::None] {
            let root = tempfile::tempdir().unwrap();
            let dirs = DataDirs::open(&[root.path().to_owned()], None, NODE, 0)
                .unwrap()
                .dirs;
            let objects = Objects::open(&dirs, durability).unwrap();
            for _ in 0..2 {
                let sha = keep(&objects, b"bytes");
                assert_eq!(content(&objects, &sha).unwrap(), b"bytes");
            }
            assert_eq!(in_tmp(root.path()), 0);
        }
    }

    #[test]
    fn what_a_crash_left_named_and_unsynced_stays_only_if_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let data = [root.path().to_owned()];
        let (dirs, objects) = open(&data);
        let [whole, torn] = [6, 7].map(|seed| keep(&objects, &some_bytes(5000, seed)));
        for (nth, sha) in [whole, torn].iter().enumerate() {
            let left = root.path().join(format!(".momo/tmp/left-{nth}"));
            std::fs::hard_link(file_of(root.path(), sha), left).unwrap();
        }
        std::fs::write(root.path().join(".momo/tmp/half"), "no attribute").unwrap();
        corrupt(&file_of(root.path(), &torn), 4999);
        drop((objects, dirs));
        let (_dirs, objects) = open(&data);
        assert_eq!(
            objects.list().map(|(sha, _)| sha).collect::<Vec<_>>(),
            [whole]
        );
        assert_eq!(in_tmp(root.path()), 0);
    }

    #[test]
    #[ignore = "measures: run with --release -- --ignored --nocapture --test-threads 1"]
    fn what_sealing_costs() {
        let root = tempfile::tempdir_in(".").unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        for threads in [1_u64, 8, 1, 8] {
            for replace in [false, true] {
                let start = std::time::Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let objects = &objects;
                        scope.spawn(move || {
                            for nth in 0..200 {
                                // The second time every name is taken: sync, rename, sync.
                                let bytes = some_bytes(4096, thread * 1000 + nth + threads * 9999);
                                keep(objects, &bytes);
                            }
                        });
                    }
                });
                let each = start.elapsed().as_micros() as u64 / 200;
                println!("{threads} threads, name taken {replace}: {each} us each");
            }
            for (sha, _) in objects.list() {
                objects.remove(&sha, None, || true).unwrap();
            }
        }
    }
}

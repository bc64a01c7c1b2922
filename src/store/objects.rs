//! Objects: immutable bytes under their SHA-256, in one or more directories.
//!
//! An object is `objects/ab/<sha>` with mode 0444 and an attribute `user.momo`: digest, size, upload, checksums. Of an
//! object of one block the attribute holds the block's CRC32C; of a longer one the CRC32C of the list of all of them,
//! which lies beside the object in `<sha>.crc` and is made again from the bytes (digest first) when it is lost.
//!
//! **Sealing** costs two syncs and one commit of the file system's journal. The bytes lie in `tmp/` first. They get
//! their name in `objects/` as a second *link*, then file and directory are synced, then the first name goes:
//! ```text
//! attribute, mode    link tmp/x -> objects/ab/<sha>    fsync file    fsync objects/ab    unlink tmp/x
//! ```
//! The file's sync commits the new name with it, so the directory's sync finds nothing left to write. Syncing before
//! the name is given (as when a name is replaced) commits twice. What may then be named and not yet durable is known:
//! while the process lives in `unsealed`, which listings leave out, and after a crash by the name that is left in
//! `tmp/`. Such objects are read against their digest at start, and go if they are not whole.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::fd::{AsFd, OwnedFd};
use sha2::Digest;

use super::disk::{self, LinkOutcome, Room};
use super::layout::DataDirs;
use crate::base::digest::{Sha256, crc32c};
use crate::base::id::{Boot, DirId, NodeId, OperationId};
use crate::base::limit::{BLOCK_BYTES, RESERVE_BYTES, WRITEBACK_BYTES};

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

/// The object store; shared by all threads.
pub struct Objects {
    shared: Arc<Shared>,
}

/// An object being written. Dropped unsealed, it leaves nothing.
pub struct Incoming {
    shared: Arc<Shared>,
    dir: usize,
    name: String,
    file: File,
    size: u64,
    written: u64,
    /// How far blocks are reserved and writeback was started.
    reserved: u64,
    handed_over: u64,
    upload: OperationId,
    crcs: Vec<u32>,
}

/// An object being read. Goes on reading the same bytes when the object is replaced or removed.
pub struct ObjectReader {
    shared: Arc<Shared>,
    dir: usize,
    sha: Sha256,
    file: File,
    attribute: Attribute,
    crcs: Option<Vec<u32>>,
}

struct Shared {
    dirs: Vec<Directory>,
    durability: Durability,
    /// One lock for each first byte of a digest: held while a name changes hands, never across a transfer or a sync.
    locks: Vec<Mutex<()>>,
    next_name: AtomicU64,
}

struct Directory {
    id: DirId,
    path: PathBuf,
    objects: OwnedFd,
    tmp: OwnedFd,
    /// No new objects since an error, until [`Objects::try_failed`] succeeds. Reads are always tried.
    failed: AtomicBool,
    /// Bytes announced by uploads under way and not yet written.
    announced: AtomicU64,
    /// Named in `objects/`, not yet durable.
    unsealed: Mutex<Vec<Sha256>>,
    /// One for each of the 256 object directories.
    syncs: Vec<SharedSync>,
}

impl Objects {
    /// The store over `dirs`. Looks through what an earlier process left unsealed, and empties `tmp/`.
    pub fn open(dirs: &DataDirs, durability: Durability) -> Result<Self, StoreError> {
        let mut opened = Vec::new();
        for dir in &dirs.dirs {
            opened.push(Directory {
                id: dir.id,
                path: dir.path.clone(),
                objects: disk::open_dir(&dir.private("objects")).map_err(StoreError::Io)?,
                tmp: disk::open_dir(&dir.private("tmp")).map_err(StoreError::Io)?,
                failed: AtomicBool::new(false),
                announced: AtomicU64::new(0),
                unsealed: Mutex::new(Vec::new()),
                syncs: (0..=u8::MAX).map(|_| SharedSync::default()).collect(),
            });
        }
        let shared = Shared {
            dirs: opened,
            durability,
            locks: (0..=u8::MAX).map(|_| Mutex::new(())).collect(),
            next_name: AtomicU64::new(0),
        };
        for dir in &shared.dirs {
            dir.settle().map_err(|error| dir.blame(error))?;
        }
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Begins an object of `size` bytes (not 0: empty files have no object) in the directory with most room.
    pub fn create(&self, size: u64, upload: OperationId) -> Result<Incoming, StoreError> {
        assert!(size > 0, "an empty file has no object");
        let mut rooms: Vec<(u64, usize)> = Vec::new();
        for (nth, dir) in self.shared.taking() {
            match dir.room() {
                Ok(room) => rooms.push((dir.available(room), nth)),
                Err(error) => drop(dir.blame(error)),
            }
        }
        rooms.sort_by_key(|(available, nth)| (std::cmp::Reverse(*available), *nth));
        for (_, nth) in rooms.iter().filter(|(available, _)| *available >= size) {
            let name = self.shared.next_name();
            let dir = &self.shared.dirs[*nth];
            match disk::create_new(&dir.tmp, &name) {
                Ok(file) => {
                    dir.announced.fetch_add(size, Ordering::Relaxed);
                    return Ok(Incoming {
                        shared: Arc::clone(&self.shared),
                        dir: *nth,
                        name,
                        file,
                        size,
                        written: 0,
                        reserved: 0,
                        handed_over: 0,
                        upload,
                        crcs: Vec::new(),
                    });
                }
                // This directory is full, or out of service now: the next one may do.
                Err(error) => match dir.blame(error) {
                    StoreError::Io(error) if !disk::blames_the_disk(&error) => {
                        return Err(StoreError::Io(error));
                    }
                    _ => {}
                },
            }
        }
        if self.shared.taking().next().is_none() {
            return Err(StoreError::NoDirectory);
        }
        Err(StoreError::Full)
    }

    /// The object for reading, or `None` when it is in no directory. An error of one directory counts only when no other has it.
    pub fn reader(&self, sha: &Sha256) -> Result<Option<ObjectReader>, StoreError> {
        self.shared.first(|nth, dir| {
            let Some(file) = dir.open(sha).map_err(|error| dir.blame(error))? else {
                return Ok(None);
            };
            let attribute = own_attribute(&file, sha).map_err(|error| dir.blame(error))?;
            let mut reader = ObjectReader {
                shared: Arc::clone(&self.shared),
                dir: nth,
                sha: *sha,
                attribute: Attribute::unknown(*sha, 0),
                file,
                crcs: None,
            };
            match attribute {
                Some(attribute) => reader.attribute = attribute,
                None => reader.describe_again()?,
            }
            Ok(Some(reader))
        })
    }

    /// What is known of the object, or `None`. An object that another thread is just sealing is not there yet.
    pub fn stat(&self, sha: &Sha256) -> Result<Option<ObjectStat>, StoreError> {
        self.shared
            .first(|_, dir| dir.stat(sha).map_err(|error| dir.blame(error)))
    }

    /// What is known of the object in each directory that holds it: brought twice, it may lie on two disks. An error only where no directory
    /// answers with it.
    pub fn stats(&self, sha: &Sha256) -> Result<Vec<ObjectStat>, StoreError> {
        let (mut stats, mut failed) = (Vec::new(), None);
        for dir in &self.shared.dirs {
            match dir.stat(sha).map_err(|error| dir.blame(error)) {
                Ok(stat) => stats.extend(stat),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if stats.is_empty() => Err(error),
            _ => Ok(stats),
        }
    }

    /// What is known of the object in directory `id`, or `None`; also when there is no such directory.
    pub fn stat_in(&self, sha: &Sha256, id: DirId) -> Result<Option<ObjectStat>, StoreError> {
        let dir = self.shared.dirs.iter().find(|dir| dir.id == id);
        dir.map_or(Ok(None), |dir| {
            dir.stat(sha).map_err(|error| dir.blame(error))
        })
    }

    /// Reads the object in directory `id` against its digest; false when it is not whole or not there.
    pub fn verify(&self, sha: &Sha256, id: DirId) -> Result<bool, StoreError> {
        for dir in self.shared.dirs.iter().filter(|dir| dir.id == id) {
            // What `stat` hides is not durable yet, however whole it reads.
            if dir.stat(sha).map_err(|error| dir.blame(error))?.is_none() {
                continue;
            }
            if let Some(file) = dir.open(sha).map_err(|error| dir.blame(error))? {
                let digest = read_through(&file, |_| {}).map_err(|error| dir.blame(error))?;
                return Ok(digest == *sha);
            }
        }
        Ok(false)
    }

    /// Removes the object from `dir` (or from every directory) if `guard` says so under the object's lock (rule R6);
    /// true when something was removed. `guard` must not call the store.
    pub fn remove(
        &self,
        sha: &Sha256,
        dir: Option<DirId>,
        guard: impl FnOnce() -> bool,
    ) -> Result<bool, StoreError> {
        let _lock = self.shared.lock(sha);
        if !guard() {
            return Ok(false);
        }
        let mut removed = false;
        let mut failed = None;
        for held in &self.shared.dirs {
            if dir.is_none_or(|id| id == held.id) {
                match held.unlink(sha) {
                    Ok(gone) => removed |= gone,
                    Err(error) => failed = Some(held.blame(error)),
                }
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Removes checksums without an object, which a crash or an older program left; how many. What cannot be read or
    /// removed stays: it does no harm.
    pub fn collect_orphans(&self) -> usize {
        let mut removed = 0;
        for dir in &self.shared.dirs {
            for first in 0..=u8::MAX {
                for sha in dir.orphans(first).unwrap_or_default() {
                    let _lock = self.shared.lock(&sha);
                    if matches!(disk::facts_at(&dir.objects, &object_path(&sha)), Ok(None))
                        && matches!(disk::unlink(&dir.objects, &sidecar_path(&sha)), Ok(true))
                    {
                        removed += 1;
                    }
                }
            }
        }
        removed
    }

    /// Tries the directories that take no new objects: one on which a small file can be written again is back in
    /// service. True when all are in service afterwards.
    pub fn try_failed(&self) -> bool {
        let mut all = true;
        for dir in &self.shared.dirs {
            if !dir.failed.load(Ordering::Relaxed) {
                continue;
            }
            match dir.try_writing(&self.shared.next_name()) {
                Ok(()) => {
                    dir.failed.store(false, Ordering::Relaxed);
                    log::info!(target: "momo::disk", "{}: back in service", dir.path.display());
                }
                Err(error) => {
                    all = false;
                    log::debug!(target: "momo::disk", "{}: still out of service: {error}", dir.path.display());
                }
            }
        }
        all
    }

    /// Every sealed object, directory by directory, read lazily. Objects that come or go meanwhile may or may not be
    /// seen. What cannot be read is left out, and its directory takes no new objects then.
    pub fn list(&self) -> impl Iterator<Item = (Sha256, ObjectStat)> + '_ {
        let folders = |dir| (0..=u8::MAX).map(move |first: u8| (dir, first));
        let folders = self.shared.dirs.iter().flat_map(folders);
        folders.flat_map(|(dir, first)| {
            let names = dir.names(first).unwrap_or_else(|error| {
                drop(dir.blame(error));
                Vec::new()
            });
            names.into_iter().filter_map(move |sha| {
                let stat = dir.stat(&sha).map_err(|error| dir.blame(error)).ok()??;
                Some((sha, stat))
            })
        })
    }

    /// Figures of every directory, in the order of the configuration.
    pub fn dirs(&self) -> Vec<DirFigures> {
        let figures = |dir: &Directory| {
            let room = dir.room().unwrap_or_else(|error| {
                drop(dir.blame(error));
                Room { total: 0, free: 0 }
            });
            let failed = dir.failed.load(Ordering::Relaxed);
            DirFigures {
                id: dir.id,
                path: dir.path.clone(),
                total: room.total,
                free: room.free,
                reserve: reserve_of(room),
                failed,
                lost: failed && dir.names(0).is_err(),
            }
        };
        self.shared.dirs.iter().map(figures).collect()
    }
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
    /// pinned `sha` before (rule R5): what nothing refers to may be removed at any time.
    pub fn seal(self, sha: &Sha256) -> Result<DirId, StoreError> {
        if self.written != self.size {
            return Err(StoreError::WrongLength);
        }
        let dir = self.directory();
        let sealed = self.describe(sha).and_then(|()| self.keep(dir, sha));
        sealed.map_err(|error| dir.blame(error))?;
        Ok(dir.id)
    }

    fn directory(&self) -> &Directory {
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

    fn describe(&self, sha: &Sha256) -> io::Result<()> {
        let attribute = Attribute {
            sha: *sha,
            size: self.size,
            upload: self.upload,
            crc: checksum_of(&self.crcs),
        };
        disk::set_attribute(&self.file, ATTRIBUTE, &attribute.encode())?;
        disk::make_read_only(&self.file)
    }

    fn keep(&self, dir: &Directory, sha: &Sha256) -> io::Result<()> {
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
                    disk::link(&dir.tmp, &self.name, &dir.objects, &path)
                }
                Err(error) => Err(error),
            }
        };
        let kept = linked.and_then(|outcome| {
            sync(&self.file)?;
            if outcome != LinkOutcome::Linked {
                // Rule R7: what has the name may be worth nothing; what takes it is durable by now.
                let _lock = self.shared.lock(sha);
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

impl ObjectReader {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.attribute.size
    }

    /// Number of blocks, at least 1.
    pub fn block_count(&self) -> u64 {
        block_count(self.attribute.size)
    }

    /// Reads block `index` into `buf` (replacing its content), checked; returns its CRC32C.
    pub fn read_block(&mut self, index: u64, buf: &mut Vec<u8>) -> Result<u32, StoreError> {
        assert!(index < self.block_count(), "a block past the end");
        let expected = self.checksum(index)?;
        let offset = index * BLOCK_BYTES as u64;
        let length = (self.attribute.size - offset).min(BLOCK_BYTES as u64);
        buf.resize(usize::try_from(length).unwrap_or(BLOCK_BYTES), 0);
        match self.file.read_exact_at(buf, offset) {
            Ok(()) if crc32c(buf) == expected => Ok(expected),
            Ok(()) => Err(StoreError::Damaged {
                sha: self.sha,
                block: index,
            }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(StoreError::Damaged {
                    sha: self.sha,
                    block: index,
                })
            }
            Err(error) => Err(self.directory().blame(error)),
        }
    }

    /// The file, for `sendfile` towards who verifies himself (rule R17).
    pub fn file(&self) -> &File {
        &self.file
    }

    fn directory(&self) -> &Directory {
        &self.shared.dirs[self.dir]
    }

    fn checksum(&mut self, index: u64) -> Result<u32, StoreError> {
        if self.attribute.size <= BLOCK_BYTES as u64 {
            return Ok(self.attribute.crc);
        }
        if self.crcs.is_none() {
            let dir = self.directory();
            let kept = dir
                .read_sidecar(&self.attribute)
                .map_err(|error| dir.blame(error))?;
            match kept {
                Some(crcs) => self.crcs = Some(crcs),
                None => self.describe_again()?,
            }
        }
        let crcs = self.crcs.as_deref().unwrap_or_default();
        let found = usize::try_from(index)
            .ok()
            .and_then(|index| crcs.get(index));
        found.copied().ok_or(StoreError::Damaged {
            sha: self.sha,
            block: index,
        })
    }

    /// Makes attribute and checksums again from the bytes, if those are still the ones that the digest names.
    fn describe_again(&mut self) -> Result<(), StoreError> {
        let mut crcs = Vec::new();
        let mut size = 0;
        let digest = read_through(&self.file, |block| {
            crcs.push(crc32c(block));
            size += block.len() as u64;
        });
        let dir = self.directory();
        if digest.map_err(|error| dir.blame(error))? != self.sha {
            return Err(StoreError::Damaged {
                sha: self.sha,
                block: 0,
            });
        }
        let known = self.attribute.size == size;
        let old = if known {
            self.attribute
        } else {
            Attribute::unknown(self.sha, size)
        };
        let attribute = Attribute {
            crc: checksum_of(&crcs),
            ..old
        };
        // Both are a cache; on a disk that takes no writes the next reader does the work again.
        let _ = dir.rewrite_attribute(&self.sha, &attribute);
        self.shared.keep_sidecar(dir, &self.sha, &crcs);
        self.attribute = attribute;
        self.crcs = Some(crcs);
        Ok(())
    }
}

impl Shared {
    /// Directories that take new objects.
    fn taking(&self) -> impl Iterator<Item = (usize, &Directory)> {
        let dirs = self.dirs.iter().enumerate();
        dirs.filter(|(_, dir)| !dir.failed.load(Ordering::Relaxed))
    }

    /// What the first directory that has it gives; an error only when none does.
    fn first<T>(
        &self,
        mut find: impl FnMut(usize, &Directory) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut failed = None;
        for (nth, dir) in self.dirs.iter().enumerate() {
            match find(nth, dir) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn lock(&self, sha: &Sha256) -> parking_lot::MutexGuard<'_, ()> {
        self.locks[usize::from(sha.0[0])].lock()
    }

    /// Keeps the checksums of a long object beside it, if it is still there. They are a cache: not synced, and not worth a failure.
    fn keep_sidecar(&self, dir: &Directory, sha: &Sha256, crcs: &[u32]) {
        if crcs.len() < 2 {
            return;
        }
        let temporary = self.next_name();
        let placed = disk::create_new(&dir.tmp, &temporary).and_then(|file| {
            disk::write_at(&file, 0, &list_bytes(crcs))?;
            let _lock = self.lock(sha);
            match disk::facts_at(&dir.objects, &object_path(sha))? {
                Some(_) => disk::rename(&dir.tmp, &temporary, &dir.objects, &sidecar_path(sha)),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        });
        if placed.is_err() {
            let _ = disk::unlink(&dir.tmp, &temporary);
        }
    }

    fn next_name(&self) -> String {
        format!("{:016x}", self.next_name.fetch_add(1, Ordering::Relaxed))
    }
}

impl Directory {
    /// Judges an error: a disk that is to blame takes no new objects from now on (rule R18).
    fn blame(&self, error: io::Error) -> StoreError {
        if disk::is_full(&error) {
            return StoreError::Full;
        }
        if disk::blames_the_disk(&error) && !self.failed.swap(true, Ordering::Relaxed) {
            log::error!(
                target: "momo::disk",
                "{}: out of service for new objects after: {error}",
                self.path.display()
            );
        }
        StoreError::Io(error)
    }

    /// Writes a small file and removes it. That there is no room for it says nothing against the disk.
    fn try_writing(&self, name: &str) -> io::Result<()> {
        self.names(0)?;
        let tried = disk::create_new(&self.tmp, name).and_then(|file| {
            let written = file
                .write_all_at(&[0; 4096], 0)
                .and_then(|()| file.sync_all());
            disk::unlink(&self.tmp, name)?;
            written
        });
        match tried {
            Err(error) if disk::is_full(&error) => Ok(()),
            tried => tried,
        }
    }

    fn room(&self) -> io::Result<Room> {
        disk::room(&self.objects)
    }

    /// What a new object may take of `room`.
    fn available(&self, room: Room) -> u64 {
        let announced = self.announced.load(Ordering::Relaxed);
        room.free
            .saturating_sub(reserve_of(room))
            .saturating_sub(announced)
    }

    fn open(&self, sha: &Sha256) -> io::Result<Option<File>> {
        disk::open_read(&self.objects, &object_path(sha))
    }

    fn stat(&self, sha: &Sha256) -> io::Result<Option<ObjectStat>> {
        let Some(file) = self.open(sha)? else {
            return Ok(None);
        };
        let attribute = own_attribute(&file, sha)?;
        let size = disk::facts(&file)?.size;
        if self.unsealed.lock().contains(sha) {
            return Ok(None);
        }
        let upload = attribute.map_or(NOBODY, |attribute| attribute.upload);
        Ok(Some(ObjectStat {
            size,
            dir: self.id,
            upload,
        }))
    }

    /// Removes an object and its checksums: those first, so that none are left behind alone. Under the object's lock.
    fn unlink(&self, sha: &Sha256) -> io::Result<bool> {
        disk::unlink(&self.objects, &sidecar_path(sha))?;
        disk::unlink(&self.objects, &object_path(sha))
    }

    /// Digests that have a file in the folder of `first`.
    fn names(&self, first: u8) -> io::Result<Vec<Sha256>> {
        let names = self.files(first)?;
        let digests = names.iter().filter_map(|name| name.parse::<Sha256>().ok());
        Ok(digests.filter(|sha| sha.0[0] == first).collect())
    }

    /// Digests that have checksums in the folder of `first`, and no object.
    fn orphans(&self, first: u8) -> io::Result<Vec<Sha256>> {
        let names = self.files(first)?;
        let objects: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let sidecars = names.iter().filter_map(|name| name.strip_suffix(SIDECAR));
        let alone = sidecars.filter(|name| !objects.contains(name));
        let digests = alone.filter_map(|name| name.parse::<Sha256>().ok());
        Ok(digests.filter(|sha| sha.0[0] == first).collect())
    }

    fn files(&self, first: u8) -> io::Result<Vec<String>> {
        let Some(folder) = disk::open_folder(&self.objects, &format!("{first:02x}"))? else {
            return Err(io::Error::other(format!("objects/{first:02x} is missing")));
        };
        disk::names(&folder)
    }

    fn no_longer_unsealed(&self, sha: &Sha256) {
        let mut unsealed = self.unsealed.lock();
        if let Some(nth) = unsealed.iter().position(|other| other == sha) {
            unsealed.swap_remove(nth);
        }
    }

    fn sync_folder(&self, sha: &Sha256) -> io::Result<()> {
        disk::sync_dir(
            &self
                .path
                .join(super::layout::PRIVATE)
                .join("objects")
                .join(folder(sha)),
        )
    }

    /// Looks at what an earlier process left in `tmp/`: an object that was named but perhaps not synced is kept if it is whole.
    fn settle(&self) -> io::Result<()> {
        for name in disk::names(&self.tmp)? {
            if let Some(file) = disk::open_read(&self.tmp, &name)? {
                self.settle_one(&file)?;
            }
            disk::unlink(&self.tmp, &name)?;
        }
        Ok(())
    }

    fn settle_one(&self, file: &File) -> io::Result<()> {
        let Some(attribute) = attribute_of(file)? else {
            return Ok(());
        };
        let path = object_path(&attribute.sha);
        let named = disk::facts_at(&self.objects, &path)?;
        if named.map(|facts| facts.identity) != Some(disk::facts(file)?.identity) {
            return Ok(());
        }
        if read_through(file, |_| {})? == attribute.sha {
            disk::sync_all(file)?;
        } else {
            self.unlink(&attribute.sha)?;
        }
        self.sync_folder(&attribute.sha)
    }

    fn read_sidecar(&self, attribute: &Attribute) -> io::Result<Option<Vec<u32>>> {
        let Some(file) = disk::open_read(&self.objects, &sidecar_path(&attribute.sha))? else {
            return Ok(None);
        };
        let expected = block_count(attribute.size).checked_mul(4);
        if Some(disk::facts(&file)?.size) != expected {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(expected.unwrap_or(0)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        let crcs = bytes
            .chunks_exact(4)
            .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        Ok((crc32c(&bytes) == attribute.crc).then(|| crcs.collect()))
    }

    fn rewrite_attribute(&self, sha: &Sha256, attribute: &Attribute) -> io::Result<()> {
        disk::set_attribute_at(
            &self.objects,
            &object_path(sha),
            ATTRIBUTE,
            &attribute.encode(),
        )
    }
}

/// Several threads that want one directory synced at the same time share the sync that begins after they asked.
#[derive(Default)]
struct SharedSync {
    progress: Mutex<SyncProgress>,
    ended: Condvar,
}

#[derive(Default)]
struct SyncProgress {
    begun: u64,
    done: u64,
    running: bool,
    /// Syncs that failed.
    failures: u64,
}

impl SharedSync {
    /// How many syncs have failed: asked before what is to be synced is done.
    fn failures(&self) -> u64 {
        self.progress.lock().failures
    }

    /// Syncs what was done since `failures` was asked. When any sync failed since, it may have lost that, and no later
    /// one can say otherwise.
    fn sync(&self, failures: u64, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut progress = self.progress.lock();
        let wanted = progress.begun + 1;
        while progress.done < wanted {
            if progress.running {
                self.ended.wait(&mut progress);
                continue;
            }
            progress.begun += 1;
            progress.running = true;
            let number = progress.begun;
            drop(progress);
            let result = sync();
            progress = self.progress.lock();
            progress.running = false;
            progress.done = number;
            progress.failures += u64::from(result.is_err());
            self.ended.notify_all();
            result?;
        }
        if progress.failures != failures {
            return Err(io::Error::other("an earlier sync of this directory failed"));
        }
        Ok(())
    }
}

/// The attribute's name: who carries it is ours.
pub(super) const ATTRIBUTE: &str = "user.momo";
/// What the name of an object's checksums ends with.
const SIDECAR: &str = ".crc";
/// As long as an inode of 256 bytes on ext4 has room for: no block of its own, no further write.
const ATTRIBUTE_BYTES: usize = 67;
/// The upload of an object whose attribute was lost.
const NOBODY: OperationId = OperationId {
    node: NodeId(u16::MAX),
    boot: Boot(0),
    sequence: 0,
};

/// What stands beside the bytes: `1 sha(32) size(8) node(2) boot(8) sequence(8) crc(4) crc-of-these(4)`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attribute {
    sha: Sha256,
    size: u64,
    upload: OperationId,
    /// Of the only block, or of the list of the checksums of all blocks.
    crc: u32,
}

impl Attribute {
    /// Of an object whose own was lost.
    const fn unknown(sha: Sha256, size: u64) -> Self {
        Self {
            sha,
            size,
            upload: NOBODY,
            crc: 0,
        }
    }

    fn encode(&self) -> [u8; ATTRIBUTE_BYTES] {
        let mut bytes = [0; ATTRIBUTE_BYTES];
        bytes[0] = 1;
        bytes[1..33].copy_from_slice(&self.sha.0);
        bytes[33..41].copy_from_slice(&self.size.to_be_bytes());
        bytes[41..59].copy_from_slice(&self.upload.key());
        bytes[59..63].copy_from_slice(&self.crc.to_be_bytes());
        let crc = crc32c(&bytes[..63]);
        bytes[63..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None` for anything that `encode` did not make.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ATTRIBUTE_BYTES] = bytes.try_into().ok()?;
        let (body, crc) = bytes.split_at(63);
        if body.first() != Some(&1) || crc32c(body).to_be_bytes() != *crc {
            return None;
        }
        let number = |from: usize| {
            Some(u64::from_be_bytes(
                body.get(from..from + 8)?.try_into().ok()?,
            ))
        };
        Some(Self {
            sha: Sha256(body.get(1..33)?.try_into().ok()?),
            size: number(33)?,
            upload: OperationId {
                node: NodeId(u16::from_be_bytes(body.get(41..43)?.try_into().ok()?)),
                boot: Boot(number(43)?),
                sequence: number(51)?,
            },
            crc: u32::from_be_bytes(body.get(59..63)?.try_into().ok()?),
        })
    }
}

/// The attribute of an open file; `None` when it carries none of ours, or a damaged one.
fn attribute_of(file: impl AsFd) -> io::Result<Option<Attribute>> {
    let value = disk::attribute::<ATTRIBUTE_BYTES>(file, ATTRIBUTE)?;
    Ok(value.and_then(|value| Attribute::decode(&value)))
}

/// The attribute of an object; one that names another object is none.
fn own_attribute(file: &File, sha: &Sha256) -> io::Result<Option<Attribute>> {
    Ok(attribute_of(file)?.filter(|attribute| attribute.sha == *sha))
}

/// Reads a file block by block; its SHA-256.
fn read_through(file: &File, mut each: impl FnMut(&[u8])) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = 0;
    loop {
        let mut length = 0;
        while length < block.len() {
            match file.read_at(&mut block[length..], offset + length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if length > 0 {
            hash.update(&block[..length]);
            each(&block[..length]);
        }
        offset += length as u64;
        if length < block.len() {
            return Ok(Sha256(hash.finalize().into()));
        }
    }
}

/// `ab` of `ab/<sha>`.
fn folder(sha: &Sha256) -> String {
    format!("{:02x}", sha.0[0])
}

/// Where an object lies under `objects/`.
pub(super) fn object_path(sha: &Sha256) -> String {
    format!("{:02x}/{sha}", sha.0[0])
}

fn sidecar_path(sha: &Sha256) -> String {
    format!("{:02x}/{sha}{SIDECAR}", sha.0[0])
}

const fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES as u64)
}

fn list_bytes(crcs: &[u32]) -> Vec<u8> {
    crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

fn checksum_of(crcs: &[u32]) -> u32 {
    match crcs {
        [only] => *only,
        several => crc32c(&list_bytes(several)),
    }
}

fn reserve_of(room: Room) -> u64 {
    RESERVE_BYTES.min(room.total / 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::base::digest::sha256;
    use crate::base::random::Random;

    const NODE: NodeId = NodeId(0);
    const UPLOAD: OperationId = OperationId {
        node: NODE,
        boot: Boot(1),
        sequence: 5,
    };

    fn open(data: &[PathBuf]) -> (DataDirs, Objects) {
        let dirs = DataDirs::open(data, None, NODE, 0).unwrap().dirs;
        let objects = Objects::open(&dirs, Durability::Full).unwrap();
        (dirs, objects)
    }

    fn fill(objects: &Objects, bytes: &[u8]) -> Incoming {
        let mut incoming = objects.create(bytes.len() as u64, UPLOAD).unwrap();
        for block in bytes.chunks(BLOCK_BYTES) {
            incoming.write(block, crc32c(block)).unwrap();
        }
        incoming
    }

    fn keep(objects: &Objects, bytes: &[u8]) -> Sha256 {
        let sha = sha256(bytes);
        fill(objects, bytes).seal(&sha).unwrap();
        sha
    }

    fn content(objects: &Objects, sha: &Sha256) -> Result<Vec<u8>, StoreError> {
        let mut reader = objects.reader(sha)?.expect("the object is here");
        let (mut bytes, mut block) = (Vec::new(), Vec::new());
        for index in 0..reader.block_count() {
            let crc = reader.read_block(index, &mut block)?;
            assert_eq!(crc, crc32c(&block));
            bytes.extend(&block);
        }
        assert_eq!(bytes.len() as u64, reader.size());
        Ok(bytes)
    }

    fn some_bytes(length: usize, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        (0..length).map(|_| random.next() as u8).collect()
    }

    fn file_of(data: &Path, sha: &Sha256) -> PathBuf {
        data.join(".momo/objects").join(object_path(sha))
    }

    fn in_tmp(data: &Path) -> usize {
        std::fs::read_dir(data.join(".momo/tmp")).unwrap().count()
    }

    /// Overwrites a byte of an object behind the store's back.
    fn corrupt(path: &Path, at: u64) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }

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
            assert_eq!(incoming.seal(&sha).unwrap(), dirs.dirs[0].id);
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
            incoming.seal(&sha256(&block)),
            Err(StoreError::WrongLength)
        ));
        drop(objects.create(7, UPLOAD).unwrap());
        assert_eq!(in_tmp(root.path()), 0);
        assert_eq!(objects.list().count(), 0);
        assert!(objects.reader(&sha256(&block)).unwrap().is_none());
    }

    #[test]
    fn a_damaged_block_is_found_and_the_others_are_still_read() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        let long = keep(&objects, &some_bytes(3 * BLOCK_BYTES, 1));
        let short = keep(&objects, &some_bytes(100, 2));
        corrupt(&file_of(root.path(), &long), BLOCK_BYTES as u64 + 9);
        corrupt(&file_of(root.path(), &short), 50);
        let mut reader = objects.reader(&long).unwrap().unwrap();
        let mut block = Vec::new();
        reader.read_block(0, &mut block).unwrap();
        let bad = reader.read_block(1, &mut block);
        assert!(matches!(bad, Err(StoreError::Damaged { block: 1, .. })));
        reader.read_block(2, &mut block).unwrap();
        assert!(matches!(
            content(&objects, &short),
            Err(StoreError::Damaged { block: 0, .. })
        ));
        assert!(
            !objects.verify(&long, objects.dirs()[0].id).unwrap()
                && !objects.verify(&short, objects.dirs()[0].id).unwrap()
        );
        assert!(!objects.dirs()[0].failed, "a bad block is no broken disk");

        // Rule R7: the same bytes sent again replace the damaged ones.
        keep(&objects, &some_bytes(3 * BLOCK_BYTES, 1));
        assert!(objects.verify(&long, objects.dirs()[0].id).unwrap());
        assert_eq!(in_tmp(root.path()), 0);
    }

    #[test]
    fn lost_checksums_are_made_again_only_from_bytes_that_match_the_digest() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        let bytes = some_bytes(2 * BLOCK_BYTES + 17, 3);
        let sha = keep(&objects, &bytes);
        let sidecar = root.path().join(".momo/objects").join(sidecar_path(&sha));
        for lost in [&b""[..], &[7; 12]] {
            std::fs::write(&sidecar, lost).unwrap();
            assert_eq!(content(&objects, &sha).unwrap(), bytes);
            assert_eq!(std::fs::metadata(&sidecar).unwrap().len(), 12);
        }
        let object = file_of(root.path(), &sha);
        let file = File::open(&object).unwrap();
        rustix::fs::fremovexattr(&file, ATTRIBUTE).unwrap();
        assert_eq!(content(&objects, &sha).unwrap(), bytes);
        assert!(attribute_of(&file).unwrap().is_some());
        std::fs::remove_file(&sidecar).unwrap();
        corrupt(&object, 0);
        assert!(matches!(
            content(&objects, &sha),
            Err(StoreError::Damaged { .. })
        ));
    }

    #[test]
    fn checksums_go_with_their_object_and_none_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        let folder = root.path().join(".momo/objects");
        let bytes = some_bytes(2 * BLOCK_BYTES + 17, 3);
        let sha = keep(&objects, &bytes);
        let sidecar = folder.join(sidecar_path(&sha));
        assert!(sidecar.exists());
        let mut reader = objects.reader(&sha).unwrap().unwrap();
        assert!(objects.remove(&sha, None, || true).unwrap());
        assert!(!sidecar.exists());
        // Who still reads makes checksums for himself only.
        reader.read_block(2, &mut Vec::new()).unwrap();
        assert!(!sidecar.exists());
        assert_eq!(in_tmp(root.path()), 0);

        let kept = keep(&objects, &bytes);
        let alone = sha256(b"gone");
        std::fs::write(folder.join(sidecar_path(&alone)), [0; 8]).unwrap();
        assert_eq!(objects.collect_orphans(), 1);
        assert!(!folder.join(sidecar_path(&alone)).exists());
        assert!(folder.join(sidecar_path(&kept)).exists());
        assert_eq!(objects.collect_orphans(), 0);
    }

    #[test]
    fn a_reader_goes_on_while_its_object_is_replaced_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let bytes = some_bytes(2 * BLOCK_BYTES, 4);
        let sha = keep(&objects, &bytes);
        let mut reader = objects.reader(&sha).unwrap().unwrap();
        let mut block = Vec::new();
        reader.read_block(0, &mut block).unwrap();
        keep(&objects, &bytes);
        assert!(!objects.remove(&sha, None, || false).unwrap());
        assert!(
            !objects
                .remove(&sha, Some(DirId(dirs.dirs[0].id.0 ^ 1)), || true)
                .unwrap()
        );
        assert!(
            objects
                .remove(&sha, Some(dirs.dirs[0].id), || true)
                .unwrap()
        );
        assert!(objects.reader(&sha).unwrap().is_none());
        assert!(!objects.remove(&sha, None, || true).unwrap());
        reader.read_block(1, &mut block).unwrap();
        assert_eq!(block, bytes[BLOCK_BYTES..]);
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
                    scope.spawn(|| fill(&objects, &bytes).seal(&sha).unwrap());
                }
            });
            assert_eq!(content(&objects, &sha).unwrap(), bytes);
        }
        assert_eq!(in_tmp(root.path()), 0);
        assert_eq!(objects.list().count(), 20);
    }

    #[test]
    fn an_object_that_is_being_sealed_is_not_there_yet_for_who_counts_copies() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        let sha = keep(&objects, b"bytes");
        let dir = &objects.shared.dirs[0];
        dir.unsealed.lock().push(sha);
        assert!(objects.stat(&sha).unwrap().is_none());
        assert_eq!(objects.list().count(), 0);
        assert!(!objects.verify(&sha, objects.dirs()[0].id).unwrap());
        assert_eq!(content(&objects, &sha).unwrap(), b"bytes");
        dir.no_longer_unsealed(&sha);
        assert!(objects.stat(&sha).unwrap().is_some());
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
        assert!(matches!(incoming.seal(&sha), Err(StoreError::Io(_))));
        std::fs::rename(&moved, &data).unwrap();
        assert!(!file_of(&data, &sha).exists());
        assert_eq!(in_tmp(&data), 0);
        assert!(objects.dirs()[0].failed);
        assert!(objects.try_failed());
        assert_eq!(keep(&objects, b"bytes"), sha);
    }

    #[test]
    fn a_sync_that_failed_is_held_against_what_was_done_before_and_not_against_what_comes() {
        let shared = SharedSync::default();
        let before = shared.failures();
        let failed = shared.sync(before, || Err(io::Error::from_raw_os_error(5)));
        assert!(failed.is_err());
        assert!(shared.sync(before, || Ok(())).is_err());
        shared.sync(shared.failures(), || Ok(())).unwrap();
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
    fn threads_that_want_a_directory_synced_share_syncs_and_none_returns_before_one_that_began_later()
     {
        let shared = SharedSync::default();
        let (clock, syncs) = (AtomicU64::new(0), AtomicU64::new(0));
        let last_begun = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let asked = clock.fetch_add(1, Ordering::SeqCst);
                        let sync = || {
                            let begun = clock.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            last_begun.fetch_max(begun, Ordering::SeqCst);
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        };
                        shared.sync(shared.failures(), sync).unwrap();
                        assert!(last_begun.load(Ordering::SeqCst) > asked);
                    }
                });
            }
        });
        assert!(syncs.load(Ordering::SeqCst) <= 8 * 500);
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
    fn an_object_goes_to_the_directory_with_most_room_and_is_found_in_any() {
        let root = tempfile::tempdir().unwrap();
        let data = ["a", "b"].map(|name| root.path().join(name));
        let (dirs, objects) = open(&data);
        // One file system: announced bytes decide.
        let first = objects.create(1 << 20, UPLOAD).unwrap();
        let bytes = some_bytes(10, 8);
        let sha = sha256(&bytes);
        let dir = fill(&objects, &bytes).seal(&sha).unwrap();
        assert_eq!(
            (first.directory().id, dir),
            (dirs.dirs[0].id, dirs.dirs[1].id)
        );
        assert_eq!(content(&objects, &sha).unwrap(), bytes);
        assert_eq!(objects.stat(&sha).unwrap().unwrap().dir, dir);
        drop(first);
        let none = objects
            .shared
            .dirs
            .iter()
            .map(|d| d.announced.load(Ordering::Relaxed));
        assert_eq!(none.sum::<u64>(), 0);
    }

    #[test]
    fn a_directory_that_fails_is_out_of_service_and_the_others_go_on() {
        let root = tempfile::tempdir().unwrap();
        let data = ["a", "b"].map(|name| root.path().join(name));
        let (dirs, objects) = open(&data);
        let error = objects.shared.dirs[0].blame(io::Error::from_raw_os_error(5));
        assert!(matches!(error, StoreError::Io(_)));
        let failed: Vec<_> = objects.dirs().iter().map(|dir| dir.failed).collect();
        assert_eq!(failed, [true, false]);
        let bytes = some_bytes(10, 9);
        let dir = fill(&objects, &bytes).seal(&sha256(&bytes)).unwrap();
        assert_eq!(dir, dirs.dirs[1].id);
        drop(objects.shared.dirs[1].blame(io::Error::from_raw_os_error(30)));
        assert!(matches!(
            objects.create(1, UPLOAD),
            Err(StoreError::NoDirectory)
        ));
        let sha = sha256(&bytes);
        assert!(objects.stat(&sha).unwrap().is_some(), "it is still read");
        assert!(
            objects
                .verify(&sha, objects.stat(&sha).unwrap().unwrap().dir)
                .unwrap()
        );
        assert_eq!(objects.reader(&sha).unwrap().unwrap().size(), 10);
        assert_eq!(objects.list().count(), 1);
        assert!(objects.dirs().iter().all(|dir| dir.failed && !dir.lost));
    }

    #[test]
    fn a_directory_that_failed_is_back_in_service_once_it_can_be_written_again() {
        let root = tempfile::tempdir().unwrap();
        let data = ["a", "b"].map(|name| root.path().join(name));
        let (_dirs, objects) = open(&data);
        assert!(objects.try_failed());
        for dir in &objects.shared.dirs {
            drop(dir.blame(io::Error::from_raw_os_error(5)));
        }
        let tmp = data[0].join(".momo/tmp");
        std::fs::remove_dir(&tmp).unwrap();
        let lost = data[1].join(".momo/objects/00");
        std::fs::remove_dir(&lost).unwrap();
        assert!(!objects.try_failed());
        let figures = objects.dirs();
        assert!(figures[0].failed && !figures[0].lost);
        assert!(figures[1].failed && figures[1].lost);
        std::fs::create_dir(&lost).unwrap();
        assert!(
            !objects.try_failed(),
            "the other one is out of service still"
        );
        let figures = objects.dirs();
        assert!(figures[0].failed && !figures[1].failed);
        let bytes = some_bytes(10, 9);
        fill(&objects, &bytes).seal(&sha256(&bytes)).unwrap();
        assert!(
            std::fs::read_dir(data[1].join(".momo/tmp"))
                .unwrap()
                .next()
                .is_none()
        );
    }

    #[test]
    fn an_error_of_one_directory_does_not_hide_what_another_holds() {
        let root = tempfile::tempdir().unwrap();
        let data = ["a", "b"].map(|name| root.path().join(name));
        let (_dirs, objects) = open(&data);
        let bytes = some_bytes(10, 9);
        let sha = sha256(&bytes);
        fill(&objects, &bytes).seal(&sha).unwrap();
        let mut order = Vec::new();
        let found = objects.shared.first(|nth, dir| {
            order.push(nth);
            match dir.stat(&sha).map_err(StoreError::Io)? {
                Some(_) => Ok(Some(nth)),
                None => Err(dir.blame(io::Error::from_raw_os_error(5))),
            }
        });
        assert_eq!(found.unwrap(), order.last().copied());
        let nobody = objects
            .shared
            .first(|_, dir| Err::<Option<()>, _>(dir.blame(io::Error::from_raw_os_error(5))));
        assert!(matches!(nobody, Err(StoreError::Io(_))));
    }

    #[test]
    fn a_lying_size_is_refused_and_a_full_disk_is_not_a_failed_one() {
        let root = tempfile::tempdir().unwrap();
        let (_dirs, objects) = open(&[root.path().to_owned()]);
        assert!(matches!(
            objects.create(i64::MAX as u64, UPLOAD),
            Err(StoreError::Full)
        ));

        let small = root.path().join("small");
        std::fs::create_dir(&small).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=4m", "momo-test"];
        let mounted = std::process::Command::new("mount")
            .args(options)
            .arg(&small)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("not tried on a small tmpfs: mounting one needs root");
            return;
        }
        let result = std::panic::catch_unwind(|| {
            let (_dirs, objects) = open(&[small.join("data")]);
            let mut kept = 0;
            let full = loop {
                let bytes = some_bytes(BLOCK_BYTES, kept);
                match objects.create(bytes.len() as u64, UPLOAD) {
                    Ok(mut incoming) => {
                        incoming.write(&bytes, crc32c(&bytes)).unwrap();
                        incoming.seal(&sha256(&bytes)).unwrap();
                        kept += 1;
                    }
                    Err(error) => break error,
                }
            };
            assert!(matches!(full, StoreError::Full), "{full}");
            // Somebody else takes the rest while an upload is under way.
            let (one, _) = objects.list().next().expect("some objects fitted");
            assert!(objects.remove(&one, None, || true).unwrap());
            kept -= 1;
            let bytes = some_bytes(60_000, 999);
            let mut incoming = objects.create(60_000, UPLOAD).expect("a little is left");
            let _ = std::fs::write(small.join("stranger"), vec![0; 4 << 20]);
            assert!(matches!(incoming.write(&bytes, 0), Err(StoreError::Full)));
            drop(incoming);
            assert!(!objects.dirs()[0].failed);
            let listed: Vec<_> = objects.list().collect();
            assert_eq!(listed.len() as u64, kept);
            assert!(
                listed
                    .iter()
                    .all(|(sha, _)| objects.remove(sha, None, || true).unwrap())
            );
            assert_eq!(objects.list().count(), 0);
        });
        let unmounted = std::process::Command::new("umount").arg(&small).output();
        assert!(unmounted.is_ok_and(|output| output.status.success()));
        result.unwrap();
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

//! The object store as a whole: which directory takes an object, which has it, what leaves it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::disk::{self, Room};
use super::super::layout::DataDirs;
use super::attribute::{Attribute, held_of, list_bytes, own_attribute};
use super::directory::{Directory, object_path, reserve_of, sidecar_path};
use super::incoming::Incoming;
use super::model::{DirFigures, Durability, ObjectStat, StoreError};
use super::reader::{ObjectReader, read_through};
use super::sync::SharedSync;
use crate::base::digest::Sha256;
use crate::base::id::{DirId, OperationId};

/// The object store; shared by all threads.
pub struct Objects {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) dirs: Vec<Directory>,
    pub(super) durability: Durability,
    /// One lock for each first byte of a digest: held while a name changes hands, never across a transfer or a sync.
    pub(super) locks: Vec<Mutex<()>>,
    pub(super) next_name: AtomicU64,
}

impl Objects {
    /// The store over `dirs`. Looks through what an earlier process left unsealed, and empties `tmp/`.
    pub fn open(dirs: &DataDirs, durability: Durability) -> Result<Self, StoreError> {
        let mut opened = Vec::new();
        for dir in &dirs.dirs {
            let aside = match disk::open_dir(&dir.private("aside")) {
                // Of an older start, and not to be made now: nothing can be set aside either.
                Err(error) if dir.read_only && error.kind() == io::ErrorKind::NotFound => {
                    disk::open_dir(&dir.private("tmp"))
                }
                opened => opened,
            };
            opened.push(Directory {
                id: dir.id,
                path: dir.path.clone(),
                objects: disk::open_dir(&dir.private("objects")).map_err(StoreError::Io)?,
                tmp: disk::open_dir(&dir.private("tmp")).map_err(StoreError::Io)?,
                aside: aside.map_err(StoreError::Io)?,
                failed: AtomicBool::new(dir.read_only),
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
            match dir.settle() {
                Err(error) if disk::is_read_only(&error) => drop(dir.blame(error)),
                settled => settled.map_err(|error| dir.blame(error))?,
            }
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

    /// The uploads other than its last that the object was held for when it was sealed (rule R5).
    pub fn held(&self, sha: &Sha256) -> Result<Vec<OperationId>, StoreError> {
        let mut uploads = Vec::new();
        for dir in &self.shared.dirs {
            let held = dir.open(sha).and_then(|file| file.map(held_of).transpose());
            uploads.extend(held.map_err(|error| dir.blame(error))?.unwrap_or_default());
        }
        Ok(uploads)
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
                let digest = read_through(&file, |_| true).map_err(|error| dir.blame(error))?;
                return Ok(digest == Some(*sha));
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

    /// Every sealed object, folder by folder, read lazily. Objects that come or go meanwhile may or may not be
    /// seen. What cannot be read is left out, and its directory takes no new objects then.
    pub fn list(&self) -> impl Iterator<Item = (Sha256, ObjectStat)> + '_ {
        (0..=u8::MAX).flat_map(|first| self.list_folder(first))
    }

    /// The sealed objects whose digest begins with `first`; as [`Objects::list`].
    pub fn list_folder(&self, first: u8) -> impl Iterator<Item = (Sha256, ObjectStat)> + '_ {
        self.shared.dirs.iter().flat_map(move |dir| {
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

impl Shared {
    /// Directories that take new objects.
    pub(super) fn taking(&self) -> impl Iterator<Item = (usize, &Directory)> {
        let dirs = self.dirs.iter().enumerate();
        dirs.filter(|(_, dir)| !dir.failed.load(Ordering::Relaxed))
    }

    /// What the first directory that has it gives; an error only when none does.
    pub(super) fn first<T>(
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

    pub(super) fn lock(&self, sha: &Sha256) -> parking_lot::MutexGuard<'_, ()> {
        self.locks[usize::from(sha.0[0])].lock()
    }

    /// Keeps the checksums of a long object beside it, if it is still there. They are a cache: not synced, and not worth a failure.
    pub(super) fn keep_sidecar(&self, dir: &Directory, sha: &Sha256, crcs: &[u32]) {
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

    pub(super) fn next_name(&self) -> String {
        format!("{:016x}", self.next_name.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::base::digest::{crc32c, sha256};
    use crate::base::limit::BLOCK_BYTES;

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
    fn an_object_goes_to_the_directory_with_most_room_and_is_found_in_any() {
        let root = tempfile::tempdir().unwrap();
        let data = ["a", "b"].map(|name| root.path().join(name));
        let (dirs, objects) = open(&data);
        // One file system: announced bytes decide.
        let first = objects.create(1 << 20, UPLOAD).unwrap();
        let bytes = some_bytes(10, 8);
        let sha = sha256(&bytes);
        let dir = fill(&objects, &bytes).seal(&sha, &Vec::new).unwrap();
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
        let dir = fill(&objects, &bytes)
            .seal(&sha256(&bytes), &Vec::new)
            .unwrap();
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
        fill(&objects, &bytes)
            .seal(&sha256(&bytes), &Vec::new)
            .unwrap();
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
        fill(&objects, &bytes).seal(&sha, &Vec::new).unwrap();
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
                        incoming.seal(&sha256(&bytes), &Vec::new).unwrap();
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
}

//! One data directory of the object store: where objects and their checksums lie, what is wrong with its disk, and what a crash left in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fd::OwnedFd;

use super::super::disk::{self, Room};
use super::attribute::{ATTRIBUTE, Attribute, NOBODY, attribute_of, block_count, own_attribute};
use super::model::{ObjectStat, StoreError};
use super::reader::read_through;
use super::sync::SharedSync;
use crate::base::digest::{Sha256, crc32c};
use crate::base::id::DirId;
use crate::base::limit::RESERVE_BYTES;

pub(super) struct Directory {
    pub(super) id: DirId,
    pub(super) path: PathBuf,
    pub(super) objects: OwnedFd,
    pub(super) tmp: OwnedFd,
    /// Damaged objects that were taken out of the way.
    pub(super) aside: OwnedFd,
    /// No new objects since an error, until [`Objects::try_failed`] succeeds. Reads are always tried.
    pub(super) failed: AtomicBool,
    /// Bytes announced by uploads under way and not yet written.
    pub(super) announced: AtomicU64,
    /// Named in `objects/`, not yet durable.
    pub(super) unsealed: Mutex<Vec<Sha256>>,
    /// One for each of the 256 object directories.
    pub(super) syncs: Vec<SharedSync>,
}

impl Directory {
    /// Judges an error: a disk that is to blame takes no new objects from now on (rule R18).
    pub(super) fn blame(&self, error: io::Error) -> StoreError {
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
    pub(super) fn try_writing(&self, name: &str) -> io::Result<()> {
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

    pub(super) fn room(&self) -> io::Result<Room> {
        disk::room(&self.objects)
    }

    /// What a new object may take of `room`.
    pub(super) fn available(&self, room: Room) -> u64 {
        let announced = self.announced.load(Ordering::Relaxed);
        room.free
            .saturating_sub(reserve_of(room))
            .saturating_sub(announced)
    }

    pub(super) fn open(&self, sha: &Sha256) -> io::Result<Option<File>> {
        disk::open_read(&self.objects, &object_path(sha))
    }

    pub(super) fn stat(&self, sha: &Sha256) -> io::Result<Option<ObjectStat>> {
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
    pub(super) fn unlink(&self, sha: &Sha256) -> io::Result<bool> {
        disk::unlink(&self.objects, &sidecar_path(sha))?;
        disk::unlink(&self.objects, &object_path(sha))
    }

    /// Digests that have a file in the folder of `first`.
    pub(super) fn names(&self, first: u8) -> io::Result<Vec<Sha256>> {
        let names = self.files(first)?;
        let digests = names.iter().filter_map(|name| name.parse::<Sha256>().ok());
        Ok(digests.filter(|sha| sha.0[0] == first).collect())
    }

    /// Digests that have checksums in the folder of `first`, and no object.
    pub(super) fn orphans(&self, first: u8) -> io::Result<Vec<Sha256>> {
        let names = self.files(first)?;
        let objects: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let sidecars = names.iter().filter_map(|name| name.strip_suffix(SIDECAR));
        let alone = sidecars.filter(|name| !objects.contains(name));
        let digests = alone.filter_map(|name| name.parse::<Sha256>().ok());
        Ok(digests.filter(|sha| sha.0[0] == first).collect())
    }

    pub(super) fn files(&self, first: u8) -> io::Result<Vec<String>> {
        let Some(folder) = disk::open_folder(&self.objects, &format!("{first:02x}"))? else {
            return Err(io::Error::other(format!("objects/{first:02x} is missing")));
        };
        disk::names(&folder)
    }

    pub(super) fn no_longer_unsealed(&self, sha: &Sha256) {
        let mut unsealed = self.unsealed.lock();
        if let Some(nth) = unsealed.iter().position(|other| other == sha) {
            unsealed.swap_remove(nth);
        }
    }

    pub(super) fn sync_folder(&self, sha: &Sha256) -> io::Result<()> {
        disk::sync_dir(
            &self
                .path
                .join(super::super::layout::PRIVATE)
                .join("objects")
                .join(folder(sha)),
        )
    }

    /// Looks at what an earlier process left in `tmp/`: an object that was named but perhaps not synced is kept if it is whole.
    pub(super) fn settle(&self) -> io::Result<()> {
        for name in disk::names(&self.tmp)? {
            if let Some(file) = disk::open_read(&self.tmp, &name)? {
                self.settle_one(&file)?;
            }
            disk::unlink(&self.tmp, &name)?;
        }
        Ok(())
    }

    pub(super) fn settle_one(&self, file: &File) -> io::Result<()> {
        let Some(attribute) = attribute_of(file)? else {
            return Ok(());
        };
        let path = object_path(&attribute.sha);
        let named = disk::facts_at(&self.objects, &path)?;
        if named.map(|facts| facts.identity) != Some(disk::facts(file)?.identity) {
            return Ok(());
        }
        if read_through(file, |_| true)? == Some(attribute.sha) {
            disk::sync_all(file)?;
        } else {
            self.unlink(&attribute.sha)?;
        }
        self.sync_folder(&attribute.sha)
    }

    pub(super) fn read_sidecar(&self, attribute: &Attribute) -> io::Result<Option<Vec<u32>>> {
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

    pub(super) fn rewrite_attribute(&self, sha: &Sha256, attribute: &Attribute) -> io::Result<()> {
        disk::set_attribute_at(
            &self.objects,
            &object_path(sha),
            ATTRIBUTE,
            &attribute.encode(),
        )
    }
}

/// What the name of an object's checksums ends with.
const SIDECAR: &str = ".crc";

/// `ab` of `ab/<sha>`.
pub(super) fn folder(sha: &Sha256) -> String {
    format!("{:02x}", sha.0[0])
}

/// Where an object lies under `objects/`.
pub(in crate::store) fn object_path(sha: &Sha256) -> String {
    format!("{:02x}/{sha}", sha.0[0])
}

pub(super) fn sidecar_path(sha: &Sha256) -> String {
    format!("{:02x}/{sha}{SIDECAR}", sha.0[0])
}

pub(super) fn reserve_of(room: Room) -> u64 {
    RESERVE_BYTES.min(room.total / 20)
}

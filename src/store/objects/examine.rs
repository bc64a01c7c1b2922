//! Looking at a copy as a whole: is it there, as long as it should be, and are its bytes the ones its digest names?

use std::fs::File;
use std::io;

use super::super::disk;
use super::attribute::{Attribute, checksum_of, own_attribute};
use super::directory::Directory;
use super::model::StoreError;
use super::reader::read_through;
use super::shared::Objects;
use crate::base::digest::{Sha256, crc32c};
use crate::base::id::DirId;

/// What a look at one copy found.
#[derive(Debug)]
pub enum Verdict {
    /// Every byte is as it should be.
    Whole,
    /// There is no such file, or it is not durable yet.
    Missing,
    /// The file is of another length.
    Length {
        /// Which file, so that no other is taken for it later.
        identity: (u64, u64),
        /// Its length in bytes.
        size: u64,
    },
    /// The bytes have another digest, also when they were read a second time.
    Bytes {
        /// See [`Verdict::Length`].
        identity: (u64, u64),
    },
    /// The disk does not give the bytes.
    Unreadable {
        /// See [`Verdict::Length`].
        identity: (u64, u64),
        /// Its own words.
        error: io::Error,
    },
    /// `pace` said that there is no time for it now.
    Stopped,
}

impl Objects {
    /// Reads the object in directory `id` from the disk (what memory holds of it is dropped first) and compares it with
    /// its digest and `size`. `pace` is given the number of bytes read with every block, may wait, and ends the look by
    /// answering false. Checksums and attribute that are lost or wrong beside whole bytes are made again.
    ///
    /// An error says that nothing can be said about the copy now.
    pub fn examine(
        &self,
        sha: &Sha256,
        id: DirId,
        size: u64,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Verdict, StoreError> {
        let Some(dir) = self.shared.dirs.iter().find(|dir| dir.id == id) else {
            return Ok(Verdict::Missing);
        };
        let opened = dir.stat(sha).and_then(|stat| match stat {
            Some(_) => dir.open(sha),
            None => Ok(None),
        });
        let Some(file) = opened.map_err(|error| dir.blame(error))? else {
            return Ok(Verdict::Missing);
        };
        let facts = disk::facts(&file).map_err(|error| dir.blame(error))?;
        let identity = facts.identity;
        if facts.size != size {
            let size = facts.size;
            return Ok(Verdict::Length { identity, size });
        }
        // A second look: what a cable or a memory cell did once is no damage on the disk.
        for _ in 0..2 {
            match look(&file, sha, pace) {
                Ok(Look::Stopped) => return Ok(Verdict::Stopped),
                Ok(Look::Read { whole: false, .. }) => {}
                Ok(Look::Read { crcs, .. }) => {
                    self.refresh(dir, sha, size, &file, &crcs);
                    return Ok(Verdict::Whole);
                }
                Err(error) if disk::blames_the_disk(&error) => {
                    let said = io::Error::new(error.kind(), error.to_string());
                    drop(dir.blame(error));
                    return Ok(Verdict::Unreadable {
                        identity,
                        error: said,
                    });
                }
                Err(error) => return Err(dir.blame(error)),
            }
        }
        Ok(Verdict::Bytes { identity })
    }

    /// Puts attribute and checksums right where they do not fit the bytes. Both are a cache: what fails is done by the next look.
    fn refresh(&self, dir: &Directory, sha: &Sha256, size: u64, file: &File, crcs: &[u32]) {
        let crc = checksum_of(crcs);
        let known = own_attribute(file, sha).ok().flatten();
        let right = known.is_some_and(|known| known.size == size && known.crc == crc);
        if !right {
            let old = known.unwrap_or_else(|| Attribute::unknown(*sha, size));
            let _ = dir.rewrite_attribute(sha, &Attribute { size, crc, ..old });
        }
        let attribute = Attribute {
            crc,
            ..Attribute::unknown(*sha, size)
        };
        if crcs.len() > 1 && !matches!(dir.read_sidecar(&attribute), Ok(Some(_))) {
            self.shared.keep_sidecar(dir, sha, crcs);
        }
    }
}

enum Look {
    Read { whole: bool, crcs: Vec<u32> },
    Stopped,
}

/// Reads a file from the disk once.
fn look(file: &File, sha: &Sha256, pace: &mut dyn FnMut(u64) -> bool) -> io::Result<Look> {
    disk::forget_pages(file, 0, 0);
    let mut crcs = Vec::new();
    let mut offset = 0;
    let digest = read_through(file, |block| {
        crcs.push(crc32c(block));
        let length = block.len() as u64;
        // The next reader is not to lose what he keeps in memory to one that reads everything once.
        disk::forget_pages(file, offset, length);
        offset += length;
        pace(length)
    })?;
    Ok(digest.map_or(Look::Stopped, |digest| Look::Read {
        whole: digest == *sha,
        crcs,
    }))
}

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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::attribute::ATTRIBUTE;
    use super::super::directory::sidecar_path;
    use super::super::testing::*;
    use super::*;
    use crate::base::limit::BLOCK_BYTES;

    #[test]
    fn a_look_tells_whole_missing_cut_and_wrong_copies_from_each_other() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let dir = dirs.dirs[0].id;
        let size = 2 * BLOCK_BYTES + 17;
        let [whole, wrong, cut, gone] =
            [1, 2, 3, 4].map(|seed| keep(&objects, &some_bytes(size, seed)));
        corrupt(&file_of(root.path(), &wrong), BLOCK_BYTES as u64);
        corrupt(&file_of(root.path(), &cut), 0);
        let file = File::options()
            .write(true)
            .open(file_of(root.path(), &cut))
            .unwrap();
        file.set_len(7).unwrap();
        std::fs::remove_file(file_of(root.path(), &gone)).unwrap();
        let (mut read, size) = (0, size as u64);
        let mut look = |sha| {
            objects.examine(sha, dir, size, &mut |bytes| {
                read += bytes;
                true
            })
        };
        assert!(matches!(look(&whole).unwrap(), Verdict::Whole));
        assert!(matches!(look(&gone).unwrap(), Verdict::Missing));
        assert!(matches!(
            look(&cut).unwrap(),
            Verdict::Length { size: 7, .. }
        ));
        assert!(matches!(look(&wrong).unwrap(), Verdict::Bytes { .. }));
        assert_eq!(read, 3 * size, "what is wrong is read twice");
        let elsewhere = objects.examine(&whole, DirId(dir.0 ^ 1), size, &mut |_| true);
        assert!(matches!(elsewhere.unwrap(), Verdict::Missing));
        let mut blocks = 0;
        let stopped = objects.examine(&whole, dir, size, &mut |_| {
            blocks += 1;
            blocks < 2
        });
        assert!(matches!(stopped.unwrap(), Verdict::Stopped));
        assert_eq!(blocks, 2);
    }

    #[test]
    fn a_look_puts_right_what_stands_beside_whole_bytes() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let size = BLOCK_BYTES + 5;
        let sha = keep(&objects, &some_bytes(size, 5));
        let path = file_of(root.path(), &sha);
        let sidecar = root.path().join(".momo/objects").join(sidecar_path(&sha));
        let look = || {
            let verdict = objects.examine(&sha, dirs.dirs[0].id, size as u64, &mut |_| true);
            assert!(matches!(verdict.unwrap(), Verdict::Whole));
        };
        std::fs::write(&sidecar, [9; 8]).unwrap();
        look();
        let checksums = std::fs::read(&sidecar).unwrap();
        std::fs::remove_file(&sidecar).unwrap();
        look();
        assert_eq!(std::fs::read(&sidecar).unwrap(), checksums);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::open(&path).unwrap();
        let wrong = Attribute {
            crc: 1,
            ..Attribute::unknown(sha, size as u64)
        };
        disk::set_attribute(&file, ATTRIBUTE, &wrong.encode()).unwrap();
        look();
        assert_eq!(content(&objects, &sha).unwrap().len(), size);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
}

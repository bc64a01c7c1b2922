//! An object being read: every block checked before it leaves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::Digest;

use super::attribute::{Attribute, block_count, checksum_of};
use super::directory::Directory;
use super::model::StoreError;
use super::shared::Shared;
use crate::base::digest::{Sha256, crc32c};
use crate::base::limit::BLOCK_BYTES;

/// An object being read. Goes on reading the same bytes when the object is replaced or removed.
pub struct ObjectReader {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: usize,
    pub(super) sha: Sha256,
    pub(super) file: File,
    pub(super) attribute: Attribute,
    pub(super) crcs: Option<Vec<u32>>,
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
    pub(super) fn describe_again(&mut self) -> Result<(), StoreError> {
        let mut crcs = Vec::new();
        let mut size = 0;
        let digest = read_through(&self.file, |block| {
            crcs.push(crc32c(block));
            size += block.len() as u64;
            true
        });
        let dir = self.directory();
        if digest.map_err(|error| dir.blame(error))? != Some(self.sha) {
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

/// Reads a file block by block; its SHA-256, or `None` when `each` wanted no more.
pub(super) fn read_through(
    file: &File,
    mut each: impl FnMut(&[u8]) -> bool,
) -> io::Result<Option<Sha256>> {
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
            if !each(&block[..length]) {
                return Ok(None);
            }
        }
        offset += length as u64;
        if length < block.len() {
            return Ok(Some(Sha256(hash.finalize().into())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attribute::{ATTRIBUTE, attribute_of};
    use super::super::directory::sidecar_path;
    use super::super::testing::*;
    use super::*;
    use crate::base::id::DirId;

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
}

//! What stands beside an object's bytes in its extended attribute, and the checksums of its blocks.

use std::fs::File;
use std::io;

use rustix::fd::AsFd;

use super::super::disk;
use crate::base::digest::{Sha256, crc32c};
use crate::base::id::{Boot, NodeId, OperationId};
use crate::base::limit::BLOCK_BYTES;

/// The attribute's name: who carries it is ours.
pub(in crate::store) const ATTRIBUTE: &str = "user.momo";
/// As long as an inode of 256 bytes on ext4 has room for: no block of its own, no further write.
pub(super) const ATTRIBUTE_BYTES: usize = 67;
/// The upload of an object whose attribute was lost.
pub(super) const NOBODY: OperationId = OperationId {
    node: NodeId(u16::MAX),
    boot: Boot(0),
    sequence: 0,
};

/// The attribute that names the other uploads an object was held for when it was sealed (rule R5): most have none.
pub(super) const HELD: &str = "user.momo.held";
/// Of so many, the last: as many as fit into a block of ext4.
const HELD_KEPT: usize = 200;
const ID_BYTES: usize = 18;

/// Uploads as an attribute: `node(2) boot(8) sequence(8)` each, then the CRC32C of all that.
pub(super) fn encode_held(uploads: &[OperationId]) -> Vec<u8> {
    let from = uploads.len().saturating_sub(HELD_KEPT);
    let ids = uploads.get(from..).unwrap_or_default().iter();
    let mut bytes: Vec<u8> = ids.flat_map(|upload| upload.key()).collect();
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// None for anything that `encode_held` did not make.
pub(super) fn decode_held(bytes: &[u8]) -> Vec<OperationId> {
    let Some((ids, crc)) = bytes.split_last_chunk::<4>() else {
        return Vec::new();
    };
    if crc32c(ids).to_be_bytes() != *crc {
        return Vec::new();
    }
    let id = |bytes: &[u8]| {
        Some(OperationId {
            node: NodeId(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?)),
            boot: Boot(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
            sequence: u64::from_be_bytes(bytes.get(10..18)?.try_into().ok()?),
        })
    };
    ids.chunks_exact(ID_BYTES).filter_map(id).collect()
}

/// The other uploads that an open file was held for.
pub(super) fn held_of(file: impl AsFd) -> io::Result<Vec<OperationId>> {
    let value = disk::attribute::<{ HELD_KEPT * ID_BYTES + 4 }>(file, HELD)?;
    Ok(value.map(|value| decode_held(&value)).unwrap_or_default())
}

/// What stands beside the bytes: `1 sha(32) size(8) node(2) boot(8) sequence(8) crc(4) crc-of-these(4)`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) sha: Sha256,
    pub(super) size: u64,
    pub(super) upload: OperationId,
    /// Of the only block, or of the list of the checksums of all blocks.
    pub(super) crc: u32,
}

impl Attribute {
    /// Of an object whose own was lost.
    pub(super) const fn unknown(sha: Sha256, size: u64) -> Self {
        Self {
            sha,
            size,
            upload: NOBODY,
            crc: 0,
        }
    }

    pub(super) fn encode(&self) -> [u8; ATTRIBUTE_BYTES] {
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
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
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
pub(super) fn attribute_of(file: impl AsFd) -> io::Result<Option<Attribute>> {
    let value = disk::attribute::<ATTRIBUTE_BYTES>(file, ATTRIBUTE)?;
    Ok(value.and_then(|value| Attribute::decode(&value)))
}

/// Whether a file's attribute says that it is this object.
pub(in crate::store) fn is_object(file: &File, sha: &Sha256) -> io::Result<bool> {
    Ok(own_attribute(file, sha)?.is_some())
}

/// The attribute of an object; one that names another object is none.
pub(super) fn own_attribute(file: &File, sha: &Sha256) -> io::Result<Option<Attribute>> {
    Ok(attribute_of(file)?.filter(|attribute| attribute.sha == *sha))
}

pub(super) const fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES as u64)
}

pub(super) fn list_bytes(crcs: &[u32]) -> Vec<u8> {
    crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

pub(super) fn checksum_of(crcs: &[u32]) -> u32 {
    match crcs {
        [only] => *only,
        several => crc32c(&list_bytes(several)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_an_object_is_held_for_come_back_and_nonsense_is_none() {
        let upload = |sequence| OperationId {
            node: NodeId(3),
            boot: Boot(1 << 40),
            sequence,
        };
        let held: Vec<OperationId> = (0..3).map(upload).collect();
        let bytes = encode_held(&held);
        assert_eq!(decode_held(&bytes), held);
        let mut torn = bytes.clone();
        torn[5] ^= 1;
        for bad in [&torn[..], &bytes[1..], &bytes[..3], &[]] {
            assert_eq!(decode_held(bad), []);
        }
        let many: Vec<OperationId> = (0..1_000).map(upload).collect();
        assert_eq!(decode_held(&encode_held(&many)), many[1_000 - HELD_KEPT..]);
    }
}

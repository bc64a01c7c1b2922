//! What the tests of the object store share.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::layout::DataDirs;
use super::directory::object_path;
use super::{Durability, Incoming, Objects, StoreError};
use crate::base::digest::{Sha256, crc32c, sha256};
use crate::base::id::{Boot, NodeId, OperationId};
use crate::base::limit::BLOCK_BYTES;
use crate::base::random::Random;

pub(super) const NODE: NodeId = NodeId(0);
pub(super) const UPLOAD: OperationId = OperationId {
    node: NODE,
    boot: Boot(1),
    sequence: 5,
};

pub(super) fn open(data: &[PathBuf]) -> (DataDirs, Objects) {
    let dirs = DataDirs::open(data, None, NODE, 0).unwrap().dirs;
    let objects = Objects::open(&dirs, Durability::Full).unwrap();
    (dirs, objects)
}

pub(super) fn fill(objects: &Objects, bytes: &[u8]) -> Incoming {
    let mut incoming = objects.create(bytes.len() as u64, UPLOAD).unwrap();
    for block in bytes.chunks(BLOCK_BYTES) {
        incoming.write(block, crc32c(block)).unwrap();
    }
    incoming
}

pub(super) fn keep(objects: &Objects, bytes: &[u8]) -> Sha256 {
    let sha = sha256(bytes);
    fill(objects, bytes).seal(&sha, &Vec::new).unwrap();
    sha
}

pub(super) fn content(objects: &Objects, sha: &Sha256) -> Result<Vec<u8>, StoreError> {
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

pub(super) fn some_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.next() as u8).collect()
}

pub(super) fn file_of(data: &Path, sha: &Sha256) -> PathBuf {
    data.join(".momo/objects").join(object_path(sha))
}

pub(super) fn in_tmp(data: &Path) -> usize {
    std::fs::read_dir(data.join(".momo/tmp")).unwrap().count()
}

/// Overwrites a byte of an object behind the store's back.
pub(super) fn corrupt(path: &Path, at: u64) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

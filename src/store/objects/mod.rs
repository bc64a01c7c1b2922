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

mod aside;
mod attribute;
mod directory;
mod examine;
mod incoming;
mod model;
mod reader;
mod shared;
mod sync;
#[cfg(test)]
mod testing;

pub use aside::Aside;
pub(super) use attribute::{ATTRIBUTE, is_object};
pub(super) use directory::object_path;
pub use examine::Verdict;
pub use incoming::Incoming;
pub use model::{DirFigures, Durability, ObjectStat, StoreError};
pub use reader::ObjectReader;
pub use shared::Objects;

//! Floor 3: durable bytes. Knows disks and files; knows nothing of Raft, plans or protocols.
//!
//! Read in this order: `disk` (system calls) over `steps` (which a test may watch), `log` (the Raft log), `tables` (the catalog's rows)
//! over `room` (their file, with room kept ahead), `layout` (data directories and the state directory), `objects` (immutable bytes by digest),
//! `tree` (the names a person sees).

pub mod disk;
pub mod layout;
pub mod log;
pub mod objects;
mod recent;
mod room;
pub mod steps;
pub mod tables;
pub mod tree;

pub use layout::{DataDir, DataDirs, OpenError, Opened, StateDir};
pub use log::{LogBase, LogEntry, LogError, RaftLog, Recovered};
pub use objects::{
    DirFigures, Durability, Incoming, ObjectReader, ObjectStat, Objects, StoreError,
};
pub use tables::{CatalogTables, TableSnapshot};
pub use tree::{Linked, Tree};

//! Floor 1: the vocabulary every other floor shares; pure values, no clock, no sockets, no files.

pub mod canary;
pub mod digest;
pub mod id;
pub mod limit;
pub mod mode;
pub mod path;
pub mod random;
pub mod table;
pub mod time;

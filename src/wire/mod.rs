//! Floor 2: bytes to values and back, one file per format; no IO, no decisions.

pub mod command;
pub mod peer;
pub mod record;

//! Floor 2: bytes to values and back, one file per format; no IO, no decisions.

pub mod admin;
pub mod change;
pub mod command;
pub mod first;
pub mod lines;
pub mod momo;
pub mod parsed;
pub mod peer;
pub mod record;
pub mod scrub;
pub mod text;

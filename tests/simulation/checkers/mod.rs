//! What must hold, each in a file of its own.

pub mod agreement;
pub mod answers;
pub mod copies;
pub mod leaders;
pub mod leaks;
pub mod order;
pub mod storm;
pub mod truth;

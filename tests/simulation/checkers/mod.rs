//! What must hold, each in a file of its own.

pub mod agreement;
pub mod answers;
pub mod leaders;

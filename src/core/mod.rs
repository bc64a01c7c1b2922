//! Floor 3, decisions: event in, effects out; no clock, no sockets, no files, no threads, no chance.

pub mod node;
pub mod replication;
pub mod settings;

pub use settings::Settings;

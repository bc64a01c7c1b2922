//! Floor 3, decisions: event in, effects out; no clock, no sockets, no files, no threads, no chance.

pub mod catalog;
pub mod consensus;
pub mod health;
pub mod holdings;
pub mod log;
pub mod membership;
pub mod mode;
pub mod node;
pub mod proposals;
pub mod reads;
pub mod repair;
pub mod replication;
pub mod seats;
pub mod settings;
pub mod turn;

pub use settings::Settings;

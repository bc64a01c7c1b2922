//! Floor 2: what the operator asked for: text to lines, lines to values by one table of keys, values to a `Config` that cannot be invalid.
//!
//! Reading order: `model` (what comes out), `keys` (the table), `field` (what a value may look like), `lines` (the file as
//! lines), `parse` (text to `Config`, every error at once), `manual` (the same table as documentation).

pub mod field;
pub mod keys;
pub mod lines;
pub mod manual;
pub mod model;
mod nearest;
pub mod parse;

pub use model::{
    Cluster, Config, Daemon, Durability, Gc, Global, Heartbeat, HostPort, Lfd, Log, LogFormat,
    Membership, Metrics, Raft, Read, Repair, Roles, Server, TextAdmin, Write,
};
pub use parse::ConfigError;

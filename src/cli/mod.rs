//! Floor 7: argv to exit code, one file a subcommand.
//!
//! Reading order: `argv` (the original's spelling), `command` (the subcommands), `exit` (how they end), `dial` and `text` (to
//! a daemon and its text door), `flow` (bytes that are hashed on their way), then the subcommands.

mod admin;
mod argv;
mod catalog;
mod check;
mod client;
mod cluster;
mod command;
mod completions;
mod dial;
mod exit;
mod flow;
mod get;
mod lfd;
mod locate;
mod logging;
mod ls;
mod mode;
mod node;
mod print;
mod progress;
mod put;
mod recover;
mod rm;
mod scrub;
mod secret;
mod server;
mod stat;
mod status;
mod text;

pub use command::run;

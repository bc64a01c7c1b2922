//! momo, a replicated file store: read the floors from the bottom (`base`) to the top (`cli`).

// Tests cut random numbers down to small ones on purpose.
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

pub mod base;
pub mod cli;
pub mod config;
pub mod core;
pub mod doors;
pub mod engine;
pub mod server;
pub mod store;
pub mod wire;

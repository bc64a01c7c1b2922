//! momo, a replicated file store: read the floors from the bottom (`base`) to the top (`cli`).

pub mod base;
pub mod cli;
pub mod config;
pub mod core;
pub mod doors;
pub mod engine;
pub mod server;
pub mod store;
pub mod wire;

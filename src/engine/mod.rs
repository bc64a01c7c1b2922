//! Floor 4: the threads that carry out what the core decides, and the verbs through which doors ask.

pub mod admin;
pub mod bulk;
pub mod census;
pub mod clock;
pub mod collector;
pub mod content;
pub mod driver;
pub mod drives;
pub mod export;
pub mod frame;
pub mod handle;
pub mod handshake;
pub mod import;
pub mod jobs;
pub mod legs;
pub mod links;
pub mod load;
pub mod permits;
pub mod pins;
pub mod put;
pub mod queue;
pub mod roster;
pub mod serve;
pub mod settings;
pub mod shared;
pub mod snapshot;
pub mod start;
pub mod transfer;
pub mod verbs;
pub mod visible;
pub mod world;
pub mod writer;

pub use handle::Handle;

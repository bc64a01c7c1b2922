//! Floor 4: the threads that carry out what the core decides, and the verbs through which doors ask.

pub mod bulk;
pub mod clock;
pub mod driver;
pub mod frame;
pub mod handshake;
pub mod legs;
pub mod links;
pub mod pins;
pub mod settings;
pub mod verbs;

//! Floor 4: the threads that carry out what the core decides, and the verbs through which doors ask.

pub mod driver;
pub mod verbs;

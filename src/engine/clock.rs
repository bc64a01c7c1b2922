//! The one file that reads clocks.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::time::{Mono, Now, Wall};

static START: OnceLock<Instant> = OnceLock::new();

/// The forward-only clock.
pub fn mono() -> Mono {
    let start = *START.get_or_init(Instant::now);
    Mono(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The calendar clock.
pub fn wall() -> Wall {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Both.
pub fn now() -> Now {
    Now {
        mono: mono(),
        wall: wall(),
    }
}

//! Time as a value: what a clock said, passed in from above; nothing here reads one.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of a clock that only goes forward, in microseconds since an arbitrary start of this process. Never stored, never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Mono {
    type Output = Duration;

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A reading of the calendar clock, in nanoseconds since the Unix epoch. It may step; nothing in applying reads one (rule R19).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Wall(pub u64);

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For waits and deadlines.
    pub mono: Mono,
    /// For what people read.
    pub wall: Wall,
}

impl Wall {
    /// The moment as RFC 3339 in UTC with whole seconds, `2026-11-20T20:10:45Z`.
    pub fn rfc3339(self) -> String {
        let (year, month, day, hour, minute, second) = self.civil();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// Year, month, day, hour, minute, second in UTC (days to civil date after Howard Hinnant's `civil_from_days`).
    pub fn civil(self) -> (u64, u64, u64, u64, u64, u64) {
        let seconds = self.0 / 1_000_000_000;
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        (year, month, day, rest / 3_600, rest / 60 % 60, rest % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_prints_as_rfc_3339() {
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(
            Wall(951_782_400_000_000_000).rfc3339(),
            "2000-02-29T00:00:00Z"
        );
        assert_eq!(
            Wall(1_795_205_445_000_000_000).rfc3339(),
            "2026-11-20T20:10:45Z"
        );
    }

    #[test]
    fn time_never_runs_below_zero() {
        assert_eq!(Mono(5) - Mono(9), Duration::ZERO);
        assert_eq!(Mono(5) + Duration::MAX, Mono(u64::MAX));
    }
}

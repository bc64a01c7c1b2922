//! The pace of a scrub: as slow as its time allows, never faster than its bandwidth, slower still while clients work hard.

use std::time::Duration;

/// What looking at one copy costs besides its bytes, in bytes: a million small files must not be read in one go.
pub const COPY_COST: u64 = 64 * 1024;
/// While clients work hard a scrub gets this part of its bandwidth: little, but it never stands still.
const YIELDED: u64 = 8;
/// Clients that move more bytes a second than this work hard.
const HARD: u64 = 4 * 1024 * 1024;

/// What there is to do and how far it is, in bytes (copies at [`COPY_COST`] each included).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: u64,
    /// All of it, as known when the pass began.
    pub total: u64,
    /// Time since the pass began.
    pub elapsed: Duration,
}

/// Says when to go on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most bytes a second.
    bandwidth: u64,
    /// Time over which a pass is spread; zero when it is to be as fast as the bandwidth allows.
    spread: Duration,
    /// When the bytes read so far are paid for, on the caller's clock.
    paid: Duration,
}

impl Pace {
    /// A pace of at most `bandwidth` bytes a second that spreads a pass over `spread`.
    pub fn new(bandwidth: u64, spread: Duration) -> Self {
        Self {
            bandwidth: bandwidth.max(1),
            spread,
            paid: Duration::ZERO,
        }
    }

    /// `bytes` were read at `now` (any clock that only goes forward): the wait until more may be.
    pub fn wait(&mut self, now: Duration, bytes: u64, progress: Progress, hard: bool) -> Duration {
        let rate = if hard {
            (self.bandwidth / YIELDED).max(1)
        } else {
            self.bandwidth
        };
        self.paid = self.paid.max(now) + share_of(Duration::from_secs(1), bytes, rate);
        let paid = self.paid.saturating_sub(now);
        let due = share_of(self.spread, progress.done, progress.total);
        let ahead = due.min(self.spread).saturating_sub(progress.elapsed);
        paid.max(ahead)
    }
}

/// `whole * part / of`; nothing when there is nothing of it.
fn share_of(whole: Duration, part: u64, of: u64) -> Duration {
    if of == 0 {
        return Duration::ZERO;
    }
    let nanos = whole.as_nanos().saturating_mul(part.into()) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Whether clients that moved `bytes` in `time` work hard.
pub fn is_hard(bytes: u64, time: Duration) -> bool {
    u128::from(bytes) * 1000 > u128::from(HARD) * time.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long a pass of `blocks` blocks of `block` bytes takes when reading itself takes no time.
    fn pass(pace: &mut Pace, block: u64, blocks: u64, hard: bool) -> Duration {
        let mut now = Duration::from_secs(1_000_000);
        let start = now;
        for done in 1..=blocks {
            let progress = Progress {
                done: done * block,
                total: blocks * block,
                elapsed: now.saturating_sub(start),
            };
            now += pace.wait(now, block, progress, hard);
        }
        now.saturating_sub(start)
    }

    #[test]
    fn a_pass_is_spread_over_its_time() {
        let spread = Duration::from_hours(7 * 24);
        let took = pass(&mut Pace::new(1 << 30, spread), 256 * 1024, 10_000, false);
        assert!(took.abs_diff(spread) <= SECOND, "{took:?}");
    }

    #[test]
    fn no_pass_is_faster_than_its_bandwidth_and_a_hurried_one_is_just_that_fast() {
        for spread in [Duration::ZERO, SECOND] {
            let took = pass(&mut Pace::new(1024 * 1024, spread), 256 * 1024, 400, false);
            assert_eq!(took.as_secs(), 100);
        }
    }

    #[test]
    fn while_clients_work_hard_it_goes_on_at_an_eighth() {
        let took = pass(
            &mut Pace::new(1024 * 1024, Duration::ZERO),
            256 * 1024,
            40,
            true,
        );
        assert_eq!(took.as_secs(), 80);
        assert!(is_hard(5 << 20, SECOND));
        assert!(!is_hard(3 << 20, SECOND));
        assert!(is_hard(1 << 20, SECOND / 5));
    }

    #[test]
    fn who_is_late_after_a_restart_catches_up_at_the_bandwidth_and_no_faster() {
        let mut pace = Pace::new(1024 * 1024, Duration::from_secs(1_000));
        let late = |done| Progress {
            done,
            total: 1000,
            elapsed: Duration::from_mins(15),
        };
        let now = Duration::from_secs(5);
        assert_eq!(pace.wait(now, 1 << 20, late(1), false), SECOND);
        assert_eq!(pace.wait(now + SECOND, 1 << 20, late(2), false), SECOND);
        let early = pace.wait(now + 2 * SECOND, 1 << 20, late(990), false);
        assert_eq!(early, 90 * SECOND);
    }

    #[test]
    fn a_pass_over_nothing_and_one_longer_than_foreseen_do_not_wait_for_ever() {
        let mut pace = Pace::new(1024, SECOND);
        assert_eq!(
            pace.wait(Duration::ZERO, 0, Progress::default(), false),
            Duration::ZERO
        );
        let grown = Progress {
            done: 5_000,
            total: 10,
            elapsed: Duration::ZERO,
        };
        assert!(pace.wait(Duration::ZERO, 10, grown, false) <= SECOND);
        assert_eq!(
            share_of(Duration::MAX, u64::MAX, 1).as_secs(),
            u64::MAX / 1_000_000_000
        );
    }
}

//! Repair's pace: a bound on the bytes it takes in, and way for uploads, which go first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::limit::BLOCK_BYTES;

/// Blocks asked for at a time, at most: way can be given in between.
const WINDOW: u64 = 32;
/// Windows a second, where the bytes are bounded.
const WINDOWS_A_SECOND: u64 = 4;
/// Uploads are under way until none was for so long.
const CALM: Duration = Duration::from_millis(200);
/// While uploads are under way repair rests so many times as long as it worked: half of the time is theirs alone.
const RESTS: u32 = 1;
/// It rests no longer than this at a time: where everything is slow, copies must still get made.
const REST_MOST: Duration = Duration::from_millis(150);
/// How often one that waits looks whether the node stops.
const LOOK: Duration = Duration::from_millis(100);

/// What the copy workers of a node share.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second; 0 for any number.
    bandwidth: u64,
    /// When what was taken so far is paid for.
    paid: Mutex<Instant>,
    uploads: AtomicUsize,
    last_upload: Mutex<Option<Instant>>,
}

/// An upload under way, until it is dropped.
#[derive(Debug)]
pub struct Upload<'a>(&'a Pace);

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        *self.0.last_upload.lock() = Some(Instant::now());
        self.0.uploads.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pace {
    /// At most `bandwidth` bytes a second; 0 sets no bound.
    pub fn new(bandwidth: u64) -> Self {
        Self {
            bandwidth,
            paid: Mutex::new(Instant::now()),
            uploads: AtomicUsize::new(0),
            last_upload: Mutex::new(None),
        }
    }

    /// An upload begins here.
    pub fn upload(&self) -> Upload<'_> {
        self.uploads.fetch_add(1, Ordering::AcqRel);
        Upload(self)
    }

    /// Blocks to ask for at a time.
    pub fn window(&self) -> u64 {
        if self.bandwidth == 0 {
            return WINDOW;
        }
        (self.bandwidth / WINDOWS_A_SECOND / BLOCK_BYTES as u64).clamp(1, WINDOW)
    }

    /// Waits until so many bytes may be taken in; false when `stops` says so first.
    pub fn take(&self, bytes: u64, stops: impl Fn() -> bool) -> bool {
        if self.bandwidth == 0 {
            return !stops();
        }
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bandwidth);
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let until = {
            let mut paid = self.paid.lock();
            let begin = (*paid).max(Instant::now());
            // What a clock cannot say is never: the caller stops first.
            *paid = begin.checked_add(cost).unwrap_or(begin);
            *paid
        };
        wait(until, stops)
    }

    /// Rests after `worked` if uploads are under way; false when `stops` says so first.
    pub fn give_way(&self, worked: Duration, stops: impl Fn() -> bool) -> bool {
        let lately = || {
            let last = *self.last_upload.lock();
            last.is_some_and(|last| last.elapsed() < CALM)
        };
        if self.uploads.load(Ordering::Acquire) == 0 && !lately() {
            return !stops();
        }
        wait(Instant::now() + (worked * RESTS).min(REST_MOST), stops)
    }
}

fn wait(until: Instant, stops: impl Fn() -> bool) -> bool {
    loop {
        if stops() {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::park_timeout(left.min(LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn bytes_take_the_time_that_the_bound_says_whoever_takes_them() {
        let pace = Pace::new(10_000_000);
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).all(|_| pace.take(100_000, || false)));
            }
        });
        assert!(began.elapsed() >= Duration::from_millis(200));
        assert_eq!(Pace::new(1).window(), 1);
        assert_eq!(Pace::new(0).window(), WINDOW);
        assert_eq!(Pace::new(u64::MAX).window(), WINDOW);
    }

    #[test]
    fn a_wait_ends_with_the_node() {
        let looked = Cell::new(0);
        let stops = || {
            looked.set(looked.get() + 1);
            looked.get() > 2
        };
        assert!(!Pace::new(1).take(u64::MAX, stops));
    }

    #[test]
    fn way_is_given_while_uploads_are_under_way_and_shortly_after() {
        let pace = Pace::new(0);
        let worked = Duration::from_millis(20);
        let rested = || {
            let began = Instant::now();
            assert!(pace.give_way(worked, || false));
            began.elapsed() >= worked * RESTS
        };
        assert!(pace.uploads.load(Ordering::Relaxed) == 0 && !rested());
        let upload = pace.upload();
        assert!(rested());
        drop(upload);
        assert!(pace.last_upload.lock().is_some());
        assert_eq!(pace.uploads.load(Ordering::Relaxed), 0);
    }
}

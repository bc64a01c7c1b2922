//! One sync of a directory for all threads that want it at the same time.

use std::io;

use parking_lot::{Condvar, Mutex};

/// Several threads that want one directory synced at the same time share the sync that begins after they asked.
#[derive(Default)]
pub(super) struct SharedSync {
    progress: Mutex<SyncProgress>,
    ended: Condvar,
}

#[derive(Default)]
struct SyncProgress {
    begun: u64,
    done: u64,
    running: bool,
    /// Syncs that failed.
    failures: u64,
}

impl SharedSync {
    /// How many syncs have failed: asked before what is to be synced is done.
    pub(super) fn failures(&self) -> u64 {
        self.progress.lock().failures
    }

    /// Syncs what was done since `failures` was asked. When any sync failed since, it may have lost that, and no later
    /// one can say otherwise.
    pub(super) fn sync(&self, failures: u64, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut progress = self.progress.lock();
        let wanted = progress.begun + 1;
        while progress.done < wanted {
            if progress.running {
                self.ended.wait(&mut progress);
                continue;
            }
            progress.begun += 1;
            progress.running = true;
            let number = progress.begun;
            drop(progress);
            let result = sync();
            progress = self.progress.lock();
            progress.running = false;
            progress.done = number;
            progress.failures += u64::from(result.is_err());
            self.ended.notify_all();
            result?;
        }
        if progress.failures != failures {
            return Err(io::Error::other("an earlier sync of this directory failed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_sync_that_failed_is_held_against_what_was_done_before_and_not_against_what_comes() {
        let shared = SharedSync::default();
        let before = shared.failures();
        let failed = shared.sync(before, || Err(io::Error::from_raw_os_error(5)));
        assert!(failed.is_err());
        assert!(shared.sync(before, || Ok(())).is_err());
        shared.sync(shared.failures(), || Ok(())).unwrap();
    }

    #[test]
    fn threads_that_want_a_directory_synced_share_syncs_and_none_returns_before_one_that_began_later()
     {
        let shared = SharedSync::default();
        let (clock, syncs) = (AtomicU64::new(0), AtomicU64::new(0));
        let last_begun = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let asked = clock.fetch_add(1, Ordering::SeqCst);
                        let sync = || {
                            let begun = clock.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            last_begun.fetch_max(begun, Ordering::SeqCst);
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        };
                        shared.sync(shared.failures(), sync).unwrap();
                        assert!(last_begun.load(Ordering::SeqCst) > asked);
                    }
                });
            }
        });
        assert!(syncs.load(Ordering::SeqCst) <= 8 * 500);
    }
}

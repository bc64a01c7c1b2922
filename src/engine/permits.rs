//! Rule R20: connections for bytes are opened in bounded numbers, and no two transfers can wait for each other.
//!
//! Only a node that begins something asks, for all the connections it will hold at once, before it takes the first byte:
//! a hop that passes bytes on needs no permit, since what reaches it is bounded where it began. Whoever waits here
//! holds nothing that another one here waits for; mending holds a permit of its own kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::id::NodeId;
use crate::base::limit::{BULK_FEWEST, BULK_MOST, BULK_SHARE};

/// What a refused one hears.
pub const BUSY: &str = "too many transfers between the nodes are under way, try again later";

/// What a connection is for. Each has its own number, so that slow readers keep no writer waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A body on its way to this node's hops.
    Write,
    /// What a hop missed, sent from disk (rule R11).
    Mend,
    /// A body from a peer's disk.
    Read,
    /// A leg that waits for its upload (rule R22).
    Leg,
}

/// The connections this node may open to each peer, for each purpose.
#[derive(Debug)]
pub struct Permits {
    used: Mutex<BTreeMap<(Purpose, NodeId), usize>>,
    freed: Condvar,
    most: usize,
}

impl Permits {
    /// For a cluster of so many members.
    pub fn new(members: usize) -> Self {
        let most = (BULK_SHARE / members.max(1)).clamp(BULK_FEWEST, BULK_MOST);
        Self {
            used: Mutex::new(BTreeMap::new()),
            freed: Condvar::new(),
            most,
        }
    }

    /// Connections to one peer for one purpose, at most.
    pub const fn most(&self) -> usize {
        self.most
    }

    /// One connection to each of these peers, or none at all; waits at most `patience`.
    pub fn take(
        self: &Arc<Self>,
        purpose: Purpose,
        peers: impl IntoIterator<Item = NodeId>,
        patience: Duration,
    ) -> Option<Permit> {
        let mut keys: Vec<_> = peers.into_iter().map(|peer| (purpose, peer)).collect();
        keys.sort_unstable();
        keys.dedup();
        let deadline = Instant::now() + patience;
        let mut used = self.used.lock();
        while keys
            .iter()
            .any(|key| used.get(key).is_some_and(|count| *count >= self.most))
        {
            if self.freed.wait_until(&mut used, deadline).timed_out() {
                return None;
            }
        }
        for key in &keys {
            *used.entry(*key).or_default() += 1;
        }
        Some(Permit {
            permits: Arc::clone(self),
            keys,
        })
    }
}

/// Connections that may be open; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
    keys: Vec<(Purpose, NodeId)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.permits.used.lock();
        for key in &self.keys {
            if let Some(count) = used.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    used.remove(key);
                }
            }
        }
        drop(used);
        self.permits.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn permits() -> Arc<Permits> {
        Arc::new(Permits::new(usize::MAX))
    }

    #[test]
    fn all_are_taken_or_none() {
        let permits = permits();
        let held: Vec<Permit> = (0..permits.most())
            .map(|_| permits.take(Purpose::Write, [A], NOW).unwrap())
            .collect();
        assert!(permits.take(Purpose::Write, [B, A], NOW).is_none());
        let others: Vec<Permit> = (0..permits.most())
            .map(|_| permits.take(Purpose::Write, [B], NOW).unwrap())
            .collect();
        assert!(permits.take(Purpose::Write, [B], NOW).is_none());
        assert!(permits.take(Purpose::Read, [A, B], NOW).is_some());
        drop((held, others));
        assert!(permits.used.lock().is_empty());
        assert!(permits.take(Purpose::Write, [A, B], NOW).is_some());
    }

    #[test]
    fn who_waits_is_woken_when_one_is_given_back() {
        let permits = permits();
        let mut held: Vec<Permit> = (0..permits.most())
            .map(|_| permits.take(Purpose::Mend, [A], NOW).unwrap())
            .collect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                permits
                    .take(Purpose::Mend, [A], Duration::from_secs(30))
                    .is_some()
            });
            held.pop();
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_large_cluster_shares_out_what_a_small_one_need_not() {
        assert_eq!(Permits::new(3).most(), BULK_MOST);
        assert_eq!(Permits::new(1_000).most(), BULK_FEWEST);
    }
}

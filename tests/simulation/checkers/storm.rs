//! No job storm: an object is not ordered again and again, and nothing is ordered or committed when all is well.

use std::collections::{BTreeMap, VecDeque};

use momo::base::digest::Sha256;
use momo::base::id::NodeId;
use momo::wire::peer::Fetch;

/// A second, in which one object is ordered so often at most: by two leaders, each after a first failure.
const SECOND: u64 = 1_000_000;
const ORDERS: usize = 6;
/// Jobs that wait at one node at most.
const QUEUE: usize = momo::base::limit::JOB_QUEUE;

/// Orders to copy.
#[derive(Default)]
pub struct Storm {
    recent: BTreeMap<Sha256, VecDeque<u64>>,
    total: u64,
}

impl Storm {
    /// A node is ordered to make a copy, with so many jobs before it.
    pub fn ordered(
        &mut self,
        now: u64,
        node: NodeId,
        fetch: &Fetch,
        waiting: usize,
    ) -> Result<(), String> {
        self.total += 1;
        let recent = self.recent.entry(fetch.sha256).or_default();
        recent.push_back(now);
        while recent.front().is_some_and(|at| now - at > SECOND) {
            recent.pop_front();
        }
        if recent.len() > ORDERS {
            return Err(format!("{} orders in a second: {fetch:?}", recent.len()));
        }
        if waiting > QUEUE {
            return Err(format!("{waiting} jobs wait at node {node}"));
        }
        Ok(())
    }

    pub const fn total(&self) -> u64 {
        self.total
    }
}

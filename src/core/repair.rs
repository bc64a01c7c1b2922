//! Paying debts: objects with fewer copies than wanted get copies on other nodes, by order of the leader.

use super::health::Health;
use crate::base::id::NodeId;
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::wire::peer::{Fetch, JobId};

/// How repair goes about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// Copy jobs under way and to come.
#[derive(Debug)]
pub struct Repair {}

impl Repair {
    /// Nothing under way.
    pub fn new(_settings: Settings) -> Self {
        Self {}
    }
    /// Time.
    pub fn tick(
        &mut self,
        _now: Mono,
        _term_if_leading: Option<u64>,
        _tables: &dyn Tables,
        _health: &Health,
    ) -> Result<Vec<(NodeId, Fetch)>, TableError> {
        Ok(Vec::new())
    }
    /// Ended.
    pub fn ended(&mut self, _job: JobId, _error: Option<String>, _now: Mono) {}
    /// Next.
    pub fn deadline(&self) -> Option<Mono> {
        None
    }
}

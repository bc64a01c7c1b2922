//! Who answers: signs of life in, verdicts out.

use std::time::Duration;

use super::node::LinkState;
use crate::base::id::{Boot, NodeId};
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::wire::command::Operation;
use crate::wire::peer::Figures;

/// How health is judged.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This node: always up to itself.
    pub node: NodeId,
    /// Time between two heartbeats of a node.
    pub interval: Duration,
    /// A node that gave no sign of life for so long is dead.
    pub timeout: Duration,
}

/// What this node knows of the others' health.
#[derive(Debug)]
pub struct Health {}

impl Health {
    /// Nothing heard yet.
    pub fn new(_settings: Settings) -> Self {
        Self {}
    }
    /// A heartbeat.
    pub fn heartbeat(&mut self, _from: NodeId, _boot: Boot, _figures: Figures, _now: Mono) {}
    /// A link.
    pub fn link(&mut self, _node: NodeId, _state: LinkState, _now: Mono) {}
    /// Time.
    pub fn tick(
        &mut self,
        _now: Mono,
        _leading: bool,
        _tables: &dyn Tables,
    ) -> Result<Vec<Operation>, TableError> {
        Ok(Vec::new())
    }
    /// Figures.
    pub fn figures(&self, _node: NodeId) -> Option<&Figures> {
        None
    }
    /// Up.
    pub fn is_up(&self, _node: NodeId) -> bool {
        true
    }
    /// Next.
    pub fn deadline(&self) -> Option<Mono> {
        None
    }
}

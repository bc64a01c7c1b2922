//! Seats and the lead: who votes is changed one step at a time, and the lead goes to the voter with the lowest number.

use std::collections::BTreeSet;
use std::time::Duration;

use raft::eraftpb::{ConfChange, ConfChangeType};

use super::Consensus;
use crate::base::id::NodeId;
use crate::base::time::Mono;
use crate::core::node::Level;
use crate::core::turn::Turn;

/// A better leader must have been fit for so many shortest elections before it is handed the lead; doubles with each attempt.
pub(super) const PREFER_ELECTIONS: u32 = 4;
/// The longest that wait becomes.
const PREFER_AT_MOST: Duration = Duration::from_mins(5);

/// A member's seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// With a vote.
    Voter,
    /// Without.
    Learner,
    /// None.
    Gone,
}

/// Raft's priority of a node: the lower its number, the higher.
pub(super) fn priority(node: NodeId) -> i64 {
    i64::from(u16::MAX) + 1 - i64::from(node.0)
}

/// How far this node looked for a better leader.
pub(super) struct Preference {
    /// Who would be better, and since when.
    pub(super) candidate: Option<(NodeId, Mono)>,
    /// How long it must have been better.
    pub(super) wait: Duration,
    /// When the lead was last handed over.
    pub(super) tried: Option<Mono>,
}

impl Consensus {
    /// On the leader: proposes to make `node` a voter or a learner, or to take it out. False when a change is under way already.
    pub fn reconfigure(&mut self, node: NodeId, kind: Seat) -> bool {
        if !self.leads() || self.reconfiguring() || self.raw.raft.lead_transferee.is_some() {
            return false;
        }
        let mut change = ConfChange {
            node_id: node.raft(),
            ..ConfChange::default()
        };
        change.set_change_type(match kind {
            Seat::Voter => ConfChangeType::AddNode,
            Seat::Learner => ConfChangeType::AddLearnerNode,
            Seat::Gone => ConfChangeType::RemoveNode,
        });
        self.with(|raw| raw.propose_conf_change(Vec::new(), change))
            .is_ok()
    }

    /// Hands the lead to the best other voter, if there is one.
    pub fn step_down(&mut self, turn: &mut Turn<'_>, up: &BTreeSet<NodeId>) {
        if !self.leads() {
            return;
        }
        let best = self
            .others(up)
            .max_by_key(|(node, matched)| (*matched, std::cmp::Reverse(*node)));
        if let Some((node, _)) = best {
            turn.say(
                Level::Info,
                "lead_handed_over",
                format!("to node {node}, before this one leaves"),
            );
            self.with(|raw| raw.transfer_leader(node.raft()));
        }
    }

    /// The other voters within reach, with what they have matched.
    pub(super) fn others<'a>(
        &'a self,
        up: &'a BTreeSet<NodeId>,
    ) -> impl Iterator<Item = (NodeId, u64)> + use<'a> {
        self.head
            .voters
            .iter()
            .filter_map(|id| NodeId::from_raft(*id))
            .filter(|node| *node != self.node && up.contains(node))
            .filter_map(|node| Some((node, self.matched(node)?)))
    }

    /// Hands the lead to the voter with the lowest id once it has been fit for a while.
    pub(super) fn prefer(&mut self, turn: &mut Turn<'_>, up: &BTreeSet<NodeId>) {
        let now = turn.mono();
        let better = self
            .others(up)
            .map(|(node, _)| node)
            .filter(|node| *node < self.node && self.caught_up(*node))
            .min();
        let Some(better) = better else {
            self.preference.candidate = None;
            return;
        };
        let since = match self.preference.candidate {
            Some((node, since)) if node == better => since,
            _ => {
                self.preference.candidate = Some((better, now));
                return;
            }
        };
        if let Some(tried) = self.preference.tried
            && now - tried > self.preference.wait.saturating_mul(4)
        {
            self.preference.wait = self.election * PREFER_ELECTIONS;
            self.preference.tried = None;
        }
        if now - since < self.preference.wait || self.reconfiguring() {
            return;
        }
        self.preference.candidate = None;
        self.preference.tried = Some(now);
        self.preference.wait = self.preference.wait.saturating_mul(2).min(PREFER_AT_MOST);
        turn.say(
            Level::Info,
            "lead_handed_over",
            format!("to node {better}, which leads while it lives"),
        );
        self.with(|raw| raw.transfer_leader(better.raft()));
    }
}

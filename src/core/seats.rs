//! Who votes (rule R14): as many as there should be, none fewer by themselves; who is gone is replaced by a living spare, one step at a time.
//!
//! A spare gets its vote before the one it replaces loses it, so for a moment there is one voter too many.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::id::NodeId;
use crate::base::time::Mono;
use crate::wire::peer::SnapshotHead;
use crate::wire::record::{Administrative, NodeRecord};

/// Time between two looks while nothing else happens.
const LOOK: Duration = Duration::from_millis(100);

/// What is known when the seats are looked at.
pub struct View<'a> {
    /// The leader, who looks.
    pub leader: NodeId,
    /// The configuration.
    pub head: &'a SnapshotHead,
    /// The members.
    pub members: &'a [NodeRecord],
    /// Those that were removed whether or not anyone takes over their vote.
    pub forced: &'a BTreeSet<NodeId>,
    /// Learners that may vote and are within reach, ascending, each with whether it has caught up.
    pub spares: &'a [(NodeId, bool)],
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Gives a node a vote.
    Give(NodeId),
    /// Makes a voter a learner.
    Withdraw(NodeId),
    /// Takes a node out.
    Remove(NodeId),
    /// The leader is the one to go: another must lead first.
    HandOver,
}

/// Looks after the seats while this node leads.
#[derive(Debug)]
pub struct Seats {
    /// How long a voter may be dead before it is replaced.
    grace: Duration,
    /// Since when voters are known to be dead.
    dead: BTreeMap<NodeId, Mono>,
    /// When to look again.
    next: Option<Mono>,
}

impl Seats {
    /// Nothing known yet.
    pub const fn new(grace: Duration) -> Self {
        Self {
            grace,
            dead: BTreeMap::new(),
            next: None,
        }
    }

    /// This node does not lead: what it knew is void.
    pub fn rest(&mut self) {
        self.dead.clear();
        self.next = None;
    }

    /// Whether it is time to look; counts as a look.
    pub fn is_due(&mut self, now: Mono) -> bool {
        let due = self.next.is_none_or(|next| next <= now);
        if due {
            self.next = Some(now + LOOK);
        }
        due
    }

    /// The next step towards `target` voters, all of whom can be counted on; `None` when nothing is to be done or can be.
    pub fn look(&mut self, now: Mono, target: usize, view: &View<'_>) -> Option<Step> {
        let voters: Vec<NodeId> = nodes(&view.head.voters);
        self.note_dead(now, &voters, view.members);
        let is_member = |node: NodeId| view.members.iter().any(|member| member.id == node);
        let mut gone: Vec<NodeId> = voters
            .iter()
            .copied()
            .filter(|node| self.is_gone(now, *node, view.members))
            .collect();
        // First those that cannot come back.
        gone.sort_by_key(|node| (is_member(*node), *node));
        let spare = view.spares.first();
        let fit = spare.filter(|(_, fit)| *fit).map(|(node, _)| *node);

        // One more than an odd number is a replacement half way.
        let odd = match voters.len() {
            even if even % 2 == 0 => even.saturating_sub(1),
            odd => odd,
        };
        let target = target.max(odd);
        if voters.len() > target {
            let least = || voters.iter().copied().rfind(|node| *node != view.leader);
            let victim = gone.first().copied().or_else(least)?;
            return Some(if victim == view.leader {
                Step::HandOver
            } else if is_member(victim) {
                Step::Withdraw(victim)
            } else {
                Step::Remove(victim)
            });
        }
        // From one odd number to the next: two voters would need each other, and be worse off than one.
        let pair = view.spares.iter().take(2).filter(|(_, fit)| *fit).count() == 2;
        let grows = voters.len() < target && (voters.len().is_multiple_of(2) || pair);
        if (grows || (voters.len() == target && !gone.is_empty()))
            && let Some(fit) = fit
        {
            return Some(Step::Give(fit));
        }
        if spare.is_none()
            && let Some(victim) = gone.iter().find(|node| view.forced.contains(node))
        {
            return Some(if *victim == view.leader {
                Step::HandOver
            } else {
                Step::Remove(*victim)
            });
        }
        let learners = nodes(&view.head.learners);
        let strange = learners.into_iter().find(|node| !is_member(*node));
        strange.map(Step::Remove)
    }

    fn note_dead(&mut self, now: Mono, voters: &[NodeId], members: &[NodeRecord]) {
        let dead = |node: &NodeId| {
            let mut all = members.iter();
            all.any(|member| member.id == *node && !member.alive)
        };
        self.dead
            .retain(|node, _| voters.contains(node) && dead(node));
        for node in voters.iter().filter(|node| dead(node)) {
            self.dead.entry(*node).or_insert(now);
        }
    }

    /// Whether a voter is to be replaced.
    fn is_gone(&self, now: Mono, node: NodeId, members: &[NodeRecord]) -> bool {
        let Some(member) = members.iter().find(|member| member.id == node) else {
            return true;
        };
        match member.administrative {
            Administrative::Dead => true,
            // An operator knows that it comes back.
            Administrative::Down => false,
            _ => {
                let since = self.dead.get(&node);
                since.is_some_and(|since| now - *since >= self.grace)
            }
        }
    }
}

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().filter_map(|id| NodeId::from_raft(*id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Boot;

    const GRACE: Duration = Duration::from_mins(2);

    /// A cluster as the seats see it.
    struct Table {
        seats: Seats,
        head: SnapshotHead,
        members: Vec<NodeRecord>,
        forced: BTreeSet<NodeId>,
        spares: Vec<(NodeId, bool)>,
        now: Mono,
    }

    impl Table {
        fn new(voters: &[u16], learners: &[u16]) -> Self {
            let ids = |nodes: &[u16]| nodes.iter().map(|node| NodeId(*node).raft()).collect();
            let member = |node: &u16| NodeRecord {
                id: NodeId(*node),
                name: String::new(),
                address: String::new(),
                manages: true,
                stores: true,
                administrative: Administrative::Alive,
                alive: true,
                dirs: Vec::new(),
                boot: Boot(1),
                knows: 1,
                lost: false,
                gone: Vec::new(),
            };
            Self {
                seats: Seats::new(GRACE),
                head: SnapshotHead {
                    index: 9,
                    term: 2,
                    voters: ids(voters),
                    learners: ids(learners),
                },
                members: voters.iter().chain(learners).map(member).collect(),
                forced: BTreeSet::new(),
                spares: Vec::new(),
                now: Mono(1),
            }
        }

        fn member(&mut self, node: u16) -> &mut NodeRecord {
            let mut members = self.members.iter_mut();
            members.find(|member| member.id.0 == node).unwrap()
        }

        fn look(&mut self, target: usize) -> Option<Step> {
            let view = View {
                leader: NodeId(0),
                head: &self.head,
                members: &self.members,
                forced: &self.forced,
                spares: &self.spares,
            };
            self.seats.look(self.now, target, &view)
        }

        /// Works steps off until nothing is left to be done.
        fn settle(&mut self, target: usize) -> Vec<Step> {
            let mut steps = Vec::new();
            while let Some(step) = self.look(target) {
                let head = &mut self.head;
                match step {
                    Step::Give(node) => {
                        head.learners.retain(|id| *id != node.raft());
                        head.voters.push(node.raft());
                        head.voters.sort_unstable();
                        self.spares.retain(|(spare, _)| *spare != node);
                    }
                    Step::Withdraw(node) => {
                        head.voters.retain(|id| *id != node.raft());
                        head.learners.push(node.raft());
                    }
                    Step::Remove(node) => {
                        head.voters.retain(|id| *id != node.raft());
                        head.learners.retain(|id| *id != node.raft());
                    }
                    Step::HandOver => return steps,
                }
                steps.push(step);
                assert!(steps.len() < 20, "{steps:?}");
            }
            steps
        }
    }

    #[test]
    fn a_dead_voter_is_replaced_after_the_grace_and_not_before() {
        let mut table = Table::new(&[0, 1, 2], &[3]);
        table.spares = vec![(NodeId(3), true)];
        table.member(2).alive = false;
        assert_eq!(table.look(3), None);
        table.now = table.now + GRACE / 2;
        assert_eq!(table.look(3), None);
        table.now = table.now + GRACE / 2;
        let steps = [Step::Give(NodeId(3)), Step::Withdraw(NodeId(2))];
        assert_eq!(table.settle(3), steps);
        assert_eq!(table.head.voters, [1, 2, 4]);
    }

    #[test]
    fn a_voter_that_comes_back_in_time_keeps_its_vote_and_its_grace_begins_anew() {
        let mut table = Table::new(&[0, 1, 2], &[3]);
        table.spares = vec![(NodeId(3), true)];
        for _ in 0..3 {
            table.member(2).alive = false;
            assert_eq!(table.look(3), None);
            table.now = table.now + GRACE * 3 / 4;
            assert_eq!(table.look(3), None);
            table.member(2).alive = true;
            assert_eq!(table.look(3), None);
        }
    }

    #[test]
    fn without_a_living_spare_nobody_loses_a_vote() {
        let mut table = Table::new(&[0, 1, 2], &[3]);
        for administrative in [Administrative::Alive, Administrative::Dead] {
            table.member(2).administrative = administrative;
            table.member(2).alive = false;
            table.now = table.now + GRACE * 10;
            assert_eq!(table.look(3), None);
            // One that has not caught up is waited for.
            table.spares = vec![(NodeId(3), false)];
            assert_eq!(table.look(3), None);
        }
    }

    #[test]
    fn one_declared_dead_is_replaced_at_once_and_one_declared_down_never() {
        let mut table = Table::new(&[0, 1, 2], &[3]);
        table.spares = vec![(NodeId(3), true)];
        table.member(1).alive = false;
        table.member(1).administrative = Administrative::Down;
        assert_eq!(table.look(3), None);
        table.now = table.now + GRACE * 10;
        assert_eq!(table.look(3), None);
        table.member(1).administrative = Administrative::Dead;
        let steps = [Step::Give(NodeId(3)), Step::Withdraw(NodeId(1))];
        assert_eq!(table.settle(3), steps);
    }

    #[test]
    fn one_that_was_removed_is_replaced_and_then_taken_out() {
        let mut table = Table::new(&[0, 1, 2], &[3]);
        table.spares = vec![(NodeId(3), true)];
        table.members.retain(|member| member.id.0 != 2);
        let steps = [Step::Give(NodeId(3)), Step::Remove(NodeId(2))];
        assert_eq!(table.settle(3), steps);
        // A learner is simply taken out.
        table.head.learners = vec![8];
        assert_eq!(table.settle(3), [Step::Remove(NodeId(7))]);
    }

    #[test]
    fn a_removed_voter_keeps_its_seat_without_a_spare_unless_it_was_forced_out() {
        let mut table = Table::new(&[0, 1, 2], &[]);
        table.members.retain(|member| member.id.0 != 2);
        assert_eq!(table.look(3), None);
        table.forced.insert(NodeId(2));
        assert_eq!(table.settle(3), [Step::Remove(NodeId(2))]);
        assert_eq!(table.head.voters, [1, 2]);
        table.members.retain(|member| member.id.0 != 1);
        table.forced.insert(NodeId(1));
        assert_eq!(table.settle(3), [Step::Remove(NodeId(1))]);
        assert_eq!(table.head.voters, [1]);
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_once_its_spare_votes() {
        let mut table = Table::new(&[0], &[3]);
        table.spares = vec![(NodeId(3), true)];
        table.members.retain(|member| member.id.0 != 0);
        assert_eq!(table.settle(1), [Step::Give(NodeId(3))]);
        assert_eq!(table.look(1), Some(Step::HandOver));
    }

    #[test]
    fn votes_are_given_while_there_are_fewer_than_there_should_be() {
        let mut table = Table::new(&[0], &[1, 2, 3]);
        table.spares = vec![(NodeId(1), true), (NodeId(2), true), (NodeId(3), true)];
        let steps = [Step::Give(NodeId(1)), Step::Give(NodeId(2))];
        assert_eq!(table.settle(3), steps);
        // And never taken because there should be fewer.
        assert_eq!(table.settle(1), []);
    }

    #[test]
    fn one_voter_is_not_made_to_need_a_second_while_there_is_no_third() {
        let mut table = Table::new(&[0], &[1, 2]);
        table.spares = vec![(NodeId(1), true), (NodeId(2), false)];
        assert_eq!(table.look(3), None);
        table.spares[1].1 = true;
        assert_eq!(table.settle(3).len(), 2);
        // Where a voter is missing already, one that has caught up is enough.
        let mut table = Table::new(&[0, 1], &[2]);
        table.spares = vec![(NodeId(2), true)];
        assert_eq!(table.settle(3), [Step::Give(NodeId(2))]);
    }

    #[test]
    fn a_replacement_half_way_is_finished_also_when_the_dead_came_back() {
        let mut table = Table::new(&[0, 1, 2, 3], &[]);
        assert_eq!(table.settle(3), [Step::Withdraw(NodeId(3))]);
    }
}

//! What a leader does about members: takes in who asks, carries out what the catalog says of them, one change at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Membership, Standing};
use crate::base::id::NodeId;
use crate::base::table::TableError;
use crate::base::time::Mono;
use crate::core::catalog::query;
use crate::core::consensus::{Consensus, Seat};
use crate::core::node::Level;
use crate::core::seats;
use crate::core::turn::Turn;
use crate::wire::command::{Birth, BirthMember, Operation};
use crate::wire::peer::Message;
use crate::wire::record::{Administrative, NodeRecord};

/// A command of the leader about members that has not shown in the catalog is given again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// Time between two times that a removed node is told.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A node that asks to be made a member.
#[derive(Debug)]
pub(super) struct Applicant {
    /// As what.
    pub(super) card: BirthMember,
    /// When its addition was last proposed.
    pub(super) proposed: Option<Mono>,
}

impl Membership {
    /// On the leader: makes those who ask learners, one change at a time, and tells them.
    pub(super) fn take_in(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &mut Consensus,
    ) -> Result<(), TableError> {
        let Standing::Member(cluster) = self.standing else {
            return Ok(());
        };
        for node in self.asking.clone() {
            if query::node(&turn.tables, node)?.is_none() {
                self.apply_for(turn, node);
                continue;
            }
            self.applicants.remove(&node);
            if raft.learns(node) {
                raft.reset_progress(node);
                self.floors.insert(node, raft.last_index());
                self.acknowledged.remove(&node);
                self.asking.remove(&node);
                turn.send(node, Message::Admit { cluster });
                continue;
            }
            // What it acknowledged is gone, and must not count for a majority again.
            raft.reset_progress(node);
            let (event, text) = if raft.votes(node) {
                ("vote_withdrawn", "has lost its log and")
            } else {
                ("member_taken_in", "asks for it and")
            };
            if raft.reconfigure(node, Seat::Learner) {
                let text = format!("node {node} {text} is taken in without a vote");
                turn.say(Level::Warn, event, text);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Who is no member by the catalog is made one if it asks for that.
    fn apply_for(&mut self, turn: &Turn<'_>, node: NodeId) {
        let Some(applicant) = self.applicants.get_mut(&node) else {
            self.asking.remove(&node);
            return;
        };
        let now = turn.mono();
        if applicant.proposed.is_none_or(|at| now - at >= AGAIN) {
            applicant.proposed = Some(now);
            let card = applicant.card.clone();
            self.operations.push(Operation::Add {
                node,
                name: card.name,
                address: card.address,
                stores: card.stores,
                manages: card.manages,
            });
        }
    }

    /// On the leader: what the catalog says about members is carried out, one step at a time.
    pub(super) fn lead(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &mut Consensus,
    ) -> Result<(), TableError> {
        if !raft.serves() || !self.seats.is_due(turn.mono()) {
            return Ok(());
        }
        let members = query::nodes(&turn.tables)?;
        self.drop_copies(turn)?;
        self.tell_removed(turn, raft, &members)?;
        if !raft.reconfiguring() {
            self.look_at_seats(turn, raft, &members)?;
        }
        Ok(())
    }

    /// Copies of those who are gone for good stop counting, a page at a time.
    fn drop_copies(&mut self, turn: &Turn<'_>) -> Result<(), TableError> {
        let now = turn.mono();
        let due = query::sweeps(&turn.tables)?;
        self.sweeps
            .retain(|node, _| due.iter().any(|sweep| sweep.node == *node));
        for sweep in due {
            let under_way = self.sweeps.get(&sweep.node);
            if under_way.is_some_and(|(last, at)| *last == sweep && now - *at < AGAIN) {
                continue;
            }
            let (node, after) = (sweep.node, sweep.after);
            self.sweeps.insert(node, (sweep, now));
            self.operations.push(Operation::DropCopies { node, after });
        }
        Ok(())
    }

    /// Those who were removed are told as soon as they are within reach.
    fn tell_removed(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &Consensus,
        members: &[NodeRecord],
    ) -> Result<(), TableError> {
        let Standing::Member(cluster) = self.standing else {
            return Ok(());
        };
        let now = turn.mono();
        for (node, peer) in &mut self.peers {
            let seated = raft.votes(*node) || raft.learns(*node);
            let told = peer.told.is_some_and(|told| now - told < TELL_AGAIN);
            let joins = self.applicants.contains_key(node);
            let member = members.iter().any(|member| member.id == *node);
            if !peer.up || seated || told || joins || member {
                continue;
            }
            peer.told = Some(now);
            if let Some(former) = query::former(&turn.tables, *node)? {
                let index = former.removed.0;
                turn.send(*node, Message::Removed { cluster, index });
            }
        }
        Ok(())
    }

    fn look_at_seats(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &mut Consensus,
        members: &[NodeRecord],
    ) -> Result<(), TableError> {
        let born = if let Some(born) = self.born_voters {
            born
        } else {
            let birth = query::birth(&turn.tables)?;
            let votes = |birth: Birth| birth.members.iter().filter(|m| m.votes).count();
            *self.born_voters.insert(birth.map_or(1, votes))
        };
        let forced = forced_out(turn, raft, members)?;
        let spares = self.spares(raft, members);
        let view = seats::View {
            leader: self.node,
            head: raft.head(),
            members,
            forced: &forced,
            spares: &spares,
        };
        let target = self.settings.voters.max(born);
        let Some(step) = self.seats.look(turn.mono(), target, &view) else {
            return Ok(());
        };
        let (node, seat, event, why) = match step {
            seats::Step::Give(node) => (node, Seat::Voter, "vote_given", "has caught up and votes"),
            seats::Step::Withdraw(node) => {
                let why = "is dead or one too many, and votes no more";
                (node, Seat::Learner, "vote_withdrawn", why)
            }
            seats::Step::Remove(node) => {
                let why = "is no member any more";
                (node, Seat::Gone, "member_removed", why)
            }
            seats::Step::HandOver => {
                let up = self.up();
                raft.step_down(turn, &up);
                return Ok(());
            }
        };
        if raft.reconfigure(node, seat) {
            turn.say(Level::Info, event, format!("node {node} {why}"));
        }
        Ok(())
    }

    /// Learners that may take over a vote, ascending, each with whether it has caught up. A lower one that is still catching up goes first.
    fn spares(&self, raft: &Consensus, members: &[NodeRecord]) -> Vec<(NodeId, bool)> {
        let learners = raft.head().learners.iter();
        let suits = |node: &NodeId| {
            let up = self.peers.get(node).is_some_and(|peer| peer.up);
            let may = |member: &NodeRecord| {
                let stays = matches!(
                    member.administrative,
                    Administrative::Alive | Administrative::Readonly
                );
                member.id == *node && member.manages && stays
            };
            up && !self.asking.contains(node) && members.iter().any(may)
        };
        learners
            .filter_map(|id| NodeId::from_raft(*id))
            .filter(suits)
            .map(|node| (node, self.fit(node, raft)))
            .collect()
    }

    /// Whether a learner has caught up, by its own word too: acknowledgements of its former life may still have been on their way, and one that waits to be taken in says nothing of any tables.
    fn fit(&self, node: NodeId, raft: &Consensus) -> bool {
        let Some(peer) = self.peers.get(&node) else {
            return false;
        };
        let boot = peer.hello.as_ref().map(|hello| hello.boot);
        let by_its_word = |floor: u64| {
            peer.applied
                .is_some_and(|(of, applied)| Some(of) == boot && applied >= floor)
        };
        raft.caught_up(node) && by_its_word(self.floors.get(&node).copied().unwrap_or(1))
    }
}

/// Those of the configuration that were removed by force.
fn forced_out(
    turn: &Turn<'_>,
    raft: &Consensus,
    members: &[NodeRecord],
) -> Result<BTreeSet<NodeId>, TableError> {
    let mut forced = BTreeSet::new();
    let voters = raft.head().voters.iter();
    for node in voters.filter_map(|id| NodeId::from_raft(*id)) {
        if !members.iter().any(|member| member.id == node)
            && query::former(&turn.tables, node)?.is_some_and(|former| former.force)
        {
            forced.insert(node);
        }
    }
    Ok(forced)
}

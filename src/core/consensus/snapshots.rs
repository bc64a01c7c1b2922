//! Snapshots: an offer is held back until the catalog it stands for has been fetched; none that a peer did not answer keeps it paused.

use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{ProgressState, SnapshotStatus};

use super::Consensus;
use crate::base::id::NodeId;
use crate::base::time::Mono;
use crate::core::log::configuration;
use crate::core::node::{Effect, Level};
use crate::core::turn::Turn;
use crate::wire::peer::SnapshotHead;

/// A snapshot that a peer has not answered for so many shortest elections is offered again.
const SNAPSHOT_ELECTIONS: u32 = 10;

/// A snapshot that a leader offers.
pub(super) struct Offered {
    pub(super) from: NodeId,
    pub(super) message: Message,
}

impl Consensus {
    /// Whether a snapshot brings what the log does not have.
    pub(super) fn wants(&self, message: &Message) -> bool {
        let metadata = message.get_snapshot().get_metadata();
        let log = &self.raw.raft.raft_log;
        metadata.index > log.committed && !log.match_term(metadata.index, metadata.term)
    }

    pub(super) fn offer(&mut self, turn: &mut Turn<'_>, from: NodeId, message: Message) {
        self.offered = Some(Offered { from, message });
        if !self.fetching {
            self.fetching = true;
            turn.last(Effect::FetchSnapshot { from });
        }
    }

    /// The catalog was fetched, or not.
    pub fn fetched(&mut self, turn: &mut Turn<'_>, head: Option<SnapshotHead>) {
        self.fetching = false;
        let (Some(head), Some(Offered { from, mut message })) = (head, self.offered.take()) else {
            // The leader offers it again.
            return;
        };
        if head.term > message.term || message.term < self.raw.raft.term {
            // The lead has changed hands; what was fetched may be older than what the new leader offers.
            return;
        }
        if head.index <= self.committed() {
            return;
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = head.index;
        metadata.term = head.term;
        metadata.set_conf_state(configuration(&head));
        message.set_snapshot(snapshot);
        turn.say(
            Level::Info,
            "snapshot_fetched",
            format!("from node {from}: stands at {}", head.index),
        );
        let _ = self.with(|raw| raw.step(message));
    }

    /// A peer that was sent a snapshot answers with where it stands: the leader goes on from there, also when that is not where the snapshot it offered stood.
    pub(super) fn step_append_response(&mut self, message: Message) {
        let peer = message.from;
        let before = self.in_snapshot(peer);
        let (index, reject) = (message.index, message.reject);
        let _ = self.with(|raw| raw.step(message));
        let (Some(before), Some(after)) = (before, self.in_snapshot(peer)) else {
            return;
        };
        if !reject && index > before && after >= index {
            self.with(|raw| raw.report_snapshot(peer, SnapshotStatus::Failure));
            self.snapshots.remove(&peer);
        }
    }

    /// What a peer has matched, while it is being sent a snapshot.
    fn in_snapshot(&self, peer: u64) -> Option<u64> {
        let progress = self.raw.raft.prs().get(peer)?;
        (self.leads() && progress.state == ProgressState::Snapshot).then_some(progress.matched)
    }

    /// Whether a snapshot is on its way into the tables: they stand further than [`Consensus::head`] says.
    pub fn is_installing(&self) -> bool {
        let under_way = || self.under_way.iter().any(|work| work.installed.is_some());
        self.staged.install.is_some() || under_way()
    }

    /// Offers snapshots again that were not answered, so that no peer stays paused.
    pub(super) fn offer_again(&mut self, now: Mono) {
        let peers: Vec<u64> = self.raw.raft.prs().iter().map(|(id, _)| *id).collect();
        for peer in peers {
            if self.in_snapshot(peer).is_none() {
                self.snapshots.remove(&peer);
                continue;
            }
            let since = *self.snapshots.entry(peer).or_insert(now);
            if now - since > self.election * SNAPSHOT_ELECTIONS {
                self.snapshots.remove(&peer);
                self.with(|raw| raw.report_snapshot(peer, SnapshotStatus::Failure));
            }
        }
    }

    /// The link to a peer is lost.
    pub fn lost(&mut self, node: NodeId) {
        let peer = node.raft();
        if self.in_snapshot(peer).is_some() {
            self.snapshots.remove(&peer);
            self.with(|raw| raw.report_snapshot(peer, SnapshotStatus::Failure));
        }
        self.with(|raw| raw.report_unreachable(peer));
    }

    /// On the leader: a peer has lost what it had; what is known of it is void.
    pub fn reset_progress(&mut self, node: NodeId) {
        // A snapshot offered before the peer could take it is void too: the peer would wait for the next offer.
        let offered = self.in_snapshot(node.raft()).is_some();
        if node == self.node || (self.matched(node).unwrap_or(0) == 0 && !offered) {
            return;
        }
        self.snapshots.remove(&node.raft());
        self.with(|raw| {
            if let Some(progress) = raw.raft.mut_prs().get_mut(node.raft()) {
                progress.snapshot_failure();
                progress.matched = 0;
                progress.become_probe();
            }
        });
    }

    pub(super) fn note_snapshots(&mut self, now: Mono, messages: &[Message]) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots.insert(message.to, now);
            }
        }
    }
}

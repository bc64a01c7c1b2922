//! Who answers: signs of life in, verdicts for the catalog out. The verdicts of the leader count; the others only know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::catalog::query;
use super::node::LinkState;
use crate::base::id::{Boot, NodeId};
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::wire::command::Operation;
use crate::wire::peer::Figures;
use crate::wire::record::NodeRecord;

/// A verdict that has not shown in the catalog is proposed again after this, or after a heartbeat interval if longer.
const AGAIN: Duration = Duration::from_millis(200);
/// A node whose refused connection was refused again is dead after so long without a sign of life, or a tenth of the
/// timeout if that is shorter: a restart is not a death.
const SETTLE: Duration = Duration::from_secs(1);
/// A node that stayed up for so many timeouts is steady again.
const STEADY: u32 = 4;
/// A node that keeps coming and going waits at most so many heartbeat intervals before it counts as back.
const FLAPS: u32 = 4;

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
pub struct Health {
    settings: Settings,
    peers: BTreeMap<NodeId, Peer>,
    /// The latest moment heard of.
    now: Mono,
    /// Since when this node leads.
    leading: Option<Mono>,
    deadline: Option<Mono>,
}

#[derive(Debug, Default)]
struct Peer {
    /// The start its heartbeats are of; `None` before the first.
    boot: Option<Boot>,
    figures: Option<Figures>,
    /// The last sign of life.
    heard: Option<Mono>,
    linked: bool,
    suspicion: Option<Suspicion>,
    /// The last verdict proposed, and when.
    proposed: Option<(bool, Boot, Mono)>,
    /// Judged dead and not heard of since.
    dead: bool,
    /// Since when it answers without being judged dead in between.
    steady_since: Mono,
    /// Times in a row that it died soon after coming back.
    flaps: u32,
}

/// A link that was lost or refused.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Mono,
    /// Without a sign of life until then it is dead.
    until: Mono,
}

impl Peer {
    fn sign_of_life(&mut self, now: Mono) {
        self.heard = Some(now);
        self.suspicion = None;
        if self.dead {
            self.dead = false;
            self.steady_since = now;
        }
    }

    fn is_condemned(&self, now: Mono) -> bool {
        self.suspicion
            .is_some_and(|suspicion| suspicion.until <= now)
    }
}

impl Health {
    /// Nothing heard yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            peers: BTreeMap::new(),
            now: Mono::default(),
            leading: None,
            deadline: None,
        }
    }

    /// A node's heartbeat came in, or this node's own figures; void when a later start of the node was heard of.
    pub fn heartbeat(&mut self, from: NodeId, boot: Boot, figures: Figures, now: Mono) {
        self.now = self.now.max(now);
        let peer = self.peers.entry(from).or_default();
        if peer.boot.is_some_and(|known| boot < known) {
            return;
        }
        let changed = peer.dead || peer.boot != Some(boot);
        peer.boot = Some(boot);
        peer.figures = Some(figures);
        peer.sign_of_life(now);
        self.look_at(if changed {
            now
        } else {
            now + self.settings.timeout
        });
    }

    /// The control link to a node came up, was lost, or was refused; refusals may be told one by one.
    pub fn link(&mut self, node: NodeId, state: LinkState, now: Mono) {
        self.now = self.now.max(now);
        let Settings {
            interval, timeout, ..
        } = self.settings;
        let peer = self.peers.entry(node).or_default();
        peer.linked = state == LinkState::Up;
        if peer.linked {
            peer.sign_of_life(now);
            self.look_at(now + timeout);
            return;
        }
        // A living node is heard again within two intervals; one that is refused a second time has no process left.
        let suspicion = match peer.suspicion {
            None => Suspicion {
                since: now,
                until: now + timeout.min(interval * 2),
            },
            Some(Suspicion { since, until }) => {
                let settled = (since + SETTLE.min(timeout / 10)).max(now);
                Suspicion {
                    since,
                    until: until.min(settled),
                }
            }
        };
        peer.suspicion = Some(suspicion);
        self.look_at(suspicion.until);
    }

    /// Time passed. On the leader: the verdicts that the catalog should take in, each as an `Observe`.
    ///
    /// A new leader waits one timeout before it judges silence.
    pub fn tick(
        &mut self,
        now: Mono,
        leading: bool,
        tables: &dyn Tables,
    ) -> Result<Vec<Operation>, TableError> {
        self.now = self.now.max(now);
        let now = self.now;
        if !leading {
            self.leading = None;
            self.deadline = None;
            return Ok(Vec::new());
        }
        let since = if let Some(since) = self.leading {
            if self.deadline.is_some_and(|deadline| now < deadline) {
                return Ok(Vec::new());
            }
            since
        } else {
            for peer in self.peers.values_mut() {
                peer.proposed = None;
                peer.steady_since = now;
                peer.flaps = 0;
            }
            *self.leading.insert(now)
        };
        // Whatever else happens: a node that registers without being heard of is looked at again.
        self.deadline = Some(now + self.settings.interval.max(AGAIN));
        let mut verdicts = Vec::new();
        for record in query::nodes(tables)? {
            if let Some(alive) = self.verdict(&record, since, now)
                && alive != record.alive
                && let Some(again) = self.propose(&record, alive, now)
            {
                self.look_at(again);
                verdicts.push(Operation::Observe {
                    node: record.id,
                    alive,
                    boot: record.boot,
                });
            }
        }
        Ok(verdicts)
    }

    /// The last figures of a node, as old as they may be.
    pub fn figures(&self, node: NodeId) -> Option<&Figures> {
        self.peers.get(&node)?.figures.as_ref()
    }

    /// Whether a node answered lately, as of the last event: by heartbeat, or, for a node whose heartbeats go to
    /// another leader, by its link.
    pub fn is_up(&self, node: NodeId) -> bool {
        if node == self.settings.node {
            return true;
        }
        let Some(peer) = self.peers.get(&node) else {
            return false;
        };
        let timeout = self.settings.timeout;
        let recent = peer.heard.is_some_and(|heard| self.now - heard < timeout);
        let link_suffices = self.leading.is_none_or(|since| self.now - since < timeout);
        !peer.is_condemned(self.now) && (recent || peer.linked && link_suffices)
    }

    /// When [`Health::tick`] should be called at the latest, while this node leads.
    pub const fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// What is to be said of a node now; `None` while nothing can be said.
    fn verdict(&mut self, record: &NodeRecord, since: Mono, now: Mono) -> Option<bool> {
        if record.id == self.settings.node {
            return Some(true);
        }
        let Settings {
            interval, timeout, ..
        } = self.settings;
        let peer = self.peers.entry(record.id).or_default();
        let silent_at = peer.heard.map_or(since, |heard| heard.max(since)) + timeout;
        if peer.is_condemned(now) || silent_at <= now {
            if !peer.dead {
                peer.dead = true;
                let steady = now - peer.steady_since >= timeout * STEADY;
                let died_before = peer.steady_since > since;
                peer.flaps = if steady || !died_before {
                    0
                } else {
                    FLAPS.min(peer.flaps + 1)
                };
            }
            return Some(false);
        }
        let until = peer
            .suspicion
            .map_or(silent_at, |suspicion| suspicion.until.min(silent_at));
        let back_at = peer.steady_since + interval * peer.flaps;
        let back = peer.heard.is_some() && peer.boot == Some(record.boot);
        self.look_at(until);
        if back && back_at > now {
            self.look_at(back_at);
        }
        (back && back_at <= now).then_some(true)
    }

    /// Notes that a verdict is proposed, and says when to look whether it has shown; `None` when that is under way.
    fn propose(&mut self, record: &NodeRecord, alive: bool, now: Mono) -> Option<Mono> {
        let patience = self.settings.interval.max(AGAIN);
        let peer = self.peers.entry(record.id).or_default();
        if let Some((last, boot, at)) = peer.proposed
            && (last, boot) == (alive, record.boot)
            && now - at < patience
        {
            let again = at + patience;
            self.look_at(again);
            return None;
        }
        peer.proposed = Some((alive, record.boot, now));
        Some(now + patience)
    }

    /// Has [`Health::deadline`] at `at` at the latest.
    fn look_at(&mut self, at: Mono) {
        if self.leading.is_some() {
            self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
        }
    }
}

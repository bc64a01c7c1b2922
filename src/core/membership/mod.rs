//! Who belongs (rules R13 and R14): birth of the cluster, members that lost their log, admission, promotion.
//!
//! A node is *empty* (it remembers no cluster), a *member*, *waiting*: it remembers a cluster but its log is gone, damaged, or older than what it once acknowledged, or *out*: it was removed, or its cluster was replaced by force. Only a member takes part in Raft. The others say [`Hello`] until a cluster is born or a leader takes them in, without a vote at first; whoever is no member by the catalog must ask to be made one.

mod lead;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::catalog::query;
use super::consensus::Consensus;
use super::node::{Effect, Level, LinkState, Memory};
use super::reads::jitter;
use super::seats::Seats;
use super::settings::Settings;
use super::turn::Turn;
use crate::base::canary::{self, Canary};
use crate::base::id::{Boot, ClusterId, NodeId};
use crate::base::limit::NODES;
use crate::base::random::Random;
use crate::base::table::TableError;
use crate::base::time::Mono;
use crate::wire::command::{Birth, BirthMember, Operation};
use crate::wire::peer::{Hello, Message, SnapshotHead};
use crate::wire::record::Sweep;

use lead::Applicant;

/// Index and term that the log of a new cluster begins behind.
pub const BIRTH_INDEX: u64 = 1;
/// First wait before an outsider says hello again; doubles up to [`HELLO_AT_MOST`].
const HELLO_FIRST: Duration = Duration::from_millis(200);
/// Longest such wait; also the shortest between two requests for a hello from one peer.
const HELLO_AT_MOST: Duration = Duration::from_secs(5);
/// Shortest time between two requests for a hello from a peer whose Raft messages came first.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Shortest time between two times that the acknowledged indexes are remembered.
const REMEMBER_EVERY: Duration = Duration::from_secs(15);

/// How this node stands to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// It remembers nothing.
    Empty,
    /// It takes part.
    Member(ClusterId),
    /// It took part, and cannot go on by itself.
    Waiting { cluster: ClusterId, why: String },
    /// It has no part in it any more.
    Out { cluster: ClusterId, why: String },
}

/// What is known of another node since this process started.
#[derive(Debug, Default)]
struct Peer {
    /// Whether the link to it is up.
    up: bool,
    /// What it said last.
    hello: Option<Hello>,
    /// When it was last asked to say it.
    asked: Option<Mono>,
    /// What it said last about its tables, by start of its process.
    applied: Option<(Boot, u64)>,
    /// When it was last told that it was removed.
    told: Option<Mono>,
}

/// What a node is to do next about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Be born: start Raft from this birth.
    Born(Birth),
    /// Start Raft with an empty log and no vote.
    Admitted,
    /// Leave Raft: the log cannot be trusted.
    Leave,
}

/// Who belongs, as this node knows it.
pub struct Membership {
    node: NodeId,
    boot: Boot,
    /// From the configuration file.
    settings: Settings,
    standing: Standing,
    /// The birth this node remembers.
    birth: Option<Birth>,
    peers: BTreeMap<NodeId, Peer>,
    /// The highest committed index that each voter is known to have had on disk.
    acknowledged: BTreeMap<NodeId, u64>,
    /// The same as remembered on disk, and since when.
    remembered: (BTreeMap<NodeId, u64>, Option<Mono>),
    /// When an outsider says hello next, and how long it waits after that.
    hello: (Option<Mono>, Duration),
    /// On the leader: nodes that ask to be taken in.
    asking: BTreeSet<NodeId>,
    /// On the leader: what an admitted node must have applied before what it says of itself can be believed.
    floors: BTreeMap<NodeId, u64>,
    /// On the leader: nodes that ask to be made members, of those that ask to be taken in.
    applicants: BTreeMap<NodeId, Applicant>,
    /// On the leader: pages of copies that are being dropped, and since when.
    sweeps: BTreeMap<NodeId, (Sweep, Mono)>,
    seats: Seats,
    /// Voters the cluster was born with, once known.
    born_voters: Option<usize>,
    /// What is to be proposed.
    operations: Vec<Operation>,
    random: Random,
    /// What was last said for people about why this node waits.
    said: Option<String>,
}

impl Membership {
    /// As remembered. `lost` says why the log cannot be trusted, when it cannot.
    pub fn new(settings: &Settings, memory: &[Memory], lost: Option<String>) -> Self {
        let mut standing = Standing::Empty;
        let mut birth = None;
        let mut acknowledged = BTreeMap::new();
        for memory in memory {
            match memory {
                Memory::Born(born) => {
                    standing = Standing::Member(born.cluster);
                    birth = Some(born.clone());
                }
                Memory::Admitted(cluster) => {
                    standing = Standing::Member(*cluster);
                    birth = None;
                }
                Memory::Out { cluster, why } => {
                    let (cluster, why) = (*cluster, why.clone());
                    standing = Standing::Out { cluster, why };
                }
                Memory::Acknowledged(all) => acknowledged = all.iter().copied().collect(),
            }
        }
        if let (Standing::Member(cluster), Some(why)) = (&standing, lost) {
            let cluster = *cluster;
            standing = Standing::Waiting { cluster, why };
        }
        Self {
            node: settings.node,
            boot: settings.boot,
            settings: settings.clone(),
            standing,
            birth,
            peers: BTreeMap::new(),
            remembered: (acknowledged.clone(), None),
            acknowledged,
            hello: (None, HELLO_FIRST),
            asking: BTreeSet::new(),
            floors: BTreeMap::new(),
            applicants: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            seats: Seats::new(settings.membership_grace),
            born_voters: None,
            operations: Vec::new(),
            random: Random::new(settings.seed ^ settings.boot.0 ^ 0x3e3b),
            said: None,
        }
    }

    /// The cluster this node belongs or belonged to.
    pub const fn cluster(&self) -> Option<ClusterId> {
        match &self.standing {
            Standing::Empty => None,
            Standing::Member(cluster)
            | Standing::Waiting { cluster, .. }
            | Standing::Out { cluster, .. } => Some(*cluster),
        }
    }

    /// Whether this node takes part in Raft.
    pub const fn is_member(&self) -> bool {
        matches!(self.standing, Standing::Member(_))
    }

    /// The nodes within reach: those to which the link is up, and this one.
    pub fn up(&self) -> BTreeSet<NodeId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.up);
        up.map(|(node, _)| *node).chain([self.node]).collect()
    }

    /// Why nothing can be committed, for people.
    pub fn shortage(&self, head: Option<&SnapshotHead>) -> String {
        let up = self.up();
        let voters: Vec<NodeId> = match head {
            Some(head) if !head.voters.is_empty() => head
                .voters
                .iter()
                .filter_map(|id| NodeId::from_raft(*id))
                .collect(),
            _ => self.settings.members.iter().map(|m| m.id).collect(),
        };
        let alive = voters.iter().filter(|node| up.contains(node)).count();
        match &self.standing {
            Standing::Empty if self.settings.joins => {
                let others = up.len() - 1;
                format!("asking to be made a member: {others} daemons of the cluster within reach")
            }
            Standing::Out { why, .. } => why.clone(),
            Standing::Empty => self.why_not_born(alive, voters.len()),
            Standing::Waiting { why, .. } => {
                format!("waiting to be taken in again by the others: {why}")
            }
            Standing::Member(_) if head.is_none_or(|head| head.voters.is_empty()) => {
                "waiting for the catalog from the leader".to_owned()
            }
            Standing::Member(_) => {
                let (all, needed) = (voters.len(), voters.len() / 2 + 1);
                if alive >= needed {
                    format!("{alive} of {all} daemons up, no leader elected yet")
                } else {
                    format!("{alive} of {all} daemons up, {needed} needed")
                }
            }
        }
    }

    /// What an empty node waits for, for people: to be born with all the others, or to be taken in by those that have a past.
    fn why_not_born(&self, alive: usize, all: usize) -> String {
        let others = || self.settings.members.iter().filter(|m| m.id != self.node);
        let hello = |node: &NodeId| self.peers.get(node).filter(|peer| peer.up)?.hello.as_ref();
        let remember =
            |node: &NodeId| hello(node).is_some_and(|h| h.cluster.is_some() && h.newborn.is_none());
        let past: Vec<NodeId> = others().map(|m| m.id).filter(remember).collect();
        if !past.is_empty() {
            let names: Vec<String> = past.iter().map(ToString::to_string).collect();
            return format!(
                "nothing is remembered here, a cluster is by {}: waiting for its leader to take this node in (who is no member yet must ask with --join)",
                names.join(", ")
            );
        }
        if alive < all {
            return format!("{alive} of {all} daemons up, all needed for the first start");
        }
        match others().find(|m| hello(&m.id).is_none()) {
            Some(silent) => format!("all {all} daemons up, waiting to hear from {}", silent.id),
            None => format!("all {all} daemons up, the first start is under way"),
        }
    }

    /// When to be called again at the latest.
    pub const fn deadline(&self) -> Option<Mono> {
        self.hello.0
    }

    // Links and hellos.

    /// A link came up or went down.
    pub fn link(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        state: LinkState,
        raft: Option<&Consensus>,
    ) {
        let peer = self.peers.entry(node).or_default();
        peer.up = state == LinkState::Up;
        if peer.up {
            self.greet(turn, node, raft, false);
        } else {
            // It may be another when it comes back.
            peer.hello = None;
            self.asking.remove(&node);
            self.applicants.remove(&node);
        }
    }

    fn greet(&mut self, turn: &mut Turn<'_>, to: NodeId, raft: Option<&Consensus>, answer: bool) {
        let hello = Hello {
            cluster: self.cluster(),
            boot: self.boot,
            newborn: self.newborn(raft),
            last_index: raft.map_or(0, Consensus::last_index),
            remembers: self.acknowledged.get(&to).copied().unwrap_or(0),
            answer,
            address: self
                .card()
                .map_or_else(String::new, |card| card.address.clone()),
            joins: self
                .card()
                .filter(|_| {
                    let out = matches!(self.standing, Standing::Out { .. });
                    self.settings.joins && !self.is_member() && !out
                })
                .cloned(),
        };
        turn.send(to, Message::Hello(hello));
    }

    /// This node by its configuration.
    fn card(&self) -> Option<&BirthMember> {
        let mut members = self.settings.members.iter();
        members.find(|member| member.id == self.node)
    }

    /// The birth, while nothing has happened since: no entry, and no election, in which a vote may have been given.
    fn newborn(&self, raft: Option<&Consensus>) -> Option<Birth> {
        let raft = raft?;
        let fresh = raft.last_index() <= BIRTH_INDEX && raft.term() <= BIRTH_INDEX;
        self.birth.clone().filter(|_| fresh)
    }

    /// Whether a peer's Raft messages may be taken: it has said what it remembers of this node, so that a vote is given only by a log that is whole.
    pub fn greeted(&mut self, turn: &mut Turn<'_>, from: NodeId, raft: Option<&Consensus>) -> bool {
        if !self.is_member() {
            return false;
        }
        let now = turn.mono();
        let cluster = self.cluster();
        let peer = self.peers.entry(from).or_default();
        if let Some(hello) = &peer.hello {
            return hello.cluster.is_none() || hello.cluster == cluster;
        }
        if peer.asked.is_none_or(|asked| now - asked >= ASK_AGAIN) {
            peer.asked = Some(now);
            self.greet(turn, from, raft, false);
        }
        false
    }

    /// A leader thinks that this node has acknowledged more than it has. A voter has lost its log then; a learner asks to be counted anew.
    pub fn behind(&mut self, turn: &mut Turn<'_>, from: NodeId, raft: &Consensus) -> Option<Step> {
        if raft.votes(self.node) {
            return self.leave(turn, "the log is older than what this node acknowledged");
        }
        let now = turn.mono();
        let peer = self.peers.entry(from).or_default();
        if peer.asked.is_none_or(|asked| now - asked >= ASK_AGAIN) {
            peer.asked = Some(now);
            self.greet(turn, from, Some(raft), false);
        }
        None
    }

    /// A peer says who it is.
    pub fn hello(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        hello: Hello,
        raft: Option<&mut Consensus>,
    ) -> Option<Step> {
        if !hello.answer {
            self.greet(turn, from, raft.as_deref(), true);
        }
        let known =
            hello.cluster.is_none() || self.cluster().is_none() || hello.cluster == self.cluster();
        if !known {
            turn.say(
                Level::Error,
                "foreign_cluster",
                format!("node {from} belongs to another cluster and is ignored"),
            );
        }
        let remembers = hello.remembers;
        let empty_log = hello.cluster.is_none() || hello.last_index == 0;
        let last_index = hello.last_index;
        let past = hello.cluster.filter(|_| hello.newborn.is_none());
        let joins = hello.joins.clone();
        let peer = self.peers.entry(from).or_default();
        peer.hello = Some(hello);
        if empty_log {
            // What it said of its tables was before.
            peer.applied = None;
        }
        if let Some(cluster) = past.filter(|_| canary::is(Canary::WipedVoterVotes)) {
            let step = self.admitted(turn, from, cluster);
            if step.is_some() {
                return step;
            }
        }
        let raft = raft?;
        if !known || !self.is_member() {
            return None;
        }
        // Who is no member was never told anything: what it claims to remember counts for nothing.
        let member = raft.votes(from) || raft.learns(from);
        if member && raft.votes(self.node) && remembers > raft.last_index() {
            let why = format!(
                "the log ends at {}, node {from} remembers that this node acknowledged {remembers}",
                raft.last_index()
            );
            return self.leave(turn, &why);
        }
        if raft.leads() {
            if empty_log && !(canary::is(Canary::WipedVoterVotes) && raft.votes(from)) {
                self.asking.insert(from);
                let card = joins.filter(|card| card.id == from && from.0 < NODES);
                if let Some(card) = card {
                    let proposed = self.applicants.get(&from).and_then(|a| a.proposed);
                    self.applicants.insert(from, Applicant { card, proposed });
                }
            } else if raft
                .matched(from)
                .is_some_and(|matched| matched > last_index)
            {
                raft.reset_progress(from);
            }
        }
        None
    }

    fn leave(&mut self, turn: &mut Turn<'_>, why: &str) -> Option<Step> {
        let Standing::Member(cluster) = self.standing else {
            return None;
        };
        turn.say(
            Level::Error,
            "log_lost",
            format!("{why}: this node waits to be taken in again, without a vote"),
        );
        self.standing = Standing::Waiting {
            cluster,
            why: why.to_owned(),
        };
        self.hello = (Some(turn.mono()), HELLO_FIRST);
        Some(Step::Leave)
    }

    /// The leader says that this node was removed. Whoever has applied more than that, or is only being filled, knows better.
    pub fn removed(
        &mut self,
        turn: &mut Turn<'_>,
        cluster: ClusterId,
        index: u64,
        raft: Option<&Consensus>,
    ) -> Option<Step> {
        if self.cluster() != Some(cluster) || matches!(self.standing, Standing::Out { .. }) {
            return None;
        }
        let filled = |raft: &Consensus| !raft.head().voters.is_empty();
        let behind = |raft: &Consensus| filled(raft) && raft.head().index < index;
        if raft.is_none_or(behind) {
            return self.go(turn, REMOVED.to_owned());
        }
        None
    }

    /// A peer goes on as a cluster that was made from this node's by force.
    pub fn superseded(
        &mut self,
        turn: &mut Turn<'_>,
        by: NodeId,
        cluster: ClusterId,
    ) -> Option<Step> {
        let own = self.cluster().filter(|own| cluster.succeeds(*own))?;
        if matches!(self.standing, Standing::Out { .. }) {
            return None;
        }
        self.go(
            turn,
            format!(
                "node {by} was recovered by force and goes on as cluster {cluster}; this node still belongs to {own} \
                 and takes part in neither: `momo recover --rejoin` keeps its files and gives up its catalog"
            ),
        )
    }

    /// This node has no part in its cluster any more.
    fn go(&mut self, turn: &mut Turn<'_>, why: String) -> Option<Step> {
        let cluster = self.cluster()?;
        turn.say(Level::Error, "membership_over", why.clone());
        let memory = Memory::Out {
            cluster,
            why: why.clone(),
        };
        turn.first(Effect::Remember(memory));
        self.standing = Standing::Out { cluster, why };
        self.hello = (Some(turn.mono()), HELLO_FIRST);
        Some(Step::Leave)
    }

    // Birth.

    /// The lowest member has drawn up a birth.
    pub fn birth(&mut self, from: NodeId, birth: Birth) {
        // As good as a hello: whether it is taken depends on what all the others say.
        if let Some(peer) = self.peers.get_mut(&from)
            && let Some(hello) = &mut peer.hello
            && hello.cluster.is_none()
        {
            hello.cluster = Some(birth.cluster);
            hello.newborn = Some(birth);
            hello.last_index = BIRTH_INDEX;
        }
    }

    /// The birth this node may take part in now, if all the other members are within reach and none of them has a past.
    fn may_be_born(&self, turn: &Turn<'_>) -> Option<Birth> {
        if self.settings.joins {
            return None;
        }
        let mut births: Vec<&Birth> = Vec::new();
        for member in self.settings.members.iter().filter(|m| m.id != self.node) {
            let peer = self.peers.get(&member.id).filter(|peer| peer.up)?;
            let hello = peer.hello.as_ref()?;
            match (&hello.cluster, &hello.newborn) {
                (None, _) => {}
                (Some(_), Some(birth)) => births.push(birth),
                (Some(_), None) => return None,
            }
        }
        let Some(birth) = births.first() else {
            let lowest = self.settings.members.iter().map(|m| m.id).min();
            return (lowest == Some(self.node)).then(|| self.draw_up(turn));
        };
        let same = births.iter().all(|other| other == birth);
        let member = birth.members.iter().any(|m| m.id == self.node);
        (same && member).then(|| (*birth).clone())
    }

    /// An operator's word: the cluster is born although not all members are within reach. This node alone votes at first,
    /// so that nobody has anything to forget; the others are taken in as they come. Void when this node or one within
    /// reach has a past.
    pub fn init(&mut self, turn: &mut Turn<'_>) -> Option<Step> {
        let has_past = |peer: &Peer| peer.hello.as_ref().is_some_and(|h| h.cluster.is_some());
        let manages = self.card().is_some_and(|card| card.manages);
        let free = self.standing == Standing::Empty && !self.settings.joins;
        if !free || !manages || self.peers.values().any(has_past) {
            return None;
        }
        let mut birth = self.draw_up(turn);
        for member in &mut birth.members {
            member.votes = member.id == self.node;
        }
        Some(self.be_born(turn, birth))
    }

    fn draw_up(&self, turn: &Turn<'_>) -> Birth {
        let mut members = self.settings.members.clone();
        members.sort_by_key(|member| member.id);
        Birth {
            cluster: self.settings.cluster,
            members,
            mode: self.settings.mode,
            time: turn.now.wall,
        }
    }

    // Admission.

    /// A leader takes this node in.
    pub fn admitted(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        cluster: ClusterId,
    ) -> Option<Step> {
        if self.is_member() || self.cluster().is_some_and(|own| own != cluster) {
            return None;
        }
        if matches!(self.standing, Standing::Out { .. }) {
            return None;
        }
        let hello = self.peers.get(&from).and_then(|peer| peer.hello.as_ref());
        if hello.is_none_or(|hello| hello.cluster != Some(cluster)) {
            return None;
        }
        self.standing = Standing::Member(cluster);
        self.birth = None;
        self.hello.0 = None;
        turn.first(Effect::Remember(Memory::Admitted(cluster)));
        turn.first(Effect::Forget);
        turn.say(
            Level::Info,
            "admitted",
            format!("node {from} takes this node in, without a vote until it has caught up"),
        );
        Some(Step::Admitted)
    }

    /// A node says where its tables stand.
    pub fn applied(&mut self, from: NodeId, boot: Boot, applied: u64, raft: Option<&Consensus>) {
        let peer = self.peers.entry(from).or_default();
        peer.applied = Some((boot, applied));
        if raft.is_some_and(|raft| raft.votes(from)) {
            let known = self.acknowledged.entry(from).or_default();
            *known = (*known).max(applied);
        }
    }

    /// The configuration changed: what a node without a vote acknowledged before is no measure of what it has.
    pub fn reconfigured(&mut self, turn: &mut Turn<'_>, raft: &Consensus) {
        self.acknowledged
            .retain(|node, _| raft.votes(*node) || *node == self.node);
        let names = |ids: &[u64]| {
            let names: Vec<String> = ids.iter().map(|id| (id - 1).to_string()).collect();
            names.join(",")
        };
        let head = raft.head();
        turn.say(
            Level::Info,
            "configuration",
            format!(
                "voters {}; learners {}",
                names(&head.voters),
                names(&head.learners)
            ),
        );
    }

    /// Everything that comes with time.
    pub fn work(
        &mut self,
        turn: &mut Turn<'_>,
        raft: Option<&mut Consensus>,
    ) -> Result<Option<Step>, TableError> {
        match (&self.standing, raft) {
            (Standing::Member(_), Some(raft)) => {
                self.hello.0 = None;
                self.note_acknowledged(turn, raft);
                if raft.leads() {
                    self.take_in(turn, raft)?;
                    self.lead(turn, raft)?;
                } else {
                    self.asking.clear();
                    self.applicants.clear();
                    self.floors.clear();
                    self.sweeps.clear();
                    self.seats.rest();
                    if self.was_removed(turn, raft)? {
                        return Ok(self.go(turn, REMOVED.to_owned()));
                    }
                }
                Ok(None)
            }
            (Standing::Empty, _) => {
                if let Some(birth) = self.may_be_born(turn) {
                    return Ok(Some(self.be_born(turn, birth)));
                }
                self.say_hello(turn);
                Ok(None)
            }
            (Standing::Out { .. }, _) => {
                self.hello.0 = None;
                Ok(None)
            }
            _ => {
                self.say_hello(turn);
                Ok(None)
            }
        }
    }

    fn be_born(&mut self, turn: &mut Turn<'_>, birth: Birth) -> Step {
        self.standing = Standing::Member(birth.cluster);
        self.birth = Some(birth.clone());
        self.hello.0 = None;
        turn.first(Effect::Remember(Memory::Born(birth.clone())));
        for member in birth.members.iter().filter(|m| m.id != self.node) {
            turn.send(member.id, Message::Birth(birth.clone()));
        }
        turn.say(
            Level::Info,
            "born",
            format!("cluster {}, {} members", birth.cluster, birth.members.len()),
        );
        Step::Born(birth)
    }

    /// An outsider says hello to all, less and less often.
    fn say_hello(&mut self, turn: &mut Turn<'_>) {
        let now = turn.mono();
        let (at, wait) = self.hello;
        if at.is_some_and(|at| at > now) {
            return;
        }
        for node in self.up() {
            if node != self.node {
                self.greet(turn, node, None, false);
            }
        }
        let next = now + wait + jitter(&mut self.random, wait);
        self.hello = (Some(next), wait.saturating_mul(2).min(HELLO_AT_MOST));
        let why = self.shortage(None);
        if self.said.as_ref() != Some(&why) {
            turn.say(Level::Warn, "waiting", why.clone());
            self.said = Some(why);
        }
    }

    fn note_acknowledged(&mut self, turn: &mut Turn<'_>, raft: &Consensus) {
        if raft.leads() {
            let committed = raft.committed();
            for id in &raft.head().voters {
                let Some(node) = NodeId::from_raft(*id).filter(|node| *node != self.node) else {
                    continue;
                };
                let matched = raft.matched(node).unwrap_or(0).min(committed);
                let known = self.acknowledged.entry(node).or_default();
                *known = (*known).max(matched);
            }
        }
        let now = turn.mono();
        let (on_disk, since) = &self.remembered;
        if *on_disk == self.acknowledged || since.is_some_and(|since| now - since < REMEMBER_EVERY)
        {
            return;
        }
        self.remembered = (self.acknowledged.clone(), Some(now));
        let all = self.acknowledged.iter().map(|(n, i)| (*n, *i)).collect();
        turn.first(Effect::Remember(Memory::Acknowledged(all)));
    }

    /// What is to be proposed now.
    pub fn operations(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.operations)
    }

    /// Whether this node has applied its own removal, and nobody counts on it any more.
    fn was_removed(&self, turn: &Turn<'_>, raft: &Consensus) -> Result<bool, TableError> {
        let seated = raft.votes(self.node) || raft.learns(self.node);
        if seated || raft.head().voters.is_empty() {
            return Ok(false);
        }
        let tables = &turn.tables;
        Ok(
            query::node(tables, self.node)?.is_none()
                && query::former(tables, self.node)?.is_some(),
        )
    }
}

/// Why a removed node takes no part.
const REMOVED: &str = "this node was removed from its cluster and takes no part in it; `momo recover --rejoin` lets it be taken in as a new one";

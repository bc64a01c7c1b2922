//! Raft. Nothing else touches the crate; the traps it has are dealt with here, each where it would snap.
//!
//! - Election timeouts come from the thread's generator: after every call they are pinned to a pure function of seed, node and term.
//! - Appends are asynchronous: a ready is stored in memory, handed to the disk, and Raft goes on; what must not be said before the disk has it waits in `under_way`.
//! - No message leaves before the term and the vote it was written under are on disk. (The crate lets a new leader speak at once; with a single voter that would let one term be used twice.)
//! - A snapshot message is held back until the catalog it stands for has been fetched, and is stepped with the head of what was fetched.
//! - A vote is never withheld for priority from a candidate whose last term is later: the crate would, and two nodes could refuse each other for ever.

mod lead;
mod ready;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protobuf::Message as _;
use raft::eraftpb::{HardState, Message, MessageType};
use raft::{Config, RawNode, ReadOnlyOption, StateRole, Storage};

use super::log::Log;
use super::node::{Effect, Fatal, Level, Role};
use super::settings::Settings;
use super::turn::Turn;
use crate::base::canary::{self, Canary};
use crate::base::id::NodeId;
use crate::base::limit;
use crate::base::random::mix;
use crate::base::time::Mono;
use crate::wire::peer::SnapshotHead;

pub use lead::Seat;
use lead::{PREFER_ELECTIONS, Preference, priority};
use ready::{Staged, UnderWay};
use snapshots::Offered;

/// Raft messages under way to one peer at most; beyond it the peer waits for its answers.
const INFLIGHT: usize = 64;
/// Ticks made up for at most when time has passed unseen: a stalled process must not elect itself on waking.
const TICKS_AT_ONCE: u32 = 3;
/// A peer that lacks no more entries than this has caught up.
const CAUGHT_UP: u64 = 64;

/// What the crate writes into the request for a vote of a node that was handed the lead.
const HANDED_OVER: &[u8] = b"CampaignTransfer";

/// What a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It was taken or dropped, as Raft has it.
    Taken,
    /// The sender thinks that this node has acknowledged more than its log holds.
    Behind,
}

/// Why a proposal was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Not the leader, or about to hand over.
    NotLeader,
    /// Too much is uncommitted.
    Busy,
}

/// What became certain.
#[derive(Debug, Default)]
pub struct Progressed {
    /// Committed commands to apply: index and content.
    pub commands: Vec<(u64, Vec<u8>)>,
    /// Reads that may go on once the index is applied: number and index.
    pub reads: Vec<(u64, u64)>,
    /// Whether the tables stand further than before, if only by an empty entry.
    pub moved: bool,
    /// Changes of voters and learners: where the tables stand after each. What is applied behind one must see it.
    pub changes: Vec<SnapshotHead>,
}

/// This node in Raft.
pub struct Consensus {
    raw: RawNode<Log>,
    node: NodeId,
    seed: u64,
    tick: Duration,
    next_tick: Mono,
    /// Shortest election.
    election: Duration,
    election_ticks: usize,
    priority: i64,
    /// Where the tables stand after what was given out to be applied.
    head: SnapshotHead,
    /// Number of the last effect handed to the disk.
    number: u64,
    staged: Staged,
    under_way: VecDeque<UnderWay>,
    /// Term and vote on disk.
    durable_vote: (u64, u64),
    /// The hard state last handed to the disk.
    written: HardState,
    offered: Option<Offered>,
    /// A fetch of the catalog is under way.
    fetching: bool,
    /// Since when each peer's snapshot is under way.
    snapshots: BTreeMap<u64, Mono>,
    preference: Preference,
    /// Index of the last snapshot installed.
    snapshot: u64,
}

impl Consensus {
    /// Raft upon `log`, whose tables stand at its applied head. `number` is that of the last append of this process.
    pub fn new(settings: &Settings, log: Log, number: u64, now: Mono) -> Result<Self, Fatal> {
        let node = settings.node;
        let head = log.applied().clone();
        let state = log
            .initial_state()
            .map_err(|error| Fatal::Damaged(error.to_string()))?;
        let config = Config {
            id: node.raft(),
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied: head.index,
            max_size_per_msg: limit::RAFT_MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            batch_append: true,
            priority: priority(node),
            max_uncommitted_size: limit::UNCOMMITTED_BYTES,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger)
            .map_err(|error| Fatal::Damaged(format!("raft: {error}")))?;
        let election = settings.election();
        let mut consensus = Self {
            raw,
            node,
            seed: settings.seed,
            tick: settings.raft_tick,
            next_tick: now + settings.raft_tick,
            election,
            election_ticks: settings.election_ticks,
            priority: config.priority,
            head,
            number,
            staged: Staged::default(),
            under_way: VecDeque::new(),
            durable_vote: (state.hard_state.term, state.hard_state.vote),
            written: state.hard_state,
            offered: None,
            fetching: false,
            snapshots: BTreeMap::new(),
            preference: Preference {
                candidate: None,
                wait: election * PREFER_ELECTIONS,
                tried: None,
            },
            snapshot: 0,
        };
        consensus.pin();
        Ok(consensus)
    }

    /// Makes the election timeout a pure function of seed, node, term and voters. The voters lose their patience in the order of
    /// their numbers, which is also the order in which they are preferred: the first to ask gets the votes, and nobody waits for
    /// one that a draw has made late.
    fn pin(&mut self) {
        let scattered = mix(self.seed ^ mix(self.node.raft() ^ mix(self.raw.raft.term)));
        let own = self.node.raft();
        let before = self
            .head
            .voters
            .iter()
            .filter(|voter| **voter < own)
            .count();
        let turn = (self.election_ticks / limit::VOTERS).max(1);
        let scattered = usize::try_from(scattered % turn as u64).unwrap_or(0);
        let extra = (before * turn + scattered).min(self.election_ticks.saturating_sub(1));
        self.raw
            .raft
            .set_randomized_election_timeout(self.election_ticks + extra);
    }

    /// Every call that changes Raft's state goes through here.
    fn with<R>(&mut self, call: impl FnOnce(&mut RawNode<Log>) -> R) -> R {
        let result = call(&mut self.raw);
        self.pin();
        result
    }

    // What others ask about Raft's state.

    /// What this node does in Raft.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.raw.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether this node leads and has applied all that was committed before it did.
    pub fn serves(&self) -> bool {
        self.leads() && self.raw.raft.apply_to_current_term()
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        NodeId::from_raft(self.raw.raft.leader_id)
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Index of the last entry, on disk or not.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Index known to be committed.
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Where the tables stand after this turn.
    pub const fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Index of the last snapshot installed, 0 when none was.
    pub const fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// Whether a fetch of the catalog is under way.
    pub const fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// A fetch that was asked for before this node left Raft and came back is still under way.
    pub const fn set_fetching(&mut self, fetching: bool) {
        self.fetching = fetching;
    }

    /// Number of the last effect handed to the disk.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether `node` votes in the applied configuration.
    pub fn votes(&self, node: NodeId) -> bool {
        self.head.voters.contains(&node.raft())
    }

    /// Whether `node` is a learner in the applied configuration.
    pub fn learns(&self, node: NodeId) -> bool {
        self.head.learners.contains(&node.raft())
    }

    /// On the leader: the last index that `node` is known to have on disk.
    pub fn matched(&self, node: NodeId) -> Option<u64> {
        let progress = self.raw.raft.prs().get(node.raft())?;
        self.leads().then_some(progress.matched)
    }

    /// On the leader: whether `node` follows closely.
    pub fn caught_up(&self, node: NodeId) -> bool {
        // Not by its state: while nothing is proposed a peer that was sent a snapshot stays in probation.
        self.matched(node)
            .is_some_and(|matched| matched + CAUGHT_UP >= self.last_index())
    }

    /// Whether a change of the configuration may be under way.
    pub fn reconfiguring(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }

    /// When to be called again.
    pub const fn deadline(&self) -> Mono {
        self.next_tick
    }

    // What happens to it.

    /// Lets time pass.
    pub fn pass(&mut self, turn: &mut Turn<'_>, up: &BTreeSet<NodeId>) {
        let now = turn.mono();
        let mut ticks = 0;
        while now >= self.next_tick {
            ticks += 1;
            if ticks > TICKS_AT_ONCE {
                self.next_tick = now + self.tick;
                break;
            }
            self.next_tick = self.next_tick + self.tick;
            self.tick_once();
        }
        if ticks > 0 && self.leads() {
            self.offer_again(now);
            self.prefer(turn, up);
        }
    }

    fn tick_once(&mut self) {
        // A node whose disk lags must not stand for election: the crate asserts that a new leader's whole log is on disk, and a slow disk makes a bad leader.
        if !self.leads() && !self.all_on_disk() {
            return;
        }
        if !self.leads() && self.head.voters == [self.node.raft()] {
            // The only voter need not wait for anyone.
            let _ = self.with(RawNode::campaign);
            return;
        }
        self.with(RawNode::tick);
    }

    fn all_on_disk(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.persisted == log.last_index()
    }

    /// Takes a message of the peer `from`.
    pub fn step(&mut self, turn: &mut Turn<'_>, from: NodeId, bytes: &[u8]) -> Stepped {
        let Ok(message) = Message::parse_from_bytes(bytes) else {
            turn.say(
                Level::Warn,
                "raft_message_bad",
                format!("from node {from}: does not parse"),
            );
            return Stepped::Taken;
        };
        if message.from != from.raft() || message.to != self.node.raft() {
            return Stepped::Taken;
        }
        let term = self.raw.raft.term;
        match message.get_msg_type() {
            // Proposals travel as commands (rule R3); only this node hands over its lead.
            MessageType::MsgPropose | MessageType::MsgTransferLeader => return Stepped::Taken,
            MessageType::MsgReadIndex if !self.leads() || message.entries.len() != 1 => {
                return Stepped::Taken;
            }
            MessageType::MsgTimeoutNow if !self.all_on_disk() => return Stepped::Taken,
            // What has no configuration has no vote: it may once have given it.
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if self.head.voters.is_empty() && !canary::is(Canary::WipedVoterVotes) =>
            {
                return Stepped::Taken;
            }
            // raft-rs takes it for granted, and panics.
            MessageType::MsgAppend if !is_without_gaps(&message) => {
                let text = format!("from node {from}: entries with gaps");
                turn.say(Level::Warn, "raft_message_bad", text);
                return Stepped::Taken;
            }
            MessageType::MsgHeartbeat
                if message.term >= term && message.commit > self.last_index() =>
            {
                return Stepped::Behind;
            }
            MessageType::MsgSnapshot if message.term >= term && self.wants(&message) => {
                self.offer(turn, from, message);
                return Stepped::Taken;
            }
            MessageType::MsgAppendResponse => {
                self.step_append_response(message);
                return Stepped::Taken;
            }
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let later = message.log_term > self.raw.raft.raft_log.last_term();
                // Nor from one that is handed the lead: of two voters the other could otherwise never lead.
                let handed = message.get_context() == HANDED_OVER;
                let priority = if later || handed {
                    i64::MIN
                } else {
                    self.priority
                };
                self.raw.set_priority(priority);
                let _ = self.with(|raw| raw.step(message));
                self.raw.set_priority(self.priority);
                return Stepped::Taken;
            }
            _ => {}
        }
        // Errors say that the sender is unknown or the message local: both are nothing to this node.
        let _ = self.with(|raw| raw.step(message));
        Stepped::Taken
    }

    /// On the leader: appends a command; the index it will have.
    pub fn propose(&mut self, command: Vec<u8>) -> Result<u64, Dropped> {
        if !self.leads() || self.raw.raft.lead_transferee.is_some() {
            return Err(Dropped::NotLeader);
        }
        match self.with(|raw| raw.propose(Vec::new(), command)) {
            Ok(()) => Ok(self.last_index()),
            Err(_) => Err(Dropped::Busy),
        }
    }

    /// Asks for the index that a read begun now must see; answered by [`Progressed::reads`], or never.
    pub fn read_index(&mut self, number: u64, boot: u64) {
        let mut context = Vec::with_capacity(18);
        context.extend_from_slice(&self.node.key());
        context.extend_from_slice(&boot.to_be_bytes());
        context.extend_from_slice(&number.to_be_bytes());
        self.with(|raw| raw.read_index(context));
    }

    /// The tables on disk stand at `index`: forgets what of the log is not needed for the late.
    pub fn checkpointed(&mut self, turn: &mut Turn<'_>, index: u64, entries: u64, bytes: usize) {
        if let Some((index, term)) = self.raw.mut_store().cut(index, entries, bytes) {
            turn.last(Effect::CutLog { index, term });
        }
    }
}

/// Whether the entries of an append follow one another, and what they are appended to.
fn is_without_gaps(message: &Message) -> bool {
    let (mut index, mut term) = (message.index, message.log_term);
    message.entries.iter().all(|entry| {
        let follows = index.checked_add(1) == Some(entry.index);
        let later = term <= entry.term && entry.term <= message.term;
        (index, term) = (entry.index, entry.term);
        follows && later
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{Boot, ClusterId};
    use crate::base::table::MemoryTables;
    use crate::base::time::Now;
    use crate::core::log::configuration;
    use crate::wire::peer::Message as PeerMessage;
    use raft::eraftpb::Entry;

    #[test]
    fn an_append_with_gaps_or_terms_out_of_order_is_not_taken() {
        let append = |index: u64, entries: &[(u64, u64)]| {
            let entry = |(index, term): &(u64, u64)| Entry {
                index: *index,
                term: *term,
                ..Entry::default()
            };
            let mut message = Message {
                index,
                log_term: 2,
                term: 5,
                ..Message::default()
            };
            message.entries = entries.iter().map(entry).collect::<Vec<_>>().into();
            is_without_gaps(&message)
        };
        assert!(append(7, &[]) && append(7, &[(8, 2), (9, 5)]));
        for bad in [
            &[(9, 2)][..],
            &[(8, 2), (10, 2)],
            &[(8, 3), (9, 2)],
            &[(8, 6)],
        ] {
            assert!(!append(7, bad), "{bad:?}");
        }
        assert!(!append(u64::MAX, &[(0, 2)]));
    }

    fn raft(node: u16, log: Log) -> Consensus {
        let settings = Settings::new(NodeId(node), Boot(1), 7, ClusterId(1));
        Consensus::new(&settings, log, 0, Mono(0)).unwrap()
    }

    fn born(voters: &[u64], learners: &[u64]) -> Log {
        Log::new_cluster(SnapshotHead {
            index: 1,
            term: 1,
            voters: voters.to_vec(),
            learners: learners.to_vec(),
        })
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            ..Entry::default()
        }
    }

    /// Works everything off and gives the effects of the turn.
    fn turn(
        raft: &mut Consensus,
        at: u64,
        body: impl FnOnce(&mut Consensus, &mut Turn<'_>),
    ) -> Vec<Effect> {
        let tables = MemoryTables::default();
        let now = Now {
            mono: Mono(at),
            ..Now::default()
        };
        let mut turn = Turn::new(now, &tables);
        body(raft, &mut turn);
        while raft.advance(&mut turn).unwrap().is_some() {}
        raft.seal(&mut turn).unwrap();
        let mut effects = VecDeque::new();
        turn.finish(&mut effects);
        effects.into()
    }

    fn sent(effects: &[Effect]) -> Vec<Message> {
        let raft = |effect: &Effect| match effect {
            Effect::Send {
                message: PeerMessage::Raft { bytes },
                ..
            } => Message::parse_from_bytes(bytes).ok(),
            _ => None,
        };
        effects.iter().filter_map(raft).collect()
    }

    fn step(raft: &mut Consensus, message: &Message) -> (Stepped, Vec<Effect>) {
        let mut stepped = Stepped::Taken;
        let from = NodeId::from_raft(message.from).unwrap();
        let bytes = message.write_to_bytes().unwrap();
        let effects = turn(raft, 0, |raft, turn| {
            stepped = raft.step(turn, from, &bytes);
        });
        (stepped, effects)
    }

    fn message(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
        let mut message = Message {
            from,
            to,
            term,
            ..Message::default()
        };
        message.set_msg_type(kind);
        message
    }

    #[test]
    fn election_timeouts_follow_from_seed_node_and_term_alone() {
        let timeouts = |node: u16| -> Vec<usize> {
            let mut raft = raft(node, born(&[1, 2, 3], &[]));
            (2..20)
                .map(|term| {
                    let request = message(
                        MessageType::MsgAppend,
                        3 - u64::from(node),
                        u64::from(node) + 1,
                        term,
                    );
                    step(&mut raft, &request);
                    raft.raw.raft.randomized_election_timeout()
                })
                .collect()
        };
        assert_eq!(timeouts(0), timeouts(0));
        assert_ne!(timeouts(0), timeouts(1));
        assert!(timeouts(0).iter().all(|ticks| (10..20).contains(ticks)));
    }

    #[test]
    fn voters_lose_their_patience_in_the_order_of_their_numbers() {
        let timeout = |node: u16| {
            let raft = raft(node, born(&[1, 2, 3], &[]));
            raft.raw.raft.randomized_election_timeout()
        };
        assert!(timeout(0) < timeout(1) && timeout(1) < timeout(2));
    }

    #[test]
    fn a_new_leader_says_nothing_before_its_term_is_on_disk() {
        let mut raft = raft(0, born(&[1], &[2]));
        let effects = turn(&mut raft, 60_000, |raft, turn| {
            raft.pass(turn, &BTreeSet::new());
        });
        assert!(raft.leads());
        assert!(sent(&effects).is_empty(), "{effects:?}");
        let effects = turn(&mut raft, 60_000, |raft, turn| {
            raft.persisted(turn, 1);
        });
        assert!(sent(&effects).iter().all(|m| m.to == 2 && m.term == 2));
        assert!(!sent(&effects).is_empty());
    }

    #[test]
    fn a_follower_acknowledges_only_what_is_on_disk() {
        let mut raft = raft(1, born(&[1, 2, 3], &[]));
        let mut append = message(MessageType::MsgAppend, 1, 2, 2);
        (append.index, append.log_term) = (1, 1);
        append.set_entries(vec![entry(2, 2)].into());
        let (_, effects) = step(&mut raft, &append);
        assert!(sent(&effects).is_empty());
        assert!(matches!(effects.as_slice(), [Effect::Append(append)] if append.number == 1));
        let effects = turn(&mut raft, 0, |raft, turn| {
            raft.persisted(turn, 1);
        });
        assert_eq!(sent(&effects)[0].index, 2);
    }

    #[test]
    fn a_later_last_term_gets_the_vote_whatever_the_priority() {
        let mut raft = raft(0, born(&[1, 2, 3], &[]));
        let mut append = message(MessageType::MsgAppend, 3, 1, 2);
        (append.index, append.log_term) = (1, 1);
        append.set_entries(vec![entry(2, 2), entry(3, 2)].into());
        step(&mut raft, &append);
        turn(&mut raft, 0, |raft, turn| {
            raft.persisted(turn, 1);
        });
        // Let the lease of node 2's lead run out.
        for _ in 0..10 {
            raft.raw.raft.election_elapsed += 1;
        }
        let mut request = message(MessageType::MsgRequestPreVote, 2, 1, 4);
        (request.index, request.log_term, request.priority) = (2, 3, priority(NodeId(1)));
        let (_, effects) = step(&mut raft, &request);
        assert!(sent(&effects).iter().any(|m| !m.reject));
        // With equal logs the lower number is preferred.
        (request.index, request.log_term) = (3, 2);
        let (_, effects) = step(&mut raft, &request);
        assert!(sent(&effects).iter().any(|m| m.reject));
    }

    #[test]
    fn a_node_without_a_configuration_does_not_vote() {
        let mut raft = raft(1, Log::new_member());
        let mut request = message(MessageType::MsgRequestVote, 1, 2, 9);
        (request.index, request.log_term) = (100, 8);
        let (_, effects) = step(&mut raft, &request);
        assert!(effects.is_empty(), "{effects:?}");
    }

    #[test]
    fn a_leader_that_counts_on_more_than_the_log_holds_is_noticed() {
        let mut raft = raft(1, born(&[1, 2, 3], &[]));
        let mut heartbeat = message(MessageType::MsgHeartbeat, 1, 2, 2);
        heartbeat.commit = 9;
        assert_eq!(step(&mut raft, &heartbeat).0, Stepped::Behind);
        assert_eq!(raft.committed(), 1);
    }

    #[test]
    fn a_snapshot_is_fetched_before_raft_hears_of_it() {
        let mut raft = raft(1, Log::new_member());
        let mut offer = message(MessageType::MsgSnapshot, 1, 2, 5);
        let head = SnapshotHead {
            index: 50,
            term: 4,
            voters: vec![1, 3],
            learners: vec![2],
        };
        let metadata = offer.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (40, 4);
        metadata.set_conf_state(configuration(&head));
        let (_, effects) = step(&mut raft, &offer);
        assert!(matches!(effects.as_slice(), [Effect::FetchSnapshot { from }] if from.0 == 0));
        // Offered again, it is not fetched twice.
        assert!(step(&mut raft, &offer).1.is_empty());
        let effects = turn(&mut raft, 0, |raft, turn| {
            raft.fetched(turn, Some(head.clone()));
        });
        let installs = |effect: &Effect| matches!(effect, Effect::InstallSnapshot { head, .. } if head.index == 50);
        assert!(effects.iter().any(installs), "{effects:?}");
        assert!(sent(&effects).is_empty());
        let mut installed = None;
        let effects = turn(&mut raft, 0, |raft, turn| {
            installed = raft.persisted(turn, raft.number());
        });
        assert_eq!(installed, Some(head));
        assert_eq!(sent(&effects)[0].index, 50);
        assert_eq!(raft.head().index, 50);
    }
}

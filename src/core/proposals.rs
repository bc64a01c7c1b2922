//! Proposals (rules R3 and R4): this node's own until they are answered, and on the leader those that it has appended for others.
//!
//! What makes "refused" certain: a command is refused by the check of a leader only when it was sent once; every further copy is marked as such, is not checked but proposed, and applying it, once, says what became of it. And the leader checks such a command again after a fresh read, so that no leader of yesterday refuses what today's would take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::catalog;
use super::consensus::{Consensus, Dropped};
use super::node::{Answered, Fatal};
use super::reads::jitter;
use super::settings::Settings;
use super::turn::Turn;
use crate::base::id::{Boot, NodeId, OperationId, Ticket};
use crate::base::limit;
use crate::base::random::Random;
use crate::base::table::{Table, TableError, Tables};
use crate::base::time::Mono;
use crate::wire::command::{Code, Command, KNOWS, Operation, Reply};
use crate::wire::peer::{Fate, Message};
use crate::wire::record::from_row;

/// Sequences between the oldest command without an answer and the newest: fewer than the replies kept, so that a repeated command always finds its reply.
const WINDOW: u64 = limit::REPLIES_KEPT / 2;
/// Commands of all nodes that a leader has appended and not applied.
const APPENDED: usize = 16 * 1_024;
const _: () = assert!(APPENDED as u64 >= 4 * limit::REPLIES_KEPT);
/// Refusals that a leader remembers, should a copy of a refused command come late.
const REFUSED: usize = 4 * 1_024;
/// Commands that a leader is about to refuse, at most; beyond it they are proposed and refused by applying them.
const DOUBTED: usize = 1_024;
/// The first wait doubles so often.
const DOUBLINGS: u32 = 4;

/// A command of this node.
struct Own {
    /// Who waits; nobody for the leader's own verdicts.
    ticket: Option<Ticket>,
    command: Command,
    deadline: Mono,
    /// To whom it was handed last.
    target: Option<NodeId>,
    /// How often it was handed to a leader that may have appended it.
    sent: u32,
    /// When it is handed over again.
    next: Option<Mono>,
    /// Where it is committed, once a leader said so.
    committed: Option<(u64, Reply)>,
}

/// Everything proposed and not yet settled.
pub struct Proposals {
    node: NodeId,
    boot: Boot,
    retry: Duration,
    random: Random,
    /// Sequence of the last command.
    sequence: u64,
    /// By sequence.
    own: BTreeMap<u64, Own>,
    /// On the leader: commands appended, and which other nodes want to know.
    appended: BTreeMap<OperationId, BTreeSet<NodeId>>,
    /// On the leader: commands that the check would refuse, until a fresh read confirms it, and which other nodes want to know.
    doubted: BTreeMap<OperationId, (Command, BTreeSet<NodeId>)>,
    /// On the leader: doubted commands for which a fresh read is to be asked.
    doubts: Vec<OperationId>,
    /// Commands refused, and their order.
    refused: BTreeMap<OperationId, Reply>,
    refused_order: VecDeque<OperationId>,
    /// The leader that everything was last handed to.
    leader: Option<NodeId>,
}

/// What became of a command on the leader.
enum Taken {
    Appended,
    Committed { index: u64, reply: Reply },
    Refused { reply: Reply },
    NotLeader,
}

impl Proposals {
    /// Nothing proposed yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            node: settings.node,
            boot: settings.boot,
            retry: settings.propose_retry,
            random: Random::new(settings.seed ^ settings.boot.0 ^ 0x9209),
            sequence: 0,
            own: BTreeMap::new(),
            appended: BTreeMap::new(),
            doubted: BTreeMap::new(),
            doubts: Vec::new(),
            refused: BTreeMap::new(),
            refused_order: VecDeque::new(),
            leader: None,
        }
    }

    /// How many of this node's commands are under way.
    pub fn len(&self) -> usize {
        self.own.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// A new command of this node, handed over by the next [`Proposals::work`].
    pub fn add(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Option<Ticket>,
        operation: Operation,
        deadline: Mono,
    ) {
        let oldest = self.own.keys().next().copied();
        if oldest.is_some_and(|oldest| self.sequence + 1 - oldest >= WINDOW) {
            if let Some(ticket) = ticket {
                let reply = unavailable("busy: too many changes under way on this node");
                turn.answer(ticket, Answered::Refused { reply });
            }
            return;
        }
        self.sequence += 1;
        let command = Command {
            v: KNOWS,
            id: OperationId {
                node: self.node,
                boot: self.boot,
                sequence: self.sequence,
            },
            operation,
        };
        let own = Own {
            ticket,
            command,
            deadline,
            target: None,
            sent: 0,
            next: None,
            committed: None,
        };
        self.own.insert(self.sequence, own);
    }

    /// Hands over what is due and answers what is settled or late. `shortage` says why there is no leader.
    pub fn work(
        &mut self,
        turn: &mut Turn<'_>,
        mut consensus: Option<&mut Consensus>,
        up: &BTreeSet<NodeId>,
        shortage: &dyn Fn() -> String,
    ) -> Result<(), Fatal> {
        let leader = consensus.as_ref().and_then(|raft| raft.leader());
        let leads = consensus.as_ref().is_some_and(|raft| raft.leads());
        if !leads {
            // They are on their way or lost: who sent them asks again (rule R4).
            self.appended.clear();
            self.doubted.clear();
            self.doubts.clear();
        }
        let applied = consensus.as_ref().map_or(0, |raft| raft.head().index);
        let changed = leader != self.leader;
        self.leader = leader;
        let now = turn.mono();
        let sequences: Vec<u64> = self.own.keys().copied().collect();
        for sequence in sequences {
            let Some(own) = self.own.get_mut(&sequence) else {
                continue;
            };
            if let Some((index, reply)) = &own.committed
                && *index <= applied
            {
                let (index, reply) = (*index, reply.clone());
                self.settle(turn, sequence, Answered::Committed { index, reply });
                continue;
            }
            if own.deadline <= now {
                let answer = if own.sent == 0 {
                    let reply = unavailable(&shortage());
                    Answered::Refused { reply }
                } else {
                    Answered::Unknown
                };
                self.settle(turn, sequence, answer);
                continue;
            }
            let due = own.next.is_none_or(|next| next <= now) || (changed && own.target != leader);
            if !due {
                continue;
            }
            // Until it is handed over it waits for a leader or a link, not for the clock.
            own.next = None;
            let (Some(leader), None) = (leader, &own.committed) else {
                continue;
            };
            if leader == self.node {
                if let Some(raft) = consensus.as_deref_mut() {
                    self.lead_own(turn, raft, sequence)?;
                }
            } else if up.contains(&leader) {
                let message = Message::Propose {
                    command: own.command.clone(),
                    again: own.sent > 0,
                };
                turn.send(leader, message);
                own.sent += 1;
                own.target = Some(leader);
                self.later(now, sequence);
            }
        }
        Ok(())
    }

    /// This node leads: its own command goes straight to the log.
    fn lead_own(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &mut Consensus,
        sequence: u64,
    ) -> Result<(), Fatal> {
        let Some(own) = self.own.get(&sequence) else {
            return Ok(());
        };
        let (command, again) = (own.command.clone(), own.sent > 0);
        match self.take(turn, raft, &command, again, None)? {
            Taken::Appended => {
                if let Some(own) = self.own.get_mut(&sequence) {
                    own.sent += 1;
                    own.target = Some(self.node);
                }
            }
            Taken::Committed { index, reply } => {
                self.settle(turn, sequence, Answered::Committed { index, reply });
                return Ok(());
            }
            Taken::Refused { reply } => {
                self.settle(turn, sequence, Answered::Refused { reply });
                return Ok(());
            }
            Taken::NotLeader => {}
        }
        self.later(turn.mono(), sequence);
        Ok(())
    }

    fn later(&mut self, now: Mono, sequence: u64) {
        if let Some(own) = self.own.get_mut(&sequence) {
            let doublings = own.sent.saturating_sub(1).min(DOUBLINGS);
            let wait = self.retry * (1 << doublings);
            own.next = Some(now + wait + jitter(&mut self.random, wait));
        }
    }

    fn settle(&mut self, turn: &mut Turn<'_>, sequence: u64, answer: Answered) {
        if let Some(own) = self.own.remove(&sequence)
            && let Some(ticket) = own.ticket
        {
            turn.answer(ticket, answer);
        }
    }

    /// A peer asks this node to propose its command.
    pub fn asked(
        &mut self,
        turn: &mut Turn<'_>,
        raft: Option<&mut Consensus>,
        from: NodeId,
        command: &Command,
        again: bool,
    ) -> Result<(), Fatal> {
        let id = command.id;
        if id.node != from {
            return Ok(());
        }
        let leader = raft.as_ref().and_then(|raft| raft.leader());
        let taken = match raft {
            Some(raft) => self.take(turn, raft, command, again, Some(from))?,
            None => Taken::NotLeader,
        };
        let fate = match taken {
            Taken::Appended => return Ok(()),
            Taken::Committed { index, reply } => Fate::Committed { index, reply },
            Taken::Refused { reply } => Fate::Refused { reply },
            Taken::NotLeader => Fate::NotLeader { leader },
        };
        turn.send_last(from, Message::Proposed { id, fate });
        Ok(())
    }

    /// What a leader does with a command, its own or another node's.
    fn take(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &mut Consensus,
        command: &Command,
        again: bool,
        origin: Option<NodeId>,
    ) -> Result<Taken, Fatal> {
        if !raft.leads() {
            return Ok(Taken::NotLeader);
        }
        if let Some(origins) = self.appended.get_mut(&command.id) {
            origins.extend(origin);
            return Ok(Taken::Appended);
        }
        if let Some((_, origins)) = self.doubted.get_mut(&command.id)
            && !again
        {
            origins.extend(origin);
            return Ok(Taken::Appended);
        }
        self.doubted.remove(&command.id);
        if let Some(reply) = replied(&turn.tables, command.id)? {
            let index = raft.head().index;
            return Ok(Taken::Committed { index, reply });
        }
        if !again {
            if let Some(reply) = self.refused.get(&command.id) {
                let reply = reply.clone();
                return Ok(Taken::Refused { reply });
            }
            if command.v > KNOWS {
                let reply = refusal(Code::Invalid, "the leader does not know this command");
                return Ok(self.refuse(command.id, reply));
            }
            if let Some(reply) = ahead(turn, &command.operation) {
                return Ok(self.refuse(command.id, reply));
            }
            // Before everything of earlier terms is applied the tables cannot foresee anything.
            if raft.serves()
                && self.doubted.len() < DOUBTED
                && catalog::check(&turn.tables, &command.operation)?.is_some()
            {
                let origins = origin.into_iter().collect();
                self.doubted.insert(command.id, (command.clone(), origins));
                self.doubts.push(command.id);
                return Ok(Taken::Appended);
            }
            if self.appended.len() >= APPENDED {
                let reply = unavailable("busy: too many changes under way in the cluster");
                return Ok(self.refuse(command.id, reply));
            }
        }
        // A copy of it may be under way: here it only is not proposed.
        if command.v > KNOWS
            || self.appended.len() >= APPENDED
            || ahead(turn, &command.operation).is_some()
        {
            return Ok(Taken::NotLeader);
        }
        let content = serde_json::to_vec(command).unwrap_or_default();
        if content.is_empty() || content.len() > limit::COMMAND_BYTES {
            let reply = refusal(Code::Invalid, "the command is too large");
            return Ok(Taken::Refused { reply });
        }
        match raft.propose(content) {
            Ok(_) => {
                let origins = origin.into_iter().collect();
                self.appended.insert(command.id, origins);
                Ok(Taken::Appended)
            }
            Err(Dropped::NotLeader) => Ok(Taken::NotLeader),
            Err(Dropped::Busy) if again => Ok(Taken::NotLeader),
            Err(Dropped::Busy) => {
                let reply = unavailable("busy: too much is waiting to be committed");
                Ok(self.refuse(command.id, reply))
            }
        }
    }

    /// Commands for which a fresh read is to be asked, then [`Proposals::judge`].
    pub fn doubts(&mut self) -> Vec<OperationId> {
        std::mem::take(&mut self.doubts)
    }

    /// The tables are fresh: refuses a doubted command for good, or proposes it after all.
    pub fn judge(
        &mut self,
        turn: &mut Turn<'_>,
        raft: &mut Consensus,
        id: OperationId,
    ) -> Result<(), Fatal> {
        let Some((command, origins)) = self.doubted.remove(&id) else {
            return Ok(());
        };
        if !raft.leads() {
            return Ok(());
        }
        let Some(reply) = catalog::check(&turn.tables, &command.operation)? else {
            self.take(turn, raft, &command, true, None)?;
            if let Some(waiting) = self.appended.get_mut(&id) {
                waiting.extend(origins);
            }
            return Ok(());
        };
        self.refuse(id, reply.clone());
        for origin in origins {
            let fate = Fate::Refused {
                reply: reply.clone(),
            };
            turn.send_last(origin, Message::Proposed { id, fate });
        }
        if (id.node, id.boot) == (self.node, self.boot) {
            let applied = raft.head().index;
            self.proposed(turn, self.node, id, Fate::Refused { reply }, applied);
        }
        Ok(())
    }

    fn refuse(&mut self, id: OperationId, reply: Reply) -> Taken {
        if self.refused.insert(id, reply.clone()).is_none() {
            self.refused_order.push_back(id);
        }
        if self.refused_order.len() > REFUSED
            && let Some(oldest) = self.refused_order.pop_front()
        {
            self.refused.remove(&oldest);
        }
        Taken::Refused { reply }
    }

    /// A leader says what became of a command of this node.
    pub fn proposed(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        id: OperationId,
        fate: Fate,
        applied: u64,
    ) {
        if (id.node, id.boot) != (self.node, self.boot) {
            return;
        }
        let Some(own) = self.own.get_mut(&id.sequence) else {
            return;
        };
        match fate {
            Fate::Committed { index, reply } if index <= applied => {
                self.settle(turn, id.sequence, Answered::Committed { index, reply });
            }
            Fate::Committed { index, reply } => own.committed = Some((index, reply)),
            Fate::Refused { reply } if own.sent == 1 => {
                self.settle(turn, id.sequence, Answered::Refused { reply });
            }
            // Another copy of it is on its way, and decides.
            Fate::Refused { .. } => {}
            Fate::NotLeader { leader } => {
                let elsewhere = leader.is_some_and(|leader| leader != from);
                if elsewhere && own.target == Some(from) && leader == self.leader {
                    own.next = None;
                }
            }
        }
    }

    /// A command was applied here.
    pub fn applied(&mut self, turn: &mut Turn<'_>, index: u64, id: OperationId, reply: &Reply) {
        if let Some(origins) = self.appended.remove(&id) {
            for origin in origins {
                let fate = Fate::Committed {
                    index,
                    reply: reply.clone(),
                };
                turn.send_last(origin, Message::Proposed { id, fate });
            }
        }
        if (id.node, id.boot) == (self.node, self.boot) {
            let reply = reply.clone();
            self.settle(turn, id.sequence, Answered::Committed { index, reply });
        }
    }

    /// When to be called again at the latest.
    pub fn deadline(&self) -> Option<Mono> {
        self.own
            .values()
            .map(|own| own.next.map_or(own.deadline, |next| next.min(own.deadline)))
            .min()
    }
}

/// A change of mode dated too far ahead of this leader's clock (rule R19); applying reads no clock.
fn ahead(turn: &Turn<'_>, operation: &Operation) -> Option<Reply> {
    let Operation::SetMode { timestamp, .. } = operation else {
        return None;
    };
    let margin = u64::try_from(limit::MODE_AHEAD.as_nanos()).unwrap_or(u64::MAX);
    (*timestamp > turn.now.wall.0.saturating_add(margin)).then(|| {
        refusal(
            Code::Invalid,
            "the timestamp is more than 5 minutes ahead of the leader's clock",
        )
    })
}

/// What applying a command answered, when it was applied.
fn replied(tables: &dyn Tables, id: OperationId) -> Result<Option<Reply>, TableError> {
    tables
        .get(Table::Replies, &id.key())?
        .map(|row| from_row(&row))
        .transpose()
}

fn refusal(code: Code, message: &str) -> Reply {
    Reply::Rejected {
        code,
        message: message.to_owned(),
    }
}

fn unavailable(message: &str) -> Reply {
    refusal(Code::Unavailable, message)
}

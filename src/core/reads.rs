//! Fresh reads (rule R1): readers wait for an index that was committed after they asked, and for the tables to reach it.
//!
//! Requests are numbered. A reader is served by the answer to any request made after it came, so one request serves all who wait, and a lost one is simply followed by the next.

use std::time::Duration;

use super::node::Answered;
use super::settings::Settings;
use super::turn::Turn;
use crate::base::id::{OperationId, Ticket};
use crate::base::limit;
use crate::base::random::Random;
use crate::base::time::Mono;

/// The first wait doubles so often.
const DOUBLINGS: u32 = 4;

/// Who waits.
#[derive(Clone, Copy, Debug)]
pub enum Waiter {
    /// A thread of this node.
    Thread(Ticket),
    /// The leader, before it refuses this command.
    Doubt(OperationId),
}

struct Reader {
    waiter: Waiter,
    deadline: Mono,
    /// The first request that serves it.
    after: u64,
    /// The index it waits for, once known.
    index: Option<u64>,
}

/// Readers and the requests made for them.
pub struct Reads {
    readers: Vec<Reader>,
    /// Number of the last request.
    asked: u64,
    /// When the last request counts as lost; `None` when none is under way.
    lost_at: Option<Mono>,
    attempt: u32,
    retry: Duration,
    random: Random,
}

impl Reads {
    /// No readers yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            readers: Vec::new(),
            asked: 0,
            lost_at: None,
            attempt: 0,
            retry: settings.read_retry,
            random: Random::new(settings.seed ^ settings.boot.0 ^ 0x5ead),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.readers.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// A reader comes.
    pub fn add(&mut self, turn: &mut Turn<'_>, waiter: Waiter, deadline: Mono) {
        if self.readers.len() >= limit::DRIVER_QUEUE {
            if let Waiter::Thread(ticket) = waiter {
                turn.answer(ticket, Answered::Stale);
            }
            return;
        }
        self.readers.push(Reader {
            waiter,
            deadline,
            after: self.asked + 1,
            index: None,
        });
    }

    /// The request `number` was answered.
    pub fn confirmed(&mut self, number: u64, index: u64) {
        if number == self.asked {
            self.lost_at = None;
            self.attempt = 0;
        }
        for reader in &mut self.readers {
            if reader.after <= number && reader.index.is_none() {
                reader.index = Some(index);
            }
        }
    }

    /// The lead changed: what was asked of the last leader is lost.
    pub fn new_leader(&mut self) {
        self.lost_at = None;
        self.attempt = 0;
    }

    /// Answers the threads it can; the commands whose doubts are answered.
    pub fn answer(&mut self, turn: &mut Turn<'_>, applied: u64) -> Vec<OperationId> {
        let now = turn.mono();
        let mut doubts = Vec::new();
        self.readers.retain(|reader| {
            let fresh = reader.index.is_some_and(|index| index <= applied);
            if !fresh && reader.deadline > now {
                return true;
            }
            match reader.waiter {
                Waiter::Thread(ticket) if fresh => turn.answer(ticket, Answered::Fresh),
                Waiter::Thread(ticket) => turn.answer(ticket, Answered::Stale),
                Waiter::Doubt(id) if fresh => doubts.push(id),
                // The command comes again, and is proposed then.
                Waiter::Doubt(_) => {}
            }
            false
        });
        doubts
    }

    /// The number of a request to be made now.
    pub fn ask(&mut self, now: Mono, leader_known: bool) -> Option<u64> {
        let waiting = self.readers.iter().any(|reader| reader.index.is_none());
        if !waiting || !leader_known {
            self.lost_at = None;
            return None;
        }
        if self.lost_at.is_some_and(|at| at > now) {
            return None;
        }
        self.asked += 1;
        let wait = self.retry * (1 << self.attempt);
        self.attempt = (self.attempt + 1).min(DOUBLINGS);
        self.lost_at = Some(now + wait + jitter(&mut self.random, wait));
        Some(self.asked)
    }

    /// When to be called again at the latest.
    pub fn deadline(&self) -> Option<Mono> {
        let readers = self.readers.iter().map(|reader| reader.deadline).min();
        readers.into_iter().chain(self.lost_at).min()
    }
}

/// Up to a half of `wait`, by chance.
pub(super) fn jitter(random: &mut Random, wait: Duration) -> Duration {
    let half = u64::try_from(wait.as_micros() / 2).unwrap_or(u64::MAX);
    Duration::from_micros(random.below(half.saturating_add(1).max(1)))
}

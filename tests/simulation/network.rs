//! Links between machines: in order on each, with delay, loss and repetition; broken by crashes and partitions, and known to be broken only later.

use std::collections::BTreeMap;

use momo::base::id::NodeId;
use momo::base::random::Random;

use crate::plan::Plan;

/// A link from one machine to another, as the sender sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Down,
    /// The sender tries; it will be told.
    Connecting,
    Up,
    /// Broken, and the sender does not know.
    Broken,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    state: State,
    /// What was sent over an earlier connection never arrives.
    connection: u64,
    /// Nothing sent later arrives before.
    last_arrival: u64,
}

/// All links.
#[derive(Default)]
pub struct Network {
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Which side of a partition each machine is on.
    sides: BTreeMap<NodeId, u64>,
}

/// What is to happen to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Connect,
    Break,
}

impl Network {
    pub fn split(&mut self, sides: BTreeMap<NodeId, u64>) {
        self.sides = sides;
    }

    fn joined(&self, a: NodeId, b: NodeId) -> bool {
        self.sides.get(&a) == self.sides.get(&b)
    }

    pub fn is_up(&self, from: NodeId, to: NodeId) -> bool {
        let link = self.links.get(&(from, to));
        link.is_some_and(|link| link.state == State::Up)
    }

    /// Compares a link with what could be: what is to happen to it, if anything.
    pub fn compare(&mut self, from: NodeId, to: NodeId, both_alive: bool) -> Option<Change> {
        let possible = both_alive && self.joined(from, to);
        let link = self.links.entry((from, to)).or_default();
        match (link.state, possible) {
            (State::Down, true) => {
                link.state = State::Connecting;
                Some(Change::Connect)
            }
            (State::Up, false) => {
                link.state = State::Broken;
                link.connection += 1;
                Some(Change::Break)
            }
            _ => None,
        }
    }

    /// The sender's attempt to connect ends; true when the link is up.
    pub fn connected(&mut self, from: NodeId, to: NodeId, both_alive: bool) -> bool {
        let possible = both_alive && self.joined(from, to);
        let link = self.links.entry((from, to)).or_default();
        if link.state != State::Connecting {
            return false;
        }
        link.state = if possible { State::Up } else { State::Down };
        possible
    }

    /// The sender learns that the link is broken.
    pub fn noticed(&mut self, from: NodeId, to: NodeId) {
        let link = self.links.entry((from, to)).or_default();
        if link.state == State::Broken {
            link.state = State::Down;
        }
    }

    /// A process ended: its links end with it, and nobody is left to be told.
    pub fn died(&mut self, node: NodeId) {
        for ((from, _), link) in &mut self.links {
            if *from == node {
                link.state = State::Down;
                link.connection += 1;
            }
        }
    }

    /// When copies of a message arrive, and over which connection.
    pub fn send(
        &mut self,
        plan: &Plan,
        random: &mut Random,
        now: u64,
        from: NodeId,
        to: NodeId,
    ) -> Vec<(u64, u64)> {
        let link = self.links.entry((from, to)).or_default();
        if link.state != State::Up {
            return Vec::new();
        }
        if plan.loss > 0 && random.one_in(plan.loss) {
            return Vec::new();
        }
        let copies = if plan.twice > 0 && random.one_in(plan.twice) {
            2
        } else {
            1
        };
        (0..copies)
            .map(|_| {
                let late = plan.late > 0 && random.one_in(plan.late);
                let most = if late { plan.delay.1 } else { plan.delay.0 };
                let at = (now + 50 + random.below(most)).max(link.last_arrival + 1);
                link.last_arrival = at;
                (at, link.connection)
            })
            .collect()
    }

    /// Whether what was sent over this connection still arrives.
    pub fn arrives(&self, from: NodeId, to: NodeId, connection: u64) -> bool {
        let link = self.links.get(&(from, to));
        link.is_some_and(|link| link.state == State::Up && link.connection == connection)
    }
}

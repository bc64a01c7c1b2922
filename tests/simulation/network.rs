//! Links between machines: in order on each unless the seed has messages overtake, with delay, loss and repetition; broken by crashes and partitions of both or of one direction, and known to be broken only later.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Only the way back is cut: it goes on until the sender misses an acknowledgement.
    starving: bool,
}

/// All links.
#[derive(Default)]
pub struct Network {
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Nothing passes from the first to the second.
    cuts: BTreeSet<(NodeId, NodeId)>,
}

/// What is to happen to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Connect,
    Break,
    /// It breaks if the way back stays cut.
    Starve,
}

impl Network {
    /// Machines of different sides do not hear each other; those without a side are on one together.
    pub fn split(&mut self, nodes: &[NodeId], sides: &BTreeMap<NodeId, u64>) {
        self.cuts.clear();
        for from in nodes {
            for to in nodes {
                if sides.get(from) != sides.get(to) {
                    self.cuts.insert((*from, *to));
                }
            }
        }
    }

    /// Nothing passes from one machine to another; the other way is open.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Whether both ways are open: what takes a connection.
    pub fn joined(&self, a: NodeId, b: NodeId) -> bool {
        !self.cuts.contains(&(a, b)) && !self.cuts.contains(&(b, a))
    }

    pub fn is_up(&self, from: NodeId, to: NodeId) -> bool {
        let link = self.links.get(&(from, to));
        link.is_some_and(|link| link.state == State::Up)
    }

    /// Compares a link with what could be: what is to happen to it, if anything.
    pub fn compare(&mut self, from: NodeId, to: NodeId, both_alive: bool) -> Option<Change> {
        let possible = both_alive && self.joined(from, to);
        let way = both_alive && !self.cuts.contains(&(from, to));
        let link = self.links.entry((from, to)).or_default();
        match (link.state, possible) {
            (State::Down, true) => {
                link.state = State::Connecting;
                Some(Change::Connect)
            }
            (State::Up, true) => {
                link.starving = false;
                None
            }
            (State::Up, false) if way => {
                let first = !link.starving;
                link.starving = true;
                first.then_some(Change::Starve)
            }
            (State::Up, false) => {
                link.break_off();
                Some(Change::Break)
            }
            _ => None,
        }
    }

    /// The sender misses acknowledgements; true when that breaks the link.
    pub fn starved(&mut self, from: NodeId, to: NodeId) -> bool {
        let link = self.links.entry((from, to)).or_default();
        let breaks = link.state == State::Up && link.starving;
        if breaks {
            link.break_off();
        }
        breaks
    }

    /// The sender's attempt to connect ends; true when the link is up.
    pub fn connected(&mut self, from: NodeId, to: NodeId, both_alive: bool) -> bool {
        let possible = both_alive && self.joined(from, to);
        let link = self.links.entry((from, to)).or_default();
        if link.state != State::Connecting {
            return false;
        }
        link.starving = false;
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
                link.break_off();
                link.state = State::Down;
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
                let mut at = now + 50 + random.below(most);
                if plan.reorder == 0 || !random.one_in(plan.reorder) {
                    at = at.max(link.last_arrival + 1);
                    link.last_arrival = at;
                }
                (at, link.connection)
            })
            .collect()
    }

    /// Whether what was sent over this connection still arrives.
    pub fn arrives(&self, from: NodeId, to: NodeId, connection: u64) -> bool {
        let link = self.links.get(&(from, to));
        link.is_some_and(|link| link.state == State::Up && link.connection == connection)
            && !self.cuts.contains(&(from, to))
    }
}

impl Link {
    fn break_off(&mut self) {
        self.state = State::Broken;
        self.connection += 1;
        self.starving = false;
    }
}

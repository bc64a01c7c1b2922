//! Replication strategies: pure functions from who is alive and where the bytes come in to a plan. To add one: a file and a row in [`ALL`].

mod chain;
mod none;
mod primary_splay;
mod splay;

use std::fmt;

use crate::base::id::NodeId;
use crate::wire::peer::Hop;
use crate::wire::record::Mode;

/// A way to place a file's bytes.
pub trait Strategy: Sync {
    /// Its name: what the catalog remembers and what people ask for.
    fn name(&self) -> &'static str;

    /// Its number; of the four whole-file strategies the digit of the mode.
    fn code(&self) -> u8;

    /// Who keeps the bytes and how they get there; a pure function of the view.
    fn plan(&self, view: &View) -> Result<Plan, Refusal>;
}

/// Every strategy, by code.
pub const ALL: [&dyn Strategy; 4] = [
    &none::None,
    &chain::Chain,
    &splay::Splay,
    &primary_splay::PrimarySplay,
];

/// The strategy of this name.
pub fn by_name(name: &str) -> Option<&'static dyn Strategy> {
    ALL.into_iter().find(|strategy| strategy.name() == name)
}

/// The strategy behind a mode of the Momo protocol.
pub fn by_mode(mode: Mode) -> &'static dyn Strategy {
    ALL.into_iter()
        .find(|strategy| strategy.code() == mode.digit())
        .unwrap_or(&none::None)
}

/// What a strategy sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where the bytes come in.
    pub entry: NodeId,
    /// Storage members in order of id: the entry too.
    pub nodes: Vec<Candidate>,
    /// Copies a whole-file strategy makes where there are so many nodes.
    pub replicas: u8,
    /// Copies that must be durable where the strategy makes several and there are several nodes (rule R12).
    pub min_copies: u8,
    /// Whether a road may go on from the last node to the first.
    pub reach: Reach,
}

/// A storage member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// Takes new objects now: reachable, in full use, with room.
    pub open: bool,
}

/// How far a chain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To greater ids only, as the Momo protocol has it.
    Onward,
    /// Around to the first.
    Around,
}

/// What the engine carries out, without asking which strategy made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the entry node keeps the bytes itself.
    pub local: bool,
    /// To whom the entry node sends while it receives.
    pub hops: Vec<Hop>,
    /// Nodes to which the client sends itself (rule R22).
    pub legs: Vec<NodeId>,
    /// Copies there should be in the end.
    pub want: u8,
    /// Copies there must be before the put is proposed.
    pub min: u8,
    /// Copies to wait for before the put is proposed while their nodes live.
    pub acks: u8,
}

/// Too few nodes can take the bytes now: nothing is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Nodes of the plan that are open.
    pub open: usize,
    /// Nodes the strategy could use.
    pub members: usize,
    /// How many it needs.
    pub needed: u8,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} daemons up, {} needed",
            self.open, self.members, self.needed
        )
    }
}

impl std::error::Error for Refusal {}

/// The plan for a client that sends once while primary-splay is asked for: the entry node does the splaying.
pub fn helped(view: &View) -> Result<Plan, Refusal> {
    splay::Splay.plan(view)
}

/// Who keeps the bytes, before the road is laid: what the strategies have in common.
struct Choice {
    /// Whether the entry node keeps them.
    local: bool,
    /// The others that do and are open, in the order of the road.
    others: Vec<NodeId>,
    /// See [`Plan::want`].
    want: u8,
    /// See [`Plan::min`].
    min: u8,
}

impl Choice {
    /// Of the nodes on the road, the entry node in front, the first open ones, as many as wanted.
    ///
    /// Nodes that are not open are passed over, so that others stand in for them; they count for `want`, so that a road
    /// cut short leaves a debt.
    fn new(view: &View, reach: Reach, copies: u8) -> Result<Self, Refusal> {
        let road = road(view, reach);
        let members = u8::try_from(road.len()).unwrap_or(u8::MAX);
        let want = copies.min(members).max(1);
        let several = want >= 2 && view.nodes.len() >= 2;
        let min = if several {
            view.min_copies.clamp(1, want)
        } else {
            1
        };
        let mut open: Vec<NodeId> = road
            .iter()
            .filter(|candidate| candidate.open)
            .map(|candidate| candidate.node)
            .collect();
        let refusal = Refusal {
            open: open.len(),
            members: road.len(),
            needed: min,
        };
        if open.len() < usize::from(min) {
            return Err(refusal);
        }
        open.truncate(usize::from(want));
        let local = open.first() == Some(&view.entry);
        let others = open.split_off(usize::from(local));
        Ok(Self {
            local,
            others,
            want,
            min,
        })
    }

    fn plan(self, hops: Vec<Hop>, legs: Vec<NodeId>) -> Plan {
        let chosen = usize::from(self.local) + self.others.len();
        let acks = u8::try_from(chosen).unwrap_or(u8::MAX);
        Plan {
            local: self.local,
            hops,
            legs,
            want: self.want,
            min: self.min,
            acks,
        }
    }
}

/// The members in the order in which bytes that come in at the entry node reach them.
fn road(view: &View, reach: Reach) -> Vec<Candidate> {
    let mut nodes = view.nodes.clone();
    nodes.sort_unstable_by_key(|candidate| candidate.node);
    nodes.dedup_by_key(|candidate| candidate.node);
    let before = nodes.partition_point(|candidate| candidate.node < view.entry);
    nodes.rotate_left(before);
    if reach == Reach::Onward {
        nodes.truncate(nodes.len() - before);
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(entry: u16, open: &[bool], reach: Reach) -> View {
        let nodes = (0..).zip(open).map(|(id, open)| Candidate {
            node: NodeId(id),
            open: *open,
        });
        View {
            entry: NodeId(entry),
            nodes: nodes.collect(),
            replicas: 3,
            min_copies: 2,
            reach,
        }
    }

    fn chain_of(nodes: &[u16]) -> Vec<Hop> {
        match nodes.split_first() {
            Some((first, rest)) => vec![Hop {
                node: NodeId(*first),
                next: chain_of(rest),
            }],
            None => Vec::new(),
        }
    }

    fn fan_of(nodes: &[u16]) -> Vec<Hop> {
        nodes
            .iter()
            .map(|node| Hop {
                node: NodeId(*node),
                next: Vec::new(),
            })
            .collect()
    }

    fn plan(mode: Mode, view: &View) -> Plan {
        by_mode(mode).plan(view).unwrap()
    }

    /// Copies in a plan by node: local, hops and legs.
    fn targets(view: &View, plan: &Plan) -> Vec<NodeId> {
        fn walk(hops: &[Hop], into: &mut Vec<NodeId>) {
            for hop in hops {
                into.push(hop.node);
                walk(&hop.next, into);
            }
        }
        let mut nodes = plan.legs.clone();
        nodes.extend(plan.local.then_some(view.entry));
        walk(&plan.hops, &mut nodes);
        nodes.sort_unstable();
        nodes
    }

    #[test]
    fn three_daemons_are_served_as_the_momo_protocol_has_it() {
        let at = |entry| view(entry, &[true; 3], Reach::Onward);
        assert_eq!(plan(Mode::None, &at(0)).hops, []);
        assert_eq!(plan(Mode::None, &at(0)).want, 1);
        assert_eq!(plan(Mode::Chain, &at(0)).hops, chain_of(&[1, 2]));
        assert_eq!(plan(Mode::Chain, &at(1)).hops, chain_of(&[2]));
        assert_eq!(plan(Mode::Chain, &at(1)).want, 2);
        let last = plan(Mode::Chain, &at(2));
        assert_eq!((last.hops, last.want, last.min), (Vec::new(), 1, 1));
        assert_eq!(plan(Mode::Splay, &at(0)).hops, fan_of(&[1, 2]));
        let legs = plan(Mode::PrimarySplay, &at(0));
        assert_eq!(
            (legs.hops, legs.legs),
            (Vec::new(), vec![NodeId(1), NodeId(2)])
        );
        assert_eq!((legs.want, legs.min, legs.acks), (3, 2, 3));
    }

    #[test]
    fn a_chain_around_goes_on_at_the_first_node_and_passes_over_the_dead() {
        let plan = plan(
            Mode::Chain,
            &view(2, &[false, true, true, true], Reach::Around),
        );
        assert_eq!(plan.hops, chain_of(&[3, 1]));
        assert_eq!((plan.want, plan.acks), (3, 3));
    }

    #[test]
    fn a_node_that_is_down_leaves_a_debt_and_not_a_smaller_wish() {
        let plan = plan(Mode::Splay, &view(0, &[true, false, true], Reach::Around));
        assert_eq!((plan.want, plan.min, plan.acks), (3, 2, 2));
        assert_eq!(plan.hops, fan_of(&[2]));
    }

    #[test]
    fn a_lone_daemon_of_three_refuses_and_says_why() {
        let lone = view(0, &[true, false, false], Reach::Around);
        for mode in [Mode::Chain, Mode::Splay, Mode::PrimarySplay] {
            let refusal = by_mode(mode).plan(&lone).unwrap_err();
            assert_eq!(refusal.to_string(), "1 of 3 daemons up, 2 needed");
        }
        assert!(plan(Mode::None, &lone).local);
    }

    #[test]
    fn a_cluster_of_one_keeps_one_copy() {
        for mode in Mode::ALL {
            let plan = plan(mode, &view(0, &[true], Reach::Around));
            assert_eq!(
                (plan.local, plan.want, plan.min, plan.acks),
                (true, 1, 1, 1)
            );
        }
    }

    #[test]
    fn an_entry_node_that_takes_nothing_new_passes_the_bytes_on() {
        let full = view(1, &[true, false, true], Reach::Around);
        assert_eq!(plan(Mode::None, &full).hops, fan_of(&[2]));
        assert_eq!(plan(Mode::Chain, &full).hops, chain_of(&[2, 0]));
        assert_eq!(plan(Mode::Splay, &full).hops, fan_of(&[2, 0]));
        assert_eq!(plan(Mode::PrimarySplay, &full).legs, [NodeId(2), NodeId(0)]);
        assert!(Mode::ALL.iter().all(|mode| !plan(*mode, &full).local));
    }

    #[test]
    fn a_client_that_cannot_send_to_each_is_helped_by_splay() {
        let view = view(0, &[true; 3], Reach::Around);
        assert_eq!(helped(&view), plan_of_splay(&view));
    }

    fn plan_of_splay(view: &View) -> Result<Plan, Refusal> {
        by_mode(Mode::Splay).plan(view)
    }

    #[test]
    fn every_plan_for_any_number_of_daemons_adds_up() {
        let mut random = crate::base::random::Random::new(1);
        for _ in 0..20_000 {
            let count = random.below(9) + 1;
            let open: Vec<bool> = (0..count).map(|_| !random.one_in(3)).collect();
            let entry = u16::try_from(random.below(count + 1)).unwrap();
            let reach = if random.one_in(2) {
                Reach::Onward
            } else {
                Reach::Around
            };
            let mut view = view(entry, &open, reach);
            view.replicas = u8::try_from(random.below(6)).unwrap();
            view.min_copies = u8::try_from(random.below(5)).unwrap();
            for strategy in ALL {
                let plan = match strategy.plan(&view) {
                    Ok(plan) => plan,
                    Err(refusal) => {
                        assert!(refusal.open < usize::from(refusal.needed));
                        continue;
                    }
                };
                let targets = targets(&view, &plan);
                let distinct = targets.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(distinct, "{view:?} {plan:?}");
                assert_eq!(targets.len(), usize::from(plan.acks));
                assert!(1 <= plan.min && plan.min <= plan.acks && plan.acks <= plan.want);
                assert!(usize::from(plan.want) <= view.nodes.len().max(1));
                assert!(targets.iter().all(|node| open[usize::from(node.0)]));
                let entry_open = open.get(usize::from(entry)).copied().unwrap_or(false);
                assert_eq!(plan.local, entry_open);
            }
        }
    }
}

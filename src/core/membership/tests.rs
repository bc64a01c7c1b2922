//! Who comes, who goes, and who stays out: one node, told by hand.

use crate::base::id::{Boot, ClusterId, NodeId};
use crate::base::table::{MemoryTables, Tables};
use crate::base::time::{Mono, Now, Wall};
use crate::core::node::{Effect, Event, LinkState, Memory, Node, Recovered, Role};
use crate::core::settings::Settings;
use crate::wire::command::{Birth, BirthMember};
use crate::wire::peer::{Hello, Message};
use crate::wire::record::Mode;

const CLUSTER: ClusterId = ClusterId(5);

fn member(id: u16) -> BirthMember {
    BirthMember {
        id: NodeId(id),
        name: format!("n{id}"),
        address: format!("host{id}:1"),
        votes: true,
        stores: true,
        manages: true,
    }
}

fn born() -> Memory {
    Memory::Born(Birth {
        cluster: CLUSTER,
        members: (0..3).map(member).collect(),
        mode: Mode::Chain,
        time: Wall(1),
    })
}

/// Node 0 and its tables.
struct One {
    node: Node,
    tables: MemoryTables,
    at: u64,
}

impl One {
    fn start(members: u16, joins: bool, memory: Vec<Memory>) -> Self {
        let mut settings = Settings::new(NodeId(0), Boot(2), 7, ClusterId(1));
        settings.members = (0..members).map(member).collect();
        settings.joins = joins;
        let recovered = Recovered {
            memory,
            ..Recovered::default()
        };
        let tables = MemoryTables::default();
        let node = Node::new(settings, recovered, &tables).unwrap();
        let mut one = Self {
            node,
            tables,
            at: 1_000_000,
        };
        one.tell(Event::Time);
        one
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.at += 10_000;
        let now = Now {
            mono: Mono(self.at),
            ..Now::default()
        };
        self.node.handle(event, now, &self.tables).unwrap();
        let effects: Vec<Effect> = std::iter::from_fn(|| self.node.poll()).collect();
        for effect in &effects {
            if let Effect::Write(batch) = effect {
                self.tables.write(batch);
            }
        }
        effects
    }

    fn hear(&mut self, from: u16, message: Message) -> Vec<Effect> {
        let from = NodeId(from);
        self.tell(Event::Received { from, message })
    }

    fn is_out(&self) -> bool {
        let report = self.node.report();
        !report.born && report.role == Role::Outside
    }
}

fn out(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Remember(Memory::Out { cluster, why }) if *cluster == CLUSTER => Some(why.as_str()),
        _ => None,
    })
}

fn hellos(effects: &[Effect]) -> Vec<Hello> {
    let hello = |effect: &Effect| match effect {
        Effect::Send {
            message: Message::Hello(hello),
            ..
        } => Some(hello.clone()),
        _ => None,
    };
    effects.iter().filter_map(hello).collect()
}

fn hello(cluster: ClusterId) -> Message {
    Message::Hello(Hello {
        cluster: Some(cluster),
        boot: Boot(1),
        newborn: None,
        last_index: 90,
        remembers: 0,
        answer: true,
        address: "host1:1".to_owned(),
        joins: None,
    })
}

#[test]
fn a_member_that_was_removed_remembers_that_and_takes_part_no_more() {
    let mut one = One::start(3, false, vec![born()]);
    let removed = |cluster, index| Message::Removed { cluster, index };
    // Of another cluster, or from before what is applied here: it knows better.
    for (cluster, index) in [(ClusterId(6), 9), (CLUSTER, 1)] {
        let effects = one.hear(1, removed(cluster, index));
        assert!(out(&effects).is_none() && !one.is_out());
    }
    let effects = one.hear(1, removed(CLUSTER, 9));
    assert!(out(&effects).is_some_and(|why| why.contains("removed")));
    assert!(one.is_out());
    assert!(one.node.report().waiting.unwrap().contains("removed"));
    assert!(out(&one.hear(1, removed(CLUSTER, 9))).is_none(), "once");
}

#[test]
fn whoever_is_out_stays_out_over_restarts_and_is_not_taken_in_by_mistake() {
    let why = "this node was removed".to_owned();
    let memory = Memory::Out {
        cluster: CLUSTER,
        why,
    };
    // Not even when it is still told to join: an operator must have it forget.
    for joins in [false, true] {
        let mut one = One::start(3, joins, vec![born(), memory.clone()]);
        assert!(one.is_out());
        let node = NodeId(1);
        let state = LinkState::Up;
        let effects = one.tell(Event::Link { node, state });
        assert!(hellos(&effects).iter().all(|hello| hello.joins.is_none()));
        one.hear(1, hello(CLUSTER));
        let effects = one.hear(1, Message::Admit { cluster: CLUSTER });
        assert!(one.is_out(), "{effects:?}");
    }
}

#[test]
fn the_successor_of_its_cluster_ends_a_membership_and_another_cluster_does_not() {
    let mut one = One::start(3, false, vec![born()]);
    let by = NodeId(1);
    let cluster = ClusterId(99);
    one.tell(Event::Superseded { by, cluster });
    assert!(!one.is_out());
    let cluster = CLUSTER.successor(3);
    let effects = one.tell(Event::Superseded { by, cluster });
    assert!(out(&effects).is_some_and(|why| why.contains("recovered by force")));
    assert!(one.is_out());
    // The cluster of before cannot take it back.
    one.hear(2, hello(CLUSTER));
    one.hear(2, Message::Admit { cluster: CLUSTER });
    assert!(one.is_out());
}

#[test]
fn one_that_is_to_join_is_not_born_alone_and_asks_whom_it_meets() {
    let mut alone = One::start(1, false, Vec::new());
    assert!(alone.tell(Event::Time).is_empty() && alone.node.report().born);
    let mut one = One::start(1, true, Vec::new());
    one.tell(Event::Time);
    assert!(!one.node.report().born);
    let node = NodeId(1);
    let state = LinkState::Up;
    let effects = one.tell(Event::Link { node, state });
    let asked = hellos(&effects);
    assert_eq!(asked[0].joins, Some(member(0)));
    assert_eq!(asked[0].address, "host0:1");
    // It believes a leader whose cluster it has heard of, and no other.
    one.hear(1, Message::Admit { cluster: CLUSTER });
    assert!(!one.node.report().born);
    one.hear(1, hello(CLUSTER));
    one.hear(1, Message::Admit { cluster: CLUSTER });
    assert_eq!(one.node.report().cluster, Some(CLUSTER));
    assert!(one.node.report().born);
}

#[test]
fn a_birth_by_order_needs_nobody_and_nobody_with_a_past() {
    let mut one = One::start(3, false, Vec::new());
    one.tell(Event::Time);
    assert!(!one.node.report().born, "the others are missing");
    one.tell(Event::Init);
    let report = one.node.report();
    assert_eq!((report.born, report.voters), (true, vec![NodeId(0)]));
    assert_eq!(report.learners, [NodeId(1), NodeId(2)]);
    assert!(
        one.tables
            .get(crate::base::table::Table::Nodes, &[0, 2])
            .unwrap()
            .is_some()
    );

    let mut one = One::start(3, false, Vec::new());
    one.hear(1, hello(CLUSTER));
    one.tell(Event::Init);
    assert!(!one.node.report().born, "a cluster is there");
}

//! Repair without a network: a leader, its catalog and its health, and jobs that end as the test says.

use std::collections::BTreeSet;

use super::*;
use crate::base::digest::sha256;
use crate::base::id::OperationId;
use crate::base::limit::JOBS_IN;
use crate::base::path::FilePath;
use crate::base::table::{MemoryTables, Overlay};
use crate::base::time::Wall;
use crate::core::catalog;
use crate::core::health;
use crate::core::node::LinkState;
use crate::wire::command::{Birth, BirthMember, Command, Expect, PlacedPart, Put, Reply};
use crate::wire::peer::Figures;
use crate::wire::record::{Copy, Mode, Part};

const GIB: u64 = 1 << 30;

const SETTINGS: Settings = Settings {
    seed: 1,
    grace: Duration::from_mins(2),
    incoming: JOBS_IN,
    outgoing: 1_000,
    bandwidth: 0,
    lingers: Duration::from_mins(10),
};

/// A leader, node 0, and its cluster, without a network between.
struct Cluster {
    tables: MemoryTables,
    index: u64,
    health: Health,
    repair: Repair,
}

fn at(millis: u64) -> Mono {
    Mono(1_000_000_000 + millis * 1_000)
}

fn copy(node: u16) -> Copy {
    Copy {
        node: NodeId(node),
        dir: DirId(node.into()),
    }
}

fn object(content: u32) -> Sha256 {
    sha256(&content.to_be_bytes())
}

impl Cluster {
    /// So many members, all alive, each with room of its number of GiB and one more.
    fn new(members: u16) -> Self {
        let member = |id| BirthMember {
            id: NodeId(id),
            name: String::new(),
            address: String::new(),
            votes: true,
            stores: true,
            manages: true,
        };
        let birth = Birth {
            cluster: crate::base::id::ClusterId(1),
            members: (0..members).map(member).collect(),
            mode: Mode::Splay,
            time: Wall(1),
        };
        let mut tables = MemoryTables::default();
        tables.write(&catalog::born(&birth));
        let settings = health::Settings {
            node: NodeId(0),
            interval: Duration::from_secs(5),
            timeout: Duration::from_hours(1),
        };
        let mut health = Health::new(settings);
        for node in 0..members {
            let free_bytes = GIB * (u64::from(node) + 1);
            let figures = Figures {
                total_bytes: 99 * GIB,
                free_bytes,
                ..Figures::default()
            };
            health.heartbeat(NodeId(node), Boot(1), figures, at(0));
            health.link(NodeId(node), LinkState::Up, at(0));
        }
        let repair = Repair::new(SETTINGS);
        let mut cluster = Self {
            tables,
            index: 0,
            health,
            repair,
        };
        for node in 0..members {
            cluster.register(node, 1);
        }
        cluster
    }

    fn register(&mut self, node: u16, boot: u64) {
        self.apply(Operation::Register {
            node: NodeId(node),
            name: String::new(),
            address: "127.0.0.1:1".to_owned(),
            dirs: vec![copy(node).dir],
            stores: true,
            manages: true,
            boot: Boot(boot),
            knows: 1,
        });
    }

    /// The link to a node changed, as the node that holds both parts tells them.
    fn link(&mut self, node: u16, state: LinkState, millis: u64) {
        self.health.link(NodeId(node), state, at(millis));
        if state == LinkState::Down {
            self.repair.unlinked(NodeId(node), at(millis));
        }
    }

    fn apply(&mut self, operation: Operation) {
        self.index += 1;
        let id = OperationId {
            node: NodeId(0),
            boot: Boot(1),
            sequence: self.index,
        };
        let mut overlay = Overlay::new(&self.tables);
        let command = Command {
            v: 1,
            id,
            operation,
        };
        let applied = catalog::apply(&mut overlay, self.index, &command).unwrap();
        assert!(matches!(applied.reply, Reply::Done { .. }), "{applied:?}");
        let batch = overlay.batch;
        self.tables.write(&batch);
    }

    fn put(&mut self, content: u32, size: u64, want: u8, nodes: &[u16]) {
        let sequence = self.index + 1;
        let part = Part {
            size,
            sha256: object(content),
        };
        self.apply(Operation::Put(Put {
            upload: OperationId {
                node: NodeId(0),
                boot: Boot(1),
                sequence,
            },
            path: FilePath::new(&format!("f{content}")).unwrap(),
            size,
            sha256: part.sha256,
            md5: None,
            strategy: "splay".to_owned(),
            class: "default".to_owned(),
            parts: vec![PlacedPart {
                part,
                copies: nodes.iter().map(|n| copy(*n)).collect(),
            }],
            want,
            min: 1,
            expect: Expect::Any,
            owner: None,
            time: Wall(1),
        }));
    }

    fn tick(&mut self, millis: u64) -> Vec<(NodeId, Fetch)> {
        let work = self.work(millis);
        for operation in work.operations {
            self.apply(operation);
        }
        work.orders
    }

    /// What a tick asks for; none of it done.
    fn work(&mut self, millis: u64) -> Work {
        let work = self
            .repair
            .tick(at(millis), Some(3), &self.tables, &self.health)
            .unwrap();
        assert!(
            self.repair
                .deadline()
                .is_some_and(|deadline| deadline > at(millis))
        );
        work
    }

    /// Ticks every 20 ms of so much time; every job does as it was told, every operation is applied.
    fn run(&mut self, from: u64, until: u64) -> Vec<(NodeId, Fetch)> {
        let mut orders = Vec::new();
        let mut millis = from;
        while millis <= until {
            for (target, fetch) in self.tick(millis) {
                self.land(target, &fetch, millis);
                orders.push((target, fetch));
            }
            millis += 20;
        }
        orders
    }

    fn observe(&mut self, node: u16, alive: bool, boot: u64) {
        let (node, boot) = (NodeId(node), Boot(boot));
        self.apply(Operation::Observe { node, alive, boot });
    }

    fn holders(&self, content: u32) -> Vec<u16> {
        let object = query::object(&self.tables, &object(content)).unwrap();
        let copies = object.unwrap().copies;
        copies.iter().map(|copy| copy.node.0).collect()
    }

    /// The target did as it was told.
    fn land(&mut self, target: NodeId, fetch: &Fetch, millis: u64) {
        let (sha256, size) = (fetch.sha256, fetch.size);
        self.apply(Operation::AddCopy {
            sha256,
            size,
            copy: copy(target.0),
        });
        self.repair.ended(fetch.job, None, at(millis));
    }
}

#[test]
fn debts_are_paid_until_there_are_none_fewest_copies_first() {
    let mut cluster = Cluster::new(4);
    for content in 0..300 {
        let nodes: &[u16] = if content % 3 == 0 { &[0] } else { &[0, 1] };
        cluster.put(content, 100, 3, nodes);
    }
    let mut copies = Vec::new();
    let mut millis = 0;
    while query::debts(&cluster.tables).unwrap() > 0 {
        millis += 20;
        for (target, fetch) in cluster.tick(millis) {
            copies.push(fetch.holders.len());
            assert!(!fetch.holders.contains(&target));
            cluster.land(target, &fetch, millis);
        }
        assert!(millis < 60_000, "debts are paid in time");
    }
    assert_eq!(copies.len(), 400);
    assert!(
        copies.iter().take(90).all(|copies| *copies == 1),
        "{copies:?}"
    );
    assert!(cluster.tick(millis + 1_000).is_empty());
}

#[test]
fn a_node_has_as_many_orders_again_as_copies_it_takes_at_a_time_and_an_object_has_one_job() {
    let mut cluster = Cluster::new(3);
    for content in 0..10 {
        cluster.put(content, 100, 3, &[0]);
    }
    let orders = cluster.tick(0);
    let targets: Vec<u16> = orders.iter().map(|(target, _)| target.0).collect();
    assert_eq!(
        targets.iter().filter(|target| **target == 1).count(),
        JOBS_IN * 2
    );
    assert_eq!(
        targets.iter().filter(|target| **target == 2).count(),
        JOBS_IN * 2
    );
    let objects: BTreeSet<Sha256> = orders.iter().map(|(_, fetch)| fetch.sha256).collect();
    assert_eq!(objects.len(), orders.len());
    assert!(cluster.tick(600).is_empty(), "all slots are taken");
    let (target, fetch) = orders[0].clone();
    cluster.land(target, &fetch, 601);
    let next = cluster.tick(601);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].0, target);
    assert!(next[0].1.job > fetch.job);
}

#[test]
fn the_roomiest_node_is_chosen_and_a_full_one_never() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, 100, 2, &[0]);
    cluster.put(2, GIB * 5 / 2, 2, &[0]);
    cluster.put(3, 10 * GIB, 2, &[0]);
    let orders = cluster.tick(0);
    let target = |content| {
        orders
            .iter()
            .find(|(_, fetch)| fetch.sha256 == object(content))
            .map(|(node, _)| node.0)
    };
    assert_eq!(target(2), Some(2));
    assert!(target(1).is_some());
    assert_eq!(target(3), None);
}

#[test]
fn a_failed_copy_is_tried_again_elsewhere_and_later_each_time() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, 100, 2, &[0]);
    let (mut millis, mut ordered, mut targets, mut pauses) = (0, 0, Vec::new(), Vec::new());
    while targets.len() < 5 {
        millis += 10;
        for (target, fetch) in cluster.tick(millis) {
            pauses.push(millis - ordered);
            ordered = millis;
            targets.push(target.0);
            cluster
                .repair
                .ended(fetch.job, Some("disk full".to_owned()), at(millis));
        }
    }
    assert_eq!(targets, [2, 1, 2, 1, 2]);
    assert!(pauses[1] >= 1_000 && pauses[1] < 2_000, "{pauses:?}");
    assert!(pauses[4] >= 60_000 && pauses[4] < 76_000, "{pauses:?}");
}

#[test]
fn a_job_that_does_not_end_is_given_up_and_one_on_a_lost_node_at_once() {
    let mut cluster = Cluster::new(2);
    cluster.put(1, 100, 2, &[0]);
    let first = cluster.tick(0);
    assert_eq!(first.len(), 1);
    assert!(cluster.tick(29_000).is_empty());
    assert!(cluster.tick(30_500).is_empty(), "it rests first");
    let second = cluster.tick(33_000);
    assert_eq!(second.len(), 1);
    cluster.repair.ended(first[0].1.job, None, at(33_001));
    assert_eq!(
        cluster.repair.jobs.len(),
        1,
        "an old job's end says nothing of a new one"
    );
    for _ in 0..2 {
        cluster.health.link(NodeId(1), LinkState::Down, at(34_000));
    }
    cluster.health.link(NodeId(9), LinkState::Down, at(36_000));
    assert!(cluster.tick(36_000).is_empty());
    assert!(cluster.repair.jobs.len() == 0);
}

#[test]
fn an_order_lost_with_its_link_is_given_again_soon_to_a_node_that_has_one() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, 100, 2, &[0]);
    let lost = cluster.tick(0);
    assert_eq!(lost[0].0, NodeId(2));
    cluster.link(2, LinkState::Down, 10);
    assert!(cluster.repair.jobs.len() == 0, "its slot is free at once");
    let mut millis = 10;
    let elsewhere = loop {
        millis += 100;
        let orders = cluster.tick(millis);
        if !orders.is_empty() {
            break orders;
        }
    };
    assert!(
        (1_000..2_000).contains(&millis),
        "after a first back-off: {millis}"
    );
    assert_eq!(
        elsewhere[0].0,
        NodeId(1),
        "a node without a link gets no orders"
    );
    cluster.link(1, LinkState::Down, millis);
    cluster.link(2, LinkState::Up, millis + 500);
    while cluster.tick(millis).is_empty() {
        millis += 100;
        assert!(millis < 10_000);
    }
    assert_eq!(cluster.repair.jobs.len(), 1);
}

#[test]
fn an_order_to_a_node_that_has_started_anew_is_given_again() {
    let mut cluster = Cluster::new(2);
    cluster.put(1, 100, 2, &[0]);
    let lost = cluster.tick(0);
    cluster.register(1, 2);
    assert!(cluster.tick(500).is_empty());
    assert!(cluster.repair.jobs.len() == 0);
    let again = (6..30)
        .map(|tenth| cluster.tick(tenth * 100))
        .find(|orders| !orders.is_empty());
    let again = again.expect("within 3 s, not 30");
    assert_eq!(again[0].0, NodeId(1));
    assert!(again[0].1.job > lost[0].1.job);
    assert!(
        cluster.tick(3_500).is_empty(),
        "the new start keeps its order"
    );
}

#[test]
fn a_job_whose_holders_are_all_lost_makes_room_for_another() {
    let mut cluster = Cluster::new(4);
    for content in 0..2 {
        cluster.put(content, 100, 2, &[1]);
    }
    let orders = cluster.tick(0);
    assert_eq!(orders.len(), 2);
    for _ in 0..2 {
        cluster.link(1, LinkState::Down, 100);
    }
    // What was said of node 1 is final once the second refusal has settled.
    cluster.health.link(NodeId(3), LinkState::Up, at(20_000));
    assert!(cluster.tick(20_000).is_empty());
    assert!(cluster.repair.jobs.len() == 0);
    cluster.put(9, 100, 2, &[0]);
    let next = cluster.tick(20_500);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].1.sha256, object(9));
}

#[test]
fn only_a_leader_gives_orders_and_a_new_term_starts_anew() {
    let mut cluster = Cluster::new(2);
    cluster.put(1, 100, 2, &[0]);
    let Cluster {
        tables,
        health,
        repair,
        ..
    } = &mut cluster;
    assert!(
        repair
            .tick(at(0), None, tables, health)
            .unwrap()
            .orders
            .is_empty()
    );
    assert_eq!(repair.deadline(), None);
    let old = repair.tick(at(1), Some(3), tables, health).unwrap().orders;
    assert_eq!(
        old[0].1.job,
        JobId {
            term: 3,
            sequence: 1
        }
    );
    let new = repair.tick(at(2), Some(4), tables, health).unwrap().orders;
    assert_eq!(
        new[0].1.job,
        JobId {
            term: 4,
            sequence: 1
        }
    );
    assert!(
        repair
            .tick(at(3), None, tables, health)
            .unwrap()
            .orders
            .is_empty()
    );
    repair.ended(new[0].1.job, None, at(4));
    assert_eq!(repair.deadline(), None);
}

#[test]
fn what_cannot_be_helped_does_not_hide_what_can() {
    let mut cluster = Cluster::new(3);
    // Too large for any node, with one copy; the small ones have two and come behind.
    for content in 0..2_000 {
        cluster.put(content, 90 * GIB, 2, &[0]);
    }
    cluster.put(9_999, 100, 3, &[0, 1]);
    let mut orders = Vec::new();
    let mut millis = 0;
    while orders.is_empty() {
        orders = cluster.tick(millis);
        millis += 500;
        assert!(millis < 20_000);
    }
    assert_eq!(orders[0].1.sha256, object(9_999));
}

#[test]
fn an_object_without_a_copy_within_reach_waits() {
    let mut cluster = Cluster::new(2);
    cluster.put(1, 100, 2, &[0]);
    let (sha256, others) = (object(1), 0);
    cluster.apply(Operation::DropCopy {
        sha256,
        copy: copy(0),
        others,
    });
    assert!(cluster.tick(0).is_empty());
    cluster.apply(Operation::AddCopy {
        sha256,
        size: 100,
        copy: copy(1),
    });
    let orders = cluster.tick(500);
    assert_eq!(
        (orders[0].0, orders[0].1.holders.as_slice()),
        (NodeId(0), &[NodeId(1)][..])
    );
}

#[test]
fn copies_of_a_dead_node_count_until_the_grace_is_over_and_are_then_made_elsewhere() {
    let mut cluster = Cluster::new(4);
    for content in 0..1_300 {
        cluster.put(content, 100, 3, &[0, 1, 2]);
    }
    cluster.run(0, 1_000);
    cluster.observe(2, false, 1);
    assert_eq!(cluster.run(1_020, 120_000), [], "it may come back");
    assert_eq!(query::debts(&cluster.tables).unwrap(), 0);
    let orders = cluster.run(120_020, 150_000);
    assert_eq!(orders.len(), 1_300);
    assert!(orders.iter().all(|(target, _)| *target == NodeId(3)));
    assert_eq!(query::debts(&cluster.tables).unwrap(), 0);
    assert_eq!(query::debt_bytes(&cluster.tables).unwrap(), 0);
    assert_eq!(
        cluster.holders(7),
        [0, 1, 2, 3],
        "what it has is not forgotten"
    );
    assert_eq!(cluster.repair.progress().copies_done, 1_300);
    assert_eq!(cluster.repair.progress().bytes_done, 130_000);
}

#[test]
fn a_node_that_comes_back_in_time_costs_nothing() {
    let mut cluster = Cluster::new(4);
    cluster.put(1, 100, 3, &[0, 1, 2]);
    cluster.run(0, 1_000);
    cluster.observe(2, false, 1);
    assert_eq!(cluster.run(1_020, 100_000), []);
    cluster.register(2, 2);
    cluster.observe(2, true, 2);
    assert_eq!(cluster.run(100_020, 300_000), []);
    assert_eq!(cluster.holders(1), [0, 1, 2]);
}

#[test]
fn a_node_that_comes_back_late_counts_once_it_has_compared_and_then_one_copy_too_many_goes() {
    let mut cluster = Cluster::new(4);
    for content in 0..20 {
        cluster.put(content, 100, 3, &[0, 1, 2]);
    }
    cluster.run(0, 1_000);
    cluster.observe(2, false, 1);
    assert_eq!(cluster.run(1_020, 130_000).len(), 20);
    cluster.register(2, 2);
    cluster.observe(2, true, 2);
    cluster.run(130_020, 400_000);
    assert_eq!(
        cluster.holders(1),
        [0, 1, 2, 3],
        "nothing goes before it has compared"
    );
    let (node, boot) = (NodeId(2), Boot(2));
    cluster.apply(Operation::Compared { node, boot });
    cluster.run(400_020, 500_000);
    assert_eq!(cluster.holders(1), [0, 1, 2, 3], "it may go again");
    assert_eq!(cluster.run(500_020, 530_000), []);
    for content in 0..20 {
        assert_eq!(cluster.holders(content).len(), 3);
    }
    assert_eq!(query::debts(&cluster.tables).unwrap(), 0);
    assert_eq!(
        cluster.run(530_020, 600_000),
        [],
        "and nothing is made again"
    );
}

#[test]
fn of_copies_too_many_the_one_on_the_fullest_node_goes() {
    let mut cluster = Cluster::new(4);
    // Node 0 has least room of all.
    let figures = Figures {
        total_bytes: 99 * GIB,
        free_bytes: 9 * GIB,
        ..Figures::default()
    };
    for node in 1..4 {
        let free_bytes = 50 * GIB + u64::from(node);
        let figures = Figures {
            free_bytes,
            ..figures.clone()
        };
        cluster
            .health
            .heartbeat(NodeId(node), Boot(1), figures, at(0));
    }
    cluster.health.heartbeat(NodeId(0), Boot(1), figures, at(0));
    for content in 0..30 {
        cluster.put(content, 100, 3, &[0, 1, 2, 3]);
    }
    cluster.run(0, 130_000);
    for content in 0..30 {
        assert_eq!(cluster.holders(content), [1, 2, 3]);
    }
    // Those that are about equally full lose their share each.
    for content in 100..160 {
        cluster.put(content, 100, 2, &[1, 2, 3]);
    }
    cluster.run(130_020, 140_000);
    let kept_by = |node: u16| {
        let keeps = (100..160).filter(|content| cluster.holders(*content).contains(&node));
        keeps.count()
    };
    assert!((1..4).all(|node| (25..55).contains(&kept_by(node))));
}

#[test]
fn a_copy_too_many_stays_while_one_of_the_others_is_on_a_dead_node() {
    let mut cluster = Cluster::new(4);
    cluster.put(1, 100, 3, &[0, 1, 2, 3]);
    cluster.observe(3, false, 1);
    cluster.run(0, 119_000);
    assert_eq!(cluster.holders(1), [0, 1, 2, 3]);
}

#[test]
fn a_node_that_is_drained_is_emptied_once_everything_lies_elsewhere() {
    let mut cluster = Cluster::new(4);
    for content in 0..600 {
        let nodes: &[u16] = match content % 3 {
            0 => &[2],
            1 => &[1, 2],
            _ => &[0, 1, 2],
        };
        let want = u8::try_from(nodes.len()).unwrap();
        cluster.put(content, 100, want, nodes);
    }
    cluster.run(0, 1_000);
    let node = NodeId(2);
    let state = Administrative::Drain;
    cluster.apply(Operation::Administer { node, state });
    let mut millis = 1_000;
    while query::is_recounting(&cluster.tables).unwrap() {
        millis += 20;
        for operation in cluster.work(millis).operations {
            assert!(!matches!(operation, Operation::DropCopy { .. }));
            cluster.apply(operation);
        }
    }
    assert_eq!(query::debts(&cluster.tables).unwrap(), 600);
    let orders = cluster.run(millis, 40_000);
    assert!(orders.len() >= 600 - 8, "a few were ordered before");
    assert!(orders.iter().all(|(target, _)| *target != node));
    let first = orders.iter().take(150);
    assert!(first.clone().all(|(_, fetch)| fetch.holders == [node]));
    cluster.run(40_000, 80_000);
    assert_eq!(query::debts(&cluster.tables).unwrap(), 0);
    for content in 0..600 {
        let holders = cluster.holders(content);
        assert!(!holders.contains(&2), "{holders:?}");
        let wanted = if content % 3 == 0 { 1 } else { 1 + content % 3 };
        assert_eq!(holders.len(), usize::try_from(wanted).unwrap());
    }
    let state = Administrative::Alive;
    cluster.apply(Operation::Administer { node, state });
    assert_eq!(cluster.run(80_000, 90_000), []);
}

#[test]
fn an_operators_word_that_a_node_is_dead_is_taken_at_once_and_down_means_wait() {
    let mut cluster = Cluster::new(4);
    cluster.put(1, 100, 3, &[0, 1, 2]);
    cluster.observe(2, false, 1);
    let node = NodeId(2);
    let state = Administrative::Down;
    cluster.apply(Operation::Administer { node, state });
    assert_eq!(cluster.run(0, 400_000), []);
    let state = Administrative::Dead;
    cluster.apply(Operation::Administer { node, state });
    let orders = cluster.run(400_020, 402_000);
    assert_eq!(orders.len(), 1);
    assert_eq!(
        cluster.holders(1),
        [0, 1, 2, 3],
        "others forget what it has"
    );
}

#[test]
fn copies_in_a_directory_that_is_gone_do_not_count_and_are_made_again_even_there() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, 100, 3, &[0, 1, 2]);
    cluster.run(0, 1_000);
    cluster.apply(Operation::Register {
        node: NodeId(2),
        name: String::new(),
        address: "127.0.0.1:1".to_owned(),
        dirs: vec![DirId(77)],
        stores: true,
        manages: true,
        boot: Boot(2),
        knows: 1,
    });
    let orders = cluster.tick(1_020);
    assert_eq!(orders.len(), 0, "to be counted first");
    let orders: Vec<_> = (0..50).flat_map(|n| cluster.tick(1_040 + n * 20)).collect();
    assert_eq!(orders.len(), 1);
    let (target, fetch) = &orders[0];
    assert_eq!(
        (*target, fetch.holders.as_slice()),
        (NodeId(2), &[NodeId(0), NodeId(1)][..])
    );
}

#[test]
fn a_node_gives_out_no_more_copies_at_a_time_than_it_may() {
    let mut cluster = Cluster::new(6);
    cluster.repair = Repair::new(Settings {
        outgoing: 3,
        ..SETTINGS
    });
    for content in 0..50 {
        cluster.put(content, 100, 2, &[0]);
    }
    let orders = cluster.tick(0);
    assert_eq!(orders.len(), 3);
    assert!(cluster.tick(600).is_empty());
    let (target, fetch) = orders[0].clone();
    cluster.land(target, &fetch, 700);
    assert_eq!(cluster.tick(700).len(), 1);
}

#[test]
fn jobs_go_to_the_roomiest_and_idlest_and_are_spread_among_equals() {
    let mut cluster = Cluster::new(4);
    let figures = |free: u64, io_busy| Figures {
        total_bytes: 100 * GIB,
        free_bytes: free * GIB,
        io_busy,
        ..Figures::default()
    };
    for (node, free, busy) in [(1, 50, 0.0), (2, 50, 0.0), (3, 90, 0.9)] {
        let figures = figures(free, busy);
        cluster
            .health
            .heartbeat(NodeId(node), Boot(1), figures, at(0));
    }
    for content in 0..4 {
        cluster.put(content, 100, 2, &[0]);
    }
    let mut targets: Vec<u16> = cluster.tick(0).iter().map(|(node, _)| node.0).collect();
    targets.sort_unstable();
    assert_eq!(targets, [1, 1, 2, 2]);
}

#[test]
fn a_copy_goes_to_another_host_even_if_that_has_to_be_waited_for() {
    let mut cluster = Cluster::new(4);
    for node in 0..4_u16 {
        cluster.apply(Operation::Register {
            node: NodeId(node),
            name: String::new(),
            address: format!("host{}:1", node / 3),
            dirs: vec![copy(node).dir],
            stores: true,
            manages: true,
            boot: Boot(1),
            knows: 1,
        });
    }
    for content in 0..20 {
        cluster.put(content, 100, 2, &[0]);
    }
    let orders = cluster.tick(0);
    assert_eq!(orders.len(), JOBS_IN * 2);
    assert!(orders.iter().all(|(target, _)| *target == NodeId(3)));
}

#[test]
fn a_slow_job_within_its_bandwidth_is_waited_for() {
    let mut cluster = Cluster::new(2);
    cluster.repair = Repair::new(Settings {
        bandwidth: 1 << 20,
        ..SETTINGS
    });
    cluster.put(1, 100 << 20, 2, &[0]);
    assert_eq!(cluster.tick(0).len(), 1);
    cluster.tick(200_000);
    assert_eq!(
        cluster.repair.progress().jobs,
        1,
        "100 s at least, as much again if uploads go first"
    );
}

#[test]
fn what_failed_is_tried_again_when_a_node_comes_back() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, 100, 2, &[0]);
    let mut millis = 0;
    for _ in 0..4 {
        let (_, fetch) = loop {
            if let Some(order) = cluster.tick(millis).pop() {
                break order;
            }
            millis += 20;
        };
        cluster
            .repair
            .ended(fetch.job, Some("no".to_owned()), at(millis));
    }
    assert!(cluster.tick(millis + 20_000).is_empty());
    cluster.repair.linked(at(millis + 20_000));
    assert_eq!(cluster.tick(millis + 20_000).len(), 0);
    assert_eq!(cluster.tick(millis + 20_600).len(), 1);
}

#[test]
fn a_repair_is_said_at_its_beginning_now_and_then_and_at_its_end() {
    let mut cluster = Cluster::new(3);
    for content in 0..100 {
        cluster.put(content, 100, 2, &[0]);
    }
    let mut said = Vec::new();
    let mut jobs: Vec<(NodeId, Fetch)> = Vec::new();
    for step in 0..400 {
        let millis = step * 100;
        let work = cluster.work(millis);
        said.extend(work.says.into_iter().map(|(_, event, _)| event));
        jobs.extend(work.orders);
        if step % 3 == 0 && !jobs.is_empty() {
            let (target, fetch) = jobs.remove(0);
            cluster.land(target, &fetch, millis);
        }
    }
    assert_eq!(said[0], "repair_started");
    assert_eq!(said[1..said.len() - 1], ["repair_progress"; 2]);
    assert_eq!(said.last(), Some(&"repair_done"));
}

#[test]
fn objects_move_off_a_node_that_is_nearly_full_to_those_below_the_mean_and_no_further() {
    let mut cluster = Cluster::new(4);
    let beat = |cluster: &mut Cluster, free: [u64; 4]| {
        for (node, free) in (0..4).zip(free) {
            let figures = Figures {
                total_bytes: 100 * GIB,
                free_bytes: free * GIB,
                ..Figures::default()
            };
            let health = &mut cluster.health;
            health.heartbeat(NodeId(node), Boot(1), figures, at(0));
        }
    };
    beat(&mut cluster, [16, 25, 70, 70]);
    for content in 0..80 {
        cluster.put(content, GIB, 2, &[0, 1]);
    }
    assert_eq!(cluster.run(0, 200_000), [], "below the mark");
    beat(&mut cluster, [10, 25, 70, 70]);
    let orders = cluster.run(200_020, 300_000);
    assert_eq!(
        orders.len(),
        10,
        "to 80 %, though its disk says 90 % for a while yet"
    );
    assert!(orders.iter().all(|(target, _)| target.0 >= 2));
    let left = (0..80).filter(|content| cluster.holders(*content).contains(&0));
    assert_eq!(left.count(), 70);
    for content in 0..80 {
        assert_eq!(cluster.holders(content).len(), 2);
    }
    beat(&mut cluster, [20, 25, 65, 65]);
    assert_eq!(cluster.run(300_020, 1_000_000), [], "and it ends there");
}

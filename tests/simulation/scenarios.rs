//! Scenarios that chance meets too seldom: births that are cut short, logs that are lost or too old, the way back of the first node.

use momo::base::id::NodeId;
use momo::core::node::{Memory, Role};

use crate::clients::Outcome;
use crate::cluster::Cluster;
use crate::plan::Plan;

const SECOND: u64 = 1_000_000;

/// A quiet cluster of so many nodes and voters.
fn quiet(seed: u64, nodes: u16, voters: usize) -> Cluster {
    let mut plan = Plan::new(seed);
    (plan.nodes, plan.voters) = (nodes, voters);
    (plan.loss, plan.twice, plan.late) = (0, 0, 0);
    (plan.delay, plan.sync, plan.keep) = ((1_000, 2_000), (1_000, 5_000), 8);
    (plan.clients, plan.disk_lies) = (0, false);
    let mut cluster = Cluster::new(plan);
    cluster.start_all();
    cluster
}

fn well(cluster: &mut Cluster) {
    cluster.until(120 * SECOND, Cluster::is_well).unwrap();
}

fn kept(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

fn leader(cluster: &Cluster, nodes: u16) -> Option<NodeId> {
    (0..nodes).map(NodeId).find(|node| {
        let report = cluster.report(*node);
        report.is_some_and(|report| report.role == Role::Leader)
    })
}

#[test]
fn the_first_node_leads_while_it_lives() {
    let mut cluster = quiet(3, 3, 3);
    well(&mut cluster);
    cluster
        .until(60 * SECOND, |c| leader(c, 3) == Some(NodeId(0)))
        .unwrap();
    cluster.crash(NodeId(0)).unwrap();
    cluster
        .until(10 * SECOND, |c| leader(c, 3).is_some())
        .unwrap();
    assert!(kept(&cluster.put(NodeId(2), "a").unwrap()));
    cluster.start(NodeId(0)).unwrap();
    cluster
        .until(60 * SECOND, |c| leader(c, 3) == Some(NodeId(0)))
        .unwrap();
    assert!(kept(&cluster.put(NodeId(1), "b").unwrap()));
    well(&mut cluster);
    cluster.judge().unwrap();
}

#[test]
fn a_lone_daemon_of_three_refuses_and_says_how_many_are_needed() {
    let mut cluster = quiet(4, 3, 3);
    well(&mut cluster);
    cluster.crash(NodeId(1)).unwrap();
    cluster.crash(NodeId(2)).unwrap();
    cluster
        .until(10 * SECOND, |c| {
            let report = c.report(NodeId(0)).unwrap();
            report.waiting == Some("1 of 3 daemons up, 2 needed".to_owned())
        })
        .unwrap();
    assert!(matches!(
        cluster.put(NodeId(0), "a").unwrap(),
        Outcome::Refused
    ));
    cluster.start(NodeId(2)).unwrap();
    assert!(kept(&cluster.put(NodeId(2), "a").unwrap()));
}

#[test]
fn nobody_is_born_while_a_member_is_missing_and_a_birth_cut_short_goes_on() {
    for seed in 1..20 {
        let mut cluster = quiet(seed, 3, 3);
        cluster
            .until(5 * SECOND, |c| c.report(NodeId(0)).is_some())
            .unwrap();
        cluster.crash(NodeId(0)).unwrap();
        let later = cluster.until(5 * SECOND, |c| {
            (0..3).any(|id| c.report(NodeId(id)).is_some_and(|report| report.born))
        });
        assert!(later.is_err(), "born without node 0");
        cluster.start(NodeId(0)).unwrap();
        cluster
            .until(60 * SECOND, |c| c.report(NodeId(0)).unwrap().born)
            .unwrap();
        // It has drawn up the birth; nobody else has heard of it, or one has.
        if seed % 2 == 0 {
            cluster.crash(NodeId(0)).unwrap();
            cluster.start(NodeId(0)).unwrap();
        } else {
            cluster.crash(NodeId(1)).unwrap();
            cluster.start(NodeId(1)).unwrap();
        }
        well(&mut cluster);
        assert!(kept(&cluster.put(NodeId(1), "a").unwrap()));
        cluster.judge().unwrap();
    }
}

#[test]
fn an_emptied_voter_does_not_vote_until_it_is_taken_in_again() {
    let mut cluster = quiet(5, 3, 3);
    well(&mut cluster);
    for name in ["a", "b", "c"] {
        assert!(kept(&cluster.put(NodeId(1), name).unwrap()));
    }
    // Node 2 misses what comes now, and node 1, which has it, loses its disk: 1 and 2 must not elect each other.
    cluster.crash(NodeId(2)).unwrap();
    assert!(kept(&cluster.put(NodeId(0), "kept").unwrap()));
    cluster.crash(NodeId(0)).unwrap();
    cluster.crash(NodeId(1)).unwrap();
    cluster.wipe(NodeId(1));
    cluster.start(NodeId(1)).unwrap();
    cluster.start(NodeId(2)).unwrap();
    let led = cluster.until(20 * SECOND, |c| leader(c, 3).is_some());
    assert!(led.is_err(), "an emptied node voted");
    assert!(!cluster.report(NodeId(1)).unwrap().born);
    cluster.start(NodeId(0)).unwrap();
    well(&mut cluster);
    let voters = cluster.report(NodeId(1)).unwrap().voters;
    assert_eq!(voters, [NodeId(0), NodeId(1), NodeId(2)]);
    cluster.judge().unwrap();
}

#[test]
fn an_emptied_voter_that_is_back_at_once_does_not_wait_for_a_second_offer_of_the_catalog() {
    for seed in 1..10 {
        let mut cluster = quiet(seed, 3, 3);
        well(&mut cluster);
        cluster
            .until(60 * SECOND, |c| leader(c, 3) == Some(NodeId(0)))
            .unwrap();
        for round in 0..4 {
            assert!(kept(&cluster.put(NodeId(2), &format!("{round}")).unwrap()));
        }
        cluster.crash(NodeId(1)).unwrap();
        cluster.wipe(NodeId(1));
        cluster.start(NodeId(1)).unwrap();
        cluster
            .until(4 * SECOND, |c| {
                let report = c.report(NodeId(1));
                report.is_some_and(|report| report.voters.len() == 3)
            })
            .unwrap();
        well(&mut cluster);
        cluster.judge().unwrap();
    }
}

#[test]
fn a_voter_whose_log_is_older_than_what_it_acknowledged_is_treated_as_emptied() {
    let mut cluster = quiet(6, 3, 3);
    well(&mut cluster);
    cluster
        .until(60 * SECOND, |c| leader(c, 3) == Some(NodeId(0)))
        .unwrap();
    assert!(kept(&cluster.put(NodeId(1), "a").unwrap()));
    let old = cluster.machine(NodeId(1)).disk.clone();
    cluster.crash(NodeId(2)).unwrap();
    for name in ["b", "c", "d"] {
        assert!(kept(&cluster.put(NodeId(0), name).unwrap()));
    }
    cluster.crash(NodeId(1)).unwrap();
    cluster.machine(NodeId(1)).disk = old;
    cluster.start(NodeId(1)).unwrap();
    // It hears from node 0 what it once had, and steps aside.
    cluster
        .until(20 * SECOND, |c| !c.report(NodeId(1)).unwrap().born)
        .unwrap();
    cluster.start(NodeId(2)).unwrap();
    well(&mut cluster);
    let memory = &cluster.machine(NodeId(1)).disk.memory;
    assert!(memory.iter().any(|m| matches!(m, Memory::Admitted(_))));
    cluster.judge().unwrap();
}

#[test]
fn a_single_daemon_is_a_cluster_at_once_and_keeps_what_it_acknowledged() {
    let mut cluster = quiet(7, 1, 1);
    cluster
        .until(2 * SECOND, |c| leader(c, 1).is_some())
        .unwrap();
    assert!(kept(&cluster.put(NodeId(0), "a").unwrap()));
    cluster.crash(NodeId(0)).unwrap();
    cluster.start(NodeId(0)).unwrap();
    cluster
        .until(2 * SECOND, |c| leader(c, 1).is_some())
        .unwrap();
    assert!(kept(&cluster.put(NodeId(0), "b").unwrap()));
    cluster.judge().unwrap();
}

#[test]
fn with_one_voter_the_others_may_die_and_the_voter_may_not() {
    let mut cluster = quiet(8, 3, 1);
    well(&mut cluster);
    cluster.crash(NodeId(1)).unwrap();
    cluster.crash(NodeId(2)).unwrap();
    assert!(kept(&cluster.put(NodeId(0), "a").unwrap()));
    cluster.start(NodeId(1)).unwrap();
    cluster.crash(NodeId(0)).unwrap();
    cluster
        .until(10 * SECOND, |c| {
            let report = c.report(NodeId(1)).unwrap();
            report.waiting == Some("0 of 1 daemons up, 1 needed".to_owned())
        })
        .unwrap();
    cluster.start(NodeId(0)).unwrap();
    cluster.start(NodeId(2)).unwrap();
    well(&mut cluster);
    cluster.judge().unwrap();
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing_as_fresh() {
    let mut cluster = quiet(9, 3, 3);
    well(&mut cluster);
    let first = leader(&cluster, 3).unwrap();
    cluster.isolate(Some(first));
    let outcome = cluster.put(first, "cut off").unwrap();
    assert!(matches!(outcome, Outcome::Unknown | Outcome::Refused));
    let other = (0..3).map(NodeId).find(|node| *node != first).unwrap();
    assert!(kept(&cluster.put(other, "majority").unwrap()));
    cluster.isolate(None);
    well(&mut cluster);
    cluster.judge().unwrap();
}

//! Partitions: who is cut off neither acknowledges nor passes old answers off as new, the others go on, and afterwards all agree.

use std::time::{Duration, Instant};

use crate::faults::QUICK;
use crate::harness::net::Link;
use crate::harness::{Cluster, PATIENCE, Shape, content};

fn proxied() -> Cluster {
    Cluster::start(&Shape {
        extra: QUICK.to_owned(),
        proxied: true,
        ..Shape::default()
    })
}

/// A put that is kept through one of these daemons before patience ends; the daemon.
fn put_through(cluster: &Cluster, entries: &[usize], name: &str, body: &[u8]) -> usize {
    let start = Instant::now();
    for entry in entries.iter().cycle() {
        let answer = cluster.daemons[*entry].text().and_then(|mut text| {
            text.socket()
                .set_read_timeout(Some(Duration::from_secs(6)))?;
            text.put(name, "strategy=splay", body)
        });
        if matches!(answer, Ok(Ok(_))) {
            return *entry;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{name}: {answer:?}\n{}",
            cluster.tails()
        );
    }
    unreachable!("a cycle has no end")
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_says_that_its_answers_are_old() {
    for link in [Link::Held, Link::Reset] {
        let cluster = proxied();
        let (old, new) = (content(1, 20_000), content(2, 20_000));
        put_through(&cluster, &[0], "cut.bin", &old);
        cluster.net().set_all_of(0, link);
        put_through(&cluster, &[1, 2], "cut.bin", &new);
        put_through(&cluster, &[1, 2], "fresh.bin", &new);
        // What it has is old by now: it may say so, or say nothing; never that this is the newest.
        let got = cluster.daemons[0]
            .text()
            .and_then(|mut text| text.get_whole("cut.bin"));
        match got {
            Ok(Ok(got)) => assert!(
                got.stale && got.body == old,
                "{link:?}: {} {}",
                got.version,
                got.stale
            ),
            Ok(Err(why)) => assert!(!why.contains("file not found"), "{link:?}: {why}"),
            Err(_) => {}
        }
        let absent = cluster.daemons[0]
            .text()
            .and_then(|mut text| text.get("fresh.bin"));
        assert!(
            !matches!(&absent, Ok(Err(why)) if why == "file not found"),
            "{link:?}: an absence that nobody confirms: {absent:?}"
        );
        let refused = cluster.daemons[0].text().and_then(|mut text| {
            text.socket()
                .set_read_timeout(Some(Duration::from_secs(10)))?;
            text.put("alone.bin", "strategy=splay", b"nobody else has this")
        });
        assert!(!matches!(refused, Ok(Ok(_))), "{link:?}: {refused:?}");
        cluster.net().mend();
        cluster.wait_ready();
        for id in 0..3 {
            assert_eq!(cluster.get(id, "cut.bin"), new, "{link:?} at {id}");
            assert_eq!(cluster.get(id, "fresh.bin"), new, "{link:?} at {id}");
        }
        cluster.eventually("the copies that the cut cost", |cluster| {
            cluster.copies("cut.bin", &new) == 3 && cluster.copies("fresh.bin", &new) == 3
        });
        cluster.assert_alive();
    }
}

#[test]
fn a_link_that_is_dead_one_way_stops_nobody_for_long() {
    let cluster = proxied();
    let body = content(3, 50_000);
    put_through(&cluster, &[0, 1, 2], "before.bin", &body);
    // What 0 sends to 1 is lost: 2 still hears both.
    for (round, (from, to)) in [(0, 1), (1, 0), (2, 0), (0, 2)].into_iter().enumerate() {
        cluster.net().set(from, to, Link::Held);
        let name = format!("one-way-{round}.bin");
        put_through(&cluster, &[0, 1, 2], &name, &body);
        cluster.net().mend();
        cluster.wait_ready();
        for id in 0..3 {
            assert_eq!(cluster.get(id, &name), body, "{name} at {id}");
        }
    }
    cluster.eventually("three copies of everything", |cluster| {
        (0..4).all(|round| cluster.copies(&format!("one-way-{round}.bin"), &body) == 3)
    });
    cluster.assert_alive();
}

#[test]
fn three_that_cannot_reach_each_other_acknowledge_nothing_until_they_can() {
    let cluster = proxied();
    let body = content(4, 10_000);
    put_through(&cluster, &[0], "before.bin", &body);
    for id in 0..3 {
        cluster.net().set_all_of(id, Link::Held);
    }
    for id in 0..3 {
        let answer = cluster.daemons[id].text().and_then(|mut text| {
            text.socket()
                .set_read_timeout(Some(Duration::from_secs(10)))?;
            text.put(&format!("alone-{id}.bin"), "strategy=splay", &body)
        });
        assert!(!matches!(answer, Ok(Ok(_))), "{id}: {answer:?}");
    }
    cluster.net().mend();
    put_through(&cluster, &[0, 1, 2], "after.bin", &body);
    cluster.wait_ready();
    for id in 0..3 {
        assert_eq!(cluster.get(id, "before.bin"), body);
        assert_eq!(cluster.get(id, "after.bin"), body);
    }
    cluster.assert_alive();
}

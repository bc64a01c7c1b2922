//! What a daemon says in states that pass or that nobody wants: alone without a majority, back with an empty disk, asked for earlier versions.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, PATIENCE, Shape, content};

#[test]
fn a_daemon_without_a_majority_refuses_at_once_and_gives_what_it_has_marked_stale() {
    const DEADLINE: Duration = Duration::from_mins(2);
    let mut cluster = Cluster::start(&Shape {
        extra: format!("[write]\ndeadline={}\n\n", DEADLINE.as_millis()),
        ..Shape::default()
    });
    let body = content(700, 40_000);
    let mut text = cluster.daemons[0].text().expect("a connection");
    let kept = text
        .put("kept.bin", "strategy=splay", &body)
        .expect("an answer");
    assert!(kept.is_ok(), "{kept:?}");
    cluster.eventually("a copy at daemon 2", |cluster| {
        cluster.daemons[2].holds(&body)
    });
    cluster.daemons[0].kill();
    cluster.daemons[1].kill();
    cluster.eventually("daemon 2 knows that it is alone", |cluster| {
        let lines = cluster.daemons[2]
            .text()
            .and_then(|mut text| text.ask_lines("STATUS"));
        lines.is_ok_and(|lines| {
            lines
                .iter()
                .any(|line| line.contains("1 of 3 daemons up, 2 needed"))
        })
    });
    // Long before the deadline of a write, which is what it would take to find out by trying.
    let began = Instant::now();
    let mut text = cluster.daemons[2].text().expect("a connection");
    let refused = text.put("refused.bin", "", &body).expect("an answer");
    assert!(
        refused
            .as_ref()
            .is_err_and(|why| why.contains("1 of 3 daemons up, 2 needed")),
        "{refused:?}"
    );
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    let mut text = cluster.daemons[2].text().expect("a connection");
    let got = text
        .get_whole("kept.bin")
        .expect("an answer")
        .expect("a local copy");
    assert!(got.stale, "what may be outdated says so");
    assert!(got.body == body);
    let gone = text.ask("FILE DELETE kept.bin").expect("an answer");
    assert!(gone.contains("2 needed"), "{gone}");
    for id in [0, 1] {
        cluster.daemons[id].start();
    }
    cluster.wait_ready();
    assert_eq!(cluster.get(1, "kept.bin"), body);
    let mut text = cluster.daemons[2].text().expect("a connection");
    let got = text
        .get_whole("kept.bin")
        .expect("an answer")
        .expect("a copy");
    assert!(!got.stale);
    assert!(text.get("refused.bin").expect("an answer").is_err());
}

#[test]
fn a_daemon_whose_disk_was_emptied_says_that_it_compares_until_it_knows_what_is_lost() {
    let mut cluster = Cluster::three();
    let body = content(710, 60_000);
    let mut text = cluster.daemons[0].text().expect("a connection");
    let kept = text
        .put("compared.bin", "strategy=splay", &body)
        .expect("an answer");
    assert!(kept.is_ok(), "{kept:?}");
    cluster.eventually("a copy at daemon 2", |cluster| {
        cluster.daemons[2].holds(&body)
    });
    cluster.daemons[2].kill();
    fs::remove_dir_all(&cluster.daemons[2].data).expect("an emptied disk");
    cluster.daemons[2].start();
    let mut said = BTreeSet::new();
    let began = Instant::now();
    loop {
        let lines = cluster.daemons[2]
            .text()
            .and_then(|mut text| text.ask_lines("STATUS"));
        let lines = lines.unwrap_or_default();
        let state = lines.iter().find_map(|line| line.strip_prefix("state "));
        said.extend(state.map(str::to_owned));
        if state == Some("ready") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{said:?}\n{}", cluster.tails());
    }
    assert!(said.contains("comparing"), "{said:?}");
    cluster.eventually("its copy is made again", |cluster| {
        cluster.daemons[2].holds(&body)
    });
}

#[test]
fn earlier_versions_are_given_by_every_daemon_and_the_oldest_go() {
    let cluster = Cluster::three();
    let bodies: Vec<Vec<u8>> = (0..6).map(|n| content(720 + n, 3_000)).collect();
    let mut versions = Vec::new();
    for body in &bodies {
        let mut text = cluster.daemons[0].text().expect("a connection");
        let kept = text
            .put("dir/versions.bin", "strategy=splay", body)
            .expect("an answer");
        assert!(kept.is_ok(), "{kept:?}");
        let got = text
            .get_whole("dir/versions.bin")
            .expect("an answer")
            .expect("the file");
        versions.push(got.version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    // The newest and three before it.
    let kept = 4;
    for id in 0..3 {
        for (nth, (version, body)) in versions.iter().zip(&bodies).enumerate() {
            let name = format!("dir/versions.bin version {version}");
            let mut text = cluster.daemons[id].text().expect("a connection");
            let answer = text.get(&name).expect("an answer");
            if nth + kept < bodies.len() {
                assert!(
                    answer.is_err(),
                    "version {version} at daemon {id} is kept too long"
                );
            } else {
                assert!(
                    answer.as_ref() == Ok(body),
                    "version {version} at daemon {id}"
                );
            }
        }
        let mut text = cluster.daemons[id].text().expect("a connection");
        let stat = text
            .ask_lines("FILE STAT dir/versions.bin")
            .expect("an answer");
        let earlier = stat.iter().find_map(|line| line.strip_prefix("earlier="));
        let earlier: Vec<u64> = earlier
            .into_iter()
            .flat_map(|list| list.split(','))
            .filter_map(|version| version.parse().ok())
            .collect();
        let mut expected = versions[bodies.len() - kept..bodies.len() - 1].to_vec();
        expected.reverse();
        assert_eq!(earlier, expected, "daemon {id}: {stat:?}");
    }
}

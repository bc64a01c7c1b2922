//! Repair with real daemons: copies of the dead are made elsewhere, who returns in time costs nothing, what is too many goes, uploads and limits come first.

mod harness;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Cluster, Shape, content, hex};
use sha2::{Digest, Sha256};

/// Fast timers with a grace period of so many milliseconds, and lines for `[repair]`.
fn shape(daemons: usize, grace: u64, repair: &str) -> Shape {
    Shape {
        daemons,
        fast: false,
        extra: format!(
            "[heartbeat]\ninterval=200\ntimeout=1000\n\n\
             [raft]\ntick_ms=20\nelection_ticks=15\nheartbeat_ticks=3\n\n\
             [write]\nhop_stall=1000\nleg_wait=1000\ndeadline=3000\n\n[gc]\ngrace=3000\n\n\
             [repair]\ngrace={grace}\n{repair}\n"
        ),
        ..Shape::default()
    }
}

/// Uploads of so many files at daemon 0, each acknowledged.
fn fill(cluster: &Cluster, count: u64, bytes: usize) -> Vec<(String, Vec<u8>)> {
    let files: Vec<(String, Vec<u8>)> = (0..count)
        .map(|index| {
            (
                format!("folder/file-{index}.bin"),
                content(900 + index, bytes),
            )
        })
        .collect();
    for (name, body) in &files {
        cluster.eventually(&format!("{name} is kept"), |cluster| {
            cluster.daemons[0]
                .text()
                .and_then(|mut text| text.put(name, "", body))
                .is_ok_and(|answer| answer.is_ok())
        });
    }
    files
}

fn status(cluster: &Cluster, id: usize) -> Option<serde_json::Value> {
    let line = cluster.daemons[id]
        .text()
        .and_then(|mut text| text.ask("STATUS JSON"));
    serde_json::from_str(&line.ok()?).ok()
}

/// Whether nothing is owed any more, as a daemon sees it.
fn is_paid(cluster: &Cluster, id: usize) -> bool {
    status(cluster, id).is_some_and(|status| {
        let repair = &status["repair"];
        status["under_replicated"] == 0
            && repair["bytes_left"] == 0
            && repair["recounting"] == false
    })
}

/// Whether a daemon takes another for dead.
fn takes_for_dead(cluster: &Cluster, id: usize, other: usize) -> bool {
    status(cluster, id).is_some_and(|status| {
        let members = status["members"].as_array();
        members.is_some_and(|members| members[other]["alive"] == false)
    })
}

fn said(cluster: &Cluster, event: &str) -> usize {
    let logs = cluster.daemons.iter().map(harness::Daemon::logged);
    logs.map(|log| log.matches(event).count()).sum()
}

fn object_of(cluster: &Cluster, id: usize, body: &[u8]) -> PathBuf {
    let sha256 = hex(&Sha256::digest(body));
    let objects = cluster.daemons[id].data.join(".momo/objects");
    objects.join(&sha256[..2]).join(&sha256)
}

#[test]
fn copies_of_a_dead_daemon_are_made_elsewhere_and_those_too_many_go_when_it_is_back() {
    let mut cluster = Cluster::start(&shape(4, 500, ""));
    let files = fill(&cluster, 30, 40_000);
    cluster.daemons[2].kill();
    for (name, body) in &files {
        cluster.eventually(&format!("{name} has three living copies"), |cluster| {
            let holders = cluster.holders(name, body);
            [0, 1, 3].iter().all(|id| holders.contains(id))
        });
    }
    cluster.eventually("nothing is owed", |cluster| is_paid(cluster, 0));
    assert!(said(&cluster, "node_given_up") >= 1, "{}", cluster.tails());
    assert!(said(&cluster, "repair_started") >= 1, "{}", cluster.tails());
    cluster.eventually("the end is said", |cluster| {
        said(cluster, "repair_done") >= 1
    });
    cluster.daemons[2].start();
    cluster.wait_serving(2);
    for (name, body) in &files {
        cluster.eventually(&format!("{name} has three copies again"), |cluster| {
            cluster.copies(name, body) == 3 && cluster.durable(body) == 3
        });
    }
    assert!(said(&cluster, "compared") >= 1, "{}", cluster.tails());
    cluster.eventually("nothing is owed", |cluster| is_paid(cluster, 2));
    for id in 0..4 {
        for (name, body) in &files {
            assert_eq!(cluster.get(id, name), *body, "{name} at {id}");
        }
    }
    cluster.assert_alive();
}

#[test]
fn a_daemon_that_returns_within_the_grace_period_costs_no_copy() {
    let mut cluster = Cluster::start(&shape(4, 600_000, ""));
    let files = fill(&cluster, 10, 40_000);
    cluster.eventually("nothing is owed", |cluster| is_paid(cluster, 0));
    let copied = said(&cluster, "replication_worker_success");
    cluster.daemons[2].kill();
    cluster.eventually("it is taken for dead", |cluster| {
        takes_for_dead(cluster, 0, 2)
    });
    cluster.daemons[2].start();
    cluster.wait_serving(2);
    cluster.eventually("it is taken for alive", |cluster| {
        !takes_for_dead(cluster, 0, 2)
    });
    assert!(is_paid(&cluster, 0));
    for (name, body) in &files {
        assert_eq!(cluster.holders(name, body), [0, 1, 2], "{name}");
        assert_eq!(cluster.durable(body), 3, "{name}");
    }
    assert_eq!(
        said(&cluster, "replication_worker_success"),
        copied,
        "{}",
        cluster.tails()
    );
    assert_eq!(said(&cluster, "node_given_up"), 0, "{}", cluster.tails());
}

#[test]
fn copies_on_an_emptied_disk_are_owed_at_once_and_made_again() {
    let mut cluster = Cluster::start(&shape(4, 600_000, ""));
    let files = fill(&cluster, 40, 20_000);
    cluster.daemons[1].kill();
    fs::remove_dir_all(&cluster.daemons[1].data).expect("an emptied disk");
    cluster.daemons[1].start();
    cluster.wait_serving(1);
    for (name, body) in &files {
        cluster.eventually(&format!("{name} has three copies"), |cluster| {
            cluster.copies(name, body) == 3
        });
    }
    cluster.eventually("nothing is owed", |cluster| is_paid(cluster, 1));
    for (name, body) in &files {
        assert_eq!(cluster.get(1, name), *body);
    }
}

#[test]
fn a_bandwidth_is_kept_to() {
    let mut cluster = Cluster::start(&shape(3, 500, "bandwidth=1M"));
    cluster.daemons[2].kill();
    let files = fill(&cluster, 8, 512 * 1024);
    let began = Instant::now();
    cluster.daemons[2].start();
    for (name, body) in &files {
        cluster.eventually(&format!("{name} has three copies"), |cluster| {
            cluster.copies(name, body) == 3
        });
    }
    // 4 MiB at 1 MiB a second.
    let least = Duration::from_secs(4);
    assert!(
        began.elapsed() >= least,
        "{:?} for {least:?}",
        began.elapsed()
    );
}

#[test]
fn a_copy_that_comes_to_be_counted_late_is_shown_under_its_name() {
    // A bandwidth at which nothing arrives: what is counted was found, not brought.
    let shape = shape(3, 600_000, "bandwidth=1");
    let extra = shape.extra.replace("[gc]\ngrace=3000", "[gc]\ngrace=5000");
    let mut cluster = Cluster::start(&Shape { extra, ..shape });
    let files = fill(&cluster, 1, 50_000);
    let (name, body) = &files[0];
    cluster.eventually("three copies", |cluster| cluster.copies(name, body) == 3);
    cluster.daemons[2].kill();
    let object = object_of(&cluster, 2, body);
    let away = cluster.daemons[2].data.join(".momo/away");
    fs::rename(&object, &away).expect("an object to lose");
    cluster.daemons[2].start();
    cluster.eventually("the copy is missed", |cluster| {
        status(cluster, 0).is_some_and(|status| status["under_replicated"] == 1)
    });
    cluster.eventually("the name is gone there", |cluster| {
        cluster.daemons[2].visible(name).is_none()
    });
    fs::rename(&away, &object).expect("an object to find");
    cluster.eventually("the copy is counted", |cluster| is_paid(cluster, 0));
    cluster.eventually("the name is shown", |cluster| {
        cluster.holders(name, body) == [0, 1, 2]
    });
    assert_eq!(said(&cluster, "adopted"), 1, "{}", cluster.tails());
}

/// Runs a command line of ours that must succeed.
fn run(cluster: &Cluster, args: &[&str]) {
    let output = cluster.client(args).output().expect("a client");
    assert!(
        output.status.success(),
        "momo {}: {}\n{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr),
        cluster.tails()
    );
}

#[test]
fn a_daemon_that_is_drained_is_emptied_and_gives_nothing_up_before_it_lies_elsewhere() {
    let cluster = Cluster::start(&shape(4, 600_000, ""));
    let files = fill(&cluster, 12, 30_000);
    run(&cluster, &["node", "drain", "1"]);
    for (name, body) in &files {
        cluster.eventually(&format!("{name} lies elsewhere alone"), |cluster| {
            let holders = cluster.holders(name, body);
            assert!(cluster.durable(body) >= 3, "{name}: {holders:?}");
            holders == [0, 2, 3]
        });
    }
    cluster.eventually("nothing is owed", |cluster| is_paid(cluster, 0));
    run(&cluster, &["node", "undrain", "1"]);
    for (name, body) in &files {
        assert_eq!(cluster.get(1, name), *body, "{name}");
        assert_eq!(cluster.holders(name, body), [0, 2, 3], "{name}");
    }
}

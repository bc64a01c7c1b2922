//! Members of real clusters come and go: joined, removed, replaced, moved to other addresses, and one that goes on alone.

mod harness;

use std::fs;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use harness::momo::Upload;
use harness::{Cluster, PATIENCE, Shape, content};

/// Timers of these tests: dead for good soon, but not so soon that a restart is one.
fn shape() -> Shape {
    Shape {
        extra: "[membership]\ngrace=1500\n\n".to_owned(),
        ..Shape::default()
    }
}

/// A daemon's `STATUS JSON`.
fn status(cluster: &Cluster, id: usize) -> Option<serde_json::Value> {
    let lines = cluster.daemons[id].text().ok()?.ask_lines("STATUS JSON");
    let lines = lines.ok()?;
    let json = lines.iter().find(|line| line.contains('{'))?;
    serde_json::from_str(&json[json.find('{')?..]).ok()
}

/// The members that `role` says of, as daemon `id` sees them.
fn with_role(cluster: &Cluster, id: usize, roles: &[&str]) -> Vec<u64> {
    let status = status(cluster, id).unwrap_or_default();
    let members = status["members"].as_array().cloned().unwrap_or_default();
    members
        .iter()
        .filter(|member| roles.iter().any(|role| member["role"] == *role))
        .filter_map(|member| member["id"].as_u64())
        .collect()
}

fn members(cluster: &Cluster, id: usize) -> Vec<u64> {
    with_role(cluster, id, &["leader", "voter", "learner"])
}

fn voters(cluster: &Cluster, id: usize) -> Vec<u64> {
    with_role(cluster, id, &["leader", "voter"])
}

/// An upload that must be acknowledged, tried again while the cluster is between leaders.
fn upload(cluster: &Cluster, entry: usize, name: &str, body: &[u8]) {
    let start = Instant::now();
    loop {
        let answer = cluster.daemons[entry]
            .text()
            .and_then(|mut text| text.put(name, "", body));
        if matches!(answer, Ok(Ok(_))) {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{name} at daemon {entry}: {answer:?}\n{}",
            cluster.tails()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn momo(cluster: &Cluster, args: &[&str]) -> Output {
    cluster.client(args).output().expect("a client")
}

/// An operator's command, tried again while the cluster is between leaders.
fn operator(cluster: &Cluster, args: &[&str]) {
    let start = Instant::now();
    loop {
        let output = momo(cluster, args);
        if output.status.success() {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{args:?}: {output:?}\n{}",
            cluster.tails()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Starts a daemon of its own configuration that asks daemon 0 for membership.
fn join(cluster: &mut Cluster, id: usize) {
    let member = cluster.daemons[0].host.to_string();
    let newcomer = cluster.newcomer(id, &shape());
    newcomer.args = vec!["--join".to_owned(), member];
    newcomer.start();
}

#[test]
fn a_daemon_in_nobodys_file_joins_serves_and_survives_a_restart_of_all() {
    let mut cluster = Cluster::start(&shape());
    let body = content(1, 200_000);
    upload(&cluster, 0, "before.bin", &body);
    join(&mut cluster, 7);
    for id in 0..4 {
        cluster.eventually("four members everywhere", |cluster| {
            members(cluster, id) == [0, 1, 2, 7]
        });
    }
    cluster.wait_serving(3);
    assert_eq!(cluster.get(3, "before.bin"), body);
    // Three vote, as at birth.
    assert_eq!(voters(&cluster, 0), [0, 1, 2]);
    let body = content(2, 200_000);
    upload(&cluster, 3, "through.bin", &body);
    assert_eq!(cluster.get(1, "through.bin"), body);
    for daemon in &mut cluster.daemons {
        daemon.kill();
        daemon.args.clear();
        daemon.start();
    }
    cluster.wait_ready();
    assert_eq!(cluster.get(3, "through.bin"), body);
    assert_eq!(members(&cluster, 3), [0, 1, 2, 7]);
    upload(&cluster, 3, "later.bin", b"still a member");
    cluster.assert_alive();
}

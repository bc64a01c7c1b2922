//! Members of real clusters come and go: joined, removed, replaced, moved to other addresses, and one that goes on alone.

mod harness;

use std::fs;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

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
    join(&mut cluster, 3);
    for id in 0..4 {
        cluster.eventually("four members everywhere", |cluster| {
            members(cluster, id) == [0, 1, 2, 3]
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
    assert_eq!(members(&cluster, 3), [0, 1, 2, 3]);
    upload(&cluster, 3, "later.bin", b"still a member");
    cluster.assert_alive();
}

/// Three daemons and one that joined.
fn four() -> Cluster {
    let mut cluster = Cluster::start(&shape());
    join(&mut cluster, 3);
    cluster.eventually("four members", |cluster| {
        (0..4).all(|id| members(cluster, id) == [0, 1, 2, 3])
    });
    cluster.wait_serving(3);
    cluster
}

/// What a daemon says of itself: its state and why.
fn state(cluster: &Cluster, id: usize) -> String {
    let status = status(cluster, id).unwrap_or_default();
    format!("{} {}", status["state"], status["detail"])
}

#[test]
fn a_removed_daemon_is_told_stays_out_and_is_taken_in_again_only_by_an_operator() {
    let mut cluster = four();
    let body = content(11, 100_000);
    upload(&cluster, 3, "kept.bin", &body);
    operator(&cluster, &["node", "remove", "3", "--force", "--yes"]);
    for id in 0..3 {
        cluster.eventually("three members", |cluster| members(cluster, id) == [0, 1, 2]);
    }
    let told = |cluster: &Cluster| state(cluster, 3).contains("removed");
    cluster.eventually("it is told", told);
    // It takes nothing, and a restart does not make it forget that it is out, though it was once told to join.
    cluster.daemons[3].kill();
    cluster.daemons[3].start();
    cluster.eventually("it is out", told);
    let refused = cluster.daemons[3]
        .text()
        .and_then(|mut text| text.put("refused.bin", "", b"no"));
    assert!(
        matches!(&refused, Ok(Err(why)) if why.contains("removed")),
        "{refused:?}"
    );
    assert_eq!(members(&cluster, 0), [0, 1, 2]);
    assert_eq!(cluster.get(1, "kept.bin"), body);
    // The same machine under the same number: its objects are there, and count again only once they were compared.
    cluster.daemons[3].kill();
    recovered(&cluster, 3, "--rejoin");
    let member = cluster.daemons[1].host.to_string();
    cluster.daemons[3].args = vec!["--join".to_owned(), member];
    cluster.daemons[3].start();
    cluster.eventually("four members again", |cluster| {
        members(cluster, 0) == [0, 1, 2, 3]
    });
    cluster.wait_serving(3);
    assert_eq!(cluster.get(3, "kept.bin"), body);
    upload(&cluster, 3, "again.bin", &body);
    cluster.assert_alive();
}

#[test]
fn one_that_was_removed_while_it_was_down_is_told_when_it_comes_back() {
    let mut cluster = four();
    cluster.daemons[3].kill();
    operator(&cluster, &["node", "remove", "3", "--force", "--yes"]);
    cluster.eventually("three members", |cluster| members(cluster, 0) == [0, 1, 2]);
    upload(&cluster, 0, "meanwhile.bin", b"without it");
    cluster.daemons[3].args.clear();
    cluster.daemons[3].start();
    cluster.eventually("it is told", |cluster| {
        state(cluster, 3).contains("removed")
    });
    upload(&cluster, 0, "afterwards.bin", b"without it");
}

#[test]
fn the_vote_of_a_removed_daemon_goes_to_a_spare_also_when_it_leads() {
    let mut cluster = four();
    for removed in [2, 0] {
        operator(
            &cluster,
            &["node", "remove", &removed.to_string(), "--force", "--yes"],
        );
        let left: Vec<u64> = match removed {
            2 => vec![0, 1, 3],
            _ => vec![1, 3],
        };
        cluster.eventually("the vote has moved", |cluster| {
            voters(cluster, 1) == left && members(cluster, 3) == left
        });
        cluster.eventually("it is told", |cluster| {
            state(cluster, removed).contains("removed")
        });
        upload(
            &cluster,
            1,
            &format!("without-{removed}.bin"),
            b"two or three",
        );
        // An operator's commands go to the first daemon of the file that answers: let that be a member.
        cluster.daemons[removed].kill();
    }
}

#[test]
fn a_dead_voter_is_replaced_by_a_living_spare_and_comes_back_without_a_vote() {
    let mut cluster = four();
    let body = content(12, 100_000);
    upload(&cluster, 0, "kept.bin", &body);
    cluster.daemons[2].kill();
    cluster.eventually("the spare votes", |cluster| voters(cluster, 0) == [0, 1, 3]);
    // One more may die now.
    cluster.daemons[1].kill();
    upload(&cluster, 3, "by-two.bin", &body);
    for id in [1, 2] {
        cluster.daemons[id].start();
    }
    cluster.wait_ready();
    assert_eq!(cluster.get(2, "by-two.bin"), body);
    let all = members(&cluster, 2);
    assert_eq!((all.len(), voters(&cluster, 2).len()), (4, 3));
    assert!(
        !voters(&cluster, 2).contains(&2),
        "{:?}",
        voters(&cluster, 2)
    );
}

#[test]
fn changed_addresses_are_taken_over_without_a_restart_of_the_others() {
    let mut cluster = four();
    let body = content(13, 300_000);
    upload(&cluster, 0, "before.bin", &body);
    // A majority of the voters moves at the same time, and the learner: only daemon 0 stays where it was.
    for id in [1, 2, 3] {
        cluster.daemons[id].kill();
        cluster.readdress(id);
        cluster.daemons[id].args.clear();
    }
    for id in [1, 2, 3] {
        cluster.daemons[id].start();
    }
    cluster.wait_ready();
    for id in 0..4 {
        assert_eq!(cluster.get(id, "before.bin"), body);
        upload(&cluster, id, &format!("through-{id}.bin"), &body);
        assert_eq!(
            cluster.get((id + 1) % 4, &format!("through-{id}.bin")),
            body
        );
    }
    // The catalog has them too: who was away learns it from there.
    cluster.daemons[0].kill();
    cluster.daemons[0].start();
    cluster.wait_ready();
    let hosts: Vec<String> = cluster.daemons.iter().map(|d| d.host.to_string()).collect();
    cluster.eventually("the catalog has the new addresses", |cluster| {
        let status = status(cluster, 0).unwrap_or_default();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let mut known = members.iter().map(|member| member["address"].clone());
        hosts
            .iter()
            .all(|host| known.any(|address| address == host.as_str()))
    });
    cluster.assert_alive();
}

#[test]
fn a_new_machine_takes_the_place_of_a_dead_one_under_its_number() {
    let mut cluster = Cluster::start(&shape());
    let body = content(14, 100_000);
    upload(&cluster, 0, "before.bin", &body);
    cluster.daemons[2].kill();
    fs::remove_dir_all(&cluster.daemons[2].data).expect("an emptied disk");
    let mut gone = cluster.daemons.remove(2);
    gone.kill();
    join(&mut cluster, 2);
    cluster.eventually("it votes again", |cluster| voters(cluster, 0) == [0, 1, 2]);
    cluster.wait_serving(2);
    assert_eq!(cluster.get(2, "before.bin"), body);
    upload(&cluster, 2, "through.bin", &body);
}

#[test]
fn a_number_that_a_living_daemon_has_cannot_be_taken_by_a_mistake() {
    let mut cluster = Cluster::start(&shape());
    let member = cluster.daemons[0].host.to_string();
    let impostor = cluster.newcomer(2, &shape());
    impostor.data = impostor.data.with_extension("other");
    impostor.args = vec!["--join".to_owned(), member];
    let conf = cluster.folder().join("daemon-2.conf");
    let text = fs::read_to_string(&conf).expect("configuration");
    fs::write(&conf, text.replace("data-2", "data-impostor")).expect("configuration");
    cluster.daemons[3].start();
    cluster.eventually("it is told", |cluster| {
        cluster.daemons[3].logged().contains("needs another number")
    });
    upload(&cluster, 2, "unharmed.bin", b"still a voter");
    assert_eq!(voters(&cluster, 0), [0, 1, 2]);
}

/// `momo recover` on a daemon that does not run.
fn recovered(cluster: &Cluster, id: usize, how: &str) -> String {
    let daemon = &cluster.daemons[id];
    let output = std::process::Command::new(harness::BINARY)
        .args([
            "recover",
            how,
            "--yes",
            "--id",
            &daemon.id.to_string(),
            "--conf",
        ])
        .arg(daemon.conf())
        .output()
        .expect("an operator");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn one_survivor_goes_on_by_force_and_the_cluster_of_before_cannot_come_back() {
    let mut cluster = Cluster::start(&shape());
    let body = content(15, 100_000);
    upload(&cluster, 0, "before.bin", &body);
    cluster.eventually("everywhere", |cluster| {
        cluster.copies("before.bin", &body) == 3
    });
    for id in [1, 2] {
        cluster.daemons[id].kill();
    }
    // Not while it runs, and not without being asked for.
    let running = momo(&cluster, &["recover", "--force", "--yes", "--id", "0"]);
    assert!(!running.status.success());
    cluster.daemons[0].kill();
    let unasked = momo(&cluster, &["recover", "--force", "--id", "0"]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    let said = recovered(&cluster, 0, "--force");
    assert!(said.contains("IS LOST") && said.contains("1, 2"), "{said}");
    // One that is cut short is finished before the daemon starts, whatever was done of it.
    let facts = cluster.daemons[0].data.join(".momo/state/facts");
    let born = fs::read_to_string(facts.join("admitted.json")).expect("the new cluster");
    let change = format!("{{\"old\":{born},\"new\":{born}}}");
    fs::write(facts.join("recovering.json"), change).expect("a recovery cut short");
    cluster.daemons[0].start();
    let ended = cluster.daemons[0].ended(PATIENCE);
    assert!(ended.is_some_and(|status| !status.success()));
    recovered(&cluster, 0, "--force");
    let again = fs::read_to_string(facts.join("admitted.json")).expect("the new cluster");
    assert_eq!(again, born, "the same cluster as before it was cut short");
    cluster.daemons[0].start();
    cluster.wait_serving(0);
    assert_eq!(cluster.get(0, "before.bin"), body);
    assert_eq!(voters(&cluster, 0), [0]);
    // The others were a majority. They may serve each other until they meet the new cluster, and then no more.
    for id in [1, 2] {
        cluster.daemons[id].start();
    }
    for id in [1, 2] {
        cluster.eventually("it is told", |cluster| {
            state(cluster, id).contains("recovered by force")
        });
    }
    for id in [1, 2] {
        cluster.daemons[id].kill();
        cluster.daemons[id].start();
        cluster.eventually("it stays out", |cluster| {
            state(cluster, id).contains("recovered by force")
        });
        cluster.daemons[id].kill();
    }
    // Copies are where they were, votes are given anew.
    for id in [1, 2] {
        recovered(&cluster, id, "--rejoin");
        cluster.daemons[id].start();
    }
    cluster.eventually("all vote again", |cluster| {
        (0..3).all(|id| voters(cluster, id) == [0, 1, 2])
    });
    cluster.wait_ready();
    for id in 0..3 {
        assert_eq!(cluster.get(id, "before.bin"), body);
        upload(&cluster, id, &format!("after-{id}.bin"), &body);
    }
    cluster.daemons[0].kill();
    upload(&cluster, 1, "by-two.bin", &body);
    cluster.assert_alive();
}

#[test]
fn a_cluster_is_born_by_an_operators_word_without_those_that_are_missing() {
    let mut cluster = Cluster::prepare(&shape());
    for id in [0, 1] {
        cluster.daemons[id].start();
    }
    for id in [0, 1] {
        cluster.eventually("it waits for all", |cluster| {
            state(cluster, id).contains("2 of 3")
        });
    }
    operator(&cluster, &["cluster", "init", "--id", "1", "--yes"]);
    cluster.wait_ready();
    upload(&cluster, 0, "early.bin", b"without the third");
    // One voter needs nobody; two would need each other.
    assert_eq!(voters(&cluster, 0), [1]);
    let again = momo(&cluster, &["cluster", "init", "--id", "0", "--yes"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    cluster.daemons[2].start();
    cluster.eventually("all vote", |cluster| {
        (0..3).all(|id| voters(cluster, id) == [0, 1, 2])
    });
    cluster.wait_ready();
    assert_eq!(cluster.get(2, "early.bin"), b"without the third");
    cluster.daemons[1].kill();
    upload(&cluster, 2, "later.bin", b"by two of three");
}

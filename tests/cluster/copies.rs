//! Three real daemons: where the copies are in each mode, what a dead daemon costs, what the doors answer.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::momo::{CONSTANT, Upload, read_digit};
use crate::harness::{Cluster, PATIENCE, Shape, content, dial, has, until_close, write_file};

/// Runs a client of ours to its end.
fn client(cluster: &Cluster, args: &[&str]) -> Output {
    cluster.client(args).output().expect("a client")
}

/// Runs a client that must succeed; what it wrote to stdout.
fn client_ok(cluster: &Cluster, args: &[&str]) -> Vec<u8> {
    let output = client(cluster, args);
    assert!(
        output.status.success(),
        "momo {}: {}\n{}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        cluster.tails()
    );
    output.stdout
}

/// An upload by raw bytes that must be acknowledged, tried again while the cluster is between leaders.
fn upload(cluster: &Cluster, entry: usize, name: &str, body: &[u8]) {
    let start = Instant::now();
    loop {
        let answer = Upload::of(name, body).send(cluster.daemons[entry].host);
        if answer
            .as_ref()
            .is_ok_and(|answer| answer.acknowledged_by() == Some(entry))
        {
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

fn absent(cluster: &Cluster, id: usize, name: &str) {
    cluster.eventually(&format!("{name} is unknown"), |cluster| {
        cluster.daemons[id]
            .text()
            .and_then(|mut text| text.get(name))
            .is_ok_and(|answer| answer.is_err_and(|why| why.contains("not found")))
    });
    assert!(
        cluster
            .daemons
            .iter()
            .all(|daemon| daemon.visible(name).is_none()),
        "{name} must not be visible"
    );
}

/// A body on its way: everything but the last half of the content has been sent.
struct Halfway {
    stream: std::net::TcpStream,
    rest: Vec<u8>,
}

impl Halfway {
    fn begin(cluster: &Cluster, entry: usize, upload: &Upload) -> Self {
        let mut stream = dial(cluster.daemons[entry].host).expect("a connection");
        stream.write_all(CONSTANT.as_bytes()).expect("timestamp");
        assert!(read_digit(&mut stream).expect("digit").is_some());
        let mut bytes = [upload.metadata(), upload.content()].concat();
        let rest = bytes.split_off(bytes.len() / 2);
        stream.write_all(&bytes).expect("the first half");
        Self { stream, rest }
    }

    fn finish(mut self) -> Vec<u8> {
        let _ = self.stream.write_all(&self.rest);
        until_close(&mut self.stream).expect("an answer or a close")
    }
}

#[test]
fn the_momo_client_puts_the_copies_of_each_mode_where_they_belong() {
    let cluster = Cluster::three();
    let big = 3 << 20;
    for (mode, copies) in [(0_u8, 1), (1, 3), (2, 3), (3, 3)] {
        cluster.set_mode(mode);
        for size in [0, 1, 5_000, big] {
            let name = format!("mode-{mode}-{size}.bin");
            let body = content(u64::from(mode) + size as u64, size);
            let path = cluster.folder().join(&name);
            write_file(&path, &body);
            client_ok(
                &cluster,
                &["-imp", "client", "-file", &path.display().to_string()],
            );
            if size > 0 {
                assert!(
                    cluster.durable(&body) >= copies.min(2),
                    "{name}\n{}",
                    cluster.tails()
                );
            }
            cluster.eventually(&format!("{copies} copies of {name}"), |cluster| {
                cluster.copies(&name, &body) == copies || size == 0
            });
            for reader in 0..3 {
                assert_eq!(cluster.get(reader, &name), body, "{name} at {reader}");
            }
        }
    }
    cluster.assert_alive();
}

#[test]
fn a_daemon_that_is_down_before_the_upload_gets_its_copy_when_it_is_back() {
    let mut cluster = Cluster::three();
    for (mode, down) in [(1_u8, 2_usize), (2, 1), (1, 1)] {
        cluster.set_mode(mode);
        cluster.daemons[down].kill();
        let name = format!("before-{mode}-{down}.bin");
        let body = content(u64::from(mode) + 10 * down as u64, 400_000);
        upload(&cluster, 0, &name, &body);
        assert_eq!(cluster.durable(&body), 2, "{}", cluster.tails());
        cluster.daemons[down].start();
        cluster.eventually("the missing copy", |cluster| {
            cluster.copies(&name, &body) == 3
        });
        cluster.wait_serving(down);
        assert_eq!(cluster.get(down, &name), body);
    }
    cluster.assert_alive();
}

#[test]
fn a_target_that_dies_during_the_body_does_not_cost_the_upload() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[write]\nhop_stall=700\n\n".to_owned(),
        ..Shape::default()
    });
    for (mode, down) in [(1_u8, 1_usize), (1, 2), (2, 2)] {
        cluster.set_mode(mode);
        let name = format!("during-{mode}-{down}.bin");
        let body = content(100 + u64::from(mode) + 10 * down as u64, 6 << 20);
        let halfway = Halfway::begin(&cluster, 0, &Upload::of(&name, &body));
        cluster.daemons[down].kill();
        assert_eq!(
            halfway.finish(),
            b"ACK0",
            "mode {mode} without {down}\n{}",
            cluster.tails()
        );
        assert_eq!(cluster.durable(&body), 2, "{}", cluster.tails());
        cluster.daemons[down].start();
        cluster.eventually("the missing copy", |cluster| {
            cluster.copies(&name, &body) == 3
        });
        cluster.wait_serving(down);
    }
    cluster.assert_clean(&["during-1-1.bin", "during-1-2.bin", "during-2-2.bin"]);
}

#[test]
fn a_target_that_stalls_during_the_body_is_left_out_and_served_afterwards() {
    let cluster = Cluster::start(&Shape {
        extra: "[write]\nhop_stall=700\n\n".to_owned(),
        ..Shape::default()
    });
    let body = content(120, 24 << 20);
    let halfway = Halfway::begin(&cluster, 0, &Upload::of("stalled.bin", &body));
    cluster.daemons[1].signal(Signal::STOP);
    let answer = halfway.finish();
    cluster.daemons[1].signal(Signal::CONT);
    assert_eq!(answer, b"ACK0", "{}", cluster.tails());
    cluster.eventually("three copies", |cluster| {
        cluster.copies("stalled.bin", &body) == 3
    });
    cluster.assert_clean(&["stalled.bin"]);
}

#[test]
fn a_daemon_that_dies_after_the_upload_is_read_around() {
    let mut cluster = Cluster::three();
    let body = content(130, 2 << 20);
    upload(&cluster, 0, "after.bin", &body);
    for down in [2, 1, 0] {
        cluster.daemons[down].kill();
        let reader = (down + 1) % 3;
        assert_eq!(cluster.get(reader, "after.bin"), body);
        cluster.daemons[down].start();
        cluster.wait_ready();
        assert_eq!(cluster.get(down, "after.bin"), body);
    }
}

#[test]
fn an_entry_daemon_that_dies_during_the_body_leaves_nothing() {
    let mut cluster = Cluster::three();
    let old = content(140, 10_000);
    upload(&cluster, 0, "entry.bin", &old);
    let new = content(141, 6 << 20);
    let fresh = content(142, 6 << 20);
    let again = Halfway::begin(&cluster, 0, &Upload::of("entry.bin", &new));
    let first = Halfway::begin(&cluster, 0, &Upload::of("never.bin", &fresh));
    cluster.daemons[0].kill();
    assert_eq!(again.finish(), b"");
    assert_eq!(first.finish(), b"");
    assert_eq!(cluster.get(1, "entry.bin"), old);
    absent(&cluster, 1, "never.bin");
    cluster.daemons[0].start();
    cluster.wait_ready();
    assert_eq!(cluster.get(0, "entry.bin"), old);
    cluster.assert_clean(&["entry.bin"]);
}

#[test]
fn one_of_three_refuses_uploads_and_says_what_is_missing() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[write]\nhop_stall=1000\nleg_wait=1000\ndeadline=3000\n\n".to_owned(),
        ..Shape::default()
    });
    let body = content(150, 5_000);
    upload(&cluster, 0, "kept.bin", &body);
    cluster.daemons[1].kill();
    cluster.daemons[2].kill();
    let answer = Upload::of("refused.bin", &body)
        .send(cluster.daemons[0].host)
        .expect("a close");
    assert_eq!(answer.acknowledged_by(), None);
    let output = cluster
        .client(&["put", &cluster.conf.display().to_string()])
        .output()
        .expect("a client");
    assert!(
        matches!(output.status.code(), Some(1 | 3)),
        "{output:?}\n{}",
        cluster.tails()
    );
    cluster.eventually("status says why", |cluster| {
        cluster.daemons[0]
            .text()
            .and_then(|mut text| text.ask_lines("STATUS"))
            .is_ok_and(|lines| lines.join("\n").contains("1 of 3"))
    });
    assert!(cluster.daemons[0].visible("refused.bin").is_none());
    for id in [1, 2] {
        cluster.daemons[id].start();
    }
    cluster.wait_ready();
    assert_eq!(cluster.get(2, "kept.bin"), body);
    upload(&cluster, 0, "refused.bin", &body);
}

#[test]
fn writes_go_on_through_the_others_when_the_leader_is_killed() {
    let mut cluster = Cluster::three();
    let body = content(160, 50_000);
    upload(&cluster, 0, "before.bin", &body);
    cluster.daemons[0].kill();
    let other = content(161, 50_000);
    upload(&cluster, 1, "without.bin", &other);
    let start = Instant::now();
    loop {
        let answer = cluster.daemons[2]
            .text()
            .and_then(|mut text| text.put("text.bin", "", &other));
        if matches!(answer, Ok(Ok(_))) {
            break;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{answer:?}\n{}",
            cluster.tails()
        );
        thread::sleep(Duration::from_millis(50));
    }
    for id in [1, 2] {
        assert_eq!(cluster.get(id, "before.bin"), body);
        assert_eq!(cluster.get(id, "without.bin"), other);
    }
    cluster.daemons[0].start();
    cluster.wait_ready();
    assert_eq!(cluster.get(0, "without.bin"), other);
    assert_eq!(cluster.get(0, "text.bin"), other);
    // Daemon 0 leads while it lives.
    cluster.eventually("daemon 0 leads again", |cluster| {
        cluster.daemons[1]
            .text()
            .and_then(|mut text| text.ask_lines("STATUS"))
            .is_ok_and(|lines| {
                lines
                    .iter()
                    .any(|line| line.to_lowercase().contains("leader") && line.contains('0'))
            })
    });
}

#[test]
fn an_emptied_daemon_comes_back_without_a_say_and_is_filled_again() {
    let mut cluster = Cluster::three();
    let files: Vec<(String, Vec<u8>)> = (0..20)
        .map(|index| (format!("wiped-{index}.bin"), content(170 + index, 30_000)))
        .collect();
    for (name, body) in &files {
        upload(&cluster, 0, name, body);
    }
    for wiped in [2, 0] {
        cluster.daemons[wiped].kill();
        fs::remove_dir_all(&cluster.daemons[wiped].data).expect("an emptied disk");
        cluster.daemons[wiped].start();
        for (name, body) in &files {
            cluster.eventually(&format!("{name} is back at {wiped}"), |cluster| {
                cluster.holders(name, body).contains(&wiped)
            });
        }
        cluster.wait_ready();
        for (name, body) in &files {
            assert_eq!(&cluster.get(wiped, name), body);
        }
        // Its commands are new ones, although it counts its starts from the beginning again: none is taken for one of before.
        for index in 0..30_u64 {
            let name = format!("through-{wiped}-{index}.bin");
            let body = content(1_000 + index + wiped as u64 * 100, 3_000);
            upload(&cluster, wiped, &name, &body);
            assert_eq!(cluster.get(1, &name), body);
        }
        let name = format!("later-{wiped}.bin");
        upload(&cluster, 1, &name, b"still a cluster");
        assert_eq!(cluster.get(wiped, &name), b"still a cluster");
    }
}

#[test]
fn all_daemons_killed_at_once_come_back_with_everything() {
    let mut cluster = Cluster::three();
    let files: Vec<(String, Vec<u8>)> = (0..10)
        .map(|index| (format!("power-{index}.bin"), content(190 + index, 20_000)))
        .collect();
    for (name, body) in &files {
        upload(&cluster, 0, name, body);
    }
    cluster.set_mode(1);
    for daemon in &mut cluster.daemons {
        daemon.kill();
    }
    for daemon in &mut cluster.daemons {
        daemon.start();
    }
    cluster.wait_ready();
    for (name, body) in &files {
        assert_eq!(cluster.durable(body), 3, "{name}");
        assert_eq!(&cluster.get(1, name), body);
    }
    let lines = cluster.daemons[2]
        .text()
        .and_then(|mut text| text.ask_lines("MODE"))
        .expect("the mode");
    assert!(
        lines.iter().any(|line| line.starts_with("MODE 1 ")),
        "the mode survives: {lines:?}"
    );
}

#[test]
fn sigterm_lets_a_running_upload_end_and_stops_in_time() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[server]\ndrain=8000\n\n".to_owned(),
        ..Shape::default()
    });
    let body = content(200, 4 << 20);
    let halfway = Halfway::begin(&cluster, 0, &Upload::of("drained.bin", &body));
    let idle = cluster.daemons[0].text().expect("an idle connection");
    cluster.daemons[0].signal(Signal::TERM);
    cluster.eventually("no new connections", |cluster| {
        dial(cluster.daemons[0].host).is_err()
            || cluster.daemons[0]
                .text()
                .and_then(|mut text| text.ask("NODE PING"))
                .is_err()
    });
    assert_eq!(halfway.finish(), b"ACK0", "{}", cluster.tails());
    let status = cluster.daemons[0].ended(Duration::from_secs(10));
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        cluster.tails()
    );
    drop(idle);
    assert_eq!(cluster.get(1, "drained.bin"), body);
    // One that never ends is not waited for longer than was said.
    let body = content(201, 4 << 20);
    let stuck = Halfway::begin(&cluster, 2, &Upload::of("stuck.bin", &body));
    let status = cluster.daemons[2].terminate(Duration::from_secs(15));
    assert!(status.is_some(), "drain has an end\n{}", cluster.tails());
    assert_eq!(stuck.finish(), b"");
}

#[test]
fn uploads_of_one_name_at_once_end_with_one_of_them_whole_everywhere() {
    let cluster = Cluster::start(&Shape {
        order: "3,2".to_owned(),
        ..Shape::default()
    });
    for round in 0..3_u64 {
        let bodies: Vec<Vec<u8>> = (0..3)
            .map(|one| content(210 + round * 10 + one, 300_000))
            .collect();
        let paths: Vec<_> = bodies
            .iter()
            .enumerate()
            .map(|(index, body)| {
                let folder = cluster.folder().join(format!("from-{round}-{index}"));
                fs::create_dir_all(&folder).expect("a folder");
                let path = folder.join("contested.bin");
                write_file(&path, body);
                path
            })
            .collect();
        thread::scope(|scope| {
            for path in &paths {
                let cluster = &cluster;
                scope.spawn(move || {
                    client_ok(
                        cluster,
                        &["-imp", "client", "-file", &path.display().to_string()],
                    )
                });
            }
        });
        let winner = cluster.get(0, "contested.bin");
        assert!(bodies.contains(&winner), "one of them, whole");
        cluster.eventually("the same bytes on all disks", |cluster| {
            cluster.copies("contested.bin", &winner) == 3
        });
        for id in 1..3 {
            assert_eq!(cluster.get(id, "contested.bin"), winner);
        }
    }
    cluster.assert_clean(&["contested.bin"]);
}

/// Sends a script to a text door with netcat and returns what came back.
fn nc(cluster: &Cluster, id: usize, script: &[u8]) -> Vec<u8> {
    let host = cluster.daemons[id].host;
    let mut child = Command::new("nc")
        .args([
            "-N",
            "-w",
            "10",
            &host.ip().to_string(),
            &host.port().to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nc");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(script)
        .expect("a script");
    child.wait_with_output().expect("nc").stdout
}

#[test]
fn netcat_is_enough() {
    if !has("nc") {
        return;
    }
    let cluster = Cluster::three();
    let text =
        |id: usize, script: &[u8]| String::from_utf8_lossy(&nc(&cluster, id, script)).into_owned();
    assert_eq!(text(0, b"NODE PING\n"), "PONG\n");
    assert_eq!(text(0, b"node ping\r\nNODE PING"), "PONG\nPONG\n");
    let pushed = text(1, b"FILE PUSH 6 by nc.txt\nhello\nFILE STAT by nc.txt\n");
    assert!(pushed.contains("OK"), "{pushed}");
    assert_eq!(text(2, b"FILE PULL by nc.txt\n"), "hello\n");
    assert_eq!(text(2, b"FILE PULL nothing\n"), "ERR file not found\n");
    let put = text(0, b"FILE PUT 5 -- put.txt\nabcdeNODE PING\n");
    let sha = "36bbe50ed96841d10443bcb670d6554f0a34b761be67ec9c4a8ad2c0c44ca42c";
    assert!(
        put.starts_with(&format!("OK {sha} version=")) && put.ends_with("PONG\n"),
        "{put}"
    );
    let got = text(2, b"FILE GET put.txt\nNODE PING\n");
    assert!(
        got.starts_with(&format!("OK 5 {sha} ")) && got.ends_with("\nabcdePONG\n"),
        "{got}"
    );
    let list = text(1, b"FILE LIST\n");
    assert!(
        list.starts_with("name,start,size\n")
            && list.contains("by nc.txt,")
            && list.contains(",5\n"),
        "{list}"
    );
    let status = text(0, b"NODE STATUS\n");
    assert!(
        status.starts_with("PORT ") && status.contains("NEXT ") && status.ends_with("OK\n"),
        "{status}"
    );
    let netmap = text(0, b"NETMAP GET\n");
    assert_eq!(netmap.matches("=Alive").count(), 3, "{netmap}");
    assert!(text(0, b"HELLO\n").contains("ERR unknown command namespace: 'HELLO'"));
    assert!(text(0, b"FILE DANCE\n").contains("ERR unknown FILE command"));
    assert!(text(0, b"FILE PUSH x name\nNODE PING\n").contains("ERR invalid size for FILE PUSH"));
    let deleted = text(1, b"FILE DELETE put.txt\nFILE STAT put.txt\n");
    assert!(
        deleted.starts_with("OK") && deleted.contains("ERR"),
        "{deleted}"
    );
    let quit = text(0, b"QUIT\nNODE PING\n");
    assert!(!quit.contains("PONG"), "{quit}");
    assert!(!text(0, b"NODE HELP\n").is_empty());
    cluster.assert_alive();
}

#[test]
fn the_text_door_keeps_its_connection_over_many_files_and_takes_expectations() {
    let cluster = Cluster::three();
    let mut text = cluster.daemons[2].text().expect("a connection");
    for index in 0..50_u64 {
        let body = content(300 + index, usize::try_from(index * 777).unwrap_or(0));
        let name = format!("folder/kept-{index}.bin");
        let answer = text.put(&name, "", &body).expect("an answer");
        assert!(answer.is_ok(), "{name}: {answer:?}\n{}", cluster.tails());
        assert_eq!(text.get(&name).expect("an answer"), Ok(body));
    }
    let absent = text
        .put("folder/kept-1.bin", "expect=absent", b"no")
        .expect("an answer");
    assert!(absent.is_err(), "{absent:?}");
    let wrong = text
        .put("wrong.bin", &format!("sha256={}", "0".repeat(64)), b"no")
        .expect("an answer");
    assert!(wrong.is_err(), "{wrong:?}");
    let conflict = text
        .put("folder/kept-1.bin/below", "", b"no")
        .expect("an answer");
    assert!(conflict.is_err(), "{conflict:?}");
    assert_eq!(text.ask("NODE PING").expect("an answer"), "PONG");
    cluster.assert_clean(&["folder"]);
}

#[test]
fn what_our_client_puts_it_gets_lists_and_removes() {
    let cluster = Cluster::three();
    let body = content(400, 1_500_000);
    let path = cluster.folder().join("client.bin");
    write_file(&path, &body);
    client_ok(&cluster, &["put", &path.display().to_string()]);
    let back = cluster.folder().join("back.bin");
    client_ok(
        &cluster,
        &["get", "client.bin", "-o", &back.display().to_string()],
    );
    assert_eq!(fs::read(&back).expect("what came back"), body);
    assert_eq!(client_ok(&cluster, &["get", "client.bin", "-o", "-"]), body);
    let list = String::from_utf8_lossy(&client_ok(&cluster, &["ls"])).into_owned();
    assert!(list.contains("client.bin"), "{list}");
    let stat = String::from_utf8_lossy(&client_ok(&cluster, &["stat", "client.bin"])).into_owned();
    assert!(stat.contains("1500000"), "{stat}");
    client_ok(&cluster, &["rm", "client.bin"]);
    let gone = client(&cluster, &["get", "client.bin", "-o", "-"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stdout.is_empty());
    assert_eq!(client(&cluster, &["put"]).status.code(), Some(2));
    assert_eq!(
        client(&cluster, &["put", "/does/not/exist"]).status.code(),
        Some(1)
    );
}

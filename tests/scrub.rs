//! Damage behind the daemons' backs: a scrub or a read finds it, nobody gets a wrong byte, and it is made good again.

mod harness;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use harness::momo::Upload;
use harness::mount::Mount;
use harness::{Cluster, Daemon, PATIENCE, Shape, content, hex};
use rustix::process::Signal;
use serde_json::Value;
use sha2::Digest;

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

fn sha(body: &[u8]) -> String {
    hex(&sha2::Sha256::digest(body))
}

fn object(daemon: &Daemon, body: &[u8]) -> PathBuf {
    let sha = sha(body);
    daemon.data.join(".momo/objects").join(&sha[..2]).join(&sha)
}

fn aside(daemon: &Daemon, body: &[u8]) -> PathBuf {
    daemon.data.join(".momo/aside").join(sha(body))
}

fn writable(path: &Path) -> File {
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("an object's mode");
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .open(path)
        .expect("an object")
}

/// Turns one byte of a file round.
fn flip(path: &Path, at: u64) {
    let file = writable(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[!byte[0]], at).expect("a wrong byte");
}

fn momo(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.client(args).output().expect("a client");
    assert!(
        output.status.success(),
        "momo {}: {}\n{}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        cluster.tails()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn scrub(cluster: &Cluster, args: &[&str]) -> Value {
    let args = [&["scrub", "--json"], args].concat();
    let text = momo(cluster, &args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Has everything read again, and waits for it.
fn scrub_now(cluster: &Cluster) -> Value {
    scrub(cluster, &["--now", "--wait", "--patience", "60s"])
}

fn found(status: &Value, node: usize, code: &str) -> u64 {
    let nodes = status["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|told| told["node"] == node);
    let node = node.unwrap_or_else(|| panic!("{status}"));
    node["found"][code]
        .as_u64()
        .unwrap_or_else(|| panic!("{status}"))
}

/// How often a code was found by now.
fn count(cluster: &Cluster, node: usize, code: &str) -> u64 {
    found(&scrub(cluster, &[]), node, code)
}

#[test]
fn a_scrub_finds_every_kind_of_damage_says_it_by_its_code_and_has_it_made_good() {
    let cluster = Cluster::three();
    let body = |seed| content(300 + seed, 700_000);
    let names = [
        "whole",
        "flipped",
        "cut",
        "removed",
        "all-removed",
        "hidden",
    ];
    for (seed, name) in names.iter().enumerate() {
        upload(&cluster, 0, name, &body(seed as u64));
    }
    cluster.eventually("three copies of each", |cluster| {
        names
            .iter()
            .enumerate()
            .all(|(seed, name)| cluster.copies(name, &body(seed as u64)) == 3)
    });
    let at = &cluster.daemons[1];
    flip(&object(at, &body(1)), 300_000);
    writable(&object(at, &body(2)))
        .set_len(699_999)
        .expect("a cut");
    fs::remove_file(object(at, &body(3))).expect("an object");
    fs::remove_file(object(at, &body(4))).expect("an object");
    fs::remove_file(at.data.join("all-removed")).expect("a name");
    fs::remove_file(at.data.join("hidden")).expect("a name");
    let stray = content(399, 5_000);
    let place = object(at, &stray);
    fs::write(&place, &stray).expect("a stray");

    let status = scrub_now(&cluster);
    for (code, times) in [
        ("BSUM", 1),
        ("BLEN", 1),
        ("MISS", 2),
        ("BCNT", 1),
        ("GONE", 0),
    ] {
        assert_eq!(
            found(&status, 1, code),
            times,
            "{code}: {status}\n{}",
            cluster.tails()
        );
        assert_eq!(found(&status, 0, code), 0, "{code}: {status}");
        assert_eq!(found(&status, 2, code), 0, "{code}: {status}");
    }
    let last = &status["nodes"][1]["last"];
    assert_eq!(last["objects"], 6, "{status}");
    assert_eq!(last["bytes"], 6 * 700_000, "{status}");
    cluster.eventually("three copies of each again", |cluster| {
        names
            .iter()
            .enumerate()
            .all(|(seed, name)| cluster.copies(name, &body(seed as u64)) == 3)
    });
    cluster.eventually("what was lost is known to be back", |cluster| {
        count(cluster, 1, "REPL") == 4
    });
    cluster.eventually("no bad file is kept for ever", |cluster| {
        !aside(&cluster.daemons[1], &body(1)).exists()
            && !aside(&cluster.daemons[1], &body(2)).exists()
    });
    let logged = cluster.daemons[1].logged();
    for code in ["BSUM", "BLEN", "MISS", "BCNT", "REPL", "linked again"] {
        assert!(logged.contains(code), "{code}\n{}", cluster.tails());
    }
    let again = scrub_now(&cluster);
    assert_eq!(found(&again, 1, "BSUM"), 1, "{again}");
    assert_eq!(again["nodes"][1]["last"]["found"]["MISS"], 0, "{again}");
    let table = momo(&cluster, &["scrub"]);
    assert!(
        table.contains("BSUM") && table.lines().count() == 4,
        "{table}"
    );
}

#[test]
fn a_read_that_meets_a_bad_block_goes_on_from_another_copy_and_the_bad_one_is_made_again() {
    let cluster = Cluster::start(&Shape {
        extra: "[cluster]\nreplicas=2\n\n".to_owned(),
        ..Shape::default()
    });
    for (seed, bad, reader) in [(0, 0_usize, 0_usize), (1, 0, 2), (2, 1, 1)] {
        let name = format!("bad-{seed}");
        let body = content(310 + seed, 3 << 20);
        upload(&cluster, 0, &name, &body);
        cluster.eventually("two copies", |cluster| {
            cluster.holders(&name, &body) == [0, 1]
        });
        let before = count(&cluster, bad, "BSUM");
        flip(&object(&cluster.daemons[bad], &body), 2_000_000);
        assert_eq!(cluster.get(reader, &name), body);
        cluster.eventually("the bad copy was found", |cluster| {
            count(cluster, bad, "BSUM") == before + 1
        });
        cluster.eventually("two copies again", |cluster| {
            cluster.copies(&name, &body) == 2
        });
        assert_eq!(cluster.get(bad, &name), body);
    }
}

#[test]
fn the_last_copy_is_never_given_up_silently_and_its_file_is_kept_until_there_is_a_good_one() {
    let cluster = Cluster::start(&Shape {
        daemons: 1,
        order: "0".to_owned(),
        ..Shape::default()
    });
    let (body, other) = (content(320, 600_000), content(321, 600_000));
    upload(&cluster, 0, "only", &body);
    upload(&cluster, 0, "mended", &other);
    for body in [&body, &other] {
        flip(&object(&cluster.daemons[0], body), 1_000);
    }
    let status = scrub_now(&cluster);
    assert_eq!(found(&status, 0, "BSUM"), 2, "{status}");
    assert_eq!(found(&status, 0, "GONE"), 2, "{status}");
    let logged = cluster.daemons[0].logged();
    assert!(
        logged
            .lines()
            .any(|line| line.contains("ERROR") && line.contains("GONE") && line.contains("'only'")),
        "{}",
        cluster.tails()
    );
    let refused = cluster.daemons[0]
        .text()
        .and_then(|mut text| text.get("only"));
    let why = refused.expect("an answer").expect_err("no bytes");
    assert!(why.contains("no copy"), "{why}");
    assert!(cluster.daemons[0].visible("only").is_none());
    assert!(aside(&cluster.daemons[0], &body).exists());
    // The same bytes sent again are a good copy, and the bad one goes.
    upload(&cluster, 0, "only", &body);
    assert_eq!(cluster.get(0, "only"), body);
    cluster.eventually("the bad file is gone", |cluster| {
        !aside(&cluster.daemons[0], &body).exists()
    });
    // A file that was mended by hand is found to be whole by the next scrub.
    flip(&aside(&cluster.daemons[0], &other), 1_000);
    scrub_now(&cluster);
    cluster.eventually("it is read again", |cluster| {
        cluster.daemons[0]
            .text()
            .and_then(|mut text| text.get("mended"))
            .is_ok_and(|answer| answer.is_ok_and(|bytes| bytes == other))
    });
}

#[test]
fn a_scrub_goes_on_after_a_restart_where_it_was() {
    let mut cluster = Cluster::start(&Shape {
        daemons: 1,
        order: "0".to_owned(),
        extra: "[scrub]\nperiod=0\nbandwidth=1M\n\n".to_owned(),
        ..Shape::default()
    });
    let bodies: Vec<Vec<u8>> = (0..24).map(|seed| content(330 + seed, 500_000)).collect();
    for (seed, body) in bodies.iter().enumerate() {
        upload(&cluster, 0, &format!("file-{seed}"), body);
    }
    assert_eq!(scrub(&cluster, &[])["nodes"][0]["state"], "off");
    scrub(&cluster, &["--now"]);
    let objects = |status: &Value| status["nodes"][0]["pass"]["objects"].as_u64().unwrap_or(0);
    let mut reached = 0;
    cluster.eventually("a few copies are read", |cluster| {
        reached = objects(&scrub(cluster, &[]));
        reached >= 3
    });
    let status = cluster.daemons[0].terminate(PATIENCE);
    assert!(status.is_some_and(|status| status.success()));
    cluster.daemons[0].start();
    cluster.wait_ready();
    cluster.eventually("it goes on", |cluster| {
        let status = scrub(cluster, &[]);
        let pass = &status["nodes"][0]["pass"];
        let last = &status["nodes"][0]["last"];
        (pass["number"] == 1 && objects(&status) >= reached) || last["number"] == 1
    });
    cluster.eventually("it ends", |cluster| {
        scrub(cluster, &[])["nodes"][0]["last"]["number"] == 1
    });
    let status = scrub(&cluster, &[]);
    assert_eq!(status["nodes"][0]["last"]["objects"], 24, "{status}");
    assert!(cluster.daemons[0].logged().contains("goes on after"));
}

#[test]
fn a_short_period_keeps_every_copy_read_without_anybody_asking() {
    let cluster = Cluster::start(&Shape {
        extra: "[scrub]\nperiod=3s\n\n".to_owned(),
        ..Shape::default()
    });
    let body = content(360, 400_000);
    upload(&cluster, 0, "watched", &body);
    cluster.eventually("three copies", |cluster| {
        cluster.copies("watched", &body) == 3
    });
    flip(&object(&cluster.daemons[2], &body), 77);
    cluster.eventually("it is found", |cluster| count(cluster, 2, "BSUM") == 1);
    cluster.eventually("three copies again", |cluster| {
        cluster.copies("watched", &body) == 3
    });
}

#[test]
fn a_daemon_whose_objects_vanish_under_it_is_filled_again() {
    let cluster = Cluster::three();
    let bodies: Vec<Vec<u8>> = (0..12).map(|seed| content(370 + seed, 100_000)).collect();
    for (seed, body) in bodies.iter().enumerate() {
        upload(&cluster, 0, &format!("gone-{seed}"), body);
    }
    let whole = |cluster: &Cluster| {
        bodies
            .iter()
            .enumerate()
            .all(|(seed, body)| cluster.copies(&format!("gone-{seed}"), body) == 3)
    };
    cluster.eventually("three copies of each", whole);
    for (seed, body) in bodies.iter().enumerate() {
        fs::remove_file(object(&cluster.daemons[2], body)).expect("an object");
        fs::remove_file(cluster.daemons[2].data.join(format!("gone-{seed}"))).expect("a name");
    }
    let status = scrub_now(&cluster);
    assert_eq!(found(&status, 2, "MISS"), 12, "{status}");
    cluster.eventually("three copies of each again", whole);
    for (seed, body) in bodies.iter().enumerate() {
        assert_eq!(&cluster.get(2, &format!("gone-{seed}")), body);
    }
}

/// Reads a file at a daemon that has no copy of it, and does something to a holder when half has arrived; the longest wait for a piece after that.
fn read_while(
    cluster: &mut Cluster,
    name: &str,
    body: &[u8],
    act: impl FnOnce(&mut Cluster),
) -> Duration {
    const PIECE: usize = 64 * 1024;
    let mut text = cluster.daemons[2].text().expect("a connection");
    let head = text.ask(&format!("FILE GET {name}")).expect("an answer");
    let size = body.len();
    assert!(head.starts_with(&format!("OK {size} ")), "{head}");
    let mut bytes = text.some(size / 2).expect("the first half");
    act(cluster);
    let mut longest = Duration::ZERO;
    while bytes.len() < size {
        let start = Instant::now();
        let piece = text.some(PIECE.min(size - bytes.len()));
        bytes.extend(piece.unwrap_or_else(|error| panic!("{error}\n{}", cluster.tails())));
        longest = longest.max(start.elapsed());
    }
    assert!(bytes == body, "a wrong byte\n{}", cluster.tails());
    println!("{name}: longest wait {} ms", longest.as_millis());
    longest
}

#[test]
fn a_holder_that_dies_or_hangs_in_the_middle_of_a_read_costs_no_byte_and_no_stall() {
    let mut cluster = Cluster::start(&Shape {
        extra: "[cluster]\nreplicas=2\n\n[write]\nhop_stall=20s\n\n".to_owned(),
        debug: false,
        ..Shape::default()
    });
    // More than all the buffers on the way hold.
    let body = content(380, 64 << 20);
    upload(&cluster, 0, "long", &body);
    cluster.eventually("two copies", |cluster| {
        cluster.holders("long", &body) == [0, 1]
    });
    read_while(&mut cluster, "long", &body, |cluster| {
        cluster.daemons[0].kill();
    });
    cluster.daemons[0].start();
    cluster.wait_ready();
    cluster.eventually("daemon 0 is asked again", |cluster| {
        cluster.daemons[2].text().is_ok_and(|mut text| {
            text.ask_lines("STATUS JSON")
                .is_ok_and(|lines| lines.concat().matches("\"alive\":true").count() == 3)
        })
    });
    let stalled = read_while(&mut cluster, "long", &body, |cluster| {
        cluster.daemons[0].signal(Signal::STOP);
    });
    cluster.daemons[0].signal(Signal::CONT);
    assert!(
        stalled < Duration::from_secs(10),
        "{stalled:?}: waited for the holder that hangs"
    );
    assert!(
        cluster.daemons[2].logged().contains("failed at byte"),
        "{}",
        cluster.tails()
    );
}

#[test]
fn a_daemon_whose_data_directory_is_read_only_starts_serves_what_it_has_and_takes_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mount::tmpfs(place.path().join("small"), 256) else {
        return;
    };
    let mut cluster = Cluster::prepare(&Shape {
        data: vec![(2, mounted.0.join("data"))],
        ..Shape::default()
    });
    // The last section of the file is daemon 2's.
    let conf = fs::read_to_string(&cluster.conf).expect("the configuration");
    let state = cluster.folder().join("state-2");
    fs::write(
        &cluster.conf,
        format!("{conf}state_dir={}\n", state.display()),
    )
    .expect("a state directory");
    for daemon in &mut cluster.daemons {
        daemon.start();
    }
    cluster.wait_ready();
    let (old, new) = (content(390, 300_000), content(391, 300_000));
    upload(&cluster, 0, "old", &old);
    cluster.eventually("three copies", |cluster| cluster.copies("old", &old) == 3);
    cluster.daemons[2].kill();
    mounted.remount("ro");
    cluster.daemons[2].start();
    cluster.wait_ready();
    upload(&cluster, 0, "new", &new);
    assert_eq!(cluster.get(2, "new"), new, "from the others");
    assert_eq!(cluster.copies("new", &new), 2);
    for id in [0, 1] {
        cluster.daemons[id].kill();
    }
    // Alone it serves what it holds, as it was.
    assert_eq!(cluster.get(2, "old"), old);
    assert!(
        cluster.daemons[2].logged().contains("is read-only"),
        "{}",
        cluster.tails()
    );
    cluster.daemons[2].kill();
    drop(mounted);
}

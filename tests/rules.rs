//! The rules of DESIGN.md on real daemons, each test named by its rule; what single doors and uploads owe is tested elsewhere.

mod harness;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use harness::momo::{CONSTANT, Upload, read_digit};
use harness::text::{Text, put_head};
use harness::{Cluster, Daemon, PATIENCE, Shape, content, dial, hex, md5_hex, until_close};
use rustix::process::Signal;
use sha2::Digest;

fn shape(extra: &str) -> Shape {
    Shape {
        extra: extra.to_owned(),
        ..Shape::default()
    }
}

/// A `FILE PUT` that must succeed, tried again while the cluster is between leaders.
fn put(cluster: &Cluster, id: usize, name: &str, keys: &str, body: &[u8]) {
    let start = Instant::now();
    loop {
        let answer = cluster.daemons[id]
            .text()
            .and_then(|mut text| text.put(name, keys, body));
        if matches!(answer, Ok(Ok(_))) {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "FILE PUT {name} at {id}: {answer:?}\n{}",
            cluster.tails()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// One `FILE GET`, not tried again.
fn get_once(cluster: &Cluster, id: usize, name: &str) -> Result<Vec<u8>, String> {
    let answer = cluster.daemons[id]
        .text()
        .and_then(|mut text| text.get(name));
    answer.unwrap_or_else(|error| Err(format!("broken off: {error}")))
}

/// Where a daemon keeps an object of these bytes.
fn object(daemon: &Daemon, bytes: &[u8]) -> PathBuf {
    let sha256 = hex(&sha2::Sha256::digest(bytes));
    let objects = daemon.data.join(".momo/objects");
    objects.join(&sha256[..2]).join(sha256)
}

/// Changes one byte of a file, as a failing disk does.
fn flip(path: &Path, offset: u64) {
    let mode = fs::metadata(path).expect("a file").permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("writable");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[!byte[0]], offset).expect("a bad byte");
    file.sync_all().expect("on disk");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("as before");
}

/// How often a daemon has logged `event`.
fn logged(daemon: &Daemon, event: &str) -> usize {
    daemon.logged().matches(event).count()
}

#[test]
fn r1_what_is_acknowledged_through_one_daemon_is_seen_at_once_through_every_other() {
    let cluster = Cluster::three();
    let mut doors: Vec<Text> = cluster
        .daemons
        .iter()
        .map(|daemon| daemon.text().expect("a text door"))
        .collect();
    for round in 0..60_usize {
        let name = format!("fresh-{}", round % 7);
        let body = content(round as u64, 100 + round);
        let kept = doors[round % 3].put(&name, "", &body).expect("an answer");
        assert!(kept.is_ok(), "{kept:?}");
        for (id, door) in doors.iter_mut().enumerate() {
            let read = door.get(&name).expect("an answer");
            assert_eq!(read.as_ref(), Ok(&body), "round {round} through {id}");
        }
        if round % 5 == 4 {
            let answer = doors[(round + 1) % 3].ask(&format!("FILE DELETE {name}"));
            assert!(answer.expect("an answer").starts_with("OK"));
            for door in &mut doors {
                let read = door.get(&name).expect("an answer");
                assert!(read.is_err_and(|why| why.contains("not found")));
            }
        }
    }
}

#[test]
fn r2_a_name_whose_newest_version_is_out_of_reach_is_unavailable_and_not_its_older_self() {
    let mut cluster = Cluster::three();
    let (old, new) = (content(1, 50_000), content(2, 60_000));
    put(&cluster, 0, "newest", "strategy=splay", &old);
    put(&cluster, 2, "newest", "strategy=none", &new);
    assert_eq!(cluster.get(0, "newest"), new);
    cluster.daemons[2].kill();
    cluster.eventually("it is said that no copy is within reach", |cluster| {
        let read = get_once(cluster, 0, "newest");
        assert_ne!(read.as_ref(), Ok(&old), "an older version in its place");
        read.is_err_and(|why| why.contains("within reach"))
    });
    // A whole new one may be put over it.
    let newer = content(3, 70_000);
    put(&cluster, 1, "newest", "", &newer);
    assert_eq!(cluster.get(0, "newest"), newer);
    cluster.daemons[2].start();
    cluster.wait_serving(2);
    assert_eq!(cluster.get(2, "newest"), newer);
}

#[test]
fn r5_and_r6_garbage_goes_everywhere_and_takes_nothing_with_it_that_is_put_again_meanwhile() {
    let cluster = Cluster::start(&shape(
        "[write]\nhop_stall=1000\nleg_wait=1000\ndeadline=2500\n\n[gc]\ngrace=2500\n\n",
    ));
    let garbage = content(10, 40_000);
    put(&cluster, 0, "garbage", "", &garbage);
    // An upload that breaks off, and one whose digest is wrong, leave nothing either.
    let broken = content(11, 600_000);
    let mut stream = dial(cluster.daemons[1].host).expect("a connection");
    stream.write_all(CONSTANT.as_bytes()).expect("timestamp");
    read_digit(&mut stream).expect("digit");
    let upload = Upload::of("broken", &broken);
    stream.write_all(&upload.metadata()).expect("metadata");
    stream.write_all(&broken[..400_000]).expect("a part");
    drop(stream);
    let mut text = cluster.daemons[2].text().expect("a text door");
    let wrong = format!("sha256={}", "0".repeat(64));
    assert!(text.put("wrong", &wrong, &broken).unwrap().is_err());

    let busy = content(12, 30_000);
    let until = Instant::now() + Duration::from_secs(10);
    let mut round = 0_usize;
    while Instant::now() < until {
        let name = format!("busy-{}", round % 3);
        let mut text = cluster.daemons[round % 3].text().expect("a text door");
        let kept = text.put(&name, "", &busy).expect("an answer");
        assert!(kept.is_ok(), "{kept:?}\n{}", cluster.tails());
        assert_eq!(get_once(&cluster, (round + 1) % 3, &name), Ok(busy.clone()));
        let answer = text.ask(&format!("FILE DELETE {name}")).expect("an answer");
        assert!(answer.starts_with("OK"), "{answer}");
        // So that the grace period ends at any moment of the next one.
        thread::sleep(Duration::from_millis(270 * (round as u64 % 11)));
        round += 1;
    }
    put(&cluster, 0, "busy", "", &busy);
    let mut text = cluster.daemons[0].text().expect("a text door");
    assert!(text.ask("FILE DELETE garbage").unwrap().starts_with("OK"));
    cluster.eventually("the garbage is gone", |cluster| {
        cluster.durable(&garbage) == 0 && cluster.durable(&broken) == 0
    });
    cluster.eventually("three copies", |cluster| cluster.durable(&busy) == 3);
    for id in 0..3 {
        assert_eq!(cluster.get(id, "busy"), busy);
    }
    cluster.assert_clean(&["busy"]);
}

#[test]
fn r7_bytes_that_lie_there_already_are_never_counted_in_place_of_those_that_came() {
    let cluster = Cluster::three();
    let body = content(20, 300_000);
    put(&cluster, 0, "first", "", &body);
    for daemon in &cluster.daemons {
        flip(&object(daemon, &body), 1_000);
    }
    assert_eq!(cluster.durable(&body), 0);
    put(&cluster, 1, "second", "", &body);
    assert_eq!(cluster.durable(&body), 3, "{}", cluster.tails());
    assert_eq!(cluster.get(2, "first"), body);
}

#[test]
fn r9_a_disk_that_comes_back_empty_counts_for_nothing_and_is_filled_again() {
    let root = tempfile::tempdir().expect("a folder");
    let disks = [root.path().join("disk-a"), root.path().join("disk-b")];
    let both = format!("{},{}", disks[0].display(), disks[1].display());
    let mut cluster = Cluster::start(&Shape {
        data: vec![(1, PathBuf::from(both))],
        ..Shape::default()
    });
    let bodies: Vec<Vec<u8>> = (0..12).map(|seed| content(30 + seed, 20_000)).collect();
    let at_one = |body: &[u8]| {
        let sha256 = hex(&sha2::Sha256::digest(body));
        let lies = |disk: &PathBuf| {
            let objects = disk.join(".momo/objects").join(&sha256[..2]);
            fs::read(objects.join(&sha256)).is_ok_and(|found| found == body)
        };
        disks.iter().any(lies)
    };
    for (number, body) in bodies.iter().enumerate() {
        put(&cluster, 0, &format!("disk-{number}"), "", body);
        assert!(at_one(body));
    }
    // Whichever of the two took them; the state stays with the first.
    cluster.daemons[1].kill();
    for first in 0..=255_u8 {
        for disk in &disks {
            let folder = disk.join(format!(".momo/objects/{first:02x}"));
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                fs::remove_file(entry.path()).expect("emptied");
            }
        }
    }
    fs::remove_dir_all(&disks[1]).expect("an emptied disk");
    cluster.daemons[1].start();
    cluster.eventually("every copy is made again", |_| {
        bodies.iter().all(|body| at_one(body))
    });
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(&cluster.get(1, &format!("disk-{number}")), body);
    }
}

#[test]
fn r11_a_hop_that_hangs_is_left_out_and_the_next_upload_does_not_wait_for_it() {
    let cluster = Cluster::start(&shape("[write]\nhop_stall=1500\n\n"));
    for (mode, hung) in [(1_u8, 2_usize), (1, 1), (2, 2)] {
        cluster.set_mode(mode);
        let body = content(40 + u64::from(mode) + 10 * hung as u64, 48 << 20);
        let name = format!("hung-{mode}-{hung}");
        let upload = Upload::of(&name, &body);
        let mut stream = dial(cluster.daemons[0].host).expect("a connection");
        stream.write_all(CONSTANT.as_bytes()).expect("timestamp");
        assert!(read_digit(&mut stream).expect("digit").is_some());
        let bytes = [upload.metadata(), upload.content()].concat();
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        stream.write_all(half).expect("the first half");
        cluster.daemons[hung].signal(Signal::STOP);
        let stopped = Instant::now();
        let _ = stream.write_all(rest);
        let answer = until_close(&mut stream).expect("an answer");
        let took = stopped.elapsed();
        // The next finds out nothing anew.
        let small = content(50 + u64::from(mode) + 10 * hung as u64, 10_000);
        let next = Instant::now();
        let after = Upload::of(&format!("{name}-after"), &small).send(cluster.daemons[0].host);
        let next = next.elapsed();
        let durable = cluster.durable(&body);
        cluster.daemons[hung].signal(Signal::CONT);
        assert_eq!(answer, b"ACK0", "{name}\n{}", cluster.tails());
        assert!(took < Duration::from_secs(12), "{name} took {took:?}");
        assert!(
            durable >= 2,
            "{name}: {durable} copies\n{}",
            cluster.tails()
        );
        let after = after.expect("an answer").acknowledged_by();
        assert_eq!(after, Some(0), "{name}\n{}", cluster.tails());
        assert!(
            next < Duration::from_secs(5),
            "{name}: the next took {next:?}"
        );
        cluster.eventually("three copies", |cluster| {
            cluster.durable(&body) == 3 && cluster.durable(&small) == 3
        });
        cluster.wait_ready();
    }
}

#[test]
fn r13_a_wiped_voter_has_no_say_and_forgets_no_second_time() {
    let mut cluster = Cluster::start(&shape("[write]\ndeadline=5000\n\n"));
    let body = content(60, 30_000);
    put(&cluster, 0, "before", "", &body);
    cluster.daemons[1].kill();
    cluster.daemons[2].kill();
    fs::remove_dir_all(&cluster.daemons[1].data).expect("an emptied disk");
    cluster.daemons[1].start();
    // One that remembers and one that does not are no majority of three.
    let mut text = cluster.daemons[0].text().expect("a text door");
    let kept = text.put("meanwhile", "", b"no").expect("an answer");
    assert!(kept.is_err(), "{kept:?}");
    cluster.daemons[2].start();
    cluster.eventually("it is filled again", |cluster| cluster.durable(&body) == 3);
    cluster.wait_ready();
    let more = content(61, 30_000);
    put(&cluster, 1, "after", "", &more);

    // What it has taken in since, it keeps over its next starts: log, vote and all.
    cluster.eventually("it votes again", |cluster| {
        logged(&cluster.daemons[1], "admitted") == 1
            && cluster.daemons[0]
                .text()
                .and_then(|mut text| text.ask_lines("STATUS JSON"))
                .is_ok_and(|lines| lines.concat().matches("\"voter\"").count() == 2)
    });
    for _ in 0..2 {
        cluster.daemons[1].kill();
        cluster.daemons[1].start();
        cluster.wait_serving(1);
    }
    assert_eq!(
        logged(&cluster.daemons[1], "admitted"),
        1,
        "{}",
        cluster.tails()
    );
    cluster.daemons[0].kill();
    put(&cluster, 1, "without-0", "", &more);
    assert_eq!(cluster.get(1, "before"), body);
    assert_eq!(cluster.get(2, "without-0"), more);
}

#[test]
fn r13_most_voters_wiped_is_no_first_start_and_they_say_what_they_wait_for() {
    let mut cluster = Cluster::start(&shape(""));
    for id in [0, 1] {
        cluster.daemons[id].kill();
        fs::remove_dir_all(&cluster.daemons[id].data).expect("an emptied disk");
        cluster.daemons[id].start();
    }
    let says = |cluster: &Cluster, id: usize, words: &str| {
        let status = cluster.daemons[id].text();
        let status = status.and_then(|mut text| text.ask_lines("STATUS JSON"));
        status.is_ok_and(|lines| lines.iter().any(|line| line.contains(words)))
    };
    for id in [0, 1] {
        cluster.eventually("it says whom it waits for", |cluster| {
            says(cluster, id, "nothing is remembered here, a cluster is by 2")
        });
    }
    // The one that remembers does not follow a leader that is gone for longer than it takes to notice.
    cluster.eventually("no daemon says that it is ready", |cluster| {
        ![0, 1, 2]
            .iter()
            .any(|id| says(cluster, *id, "\"state\":\"ready\""))
    });
}

#[test]
fn r15_damage_in_the_middle_of_the_log_makes_a_wiped_voter_of_its_node() {
    let mut cluster = Cluster::three();
    let bodies: Vec<Vec<u8>> = (0..20).map(|seed| content(70 + seed, 5_000)).collect();
    for (number, body) in bodies.iter().enumerate() {
        put(&cluster, 0, &format!("log-{number}"), "", body);
    }
    cluster.daemons[2].kill();
    let log = cluster.daemons[2].data.join(".momo/state/log");
    let mut segments: Vec<PathBuf> = fs::read_dir(&log)
        .expect("the log")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let mut bytes = Vec::new();
            fs::File::open(path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .is_ok_and(|_| bytes.iter().take(4_096).any(|byte| *byte != 0))
        })
        .collect();
    segments.sort();
    flip(segments.first().expect("a segment"), 600);
    cluster.daemons[2].start();
    cluster.eventually("it is taken in again", |cluster| {
        logged(&cluster.daemons[2], "admitted") == 1
    });
    cluster.wait_ready();
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(&cluster.get(2, &format!("log-{number}")), body);
    }
    cluster.eventually("three copies of everything", |cluster| {
        bodies.iter().all(|body| cluster.durable(body) == 3)
    });
}

#[test]
fn r17_a_bad_copy_is_passed_over_made_again_and_never_passed_off_as_right() {
    let cluster = Cluster::three();
    let body = content(80, 2 << 20);
    put(&cluster, 0, "flipped", "strategy=splay", &body);
    for (id, offset) in [(0, 0), (1, 1_500_000), (2, (2 << 20) - 1)] {
        flip(&object(&cluster.daemons[id], &body), offset);
        assert_eq!(
            get_once(&cluster, id, "flipped"),
            Ok(body.clone()),
            "at {id}"
        );
        cluster.eventually("the bad copy is made again", |cluster| {
            cluster.durable(&body) == 3
        });
    }
    // Alone there is nothing to go to: loud, and not one wrong byte.
    let single = content(81, 2 << 20);
    put(&cluster, 1, "single", "strategy=none", &single);
    flip(&object(&cluster.daemons[1], &single), 1_000_000);
    for id in 0..3 {
        let mut text = cluster.daemons[id].text().expect("a text door");
        text.send(b"FILE GET single\n").expect("sent");
        if text.line().is_ok_and(|line| line.starts_with("OK")) {
            let _ = text.socket().set_read_timeout(Some(PATIENCE));
            let mut read = Vec::new();
            let mut block = [0; 4_096];
            while let Ok(count @ 1..) = text.socket().read(&mut block) {
                read.extend_from_slice(&block[..count]);
            }
            assert!(
                read.len() < single.len(),
                "a wrong byte passed for a right one"
            );
        }
    }
    cluster.assert_alive();
}

#[test]
fn r20_strangers_learn_nothing_and_take_no_slot_that_peers_need() {
    let mut cluster = Cluster::start(&shape("[server]\nslots=130\n\n"));
    let magic = b"\x01momo-p1";
    for tail in [&b""[..], &[0xff; 200], &[1; 61], &[0; 53]] {
        let mut stream = dial(cluster.daemons[0].host).expect("a connection");
        stream
            .write_all(&[&magic[..], tail].concat())
            .expect("sent");
        if tail == [1; 61] {
            // It names itself and proves that it knows the secret; then it is our turn, and we do not.
            let mut answer = [0; 82];
            stream.read_exact(&mut answer).expect("its answer");
            let _ = stream.write_all(&[7; 32]);
            assert_eq!(until_close(&mut stream).expect("a close"), b"");
        }
    }
    cluster.assert_alive();

    // Every slot is taken, some by strangers that pretend, when a daemon comes back.
    cluster.daemons[1].kill();
    let mut strangers = Vec::new();
    for number in 0..200 {
        let Ok(mut stream) = dial(cluster.daemons[0].host) else {
            continue;
        };
        if number % 2 == 0 {
            let _ = stream.write_all(b"FILE PUT 1000000 -- slow\n");
        } else if number % 3 == 0 {
            let _ = stream.write_all(&magic[..5]);
        }
        strangers.push(stream);
    }
    cluster.daemons[1].start();
    cluster.wait_serving(1);
    let body = content(90, 10_000);
    put(&cluster, 1, "served", "", &body);
    cluster.eventually("the copy at the crowded daemon", |cluster| {
        cluster.daemons[0].holds(&body)
    });
    drop(strangers);
    cluster.wait_ready();
}

#[test]
fn r20_connections_for_bytes_are_opened_in_bounded_numbers() {
    const SLOW: usize = 80;
    const BOUND: usize = 64;
    let cluster = Cluster::three();
    let threads = |id: usize| {
        let tasks = format!("/proc/{}/task", cluster.daemons[id].pid());
        fs::read_dir(tasks).expect("its threads").count()
    };
    let idle = threads(1);
    let body = content(91, 600_000);
    let mut slow: Vec<TcpStream> = (0..SLOW)
        .map(|number| {
            let mut stream = dial(cluster.daemons[0].host).expect("a connection");
            let head = put_head(&format!("slow-{number}"), "", body.len() as u64);
            stream.write_all(head.as_bytes()).expect("a head");
            stream.write_all(&body[..300_000]).expect("half a body");
            stream
        })
        .collect();
    // Those beyond the bound wait for a while and are told, in their door's words and with nothing kept.
    let mut refused = Vec::new();
    cluster.eventually("the bound is said", |_| {
        slow.retain_mut(|stream| {
            let mut line = [0; 4];
            stream.set_nonblocking(true).expect("a socket");
            let told = stream.peek(&mut line).is_ok_and(|count| count > 0);
            stream.set_nonblocking(false).expect("a socket");
            if told {
                let mut answer = [0; 200];
                let length = stream.read(&mut answer).expect("an answer");
                refused.push(String::from_utf8_lossy(&answer[..length]).into_owned());
            }
            !told
        });
        refused.len() >= SLOW - BOUND
    });
    assert!(
        refused.iter().all(|a| a.contains("too many transfers")),
        "{refused:?}"
    );
    assert_eq!(slow.len(), BOUND);
    let more = threads(1) - idle;
    assert!(more <= BOUND + 8, "{more} threads more at a neighbour");
    for stream in &mut slow {
        stream
            .write_all(&body[300_000..])
            .expect("the rest of the body");
    }
    for mut stream in slow {
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"OK ");
    }
    put(&cluster, 0, "after", "", &body);
}

#[test]
fn r20_a_daemon_with_another_secret_is_not_let_in() {
    let mut cluster = Cluster::prepare(&Shape::default());
    let secret = cluster.folder().join("momo.secret");
    let write = |text: &str| {
        fs::write(&secret, text).expect("a secret");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("closed");
    };
    write("the secret of this cluster");
    cluster.daemons[0].start();
    cluster.daemons[1].start();
    cluster.eventually("the secret is read", |cluster| {
        [0, 1]
            .iter()
            .all(|id| cluster.daemons[*id].logged().contains("listens"))
    });
    write("another secret altogether");
    cluster.daemons[2].start();
    cluster.eventually("it is refused, and that is said", |cluster| {
        cluster.daemons[0].logged().contains("secret")
            && cluster.daemons[2].logged().contains("secret")
    });
    cluster.daemons[2].kill();
    write("the secret of this cluster");
    cluster.daemons[2].start();
    cluster.wait_ready();
}

#[test]
fn r21_the_text_door_changes_nothing_where_the_operator_says_so() {
    let cluster = Cluster::start(&shape("[server]\ntext_admin=off\n\n"));
    put(&cluster, 0, "stays", "", b"here");
    let mut text = cluster.daemons[1].text().expect("a text door");
    for command in ["FILE DELETE stays", "MODE 1"] {
        let answer = text.ask(command).expect("an answer");
        assert!(answer.starts_with("ERR"), "{command}: {answer}");
    }
    assert_eq!(cluster.get(2, "stays"), b"here");
}

#[test]
fn r22_a_leg_whose_daemon_0_is_dead_or_hangs_becomes_a_put_of_its_own() {
    let mut cluster = Cluster::start(&Shape {
        order: "3,2".to_owned(),
        extra: "[write]\nleg_wait=1000\nhop_stall=1000\n\n".to_owned(),
        ..Shape::default()
    });
    let upload = |cluster: &Cluster, id: usize, name: &str, body: &[u8]| {
        let start = Instant::now();
        loop {
            let answer = Upload::of(name, body).send(cluster.daemons[id].host);
            if answer
                .as_ref()
                .is_ok_and(|a| a.acknowledged_by() == Some(id))
            {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{name}: {answer:?}\n{}",
                cluster.tails()
            );
            thread::sleep(Duration::from_millis(50));
        }
    };
    // Wrong bytes that nobody claims: their MD5 is this daemon's to compare.
    let wrong = Upload {
        md5: md5_hex(b"something else").into_bytes(),
        ..Upload::of("wrong", &content(99, 400_000))
    };
    let answer = wrong.send(cluster.daemons[2].host).expect("an answer");
    assert_eq!(answer.acknowledged_by(), None, "{answer:?}");
    assert_eq!(cluster.daemons[2].visible("wrong"), None);
    // A client that talks to one daemon alone: nobody claims the leg.
    let alone = content(100, 400_000);
    upload(&cluster, 2, "alone", &alone);
    assert!(cluster.durable(&alone) >= 2);

    cluster.daemons[0].signal(Signal::STOP);
    let hung = content(101, 400_000);
    upload(&cluster, 1, "hung", &hung);
    let copies = cluster.durable(&hung);
    cluster.daemons[0].signal(Signal::CONT);
    assert!(copies >= 2, "{copies} copies\n{}", cluster.tails());
    cluster.wait_ready();

    cluster.daemons[0].kill();
    let dead = content(102, 400_000);
    thread::scope(|scope| {
        for id in 1..3 {
            let (cluster, dead) = (&cluster, &dead);
            scope.spawn(move || upload(cluster, id, "dead", dead));
        }
    });
    assert_eq!(cluster.durable(&dead), 2, "{}", cluster.tails());
    assert_eq!(cluster.get(1, "dead"), dead);
    cluster.daemons[0].start();
    cluster.eventually("its own copy", |cluster| cluster.durable(&dead) == 3);
}

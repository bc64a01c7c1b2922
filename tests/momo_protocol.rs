//! The Momo protocol in raw bytes: what a good upload gets, however it is cut, and what bad input gets.
//!
//! Every bad upload goes to a name that already has a good version; afterwards that version is still read through another daemon,
//! nothing is left over, every daemon lives, and one line of the log says who was refused and why.

mod harness;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::momo::{CONSTANT, Padding, Pieces, Upload, field, read_digit};
use harness::mount::Mount;
use harness::{Cluster, PATIENCE, Shape, content, dial, eventually, has, md5_hex, until_close};

/// Time after which the daemons of these tests give up on a read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// One cluster for all tests of this binary that do not need one of their own; it ends with the last of them.
fn shared() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = match SHARED.lock() {
        Ok(shared) => shared,
        Err(poisoned) => poisoned.into_inner(),
    };
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Cluster::start(&Shape {
        debug: false,
        extra: format!(
            "[server]\nread_timeout={0}\nidle_timeout={0}\nmax_file_bytes=9000000000000000000\n\n",
            READ_TIMEOUT.as_millis()
        ),
        ..Shape::default()
    }));
    *shared = Arc::downgrade(&cluster);
    cluster
}

/// A good version under a name, which bad uploads must not disturb.
fn keep(cluster: &Cluster, name: &str) -> Vec<u8> {
    let body = content(1_000 + name.len() as u64, 3_000);
    let answer = Upload::of(name, &body)
        .send(cluster.daemons[0].host)
        .expect("a good upload");
    assert_eq!(
        answer.acknowledged_by(),
        Some(0),
        "{name}: {answer:?}\n{}",
        cluster.tails()
    );
    body
}

/// The lines of a daemon's log that name this client.
fn lines_about(cluster: &Cluster, id: usize, client: SocketAddr) -> Vec<String> {
    let client = client.to_string();
    cluster.daemons[id]
        .logged()
        .lines()
        .filter(|line| line.contains(&client))
        .map(str::to_owned)
        .collect()
}

/// One line says who and why; any of `why` will do.
fn assert_logged(cluster: &Cluster, client: SocketAddr, why: &[&str]) {
    cluster.eventually(
        &format!("a line about {client} with one of {why:?}"),
        |cluster| {
            lines_about(cluster, 0, client)
                .iter()
                .any(|line| says(line, why))
        },
    );
    let lines = lines_about(cluster, 0, client);
    assert_eq!(lines.len(), 1, "one line is enough: {lines:#?}");
}

fn says(line: &str, why: &[&str]) -> bool {
    let line = line.to_lowercase();
    why.iter().any(|word| line.contains(&word.to_lowercase()))
}

/// Sends a bad upload and looks at everything that must hold afterwards.
fn assert_refused(cluster: &Cluster, upload: &Upload, kept: (&str, &[u8]), why: &[&str]) {
    let mut stream = dial(cluster.daemons[0].host).expect("a connection");
    let client = stream.local_addr().expect("own address");
    let start = Instant::now();
    let answer = upload.send_on(&mut stream).unwrap_or_else(|error| {
        panic!("{why:?}: no close: {error}\n{}", cluster.tails());
    });
    assert!(
        answer.rest.is_empty(),
        "{why:?}: closed without a word, not {answer:?}\n{}",
        cluster.tails()
    );
    assert!(start.elapsed() < PATIENCE / 2, "{why:?}: refused at once");
    assert_undisturbed(cluster, client, kept, why);
}

fn assert_undisturbed(
    cluster: &Cluster,
    client: SocketAddr,
    (name, body): (&str, &[u8]),
    why: &[&str],
) {
    assert_logged(cluster, client, why);
    assert_eq!(cluster.get(1, name), body, "{why:?}: the old version");
    cluster.eventually("the old copies, visible", |cluster| {
        cluster.copies(name, body) == 3
    });
    cluster.eventually("no temporaries", |cluster| {
        cluster
            .daemons
            .iter()
            .all(|daemon| daemon.temporaries().is_empty())
    });
    cluster.assert_alive();
}

fn not_found(cluster: &Cluster, name: &str) {
    let answer = cluster.daemons[1]
        .text()
        .and_then(|mut text| text.get(name))
        .expect("an answer");
    assert!(answer.is_err(), "{name} must not exist");
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a clock after 1970").as_nanos()).expect("a clock before 2554")
}

#[test]
fn an_upload_is_kept_however_it_is_cut_and_padded() {
    let cluster = shared();
    let mut number = 0_usize;
    for bytes in [1, 6, 1023, 1024, 1025, 5_000] {
        for padding in [Padding::Zeros, Padding::Stale, Padding::None] {
            for pieces in [Pieces::Whole, Pieces::Fields, Pieces::Of(1), Pieces::Of(7)] {
                number += 1;
                if matches!(pieces, Pieces::Of(_)) && bytes > 1025 {
                    continue;
                }
                let name = format!("cut-{number}.bin");
                let body = content(number as u64, bytes);
                let upload = Upload {
                    padding,
                    pieces,
                    ..Upload::of(&name, &body)
                };
                let answer = upload.send(cluster.daemons[0].host).expect("an answer");
                assert_eq!(
                    answer.rest,
                    b"ACK0",
                    "{bytes} bytes, {padding:?}, {pieces:?}\n{}",
                    cluster.tails()
                );
                assert_eq!(answer.mode, Some(b'2'));
                assert_eq!(cluster.durable(&body), 3, "{name}");
                assert_eq!(cluster.get(number % 3, &name), body);
            }
        }
    }
    cluster.assert_alive();
}

#[test]
fn the_example_of_the_specification_is_answered_byte_for_byte() {
    let cluster = shared();
    let mut stream = dial(cluster.daemons[0].host).expect("a connection");
    stream.write_all(CONSTANT.as_bytes()).expect("timestamp");
    assert_eq!(read_digit(&mut stream).expect("digit"), Some(b'2'));
    let mut bytes = b"b1946ac92492d2347c6235b4d2611184demo.txt".to_vec();
    bytes.extend_from_slice(&[b':'; 56]);
    bytes.push(b'6');
    bytes.extend_from_slice(&[b':'; 63]);
    bytes.extend_from_slice(b"hello\n");
    bytes.extend_from_slice(&[0; 1018]);
    stream.write_all(&bytes).expect("metadata and content");
    assert_eq!(until_close(&mut stream).expect("an answer"), b"ACK0");
    assert_eq!(cluster.get(2, "demo.txt"), b"hello\n");
}

#[test]
fn an_empty_file_is_179_bytes_and_a_file() {
    let cluster = shared();
    let upload = Upload::of("empty.bin", b"");
    assert_eq!(upload.metadata().len() + upload.timestamp.len(), 179);
    assert!(upload.content().is_empty());
    let answer = upload.send(cluster.daemons[0].host).expect("an answer");
    assert_eq!(answer.rest, b"ACK0", "{}", cluster.tails());
    assert_eq!(cluster.get(1, "empty.bin"), b"");
    cluster.eventually("an empty file on all disks", |cluster| {
        cluster.copies("empty.bin", b"") == 3
    });
}

#[test]
fn a_name_may_fill_its_field_and_hold_what_is_not_forbidden() {
    let cluster = shared();
    let full = "f".repeat(64);
    for name in [
        full.as_str(),
        "a b.txt",
        "ünïcode.txt",
        "-dash",
        ".hidden",
        "in:side",
        "...",
    ] {
        let body = content(name.len() as u64, 100);
        let answer = Upload::of(name, &body)
            .send(cluster.daemons[0].host)
            .expect("an answer");
        assert_eq!(answer.rest, b"ACK0", "{name}\n{}", cluster.tails());
        assert_eq!(cluster.get(1, name), body, "{name}");
    }
}

#[test]
fn what_comes_after_the_file_is_drained_and_does_not_cost_the_acknowledgement() {
    let cluster = shared();
    let body = content(77, 2_000);
    let mut upload = Upload::of("more.bin", &body);
    let mut stream = dial(cluster.daemons[0].host).expect("a connection");
    stream.write_all(&upload.timestamp).expect("timestamp");
    assert!(read_digit(&mut stream).expect("digit").is_some());
    upload.padding = Padding::Stale;
    let mut bytes = [upload.metadata(), upload.content()].concat();
    bytes.resize(bytes.len() + 20_000, b'~');
    stream.write_all(&bytes).expect("all of it");
    assert_eq!(until_close(&mut stream).expect("an answer"), b"ACK0");
    assert_eq!(cluster.get(1, "more.bin"), body);
}

#[test]
fn a_new_upload_of_a_name_replaces_it_whole_everywhere() {
    let cluster = shared();
    let mut last = Vec::new();
    for version in 0..5 {
        last = content(
            500 + version,
            10_000 + usize::try_from(version).unwrap_or(0),
        );
        let answer = Upload::of("again.bin", &last)
            .send(cluster.daemons[0].host)
            .expect("an answer");
        assert_eq!(answer.rest, b"ACK0");
        for id in 0..3 {
            assert_eq!(
                cluster.get(id, "again.bin"),
                last,
                "version {version} at {id}"
            );
        }
    }
    cluster.eventually("the new bytes on all disks", |cluster| {
        cluster.copies("again.bin", &last) == 3
    });
}

#[test]
fn a_wrong_md5_is_refused() {
    let cluster = shared();
    let old = keep(&cluster, "md5.bin");
    let new = content(9, 4_000);
    for md5 in [
        md5_hex(b"something else").into_bytes(),
        vec![b'z'; 32],
        vec![0; 32],
    ] {
        let upload = Upload {
            md5,
            ..Upload::of("md5.bin", &new)
        };
        assert_refused(&cluster, &upload, ("md5.bin", &old), &["md5"]);
    }
}

#[test]
fn a_short_body_is_refused_wherever_it_ends() {
    let cluster = shared();
    let old = keep(&cluster, "short.bin");
    let new = content(10, 300_000);
    for bytes in [0, 1, 1024, 150_000, 299_999] {
        let mut stream = dial(cluster.daemons[0].host).expect("a connection");
        let client = stream.local_addr().expect("own address");
        let upload = Upload::of("short.bin", &new);
        stream.write_all(&upload.timestamp).expect("timestamp");
        assert!(read_digit(&mut stream).expect("digit").is_some());
        stream.write_all(&upload.metadata()).expect("metadata");
        stream.write_all(&new[..bytes]).expect("a part");
        stream.shutdown(Shutdown::Write).expect("the end");
        assert_eq!(until_close(&mut stream).expect("a close"), b"");
        assert_undisturbed(
            &cluster,
            client,
            ("short.bin", &old),
            &["short", "ended", "end of", "body", "closed"],
        );
    }
}

#[test]
fn a_header_that_ends_early_is_refused_wherever_it_ends() {
    let cluster = shared();
    let old = keep(&cluster, "head.bin");
    let upload = Upload::of("head.bin", &content(11, 100));
    for bytes in [0, 1, 31, 32, 95, 96, 159] {
        let mut stream = dial(cluster.daemons[0].host).expect("a connection");
        let client = stream.local_addr().expect("own address");
        stream.write_all(&upload.timestamp).expect("timestamp");
        assert!(read_digit(&mut stream).expect("digit").is_some());
        stream
            .write_all(&upload.metadata()[..bytes])
            .expect("a part");
        stream.shutdown(Shutdown::Write).expect("the end");
        assert_eq!(until_close(&mut stream).expect("a close"), b"");
        assert_undisturbed(
            &cluster,
            client,
            ("head.bin", &old),
            &["short", "ended", "end of", "metadata", "header", "closed"],
        );
    }
}

#[test]
fn names_that_would_leave_the_directory_or_confuse_a_terminal_are_refused() {
    let cluster = shared();
    let old = keep(&cluster, "names.bin");
    let outside = cluster.folder().join("escaped");
    let names: Vec<Vec<u8>> = vec![
        b"../escaped".to_vec(),
        b"a/b".to_vec(),
        b"/etc/passwd".to_vec(),
        b".".to_vec(),
        b"..".to_vec(),
        b"nul\0inside".to_vec(),
        b"line\nbreak".to_vec(),
        b"esc\x1b[31m".to_vec(),
        b"del\x7f".to_vec(),
        b"".to_vec(),
        b"\xff\xfe not utf-8".to_vec(),
        b".momo".to_vec(),
        b"x.part-001-of-003".to_vec(),
    ];
    for name in names {
        let upload = Upload {
            name: field(&name),
            ..Upload::of("names.bin", &content(12, 100))
        };
        assert_refused(&cluster, &upload, ("names.bin", &old), &["name", "path"]);
    }
    assert!(!outside.exists(), "a name left the directory");
    for daemon in &cluster.daemons {
        assert!(!daemon.data.join("a").exists());
        assert!(!daemon.data.join("escaped").exists());
    }
}

#[test]
fn sizes_that_are_no_numbers_or_lies_are_refused_without_waiting_or_allocating() {
    let cluster = shared();
    let old = keep(&cluster, "sizes.bin");
    for size in [
        "+5",
        "-5",
        "5 ",
        " 5",
        "five",
        "0x5",
        "5.0",
        "",
        "9999999999999999999",
        "99999999999999999999999999999999",
        "5:5",
        "\0",
    ] {
        let upload = Upload {
            size: field(size.as_bytes()),
            ..Upload::of("sizes.bin", &content(13, 5))
        };
        assert_refused(
            &cluster,
            &upload,
            ("sizes.bin", &old),
            &["size", "large", "room", "space"],
        );
    }
    // A believable number of digits, and no bytes to speak of: refused for want of room, or when the body ends.
    let mut stream = dial(cluster.daemons[0].host).expect("a connection");
    let client = stream.local_addr().expect("own address");
    let upload = Upload {
        size: field(b"9000000000000000000"),
        ..Upload::of("sizes.bin", &content(14, 5))
    };
    stream.write_all(&upload.timestamp).expect("timestamp");
    assert!(read_digit(&mut stream).expect("digit").is_some());
    stream.write_all(&upload.metadata()).expect("metadata");
    let _ = stream.write_all(&content(14, 100_000));
    let _ = stream.shutdown(Shutdown::Write);
    assert_eq!(until_close(&mut stream).expect("a close"), b"");
    assert_undisturbed(
        &cluster,
        client,
        ("sizes.bin", &old),
        &["size", "room", "space", "short", "ended", "end of", "body"],
    );
    for daemon in &cluster.daemons {
        let peak = memory_peak_mib(daemon.pid());
        assert!(peak < 200, "daemon {} used {peak} MiB", daemon.id);
    }
}

fn memory_peak_mib(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

#[test]
fn first_bytes_of_no_protocol_are_refused() {
    let cluster = shared();
    let old = keep(&cluster, "first.bin");
    for first in [
        &b"155790692656645119x"[..],
        b"+557906926566451195",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = dial(cluster.daemons[0].host).expect("a connection");
        stream.write_all(first).expect("first bytes");
        let _ = stream.shutdown(Shutdown::Write);
        let answer = until_close(&mut stream).expect("a close");
        assert!(!answer.starts_with(b"ACK"), "{first:?}: {answer:?}");
        assert!(
            !matches!(answer.first(), Some(b'0'..=b'3')),
            "{first:?}: {answer:?}"
        );
    }
    assert_eq!(cluster.get(1, "first.bin"), old);
    cluster.assert_alive();
}

#[test]
fn connecting_and_closing_harms_nobody() {
    let cluster = shared();
    let old = keep(&cluster, "close.bin");
    for _ in 0..100 {
        drop(dial(cluster.daemons[0].host).expect("a connection"));
        drop(dial(cluster.daemons[0].change).expect("a connection"));
    }
    for _ in 0..20 {
        let mut stream = dial(cluster.daemons[0].host).expect("a connection");
        stream.write_all(CONSTANT.as_bytes()).expect("timestamp");
        assert!(read_digit(&mut stream).expect("digit").is_some());
    }
    assert_eq!(cluster.get(1, "close.bin"), old);
    cluster.assert_alive();
}

#[test]
fn the_silent_and_the_slow_cost_a_slot_each_and_are_closed_in_time() {
    let cluster = shared();
    let host = cluster.daemons[0].host;
    let old = keep(&cluster, "slow.bin");
    let upload = Upload::of("slow.bin", &content(15, 50_000));
    let bytes = [upload.metadata(), upload.content()].concat();
    // Silent from the start, after the timestamp, within the metadata, within the body.
    let mut silent = vec![dial(host).expect("a connection")];
    for sent in [0, 100, 160, 5_000] {
        let mut stream = dial(host).expect("a connection");
        stream.write_all(&upload.timestamp).expect("timestamp");
        assert!(read_digit(&mut stream).expect("digit").is_some());
        stream.write_all(&bytes[..sent]).expect("a part");
        silent.push(stream);
    }
    // Dripping: never silent for long, never done.
    let mut drips: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = dial(host).expect("a connection");
            stream.write_all(&upload.timestamp).expect("timestamp");
            assert!(read_digit(&mut stream).expect("digit").is_some());
            stream
        })
        .collect();
    let start = Instant::now();
    let mut served = 0_usize;
    for part in bytes.chunks(16).take(40) {
        for stream in &mut drips {
            // The listener may have had enough of it.
            let _ = stream.write_all(part);
        }
        let name = format!("beside-{}.bin", served % 4);
        let body = content(served as u64, 1_000);
        let answer = Upload::of(&name, &body).send(host).expect("an answer");
        assert_eq!(
            answer.rest,
            b"ACK0",
            "beside slow ones\n{}",
            cluster.tails()
        );
        served += 1;
    }
    assert!(served == 40 && start.elapsed() < PATIENCE);
    for mut stream in silent {
        let answer = until_close(&mut stream).expect("the silent are closed in time");
        assert_eq!(answer, b"");
    }
    drop(drips);
    assert_eq!(cluster.get(1, "slow.bin"), old);
    cluster.eventually("no temporaries", |cluster| {
        cluster
            .daemons
            .iter()
            .all(|daemon| daemon.temporaries().is_empty())
    });
    cluster.assert_alive();
}

#[test]
fn two_hundred_connections_at_once_are_all_served() {
    let cluster = shared();
    let host = cluster.daemons[0].host;
    let bodies: Vec<Vec<u8>> = (0..200).map(|seed| content(2_000 + seed, 2_500)).collect();
    let mut streams: Vec<TcpStream> = bodies
        .iter()
        .map(|_| {
            let mut stream = dial(host).expect("a connection");
            stream.write_all(CONSTANT.as_bytes()).expect("timestamp");
            stream
        })
        .collect();
    for stream in &mut streams {
        assert!(read_digit(stream).expect("digit").is_some());
    }
    for (index, (stream, body)) in streams.iter_mut().zip(&bodies).enumerate() {
        let upload = Upload::of(&format!("many-{index}.bin"), body);
        stream
            .write_all(&[upload.metadata(), upload.content()].concat())
            .expect("an upload");
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let answer = until_close(stream).expect("an answer");
        assert_eq!(answer, b"ACK0", "upload {index}\n{}", cluster.tails());
    }
    for (index, body) in bodies.iter().enumerate() {
        assert_eq!(cluster.durable(body), 3, "many-{index}.bin");
    }
    cluster.assert_alive();
}

#[test]
fn each_mode_is_answered_and_placed_as_the_table_says() {
    let cluster = Cluster::start(&Shape {
        order: "0,1,2,3".to_owned(),
        ..Shape::default()
    });
    // (mode, entry daemon, digit answered, daemons that hold it); an upload now is younger than the change of mode.
    for (mode, entry, digit, holders) in [
        (0, 0, b'0', vec![0]),
        (1, 0, b'1', vec![0, 1, 2]),
        (1, 1, b'1', vec![1, 2]),
        (1, 2, b'0', vec![2]),
        (2, 0, b'2', vec![0, 1, 2]),
        (2, 1, b'0', vec![1]),
        (2, 2, b'0', vec![2]),
    ] {
        cluster.set_mode(mode);
        for daemon in 0..3 {
            wait_for_mode(&cluster, daemon, mode);
        }
        let name = format!("mode-{mode}-at-{entry}.bin");
        let body = content(u64::from(mode) * 10 + entry as u64, 70_000);
        let upload = Upload {
            timestamp: nanos().to_string().into_bytes(),
            ..Upload::of(&name, &body)
        };
        let answer = upload.send(cluster.daemons[entry].host).expect("an answer");
        assert_eq!(answer.mode, Some(digit), "mode {mode} at {entry}");
        assert_eq!(
            answer.acknowledged_by(),
            Some(entry),
            "mode {mode} at {entry}: {answer:?}\n{}",
            cluster.tails()
        );
        assert_eq!(cluster.durable(&body), holders.len(), "{name}");
        cluster.eventually(&format!("{name} at {holders:?}"), |cluster| {
            cluster.holders(&name, &body) == holders
        });
        for reader in 0..3 {
            assert_eq!(cluster.get(reader, &name), body);
        }
    }
}

fn wait_for_mode(cluster: &Cluster, id: usize, mode: u8) {
    let wanted = format!("MODE {mode} ");
    cluster.eventually(&format!("daemon {id} knows mode {mode}"), |cluster| {
        cluster.daemons[id]
            .text()
            .and_then(|mut text| text.ask_lines("MODE"))
            .is_ok_and(|lines| lines.iter().any(|line| line.starts_with(&wanted)))
    });
}

#[test]
fn a_primary_splay_upload_is_three_connections_and_one_file() {
    let cluster = Cluster::start(&Shape {
        order: "3,0".to_owned(),
        ..Shape::default()
    });
    for size in [0, 5_000, 700_000] {
        let name = format!("splayed-{size}.bin");
        let body = content(31 + size as u64, size);
        let upload = Upload {
            timestamp: nanos().to_string().into_bytes(),
            ..Upload::of(&name, &body)
        };
        let mut streams = Vec::new();
        for (daemon, wanted) in cluster.daemons.iter().zip([b'3', b'0', b'0']) {
            let mut stream = dial(daemon.host).expect("a connection");
            stream.write_all(&upload.timestamp).expect("timestamp");
            assert_eq!(read_digit(&mut stream).expect("digit"), Some(wanted));
            streams.push(stream);
        }
        let bytes = [upload.metadata(), upload.content()].concat();
        thread::scope(|scope| {
            for (id, mut stream) in streams.into_iter().enumerate() {
                let (bytes, cluster) = (&bytes, &cluster);
                scope.spawn(move || {
                    stream.write_all(bytes).expect("an upload");
                    let answer = until_close(&mut stream).expect("an answer");
                    assert_eq!(
                        String::from_utf8_lossy(&answer),
                        format!("ACK{id}"),
                        "{}",
                        cluster.tails()
                    );
                });
            }
        });
        cluster.eventually("three copies", |cluster| cluster.copies(&name, &body) == 3);
        assert_eq!(cluster.get(2, &name), body);
    }
    // The client talks to daemon 0 alone: the others get it from there.
    let body = content(41, 9_000);
    let answer = Upload::of("lone-primary.bin", &body)
        .send(cluster.daemons[0].host)
        .expect("an answer");
    assert_eq!(answer.rest, b"ACK0", "{}", cluster.tails());
    assert!(cluster.durable(&body) >= 2);
    // The client talks to daemon 1 alone: a put of its own.
    let body = content(42, 9_000);
    let answer = Upload::of("lone-leg.bin", &body)
        .send(cluster.daemons[1].host)
        .expect("an answer");
    assert_eq!(answer.rest, b"ACK1", "{}", cluster.tails());
    assert_eq!(cluster.get(0, "lone-leg.bin"), body);
}

#[test]
fn daemon_one_answers_the_mode_that_held_at_the_time_of_the_upload() {
    let cluster = Cluster::start(&Shape {
        order: "1,2".to_owned(),
        ..Shape::default()
    });
    let change = nanos();
    let answer = change_mode(&cluster, 0, &change_json(2, change));
    assert!(answer.contains("\"new\":2"), "{answer}");
    wait_for_mode(&cluster, 1, 2);
    for (timestamp, digit) in [(change - 1, b'1'), (change, b'1'), (change + 1, b'0')] {
        let mut stream = dial(cluster.daemons[1].host).expect("a connection");
        stream
            .write_all(timestamp.to_string().as_bytes())
            .expect("timestamp");
        assert_eq!(
            read_digit(&mut stream).expect("digit"),
            Some(digit),
            "at the change {:+}",
            i128::from(timestamp) - i128::from(change)
        );
    }
}

fn change_json(new: u8, timestamp: u64) -> String {
    format!("{{\"old\":9,\"new\":{new},\"timestamp\":{timestamp}}}")
}

/// Sends bytes to a daemon's `change_replication` port as the original does: no newline, then closes its side.
fn change_mode(cluster: &Cluster, id: usize, json: &str) -> String {
    let mut stream = dial(cluster.daemons[id].change).expect("a connection");
    stream.write_all(json.as_bytes()).expect("a change");
    stream.shutdown(Shutdown::Write).expect("the end");
    String::from_utf8(until_close(&mut stream).expect("an answer")).expect("text")
}

#[test]
fn a_change_of_mode_reaches_every_daemon_and_junk_changes_nothing() {
    let mut cluster = Cluster::start(&Shape {
        order: "2,1,3,0".to_owned(),
        ..Shape::default()
    });
    let minute = 60_000_000_000;
    let at = nanos();
    let answer = change_mode(&cluster, 1, &change_json(1, at));
    assert!(
        answer.ends_with('\n') && answer.contains("\"old\":2") && answer.contains("\"new\":1"),
        "{answer}"
    );
    assert!(answer.contains(&at.to_string()), "{answer}");
    for id in 0..3 {
        wait_for_mode(&cluster, id, 1);
    }
    for (what, json) in [
        ("an older timestamp", change_json(2, at - 1)),
        ("the same timestamp", change_json(2, at)),
        ("six minutes ahead", change_json(2, nanos() + 6 * minute)),
        ("mode 7", change_json(7, nanos())),
        (
            "mode -1",
            "{\"old\":0,\"new\":-1,\"timestamp\":1}".to_owned(),
        ),
        ("no mode", format!("{{\"timestamp\":{}}}", nanos())),
        ("no timestamp", "{\"new\":2}".to_owned()),
        ("a half", "{\"new\":2,\"timest".to_owned()),
        ("not JSON", "{hello}".to_owned()),
        ("an array", "[1,2,3]".to_owned()),
        ("nothing", String::new()),
        (
            "a long one",
            format!("{{\"x\":\"{}\"}}", "y".repeat(100_000)),
        ),
        ("deep", "{\"a\":".repeat(5_000)),
        ("floats", "{\"new\":1.5,\"timestamp\":1e99}".to_owned()),
    ] {
        let mut stream = dial(cluster.daemons[0].change).expect("a connection");
        let _ = stream.write_all(json.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let answer = until_close(&mut stream).expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.contains("\"error\""),
            "{what}: {answer}"
        );
        cluster.assert_alive();
    }
    for id in 0..3 {
        wait_for_mode(&cluster, id, 1);
    }
    // Mixed case, extra keys, another order, byte by byte, and the sender waits for its answer before it closes.
    let mut stream = dial(cluster.daemons[2].change).expect("a connection");
    let json = format!(
        "{{ \"NEW\" : 0 , \"Extra\":[1,{{}}], \"TimeStamp\":{} ,\"oLd\":3}}",
        nanos()
    );
    for byte in json.as_bytes() {
        stream.write_all(&[*byte]).expect("a byte");
    }
    let answer = until_close(&mut stream).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains("\"new\":0") && answer.contains("\"old\":1"),
        "{answer}"
    );
    // A daemon that was down learns it.
    cluster.daemons[2].kill();
    let answer = change_mode(&cluster, 0, &change_json(1, nanos()));
    assert!(answer.contains("\"new\":1"), "{answer}");
    cluster.daemons[2].start();
    cluster.wait_serving(2);
    wait_for_mode(&cluster, 2, 1);
}

#[test]
fn a_full_disk_refuses_uploads_and_keeps_everything_else_going() {
    let place = tempfile::tempdir().expect("a folder");
    let mounts: Option<Vec<Mount>> = (0..3)
        .map(|id| Mount::tmpfs(place.path().join(format!("disk-{id}")), 420))
        .collect();
    let Some(mounts) = mounts else {
        return;
    };
    let cluster = Cluster::start(&Shape {
        debug: false,
        data: mounts
            .iter()
            .enumerate()
            .map(|(id, mount)| (id, mount.0.join("data")))
            .collect(),
        ..Shape::default()
    });
    let old = keep(&cluster, "full.bin");
    let spare = keep(&cluster, "spare.bin");
    // Full while the body is on its way.
    let big = content(50, 40 << 20);
    let upload = Upload::of("full.bin", &big);
    let mut stream = dial(cluster.daemons[0].host).expect("a connection");
    let client = stream.local_addr().expect("own address");
    stream.write_all(&upload.timestamp).expect("timestamp");
    assert!(read_digit(&mut stream).expect("digit").is_some());
    stream.write_all(&upload.metadata()).expect("metadata");
    stream.write_all(&big[..4 << 20]).expect("the beginning");
    let ballast: Vec<PathBuf> = mounts.iter().map(Mount::fill).collect();
    let _ = stream.write_all(&big[4 << 20..]);
    let answer = until_close(&mut stream).expect("a close");
    // A daemon that reserved the room when the upload began may finish it; one that did not must refuse.
    let old = if answer == b"ACK0" {
        assert_eq!(cluster.durable(&big), 3, "{}", cluster.tails());
        big
    } else {
        assert_eq!(answer, b"");
        let why = ["space", "full", "room", "disk"];
        assert_undisturbed(&cluster, client, ("full.bin", &old), &why);
        old
    };
    // Full before it comes.
    let small = Upload::of("full.bin", &content(51, 2_000));
    assert_refused(
        &cluster,
        &small,
        ("full.bin", &old),
        &["space", "full", "room", "disk"],
    );
    // Deletes work, and room brings uploads back.
    let answer = cluster.daemons[0]
        .text()
        .and_then(|mut text| text.ask("FILE DELETE spare.bin"))
        .expect("an answer");
    assert!(answer.starts_with("OK"), "{answer}\n{}", cluster.tails());
    cluster.eventually("spare.bin is gone everywhere", |cluster| {
        cluster.copies("spare.bin", &spare) == 0
    });
    for path in ballast {
        fs::remove_file(path).expect("ballast");
    }
    let new = content(52, 2_000);
    cluster.eventually("uploads again", |cluster| {
        Upload::of("full.bin", &new)
            .send(cluster.daemons[0].host)
            .is_ok_and(|answer| answer.acknowledged_by() == Some(0))
    });
    assert_eq!(cluster.get(2, "full.bin"), new);
    cluster.assert_alive();
}

/// Makes a folder refuse new entries, also from root; undone at the end.
struct Immutable(Vec<PathBuf>);

impl Immutable {
    fn make(paths: Vec<PathBuf>) -> Option<Self> {
        let done = Command::new("chattr")
            .arg("+i")
            .args(&paths)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let made = Self(paths);
        if done {
            Some(made)
        } else {
            eprintln!("skipped: chattr +i does not work here");
            None
        }
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr")
            .arg("-i")
            .args(&self.0)
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn a_directory_that_takes_no_files_refuses_uploads_and_is_still_read() {
    if !has("chattr") {
        return;
    }
    let cluster = Cluster::start(&Shape {
        debug: false,
        order: "0,1".to_owned(),
        ..Shape::default()
    });
    let body = content(60, 5_000);
    let answer = Upload::of("stays.bin", &body)
        .send(cluster.daemons[0].host)
        .expect("an answer");
    assert_eq!(answer.rest, b"ACK0");
    let Some(_immutable) = Immutable::make(vec![cluster.daemons[0].data.join(".momo/tmp")]) else {
        return;
    };
    let mut stream = dial(cluster.daemons[0].host).expect("a connection");
    let client = stream.local_addr().expect("own address");
    let answer = Upload::of("stays.bin", &content(61, 5_000))
        .send_on(&mut stream)
        .expect("a close");
    assert_eq!(answer.acknowledged_by(), None, "{}", cluster.tails());
    assert_logged(
        &cluster,
        client,
        &["permitted", "read-only", "directory", "disk", "service"],
    );
    assert_eq!(cluster.get(0, "stays.bin"), body);
    assert_eq!(cluster.get(1, "stays.bin"), body);
    cluster.assert_alive();
}

/// Starts a daemon that must not start: it ends with an error, and its log says why.
fn assert_refuses_to_start(cluster: &mut Cluster, id: usize, why: &[&str]) {
    cluster.daemons[id].start();
    let status = cluster.daemons[id].ended(PATIENCE);
    assert!(
        status.is_some_and(|status| !status.success()),
        "daemon {id} must refuse to start: {status:?}\n{}",
        cluster.tails()
    );
    assert!(
        says(&cluster.daemons[id].logged(), why),
        "why? {why:?}\n{}",
        cluster.tails()
    );
}

fn copy_tree(source: &Path, target: &Path) {
    let status = Command::new("cp")
        .args(["-a", "--"])
        .args([source, target])
        .status()
        .expect("cp");
    assert!(status.success(), "cp of a data directory");
}

#[test]
fn the_data_directory_of_another_daemon_is_refused_at_start() {
    let mut cluster = Cluster::three();
    let body = keep(&cluster, "mine.bin");
    for id in [1, 2] {
        cluster.daemons[id].kill();
    }
    let (one, two) = (
        cluster.daemons[1].data.clone(),
        cluster.daemons[2].data.clone(),
    );
    let aside = cluster.folder().join("aside");
    fs::rename(&two, &aside).expect("aside");
    copy_tree(&one, &two);
    assert_refuses_to_start(&mut cluster, 2, &["daemon 1", "node 1", "belongs"]);
    fs::remove_dir_all(&two).expect("the wrong directory");
    fs::rename(&aside, &two).expect("back");
    for id in [1, 2] {
        cluster.daemons[id].start();
    }
    cluster.wait_ready();
    assert_eq!(cluster.get(2, "mine.bin"), body);
}

#[test]
fn a_data_directory_in_use_is_refused_at_start() {
    let cluster = Cluster::three();
    let mut second = cluster.daemons[0]
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a second daemon 0");
    let mut said = String::new();
    second
        .stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut said)
        .expect("stderr");
    let status = second.wait().expect("status");
    assert!(!status.success(), "{said}");
    assert!(says(&said, &["use", "lock", "another"]), "{said}");
    cluster.assert_alive();
}

#[test]
fn the_data_directory_of_another_cluster_is_not_let_in() {
    let mut other = Cluster::three();
    let foreign = keep(&other, "foreign.bin");
    other.eventually("visible everywhere", |other| {
        other.copies("foreign.bin", &foreign) == 3
    });
    for id in 0..3 {
        other.daemons[id].kill();
    }
    let mut cluster = Cluster::three();
    let body = keep(&cluster, "own.bin");
    cluster.daemons[2].kill();
    let data = cluster.daemons[2].data.clone();
    fs::remove_dir_all(&data).expect("the right directory");
    copy_tree(&other.daemons[2].data, &data);
    cluster.daemons[2].start();
    eventually("daemon 2 says whose directory that is", || {
        says(
            &cluster.daemons[2].logged(),
            &["another cluster", "cluster id", "other cluster"],
        )
    });
    let fresh = cluster.daemons[2]
        .text()
        .and_then(|mut text| text.is_fresh());
    assert!(!matches!(fresh, Ok(true)), "it must not serve: {fresh:?}");
    assert_eq!(cluster.get(0, "own.bin"), body);
    not_found(&cluster, "foreign.bin");
    assert_eq!(cluster.daemons[2].visible("foreign.bin"), Some(foreign));
    assert!(cluster.daemons[0].alive() && cluster.daemons[1].alive());
}

#[test]
fn an_upload_that_breaks_off_with_a_reset_leaves_nothing() -> io::Result<()> {
    let cluster = shared();
    let old = keep(&cluster, "reset.bin");
    let upload = Upload::of("reset.bin", &content(70, 2 << 20));
    for sent in [10, 100, 160, 200_000, 1 << 20] {
        let mut stream = dial(cluster.daemons[0].host)?;
        stream.write_all(&upload.timestamp)?;
        assert!(read_digit(&mut stream)?.is_some());
        let bytes = [upload.metadata(), upload.content()].concat();
        stream.write_all(&bytes[..sent])?;
        // Closing with a linger of nothing sends a reset.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        drop(stream);
    }
    cluster.eventually("no temporaries", |cluster| {
        cluster
            .daemons
            .iter()
            .all(|daemon| daemon.temporaries().is_empty())
    });
    assert_eq!(cluster.get(2, "reset.bin"), old);
    cluster.assert_alive();
    Ok(())
}

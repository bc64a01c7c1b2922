//! The command line as its users meet it: the real binary against files, and against small daemons that speak the protocols by hand.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::Digest;
use tempfile::TempDir;

/// The original's file as it ships.
const ORIGINAL: &str = "[global]\ndebug=true\nreplication_order=2,1,3\npolymorphic_system=true\n\n[metrics]\n\
interval=300000\nfallback_interval=1800000\nmin_threshold=0.25\nmax_threshold=0.75\n\n\
[daemon.0]\nhost=momo-server0:3333\nchange_replication=momo-server0:2223\ndata=/root/received_files/dir1\ndrive=/dev/sda\n\n\
[daemon.1]\nhost=momo-server1:3334\nchange_replication=momo-server1:2224\ndata=/root/received_files/dir2\ndrive=/dev/sda\n\n\
[daemon.2]\nhost=momo-server2:3335\nchange_replication=momo-server2:2225\ndata=/root/received_files/dir3\ndrive=/dev/sda\n";

// ---------------------------------------------------------------- the binary

fn momo(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_momo"));
    command
        .current_dir(directory)
        .env_remove("MOMO_CONF")
        .stdin(Stdio::null());
    command
}

fn run(directory: &Path, args: &[&str]) -> Output {
    momo(directory).args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ends(output: &Output, expected: i32, words: &str) {
    let text = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(code(output), expected, "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
    assert!(!text.contains("panicked"), "{text}");
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn md5(bytes: &[u8]) -> String {
    hex(&md5::Md5::digest(bytes))
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// An address that refuses connections.
fn closed() -> String {
    listener().1
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _): (TcpStream, SocketAddr) = listener.accept().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// True when nobody has dialled.
fn untouched(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

// ---------------------------------------------------------------- configuration

#[test]
fn check_says_every_error_with_its_line_and_the_nearest_name() {
    let dir = TempDir::new().unwrap();
    let text = "[metrics]\nintervall=5\nmin_threshold=2\n[heartbaet]\n[daemon.0]\nhost=127.0.0.1:1\ndata=d\ndata=e\n";
    fs::write(dir.path().join("a.conf"), text).unwrap();
    let output = run(dir.path(), &["check", "--conf", "a.conf"]);
    for line in [
        "a.conf:2: [metrics] intervall: unknown key; did you mean 'interval'?",
        "a.conf:3: [metrics] min_threshold: '2' is not a number from 0 to 1",
        "a.conf:4: [heartbaet] unknown section; did you mean [heartbeat]?",
        "a.conf:8: [daemon.0] data: key comes twice; first on line 7",
    ] {
        ends(&output, 1, line);
    }
    assert_eq!(stdout(&output), "");
}

#[test]
fn the_originals_file_is_accepted_once_strangers_can_be_told_from_daemons() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("conf")).unwrap();
    fs::write(dir.path().join("conf/momo.conf"), ORIGINAL).unwrap();
    let refused = run(dir.path(), &["check"]);
    ends(&refused, 1, "momo secret new --conf conf/momo.conf");
    ends(
        &run(dir.path(), &["-imp", "server", "-id", "0"]),
        1,
        "momo secret new",
    );
    ends(&run(dir.path(), &["secret", "new"]), 0, "conf/momo.secret");
    let secret = dir.path().join("conf/momo.secret");
    assert_eq!(
        fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(&secret).unwrap().trim().len(), 64);
    ends(&run(dir.path(), &["secret", "new"]), 1, "exists already");
    let output = run(dir.path(), &["check"]);
    ends(&output, 0, "host = momo-server2:3335");
    // What it prints is a configuration that comes to the same.
    fs::write(dir.path().join("conf/again.conf"), &output.stdout).unwrap();
    let again = run(dir.path(), &["check", "--json", "-conf=conf/again.conf"]);
    assert_eq!(
        stdout(&again),
        stdout(&run(dir.path(), &["check", "--json"]))
    );
    ends(
        &run(dir.path(), &["check", "--id", "3"]),
        1,
        "there are 0, 1, 2",
    );
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    ends(&run(dir.path(), &["check"]), 1, "others can read it");
}

#[test]
fn the_configuration_is_looked_for_in_the_said_order() {
    let dir = TempDir::new().unwrap();
    let conf = |port: u16| format!("[daemon.0]\nhost=127.0.0.1:{port}\ndata=d\n");
    ends(
        &run(dir.path(), &["check", "--conf", "none.conf"]),
        1,
        "none.conf",
    );
    fs::create_dir(dir.path().join("conf")).unwrap();
    fs::write(dir.path().join("conf/momo.conf"), conf(1111)).unwrap();
    fs::write(dir.path().join("b.conf"), conf(2222)).unwrap();
    fs::write(dir.path().join("c.conf"), conf(3333)).unwrap();
    ends(&run(dir.path(), &["check"]), 0, "127.0.0.1:1111");
    let check = |args: &[&str]| {
        momo(dir.path())
            .env("MOMO_CONF", "b.conf")
            .arg("check")
            .args(args)
            .output()
            .unwrap()
    };
    ends(&check(&[]), 0, "127.0.0.1:2222");
    ends(&check(&["--conf", "c.conf"]), 0, "127.0.0.1:3333");
    ends(
        &run(dir.path(), &["check", "--keys"]),
        0,
        "replication_order",
    );
}

#[test]
fn wrong_usage_has_an_exit_code_of_its_own() {
    let dir = TempDir::new().unwrap();
    ends(&run(dir.path(), &[]), 2, "Usage");
    ends(&run(dir.path(), &["-imp", "both"]), 2, "client or server");
    ends(&run(dir.path(), &["put"]), 2, "FILE");
    ends(&run(dir.path(), &["frobnicate"]), 2, "frobnicate");
    ends(&run(dir.path(), &["mode", "4"]), 2, "primary-splay");
    ends(
        &run(dir.path(), &["put", "a", "b", "--name", "c"]),
        2,
        "--name is for one file",
    );
    ends(
        &run(dir.path(), &["put", "-", "--server", "127.0.0.1:1"]),
        2,
        "wants --name",
    );
    // Nothing is sent before the command line is right.
    fs::write(dir.path().join("file"), "bytes").unwrap();
    let (listener, address) = listener();
    ends(
        &run(dir.path(), &["put", "file", "-", "--server", &address]),
        2,
        "wants --name",
    );
    assert!(untouched(&listener));
    ends(&run(dir.path(), &["--help"]), 0, "Examples:");
    ends(&run(dir.path(), &["completions", "bash"]), 0, "momo");
}

#[test]
fn output_that_nobody_reads_is_the_end_and_not_a_panic() {
    let dir = TempDir::new().unwrap();
    for args in [
        &["check", "--keys"][..],
        &["completions", "zsh"],
        &["--help"],
    ] {
        let mut child = momo(dir.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}

// ---------------------------------------------------------------- the Momo protocol

/// What an original daemon saw of one upload.
struct Seen {
    timestamp: String,
    metadata: String,
    content: Vec<u8>,
}

/// The greeting as an original listener takes it: the timestamp with one read, then the digit.
fn greeting(stream: &mut TcpStream, digit: &[u8]) -> String {
    let mut field = [0; 4096];
    let count = stream.read(&mut field).unwrap();
    assert_eq!(
        count, 19,
        "the timestamp comes in one write and nothing with it"
    );
    stream.write_all(digit).unwrap();
    String::from_utf8(field[..count].to_vec()).unwrap()
}

/// The rest of the connection: metadata with one read, blocks of 1024, then the answer. `ready` is called before the blocks.
fn taking(mut stream: TcpStream, timestamp: String, answer: &[u8], ready: impl FnOnce()) -> Seen {
    let mut metadata = [0; 160];
    assert_eq!(
        stream.read(&mut metadata).unwrap(),
        160,
        "the metadata comes in one write"
    );
    let metadata = String::from_utf8(metadata.to_vec()).unwrap();
    ready();
    let size: usize = metadata[96..].trim_end_matches(':').parse().unwrap();
    let mut content = vec![0; size.div_ceil(1024) * 1024];
    stream.read_exact(&mut content).unwrap();
    stream.write_all(answer).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 0, "nothing follows the last block");
    content.truncate(size);
    Seen {
        timestamp,
        metadata,
        content,
    }
}

fn original_daemon(digit: &'static [u8], answer: &'static [u8]) -> (String, JoinHandle<Seen>) {
    let (listener, address) = listener();
    let thread = thread::spawn(move || {
        let mut stream = accept(&listener);
        let timestamp = greeting(&mut stream, digit);
        taking(stream, timestamp, answer, || ())
    });
    (address, thread)
}

#[test]
fn the_client_speaks_to_original_daemons_at_every_size() {
    let dir = TempDir::new().unwrap();
    for (size, digit) in [
        (0, "0"),
        (6, "1"),
        (1024, "2"),
        (1025, "0"),
        (65_536, "1"),
        (65_537, "2"),
        (5_000_001, "0"),
    ] {
        let content = bytes(size);
        fs::write(dir.path().join("demo.txt"), &content).unwrap();
        let (address, daemon) = original_daemon(Box::leak(digit.as_bytes().into()), b"ACK0");
        let output = run(
            dir.path(),
            &["-imp", "client", "-file", "demo.txt", "-server", &address],
        );
        ends(&output, 0, "ACK0");
        let seen = daemon.join().unwrap();
        assert!(seen.timestamp.bytes().all(|b| b.is_ascii_digit()));
        assert!(seen.timestamp.as_str() > "1700000000000000000");
        assert_eq!(seen.metadata[..32], md5(&content));
        assert_eq!(seen.metadata[32..96], format!("demo.txt{}", ":".repeat(56)));
        assert_eq!(
            seen.metadata[96..],
            format!("{size}{}", ":".repeat(64 - size.to_string().len()))
        );
        assert!(seen.content == content, "{size}");
    }
}

#[test]
fn every_spelling_of_the_original_uploads() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"hello\n").unwrap();
    for form in [
        &["-imp", "client", "-file", "f"][..],
        &["-imp=client", "-file=f"],
        &["--imp", "client", "--file", "f"],
        &["-file", "f"],
        &["client", "-file", "f"],
        &["client", "--file", "f", "--json"],
    ] {
        let (address, daemon) = original_daemon(b"0", b"ACK7");
        let conf = format!("[daemon.0]\nhost={address}\ndata=d\n");
        fs::write(dir.path().join("momo.conf"), conf).unwrap();
        let output = momo(dir.path())
            .env("MOMO_CONF", "momo.conf")
            .args(form)
            .output()
            .unwrap();
        ends(
            &output,
            0,
            if form.contains(&"--json") {
                "\"acks\":[7]"
            } else {
                "ACK7"
            },
        );
        assert_eq!(daemon.join().unwrap().content, b"hello\n");
    }
}

#[test]
fn primary_splay_greets_in_order_and_uploads_side_by_side() {
    let dir = TempDir::new().unwrap();
    let content = bytes(300_000);
    fs::write(dir.path().join("f"), &content).unwrap();
    let (listeners, addresses): (Vec<_>, Vec<_>) = (0..3).map(|_| listener()).unzip();
    let mut conf = String::new();
    for (id, host) in addresses.iter().enumerate() {
        let _ = writeln!(conf, "[daemon.{id}]\nhost={host}\ndata=d{id}");
    }
    fs::write(dir.path().join("momo.conf"), conf).unwrap();
    let daemons = thread::spawn(move || {
        let mut greeted = Vec::new();
        for id in 0..3 {
            listeners[id].set_nonblocking(false).unwrap();
            let mut stream = accept(&listeners[id]);
            stream.peek(&mut [0]).unwrap();
            assert!(
                listeners[id + 1..].iter().all(untouched),
                "dialled before the digit of {id}"
            );
            let timestamp = greeting(&mut stream, if id == 0 { b"3" } else { b"0" });
            greeted.push((format!("ACK{id}"), stream, timestamp));
        }
        // No content is taken before all three have their metadata.
        let together = Arc::new(Barrier::new(3));
        let threads = greeted.into_iter().map(|(answer, stream, timestamp)| {
            let together = Arc::clone(&together);
            let ready = move || {
                together.wait();
            };
            thread::spawn(move || taking(stream, timestamp, answer.as_bytes(), ready))
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let output = run(dir.path(), &["-file", "f", "-conf", "momo.conf"]);
    ends(&output, 0, "mode primary-splay, ACK0 ACK1 ACK2");
    let seen = daemons.join().unwrap();
    assert!(seen.iter().all(|seen| seen.content == content));
    assert!(
        seen.iter()
            .all(|other| other.timestamp == seen[0].timestamp)
    );
}

#[test]
fn a_leg_that_refuses_is_left_to_daemon_0_and_said() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"hello\n").unwrap();
    let (first, daemon) = original_daemon(b"3", b"ACK0");
    let (third, leg) = original_daemon(b"0", b"ACK2");
    let refused = closed();
    let servers = ["--server", &first, "--server", &refused, "--server", &third];
    let output = run(
        dir.path(),
        &[&["client", "--file", "f"], &servers[..]].concat(),
    );
    ends(&output, 0, "ACK0 ACK2");
    assert!(stderr(&output).contains(&format!("{refused}: Connection refused")));
    assert_eq!(daemon.join().unwrap().content, b"hello\n");
    assert_eq!(leg.join().unwrap().content, b"hello\n");
}

#[test]
fn anything_but_an_acknowledgement_is_a_failure() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"hello\n").unwrap();
    for (answer, expected) in [
        (&b"NAK0"[..], 1),
        (b"ACK", 1),
        (b"ACK0x", 1),
        (b"ack0", 1),
        (b"", 3),
    ] {
        let (address, daemon) = original_daemon(b"0", answer);
        let output = run(dir.path(), &["-file", "f", "-server", &address]);
        ends(&output, expected, &address);
        daemon.join().unwrap();
    }
    // A digit that is no mode, and a daemon that hangs up instead.
    for digit in [&b"9"[..], b""] {
        let (listener, address) = listener();
        let daemon = thread::spawn(move || {
            let mut stream = accept(&listener);
            stream.read_exact(&mut [0; 19]).unwrap();
            stream.write_all(digit).unwrap();
        });
        ends(
            &run(dir.path(), &["-file", "f", "-server", &address]),
            1,
            &address,
        );
        daemon.join().unwrap();
    }
    ends(
        &run(dir.path(), &["-file", "f", "-server", &closed()]),
        1,
        "no daemon could be reached",
    );
}

#[test]
fn a_silent_daemon_costs_the_time_that_was_said() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"hello\n").unwrap();
    let (_listener, address) = listener();
    let args = ["--server", &address, "--timeout", "50ms"];
    ends(
        &run(dir.path(), &[&["client", "-file", "f"], &args[..]].concat()),
        1,
        "no answer in time",
    );
    ends(
        &run(dir.path(), &[&["ls"], &args[..]].concat()),
        1,
        "no answer in time",
    );
}

#[test]
fn what_cannot_be_sent_is_refused_before_anyone_is_dialled() {
    let dir = TempDir::new().unwrap();
    let (listener, address) = listener();
    let long = "n".repeat(65);
    for name in [&long, ":a", "a:", "a/b", "..", "a\nb"] {
        fs::write(dir.path().join("f"), b"x").unwrap();
        let output = run(
            dir.path(),
            &["client", "-file", "f", "--name", name, "-server", &address],
        );
        assert_eq!(code(&output), 1, "{name}: {}", stderr(&output));
    }
    for file in ["absent", "."] {
        assert_eq!(
            code(&run(dir.path(), &["-file", file, "-server", &address])),
            1,
            "{file}"
        );
    }
    assert!(untouched(&listener));
    fs::write(dir.path().join(&long[..64]), b"x").unwrap();
    let (address, daemon) = original_daemon(b"0", b"ACK0");
    ends(
        &run(dir.path(), &["-file", &long[..64], "-server", &address]),
        0,
        "ACK0",
    );
    assert_eq!(daemon.join().unwrap().metadata[32..96], long[..64]);
}

// ---------------------------------------------------------------- the text door

/// A daemon that answers each connection in turn with the next of `answers`.
fn text_daemon<F>(answers: Vec<F>) -> (String, JoinHandle<()>)
where
    F: FnOnce(&str, &mut BufReader<TcpStream>) + Send + 'static,
{
    let (listener, address) = listener();
    let thread = thread::spawn(move || {
        for answer in answers {
            let mut reader = BufReader::new(accept(&listener));
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            answer(line.trim_end(), &mut reader);
        }
    });
    (address, thread)
}

fn reply(reader: &mut BufReader<TcpStream>, bytes: &[u8]) {
    reader.get_mut().write_all(bytes).unwrap();
}

/// Takes the body of a `FILE PUT`.
fn body(line: &str, reader: &mut BufReader<TcpStream>) -> Vec<u8> {
    let size = line.split(' ').nth(2).unwrap().parse().unwrap();
    let mut body = vec![0; size];
    reader.read_exact(&mut body).unwrap();
    body
}

#[test]
fn put_sends_several_files_over_one_connection_and_compares_the_digest() {
    let dir = TempDir::new().unwrap();
    let (small, large) = (bytes(10), bytes(3_000_000));
    fs::write(dir.path().join("a b"), &small).unwrap();
    fs::write(dir.path().join("c"), &large).unwrap();
    let (address, daemon) = text_daemon(vec![|line: &str, reader: &mut BufReader<TcpStream>| {
        assert_eq!(line, "FILE PUT 10 strategy=chain -- a b");
        let digest = sha256(&body(line, reader));
        reply(
            reader,
            format!("OK {digest} version=5 copies=3\n").as_bytes(),
        );
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let digest = sha256(&body(&line, reader));
        assert_eq!(line, "FILE PUT 3000000 strategy=chain -- c\n");
        reply(
            reader,
            format!("OK {digest} version=6 copies=1\n").as_bytes(),
        );
    }]);
    // The first daemon refuses: the next is asked.
    let args = [
        "put",
        "a b",
        "c",
        "--strategy",
        "chain",
        "--server",
        &closed(),
        "--server",
        &address,
    ];
    let output = run(dir.path(), &args);
    ends(
        &output,
        0,
        "a b: 10 bytes, 3 copies, version 5\nc: 3000000 bytes, 1 copy, version 6\n",
    );
    daemon.join().unwrap();
}

#[test]
fn put_tells_refused_from_unknown() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), bytes(200_000)).unwrap();
    for (answer, expected, words) in [
        (
            format!("OK {} version=5 copies=3\n", sha256(b"other")),
            1,
            "kept other bytes",
        ),
        (
            "ERR 1 of 3 daemons up, 2 needed\n".to_owned(),
            1,
            "2 needed",
        ),
        (
            "ERR outcome unknown, ask FILE STAT f\n".to_owned(),
            3,
            "ask FILE STAT f",
        ),
        (String::new(), 3, "closed the connection"),
    ] {
        let (address, daemon) = text_daemon(vec![
            move |line: &str, reader: &mut BufReader<TcpStream>| {
                body(line, reader);
                reply(reader, answer.as_bytes());
            },
        ]);
        ends(
            &run(dir.path(), &["put", "f", "--server", &address]),
            expected,
            words,
        );
        daemon.join().unwrap();
    }
}

#[test]
fn put_takes_standard_input_and_get_gives_standard_output() {
    let dir = TempDir::new().unwrap();
    let content = bytes(1_500_000);
    let (address, daemon) = text_daemon(vec![|line: &str, reader: &mut BufReader<TcpStream>| {
        assert_eq!(line, "FILE PUT 1500000 -- d/x");
        let digest = sha256(&body(line, reader));
        reply(
            reader,
            format!("OK {digest} version=5 copies=3\n").as_bytes(),
        );
    }]);
    let mut child = momo(dir.path())
        .args(["put", "-", "--name", "d/x", "--json", "--server", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&content).unwrap();
    let output = child.wait_with_output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["version"], 5);
    assert_eq!(value["sha256"], sha256(&content));
    daemon.join().unwrap();

    let head = format!("OK 1500000 {} 5\n", sha256(&content));
    let sent = content.clone();
    let (address, daemon) = text_daemon(vec![
        move |line: &str, reader: &mut BufReader<TcpStream>| {
            assert_eq!(line, "FILE GET d/x");
            reply(reader, head.as_bytes());
            reply(reader, &sent);
        },
    ]);
    let output = run(dir.path(), &["get", "d/x", "-o", "-", "--server", &address]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(output.stdout == content);
    daemon.join().unwrap();
}

#[test]
fn get_never_leaves_wrong_or_short_bytes_under_the_name() {
    type Answer = Box<dyn FnOnce(&str, &mut BufReader<TcpStream>) + Send>;
    let dir = TempDir::new().unwrap();
    for size in [10, 400_000] {
        let content = bytes(size);
        let head = format!("OK {size} {} 5\n", sha256(&content));
        fs::write(dir.path().join("f"), b"what was there before").unwrap();
        let answer = |body: Vec<u8>| -> Answer {
            let head = head.clone();
            Box::new(move |_: &str, reader: &mut BufReader<TcpStream>| {
                reply(reader, head.as_bytes());
                reply(reader, &body);
            })
        };
        let mut wrong = content.clone();
        wrong[size / 2] ^= 1;
        for body in [wrong.clone(), content[..size - 1].to_vec()] {
            let (address, daemon) = text_daemon(vec![answer(body)]);
            let output = run(dir.path(), &["get", "f", "--server", &address]);
            assert_eq!(code(&output), 1, "{}", stderr(&output));
            daemon.join().unwrap();
            assert_eq!(
                fs::read(dir.path().join("f")).unwrap(),
                b"what was there before"
            );
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                1,
                "no partial file stays"
            );
        }
        // The next daemon has it right.
        let (first, one) = text_daemon(vec![answer(wrong)]);
        let (second, two) = text_daemon(vec![answer(content[..size / 2].to_vec())]);
        let (third, three) = text_daemon(vec![answer(content.clone())]);
        let servers = ["--server", &first, "--server", &second, "--server", &third];
        let output = run(dir.path(), &[&["get", "f"], &servers[..]].concat());
        ends(&output, 0, "version 5");
        assert!(fs::read(dir.path().join("f")).unwrap() == content);
        for daemon in [one, two, three] {
            daemon.join().unwrap();
        }
    }
    let (address, daemon) = text_daemon(vec![|line: &str, reader: &mut BufReader<TcpStream>| {
        assert_eq!(line, "FILE GET g version 4");
        reply(reader, b"ERR file not found\n");
    }]);
    let output = run(
        dir.path(),
        &["get", "g", "--version", "4", "--server", &address],
    );
    ends(&output, 1, "g: file not found");
    assert!(!dir.path().join("g").exists());
    daemon.join().unwrap();
}

#[test]
fn listings_modes_and_status_are_shown_to_people_and_to_scripts() {
    let dir = TempDir::new().unwrap();
    let ask = |args: &[&str], expected: &'static str, answer: &'static str| {
        let (address, daemon) = text_daemon(vec![
            move |line: &str, reader: &mut BufReader<TcpStream>| {
                assert_eq!(line, expected);
                reply(reader, answer.as_bytes());
            },
        ]);
        let output = run(dir.path(), &[args, &["--server", &address]].concat());
        daemon.join().unwrap();
        output
    };
    let list = "name,start,size\na,3333,5\n\"b,\"\"c\",3334,1000\n";
    ends(
        &ask(&["ls"], "FILE LIST", list),
        0,
        "   5  a\n1000  b,\"c\n",
    );
    ends(
        &ask(&["ls", "b", "--json"], "FILE LIST", list),
        0,
        r#"{"name":"b,\"c","size":1000,"start":3334}"#,
    );
    ends(
        &ask(&["ls"], "FILE LIST", "name,start,size\na,3333"),
        1,
        "broke off",
    );
    let mode = "MODE 1 chain old=2 timestamp=1795205445000000000 cause=MODE from 127.0.0.1\nOK\n";
    ends(
        &ask(&["mode"], "MODE", mode),
        0,
        "1 chain          since 2026-11-20T20:10:45Z, before 2 splay",
    );
    ends(
        &ask(&["mode", "chain", "--json"], "MODE 1", mode),
        0,
        "\"timestamp\":1795205445000000000",
    );
    ends(
        &ask(&["mode", "--history"], "MODE HISTORY", mode),
        0,
        "chain",
    );
    ends(
        &ask(&["mode", "3"], "MODE 3", "ERR not allowed from here\n"),
        1,
        "not allowed from here",
    );
    ends(
        &ask(&["status"], "STATUS", "node 0\nleader 0\nOK\n"),
        0,
        "node 0\nleader 0\n",
    );
    ends(
        &ask(&["status", "--json"], "STATUS JSON", "{\"node\":0}\n"),
        0,
        "{\"node\":0}\n",
    );
    ends(
        &ask(&["rm", "a b"], "FILE DELETE a b", "OK version=9\n"),
        0,
        "a b: deleted",
    );
    ends(
        &ask(
            &["rm", "a"],
            "FILE DELETE a",
            "ERR outcome unknown, ask FILE STAT a\n",
        ),
        3,
        "outcome unknown",
    );
    let digest = sha256(b"hello");
    let stat: &'static str = Box::leak(
        format!("name=a\nversion=7\nsize=5\nsha256={digest}\nstrategy=splay\nclass=default\nwant=3\ncreated=x\nmodified=y\npart=5 {digest} 0,2\nearlier=3\nstale=false\nOK\n").into(),
    );
    ends(
        &ask(&["stat", "a"], "FILE STAT a", stat),
        0,
        "copies     2 of 3 on 0, 2\n",
    );
    ends(
        &ask(&["stat", "a", "--json"], "FILE STAT a", stat),
        0,
        "\"nodes\":[0,2]",
    );
}

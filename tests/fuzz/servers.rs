//! The peer doors of a living node under nonsense: from strangers, and from peers that know the secret.
//!
//! Whatever comes, every connection ends in time, nothing panics, and the node goes on keeping and giving files.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use momo::base::digest::crc32c;
use momo::base::id::{Boot, NodeId, OperationId};
use momo::base::random::Random;
use momo::engine::frame::{FrameStream, SharedSocket};
use momo::engine::handshake::{self, Identity, Role, Secret};
use momo::engine::serve::serve;
use momo::engine::start::Running;
use momo::wire::command::Command;
use momo::wire::peer::{Answer, BodyEnd, Header, Kind, Request};

use protobuf::Message as _;
use raft::eraftpb;

use crate::alone::{self, PATIENCE, SECRET};
use crate::formats::FORMATS;
use crate::mutate::{draw, mutate};
use crate::noise;

const EXTRA: &str = "[write]\nleg_wait=100\ndeadline=20000\nhop_stall=200\n\n[server]\nread_timeout=300\n\n\
    [raft]\ntick_ms=10\nelection_ticks=5\nheartbeat_ticks=2\n\n";

/// The peer that talks nonsense. It knows the secret, and is no member.
const PEER: NodeId = NodeId(2);

fn pair() -> (TcpStream, TcpStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let tcp = |end: UnixStream| TcpStream::from(OwnedFd::from(end));
    (tcp(ours), tcp(theirs))
}

/// A connection to the node, served on a thread of its own as the listener would.
fn connect(running: &Running) -> (TcpStream, JoinHandle<()>) {
    let (near, far) = pair();
    let engine = running.engine.clone();
    let served = thread::spawn(move || {
        let input = SharedSocket::new(Arc::new(far), Vec::new());
        // An error says why the peer was cut off, which is what is wanted here.
        drop(serve(&engine, input, Duration::from_secs(2), || {}));
    });
    (near, served)
}

fn dial(running: &Running, role: Role) -> (FrameStream, JoinHandle<()>) {
    let (near, served) = connect(running);
    if role == Role::Admin {
        let secret = Secret(SECRET.to_vec());
        let dialled = handshake::dial_as_operator(near, secret, PATIENCE);
        return (dialled.expect("a known secret").0, served);
    }
    let us = Identity {
        node: PEER,
        cluster: running.engine.report().cluster,
        secret: Secret(SECRET.to_vec()),
    };
    let stream = handshake::dial(near, &us, NodeId(0), role, PATIENCE).expect("a known secret");
    (stream, served)
}

fn ends(served: JoinHandle<()>, what: &str) {
    let began = Instant::now();
    while !served.is_finished() {
        assert!(
            began.elapsed() < PATIENCE,
            "a connection never ends: {what}"
        );
        thread::park_timeout(Duration::from_millis(1));
    }
    assert!(served.join().is_ok(), "a connection panicked: {what}");
}

fn sample(name: &str, random: &mut Random) -> Vec<u8> {
    let format = FORMATS.iter().find(|format| format.name == name);
    (format.expect("a format").sample)(random)
}

/// A frame that is right in itself, whatever its payload.
fn framed(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let crc = crc32c(payload);
    out.extend(Header { kind, length, crc }.print());
    out.extend(payload);
}

/// Frames for a connection of this role: some whole, some nearly, some not at all.
fn talk(role: Role, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(4) {
        let (kind, mut payload) = match (role, random.below(6)) {
            (Role::Control, 0..=2) => (Kind::Control, sample("message", random)),
            (Role::Control, 3) => {
                let mut message =
                    eraftpb::Message::parse_from_bytes(&sample("raft", random)).expect("a message");
                message.from = 9;
                (Kind::Raft, message.write_to_bytes().expect("a message"))
            }
            (Role::Control, _) => {
                let mut command: Command =
                    serde_json::from_slice(&sample("command", random)).expect("a command");
                command.id = OperationId {
                    node: PEER,
                    boot: Boot(1),
                    sequence: random.below(5_000),
                };
                let command = serde_json::to_string(&command).expect("JSON");
                let again = random.one_in(2);
                let text = format!("{{\"m\":\"propose\",\"command\":{command},\"again\":{again}}}");
                (Kind::Control, text.into_bytes())
            }
            (Role::Admin, _) => (Kind::Control, sample("admin-request", random)),
            (Role::Bulk, 0) => (Kind::Block, draw(&noise(), random)),
            (Role::Bulk, 1) => {
                store(&mut out, random);
                continue;
            }
            (Role::Bulk, _) => (Kind::Control, sample("request", random)),
        };
        if random.one_in(2) {
            let other = sample(
                if role == Role::Bulk {
                    "request"
                } else {
                    "message"
                },
                random,
            );
            mutate(&mut payload, &other, random);
        }
        if kind == Kind::Raft && believed(&payload) {
            continue;
        }
        framed(kind, &payload, &mut out);
    }
    if random.one_in(3) {
        let other = sample("frame", random);
        mutate(&mut out, &other, random);
    }
    out.truncate(150 * 1024);
    out
}

/// Whether this is a Raft message that passes for the peer's own. Of those a node believes every word: it is not promised to
/// live with members that lie.
fn believed(payload: &[u8]) -> bool {
    eraftpb::Message::parse_from_bytes(payload).is_ok_and(|message| message.from == PEER.raft())
}

/// An object that comes in whole, or nearly.
fn store(out: &mut Vec<u8>, random: &mut Random) {
    let block = draw(&noise(), random);
    let size = if random.one_in(4) {
        random.next()
    } else {
        block.len() as u64
    };
    let sha256 = if random.one_in(2) {
        momo::base::digest::sha256(&block)
    } else {
        draw(&crate::sha256(), random)
    };
    let upload = OperationId {
        node: PEER,
        boot: Boot(1),
        sequence: random.below(5),
    };
    let request = Request::Store {
        upload,
        part: 0,
        size,
        next: Vec::new(),
    };
    let end = BodyEnd {
        sha256: (!random.one_in(4)).then_some(sha256),
    };
    framed(
        Kind::Control,
        &serde_json::to_vec(&request).expect("JSON"),
        out,
    );
    framed(Kind::Block, &block, out);
    framed(Kind::Control, &serde_json::to_vec(&end).expect("JSON"), out);
}

/// The node's threads all live, and a well-behaved peer is answered.
fn assert_well(running: &Running, what: &str) {
    if let Ok(why) = running.failed.try_recv() {
        panic!("the node ended after {what}: {why}");
    }
    assert_eq!(
        PANICS.load(Ordering::SeqCst),
        0,
        "a thread panicked after {what}"
    );
    let (mut stream, served) = dial(running, Role::Bulk);
    stream.set_read_timeout(PATIENCE).expect("a timeout");
    stream.send(&Request::Ping).expect("a request");
    assert_eq!(
        stream.receive_value::<Answer>().expect("an answer"),
        Answer::Pong
    );
    drop(stream);
    ends(served, "a ping");
    assert!(
        running.engine.is_driven(),
        "the driver stands still after {what}"
    );
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of the node's own threads, which nobody joins.
fn count_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        const OURS: [&str; 8] = [
            "driver",
            "log",
            "checkpoint",
            "tree",
            "copy",
            "heartbeat",
            "collector",
            "register",
        ];
        let name = thread::current().name().unwrap_or_default().to_owned();
        if OURS.contains(&name.as_str()) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        report(info);
    }));
}

#[test]
fn a_node_survives_strangers_and_peers_that_talk_nonsense() {
    count_panics();
    let folder = tempfile::tempdir().expect("a folder");
    let running = alone::start_in(folder.path(), EXTRA).expect("a node");
    alone::wait_ready(&running);
    let kept = b"kept before the nonsense".repeat(9);
    alone::put(&running, "kept.bin", &kept).expect("a put");
    let before = running.engine.report().applied;
    let cases = std::env::var("FUZZ_CASES").map_or(150, |cases| cases.parse().expect("a number"));
    let seed = std::env::var("FUZZ_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = Random::new(seed);
    for case in 0..cases.min(5_000) {
        let what = format!("case {case} of FUZZ_SEED={seed}");
        if random.one_in(5) {
            let (mut stream, served) = connect(&running);
            let mut hello = sample("handshake-listener", &mut random);
            let other = draw(&noise(), &mut random);
            mutate(&mut hello, &other, &mut random);
            drop(stream.write_all(&hello));
            drop(stream.shutdown(Shutdown::Write));
            let mut told = Vec::new();
            drop(stream.read_to_end(&mut told));
            assert!(told.len() < 100, "a stranger is told {} bytes", told.len());
            ends(served, &what);
        } else {
            let role = match random.below(5) {
                0 | 1 => Role::Control,
                2 | 3 => Role::Bulk,
                _ => Role::Admin,
            };
            let bytes = talk(role, &mut random);
            let (stream, served) = dial(&running, role);
            let mut socket = stream.socket().try_clone().expect("a socket");
            // Answers are read meanwhile: a peer that does not take them is cut off, which is another test.
            let mut reading = socket.try_clone().expect("a socket");
            let reader = thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
            drop(socket.write_all(&bytes));
            drop(socket.shutdown(Shutdown::Write));
            ends(served, &what);
            drop(reader.join());
        }
        if case % 10 == 9 {
            assert_well(&running, &what);
        }
    }
    assert_well(&running, "all of it");
    let committed = running.engine.report().applied - before;
    assert!(
        committed * 100 > cases,
        "only {committed} commands came through"
    );
    running.stop(PATIENCE);
    // A start finds nothing that it cannot read.
    let running = alone::start_in(folder.path(), EXTRA).expect("a node");
    assert_well(&running, "a new start");
    running.stop(PATIENCE);
}

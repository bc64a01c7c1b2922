//! Conversations with the doors: the `*.txt` files beside this one, which a person can replay with netcat, and what needs a clock or many bytes.
//!
//! `UPDATE=1 cargo test --test transcripts` writes what the doors answer now into the files.
//!
//! | line | meaning |
//! |---|---|
//! | `= connect <door>` | a new connection; the files kept so far stay |
//! | `= <key> <value>` | before it is served: peer, node, mode, text_admin, limit |
//! | `> text` | sent, with LF; lines that follow each other are sent in one piece. `\xNN`, `\r`, `\n`, `\\` as in C; `\c` at the end: without LF |
//! | `< text` | expected, in the same form, before anything more is sent |
//! | `~ event peer=...` | logged as a warning while the connection was served |
//! | `! closed`, `! ended`, `! reset` | who ended the connection: the door, the other end, or the door with a reset |
//! | `= later` | between sent lines: what follows is a piece of its own |

mod fake;
mod patience;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use momo::base::id::NodeId;
use momo::config::TextAdmin;
use momo::doors::{DOORS, Limits, Session};
use momo::engine::verbs::Verbs;
use momo::wire::record::Mode;

use fake::{End, FakeVerbs, ScriptedWire, Step};

thread_local! {
    /// Warnings of this thread.
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            let event = record.target().rsplit("::").next().unwrap_or_default();
            let line = format!("{event} {}", record.args());
            LOGGED.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

#[test]
fn the_doors_answer_as_the_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    log::set_logger(&Warnings).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let update = std::env::var_os("UPDATE").is_some();
    let mut played = 0;
    let mut wrong = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        played += 1;
        let expected = fs::read_to_string(&path).unwrap();
        let actual = play(&expected);
        if actual == expected {
            continue;
        }
        if update {
            fs::write(&path, actual).unwrap();
        } else {
            let _ = writeln!(
                wrong,
                "{}:\n{}",
                path.display(),
                difference(&expected, &actual)
            );
        }
    }
    assert!(played >= 3, "the transcripts are there");
    assert!(wrong.is_empty(), "{wrong}");
}

/// The first line that differs.
fn difference(expected: &str, actual: &str) -> String {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    for number in 1.. {
        match (expected.next(), actual.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let line = |line: Option<&str>| line.unwrap_or("(end)").to_owned();
                return format!(
                    "line {number}\n  expected {}\n  actual   {}",
                    line(a),
                    line(b)
                );
            }
        }
    }
    "only line ends differ".to_owned()
}

/// One connection of a transcript.
#[derive(Default)]
struct Connection<'a> {
    door: &'a str,
    settings: Vec<(&'a str, &'a str)>,
    /// The lines to print before each piece, and the piece.
    pieces: Vec<(Vec<&'a str>, Vec<u8>)>,
}

/// Plays a transcript; what it says now.
fn play(text: &str) -> String {
    let mut verbs = FakeVerbs::new();
    let mut out = String::new();
    let mut connection: Option<Connection> = None;
    let mut joins = false;
    for line in text.lines() {
        let Some(now) = &mut connection else {
            if let Some(door) = line.strip_prefix("= connect ") {
                connection = Some(Connection {
                    door,
                    ..Connection::default()
                });
                joins = false;
            }
            let _ = writeln!(out, "{line}");
            continue;
        };
        if let Some(sent) = line.strip_prefix('>') {
            let bytes = unescape(sent.strip_prefix(' ').unwrap_or(sent));
            match now.pieces.last_mut().filter(|_| joins) {
                Some((lines, piece)) => {
                    lines.push(line);
                    piece.extend_from_slice(&bytes);
                }
                None => now.pieces.push((vec![line], bytes)),
            }
            joins = true;
        } else if line.starts_with(['<', '~']) {
            joins = false;
        } else if line == "= later" {
            joins = false;
            // Printed before the piece that follows.
        } else if line.starts_with('!') {
            let ended = connection.take().unwrap();
            converse(&ended, &mut verbs, &mut out);
        } else if let Some(setting) = line.strip_prefix("= ") {
            now.settings
                .push(setting.split_once(' ').expect("a key and a value"));
            let _ = writeln!(out, "{line}");
        } else {
            panic!("inside a conversation: {line:?}");
        }
    }
    assert!(connection.is_none(), "a connection ends with '!'");
    out
}

/// Serves one connection and prints it.
fn converse(connection: &Connection, verbs: &mut FakeVerbs, out: &mut String) {
    let mut limits = Limits::default();
    let mut text_admin = TextAdmin::Loopback;
    let steps = connection.pieces.iter().map(|(_, piece)| Step::now(piece));
    let mut wire = ScriptedWire::new(steps);
    for (key, value) in &connection.settings {
        match *key {
            "peer" => wire.peer = value.parse().unwrap(),
            "node" => verbs.node = NodeId(value.parse().unwrap()),
            "limit" => limits.file_bytes = value.parse().unwrap(),
            "mode" => {
                let mode = Mode::from_digit(value.parse().unwrap()).unwrap();
                verbs.set_mode(mode, None, "transcript").unwrap();
            }
            "text_admin" => {
                let at = TextAdmin::WORDS.iter().position(|word| word == value);
                text_admin = TextAdmin::ALL[at.unwrap()];
            }
            _ => panic!("no setting {key}"),
        }
    }
    let door = DOORS
        .iter()
        .find(|door| door.name == connection.door)
        .unwrap();
    let session = Session {
        verbs,
        limits: &limits,
        text_admin,
    };
    LOGGED.take();
    (door.serve)(&session, &mut wire);
    let logged = LOGGED.take();

    // Answer n was complete before piece n was sent; the first is what came unasked.
    let mut answers = wire.answers.iter().map(Vec::as_slice);
    let first = answers.next().unwrap_or_default();
    assert!(first.is_empty(), "a door speaks only when spoken to");
    let mut silent = false;
    let last = connection.pieces.len().saturating_sub(1);
    for (at, (lines, _)) in connection.pieces.iter().enumerate() {
        if silent {
            out.push_str("= later\n");
        }
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        let mut answer = answers.next().unwrap_or_default().to_vec();
        if at == last {
            answers
                .by_ref()
                .for_each(|more| answer.extend_from_slice(more));
        }
        if at == last || wire.answers.len() == at + 1 {
            answer.extend_from_slice(wire.rest());
        }
        silent = answer.is_empty();
        out.push_str(&escape(&answer));
        // Once the door has closed, nothing that is sent is answered.
        if wire.answers.len() == at + 1 {
            assert_eq!(at, last, "the door closed before all was sent");
        }
    }
    for line in logged {
        let _ = writeln!(out, "~ {line}");
    }
    let _ = writeln!(
        out,
        "! {}",
        match wire.end() {
            End::Closed => "closed",
            End::Ended => "ended",
            End::Reset => "reset",
        }
    );
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'c') => return bytes,
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
            other => panic!("no escape {other:?} in {text:?}"),
        }
    }
    bytes.push(b'\n');
    bytes
}

/// Bytes as lines of a transcript.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (content, end) = match line.strip_suffix(b"\n") {
            Some(content) => (content, ""),
            None => (line, "\\c"),
        };
        text.push_str(if content.is_empty() { "<" } else { "< " });
        for chunk in content.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '\r' => text.push_str("\\r"),
                    c if c.is_control() => {
                        let _ = write!(text, "\\x{:02x}", u32::from(c));
                    }
                    c => text.push(c),
                }
            }
            for byte in chunk.invalid() {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        text.push_str(end);
        text.push('\n');
    }
    text
}

//! The table of formats: what makes a sample of each, and the law that holds for any bytes at all. To add a format: a row.

use std::fmt::{Debug, Write as _};
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use momo::base::digest::crc32c;
use momo::base::id::{Boot, ClusterId, NodeId, OperationId, Version};
use momo::base::path::FilePath;
use momo::base::random::Random;
use momo::base::time::Wall;
use momo::config::Config;
use momo::doors::DOORS;
use momo::engine::frame::{FrameStream, SharedSocket};
use momo::engine::handshake::{self, Identity, Role, Secret};
use momo::engine::serve::rows;
use momo::wire::command::{Birth, BirthMember, Command, Expect, Operation, PlacedPart, Put, Reply};
use momo::wire::first::first;
use momo::wire::momo::{Metadata, ack, print_ack, print_timestamp, timestamp};
use momo::wire::parsed::Parsed;
use momo::wire::peer::{Answer, BodyEnd, HEADER_BYTES, Kind, Message, Request, SnapshotHead};
use momo::wire::record::{
    Administrative, Copy, FileRecord, ModeRecord, NodeRecord, ObjectRecord, Part, from_row, to_row,
};
use momo::wire::text::{self, ContentHead, ListRow, Stated, Stored, Verdict, verdict};
use momo::wire::{admin, change, command, lines as catalog};
use protobuf::Message as _;
use raft::eraftpb;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::mutate::draw;
use crate::{disks, doors, first, log, momo_header, peer, text as lines};

/// A row of the table.
pub struct Format {
    /// Its name, which is that of its folder in the corpus.
    pub name: &'static str,
    /// One input costs as much as so many cheap ones.
    pub cost: u32,
    /// A valid input.
    pub sample: fn(&mut Random) -> Vec<u8>,
    /// Makes checksums right again, so that what is behind them is reached.
    pub mend: fn(&mut [u8]),
    /// Panics where the law is broken. Gives a short word for what became of the input: a new word makes it worth keeping.
    pub law: fn(&[u8]) -> String,
}

const fn format(
    name: &'static str,
    cost: u32,
    sample: fn(&mut Random) -> Vec<u8>,
    law: fn(&[u8]) -> String,
) -> Format {
    Format {
        name,
        cost,
        sample,
        mend: |_| {},
        law,
    }
}

const fn mended(mut format: Format, mend: fn(&mut [u8])) -> Format {
    format.mend = mend;
    format
}

/// All formats that others write and this program reads: on the wire, then on the disk.
pub const FORMATS: &[Format] = &[
    format("first", 1, |r| draw(&first::beginnings(), r), first_bytes),
    format("momo", 1, momo_sample, momo_header),
    format("ack", 1, ack_sample, ack_law),
    format("change", 1, change_sample, change_law),
    format("change-answer", 1, change_answer_sample, change_answer),
    format("command-line", 1, command_sample, command_line),
    format("text-reply", 1, reply_sample, text_reply),
    format("listing", 1, listing_sample, listing),
    format("session", 60, |r| draw(&doors::conversation(), r), session),
    mended(format("frame", 10, frame_sample, frames), mend_frames),
    format("message", 2, |r| json(&draw(&peer::message(), r)), message),
    format(
        "request",
        2,
        |r| json(&draw(&peer::request(), r)),
        value::<Request>,
    ),
    format(
        "answer",
        2,
        |r| json(&draw(&peer::answer(), r)),
        value::<Answer>,
    ),
    format("body-end", 1, body_end_sample, value::<BodyEnd>),
    format("snapshot-head", 1, head_sample, value::<SnapshotHead>),
    format("admin-request", 2, admin_sample, value::<admin::Request>),
    format(
        "admin-answer",
        2,
        admin_answer_sample,
        value_of_figures::<admin::Answer>,
    ),
    format("catalog-line", 2, line_sample, catalog_line),
    format("handshake-listener", 10, hello_sample, listener),
    format("handshake-dialler", 10, hello_answer_sample, dialler),
    format("raft", 2, raft_sample, raft_message),
    format("command", 2, |r| json(&command_of(r)), value::<Command>),
    format("reply", 1, reply_json_sample, value::<Reply>),
    format("birth", 1, birth_sample, value::<Birth>),
    format(
        "row-file",
        2,
        |r| json(&file_record(r)),
        value::<FileRecord>,
    ),
    format("row-object", 1, object_sample, value::<ObjectRecord>),
    format("row-node", 1, node_sample, value::<NodeRecord>),
    format("row-mode", 1, mode_sample, value::<ModeRecord>),
    format("snapshot-rows", 1, rows_sample, snapshot_rows),
    mended(format("log", 30, log::sample, log::law), log::mend),
    format("config", 5, config_sample, config),
    format("attribute", 60, disks::attribute_sample, disks::attribute),
    format("checksums", 60, disks::checksums_sample, disks::checksums),
    format("mark", 400, disks::mark_sample, disks::mark),
    format("boot", 400, disks::boot_sample, disks::boot),
];

/// A text of a message that names no particular input: digits and quoted words are left out.
pub fn gist(text: &str) -> String {
    let mut gist = String::new();
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            None if c.is_ascii_digit() && gist.ends_with('#') => {}
            None if c.is_ascii_digit() => gist.push('#'),
            None if c.is_ascii() => gist.push(c),
            _ => {}
        }
    }
    gist.truncate(100);
    gist
}

/// The first word of a value's debugging text: which variant it is.
fn variant(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    let word = |c: char| c.is_alphanumeric();
    text.chars().take_while(|c| word(*c)).collect()
}

// Laws of grammars.

/// Lengths at which a prefix of `bytes` is looked at: all of a short input, some of a long one.
fn lengths(bytes: &[u8], around: usize) -> Vec<usize> {
    let last = bytes.len();
    if last <= 200 {
        return (0..=last).collect();
    }
    let near = around.saturating_sub(2)..=(around + 2).min(last);
    let mut lengths: Vec<usize> = (0..40).chain(near).chain([last]).collect();
    lengths.extend((1..20).map(|nth| last * nth / 20));
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// A value takes at most what there is and follows from what it took; bytes that come later do not change what was decided.
fn streamed<T: Debug + PartialEq, E: Debug + PartialEq>(
    bytes: &[u8],
    parse: impl for<'a> Fn(&'a [u8], bool) -> Parsed<T, E>,
) -> Parsed<T, E> {
    let whole = parse(bytes, false);
    let took = match &whole {
        Parsed::Complete { consumed, .. } => {
            assert!(*consumed <= bytes.len() && *consumed > 0);
            assert_eq!(parse(&bytes[..*consumed], false), whole);
            *consumed
        }
        _ => 0,
    };
    let mut decided = false;
    for length in lengths(bytes, took) {
        let now = parse(&bytes[..length], false);
        if decided || now != Parsed::Incomplete {
            assert_eq!(now, whole, "{length} bytes decide something else");
            decided = true;
        }
    }
    whole
}

fn outcome<T: Debug, E: Debug>(parsed: &Parsed<T, E>) -> String {
    match parsed {
        Parsed::Incomplete => "incomplete".to_owned(),
        Parsed::Complete { value, .. } => format!("complete {}", variant(value)),
        Parsed::Malformed(why) => format!("malformed {}", gist(&format!("{why:?}"))),
    }
}

fn printed(print: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    print(&mut out);
    out
}

fn first_bytes(bytes: &[u8]) -> String {
    let mut decided = None;
    for length in lengths(bytes, 0) {
        let now = first(&bytes[..length], false);
        match decided {
            Some(before) => assert_eq!(now, before),
            None if now != momo::wire::first::First::Undecided => decided = Some(now),
            None => assert!(length < momo::wire::first::DECIDED_BYTES),
        }
    }
    let ended = first(bytes, true);
    assert!(decided.is_none_or(|decided| decided == ended));
    format!("{decided:?} {ended:?}")
}

fn momo_sample(random: &mut Random) -> Vec<u8> {
    let metadata = draw(&momo_header::metadata(), random);
    let mut bytes = Vec::new();
    if random.one_in(2) {
        print_timestamp(random.next(), &mut bytes);
    } else {
        metadata.print(&mut bytes);
    }
    bytes
}

fn momo_header(bytes: &[u8]) -> String {
    let time = streamed(bytes, |bytes, _| timestamp(bytes));
    let head = streamed(bytes, |bytes, _| Metadata::parse(bytes));
    if let Parsed::Complete { value, .. } = &head {
        assert!(!value.name.as_str().contains('/'));
        let again = printed(|out| value.print(out));
        assert_eq!(
            Metadata::parse(&again),
            Parsed::complete(value.clone(), again.len())
        );
    }
    if let Parsed::Complete { value, consumed } = time {
        assert_eq!(
            printed(|out| print_timestamp(value, out)),
            bytes[..consumed]
        );
    }
    format!("{} {}", outcome(&time), outcome(&head))
}

fn ack_sample(random: &mut Random) -> Vec<u8> {
    printed(|out| print_ack(NodeId(random.next().to_le_bytes()[0].into()), out))
}

fn ack_law(bytes: &[u8]) -> String {
    let (open, ended) = (ack(bytes, false), ack(bytes, true));
    assert!(
        !matches!(open, Parsed::Complete { .. }),
        "it ends with the connection"
    );
    assert_ne!(ended, Parsed::Incomplete);
    if matches!(open, Parsed::Malformed(_)) {
        assert_eq!(ended, open);
    }
    if let Parsed::Complete { consumed, .. } = ended {
        assert_eq!(consumed, bytes.len());
    }
    format!("{} {}", outcome(&open), outcome(&ended))
}

fn change_sample(random: &mut Random) -> Vec<u8> {
    printed(|out| draw(&crate::change::triple(), random).print(out))
}

fn change_law(bytes: &[u8]) -> String {
    let parsed = streamed(bytes, change::parse);
    assert_ne!(change::parse(bytes, true), Parsed::Incomplete);
    outcome(&parsed)
}

fn change_answer_sample(random: &mut Random) -> Vec<u8> {
    let answer = match random.below(2) {
        0 => change::Answer::Changed(draw(&crate::change::triple(), random)),
        _ => change::Answer::Refused("too slow".to_owned()),
    };
    printed(|out| answer.print(out))
}

fn change_answer(bytes: &[u8]) -> String {
    let Some(answer) = change::Answer::parse(bytes) else {
        return "no answer".to_owned();
    };
    let again = printed(|out| answer.print(out));
    assert_eq!(change::Answer::parse(&again).as_ref(), Some(&answer));
    variant(&answer)
}

fn command_sample(random: &mut Random) -> Vec<u8> {
    printed(|out| draw(&lines::request(), random).print(out))
}

fn one_line(bytes: &[u8]) -> &str {
    let text = std::str::from_utf8(bytes).expect("text");
    let line = text.strip_suffix('\n').expect("a line end");
    assert!(!line.contains('\n'), "one line: {text:?}");
    line
}

fn command_line(bytes: &[u8]) -> String {
    let owned = |bytes: &[u8], ended| match text::line(bytes, ended) {
        Parsed::Complete { value, consumed } => Parsed::complete(value.to_owned(), consumed),
        Parsed::Incomplete => Parsed::Incomplete,
        Parsed::Malformed(why) => Parsed::Malformed(why),
    };
    let parsed = streamed(bytes, owned);
    let Parsed::Complete { value: line, .. } = owned(bytes, true) else {
        return outcome(&parsed);
    };
    assert!(!line.contains('\n'));
    match text::command(&line) {
        Ok(request) => {
            let again = printed(|out| request.print(out));
            assert_eq!(text::command(one_line(&again)).as_ref(), Ok(&request));
            variant(&request)
        }
        Err(bad) => {
            // What is answered is one line, however long or odd the command was.
            let answer = printed(|out| text::print_error(&bad.why.to_string(), out));
            assert!(one_line(&answer).len() < 2_048);
            format!("bad {} {}", variant(&bad.why), bad.body_follows)
        }
    }
}

fn reply_sample(random: &mut Random) -> Vec<u8> {
    let (sha256, version) = (draw(&crate::sha256(), random), Version(random.next()));
    match random.below(4) {
        0 => printed(|out| {
            Stored { sha256, version, copies: random.below(9) }.print(out);
        }),
        1 => printed(|out| {
            let (size, stale) = (random.below(1 << 40), random.one_in(2));
            ContentHead { size, sha256, version, stale }.print(out);
        }),
        2 => {
            let mode = from_row::<ModeRecord>(&mode_sample(random)).expect("a row");
            printed(|out| text::print_mode(&mode, out))
        }
        _ => format!(
            "name=a/b\nversion={version}\nsize=7\nsha256={sha256}\nstrategy=chain\nclass=default\nwant=3\n\
             created=2026-11-21T01:00:00Z\nmodified=2026-11-21T01:00:00Z\npart=7 {sha256} 0,1,2\n\
             earlier=5,3\nstale=false\n"
        )
        .into_bytes(),
    }
}

fn text_reply(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut gist = String::new();
    for line in text.lines().take(200) {
        let rest = match verdict(line) {
            Verdict::Ok(rest) => rest,
            Verdict::Err(_) => continue,
            Verdict::Line(_) => line,
        };
        if let Some(stored) = Stored::parse(rest) {
            let again = printed(|out| stored.print(out));
            let Verdict::Ok(rest) = verdict(one_line(&again)) else {
                panic!("{again:?}");
            };
            assert_eq!(Stored::parse(rest), Some(stored));
            "stored".clone_into(&mut gist);
        }
        if let Some(head) = ContentHead::parse(rest) {
            let again = printed(|out| head.print(out));
            let Verdict::Ok(rest) = verdict(one_line(&again)) else {
                panic!("{again:?}");
            };
            assert_eq!(ContentHead::parse(rest), Some(head));
            gist = format!("content stale={}", head.stale);
        }
        if let Some(mode) = text::parse_mode(line) {
            let again = printed(|out| text::print_mode(&mode, out));
            let read = text::parse_mode(one_line(&again)).expect("what was printed");
            assert_eq!(
                (read.old, read.new, read.timestamp),
                (mode.old, mode.new, mode.timestamp)
            );
            "mode".clone_into(&mut gist);
        }
    }
    if let Some(stated) = Stated::parse(text.lines()) {
        let again = printed(|out| stated.print(out));
        let again = String::from_utf8(again).expect("text");
        let read = Stated::parse(again.lines()).expect("what was printed");
        assert_eq!(
            (read.version, read.size, &read.parts),
            (stated.version, stated.size, &stated.parts)
        );
        let _ = write!(gist, " stated {}", stated.parts.len().min(2));
    }
    gist
}

fn listing_sample(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.below(4) {
        let name = draw(&crate::name(), random).as_str().to_owned();
        ListRow {
            name,
            start: 7_000,
            size: random.below(1 << 50),
        }
        .print(&mut out);
    }
    out
}

fn listing(bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut rows = 0;
    loop {
        let parsed = streamed(rest, |bytes, _| ListRow::parse(bytes));
        let Parsed::Complete { value, consumed } = &parsed else {
            return format!("{} rows, {}", rows.min(3), outcome(&parsed));
        };
        let again = printed(|out| value.print(out));
        assert_eq!(
            ListRow::parse(&again),
            Parsed::complete(value.clone(), again.len())
        );
        rest = &rest[*consumed..];
        rows += 1;
        if rows == 50 {
            return "many rows".to_owned();
        }
    }
}

/// The doors: they end, and answer the same whether the bytes come at once or one by one.
fn session(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(8 * 1024)];
    let ones: Vec<&[u8]> = bytes.chunks(1).collect();
    let mut gist = String::new();
    for door in DOORS {
        let (whole, end) = doors::answer(door, &[bytes]);
        let (pieces, other) = doors::answer(door, &ones);
        if end == crate::fake::End::Reset {
            assert_eq!(other, crate::fake::End::Reset, "{}", door.name);
            assert!(pieces.starts_with(&whole), "{}", door.name);
        } else {
            assert_eq!(pieces, whole, "{}", door.name);
        }
        if door.name == "text" {
            let text = String::from_utf8_lossy(&whole);
            let words = text.lines().filter_map(|line| line.split(' ').next());
            let words: std::collections::BTreeSet<_> = words.map(gist_word).collect();
            gist = format!("{end:?} {:?}", words.iter().take(3).collect::<Vec<_>>());
        }
    }
    gist
}

fn gist_word(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_uppercase()) {
        word.to_owned()
    } else {
        "-".to_owned()
    }
}

// Laws of values in JSON.

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    to_row(value)
}

/// What parses is printed and read back the same, and a field that a later program adds does not disturb it.
fn value<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8]) -> String {
    value_but(bytes, |value: &T| format!("{value:?}"))
}

fn value_but<T: Serialize + DeserializeOwned + Debug>(
    bytes: &[u8],
    seen: impl Fn(&T) -> String,
) -> String {
    let value: T = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return format!("{:?} {}", error.classify(), gist(&error.to_string())),
    };
    let again = serde_json::to_vec(&value).expect("what was read can be written");
    let read: T = serde_json::from_slice(&again).expect("what was written can be read");
    assert_eq!(seen(&read), seen(&value));
    if let Some(rest) = again.strip_prefix(b"{").filter(|rest| rest != b"}") {
        let later = [b"{\"zz_later\":{\"a\":[1,null]},", rest].concat();
        // An enum whose only key is its variant's name has no room for another.
        if let Ok(read) = serde_json::from_slice::<T>(&later) {
            assert_eq!(seen(&read), seen(&value));
        }
    }
    variant(&value)
}

/// A load figure may lose its last bit on the way through JSON, which is of no account.
fn message(bytes: &[u8]) -> String {
    value_but(bytes, |message: &Message| match message {
        Message::Heartbeat { boot, figures } => format!(
            "{boot:?} {} {} {} {:?}",
            figures.total_bytes, figures.free_bytes, figures.connections, figures.version
        ),
        message => format!("{message:?}"),
    })
}

fn admin_sample(random: &mut Random) -> Vec<u8> {
    let node = NodeId(draw(&(0..3_u16), random));
    json(&match random.below(6) {
        0 => admin::Request::Nodes {
            since: random.below(9),
        },
        1 => admin::Request::Roster,
        2 => admin::Request::Administer {
            node,
            state: Administrative::Readonly,
        },
        3 => admin::Request::Export,
        4 => admin::Request::Scrub {
            begin: random.one_in(2),
        },
        _ => admin::Request::Import {
            files: vec![entry(random)],
            begun: true,
            dry_run: random.one_in(2),
        },
    })
}

fn admin_answer_sample(random: &mut Random) -> Vec<u8> {
    let message = "it is needed".to_owned();
    json(&match random.below(4) {
        0 => admin::Answer::Done {
            index: random.next(),
        },
        1 => admin::Answer::Export,
        2 => admin::Answer::Imported {
            outcomes: vec![admin::Outcome::Same, admin::Outcome::Refused { message }],
        },
        _ => admin::Answer::Refused {
            code: command::Code::Unavailable,
            message,
        },
    })
}

/// As `value`, where load figures may lose their last bit.
fn value_of_figures<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8]) -> String {
    value_but(bytes, |value: &T| variant(value))
}

fn entry(random: &mut Random) -> catalog::Entry {
    let placed = |random: &mut Random| catalog::Placed {
        record: file_record(random),
        copies: vec![copies(random)],
    };
    catalog::Entry {
        newest: placed(random),
        earlier: vec![placed(random)],
    }
}

fn line_sample(random: &mut Random) -> Vec<u8> {
    let line = match random.below(3) {
        0 => catalog::Line::Node(from_row(&node_sample(random)).expect("a row")),
        1 => catalog::Line::File(entry(random)),
        _ => catalog::Line::End(catalog::End {
            files: 3,
            versions: random.next(),
        }),
    };
    printed(|out| line.print(out))
}

/// A line of a copy of the catalog, which an operator may have edited.
fn catalog_line(bytes: &[u8]) -> String {
    let line = match catalog::Line::parse(bytes) {
        Ok(line) => line,
        Err(why) => return gist(&why),
    };
    let again = printed(|out| line.print(out));
    one_line(&again);
    let read = catalog::Line::parse(&again).expect("what was printed");
    assert_eq!(format!("{read:?}"), format!("{line:?}"));
    variant(&line)
}

fn body_end_sample(random: &mut Random) -> Vec<u8> {
    let sha256 = (!random.one_in(3)).then(|| draw(&crate::sha256(), random));
    json(&BodyEnd { sha256 })
}

fn head_sample(random: &mut Random) -> Vec<u8> {
    json(&SnapshotHead {
        index: random.next(),
        term: random.below(100),
        voters: vec![1, 2, 3],
        learners: Vec::new(),
    })
}

fn upload(random: &mut Random) -> OperationId {
    OperationId {
        node: NodeId(2),
        boot: Boot(random.next()),
        sequence: random.below(1_000),
    }
}

fn copies(random: &mut Random) -> Vec<Copy> {
    let copy = |node| Copy {
        node: NodeId(node),
        dir: momo::base::id::DirId(u64::from(node) * 77),
    };
    (0..draw(&(0..4_u16), random)).map(copy).collect()
}

fn command_of(random: &mut Random) -> Command {
    let sha256 = draw(&crate::sha256(), random);
    let (path, id) = (draw(&crate::name(), random), upload(random));
    let copy = Copy {
        node: NodeId(1),
        dir: momo::base::id::DirId(random.next()),
    };
    let operation = match random.below(12) {
        0 => Operation::Put(Put {
            upload: upload(random),
            path,
            size: 7,
            sha256,
            md5: random.one_in(2).then(|| draw(&crate::md5(), random)),
            strategy: "chain".to_owned(),
            class: "default".to_owned(),
            parts: vec![PlacedPart {
                part: Part { size: 7, sha256 },
                copies: copies(random),
            }],
            want: 3,
            min: 2,
            expect: [Expect::Any, Expect::Absent, Expect::Version(Version(9))]
                [draw(&(0..3_usize), random)],
            owner: None,
            time: Wall(random.next()),
        }),
        1 => Operation::Delete {
            path,
            expect: Expect::Any,
        },
        2 => Operation::AddCopy {
            sha256,
            size: random.next(),
            copy,
        },
        3 => Operation::DropCopy {
            sha256,
            copy,
            others: 2,
        },
        4 => Operation::Abandon { upload: id },
        5 => Operation::SetMode {
            new: draw(&crate::mode(), random),
            timestamp: random.next(),
            cause: "x".to_owned(),
        },
        6 => Operation::Register {
            node: NodeId(1),
            name: "b".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            dirs: vec![copy.dir],
            stores: true,
            manages: true,
            boot: Boot(7),
            knows: command::KNOWS,
        },
        7 => Operation::Observe {
            node: NodeId(1),
            alive: false,
            boot: Boot(7),
        },
        8 => Operation::GiveUp {
            node: NodeId(1),
            boot: Boot(7),
        },
        9 => Operation::Compared {
            node: NodeId(1),
            boot: Boot(7),
        },
        10 => Operation::Recount,
        _ => Operation::Administer {
            node: NodeId(1),
            state: Administrative::Drain,
        },
    };
    Command {
        v: 1,
        id,
        operation,
    }
}

fn reply_json_sample(random: &mut Random) -> Vec<u8> {
    json(&match random.below(2) {
        0 => Reply::Done {
            version: Version(random.next()),
        },
        _ => Reply::Rejected {
            code: command::Code::Conflict,
            message: "it is a folder".to_owned(),
        },
    })
}

fn birth_sample(random: &mut Random) -> Vec<u8> {
    let member = BirthMember {
        id: NodeId(0),
        name: "a".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        votes: true,
        stores: true,
        manages: true,
    };
    json(&Birth {
        cluster: ClusterId(random.next().into()),
        members: vec![member],
        mode: draw(&crate::mode(), random),
        time: Wall(random.next()),
    })
}

fn file_record(random: &mut Random) -> FileRecord {
    let sha256 = draw(&crate::sha256(), random);
    FileRecord {
        path: draw(&crate::name(), random),
        version: Version(random.next()),
        size: 7,
        sha256,
        md5: random.one_in(2).then(|| draw(&crate::md5(), random)),
        strategy: "splay".to_owned(),
        class: "default".to_owned(),
        parts: vec![Part { size: 7, sha256 }],
        want: 3,
        owner: random.one_in(2).then(|| "zed".to_owned()),
        created: Wall(random.next()),
        modified: Wall(random.next()),
        upload: upload(random),
    }
}

fn object_sample(random: &mut Random) -> Vec<u8> {
    json(&ObjectRecord {
        size: 7,
        copies: copies(random),
        references: 2,
        want: 3,
        owed: random.one_in(2).then_some(1),
        over: random.one_in(2),
    })
}

fn node_sample(random: &mut Random) -> Vec<u8> {
    json(&NodeRecord {
        id: NodeId(3),
        name: "d".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        manages: true,
        stores: random.one_in(2),
        administrative: Administrative::Readonly,
        alive: true,
        dirs: vec![momo::base::id::DirId(random.next())],
        boot: Boot(random.next()),
        knows: 1,
        lost: random.one_in(2),
        gone: if random.one_in(2) {
            vec![momo::base::id::DirId(random.next())]
        } else {
            Vec::new()
        },
    })
}

fn mode_sample(random: &mut Random) -> Vec<u8> {
    json(&ModeRecord {
        old: draw(&crate::mode(), random),
        new: draw(&crate::mode(), random),
        timestamp: random.next(),
        cause: "text door, 127.0.0.1:5".to_owned(),
    })
}

// Laws of binary formats.

fn rows_sample(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.below(5) {
        let key = vec![b'k'; draw(&(0..40_usize), random)];
        let table = draw(&(0..10_usize), random);
        out.extend(rows::print(table, &key, &json(&file_record(random))).expect("a short row"));
    }
    out
}

fn snapshot_rows(bytes: &[u8]) -> String {
    let (mut rest, mut count) = (bytes, 0);
    while let Some(((table, key, value), after)) = rows::parse(rest) {
        assert!(after.len() < rest.len());
        let number = momo::base::table::Table::ALL
            .iter()
            .position(|other| *other == table);
        if let Ok(again) = rows::print(number.expect("a table"), &key, &value) {
            assert_eq!(again, rest[..rest.len() - after.len()]);
        }
        (rest, count) = (after, count + 1);
    }
    format!(
        "{} rows, {}",
        count.min(4),
        if rest.is_empty() { "whole" } else { "cut" }
    )
}

/// Two ends of a connection that needs no port.
fn pair() -> (TcpStream, TcpStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let tcp = |end: UnixStream| TcpStream::from(OwnedFd::from(end));
    (tcp(ours), tcp(theirs))
}

/// The far end has sent `bytes` and sends no more. What it is told goes nowhere.
fn after(bytes: &[u8]) -> (TcpStream, TcpStream) {
    let (near, mut far) = pair();
    far.write_all(bytes).expect("room for an input");
    far.shutdown(Shutdown::Write).expect("the end of the input");
    (near, far)
}

fn frame_sample(random: &mut Random) -> Vec<u8> {
    let (near, mut far) = pair();
    let mut stream = FrameStream::new(BufReader::new(SharedSocket::new(
        Arc::new(near),
        Vec::new(),
    )));
    for _ in 0..=random.below(3) {
        match random.below(3) {
            0 => stream
                .queue(&draw(&peer::request(), random))
                .expect("a frame"),
            1 => stream.queue_raft(&raft_sample(random)).expect("a frame"),
            _ => {
                let block = vec![7; draw(&(0..3_000_usize), random)];
                stream.queue_block(&block, crc32c(&block)).expect("a frame");
            }
        }
    }
    stream.flush().expect("frames");
    drop(stream);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).expect("frames");
    bytes
}

fn mend_frames(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let from = at + HEADER_BYTES;
        let Some(payload) = from.checked_add(length).and_then(|to| bytes.get(from..to)) else {
            return;
        };
        let crc = crc32c(payload).to_le_bytes();
        bytes[at + 8..from].copy_from_slice(&crc);
        at = from + length;
    }
}

fn receive_all(bytes: &[u8], ahead: usize) -> (Vec<(Kind, Vec<u8>)>, io::Error) {
    let (ahead, rest) = bytes.split_at(ahead.min(bytes.len()));
    let (near, _far) = after(rest);
    let socket = SharedSocket::new(Arc::new(near), ahead.to_vec());
    let mut stream = FrameStream::new(BufReader::with_capacity(1_024, socket));
    let (mut frames, mut payload) = (Vec::new(), Vec::new());
    loop {
        match stream.receive(&mut payload) {
            Ok(received) => frames.push((received.kind, payload.clone())),
            Err(error) => return (frames, error),
        }
        assert!(payload.len() <= bytes.len());
    }
}

fn frames(bytes: &[u8]) -> String {
    let (frames, error) = receive_all(bytes, 0);
    let (again, other) = receive_all(bytes, bytes.len() / 3);
    assert_eq!(
        frames, again,
        "the same whether read before or after the handshake"
    );
    assert_eq!(error.kind(), other.kind());
    // What was received is sent as the same bytes.
    let (near, mut far) = pair();
    let mut stream = FrameStream::new(BufReader::new(SharedSocket::new(
        Arc::new(near),
        Vec::new(),
    )));
    for (kind, payload) in &frames {
        match kind {
            Kind::Raft => stream.queue_raft(payload).expect("a frame"),
            Kind::Block => stream
                .queue_block(payload, crc32c(payload))
                .expect("a frame"),
            Kind::Control => {
                // Any JSON value is sent as it prints; only its frame is compared below.
                stream.flush().expect("frames");
                return format!("{} frames, {:?}", frames.len().min(3), error.kind());
            }
        }
    }
    stream.flush().expect("frames");
    drop(stream);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).expect("frames");
    assert_eq!(sent, bytes[..sent.len()]);
    format!("{} plain frames, {:?}", frames.len().min(3), error.kind())
}

fn identity(node: u16) -> Identity {
    Identity {
        node: NodeId(node),
        cluster: Some(ClusterId(7)),
        secret: Secret(b"the cluster's secret".to_vec()),
    }
}

fn hello_sample(random: &mut Random) -> Vec<u8> {
    let (near, mut far) = pair();
    drop(far.shutdown(Shutdown::Write));
    let role = if random.one_in(2) {
        Role::Bulk
    } else {
        Role::Control
    };
    let patience = Duration::from_millis(50);
    drop(handshake::dial(
        near,
        &identity(1),
        NodeId(0),
        role,
        patience,
    ));
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).expect("a hello");
    bytes.extend([5; 32]);
    bytes
}

/// Whoever does not know the secret is not let in, and is told nothing but who is asked.
fn listener(bytes: &[u8]) -> String {
    let (near, mut far) = after(bytes);
    let input = BufReader::new(SharedSocket::new(Arc::new(near), Vec::new()));
    let Err(error) = handshake::accept(input, &identity(0), Duration::from_secs(20)) else {
        panic!("a stranger is let in");
    };
    let mut told = Vec::new();
    drop(far.read_to_end(&mut told));
    assert!(told.len() <= 2 + 16 + 32 + 32);
    gist(&format!("{:?} {error}", error.kind()))
}

fn hello_answer_sample(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(7_u128.to_be_bytes());
    bytes.extend((0..8).flat_map(|_| random.next().to_le_bytes()));
    bytes.push(1);
    bytes
}

fn dialler(bytes: &[u8]) -> String {
    let (near, _far) = after(bytes);
    let patience = Duration::from_secs(20);
    let Err(error) = handshake::dial(near, &identity(1), NodeId(0), Role::Bulk, patience) else {
        panic!("a stranger is believed");
    };
    gist(&format!("{:?} {error}", error.kind()))
}

fn raft_sample(random: &mut Random) -> Vec<u8> {
    let mut message = eraftpb::Message {
        from: 2,
        to: 1,
        term: random.below(9),
        index: random.below(100),
        ..eraftpb::Message::default()
    };
    message.set_msg_type(eraftpb::MessageType::MsgAppend);
    let entry = eraftpb::Entry {
        index: 5,
        term: 2,
        data: json(&command_of(random)).into(),
        ..eraftpb::Entry::default()
    };
    message.mut_entries().push(entry);
    message.write_to_bytes().expect("a message")
}

fn raft_message(bytes: &[u8]) -> String {
    match eraftpb::Message::parse_from_bytes(bytes) {
        Ok(message) => {
            let again = message
                .write_to_bytes()
                .expect("what was read can be written");
            assert_eq!(
                eraftpb::Message::parse_from_bytes(&again).ok(),
                Some(message)
            );
            "a message".to_owned()
        }
        Err(error) => gist(&error.to_string()),
    }
}

// The configuration.

fn config_sample(random: &mut Random) -> Vec<u8> {
    const EXAMPLES: [&str; 3] = [
        include_str!("../../conf/momo.conf"),
        include_str!("../../conf/local.conf"),
        "[daemon.0]\nhost=127.0.0.1:3333\nchange_replication=127.0.0.1:2223\ndata=\"d;1\"\ndrive=/dev/sda\n",
    ];
    let text = EXAMPLES[draw(&(0..3_usize), random)];
    // Only some lines of it: mutations of a long file mostly hit comments.
    let lines = text
        .lines()
        .filter(|line| !(line.is_empty() || line.starts_with("# ") || random.one_in(6)));
    let lines: Vec<&str> = lines.map(|line| line.trim_start_matches('#')).collect();
    (lines.join("\n") + "\n").into_bytes()
}

/// What parses is printed as a file that parses to the same.
fn config(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let file = Path::new("momo.conf");
    match Config::parse(&text, file) {
        Ok(config) => {
            let printed = config.print();
            let again = Config::parse(&printed, file);
            let values = |config: &Config| {
                let settings = config.effective().into_iter();
                settings
                    .map(|s| (s.section, s.key, s.value))
                    .collect::<Vec<_>>()
            };
            match again {
                Ok(again) => assert_eq!(values(&again), values(&config)),
                Err(errors) => panic!("{printed}\n{errors:?}"),
            }
            "a configuration".to_owned()
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.lines().count();
            assert!(errors.iter().all(|error| error.line <= lines.max(1)));
            let first = errors.first().map(|error| gist(&error.why));
            first.unwrap_or_default()
        }
    }
}

/// A path that was accepted stays under the directory it is used in.
#[test]
fn no_name_leaves_its_directory() {
    let mut random = Random::new(5);
    for _ in 0..20_000 {
        let mut bytes = draw(&crate::name(), &mut random)
            .as_str()
            .as_bytes()
            .to_vec();
        crate::mutate::mutate(&mut bytes, b"../.momo/x", &mut random);
        if let Ok(path) = FilePath::new(&String::from_utf8_lossy(&bytes)) {
            let mut depth = 0;
            for component in Path::new(path.as_str()).components() {
                assert!(
                    matches!(component, std::path::Component::Normal(_)),
                    "{path}"
                );
                depth += 1;
            }
            assert!(depth > 0);
        }
    }
}

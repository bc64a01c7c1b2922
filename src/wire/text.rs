//! The text protocol: `<NOUN> <VERB> [arguments]`, a command a line, as a person types it into netcat.
//!
//! A line ends with LF or CRLF; the last one may end with the input. Nouns and verbs are taken in any case. Blank lines are ignored.
//! Many commands go over one connection; a reply ends with a line `OK...`, or is the one line `ERR <why>`.
//!
//! | command | reply |
//! |---|---|
//! | `FILE PUT <size> [key=value ...] -- <name>` + bytes | `OK <sha256> version=<n> copies=<k>` |
//! | `FILE GET <name> [version <n>]` | `OK <size> <sha256> <version>` (and ` stale`) + bytes |
//! | `FILE PUSH <size> <name>` + bytes | one line about chunks, `OK` |
//! | `FILE PULL <name>` | the bytes alone, then the end of the connection |
//! | `FILE LIST` | CSV `name,start,size` (`name,start,size,stale` heads a stale one), then the end of the connection |
//! | `FILE STAT <name>` | `key=value` lines, `OK` |
//! | `MODE`, `MODE <n>`, `MODE HISTORY` | lines `MODE <digit> <name> old=<digit> timestamp=<ns> cause=<text>`, `OK` |
//!
//! A name is the rest of the line behind one blank, so it may hold blanks. A name that itself ends in ` version <digits>` is asked for
//! with ` version 0` behind it, which means the newest. Keys of `FILE PUT`: strategy, class, sha256, md5, expect (any, absent, or a version number).
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use std::fmt::{self, Write as _};

use super::command::Expect;
use super::parsed::{Parsed, number};
use super::record::{Mode, ModeRecord};
use crate::base::digest::{Md5, Sha256};
use crate::base::id::{NodeId, Version};
use crate::base::limit::{FILE_BYTES, LINE_BYTES};
use crate::base::path::{BadPath, FilePath};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An empty line: nothing is answered.
    Blank,
    /// `FILE PUT`: the bytes follow.
    Put(PutHead),
    /// `FILE GET`.
    Get {
        /// The name.
        name: FilePath,
        /// Which version; `None` for the newest.
        version: Option<Version>,
    },
    /// `FILE PUSH`: the bytes follow.
    Push {
        /// How many.
        size: u64,
        /// The name.
        name: FilePath,
    },
    /// `FILE PULL`.
    Pull {
        /// The name.
        name: FilePath,
    },
    /// `FILE LIST`.
    List,
    /// `FILE STAT`.
    Stat {
        /// The name.
        name: FilePath,
    },
    /// `FILE DELETE`.
    Delete {
        /// The name.
        name: FilePath,
    },
    /// `NODE STATUS`.
    NodeStatus,
    /// `NODE PING`.
    NodePing,
    /// `NODE HELP`.
    NodeHelp,
    /// `NETMAP GET`.
    NetmapGet,
    /// `STATUS`.
    Status,
    /// `STATUS JSON`.
    StatusJson,
    /// `MODE`.
    Mode,
    /// `MODE <n>`.
    SetMode(Mode),
    /// `MODE HISTORY`.
    ModeHistory,
    /// `HELP`.
    Help,
    /// `QUIT`.
    Quit,
}

/// The head of a `FILE PUT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutHead {
    /// Bytes that follow the line.
    pub size: u64,
    /// Strategy by name; `None` for the mode in force.
    pub strategy: Option<String>,
    /// Class by name; `None` for the default.
    pub class: Option<String>,
    /// Digest the bytes must have.
    pub sha256: Option<Sha256>,
    /// The same for MD5.
    pub md5: Option<Md5>,
    /// What must be under the name.
    pub expect: Expect,
    /// The name.
    pub name: FilePath,
}

impl PutHead {
    /// A put of `size` bytes under `name` that asks for nothing in particular.
    pub const fn plain(size: u64, name: FilePath) -> Self {
        Self {
            size,
            strategy: None,
            class: None,
            sha256: None,
            md5: None,
            expect: Expect::Any,
            name,
        }
    }
}

/// Bytes that are not a line: the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// Over [`LINE_BYTES`].
    TooLong,
    /// Not UTF-8.
    NotUtf8,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "line too long (at most {LINE_BYTES} bytes)"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
        }
    }
}

impl std::error::Error for BadLine {}

/// A line that is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCommand {
    /// What is wrong with it.
    pub why: Why,
    /// Bytes follow that cannot be told from commands: answer and close.
    pub body_follows: bool,
}

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The first word is no noun.
    UnknownNamespace(String),
    /// The second word is no verb of this noun.
    UnknownVerb(&'static str),
    /// No name where this command wants one.
    MissingName(&'static str),
    /// The name cannot be one.
    BadName(BadPath),
    /// The size is not digits, or over [`FILE_BYTES`].
    InvalidSize(&'static str),
    /// No ` -- ` before the name.
    MissingSeparator(&'static str),
    /// An option that is unknown, comes twice or has a value it cannot have.
    BadOption(&'static str, String),
    /// More words than the command takes.
    Unexpected(&'static str),
    /// A mode other than 0 to 3.
    InvalidMode,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace(noun) => write!(f, "unknown command namespace: '{noun}'"),
            Self::UnknownVerb(noun) => write!(f, "unknown {noun} command"),
            Self::MissingName(command) => write!(f, "missing file name for {command}"),
            Self::BadName(why) => why.fmt(f),
            Self::InvalidSize(command) => write!(f, "invalid size for {command}"),
            Self::MissingSeparator(command) => {
                write!(f, "missing ' -- ' before the file name for {command}")
            }
            Self::BadOption(command, option) => {
                write!(f, "invalid option '{option}' for {command}")
            }
            Self::Unexpected(command) => write!(f, "unexpected argument for {command}"),
            Self::InvalidMode => f.write_str("a mode is 0, 1, 2 or 3"),
        }
    }
}

/// The first line of `bytes`, without its end. `ended` says that no more will come: what is there is then the last line.
pub fn line(bytes: &[u8], ended: bool) -> Parsed<&str, BadLine> {
    let window = bytes.get(..LINE_BYTES).unwrap_or(bytes);
    let (content, consumed) = match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => (window.get(..end).unwrap_or(window), end + 1),
        None if window.len() == LINE_BYTES => return Parsed::Malformed(BadLine::TooLong),
        None if ended && !window.is_empty() => (window, window.len()),
        None => return Parsed::Incomplete,
    };
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    match std::str::from_utf8(content) {
        Ok(text) => Parsed::complete(text, consumed),
        Err(_) => Parsed::Malformed(BadLine::NotUtf8),
    }
}

/// The command that a line is.
pub fn command(line: &str) -> Result<Request, BadCommand> {
    let (noun, after_noun) = word(line);
    if noun.is_empty() {
        return Ok(Request::Blank);
    }
    let (verb, after_verb) = word(after_noun);
    let mut known = None;
    for row in COMMANDS {
        if !row.noun.eq_ignore_ascii_case(noun) {
            continue;
        }
        known = Some(row.noun);
        let rest = match row.verb {
            "" => after_noun,
            name if name.eq_ignore_ascii_case(verb) => after_verb,
            _ => continue,
        };
        return (row.parse)(rest).map_err(|why| BadCommand {
            why,
            body_follows: row.body,
        });
    }
    let why = match known {
        Some(noun) => Why::UnknownVerb(noun),
        None => Why::UnknownNamespace(printable(noun, 64)),
    };
    Err(BadCommand {
        why,
        body_follows: false,
    })
}

/// A row of the table of commands; parser and help follow from it.
struct Command {
    noun: &'static str,
    /// Empty for a noun that stands alone; such a row comes after the noun's others.
    verb: &'static str,
    arguments: &'static str,
    about: &'static str,
    /// Whether bytes follow the line.
    body: bool,
    parse: fn(&str) -> Result<Request, Why>,
}

impl Command {
    const fn new(
        [noun, verb, arguments, about]: [&'static str; 4],
        parse: fn(&str) -> Result<Request, Why>,
    ) -> Self {
        Self {
            noun,
            verb,
            arguments,
            about,
            body: false,
            parse,
        }
    }

    const fn with_body(mut self) -> Self {
        self.body = true;
        self
    }
}

const PUT: &str = "FILE PUT";
const PUSH: &str = "FILE PUSH";

/// The commands, in the order of the help.
const COMMANDS: &[Command] = &[
    Command::new(
        [
            "FILE",
            "PUT",
            "<size> [key=value ...] -- <name>",
            "keep the <size> bytes that follow; keys: strategy, class, sha256, md5, expect",
        ],
        put,
    )
    .with_body(),
    Command::new(
        [
            "FILE",
            "GET",
            "<name> [version <n>]",
            "size, digest and version, then the bytes",
        ],
        get,
    ),
    Command::new(
        [
            "FILE",
            "PUSH",
            "<size> <name>",
            "keep the <size> bytes that follow",
        ],
        push,
    )
    .with_body(),
    Command::new(
        [
            "FILE",
            "PULL",
            "<name>",
            "the bytes and nothing else; closes",
        ],
        |rest| {
            Ok(Request::Pull {
                name: name(rest, "FILE PULL")?,
            })
        },
    ),
    Command::new(["FILE", "LIST", "", "all files as CSV; closes"], |rest| {
        alone(rest, "FILE LIST", Request::List)
    }),
    Command::new(
        ["FILE", "STAT", "<name>", "what is known of a file"],
        |rest| {
            Ok(Request::Stat {
                name: name(rest, "FILE STAT")?,
            })
        },
    ),
    Command::new(["FILE", "DELETE", "<name>", "remove a file"], |rest| {
        Ok(Request::Delete {
            name: name(rest, "FILE DELETE")?,
        })
    }),
    Command::new(
        [
            "NODE",
            "STATUS",
            "",
            "this node's address and the next one's",
        ],
        |rest| alone(rest, "NODE STATUS", Request::NodeStatus),
    ),
    Command::new(["NODE", "PING", "", "answers PONG"], |rest| {
        alone(rest, "NODE PING", Request::NodePing)
    }),
    Command::new(["NODE", "HELP", "", "this list"], |rest| {
        alone(rest, "NODE HELP", Request::NodeHelp)
    }),
    Command::new(["NETMAP", "GET", "", "which nodes are alive"], |rest| {
        alone(rest, "NETMAP GET", Request::NetmapGet)
    }),
    Command::new(
        ["STATUS", "JSON", "", "the same as one line of JSON"],
        |rest| alone(rest, "STATUS JSON", Request::StatusJson),
    ),
    Command::new(
        [
            "STATUS",
            "",
            "",
            "one screen about this node and its cluster",
        ],
        |rest| alone(rest, "STATUS", Request::Status),
    ),
    Command::new(
        [
            "MODE",
            "HISTORY",
            "",
            "earlier changes of mode, newest first",
        ],
        |rest| alone(rest, "MODE HISTORY", Request::ModeHistory),
    ),
    Command::new(["MODE", "", "[0-3]", "show the mode, or change it"], mode),
    Command::new(["HELP", "", "", "this list"], |rest| {
        alone(rest, "HELP", Request::Help)
    }),
    Command::new(["QUIT", "", "", "close the connection"], |rest| {
        alone(rest, "QUIT", Request::Quit)
    }),
    // Nouns whose verbs belong to the ring.
    Command::new(["TOPOLOGY", "", "", ""], |_| {
        Err(Why::UnknownVerb("TOPOLOGY"))
    }),
    Command::new(["RING", "", "", ""], |_| Err(Why::UnknownVerb("RING"))),
];

/// The list of commands for people, a line each; only those of `noun` when given.
pub fn help(noun: Option<&str>) -> String {
    let shown = |row: &&Command| !row.about.is_empty() && noun.is_none_or(|noun| row.noun == noun);
    COMMANDS
        .iter()
        .filter(shown)
        .fold(String::new(), |mut text, row| {
            let words = [row.noun, row.verb, row.arguments];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let _ = writeln!(text, "{:<48} {}", words.join(" "), row.about);
            text
        })
}

/// The first word, and what follows the one blank behind it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    text.split_once([' ', '\t']).unwrap_or((text, ""))
}

fn is_blank(text: &str) -> bool {
    text.trim_matches([' ', '\t']).is_empty()
}

fn alone(rest: &str, command: &'static str, request: Request) -> Result<Request, Why> {
    if is_blank(rest) {
        Ok(request)
    } else {
        Err(Why::Unexpected(command))
    }
}

fn name(rest: &str, command: &'static str) -> Result<FilePath, Why> {
    if rest.is_empty() {
        return Err(Why::MissingName(command));
    }
    FilePath::new(rest).map_err(Why::BadName)
}

fn size(text: &str, command: &'static str) -> Result<u64, Why> {
    number(text)
        .filter(|size| *size <= FILE_BYTES)
        .ok_or(Why::InvalidSize(command))
}

fn push(rest: &str) -> Result<Request, Why> {
    let (digits, rest) = word(rest);
    Ok(Request::Push {
        size: size(digits, PUSH)?,
        name: name(rest, PUSH)?,
    })
}

fn put(rest: &str) -> Result<Request, Why> {
    let (digits, mut rest) = word(rest);
    let size = size(digits, PUT)?;
    let [mut strategy, mut class, mut sha256, mut md5, mut expect] = [const { None }; 5];
    loop {
        let (option, after) = word(rest);
        rest = after;
        match option {
            "" => return Err(Why::MissingSeparator(PUT)),
            "--" => break,
            _ => {}
        }
        let bad = || Why::BadOption(PUT, printable(option, 128));
        let (key, value) = option.split_once('=').ok_or_else(bad)?;
        let field = match key {
            "strategy" => &mut strategy,
            "class" => &mut class,
            "sha256" => &mut sha256,
            "md5" => &mut md5,
            "expect" => &mut expect,
            _ => return Err(bad()),
        };
        if value.is_empty() || field.replace(value.to_owned()).is_some() {
            return Err(bad());
        }
    }
    let bad = |key: &'static str, value: &str| {
        Why::BadOption(PUT, printable(&format!("{key}={value}"), 128))
    };
    let sha256 = sha256.map(|v| v.parse().map_err(|_| bad("sha256", &v)));
    let md5 = md5.map(|v| v.parse().map_err(|_| bad("md5", &v)));
    let expect = match expect.as_deref() {
        None | Some("any") => Expect::Any,
        Some("absent") => Expect::Absent,
        Some(v) => number(v)
            .map(|version| Expect::Version(Version(version)))
            .ok_or_else(|| bad("expect", v))?,
    };
    Ok(Request::Put(PutHead {
        size,
        strategy,
        class,
        sha256: sha256.transpose()?,
        md5: md5.transpose()?,
        expect,
        name: name(rest, PUT)?,
    }))
}

fn get(rest: &str) -> Result<Request, Why> {
    let (text, version) = match versioned(rest) {
        Some((name, version)) => (name, Some(version).filter(|version| version.0 > 0)),
        None => (rest, None),
    };
    let name = name(text, "FILE GET")?;
    Ok(Request::Get { name, version })
}

/// A text that ends in ` version <digits>`.
fn versioned(text: &str) -> Option<(&str, Version)> {
    let (head, digits) = text.rsplit_once(' ')?;
    let (name, keyword) = head.rsplit_once(' ')?;
    let version = Version(number(digits)?);
    keyword
        .eq_ignore_ascii_case("version")
        .then_some((name, version))
}

fn mode(rest: &str) -> Result<Request, Why> {
    let (digits, after) = word(rest);
    if digits.is_empty() {
        return Ok(Request::Mode);
    }
    let mode = number(digits).and_then(Mode::from_digit);
    alone(
        after,
        "MODE",
        Request::SetMode(mode.ok_or(Why::InvalidMode)?),
    )
}

impl Request {
    /// Appends the command as a line. Of a version 0 in `Get` nothing is left: no file has it, and on the wire it means the newest.
    pub fn print(&self, out: &mut Vec<u8>) {
        let text = match self {
            Self::Blank => String::new(),
            Self::Put(head) => head.line(),
            Self::Get { name, version } => match version {
                Some(version) => format!("FILE GET {name} version {version}"),
                None if versioned(name.as_str()).is_some() => format!("FILE GET {name} version 0"),
                None => format!("FILE GET {name}"),
            },
            Self::Push { size, name } => format!("FILE PUSH {size} {name}"),
            Self::Pull { name } => format!("FILE PULL {name}"),
            Self::List => "FILE LIST".into(),
            Self::Stat { name } => format!("FILE STAT {name}"),
            Self::Delete { name } => format!("FILE DELETE {name}"),
            Self::NodeStatus => "NODE STATUS".into(),
            Self::NodePing => "NODE PING".into(),
            Self::NodeHelp => "NODE HELP".into(),
            Self::NetmapGet => "NETMAP GET".into(),
            Self::Status => "STATUS".into(),
            Self::StatusJson => "STATUS JSON".into(),
            Self::Mode => "MODE".into(),
            Self::SetMode(mode) => format!("MODE {}", mode.digit()),
            Self::ModeHistory => "MODE HISTORY".into(),
            Self::Help => "HELP".into(),
            Self::Quit => "QUIT".into(),
        };
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
}

impl PutHead {
    fn line(&self) -> String {
        let mut text = format!("FILE PUT {}", self.size);
        let mut option = |key: &str, value: Option<&dyn fmt::Display>| {
            if let Some(value) = value {
                let _ = write!(text, " {key}={value}");
            }
        };
        option("strategy", self.strategy.as_ref().map(|v| v as _));
        option("class", self.class.as_ref().map(|v| v as _));
        option("sha256", self.sha256.as_ref().map(|v| v as _));
        option("md5", self.md5.as_ref().map(|v| v as _));
        match &self.expect {
            Expect::Any => {}
            Expect::Absent => option("expect", Some(&"absent")),
            Expect::Version(version) => option("expect", Some(version)),
        }
        let _ = write!(text, " -- {}", self.name);
        text
    }
}

/// How an `ERR` line begins when the outcome is not known (rule R5): what was sent may become visible later, whole.
pub const OUTCOME_UNKNOWN: &str = "outcome unknown";
/// The `ERR` text for a name that is not there.
pub const FILE_NOT_FOUND: &str = "file not found";

/// What a line of a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// `OK` and what follows it.
    Ok(&'a str),
    /// `ERR` and why.
    Err(&'a str),
    /// Neither: a line of content.
    Line(&'a str),
}

/// Tells the last line of a reply from its content.
pub fn verdict(line: &str) -> Verdict<'_> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("OK", rest) => Verdict::Ok(rest),
        ("ERR", rest) => Verdict::Err(rest),
        _ => Verdict::Line(line),
    }
}

/// Appends `ERR <why>`; control characters in `why` become blanks, so that it stays one line.
pub fn print_error(why: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ERR ");
    out.extend_from_slice(printable(why, 1_024).as_bytes());
    out.push(b'\n');
}

/// At most about `limit` bytes of `text`, without control characters.
pub fn printable(text: &str, limit: usize) -> String {
    let whole = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut kept = String::new();
    for c in whole {
        if kept.len() >= limit {
            kept.push_str("...");
            break;
        }
        kept.push(c);
    }
    kept
}

/// The answer to a `FILE PUT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Digest of the bytes kept.
    pub sha256: Sha256,
    /// The version made.
    pub version: Version,
    /// Durable copies at that moment.
    pub copies: u64,
}

impl Stored {
    /// Appends `OK <sha256> version=<n> copies=<k>`.
    pub fn print(&self, out: &mut Vec<u8>) {
        let (sha256, version, copies) = (self.sha256, self.version, self.copies);
        let text = format!("OK {sha256} version={version} copies={copies}\n");
        out.extend_from_slice(text.as_bytes());
    }

    /// Reads what follows `OK `; words that it does not know are skipped.
    pub fn parse(rest: &str) -> Option<Self> {
        let mut words = rest.split(' ');
        let sha256 = words.next()?.parse().ok()?;
        let (mut version, mut copies) = (None, None);
        for word in words {
            match word.split_once('=') {
                Some(("version", value)) => version = number(value),
                Some(("copies", value)) => copies = number(value),
                _ => {}
            }
        }
        Some(Self {
            sha256,
            version: Version(version?),
            copies: copies?,
        })
    }
}

/// The first line of the answer to a `FILE GET`; `size` bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHead {
    /// Bytes that follow.
    pub size: u64,
    /// Their digest.
    pub sha256: Sha256,
    /// Which version they are.
    pub version: Version,
    /// No leader confirmed in time that this is the newest (rule R1).
    pub stale: bool,
}

impl ContentHead {
    /// Appends `OK <size> <sha256> <version>`, and ` stale` when it is.
    pub fn print(&self, out: &mut Vec<u8>) {
        let (size, sha256, version) = (self.size, self.sha256, self.version);
        let stale = if self.stale { " stale" } else { "" };
        let text = format!("OK {size} {sha256} {version}{stale}\n");
        out.extend_from_slice(text.as_bytes());
    }

    /// Reads what follows `OK `; words that it does not know are skipped.
    pub fn parse(rest: &str) -> Option<Self> {
        let mut words = rest.split(' ');
        Some(Self {
            size: number(words.next()?).filter(|size| *size <= FILE_BYTES)?,
            sha256: words.next()?.parse().ok()?,
            version: Version(number(words.next()?)?),
            stale: words.any(|word| word == "stale"),
        })
    }
}

/// The first line of a `FILE LIST`.
pub const LIST_HEAD: &str = "name,start,size\n";

/// The head of a `FILE LIST` when no leader confirmed in time that it is how things stand (rule R1). The rows are the same.
pub const LIST_HEAD_STALE: &str = "name,start,size,stale\n";

/// A row of a `FILE LIST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRow {
    /// The name.
    pub name: String,
    /// Port of the text door of the node where the bytes came in; 0 when that node is no member any more.
    pub start: u16,
    /// Bytes.
    pub size: u64,
}

/// Bytes that are no row of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow;

impl ListRow {
    /// Appends the row as CSV, quoted where the name holds `,`, `"` or a line end.
    pub fn print(&self, out: &mut Vec<u8>) {
        if self.name.contains([',', '"', '\r', '\n']) {
            out.push(b'"');
            out.extend_from_slice(self.name.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(self.name.as_bytes());
        }
        out.extend_from_slice(format!(",{},{}\n", self.start, self.size).as_bytes());
    }

    /// The first row of `bytes` (not the head). Rows end with LF; a row without one is incomplete, so a listing that broke off shows.
    pub fn parse(bytes: &[u8]) -> Parsed<Self, BadRow> {
        let (mut quoted, mut end) = (false, None);
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b'\n' if !quoted => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
            if at >= LINE_BYTES {
                return Parsed::Malformed(BadRow);
            }
        }
        let Some(end) = end else {
            return Parsed::Incomplete;
        };
        match bytes.get(..end).and_then(Self::fields) {
            Some(row) => Parsed::complete(row, end + 1),
            None => Parsed::Malformed(BadRow),
        }
    }

    fn fields(row: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(row).ok()?;
        let (rest, size) = text.rsplit_once(',')?;
        let (name, start) = rest.rsplit_once(',')?;
        let name = match name.strip_prefix('"') {
            None if name.contains(['"', ',']) => return None,
            None => name.to_owned(),
            Some(quoted) => {
                let inner = quoted.strip_suffix('"')?;
                if inner.replace("\"\"", "").contains('"') {
                    return None;
                }
                inner.replace("\"\"", "\"")
            }
        };
        Some(Self {
            name,
            start: u16::try_from(number(start)?).ok()?,
            size: number(size)?,
        })
    }
}

/// The answer to a `FILE STAT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The name.
    pub name: String,
    /// The newest version.
    pub version: Version,
    /// Bytes.
    pub size: u64,
    /// Digest of the whole.
    pub sha256: Sha256,
    /// MD5 of the whole, where known.
    pub md5: Option<Md5>,
    /// Strategy that placed it.
    pub strategy: String,
    /// Class.
    pub class: String,
    /// Copies each part should have.
    pub want: u64,
    /// When the name was made, RFC 3339 in UTC.
    pub created: String,
    /// When this version was written, RFC 3339 in UTC.
    pub modified: String,
    /// The pieces.
    pub parts: Vec<StatedPart>,
    /// Earlier versions kept, newest first.
    pub earlier: Vec<Version>,
    /// See [`ContentHead::stale`].
    pub stale: bool,
}

/// A piece of a file, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedPart {
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Sha256,
    /// Nodes that hold it durably.
    pub nodes: Vec<NodeId>,
}

impl Stated {
    /// Appends `key=value` lines: name, version, size, sha256, md5, strategy, class, want, created, modified,
    /// `part=<size> <sha256> <node,node,...>` for each piece, earlier, stale. The `OK` is not among them.
    pub fn print(&self, out: &mut Vec<u8>) {
        let mut text = String::new();
        let mut field = |key: &str, value: &dyn fmt::Display| {
            let _ = writeln!(text, "{key}={value}");
        };
        field("name", &printable(&self.name, usize::MAX));
        field("version", &self.version);
        field("size", &self.size);
        field("sha256", &self.sha256);
        if let Some(md5) = &self.md5 {
            field("md5", md5);
        }
        field("strategy", &printable(&self.strategy, usize::MAX));
        field("class", &printable(&self.class, usize::MAX));
        field("want", &self.want);
        field("created", &self.created);
        field("modified", &self.modified);
        for part in &self.parts {
            let nodes = joined(&part.nodes);
            field(
                "part",
                &format_args!("{} {} {nodes}", part.size, part.sha256),
            );
        }
        field("earlier", &joined(&self.earlier));
        field("stale", &self.stale);
        out.extend_from_slice(text.as_bytes());
    }

    /// Reads the lines before the `OK`; keys that it does not know are skipped.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let [mut name, mut strategy, mut class, mut created, mut modified] = [const { None }; 5];
        let [mut version, mut size, mut want] = [None; 3];
        let (mut sha256, mut md5) = (None, None);
        let (mut parts, mut earlier, mut stale) = (Vec::new(), Vec::new(), false);
        for line in lines {
            let (key, value) = line.split_once('=')?;
            let text = || Some(value.to_owned());
            match key {
                "name" => name = text(),
                "strategy" => strategy = text(),
                "class" => class = text(),
                "created" => created = text(),
                "modified" => modified = text(),
                "version" => version = number(value),
                "size" => size = number(value),
                "want" => want = number(value),
                "sha256" => sha256 = value.parse().ok(),
                "md5" => md5 = Some(value.parse().ok()?),
                "part" => parts.push(StatedPart::parse(value)?),
                "earlier" => earlier = numbers(value)?.into_iter().map(Version).collect(),
                "stale" => stale = value == "true",
                _ => {}
            }
        }
        Some(Self {
            name: name?,
            version: Version(version?),
            size: size?,
            sha256: sha256?,
            md5,
            strategy: strategy?,
            class: class?,
            want: want?,
            created: created?,
            modified: modified?,
            parts,
            earlier,
            stale,
        })
    }
}

impl StatedPart {
    fn parse(value: &str) -> Option<Self> {
        let mut words = value.split(' ');
        let (size, sha256) = (number(words.next()?)?, words.next()?.parse().ok()?);
        let ids = numbers(words.next().unwrap_or_default())?;
        let nodes = ids.into_iter().map(|id| u16::try_from(id).ok().map(NodeId));
        Some(Self {
            size,
            sha256,
            nodes: nodes.collect::<Option<_>>()?,
        })
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    let words: Vec<_> = items.iter().map(ToString::to_string).collect();
    words.join(",")
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    let words = text.split(',').filter(|_| !text.is_empty());
    words.map(number).collect()
}

/// Appends `MODE <digit> <name> old=<digit> timestamp=<ns> cause=<text>`.
pub fn print_mode(mode: &ModeRecord, out: &mut Vec<u8>) {
    let text = format!(
        "MODE {} {} old={} timestamp={} cause={}\n",
        mode.new.digit(),
        mode.new.name(),
        mode.old.digit(),
        mode.timestamp,
        printable(&mode.cause, 1_024),
    );
    out.extend_from_slice(text.as_bytes());
}

/// Reads a line that [`print_mode`] wrote.
pub fn parse_mode(line: &str) -> Option<ModeRecord> {
    let (facts, cause) = line.strip_prefix("MODE ")?.split_once(" cause=")?;
    let mut words = facts.split(' ');
    let new = Mode::from_digit(number(words.next()?)?)?;
    let (mut old, mut timestamp) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("old", value)) => old = number(value).and_then(Mode::from_digit),
            Some(("timestamp", value)) => timestamp = number(value),
            _ => {}
        }
    }
    Some(ModeRecord {
        old: old?,
        new,
        timestamp: timestamp?,
        cause: cause.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::EMPTY_SHA256;

    fn path(text: &str) -> FilePath {
        FilePath::new(text).unwrap()
    }

    #[test]
    fn nouns_and_verbs_are_taken_in_any_case() {
        for text in ["FILE LIST", "file list", "File  lIst ", "\tFILE\tLIST"] {
            assert_eq!(command(text), Ok(Request::List), "{text:?}");
        }
        assert_eq!(command("mode 3"), Ok(Request::SetMode(Mode::PrimarySplay)));
        assert_eq!(command("status json"), Ok(Request::StatusJson));
        assert_eq!(command("  "), Ok(Request::Blank));
    }

    #[test]
    fn a_name_is_the_rest_of_the_line_behind_one_blank() {
        let name = path("a  b -- c");
        assert_eq!(
            command("FILE PUSH 5 a  b -- c"),
            Ok(Request::Push {
                size: 5,
                name: name.clone()
            })
        );
        assert_eq!(
            command("FILE PUT 5 -- a  b -- c"),
            Ok(Request::Put(PutHead::plain(5, name)))
        );
    }

    #[test]
    fn the_texts_of_errors_are_those_of_the_original() {
        for (text, why, closes) in [
            ("LS", "unknown command namespace: 'LS'", false),
            ("FILE", "unknown FILE command", false),
            ("FILE RELAY-STREAM x", "unknown FILE command", false),
            ("NODE HEAL", "unknown NODE command", false),
            ("NETMAP DISCOVER", "unknown NETMAP command", false),
            ("TOPOLOGY WALK", "unknown TOPOLOGY command", false),
            ("RING FORWARD 3 x", "unknown RING command", false),
            ("FILE PULL", "missing file name for FILE PULL", false),
            ("FILE PULL ", "missing file name for FILE PULL", false),
            ("FILE PUSH x y", "invalid size for FILE PUSH", true),
            ("FILE PUSH +5 y", "invalid size for FILE PUSH", true),
            (
                "FILE PUSH 9999999999999999999 y",
                "invalid size for FILE PUSH",
                true,
            ),
            ("FILE PUSH 5", "missing file name for FILE PUSH", true),
            ("FILE PUT 5 a", "invalid option 'a' for FILE PUT", true),
            (
                "FILE PUT 5",
                "missing ' -- ' before the file name for FILE PUT",
                true,
            ),
            (
                "FILE PUT 5 md5=x -- a",
                "invalid option 'md5=x' for FILE PUT",
                true,
            ),
            (
                "FILE PUT 5 expect=any expect=any -- a",
                "invalid option 'expect=any' for FILE PUT",
                true,
            ),
            (
                "FILE STAT ../x",
                "file name has a component '.' or '..'",
                false,
            ),
            ("MODE 4", "a mode is 0, 1, 2 or 3", false),
            ("MODE 1 2", "unexpected argument for MODE", false),
            ("STATUS XML", "unexpected argument for STATUS", false),
        ] {
            let bad = command(text).unwrap_err();
            assert_eq!(bad.why.to_string(), why, "{text:?}");
            assert_eq!(bad.body_follows, closes, "{text:?}");
        }
    }

    #[test]
    fn a_line_ends_with_lf_crlf_or_the_input() {
        assert_eq!(line(b"A B\r\nC", false), Parsed::complete("A B", 5));
        assert_eq!(line(b"A\nC", false), Parsed::complete("A", 2));
        assert_eq!(line(b"A", false), Parsed::Incomplete);
        assert_eq!(line(b"A", true), Parsed::complete("A", 1));
        assert_eq!(line(b"", true), Parsed::Incomplete);
        assert_eq!(line(b"\xff\n", false), Parsed::Malformed(BadLine::NotUtf8));
        let long = vec![b'a'; LINE_BYTES];
        assert_eq!(line(&long, false), Parsed::Malformed(BadLine::TooLong));
        assert_eq!(line(&long[1..], false), Parsed::Incomplete);
    }

    #[test]
    fn a_name_that_looks_versioned_can_be_asked_for() {
        let name = path("notes version 7");
        for version in [None, Some(Version(3))] {
            let request = Request::Get {
                name: name.clone(),
                version,
            };
            let mut out = Vec::new();
            request.print(&mut out);
            let Parsed::Complete { value, .. } = line(&out, false) else {
                panic!("a line");
            };
            assert_eq!(command(value), Ok(request));
        }
        assert_eq!(
            command("FILE GET a VERSION 12"),
            Ok(Request::Get {
                name: path("a"),
                version: Some(Version(12))
            })
        );
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        let text = help(None);
        assert!(text.lines().count() >= 17);
        for row in COMMANDS.iter().filter(|row| !row.about.is_empty()) {
            let known = command(&format!("{} {}", row.noun, row.verb));
            let unknown = matches!(
                known.map_err(|bad| bad.why),
                Err(Why::UnknownVerb(_) | Why::UnknownNamespace(_))
            );
            assert!(!unknown, "{} {}", row.noun, row.verb);
        }
        assert!(
            help(Some("NODE"))
                .lines()
                .all(|line| line.starts_with("NODE "))
        );
    }

    #[test]
    fn replies_are_read_as_they_are_written() {
        let stored = Stored {
            sha256: EMPTY_SHA256,
            version: Version(9),
            copies: 3,
        };
        let mut out = Vec::new();
        stored.print(&mut out);
        let text = String::from_utf8(out).unwrap();
        let Verdict::Ok(rest) = verdict(text.trim_end()) else {
            panic!("{text}");
        };
        assert_eq!(Stored::parse(rest), Some(stored));
        assert_eq!(
            verdict("ERR file not found"),
            Verdict::Err("file not found")
        );
        assert_eq!(verdict("OKAY"), Verdict::Line("OKAY"));
    }
}

//! The text door: commands a line, as a person types them into netcat. The grammar and its texts are in `wire/text.rs`.
//!
//! An `ERR` leaves the connection open, except where what follows cannot be told from commands. A body that breaks off in the middle ends in a
//! reset, so that no short file passes for a whole one.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::Session;
use super::connection::{Body, Headed, Wait, Wire, hang_up, is_timeout};
use crate::base::id::{NodeId, Version};
use crate::base::limit::LINE_BYTES;
use crate::base::path::FilePath;
use crate::base::time::Wall;
use crate::config::TextAdmin;
use crate::engine::verbs::{
    Content, Failure, Kept, Member, Put, ReadFailure, Repair, Stat, Status, Strategy,
};
use crate::wire::admin::NodeHealth;
use crate::wire::command::{Code, Expect};
use crate::wire::parsed::{Parsed, number};
use crate::wire::record::{FileRecord, Mode, ModeRecord};
use crate::wire::scrub::{Finding, ScrubStatus};
use crate::wire::text::{
    self, BadLine, ContentHead, FILE_NOT_FOUND, LIST_HEAD, LIST_HEAD_STALE, ListRow,
    OUTCOME_UNKNOWN, PutHead, Request, Stated, StatedPart, Stored, print_error, print_mode,
};

/// Of a refused body below this size the rest is read and thrown away, so that the connection can go on; a larger one ends it.
const REFUSED_BODY_BYTES: u64 = 64 * 1024 * 1024;
/// How long the rest of a refused body may take.
const REFUSED_BODY_TIME: Duration = Duration::from_mins(1);
/// Files asked of the catalog at a time while listing.
const LIST_PAGE: usize = 512;
/// Changes of mode shown.
const HISTORY_SHOWN: usize = 100;

/// Serves a connection to its end.
pub fn serve(session: &Session, wire: &mut dyn Wire) {
    let peer = wire.peer();
    let mut conversation = Conversation { session, wire };
    match conversation.run() {
        Ok(()) => hang_up(conversation.wire, session.limits),
        Err(error) => {
            log::debug!(target: "momo::connection_lost", "peer={peer} door=text: {error}");
        }
    }
}

struct Conversation<'a> {
    session: &'a Session<'a>,
    wire: &'a mut dyn Wire,
}

/// What comes after a command. An error in its place means that the connection is broken, or was broken on purpose.
#[derive(PartialEq, Eq)]
enum Next {
    /// The next command.
    Command,
    /// A polite close.
    Close,
}

/// What reading a line gave.
enum Input {
    Line(String),
    Bad(BadLine),
    Slow,
    End,
}

impl Conversation<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let next = match self.next_line()? {
                Input::Line(line) => self.execute(&line)?,
                Input::Bad(why) => self.fatal(&why)?,
                Input::Slow => self.fatal(&"the line did not end in time")?,
                Input::End => Next::Close,
            };
            if next == Next::Close {
                return Ok(());
            }
        }
    }

    /// Reads a line. What was answered so far leaves first, unless the next line is already here.
    fn next_line(&mut self) -> io::Result<Input> {
        if !self.wire.pending().contains(&b'\n') {
            self.wire.flush()?;
        }
        let deadline = self.wire.now() + self.session.limits.idle;
        self.wire.set_deadline(Wait::Idle, deadline);
        let mut line = Vec::new();
        loop {
            let chunk = match self.wire.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if is_timeout(&error) && line.is_empty() => return Ok(Input::End),
                Err(error) if is_timeout(&error) => return Ok(Input::Slow),
                Err(error) => return Err(error),
            };
            let ended = chunk.is_empty();
            if ended && line.is_empty() {
                return Ok(Input::End);
            }
            let window = chunk.get(..LINE_BYTES - line.len()).unwrap_or(chunk);
            let end = window.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(window.len(), |end| end + 1);
            let first = line.is_empty();
            line.extend_from_slice(window.get(..taken).unwrap_or_default());
            self.wire.consume(taken);
            if end.is_some() || ended || line.len() == LINE_BYTES {
                return Ok(match text::line(&line, ended) {
                    Parsed::Complete { value, .. } => Input::Line(value.to_owned()),
                    Parsed::Malformed(why) => Input::Bad(why),
                    Parsed::Incomplete => Input::End,
                });
            }
            if first {
                let deadline = self.wire.now() + self.session.limits.head;
                self.wire.set_deadline(Wait::Head, deadline);
            }
        }
    }

    fn execute(&mut self, line: &str) -> io::Result<Next> {
        let verbs = self.session.verbs;
        match text::command(line) {
            Err(bad) if bad.body_follows => self.fatal(&bad.why),
            Err(bad) => self.error(&bad.why),
            Ok(Request::Blank) => Ok(Next::Command),
            Ok(Request::Put(head)) => {
                let put = put_of(head);
                self.put(&put, |kept, _| stored(kept))
            }
            Ok(Request::Push { size, name }) => {
                let put = put_of(PutHead::plain(size, name));
                let single = verbs.members().len() <= 1;
                self.put(&put, |kept, put| pushed(kept, put, single))
            }
            Ok(Request::Get { name, version }) => self.get(&name, version),
            Ok(Request::Pull { name }) => self.pull(&name),
            Ok(Request::List) => self.list(),
            Ok(Request::Stat { name }) => match verbs.stat(&name) {
                Ok(stat) => {
                    let mut out = Vec::new();
                    stated(stat).print(&mut out);
                    self.answer(out)
                }
                Err(failure) => self.failed(&failure, &name),
            },
            Ok(Request::Delete { name }) => self.delete(&name),
            Ok(Request::NodeStatus) => {
                let text = node_status(verbs.node(), &verbs.members());
                self.answer(text.into())
            }
            Ok(Request::NodePing) => self.reply(b"PONG\n"),
            Ok(Request::NodeHelp) => self.answer(text::help(Some("NODE")).into()),
            Ok(Request::Help) => self.answer(text::help(None).into()),
            Ok(Request::NetmapGet) => self.answer(netmap(&verbs.members()).into()),
            Ok(Request::Status) => self.answer(screen(&verbs.status()).into()),
            Ok(Request::StatusJson) => match serde_json::to_vec(&verbs.status()) {
                Ok(mut json) => {
                    json.push(b'\n');
                    self.answer(json)
                }
                Err(error) => self.error(&error),
            },
            Ok(Request::Mode) => {
                let mode = verbs.mode();
                self.answer(modes(&[mode]))
            }
            Ok(Request::ModeHistory) => match verbs.mode_history(HISTORY_SHOWN) {
                Ok(history) => self.answer(modes(&history)),
                Err(failure) => self.error(&failure),
            },
            Ok(Request::SetMode(mode)) => self.set_mode(mode),
            Ok(Request::Quit) => {
                self.reply(b"OK\n")?;
                Ok(Next::Close)
            }
        }
    }

    /// Keeps the `put.size` bytes that follow.
    fn put(&mut self, put: &Put, reply: impl Fn(&Kept, &Put) -> Vec<u8>) -> io::Result<Next> {
        let (limits, peer) = (self.session.limits, self.wire.peer());
        if (self.wire.pending().len() as u64) < put.size {
            self.wire.flush()?;
        }
        let mut body = Body::new(self.wire, put.size, limits);
        let result = if put.size > limits.file_bytes {
            let message = format!(
                "{} bytes are over the limit of {}",
                put.size, limits.file_bytes
            );
            Err(Failure::refused(Code::Invalid, message))
        } else {
            self.session.verbs.put(put, &mut body)
        };
        let left = body.left();
        let failure = match result {
            Ok(kept) if left == 0 => {
                log::debug!(target: "momo::upload_kept", "peer={peer} door=text name={:?} version={} copies={} strategy={}", put.path.as_str(), kept.version, kept.copies, kept.strategy);
                return self.reply(&reply(&kept, put));
            }
            Ok(_) => Failure::Unknown {
                message: "kept before the body was read to its end".to_owned(),
            },
            Err(failure) => failure,
        };
        let event = match failure {
            Failure::Unknown { .. } => "momo::upload_unknown",
            _ => "momo::upload_refused",
        };
        log::warn!(target: event, "peer={peer} door=text name={:?}: {failure}", put.path.as_str());
        if let Failure::Body(error) = &failure {
            return self.fatal(&format_args!("{error}, nothing stored"));
        }
        self.failed(&failure, &put.path)?;
        if left == 0 {
            return Ok(Next::Command);
        }
        self.wire.flush()?;
        let skippable = put.size < REFUSED_BODY_BYTES;
        let rest = &mut Body::new(self.wire, left, limits);
        if skippable && rest.skip(REFUSED_BODY_TIME).is_ok() {
            Ok(Next::Command)
        } else {
            Ok(Next::Close)
        }
    }

    fn get(&mut self, name: &FilePath, version: Option<Version>) -> io::Result<Next> {
        let mut content = match self.session.verbs.get(name, version) {
            Ok(content) => content,
            Err(failure) if version.is_some() => return self.error(&failure),
            Err(failure) => return self.failed(&failure, name),
        };
        let record = content.record();
        let head = ContentHead {
            size: record.size,
            sha256: record.sha256,
            version: record.version,
            stale: content.stale(),
        };
        let mut line = Vec::new();
        head.print(&mut line);
        self.send(content.as_mut(), line)
    }

    fn pull(&mut self, name: &FilePath) -> io::Result<Next> {
        match self.session.verbs.get(name, None) {
            Ok(mut content) => self.send(content.as_mut(), Vec::new())?,
            Err(failure) => self.failed(&failure, name)?,
        };
        Ok(Next::Close)
    }

    /// Sends a head and a whole file. As long as nothing has left, a failure can still be said; after that it breaks the connection.
    fn send(&mut self, content: &mut dyn Content, head: Vec<u8>) -> io::Result<Next> {
        let (size, name) = (content.record().size, content.record().path.clone());
        let mut out = Headed::new(self.wire, head);
        let copied = content.copy_to(0, size, &mut out);
        let (started, body) = (out.started(), out.body());
        let failure = match copied {
            Ok(()) if body == size => {
                out.finish()?;
                return Ok(Next::Command);
            }
            Ok(()) => ReadFailure::Source(format!("{body} bytes came of {size}")),
            Err(failure) => failure,
        };
        let peer = self.wire.peer();
        log::warn!(target: "momo::read_broken", "peer={peer} door=text name={:?}: after {body} of {size} bytes: {failure}", name.as_str());
        match failure {
            ReadFailure::Source(why) if !started => self.error(&why),
            failure => Err(self.broken(&failure)),
        }
    }

    /// Streams the listing, a page of the catalog at a time.
    fn list(&mut self) -> io::Result<Next> {
        let verbs = self.session.verbs;
        let members = verbs.members();
        let ports = ports(&members);
        let start = |file: &FileRecord| {
            let node = file.upload.node;
            let found = ports.iter().find(|(_, member)| member.id == node);
            found.map_or(0, |(port, _)| *port)
        };
        let mut page = verbs.list("", "", LIST_PAGE);
        let mut out = Vec::new();
        let mut headed = false;
        loop {
            let listing = match page {
                Ok(listing) => listing,
                Err(failure) if headed => return Err(self.broken(&failure)),
                Err(failure) => {
                    self.error(&failure)?;
                    return Ok(Next::Close);
                }
            };
            if !headed {
                headed = true;
                let head = if listing.stale {
                    LIST_HEAD_STALE
                } else {
                    LIST_HEAD
                };
                out.extend_from_slice(head.as_bytes());
            }
            for file in &listing.files {
                let row = ListRow {
                    name: file.path.as_str().to_owned(),
                    start: start(file),
                    size: file.size,
                };
                row.print(&mut out);
            }
            self.wire.write_all(&out)?;
            out.clear();
            match listing.files.last() {
                Some(last) if listing.more => page = verbs.list("", last.path.as_str(), LIST_PAGE),
                _ => return Ok(Next::Close),
            }
        }
    }

    fn delete(&mut self, name: &FilePath) -> io::Result<Next> {
        if let Some(no) = self.not_allowed("FILE DELETE") {
            return self.error(&no);
        }
        match self.session.verbs.remove(name, Expect::Any) {
            Ok(version) => {
                log::info!(target: "momo::file_deleted", "peer={} name={:?} version={version}", self.wire.peer(), name.as_str());
                self.reply(format!("OK version={version}\n").as_bytes())
            }
            Err(failure) => self.failed(&failure, name),
        }
    }

    fn set_mode(&mut self, mode: Mode) -> io::Result<Next> {
        if let Some(no) = self.not_allowed("MODE") {
            return self.error(&no);
        }
        let cause = format!("text door, {}", self.wire.peer());
        match self.session.verbs.set_mode(mode, None, &cause) {
            Ok(record) => self.answer(modes(&[record])),
            Err(Failure::Unknown { .. }) => {
                self.error(&format_args!("{OUTCOME_UNKNOWN}, ask MODE"))
            }
            Err(failure) => self.error(&failure),
        }
    }

    /// Rule R21; the refusal, if it is one.
    fn not_allowed(&self, command: &str) -> Option<String> {
        let word = self.session.text_admin;
        let allowed = match word {
            TextAdmin::Open => true,
            TextAdmin::Loopback => self.wire.loopback(),
            TextAdmin::Off => false,
        };
        let peer = self.wire.peer();
        (!allowed).then(|| {
            log::warn!(target: "momo::command_refused", "peer={peer} command={command}: text_admin = {word}");
            format!("{command} is not allowed from here (text_admin = {word})")
        })
    }

    /// Lines, then `OK`.
    fn answer(&mut self, mut lines: Vec<u8>) -> io::Result<Next> {
        lines.extend_from_slice(b"OK\n");
        self.reply(&lines)
    }

    fn reply(&mut self, bytes: &[u8]) -> io::Result<Next> {
        self.wire.write_all(bytes)?;
        Ok(Next::Command)
    }

    fn error(&mut self, why: &dyn fmt::Display) -> io::Result<Next> {
        let mut out = Vec::new();
        print_error(&why.to_string(), &mut out);
        self.reply(&out)
    }

    /// Answers, and gives up the rest of the input.
    fn fatal(&mut self, why: &dyn fmt::Display) -> io::Result<Next> {
        self.error(why)?;
        Ok(Next::Close)
    }

    /// A failure about a name, in the words of the protocol.
    fn failed(&mut self, failure: &Failure, name: &FilePath) -> io::Result<Next> {
        match failure {
            Failure::Unknown { .. } => {
                self.error(&format_args!("{OUTCOME_UNKNOWN}, ask FILE STAT {name}"))
            }
            Failure::Refused {
                code: Code::NotFound,
                ..
            } => self.error(&FILE_NOT_FOUND),
            failure => self.error(failure),
        }
    }

    /// Breaks the connection: the other end sees a reset and not an end.
    fn broken(&mut self, why: &dyn fmt::Display) -> io::Error {
        self.wire.abort();
        io::Error::other(why.to_string())
    }
}

fn put_of(head: PutHead) -> Put {
    Put {
        path: head.name,
        size: head.size,
        strategy: head.strategy.map_or(Strategy::Current, Strategy::Named),
        class: head.class.unwrap_or_else(|| "default".to_owned()),
        sha256: head.sha256,
        md5: head.md5,
        expect: head.expect,
    }
}

fn stored(kept: &Kept) -> Vec<u8> {
    let stored = Stored {
        sha256: kept.sha256,
        version: kept.version,
        copies: kept.copies as u64,
    };
    let mut out = Vec::new();
    stored.print(&mut out);
    out
}

/// The original's words for a push; a file that was not split is one chunk.
fn pushed(kept: &Kept, put: &Put, single: bool) -> Vec<u8> {
    let (size, parts) = (put.size, kept.parts.max(1));
    let line = if single {
        format!("FILE {size} bytes '{}' stored locally\nOK\n", put.path)
    } else {
        format!("FILE {size} bytes split into {parts} chunks and distributed\nOK\n")
    };
    line.into()
}

fn stated(stat: Stat) -> Stated {
    let Stat {
        record,
        holders,
        earlier,
        stale,
    } = stat;
    let mut holders = holders.into_iter();
    let parts = record.parts.iter().map(|part| StatedPart {
        size: part.size,
        sha256: part.sha256,
        nodes: holders.next().unwrap_or_default(),
    });
    Stated {
        parts: parts.collect(),
        name: record.path.as_str().to_owned(),
        version: record.version,
        size: record.size,
        sha256: record.sha256,
        md5: record.md5,
        strategy: record.strategy,
        class: record.class,
        want: record.want.into(),
        created: record.created.rfc3339(),
        modified: record.modified.rfc3339(),
        earlier,
        stale,
    }
}

/// The members with a port on their text address, sorted by it.
fn ports(members: &[Member]) -> Vec<(u16, &Member)> {
    let port = |member: &Member| {
        let (_, port) = member.text_address.rsplit_once(':')?;
        u16::try_from(number(port)?).ok()
    };
    let mut ports: Vec<_> = members
        .iter()
        .filter_map(|member| Some((port(member)?, member)))
        .collect();
    ports.sort_by_key(|(port, member)| (*port, member.id));
    ports
}

fn netmap(members: &[Member]) -> String {
    let mut text = String::new();
    for (port, member) in ports(members) {
        let life = if member.alive { "Alive" } else { "Dead" };
        let _ = writeln!(text, "{port}={life}");
    }
    or_empty(text)
}

/// This node's text address and that of the next living member by number.
fn node_status(node: NodeId, members: &[Member]) -> String {
    let own = members.iter().find(|member| member.id == node);
    let alive = || {
        members
            .iter()
            .filter(|member| member.alive && member.id != node)
    };
    let next = alive()
        .filter(|member| member.id > node)
        .min_by_key(|member| member.id)
        .or_else(|| alive().min_by_key(|member| member.id));
    let address = |member: Option<&Member>| match member {
        Some(member) => text::printable(&member.text_address, 256),
        None => "<unset>".to_owned(),
    };
    format!("PORT {}\nNEXT {}\n", address(own), address(next))
}

fn modes(records: &[ModeRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        print_mode(record, &mut out);
    }
    if out.is_empty() {
        out.extend_from_slice(or_empty(String::new()).as_bytes());
    }
    out
}

fn or_empty(text: String) -> String {
    if text.is_empty() {
        "(empty)\n".to_owned()
    } else {
        text
    }
}

/// How this node's scrub stands, in a line; of what it found what there is of it.
fn scrubbed(scrub: &ScrubStatus) -> String {
    let mut text = scrub.state.word().to_owned();
    if let Some(pass) = &scrub.pass {
        let _ = write!(
            text,
            " pass={} bytes={} of={}",
            pass.number, pass.bytes, pass.bytes_total
        );
    }
    let last = scrub.last.and_then(|last| last.ended);
    let last = last.map_or_else(|| "never".to_owned(), Wall::rfc3339);
    let _ = write!(text, " complete={last}");
    for finding in Finding::ALL {
        if scrub.found.of(finding) > 0 {
            let _ = write!(text, " {}={}", finding.word(), scrub.found.of(finding));
        }
    }
    if scrub.aside > 0 {
        let _ = write!(text, " aside={}", scrub.aside);
    }
    text
}

/// The status as `key value` lines and a line a member.
fn screen(status: &Status) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: &dyn fmt::Display| {
        let value = text::printable(&value.to_string(), 1_024);
        let _ = writeln!(text, "{}", format!("{key} {value}").trim_end());
    };
    let none = || "-".to_owned();
    row("node", &status.node);
    row("state", &status.state);
    if !status.detail.is_empty() {
        row("detail", &status.detail);
    }
    row("cluster", &status.cluster.clone().unwrap_or_else(none));
    row(
        "leader",
        &status.leader.map_or_else(none, |leader| leader.to_string()),
    );
    row("term", &status.term);
    row("applied", &status.applied);
    row(
        "voters",
        &format_args!("{} of {} alive", status.voters.0, status.voters.1),
    );
    let mode = &status.mode;
    row(
        "mode",
        &format_args!("{} {}", mode.new.digit(), mode.new.name()),
    );
    row("under_replicated", &status.under_replicated);
    row("repair", &repair_words(&status.repair));
    if let Some(scrub) = &status.scrub {
        row("scrub", &scrubbed(scrub));
    }
    row("connections", &status.connections);
    row("durability", &status.durability);
    row("uptime_s", &status.uptime_s);
    row("version", &status.version);
    let bytes = |bytes: Option<u64>| bytes.map_or_else(none, |bytes| bytes.to_string());
    for member in &status.members {
        let life = if member.alive { "alive" } else { "dead" };
        row(
            "member",
            &format_args!(
                "{} {life} name={} role={} state={} peer={} text={} free={} total={}",
                member.id,
                member.name,
                member.role,
                member.administrative,
                member.address,
                member.text_address,
                bytes(member.free_bytes),
                bytes(member.total_bytes),
            ),
        );
        if let Some(health) = &member.health {
            row("health", &health_words(member.id, health));
        }
        if let Some(drained) = &member.drained {
            let then = if drained.safe_to_stop {
                "safe to stop".to_owned()
            } else {
                format!("{} ({} bytes left)", drained.why, drained.needed_bytes)
            };
            row("drain", &format_args!("{} {then}", member.id));
        }
    }
    text
}

/// How repair goes on, in the words of the status.
fn repair_words(repair: &Repair) -> String {
    let recounting = if repair.recounting { "yes" } else { "no" };
    let mut text = format!(
        "bytes_left={} recounting={recounting} here={}",
        repair.bytes_left, repair.here
    );
    if let Some(leading) = &repair.leading {
        let _ = write!(
            text,
            " jobs={} queued={} copies_done={} bytes_done={} bytes_per_s={}",
            leading.jobs,
            leading.queued,
            leading.copies_done,
            leading.bytes_done,
            leading.bytes_per_s,
        );
    }
    text
}

/// How a node's life is seen, in the words of the status.
fn health_words(node: NodeId, health: &NodeHealth) -> String {
    let seconds = |millis: Option<u64>| {
        let tenths = millis.map(|millis| (millis / 1_000, millis % 1_000 / 100));
        tenths.map_or_else(
            || "-".to_owned(),
            |(whole, tenth)| format!("{whole}.{tenth}"),
        )
    };
    let seen = match (health.up, health.suspected) {
        (true, false) => "up",
        (true, true) => "suspect",
        (false, _) => "silent",
    };
    let mut text = format!(
        "{node} {seen} heard_s={} since_s={} flaps={}",
        seconds(health.heard_ms),
        seconds(health.since_ms),
        health.flaps,
    );
    if let Some(figures) = &health.figures {
        let _ = write!(
            text,
            " io={:.2} cpu={:.2} memory={:.2} connections={} jobs={} applied={} term={} version={}",
            figures.io_busy,
            figures.cpu_used,
            figures.memory_used,
            figures.connections,
            figures.jobs,
            figures.applied,
            figures.term,
            figures.version,
        );
    }
    text
}

//! Stand-ins for what is above and below a door: an engine that keeps files in memory, and a connection that plays a script.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use momo::base::digest::{md5, sha256};
use momo::base::id::{Boot, NodeId, OperationId, Version};
use momo::base::path::FilePath;
use momo::base::time::{Mono, Wall};
use momo::doors::{Wait, Wire};
use momo::engine::verbs::{
    Content, Failure, Kept, Listing, Member, Put, ReadFailure, Repair, Stat, Status, Strategy,
    Verbs,
};
use momo::wire::command::{Code, Expect};
use momo::wire::record::{FileRecord, Mode, ModeRecord, Part};

/// An engine in memory. Some names have a fate: `unknown*` ends a put in an unknown outcome, `refused*` refuses it unread, `half*` breaks a read
/// in the middle, `lost*` before its first byte.
pub struct FakeVerbs {
    pub node: NodeId,
    state: Mutex<State>,
}

struct State {
    version: u64,
    files: BTreeMap<FilePath, Vec<(FileRecord, Vec<u8>)>>,
    modes: Vec<ModeRecord>,
}

impl FakeVerbs {
    pub fn new() -> Self {
        let mode = ModeRecord {
            old: Mode::Splay,
            new: Mode::Splay,
            timestamp: 1_763_668_800_000_000_000,
            cause: "start".into(),
        };
        let state = State {
            version: 0,
            files: BTreeMap::new(),
            modes: vec![mode],
        };
        Self {
            node: NodeId(0),
            state: Mutex::new(state),
        }
    }

    fn find(&self, path: &FilePath) -> Result<Vec<(FileRecord, Vec<u8>)>, Failure> {
        let state = self.state.lock().unwrap();
        let versions = state.files.get(path).cloned();
        versions.ok_or_else(|| Failure::refused(Code::NotFound, format!("no file {path}")))
    }
}

impl Verbs for FakeVerbs {
    fn node(&self) -> NodeId {
        self.node
    }

    fn put(&self, request: &Put, body: &mut dyn Read) -> Result<Kept, Failure> {
        let name = request.path.as_str();
        if name.starts_with("refused") {
            let message = "1 of 3 daemons up, 2 needed";
            return Err(Failure::refused(Code::Unavailable, message));
        }
        let mode = self.mode().new;
        let strategy = match &request.strategy {
            Strategy::Current => mode.name(),
            Strategy::Negotiated(mode) => mode.name(),
            Strategy::Leg => "leg",
            Strategy::Named(name) => {
                let Some(mode) = Mode::ALL.iter().find(|mode| mode.name() == name) else {
                    let message = format!("no strategy {name}");
                    return Err(Failure::refused(Code::Invalid, message));
                };
                mode.name()
            }
        };
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(Failure::Body)?;
        assert_eq!(
            bytes.len() as u64,
            request.size,
            "a body is whole or an error"
        );
        let (sha256, md5) = (sha256(&bytes), md5(&bytes));
        if request.sha256.is_some_and(|want| want != sha256) {
            let message = format!("SHA-256 is {sha256}");
            return Err(Failure::refused(Code::Invalid, message));
        }
        if request.md5.is_some_and(|want| want != md5) {
            return Err(Failure::refused(Code::Invalid, format!("MD5 is {md5}")));
        }
        if name.starts_with("unknown") {
            let message = "the leader was lost".into();
            return Err(Failure::Unknown { message });
        }
        let mut state = self.state.lock().unwrap();
        let current = state.files.get(&request.path).and_then(|all| all.first());
        let current = current.map(|(record, _)| record.version);
        match (request.expect, current) {
            (Expect::Absent, Some(_)) => {
                return Err(Failure::refused(Code::Conflict, "the file exists"));
            }
            (Expect::Version(want), current) if current != Some(want) => {
                return Err(Failure::refused(Code::Conflict, "the file changed"));
            }
            _ => {}
        }
        state.version += 1;
        let version = Version(state.version);
        let part = Part {
            size: request.size,
            sha256,
        };
        let record = FileRecord {
            path: request.path.clone(),
            version,
            size: request.size,
            sha256,
            md5: Some(md5),
            strategy: strategy.into(),
            class: request.class.clone(),
            parts: vec![part; usize::from(request.size > 0)],
            want: 3,
            owner: None,
            created: Wall(1_763_668_800_000_000_000),
            modified: Wall(1_763_668_800_000_000_000),
            upload: OperationId {
                node: self.node,
                boot: Boot(1),
                sequence: version.0,
            },
        };
        let versions = state.files.entry(request.path.clone()).or_default();
        versions.insert(0, (record, bytes));
        Ok(Kept {
            sha256,
            md5: Some(md5),
            version,
            copies: 3,
            parts: 1,
            strategy: strategy.into(),
        })
    }

    fn get(&self, path: &FilePath, version: Option<Version>) -> Result<Box<dyn Content>, Failure> {
        let versions = self.find(path)?;
        let wanted = |(record, _): &(FileRecord, _)| version.is_none_or(|v| record.version == v);
        let found = versions.into_iter().find(wanted);
        match found {
            Some((record, bytes)) => Ok(Box::new(FakeContent { record, bytes })),
            None => Err(Failure::refused(Code::NotFound, "no such version")),
        }
    }

    fn stat(&self, path: &FilePath) -> Result<Stat, Failure> {
        let versions = self.find(path)?;
        let earlier = versions.iter().skip(1).map(|(record, _)| record.version);
        let record = versions[0].0.clone();
        Ok(Stat {
            holders: vec![vec![NodeId(0), NodeId(1), NodeId(2)]; record.parts.len()],
            earlier: earlier.collect(),
            record,
            stale: false,
        })
    }

    /// Pages of two at most, so that every listing of three has a seam.
    fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Listing, Failure> {
        let state = self.state.lock().unwrap();
        let mut files = state.files.values().map(|versions| versions[0].0.clone());
        let inside = |file: &FileRecord| {
            file.path.as_str().starts_with(prefix) && file.path.as_str() > after
        };
        let page: Vec<_> = files.by_ref().filter(inside).take(limit.min(2)).collect();
        if page
            .iter()
            .any(|file| file.path.as_str().starts_with("zz-"))
        {
            return Err(Failure::refused(Code::Unavailable, "the tables broke"));
        }
        Ok(Listing {
            files: page,
            more: files.next().is_some(),
            stale: false,
        })
    }

    fn remove(&self, path: &FilePath, _expect: Expect) -> Result<Version, Failure> {
        let version = self.find(path)?[0].0.version;
        self.state.lock().unwrap().files.remove(path);
        Ok(version)
    }

    fn mode(&self) -> ModeRecord {
        self.state.lock().unwrap().modes[0].clone()
    }

    fn negotiate(&self, timestamp: u64) -> Mode {
        let mode = self.mode();
        let asked = if timestamp > mode.timestamp {
            mode.new
        } else {
            mode.old
        };
        match self.node {
            NodeId(0) => mode.new,
            NodeId(1) if asked == Mode::Chain && mode.new != Mode::PrimarySplay => asked,
            _ => Mode::None,
        }
    }

    fn mode_history(&self, limit: usize) -> Result<Vec<ModeRecord>, Failure> {
        let mut modes = self.state.lock().unwrap().modes.clone();
        modes.truncate(limit);
        Ok(modes)
    }

    fn set_mode(
        &self,
        new: Mode,
        timestamp: Option<u64>,
        cause: &str,
    ) -> Result<ModeRecord, Failure> {
        let mut state = self.state.lock().unwrap();
        let last = state.modes[0].clone();
        let timestamp = timestamp.unwrap_or(last.timestamp + 1);
        if timestamp <= last.timestamp {
            let message = "the timestamp is not newer than the last change";
            return Err(Failure::refused(Code::Conflict, message));
        }
        let record = ModeRecord {
            old: last.new,
            new,
            timestamp,
            cause: cause.into(),
        };
        state.modes.insert(0, record.clone());
        Ok(record)
    }

    /// Members 0 to 2; the last is dead, and their ports run against their numbers.
    fn members(&self) -> Vec<Member> {
        let member = |id: u16| Member {
            id: NodeId(id),
            name: format!("daemon{id}"),
            address: format!("127.0.0.1:{}", 4440 + id),
            text_address: format!("127.0.0.1:{}", 7002 - id),
            alive: id != 2,
            role: if id == 0 { "leader" } else { "voter" }.into(),
            administrative: "alive".into(),
            free_bytes: (id == 0).then_some(1 << 30),
            total_bytes: (id == 0).then_some(1 << 32),
            health: None,
            drained: None,
        };
        (0..3).map(member).collect()
    }

    fn status(&self) -> Status {
        Status {
            node: self.node,
            cluster: Some("00000000000000000000000000000abc".into()),
            state: "ready".into(),
            detail: String::new(),
            leader: Some(NodeId(0)),
            term: 3,
            applied: 41,
            voters: (2, 3),
            members: self.members(),
            mode: self.mode(),
            under_replicated: 0,
            repair: Repair::default(),
            scrub: None,
            connections: 1,
            durability: "full".into(),
            uptime_s: 60,
            version: "0.1.0".into(),
        }
    }
}

struct FakeContent {
    record: FileRecord,
    bytes: Vec<u8>,
}

impl Content for FakeContent {
    fn record(&self) -> &FileRecord {
        &self.record
    }

    fn stale(&self) -> bool {
        self.record.path.as_str().starts_with("stale")
    }

    fn copy_to(&mut self, offset: u64, length: u64, to: &mut dyn Write) -> Result<(), ReadFailure> {
        let from = usize::try_from(offset).unwrap();
        let bytes = &self.bytes[from..from + usize::try_from(length).unwrap()];
        let kept = match self.record.path.as_str() {
            name if name.starts_with("half") => bytes.len() / 2,
            name if name.starts_with("lost") => 0,
            _ => bytes.len(),
        };
        to.write_all(&bytes[..kept])
            .map_err(ReadFailure::Receiver)?;
        if kept < bytes.len() {
            return Err(ReadFailure::Source("no copy within reach".into()));
        }
        Ok(())
    }
}

/// What the other end does.
pub struct Step {
    /// How long it waits first.
    pub after: Duration,
    /// What it then sends; nothing stands for its end of input.
    pub bytes: Vec<u8>,
}

impl Step {
    pub fn now(bytes: &[u8]) -> Self {
        Self {
            after: Duration::ZERO,
            bytes: bytes.to_vec(),
        }
    }
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The door closed while the other end still listened.
    Closed,
    /// The other end closed first.
    Ended,
    /// The door broke the connection.
    Reset,
}

/// A connection that plays a script. What is written counts only once it is flushed: a door that waits for input with unsent answers is caught.
pub struct ScriptedWire {
    pub peer: SocketAddr,
    script: VecDeque<Step>,
    current: Vec<u8>,
    at: usize,
    unsent: Vec<u8>,
    sent: Vec<u8>,
    /// What had been sent each time before the other end did its next step.
    pub answers: Vec<Vec<u8>>,
    /// Sizes of the writes, as system calls would see them.
    pub writes: Vec<usize>,
    clock: Duration,
    deadline: Mono,
    pub waits: Vec<Wait>,
    ended: bool,
    end: Option<End>,
}

impl ScriptedWire {
    /// What the other end sends at once is already here, as it is when a door is chosen by it.
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        let mut wire = Self {
            peer: "127.0.0.1:40000".parse().unwrap(),
            script: script.into_iter().collect(),
            current: Vec::new(),
            at: 0,
            unsent: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            writes: Vec::new(),
            clock: Duration::ZERO,
            deadline: Mono(0),
            waits: Vec::new(),
            ended: false,
            end: None,
        };
        if wire.script.front().is_some_and(|step| step.after.is_zero()) {
            wire.advance();
        }
        wire
    }

    fn advance(&mut self) {
        self.answers.push(std::mem::take(&mut self.sent));
        self.at = 0;
        self.current = self
            .script
            .pop_front()
            .map_or_else(Vec::new, |step| step.bytes);
        self.ended = self.current.is_empty();
    }

    /// Everything that was sent.
    pub fn output(&self) -> Vec<u8> {
        let mut all = self.answers.concat();
        all.extend_from_slice(&self.sent);
        all
    }

    /// What was sent after the last step.
    pub fn rest(&self) -> &[u8] {
        &self.sent
    }

    pub fn end(&self) -> End {
        self.end.unwrap_or(End::Closed)
    }

    /// How long the script has run.
    pub fn elapsed(&self) -> Duration {
        self.clock
    }
}

impl Wire for ScriptedWire {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn pending(&self) -> &[u8] {
        &self.current[self.at..]
    }

    fn now(&self) -> Mono {
        Mono(0) + self.clock
    }

    fn set_deadline(&mut self, wait: Wait, deadline: Mono) {
        self.waits.push(wait);
        self.deadline = deadline;
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        let end = if self.ended { End::Ended } else { End::Closed };
        self.end.get_or_insert(end);
        Ok(())
    }

    fn abort(&mut self) {
        self.unsent.clear();
        self.end = Some(End::Reset);
    }
}

impl Read for ScriptedWire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let count = bytes.read(to)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for ScriptedWire {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        assert_ne!(self.end, Some(End::Reset), "nothing is read after a reset");
        if self.at == self.current.len() && !self.ended {
            let after = self
                .script
                .front()
                .map_or(Duration::ZERO, |step| step.after);
            let patience = self.deadline - self.now();
            if after > patience {
                self.clock += patience;
                if let Some(step) = self.script.front_mut() {
                    step.after -= patience;
                }
                return Err(ErrorKind::WouldBlock.into());
            }
            self.clock += after;
            self.advance();
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        assert!(self.at <= self.current.len());
    }
}

impl Write for ScriptedWire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert_eq!(self.end, None, "nothing is written after the end");
        let before = self.unsent.len();
        for slice in slices {
            self.unsent.extend_from_slice(slice);
        }
        let count = self.unsent.len() - before;
        self.writes.push(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sent.append(&mut self.unsent);
        Ok(())
    }
}

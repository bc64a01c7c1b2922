//! The Raft log: append-only CRC-framed records in preallocated segments, one sync per append.
//!
//! A segment is a file `<number, 16 hex digits>.log`. It holds frames, each at a multiple of 8 bytes:
//! ```text
//! magic(4) crc32c(4, of all that follows) length(4, of the payload) kind(1) zero(3) segment(8) sequence(8) payload
//! ```
//! Integers are little-endian. Sequence numbers run through all segments without gaps; the segment's number inside
//! the frame makes the old content of a recycled file void. Frames of kind 1 (`Base`) say where the log begins (first
//! segment that counts, index and term) and repeat the hard state; every segment begins with one, so that the
//! segments before it can go. Frames of kind 2 (`Append`) carry a hard state, if it changed, and entries.
//!
//! Each frame is synced before the next is written, so at most the last one can be torn, and a damaged frame with a
//! good one behind it is damage (rule R15), not the mark of a crash.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, is_full};
use crate::base::digest::crc32c;
use crate::base::limit::LOG_SEGMENT_BYTES;

/// The point a log begins behind: index and term of the last entry that is no longer in it (0, 0 for a log from the start).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBase {
    /// Index of that entry.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
}

/// One entry; its bytes are opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Raft index, from 1.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// The entry as Raft encodes it.
    pub bytes: Vec<u8>,
}

/// What a log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state, `None` if never written.
    pub hard_state: Option<Vec<u8>>,
    /// Where the log begins.
    pub base: LogBase,
    /// The entries `base.index + 1 ..`, without gaps.
    pub entries: Vec<LogEntry>,
}

/// Why the log does not go on.
#[derive(Debug)]
pub enum LogError {
    /// Records are missing or damaged elsewhere than in a torn tail, or a sync failed earlier (rule R15): the node must
    /// return as a wiped voter, on an emptied log directory.
    Damaged(String),
    /// The disk refused; what was being written may or may not be there. The log takes nothing more.
    Io(io::Error),
    /// An earlier call failed; the log takes nothing more (rule R15).
    Poisoned,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "Raft log is damaged: {why}"),
            Self::Io(error) => write!(f, "Raft log: {error}"),
            Self::Poisoned => f.write_str("Raft log: stopped after an earlier failure"),
        }
    }
}

impl std::error::Error for LogError {}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const MAGIC: [u8; 4] = [0xf5, b'm', b'l', 1];
const HEADER_BYTES: usize = 32;
const ALIGNMENT: usize = 8;
const BASE: u8 = 1;
const APPEND: u8 = 2;

/// Present once the log was durable for the first time: without it an empty directory is a new log, with it a lost one.
const BEGUN: &str = "begun";
/// Present after a failed sync, as far as the failing disk allows.
const FAILED: &str = "failed";

/// The log, open for appending; one owner.
pub struct RaftLog<D: Disk> {
    disk: D,
    dir: PathBuf,
    segment_bytes: u64,
    /// Segments that count, oldest first; the last one is written to.
    segments: Vec<Segment>,
    file: D::File,
    /// Where the next frame goes in the last segment.
    offset: u64,
    /// The segment after the last one is made and durable.
    spare: Option<D::File>,
    sequence: u64,
    base: LogBase,
    last_index: u64,
    hard_state: Option<Vec<u8>>,
    poisoned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// Highest index ever written into it.
    highest: u64,
    /// It outgrew the usual length for the sake of one large frame, and is not used again.
    grown: bool,
}

impl<D: Disk> RaftLog<D> {
    /// Opens or makes the log in `dir`, which exists.
    pub fn open(disk: D, dir: &Path) -> Result<(Self, Recovered), LogError> {
        Self::open_with(disk, dir, LOG_SEGMENT_BYTES)
    }

    /// As `open`, with segments of `segment_bytes`.
    pub fn open_with(
        disk: D,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), LogError> {
        let names = disk.list(dir)?;
        if names.iter().any(|name| name == FAILED) {
            return Err(LogError::Damaged("a sync failed earlier".to_owned()));
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment_number(n)).collect();
        numbers.sort_unstable();
        let begun = names.iter().any(|name| name == BEGUN);

        // Newest first: the newest segment with a record says how far back to go.
        let mut contents: Vec<Content> = Vec::new();
        let mut spare_bytes = 0;
        for number in numbers.iter().rev() {
            let newest_says = contents.first().map(|(_, _, _, first)| *first);
            if newest_says.is_some_and(|first| *number < first) {
                break;
            }
            let mut bytes = disk.read(&dir.join(segment_name(*number)))?;
            let scan = scan(*number, &bytes)?;
            if scan.frames.is_empty() && contents.is_empty() {
                spare_bytes = bytes.len() as u64; // Or its first record was never synced.
                continue;
            }
            let own_says = || {
                scan.frames
                    .iter()
                    .rev()
                    .find_map(|f| f.first_segment(&bytes))
            };
            let first = newest_says
                .or_else(own_says)
                .ok_or_else(|| damaged(*number, 0, "the segment does not say where it begins"))?;
            let grown = bytes.len() as u64 != segment_bytes;
            bytes.truncate(scan.end);
            bytes.shrink_to_fit();
            contents.push((*number, bytes, Scan { grown, ..scan }, first));
        }
        contents.reverse();

        if contents.is_empty() {
            if begun {
                return Err(LogError::Damaged("no record is left".to_owned()));
            }
            return Self::create(disk, dir, segment_bytes, &numbers);
        }
        let replayed = replay(&contents)?;
        Self::resume(
            disk,
            dir,
            segment_bytes,
            (&numbers, spare_bytes),
            &contents,
            replayed,
        )
    }

    /// A new log in place of a damaged one, which is removed. From here on this node remembers nothing: the caller
    /// sees to it, durably and before, that it does not vote (rule R15).
    pub fn create_anew(disk: D, dir: &Path) -> Result<(Self, Recovered), LogError> {
        let mut segments = Vec::new();
        let mut marks = Vec::new();
        for name in disk.list(dir)? {
            match segment_number(&name) {
                Some(number) => segments.push(number),
                None if name == BEGUN || name == FAILED => marks.push(name),
                None => {}
            }
        }
        // Segments first: while the mark is there, a crash on the way leaves a log that is damaged still, not a new one.
        for number in segments {
            disk.remove(&dir.join(segment_name(number)))?;
        }
        disk.sync_dir(dir)?;
        for name in marks {
            disk.remove(&dir.join(name))?;
        }
        disk.sync_dir(dir)?;
        Self::create(disk, dir, LOG_SEGMENT_BYTES, &[])
    }

    fn create(
        disk: D,
        dir: &Path,
        segment_bytes: u64,
        stale: &[u64],
    ) -> Result<(Self, Recovered), LogError> {
        for number in stale {
            disk.remove(&dir.join(segment_name(*number)))?;
        }
        let file = disk.create(&dir.join(segment_name(1)), segment_bytes)?;
        let mut log = Self {
            disk,
            dir: dir.to_owned(),
            segment_bytes,
            segments: vec![Segment::new(1)],
            file,
            offset: 0,
            spare: None,
            sequence: 1,
            base: LogBase::default(),
            last_index: 0,
            hard_state: None,
            poisoned: false,
        };
        log.disk.sync_dir(dir)?;
        log.write_base()?;
        log.disk.create(&dir.join(BEGUN), 0)?;
        log.make_spare()?;
        log.disk.sync_dir(dir)?;
        Ok((log, Recovered::default()))
    }

    fn resume(
        disk: D,
        dir: &Path,
        segment_bytes: u64,
        (numbers, spare_bytes): (&[u64], u64),
        contents: &[Content],
        replayed: Replayed,
    ) -> Result<(Self, Recovered), LogError> {
        let Some((number, bytes, scan, first)) = contents.last() else {
            return Err(LogError::Damaged("no record is left".to_owned()));
        };
        let file = disk.open(&dir.join(segment_name(*number)))?;
        // The last frame may be in the page cache alone (the process died between write and sync, or the sync
        // failed): it counts from here on, so it is written and synced once more.
        if let Some(frame) = scan.frames.last() {
            let whole = bytes.get(frame.at..scan.end).unwrap_or_default();
            file.write_at(frame.at as u64, whole)?;
            file.sync_data()?;
        }
        let next = number + 1;
        let mut spare = None;
        for stale in numbers.iter().filter(|n| *n < first || *n > number) {
            let path = dir.join(segment_name(*stale));
            if *stale == next && spare_bytes == segment_bytes {
                spare = Some(disk.open(&path)?);
            } else {
                disk.remove(&path)?;
            }
        }
        let mut log = Self {
            disk,
            dir: dir.to_owned(),
            segment_bytes,
            segments: replayed.segments,
            file,
            offset: scan.end as u64,
            spare,
            sequence: replayed.sequence,
            base: replayed.recovered.base,
            last_index: replayed.recovered.base.index + replayed.recovered.entries.len() as u64,
            hard_state: replayed.recovered.hard_state.clone(),
            poisoned: false,
        };
        log.disk.create(&dir.join(BEGUN), 0)?;
        log.make_spare()?;
        log.disk.sync_dir(dir)?;
        Ok((log, replayed.recovered))
    }

    /// Appends; synced when it returns. Entries are without gaps and begin at or below last + 1; what they overlap is replaced.
    pub fn append(
        &mut self,
        hard_state: Option<&[u8]>,
        entries: &[LogEntry],
    ) -> Result<(), LogError> {
        if hard_state.is_none() && entries.is_empty() {
            return Ok(());
        }
        if let Some(first) = entries.first() {
            assert!(
                first.index > self.base.index,
                "an entry that was cut is written again"
            );
            assert!(first.index <= self.last_index + 1, "a gap in the log");
            assert!(
                entries
                    .windows(2)
                    .all(|pair| pair[0].index + 1 == pair[1].index)
            );
        }
        let mut payload = Vec::new();
        put_optional(&mut payload, hard_state);
        payload.extend((entries.len() as u64).to_le_bytes());
        for entry in entries {
            payload.extend(entry.index.to_le_bytes());
            payload.extend(entry.term.to_le_bytes());
            payload.extend((entry.bytes.len() as u64).to_le_bytes());
            payload.extend(&entry.bytes);
        }
        self.guarded(|log| {
            log.write_frame(APPEND, &payload)?;
            if let Some(hard_state) = hard_state {
                log.hard_state = Some(hard_state.to_vec());
            }
            if let Some(last) = entries.last() {
                log.last_index = last.index;
                if let Some(segment) = log.segments.last_mut() {
                    segment.highest = segment.highest.max(last.index);
                }
            }
            Ok(())
        })
    }

    /// Forgets entries up to and with `base.index`, which may lie behind the last: the log is empty then. The hard state is kept.
    pub fn cut(&mut self, base: LogBase) -> Result<(), LogError> {
        if base.index <= self.base.index {
            return if self.poisoned {
                Err(LogError::Poisoned)
            } else {
                Ok(())
            };
        }
        if base.index > self.last_index {
            // A log that begins behind what it never held: a cluster's birth.
            let hard_state = self.hard_state.clone().unwrap_or_default();
            return self.reset(base, &hard_state);
        }
        self.guarded(|log| {
            log.base = base;
            let whole = log.segments.len() - 1;
            let gone = log.segments[..whole]
                .iter()
                .take_while(|s| s.highest <= base.index);
            let gone = gone.count();
            let dropped: Vec<Segment> = log.segments.drain(..gone).collect();
            log.write_base()?;
            log.discard(&dropped)
        })
    }

    /// After a snapshot: an empty log behind `base`. After a crash it is the old log or the new one, whole. An empty
    /// `hard_state` is none.
    pub fn reset(&mut self, base: LogBase, hard_state: &[u8]) -> Result<(), LogError> {
        self.guarded(|log| {
            log.base = base;
            log.last_index = base.index;
            log.hard_state = (!hard_state.is_empty()).then(|| hard_state.to_vec());
            let dropped = std::mem::take(&mut log.segments);
            let number = dropped.last().map_or(1, |segment| segment.number + 1);
            log.begin_segment(number)?;
            log.discard(&dropped)
        })
    }

    /// Runs `work` unless an earlier call failed; a failure is remembered.
    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        self.poisoned = true;
        let result = work(self);
        self.poisoned = result.is_err();
        result
    }

    fn write_base(&mut self) -> Result<(), LogError> {
        let first = self.segments.first().map_or(1, |segment| segment.number);
        let mut payload = Vec::new();
        payload.extend(first.to_le_bytes());
        payload.extend(self.base.index.to_le_bytes());
        payload.extend(self.base.term.to_le_bytes());
        put_optional(&mut payload, self.hard_state.as_deref());
        self.write_frame(BASE, &payload)
    }

    /// Writes one frame and syncs it, in a new segment if it does not fit into this one.
    fn write_frame(&mut self, kind: u8, payload: &[u8]) -> Result<(), LogError> {
        let length = (HEADER_BYTES + payload.len()).next_multiple_of(ALIGNMENT) as u64;
        let number = self.segments.last().map_or(1, |segment| segment.number);
        if self.offset > 0 && self.offset + length > self.segment_bytes {
            self.begin_segment(number + 1)?;
            if kind == BASE {
                return Ok(()); // The segment has just begun with the same words.
            }
            return self.write_frame_here(kind, payload);
        }
        self.write_frame_here(kind, payload)
    }

    fn write_frame_here(&mut self, kind: u8, payload: &[u8]) -> Result<(), LogError> {
        let Some(segment) = self.segments.last_mut() else {
            return Err(LogError::Damaged("no segment is open".to_owned()));
        };
        let frame = frame(kind, segment.number, self.sequence, payload);
        let written = self.file.write_at(self.offset, &frame);
        written.map_err(|error| explain(&self.dir, error))?;
        if let Err(error) = self.file.sync_data() {
            // The disk has just refused something: this is an attempt, and the node stops in any case.
            let _ = self.disk.create(&self.dir.join(FAILED), 0);
            let _ = self.disk.sync_dir(&self.dir);
            return Err(error.into());
        }
        self.offset += frame.len() as u64;
        segment.grown |= self.offset > self.segment_bytes;
        self.sequence += 1;
        Ok(())
    }

    /// Makes segment `number` the last one; its first frame says all that is needed of the ones before.
    fn begin_segment(&mut self, number: u64) -> Result<(), LogError> {
        if self.spare.is_none() {
            let path = self.dir.join(segment_name(number));
            let made = self.disk.create(&path, self.segment_bytes);
            self.spare = Some(made.map_err(|error| explain(&self.dir, error))?);
            self.disk.sync_dir(&self.dir)?;
        }
        if let Some(file) = self.spare.take() {
            self.file = file;
        }
        self.offset = 0;
        self.segments.push(Segment::new(number));
        self.write_base()
    }

    /// Uses a dropped segment as the next spare, removes the others.
    fn discard(&mut self, dropped: &[Segment]) -> Result<(), LogError> {
        for segment in dropped {
            let path = self.dir.join(segment_name(segment.number));
            if self.spare.is_none() && !segment.grown {
                let next = self.dir.join(segment_name(self.next_number()));
                self.disk.rename(&path, &next)?;
                self.spare = Some(self.disk.open(&next)?);
            } else {
                self.disk.remove(&path)?;
            }
        }
        self.make_spare()?;
        if !dropped.is_empty() {
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Sees that the next segment is there before it is needed. On a full disk it is tried again at the next cut.
    fn make_spare(&mut self) -> Result<(), LogError> {
        if self.spare.is_some() {
            return Ok(());
        }
        let path = self.dir.join(segment_name(self.next_number()));
        match self.disk.create(&path, self.segment_bytes) {
            Ok(file) => {
                self.spare = Some(file);
                Ok(self.disk.sync_dir(&self.dir)?)
            }
            Err(error) if is_full(&error) => Ok(self.disk.remove(&path)?),
            Err(error) => Err(error.into()),
        }
    }

    fn next_number(&self) -> u64 {
        self.segments.last().map_or(1, |segment| segment.number + 1)
    }
}

/// Says of a full disk what to do about it.
fn explain(dir: &Path, error: io::Error) -> io::Error {
    if !is_full(&error) {
        return error;
    }
    let why = format!(
        "{}: the disk is full, and the room that was kept for the log is used up: make room and start again ({error})",
        dir.display()
    );
    io::Error::new(io::ErrorKind::StorageFull, why)
}

impl Segment {
    const fn new(number: u64) -> Self {
        Self {
            number,
            highest: 0,
            grown: false,
        }
    }
}

/// A segment as read: number, bytes, frames, and the first segment that counts as the newest segment says.
type Content = (u64, Vec<u8>, Scan, u64);

struct Scan {
    frames: Vec<Frame>,
    /// Where the good frames end.
    end: usize,
    /// The file is not as long as segments are now.
    grown: bool,
}

#[derive(Clone, Copy)]
struct Frame {
    at: usize,
    kind: u8,
    sequence: u64,
    payload: usize,
    length: usize,
}

impl Frame {
    fn reader<'a>(&self, bytes: &'a [u8]) -> Fields<'a> {
        Fields(
            bytes
                .get(self.payload..self.payload + self.length)
                .unwrap_or_default(),
        )
    }

    fn first_segment(&self, bytes: &[u8]) -> Option<u64> {
        (self.kind == BASE)
            .then(|| self.reader(bytes).count())
            .flatten()
    }
}

/// The good frames from the start of segment `number`; an error when there is another behind a bad one.
fn scan(number: u64, bytes: &[u8]) -> Result<Scan, LogError> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut end = 0;
    while let Some((frame, next)) = frame_at(number, bytes, end) {
        if frames
            .last()
            .is_some_and(|last| last.sequence + 1 != frame.sequence)
        {
            return Err(damaged(number, end, "records are missing"));
        }
        frames.push(frame);
        end = next;
    }
    let behind = (end..bytes.len()).step_by(ALIGNMENT).skip(1);
    for at in behind {
        if frame_at(number, bytes, at).is_some() {
            return Err(damaged(
                number,
                end,
                "a bad record has a good one behind it",
            ));
        }
    }
    Ok(Scan {
        frames,
        end,
        grown: false,
    })
}

/// The good frame of segment `number` at `at`, and where the next one would be.
fn frame_at(number: u64, bytes: &[u8], at: usize) -> Option<(Frame, usize)> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    if header[..4] != MAGIC {
        return None;
    }
    let mut fields = Fields(&header[4..]);
    let crc = fields.u32()?;
    let length = usize::try_from(fields.u32()?).ok()?;
    let kind = fields.u32()?;
    let (segment, sequence) = (fields.u64()?, fields.count()?);
    let end = at.checked_add(HEADER_BYTES)?.checked_add(length)?;
    if segment != number || crc32c(bytes.get(at + 8..end)?) != crc {
        return None;
    }
    let frame = Frame {
        at,
        kind: u8::try_from(kind).ok()?,
        sequence,
        payload: at + HEADER_BYTES,
        length,
    };
    Some((frame, end.next_multiple_of(ALIGNMENT).min(bytes.len())))
}

struct Replayed {
    recovered: Recovered,
    segments: Vec<Segment>,
    sequence: u64,
}

fn replay(contents: &[Content]) -> Result<Replayed, LogError> {
    let expected = contents.last().map_or(1, |(_, _, _, first)| *first);
    if contents.first().map(|content| content.0) != Some(expected) {
        return Err(LogError::Damaged(format!("segment {expected} is missing")));
    }
    let mut replayed = Replayed {
        recovered: Recovered {
            base: last_base(contents)?,
            ..Recovered::default()
        },
        segments: Vec::new(),
        sequence: 0,
    };
    for (expected, (number, bytes, scan, _)) in (expected..).zip(contents) {
        if *number != expected {
            return Err(LogError::Damaged(format!("segment {expected} is missing")));
        }
        let mut segment = Segment::new(*number);
        segment.grown = scan.grown;
        for frame in &scan.frames {
            if replayed.sequence != 0 && frame.sequence != replayed.sequence {
                return Err(damaged(
                    *number,
                    frame.at,
                    "records are missing before this one",
                ));
            }
            replayed.sequence = frame.sequence + 1;
            replayed
                .recovered
                .take(*frame, bytes, &mut segment)
                .ok_or_else(|| damaged(*number, frame.at, "a record does not follow"))?;
        }
        if scan.frames.is_empty() {
            return Err(damaged(*number, 0, "the segment is empty"));
        }
        replayed.segments.push(segment);
    }
    Ok(replayed)
}

/// The base as the newest frame that names one has it; older ones only say what held then.
fn last_base(contents: &[Content]) -> Result<LogBase, LogError> {
    let found = contents.last().and_then(|(_, bytes, scan, _)| {
        let frame = scan.frames.iter().rev().find(|frame| frame.kind == BASE)?;
        let mut fields = frame.reader(bytes);
        fields.u64()?;
        Some(LogBase {
            index: fields.count()?,
            term: fields.u64()?,
        })
    });
    found.ok_or_else(|| LogError::Damaged("no record says where the log begins".to_owned()))
}

impl Recovered {
    /// Makes the change that a frame tells of; `None` when it tells nothing that can follow.
    fn take(&mut self, frame: Frame, bytes: &[u8], segment: &mut Segment) -> Option<()> {
        let mut fields = frame.reader(bytes);
        match frame.kind {
            BASE => {
                let (_, _, _) = (fields.u64()?, fields.u64()?, fields.u64()?);
                self.hard_state = fields.optional()?.map(<[u8]>::to_vec);
            }
            APPEND => {
                if let Some(hard_state) = fields.optional()? {
                    self.hard_state = Some(hard_state.to_vec());
                }
                for _ in 0..fields.u64()? {
                    let (index, term, length) = (fields.count()?, fields.u64()?, fields.u64()?);
                    let bytes = fields.take(usize::try_from(length).ok()?)?.to_vec();
                    segment.highest = segment.highest.max(index);
                    let place = usize::try_from(index.saturating_sub(self.base.index + 1)).ok()?;
                    if place > self.entries.len() {
                        return None;
                    }
                    self.entries.truncate(place);
                    if index > self.base.index {
                        self.entries.push(LogEntry { index, term, bytes });
                    }
                }
            }
            _ => return None,
        }
        fields.0.is_empty().then_some(())
    }
}

fn frame(kind: u8, segment: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("an append is far below 4 GiB");
    let mut frame = Vec::with_capacity((HEADER_BYTES + payload.len()).next_multiple_of(ALIGNMENT));
    frame.extend(MAGIC);
    frame.extend([0; 4]);
    frame.extend(length.to_le_bytes());
    frame.extend(u32::from(kind).to_le_bytes());
    frame.extend(segment.to_le_bytes());
    frame.extend(sequence.to_le_bytes());
    frame.extend(payload);
    let crc = crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(ALIGNMENT), 0);
    frame
}

fn put_optional(payload: &mut Vec<u8>, bytes: Option<&[u8]>) {
    payload.push(u8::from(bytes.is_some()));
    let bytes = bytes.unwrap_or_default();
    payload.extend((bytes.len() as u64).to_le_bytes());
    payload.extend(bytes);
}

/// Fields of a record, taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A number that is counted up from: one that is near its end was never written.
    fn count(&mut self) -> Option<u64> {
        self.u64().filter(|count| *count < 1 << 62)
    }

    /// What `put_optional` wrote; the outer `None` is a field cut short.
    #[allow(clippy::option_option)]
    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        let present = *self.take(1)?.first()?;
        let length = usize::try_from(self.u64()?).ok()?;
        let bytes = self.take(length)?;
        Some((present == 1).then_some(bytes))
    }
}

fn damaged(segment: u64, at: usize, why: &str) -> LogError {
    LogError::Damaged(format!("{}, byte {at}: {why}", segment_name(segment)))
}

fn segment_name(number: u64) -> String {
    format!("{number:016x}.log")
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name
        .strip_suffix(".log")
        .filter(|digits| digits.len() == 16)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;
    use std::os::unix::fs::FileExt;

    fn entry(index: u64) -> LogEntry {
        LogEntry {
            index,
            term: 1,
            bytes: vec![u8::try_from(index % 251).unwrap(); 40],
        }
    }

    fn filled(dir: &Path, last: u64) {
        let (mut log, _) = RaftLog::open_with(RealDisk, dir, 4096).unwrap();
        for index in 1..=last {
            log.append(Some(&index.to_le_bytes()), &[entry(index)])
                .unwrap();
        }
    }

    fn open(dir: &Path) -> Result<Recovered, LogError> {
        RaftLog::open_with(RealDisk, dir, 4096).map(|(_, recovered)| recovered)
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 100);
        let recovered = open(dir.path()).unwrap();
        assert_eq!(recovered.entries, (1..=100).map(entry).collect::<Vec<_>>());
        assert_eq!(recovered.hard_state, Some(100_u64.to_le_bytes().to_vec()));
    }

    #[test]
    fn a_record_with_good_ones_behind_it_is_damage_and_the_last_one_is_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 10);
        let path = dir.path().join(segment_name(1));
        let bytes = std::fs::read(&path).unwrap();
        let frames = scan(1, &bytes).unwrap().frames;
        let flip = |frame: &Frame| {
            let at = frame.payload + 3;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[!bytes[at]], at as u64).unwrap();
        };
        let (last, before) = frames.split_last().unwrap();
        flip(last);
        assert_eq!(open(dir.path()).unwrap().entries.len(), 9);
        for frame in before.iter().take(9) {
            std::fs::write(&path, &bytes).unwrap();
            flip(frame);
            assert!(
                matches!(open(dir.path()), Err(LogError::Damaged(_))),
                "{}",
                frame.at
            );
        }
    }

    #[test]
    fn a_log_that_was_there_is_never_taken_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 100);
        std::fs::remove_file(dir.path().join(segment_name(1))).unwrap();
        assert!(matches!(open(dir.path()), Err(LogError::Damaged(_))));
        for name in RealDisk.list(dir.path()).unwrap() {
            if segment_number(&name).is_some() {
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
        assert!(matches!(open(dir.path()), Err(LogError::Damaged(_))));
    }

    #[test]
    fn segments_are_used_again_and_do_not_grow_in_number() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = RaftLog::open_with(RealDisk, dir.path(), 4096).unwrap();
        for index in 1..=2_000 {
            log.append(None, &[entry(index)]).unwrap();
            if index % 50 == 0 {
                log.cut(LogBase {
                    index: index - 10,
                    term: 1,
                })
                .unwrap();
                assert!(RealDisk.list(dir.path()).unwrap().len() <= 6);
            }
        }
        drop(log);
        let recovered = open(dir.path()).unwrap();
        assert_eq!(recovered.base.index, 1_990);
        assert_eq!(
            recovered.entries,
            (1_991..=2_000).map(entry).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_record_larger_than_a_segment_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 3);
        let (mut log, _) = RaftLog::open_with(RealDisk, dir.path(), 4096).unwrap();
        let large = LogEntry {
            index: 4,
            term: 1,
            bytes: vec![9; 100_000],
        };
        log.append(None, std::slice::from_ref(&large)).unwrap();
        log.append(None, &[entry(5)]).unwrap();
        drop(log);
        let recovered = open(dir.path()).unwrap();
        assert_eq!(recovered.entries[3..], [large, entry(5)]);
    }

    #[test]
    #[ignore = "measures: run with --release -- --ignored --nocapture"]
    fn what_an_append_costs() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (mut log, _) = RaftLog::open(RealDisk, dir.path()).unwrap();
        let mut times = Vec::new();
        for index in 1..=20_000_u64 {
            let entry = LogEntry {
                index,
                term: 1,
                bytes: vec![1; 600],
            };
            let start = std::time::Instant::now();
            log.append(Some(&[1; 8]), &[entry]).unwrap();
            times.push(start.elapsed().as_micros());
            if index % 4_096 == 0 {
                let start = std::time::Instant::now();
                log.cut(LogBase {
                    index: index - 2_048,
                    term: 1,
                })
                .unwrap();
                println!("cut {} us", start.elapsed().as_micros());
            }
        }
        times.sort_unstable();
        let at = |part: usize| times[times.len() * part / 1_000];
        println!(
            "append p50 {} p90 {} p99 {} p99.9 {} us",
            at(500),
            at(900),
            at(990),
            at(999)
        );
    }
}

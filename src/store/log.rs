//! The Raft log: append-only CRC-framed records in preallocated segments, one sync per append.

use std::path::Path;

use super::disk::Disk;

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
    /// The entry as Raft encodes it, at most `FRAME_BYTES`.
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
    /// Records are missing or damaged elsewhere than in a torn tail (rule R15): the node must return as a wiped voter.
    Damaged(String),
    /// The disk refused; what was being written may or may not be there. The log takes nothing more until opened again.
    Io(std::io::Error),
    /// An earlier call failed; the log takes nothing more (rule R15).
    Poisoned,
}

/// The log, open for appending; one owner.
pub struct RaftLog<D: Disk> {
    _disk: D,
}

impl<D: Disk> RaftLog<D> {
    /// Opens or makes the log in `dir`, which exists.
    pub fn open(disk: D, dir: &Path) -> Result<(Self, Recovered), LogError> {
        let _ = (disk, dir);
        unimplemented!()
    }

    /// Appends; synced when it returns. Entries are without gaps and begin at or below last + 1; what they overlap is replaced.
    pub fn append(
        &mut self,
        hard_state: Option<&[u8]>,
        entries: &[LogEntry],
    ) -> Result<(), LogError> {
        let _ = (hard_state, entries);
        unimplemented!()
    }

    /// Forgets entries up to and with `base.index`; the hard state is kept.
    pub fn cut(&mut self, base: LogBase) -> Result<(), LogError> {
        let _ = base;
        unimplemented!()
    }

    /// After a snapshot: an empty log behind `base`. After a crash it is the old log or the new one, whole.
    pub fn reset(&mut self, base: LogBase, hard_state: &[u8]) -> Result<(), LogError> {
        let _ = (base, hard_state);
        unimplemented!()
    }
}

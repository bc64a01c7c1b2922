//! The Raft log in memory: the entries above its base, where the tables stand, and what Raft asks of its storage.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::node::LogRecord;
use crate::wire::peer::SnapshotHead;

/// What Raft knows of its past. Entries are put here when they are handed to the disk; that they have arrived there Raft is told separately.
pub struct Log {
    /// Index and term of the last entry that was cut off.
    base: (u64, u64),
    /// The entries from `base.0 + 1`.
    entries: VecDeque<Entry>,
    /// Bytes of the entries' contents.
    bytes: usize,
    /// The hard state at the start; Raft keeps the current one itself.
    start: HardState,
    /// Where the tables stand.
    applied: SnapshotHead,
}

impl Log {
    /// The log of a new cluster, which begins behind its birth.
    pub fn new_cluster(head: SnapshotHead) -> Self {
        let start = HardState {
            term: head.term,
            commit: head.index,
            ..HardState::default()
        };
        Self::behind(head, start)
    }

    /// The log of a new member, which has nothing until a leader sends it the catalog.
    pub fn new_member() -> Self {
        Self::behind(Self::nothing(), HardState::default())
    }

    /// Where empty tables stand.
    pub const fn nothing() -> SnapshotHead {
        SnapshotHead {
            index: 0,
            term: 0,
            voters: Vec::new(),
            learners: Vec::new(),
        }
    }

    fn behind(head: SnapshotHead, start: HardState) -> Self {
        Self {
            base: (head.index, head.term),
            entries: VecDeque::new(),
            bytes: 0,
            start,
            applied: head,
        }
    }

    /// The log as it was found on disk. The text of an error says what cannot be right in it.
    pub fn recover(
        base: (u64, u64),
        records: &[LogRecord],
        hard_state: Option<&[u8]>,
        applied: SnapshotHead,
    ) -> Result<Self, String> {
        let mut start = HardState::default();
        if let Some(bytes) = hard_state {
            start = HardState::parse_from_bytes(bytes)
                .map_err(|error| format!("the hard state does not parse: {error}"))?;
        }
        let mut log = Self {
            base,
            entries: VecDeque::with_capacity(records.len()),
            bytes: 0,
            start,
            applied,
        };
        for record in records {
            let entry = Entry::parse_from_bytes(&record.bytes)
                .map_err(|error| format!("entry {} does not parse: {error}", record.index))?;
            if entry.index != log.last() + 1 || entry.index != record.index {
                return Err(format!("entry {} follows {}", entry.index, log.last()));
            }
            if entry.term < log.term_of(log.last()).unwrap_or(0) || entry.term != record.term {
                return Err(format!("entry {} is of an earlier term", entry.index));
            }
            log.bytes += entry.data.len();
            log.entries.push_back(entry);
        }
        let (first, last) = (log.base.0, log.last());
        if !(first..=last).contains(&log.applied.index) {
            return Err(format!(
                "the log holds {first} to {last}, the tables stand at {}",
                log.applied.index
            ));
        }
        if log.term_of(log.applied.index) != Some(log.applied.term) {
            return Err(format!(
                "log and tables disagree on the term of {}",
                log.applied.index
            ));
        }
        if log.start.commit > last {
            return Err(format!(
                "{} was known to be committed, the log ends at {last}",
                log.start.commit
            ));
        }
        // Rule R16: what the tables have applied was committed, whatever the log remembers of it.
        log.start.commit = log.start.commit.max(log.applied.index);
        log.start.term = log.start.term.max(log.term_of(last).unwrap_or(0));
        Ok(log)
    }

    /// Index of the last entry, or of the base when there is none.
    pub fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Index of the last entry that was cut off.
    pub const fn base(&self) -> u64 {
        self.base.0
    }

    /// Where the tables stand.
    pub const fn applied(&self) -> &SnapshotHead {
        &self.applied
    }

    /// The tables stand at `head` now.
    pub fn set_applied(&mut self, head: SnapshotHead) {
        assert!(head.index >= self.applied.index, "applied runs backwards");
        self.applied = head;
    }

    /// Takes new entries; they may replace a suffix, never what is applied.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        assert!(first.index > self.applied.index.max(self.base.0));
        assert!(first.index <= self.last() + 1, "a gap in the log");
        while self.last() >= first.index {
            let gone = self.entries.pop_back().expect("entries above the base");
            self.bytes -= gone.data.len();
        }
        for entry in entries {
            assert_eq!(entry.index, self.last() + 1);
            self.bytes += entry.data.len();
            self.entries.push_back(entry.clone());
        }
    }

    /// Forgets all entries: the log goes on behind `head`. The tables follow when the snapshot is installed.
    pub fn reset(&mut self, head: &SnapshotHead) {
        assert!(head.index > self.applied.index);
        self.base = (head.index, head.term);
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets entries up to `durable` (where the tables on disk stand) except for the last `keep_entries` within `keep_bytes`; index and term of the new base when it moved.
    pub fn cut(
        &mut self,
        durable: u64,
        keep_entries: u64,
        keep_bytes: usize,
    ) -> Option<(u64, u64)> {
        let durable = durable.min(self.applied.index);
        let before = self.base;
        while self.base.0 < durable
            && (durable - self.base.0 > keep_entries || self.bytes > keep_bytes)
        {
            let gone = self.entries.pop_front().expect("entries up to the applied");
            self.bytes -= gone.data.len();
            self.base = (gone.index, gone.term);
        }
        (self.base != before).then_some(self.base)
    }

    fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        let at = usize::try_from(index.checked_sub(self.base.0 + 1)?).ok()?;
        self.entries.get(at).map(|entry| entry.term)
    }
}

/// The hard state of a log that begins behind `head`.
pub fn hard_state_at(head: &SnapshotHead) -> Vec<u8> {
    let state = HardState {
        term: head.term,
        commit: head.index,
        ..HardState::default()
    };
    state.write_to_bytes().unwrap_or_default()
}

/// The entries from the first change of the configuration on, with empty ones in place of such changes; `None` when there is none. An error when one does not parse.
pub fn without_changes(entries: &[LogRecord]) -> Result<Option<Vec<LogRecord>>, String> {
    let mut result = Vec::new();
    for record in entries {
        let entry = Entry::parse_from_bytes(&record.bytes).map_err(|error| error.to_string())?;
        let plain = entry.get_entry_type() == EntryType::EntryNormal;
        if plain && result.is_empty() {
            continue;
        }
        let mut kept = record.clone();
        if !plain {
            let empty = Entry {
                index: record.index,
                term: record.term,
                ..Entry::default()
            };
            kept.bytes = empty.write_to_bytes().map_err(|error| error.to_string())?;
        }
        result.push(kept);
    }
    Ok((!result.is_empty()).then_some(result))
}

/// The configuration of `head` in Raft's form.
pub fn configuration(head: &SnapshotHead) -> ConfState {
    let mut configuration = ConfState::default();
    configuration.set_voters(head.voters.clone());
    configuration.set_learners(head.learners.clone());
    configuration
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.start.clone(),
            configuration(&self.applied),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries beyond the end");
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let from = usize::try_from(low - self.base.0 - 1).unwrap_or(usize::MAX);
        let count = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        let mut size = 0_u64;
        let mut found = Vec::new();
        for entry in self.entries.iter().skip(from).take(count) {
            size = size.saturating_add(u64::from(entry.compute_size()));
            if size > max_size && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(index) {
            Some(term) => Ok(term),
            None if index < self.base.0 => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only says where a snapshot would stand; the rows travel outside Raft.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.index == 0 || request_index > self.applied.index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.set_conf_state(configuration(&self.applied));
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![7; 10].into(),
            ..Entry::default()
        }
    }

    fn record(index: u64, term: u64) -> LogRecord {
        LogRecord {
            index,
            term,
            bytes: entry(index, term).write_to_bytes().unwrap(),
        }
    }

    fn head(index: u64, term: u64) -> SnapshotHead {
        SnapshotHead {
            index,
            term,
            voters: vec![1, 2, 3],
            learners: Vec::new(),
        }
    }

    fn all(log: &Log) -> Vec<(u64, u64)> {
        let entries = log
            .entries(
                log.base() + 1,
                log.last() + 1,
                None,
                GetEntriesContext::empty(false),
            )
            .unwrap();
        entries.iter().map(|e| (e.index, e.term)).collect()
    }

    #[test]
    fn commit_is_raised_to_what_the_tables_have_applied() {
        let records = [record(2, 1), record(3, 2)];
        let log = Log::recover((1, 1), &records, None, head(3, 2)).unwrap();
        let start = log.initial_state().unwrap();
        assert_eq!(start.hard_state.commit, 3);
        assert_eq!(start.hard_state.term, 2);
        assert_eq!(start.conf_state.voters, [1, 2, 3]);
    }

    #[test]
    fn a_log_that_does_not_reach_the_tables_is_not_trusted() {
        assert!(Log::recover((1, 1), &[record(2, 1)], None, head(3, 1)).is_err());
        assert!(Log::recover((5, 1), &[record(6, 1)], None, head(3, 1)).is_err());
        assert!(Log::recover((1, 1), &[record(2, 2)], None, head(2, 1)).is_err());
        assert!(Log::recover((1, 1), &[record(3, 2)], None, head(1, 1)).is_err());
        let state = HardState {
            commit: 9,
            ..HardState::default()
        };
        let state = state.write_to_bytes().unwrap();
        assert!(Log::recover((1, 1), &[record(2, 1)], Some(&state), head(1, 1)).is_err());
    }

    #[test]
    fn new_entries_replace_a_suffix() {
        let mut log = Log::behind(head(1, 1), HardState::default());
        log.append(&[entry(2, 1), entry(3, 1), entry(4, 1)]);
        log.append(&[entry(3, 2)]);
        assert_eq!(all(&log), [(2, 1), (3, 2)]);
        assert_eq!(log.bytes, 20);
    }

    #[test]
    fn the_log_is_cut_only_below_what_is_durable_and_keeps_what_it_should() {
        let mut log = Log::behind(head(1, 1), HardState::default());
        log.append(&(2..=20).map(|i| entry(i, 1)).collect::<Vec<_>>());
        log.set_applied(head(15, 1));
        assert_eq!(log.cut(30, 5, usize::MAX), Some((10, 1)));
        assert_eq!(log.cut(10, 0, 0), None);
        assert_eq!(log.cut(12, 100, 80), Some((12, 1)));
        assert_eq!(log.term(12).unwrap(), 1);
        assert!(log.term(11).is_err());
        assert_eq!(all(&log).len(), 8);
    }

    #[test]
    fn a_read_of_entries_is_bounded_and_never_empty() {
        let mut log = Log::behind(head(1, 1), HardState::default());
        log.append(&[entry(2, 1), entry(3, 1)]);
        let some = log.entries(2, 4, 1, GetEntriesContext::empty(false));
        assert_eq!(some.unwrap().len(), 1);
        assert!(
            log.entries(1, 3, None, GetEntriesContext::empty(false))
                .is_err()
        );
    }
    #[test]
    fn changes_of_the_configuration_become_empty_entries_and_nothing_before_them_is_touched() {
        let change = |index| {
            let mut entry = entry(index, 2);
            entry.set_entry_type(EntryType::EntryConfChange);
            LogRecord {
                index,
                term: 2,
                bytes: entry.write_to_bytes().unwrap(),
            }
        };
        let plain = [record(5, 1), record(6, 2)];
        assert_eq!(without_changes(&plain), Ok(None));
        let tail = [record(5, 1), change(6), record(7, 2), change(8)];
        let after = without_changes(&tail).unwrap().unwrap();
        let indexes: Vec<u64> = after.iter().map(|entry| entry.index).collect();
        assert_eq!(indexes, [6, 7, 8]);
        assert_eq!(after[1], tail[2]);
        let parsed = Entry::parse_from_bytes(&after[0].bytes).unwrap();
        assert_eq!((parsed.index, parsed.term), (6, 2));
        assert!(parsed.data.is_empty() && parsed.get_entry_type() == EntryType::EntryNormal);
        let noise = LogRecord {
            index: 5,
            term: 1,
            bytes: vec![255; 9],
        };
        assert!(without_changes(&[noise]).is_err());
    }
}

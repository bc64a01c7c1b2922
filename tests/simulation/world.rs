//! A machine's side of the core: tables in memory with a durable copy, a log that is on disk when it is synced, links and answers as a list of what is to happen.

use std::collections::{BTreeMap, VecDeque};

use momo::base::digest::Sha256;
use momo::base::id::{NodeId, OperationId, Ticket};
use momo::base::table::{MemoryTables, Tables};
use momo::core::catalog;
use momo::core::node::{Answered, Append, Effect, Fatal, LogRecord, Memory, Recovered};
use momo::engine::driver::World;
use momo::wire::command::Birth;
use momo::wire::peer::{Fetch as Order, Message, SnapshotHead};

/// What the effects of a turn ask of the rest of the simulation.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Asked {
    Send(NodeId, Message),
    Answer(Ticket, Answered),
    Checkpoint,
    Fetch(NodeId),
    /// The log has something to sync.
    Sync,
    Say(String),
    /// The tables were written: from and to these applied indexes.
    Applied(u64, u64),
    /// The tables were replaced.
    Installed(u64),
    /// A cluster was born.
    Born(Birth),
    /// Entries were handed to the log.
    Appended(Vec<LogRecord>),
    /// An object may be garbage.
    Unreferenced(Sha256),
    /// An upload's fate is known.
    Settled(OperationId),
    /// A copy is to be made here.
    StartFetch(Order, NodeId),
}

/// A log file.
#[derive(Clone, Debug, Default)]
pub struct LogFile {
    pub base: (u64, u64),
    pub entries: BTreeMap<u64, LogRecord>,
    pub hard_state: Option<Vec<u8>>,
}

impl LogFile {
    fn append(&mut self, append: &Append) {
        if let Some(state) = &append.hard_state {
            self.hard_state = Some(state.clone());
        }
        if let Some(first) = append.entries.first() {
            self.entries.split_off(&first.index);
            for record in &append.entries {
                self.entries.insert(record.index, record.clone());
            }
        }
    }

    fn cut(&mut self, index: u64, term: u64) {
        self.entries = self.entries.split_off(&(index + 1));
        self.base = (index, term);
    }
}

/// Something on its way to the disk.
#[derive(Clone, Debug)]
pub enum DiskWork {
    Append(Append),
    Cut {
        index: u64,
        term: u64,
    },
    Install {
        head: SnapshotHead,
        hard_state: Vec<u8>,
        number: u64,
        tables: MemoryTables,
    },
}

impl DiskWork {
    /// What to report when it is done.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Append(append) => Some(append.number),
            Self::Install { number, .. } => Some(*number),
            Self::Cut { .. } => None,
        }
    }
}

/// What survives a crash, and what is on its way there.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub tables: MemoryTables,
    pub log: LogFile,
    pub memory: Vec<Memory>,
    pub pending: VecDeque<DiskWork>,
}

impl Disk {
    /// The oldest work is done: all of it or nothing, because the log frames what is written together and cuts off a torn frame; the number to report, and the entries that are on disk by that.
    pub fn complete(&mut self) -> (Option<u64>, Vec<LogRecord>) {
        match self.pending.pop_front() {
            None => (None, Vec::new()),
            Some(DiskWork::Append(append)) => {
                self.log.append(&append);
                (Some(append.number), append.entries)
            }
            Some(DiskWork::Cut { index, term }) => {
                self.log.cut(index, term);
                (None, Vec::new())
            }
            Some(DiskWork::Install {
                head,
                hard_state,
                number,
                tables,
            }) => {
                self.tables = tables;
                self.log = LogFile {
                    base: (head.index, head.term),
                    entries: BTreeMap::new(),
                    hard_state: Some(hard_state),
                };
                (Some(number), Vec::new())
            }
        }
    }

    /// What a start finds.
    pub fn recovered(&self) -> Recovered {
        Recovered {
            damaged: None,
            hard_state: self.log.hard_state.clone(),
            base_index: self.log.base.0,
            base_term: self.log.base.1,
            entries: self.log.entries.values().cloned().collect(),
            memory: self.memory.clone(),
        }
    }
}

/// A machine.
#[derive(Default)]
pub struct Machine {
    pub tables: MemoryTables,
    pub disk: Disk,
    /// The log as this process has handed it to the disk.
    pub log: LogFile,
    pub fetched: Option<MemoryTables>,
    /// Tables on their way to the disk.
    pub checkpoint: Option<(u64, MemoryTables)>,
    pub asked: Vec<Asked>,
}

impl Machine {
    /// The process begins: what is in memory comes from the disk.
    pub fn start(&mut self) {
        self.tables = self.disk.tables.clone();
        self.log = self.disk.log.clone();
        self.fetched = None;
        self.checkpoint = None;
        self.asked.clear();
    }

    /// Where the tables stand.
    pub fn applied(&self) -> u64 {
        head(&self.tables).map_or(0, |head| head.index)
    }

    /// The term of an entry that this process has.
    pub fn entry(&self, index: u64) -> Option<&LogRecord> {
        self.log.entries.get(&index)
    }
}

/// Where tables stand.
pub fn head(tables: &MemoryTables) -> Option<SnapshotHead> {
    catalog::applied(tables).expect("tables in memory")
}

impl World for Machine {
    fn tables(&self) -> &dyn Tables {
        &self.tables
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Fatal> {
        match effect {
            Effect::Send { to, message } => self.asked.push(Asked::Send(to, message)),
            Effect::Write(batch) => {
                let before = self.applied();
                self.tables.write(&batch);
                self.asked.push(Asked::Applied(before, self.applied()));
            }
            Effect::Append(append) => {
                self.log.append(&append);
                self.asked.push(Asked::Appended(append.entries.clone()));
                self.disk.pending.push_back(DiskWork::Append(append));
                self.asked.push(Asked::Sync);
            }
            Effect::CutLog { index, term } => {
                let durable = head(&self.disk.tables).map_or(1, |head| head.index);
                assert!(index <= durable, "the log is cut above the durable tables");
                self.log.cut(index, term);
                self.disk.pending.push_back(DiskWork::Cut { index, term });
                self.asked.push(Asked::Sync);
            }
            Effect::Answer { ticket, answer } => self.asked.push(Asked::Answer(ticket, answer)),
            Effect::Checkpoint { applied } => {
                assert_eq!(
                    applied,
                    self.applied(),
                    "a checkpoint of tables that stand there"
                );
                self.checkpoint = Some((applied, self.tables.clone()));
                self.asked.push(Asked::Checkpoint);
            }
            Effect::FetchSnapshot { from } => self.asked.push(Asked::Fetch(from)),
            Effect::InstallSnapshot {
                head: expected,
                hard_state,
                number,
            } => {
                let tables = self.fetched.take().expect("a fetched catalog");
                assert_eq!(head(&tables).as_ref(), Some(&expected));
                self.tables = tables.clone();
                self.checkpoint = None;
                self.log = LogFile {
                    base: (expected.index, expected.term),
                    ..LogFile::default()
                };
                self.asked.push(Asked::Installed(expected.index));
                self.disk.pending.push_back(DiskWork::Install {
                    head: expected,
                    hard_state,
                    number,
                    tables,
                });
                self.asked.push(Asked::Sync);
            }
            Effect::Remember(memory) => {
                if matches!(memory, Memory::Acknowledged(_)) {
                    let old = |m: &Memory| matches!(m, Memory::Acknowledged(_));
                    self.disk.memory.retain(|memory| !old(memory));
                }
                if let Memory::Born(birth) = &memory {
                    self.asked.push(Asked::Born(birth.clone()));
                }
                self.disk.memory.push(memory);
            }
            Effect::Forget => {
                let memory = std::mem::take(&mut self.disk.memory);
                self.disk = Disk {
                    memory,
                    ..Disk::default()
                };
                self.tables.clear();
                self.log = LogFile::default();
                self.checkpoint = None;
            }
            Effect::Say { event, text, .. } => {
                self.asked.push(Asked::Say(format!("{event}: {text}")));
            }
            Effect::Unreferenced { sha256 } => self.asked.push(Asked::Unreferenced(sha256)),
            Effect::Settled { upload } => self.asked.push(Asked::Settled(upload)),
            Effect::StartFetch { fetch, leader } => {
                self.asked.push(Asked::StartFetch(fetch, leader));
            }
            Effect::Touched { .. } => {}
        }
        Ok(())
    }
}

//! What an operator does to a stopped node when the majority of its cluster is lost for good: it goes on alone.
//!
//! Going on alone makes another cluster of what is here: it has an id that remembers the old one (`ClusterId::successor`), so that no old member can mix with it, and every old member that meets it knows that its own cluster is over.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::base::id::{ClusterId, NodeId};
use crate::core::catalog::{self, query};
use crate::core::log::{Log, hard_state_at, without_changes};
use crate::core::node::{LogRecord, Memory, Recovered, head_at_birth};
use crate::engine::clock;
use crate::engine::settings::Settings;
use crate::engine::start::{NANOS_PER_MS, StartError, read_fact, recover};
use crate::engine::world::fact;
use crate::store::disk::RealDisk;
use crate::store::layout::{DataDirs, StateDir};
use crate::store::log::{LogBase, LogEntry, RaftLog};
use crate::store::tables::CatalogTables;
use crate::wire::peer::SnapshotHead;
use crate::wire::record::to_row;

/// Why nothing was done.
#[derive(Debug)]
pub enum RecoverError {
    /// The directories, tables or log cannot be opened or written; a process that runs has them locked.
    Start(StartError),
    /// There is nothing here that could go on.
    Nothing(&'static str),
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Nothing(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RecoverError {}

impl<E: Into<StartError>> From<E> for RecoverError {
    fn from(error: E) -> Self {
        Self::Start(error.into())
    }
}

/// What was found, for the operator to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The cluster; `None` for a node that remembers none.
    pub cluster: Option<ClusterId>,
    /// Where the catalog stands; `None` when there is none.
    pub head: Option<SnapshotHead>,
    /// The last index of the log: what lies behind the catalog may or may not have been committed.
    pub last_index: u64,
    /// Why the log cannot be used beyond the catalog.
    pub damaged: Option<String>,
    /// Why this node has no part in its cluster any more.
    pub out: Option<String>,
    /// The highest index that another voter is known to have acknowledged, and which.
    pub acknowledged: Option<(NodeId, u64)>,
}

/// A step by step change of cluster, should it be cut short.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Change {
    old: ClusterId,
    new: ClusterId,
}

/// A stopped node's state, opened and locked.
pub struct Stopped {
    node: NodeId,
    dirs: DataDirs,
    state: StateDir,
    tables: CatalogTables,
    log: RaftLog<RealDisk>,
    recovered: Recovered,
    /// What keeps the log from being used.
    damaged: Option<String>,
    begun: Option<Change>,
}

impl Stopped {
    /// Opens everything; refused while the node runs.
    pub fn open(settings: &Settings) -> Result<Self, RecoverError> {
        let opened = DataDirs::open_mixed(
            &settings.data,
            settings.state_dir.as_deref(),
            settings.node,
            clock::wall().0 / NANOS_PER_MS,
        )
        .map_err(StartError::from)?;
        let tables = CatalogTables::open(&opened.state.tables_path())?;
        let (log, recovered) = recover(&opened.state, &tables)?;
        let begun = match read_fact(&opened.state, fact::RECOVERING)? {
            Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?),
            None => None,
        };
        let mut stopped = Self {
            node: settings.node,
            dirs: opened.dirs,
            state: opened.state,
            tables,
            log,
            damaged: recovered.damaged.clone(),
            recovered,
            begun,
        };
        stopped.prepare()?;
        Ok(stopped)
    }

    /// A birth whose rows never reached the tables is written now, and the log is tried.
    fn prepare(&mut self) -> Result<(), RecoverError> {
        let mut memory = self.recovered.memory.iter();
        let birth = memory.find_map(|memory| match memory {
            Memory::Born(birth) => Some(birth),
            _ => None,
        });
        let mut base = (self.recovered.base_index, self.recovered.base_term);
        let mut applied = catalog::applied(&self.tables)?;
        if let (Some(birth), None, None) = (birth, &applied, &self.damaged)
            && base.0 <= 1
        {
            let head = head_at_birth(birth);
            let mut batch = catalog::born(birth);
            catalog::set_applied(&mut batch, &head);
            self.tables.write(&batch)?;
            self.tables.checkpoint()?;
            applied = Some(head);
        }
        let Some(applied) = applied else {
            return Ok(());
        };
        if base.0 == 0 {
            // Where the log begins follows from the birth.
            base = (1, 1);
            let (index, term) = base;
            self.log.cut(LogBase { index, term })?;
        }
        let hard_state = self.recovered.hard_state.as_deref();
        if self.damaged.is_none()
            && let Err(why) = Log::recover(base, &self.recovered.entries, hard_state, applied)
        {
            self.damaged = Some(why);
        }
        Ok(())
    }

    /// What there is.
    pub fn findings(&self) -> Result<Findings, RecoverError> {
        let memory = &self.recovered.memory;
        let cluster = memory.iter().rev().find_map(|memory| match memory {
            Memory::Born(birth) => Some(birth.cluster),
            Memory::Admitted(cluster) | Memory::Out { cluster, .. } => Some(*cluster),
            Memory::Acknowledged(_) => None,
        });
        let out = memory.iter().rev().find_map(|memory| match memory {
            Memory::Out { why, .. } => Some(why.clone()),
            _ => None,
        });
        let acknowledged = memory.iter().rev().find_map(|memory| match memory {
            Memory::Acknowledged(all) => {
                let others = all.iter().filter(|(node, _)| *node != self.node);
                others.max_by_key(|(_, index)| *index).copied()
            }
            _ => None,
        });
        let head = catalog::applied(&self.tables)?;
        let applied = head.as_ref().map_or(0, |head| head.index);
        let last = self.recovered.entries.last().map_or(0, |entry| entry.index);
        Ok(Findings {
            cluster,
            last_index: if self.damaged.is_some() {
                applied
            } else {
                last.max(applied)
            },
            head,
            damaged: self.damaged.clone(),
            out,
            acknowledged,
        })
    }

    /// This node becomes the only voter of another cluster, which begins with all that is here; its id. What was cut
    /// short is finished by doing it again; until then the node does not start.
    pub fn go_on_alone(mut self) -> Result<ClusterId, RecoverError> {
        let findings = self.findings()?;
        let (Some(cluster), Some(head)) = (findings.cluster, findings.head) else {
            return Err(RecoverError::Nothing(
                "there is no catalog here that could go on",
            ));
        };
        if query::node(&self.tables, self.node)?.is_none() {
            return Err(RecoverError::Nothing(
                "by the catalog that is here this node is no member",
            ));
        }
        let change = if let Some(change) = self.begun {
            change
        } else {
            let mut chance = [0; 8];
            getrandom::fill(&mut chance).map_err(|error| io::Error::other(error.to_string()))?;
            Change {
                old: cluster,
                new: cluster.successor(u64::from_be_bytes(chance)),
            }
        };
        self.write(fact::RECOVERING, &to_row(&change))?;
        let alone = SnapshotHead {
            voters: vec![self.node.raft()],
            learners: Vec::new(),
            ..head.clone()
        };
        if self.damaged.is_some() {
            let (index, term) = (head.index, head.term);
            self.log
                .reset(LogBase { index, term }, &hard_state_at(&head))?;
        } else {
            self.forget_changes(&head)?;
        }
        let mut batch = catalog::renamed(&self.tables, change.new)?;
        catalog::set_applied(&mut batch, &alone);
        self.tables.write(&batch)?;
        self.tables.checkpoint()?;
        self.dirs
            .change_cluster(change.new)
            .map_err(StartError::from)?;
        self.write(fact::ADMITTED, &to_row(&change.new))?;
        for name in [fact::OUT, fact::LOST, fact::ACKNOWLEDGED, fact::INSTALLING] {
            self.write(name, b"")?;
        }
        self.write(fact::RECOVERING, b"")?;
        Ok(change.new)
    }

    /// Members that were being changed when the others were lost are not waited for.
    fn forget_changes(&mut self, head: &SnapshotHead) -> Result<(), RecoverError> {
        let entries = &self.recovered.entries;
        let tail: Vec<LogRecord> = entries
            .iter()
            .filter(|entry| entry.index > head.index)
            .cloned()
            .collect();
        let Some(changed) = without_changes(&tail).map_err(io::Error::other)? else {
            return Ok(());
        };
        let entries: Vec<LogEntry> = changed
            .into_iter()
            .map(|entry| LogEntry {
                index: entry.index,
                term: entry.term,
                bytes: entry.bytes,
            })
            .collect();
        self.log.append(None, &entries)?;
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.state.write_fact(name, bytes)
    }
}

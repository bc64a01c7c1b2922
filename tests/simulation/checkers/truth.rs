//! The one true history: every committed command, applied once more as soon as any node has applied it.

use std::collections::{BTreeMap, BTreeSet};

use momo::base::digest::Sha256;
use momo::base::id::{NodeId, OperationId};
use momo::base::path::FilePath;
use momo::base::table::{Batch, MemoryTables, Overlay};
use momo::core::catalog::{self, query};
use momo::core::node::LogRecord;
use momo::wire::command::{Birth, Command, Operation, Reply};
use momo::wire::peer::SnapshotHead;
use momo::wire::record::ObjectRecord;
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType};

/// What has happened, in the order of the log.
pub struct Truth {
    /// By index: the command and what applying it answered.
    pub commands: BTreeMap<u64, (Command, Reply)>,
    /// What each name held from which index on.
    names: BTreeMap<FilePath, BTreeMap<u64, Option<OperationId>>>,
    /// The catalog as committed.
    pub tables: MemoryTables,
    /// Index of the last entry.
    pub index: u64,
    /// Voters and learners behind it.
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
}

/// What a command did.
pub struct Step {
    pub operation: Operation,
    pub reply: Reply,
    /// The objects that it may have changed, as they were.
    pub before: BTreeMap<Sha256, Option<ObjectRecord>>,
}

impl Truth {
    /// The catalog at birth.
    pub fn new(birth: &Birth) -> Self {
        let mut tables = MemoryTables::default();
        tables.write(&catalog::born(birth));
        let seats = |votes| {
            let members = birth.members.iter().filter(move |m| m.votes == votes);
            members.map(|member| member.id.raft()).collect()
        };
        let mut truth = Self {
            commands: BTreeMap::new(),
            names: BTreeMap::new(),
            tables,
            index: 1,
            voters: seats(true),
            learners: seats(false),
        };
        truth.stands_at(1);
        truth
    }

    /// Whether a node has a seat in the configuration.
    pub fn seats(&self, node: NodeId) -> bool {
        self.voters.contains(&node.raft()) || self.learners.contains(&node.raft())
    }

    /// Whether the votes of the others are no majority.
    pub fn needs(&self, node: NodeId) -> bool {
        self.voters.contains(&node.raft()) && self.voters.len() < 3
    }

    fn stands_at(&mut self, term: u64) {
        let head = SnapshotHead {
            index: self.index,
            term,
            voters: self.voters.iter().copied().collect(),
            learners: self.learners.iter().copied().collect(),
        };
        let mut batch = Batch::default();
        catalog::set_applied(&mut batch, &head);
        self.tables.write(&batch);
    }

    fn reconfigure(&mut self, kind: ConfChangeType, node: u64) {
        self.voters.remove(&node);
        self.learners.remove(&node);
        match kind {
            ConfChangeType::AddNode => self.voters.insert(node),
            ConfChangeType::AddLearnerNode => self.learners.insert(node),
            ConfChangeType::RemoveNode => false,
        };
    }

    /// The next entry; what it did, if it was a command.
    pub fn apply(&mut self, record: &LogRecord) -> Result<Option<Step>, String> {
        if record.index != self.index + 1 {
            return Err(format!(
                "nobody applied {} before {}",
                self.index + 1,
                record.index
            ));
        }
        self.index = record.index;
        let entry = Entry::parse_from_bytes(&record.bytes).map_err(|e| e.to_string())?;
        let changes = match entry.get_entry_type() {
            EntryType::EntryNormal => Vec::new(),
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_bytes(&entry.data);
                let change = change.map_err(|e| e.to_string())?;
                vec![(change.get_change_type(), change.node_id)]
            }
            EntryType::EntryConfChangeV2 => {
                let change = ConfChangeV2::parse_from_bytes(&entry.data);
                let change = change.map_err(|e| e.to_string())?;
                let single = change.changes.iter();
                single
                    .map(|one| (one.get_change_type(), one.node_id))
                    .collect()
            }
        };
        for (kind, node) in &changes {
            self.reconfigure(*kind, *node);
        }
        if !changes.is_empty() || entry.data.is_empty() {
            self.stands_at(record.term);
            return Ok(None);
        }
        let command: Command = serde_json::from_slice(&entry.data).map_err(|e| e.to_string())?;
        let mut before = BTreeMap::new();
        for sha256 in self.objects(&command.operation)? {
            let object = query::object(&self.tables, &sha256).map_err(|e| e.to_string())?;
            before.insert(sha256, object);
        }
        let mut overlay = Overlay::new(&self.tables);
        let applied = catalog::apply(&mut overlay, entry.index, &command);
        let reply = applied.map_err(|e| e.to_string())?.reply;
        let batch = overlay.batch;
        self.tables.write(&batch);
        self.stands_at(record.term);
        if let Some(path) = path(&command.operation) {
            let now = query::file(&self.tables, path).map_err(|e| e.to_string())?;
            let name = self.names.entry(path.clone()).or_default();
            name.insert(entry.index, now.map(|record| record.upload));
        }
        let step = Step {
            operation: command.operation.clone(),
            reply: reply.clone(),
            before,
        };
        self.commands.insert(entry.index, (command, reply));
        Ok(Some(step))
    }

    fn objects(&self, operation: &Operation) -> Result<Vec<Sha256>, String> {
        let mut objects = match operation {
            Operation::Put(put) => put.parts.iter().map(|p| p.part.sha256).collect(),
            Operation::AddCopy { sha256, .. } | Operation::DropCopy { sha256, .. } => vec![*sha256],
            _ => Vec::new(),
        };
        if let Some(path) = path(operation) {
            let old = query::file(&self.tables, path).map_err(|e| e.to_string())?;
            objects.extend(
                old.iter()
                    .flat_map(|old| old.parts.iter().map(|p| p.sha256)),
            );
        }
        Ok(objects)
    }

    /// What a name held behind an index.
    pub fn held(&self, path: &FilePath, index: u64) -> Option<OperationId> {
        let held = self.names.get(path)?;
        held.range(..=index).next_back().and_then(|(_, held)| *held)
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }
}

fn path(operation: &Operation) -> Option<&FilePath> {
    match operation {
        Operation::Put(put) => Some(&put.path),
        Operation::Delete { path, .. } => Some(path),
        _ => None,
    }
}

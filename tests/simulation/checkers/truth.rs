//! The one true history: every committed command, applied once more as soon as any node has applied it.

use std::collections::BTreeMap;

use momo::base::digest::Sha256;
use momo::base::id::OperationId;
use momo::base::path::FilePath;
use momo::base::table::{MemoryTables, Overlay};
use momo::core::catalog::{self, query};
use momo::core::node::LogRecord;
use momo::wire::command::{Birth, Command, Operation, Reply};
use momo::wire::peer::SnapshotHead;
use momo::wire::record::ObjectRecord;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType};

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
        let mut batch = catalog::born(birth);
        let head = SnapshotHead {
            index: 1,
            term: 1,
            voters: Vec::new(),
            learners: Vec::new(),
        };
        catalog::set_applied(&mut batch, &head);
        tables.write(&batch);
        Self {
            commands: BTreeMap::new(),
            names: BTreeMap::new(),
            tables,
            index: 1,
        }
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
        if entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty() {
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

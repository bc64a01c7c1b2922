//! Answers were true: what was acknowledged is in the log with that answer, what was refused is not, fresh reads saw all that was acknowledged before they began, and each name behaved as one register.

use std::collections::BTreeMap;

use momo::base::id::OperationId;
use momo::base::path::FilePath;
use momo::base::table::{MemoryTables, Overlay};
use momo::core::catalog::{self, query};
use momo::wire::command::{Birth, Command, Operation, Reply};
use momo::wire::peer::SnapshotHead;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType};

use crate::clients::{Done, Outcome, Request};

/// The one true history: every committed command and what applying it answered.
pub struct Truth {
    /// By index.
    commands: BTreeMap<u64, (Command, Reply)>,
    /// What each name held from which index on.
    names: BTreeMap<FilePath, BTreeMap<u64, Option<OperationId>>>,
}

impl Truth {
    /// Applies everything once more.
    pub fn new(birth: &Birth, committed: &[&momo::core::node::LogRecord]) -> Result<Self, String> {
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
        let mut truth = Self {
            commands: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        for record in committed {
            let entry = Entry::parse_from_bytes(&record.bytes).map_err(|e| e.to_string())?;
            if entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty() {
                continue;
            }
            let command: Command =
                serde_json::from_slice(&entry.data).map_err(|e| e.to_string())?;
            let mut overlay = Overlay::new(&tables);
            let applied = catalog::apply(&mut overlay, entry.index, &command);
            let reply = applied.map_err(|e| e.to_string())?.reply;
            let batch = overlay.batch;
            tables.write(&batch);
            if let Operation::Put(_) | Operation::Delete { .. } = &command.operation {
                let path = match &command.operation {
                    Operation::Put(put) => &put.path,
                    Operation::Delete { path, .. } => path,
                    _ => unreachable!(),
                };
                let now = query::file(&tables, path).map_err(|e| e.to_string())?;
                let name = truth.names.entry(path.clone()).or_default();
                name.insert(entry.index, now.map(|record| record.upload));
            }
            truth.commands.insert(entry.index, (command, reply));
        }
        Ok(truth)
    }

    fn held(&self, path: &FilePath, index: u64) -> Option<OperationId> {
        let held = self.names.get(path)?;
        held.range(..=index).next_back().and_then(|(_, held)| *held)
    }

    /// Looks at everything that clients saw.
    pub fn judge(&self, history: &[Done]) -> Result<(), String> {
        let mut uploads: BTreeMap<OperationId, u64> = BTreeMap::new();
        let mut stamps: BTreeMap<u64, u64> = BTreeMap::new();
        for (index, (command, _)) in &self.commands {
            match &command.operation {
                Operation::Put(put) => {
                    uploads.entry(put.upload).or_insert(*index);
                }
                Operation::SetMode { timestamp, .. } => {
                    stamps.entry(*timestamp).or_insert(*index);
                }
                _ => {}
            }
        }
        let place = |operation: &Operation| match operation {
            Operation::Put(put) => uploads.get(&put.upload).copied(),
            Operation::SetMode { timestamp, .. } => stamps.get(timestamp).copied(),
            _ => None,
        };
        for done in history {
            match (&done.request, &done.outcome) {
                (
                    Request::Change(
                        operation @ (Operation::Delete { .. } | Operation::Register { .. }),
                    ),
                    Outcome::Committed { index, reply },
                ) => {
                    // These carry nothing to tell one from another by.
                    let same = |(command, answer): &(Command, Reply)| {
                        command.id.node == done.node
                            && command.operation == *operation
                            && answer == reply
                    };
                    if !self.commands.range(..=index).any(|(_, both)| same(both)) {
                        return Err(format!("acknowledged and lost: {done:?}"));
                    }
                }
                (Request::Change(operation), Outcome::Committed { index, reply }) => {
                    // The index may be that of a second entry, or of where the leader stood when it was asked again.
                    let place = place(operation).unwrap_or(*index);
                    let Some((first, answer)) = self.commands.get(&place) else {
                        return Err(format!("acknowledged and lost: {done:?}"));
                    };
                    if place > *index || first.operation != *operation || answer != reply {
                        return Err(format!(
                            "acknowledged {done:?}, but the log holds {first:?} with {answer:?} at {place}"
                        ));
                    }
                }
                (Request::Change(operation), Outcome::Refused) => {
                    if let Some(place) = place(operation) {
                        return Err(format!("refused, and in the log at {place}: {done:?}"));
                    }
                }
                (Request::Read(path), Outcome::Fresh { applied, found }) => {
                    let held = self.held(path, *applied);
                    if held != *found {
                        return Err(format!("read {done:?}, but it held {held:?}"));
                    }
                }
                _ => {}
            }
        }
        in_order(history)
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }
}

/// What ended before something else began stands before it in the log.
fn in_order(history: &[Done]) -> Result<(), String> {
    // In the log a change stands at its index, and a read behind everything applied where it was made.
    let mut ended: Vec<(u64, u64, &Done)> = Vec::new();
    let mut begun: Vec<(u64, u64, &Done)> = Vec::new();
    for done in history {
        match &done.outcome {
            Outcome::Committed { index, .. } => {
                ended.push((done.ended, *index, done));
                begun.push((done.begun, *index, done));
            }
            Outcome::Fresh { applied, .. } => {
                ended.push((done.ended, *applied, done));
                begun.push((done.begun, *applied, done));
            }
            _ => {}
        }
    }
    ended.sort_by_key(|(at, ..)| *at);
    begun.sort_by_key(|(at, ..)| *at);
    let mut next = ended.into_iter().peekable();
    let mut highest: Option<(u64, &Done)> = None;
    for (at, index, done) in begun {
        while let Some((_, index, before)) = next.next_if(|(ended, ..)| *ended < at) {
            if highest.is_none_or(|(high, _)| high < index) {
                highest = Some((index, before));
            }
        }
        if let Some((high, before)) = highest
            && index < high
        {
            return Err(format!("{done:?} is behind {before:?}, which ended before"));
        }
    }
    Ok(())
}

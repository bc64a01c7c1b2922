//! Applying a command: a pure function of the tables and the command, the same on every node; answers `Rejected`, never asserts.

use std::collections::BTreeSet;

use super::check::{counted, given_up, refusal};
use super::once::{self, Admission, Fate, Standing};
use super::{Applied, Note, counting, ledger, members, put_mode, query};
use crate::base::digest::Sha256;
use crate::base::id::{OperationId, Version};
use crate::base::limit::VERSIONS_KEPT;
use crate::base::path::FilePath;
use crate::base::table::{Overlay, Table, TableError};
use crate::wire::command::{Code, Command, KNOWS, Operation, Put, Reply};
use crate::wire::record::{FileRecord, ModeRecord, NodeRecord, from_row, to_row};

/// Directories remembered that a node had and has no more: it forgets them itself once it has compared.
const GONE: usize = 256;

/// Applies the command at `index` of the log to `tables`.
///
/// A command that was applied before is answered as it was then and changes nothing. The caller keeps the applied index
/// in the same batch ([`super::set_applied`]). An error means that the tables cannot be read, or that the command is of
/// a kind this program does not know; the node cannot go on.
pub fn apply(
    tables: &mut Overlay<'_>,
    index: u64,
    command: &Command,
) -> Result<Applied, TableError> {
    if command.v > KNOWS {
        let message = format!("entry {index} is of kind {}, newer than {KNOWS}", command.v);
        return Err(TableError(message));
    }
    if let Admission::Answered(reply) = once::admit(tables, command.id)? {
        return Ok(Applied {
            reply,
            notes: Vec::new(),
        });
    }
    let mut step = Step {
        tables,
        version: Version(index),
        notes: Vec::new(),
    };
    let reply = step.operation(&command.operation)?;
    let notes = step.notes;
    once::answered(tables, command.id, &reply);
    Ok(Applied { reply, notes })
}

/// One command on its way into the tables.
struct Step<'a, 'b> {
    tables: &'a mut Overlay<'b>,
    version: Version,
    notes: Vec<Note>,
}

impl Step<'_, '_> {
    fn operation(&mut self, operation: &Operation) -> Result<Reply, TableError> {
        let standing = match operation {
            Operation::Put(put) => once::standing(self.tables, put.upload)?,
            _ => Standing::Open,
        };
        match standing {
            Standing::Open => {}
            Standing::Put(version) => return Ok(Reply::Done { version }),
            Standing::Over => {
                if let Operation::Put(put) = operation {
                    self.notes.push(Note::Settled(put.upload));
                }
                return Ok(given_up());
            }
            Standing::Early => {
                return Ok(Reply::Rejected {
                    code: Code::Unavailable,
                    message: "the upload is of a start that is not known yet".to_owned(),
                });
            }
        }
        if let Some(reply) = refusal(self.tables, operation)? {
            match operation {
                // Final: this upload stays rejected, so that what was pinned for it may go.
                Operation::Put(put) => self.settle(put.upload, Fate::Abandoned)?,
                // Whoever holds a copy of what nothing refers to looks whether it can go.
                Operation::AddCopy { sha256, .. } => self.notes.push(Note::Unreferenced(*sha256)),
                // Put already: its pins may go all the same.
                Operation::Abandon { upload }
                    if matches!(once::standing(self.tables, *upload)?, Standing::Put(_)) =>
                {
                    self.notes.push(Note::Settled(*upload));
                }
                _ => {}
            }
            return Ok(reply);
        }
        let version = match operation {
            Operation::Put(put) => self.put(put)?,
            Operation::Delete { path, .. } => self.delete(path)?,
            _ => {
                self.other(operation)?;
                self.version
            }
        };
        Ok(Reply::Done { version })
    }

    fn settle(&mut self, upload: OperationId, fate: Fate) -> Result<(), TableError> {
        once::settle(self.tables, upload, fate)?;
        self.notes.push(Note::Settled(upload));
        Ok(())
    }

    fn put(&mut self, put: &Put) -> Result<Version, TableError> {
        let old = query::file(self.tables, &put.path)?;
        let record = FileRecord {
            path: put.path.clone(),
            version: self.version,
            size: put.size,
            sha256: put.sha256,
            md5: put.md5,
            strategy: put.strategy.clone(),
            class: put.class.clone(),
            parts: put.parts.iter().map(|placed| placed.part).collect(),
            want: put.want,
            owner: put.owner.clone(),
            created: old.as_ref().map_or(put.time, |old| old.created),
            modified: put.time,
            upload: put.upload,
        };
        // First the new references, then the old ones: an object that both share never vanishes in between.
        for placed in &put.parts {
            let copies = counted(self.tables, placed)?;
            let part = placed.part;
            ledger::hold(self.tables, &part.sha256, part.size, &copies, put.want)?;
        }
        let mut dropped = Vec::new();
        if let Some(old) = old {
            ledger::unname(self.tables, &old);
            let key = query::history_key(&old.path, old.version);
            self.tables.batch.put(Table::History, &key, to_row(&old));
            let kept = query::history_rows(self.tables, &put.path)?;
            let excess = kept.len().saturating_sub(VERSIONS_KEPT);
            for (key, row) in kept.iter().take(excess) {
                self.tables.batch.delete(Table::History, key);
                dropped.push(from_row(row)?);
            }
        }
        let key = put.path.as_str().as_bytes();
        self.tables.batch.put(Table::Files, key, to_row(&record));
        ledger::name(self.tables, &record);
        self.notes.push(Note::Touched(put.path.clone()));
        self.settle(put.upload, Fate::Put(self.version))?;
        self.release(&dropped)?;
        Ok(self.version)
    }

    fn delete(&mut self, path: &FilePath) -> Result<Version, TableError> {
        let Some(record) = query::file(self.tables, path)? else {
            return Ok(self.version);
        };
        let version = record.version;
        ledger::unname(self.tables, &record);
        let mut dropped = vec![record];
        self.tables
            .batch
            .delete(Table::Files, path.as_str().as_bytes());
        for (key, row) in query::history_rows(self.tables, path)? {
            self.tables.batch.delete(Table::History, &key);
            dropped.push(from_row(&row)?);
        }
        self.notes.push(Note::Touched(path.clone()));
        self.release(&dropped)?;
        Ok(version)
    }

    fn release(&mut self, dropped: &[FileRecord]) -> Result<(), TableError> {
        let mut vanished: BTreeSet<Sha256> = BTreeSet::new();
        for part in dropped.iter().flat_map(|record| &record.parts) {
            if ledger::release(self.tables, &part.sha256)? {
                vanished.insert(part.sha256);
            }
        }
        self.notes
            .extend(vanished.into_iter().map(Note::Unreferenced));
        Ok(())
    }

    fn other(&mut self, operation: &Operation) -> Result<(), TableError> {
        match operation {
            Operation::Put(_) | Operation::Delete { .. } => {}
            Operation::AddCopy { sha256, copy, .. } => {
                ledger::change_copies(self.tables, sha256, |copies| copies.push(*copy))?;
            }
            Operation::DropCopy { sha256, copy, .. } => {
                ledger::change_copies(self.tables, sha256, |copies| {
                    copies.retain(|other| other != copy);
                })?;
                self.notes.push(Note::Unreferenced(*sha256));
            }
            Operation::Abandon { upload } => {
                if once::standing(self.tables, *upload)? == Standing::Open {
                    self.settle(*upload, Fate::Abandoned)?;
                } else {
                    self.notes.push(Note::Settled(*upload));
                }
            }
            Operation::SetMode {
                new,
                timestamp,
                cause,
            } => {
                let record = ModeRecord {
                    old: query::mode(self.tables)?.new,
                    new: *new,
                    timestamp: *timestamp,
                    cause: cause.clone(),
                };
                put_mode(&mut self.tables.batch, &record);
                self.notes.push(Note::Mode);
            }
            Operation::Recount => counting::recount(self.tables)?,
            Operation::Add { .. } => members::add(self.tables, operation)?,
            Operation::Remove { node, force } => {
                members::remove(self.tables, self.version, *node, *force)?;
            }
            Operation::DropCopies { node, after } => {
                members::drop_copies(self.tables, *node, after.as_ref())?;
            }
            Operation::Register { node, .. }
            | Operation::Observe { node, .. }
            | Operation::GiveUp { node, .. }
            | Operation::Compared { node, .. }
            | Operation::Administer { node, .. } => {
                if let Some(mut record) = query::node(self.tables, *node)? {
                    let before = record.administrative;
                    change_node(&mut record, operation);
                    members::administered(self.tables, *node, before, record.administrative);
                    self.tables
                        .batch
                        .put(Table::Nodes, &node.key(), to_row(&record));
                    counting::member_changed(self.tables)?;
                }
            }
        }
        Ok(())
    }
}

fn change_node(record: &mut NodeRecord, operation: &Operation) {
    match operation {
        Operation::Register {
            name,
            address,
            dirs,
            stores,
            manages,
            boot,
            knows,
            ..
        } => {
            record.name.clone_from(name);
            record.address.clone_from(address);
            record.gone.append(&mut record.dirs);
            record.dirs.clone_from(dirs);
            record.dirs.sort_unstable();
            record.dirs.dedup();
            record.gone.retain(|dir| !dirs.contains(dir));
            let forgotten = record.gone.len().saturating_sub(GONE);
            record.gone.drain(..forgotten);
            record.stores = *stores;
            record.manages = *manages;
            record.boot = *boot;
            record.knows = *knows;
        }
        Operation::Observe { alive, .. } => record.alive = *alive,
        Operation::GiveUp { .. } => record.lost = true,
        Operation::Compared { .. } => {
            record.lost = false;
            record.gone.clear();
        }
        Operation::Administer { state, .. } => record.administrative = *state,
        _ => {}
    }
}

//! Objects and debts: references, copies and what is missing are counted here and nowhere else.

use super::{meta, query};
use crate::base::digest::Sha256;
use crate::base::table::{Overlay, Table, TableError};
use crate::wire::record::{Copy, FileRecord, ObjectRecord, to_row};

/// One more version refers to an object, and these copies of it are durable.
pub(super) fn hold(
    tables: &mut Overlay<'_>,
    sha256: &Sha256,
    size: u64,
    copies: &[Copy],
    want: u8,
) -> Result<(), TableError> {
    let before = query::object(tables, sha256)?;
    let mut after = before.clone().unwrap_or(ObjectRecord {
        size,
        copies: Vec::new(),
        references: 0,
        want: 0,
    });
    after.references = after.references.saturating_add(1);
    after.want = after.want.max(want);
    after.copies.extend_from_slice(copies);
    write(tables, sha256, before.as_ref(), Some(after))
}

/// One version less refers to an object; true when it was the last.
pub(super) fn release(tables: &mut Overlay<'_>, sha256: &Sha256) -> Result<bool, TableError> {
    let Some(before) = query::object(tables, sha256)? else {
        return Ok(false);
    };
    let rest = before.references.saturating_sub(1);
    let after = (rest > 0).then(|| ObjectRecord {
        references: rest,
        ..before.clone()
    });
    write(tables, sha256, Some(&before), after)?;
    Ok(rest == 0)
}

/// The newest version of a name refers to its parts: found by object when a copy arrives later.
pub(super) fn name(tables: &mut Overlay<'_>, record: &FileRecord) {
    for part in &record.parts {
        let key = query::name_key(&part.sha256, record.path.as_str());
        tables.batch.put(Table::Names, &key, Vec::new());
    }
}

/// This version is not the newest of its name any more.
pub(super) fn unname(tables: &mut Overlay<'_>, record: &FileRecord) {
    for part in &record.parts {
        tables.batch.delete(
            Table::Names,
            &query::name_key(&part.sha256, record.path.as_str()),
        );
    }
}

/// The copies of an object become what `change` makes of them.
pub(super) fn change_copies(
    tables: &mut Overlay<'_>,
    sha256: &Sha256,
    change: impl FnOnce(&mut Vec<Copy>),
) -> Result<(), TableError> {
    let Some(before) = query::object(tables, sha256)? else {
        return Ok(());
    };
    let mut after = before.clone();
    change(&mut after.copies);
    write(tables, sha256, Some(&before), Some(after))
}

fn write(
    tables: &mut Overlay<'_>,
    sha256: &Sha256,
    before: Option<&ObjectRecord>,
    mut after: Option<ObjectRecord>,
) -> Result<(), TableError> {
    match &mut after {
        Some(record) => {
            record.copies.sort_unstable();
            record.copies.dedup();
            if before == Some(record) {
                return Ok(());
            }
            tables.batch.put(Table::Objects, &sha256.0, to_row(record));
        }
        None => tables.batch.delete(Table::Objects, &sha256.0),
    }
    let was = before.and_then(owed);
    let is = after.as_ref().and_then(owed);
    if was == is {
        return Ok(());
    }
    if let Some(nodes) = was {
        tables
            .batch
            .delete(Table::Debts, &query::debt_key(nodes, sha256));
    }
    if let Some(nodes) = is {
        tables
            .batch
            .put(Table::Debts, &query::debt_key(nodes, sha256), to_row(&()));
    }
    let count = query::debts(tables)?;
    let count = match (was, is) {
        (None, Some(_)) => count.saturating_add(1),
        (Some(_), None) => count.saturating_sub(1),
        _ => return Ok(()),
    };
    tables.batch.put(Table::Meta, meta::DEBTS, to_row(&count));
    Ok(())
}

/// On how many nodes an object lies when that is fewer than wanted.
pub(super) fn owed(record: &ObjectRecord) -> Option<u8> {
    let nodes = u8::try_from(query::distinct_nodes(&record.copies)).unwrap_or(u8::MAX);
    (nodes < record.want).then_some(nodes)
}

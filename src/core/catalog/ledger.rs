//! Objects and debts: references, copies and what is missing are counted here and nowhere else.

use super::{counting, meta, query};
use crate::base::digest::Sha256;
use crate::base::table::{Overlay, Table, TableError, Tables};
use crate::wire::record::{Copy, FileRecord, ObjectRecord, from_row, to_row};

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
        owed: None,
        over: false,
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

/// Counts an object's copies by what counts now.
pub(super) fn recount(
    tables: &mut Overlay<'_>,
    sha256: &Sha256,
    before: &ObjectRecord,
) -> Result<(), TableError> {
    write(tables, sha256, Some(before), Some(before.clone()))
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
            (record.owed, record.over) = counting::discounts(tables)?.judge(record);
            if before == Some(record) {
                return Ok(());
            }
            tables.batch.put(Table::Objects, &sha256.0, to_row(record));
        }
        None => tables.batch.delete(Table::Objects, &sha256.0),
    }
    let over = |record: Option<&ObjectRecord>| record.is_some_and(|record| record.over);
    match (over(before), over(after.as_ref())) {
        (false, true) => tables.batch.put(Table::Surplus, &sha256.0, Vec::new()),
        (true, false) => tables.batch.delete(Table::Surplus, &sha256.0),
        _ => {}
    }
    let was = before.and_then(|record| record.owed);
    let is = after.as_ref().and_then(|record| record.owed);
    if was != is {
        if let Some(place) = was {
            let key = query::debt_key(place, sha256);
            tables.batch.delete(Table::Debts, &key);
        }
        if let Some(place) = is {
            let key = query::debt_key(place, sha256);
            tables.batch.put(Table::Debts, &key, to_row(&()));
        }
    }
    let count = |owed: Option<u8>| u64::from(owed.is_some());
    sum(tables, meta::DEBTS, count(was), count(is))?;
    let (was, is) = (missing(before), missing(after.as_ref()));
    sum(tables, meta::DEBT_BYTES, was, is)
}

/// Bytes of the copies that an object is short of.
fn missing(record: Option<&ObjectRecord>) -> u64 {
    let Some((record, owed)) = record.and_then(|record| Some((record, record.owed?))) else {
        return 0;
    };
    let have = if owed == ObjectRecord::LOST { 0 } else { owed };
    let copies = u64::from(record.want.saturating_sub(have));
    record.size.saturating_mul(copies)
}

/// A part of a sum changed.
fn sum(tables: &mut Overlay<'_>, key: &[u8], was: u64, is: u64) -> Result<(), TableError> {
    if was == is {
        return Ok(());
    }
    let row = tables.get(Table::Meta, key)?;
    let total: u64 = row.map(|row| from_row(&row)).transpose()?.unwrap_or(0);
    let total = total.saturating_sub(was).saturating_add(is);
    tables.batch.put(Table::Meta, key, to_row(&total));
    Ok(())
}

//! Finding debts: the most urgent ones, and a page of the others in turn, so that what cannot be helped now does not hide what can.

use std::collections::BTreeSet;

use crate::base::digest::Sha256;
use crate::base::table::{Row, Table, TableError, Tables};
use crate::core::catalog::query;
use crate::wire::record::ObjectRecord;

/// Rows of the table `debts` that one look reads, from the start and again from where the last one ended.
const PAGE: usize = 256;
/// Debts found and not yet ordered.
const POOL: usize = 1_024;

/// Debts found and not yet ordered.
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// By the number of nodes that count.
    pool: BTreeSet<(u8, Sha256)>,
    /// The key the last look ended at; `None` when it came to the end of the table.
    cursor: Option<Vec<u8>>,
    /// Nothing has changed since the last look came to the end of the table.
    seen_all: bool,
}

impl Debts {
    /// How many are found and not yet ordered.
    pub fn found(&self) -> usize {
        self.pool.len()
    }

    /// The most urgent of those found, at most `count`.
    pub fn first(&self, count: usize) -> Vec<(u8, Sha256)> {
        self.pool.iter().take(count).copied().collect()
    }

    /// It is ordered, paid, or cannot be helped now.
    pub fn remove(&mut self, debt: &(u8, Sha256)) {
        self.pool.remove(debt);
    }

    /// Something changed: what could not be helped perhaps can.
    pub fn begin_anew(&mut self) {
        self.seen_all = false;
    }

    /// Whether there is more than was looked at since something changed.
    pub fn has_more(&self) -> bool {
        self.cursor.is_some() && !self.seen_all
    }

    /// Looks for more. Objects without any copy are left out: there is nothing to copy from.
    pub fn look(&mut self, tables: &dyn Tables) -> Result<(), TableError> {
        if query::debts(tables)? == 0 {
            self.pool.clear();
            self.cursor = None;
            return Ok(());
        }
        let page = |from: &[u8]| -> Result<Vec<Row>, TableError> {
            tables.range(Table::Debts, from, Some(&[ObjectRecord::LOST]), PAGE)
        };
        let first = page(&[0])?;
        let further = match (&self.cursor, first.last()) {
            (Some(cursor), Some((last, _))) if first.len() == PAGE => {
                let mut from = cursor.max(last).clone();
                from.push(0);
                page(&from)?
            }
            _ => Vec::new(),
        };
        let last_of = |page: &[Row]| {
            let full = page.len() == PAGE;
            full.then(|| page.last().map(|(key, _)| key.clone()))
                .flatten()
        };
        let begun = self.cursor.is_none();
        self.cursor = last_of(&further).or_else(|| begun.then(|| last_of(&first)).flatten());
        self.seen_all |= self.cursor.is_none();
        let found = first.iter().chain(&further);
        self.pool
            .extend(found.filter_map(|(key, _)| query::debt(key)));
        while self.pool.len() > POOL {
            self.pool.pop_last();
        }
        Ok(())
    }
}

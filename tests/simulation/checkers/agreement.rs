//! Logs and tables agree: an index and a term name one entry, an applied index names one term, and tables that stand at one index are the same.

use std::collections::BTreeMap;

use momo::base::table::{MemoryTables, Table, Tables};
use momo::core::node::LogRecord;

#[derive(Default)]
pub struct Agreement {
    entries: BTreeMap<(u64, u64), LogRecord>,
    applied: BTreeMap<u64, u64>,
    tables: BTreeMap<u64, u64>,
}

impl Agreement {
    /// Entries were handed to a log.
    pub fn appended(&mut self, records: Vec<LogRecord>) -> Result<(), String> {
        for record in records {
            let key = (record.index, record.term);
            let first = self.entries.entry(key).or_insert_with(|| record.clone());
            if *first != record {
                return Err(format!("two entries of index and term {key:?}"));
            }
        }
        Ok(())
    }

    /// A node applied the entry of this term at this index.
    pub fn applied(&mut self, index: u64, term: u64) -> Result<(), String> {
        let first = *self.applied.entry(index).or_insert(term);
        if first == term {
            return Ok(());
        }
        Err(format!(
            "entries of terms {first} and {term} were both applied at {index}"
        ))
    }

    /// A node's tables stand at this index.
    pub fn tables(&mut self, index: u64, tables: &MemoryTables) -> Result<(), String> {
        if !index.is_multiple_of(5) {
            // Every fifth: what differs once differs from then on.
            return Ok(());
        }
        let hash = fingerprint(tables);
        let first = *self.tables.entry(index).or_insert(hash);
        if first == hash {
            return Ok(());
        }
        Err(format!("tables at {index} differ"))
    }

    /// The greatest index that any node applied.
    pub fn last(&self) -> u64 {
        self.applied.keys().next_back().copied().unwrap_or(1)
    }
}

fn fingerprint(tables: &MemoryTables) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for table in Table::ALL {
        take(table.name().as_bytes());
        let rows = tables.range(table, &[], None, usize::MAX);
        for (key, value) in rows.expect("tables in memory") {
            take(&key);
            take(&value);
        }
    }
    hash
}

//! The tables of the catalog as a trait: read now, change by one batch; redb in production, a `BTreeMap` in simulation.

use std::collections::BTreeMap;
use std::fmt;

/// A table of the catalog. Keys are bytes in order; values are JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single facts: applied index, configuration, cluster id, current mode.
    Meta,
    /// Path to the newest version of a file.
    Files,
    /// Path, NUL, version (8 bytes, big-endian) to an earlier version kept for undo.
    History,
    /// SHA-256 (32 bytes) to size, copies and references of an object.
    Objects,
    /// Number of nodes (1 byte), SHA-256 of every object that counts on fewer nodes than wanted: fewest copies first, and
    /// last those without any copy (255).
    Debts,
    /// SHA-256 (32 bytes) and path of every file whose newest version has the object as a part; no value.
    Names,
    /// Node number (2 bytes, big-endian) to the node.
    Nodes,
    /// Timestamp (8 bytes, big-endian, inverted: newest first) to a change of mode.
    Modes,
    /// Operation id (18 bytes) of a command to the reply it got (rule R4); node number (2 bytes) to how far it has come.
    Replies,
    /// Upload id (18 bytes) to its fate, put or given up (rule R5); node number (2 bytes) to how far it has come.
    Abandoned,
    /// SHA-256 (32 bytes) of every object that has copies which may go; no value.
    Surplus,
}

impl Table {
    /// Every table, in the order in which a store lays them out.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Files,
        Self::History,
        Self::Objects,
        Self::Debts,
        Self::Names,
        Self::Nodes,
        Self::Modes,
        Self::Replies,
        Self::Abandoned,
        Self::Surplus,
    ];

    /// The table's name on disk and in exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Files => "files",
            Self::History => "history",
            Self::Objects => "objects",
            Self::Debts => "debts",
            Self::Names => "names",
            Self::Nodes => "nodes",
            Self::Modes => "modes",
            Self::Replies => "replies",
            Self::Abandoned => "abandoned",
            Self::Surplus => "surplus",
        }
    }
}

/// The tables could not be read: the disk or the file under them failed. Always fatal to the node (rule R18).
#[derive(Debug)]
pub struct TableError(pub String);

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog tables: {}", self.0)
    }
}

impl std::error::Error for TableError {}

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Reading the tables at one moment.
pub trait Tables {
    /// The value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;

    /// At most `limit` rows with `from <= key` and, when given, `key < to`, in key order.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, TableError>;
}

/// Changes that become visible together: the last word on each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// New value, or `None` for a removal, by table and key.
    pub changes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.changes.insert((table, key.to_vec()), Some(value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.insert((table, key.to_vec()), None);
    }

    /// True when nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Tables as they will be once `batch` is written: what a command sees of the commands before it.
pub struct Overlay<'a> {
    under: &'a dyn Tables,
    /// The changes so far.
    pub batch: Batch,
}

impl<'a> Overlay<'a> {
    /// An overlay with no changes yet.
    pub fn new(under: &'a dyn Tables) -> Self {
        Self {
            under,
            batch: Batch::default(),
        }
    }
}

impl Tables for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        match self.batch.changes.get(&(table, key.to_vec())) {
            Some(change) => Ok(change.clone()),
            None => self.under.get(table, key),
        }
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, TableError> {
        let above: BTreeMap<&[u8], Option<&Vec<u8>>> = self
            .batch
            .changes
            .range((table, from.to_vec())..)
            .take_while(|((t, key), _)| *t == table && to.is_none_or(|to| key.as_slice() < to))
            .map(|((_, key), value)| (key.as_slice(), value.as_ref()))
            .collect();
        // Each changed key can hide at most one row below, so this many rows always suffice.
        let below = self
            .under
            .range(table, from, to, limit.saturating_add(above.len()))?;
        let complete_to = (below.len() == limit.saturating_add(above.len()))
            .then(|| below.last().map(|(key, _)| key.clone()))
            .flatten();
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = below.into_iter().collect();
        for (key, value) in above {
            if complete_to.as_deref().is_some_and(|last| key > last) {
                continue;
            }
            match value {
                Some(value) => merged.insert(key.to_vec(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

/// Tables in memory: for simulation and tests, and the model the durable ones are checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTables {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl MemoryTables {
    /// Makes the changes of `batch`.
    pub fn write(&mut self, batch: &Batch) {
        for (key, value) in &batch.changes {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

impl Tables for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, TableError> {
        Ok(self
            .rows
            .range((table, from.to_vec())..)
            .take_while(|((t, key), _)| *t == table && to.is_none_or(|to| key.as_slice() < to))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_reads_as_the_tables_will_after_its_batch() {
        let mut random = crate::base::random::Random::new(7);
        for _ in 0..500 {
            let mut below = MemoryTables::default();
            let mut first = Batch::default();
            for _ in 0..random.below(12) {
                first.put(Table::Files, &[random.below(10) as u8], vec![1]);
            }
            below.write(&first);
            let mut overlay = Overlay::new(&below);
            for _ in 0..random.below(12) {
                let key = [random.below(10) as u8];
                if random.one_in(2) {
                    overlay.batch.delete(Table::Files, &key);
                } else {
                    overlay.batch.put(Table::Files, &key, vec![2]);
                }
            }
            let mut after = below.clone();
            after.write(&overlay.batch);
            let from = [random.below(10) as u8];
            let to = [random.below(10) as u8];
            let limit = random.below(6) as usize;
            for to in [None, Some(&to[..])] {
                assert_eq!(
                    overlay.range(Table::Files, &from, to, limit).unwrap(),
                    after.range(Table::Files, &from, to, limit).unwrap()
                );
            }
        }
    }
}

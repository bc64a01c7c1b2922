//! The catalog's tables in a redb file: visible at once, durable at a checkpoint, consistent snapshots for readers.

use std::path::Path;

use crate::base::table::{Batch, Row, Table, TableError, Tables};

/// The tables; shared by all threads, written by one.
pub struct CatalogTables {}

/// The tables at one moment; stays the same while the tables move on. Cheap to clone.
#[derive(Clone)]
pub struct TableSnapshot {}

impl CatalogTables {
    /// Opens or makes the file at `path`. After a crash it holds the last checkpoint.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let _ = path;
        unimplemented!()
    }

    /// The latest state, held still.
    pub fn snapshot(&self) -> Result<TableSnapshot, TableError> {
        unimplemented!()
    }

    /// Makes the changes of `batch` visible together; durable only after a checkpoint.
    pub fn write(&self, batch: &Batch) -> Result<(), TableError> {
        let _ = batch;
        unimplemented!()
    }

    /// Makes everything written so far durable.
    pub fn checkpoint(&self) -> Result<(), TableError> {
        unimplemented!()
    }

    /// All tables become `rows`, durably and at once: a snapshot from another node. On an error nothing changes.
    pub fn replace(
        &self,
        rows: impl Iterator<Item = Result<(Table, Vec<u8>, Vec<u8>), TableError>>,
    ) -> Result<(), TableError> {
        let _ = rows;
        unimplemented!()
    }
}

impl Tables for CatalogTables {
    fn get(&self, _table: Table, _key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        unimplemented!()
    }

    fn range(
        &self,
        _table: Table,
        _from: &[u8],
        _to: Option<&[u8]>,
        _limit: usize,
    ) -> Result<Vec<Row>, TableError> {
        unimplemented!()
    }
}

impl Tables for TableSnapshot {
    fn get(&self, _table: Table, _key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        unimplemented!()
    }

    fn range(
        &self,
        _table: Table,
        _from: &[u8],
        _to: Option<&[u8]>,
        _limit: usize,
    ) -> Result<Vec<Row>, TableError> {
        unimplemented!()
    }
}

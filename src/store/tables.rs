//! The catalog's tables: what was written since the last checkpoint in memory, all before it in a redb file, consistent snapshots over both.
//!
//! The log has every write until a checkpoint is durable, so a write need not touch the file: it is visible at once and costs microseconds.
//! A checkpoint freezes what has gathered, writes the last word on every key in one durable commit, and drops it; neither writers nor
//! readers wait for that. All tables share one tree in the file; a key begins with its table's byte.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::recent::{Change, Layer};
use super::room::RoomyFile;
use crate::base::limit::{TABLE_CACHE_BYTES, TABLE_RECENT_ROWS};
use crate::base::table::{Batch, Row, Table, TableError, Tables};

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

/// Recent keys looked at beyond the rows that are wanted: some may say that a row is gone. Tests have it small, to go round often.
const LOOKED_AT: usize = if cfg!(test) { 1 } else { 64 };

type FileRows = Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>;

/// The tables; shared by all threads, written by one at a time.
pub struct CatalogTables {
    database: Database,
    latest: RwLock<TableSnapshot>,
    /// Held while the file is written: one checkpoint at a time.
    checkpoint: Mutex<()>,
}

/// The tables at one moment; stays the same while the tables move on. Cheap to clone. While it is held, the file cannot
/// reuse the pages it reads: hold it for a request, not for a day.
#[derive(Clone)]
pub struct TableSnapshot {
    /// Number of the last write that is seen.
    write: u64,
    /// Since the last checkpoint began.
    active: Arc<Layer>,
    /// On its way to the file.
    frozen: Option<Arc<Layer>>,
    file: FileRows,
}

impl CatalogTables {
    /// Opens or makes the file at `path`. After a crash it holds the last checkpoint.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let file = RoomyFile::open(path).map_err(failed)?;
        let database = Builder::new()
            .set_cache_size(TABLE_CACHE_BYTES)
            .create_with_backend(file)
            .map_err(failed)?;
        commit(&database, |_| Ok(()))?;
        let file = read(&database)?;
        let latest = TableSnapshot {
            write: 0,
            active: Arc::default(),
            frozen: None,
            file,
        };
        Ok(Self {
            database,
            latest: RwLock::new(latest),
            checkpoint: Mutex::new(()),
        })
    }

    /// The latest state, held still.
    pub fn snapshot(&self) -> Result<TableSnapshot, TableError> {
        Ok(self.latest.read().clone())
    }

    /// Makes the changes of `batch` visible together; durable only after a checkpoint. Waits for one when too much has gathered.
    pub fn write(&self, batch: &Batch) -> Result<(), TableError> {
        if batch.is_empty() {
            return Ok(());
        }
        let changes: Vec<(Vec<u8>, Change)> = batch
            .changes
            .iter()
            .map(|((table, key), value)| {
                let mut full = Vec::with_capacity(key.len() + 1);
                place(&mut full, *table, key);
                (full, value.as_deref().map(Arc::from))
            })
            .collect();
        let gathered = {
            let mut latest = self.latest.write();
            // Nobody sees the number before the lock is given back, so all of it becomes visible at once.
            let write = latest.write + 1;
            latest.active.add(write, changes.into_iter());
            latest.write = write;
            latest.active.len()
        };
        if gathered > TABLE_RECENT_ROWS {
            self.checkpoint()
        } else {
            Ok(())
        }
    }

    /// Makes everything written so far durable. Neither writers nor readers wait for it.
    pub fn checkpoint(&self) -> Result<(), TableError> {
        let _one_at_a_time = self.checkpoint.lock();
        let frozen = {
            let mut latest = self.latest.write();
            // What an earlier checkpoint that failed left behind stays below.
            if latest.frozen.is_some() {
                return Err(TableError("an earlier checkpoint failed".to_owned()));
            }
            let frozen = std::mem::take(&mut latest.active);
            latest.frozen = Some(Arc::clone(&frozen));
            frozen
        };
        commit(&self.database, |rows| {
            frozen.last(|key, change| {
                match change {
                    Some(value) => rows.insert(key, &**value).map(drop),
                    None => rows.remove(key).map(drop),
                }
                .map_err(failed)
            })
        })?;
        let file = read(&self.database)?;
        let mut latest = self.latest.write();
        latest.frozen = None;
        latest.file = file;
        Ok(())
    }

    /// All tables become `rows`, durably and at once: a snapshot from another node. On an error nothing changes.
    pub fn replace(
        &self,
        rows: impl Iterator<Item = Result<(Table, Vec<u8>, Vec<u8>), TableError>>,
    ) -> Result<(), TableError> {
        let _one_at_a_time = self.checkpoint.lock();
        commit(&self.database, |table| {
            table.retain(|_, _| false).map_err(failed)?;
            let mut full = Vec::with_capacity(64);
            for row in rows {
                let (of, key, value) = row?;
                place(&mut full, of, &key);
                table
                    .insert(full.as_slice(), value.as_slice())
                    .map_err(failed)?;
            }
            Ok(())
        })?;
        let file = read(&self.database)?;
        let mut latest = self.latest.write();
        let write = latest.write + 1;
        *latest = TableSnapshot {
            write,
            active: Arc::default(),
            frozen: None,
            file,
        };
        Ok(())
    }
}

/// One durable commit. After a kill the file opens in milliseconds, however large it is.
fn commit(
    database: &Database,
    change: impl FnOnce(&mut redb::Table<&'static [u8], &'static [u8]>) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(failed)?;
    transaction.set_quick_repair(true);
    change(&mut transaction.open_table(ROWS).map_err(failed)?)?;
    transaction.commit().map_err(failed)
}

fn read(database: &Database) -> Result<FileRows, TableError> {
    let read = database.begin_read().map_err(failed)?;
    Ok(Arc::new(read.open_table(ROWS).map_err(failed)?))
}

impl Tables for CatalogTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.snapshot()?.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, TableError> {
        self.snapshot()?.range(table, from, to, limit)
    }
}

impl Tables for TableSnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let mut full = Vec::with_capacity(key.len() + 1);
        place(&mut full, table, key);
        let recent = self
            .active
            .get(self.write, &full)
            .or_else(|| self.frozen.as_ref()?.get(self.write, &full));
        if let Some(change) = recent {
            return Ok(change.map(|value| value.to_vec()));
        }
        let value = self.file.get(full.as_slice()).map_err(failed)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, TableError> {
        let (mut first, mut end) = (Vec::new(), Vec::new());
        place(&mut first, table, from);
        match to {
            Some(to) => place(&mut end, table, to),
            None => end.push(code(table) + 1),
        }
        if first >= end {
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        loop {
            // No more of what is recent is looked at than may be wanted.
            let most = limit.saturating_sub(rows.len()).saturating_add(LOOKED_AT);
            let mut recent = BTreeMap::new();
            let layers = [self.frozen.as_ref(), Some(&self.active)];
            let cut = layers
                .into_iter()
                .flatten()
                .filter_map(|layer| layer.collect(self.write, &first, &end, most, &mut recent))
                .min();
            let until = cut.as_ref().unwrap_or(&end);
            recent.split_off(until);
            self.merge(&first, until, recent, limit, &mut rows)?;
            match cut {
                Some(cut) if rows.len() < limit => first = cut,
                _ => return Ok(rows),
            }
        }
    }
}

impl TableSnapshot {
    /// The file's rows from `first` and below `end`, and what is recent of them, in order; until there are `limit` rows.
    fn merge(
        &self,
        first: &[u8],
        end: &[u8],
        recent: BTreeMap<Vec<u8>, Change>,
        limit: usize,
        rows: &mut Vec<Row>,
    ) -> Result<(), TableError> {
        let mut recent = recent.into_iter().peekable();
        let mut file = self
            .file
            .range(first..end)
            .map_err(failed)?
            .map(|row| {
                let (key, value) = row.map_err(failed)?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            })
            .peekable();
        while rows.len() < limit {
            // What is recent goes before what the file says of the same key.
            let recent_first = match (recent.peek(), file.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) | (Some(_), Some(Err(_))) => false,
                (Some((ours, _)), Some(Ok((theirs, _)))) => {
                    if ours == theirs {
                        file.next();
                        continue;
                    }
                    ours < theirs
                }
            };
            let (key, value) = if recent_first {
                match recent.next() {
                    Some((key, Some(value))) => (key, value.to_vec()),
                    Some((_, None)) | None => continue,
                }
            } else {
                match file.next() {
                    Some(row) => row?,
                    None => continue,
                }
            };
            rows.push((key.get(1..).unwrap_or_default().to_vec(), value));
        }
        Ok(())
    }
}

/// The byte that a table's keys begin with. Part of the file format: never given to another table.
const fn code(table: Table) -> u8 {
    match table {
        Table::Meta => 1,
        Table::Files => 2,
        Table::History => 3,
        Table::Objects => 4,
        Table::Debts => 5,
        Table::Nodes => 6,
        Table::Modes => 7,
        Table::Replies => 8,
        Table::Abandoned => 9,
        Table::Names => 10,
        Table::Surplus => 11,
    }
}

fn place(full: &mut Vec<u8>, table: Table, key: &[u8]) {
    full.clear();
    full.push(code(table));
    full.extend_from_slice(key);
}

fn failed(error: impl Display) -> TableError {
    TableError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;
    use crate::base::table::MemoryTables;

    fn some_batch(random: &mut Random) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..random.below(12) {
            let table = Table::ALL[random.below(Table::ALL.len() as u64) as usize];
            let key = vec![random.below(3) as u8 * 127; random.below(4) as usize];
            if random.one_in(3) {
                batch.delete(table, &key);
            } else {
                batch.put(table, &key, random.next().to_be_bytes().to_vec());
            }
        }
        batch
    }

    fn assert_same(tables: &dyn Tables, model: &dyn Tables, random: &mut Random) {
        for table in Table::ALL {
            let all = |t: &dyn Tables| t.range(table, &[], None, usize::MAX).unwrap();
            assert_eq!(all(tables), all(model));
            let (from, to) = ([random.next() as u8], [random.next() as u8]);
            let limit = random.below(4) as usize;
            for to in [None, Some(&to[..])] {
                assert_eq!(
                    tables.range(table, &from, to, limit).unwrap(),
                    model.range(table, &from, to, limit).unwrap()
                );
            }
            assert_eq!(
                tables.get(table, &[127]).unwrap(),
                model.get(table, &[127]).unwrap()
            );
        }
    }

    #[test]
    fn the_tables_equal_their_model_whatever_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let mut tables = CatalogTables::open(&path).unwrap();
        let mut model = MemoryTables::default();
        let mut random = Random::new(11);
        for round in 0..120 {
            let batch = some_batch(&mut random);
            let (before, held) = (model.clone(), tables.snapshot().unwrap());
            tables.write(&batch).unwrap();
            model.write(&batch);
            assert_same(&tables, &model, &mut random);
            assert_same(&held, &before, &mut random);
            if random.one_in(5) {
                tables.checkpoint().unwrap();
                assert_same(&tables, &model, &mut random);
                assert_same(&held, &before, &mut random);
            }
            if round % 30 == 29 {
                drop(held);
                tables.checkpoint().unwrap();
                drop(tables);
                tables = CatalogTables::open(&path).unwrap();
                assert_same(&tables, &model, &mut random);
            }
        }
    }

    #[test]
    fn a_replacement_that_fails_changes_nothing_and_one_that_succeeds_changes_everything() {
        let dir = tempfile::tempdir().unwrap();
        let tables = CatalogTables::open(&dir.path().join("tables")).unwrap();
        let mut batch = Batch::default();
        batch.put(Table::Files, b"old", b"1".to_vec());
        tables.write(&batch).unwrap();
        let new = || Ok((Table::Nodes, b"new".to_vec(), b"2".to_vec()));
        let broken = [new(), Err(TableError("the stream ended".to_owned()))];
        assert!(tables.replace(broken.into_iter()).is_err());
        assert_eq!(
            tables.get(Table::Files, b"old").unwrap(),
            Some(b"1".to_vec())
        );
        assert_eq!(tables.get(Table::Nodes, b"new").unwrap(), None);
        tables.replace([new()].into_iter()).unwrap();
        assert_eq!(tables.get(Table::Files, b"old").unwrap(), None);
        assert_eq!(
            tables.get(Table::Nodes, b"new").unwrap(),
            Some(b"2".to_vec())
        );
    }

    #[test]
    #[ignore = "measures: run with --release -- --ignored --nocapture"]
    fn what_a_write_and_a_checkpoint_cost() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let tables = CatalogTables::open(&dir.path().join("tables")).unwrap();
        let mut random = Random::new(1);
        let (mut writes, mut checkpoints) = (Vec::new(), Vec::new());
        for round in 0..20_000_u32 {
            let mut batch = Batch::default();
            let key = random.next().to_be_bytes();
            batch.put(Table::Files, &key, vec![b'x'; 400]);
            batch.put(
                Table::Objects,
                &[key, key, key, key].concat(),
                vec![b'x'; 150],
            );
            batch.put(Table::Meta, b"applied", round.to_string().into_bytes());
            batch.put(
                Table::Replies,
                &[&key[..], &key, b"ab"].concat(),
                vec![b'x'; 100],
            );
            batch.delete(Table::Debts, &key);
            let start = std::time::Instant::now();
            tables.write(&batch).unwrap();
            writes.push(start.elapsed().as_nanos() / 1_000);
            let _ = tables.get(Table::Files, &key).unwrap();
            if round % 2_000 == 1_999 {
                let start = std::time::Instant::now();
                tables.checkpoint().unwrap();
                checkpoints.push(start.elapsed().as_micros());
            }
        }
        writes.sort_unstable();
        println!(
            "write p50 {} p99 {} us; checkpoints {checkpoints:?} us",
            writes[10_000], writes[19_800]
        );
    }

    #[test]
    #[ignore = "measures: run with --release -- --ignored --nocapture"]
    fn how_long_a_write_waits_while_a_checkpoint_runs() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let tables = CatalogTables::open(&dir.path().join("tables")).unwrap();
        let mut random = Random::new(1);
        let mut write = |waits: &mut Vec<u128>| {
            let mut batch = Batch::default();
            for _ in 0..4 {
                batch.put(Table::Files, &random.next().to_be_bytes(), vec![b'x'; 200]);
            }
            let start = std::time::Instant::now();
            tables.write(&batch).unwrap();
            waits.push(start.elapsed().as_micros());
        };
        for gathered in [500, 4_000, 4_000] {
            let mut waits = Vec::new();
            (0..gathered).for_each(|_| write(&mut Vec::new()));
            let took = std::thread::scope(|scope| {
                let checkpoint = scope.spawn(|| {
                    let start = std::time::Instant::now();
                    tables.checkpoint().unwrap();
                    start.elapsed().as_micros()
                });
                // Fewer than may gather: beyond that a write waits for a checkpoint on purpose.
                while !checkpoint.is_finished() {
                    if waits.len() < 8_000 {
                        write(&mut waits);
                    }
                    std::thread::yield_now();
                }
                checkpoint.join().unwrap()
            });
            waits.sort_unstable();
            println!(
                "checkpoint of {gathered}: {took} us; {} writes meanwhile, p50 {} p99 {} longest {} us",
                waits.len(),
                waits[waits.len() / 2],
                waits[waits.len() * 99 / 100],
                waits[waits.len() - 1]
            );
        }
    }
}

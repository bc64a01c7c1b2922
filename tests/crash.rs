//! What is synced survives a crash, whole; what is not may go, but nothing appears that was never written.
//!
//! `FrozenDisk` keeps its files in memory and remembers which writes and names were synced. A crash keeps what was
//! synced and, of the rest, what the test chooses: nothing, everything, or some of the 512-byte sectors. `power` does the
//! same with a real directory, from the calls that changed it (which only builds for debugging write down).

#![allow(clippy::cast_possible_truncation)] // Sizes here are small, and bytes of chance are cut on purpose.

#[cfg(debug_assertions)]
#[path = "harness/alone.rs"]
mod alone;
#[cfg(debug_assertions)]
#[path = "crash/node.rs"]
mod node;
#[cfg(debug_assertions)]
#[path = "crash/power.rs"]
mod power;
#[cfg(debug_assertions)]
#[path = "crash/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use momo::base::random::Random;
use momo::base::table::{Batch, MemoryTables, Table, Tables};
use momo::store::disk::{Disk, DiskFile};
use momo::store::log::{LogBase, LogEntry, RaftLog, Recovered};
use momo::store::tables::CatalogTables;

const SECTOR: usize = 512;
/// Small, so that a short history rolls, cuts and reuses segments.
const SEGMENT: u64 = 4096;

#[derive(Clone, Default)]
struct FrozenDisk(Arc<Mutex<Platter>>);

#[derive(Clone, Default)]
struct Platter {
    names: BTreeMap<String, usize>,
    files: Vec<Inode>,
    /// Changes of names not yet synced, oldest first.
    renames: Vec<NameChange>,
    durable_names: BTreeMap<String, usize>,
    /// Calls that change or sync something, so far.
    steps: u64,
    /// The step at which the power goes: it is done, but counts as not synced, and every later one fails.
    stop_at: Option<u64>,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Nothing,
    Everything,
    /// Everything but the last write, and of that the first so many sectors.
    FirstSectors(usize),
    /// Everything but the last write, and of that all but the first so many sectors.
    LastSectors(usize),
    /// Sectors and a prefix of the name changes, by chance.
    Some(u64),
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        if self.stop_at.is_some_and(|at| self.steps >= at) {
            return Err(io::Error::other("the power is off"));
        }
        self.steps += 1;
        Ok(())
    }

    fn change_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
        match change {
            NameChange::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }

    fn name(&mut self, change: NameChange) {
        Self::change_name(&mut self.names, &change);
        self.renames.push(change);
    }

    /// The disk as the next process finds it.
    fn crash(&self, leaves: Leaves) -> FrozenDisk {
        let mut random = Random::new(match leaves {
            Leaves::Some(seed) => seed,
            _ => 0,
        });
        let mut after = Self {
            durable_names: self.durable_names.clone(),
            ..Self::default()
        };
        let kept = match leaves {
            Leaves::Nothing => 0,
            Leaves::Some(_) => random.below(self.renames.len() as u64 + 1) as usize,
            _ => self.renames.len(),
        };
        for change in &self.renames[..kept] {
            Self::change_name(&mut after.durable_names, change);
        }
        for inode in &self.files {
            let mut bytes = inode.durable.clone();
            for (nth, (offset, written)) in inode.pending.iter().enumerate() {
                let last = nth + 1 == inode.pending.len();
                // Sectors of the disk, not of the write: a write may begin in the middle of one.
                let first_sector = offset / SECTOR;
                for sector in first_sector..(offset + written.len()).div_ceil(SECTOR) {
                    let keep = match leaves {
                        Leaves::Nothing => false,
                        Leaves::Everything => true,
                        Leaves::FirstSectors(n) => !last || sector - first_sector < n,
                        Leaves::LastSectors(n) => !last || sector - first_sector >= n,
                        Leaves::Some(_) => random.one_in(2),
                    };
                    let from = (sector * SECTOR).max(*offset);
                    let to = ((sector + 1) * SECTOR).min(offset + written.len());
                    if keep {
                        if bytes.len() < to {
                            bytes.resize(to, 0);
                        }
                        bytes[from..to].copy_from_slice(&written[from - offset..to - offset]);
                    }
                }
            }
            after.files.push(Inode {
                now: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
            });
        }
        after.names = after.durable_names.clone();
        FrozenDisk(Arc::new(Mutex::new(after)))
    }

    /// The sectors that the last unsynced write of any file touches.
    fn sectors_in_flight(&self) -> usize {
        let sectors = |(offset, bytes): &(usize, Vec<u8>)| {
            (offset + bytes.len()).div_ceil(SECTOR) - offset / SECTOR
        };
        let of = |inode: &Inode| inode.pending.last().map_or(0, sectors);
        self.files.iter().map(of).max().unwrap_or(0)
    }
}

struct FrozenFile(Arc<Mutex<Platter>>, usize);

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk for FrozenDisk {
    type File = FrozenFile;

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().names.keys().cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let platter = self.0.lock().unwrap();
        let file = platter
            .names
            .get(&name_of(path))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(platter.files[*file].now.clone())
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<FrozenFile> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        let zeros = vec![0; size as usize];
        platter.files.push(Inode {
            now: zeros.clone(),
            durable: zeros,
            pending: Vec::new(),
        });
        let file = platter.files.len() - 1;
        platter.name(NameChange::Set(name_of(path), file));
        Ok(FrozenFile(self.0.clone(), file))
    }

    fn open(&self, path: &Path) -> io::Result<FrozenFile> {
        let platter = self.0.lock().unwrap();
        let file = platter
            .names
            .get(&name_of(path))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(FrozenFile(self.0.clone(), *file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        platter.name(NameChange::Rename(name_of(from), name_of(to)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        platter.name(NameChange::Remove(name_of(path)));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        if platter.stop_at == Some(platter.steps) {
            return Err(io::Error::other("the power is off"));
        }
        platter.durable_names = platter.names.clone();
        platter.renames.clear();
        Ok(())
    }
}

impl DiskFile for FrozenFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        let (offset, inode) = (offset as usize, &mut platter.files[self.1]);
        if inode.now.len() < offset + bytes.len() {
            inode.now.resize(offset + bytes.len(), 0);
        }
        inode.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        inode.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        if platter.stop_at == Some(platter.steps) {
            return Err(io::Error::other("the power is off"));
        }
        let inode = &mut platter.files[self.1];
        inode.durable = inode.now.clone();
        inode.pending.clear();
        Ok(())
    }
}

/// One call on the log, made up by chance, and the model after it.
#[derive(Clone, Debug)]
enum Call {
    Append(Option<Vec<u8>>, Vec<LogEntry>),
    Cut(LogBase),
    Reset(LogBase, Vec<u8>),
}

fn last_of(model: &Recovered) -> u64 {
    model.base.index + model.entries.len() as u64
}

fn next_call(random: &mut Random, model: &Recovered) -> Call {
    let last = last_of(model);
    let state = |random: &mut Random| random.next().to_le_bytes().to_vec();
    match random.below(20) {
        0 => {
            let index = random.below(last + 40) + 1;
            Call::Reset(LogBase { index, term: 7 }, state(random))
        }
        1..=3 if last > model.base.index => {
            let index = model.base.index + 1 + random.below(last - model.base.index);
            Call::Cut(LogBase { index, term: index })
        }
        _ => {
            let back = random.below(4).min(last - model.base.index);
            let first = if random.one_in(3) {
                last + 1 - back
            } else {
                last + 1
            };
            let term = random.below(90);
            let entries = (first..first + random.below(5))
                .map(|index| LogEntry {
                    index,
                    term,
                    bytes: vec![random.next() as u8; random.below(900) as usize],
                })
                .collect();
            Call::Append(random.one_in(2).then(|| state(random)), entries)
        }
    }
}

fn expect(model: &Recovered, call: &Call) -> Recovered {
    let mut after = model.clone();
    match call {
        Call::Append(state, entries) => {
            if let Some(first) = entries.first() {
                after.entries.retain(|entry| entry.index < first.index);
            }
            after.entries.extend(entries.iter().cloned());
            after.hard_state = state.clone().or(after.hard_state);
        }
        Call::Cut(base) => {
            after.entries.retain(|entry| entry.index > base.index);
            after.base = *base;
        }
        Call::Reset(base, state) => {
            after = Recovered {
                hard_state: Some(state.clone()),
                base: *base,
                entries: Vec::new(),
            };
        }
    }
    after
}

fn make(log: &mut RaftLog<FrozenDisk>, call: &Call) -> bool {
    match call {
        Call::Append(state, entries) => log.append(state.as_deref(), entries).is_ok(),
        Call::Cut(base) => log.cut(*base).is_ok(),
        Call::Reset(base, state) => log.reset(*base, state).is_ok(),
    }
}

fn reopen(disk: FrozenDisk) -> (RaftLog<FrozenDisk>, Recovered) {
    RaftLog::open_with(disk, Path::new("log"), SEGMENT).expect("a crash is never damage")
}

#[test]
fn the_log_equals_its_model_whatever_is_called_and_however_often_it_is_opened() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let disk = FrozenDisk::default();
        let (mut log, mut model) = reopen(disk.clone());
        for _ in 0..150 {
            let call = next_call(&mut random, &model);
            assert!(make(&mut log, &call), "{call:?}");
            model = expect(&model, &call);
            if random.one_in(10) {
                let (again, recovered) = reopen(disk.clone());
                assert_eq!(recovered, model, "seed {seed}, after {call:?}");
                log = again;
            }
        }
    }
}

/// A history that is stopped at step `stop`: what was acknowledged, and what was being done.
fn stopped_at(seed: u64, stop: u64) -> (Platter, Recovered, Option<Recovered>) {
    let mut random = Random::new(seed);
    let disk = FrozenDisk::default();
    disk.0.lock().unwrap().stop_at = Some(stop);
    let mut model = Recovered::default();
    let mut under_way = None;
    if let Ok((mut log, _)) = RaftLog::open_with(disk.clone(), Path::new("log"), SEGMENT) {
        for _ in 0..25 {
            let call = next_call(&mut random, &model);
            let after = expect(&model, &call);
            if !make(&mut log, &call) {
                under_way = Some(after);
                break;
            }
            model = after;
        }
    }
    let platter = disk.0.lock().unwrap().clone();
    (platter, model, under_way)
}

#[test]
fn a_crash_at_any_step_and_a_tear_at_any_sector_keep_what_was_synced_and_invent_nothing() {
    for seed in 0..12 {
        for stop in 1.. {
            let (platter, before, after) = stopped_at(seed, stop);
            let mut leaves = vec![Leaves::Nothing, Leaves::Everything];
            for sectors in 0..=platter.sectors_in_flight() {
                leaves.extend([Leaves::FirstSectors(sectors), Leaves::LastSectors(sectors)]);
            }
            leaves.extend((0..4).map(|nth| Leaves::Some(seed * 1_000 + stop * 10 + nth)));
            for left in leaves {
                // A sync that failed leaves a mark where it can; a power cut does not write one.
                let (mut log, recovered) = reopen(platter.crash(left));
                let place = format!("seed {seed}, step {stop}, {left:?}");
                assert!(
                    recovered == before || Some(&recovered) == after.as_ref(),
                    "{place}: {recovered:?} is neither {before:?} nor {after:?}"
                );
                let index = last_of(&recovered) + 1;
                let entry = LogEntry {
                    index,
                    term: 99,
                    bytes: vec![1; 600],
                };
                log.append(None, &[entry]).expect("the log goes on");
            }
            if platter.steps < stop {
                break;
            }
        }
    }
}

#[test]
fn a_log_that_goes_on_after_one_crash_survives_the_next() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut disk = FrozenDisk::default();
        let mut possible = vec![Recovered::default()];
        for _ in 0..8 {
            let stop = disk.0.lock().unwrap().steps + 1 + random.below(40);
            disk.0.lock().unwrap().stop_at = Some(stop);
            if let Ok((mut log, recovered)) =
                RaftLog::open_with(disk.clone(), Path::new("log"), SEGMENT)
            {
                assert!(possible.contains(&recovered), "seed {seed}: {recovered:?}");
                let mut model = recovered;
                possible = loop {
                    let call = next_call(&mut random, &model);
                    let after = expect(&model, &call);
                    if !make(&mut log, &call) {
                        break vec![model, after];
                    }
                    model = after;
                };
            }
            let crashed = disk.0.lock().unwrap().crash(Leaves::Some(random.next()));
            disk = crashed;
        }
    }
}

#[test]
fn tables_after_a_kill_are_those_of_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables.redb");
    let tables = CatalogTables::open(&path).unwrap();
    let mut random = Random::new(3);
    let mut model = MemoryTables::default();
    for round in 0..40_u64 {
        let mut batch = Batch::default();
        for _ in 0..5 {
            let key = random.below(200).to_be_bytes();
            if random.one_in(4) {
                batch.delete(Table::Files, &key);
            } else {
                batch.put(Table::Files, &key, random.next().to_string().into_bytes());
            }
        }
        batch.put(Table::Meta, b"round", round.to_string().into_bytes());
        tables.write(&batch).unwrap();
        if round % 8 == 7 {
            tables.checkpoint().unwrap();
            model.write(&batch);
            // What a kill leaves is what the file holds now, with the writer still at work.
            let copy = dir.path().join(format!("copy-{round}"));
            std::fs::copy(&path, &copy).unwrap();
            let after = CatalogTables::open(&copy).unwrap();
            let rows = |tables: &dyn Tables| tables.range(Table::Files, &[], None, 1_000).unwrap();
            assert_eq!(rows(&after), rows(&tables));
        } else {
            model.write(&batch);
        }
        let copy = dir.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        let after = CatalogTables::open(&copy).unwrap();
        let kept = after.get(Table::Meta, b"round").unwrap();
        let durable = (round + 1) / 8 * 8;
        let kept = kept.map_or(0, |text| {
            String::from_utf8(text).unwrap().parse::<u64>().unwrap() + 1
        });
        assert_eq!(kept, durable, "nothing but whole checkpoints survives");
    }
    assert_eq!(
        tables.range(Table::Files, &[], None, 1_000).unwrap(),
        model.range(Table::Files, &[], None, 1_000).unwrap()
    );
}

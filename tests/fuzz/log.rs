//! Laws of the Raft log's segments, on a disk in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use momo::base::digest::crc32c;
use momo::base::random::Random;
use momo::store::disk::{Disk, DiskFile};
use momo::store::log::{LogBase, LogEntry, LogError, RaftLog};

use crate::formats::gist;
use crate::mutate::draw;

#[derive(Clone, Default)]
struct MemoryDisk(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

struct MemoryFile(MemoryDisk, String);

fn file_name(path: &Path) -> String {
    path.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = self.0.lock().unwrap().get(&file_name(path)).cloned();
        Ok(found.ok_or(io::ErrorKind::NotFound)?)
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<MemoryFile> {
        let zeros = vec![0; usize::try_from(size).expect("small")];
        self.0.lock().unwrap().insert(file_name(path), zeros);
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        Ok(MemoryFile(self.clone(), file_name(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let bytes = files
            .remove(&file_name(from))
            .ok_or(io::ErrorKind::NotFound)?;
        files.insert(file_name(to), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().remove(&file_name(path));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.0.lock().unwrap();
        let file = files.get_mut(&self.1).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).expect("small");
        if file.len() < from + bytes.len() {
            file.resize(from + bytes.len(), 0);
        }
        file[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Segments of the logs here.
const SEGMENT: u64 = 4_096;
const FIRST_SEGMENT: &str = "0000000000000001.log";

pub fn sample(random: &mut Random) -> Vec<u8> {
    let disk = MemoryDisk::default();
    let (mut log, _) = RaftLog::open_with(disk.clone(), Path::new("log"), SEGMENT).expect("a log");
    for index in 1..=random.below(6) {
        let entry = LogEntry {
            index,
            term: 1 + index / 3,
            bytes: vec![b'e'; draw(&(0..200_usize), random)],
        };
        log.append(random.one_in(2).then_some(b"hard"), &[entry])
            .expect("an append");
        if random.one_in(4) {
            log.cut(LogBase {
                index,
                term: 1 + index / 3,
            })
            .expect("a cut");
        }
    }
    let mut bytes = disk.0.lock().unwrap()[FIRST_SEGMENT].clone();
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.truncate(end.next_multiple_of(8));
    bytes
}

pub fn mend(bytes: &mut [u8]) {
    for at in (0..bytes.len()).step_by(8) {
        let Some([0xf5, b'm', b'l', 1, _, _, _, _, a, b, c, d]) = bytes.get(at..at + 12) else {
            continue;
        };
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let end = at.saturating_add(32).saturating_add(length);
        if let Some(covered) = bytes.get(at + 8..end) {
            let crc = crc32c(covered).to_le_bytes();
            bytes[at + 4..at + 8].copy_from_slice(&crc);
        }
    }
}

/// A log that opens can be written to, and has everything when it is opened again.
pub fn law(bytes: &[u8]) -> String {
    let disk = MemoryDisk::default();
    let mut padded = bytes.to_vec();
    padded.resize(padded.len().max(4_096), 0);
    disk.0
        .lock()
        .unwrap()
        .insert(FIRST_SEGMENT.to_owned(), padded);
    let open = || RaftLog::open_with(disk.clone(), Path::new("log"), SEGMENT);
    let (mut log, found) = match open() {
        Ok(opened) => opened,
        Err(LogError::Damaged(why)) => return gist(&why),
        Err(error) => panic!("a disk in memory has no errors: {error}"),
    };
    for (entry, index) in found.entries.iter().zip(found.base.index + 1..) {
        assert_eq!(entry.index, index, "no gaps");
    }
    let entry = LogEntry {
        index: found.base.index + found.entries.len() as u64 + 1,
        term: u64::MAX,
        bytes: vec![1; 100],
    };
    log.append(None, std::slice::from_ref(&entry))
        .expect("it goes on");
    drop(log);
    let (_, again) = open().expect("it was open a moment ago");
    let mut expected = found;
    expected.entries.push(entry);
    assert_eq!(again, expected);
    let (cut, entries) = (expected.base.index > 0, expected.entries.len().min(4));
    format!(
        "opens: {entries} entries, cut {cut}, hard state {}",
        expected.hard_state.is_some()
    )
}

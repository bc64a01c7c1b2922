//! The tables' file with room kept ahead: blocks are reserved beyond its end while there are any, so that it can still be written on a full disk (rule R18).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::StorageBackend;

use super::disk;
use crate::base::limit::TABLE_AHEAD_BYTES;

/// A file that redb keeps its pages in. Another process is kept away by the lock of the state directory.
#[derive(Debug)]
pub(super) struct RoomyFile {
    file: File,
    /// The directory it lies in, for messages.
    dir: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Blocks are reserved up to here.
    until: u64,
    /// Less than wanted is reserved: tried again at the next sync.
    short: bool,
}

impl RoomyFile {
    /// Opens or makes the file at `path`. No room to keep is no error: it is tried again.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = disk::open_or_make(path)?;
        let roomy = Self {
            file,
            dir: path.parent().unwrap_or(path).to_owned(),
            kept: Mutex::default(),
        };
        roomy.keep_room()?;
        Ok(roomy)
    }

    /// Reserves what may come next. What a file system cannot or will not give is done without.
    fn keep_room(&self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let room = disk::room(&self.file)?;
        let ahead = TABLE_AHEAD_BYTES.min(room.total / 20);
        let mut kept = self.kept.lock();
        let steps = [length.saturating_add(ahead), length];
        for until in steps {
            let more = until.saturating_sub(kept.until);
            if more == 0 || disk::reserve(&self.file, kept.until, more).is_ok() {
                kept.until = kept.until.max(until);
                break;
            }
        }
        kept.short = kept.until < length.saturating_add(ahead);
        Ok(())
    }

    fn explain(&self, error: io::Error) -> io::Error {
        if !disk::is_full(&error) {
            return error;
        }
        let why = format!(
            "{}: the disk is full, and the room that was kept for the catalog is used up: make room and start again ({error})",
            self.dir.display()
        );
        io::Error::new(io::ErrorKind::StorageFull, why)
    }
}

impl StorageBackend for RoomyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let shrinks = len < self.file.metadata()?.len();
        disk::set_len(&self.file, len).map_err(|error| self.explain(error))?;
        if shrinks {
            // What was reserved behind the new end went with the old one.
            let mut kept = self.kept.lock();
            kept.until = kept.until.min(len);
        }
        self.keep_room()
    }

    fn sync_data(&self) -> io::Result<()> {
        disk::sync_data(&self.file).map_err(|error| self.explain(error))?;
        if self.kept.lock().short {
            self.keep_room()?;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        disk::write_at(&self.file, offset, data).map_err(|error| self.explain(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use crate::base::table::{Batch, Table, Tables};
    use crate::store::tables::CatalogTables;

    fn reserved(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn room_is_kept_beyond_the_end_when_the_file_grows_and_when_it_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let file = RoomyFile::open(&path).unwrap();
        let room = disk::room(&file.file).unwrap();
        let ahead = TABLE_AHEAD_BYTES.min(room.total / 20);
        for length in [0, 3_000_000, 9_000_000, 40_960] {
            file.set_len(length).unwrap();
            assert_eq!(file.len().unwrap(), length);
            if length == 0 && reserved(&path) == 0 {
                return; // A file system that reserves nothing.
            }
            assert!(reserved(&path) >= length + ahead, "{length}");
            assert!(reserved(&path) <= length + ahead + (1 << 20), "{length}");
        }
        let mut read = [1; 100];
        file.read(40_000, &mut read).unwrap();
        assert_eq!(read, [0; 100]);
    }

    struct Mount(tempfile::TempDir);

    impl Mount {
        fn of(mib: u32) -> Option<Self> {
            let mount = Self(tempfile::tempdir().unwrap());
            let mut command = Command::new("mount");
            command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
            command.stderr(std::process::Stdio::null());
            let mounted = command.arg(mount.0.path()).status();
            mounted
                .is_ok_and(|status| status.success())
                .then_some(mount)
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
        }
    }

    #[test]
    fn on_a_full_disk_rows_are_changed_for_a_long_time_yet_and_then_the_error_says_what_to_do() {
        let Some(mount) = Mount::of(100) else {
            return; // Only root mounts.
        };
        let dir = mount.0.path();
        let path = dir.join("tables");
        let tables = CatalogTables::open(&path).unwrap();
        let ballast = File::create(dir.join("ballast")).unwrap();
        let mut at = 0;
        while ballast.write_all_at(&[1; 4096], at).is_ok() {
            at += 4096;
        }
        let write = |tables: &CatalogTables, row: u32, length: usize| {
            let mut batch = Batch::default();
            let key = row.to_be_bytes();
            batch.put(Table::Files, &key, vec![b'x'; length]);
            batch.delete(Table::Files, &row.saturating_sub(20).to_be_bytes());
            tables.write(&batch)
        };
        for row in 0..2_000 {
            write(&tables, row, 600).unwrap();
            if row % 50 == 0 {
                tables.checkpoint().unwrap();
            }
        }
        tables.checkpoint().unwrap();
        drop(tables);
        let tables = CatalogTables::open(&path).unwrap();
        assert!(
            tables
                .get(Table::Files, &1_999_u32.to_be_bytes())
                .unwrap()
                .is_some()
        );
        let error = (0..200)
            .map(|row| {
                write(&tables, 5_000 + row * 100, 100_000).and_then(|()| tables.checkpoint())
            })
            .find_map(Result::err)
            .expect("20 MB do not fit")
            .to_string();
        assert!(
            error.contains("disk is full") && error.contains(&*dir.to_string_lossy()),
            "{error}"
        );
    }
}

//! How busy the disks under the data are, as the kernel counts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The field of a device's `stat` that counts the milliseconds in which it had something to do.
const BUSY_FIELD: usize = 9;

/// The block devices under some directories, and what was counted when they were last looked at.
#[derive(Debug)]
pub struct Drives {
    counters: Vec<PathBuf>,
    last: Option<(Instant, Vec<u64>)>,
}

impl Drives {
    /// The devices under these directories, or the one that the operator named, if it is there. File systems without a device of their
    /// own (in memory, over the network) are never busy.
    pub fn new(directories: &[PathBuf], named: Option<&Path>) -> Self {
        let named = named
            .and_then(Path::file_name)
            .map(|name| Path::new("/sys/class/block").join(name).join("stat"));
        let mut counters: Vec<PathBuf> = match named.filter(|path| path.exists()) {
            Some(path) => vec![path],
            None => directories.iter().filter_map(|dir| counter(dir)).collect(),
        };
        counters.sort();
        counters.dedup();
        Self {
            counters,
            last: None,
        }
    }

    /// The share of the time since the last look in which the busiest of them was busy, 0 to 1; 0 at the first look.
    pub fn busy(&mut self) -> f64 {
        let now = Instant::now();
        let busy: Vec<u64> = self.counters.iter().map(|path| read(path)).collect();
        let last = self.last.replace((now, busy.clone()));
        let Some((at, before)) = last else {
            return 0.0;
        };
        let elapsed = now.duration_since(at).as_secs_f64() * 1_000.0;
        let worked = busy.iter().zip(before);
        let most = worked
            .map(|(now, before)| now.saturating_sub(before))
            .max()
            .unwrap_or(0);
        if elapsed < 1.0 {
            return 0.0;
        }
        (f64::from(u32::try_from(most).unwrap_or(u32::MAX)) / elapsed).min(1.0)
    }
}

/// Where the kernel counts for the device under a directory.
fn counter(directory: &Path) -> Option<PathBuf> {
    let device = rustix::fs::stat(directory).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    path.exists().then_some(path)
}

fn read(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let field = text.split_whitespace().nth(BUSY_FIELD);
    field.and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_drive_is_busy_for_the_share_that_its_counter_grew() {
        let dir = tempfile::tempdir().unwrap();
        let stat = dir.path().join("stat");
        let write = |busy: u64| fs::write(&stat, format!("1 2 3 4 5 6 7 8 9 {busy} 11\n")).unwrap();
        let mut drives = Drives {
            counters: vec![stat.clone()],
            last: None,
        };
        let earlier = |last: Option<(Instant, Vec<u64>)>, seconds| {
            let (at, busy) = last?;
            Some((at.checked_sub(Duration::from_secs(seconds))?, busy))
        };
        write(1_000);
        assert!(drives.busy() < f64::EPSILON);
        drives.last = earlier(drives.last, 10);
        write(6_000);
        let busy = drives.busy();
        assert!((0.4..=0.5).contains(&busy), "{busy}");
        drives.last = earlier(drives.last, 1);
        write(99_000);
        assert!((drives.busy() - 1.0).abs() < f64::EPSILON);
        assert!(
            Drives::new(&[dir.path().join("none")], None)
                .counters
                .is_empty()
        );
    }
}

//! Who supervises a daemon: a lock in its state directory that ends with its holder, and beside it what the holder says.
//!
//! ```text
//! <state_dir>/lfd     locked while a supervisor has this daemon in its care; holds one JSON object, the `Record`
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The file's name.
const NAME: &str = "lfd";
/// Bytes of the file: a record and blanks, in one write, so that readers do not see halves.
const RECORD_BYTES: usize = 1024;
/// Another process that only looks holds the lock for a moment: so long it is tried again.
const LOOK: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// A process that is meant, and not a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it began, in clock ticks since the machine did.
    pub began: u64,
    /// Which run of the machine that was.
    pub boot: String,
}

/// What a supervisor says of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The supervisor.
    pub supervisor: Process,
    /// How it was called: `lfd` or `cluster`.
    pub by: String,
    /// The daemon's number.
    pub daemon: u16,
    /// The daemon's process, while there is one.
    pub process: Option<u32>,
    /// Where it is in its life, see [`super::watch::Stage::word`].
    pub stage: String,
    /// Since when that is so, in seconds since the Unix epoch.
    pub since_s: u64,
    /// How often this supervisor started it.
    pub starts: u64,
    /// Ends in a row without a minute of service between them.
    pub failures: u32,
    /// How its last process ended; empty before the first end.
    pub last_end: String,
}

/// Why a daemon is not taken into care.
#[derive(Debug)]
pub enum ClaimError {
    /// Another supervisor has it.
    Held(PathBuf, Option<Box<Record>>),
    /// A call failed on this path.
    Io(PathBuf, io::Error),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(_, Some(record)) => write!(
                f,
                "daemon {} is already in the care of {} (process {})",
                record.daemon,
                spelled(&record.by),
                record.supervisor.pid
            ),
            Self::Held(path, None) => {
                write!(f, "{}: in use by another supervisor", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ClaimError {}

/// The command line of a supervisor of this kind.
pub fn spelled(by: &str) -> &'static str {
    if by == "cluster" {
        "`momo cluster up`"
    } else {
        "`momo lfd`"
    }
}

impl Process {
    /// This process.
    pub fn this() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the program's name in parentheses and may hold anything; field 22 is the start.
        let began = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start in its stat"))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            pid,
            began,
            boot: boot.trim_end().to_owned(),
        })
    }

    /// Sends a signal to it, and to no other process that has its number by now; false when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(false),
            other => other?,
        };
        // The handle is of whoever has the number now: if that is the one meant, it stays the one meant.
        if Self::of(self.pid).ok().as_ref() != Some(self) {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Err(Errno::SRCH) => Ok(false),
            other => other.map(|()| true).map_err(io::Error::from),
        }
    }
}

/// The right to start and end one daemon's process; ends with this value, or with the process that holds it.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    file: File,
}

impl Claim {
    /// Takes the daemon of this state directory into care; makes the directory where it is absent.
    pub fn take(dir: &Path) -> Result<Self, ClaimError> {
        let path = dir.join(NAME);
        let at = |error| ClaimError::Io(path.clone(), error);
        let deadline = Instant::now() + LOOK;
        loop {
            fs::create_dir_all(dir).map_err(at)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&path).map_err(at)?;
            let locked = lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(at)?;
            // The directory may have been emptied in between: a lock on a file that is gone keeps nobody out.
            if locked && is_at(&file, &path) {
                let dir = dir.to_owned();
                return Ok(Self { dir, file });
            }
            if Instant::now() > deadline {
                return Err(ClaimError::Held(dir.to_owned(), parse(&file).map(Box::new)));
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// Makes sure that the lock is still the one others find: the directory may have been emptied or replaced meanwhile.
    pub fn renew(&mut self) -> Result<(), ClaimError> {
        if !is_at(&self.file, &self.dir.join(NAME)) {
            *self = Self::take(&self.dir)?;
        }
        Ok(())
    }

    /// Says how it goes; whoever asks reads the last word.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let mut text = serde_json::to_vec(record)?;
        if text.len() >= RECORD_BYTES {
            return Err(io::Error::other("the record is too long"));
        }
        text.resize(RECORD_BYTES - 1, b' ');
        text.push(b'\n');
        self.file.write_all_at(&text, 0)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What is said here is over; the file stays, since removing a lock lets two hold it.
        let _ = self.file.set_len(0);
    }
}

/// Who has the daemon of this state directory in care, if somebody has.
pub fn holder(dir: &Path) -> io::Result<Option<Record>> {
    let path = dir.join(NAME);
    let deadline = Instant::now() + LOOK;
    loop {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if lock(&file, FlockOperation::NonBlockingLockShared)? {
            return Ok(None);
        }
        // Held, and not described: its holder has only just taken it, or lets go of it.
        if let Some(record) = parse(&file) {
            return Ok(Some(record));
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "{}: locked by somebody who does not say who",
                path.display()
            )));
        }
        thread::park_timeout(PAUSE);
    }
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether this open file is the one that the path names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn parse(file: &File) -> Option<Record> {
    let mut bytes = [0; RECORD_BYTES];
    let count = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(bytes.get(..count)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            supervisor: Process::this().unwrap(),
            by: "lfd".to_owned(),
            daemon: 3,
            process: Some(7),
            stage: "up".to_owned(),
            since_s: 5,
            starts: 1,
            failures: 0,
            last_end: String::new(),
        }
    }

    #[test]
    fn a_daemon_has_one_supervisor_at_a_time_and_others_learn_who() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/state");
        assert_eq!(holder(&dir).unwrap(), None);
        let claim = Claim::take(&dir).unwrap();
        claim.write(&record()).unwrap();
        assert_eq!(holder(&dir).unwrap(), Some(record()));
        let why = Claim::take(&dir).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            why,
            format!("daemon 3 is already in the care of `momo lfd` (process {pid})")
        );
        drop(claim);
        assert_eq!(holder(&dir).unwrap(), None);
        Claim::take(&dir).unwrap();
    }

    #[test]
    fn a_claim_outlives_an_emptied_directory() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let mut claim = Claim::take(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        claim.renew().unwrap();
        claim.write(&record()).unwrap();
        assert_eq!(holder(&dir).unwrap(), Some(record()));
        // Another one was quicker: this one may start nothing any more.
        fs::remove_dir_all(&dir).unwrap();
        let other = Claim::take(&dir).unwrap();
        assert!(matches!(claim.renew(), Err(ClaimError::Held(..))));
        drop(other);
    }

    #[test]
    fn a_signal_reaches_the_process_that_was_meant_or_none() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let later = Process {
            began: process.began + 1,
            ..process.clone()
        };
        assert!(!later.signal(Signal::KILL).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(process.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!process.signal(Signal::KILL).unwrap());
    }
}

//! What changes the disk, step by step: a test has it written down, and makes of it every disk that a power cut could have left.
//!
//! Every call of the store that changes or syncs something goes through [`step`]. In a release build that is the call and nothing else.

use std::io;
use std::path::PathBuf;

/// What identifies a file while it is open: device and inode.
pub type FileId = (u64, u64);

/// A call that was made, and succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An empty file was made under a name, or an existing one emptied.
    Made {
        /// Its name.
        path: PathBuf,
        /// The file.
        file: FileId,
    },
    /// Bytes were written.
    Wrote {
        /// Into which file.
        file: FileId,
        /// Where.
        offset: u64,
        /// Which.
        bytes: Vec<u8>,
    },
    /// A file became longer (by zeros) or shorter.
    Sized {
        /// Which.
        file: FileId,
        /// Its length now.
        length: u64,
    },
    /// A file got an extended attribute.
    Attributed {
        /// Which file.
        file: FileId,
        /// The attribute.
        name: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// A file got a further name.
    Linked {
        /// A name it has.
        from: PathBuf,
        /// The further one.
        to: PathBuf,
    },
    /// A file changed its name, in place of what had that.
    Renamed {
        /// Its name before.
        from: PathBuf,
        /// Its name now.
        to: PathBuf,
    },
    /// Two files changed names.
    Exchanged {
        /// One name.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A name was taken away.
    Removed {
        /// Which.
        path: PathBuf,
    },
    /// A folder was made.
    FolderMade {
        /// Its name.
        path: PathBuf,
    },
    /// An empty folder was removed.
    FolderRemoved {
        /// Its name.
        path: PathBuf,
    },
    /// What was written to a file is durable: its bytes and length, and with `all` its attributes too.
    SyncedFile {
        /// Which.
        file: FileId,
        /// Attributes too.
        all: bool,
    },
    /// The names in a folder are durable.
    SyncedFolder {
        /// Which.
        path: PathBuf,
    },
    /// The test's own word on what has been achieved by now.
    Mark(String),
}

/// Makes `call`; when it succeeds and somebody watches, `describe` says what it was.
#[cfg(not(debug_assertions))]
pub(super) fn step<T>(
    call: impl FnOnce() -> io::Result<T>,
    _describe: impl FnOnce(&T) -> Option<Step>,
) -> io::Result<T> {
    call()
}

#[cfg(debug_assertions)]
pub(super) use watching::step;
#[cfg(debug_assertions)]
pub use watching::{Watch, mark, watch};

/// The name of what is open, as the kernel knows it.
pub(super) fn path_of(file: impl rustix::fd::AsFd) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    let descriptor = file.as_fd().as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()
}

/// The name of `name` under an open directory.
pub(super) fn path_in(dir: impl rustix::fd::AsFd, name: &str) -> Option<PathBuf> {
    Some(path_of(dir)?.join(name))
}

/// What identifies an open file.
pub(super) fn id_of(file: impl rustix::fd::AsFd) -> Option<FileId> {
    super::disk::facts(file).ok().map(|facts| facts.identity)
}

#[cfg(debug_assertions)]
mod watching {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use std::path::Path;

    use super::{FileId, PathBuf, Step, io};

    struct Watcher {
        root: PathBuf,
        /// Files of interest: those named under the root since, and before.
        files: BTreeSet<FileId>,
        steps: Arc<Mutex<Vec<Step>>>,
    }

    static WATCHED: AtomicUsize = AtomicUsize::new(0);
    /// Held across each call while anybody watches, so that steps stand in the order in which they were made.
    static WATCHERS: Mutex<Vec<Watcher>> = Mutex::new(Vec::new());

    impl Watcher {
        fn cares(&mut self, step: &Step) -> bool {
            let inside = |path: &Path| path.starts_with(&self.root);
            match step {
                Step::Made { path, file } => {
                    let inside = inside(path);
                    if inside {
                        self.files.insert(*file);
                    }
                    inside
                }
                Step::Wrote { file, .. }
                | Step::Sized { file, .. }
                | Step::Attributed { file, .. }
                | Step::SyncedFile { file, .. } => self.files.contains(file),
                Step::Linked { to, .. } | Step::Renamed { to, .. } => inside(to),
                Step::Exchanged { one, .. } => inside(one),
                Step::Removed { path }
                | Step::FolderMade { path }
                | Step::FolderRemoved { path }
                | Step::SyncedFolder { path } => inside(path),
                Step::Mark(_) => false,
            }
        }
    }

    /// Writes down what happens under a directory until it is dropped.
    pub struct Watch(Arc<Mutex<Vec<Step>>>);

    /// Begins to write down what happens under `root`, whose files are `known`.
    pub fn watch(root: &Path, known: impl IntoIterator<Item = FileId>) -> Watch {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let watcher = Watcher {
            root: root.to_owned(),
            files: known.into_iter().collect(),
            steps: Arc::clone(&steps),
        };
        WATCHERS.lock().push(watcher);
        WATCHED.fetch_add(1, Ordering::SeqCst);
        Watch(steps)
    }

    impl Watch {
        /// What happened so far.
        pub fn steps(&self) -> Vec<Step> {
            self.0.lock().clone()
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            let mut watchers = WATCHERS.lock();
            watchers.retain(|watcher| !Arc::ptr_eq(&watcher.steps, &self.0));
            WATCHED.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Has the test's own word written down.
    pub fn mark(watch: &Watch, word: &str) {
        watch.0.lock().push(Step::Mark(word.to_owned()));
    }

    pub(in crate::store) fn step<T>(
        call: impl FnOnce() -> io::Result<T>,
        describe: impl FnOnce(&T) -> Option<Step>,
    ) -> io::Result<T> {
        if WATCHED.load(Ordering::SeqCst) == 0 {
            return call();
        }
        let mut watchers = WATCHERS.lock();
        let result = call()?;
        if let Some(step) = describe(&result) {
            for watcher in watchers.iter_mut() {
                if watcher.cares(&step) {
                    watcher.steps.lock().push(step.clone());
                }
            }
        }
        Ok(result)
    }
}

//! Data directories and the state directory: format marks, locks, the boot counter, small durable facts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::id::{Boot, ClusterId, DirId, NodeId};

/// A data directory, marked as this node's and locked for this process.
pub struct DataDir {
    /// Its random id (rule R9).
    pub id: DirId,
    /// Where it is.
    pub path: PathBuf,
    /// Device number, to tell directories on one disk from directories on several.
    pub device: u64,
    /// Made by this start: it was empty before.
    pub fresh: bool,
    _lock: File,
}

/// All data directories of the node.
pub struct DataDirs {
    /// In the order of the configuration; at least one.
    pub dirs: Vec<DataDir>,
}

/// Where log, tables, boot counter and facts live.
pub struct StateDir {
    path: PathBuf,
}

/// What opening found and made.
pub struct Opened {
    /// The data directories.
    pub dirs: DataDirs,
    /// The state directory.
    pub state: StateDir,
    /// This start's number, durable before this returned.
    pub boot: Boot,
    /// The cluster written in the marks; `None` before a cluster was born or joined.
    pub cluster: Option<ClusterId>,
    /// What an operator should know, one sentence each (two directories on one device).
    pub warnings: Vec<String>,
}

/// Why the directories are not opened. All are the operator's to mend.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds the lock of this directory.
    Locked(PathBuf),
    /// The mark says the directory belongs to another node.
    OtherNode(PathBuf, NodeId),
    /// Two directories carry marks of different clusters.
    OtherCluster(PathBuf, ClusterId),
    /// The same directory is named twice.
    Twice(PathBuf),
    /// The mark is not readable as one, or of a later format.
    Mark(PathBuf, String),
    /// The file system has no extended attributes for users.
    NoAttributes(PathBuf),
    /// A call failed on this path.
    Io(PathBuf, io::Error),
}

impl DataDirs {
    /// Opens `data` (making what is absent) for `node`; the state directory is `state_dir` or the first data directory's `.momo/state`.
    pub fn open(
        data: &[PathBuf],
        state_dir: Option<&Path>,
        node: NodeId,
    ) -> Result<Opened, OpenError> {
        let _ = (data, state_dir, node);
        unimplemented!()
    }

    /// Writes the cluster's id into every mark, durably. Refused when a mark names another cluster.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), OpenError> {
        let _ = cluster;
        unimplemented!()
    }
}

impl StateDir {
    /// Where it is: the log's directory is `path()/log`, the tables' file `path()/tables.redb`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's directory, which exists.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The tables' file.
    pub fn tables_path(&self) -> PathBuf {
        self.path.join("tables.redb")
    }

    /// A fact written earlier, or `None`. `name` is of `a-z`, `-`.
    pub fn read_fact(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let _ = name;
        unimplemented!()
    }

    /// Keeps a fact: durable, old or new after a crash, never half.
    pub fn write_fact(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let _ = (name, bytes);
        unimplemented!()
    }
}

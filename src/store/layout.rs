//! Data directories and the state directory: format marks, locks, the boot counter, small durable facts.
//!
//! ```text
//! <data>/                     the visible tree
//! <data>/.momo/format         the mark: whose directory this is, in JSON
//! <data>/.momo/lock           locked while a process uses the directory
//! <data>/.momo/objects/ab/    objects whose SHA-256 begins with ab; 00 to ff are made at format
//! <data>/.momo/tmp/           what is not yet sealed
//! <data>/.momo/aside/         damaged objects, kept until good copies of them are counted elsewhere
//! <data>/.momo/state/         of the first directory, unless `state_dir` names another place:
//!     format, lock, boot, log/, tables.redb, facts/
//! ```
//! The mark is written last, so a directory that has one is complete.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::disk;
use crate::base::id::{Boot, ClusterId, DirId, NodeId};

/// The name of the part of a data directory that is ours alone.
pub const PRIVATE: &str = ".momo";
const FORMAT: u32 = 1;

/// A data directory, marked as this node's and locked for this process.
#[derive(Debug)]
pub struct DataDir {
    /// Its random id (rule R9).
    pub id: DirId,
    /// Where it is.
    pub path: PathBuf,
    /// Device number, to tell directories on one disk from directories on several.
    pub device: u64,
    /// Made by this start: it was empty before.
    pub fresh: bool,
    /// Its file system takes no writes: what it holds is served, and it takes nothing new (rule R18).
    pub read_only: bool,
    mark: Mutex<Mark>,
    _lock: File,
}

/// All data directories of the node. Locked until dropped.
#[derive(Debug)]
pub struct DataDirs {
    /// In the order of the configuration; at least one.
    pub dirs: Vec<DataDir>,
    state: Arc<StateMark>,
}

/// Where log, tables, boot counter and facts live. Locked until dropped.
#[derive(Debug)]
pub struct StateDir {
    shared: Arc<StateMark>,
}

#[derive(Debug)]
struct StateMark {
    path: PathBuf,
    mark: Mutex<Mark>,
    _lock: File,
}

/// What opening found and made.
#[derive(Debug)]
pub struct Opened {
    /// The data directories.
    pub dirs: DataDirs,
    /// The state directory.
    pub state: StateDir,
    /// This start's number, durable before this returned.
    pub boot: Boot,
    /// The cluster written in the marks; `None` before a cluster was born or joined.
    pub cluster: Option<ClusterId>,
    /// The state directory was made by this start: this node remembers nothing (rule R13).
    pub fresh_state: bool,
    /// What an operator should know, one sentence each (two directories on one device).
    pub warnings: Vec<String>,
}

/// Why the directories are not opened. All are the operator's to mend.
#[derive(Debug)]
pub enum OpenError {
    /// No data directory is named.
    NoDirectory,
    /// Another process holds the lock of this directory.
    Locked(PathBuf),
    /// The mark says the directory belongs to another node.
    OtherNode(PathBuf, NodeId),
    /// The mark names another cluster than the other marks, or than the one that is to be written.
    OtherCluster(PathBuf, ClusterId),
    /// The same directory is named twice.
    Twice(PathBuf),
    /// The mark or a fact is not readable as one, or of a later format.
    Mark(PathBuf, String),
    /// The file system has no extended attributes for users.
    NoAttributes(PathBuf),
    /// A call failed on this path.
    Io(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory => f.write_str("no data directory is named"),
            Self::Locked(path) => {
                write!(f, "{}: in use by another process", path.display())
            }
            Self::OtherNode(path, node) => {
                write!(f, "{}: belongs to daemon {node}", path.display())
            }
            Self::OtherCluster(path, cluster) => {
                write!(
                    f,
                    "{}: belongs to another cluster, {cluster}",
                    path.display()
                )
            }
            Self::Twice(path) => write!(f, "{}: is named twice", path.display()),
            Self::Mark(path, why) => write!(f, "{}: {why}", path.display()),
            Self::NoAttributes(path) => write!(
                f,
                "{}: this file system keeps no extended attributes (user.*)",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    dir: DirId,
    node: NodeId,
    #[serde(default)]
    cluster: Option<ClusterId>,
}

impl DataDirs {
    /// Opens `data` (making what is absent) for `node`; the state directory is `state_dir` or the first data directory's `.momo/state`.
    ///
    /// The number of this start is greater than the last one and no less than `at_least`: a node whose counter is gone
    /// with its disk must not begin again with numbers that the cluster takes for starts that are over (rule R4).
    pub fn open(
        data: &[PathBuf],
        state_dir: Option<&Path>,
        node: NodeId,
        at_least: u64,
    ) -> Result<Opened, OpenError> {
        let opened = Self::open_mixed(data, state_dir, node, at_least)?;
        let cluster = opened.dirs.cluster()?;
        if let Some(cluster) = cluster {
            // A disk that was added, or a set-up that was cut short.
            opened.dirs.set_cluster(cluster)?;
        }
        Ok(Opened { cluster, ..opened })
    }

    /// The same, whatever clusters the marks name; [`Opened::cluster`] stays empty.
    pub fn open_mixed(
        data: &[PathBuf],
        state_dir: Option<&Path>,
        node: NodeId,
        at_least: u64,
    ) -> Result<Opened, OpenError> {
        let first = data.first().ok_or(OpenError::NoDirectory)?;
        let mut dirs: Vec<DataDir> = Vec::new();
        for path in data {
            let dir = DataDir::open(path, node)?;
            if dirs.iter().any(|other| other.id == dir.id) {
                return Err(OpenError::Twice(path.clone()));
            }
            dirs.push(dir);
        }
        let default = first.join(PRIVATE).join("state");
        let (state, fresh_state) = StateDir::open(state_dir.unwrap_or(&default), node)?;
        let dirs = Self {
            dirs,
            state: Arc::clone(&state.shared),
        };
        let mut warnings = dirs.shared_devices();
        for dir in dirs.dirs.iter().filter(|dir| dir.read_only) {
            let path = dir.path.display();
            warnings.push(format!(
                "{path} is read-only: what it holds is served, and it takes nothing new"
            ));
        }
        let boot = state.raise_boot(at_least)?;
        Ok(Opened {
            dirs,
            state,
            boot,
            cluster: None,
            fresh_state,
            warnings,
        })
    }

    /// Writes the cluster's id into every mark, durably. Refused when a mark names another cluster.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), OpenError> {
        self.may_be_of(cluster)?;
        for (path, mark) in self.marks() {
            let mut mark = mark.lock();
            // A directory that takes no writes keeps the mark it has.
            let read_only = |dir: &DataDir| dir.read_only && dir.path.join(PRIVATE) == path;
            if mark.cluster.is_none() && !self.dirs.iter().any(read_only) {
                let marked = Mark {
                    cluster: Some(cluster),
                    ..mark.clone()
                };
                marked.write(&path)?;
                *mark = marked;
            }
        }
        Ok(())
    }

    /// Writes a cluster's id into every mark, durably, whatever they named before: an operator's order.
    pub fn change_cluster(&self, cluster: ClusterId) -> Result<(), OpenError> {
        for (path, mark) in self.marks() {
            let mut mark = mark.lock();
            let marked = Mark {
                cluster: Some(cluster),
                ..mark.clone()
            };
            marked.write(&path)?;
            *mark = marked;
        }
        Ok(())
    }

    /// Refused when a mark names another cluster.
    pub fn may_be_of(&self, cluster: ClusterId) -> Result<(), OpenError> {
        for (path, mark) in self.marks() {
            if let Some(other) = mark.lock().cluster.filter(|other| *other != cluster) {
                return Err(OpenError::OtherCluster(path, other));
            }
        }
        Ok(())
    }

    /// Every mark with the directory it lies in.
    fn marks(&self) -> impl Iterator<Item = (PathBuf, &Mutex<Mark>)> {
        self.dirs
            .iter()
            .map(|dir| (dir.path.join(PRIVATE), &dir.mark))
            .chain([(self.state.path.clone(), &self.state.mark)])
    }

    fn cluster(&self) -> Result<Option<ClusterId>, OpenError> {
        let mut found = self.state.mark.lock().cluster;
        for dir in &self.dirs {
            match (found, dir.mark.lock().cluster) {
                (Some(one), Some(other)) if one != other => {
                    return Err(OpenError::OtherCluster(dir.path.clone(), other));
                }
                (known, here) => found = known.or(here),
            }
        }
        Ok(found)
    }

    fn shared_devices(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (nth, dir) in self.dirs.iter().enumerate() {
            if let Some(other) = self.dirs.iter().take(nth).find(|o| o.device == dir.device) {
                warnings.push(format!(
                    "{} and {} are on one device: losing it loses both",
                    other.path.display(),
                    dir.path.display()
                ));
            }
        }
        warnings
    }
}

/// Frees a node's directories from the cluster they belong to, for a cluster that is to be born anew: objects and the ids
/// of the directories stay, and the state directory is put aside, not removed; where it is then, if there was one.
///
/// No process may use the directories. Done again after a crash in the middle it goes on.
pub fn release(
    data: &[PathBuf],
    state: &Path,
    node: NodeId,
    aside: &Path,
) -> Result<bool, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io(path, error)
    };
    let mut marks = Vec::new();
    for path in data {
        let private = path.join(PRIVATE);
        let held = match Mark::read(&private)? {
            Some(mark) if mark.node != node => {
                return Err(OpenError::OtherNode(path.clone(), mark.node));
            }
            Some(mark) => mark,
            // Never used: there is nothing to free.
            None => continue,
        };
        let locked = lock(&private)?;
        marks.push((private, held, locked));
    }
    let kept = Mark::read(state)?;
    if let Some(mark) = kept.as_ref().filter(|mark| mark.node != node) {
        return Err(OpenError::OtherNode(state.to_owned(), mark.node));
    }
    if kept.is_some() {
        // Held until it has its new name: nobody begins to use it in between.
        let _lock = lock(state)?;
        std::fs::rename(state, aside).map_err(at(state))?;
        if let Some(parent) = state.parent() {
            disk::sync_dir(parent).map_err(at(parent))?;
        }
    }
    for (private, held, _lock) in marks {
        let free = Mark {
            cluster: None,
            ..held
        };
        free.write(&private)?;
    }
    Ok(kept.is_some())
}

impl DataDir {
    fn open(path: &Path, node: NodeId) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io(path, error)
        };
        let private = path.join(PRIVATE);
        std::fs::create_dir_all(&private).map_err(at(&private))?;
        let lock = lock(&private)?;
        let held = Mark::read(&private)?;
        let fresh = held.is_none();
        let mark = match held {
            Some(mark) if mark.node != node => {
                return Err(OpenError::OtherNode(path.to_owned(), mark.node));
            }
            Some(mark) => mark,
            None => Self::format(path, &private, node)?,
        };
        let mut read_only = false;
        for name in ["tmp", "aside"] {
            let folder = private.join(name);
            match std::fs::create_dir_all(&folder) {
                Err(error) if disk::is_read_only(&error) => read_only = true,
                made => made.map_err(at(&folder))?,
            }
        }
        match disk::set_attribute(&lock, "user.momo.test", b"1") {
            Ok(()) => {}
            Err(error) if disk::is_read_only(&error) => read_only = true,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Err(OpenError::NoAttributes(path.to_owned()));
            }
            Err(error) => return Err(OpenError::Io(path.to_owned(), error)),
        }
        let facts = disk::facts(&lock).map_err(at(path))?;
        Ok(Self {
            id: mark.dir,
            path: path.to_owned(),
            device: facts.identity.0,
            fresh,
            read_only,
            mark: Mutex::new(mark),
            _lock: lock,
        })
    }

    /// Makes the object directories, then the mark.
    fn format(path: &Path, private: &Path, node: NodeId) -> Result<Mark, OpenError> {
        let made = || -> io::Result<()> {
            let objects = private.join("objects");
            for first in 0..=255_u8 {
                std::fs::create_dir_all(objects.join(format!("{first:02x}")))?;
            }
            disk::sync_dir(&objects)?;
            disk::sync_dir(private)?;
            disk::sync_dir(path)
        };
        made().map_err(|error| OpenError::Io(path.to_owned(), error))?;
        let mark = Mark::new(node)?;
        mark.write(private)?;
        Ok(mark)
    }

    /// The directories under `.momo`, by name.
    pub(super) fn private(&self, name: &str) -> PathBuf {
        self.path.join(PRIVATE).join(name)
    }
}

impl StateDir {
    fn open(path: &Path, node: NodeId) -> Result<(Self, bool), OpenError> {
        let at = |error| OpenError::Io(path.to_owned(), error);
        std::fs::create_dir_all(path).map_err(at)?;
        let lock = lock(path)?;
        let held = Mark::read(path)?;
        let fresh = held.is_none();
        if let Some(other) = held.as_ref().filter(|mark| mark.node != node) {
            return Err(OpenError::OtherNode(path.to_owned(), other.node));
        }
        for name in ["log", "facts"] {
            std::fs::create_dir_all(path.join(name)).map_err(at)?;
        }
        let mark = if let Some(mark) = held {
            mark
        } else {
            disk::sync_dir(path).map_err(at)?;
            if let Some(parent) = path.parent() {
                disk::sync_dir(parent).map_err(at)?;
            }
            let mark = Mark::new(node)?;
            mark.write(path)?;
            mark
        };
        let state = StateMark {
            path: path.to_owned(),
            mark: Mutex::new(mark),
            _lock: lock,
        };
        Ok((
            Self {
                shared: Arc::new(state),
            },
            fresh,
        ))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The log's directory, which exists.
    pub fn log_dir(&self) -> PathBuf {
        self.shared.path.join("log")
    }

    /// The tables' file.
    pub fn tables_path(&self) -> PathBuf {
        self.shared.path.join("tables.redb")
    }

    /// A fact written earlier, or `None`. `name` is of `a-z`, `0-9` and `-`.
    pub fn read_fact(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.fact(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a fact: durable, old or new after a crash, never half. Two syncs.
    pub fn write_fact(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        disk::replace_file(&self.fact(name), bytes)
    }

    /// Makes room for facts that were never written, so that they can be on a full disk. Without room now they need some then.
    pub fn prepare_facts(&self, names: &[&str]) {
        for name in names {
            let _ = disk::prepare_file(&self.fact(name));
        }
    }

    fn fact(&self, name: &str) -> PathBuf {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(
            !name.is_empty() && name.bytes().all(plain),
            "a fact has a plain name"
        );
        self.shared
            .path
            .join("facts")
            .join(name)
            .with_extension("json")
    }

    fn raise_boot(&self, at_least: u64) -> Result<Boot, OpenError> {
        let path = self.shared.path.join("boot");
        let at = |error| OpenError::Io(path.clone(), error);
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim_end().parse().ok();
        let last: u64 = match std::fs::read(&path) {
            Ok(bytes) => number(&bytes).ok_or_else(|| {
                OpenError::Mark(path.clone(), "the boot counter is not a number".to_owned())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(error)),
        };
        let boot = last.checked_add(1).ok_or_else(|| {
            OpenError::Mark(path.clone(), "the boot counter is at its end".to_owned())
        })?;
        let boot = boot.max(at_least);
        disk::replace_file(&path, format!("{boot}\n").as_bytes()).map_err(at)?;
        Ok(Boot(boot))
    }
}

impl Mark {
    fn new(node: NodeId) -> Result<Self, OpenError> {
        let mut id = [0; 8];
        getrandom::fill(&mut id)
            .map_err(|error| OpenError::Mark(PathBuf::from("getrandom"), error.to_string()))?;
        Ok(Self {
            format: FORMAT,
            dir: DirId(u64::from_ne_bytes(id)),
            node,
            cluster: None,
        })
    }

    fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join("format");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::Io(path, error)),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(mark) if mark.format == FORMAT => Ok(Some(mark)),
            Ok(mark) => Err(OpenError::Mark(
                path,
                format!("format {}, this program knows {FORMAT}", mark.format),
            )),
            Err(error) => Err(OpenError::Mark(path, format!("not a format mark: {error}"))),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), OpenError> {
        let path = dir.join("format");
        let mut text = serde_json::to_vec(self)
            .map_err(|error| OpenError::Mark(path.clone(), error.to_string()))?;
        text.push(b'\n');
        disk::replace_file(&path, &text).map_err(|error| OpenError::Io(path, error))
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let at = |error| OpenError::Io(path.clone(), error);
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).open(&path);
    let file = match opened {
        // What is locked need not be written to.
        Err(error) if disk::is_read_only(&error) => File::open(&path),
        opened => opened,
    };
    let file = file.map_err(at)?;
    if disk::try_lock(&file).map_err(at)? {
        Ok(file)
    } else {
        Err(OpenError::Locked(dir.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(3);

    #[test]
    fn a_directory_keeps_its_id_and_every_start_has_a_greater_boot() {
        let root = tempfile::tempdir().unwrap();
        let data = [root.path().join("a"), root.path().join("b")];
        let first = DataDirs::open(&data, None, NODE, 0).unwrap();
        assert!(first.fresh_state && first.dirs.dirs.iter().all(|dir| dir.fresh));
        assert_eq!((first.boot, first.cluster), (Boot(1), None));
        assert_eq!(first.warnings.len(), 1, "both are on one device");
        assert!(data[1].join(".momo/objects/ff").is_dir());
        first.dirs.set_cluster(ClusterId(7)).unwrap();
        let ids: Vec<_> = first.dirs.dirs.iter().map(|dir| dir.id).collect();
        assert!(matches!(
            DataDirs::open(&data, None, NODE, 0),
            Err(OpenError::Locked(_))
        ));
        drop(first);

        std::fs::remove_dir_all(&data[1]).unwrap();
        let again = DataDirs::open(&data, None, NODE, 0).unwrap();
        assert_eq!((again.boot, again.cluster), (Boot(2), Some(ClusterId(7))));
        assert!(!again.fresh_state);
        assert_eq!(again.dirs.dirs[0].id, ids[0]);
        assert_ne!(
            again.dirs.dirs[1].id, ids[1],
            "an emptied disk is another directory"
        );
        assert!(again.dirs.dirs[1].fresh);
        drop(again);
        let third = DataDirs::open(&data[1..], None, NODE, 0).unwrap();
        assert_eq!(
            third.cluster,
            Some(ClusterId(7)),
            "an added disk learns the cluster"
        );
    }

    #[test]
    fn starts_are_numbered_upwards_from_the_floor_even_when_the_counter_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let data = [root.path().join("a")];
        let boot = |at_least| DataDirs::open(&data, None, NODE, at_least).unwrap().boot;
        assert_eq!([boot(100), boot(100), boot(50)], [100, 101, 102].map(Boot));
        std::fs::remove_dir_all(&data[0]).unwrap();
        assert_eq!(boot(200), Boot(200));
    }

    #[test]
    fn released_directories_keep_their_ids_and_forget_their_cluster_and_the_state_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (data, aside) = (folder.path().join("data"), folder.path().join("aside"));
        let data = vec![data];
        let state = data[0].join(PRIVATE).join("state");
        let open = || DataDirs::open(&data, None, NodeId(1), 0);
        let first = open().unwrap();
        let id = first.dirs.dirs[0].id;
        first.dirs.set_cluster(ClusterId(7)).unwrap();
        assert!(release(&data, &state, NodeId(1), &aside).is_err(), "in use");
        drop(first);
        assert!(release(&data, &state, NodeId(2), &aside).is_err());
        assert!(release(&data, &state, NodeId(1), &aside).unwrap());
        assert!(aside.join("boot").exists());
        assert!(!release(&data, &state, NodeId(1), &aside).unwrap(), "again");
        let then = open().unwrap();
        assert_eq!((then.cluster, then.dirs.dirs[0].id), (None, id));
        then.dirs.set_cluster(ClusterId(8)).unwrap();
    }

    #[test]
    fn a_directory_of_another_node_or_cluster_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = ([root.path().join("a")], [root.path().join("b")]);
        for (data, cluster) in [(&a, 1), (&b, 2)] {
            let opened = DataDirs::open(data, None, NODE, 0).unwrap();
            opened.dirs.set_cluster(ClusterId(cluster)).unwrap();
            let other = opened.dirs.set_cluster(ClusterId(9));
            assert!(matches!(other, Err(OpenError::OtherCluster(..))));
        }
        let other_node = DataDirs::open(&a, None, NodeId(4), 0);
        assert!(matches!(other_node, Err(OpenError::OtherNode(_, NODE))));
        let both = DataDirs::open(&[a[0].clone(), b[0].clone()], None, NODE, 0);
        assert!(matches!(
            both,
            Err(OpenError::OtherCluster(_, ClusterId(2)))
        ));
        let twice = DataDirs::open(&[a[0].clone(), a[0].clone()], None, NODE, 0);
        assert!(matches!(twice, Err(OpenError::Locked(_))));
        std::fs::write(a[0].join(".momo/format"), "{\"format\":2}").unwrap();
        assert!(matches!(
            DataDirs::open(&a, None, NODE, 0),
            Err(OpenError::Mark(..))
        ));
    }

    #[test]
    fn facts_are_kept_and_replaced() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("elsewhere");
        let data = [root.path().join("a")];
        let opened = DataDirs::open(&data, Some(&state), NODE, 0).unwrap();
        assert_eq!(opened.state.read_fact("acked").unwrap(), None);
        opened.state.write_fact("acked", b"{\"1\":5}").unwrap();
        opened.state.write_fact("acked", b"{}").unwrap();
        assert_eq!(
            opened.state.read_fact("acked").unwrap(),
            Some(b"{}".to_vec())
        );
        opened.state.prepare_facts(&["acked", "never"]);
        assert_eq!(opened.state.read_fact("never").unwrap(), None);
        opened.state.write_fact("acked", b"").unwrap();
        assert_eq!(opened.state.read_fact("acked").unwrap(), Some(vec![]));
        opened.state.write_fact("acked", b"{\"1\":7}").unwrap();
        assert_eq!(
            opened.state.read_fact("acked").unwrap(),
            Some(b"{\"1\":7}".to_vec())
        );
        assert!(opened.state.log_dir().is_dir());
        assert!(!data[0].join(".momo/state").exists());
    }
}

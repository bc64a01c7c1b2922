//! The visible tree: what a person expects from `ls` and `tar`, hard links to objects, made to follow the catalog.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk::{self, Kind, LinkOutcome};
use super::layout::DataDirs;
use super::objects::{ATTRIBUTE, is_object, object_path};
use crate::base::digest::Sha256;
use crate::base::path::FilePath;

/// Strangers' files that are remembered as mentioned in the log.
const MENTIONED: usize = 1_000;

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The name shows the object (or the empty file).
    Shown,
    /// The name is absent: removed, or its object is not held here.
    Absent,
    /// A file that is not ours stands in the way; it is left alone and was logged once.
    Blocked,
}

/// The visible trees of all data directories. Not synced: rebuilt at start.
pub struct Tree {
    roots: Vec<Root>,
    next: AtomicU64,
    mentioned: Mutex<BTreeSet<String>>,
}

struct Root {
    path: PathBuf,
    top: OwnedFd,
    objects: OwnedFd,
    tmp: OwnedFd,
}

impl Tree {
    /// The tree over `dirs`.
    pub fn open(dirs: &DataDirs) -> io::Result<Self> {
        let open = |dir: &super::layout::DataDir| {
            Ok(Root {
                path: dir.path.clone(),
                top: disk::open_dir(&dir.path)?,
                objects: disk::open_dir(&dir.path.join(".momo/objects"))?,
                tmp: disk::open_dir(&dir.path.join(".momo/tmp"))?,
            })
        };
        Ok(Self {
            roots: dirs.dirs.iter().map(open).collect::<io::Result<_>>()?,
            next: AtomicU64::new(0),
            mentioned: Mutex::new(BTreeSet::new()),
        })
    }

    /// Makes the name show `wanted` (digest and size), or nothing. Doing it again changes nothing.
    pub fn reconcile(&self, path: &FilePath, wanted: Option<(Sha256, u64)>) -> io::Result<Linked> {
        let mut result = Linked::Absent;
        let mut shown = false;
        for (position, root) in self.roots.iter().enumerate() {
            let here = match wanted {
                // An empty file has no object: it stands in the first directory.
                Some((_, 0)) => position == 0,
                Some((sha256, _)) => !shown && root.identity(&sha256)?.is_some(),
                None => false,
            };
            if let (true, Some((sha256, size))) = (here, wanted) {
                shown = true;
                result = self.show(root, path, &sha256, size)?;
            } else {
                root.hide(path)?;
            }
        }
        Ok(result)
    }

    /// Makes the name show the object; as `reconcile` with a file.
    pub fn link(&self, path: &FilePath, sha: &Sha256, size: u64) -> io::Result<Linked> {
        self.reconcile(path, Some((*sha, size)))
    }

    /// Takes the name away, and folders it leaves empty.
    pub fn unlink(&self, path: &FilePath) -> io::Result<()> {
        self.reconcile(path, None).map(drop)
    }

    /// An object's file is gone from under `objects/`: if `path` still shows it in the directory at `data`, it gets its
    /// name back from there, durably; false when it does not. Whether the bytes are right is for the caller to see.
    pub fn give_back(&self, data: &Path, path: &FilePath, sha: &Sha256) -> io::Result<bool> {
        let Some(root) = self.roots.iter().find(|root| root.path == data) else {
            return Ok(false);
        };
        let mut folder = root.top.try_clone()?;
        for component in folders(path) {
            let Some(next) = disk::open_folder(&folder, component)? else {
                return Ok(false);
            };
            folder = next;
        }
        // The name may still show an earlier version.
        let shown = disk::open_read(&folder, path.name())?;
        if !shown.is_some_and(|file| is_object(&file, sha).unwrap_or(false)) {
            return Ok(false);
        }
        match disk::link(&folder, path.name(), &root.objects, &object_path(sha)) {
            Ok(LinkOutcome::Linked) => {}
            Ok(LinkOutcome::Taken | LinkOutcome::Impossible) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let holding = data.join(".momo/objects").join(object_path(sha));
        holding.parent().map_or(Ok(()), disk::sync_dir)?;
        Ok(true)
    }

    /// Gives every name of ours that stands in the tree to `look`, which may take it away.
    pub fn each(&self, mut look: impl FnMut(&FilePath) -> io::Result<()>) -> io::Result<()> {
        for root in &self.roots {
            sweep(&root.top, "", &mut look)?;
        }
        Ok(())
    }

    fn show(&self, root: &Root, path: &FilePath, sha: &Sha256, size: u64) -> io::Result<Linked> {
        let Some(parent) = self.parent(root, path)? else {
            return Ok(Linked::Blocked);
        };
        let name = path.name();
        let object = if size == 0 { None } else { root.identity(sha)? };
        if let Some(there) = disk::facts_at(&parent, name)? {
            let shows_it = match object {
                Some(identity) => there.identity == identity,
                None => there.size == 0,
            };
            match there.kind {
                Kind::File if is_ours(&parent, name)? => {
                    if shows_it {
                        return Ok(Linked::Shown);
                    }
                }
                Kind::Folder if disk::remove_folder(&parent, name)? => {}
                Kind::File | Kind::Folder | Kind::Other => return Ok(self.blocked(path)),
            }
        }
        let temporary = format!("link-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let made = if size == 0 {
            root.make_empty(&temporary)?;
            true
        } else {
            root.make_link(sha, size, &temporary)?
        };
        if !made {
            root.hide(path)?;
            return Ok(Linked::Absent);
        }
        // It is not renamed onto a name of the same file, which would leave both: that name was found above.
        if let Err(error) = disk::rename(&root.tmp, &temporary, &parent, name) {
            disk::unlink(&root.tmp, &temporary)?;
            return Err(error);
        }
        Ok(Linked::Shown)
    }

    /// The folder a name lies in, made where it is not there; `None` when a stranger's file stands in the way.
    fn parent(&self, root: &Root, path: &FilePath) -> io::Result<Option<OwnedFd>> {
        let mut folder = root.top.try_clone()?;
        for component in folders(path) {
            folder = loop {
                if let Some(next) = disk::open_folder(&folder, component)? {
                    break next;
                }
                if disk::make_folder(&folder, component)? {
                    continue;
                }
                // Taken, and no folder: a name of ours that the catalog has given up, or a stranger's.
                if is_ours(&folder, component)? {
                    disk::unlink(&folder, component)?;
                } else if disk::open_folder(&folder, component)?.is_none() {
                    self.blocked(path);
                    return Ok(None);
                }
            };
        }
        Ok(Some(folder))
    }

    fn blocked(&self, path: &FilePath) -> Linked {
        let mut mentioned = self.mentioned.lock();
        if mentioned.len() < MENTIONED && mentioned.insert(path.as_str().to_owned()) {
            log::warn!(
                target: "momo::tree_blocked",
                "'{path}' is not shown in the data directory: a file that is not momo's stands there"
            );
        }
        Linked::Blocked
    }
}

impl Root {
    fn identity(&self, sha: &Sha256) -> io::Result<Option<(u64, u64)>> {
        Ok(disk::facts_at(&self.objects, &object_path(sha))?.map(|facts| facts.identity))
    }

    fn make_empty(&self, temporary: &str) -> io::Result<()> {
        let file = disk::create_new(&self.tmp, temporary)?;
        disk::set_attribute(&file, ATTRIBUTE, b"empty")?;
        disk::make_read_only(&file)
    }

    /// A second name for the object under `tmp`; false when the object is not there (any more).
    fn make_link(&self, sha: &Sha256, size: u64, temporary: &str) -> io::Result<bool> {
        match disk::link(&self.objects, &object_path(sha), &self.tmp, temporary) {
            Ok(LinkOutcome::Linked) => Ok(true),
            Ok(LinkOutcome::Taken) => Err(io::ErrorKind::AlreadyExists.into()),
            Ok(LinkOutcome::Impossible) => {
                let Some(source) = disk::open_read(&self.objects, &object_path(sha))? else {
                    return Ok(false);
                };
                let target = disk::create_new(&self.tmp, temporary)?;
                disk::copy(&source, &target, size)?;
                disk::set_attribute(&target, ATTRIBUTE, b"copy")?;
                disk::make_read_only(&target)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a name of ours away, and the folders it leaves empty.
    fn hide(&self, path: &FilePath) -> io::Result<()> {
        let mut above = vec![(self.top.try_clone()?, "")];
        for component in folders(path) {
            let Some((folder, _)) = above.last() else {
                return Ok(());
            };
            let Some(next) = disk::open_folder(folder, component)? else {
                return Ok(());
            };
            above.push((next, component));
        }
        let Some((mut folder, mut name)) = above.pop() else {
            return Ok(());
        };
        if !is_ours(&folder, path.name())? {
            return Ok(());
        }
        disk::unlink(&folder, path.name())?;
        while let Some((upper, upper_name)) = above.pop() {
            if !disk::remove_folder(&upper, name)? {
                break;
            }
            (folder, name) = (upper, upper_name);
        }
        drop(folder);
        Ok(())
    }
}

fn folders(path: &FilePath) -> impl Iterator<Item = &str> {
    let folder = path.parents().next().unwrap_or_default();
    folder.split('/').filter(|component| !component.is_empty())
}

/// Whether a name stands for a regular file that the store made.
fn is_ours(folder: impl AsFd, name: &str) -> io::Result<bool> {
    match disk::open_read(folder, name) {
        Ok(Some(file)) => Ok(disk::facts(&file)?.kind == Kind::File
            && disk::attribute::<8_192>(&file, ATTRIBUTE)?.is_some()),
        Ok(None) => Ok(false),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives names of ours to `look`, and removes folders that are empty after it.
fn sweep(
    folder: &OwnedFd,
    prefix: &str,
    look: &mut impl FnMut(&FilePath) -> io::Result<()>,
) -> io::Result<()> {
    for name in disk::names(folder)? {
        let path = format!("{prefix}{name}");
        // Neither our own `.momo` nor anything that the catalog could not name.
        let Ok(named) = FilePath::new(&path) else {
            continue;
        };
        let inner = match disk::open_folder(folder, &name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            opened => opened?,
        };
        if let Some(inner) = inner {
            let was_empty = disk::names(&inner)?.is_empty();
            sweep(&inner, &format!("{path}/"), look)?;
            if !was_empty && disk::names(&inner)?.is_empty() {
                disk::remove_folder(folder, &name)?;
            }
        } else if is_ours(folder, &name)? {
            look(&named)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    struct Place {
        dir: tempfile::TempDir,
        tree: Tree,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let momo = dir.path().join(".momo");
            fs::create_dir_all(momo.join("objects")).unwrap();
            fs::create_dir_all(momo.join("tmp")).unwrap();
            let root = Root {
                path: dir.path().to_owned(),
                top: disk::open_dir(dir.path()).unwrap(),
                objects: disk::open_dir(&momo.join("objects")).unwrap(),
                tmp: disk::open_dir(&momo.join("tmp")).unwrap(),
            };
            let tree = Tree {
                roots: vec![root],
                next: AtomicU64::new(0),
                mentioned: Mutex::default(),
            };
            Self { dir, tree }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn object(&self, bytes: &[u8]) -> Sha256 {
            let sha = sha256(bytes);
            let path = self.at(".momo/objects").join(object_path(&sha));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            disk::set_attribute(fs::File::open(&path).unwrap(), ATTRIBUTE, b"object").unwrap();
            sha
        }

        fn read(&self, path: &str) -> Option<Vec<u8>> {
            fs::read(self.at(path)).ok()
        }

        fn leftovers(&self) -> usize {
            fs::read_dir(self.at(".momo/tmp")).unwrap().count()
        }
    }

    fn name(text: &str) -> FilePath {
        FilePath::new(text).unwrap()
    }

    fn stranger(path: &Path) {
        fs::write(path, b"mine").unwrap();
    }

    #[test]
    fn a_name_shows_its_object_then_the_next_then_nothing() {
        let place = Place::new();
        let (first, second) = (place.object(b"first"), place.object(b"second"));
        let path = name("a/b/c.txt");
        for _ in 0..2 {
            assert_eq!(place.tree.link(&path, &first, 5).unwrap(), Linked::Shown);
            assert_eq!(place.read("a/b/c.txt").unwrap(), b"first");
        }
        let links = fs::metadata(place.at("a/b/c.txt")).unwrap().nlink();
        assert_eq!(links, 2);
        assert_eq!(place.tree.link(&path, &second, 6).unwrap(), Linked::Shown);
        assert_eq!(place.read("a/b/c.txt").unwrap(), b"second");
        place.tree.unlink(&path).unwrap();
        place.tree.unlink(&path).unwrap();
        assert!(
            !place.at("a").exists(),
            "empty folders go with the last name"
        );
        assert_eq!(place.leftovers(), 0);
    }

    #[test]
    fn an_object_that_is_not_here_is_not_shown_and_an_empty_file_is() {
        let place = Place::new();
        let gone = sha256(b"elsewhere");
        assert_eq!(
            place.tree.link(&name("x"), &gone, 9).unwrap(),
            Linked::Absent
        );
        let empty = crate::base::digest::EMPTY_SHA256;
        assert_eq!(
            place.tree.link(&name("e"), &empty, 0).unwrap(),
            Linked::Shown
        );
        assert_eq!(
            place.tree.link(&name("e"), &empty, 0).unwrap(),
            Linked::Shown
        );
        assert_eq!(place.read("e").unwrap(), b"");
        let real = place.object(b"now there is something");
        assert_eq!(
            place.tree.link(&name("e"), &real, 22).unwrap(),
            Linked::Shown
        );
        assert_eq!(
            place.tree.link(&name("e"), &empty, 0).unwrap(),
            Linked::Shown
        );
        assert_eq!(place.read("e").unwrap(), b"");
    }

    #[test]
    fn strangers_files_are_left_alone() {
        let place = Place::new();
        let sha = place.object(b"ours");
        stranger(&place.at("taken"));
        assert_eq!(
            place.tree.link(&name("taken"), &sha, 4).unwrap(),
            Linked::Blocked
        );
        assert_eq!(
            place.tree.link(&name("taken/below"), &sha, 4).unwrap(),
            Linked::Blocked
        );
        place.tree.unlink(&name("taken")).unwrap();
        assert_eq!(place.read("taken").unwrap(), b"mine");
        place.tree.each(|path| place.tree.unlink(path)).unwrap();
        assert_eq!(place.read("taken").unwrap(), b"mine");
    }

    #[test]
    fn a_symbolic_link_never_leads_out_of_the_directory() {
        let place = Place::new();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), place.at("door")).unwrap();
        let sha = place.object(b"ours");
        assert_eq!(
            place.tree.link(&name("door/x"), &sha, 4).unwrap(),
            Linked::Blocked
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_name_of_ours_is_looked_at_and_folders_go_with_their_last() {
        let place = Place::new();
        let sha = place.object(b"ours");
        for path in ["old/deep/name", "kept"] {
            place.tree.link(&name(path), &sha, 4).unwrap();
        }
        stranger(&place.at("theirs"));
        let mut seen = Vec::new();
        place
            .tree
            .each(|path| {
                seen.push(path.as_str().to_owned());
                if path.as_str() == "kept" {
                    return Ok(());
                }
                place.tree.unlink(path)
            })
            .unwrap();
        seen.sort();
        assert_eq!(seen, ["kept", "old/deep/name"]);
        assert!(!place.at("old").exists());
        assert_eq!(place.read("kept").unwrap(), b"ours");
        assert_eq!(place.leftovers(), 0);
    }

    #[test]
    fn a_name_that_became_a_folder_or_back_is_followed() {
        let place = Place::new();
        let sha = place.object(b"ours");
        place.tree.link(&name("n"), &sha, 4).unwrap();
        assert_eq!(
            place.tree.link(&name("n/m"), &sha, 4).unwrap(),
            Linked::Shown
        );
        place.tree.unlink(&name("n/m")).unwrap();
        assert_eq!(place.tree.link(&name("n"), &sha, 4).unwrap(), Linked::Shown);
    }
}

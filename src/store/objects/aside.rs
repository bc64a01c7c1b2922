//! Damaged objects that were taken out of the way: no reader finds them, and nothing is thrown away before there is something better.

use std::io;
use std::path::PathBuf;

use super::super::disk;
use super::super::layout::PRIVATE;
use super::directory::{object_path, sidecar_path};
use super::model::StoreError;
use super::reader::read_through;
use super::shared::Objects;
use crate::base::digest::Sha256;
use crate::base::id::DirId;

/// A damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// What it should be.
    pub sha: Sha256,
    /// In which directory.
    pub dir: DirId,
    /// Length of its file, in bytes.
    pub size: u64,
    /// Where it lies.
    pub path: PathBuf,
}

impl Objects {
    /// Takes the file `identity` out of `objects/` if it still has the object's name there and `guard` says so under the
    /// object's lock; where it lies then, or `None` when nothing was moved. `guard` must not call the store.
    pub fn set_aside(
        &self,
        sha: &Sha256,
        id: DirId,
        identity: (u64, u64),
        guard: impl FnOnce() -> bool,
    ) -> Result<Option<PathBuf>, StoreError> {
        let Some(dir) = self.shared.dirs.iter().find(|dir| dir.id == id) else {
            return Ok(None);
        };
        let _lock = self.shared.lock(sha);
        let name = object_path(sha);
        let moved = || -> io::Result<bool> {
            let named = disk::facts_at(&dir.objects, &name)?;
            if named.is_none_or(|named| named.identity != identity) || !guard() {
                return Ok(false);
            }
            disk::unlink(&dir.objects, &sidecar_path(sha))?;
            disk::rename(&dir.objects, &name, &dir.aside, &sha.to_string())?;
            Ok(true)
        };
        let moved = moved().map_err(|error| dir.blame(error))?;
        Ok(moved.then(|| dir.path.join(PRIVATE).join("aside").join(sha.to_string())))
    }

    /// Everything that was set aside. A directory that cannot be read has none.
    pub fn aside(&self) -> Vec<Aside> {
        let mut found = Vec::new();
        for dir in &self.shared.dirs {
            for name in disk::names(&dir.aside).unwrap_or_default() {
                let Ok(sha) = name.parse::<Sha256>() else {
                    continue;
                };
                if let Ok(Some(facts)) = disk::facts_at(&dir.aside, &name) {
                    found.push(Aside {
                        sha,
                        dir: dir.id,
                        size: facts.size,
                        path: dir.path.join(PRIVATE).join("aside").join(name),
                    });
                }
            }
        }
        found
    }

    /// Removes what was set aside; true when it was there.
    pub fn remove_aside(&self, aside: &Aside) -> Result<bool, StoreError> {
        let Some(dir) = self.shared.dirs.iter().find(|dir| dir.id == aside.dir) else {
            return Ok(false);
        };
        let removed = disk::unlink(&dir.aside, &aside.sha.to_string());
        removed.map_err(|error| dir.blame(error))
    }

    /// Reads what was set aside once more: if it is whole after all (a controller that lied, a file that was mended by
    /// hand) and nothing has taken its name, it is an object again, counted by nobody yet. True when it was put back.
    pub fn put_back(&self, aside: &Aside) -> Result<bool, StoreError> {
        let Some(dir) = self.shared.dirs.iter().find(|dir| dir.id == aside.dir) else {
            return Ok(false);
        };
        let name = aside.sha.to_string();
        let back = || -> io::Result<bool> {
            let Some(file) = disk::open_read(&dir.aside, &name)? else {
                return Ok(false);
            };
            disk::forget_pages(&file, 0, 0);
            if read_through(&file, |_| true)? != Some(aside.sha) {
                return Ok(false);
            }
            disk::make_read_only(&file)?;
            disk::sync_all(&file)?;
            {
                let _lock = self.shared.lock(&aside.sha);
                if disk::facts_at(&dir.objects, &object_path(&aside.sha))?.is_some() {
                    return Ok(false);
                }
                disk::rename(&dir.aside, &name, &dir.objects, &object_path(&aside.sha))?;
            }
            dir.sync_folder(&aside.sha)?;
            Ok(true)
        };
        back().map_err(|error| dir.blame(error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::testing::*;
    use super::*;

    fn identity(objects: &Objects, sha: &Sha256, dir: DirId) -> (u64, u64) {
        match objects.examine(sha, dir, 600, &mut |_| true).unwrap() {
            Verdict::Bytes { identity } => identity,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_set_aside_is_no_object_any_more_and_is_still_there() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let (dir, bytes) = (dirs.dirs[0].id, some_bytes(600, 1));
        let sha = keep(&objects, &bytes);
        corrupt(&file_of(root.path(), &sha), 3);
        let bad = identity(&objects, &sha, dir);
        let held = objects.set_aside(&sha, dir, bad, || false).unwrap();
        assert!(held.is_none() && objects.aside().is_empty());
        let path = objects.set_aside(&sha, dir, bad, || true).unwrap();
        let path = path.expect("it was moved");
        assert_eq!(std::fs::read(&path).unwrap().len(), 600);
        assert!(objects.reader(&sha).unwrap().is_none());
        let aside = objects.aside();
        assert_eq!((aside.len(), aside[0].sha, aside[0].size), (1, sha, 600));
        assert_eq!(aside[0].path, path);
        assert!(!objects.put_back(&aside[0]).unwrap(), "it is still bad");
        assert!(objects.remove_aside(&aside[0]).unwrap());
        assert!(!objects.remove_aside(&aside[0]).unwrap());
        assert!(objects.aside().is_empty());
    }

    #[test]
    fn a_good_file_that_took_the_name_meanwhile_is_not_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let (dir, bytes) = (dirs.dirs[0].id, some_bytes(600, 2));
        let sha = keep(&objects, &bytes);
        corrupt(&file_of(root.path(), &sha), 3);
        let bad = identity(&objects, &sha, dir);
        // Kept open, so that the new file cannot be given the number of the old one.
        let _old = std::fs::File::open(file_of(root.path(), &sha)).unwrap();
        keep(&objects, &bytes);
        assert!(
            objects
                .set_aside(&sha, dir, bad, || true)
                .unwrap()
                .is_none()
        );
        assert_eq!(content(&objects, &sha).unwrap(), bytes);
    }

    #[test]
    fn what_turns_out_to_be_whole_is_an_object_again_unless_there_is_one() {
        let root = tempfile::tempdir().unwrap();
        let (dirs, objects) = open(&[root.path().to_owned()]);
        let (dir, bytes) = (dirs.dirs[0].id, some_bytes(600, 3));
        let sha = keep(&objects, &bytes);
        corrupt(&file_of(root.path(), &sha), 3);
        let bad = identity(&objects, &sha, dir);
        let path = objects.set_aside(&sha, dir, bad, || true).unwrap().unwrap();
        corrupt(&path, 3);
        let aside = objects.aside().remove(0);
        keep(&objects, &bytes);
        assert!(!objects.put_back(&aside).unwrap(), "there is a good one");
        assert!(objects.remove(&sha, None, || true).unwrap());
        assert!(objects.put_back(&aside).unwrap());
        assert!(objects.aside().is_empty());
        assert_eq!(content(&objects, &sha).unwrap(), bytes);
        assert!(objects.stat(&sha).unwrap().is_some());
    }
}

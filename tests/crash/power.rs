//! A power cut on a real directory: the calls that changed it are written down, and every disk that they could have left is made of them.
//!
//! What was synced is there. Of the rest a crash keeps what the test chooses: of a file's bytes some sectors, of its length and attributes
//! some, of the changes of names a prefix (file systems keep them in order). A folder's sync covers what came before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use momo::base::random::Random;
use momo::store::steps::{FileId, Step};
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

const SECTOR: usize = 512;
const ATTRIBUTE: &str = "user.momo";

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Leaves {
    Nothing,
    Everything,
    /// Everything but the last write, and of that the first so many sectors.
    FirstSectors(usize),
    /// Everything but the last write, and of that all but the first so many sectors.
    LastSectors(usize),
    /// Some of each, by chance.
    Some(u64),
}

/// A directory tree and what of it is durable.
#[derive(Clone, Default)]
pub struct Image {
    root: PathBuf,
    names: BTreeMap<PathBuf, Named>,
    files: Vec<File>,
    open: BTreeMap<FileId, usize>,
    /// Changes of names that are not durable yet, oldest first.
    changes: Vec<Change>,
    /// The names before those changes.
    durable: BTreeMap<PathBuf, Named>,
    /// The file that was written to last.
    last: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Folder,
    File(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Set(PathBuf, Named),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    fn touches(&self, folder: &Path) -> bool {
        let inside = |path: &Path| path.parent() == Some(folder);
        match self {
            Self::Set(path, _) | Self::Remove(path) => inside(path),
            Self::Rename(one, other) | Self::Exchange(one, other) => inside(one) || inside(other),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Named>) {
        match self {
            Self::Set(path, what) => {
                names.insert(path.clone(), *what);
            }
            Self::Rename(from, to) => {
                // Between two names of one file nothing happens.
                if names.get(from) != names.get(to)
                    && let Some(what) = names.remove(from)
                {
                    names.insert(to.clone(), what);
                }
            }
            Self::Exchange(one, other) => {
                if let (Some(a), Some(b)) = (names.get(one).copied(), names.get(other).copied()) {
                    names.insert(one.clone(), b);
                    names.insert(other.clone(), a);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(u64, Arc<[u8]>),
    Length(u64),
    Attribute(Arc<[u8]>),
}

/// Bytes up to the last one that is not zero, a length, and the one attribute that matters.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    length: u64,
    attribute: Option<Arc<[u8]>>,
}

impl Content {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Bytes(offset, bytes) => self.put(*offset, bytes),
            Write::Length(length) => {
                let kept = usize::try_from(*length).unwrap_or(usize::MAX);
                self.bytes.truncate(kept);
                self.length = *length;
            }
            Write::Attribute(value) => self.attribute = Some(Arc::clone(value)),
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let from = usize::try_from(offset).expect("small files");
        let to = from + bytes.len();
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        self.bytes[from..to].copy_from_slice(bytes);
        self.length = self.length.max(to as u64);
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Content,
    pending: Vec<Write>,
}

impl Image {
    /// What lies under `root` now, all of it durable.
    pub fn of(root: &Path) -> Self {
        let mut image = Self {
            root: root.to_owned(),
            ..Self::default()
        };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    image.names.insert(path.clone(), Named::Folder);
                    folders.push(path);
                    continue;
                }
                let file = fs::File::open(&path).expect("a file");
                let facts = file.metadata().expect("its facts");
                let id = (facts.dev(), facts.ino());
                let number = if let Some(number) = image.open.get(&id) {
                    *number
                } else {
                    let mut bytes = fs::read(&path).expect("its bytes");
                    let end = bytes.iter().rposition(|byte| *byte != 0);
                    bytes.truncate(end.map_or(0, |end| end + 1));
                    let mut value = [0; 8_192];
                    let length = fgetxattr(&file, ATTRIBUTE, &mut value[..]).ok();
                    let content = Content {
                        bytes,
                        length: facts.len(),
                        attribute: length.map(|length| Arc::from(&value[..length])),
                    };
                    image.add(id, content)
                };
                image.names.insert(path, Named::File(number));
            }
        }
        image.durable = image.names.clone();
        image
    }

    /// The files there are.
    pub fn known(&self) -> Vec<FileId> {
        self.open.keys().copied().collect()
    }

    fn add(&mut self, id: FileId, durable: Content) -> usize {
        self.files.push(File {
            durable,
            pending: Vec::new(),
        });
        let number = self.files.len() - 1;
        self.open.insert(id, number);
        number
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn write(&mut self, id: FileId, write: Write) {
        let number = self.open[&id];
        if matches!(write, Write::Bytes(..)) {
            self.last = Some(number);
        }
        self.files[number].pending.push(write);
    }

    /// Lets a step happen.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Made { path, file } => match self.names.get(path) {
                // Opened anew and emptied; whether it had been removed in between does not matter.
                Some(Named::File(number)) if self.open.get(file) == Some(number) => {
                    self.write(*file, Write::Length(0));
                }
                _ => {
                    let number = self.add(*file, Content::default());
                    self.change(Change::Set(path.clone(), Named::File(number)));
                }
            },
            Step::Wrote {
                file,
                offset,
                bytes,
            } => {
                self.write(*file, Write::Bytes(*offset, Arc::from(bytes.as_slice())));
            }
            Step::Sized { file, length } => self.write(*file, Write::Length(*length)),
            Step::Attributed { file, name, value } if name == ATTRIBUTE => {
                self.write(*file, Write::Attribute(Arc::from(value.as_slice())));
            }
            Step::Attributed { .. } | Step::Mark(_) => {}
            Step::Linked { from, to } => {
                let what = self.names[from];
                self.change(Change::Set(to.clone(), what));
            }
            Step::Renamed { from, to } => {
                assert!(self.names.contains_key(from), "{} is known", from.display());
                self.change(Change::Rename(from.clone(), to.clone()));
            }
            Step::Exchanged { one, other } => {
                self.change(Change::Exchange(one.clone(), other.clone()));
            }
            Step::Removed { path } | Step::FolderRemoved { path } => {
                self.change(Change::Remove(path.clone()));
            }
            Step::FolderMade { path } => self.change(Change::Set(path.clone(), Named::Folder)),
            Step::SyncedFile { file, all } => {
                let number = self.open[file];
                let file = &mut self.files[number];
                let (done, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut file.pending)
                    .into_iter()
                    .partition(|write| *all || !matches!(write, Write::Attribute(_)));
                for write in &done {
                    file.durable.apply(write);
                }
                file.pending = kept;
            }
            Step::SyncedFolder { path } => {
                let last = self.changes.iter().rposition(|change| change.touches(path));
                for change in self.changes.drain(..last.map_or(0, |last| last + 1)) {
                    change.apply(&mut self.durable);
                }
            }
        }
    }

    /// The choices worth trying when the power goes now.
    pub fn choices(&self, seed: u64) -> Vec<Leaves> {
        let mut choices = vec![Leaves::Nothing, Leaves::Everything, Leaves::Some(seed)];
        let last = self
            .last
            .and_then(|number| self.files[number].pending.last());
        if let Some(Write::Bytes(offset, bytes)) = last {
            let offset = usize::try_from(*offset).expect("small files");
            let sectors = (offset + bytes.len()).div_ceil(SECTOR) - offset / SECTOR;
            // Every tear of a short write, some of a long one.
            for torn in (0..=sectors).step_by((sectors / 6).max(1)) {
                choices.extend([Leaves::FirstSectors(torn), Leaves::LastSectors(torn)]);
            }
        }
        choices
    }

    /// Makes the disk that the next process finds in `target`, which does not exist.
    pub fn crash(&self, leaves: Leaves, target: &Path) -> io::Result<()> {
        let mut random = Random::new(match leaves {
            Leaves::Some(seed) => seed,
            _ => 0,
        });
        let kept = match leaves {
            Leaves::Nothing => 0,
            Leaves::Some(_) => {
                let kept = random.below(self.changes.len() as u64 + 1);
                usize::try_from(kept).expect("few changes")
            }
            _ => self.changes.len(),
        };
        let mut names = self.durable.clone();
        for change in &self.changes[..kept] {
            change.apply(&mut names);
        }
        let here = |path: &Path| target.join(path.strip_prefix(&self.root).expect("inside"));
        fs::create_dir_all(target)?;
        for (path, named) in &names {
            if *named == Named::Folder {
                fs::create_dir_all(here(path))?;
            }
        }
        let mut first: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (path, named) in &names {
            let Named::File(number) = named else {
                continue;
            };
            let path = here(path);
            if let Some(other) = first.get(number) {
                fs::hard_link(other, &path)?;
                continue;
            }
            self.content(*number, leaves, &mut random).make(&path)?;
            first.insert(*number, path);
        }
        Ok(())
    }

    fn content(&self, number: usize, leaves: Leaves, random: &mut Random) -> Content {
        let file = &self.files[number];
        let mut content = file.durable.clone();
        for (nth, write) in file.pending.iter().enumerate() {
            let last = self.last == Some(number) && nth + 1 == file.pending.len();
            let Write::Bytes(offset, bytes) = write else {
                let keep = match leaves {
                    Leaves::Nothing => false,
                    Leaves::Some(_) => random.one_in(2),
                    _ => true,
                };
                if keep {
                    content.apply(write);
                }
                continue;
            };
            let start = usize::try_from(*offset).expect("small files");
            let first_sector = start / SECTOR;
            for sector in first_sector..(start + bytes.len()).div_ceil(SECTOR) {
                let keep = match leaves {
                    Leaves::Nothing => false,
                    Leaves::Everything => true,
                    Leaves::FirstSectors(n) => !last || sector - first_sector < n,
                    Leaves::LastSectors(n) => !last || sector - first_sector >= n,
                    Leaves::Some(_) => random.one_in(2),
                };
                if keep {
                    let from = (sector * SECTOR).max(start);
                    let to = ((sector + 1) * SECTOR).min(start + bytes.len());
                    content.put(from as u64, &bytes[from - start..to - start]);
                }
            }
        }
        content
    }

    /// Names there are now, for a test that looks at what became of them.
    pub fn names(&self) -> BTreeSet<PathBuf> {
        self.names.keys().cloned().collect()
    }
}

impl Content {
    fn make(&self, path: &Path) -> io::Result<()> {
        let file = fs::File::create_new(path)?;
        file.write_all_at(&self.bytes, 0)?;
        file.set_len(self.length.max(self.bytes.len() as u64))?;
        if let Some(value) = &self.attribute {
            fsetxattr(&file, ATTRIBUTE, value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

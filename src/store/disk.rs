//! The one place with file system calls: the disk as the Raft log sees it, and what objects and names need beyond std.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    Advice, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags,
};
use rustix::io::Errno;

use super::steps::{Step, id_of, path_in, path_of, step};

/// A disk as the Raft log uses it: few calls, so that a test can lose and tear what was not synced.
pub trait Disk: Send {
    /// An open file of this disk.
    type File: DiskFile;

    /// Names in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A new file (replacing one of that name) of `size` zero bytes whose content is synced; the name is not.
    fn create(&self, path: &Path, size: u64) -> io::Result<Self::File>;
    /// An existing file, for writing in place.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames atomically; durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after `sync_dir`.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file of a [`Disk`], written in place.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    /// Zeros are written rather than reserved: a first write into a reserved extent changes metadata, and the sync
    /// of an append then waits for the journal more often (measured: same median, half again the 90th percentile).
    fn create(&self, path: &Path, size: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        let file = step(|| options.open(path), |file| made(path, file))?;
        let write = || {
            let zeros = vec![0; 256 * 1024];
            let mut offset = 0;
            while offset < size {
                let rest = usize::try_from(size - offset);
                let length = rest.map_or(zeros.len(), |rest| rest.min(zeros.len()));
                file.write_all_at(&zeros[..length], offset)?;
                offset += length as u64;
            }
            Ok(())
        };
        step(write, |()| {
            let file = id_of(&file)?;
            Some(Step::Sized { file, length: size })
        })?;
        sync_all(&file)?;
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        rename_path(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = || Step::Removed {
            path: path.to_owned(),
        };
        step(|| std::fs::remove_file(path), |()| Some(removed()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

impl DiskFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_at(self, offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        sync_data(self)
    }
}

fn made(path: &Path, file: &File) -> Option<Step> {
    Some(Step::Made {
        path: path.to_owned(),
        file: id_of(file)?,
    })
}

fn rename_path(from: &Path, to: &Path) -> io::Result<()> {
    let renamed = || Step::Renamed {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    step(|| std::fs::rename(from, to), |()| Some(renamed()))
}

/// Writes all of `bytes` at `offset`.
pub fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let wrote = || {
        Some(Step::Wrote {
            file: id_of(file)?,
            offset,
            bytes: bytes.to_vec(),
        })
    };
    step(|| file.write_all_at(bytes, offset), |()| wrote())
}

/// Gives the file another length.
pub fn set_len(file: &File, length: u64) -> io::Result<()> {
    let sized = || {
        let file = id_of(file)?;
        Some(Step::Sized { file, length })
    };
    step(|| file.set_len(length), |()| sized())
}

/// Makes a file's bytes, length and attributes durable (`fsync`).
pub fn sync_all(file: &File) -> io::Result<()> {
    let synced = || {
        let file = id_of(file)?;
        Some(Step::SyncedFile { file, all: true })
    };
    step(|| file.sync_all(), |()| synced())
}

/// Makes a file's bytes and length durable (`fdatasync`).
pub fn sync_data(file: &File) -> io::Result<()> {
    let synced = || {
        let file = id_of(file)?;
        Some(Step::SyncedFile { file, all: false })
    };
    step(|| file.sync_data(), |()| synced())
}

/// Opens a file for reading and writing, and makes it when it is not there.
pub fn open_or_make(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let options = options.create(true);
            step(|| options.open(path), |file| made(path, file))
        }
        opened => opened,
    }
}

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let synced = || Step::SyncedFolder {
        path: dir.to_owned(),
    };
    step(|| File::open(dir)?.sync_all(), |()| Some(synced()))
}

/// Room that a file made by [`replace_file`] keeps, in bytes: one block of most file systems.
const REPLACED_BYTES: u64 = 4_096;

/// Replaces the file at `path` by one that holds `bytes`: durable; after a crash it is the old or the new one, whole.
///
/// The next content is written into a twin, `<path>.new`, which is there from the second time on: the two change names.
/// So a few KiB can be replaced on a full disk.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let twin = path.with_extension("new");
    let file = open_or_make(&twin)?;
    write_at(&file, 0, bytes)?;
    set_len(&file, bytes.len() as u64)?;
    // An empty file gave its block back.
    let _ = reserve(&file, 0, REPLACED_BYTES);
    sync_all(&file)?;
    if !exchange(&twin, path)? {
        // The first time, or a file system that cannot: the twin is made anew, if there is room.
        rename_path(&twin, path)?;
        let _ = prepare_file(path);
    }
    sync_dir(dir)
}

/// Has two files change names; false when one is not there, or where the file system cannot.
fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    let exchanged = || Step::Exchanged {
        one: one.to_owned(),
        other: other.to_owned(),
    };
    let call = || match rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    };
    step(call, |done| done.then(exchanged))
}

/// Makes the twin that [`replace_file`] writes to, with room of its own.
pub fn prepare_file(path: &Path) -> io::Result<()> {
    let file = open_or_make(&path.with_extension("new"))?;
    reserve(&file, 0, REPLACED_BYTES)
}

/// Locks `file` for this process; false when another holder has it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its size, in bytes.
    pub total: u64,
    /// What an ordinary process may still use, in bytes.
    pub free: u64,
}

/// The room of the file system that `at` is on.
pub fn room(at: impl AsFd) -> io::Result<Room> {
    let figures = rustix::fs::fstatvfs(at)?;
    Ok(Room {
        total: figures.f_blocks.saturating_mul(figures.f_frsize),
        free: figures.f_bavail.saturating_mul(figures.f_frsize),
    })
}

/// Reserves blocks for `offset..offset + length` without changing the file's length. A file system that cannot is left to find room as it writes.
pub fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Asks the kernel to write a range back now, without waiting.
///
/// `sync_file_range` would say just this, but is not to be had without unsafe code. `POSIX_FADV_DONTNEED` begins with
/// the same call inside Linux, and drops only pages that are clean by then: at most those a fast disk has just taken.
/// Measured with 256 MiB written 8 MiB at a time: the sync at the end takes 2 to 5 ms instead of 70 to 120, and all pages
/// were still in memory in five runs of six, nine in ten of them in the sixth. Reads after an upload come from there.
pub fn start_writeback(file: &File, offset: u64, length: u64) {
    // Advice: when refused, the sync at the end is longer and nothing else changes.
    let _ = rustix::fs::fadvise(
        file,
        offset,
        std::num::NonZeroU64::new(length),
        Advice::DontNeed,
    );
}

/// Lets go of what memory holds of a range (all of the file from `offset` when `length` is 0), so that the next read comes from the disk.
pub fn forget_pages(file: &File, offset: u64, length: u64) {
    // Advice: when refused, what is read may come from memory.
    let length = std::num::NonZeroU64::new(length);
    let _ = rustix::fs::fadvise(file, offset, length, Advice::DontNeed);
}

/// Sets an extended attribute of an open file.
pub fn set_attribute(file: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    let file = file.as_fd();
    let attributed = || {
        Some(Step::Attributed {
            file: id_of(file)?,
            name: name.to_owned(),
            value: value.to_vec(),
        })
    };
    let call = || {
        Ok(rustix::fs::fsetxattr(
            file,
            name,
            value,
            XattrFlags::empty(),
        )?)
    };
    step(call, |()| attributed())
}

/// Sets an extended attribute of the file `name` under `dir`, which may be read-only to its owner.
pub fn set_attribute_at(dir: impl AsFd, name: &str, key: &str, value: &[u8]) -> io::Result<()> {
    let Some(file) = open_read(dir, name)? else {
        return Err(io::ErrorKind::NotFound.into());
    };
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    set_attribute(&file, key, value)?;
    make_read_only(&file)
}

/// An extended attribute of an open file; `None` when it has none of that name or it does not fit into `N` bytes.
pub fn attribute<const N: usize>(file: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; N];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => Ok(value.get(..length).map(<[u8]>::to_vec)),
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the owner the permission to write: 0644.
pub fn make_writable(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(0o644))?)
}

/// Takes the write permissions away: 0444.
pub fn make_read_only(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(0o444))?)
}

/// What identifies a file: device and inode, besides its kind, length and number of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Device and inode.
    pub identity: (u64, u64),
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// How many names it has.
    pub links: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// Anything else: a symbolic link, a device, a socket.
    Other,
}

#[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // The widths differ between machines.
fn facts_of(stat: &rustix::fs::Stat) -> FileFacts {
    FileFacts {
        identity: (stat.st_dev as u64, stat.st_ino as u64),
        kind: match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => Kind::File,
            rustix::fs::FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        },
        size: u64::try_from(stat.st_size).unwrap_or(0),
        links: stat.st_nlink as u64,
    }
}

/// Facts of an open file.
pub fn facts(file: impl AsFd) -> io::Result<FileFacts> {
    Ok(facts_of(&rustix::fs::fstat(file)?))
}

/// Facts of `name` under `dir`, symbolic links not followed; `None` when there is no such name.
pub fn facts_at(dir: impl AsFd, name: &str) -> io::Result<Option<FileFacts>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(facts_of(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory for use with the calls below.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the folder `name` in `dir` (one component, no symbolic link); `None` when there is no such folder.
pub fn open_folder(dir: impl AsFd, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the folder `name` in `dir`; false when the name is taken.
pub fn make_folder(dir: impl AsFd, name: &str) -> io::Result<bool> {
    let dir = dir.as_fd();
    let call = || taken_is_false(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)));
    step(call, |made| {
        let path = made.then(|| path_in(dir, name))??;
        Some(Step::FolderMade { path })
    })
}

/// Opens `name` under `dir` for reading, symbolic links not followed; `None` when there is no such file.
pub fn open_read(dir: impl AsFd, name: &str) -> io::Result<Option<File>> {
    // Without NONBLOCK, opening a stranger's pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes `name` under `dir`, which must not exist, for writing and reading.
pub fn create_new(dir: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = dir.as_fd();
    let mode = Mode::from_raw_mode(0o600);
    let call = || Ok(rustix::fs::openat(dir, name, flags, mode)?.into());
    step(call, |file| made(&path_of(file)?, file))
}

/// What became of an attempt to give a file one more name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOutcome {
    /// The name is there.
    Linked,
    /// The name is taken.
    Taken,
    /// The file has as many names as the file system allows, or lies on another one.
    Impossible,
}

/// Gives the file `name` under `dir` the further name `to_name` under `to_dir`.
pub fn link(
    dir: impl AsFd,
    name: &str,
    to_dir: impl AsFd,
    to_name: &str,
) -> io::Result<LinkOutcome> {
    let (dir, to_dir) = (dir.as_fd(), to_dir.as_fd());
    let call = || match rustix::fs::linkat(dir, name, to_dir, to_name, AtFlags::empty()) {
        Ok(()) => Ok(LinkOutcome::Linked),
        Err(Errno::EXIST) => Ok(LinkOutcome::Taken),
        Err(Errno::MLINK | Errno::XDEV | Errno::PERM) => Ok(LinkOutcome::Impossible),
        Err(errno) => Err(errno.into()),
    };
    step(call, |outcome| {
        let (from, to) = (path_in(dir, name)?, path_in(to_dir, to_name)?);
        (*outcome == LinkOutcome::Linked).then_some(Step::Linked { from, to })
    })
}

/// Renames over whatever file has the new name. When both are names of one file, the old name stays.
pub fn rename(dir: impl AsFd, name: &str, to_dir: impl AsFd, to_name: &str) -> io::Result<()> {
    let (dir, to_dir) = (dir.as_fd(), to_dir.as_fd());
    let call = || Ok(rustix::fs::renameat(dir, name, to_dir, to_name)?);
    step(call, |()| {
        let (from, to) = (path_in(dir, name)?, path_in(to_dir, to_name)?);
        Some(Step::Renamed { from, to })
    })
}

/// Removes the file `name` under `dir`; false when there is none.
pub fn unlink(dir: impl AsFd, name: &str) -> io::Result<bool> {
    let dir = dir.as_fd();
    let call = || match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    };
    step(call, |gone| {
        let path = gone.then(|| path_in(dir, name))??;
        Some(Step::Removed { path })
    })
}

/// Removes the folder `name` under `dir` if it is empty; false when it is not there or not empty.
pub fn remove_folder(dir: impl AsFd, name: &str) -> io::Result<bool> {
    let dir = dir.as_fd();
    let call = || match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {
            Ok(false)
        }
        Err(errno) => Err(errno.into()),
    };
    step(call, |gone| {
        let path = gone.then(|| path_in(dir, name))??;
        Some(Step::FolderRemoved { path })
    })
}

/// Names in an open directory that are UTF-8, without `.` and `..`, in no order.
pub fn names(dir: impl AsFd) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        if let Ok(name) = std::str::from_utf8(entry?.file_name().to_bytes())
            && !matches!(name, "." | "..")
        {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Copies all of `source` to `target`, sharing blocks where the file system can.
pub fn copy(source: &File, target: &File, size: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let (mut from, mut to) = (0, 0);
    while from < size {
        let rest = usize::try_from(size - from)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        let copied =
            match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), rest)
            {
                Ok(copied) => copied,
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    let mut chunk = vec![0; rest.min(256 * 1024)];
                    let read = source.read_at(&mut chunk, from)?;
                    target.write_all_at(&chunk[..read], to)?;
                    from += read as u64;
                    to += read as u64;
                    read
                }
                Err(errno) => return Err(errno.into()),
            };
        if copied == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// True when an error says that the disk or its file system is to blame, and not a lack of room, memory or descriptors.
pub fn blames_the_disk(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::NOSPC
                | Errno::DQUOT
                | Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::INTR
                | Errno::FBIG
        )
    )
}

/// True when an error says that the file system takes no writes.
pub fn is_read_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

/// True when an error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

fn taken_is_false(result: Result<(), Errno>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

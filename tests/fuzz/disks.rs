//! Formats that are read through files: attributes and checksums of objects, marks of directories, the boot counter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use momo::base::digest::{Sha256, crc32c, sha256};
use momo::base::id::{Boot, NodeId, OperationId};
use momo::base::limit::BLOCK_BYTES;
use momo::base::random::Random;
use momo::store::layout::{DataDirs, OpenError};
use momo::store::objects::{Durability, Objects, StoreError};
use parking_lot::Mutex;
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use crate::formats::gist;
use crate::mutate::draw;

const NODE: NodeId = NodeId(3);
const ATTRIBUTE: &str = "user.momo";

/// A store with an object of one block and one of two.
struct Shelf {
    root: tempfile::TempDir,
    objects: Objects,
    _dirs: DataDirs,
    contents: [Vec<u8>; 2],
}

static SHELF: LazyLock<Mutex<Shelf>> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("a folder");
    let opened = DataDirs::open(&[root.path().to_owned()], None, NODE, 0).expect("directories");
    let objects = Objects::open(&opened.dirs, Durability::None).expect("a store");
    let contents = [vec![1; 700], vec![2; BLOCK_BYTES + 9]];
    for content in &contents {
        let upload = OperationId {
            node: NODE,
            boot: Boot(1),
            sequence: 1,
        };
        let mut incoming = objects.create(content.len() as u64, upload).expect("room");
        for block in content.chunks(BLOCK_BYTES) {
            incoming.write(block, crc32c(block)).expect("a block");
        }
        incoming.seal(&sha256(content), &Vec::new).expect("kept");
    }
    Mutex::new(Shelf {
        root,
        objects,
        _dirs: opened.dirs,
        contents,
    })
});

impl Shelf {
    fn path(&self, sha: &Sha256) -> PathBuf {
        let folder = format!(".momo/objects/{:02x}", sha.0[0]);
        self.root.path().join(folder).join(sha.to_string())
    }

    /// Reading gives the bytes or an error, and never anything else.
    fn read(&self, content: &[u8]) -> String {
        let sha = sha256(content);
        let mut reader = match self.objects.reader(&sha) {
            Ok(reader) => reader.expect("it is here"),
            Err(error) => return gist(&error.to_string()),
        };
        let (mut read, mut block) = (Vec::new(), Vec::new());
        for index in 0..reader.block_count() {
            match reader.read_block(index, &mut block) {
                Ok(crc) => assert_eq!(crc, crc32c(&block)),
                Err(StoreError::Damaged { .. }) => return "damaged".to_owned(),
                Err(error) => return gist(&error.to_string()),
            }
            read.extend_from_slice(&block);
        }
        assert!(read == content, "other bytes than were kept");
        "whole".to_owned()
    }
}

fn writable(path: &Path) -> fs::File {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("permissions");
    let mut options = fs::File::options();
    options.read(true).write(true).open(path).expect("a file")
}

pub fn attribute_sample(random: &mut Random) -> Vec<u8> {
    let shelf = SHELF.lock();
    let content = &shelf.contents[draw(&(0..2_usize), random)];
    shelf.read(content);
    let file = fs::File::open(shelf.path(&sha256(content))).expect("the object");
    let mut value = [0; 200];
    let length = fgetxattr(&file, ATTRIBUTE, &mut value[..]).expect("its attribute");
    value[..length].to_vec()
}

/// Whatever an attribute says, the bytes are those that were kept. It is told from damage by its own checksum.
pub fn attribute(bytes: &[u8]) -> String {
    let shelf = SHELF.lock();
    let mut words = Vec::new();
    for content in &shelf.contents {
        let path = shelf.path(&sha256(content));
        let file = writable(&path);
        // More than a file system keeps with a file is not there to be read.
        let value = &bytes[..bytes.len().min(1_000)];
        if fsetxattr(&file, ATTRIBUTE, value, XattrFlags::empty()).is_err() {
            return "no room".to_owned();
        }
        let _ = shelf
            .objects
            .stat(&sha256(content))
            .expect("a working disk");
        words.push(shelf.read(content));
        assert_eq!(
            words.last().map(String::as_str),
            Some("whole"),
            "an attribute is a cache"
        );
    }
    words.join(", ")
}

pub fn checksums_sample(random: &mut Random) -> Vec<u8> {
    let shelf = SHELF.lock();
    let content = &shelf.contents[1];
    let mut list: Vec<u8> = content
        .chunks(BLOCK_BYTES)
        .flat_map(|block| crc32c(block).to_le_bytes())
        .collect();
    if random.one_in(3) {
        list.reverse();
    }
    list
}

/// Wrong checksums beside an object are found out and made again.
pub fn checksums(bytes: &[u8]) -> String {
    let shelf = SHELF.lock();
    let content = &shelf.contents[1];
    let path = shelf.path(&sha256(content));
    fs::write(path.with_extension("crc"), bytes).expect("checksums");
    let word = shelf.read(content);
    assert_eq!(word, "whole", "checksums are a cache");
    let right: Vec<u8> = content
        .chunks(BLOCK_BYTES)
        .flat_map(|block| crc32c(block).to_le_bytes())
        .collect();
    let there = fs::read(path.with_extension("crc")).expect("checksums");
    assert_eq!(there, right, "they are made again");
    format!("{word}, {}", if bytes == right { "right" } else { "wrong" })
}

/// Directories of a node, made once.
static NODE_DIRS: LazyLock<Mutex<tempfile::TempDir>> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("a folder");
    let data = [root.path().join("data")];
    drop(DataDirs::open(&data, None, NODE, 0).expect("directories"));
    Mutex::new(root)
});

fn opened(path: &str, bytes: &[u8]) -> String {
    let root = NODE_DIRS.lock();
    let data = [root.path().join("data")];
    let file = data[0].join(path);
    let good = fs::read(&file).expect("what was there");
    fs::write(&file, bytes).expect("what is there now");
    let result = DataDirs::open(&data, None, NODE, 1);
    fs::write(&file, good).expect("what was there");
    match result {
        Ok(opened) => {
            assert!(opened.boot.0 >= 1);
            "opens".to_owned()
        }
        Err(OpenError::Io(path, error)) => panic!("{}: {error}", path.display()),
        Err(error) => {
            let text = error.to_string();
            gist(&text.replace(&*root.path().to_string_lossy(), ""))
        }
    }
}

pub fn mark_sample(_: &mut Random) -> Vec<u8> {
    let root = NODE_DIRS.lock();
    fs::read(root.path().join("data/.momo/format")).expect("a mark")
}

/// A mark is one of this node or is refused.
pub fn mark(bytes: &[u8]) -> String {
    opened(".momo/format", bytes)
}

pub fn boot_sample(random: &mut Random) -> Vec<u8> {
    format!("{}\n", random.below(u64::MAX)).into_bytes()
}

/// A boot counter is a number or is refused: a lower one would repeat what the cluster has seen.
pub fn boot(bytes: &[u8]) -> String {
    opened(".momo/state/boot", bytes)
}

//! Objects, tables and facts on a disk that loses its power at every step, torn at every sector of the last write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use momo::base::digest::{Sha256, crc32c, sha256};
use momo::base::id::{Boot, NodeId, OperationId};
use momo::base::limit::BLOCK_BYTES;
use momo::base::random::Random;
use momo::base::table::{Batch, Table, Tables};
use momo::store::layout::DataDirs;
use momo::store::objects::{Durability, Objects, StoreError};
use momo::store::steps::{Step, mark, watch};
use momo::store::tables::CatalogTables;

use crate::power::{Image, Leaves};

const NODE: NodeId = NodeId(0);

/// Lets the power go after every step of `steps`; `look` is shown each disk that could be left, with the steps before.
pub fn at_every_step(
    root: &tempfile::TempDir,
    start: &Image,
    steps: &[Step],
    every: usize,
    mut look: impl FnMut(&Path, &[Step], &str),
) {
    let mut image = start.clone();
    for (nth, step) in steps.iter().enumerate() {
        image.step(step);
        if nth % every != 0 && nth + 1 != steps.len() {
            continue;
        }
        for (choice, leaves) in image.choices(nth as u64).into_iter().enumerate() {
            let target = root.path().join(format!("{nth}-{choice}"));
            image.crash(leaves, &target).expect("a disk");
            let place = format!("after step {nth}, {}, {leaves:?}", shown(step));
            look(&target, &steps[..=nth], &place);
            std::fs::remove_dir_all(&target).expect("an end");
        }
    }
}

/// A folder in memory where there is one that keeps extended attributes: thousands of disks are made and opened in it.
pub fn quick_folder() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm").ok().filter(|folder| {
        let path = folder.path().join("try");
        let file = std::fs::File::create(path).ok();
        file.is_some_and(|file| {
            rustix::fs::fsetxattr(&file, "user.momo", b"1", rustix::fs::XattrFlags::empty()).is_ok()
        })
    });
    in_memory.unwrap_or_else(|| tempfile::tempdir().expect("a folder"))
}

fn shown(step: &Step) -> String {
    let mut text = format!("{step:?}");
    let end = text
        .char_indices()
        .nth(160)
        .map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    text
}

fn open(data: &Path) -> (DataDirs, Objects) {
    let dirs = DataDirs::open(&[data.to_owned()], None, NODE, 0)
        .expect("directories")
        .dirs;
    let objects = Objects::open(&dirs, Durability::Full).expect("a store");
    (dirs, objects)
}

fn upload(sequence: u64) -> OperationId {
    OperationId {
        node: NODE,
        boot: Boot(1),
        sequence,
    }
}

fn seal(objects: &Objects, bytes: &[u8], sequence: u64) -> Sha256 {
    let mut incoming = objects
        .create(bytes.len() as u64, upload(sequence))
        .expect("room");
    for block in bytes.chunks(BLOCK_BYTES) {
        incoming.write(block, crc32c(block)).expect("a block");
    }
    let sha = sha256(bytes);
    incoming.seal(&sha, &Vec::new).expect("sealed");
    sha
}

/// The whole object as it is read; `None` where it is not, or is known to be damaged.
fn read(objects: &Objects, sha: &Sha256) -> Option<Vec<u8>> {
    let mut reader = match objects.reader(sha) {
        Ok(reader) => reader?,
        Err(StoreError::Damaged { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let (mut bytes, mut block) = (Vec::new(), Vec::new());
    for index in 0..reader.block_count() {
        match reader.read_block(index, &mut block) {
            Ok(_) => bytes.extend_from_slice(&block),
            Err(StoreError::Damaged { .. }) => return None,
            Err(error) => panic!("{error}"),
        }
    }
    Some(bytes)
}

fn some_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(length).collect()
}

fn marks(steps: &[Step]) -> impl Iterator<Item = &str> {
    steps.iter().filter_map(|step| match step {
        Step::Mark(word) => Some(word.as_str()),
        _ => None,
    })
}

#[test]
fn an_object_that_was_sealed_is_there_whole_after_a_power_cut_at_any_step_and_no_other_passes_for_one()
 {
    let root = tempfile::tempdir().expect("a folder");
    let data = root.path().join("data");
    drop(open(&data));
    let image = Image::of(&data);
    let bodies: Vec<Vec<u8>> = [300, 5_000, BLOCK_BYTES + 700]
        .into_iter()
        .zip(1..)
        .map(|(length, seed)| some_bytes(length, seed))
        .collect();
    let (dirs, objects) = open(&data);
    let steps = {
        let watch = watch(&data, image.known());
        for (body, sequence) in bodies.iter().chain(&bodies[..2]).zip(1..) {
            // The second time in place of what is there (rule R7).
            let sha = seal(&objects, body, sequence);
            mark(&watch, &format!("sealed {sha}"));
        }
        let gone = sha256(&bodies[1]);
        mark(&watch, &format!("removing {gone}"));
        assert!(objects.remove(&gone, None, || true).expect("removed"));
        watch.steps()
    };
    drop((dirs, objects));
    assert!(steps.len() > 30, "{} steps", steps.len());
    let contents: BTreeMap<Sha256, &Vec<u8>> =
        bodies.iter().map(|body| (sha256(body), body)).collect();
    at_every_step(&quick_folder(), &image, &steps, 1, |disk, steps, place| {
        let sealed = |word: &str, sha: &Sha256| marks(steps).any(|m| m == format!("{word} {sha}"));
        let (dirs, objects) = open(disk);
        let listed: BTreeSet<Sha256> = objects.list().map(|(sha, _)| sha).collect();
        for (sha, body) in &contents {
            let whole = read(&objects, sha);
            if sealed("sealed", sha) && !sealed("removing", sha) {
                assert!(listed.contains(sha), "{place}: {sha} is lost");
                assert!(whole.as_ref() == Some(*body), "{place}: {sha} is damaged");
                assert!(
                    objects.verify(sha, dirs.dirs[0].id).expect("read"),
                    "{place}: {sha}"
                );
            }
            assert!(
                whole.is_none() || whole.as_ref() == Some(*body),
                "{place}: {sha} is another"
            );
            if listed.contains(sha) && !sealed("removing", sha) {
                assert!(whole.is_some(), "{place}: {sha} is listed and not whole");
            }
        }
        assert!(
            listed.iter().all(|sha| contents.contains_key(sha)),
            "{place}: {listed:?}"
        );
        let left = std::fs::read_dir(disk.join(".momo/tmp"))
            .expect("tmp")
            .count();
        assert_eq!(left, 0, "{place}: something is left in tmp");
        // And it goes on.
        let more = some_bytes(900, 77);
        let sha = seal(&objects, &more, 9);
        assert_eq!(read(&objects, &sha), Some(more), "{place}");
    });
}

/// Steps of the tables' file between two at which the power goes: a prime, so that each kind of step has its turn.
const STRIDE: usize = 7;

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn rows(tables: &CatalogTables) -> Rows {
    let mut all = Rows::new();
    for table in Table::ALL {
        for (key, value) in tables.range(table, &[], None, usize::MAX).expect("rows") {
            all.insert((table, key), value);
        }
    }
    all
}

#[test]
fn tables_after_a_power_cut_at_any_step_are_those_of_the_last_checkpoint_or_replacement() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("state");
    std::fs::create_dir(&folder).expect("a folder");
    let path = folder.join("tables.redb");
    drop(CatalogTables::open(&path).expect("tables"));
    let image = Image::of(&folder);
    let watch = watch(&folder, image.known());
    let tables = CatalogTables::open(&path).expect("tables");
    let mut random = Random::new(5);
    // What each durable state holds, in order; the first is the empty one.
    let mut states = vec![Rows::new()];
    for round in 0..9_u64 {
        if round == 5 {
            let snapshot = (0..40_u64).map(|key| {
                Ok((
                    Table::Objects,
                    key.to_be_bytes().to_vec(),
                    some_bytes(90, key),
                ))
            });
            let after = |row: Result<(Table, Vec<u8>, Vec<u8>), _>| {
                let (table, key, value): (Table, Vec<u8>, Vec<u8>) = row
                    .map_err(|error: momo::base::table::TableError| error)
                    .expect("a row");
                ((table, key), value)
            };
            states.push(snapshot.clone().map(after).collect());
            tables.replace(snapshot).expect("replaced");
        } else {
            for _ in 0..3 {
                let mut batch = Batch::default();
                for _ in 0..12 {
                    let key = random.below(60).to_be_bytes();
                    if random.one_in(4) {
                        batch.delete(Table::Files, &key);
                    } else {
                        batch.put(Table::Files, &key, some_bytes(200, random.next()));
                    }
                }
                tables.write(&batch).expect("written");
            }
            states.push(rows(&tables));
            tables.checkpoint().expect("a checkpoint");
        }
        mark(&watch, "durable");
    }
    let steps = watch.steps();
    drop((watch, tables));
    assert!(steps.len() > 60, "{} steps", steps.len());
    println!("{} steps", steps.len());
    // Not in memory: the room that the tables keep ahead would be cleared for each of them.
    at_every_step(&root, &image, &steps, STRIDE, |disk, steps, place| {
        let found = rows(&CatalogTables::open(&disk.join("tables.redb")).expect(place));
        let durable = marks(steps).count();
        let expected = [states.get(durable), states.get(durable + 1)];
        assert!(
            expected.into_iter().flatten().any(|state| *state == found),
            "{place}: {} rows are neither those of state {durable} nor of the next",
            found.len()
        );
        let again = rows(&CatalogTables::open(&disk.join("tables.redb")).expect(place));
        assert!(
            again == found,
            "{place}: opening it again shows something else"
        );
    });
}

#[test]
fn a_fact_after_a_power_cut_at_any_step_is_the_old_one_or_the_new_one_whole() {
    let root = tempfile::tempdir().expect("a folder");
    let data: PathBuf = root.path().join("data");
    let opened =
        |data: &Path| DataDirs::open(&[data.to_owned()], None, NODE, 0).expect("directories");
    drop(opened(&data));
    let image = Image::of(&data);
    let words: Vec<Vec<u8>> = (0..7_u64)
        .map(|n| some_bytes(n as usize * 211, n))
        .collect();
    let steps = {
        let watch = watch(&data, image.known());
        let opened = opened(&data);
        mark(&watch, &format!("boot {}", opened.boot.0));
        for word in &words {
            opened
                .state
                .write_fact("acknowledged", word)
                .expect("a fact");
            mark(&watch, "written");
        }
        watch.steps()
    };
    at_every_step(&quick_folder(), &image, &steps, 1, |disk, steps, place| {
        let boots = marks(steps).filter_map(|word| word.strip_prefix("boot ")?.parse::<u64>().ok());
        let last = boots.last().unwrap_or(1);
        let opened = opened(disk);
        assert!(
            opened.boot.0 > last,
            "{place}: start {} comes twice",
            opened.boot.0
        );
        let found = opened.state.read_fact("acknowledged").expect(place);
        let done = marks(steps).filter(|word| *word == "written").count();
        let (old, new) = (done.checked_sub(1).map(|nth| &words[nth]), words.get(done));
        let known = found.as_ref() == old || (found.is_some() && found.as_ref() == new);
        assert!(known, "{place}: {found:?}");
    });
}

#[test]
fn every_choice_of_a_crash_is_made() {
    let root = tempfile::tempdir().expect("a folder");
    let image = Image::of(root.path());
    assert!(image.names().is_empty());
    assert!(matches!(
        image.choices(1)[..],
        [Leaves::Nothing, Leaves::Everything, Leaves::Some(1)]
    ));
}

//! Rule R6: removes objects that nothing refers to, after a grace period, a fresh read, and a last look under the object's lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::digest::Sha256;
use crate::base::id::OperationId;
use crate::core::catalog::query;
use crate::engine::shared::Engine;
use crate::engine::verbs::Failure;
use crate::wire::command::{Code, Operation};
use crate::wire::record::Copy;

/// Candidates remembered; what does not fit is found again by walking the objects.
const REMEMBERED: usize = 100_000;
/// How often the collector looks.
const LOOK: Duration = Duration::from_millis(500);

/// How often directories that take no new objects are tried.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Objects that may be garbage, and since when.
#[derive(Debug, Default)]
pub struct Candidates {
    since: Mutex<HashMap<Sha256, Instant>>,
    given_up: Mutex<Vec<OperationId>>,
    lost: Mutex<HashSet<Sha256>>,
    overflowed: AtomicBool,
}

impl Candidates {
    /// Something let go of the object.
    pub fn add(&self, sha256: Sha256) {
        let mut since = self.since.lock();
        if since.len() < REMEMBERED {
            since.entry(sha256).or_insert_with(Instant::now);
        } else {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }

    /// An upload of this node came to nothing, or its fate is not known: to be abandoned (rule R5), so that every node may let go of it.
    pub fn give_up(&self, upload: OperationId) {
        let mut given_up = self.given_up.lock();
        if given_up.len() < REMEMBERED {
            given_up.push(upload);
        }
    }

    /// The catalog counts a copy here that was not found, or is bad: to be looked at, and dropped from the catalog.
    pub fn lost(&self, sha256: Sha256) {
        let mut lost = self.lost.lock();
        if lost.len() < REMEMBERED {
            lost.insert(sha256);
        }
    }

    fn due(&self, grace: Duration) -> Vec<Sha256> {
        let mut since = self.since.lock();
        let due: Vec<Sha256> = since
            .iter()
            .filter(|(_, at)| at.elapsed() >= grace)
            .map(|(sha256, _)| *sha256)
            .take(256)
            .collect();
        for sha256 in &due {
            since.remove(sha256);
        }
        due
    }
}

/// Runs until the node stops. First walks all objects once: what an earlier start left undone is found here.
pub fn run(engine: &Arc<Engine>) {
    let mut walk = true;
    let mut tried = Instant::now();
    while !engine.is_stopping() {
        thread::park_timeout(LOOK);
        if tried.elapsed() >= TRY_AGAIN {
            tried = Instant::now();
            engine.objects.try_failed();
        }
        if !engine.report().born {
            continue;
        }
        if walk || engine.candidates.overflowed.swap(false, Ordering::Relaxed) {
            walk = !(engine.fresh() && inventory(engine) && walk_all(engine));
        }
        abandon(engine);
        disown(engine);
        let due = engine.candidates.due(engine.settings.garbage_grace);
        if due.is_empty() {
            continue;
        }
        if !engine.fresh() {
            due.into_iter()
                .for_each(|sha256| engine.candidates.add(sha256));
            continue;
        }
        for sha256 in due {
            if let Err(failure) = judge(engine, sha256) {
                log::debug!(target: "momo::collect_later", "{sha256}: {failure}");
                engine.candidates.add(sha256);
            }
        }
    }
}

/// Has the uploads that came to nothing abandoned; what cannot be committed now is tried again.
fn abandon(engine: &Arc<Engine>) {
    let uploads = std::mem::take(&mut *engine.candidates.given_up.lock());
    for (done, upload) in uploads.iter().enumerate() {
        match engine.commit(Operation::Abandon { upload: *upload }) {
            Ok(_)
            | Err(Failure::Refused {
                code: Code::Conflict,
                ..
            }) => {}
            Err(failure) => {
                log::debug!(target: "momo::abandon_later", "upload {upload}: {failure}");
                engine.candidates.given_up.lock().extend(&uploads[done..]);
                return;
            }
        }
    }
}

/// Copies that the catalog counts here and that are not here, or not whole, are dropped from it: repair makes them again.
fn disown(engine: &Arc<Engine>) {
    let lost = std::mem::take(&mut *engine.candidates.lost.lock());
    for sha256 in lost {
        if let Err(failure) = disown_one(engine, sha256) {
            log::debug!(target: "momo::disown_later", "{sha256}: {failure}");
            engine.candidates.lost(sha256);
        }
    }
}

fn disown_one(engine: &Arc<Engine>, sha256: Sha256) -> Result<(), Failure> {
    let known = query::object(&engine.catalog()?, &sha256).map_err(super::shared::tables_failed)?;
    let Some(object) = known else { return Ok(()) };
    let here = match engine.objects.stat(&sha256) {
        Ok(Some(stat))
            if stat.size == object.size
                && engine.objects.verify(&sha256).is_ok_and(|whole| whole) =>
        {
            Some(stat.dir)
        }
        _ => None,
    };
    for copy in object.copies {
        if copy.node != engine.node() || Some(copy.dir) == here {
            continue;
        }
        match engine.commit(Operation::DropCopy {
            sha256,
            copy,
            others: 0,
        }) {
            Ok(_) => {
                log::warn!(target: "momo::copy_lost", "{sha256}: this node's copy is lost, it will be made again")
            }
            Err(Failure::Refused {
                code: Code::NotFound,
                ..
            }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// At start: compares what the catalog counts here with what lies here (an emptied disk, a lost file).
fn inventory(engine: &Arc<Engine>) -> bool {
    let mut after: Option<Sha256> = None;
    loop {
        let page = match query::objects_after(&engine.tables, after.as_ref(), 512) {
            Ok(page) => page,
            Err(error) => {
                log::error!(target: "momo::inventory", "{error}");
                return false;
            }
        };
        let Some((last, _)) = page.last() else {
            return true;
        };
        after = Some(*last);
        for (sha256, object) in page {
            let stat = engine.objects.stat(&sha256).ok().flatten();
            let counted = object
                .copies
                .iter()
                .filter(|copy| copy.node == engine.node());
            let wrong = |copy: &Copy| {
                stat.is_none_or(|stat| stat.dir != copy.dir || stat.size != object.size)
            };
            if counted.into_iter().any(wrong) {
                engine.candidates.lost(sha256);
            }
        }
        if engine.is_stopping() {
            return false;
        }
    }
}

/// Makes a candidate of every object that the catalog does not count here; false when the walk could not be finished.
fn walk_all(engine: &Arc<Engine>) -> bool {
    for (sha256, stat) in engine.objects.list() {
        if engine.is_stopping() {
            return false;
        }
        let copy = Copy {
            node: engine.node(),
            dir: stat.dir,
        };
        match query::object(&engine.tables, &sha256) {
            Ok(Some(object)) if object.copies.contains(&copy) => {}
            Ok(_) => {
                // Its upload may still be put: held until that is settled (rule R5).
                engine.pins.pin(stat.upload, sha256);
                engine.candidates.add(sha256);
            }
            Err(error) => {
                log::error!(target: "momo::collect", "{error}");
                return false;
            }
        }
    }
    true
}

fn judge(engine: &Arc<Engine>, sha256: Sha256) -> Result<(), Failure> {
    let Ok(Some(stat)) = engine.objects.stat(&sha256) else {
        return Ok(());
    };
    let copy = Copy {
        node: engine.node(),
        dir: stat.dir,
    };
    for upload in engine.pins.holders(&sha256) {
        if upload.node == engine.node() && upload.boot == engine.boot {
            // Under way here: it settles itself.
            engine.candidates.add(sha256);
            return Ok(());
        }
        match engine.commit(Operation::Abandon { upload }) {
            Ok(_)
            | Err(Failure::Refused {
                code: Code::Conflict,
                ..
            }) => {
                engine.pins.settle(upload);
            }
            Err(failure) => return Err(failure),
        }
    }
    let catalog = engine.catalog()?;
    let known = query::object(&catalog, &sha256).map_err(super::shared::tables_failed)?;
    match known {
        Some(object) if object.copies.contains(&copy) => return Ok(()),
        Some(object) if object.copies.len() < usize::from(object.want) => {
            return adopt(engine, sha256, object.size, copy);
        }
        _ => {}
    }
    let removed = engine.objects.remove(&sha256, None, || {
        !engine.pins.is_pinned(&sha256)
            && matches!(
                query::object(&engine.tables, &sha256),
                Ok(known) if known.as_ref().is_none_or(|object| !object.copies.contains(&copy))
            )
    });
    match removed {
        Ok(true) => {
            log::info!(target: "momo::collected", "{sha256}: {} bytes that nothing refers to", stat.size);
        }
        Ok(false) => {}
        Err(error) => log::warn!(target: "momo::collect", "{sha256}: {error}"),
    }
    Ok(())
}

/// A copy that lies here uncounted while one is wanted: read it through, and count it if it is whole.
fn adopt(engine: &Arc<Engine>, sha256: Sha256, size: u64, copy: Copy) -> Result<(), Failure> {
    match engine.objects.verify(&sha256) {
        Ok(true) => {
            engine.commit(Operation::AddCopy { sha256, size, copy })?;
            log::info!(target: "momo::adopted", "{sha256}: a copy that lay here uncounted");
            Ok(())
        }
        Ok(false) => {
            let _ = engine.objects.remove(&sha256, None, || true);
            Ok(())
        }
        Err(error) => Err(Failure::refused(Code::Internal, error.to_string())),
    }
}

//! Rule R6: removes objects that nothing refers to, after a grace period, a fresh read, and a last look under the object's lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::digest::Sha256;
use crate::base::id::{DirId, OperationId};
use crate::core::catalog::query;
use crate::engine::examine::{self, Examined, examine, lost_dirs, set_aside};
use crate::engine::shared::Engine;
use crate::engine::verbs::Failure;
use crate::store::objects::{ObjectStat, StoreError, Verdict};
use crate::wire::command::{Code, Operation};
use crate::wire::record::{Copy, ObjectRecord};

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

    /// Whether the object is a candidate already.
    pub fn knows(&self, sha256: &Sha256) -> bool {
        self.since.lock().contains_key(sha256)
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

/// Runs until the node stops. First walks all objects once: what an earlier start left undone is found here, and what
/// it had pinned is pinned again. Nothing is removed before that.
pub fn run(engine: &Arc<Engine>) {
    let mut walked = None;
    let mut tried = Instant::now();
    let orphans = engine.objects.collect_orphans();
    if orphans > 0 {
        log::info!(target: "momo::collected", "checksums of {orphans} objects that are gone");
    }
    while !engine.is_stopping() {
        thread::park_timeout(LOOK);
        if tried.elapsed() >= TRY_AGAIN {
            tried = Instant::now();
            engine.objects.try_failed();
        }
        let report = engine.report();
        if !report.born {
            continue;
        }
        abandon(engine);
        disown(engine);
        // A snapshot passes over the notes of what it stands for, and a directory takes its copies with it.
        let now = (report.snapshot, lost_dirs(engine));
        let overflowed = engine.candidates.overflowed.swap(false, Ordering::Relaxed);
        let uncounted = is_uncounted(engine);
        if overflowed || uncounted || walked.as_ref() != Some(&now) {
            walked = None;
            if engine.fresh()
                && inventory(engine)
                && (!uncounted || say_compared(engine))
                && walk_all(engine)
            {
                walked = Some(now);
                engine.comparing.store(false, Ordering::Release);
            } else {
                continue;
            }
        }
        let grace = engine.settings.garbage_grace;
        if engine.candidates.given_up.lock().is_empty() {
            for upload in engine.pins.overdue(engine.node(), engine.boot, grace) {
                engine.candidates.give_up(upload);
            }
        }
        let due = engine.candidates.due(grace);
        if due.is_empty() {
            continue;
        }
        if !engine.fresh() {
            for sha256 in due {
                engine.candidates.add(sha256);
            }
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
            }) => {
                // Also when the note of it was skipped by a snapshot.
                if let Err(error) = engine.settle(*upload) {
                    log::warn!(target: "momo::settle", "upload {upload}: {error}");
                }
            }
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
        match disown_one(engine, sha256) {
            Ok(0) => {}
            Ok(_) => {
                log::warn!(target: "momo::copy_lost", "{sha256}: this node's copy is lost or bad, it will be made again");
            }
            Err(failure) => {
                log::debug!(target: "momo::disown_later", "{sha256}: {failure}");
                engine.candidates.lost(sha256);
            }
        }
    }
}

/// Drops the copies of one object that are counted here and are not here, or not whole; how many.
fn disown_one(engine: &Arc<Engine>, sha256: Sha256) -> Result<usize, Failure> {
    match examine(engine, sha256, &mut |_| !engine.is_stopping())? {
        Examined::NotHere | Examined::Whole => Ok(0),
        Examined::Later => {
            engine.candidates.lost(sha256);
            Ok(0)
        }
        Examined::Bad(dropped) => Ok(dropped),
    }
}

/// Whether a copy counted here is where it should be, by name and size.
fn lies_here(
    engine: &Engine,
    sha256: &Sha256,
    object: &ObjectRecord,
    copy: &Copy,
    lost: &[DirId],
) -> Result<bool, StoreError> {
    if lost.contains(&copy.dir) {
        return Ok(false);
    }
    let stat = engine.objects.stat_in(sha256, copy.dir)?;
    Ok(stat.is_some_and(|stat| stat.size == object.size))
}

/// Whether copies here do not count until they have been compared: the cluster had given this node up, or it has other
/// directories than before.
fn is_uncounted(engine: &Engine) -> bool {
    let known = query::node(&engine.tables, engine.node());
    // Before it is registered again what is known of it is about an earlier start.
    matches!(known, Ok(Some(record)) if record.boot == engine.boot && (record.lost || !record.gone.is_empty()))
}

/// Says that what the catalog counts here lies here.
fn say_compared(engine: &Engine) -> bool {
    let compared = Operation::Compared {
        node: engine.node(),
        boot: engine.boot,
    };
    match engine.commit(compared) {
        Ok(_) => {
            log::info!(target: "momo::compared", "what the catalog counts here has been compared and counts");
            true
        }
        Err(failure) => {
            log::debug!(target: "momo::compare_later", "{failure}");
            false
        }
    }
}

/// Objects that one page of the inventory looks up.
const PAGE: usize = 512;
/// Lost copies that are dropped from the catalog at the same time: their commands share the log's syncs.
const AT_ONCE: usize = 16;

/// Compares what the catalog counts here with what lies here (an emptied disk, a lost file), and has it count what does
/// not lie here no more.
fn inventory(engine: &Arc<Engine>) -> bool {
    let broken = lost_dirs(engine);
    let mut dropped = 0;
    let mut after: Option<Sha256> = None;
    loop {
        let page = match query::objects_after(&engine.tables, after.as_ref(), PAGE) {
            Ok(page) => page,
            Err(error) => {
                log::error!(target: "momo::inventory", "{error}");
                return false;
            }
        };
        let Some((last, _)) = page.last() else {
            if dropped > 0 {
                log::warn!(target: "momo::copies_lost", "{dropped} copies counted here are not here, they will be made again");
            }
            return true;
        };
        after = Some(*last);
        let mut absent = Vec::new();
        for (sha256, object) in page {
            let counted = |copy: &&Copy| copy.node == engine.node();
            if !object.copies.iter().any(|copy| counted(&copy)) {
                continue;
            }
            let mut here = object.copies.iter().filter(counted);
            let all = here.try_fold(true, |all, copy| {
                Ok::<_, StoreError>(all && lies_here(engine, &sha256, &object, copy, &broken)?)
            });
            match all {
                Ok(true) => {}
                Ok(false) => absent.push(sha256),
                // Looked at again by itself: the others need not wait for it.
                Err(_) => engine.candidates.lost(sha256),
            }
        }
        dropped += absent.len();
        if engine.is_stopping() || !disown_all(engine, &absent) {
            return false;
        }
    }
}

/// Drops lost copies, several at a time; false when one could not be, and is remembered.
fn disown_all(engine: &Arc<Engine>, lost: &[Sha256]) -> bool {
    let all_done = AtomicBool::new(true);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(sha256) = lost.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = disown_one(engine, *sha256) {
                log::debug!(target: "momo::disown_later", "{sha256}: {failure}");
                all_done.store(false, Ordering::Relaxed);
                return;
            }
        }
    };
    thread::scope(|scope| {
        // A thread that cannot be had is not missed: this one does the rest.
        for _ in 1..AT_ONCE.min(lost.len()) {
            let builder = thread::Builder::new()
                .name("disown".to_owned())
                .stack_size(256 * 1024);
            if builder.spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    all_done.into_inner()
}

/// The uploads that an object was brought for, and whether they may still be put. Those of this start hold it already, or
/// are settled, and nobody would settle them again.
fn uploads_of(
    engine: &Engine,
    sha256: &Sha256,
    last: OperationId,
) -> Result<Vec<(OperationId, bool)>, String> {
    let mut uploads = engine.objects.held(sha256).map_err(|e| e.to_string())?;
    uploads.push(last);
    uploads.retain(|upload| (upload.node, upload.boot) != (engine.node(), engine.boot));
    let pending = |upload| query::is_pending(&engine.tables, upload).map_err(|e| e.to_string());
    uploads
        .into_iter()
        .map(|upload| Ok((upload, pending(upload)?)))
        .collect()
}

/// Makes a candidate of every object that the catalog does not count here, and holds what an earlier start acknowledged
/// for uploads that may still be put; false when the walk could not be finished.
fn walk_all(engine: &Arc<Engine>) -> bool {
    for (sha256, stat) in engine.objects.list() {
        if engine.is_stopping() {
            return false;
        }
        let copy = Copy {
            node: engine.node(),
            dir: stat.dir,
        };
        let known = uploads_of(engine, &sha256, stat.upload).and_then(|pending| {
            let object = query::object(&engine.tables, &sha256).map_err(|e| e.to_string())?;
            Ok((
                pending,
                object.is_some_and(|object| object.copies.contains(&copy)),
            ))
        });
        match known {
            Ok((uploads, counted)) => {
                // They may still be put: held until that is settled (rule R5), also while other names make it count.
                for (upload, pending) in uploads {
                    if pending || !counted {
                        engine.pins.pin(upload, sha256);
                    }
                }
                if !counted {
                    engine.candidates.add(sha256);
                }
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
    let stats = engine.objects.stats(&sha256);
    let stats = stats.map_err(|error| Failure::refused(Code::Unavailable, error.to_string()))?;
    if stats.is_empty() {
        return Ok(());
    }
    for (upload, age) in engine.pins.holders(&sha256) {
        let own = upload.node == engine.node() && upload.boot == engine.boot;
        if own || age < engine.settings.garbage_grace {
            // Under way: here it settles itself, and elsewhere it has time to do so. The object may have become a
            // candidate long before the upload brought it again.
            engine.candidates.add(sha256);
            return Ok(());
        }
        match engine.commit(Operation::Abandon { upload }) {
            Ok(_) => {
                engine.pins.settle(upload);
            }
            Err(Failure::Refused {
                code: Code::Conflict,
                ..
            }) => {
                // It is put, which need not be applied here yet: looked at again, after another fresh read.
                engine.pins.settle(upload);
                engine.candidates.add(sha256);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
    }
    stats
        .iter()
        .try_for_each(|stat| judge_one(engine, sha256, stat))
}

/// Judges what lies in one directory.
fn judge_one(engine: &Arc<Engine>, sha256: Sha256, stat: &ObjectStat) -> Result<(), Failure> {
    let copy = Copy {
        node: engine.node(),
        dir: stat.dir,
    };
    let known = query::object(&engine.catalog()?, &sha256).map_err(super::shared::tables_failed)?;
    match known {
        Some(object) if object.copies.contains(&copy) => return Ok(()),
        Some(object) if object.owed.is_some() => {
            return adopt(engine, sha256, object.size, copy);
        }
        _ => {}
    }
    if remove(engine, sha256, copy) {
        log::info!(target: "momo::collected", "{sha256}: {} bytes that nothing here is needed for", stat.size);
        // A copy that was dropped may have names yet: they go with it.
        engine
            .visible
            .show(&engine.tables, &sha256)
            .map_err(super::shared::tables_failed)?;
    }
    Ok(())
}

/// Removes what lies in one directory unless the catalog counts it or an upload holds it: the last look, under the
/// object's lock, at the moment of unlinking.
fn remove(engine: &Arc<Engine>, sha256: Sha256, copy: Copy) -> bool {
    let guard = || examine::uncounted(engine, sha256, copy);
    let removed = engine.objects.remove(&sha256, Some(copy.dir), guard);
    removed.unwrap_or_else(|error| {
        log::warn!(target: "momo::collect", "{sha256}: {error}");
        false
    })
}

/// A copy that lies here uncounted while one is wanted: read it through, and count it if it is whole.
fn adopt(engine: &Arc<Engine>, sha256: Sha256, size: u64, copy: Copy) -> Result<(), Failure> {
    let verdict = engine
        .objects
        .examine(&sha256, copy.dir, size, &mut |_| !engine.is_stopping());
    match verdict {
        Ok(Verdict::Whole) => {
            engine.commit(Operation::AddCopy { sha256, size, copy })?;
            engine
                .visible
                .show(&engine.tables, &sha256)
                .map_err(super::shared::tables_failed)?;
            log::info!(target: "momo::adopted", "{sha256}: a copy that lay here uncounted");
            Ok(())
        }
        Ok(
            Verdict::Length { identity, .. }
            | Verdict::Bytes { identity }
            | Verdict::Unreadable { identity, .. },
        ) => {
            // Nobody counts it, but there may be nothing better: it is not thrown away.
            set_aside(engine, sha256, copy, identity);
            Ok(())
        }
        Ok(Verdict::Missing | Verdict::Stopped) => Ok(()),
        Err(error) => Err(Failure::refused(Code::Internal, error.to_string())),
    }
}

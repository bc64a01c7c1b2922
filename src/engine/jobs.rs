//! The replication workers: take copy jobs from a bounded queue, pull the object from a holder, verify, sync, and have the copy counted.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::base::digest::Sha256;
use crate::base::id::{NodeId, OperationId};
use crate::base::limit::{BLOCK_BYTES, BULK_WAIT};
use crate::core::catalog::query;
use crate::core::node::Event;
use crate::engine::permits::{BUSY, Purpose};
use crate::engine::shared::Engine;
use crate::engine::transfer::store_failed;
use crate::engine::verbs::Failure;
use crate::wire::command::Operation;
use crate::wire::peer::{Answer, Fetch, Kind, Request};
use crate::wire::record::{Copy, ObjectRecord};

/// How often an idle worker looks whether the node stops.
const LOOK: Duration = Duration::from_millis(500);
/// How long the driver's queue may be full.
const DRIVER_FULL: Duration = Duration::from_secs(5);

/// An order to fetch, and who gave it.
#[derive(Debug)]
pub struct Job {
    /// The order.
    pub fetch: Fetch,
    /// The leader that gave it.
    pub leader: NodeId,
}

/// Runs until the node stops.
pub fn run(engine: &Arc<Engine>, queue: &Receiver<Job>) {
    while !engine.is_stopping() {
        let job = match queue.recv_timeout(LOOK) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Job { fetch, leader } = job;
        let began = Instant::now();
        let error = match fetch_once(engine, &fetch) {
            Ok(()) => {
                log::info!(
                    target: "momo::replication_worker_success",
                    "{} ({} bytes) replicated to node {}", fetch.sha256, fetch.size, engine.node()
                );
                None
            }
            Err(why) => {
                log::warn!(target: "momo::replication_worker_failed", "{}: {why}", fetch.sha256);
                Some(why)
            }
        };
        engine.jobs.fetch_sub(1, Ordering::Relaxed);
        engine.tell(
            Event::FetchEnded {
                job: fetch.job,
                leader,
                error,
            },
            DRIVER_FULL,
        );
        if !is_urgent(&fetch) {
            engine
                .pace
                .give_way(began.elapsed(), || engine.is_stopping());
        }
    }
}

/// Whether one more failure would cost the object: then uploads have to share with its copy.
fn is_urgent(fetch: &Fetch) -> bool {
    fetch.holders.len() < 2
}

/// Brings a copy unless it is here, another order brings it already, or the order is none any more.
fn fetch_once(engine: &Arc<Engine>, fetch: &Fetch) -> Result<(), String> {
    let term = engine.report().term;
    if fetch.job.term < term {
        return Err(format!(
            "an order of term {}, this is {term}",
            fetch.job.term
        ));
    }
    let known = query::object(&engine.tables, &fetch.sha256).map_err(|error| error.to_string())?;
    let Some(object) = known else {
        return Err("nothing refers to it any more".to_owned());
    };
    if is_here(engine, &object, &fetch.sha256) {
        return Ok(());
    }
    if !engine.fetching.lock().insert(fetch.sha256) {
        return Err("it is being brought already".to_owned());
    }
    let fetched = fetch_one(engine, fetch);
    engine.fetching.lock().remove(&fetch.sha256);
    fetched
}

/// Whether a copy that the catalog counts here lies where it should.
fn is_here(engine: &Engine, object: &ObjectRecord, sha256: &Sha256) -> bool {
    let mut here = object
        .copies
        .iter()
        .filter(|copy| copy.node == engine.node());
    here.any(|copy| {
        let stat = engine.objects.stat_in(sha256, copy.dir);
        matches!(stat, Ok(Some(stat)) if stat.size == object.size)
    })
}

fn fetch_one(engine: &Arc<Engine>, fetch: &Fetch) -> Result<(), String> {
    let mut last = "no holder was named".to_owned();
    for holder in fetch
        .holders
        .iter()
        .filter(|holder| **holder != engine.node())
    {
        let upload = engine.next_upload();
        match pull(engine, fetch, *holder, upload) {
            Ok(copy) => return count(engine, fetch, copy, upload),
            Err(error) => {
                // This upload is never put: nobody but this node has heard of it.
                engine.settle(upload).map_err(|error| error.to_string())?;
                last = format!("from node {holder}: {error}");
            }
        }
        if engine.is_stopping() {
            break;
        }
    }
    Err(last)
}

/// Pulls the object from one holder; durable here when it returns.
fn pull(
    engine: &Arc<Engine>,
    fetch: &Fetch,
    holder: NodeId,
    upload: OperationId,
) -> io::Result<Copy> {
    if fetch.size == 0 {
        return Err(io::Error::other("an empty file has no object"));
    }
    let mut incoming = engine
        .objects
        .create(fetch.size, upload)
        .map_err(store_failed)?;
    let count = fetch.size.div_ceil(BLOCK_BYTES as u64);
    let mut hash = sha2::Sha256::default();
    let mut next = 0;
    while next < count {
        let after = count.min(next + engine.pace.window());
        let end = fetch.size.min(after * BLOCK_BYTES as u64);
        let bytes = end - next * BLOCK_BYTES as u64;
        // No connection is held while the bytes have to wait.
        let stops = || engine.is_stopping();
        if !engine.pace.take(bytes, stops) {
            return Err(io::Error::other("this node stops"));
        }
        let began = Instant::now();
        pull_blocks(engine, fetch, holder, next..after, |block, crc| {
            sha2::Digest::update(&mut hash, block);
            incoming.write(block, crc).map_err(store_failed)
        })?;
        next = after;
        if next < count && !is_urgent(fetch) {
            engine.pace.give_way(began.elapsed(), stops);
        }
    }
    if Sha256(sha2::Digest::finalize(hash).into()) != fetch.sha256 {
        return Err(io::Error::other("its bytes have another digest"));
    }
    engine.pins.pin(upload, fetch.sha256);
    let others = || engine.pins.others(upload, &fetch.sha256);
    let dir = incoming
        .seal(&fetch.sha256, &others)
        .map_err(store_failed)?;
    Ok(Copy {
        node: engine.node(),
        dir,
    })
}

/// Some blocks of the object from one holder, in order.
fn pull_blocks(
    engine: &Arc<Engine>,
    fetch: &Fetch,
    holder: NodeId,
    blocks: Range<u64>,
    mut take: impl FnMut(&[u8], u32) -> io::Result<()>,
) -> io::Result<()> {
    let Some(_permit) = engine.permits.take(Purpose::Mend, [holder], BULK_WAIT) else {
        return Err(io::Error::other(BUSY));
    };
    let mut lent = engine.peers.lend(holder)?;
    lent.stream.send(&Request::Read {
        sha256: fetch.sha256,
        block: blocks.start,
        count: blocks.end - blocks.start,
    })?;
    match lent.stream.receive_value()? {
        Answer::Content { size } if size == fetch.size => {}
        Answer::Error { message } => return Err(io::Error::other(message)),
        _ => return Err(io::Error::other("another object than the one asked for")),
    }
    let mut block = Vec::new();
    for _ in blocks {
        let received = lent.stream.receive(&mut block)?;
        if received.kind != Kind::Block {
            return Err(io::Error::other("the holder cannot read it"));
        }
        take(&block, received.crc)?;
    }
    lent.keep();
    Ok(())
}

fn count(
    engine: &Arc<Engine>,
    fetch: &Fetch,
    copy: Copy,
    upload: OperationId,
) -> Result<(), String> {
    let add = Operation::AddCopy {
        sha256: fetch.sha256,
        size: fetch.size,
        copy,
    };
    let added = engine.commit(add);
    match &added {
        // Held until what is decided now comes after it.
        Err(Failure::Unknown { .. }) => engine.candidates.give_up(upload),
        // Counted, or refused for good: either way nothing holds it but the catalog.
        _ => engine.settle(upload).map_err(|error| error.to_string())?,
    }
    // Whatever became of the command: it may be applied yet, or the collector may have the copy counted.
    engine
        .visible
        .show(&engine.tables, &fetch.sha256)
        .map_err(|error| error.to_string())?;
    added.map(drop).map_err(|failure| failure.to_string())
}

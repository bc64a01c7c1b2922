//! The replication workers: take copy jobs from a bounded queue, pull the object from a holder, verify, sync, and have the copy counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::base::digest::Sha256;
use crate::base::id::{NodeId, OperationId};
use crate::base::limit::BLOCK_BYTES;
use crate::core::node::Event;
use crate::engine::shared::Engine;
use crate::engine::transfer::store_failed;
use crate::engine::verbs::Failure;
use crate::wire::command::Operation;
use crate::wire::peer::{Answer, Fetch, Kind, Request};
use crate::wire::record::Copy;

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
        engine.jobs.store(queue.len() as u64 + 1, Ordering::Relaxed);
        let Job { fetch, leader } = job;
        let error = match fetch_one(engine, &fetch) {
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
        engine.jobs.store(queue.len() as u64, Ordering::Relaxed);
        engine.tell(
            Event::FetchEnded {
                job: fetch.job,
                leader,
                error,
            },
            DRIVER_FULL,
        );
    }
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
    let mut lent = engine.peers.lend(holder)?;
    lent.stream.send(&Request::Read {
        sha256: fetch.sha256,
        block: 0,
        count,
    })?;
    match lent.stream.receive_value()? {
        Answer::Content { size } if size == fetch.size => {}
        Answer::Error { message } => return Err(io::Error::other(message)),
        _ => return Err(io::Error::other("another object than the one asked for")),
    }
    let mut hash = sha2::Sha256::default();
    let mut block = Vec::new();
    for _ in 0..count {
        let received = lent.stream.receive(&mut block)?;
        if received.kind != Kind::Block {
            return Err(io::Error::other("the holder cannot read it"));
        }
        sha2::Digest::update(&mut hash, &block);
        incoming.write(&block, received.crc).map_err(store_failed)?;
    }
    if Sha256(sha2::Digest::finalize(hash).into()) != fetch.sha256 {
        return Err(io::Error::other("its bytes have another digest"));
    }
    lent.keep();
    engine.pins.pin(upload, fetch.sha256);
    let dir = incoming.seal(&fetch.sha256).map_err(store_failed)?;
    Ok(Copy {
        node: engine.node(),
        dir,
    })
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

//! The listening side of peer connections: messages for the core, and requests for bytes.

use std::io::{self, BufReader};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::id::NodeId;
use crate::base::limit::{BLOCK_BYTES, NODES};
use crate::base::table::{Table, TableError, Tables};
use crate::core::catalog;
use crate::core::node::Event;
use crate::engine::admin;
use crate::engine::frame::{FrameStream, SharedSocket};
use crate::engine::handshake::{self, Role};
use crate::engine::put;
use crate::engine::shared::Engine;
use crate::engine::transfer::{Intake, store_failed};
use crate::wire::peer::{
    Answer, BodyEnd, FIND_AT_ONCE, Hop, Kind, Message, Missed, Request, Sought,
};

/// How often a waiting connection looks whether the node stops.
const LOOK: Duration = Duration::from_secs(1);
/// Bound on the rest of a frame once it has begun, and on one write.
const PACE: Duration = Duration::from_secs(5);
/// A bulk connection without a request for so long is closed.
const IDLE: Duration = Duration::from_mins(5);
/// How long the driver's queue may be full before a link is given up; the peer dials again.
const DRIVER_FULL: Duration = Duration::from_secs(3);

/// Authenticates a peer within `patience` (then calls `authenticated`) and serves it until it leaves or the node stops. An error says why it was cut off.
pub fn serve(
    engine: &Arc<Engine>,
    input: SharedSocket,
    patience: Duration,
    authenticated: impl FnOnce(),
) -> io::Result<()> {
    let input = BufReader::with_capacity(16 * 1024, input);
    let accepted = handshake::accept(input, &engine.peers.identity(), patience);
    if let Err(error) = &accepted
        && let Some((node, cluster)) = handshake::other_cluster(error)
    {
        engine.meet(node, cluster);
    }
    let (stream, from, role) = accepted?;
    authenticated();
    match role {
        Role::Control => control(engine, stream, from),
        Role::Bulk => bulk(engine, stream),
        Role::Admin => admin::serve(engine, stream),
    }
}

/// Waits for the next frame; false when the peer left, the node stops or `idle` passed.
pub(super) fn wait(
    engine: &Engine,
    stream: &mut FrameStream,
    idle: Option<Duration>,
) -> io::Result<bool> {
    let since = Instant::now();
    stream.set_timeouts(LOOK, PACE)?;
    loop {
        match stream.wait() {
            Ok(false) => return Ok(false),
            Ok(true) => {
                stream.set_read_timeout(PACE)?;
                return Ok(true);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                if engine.is_stopping() || idle.is_some_and(|idle| since.elapsed() > idle) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn control(engine: &Arc<Engine>, mut stream: FrameStream, from: NodeId) -> io::Result<()> {
    let mut payload = Vec::new();
    loop {
        if !stream.has_buffered() && !wait(engine, &mut stream, None)? {
            return Ok(());
        }
        let kind = stream.receive(&mut payload)?.kind;
        engine.peers.heard_of(from);
        let message = match kind {
            Kind::Raft => Message::Raft {
                bytes: std::mem::take(&mut payload),
            },
            Kind::Control => serde_json::from_slice(&payload)?,
            Kind::Block => return Err(io::ErrorKind::InvalidData.into()),
        };
        if let Message::Hello(hello) = &message {
            engine.peers.introduced(from, &hello.address);
        }
        if !engine.tell(Event::Received { from, message }, DRIVER_FULL) {
            return Err(io::Error::other("this node is too busy"));
        }
    }
}

fn bulk(engine: &Arc<Engine>, mut stream: FrameStream) -> io::Result<()> {
    while wait(engine, &mut stream, Some(IDLE))? {
        match stream.receive_value()? {
            Request::Store {
                upload, size, next, ..
            } => {
                store(engine, &mut stream, upload, size, &next)?;
            }
            Request::Read {
                sha256,
                block,
                count,
            } => {
                read(engine, &mut stream, &sha256, block, count)?;
            }
            Request::Snapshot => snapshot(engine, &mut stream)?,
            Request::Leg(leg) => {
                let committed =
                    put::answer_leg(engine, &leg, || stream.send(&Answer::Pong).is_ok());
                let mode = catalog::query::mode(&engine.tables)
                    .map_err(|error| io::Error::other(error.to_string()))?
                    .new;
                stream.send(&Answer::Leg { committed, mode })?;
            }
            Request::Probe { sha256 } => {
                let answer = match engine.objects.stat(&sha256) {
                    Ok(Some(stat)) => Answer::Content { size: stat.size },
                    Ok(None) => Answer::Error {
                        message: "it is not here".to_owned(),
                    },
                    Err(error) => Answer::Error {
                        message: error.to_string(),
                    },
                };
                stream.send(&answer)?;
            }
            Request::Find { objects } => {
                let answer =
                    find(engine, &objects).unwrap_or_else(|message| Answer::Error { message });
                stream.send(&answer)?;
            }
            Request::Overview => {
                let answer = match engine.overview() {
                    Some(overview) => Answer::Overview(overview),
                    None => Answer::Error {
                        message: "busy".to_owned(),
                    },
                };
                stream.send(&answer)?;
            }
            Request::Ping => stream.send(&Answer::Pong)?,
        }
    }
    Ok(())
}

/// Where objects lie here; those that are asked for in the name of an upload are held for it first.
pub(super) fn find(engine: &Engine, objects: &[Sought]) -> Result<Answer, String> {
    if objects.len() > FIND_AT_ONCE {
        return Err("too many objects at once".to_owned());
    }
    let mut found = Vec::with_capacity(objects.len());
    for Sought { sha256, upload } in objects {
        if let Some(upload) = upload {
            engine.pins.pin(*upload, *sha256);
        }
        let stats = engine
            .objects
            .stats(sha256)
            .map_err(|error| error.to_string())?;
        found.push(stats.iter().map(|stat| (stat.dir, stat.size)).collect());
    }
    Ok(Answer::Found { objects: found })
}

fn count(hops: &[Hop]) -> usize {
    hops.iter().map(|hop| 1 + count(&hop.next)).sum()
}

/// A hop: writes what comes, passes it on, syncs at the end, answers for itself and those behind it.
fn store(
    engine: &Arc<Engine>,
    stream: &mut FrameStream,
    upload: crate::base::id::OperationId,
    size: u64,
    next: &[Hop],
) -> io::Result<()> {
    if size == 0 || size > crate::base::limit::FILE_BYTES || count(next) > usize::from(NODES) {
        stream.send(&Answer::Error {
            message: "a size no object has, or more hops than there can be nodes".to_owned(),
        })?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    let _goes_first = engine.pace.upload();
    // The entry node leaves this hop out long before its own client may be given up: wait as long as a body may pause.
    stream.set_timeouts(engine.settings.body_pause, PACE)?;
    let mut intake = Intake::open(engine, upload, size, true, next);
    let mut left = size;
    let mut block = Vec::with_capacity(
        usize::try_from(left)
            .unwrap_or(BLOCK_BYTES)
            .min(BLOCK_BYTES),
    );
    while left > 0 {
        let received = match stream.receive(&mut block) {
            Ok(received) => received,
            Err(error) => {
                intake.give_up();
                return Err(error);
            }
        };
        let length = left.min(BLOCK_BYTES as u64);
        if received.kind != Kind::Block || block.len() as u64 != length {
            // The sender gives up in the middle: nothing to answer.
            intake.give_up();
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the upload was given up",
            ));
        }
        intake.block(&block, received.crc);
        left -= length;
    }
    let end: BodyEnd = match stream.receive_value() {
        Ok(end) => end,
        Err(error) => {
            intake.give_up();
            return Err(error);
        }
    };
    let answer = match end.sha256 {
        None => {
            intake.give_up();
            Answer::Stored {
                copies: Vec::new(),
                missed: Vec::new(),
            }
        }
        Some(_) if intake.is_hopeless() => Answer::Stored {
            copies: Vec::new(),
            missed: intake.missed().to_vec(),
        },
        Some(sha256) => {
            let began = Instant::now();
            let landed = intake.finish(sha256);
            if began.elapsed() >= engine.settings.hop_stall {
                // The entry node may have gone on without this copy, and the upload may be settled: nobody would look.
                engine.candidates.add(sha256);
            }
            let missed: Vec<Missed> = landed.missed;
            Answer::Stored {
                copies: landed.copies,
                missed,
            }
        }
    };
    stream.send(&answer)
}

fn read(
    engine: &Arc<Engine>,
    stream: &mut FrameStream,
    sha256: &crate::base::digest::Sha256,
    first: u64,
    count: u64,
) -> io::Result<()> {
    let mut reader = match engine.objects.reader(sha256) {
        Ok(Some(reader)) => reader,
        Ok(None) => {
            engine.candidates.lost(*sha256);
            return stream.send(&Answer::Error {
                message: "it is not here".to_owned(),
            });
        }
        Err(error) => {
            engine.candidates.lost(*sha256);
            return stream.send(&Answer::Error {
                message: error.to_string(),
            });
        }
    };
    stream.queue(&Answer::Content {
        size: reader.size(),
    })?;
    let after = first.saturating_add(count).min(reader.block_count());
    let mut block = Vec::new();
    for index in first..after {
        match reader.read_block(index, &mut block) {
            Ok(crc) => stream.queue_block(&block, crc)?,
            Err(error) => {
                // Looked at as a whole, and made again from another copy when it is bad.
                engine.candidates.lost(*sha256);
                // The receiver expects a block: an error frame tells it to go to the next copy.
                stream.send(&Answer::Error {
                    message: error.to_string(),
                })?;
                return Err(store_failed(error));
            }
        }
    }
    stream.flush()
}

/// The catalog for a member that is too far behind: its head, its rows in blocks, and the end.
fn snapshot(engine: &Arc<Engine>, stream: &mut FrameStream) -> io::Result<()> {
    let failed = |error: TableError| io::Error::other(error.to_string());
    let tables = engine.tables.snapshot().map_err(failed)?;
    let Some(head) = catalog::applied(&tables).map_err(failed)? else {
        return stream.send(&Answer::Error {
            message: "nothing is applied here".to_owned(),
        });
    };
    stream.queue(&Answer::Snapshot(head))?;
    let mut hash = sha2::Sha256::default();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut flush = |block: &mut Vec<u8>, stream: &mut FrameStream| -> io::Result<()> {
        sha2::Digest::update(&mut hash, &*block);
        stream.queue_block(block, crate::base::digest::crc32c(block))?;
        block.clear();
        Ok(())
    };
    for (number, table) in Table::ALL.into_iter().enumerate() {
        let mut from = Vec::new();
        loop {
            let rows = tables.range(table, &from, None, 256).map_err(failed)?;
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (key, value) in rows {
                let row = rows::print(number, &key, &value)?;
                if block.len() + row.len() > BLOCK_BYTES {
                    flush(&mut block, stream)?;
                }
                block.extend_from_slice(&row);
            }
        }
    }
    flush(&mut block, stream)?;
    let digest = crate::base::digest::Sha256(sha2::Digest::finalize(hash).into());
    stream.send(&BodyEnd {
        sha256: Some(digest),
    })
}

/// Rows of a snapshot as bytes: table(1) key length(2) value length(4) key value.
pub mod rows {
    use std::io;

    use crate::base::limit::BLOCK_BYTES;
    use crate::base::table::Table;

    /// A row as bytes; refused when it would not fit into a block.
    pub fn print(table: usize, key: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
        let too_long = || io::Error::other("a row is too long for a snapshot");
        let mut row = Vec::with_capacity(7 + key.len() + value.len());
        row.push(u8::try_from(table).map_err(|_| too_long())?);
        row.extend_from_slice(
            &u16::try_from(key.len())
                .map_err(|_| too_long())?
                .to_le_bytes(),
        );
        row.extend_from_slice(
            &u32::try_from(value.len())
                .map_err(|_| too_long())?
                .to_le_bytes(),
        );
        row.extend_from_slice(key);
        row.extend_from_slice(value);
        if row.len() > BLOCK_BYTES {
            Err(too_long())
        } else {
            Ok(row)
        }
    }

    /// The first row of `bytes` and what follows it; `None` when it is not one.
    #[allow(clippy::type_complexity)]
    pub fn parse(bytes: &[u8]) -> Option<((Table, Vec<u8>, Vec<u8>), &[u8])> {
        let ([table, k0, k1, v0, v1, v2, v3], rest) = bytes.split_first_chunk::<7>()?;
        let table = *Table::ALL.get(usize::from(*table))?;
        let key = usize::from(u16::from_le_bytes([*k0, *k1]));
        let value = usize::try_from(u32::from_le_bytes([*v0, *v1, *v2, *v3])).ok()?;
        let (key, rest) = rest.split_at_checked(key)?;
        let (value, rest) = rest.split_at_checked(value)?;
        Some(((table, key.to_vec(), value.to_vec()), rest))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_row_parses_to_what_was_printed_and_a_cut_one_does_not() {
            let bytes = print(1, b"key", b"value").unwrap();
            let (row, rest) = parse(&bytes).unwrap();
            assert_eq!(row, (Table::Files, b"key".to_vec(), b"value".to_vec()));
            assert!(rest.is_empty());
            assert!((0..bytes.len()).all(|cut| parse(&bytes[..cut]).is_none()));
        }
    }
}

//! The catalog as JSON lines, written from one consistent view of the tables, a page of files at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::base::digest::{Sha256, crc32c};
use crate::base::limit::BLOCK_BYTES;
use crate::base::table::{TableError, Tables};
use crate::core::catalog::{self, query};
use crate::engine::admin::refusal;
use crate::engine::clock;
use crate::engine::frame::FrameStream;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::store::tables::TableSnapshot;
use crate::wire::admin::Answer;
use crate::wire::command::Code;
use crate::wire::lines::{End, Entry, FORMAT, Head, Line, Placed};
use crate::wire::peer::{BodyEnd, SnapshotHead};
use crate::wire::record::FileRecord;

/// Files looked up at a time.
const PAGE: usize = 256;
/// Longest pause of the receiver, which may have a slow disk.
const PACE: Duration = Duration::from_secs(30);

/// Sends the catalog as it stands here once everything acknowledged before is applied.
pub fn send(engine: &Arc<Engine>, stream: &mut FrameStream) -> io::Result<()> {
    let (catalog, head) = match open(engine) {
        Ok(opened) => opened,
        Err(failure) => return stream.send(&refusal(failure)),
    };
    stream.set_timeouts(PACE, PACE)?;
    stream.queue(&Answer::Export)?;
    let mut body = Body {
        stream,
        pending: Vec::with_capacity(2 * BLOCK_BYTES),
        hash: sha2::Sha256::default(),
    };
    let whole = match write(engine, &catalog, &head, &mut body) {
        Ok(()) => true,
        Err(Stop::Receiver(error)) => return Err(error),
        // The connection is still of use, only the copy is not: its end says so.
        Err(Stop::Stopping) => false,
        Err(Stop::Tables(error)) => {
            log::error!(target: "momo::export", "{error}");
            false
        }
    };
    body.end(whole)
}

fn open(engine: &Arc<Engine>) -> Result<(TableSnapshot, SnapshotHead), Failure> {
    if !engine.fresh() {
        let why = "no leader confirmed in time that the catalog here is up to date";
        return Err(Failure::refused(Code::Unavailable, why));
    }
    let catalog = engine.catalog()?;
    match catalog::applied(&catalog).map_err(tables_failed)? {
        Some(head) => Ok((catalog, head)),
        None => Err(Failure::refused(
            Code::Unavailable,
            "nothing is applied here",
        )),
    }
}

/// Why a copy is not whole.
enum Stop {
    Receiver(io::Error),
    Tables(TableError),
    Stopping,
}

impl From<TableError> for Stop {
    fn from(error: TableError) -> Self {
        Self::Tables(error)
    }
}

fn write(
    engine: &Engine,
    catalog: &TableSnapshot,
    head: &SnapshotHead,
    body: &mut Body<'_>,
) -> Result<(), Stop> {
    body.line(&Line::Catalog(Head {
        format: FORMAT,
        cluster: query::cluster(catalog)?.or(engine.report().cluster),
        index: head.index,
        term: head.term,
        time: clock::wall(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))?;
    for node in query::nodes(catalog)? {
        body.line(&Line::Node(node))?;
    }
    body.line(&Line::Mode(query::mode(catalog)?))?;
    let mut end = End::default();
    let mut after = String::new();
    loop {
        let page = query::list(catalog, "", &after, PAGE)?;
        let Some(last) = page.last() else { break };
        last.path.as_str().clone_into(&mut after);
        for record in page {
            let earlier = query::history(catalog, &record.path)?;
            let entry = Entry {
                newest: placed(catalog, record)?,
                earlier: earlier
                    .into_iter()
                    .map(|record| placed(catalog, record))
                    .collect::<Result<_, _>>()?,
            };
            end.files += 1;
            end.versions += 1 + entry.earlier.len() as u64;
            body.line(&Line::File(entry))?;
        }
        if engine.is_stopping() {
            return Err(Stop::Stopping);
        }
    }
    body.line(&Line::End(end))
}

fn placed(tables: &dyn Tables, record: FileRecord) -> Result<Placed, TableError> {
    let mut copies = Vec::with_capacity(record.parts.len());
    for part in &record.parts {
        let object = query::object(tables, &part.sha256)?;
        copies.push(object.map_or_else(Vec::new, |object| object.copies));
    }
    Ok(Placed { record, copies })
}

/// Lines on their way, in blocks.
struct Body<'a> {
    stream: &'a mut FrameStream,
    pending: Vec<u8>,
    hash: sha2::Sha256,
}

impl Body<'_> {
    fn line(&mut self, line: &Line) -> Result<(), Stop> {
        line.print(&mut self.pending);
        while self.pending.len() >= BLOCK_BYTES {
            let rest = self.pending.split_off(BLOCK_BYTES);
            let block = std::mem::replace(&mut self.pending, rest);
            self.block(&block).map_err(Stop::Receiver)?;
        }
        Ok(())
    }

    fn block(&mut self, block: &[u8]) -> io::Result<()> {
        sha2::Digest::update(&mut self.hash, block);
        self.stream.queue_block(block, crc32c(block))
    }

    fn end(mut self, whole: bool) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.block(&rest)?;
        }
        let digest = Sha256(sha2::Digest::finalize(self.hash).into());
        self.stream.send(&BodyEnd {
            sha256: whole.then_some(digest),
        })
    }
}

//! Reading a file: from this disk or a peer's, block by block, each verified; when a copy fails the next takes over at that byte.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::id::{NodeId, Version};
use crate::base::limit::{BLOCK_BYTES, BULK_WAIT};
use crate::base::path::FilePath;
use crate::core::catalog::query;
use crate::engine::bulk::Lent;
use crate::engine::permits::{BUSY, Permit, Purpose};
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::{Content, Failure, ReadFailure};
use crate::store::objects::ObjectReader;
use crate::wire::command::Code;
use crate::wire::peer::{Answer, Kind, Request};
use crate::wire::record::{FileRecord, Part};

/// Rounds over all holders before a read gives up.
const ROUNDS: usize = 2;
/// How long a holder that gives nothing is waited for, in the first round and while there is another one to ask.
const QUICK: Duration = Duration::from_millis(250);
/// How long a holder that was waited for in vain is asked after the others.
const SLOW: Duration = Duration::from_secs(2);

/// Holders that lately kept a read waiting. Not as grave as being suspect: it says nothing about writes.
#[derive(Debug, Default)]
pub struct Laggards {
    since: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Laggards {
    fn add(&self, node: NodeId) {
        self.since.lock().insert(node, Instant::now());
    }

    fn has(&self, node: NodeId) -> bool {
        let since = self.since.lock();
        since.get(&node).is_some_and(|at| at.elapsed() < SLOW)
    }
}

/// How much time a holder gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// There is another one to ask.
    Quick,
    /// It is the last one, or all have been asked.
    Patient,
}

impl Haste {
    /// What is left of a wait of `longest`.
    fn patience(self, longest: Duration) -> Duration {
        match self {
            Self::Quick => longest.min(QUICK),
            Self::Patient => longest,
        }
    }
}

/// Opens the newest version of a file, or the one asked for.
pub fn open(
    engine: &Arc<Engine>,
    path: &FilePath,
    version: Option<Version>,
) -> Result<Box<dyn Content>, Failure> {
    let stale = !engine.fresh();
    let catalog = engine.catalog()?;
    let newest = query::file(&catalog, path).map_err(tables_failed)?;
    let record = match (newest, version) {
        (Some(record), None) => Some(record),
        (newest, Some(version)) => match newest {
            Some(record) if record.version == version => Some(record),
            _ => query::history(&catalog, path)
                .map_err(tables_failed)?
                .into_iter()
                .find(|record| record.version == version),
        },
        (None, None) => None,
    };
    let Some(record) = record else {
        return Err(absent(stale));
    };
    let file = File {
        engine: Arc::clone(engine),
        record,
        stale,
    };
    // Rule R2: newest or nothing.
    for part in &file.record.parts {
        if file.sources(part)?.is_empty() {
            let why = format!("no copy of '{path}' is within reach, try again later");
            return Err(Failure::refused(Code::Unavailable, why));
        }
    }
    Ok(Box::new(file))
}

/// That a name is not in the catalog. What no leader confirms is not said as a fact (rule R1): the name may be there since.
pub fn absent(stale: bool) -> Failure {
    if stale {
        let why = "not known here, and no leader confirms that it is absent, try again later";
        Failure::refused(Code::Unavailable, why)
    } else {
        Failure::refused(Code::NotFound, "file not found")
    }
}

struct File {
    engine: Arc<Engine>,
    record: FileRecord,
    stale: bool,
}

impl File {
    /// Nodes that hold a part and can be reached: this one first.
    fn sources(&self, part: &Part) -> Result<Vec<NodeId>, Failure> {
        let catalog = self.engine.catalog()?;
        let object = query::object(&catalog, &part.sha256).map_err(tables_failed)?;
        let here = self.engine.node();
        let mut nodes: Vec<NodeId> = object
            .map(|object| object.copies.iter().map(|copy| copy.node).collect())
            .unwrap_or_default();
        if self.engine.holds(&part.sha256) {
            nodes.push(here);
        }
        nodes.retain(|node| {
            if *node == here {
                self.engine.holds(&part.sha256)
            } else {
                self.engine.is_up(*node)
            }
        });
        nodes.sort_unstable_by_key(|node| {
            let suspect = self.engine.peers.is_suspect(*node);
            (
                *node != here,
                suspect,
                self.engine.laggards.has(*node),
                *node,
            )
        });
        nodes.dedup();
        Ok(nodes)
    }

    fn copy_part(
        &self,
        part: &Part,
        mut offset: u64,
        end: u64,
        to: &mut dyn Write,
    ) -> Result<(), ReadFailure> {
        let mut last = "no copy is within reach".to_owned();
        let (mut rounds, mut reached) = (0, offset);
        // As long as bytes go on, however slowly the receiver takes them, there is no reason to give up.
        while rounds < ROUNDS {
            rounds += 1;
            let sources = self
                .sources(part)
                .map_err(|f| ReadFailure::Source(f.to_string()))?;
            for (nth, node) in sources.iter().enumerate() {
                let haste = if rounds <= 1 && nth + 1 < sources.len() {
                    Haste::Quick
                } else {
                    Haste::Patient
                };
                match self.copy_from(*node, haste, part, &mut offset, end, to) {
                    Ok(()) => return Ok(()),
                    Err(ReadFailure::Receiver(error)) => return Err(ReadFailure::Receiver(error)),
                    Err(ReadFailure::Source(why)) => {
                        log::warn!(
                            target: "momo::read_failover",
                            "'{}': copy on node {node} failed at byte {offset}: {why}",
                            self.record.path
                        );
                        last = why;
                        if offset > reached {
                            (rounds, reached) = (0, offset);
                        }
                    }
                }
            }
        }
        Err(ReadFailure::Source(format!(
            "'{}' at byte {offset}: {last}",
            self.record.path
        )))
    }

    /// Copies from one holder; `offset` says how far it came.
    fn copy_from(
        &self,
        node: NodeId,
        haste: Haste,
        part: &Part,
        offset: &mut u64,
        end: u64,
        to: &mut dyn Write,
    ) -> Result<(), ReadFailure> {
        let block_bytes = BLOCK_BYTES as u64;
        let (first, after) = (*offset / block_bytes, end.div_ceil(block_bytes));
        let mut source = if node == self.engine.node() {
            match self.engine.objects.reader(&part.sha256) {
                Ok(Some(reader)) if reader.size() == part.size => Source::Here(reader),
                Ok(_) => return Err(ReadFailure::Source("it is not there".to_owned())),
                Err(error) => {
                    self.engine.candidates.lost(part.sha256);
                    return Err(ReadFailure::Source(error.to_string()));
                }
            }
        } else {
            let permits = &self.engine.permits;
            let permit = permits
                .take(Purpose::Read, [node], haste.patience(BULK_WAIT))
                .ok_or_else(|| ReadFailure::Source(BUSY.to_owned()))?;
            Source::There(self.ask(node, haste, part, first..after)?, permit)
        };
        let mut block = Vec::new();
        for index in first..after {
            match source.next(index, &mut block) {
                Ok(()) => {}
                Err(Broken::Late(why)) => {
                    self.blame(node, haste);
                    return Err(ReadFailure::Source(why));
                }
                Err(Broken::Bad(why)) => {
                    if matches!(source, Source::Here(_)) {
                        // Looked at as a whole, and made again from another copy when it is bad.
                        self.engine.candidates.lost(part.sha256);
                    }
                    return Err(ReadFailure::Source(why));
                }
            }
            let start = index * block_bytes;
            let length = (part.size - start).min(block_bytes);
            if block.len() as u64 != length {
                return Err(ReadFailure::Source(
                    "a block of the wrong length".to_owned(),
                ));
            }
            let from = usize::try_from(*offset - start).unwrap_or(usize::MAX);
            let until = usize::try_from((end - start).min(length)).unwrap_or(usize::MAX);
            let wanted = block.get(from..until).unwrap_or_default();
            to.write_all(wanted).map_err(ReadFailure::Receiver)?;
            *offset += wanted.len() as u64;
            self.engine.scrub.moved(wanted.len());
        }
        if let Source::There(lent, _permit) = source {
            lent.keep();
        }
        Ok(())
    }

    /// A holder kept this read waiting.
    fn blame(&self, node: NodeId, haste: Haste) {
        match haste {
            Haste::Quick => self.engine.laggards.add(node),
            Haste::Patient => self.engine.peers.suspect(node),
        }
    }

    fn ask(
        &self,
        node: NodeId,
        haste: Haste,
        part: &Part,
        blocks: Range<u64>,
    ) -> Result<Lent, ReadFailure> {
        let source = |why: String| ReadFailure::Source(why);
        let patience = haste.patience(self.engine.settings.hop_stall);
        let failed = |error: io::Error| {
            if is_late(&error) {
                self.blame(node, haste);
            }
            source(error.to_string())
        };
        let lent = self.engine.peers.lend_within(node, patience);
        let mut lent = lent.map_err(failed)?;
        let request = Request::Read {
            sha256: part.sha256,
            block: blocks.start,
            count: blocks.end - blocks.start,
        };
        let answer: Answer = lent
            .stream
            .set_read_timeout(patience)
            .and_then(|()| lent.stream.send(&request))
            .and_then(|()| lent.stream.receive_value())
            .map_err(failed)?;
        match answer {
            Answer::Content { size } if size == part.size => Ok(lent),
            Answer::Error { message } => Err(source(message)),
            _ => Err(source("another object than the one asked for".to_owned())),
        }
    }
}

/// Whether an error says that the other side did nothing in time.
fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Why a source gives no more.
enum Broken {
    /// Nothing came in time.
    Late(String),
    /// It broke off, or what it has is bad.
    Bad(String),
}

enum Source {
    Here(ObjectReader),
    There(Lent, Permit),
}

impl Source {
    /// The next block, verified against its checksum.
    fn next(&mut self, index: u64, block: &mut Vec<u8>) -> Result<(), Broken> {
        match self {
            Self::Here(reader) => reader
                .read_block(index, block)
                .map(|_| ())
                .map_err(|error| Broken::Bad(error.to_string())),
            Self::There(lent, _) => match lent.stream.receive(block) {
                Ok(received) if received.kind == Kind::Block => Ok(()),
                Ok(_) => Err(Broken::Bad(serde_json::from_slice(block).map_or_else(
                    |_| "an answer where bytes were expected".to_owned(),
                    |answer| match answer {
                        Answer::Error { message } => message,
                        _ => "an answer where bytes were expected".to_owned(),
                    },
                ))),
                Err(error) if is_late(&error) => Err(Broken::Late(error.to_string())),
                Err(error) => Err(Broken::Bad(error.to_string())),
            },
        }
    }
}

impl Content for File {
    fn record(&self) -> &FileRecord {
        &self.record
    }

    fn stale(&self) -> bool {
        self.stale
    }

    fn copy_to(&mut self, offset: u64, length: u64, to: &mut dyn Write) -> Result<(), ReadFailure> {
        let end = offset.saturating_add(length).min(self.record.size);
        let mut start = 0;
        for part in &self.record.parts {
            let (from, until) = (offset.max(start), end.min(start + part.size));
            if from < until {
                self.copy_part(part, from - start, until - start, to)?;
            }
            start += part.size;
        }
        Ok(())
    }
}

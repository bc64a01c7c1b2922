//! The road of the bytes: a block comes in, is written here and passed on at the same time (cut-through), and at the end everyone syncs at once.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::base::digest::{Md5, Sha256};
use crate::base::id::{NodeId, OperationId};
use crate::base::limit::{BLOCK_BYTES, BULK_WAIT};
use crate::engine::bulk::Lent;
use crate::engine::permits::{BUSY, Purpose};
use crate::engine::shared::Engine;
use crate::store::objects::{Incoming, StoreError};
use crate::wire::peer::{Answer, BodyEnd, Hop, Missed, Request};
use crate::wire::record::Copy;

/// Slowest disk that is waited for at the end of a body, in bytes a second.
const SLOWEST_SYNC: u64 = 16 * 1024 * 1024;

/// One object on its way in: to this node's disk and to the hops behind it. Dropped unfinished, it leaves nothing here, and the hops discard what they have.
pub struct Intake {
    engine: Arc<Engine>,
    upload: OperationId,
    size: u64,
    passed: u64,
    incoming: Option<Incoming>,
    hops: Vec<Outgoing>,
    missed: Vec<Missed>,
}

struct Outgoing {
    lent: Lent,
    hop: Hop,
}

/// Where an object lies after its intake.
#[derive(Debug, Default)]
pub struct Landed {
    /// Durable copies, this node's first.
    pub copies: Vec<Copy>,
    /// Nodes that should have one and have not.
    pub missed: Vec<Missed>,
}

impl Intake {
    /// Opens this node's file (when `local`) and the connections to the hops. A hop that cannot be reached is left out, with those behind it.
    pub fn open(
        engine: &Arc<Engine>,
        upload: OperationId,
        size: u64,
        local: bool,
        hops: &[Hop],
    ) -> Self {
        let mut intake = Self {
            engine: Arc::clone(engine),
            upload,
            size,
            passed: 0,
            incoming: None,
            hops: Vec::with_capacity(hops.len()),
            missed: Vec::new(),
        };
        if local {
            match engine.objects.create(size, upload) {
                Ok(incoming) => intake.incoming = Some(incoming),
                Err(error) => intake.miss_here(&error),
            }
        }
        for hop in hops {
            let opened = engine.peers.lend(hop.node).and_then(|mut lent| {
                let next = hop.next.clone();
                // A hop that waits for one behind it takes no bytes meanwhile: it has its own time, and that one's.
                let (stall, depth) = (engine.peers.stall(), depth(hop));
                if depth > 1 {
                    lent.stream.set_timeouts(stall, stall * depth)?;
                }
                lent.stream.queue(&Request::Store {
                    upload,
                    part: 0,
                    size,
                    next,
                })?;
                Ok(lent)
            });
            match opened {
                Ok(lent) => intake.hops.push(Outgoing {
                    lent,
                    hop: hop.clone(),
                }),
                Err(error) => intake.miss(hop, &error),
            }
        }
        intake
    }

    /// True when nobody is left to keep the bytes.
    pub fn is_hopeless(&self) -> bool {
        self.incoming.is_none() && self.hops.is_empty()
    }

    /// Who is left out so far.
    pub fn missed(&self) -> &[Missed] {
        &self.missed
    }

    fn miss_here(&mut self, error: &StoreError) {
        self.incoming = None;
        self.missed.push(Missed {
            node: self.engine.node(),
            why: error.to_string(),
            stalled: true,
        });
    }

    fn miss(&mut self, hop: &Hop, error: &io::Error) {
        let stalled = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        );
        if stalled {
            self.engine.peers.suspect(hop.node);
        }
        self.missed.push(Missed {
            node: hop.node,
            why: error.to_string(),
            stalled,
        });
        let mut behind: Vec<&Hop> = hop.next.iter().collect();
        while let Some(next) = behind.pop() {
            self.missed.push(Missed {
                node: next.node,
                why: format!("behind node {}", hop.node),
                stalled: false,
            });
            behind.extend(&next.next);
        }
    }

    /// Takes the next block: full blocks, then a shorter last one. `crc` is its CRC32C, already known to be right.
    pub fn block(&mut self, bytes: &[u8], crc: u32) {
        self.passed += bytes.len() as u64;
        self.engine.scrub.moved(bytes.len());
        let mut broken = Vec::new();
        for (position, outgoing) in self.hops.iter_mut().enumerate() {
            if let Err(error) = outgoing.lent.stream.queue_block(bytes, crc) {
                broken.push((position, error));
            }
        }
        for (position, error) in broken.into_iter().rev() {
            let outgoing = self.hops.remove(position);
            outgoing.lent.stream.close();
            self.miss(&outgoing.hop, &error);
        }
        if let Some(incoming) = &mut self.incoming
            && let Err(error) = incoming.write(bytes, crc)
        {
            self.miss_here(&error);
        }
    }

    /// The bytes are void: the hops are told, nothing is left here.
    pub fn give_up(mut self) {
        for mut outgoing in self.hops.drain(..) {
            // Only at the end of the body can the connection be used again.
            let told = outgoing.lent.stream.send(&BodyEnd { sha256: None }).is_ok();
            if told && self.passed == self.size {
                let _ = outgoing.lent.stream.receive_value::<Answer>();
            }
            outgoing.lent.stream.close();
        }
    }

    /// All bytes are in: everybody syncs at the same time. Returns when all that answer have done so.
    pub fn finish(mut self, sha256: Sha256) -> Landed {
        assert_eq!(self.passed, self.size, "a body ends where its header said");
        let mut landed = Landed::default();
        let mut waiting = Vec::with_capacity(self.hops.len());
        for mut outgoing in std::mem::take(&mut self.hops) {
            let patience = patience(&self.engine, self.size, depth(&outgoing.hop));
            let end = BodyEnd {
                sha256: Some(sha256),
            };
            let told = outgoing
                .lent
                .stream
                .send(&end)
                .and_then(|()| outgoing.lent.stream.set_read_timeout(patience));
            match told {
                Ok(()) => waiting.push(outgoing),
                Err(error) => self.miss(&outgoing.hop, &error),
            }
        }
        if let Some(incoming) = self.incoming.take() {
            self.engine.pins.pin(self.upload, sha256);
            let others = || self.engine.pins.others(self.upload, &sha256);
            match incoming.seal(&sha256, &others) {
                Ok(dir) => landed.copies.push(Copy {
                    node: self.engine.node(),
                    dir,
                }),
                Err(error) => self.miss_here(&error),
            }
        }
        for mut outgoing in waiting {
            match outgoing.lent.stream.receive_value::<Answer>() {
                Ok(Answer::Stored { copies, missed }) => {
                    landed.copies.extend(copies);
                    // What a hop found out about those behind it is known here too.
                    for one in missed.iter().filter(|one| one.stalled) {
                        if one.node != outgoing.hop.node {
                            self.engine.peers.suspect(one.node);
                        }
                    }
                    self.missed.extend(missed);
                    outgoing.lent.keep();
                }
                Ok(Answer::Error { message }) => {
                    self.miss(&outgoing.hop, &io::Error::other(message));
                    outgoing.lent.stream.close();
                }
                Ok(_) => {
                    self.miss(
                        &outgoing.hop,
                        &io::Error::other("an answer to another question"),
                    );
                    outgoing.lent.stream.close();
                }
                Err(error) => {
                    outgoing.lent.stream.close();
                    self.miss(&outgoing.hop, &error);
                }
            }
        }
        landed.missed = std::mem::take(&mut self.missed);
        landed
    }
}

fn depth(hop: &Hop) -> u32 {
    1 + hop.next.iter().map(depth).max().unwrap_or(0)
}

fn patience(engine: &Engine, size: u64, depth: u32) -> Duration {
    (engine.settings.hop_stall + Duration::from_secs(size / SLOWEST_SYNC)) * depth
}

/// Rule R11: sends an object that lies here to a node that was left out.
pub fn send_from_disk(
    engine: &Arc<Engine>,
    upload: OperationId,
    sha256: Sha256,
    to: NodeId,
) -> io::Result<Landed> {
    let Some(mut reader) = engine.objects.reader(&sha256).map_err(store_failed)? else {
        return Err(io::Error::other("it is not here"));
    };
    let Some(_permit) = engine.permits.take(Purpose::Mend, [to], BULK_WAIT) else {
        return Err(io::Error::other(BUSY));
    };
    let hop = Hop {
        node: to,
        next: Vec::new(),
    };
    let mut intake = Intake::open(engine, upload, reader.size(), false, &[hop]);
    let mut block = Vec::new();
    for index in 0..reader.block_count() {
        match reader.read_block(index, &mut block) {
            Ok(crc) => intake.block(&block, crc),
            Err(error) => {
                intake.give_up();
                return Err(store_failed(error));
            }
        }
        if intake.is_hopeless() {
            break;
        }
    }
    if intake.is_hopeless() {
        return Ok(Landed {
            copies: Vec::new(),
            missed: intake.missed.clone(),
        });
    }
    Ok(intake.finish(sha256))
}

/// MD5 of an object that lies here.
pub fn md5_of(engine: &Engine, sha256: Sha256) -> io::Result<Md5> {
    let Some(mut reader) = engine.objects.reader(&sha256).map_err(store_failed)? else {
        return Err(io::Error::other("it is not here"));
    };
    let (mut md5, mut block) = (md5::Md5::default(), Vec::new());
    for index in 0..reader.block_count() {
        reader.read_block(index, &mut block).map_err(store_failed)?;
        md5::Digest::update(&mut md5, &block);
    }
    Ok(Md5(md5::Digest::finalize(md5).into()))
}

/// A failure of the store as an IO error.
#[allow(clippy::needless_pass_by_value)]
pub fn store_failed(error: StoreError) -> io::Error {
    io::Error::other(error.to_string())
}

/// What hashing a body gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of the whole body.
    pub sha256: Sha256,
    /// The same, when asked for.
    pub md5: Option<Md5>,
}

/// Why a body did not come in whole.
#[derive(Debug)]
pub enum Interrupted {
    /// The sender broke off or stalled.
    Body(io::Error),
    /// Nobody is left to keep it.
    Hopeless,
}

/// Reads `size` bytes (at least one) from `body` into `intake`, hashing them on the way; MD5 on a second thread where there is more than one block.
pub fn receive(
    intake: &mut Intake,
    body: &mut dyn Read,
    size: u64,
    with_md5: bool,
) -> Result<Digests, Interrupted> {
    if with_md5 && size > BLOCK_BYTES as u64 {
        return beside::receive(intake, body, size);
    }
    let mut hasher = Hasher::new(with_md5);
    let mut left = size;
    let mut block = vec![0; block_length(left)];
    while left > 0 {
        let length = block_length(left);
        let block = &mut block[..length];
        body.read_exact(block).map_err(Interrupted::Body)?;
        let crc = crate::base::digest::crc32c(block);
        hasher.update(block);
        intake.block(block, crc);
        if intake.is_hopeless() {
            return Err(Interrupted::Hopeless);
        }
        left -= length as u64;
    }
    Ok(hasher.finish())
}

fn block_length(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES)
}

struct Hasher {
    sha256: sha2::Sha256,
    md5: Option<md5::Md5>,
}

impl Hasher {
    fn new(with_md5: bool) -> Self {
        Self {
            sha256: sha2::Sha256::default(),
            md5: with_md5.then(md5::Md5::default),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.sha256, bytes);
        if let Some(md5) = &mut self.md5 {
            md5::Digest::update(md5, bytes);
        }
    }

    fn finish(self) -> Digests {
        Digests {
            sha256: Sha256(sha2::Digest::finalize(self.sha256).into()),
            md5: self.md5.map(|md5| Md5(md5::Digest::finalize(md5).into())),
        }
    }
}

/// MD5 beside everything else: blocks go to a second thread when this one is done with them, and come back empty.
mod beside {
    use std::io::{self, Read};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use crossbeam_channel::bounded;

    use super::{Digests, Hasher, Intake, Interrupted, block_length};
    use crate::base::digest::{Md5, crc32c};
    use crate::base::limit::{BLOCK_BYTES, BLOCKS_IN_FLIGHT};

    /// Blocks of an upload whatever the others do: one that is read, one that is hashed.
    const LEAST: usize = 2;
    /// Blocks beyond those, of all uploads together: a thousand uploads at once must not take gigabytes.
    const SPARE: usize = 32 * BLOCKS_IN_FLIGHT;
    static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

    /// Spare blocks of one upload; given back when dropped.
    struct Spare(usize);

    impl Spare {
        fn take(&mut self) -> bool {
            let taken = SPARE_USED.fetch_add(1, Ordering::Relaxed) < SPARE;
            if taken {
                self.0 += 1;
            } else {
                SPARE_USED.fetch_sub(1, Ordering::Relaxed);
            }
            taken
        }
    }

    impl Drop for Spare {
        fn drop(&mut self) {
            SPARE_USED.fetch_sub(self.0, Ordering::Relaxed);
        }
    }

    pub(super) fn receive(
        intake: &mut Intake,
        body: &mut dyn Read,
        size: u64,
    ) -> Result<Digests, Interrupted> {
        let (full, to_hash) = bounded::<Vec<u8>>(BLOCKS_IN_FLIGHT);
        let (empty, to_fill) = bounded::<Vec<u8>>(BLOCKS_IN_FLIGHT + 1);
        thread::scope(|scope| {
            let hashing = thread::Builder::new()
                .name("md5".into())
                .stack_size(128 * 1024);
            let hashing = hashing
                .spawn_scoped(scope, move || {
                    let mut md5 = md5::Md5::default();
                    for block in to_hash {
                        md5::Digest::update(&mut md5, &block);
                        // The receiver is gone once the whole body is read.
                        let _ = empty.try_send(block);
                    }
                    Md5(md5::Digest::finalize(md5).into())
                })
                .map_err(Interrupted::Body)?;
            let mut hasher = Hasher::new(false);
            let mut made = 0;
            let mut spare = Spare(0);
            let mut left = size;
            while left > 0 {
                let mut block = match to_fill.try_recv() {
                    Ok(block) => block,
                    Err(_) if made < LEAST || (made < BLOCKS_IN_FLIGHT && spare.take()) => {
                        made += 1;
                        vec![0; BLOCK_BYTES]
                    }
                    Err(_) => to_fill.recv().map_err(|_| gone())?,
                };
                let length = block_length(left);
                block.resize(length, 0);
                body.read_exact(&mut block).map_err(Interrupted::Body)?;
                hasher.update(&block);
                intake.block(&block, crc32c(&block));
                if intake.is_hopeless() {
                    return Err(Interrupted::Hopeless);
                }
                left -= length as u64;
                full.send(block).map_err(|_| gone())?;
            }
            drop(full);
            let md5 = hashing.join().map_err(|_| gone())?;
            Ok(Digests {
                md5: Some(md5),
                ..hasher.finish()
            })
        })
    }

    fn gone() -> Interrupted {
        Interrupted::Body(io::Error::other("the hashing thread is gone"))
    }
}

//! Bytes on their way between a file and a socket, hashed while they pass: small ones in this thread, large ones with hashing
//! (and writing) on threads of their own.

use std::io::{self, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::Digest;

use super::progress::Progress;
use crate::base::digest::Sha256;
use crate::base::limit::{BLOCK_BYTES, BLOCKS_IN_FLIGHT};

/// Up to this size a thread would cost more than it gives.
const INLINE_BYTES: u64 = 64 * 1024;

/// Which end failed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes could not be read, or ended early.
    Source(io::Error),
    /// They could not be written.
    Sink(io::Error),
}

/// Sends `head` and then `size` bytes of `source` to `sink`; the digest of the bytes. Up to [`INLINE_BYTES`] all of it leaves in one write.
pub(super) fn send(
    head: &[u8],
    source: &mut impl Read,
    size: u64,
    sink: &mut impl Write,
    progress: &Progress,
) -> Result<Sha256, Stop> {
    if size <= INLINE_BYTES {
        let mut bytes = head.to_vec();
        let start = bytes.len();
        bytes.resize(start + usize::try_from(size).unwrap_or_default(), 0);
        let body = bytes.get_mut(start..).unwrap_or_default();
        source.read_exact(body).map_err(Stop::Source)?;
        let sha256 = Sha256(sha2::Sha256::digest(body).into());
        sink.write_all(&bytes).map_err(Stop::Sink)?;
        progress.add(size);
        return Ok(sha256);
    }
    sink.write_all(head).map_err(Stop::Sink)?;
    thread::scope(|scope| {
        let (blocks, to_hash) = bounded(BLOCKS_IN_FLIGHT);
        let (free, empty) = pool();
        let hasher = scope.spawn(move || hash(&to_hash, &free));
        let mut left = size;
        while left > 0 {
            let mut block = next_block(&empty, left)?;
            source.read_exact(&mut block).map_err(Stop::Source)?;
            sink.write_all(&block).map_err(Stop::Sink)?;
            let length = length(&block);
            left -= length;
            progress.add(length);
            blocks.send(block).map_err(|_| Stop::Sink(gone()))?;
        }
        drop(blocks);
        hasher.join().map_err(|_| Stop::Sink(gone()))
    })
}

/// Takes `size` bytes from `source` into `sink`; the digest of the bytes.
pub(super) fn receive(
    source: &mut impl Read,
    size: u64,
    sink: &mut (impl Write + Send),
    progress: &Progress,
) -> Result<Sha256, Stop> {
    if size <= INLINE_BYTES {
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        source.read_exact(&mut body).map_err(Stop::Source)?;
        sink.write_all(&body).map_err(Stop::Sink)?;
        progress.add(size);
        return Ok(Sha256(sha2::Sha256::digest(&body).into()));
    }
    thread::scope(|scope| {
        let (received, to_write) = bounded::<Vec<u8>>(BLOCKS_IN_FLIGHT);
        let (written, to_hash) = bounded(BLOCKS_IN_FLIGHT);
        let (free, empty) = pool();
        let hasher = scope.spawn(move || hash(&to_hash, &free));
        let writer = scope.spawn(move || -> io::Result<()> {
            for block in to_write {
                sink.write_all(&block)?;
                written.send(block).map_err(|_| gone())?;
            }
            sink.flush()
        });
        let mut left = size;
        let mut read = || -> Result<(), Stop> {
            while left > 0 {
                let mut block = next_block(&empty, left)?;
                source.read_exact(&mut block).map_err(Stop::Source)?;
                let length = length(&block);
                left -= length;
                progress.add(length);
                received.send(block).map_err(|_| Stop::Sink(gone()))?;
            }
            Ok(())
        };
        let result = read();
        drop(received);
        // The writer knows better than the channel why it ended.
        writer
            .join()
            .map_err(|_| Stop::Sink(gone()))?
            .map_err(Stop::Sink)?;
        result?;
        hasher.join().map_err(|_| Stop::Sink(gone()))
    })
}

/// Hashes blocks in order and gives them back.
fn hash(blocks: &Receiver<Vec<u8>>, free: &Sender<Vec<u8>>) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    for block in blocks {
        hasher.update(&block);
        // Nobody takes blocks back once the last one is on its way.
        let _ = free.send(block);
    }
    Sha256(hasher.finalize().into())
}

/// As many blocks as may be on their way at the same time.
fn pool() -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let (free, empty) = bounded(BLOCKS_IN_FLIGHT);
    for _ in 0..BLOCKS_IN_FLIGHT {
        let _ = free.send(Vec::new());
    }
    (free, empty)
}

/// A block of the size that is next.
fn next_block(empty: &Receiver<Vec<u8>>, left: u64) -> Result<Vec<u8>, Stop> {
    let mut block = empty.recv().map_err(|_| Stop::Sink(gone()))?;
    block.resize(
        usize::try_from(left)
            .unwrap_or(BLOCK_BYTES)
            .min(BLOCK_BYTES),
        0,
    );
    Ok(block)
}

fn length(block: &[u8]) -> u64 {
    u64::try_from(block.len()).unwrap_or(u64::MAX)
}

fn gone() -> io::Error {
    io::Error::other("a thread of this transfer ended early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;

    #[test]
    fn bytes_arrive_whole_with_their_digest_at_every_size() {
        let block = u64::try_from(BLOCK_BYTES).unwrap();
        for size in [
            0,
            1,
            INLINE_BYTES,
            INLINE_BYTES + 1,
            block,
            block + 1,
            20 * block + 7,
        ] {
            let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let progress = Progress::new("", size, true);
            let mut sent = Vec::new();
            let digest =
                send(b"head\n", &mut bytes.as_slice(), size, &mut sent, &progress).unwrap();
            assert_eq!(digest, sha256(&bytes));
            assert!(sent.starts_with(b"head\n") && sent[5..] == bytes);
            let mut back = Vec::new();
            let digest = receive(&mut bytes.as_slice(), size, &mut back, &progress).unwrap();
            assert_eq!(digest, sha256(&bytes));
            assert!(back == bytes);
        }
    }

    #[test]
    fn an_early_end_and_a_full_disk_are_told_apart() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let bytes = vec![1; 3 * BLOCK_BYTES];
        for size in [10, u64::try_from(bytes.len()).unwrap() - 1] {
            let progress = Progress::new("", size, true);
            let full = receive(&mut bytes.as_slice(), size, &mut Full, &progress).unwrap_err();
            assert!(
                matches!(full, Stop::Sink(error) if error.kind() == io::ErrorKind::StorageFull)
            );
            let short = &bytes[..usize::try_from(size).unwrap() - 1];
            let mut back = Vec::new();
            let early = receive(&mut &*short, size, &mut back, &progress).unwrap_err();
            assert!(matches!(early, Stop::Source(_)));
        }
    }
}

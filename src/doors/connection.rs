//! What a door asks of its connection, and how it guards against peers that are slow on purpose.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Mono;

/// A connection: buffered both ways, blocking, with a deadline on every read.
///
/// `write` may keep bytes until `flush`; `write_vectored` of more than the buffer holds should become one system call. Every write has a timeout
/// of its own, the server's. An error of any call ends the connection.
pub trait Wire: BufRead + Write {
    /// Who is at the other end.
    fn peer(&self) -> SocketAddr;

    /// Whether the other end is on this machine.
    fn loopback(&self) -> bool {
        self.peer().ip().to_canonical().is_loopback()
    }

    /// Bytes that are already here: reading them does not wait.
    fn pending(&self) -> &[u8];

    /// The clock of deadlines.
    fn now(&self) -> Mono;

    /// From now on, reads that would wait beyond `deadline` fail with `TimedOut` or `WouldBlock`; bytes already here are still given.
    /// `wait` says what is waited for: in [`Wait::Idle`] the server may end the connection when it needs the slot.
    fn set_deadline(&mut self, wait: Wait, deadline: Mono);

    /// Flushes, and says that no more will be written (the other end reads to its end and sees the end). Reading goes on.
    fn finish(&mut self) -> io::Result<()>;

    /// Drops what is not flushed and makes the coming close a reset, so that the other end cannot take what it has for the whole.
    fn abort(&mut self);
}

/// What a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The next request, if there is one.
    Idle,
    /// The rest of a request's head.
    Head,
    /// A body.
    Body,
    /// The other end's close, after the last answer.
    Close,
}

/// Patience and sizes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a connection may rest between requests.
    pub idle: Duration,
    /// How long the head of a request may take, all of it.
    pub head: Duration,
    /// How long a body may bring less than [`PACE_BYTES`], counted only while it is waited for.
    pub stall: Duration,
    /// How long a closed conversation waits for the other end's close, so that no reset overtakes the last answer.
    pub close: Duration,
    /// Largest file taken, in bytes.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(5),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            close: Duration::from_secs(1),
            file_bytes: crate::base::limit::FILE_BYTES,
        }
    }
}

/// What a body must bring in every [`Limits::stall`] of waiting: a peer that drips below it is given up.
pub const PACE_BYTES: u64 = 4 * 1024;
/// What is read and thrown away of a connection that is being closed, at most.
pub const CLOSE_BYTES: u64 = 1024 * 1024;

/// A body of known size on a connection: gives exactly that many bytes, or fails.
pub struct Body<'a> {
    wire: &'a mut dyn Wire,
    left: u64,
    stall: Duration,
    /// Bytes and waiting since the pace was last met.
    brought: u64,
    waited: Duration,
}

impl<'a> Body<'a> {
    /// The next `size` bytes of `wire`.
    pub fn new(wire: &'a mut dyn Wire, size: u64, limits: &Limits) -> Self {
        Self {
            wire,
            left: size,
            stall: limits.stall,
            brought: 0,
            waited: Duration::ZERO,
        }
    }

    /// Bytes not yet read.
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Reads what is left and throws it away, for at most `patience`.
    pub fn skip(&mut self, patience: Duration) -> io::Result<()> {
        let end = self.wire.now() + patience;
        let mut block = [0; 16 * 1024];
        while self.left > 0 {
            if self.wire.now() >= end {
                return Err(ErrorKind::TimedOut.into());
            }
            let _ = self.read(&mut block)?;
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(to.len());
        let Some(to) = to.get_mut(..most).filter(|to| !to.is_empty()) else {
            return Ok(0);
        };
        let start = self.wire.now();
        let deadline = start + self.stall.saturating_sub(self.waited);
        self.wire.set_deadline(Wait::Body, deadline);
        let count = match self.wire.read(to) {
            Ok(0) => {
                let message = format!("the body ended {} bytes short", self.left);
                return Err(io::Error::new(ErrorKind::UnexpectedEof, message));
            }
            Err(error) if is_timeout(&error) => {
                let message = format!("the body stalled {} bytes short", self.left);
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            other => other?,
        };
        let bytes = u64::try_from(count).unwrap_or(self.left).min(self.left);
        self.left -= bytes;
        self.brought += bytes;
        self.waited += self.wire.now() - start;
        if self.brought >= PACE_BYTES {
            (self.brought, self.waited) = (0, Duration::ZERO);
        }
        Ok(count)
    }
}

/// Whether an error says that a deadline passed.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Fills `to` within [`Limits::head`]; how many bytes came before the end of the input.
pub fn read_head(wire: &mut dyn Wire, limits: &Limits, to: &mut [u8]) -> io::Result<usize> {
    let deadline = wire.now() + limits.head;
    wire.set_deadline(Wait::Head, deadline);
    let mut filled = 0;
    while let Some(rest) = to.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match wire.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Ends a conversation: flushes, closes this side, and reads a little of what still comes, since closing on unread bytes would be a reset
/// that overtakes the last answer. Errors are of no interest any more.
pub fn hang_up(wire: &mut dyn Wire, limits: &Limits) {
    if wire.finish().is_err() {
        return;
    }
    let deadline = wire.now() + limits.close;
    wire.set_deadline(Wait::Close, deadline);
    let mut dropped = 0;
    while dropped < CLOSE_BYTES && wire.now() <= deadline {
        let count = match wire.fill_buf() {
            Ok([]) => return,
            Ok(bytes) => bytes.len(),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        wire.consume(count);
        dropped += count as u64;
    }
}

/// A body on its way out behind a head that leaves together with its first bytes, and only with them.
pub struct Headed<'a> {
    wire: &'a mut dyn Wire,
    head: Vec<u8>,
    /// Bytes of the head that have left.
    sent: usize,
    started: bool,
    /// Bytes of the body that have left.
    body: u64,
}

impl<'a> Headed<'a> {
    /// Nothing leaves until the body's first byte or [`Headed::finish`].
    pub const fn new(wire: &'a mut dyn Wire, head: Vec<u8>) -> Self {
        Self {
            wire,
            head,
            sent: 0,
            started: false,
            body: 0,
        }
    }

    /// Whether anything was written: if not, another answer can still be given.
    pub const fn started(&self) -> bool {
        self.started
    }

    /// Bytes of the body written.
    pub const fn body(&self) -> u64 {
        self.body
    }

    /// Writes what is left of the head: all of it where the body was empty.
    pub fn finish(self) -> io::Result<()> {
        self.wire
            .write_all(self.head.get(self.sent..).unwrap_or_default())
    }
}

impl Write for Headed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.started = true;
        let count = loop {
            let head = self.head.get(self.sent..).unwrap_or_default();
            if head.is_empty() {
                break self.wire.write(bytes)?;
            }
            let length = head.len();
            let count = self
                .wire
                .write_vectored(&[IoSlice::new(head), IoSlice::new(bytes)])?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.sent += count.min(length);
            if count > length {
                break count - length;
            }
        };
        self.body += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

//! Frames over a socket: one buffered reader, one gathering writer, a deadline on every call.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::digest::crc32c;
use crate::wire::peer::{HEADER_BYTES, Header, Kind};

/// A socket that several threads may hold (one speaks, another may end it), with what was already read from it.
#[derive(Clone, Debug)]
pub struct SharedSocket {
    socket: Arc<TcpStream>,
    ahead: Vec<u8>,
    /// How long one read may wait in all.
    patience: Duration,
    /// The read timeout the socket has: a read is begun again until `patience` is over, so that changing it costs no system call.
    timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl SharedSocket {
    /// A socket from which `ahead` was read and not used.
    pub fn new(socket: Arc<TcpStream>, ahead: Vec<u8>) -> Self {
        Self {
            socket,
            ahead,
            patience: SLICE,
            timeout: None,
            write_timeout: None,
        }
    }

    /// The socket itself.
    pub fn get(&self) -> &TcpStream {
        &self.socket
    }
}

impl SharedSocket {
    /// Bounds every single read from now on.
    pub fn set_read_timeout(&mut self, patience: Duration) -> io::Result<()> {
        self.patience = patience;
        let timeout = patience.min(SLICE);
        if self.timeout != Some(timeout) {
            self.socket.set_read_timeout(Some(timeout))?;
            self.timeout = Some(timeout);
        }
        Ok(())
    }

    /// Bounds from now on how long the other side may take no bytes at all. The socket's own timeout is a part of that:
    /// a write that stops in the middle starts it anew, and the bound would be twice what was asked for.
    pub fn set_write_timeout(&mut self, patience: Duration) -> io::Result<()> {
        let timeout = (patience / WRITE_SLICES).max(Duration::from_millis(1));
        if self.write_timeout != Some(timeout) {
            self.socket.set_write_timeout(Some(timeout))?;
            self.write_timeout = Some(timeout);
        }
        Ok(())
    }

    /// Writes both, one behind the other.
    fn send(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        let mut idle = 0;
        while !(first.is_empty() && second.is_empty()) {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            match (&*self.socket).write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    idle = 0;
                    let of_first = sent.min(first.len());
                    first = &first[of_first..];
                    second = &second[sent - of_first..];
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    idle += 1;
                    if idle >= WRITE_SLICES {
                        return Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for SharedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            let mut waited = Duration::ZERO;
            loop {
                match (&*self.socket).read(buffer) {
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                        ) =>
                    {
                        waited += self.timeout.unwrap_or(SLICE);
                        if waited >= self.patience {
                            return Err(error);
                        }
                    }
                    other => return other,
                }
            }
        }
        let count = self.ahead.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(self.ahead.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for SharedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Longest read timeout of a socket; longer patience is several of them.
const SLICE: Duration = Duration::from_secs(1);

/// A write waits in so many parts.
const WRITE_SLICES: u32 = 4;

/// Frames up to this size are gathered before they are written.
const GATHER_BYTES: usize = 32 * 1024;

/// A connection to a peer, after its handshake.
#[derive(Debug)]
pub struct FrameStream {
    input: BufReader<SharedSocket>,
    gathered: Vec<u8>,
}

/// A frame that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it carries.
    pub kind: Kind,
    /// CRC32C of its payload, already compared.
    pub crc: u32,
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl FrameStream {
    /// Takes over a socket whose handshake is done; `input` may hold bytes already read.
    pub fn new(input: BufReader<SharedSocket>) -> Self {
        Self {
            input,
            gathered: Vec::new(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.input.get_ref().get()
    }

    /// Bounds every single read and write from now on.
    pub fn set_timeouts(&mut self, read: Duration, write: Duration) -> io::Result<()> {
        self.input.get_mut().set_read_timeout(read)?;
        self.input.get_mut().set_write_timeout(write)
    }

    /// Bounds every single read from now on.
    pub fn set_read_timeout(&mut self, read: Duration) -> io::Result<()> {
        self.input.get_mut().set_read_timeout(read)
    }

    /// True while nothing has come in unasked and the other side has not closed: a pooled connection that may be used again.
    pub fn is_quiet(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.input.buffer().is_empty()
            && recv(self.socket(), &mut [0], flags).err() == Some(rustix::io::Errno::AGAIN)
    }

    /// Ends the connection in both directions.
    pub fn close(&self) {
        let _ = self.socket().shutdown(Shutdown::Both);
    }

    /// Gathers a JSON frame; [`Self::flush`] sends it.
    pub fn queue<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let payload = serde_json::to_vec(value)?;
        self.queue_frame(Kind::Control, &payload, crc32c(&payload))
    }

    /// Gathers a Raft message.
    pub fn queue_raft(&mut self, payload: &[u8]) -> io::Result<()> {
        self.queue_frame(Kind::Raft, payload, crc32c(payload))
    }

    /// Gathers or sends a block whose CRC32C is known.
    pub fn queue_block(&mut self, payload: &[u8], crc: u32) -> io::Result<()> {
        self.queue_frame(Kind::Block, payload, crc)
    }

    fn queue_frame(&mut self, kind: Kind, payload: &[u8], crc: u32) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| bad("frame too long"))?;
        let header = Header { kind, length, crc };
        if Header::parse(header.print()).is_none() {
            return Err(bad("frame too long"));
        }
        self.gathered.extend_from_slice(&header.print());
        if self.gathered.len() + payload.len() <= GATHER_BYTES {
            self.gathered.extend_from_slice(payload);
            return Ok(());
        }
        self.input.get_ref().send(&self.gathered, payload)?;
        self.gathered.clear();
        Ok(())
    }

    /// Sends what is gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let sent = self.input.get_ref().send(&self.gathered, &[]);
        self.gathered.clear();
        sent
    }

    /// Sends one JSON frame.
    pub fn send<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        self.queue(value)?;
        self.flush()
    }

    /// Reads a frame of any kind into `payload`, its CRC compared.
    pub fn receive(&mut self, payload: &mut Vec<u8>) -> io::Result<Received> {
        let mut header = [0; HEADER_BYTES];
        self.input.read_exact(&mut header)?;
        let header = Header::parse(header).ok_or_else(|| bad("not a frame, or too long"))?;
        payload.resize(header.length as usize, 0);
        self.input.read_exact(payload)?;
        if crc32c(payload) != header.crc {
            return Err(bad("a frame's checksum is wrong"));
        }
        Ok(Received {
            kind: header.kind,
            crc: header.crc,
        })
    }

    /// True when bytes that were not asked for yet are here already.
    pub fn has_buffered(&self) -> bool {
        !self.input.buffer().is_empty()
    }

    /// Waits for the first byte of a frame, as long as one read may take. False when the other side has closed.
    pub fn wait(&mut self) -> io::Result<bool> {
        self.input.fill_buf().map(|bytes| !bytes.is_empty())
    }

    /// Reads a JSON frame.
    pub fn receive_value<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut payload = Vec::new();
        match self.receive(&mut payload)?.kind {
            Kind::Control => Ok(serde_json::from_slice(&payload)?),
            Kind::Raft | Kind::Block => Err(bad("a control frame was expected")),
        }
    }
}

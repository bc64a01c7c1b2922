//! A connection: its buffers and deadlines, the register of all of them, and the way from the first bytes to a door.

use std::collections::HashMap;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;

use crate::base::limit::IDLE_BUFFER_BYTES;
use crate::base::time::Mono;
use crate::doors::{Wait, Wire};
use crate::engine::clock;
use crate::wire::first::{DECIDED_BYTES, First, Protocol, first};

/// Longest read timeout of a socket; later deadlines are several of them.
const SLICE: Duration = Duration::from_secs(5);
/// Bytes gathered before they are written.
const OUTPUT_BYTES: usize = 16 * 1024;
const _: () = assert!(DECIDED_BYTES <= IDLE_BUFFER_BYTES);

/// All open connections: for shutdown, and to find the one that has been idle longest.
#[derive(Debug, Default)]
pub struct Register {
    entries: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
}

#[derive(Clone, Debug)]
struct Entry {
    socket: Arc<TcpStream>,
    /// Microseconds of the forward-only clock since when it waits for a request; 0 while it is busy.
    idle_since: Arc<AtomicU64>,
    /// Another node of the cluster: stays until the node itself stops.
    peer: Arc<AtomicBool>,
}

/// A connection's place in the register; gives it up when dropped.
#[derive(Debug)]
pub struct Registered {
    register: Arc<Register>,
    number: u64,
    idle_since: Arc<AtomicU64>,
    peer: Arc<AtomicBool>,
}

impl Registered {
    /// It has proved to be another node of the cluster.
    pub fn is_peer(&self) {
        self.peer.store(true, Ordering::Relaxed);
    }
}

impl Register {
    fn add(self: &Arc<Self>, socket: &Arc<TcpStream>) -> Registered {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let idle_since = Arc::new(AtomicU64::new(0));
        let peer = Arc::new(AtomicBool::new(false));
        let entry = Entry {
            socket: Arc::clone(socket),
            idle_since: Arc::clone(&idle_since),
            peer: Arc::clone(&peer),
        };
        self.entries.lock().insert(number, entry);
        Registered {
            register: Arc::clone(self),
            number,
            idle_since,
            peer,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// How many of them are other nodes.
    pub fn peers(&self) -> usize {
        self.entries
            .lock()
            .values()
            .filter(|entry| entry.peer.load(Ordering::Relaxed))
            .count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the connection that has waited for a request longest; false when none waits.
    pub fn end_idlest(&self) -> bool {
        let idlest = self
            .entries
            .lock()
            .values()
            .filter_map(|entry| match entry.idle_since.load(Ordering::Relaxed) {
                0 => None,
                since => Some((since, entry.clone())),
            })
            .min_by_key(|(since, _)| *since);
        let Some((_, entry)) = idlest else {
            return false;
        };
        // It may have become busy meanwhile; its client sees a closed connection and dials again.
        entry.idle_since.store(0, Ordering::Relaxed);
        entry.socket.shutdown(Shutdown::Both).is_ok()
    }

    /// Ends those that wait for a request.
    pub fn end_idle(&self) {
        for entry in self.entries.lock().values() {
            if entry.idle_since.load(Ordering::Relaxed) != 0 {
                let _ = entry.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Ends all.
    pub fn end_all(&self) {
        for entry in self.entries.lock().values() {
            let _ = entry.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.register.entries.lock().remove(&self.number);
    }
}

/// A connection as doors see it.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<TcpStream>,
    peer: SocketAddr,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    deadline: Mono,
    /// The read timeout the socket has now.
    timeout: Duration,
    registered: Registered,
}

impl Connection {
    /// Takes over an accepted socket, tuned by its listener.
    pub fn new(socket: TcpStream, peer: SocketAddr, register: &Arc<Register>) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let registered = register.add(&socket);
        Ok(Self {
            socket,
            peer,
            input: vec![0; IDLE_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            output: Vec::new(),
            deadline: Mono(0),
            timeout: Duration::ZERO,
            registered,
        })
    }

    /// Looks at the first bytes until they say which protocol this is; `None` when they belong to none, the other end closes, or `patience` runs out.
    pub fn sniff(&mut self, patience: Duration) -> io::Result<Option<Protocol>> {
        let deadline = clock::mono() + patience;
        // Before the first byte a connection is one that waits for a request.
        self.set_deadline(Wait::Idle, deadline);
        let mut ended = false;
        loop {
            match first(&self.input[self.start..self.end], ended) {
                First::Known(protocol) => return Ok(Some(protocol)),
                First::Unknown => return Ok(None),
                First::Undecided => {}
            }
            let count = self.fill_more()?;
            self.registered.idle_since.store(0, Ordering::Relaxed);
            self.end += count;
            ended = count == 0;
            if ended && self.start == self.end {
                return Ok(None);
            }
        }
    }

    /// Gives the socket away, with what was read from it and not used; stays in the register as long as `Registered` lives.
    pub fn into_parts(self) -> (Arc<TcpStream>, Vec<u8>, Registered) {
        let ahead = self.input[self.start..self.end].to_vec();
        (self.socket, ahead, self.registered)
    }

    /// Makes the socket's read timeout no later than the deadline.
    fn arm(&mut self) -> io::Result<()> {
        let left = self.deadline - clock::mono();
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // One call serves many reads, whatever their deadlines: a read that ends early is begun again.
        let most = left.min(SLICE);
        if self.timeout > most || self.timeout < most / 2 {
            let timeout = most.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Reads behind what is already in the buffer.
    fn fill_more(&mut self) -> io::Result<usize> {
        let mut more = std::mem::take(&mut self.input);
        let read = self.receive(more.get_mut(self.end..));
        self.input = more;
        read
    }

    fn receive(&mut self, direct: Option<&mut [u8]>) -> io::Result<usize> {
        let mut direct = direct;
        loop {
            self.arm()?;
            let read = match &mut direct {
                Some(to) => (&*self.socket).read(to),
                None => (&*self.socket).read(&mut self.input),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The timeout may be shorter than the deadline.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) && clock::mono() < self.deadline => {}
                other => return other,
            }
        }
    }

    fn send_output(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sent = (&*self.socket).write_all(&self.output);
        self.output.clear();
        sent
    }
}

impl Read for Connection {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && to.len() >= self.input.len() {
            return self.receive(Some(to));
        }
        let from = self.fill_buf()?;
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Connection {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = self.receive(None)?;
            self.registered.idle_since.store(0, Ordering::Relaxed);
        }
        Ok(&self.input[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.output.len() + bytes.len() <= OUTPUT_BYTES {
            self.output.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.output.len() + total <= OUTPUT_BYTES {
            for slice in slices {
                self.output.extend_from_slice(slice);
            }
            return Ok(total);
        }
        let gathered = self.output.len();
        let mut all = Vec::with_capacity(slices.len() + 1);
        if gathered > 0 {
            all.push(IoSlice::new(&self.output));
        }
        all.extend_from_slice(slices);
        let sent = (&*self.socket).write_vectored(&all)?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if sent < gathered {
            // Nothing of the caller's bytes has left: the rest of what was gathered first.
            let rest = self.output.split_off(sent);
            self.output = rest;
            self.send_output()?;
            return self.write_vectored(slices);
        }
        self.output.clear();
        Ok(sent - gathered)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_output()
    }
}

impl Wire for Connection {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Who dials an address of their own machine comes from that address, whichever it is.
    fn loopback(&self) -> bool {
        let peer = self.peer.ip().to_canonical();
        let own = self.socket.local_addr();
        peer.is_loopback() || own.is_ok_and(|own| own.ip().to_canonical() == peer)
    }

    fn pending(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn now(&self) -> Mono {
        clock::mono()
    }

    fn set_deadline(&mut self, wait: Wait, deadline: Mono) {
        self.deadline = deadline;
        let since = match wait {
            Wait::Idle if self.start == self.end => clock::mono().0.max(1),
            Wait::Idle | Wait::Head | Wait::Body | Wait::Close => 0,
        };
        self.registered.idle_since.store(since, Ordering::Relaxed);
    }

    fn finish(&mut self) -> io::Result<()> {
        self.send_output()?;
        self.socket.shutdown(Shutdown::Write)
    }

    fn abort(&mut self) {
        self.output.clear();
        let _ = SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO));
    }
}

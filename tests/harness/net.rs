//! The network between daemons, in a test's hands: a proxy before each peer door, by which links are held, reset and mended, also one way.
//!
//! A proxy reads of each connection the first bytes of the handshake, which say who dials, and passes everything on. A link is a
//! direction: what `from` sends to `to`, on whichever connection. A held link delivers nothing and breaks nothing, as a cable that was
//! pulled; what was sent meanwhile arrives when it is mended, if the connection still stands. A reset link breaks every connection
//! between the two, and every new one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time in which a change of a link takes hold.
const SLICE: Duration = Duration::from_millis(5);
/// Bytes of the handshake up to and with the number of who dials: magic, role, from.
const INTRODUCTION: usize = 8 + 1 + 2;
/// Longest wait for an introduction.
const SILENCE: Duration = Duration::from_secs(5);

/// What a link does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Delivers.
    #[default]
    Open,
    /// Delivers nothing, and says nothing.
    Held,
    /// Breaks connections.
    Reset,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<(usize, usize), Link>,
    /// Connections passed on so far, by who dialled whom.
    passed: BTreeMap<(usize, usize), u64>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, State> {
        match self.state.lock() {
            Ok(open) => open,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.open()
            .links
            .get(&(from, to))
            .copied()
            .unwrap_or_default()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// All links of a cluster.
#[derive(Debug)]
pub struct Net {
    shared: Arc<Shared>,
    nodes: usize,
    listeners: Vec<JoinHandle<()>>,
}

impl Net {
    /// Proxies that listen for the peer door of each node, and where the doors really are.
    pub fn start(doors: &[(TcpListener, SocketAddr)]) -> Self {
        let shared = Arc::new(Shared::default());
        let listeners = doors
            .iter()
            .enumerate()
            .map(|(to, (listener, door))| {
                let listener = listener.try_clone().expect("a proxy");
                listener.set_nonblocking(true).expect("a proxy");
                let (shared, door) = (Arc::clone(&shared), *door);
                thread::spawn(move || accept(&shared, &listener, to, door))
            })
            .collect();
        Self {
            shared,
            nodes: doors.len(),
            listeners,
        }
    }

    /// Sets what `from` sends to `to`.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.shared.open().links.insert((from, to), link);
    }

    /// Sets everything that one node sends to the others and they to it.
    pub fn set_all_of(&self, node: usize, link: Link) {
        for other in (0..self.nodes).filter(|other| *other != node) {
            self.set(node, other, link);
            self.set(other, node, link);
        }
    }

    /// Opens every link.
    pub fn mend(&self) {
        self.shared.open().links.clear();
    }

    /// Connections passed on so far that `from` dialled to `to`.
    pub fn passed(&self, from: usize, to: usize) -> u64 {
        self.shared
            .open()
            .passed
            .get(&(from, to))
            .copied()
            .unwrap_or(0)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, to: usize, door: SocketAddr) {
    while !shared.stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                thread::spawn(move || {
                    let _ = pass(&shared, stream, to, door);
                });
            }
            Err(_) => thread::sleep(SLICE),
        }
    }
}

/// One connection from its first byte to its end.
fn pass(shared: &Arc<Shared>, mut near: TcpStream, to: usize, door: SocketAddr) -> io::Result<()> {
    near.set_nonblocking(false)?;
    near.set_nodelay(true)?;
    near.set_read_timeout(Some(SILENCE))?;
    let mut introduction = [0_u8; INTRODUCTION];
    near.read_exact(&mut introduction)?;
    let [.., high, low] = introduction;
    let from = usize::from(u16::from_be_bytes([high, low]));
    if shared.link(from, to) == Link::Reset || shared.link(to, from) == Link::Reset {
        return reset(&near);
    }
    let Ok(far) = TcpStream::connect_timeout(&door, SILENCE) else {
        return reset(&near);
    };
    far.set_nodelay(true)?;
    *shared.open().passed.entry((from, to)).or_default() += 1;
    let (near_back, far_back) = (near.try_clone()?, far.try_clone()?);
    let back = {
        let shared = Arc::clone(shared);
        thread::spawn(move || pump(&shared, &far_back, &near_back, (to, from), &[]))
    };
    pump(shared, &near, &far, (from, to), &introduction);
    let _ = back.join();
    Ok(())
}

/// Moves bytes one way until an end, an error or a reset; then nothing moves either way.
fn pump(
    shared: &Shared,
    mut source: &TcpStream,
    mut target: &TcpStream,
    (from, to): (usize, usize),
    first: &[u8],
) {
    let mut block = vec![0_u8; 64 * 1024];
    block[..first.len()].copy_from_slice(first);
    let mut waiting = first.len();
    let both_break = || {
        let _ = reset(source);
        let _ = reset(target);
    };
    if source.set_read_timeout(Some(SLICE)).is_err() {
        return both_break();
    }
    loop {
        if shared.stopped()
            || shared.link(from, to) == Link::Reset
            || shared.link(to, from) == Link::Reset
        {
            return both_break();
        }
        if shared.link(from, to) == Link::Held {
            thread::sleep(SLICE);
            continue;
        }
        if waiting > 0 {
            if target.write_all(&block[..waiting]).is_err() {
                return both_break();
            }
            waiting = 0;
        }
        match source.read(&mut block) {
            Ok(0) => {
                let _ = target.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => waiting = count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => return both_break(),
        }
    }
}

/// Closes a connection so that the other end sees a reset and not an end.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    stream.shutdown(Shutdown::Both)
}

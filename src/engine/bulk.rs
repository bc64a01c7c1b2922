//! Connections to peers for bytes: dialled when wanted, kept while they are good, a bounded few per peer.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use socket2::SockRef;

use crate::base::id::{ClusterId, NodeId};
use crate::engine::frame::FrameStream;
use crate::engine::handshake::{self, Identity, Role, Secret};

/// Idle connections kept per peer.
const KEPT: usize = 16;
/// Time for a TCP connection to a peer.
const CONNECT: Duration = Duration::from_secs(3);

/// Where peers listen, who we are, and the connections that wait for work.
#[derive(Debug)]
pub struct Peers {
    node: NodeId,
    secret: Secret,
    cluster: RwLock<Option<ClusterId>>,
    addresses: Vec<(NodeId, String)>,
    kept: Vec<Mutex<Vec<FrameStream>>>,
    /// Peers that failed to take or give bytes in time and have not been heard of since.
    suspects: Vec<AtomicBool>,
    stall: Duration,
}

impl Peers {
    /// The members of the configuration other than `node`, with the `host:port` of their peer doors. `stall` bounds one read or write while bytes flow.
    pub fn new(
        node: NodeId,
        secret: Secret,
        addresses: Vec<(NodeId, String)>,
        stall: Duration,
    ) -> Self {
        let kept = addresses.iter().map(|_| Mutex::new(Vec::new())).collect();
        let suspects = addresses.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            node,
            secret,
            cluster: RwLock::new(None),
            addresses,
            kept,
            suspects,
            stall,
        }
    }

    /// The other members.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.addresses.iter().map(|(node, _)| *node)
    }

    /// The cluster is known from now on.
    pub fn set_cluster(&self, cluster: ClusterId) {
        *self.cluster.write() = Some(cluster);
    }

    /// Who we are, for a handshake.
    pub fn identity(&self) -> Identity {
        Identity {
            node: self.node,
            cluster: *self.cluster.read(),
            secret: self.secret.clone(),
        }
    }

    /// Bound on one read or write while bytes flow.
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// The peer took or gave no bytes in time: until it is heard of again it is asked last, and for nothing new. A
    /// process that hangs keeps its connections, so that every request would wait for it in turn.
    pub fn suspect(&self, node: NodeId) {
        if let Ok(position) = self.position(node) {
            self.suspects[position].store(true, Ordering::Relaxed);
        }
    }

    /// The peer has sent something.
    pub fn heard_of(&self, node: NodeId) {
        if let Ok(position) = self.position(node)
            && self.suspects[position].load(Ordering::Relaxed)
        {
            self.suspects[position].store(false, Ordering::Relaxed);
        }
    }

    /// See [`Peers::suspect`].
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.position(node)
            .is_ok_and(|position| self.suspects[position].load(Ordering::Relaxed))
    }

    fn position(&self, node: NodeId) -> io::Result<usize> {
        self.addresses
            .iter()
            .position(|(other, _)| *other == node)
            .ok_or_else(|| io::Error::other(format!("node {node} is not in the configuration")))
    }

    /// A new connection, authenticated.
    pub fn dial(&self, node: NodeId, role: Role) -> io::Result<FrameStream> {
        let address = &self.addresses[self.position(node)?].1;
        // Who waits for bytes gives a peer that does not answer no more time than one that takes none.
        let patience = match role {
            Role::Bulk => handshake::PATIENCE.min(self.stall),
            Role::Control | Role::Admin => handshake::PATIENCE,
        };
        let socket = connect(address, CONNECT.min(patience))?;
        handshake::dial(socket, &self.identity(), node, role, patience)
    }

    /// A bulk connection: a kept one that is still good, or a new one. Give it back with [`Lent::keep`] when its last request was answered.
    pub fn lend(self: &Arc<Self>, node: NodeId) -> io::Result<Lent> {
        let position = self.position(node)?;
        loop {
            let Some(mut stream) = self.kept[position].lock().pop() else {
                break;
            };
            if stream.is_quiet() {
                stream.set_timeouts(self.stall, self.stall)?;
                return Ok(Lent {
                    stream,
                    peers: Arc::clone(self),
                    position,
                    node,
                });
            }
        }
        let mut stream = self.dial(node, Role::Bulk)?;
        stream.set_timeouts(self.stall, self.stall)?;
        Ok(Lent {
            stream,
            peers: Arc::clone(self),
            position,
            node,
        })
    }

    /// Forgets the kept connections to a peer that went away.
    pub fn forget(&self, node: NodeId) {
        if let Ok(position) = self.position(node) {
            self.kept[position].lock().clear();
        }
    }
}

/// A bulk connection in use; closed when dropped, unless kept.
#[derive(Debug)]
pub struct Lent {
    /// The connection.
    pub stream: FrameStream,
    peers: Arc<Peers>,
    position: usize,
    /// Who is on the other end.
    pub node: NodeId,
}

impl Lent {
    /// Nothing is under way on it: it may serve the next.
    pub fn keep(self) {
        let Self {
            stream,
            peers,
            position,
            ..
        } = self;
        let mut kept = peers.kept[position].lock();
        if kept.len() < KEPT {
            kept.push(stream);
        }
    }
}

/// Resolves `host:port` and connects to the first address that answers, tuned for peers.
pub fn connect(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    let candidates: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, patience) {
            Ok(socket) => {
                tune(&socket)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Options of every socket between nodes: no delay, early notice of a dead peer.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(20)))
}

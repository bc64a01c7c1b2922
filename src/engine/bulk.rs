//! Connections to peers for bytes: dialled when wanted, kept while they are good, a bounded few per peer.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use socket2::SockRef;

use crate::base::id::{ClusterId, NodeId};
use crate::base::limit::NODES;
use crate::core::node::Event;
use crate::engine::frame::FrameStream;
use crate::engine::handshake::{self, Identity, Role, Secret};
use crate::engine::queue::Sender;

/// Idle connections kept per peer.
const KEPT: usize = 16;
/// Longest address that a node may give, in bytes: a host name of 255 and a port.
const ADDRESS_BYTES: usize = 264;
/// Time for a TCP connection to a peer.
const CONNECT: Duration = Duration::from_secs(3);

/// A node that introduced itself and is in no list is dialled for so long after it was last heard of.
const INTRODUCED: Duration = Duration::from_mins(1);

/// Where a peer may be reached, by who said so.
#[derive(Debug, Default)]
struct Addresses {
    /// The configuration file.
    file: Option<String>,
    /// The file has the last word.
    fixed: bool,
    /// The catalog.
    catalog: Option<String>,
    /// The peer itself or another member, and when.
    heard: Option<(String, Instant)>,
    /// Where it answered last, unless something newer is known.
    good: Option<String>,
}

impl Addresses {
    /// The likeliest first, each once.
    fn candidates(&self) -> Vec<String> {
        if let (true, Some(file)) = (self.fixed, &self.file) {
            return vec![file.clone()];
        }
        let heard = self.heard.as_ref().map(|(address, _)| address);
        let mut all: Vec<String> = Vec::new();
        for address in [self.good.as_ref(), heard]
            .into_iter()
            .chain([self.catalog.as_ref(), self.file.as_ref()])
            .flatten()
        {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    /// Whether it is worth dialling.
    fn is_wanted(&self) -> bool {
        let lately = |(_, at): &(String, Instant)| at.elapsed() < INTRODUCED;
        self.file.is_some() || self.catalog.is_some() || self.heard.as_ref().is_some_and(lately)
    }
}

/// Another node.
#[derive(Debug, Default)]
struct Peer {
    addresses: Mutex<Addresses>,
    /// Connections that wait for work.
    kept: Mutex<Vec<FrameStream>>,
    /// It failed to take or give bytes in time and has not been heard of since.
    suspect: AtomicBool,
}

/// Where peers listen, who we are, and the connections that wait for work.
///
/// Who is dialled follows the configuration file, the catalog, and what nodes say of themselves: a changed address is
/// taken over without a restart, and what one source has wrong another may know.
#[derive(Debug)]
pub struct Peers {
    node: NodeId,
    secret: Secret,
    cluster: RwLock<Option<ClusterId>>,
    /// At most [`NODES`] of them.
    known: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    stall: Duration,
}

impl Peers {
    /// The members of the configuration other than `node`, with the `host:port` of their peer doors; they are dialled nowhere else when these are `fixed`. `stall` bounds one read or write while bytes flow.
    pub fn new(
        node: NodeId,
        secret: Secret,
        addresses: Vec<(NodeId, String)>,
        fixed: bool,
        stall: Duration,
    ) -> Self {
        let peer = |(node, address)| {
            let addresses = Addresses {
                file: Some(address),
                fixed,
                ..Addresses::default()
            };
            let peer = Peer {
                addresses: Mutex::new(addresses),
                ..Peer::default()
            };
            (node, Arc::new(peer))
        };
        Self {
            node,
            secret,
            cluster: RwLock::new(None),
            known: RwLock::new(addresses.into_iter().map(peer).collect()),
            stall,
        }
    }

    /// The other nodes that are worth a link.
    pub fn wanted(&self) -> Vec<NodeId> {
        let known = self.known.read();
        let wanted = known
            .iter()
            .filter(|(_, peer)| peer.addresses.lock().is_wanted());
        wanted.map(|(node, _)| *node).collect()
    }

    /// The members by the catalog, all of them, with their addresses.
    pub fn listed(&self, members: &[(NodeId, String)]) {
        for (node, address) in members {
            self.learn(*node, |addresses| {
                if addresses.catalog.as_ref() != Some(address) {
                    addresses.catalog = Some(address.clone());
                    addresses.good = None;
                }
            });
        }
        let is_listed = |node: NodeId| members.iter().any(|(member, _)| *member == node);
        for (node, peer) in self.known.read().iter() {
            if !is_listed(*node) {
                peer.addresses.lock().catalog = None;
            }
        }
        self.known
            .write()
            .retain(|_, peer| peer.addresses.lock().is_wanted());
    }

    /// A node, or a member that knows it, says where it is reached now.
    pub fn introduced(&self, node: NodeId, address: &str) {
        if address.is_empty() || address.len() > ADDRESS_BYTES {
            return;
        }
        self.learn(node, |addresses| {
            if addresses
                .heard
                .as_ref()
                .is_none_or(|(old, _)| old != address)
            {
                addresses.good = None;
            }
            addresses.heard = Some((address.to_owned(), Instant::now()));
        });
    }

    fn learn(&self, node: NodeId, change: impl FnOnce(&mut Addresses)) {
        if node == self.node || node.0 >= NODES {
            return;
        }
        let peer = self.known.read().get(&node).map(Arc::clone);
        let peer = peer.unwrap_or_else(|| Arc::clone(self.known.write().entry(node).or_default()));
        change(&mut peer.addresses.lock());
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.known.read().get(&node).map(Arc::clone)
    }

    fn found(&self, node: NodeId) -> io::Result<Arc<Peer>> {
        self.peer(node)
            .ok_or_else(|| io::Error::other(format!("nobody knows where node {node} is")))
    }

    /// The cluster is known from now on.
    pub fn set_cluster(&self, cluster: ClusterId) {
        *self.cluster.write() = Some(cluster);
    }

    /// A node proved that it belongs to another cluster: if that one was made from ours by force, ours is over.
    pub fn meet(&self, events: &Sender<Event>, by: NodeId, cluster: ClusterId) {
        if self.cluster.read().is_some_and(|own| cluster.succeeds(own)) {
            let _ = events.send(Event::Superseded { by, cluster });
        }
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
        if let Some(peer) = self.peer(node) {
            peer.suspect.store(true, Ordering::Relaxed);
        }
    }

    /// The peer has sent something.
    pub fn heard_of(&self, node: NodeId) {
        if let Some(peer) = self.peer(node)
            && peer.suspect.load(Ordering::Relaxed)
        {
            peer.suspect.store(false, Ordering::Relaxed);
        }
    }

    /// See [`Peers::suspect`].
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.peer(node)
            .is_some_and(|peer| peer.suspect.load(Ordering::Relaxed))
    }

    /// A new connection, authenticated. A control connection tries every address that is known, one for bytes the likeliest.
    pub fn dial(&self, node: NodeId, role: Role) -> io::Result<FrameStream> {
        // Who waits for bytes gives a peer that does not answer no more time than one that takes none.
        let patience = match role {
            Role::Bulk => handshake::PATIENCE.min(self.stall),
            Role::Control | Role::Admin => handshake::PATIENCE,
        };
        self.dial_within(node, role, patience)
    }

    fn dial_within(&self, node: NodeId, role: Role, patience: Duration) -> io::Result<FrameStream> {
        let peer = self.found(node)?;
        let attempts = match role {
            Role::Bulk => 1,
            Role::Control | Role::Admin => usize::MAX,
        };
        let candidates = peer.addresses.lock().candidates();
        let mut first = None;
        for address in candidates.into_iter().take(attempts) {
            let dialled = connect(&address, CONNECT.min(patience))
                .and_then(|socket| handshake::dial(socket, &self.identity(), node, role, patience));
            match dialled {
                Ok(stream) => {
                    peer.addresses.lock().good = Some(address);
                    return Ok(stream);
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| io::Error::other(format!("node {node} has no address"))))
    }

    /// A bulk connection: a kept one that is still good, or a new one. Give it back with [`Lent::keep`] when its last request was answered.
    pub fn lend(self: &Arc<Self>, node: NodeId) -> io::Result<Lent> {
        self.lend_within(node, self.stall)
    }

    /// As [`Peers::lend`], with so much time to reach the peer and for each read from it, where there is somebody else to ask.
    pub fn lend_within(self: &Arc<Self>, node: NodeId, patience: Duration) -> io::Result<Lent> {
        let patience = patience.min(self.stall);
        let peer = self.found(node)?;
        loop {
            let Some(mut stream) = peer.kept.lock().pop() else {
                break;
            };
            if stream.is_quiet() {
                stream.set_timeouts(patience, self.stall)?;
                return Ok(Lent { stream, peer, node });
            }
        }
        let mut stream = self.dial_within(node, Role::Bulk, handshake::PATIENCE.min(patience))?;
        stream.set_timeouts(patience, self.stall)?;
        Ok(Lent { stream, peer, node })
    }

    /// Forgets the kept connections to a peer that went away.
    pub fn forget(&self, node: NodeId) {
        if let Some(peer) = self.peer(node) {
            peer.kept.lock().clear();
        }
    }
}

/// A bulk connection in use; closed when dropped, unless kept.
#[derive(Debug)]
pub struct Lent {
    /// The connection.
    pub stream: FrameStream,
    peer: Arc<Peer>,
    /// Who is on the other end.
    pub node: NodeId,
}

impl Lent {
    /// Nothing is under way on it: it may serve the next.
    pub fn keep(self) {
        let mut kept = self.peer.kept.lock();
        if kept.len() < KEPT {
            kept.push(self.stream);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        let file = vec![(NodeId(1), "one:1".to_owned())];
        Peers::new(NodeId(0), Secret(Vec::new()), file, false, CONNECT)
    }

    fn candidates(peers: &Peers, node: u16) -> Vec<String> {
        let peer = peers.peer(NodeId(node));
        peer.map_or_else(Vec::new, |peer| peer.addresses.lock().candidates())
    }

    #[test]
    fn what_a_node_says_of_itself_goes_before_the_catalog_and_that_before_the_file() {
        let peers = peers();
        peers.listed(&[(NodeId(1), "one:2".to_owned())]);
        assert_eq!(candidates(&peers, 1), ["one:2", "one:1"]);
        peers.introduced(NodeId(1), "one:3");
        assert_eq!(candidates(&peers, 1), ["one:3", "one:2", "one:1"]);
        peers.peer(NodeId(1)).unwrap().addresses.lock().good = Some("one:1".to_owned());
        assert_eq!(candidates(&peers, 1), ["one:1", "one:3", "one:2"]);
        // A newer word is tried first.
        peers.introduced(NodeId(1), "one:4");
        assert_eq!(candidates(&peers, 1), ["one:4", "one:2", "one:1"]);
    }

    #[test]
    fn who_leaves_the_catalog_is_dialled_no_more_unless_the_file_has_it() {
        let peers = peers();
        let members = [1, 2].map(|id| (NodeId(id), format!("host:{id}")));
        peers.listed(&members);
        assert_eq!(peers.wanted(), [NodeId(1), NodeId(2)]);
        peers.listed(&[]);
        assert_eq!(peers.wanted(), [NodeId(1)]);
        peers.introduced(NodeId(3), "three:1");
        assert_eq!(peers.wanted(), [NodeId(1), NodeId(3)]);
    }

    #[test]
    fn this_node_and_numbers_that_no_node_has_are_never_dialled() {
        let peers = peers();
        peers.introduced(NodeId(0), "self:1");
        peers.introduced(NodeId(NODES), "far:1");
        peers.introduced(NodeId(2), "");
        assert_eq!(peers.wanted(), [NodeId(1)]);
    }
}

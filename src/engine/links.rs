//! One outgoing control link per peer: a thread that dials, proves itself, and sends the core's messages in batches.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TrySendError};
use parking_lot::RwLock;

use crate::base::id::NodeId;
use crate::base::limit::LINK_QUEUE;
use crate::base::random::Random;
use crate::core::node::{Event, LinkState};
use crate::engine::bulk::Peers;
use crate::engine::frame::FrameStream;
use crate::engine::handshake::{self, Role};
use crate::engine::queue::{Receiver, Sender, bounded};
use crate::wire::peer::Message;

/// First wait before dialling again; doubles up to [`LONGEST`], with jitter.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest wait before dialling again.
const LONGEST: Duration = Duration::from_secs(2);
/// How often an idle link is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Bound on one write.
const WRITE: Duration = Duration::from_secs(3);
/// Messages sent in one write at most.
const BATCH: usize = 64;

/// Refusals in a row that are told: a loss and one of them, or two of them, are taken for the end of a process.
const REFUSALS: u32 = 2;

/// Whether an attempt ended because no process listens there.
fn refused(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset
    )
}

struct Link {
    queue: Sender<Message>,
    up: Arc<AtomicBool>,
    /// Nobody wants it any more.
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The outgoing links of this node: one to everyone that [`Peers::wanted`] names.
pub struct Links {
    by_node: RwLock<BTreeMap<NodeId, Link>>,
    peers: Arc<Peers>,
    events: Sender<Event>,
    stopping: Arc<AtomicBool>,
}

impl Links {
    /// Starts a thread per peer. `events` takes what happens to the links; the threads end when `stopping` is set.
    pub fn start(
        peers: &Arc<Peers>,
        events: &Sender<Event>,
        stopping: &Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let links = Self {
            by_node: RwLock::new(BTreeMap::new()),
            peers: Arc::clone(peers),
            events: events.clone(),
            stopping: Arc::clone(stopping),
        };
        links.follow()?;
        Ok(links)
    }

    /// Starts the links that are wanted and missing, and ends those that are not wanted any more.
    pub fn follow(&self) -> std::io::Result<()> {
        let wanted = self.peers.wanted();
        let mut links = self.by_node.write();
        // One that ends is there until its last word was said: a new one to the same node must not be taken for it.
        links.retain(|_, link| !link.thread.is_finished());
        for (node, link) in links.iter() {
            if !wanted.contains(node) {
                link.ended.store(true, Ordering::Release);
            }
        }
        for node in wanted {
            if let Entry::Vacant(vacant) = links.entry(node) {
                vacant.insert(self.start_one(node)?);
            }
        }
        Ok(())
    }

    fn start_one(&self, node: NodeId) -> std::io::Result<Link> {
        let (queue, messages) = bounded(LINK_QUEUE);
        let [up, ended] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let runner = Runner {
            node,
            peers: Arc::clone(&self.peers),
            messages,
            events: self.events.clone(),
            up: Arc::clone(&up),
            ended: Arc::clone(&ended),
            stopping: Arc::clone(&self.stopping),
        };
        let thread = thread::Builder::new()
            .name(format!("link-{node}"))
            .stack_size(256 * 1024)
            .spawn(move || runner.run())?;
        Ok(Link {
            queue,
            up,
            ended,
            thread,
        })
    }

    /// Hands a message to the peer's link. Dropped when the link is down or its queue full: the core repeats what matters.
    pub fn send(&self, to: NodeId, message: Message) {
        if let Some(link) = self.by_node.read().get(&to)
            && link.up.load(Ordering::Acquire)
            && let Err(TrySendError::Full(_)) = link.queue.try_send(message)
        {
            log::debug!(target: "momo::link_full", "the queue to node {to} is full");
        }
    }

    /// Whether the link to a peer is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.by_node
            .read()
            .get(&node)
            .is_some_and(|link| link.up.load(Ordering::Acquire))
    }
}

struct Runner {
    node: NodeId,
    peers: Arc<Peers>,
    messages: Receiver<Message>,
    events: Sender<Event>,
    up: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
}

impl Runner {
    fn is_over(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.ended.load(Ordering::Acquire)
    }

    fn run(self) {
        let mut random = Random::new(crate::engine::clock::wall().0 ^ u64::from(self.node.0));
        let mut wait = SHORTEST;
        let mut complained = false;
        let mut refusals = 0;
        while !self.is_over() {
            match self.peers.dial(self.node, Role::Control) {
                Ok(stream) => {
                    wait = SHORTEST;
                    complained = false;
                    refusals = 0;
                    while self.messages.try_recv().is_some() {}
                    self.report(LinkState::Up);
                    let why = self.carry(stream);
                    self.peers.forget(self.node);
                    self.report(LinkState::Down);
                    if !self.is_over() {
                        log::info!(target: "momo::link_down", "link to node {} lost: {why}", self.node);
                    }
                }
                Err(error) => {
                    // Nobody listens where the node should: the detector is told at once, and once more, which settles it.
                    if refused(&error) && refusals < REFUSALS {
                        refusals += 1;
                        self.report(LinkState::Down);
                    }
                    if let Some((node, cluster)) = handshake::other_cluster(&error) {
                        self.peers.meet(&self.events, node, cluster);
                    }
                    // A stranger at the address is worth a word each time the reason is new; a node that is down is not.
                    if !complained && error.kind() == std::io::ErrorKind::PermissionDenied {
                        log::warn!(target: "momo::link_refused", "node {}: {error}", self.node);
                        complained = true;
                    }
                }
            }
            let jitter = random.below(u64::try_from(wait.as_micros()).unwrap_or(1).max(1));
            self.pause(wait / 2 + Duration::from_micros(jitter / 2));
            wait = (wait * 2).min(LONGEST);
        }
    }

    /// Waits, dropping what is sent meanwhile, and ends early when the node stops.
    fn pause(&self, wait: Duration) {
        let end = std::time::Instant::now() + wait;
        while !self.is_over() {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            if let Err(RecvTimeoutError::Disconnected) = self.messages.recv_timeout(left.min(LOOK))
            {
                return;
            }
        }
    }

    fn report(&self, state: LinkState) {
        self.up.store(state == LinkState::Up, Ordering::Release);
        let _ = self.events.send(Event::Link {
            node: self.node,
            state,
        });
    }

    fn carry(&self, mut stream: FrameStream) -> String {
        if let Err(error) = stream.set_timeouts(WRITE, WRITE) {
            return error.to_string();
        }
        while !self.is_over() {
            let first = match self.messages.recv_timeout(LOOK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // The peer never writes on this connection: anything readable is its end.
            if !stream.is_quiet() {
                return "closed by the peer".to_owned();
            }
            let more = self.messages.try_iter().take(BATCH);
            let sent = first
                .into_iter()
                .chain(more)
                .try_for_each(|message| match message {
                    Message::Raft { bytes } => stream.queue_raft(&bytes),
                    other => stream.queue(&other),
                });
            if let Err(error) = sent.and_then(|()| stream.flush()) {
                return error.to_string();
            }
        }
        "not wanted any more".to_owned()
    }
}

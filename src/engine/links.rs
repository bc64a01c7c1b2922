//! One outgoing control link per peer: a thread that dials, proves itself, and sends the core's messages in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TrySendError};

use crate::base::id::NodeId;
use crate::base::limit::LINK_QUEUE;
use crate::base::random::Random;
use crate::core::node::{Event, LinkState};
use crate::engine::bulk::Peers;
use crate::engine::frame::FrameStream;
use crate::engine::handshake::Role;
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
}

/// The outgoing links of this node.
pub struct Links {
    links: BTreeMap<NodeId, Link>,
}

impl Links {
    /// Starts a thread per peer. `events` takes what happens to the links; the threads end when `stopping` is set.
    pub fn start(
        peers: &Arc<Peers>,
        events: &Sender<Event>,
        stopping: &Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let mut links = BTreeMap::new();
        for node in peers.nodes() {
            let (queue, messages) = bounded(LINK_QUEUE);
            let up = Arc::new(AtomicBool::new(false));
            let runner = Runner {
                node,
                peers: Arc::clone(peers),
                messages,
                events: events.clone(),
                up: Arc::clone(&up),
                stopping: Arc::clone(stopping),
            };
            thread::Builder::new()
                .name(format!("link-{node}"))
                .stack_size(256 * 1024)
                .spawn(move || runner.run())?;
            links.insert(node, Link { queue, up });
        }
        Ok(Self { links })
    }

    /// Hands a message to the peer's link. Dropped when the link is down or its queue full: the core repeats what matters.
    pub fn send(&self, to: NodeId, message: Message) {
        if let Some(link) = self.links.get(&to)
            && link.up.load(Ordering::Acquire)
            && let Err(TrySendError::Full(_)) = link.queue.try_send(message)
        {
            log::debug!(target: "momo::link_full", "the queue to node {to} is full");
        }
    }

    /// Whether the link to a peer is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.links
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
    stopping: Arc<AtomicBool>,
}

impl Runner {
    fn run(self) {
        let mut random = Random::new(crate::engine::clock::wall().0 ^ u64::from(self.node.0));
        let mut wait = SHORTEST;
        let mut complained = false;
        let mut refusals = 0;
        while !self.stopping.load(Ordering::Acquire) {
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
                    if !self.stopping.load(Ordering::Acquire) {
                        log::info!(target: "momo::link_down", "link to node {} lost: {why}", self.node);
                    }
                }
                Err(error) => {
                    // Nobody listens where the node should: the detector is told at once, and once more, which settles it.
                    if refused(&error) && refusals < REFUSALS {
                        refusals += 1;
                        self.report(LinkState::Down);
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
        while !self.stopping.load(Ordering::Acquire) {
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
        while !self.stopping.load(Ordering::Acquire) {
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
        "this node stops".to_owned()
    }
}

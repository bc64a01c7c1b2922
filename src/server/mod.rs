//! Floor 6: listeners, slots, a thread per connection, shutdown, systemd; and the supervisor that starts such daemons (`supervise`).
//!
//! The supervisor runs in a process of its own: `watch` decides, `supervise` carries out, `claim` keeps a second one away,
//! `notify` is what a daemon tells it.

pub mod claim;
pub mod connection;
pub mod listen;
pub mod notify;
pub mod pool;
pub mod settings;
pub mod supervise;
pub mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};

use crate::base::id::NodeId;
use crate::base::limit::{CONNECTION_QUEUE, PEER_SLOTS};
use crate::config::{Config, HostPort, TextAdmin};
use crate::doors::{self, Limits, Session, Wire};
use crate::engine::Handle;
use crate::engine::frame::SharedSocket;
use crate::engine::handshake;
use crate::engine::serve;
use crate::engine::start::{self, Running, StartError};
use crate::wire::first::Protocol;
use connection::{Connection, Register};
use pool::{Pool, Slot, Slots};

/// How long a connection without a slot may take to say that it is a peer.
const SHOW: Duration = Duration::from_secs(1);
/// The same when as many as may wait for a slot do so already: what is left is for peers, who speak at once and have
/// no time to lose in proving who they are (rule R20).
const SHOW_AT_ONCE: Duration = Duration::from_millis(500);
/// How long it waits for a slot otherwise.
const QUEUE: Duration = Duration::from_secs(5);
/// The same for one that has no place in the queue: as long as it takes the connection that gives way to end.
const LAST: Duration = Duration::from_millis(200);
/// What is left of the drain time for the engine's threads.
const ENGINE_STOP: Duration = Duration::from_secs(3);

/// Why a daemon does not run, or stopped.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration cannot be used here.
    Unusable(settings::Unusable),
    /// An address cannot be listened on.
    Bind(String, io::Error),
    /// The engine does not come up.
    Start(StartError),
    /// The engine cannot go on.
    Failed(String),
    /// The system refused something else.
    Io(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(error) => error.fmt(f),
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Start(error) => error.fmt(f),
            Self::Failed(why) => write!(f, "stopped, since it cannot go on: {why}"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the connection threads share.
struct Shared {
    running: Arc<crate::engine::shared::Engine>,
    handle: Handle,
    limits: Limits,
    admin: TextAdmin,
    register: Arc<Register>,
    slots: Arc<Slots>,
    /// Places of those that wait for a slot.
    waiting: Arc<Slots>,
    pool: Pool,
}

/// How a daemon meets the others, where its file does not say.
#[derive(Clone, Debug, Default)]
pub struct Meeting {
    /// The peer door of a member: the daemon asks there to become one too, unless it is.
    pub join: Option<HostPort>,
    /// Where the others reach its own peer door.
    pub advertise: Option<HostPort>,
}

/// Runs daemon `id` until a signal stops it or it cannot go on.
pub fn run(config: &Config, id: NodeId, meeting: &Meeting) -> Result<(), ServeError> {
    abort_on_panic();
    raise_descriptors();
    let mut engine_settings = settings::engine(config, id).map_err(ServeError::Unusable)?;
    engine_settings.join = meeting.join.as_ref().map(HostPort::to_string);
    if let Some(address) = &meeting.advertise {
        let mut members = engine_settings.members.iter_mut();
        if let Some(own) = members.find(|member| member.id == id) {
            own.peer = address.to_string();
        }
    }
    let signals = signals()?;
    // Addresses first: a second process of the same daemon ends here, before it touches any data.
    let listeners = bind_all(config, id)?;
    let running = start::start(engine_settings).map_err(ServeError::Start)?;
    let shared = Arc::new(shared(config, &running));
    let stop_listening = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let mut addresses = Vec::new();
    for (listener, protocols) in listeners {
        let address = listener.local_addr()?;
        let names: Vec<String> = protocols
            .iter()
            .map(|protocol| format!("{protocol:?}").to_lowercase())
            .collect();
        log::info!(target: "momo::listen", "daemon {id} listens on {address} for {}", names.join(", "));
        addresses.push(address);
        let shared = Arc::clone(&shared);
        let protocols: Arc<[Protocol]> = protocols.into();
        threads.push(listen::accept(
            listener,
            Arc::clone(&stop_listening),
            move |socket, from| {
                admit(&shared, socket, from, &protocols);
            },
        )?);
    }
    let engine = Arc::clone(&running.engine);
    notify::watchdog(
        move || engine.is_driven(),
        Arc::clone(&running.engine.stopping),
    )?;
    notify::ready(&format!("daemon {id} is open"));

    let failure = select! {
        recv(signals) -> _ => None,
        recv(running.failed) -> why => Some(why.unwrap_or_else(|_| "its threads are gone".to_owned())),
    };
    notify::stopping();
    log::info!(target: "momo::stop", "daemon {id} stops");
    stop_listening.store(true, Ordering::Release);
    addresses.into_iter().for_each(listen::wake);
    for thread in threads {
        let _ = thread.join();
    }
    if failure.is_none() {
        drain(&shared.register, config.server.drain);
    }
    shared.register.end_all();
    running.stop(ENGINE_STOP);
    failure.map_or(Ok(()), |why| Err(ServeError::Failed(why)))
}

fn shared(config: &Config, running: &Running) -> Shared {
    let slots = usize::try_from(config.server.slots).unwrap_or(usize::MAX);
    Shared {
        running: Arc::clone(&running.engine),
        handle: Handle(Arc::clone(&running.engine)),
        limits: Limits {
            idle: config.server.idle_timeout,
            head: config.server.read_timeout,
            stall: config.server.read_timeout,
            file_bytes: config.server.max_file_bytes,
            ..Limits::default()
        },
        admin: config.server.text_admin,
        register: Arc::default(),
        slots: Slots::new(slots),
        waiting: Slots::new(CONNECTION_QUEUE),
        pool: Pool::new(
            slots
                .saturating_add(PEER_SLOTS)
                .saturating_add(CONNECTION_QUEUE),
        ),
    }
}

/// SIGINT and SIGTERM as a channel.
fn signals() -> Result<Receiver<()>, ServeError> {
    let (send, receive) = bounded(1);
    ctrlc::set_handler(move || {
        let _ = send.try_send(());
    })
    .map_err(|error| ServeError::Io(io::Error::other(error.to_string())))?;
    Ok(receive)
}

/// Every address of the daemon, with the protocols spoken there.
fn bind_all(config: &Config, id: NodeId) -> Result<Vec<(TcpListener, Vec<Protocol>)>, ServeError> {
    let Some(daemon) = config.daemon(id) else {
        return Err(ServeError::Unusable(settings::Unusable::NoDaemon(
            id,
            config.file.clone(),
        )));
    };
    let mut by_address: BTreeMap<String, Vec<Protocol>> = BTreeMap::new();
    for (address, protocol) in [
        (&daemon.host, Protocol::Momo),
        (daemon.change_replication(), Protocol::Change),
        (daemon.text(), Protocol::Text),
        (daemon.http(), Protocol::Http),
        (daemon.peer(), Protocol::Peer),
        (&daemon.host, Protocol::Names),
        (&daemon.host, Protocol::Group),
    ] {
        by_address
            .entry(address.to_string())
            .or_default()
            .push(protocol);
    }
    let tuning = listen::Tuning {
        backlog: i32::try_from(config.server.backlog).unwrap_or(i32::MAX),
        receive_buffer: usize::try_from(config.server.receive_buffer).unwrap_or_default(),
        send_buffer: usize::try_from(config.server.send_buffer).unwrap_or_default(),
        write_timeout: config.server.write_timeout,
    };
    by_address
        .into_iter()
        .map(
            |(address, protocols)| match listen::bind(&address, tuning) {
                Ok(listener) => Ok((listener, protocols)),
                Err(error) => Err(ServeError::Bind(address, error)),
            },
        )
        .collect()
}

/// A new connection: to a thread of the pool, or away.
fn admit(shared: &Arc<Shared>, socket: TcpStream, from: SocketAddr, protocols: &Arc<[Protocol]>) {
    let (for_thread, protocols) = (Arc::clone(shared), Arc::clone(protocols));
    let task = move || {
        if let Err(error) = attend(&for_thread, socket, from, &protocols) {
            log::debug!(target: "momo::connection", "{from}: {error}");
        }
        for_thread
            .running
            .connections
            .store(for_thread.register.len() as u64, Ordering::Relaxed);
    };
    // The thread of the connection that has rested longest is free as soon as that one has ended.
    if !shared.pool.has_room(Duration::ZERO) && shared.register.end_idlest() {
        shared.pool.has_room(LAST);
    }
    match shared.pool.run(task) {
        Ok(true) => {}
        Ok(false) => {
            log::warn!(target: "momo::connection_refused", "{from}: every thread is busy");
        }
        Err(error) => log::error!(target: "momo::connection_refused", "{from}: no thread: {error}"),
    }
}

/// From a socket to its door.
fn attend(
    shared: &Arc<Shared>,
    socket: TcpStream,
    from: SocketAddr,
    protocols: &[Protocol],
) -> io::Result<()> {
    let mut connection = Connection::new(socket, from, &shared.register)?;
    shared
        .running
        .connections
        .store(shared.register.len() as u64, Ordering::Relaxed);
    let slot = shared.slots.take();
    let waiting = match slot {
        Some(_) => None,
        None => shared.waiting.take(),
    };
    let protocol = match protocols {
        [only] if *only != Protocol::Peer => Some(*only),
        _ => {
            // Without a slot only a peer may stay, and it speaks at once.
            let patience = match (&slot, &waiting) {
                (Some(_), _) => shared.limits.idle,
                (None, Some(_)) => SHOW,
                (None, None) => SHOW_AT_ONCE,
            };
            connection.sniff(patience)?
        }
    };
    let Some(protocol) = protocol.filter(|protocol| protocols.contains(protocol)) else {
        if !connection.pending().is_empty() {
            log::warn!(target: "momo::connection_refused", "{from}: it begins with bytes that no door here knows");
        }
        return Ok(());
    };
    let Some(door) = doors::door(protocol) else {
        return attend_peer(shared, connection, from, slot.or(waiting));
    };
    let patience = if waiting.is_some() { QUEUE } else { LAST };
    let slot = slot.or_else(|| queue(shared, patience));
    drop(waiting);
    let Some(_slot) = slot else {
        log::warn!(target: "momo::connection_refused", "{from}: busy, no slot for {}", door.name);
        io::Write::write_all(&mut connection, door.busy)?;
        return connection.finish();
    };
    let session = Session {
        verbs: &shared.handle,
        limits: &shared.limits,
        text_admin: shared.admin,
    };
    (door.serve)(&session, &mut connection);
    io::Write::flush(&mut connection)
}

/// A slot for a stranger when all are taken: the connection idle longest gives way.
fn queue(shared: &Shared, patience: Duration) -> Option<Slot> {
    shared.register.end_idlest();
    shared.slots.wait(patience)
}

fn attend_peer(
    shared: &Arc<Shared>,
    connection: Connection,
    from: SocketAddr,
    slot: Option<Slot>,
) -> io::Result<()> {
    let (socket, ahead, registered) = connection.into_parts();
    // Once it has proved who it is, it does not count among the strangers.
    let patience = if slot.is_some() {
        handshake::PATIENCE
    } else {
        SHOW_AT_ONCE
    };
    let input = SharedSocket::new(socket, ahead);
    let served = serve::serve(&shared.running, input, patience, || {
        registered.is_peer();
        drop(slot);
    });
    if let Err(error) = &served
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        log::warn!(target: "momo::peer_refused", "{from}: {error}");
    }
    served
}

/// Waits until the requests under way are done, and ends the connections that only wait.
fn drain(register: &Register, patience: Duration) {
    let deadline = Instant::now() + patience;
    while !register.is_empty() && Instant::now() < deadline {
        register.end_idle();
        if register.len() == register.peers() {
            return;
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// A thread that panics has left its work half done and its locks in an unknown state: the process ends, and its supervisor starts it anew.
fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        log::error!(target: "momo::panic", "{info}");
        std::process::abort();
    }));
}

/// As many descriptors as the operator allows: every connection and every file in use needs one.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!(target: "momo::descriptors", "the limit stays as it is: {error}");
    }
}

//! The configuration as values: every field has been parsed and every relation between fields checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::id::NodeId;
use crate::base::mode::Mode;

/// What the operator asked for. Only [`Config::parse`] makes one, so whoever holds one need not check it again.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file it came from, as it was named.
    pub file: PathBuf,
    /// `[global]`: the original's switches.
    pub global: Global,
    /// `[metrics]`: the mode controller.
    pub metrics: Metrics,
    /// `[cluster]`: who votes, how many copies, the shared secret.
    pub cluster: Cluster,
    /// `[heartbeat]`: how death is noticed.
    pub heartbeat: Heartbeat,
    /// `[membership]`: when votes go to others.
    pub membership: Membership,
    /// `[read]`: how fresh an answer is.
    pub read: Read,
    /// `[write]`: how long an upload may wait, and what its acknowledgement means.
    pub write: Write,
    /// `[repair]`: when missing copies are made.
    pub repair: Repair,
    /// `[scrub]`: how often what is kept is read again.
    pub scrub: Scrub,
    /// `[gc]`: when unreferenced objects are removed.
    pub gc: Gc,
    /// `[raft]`: the clock of the consensus.
    pub raft: Raft,
    /// `[server]`: connections.
    pub server: Server,
    /// `[log]`: what goes to stderr.
    pub log: Log,
    /// `[lfd]`: the supervisor of processes.
    pub lfd: Lfd,
    /// `[daemon.N]`, by number; never empty.
    pub daemons: BTreeMap<NodeId, Daemon>,
    /// Where each key was said: (section, key) to line.
    pub(super) said: BTreeMap<(String, &'static str), usize>,
}

/// `[global]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// More to the log: every handshake, digest and acknowledgement.
    pub debug: bool,
    /// The modes from idle to loaded, each once, never empty; the first is the mode at birth.
    pub replication_order: Vec<Mode>,
    /// Whether the controller changes the mode by itself.
    pub polymorphic_system: bool,
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Time between two samples.
    pub interval: Duration,
    /// Time without a step after which the mode falls back by one.
    pub fallback_interval: Duration,
    /// Free share of memory or CPU (0 to 1) at or below which the mode steps left; smaller than `max_threshold`.
    pub min_threshold: f64,
    /// Used share of memory or CPU (0 to 1) at or above which the mode steps right.
    pub max_threshold: f64,
}

/// `[cluster]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's name, for people.
    pub name: String,
    /// How many daemons vote, where said (1, 3 or 5); see [`Config::voters`].
    pub voters: Option<u64>,
    /// How many daemons a whole-file strategy uses where there are more.
    pub replicas: u64,
    /// Copies without which an upload is refused, where said; otherwise by rule R12.
    pub min_copies: Option<u64>,
    /// The file of the shared secret, where said; see [`Config::secret_file`].
    pub(super) secret_file: Option<PathBuf>,
}

/// `[heartbeat]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Time between two heartbeats of a node.
    pub interval: Duration,
    /// Silence after which a node counts as failed; longer than `interval`.
    pub timeout: Duration,
}

/// `[membership]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// How long a voter may be dead before a spare takes over its vote.
    pub grace: Duration,
    /// Daemons of the file are dialled at its addresses and nowhere else.
    pub fixed_addresses: bool,
}

/// `[read]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// How long a look-up waits for a leader before it serves what it has, marked stale (rule R1).
    pub fresh: Duration,
}

/// `[write]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// A hop that takes no bytes for so long is left out (rule R11).
    pub hop_stall: Duration,
    /// How long daemon 0 and a leg of mode 3 wait for each other (rule R22).
    pub leg_wait: Duration,
    /// How long a door waits for a name to be committed before it says "outcome unknown".
    pub deadline: Duration,
    /// What is synced before an acknowledgement.
    pub durability: Durability,
}

/// `[repair]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// How long a node may be away before its copies are made again elsewhere.
    pub grace: Duration,
    /// Copies a node takes in at the same time.
    pub incoming: u64,
    /// Copies a node gives out at the same time.
    pub outgoing: u64,
    /// Bytes a second that a node takes in at most; 0 for any number.
    pub bandwidth: u64,
}

/// `[scrub]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// Time in which every copy is read again; zero for not at all.
    pub period: Duration,
    /// Most bytes a second read for it.
    pub bandwidth: u64,
}

/// `[gc]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gc {
    /// How long an object stays after its last reference went (rule R6).
    pub grace: Duration,
}

/// `[raft]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raft {
    /// One tick.
    pub tick: Duration,
    /// Silence of the leader, in ticks, after which another is elected; more than `heartbeat_ticks`.
    pub election_ticks: u64,
    /// Time between two messages of the leader, in ticks.
    pub heartbeat_ticks: u64,
}

/// `[server]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Connections served at the same time.
    pub slots: u64,
    /// Connections the kernel queues for each listener.
    pub backlog: u64,
    /// How long a connection may rest between requests.
    pub idle_timeout: Duration,
    /// How long one read may wait within a request.
    pub read_timeout: Duration,
    /// How long one write may wait.
    pub write_timeout: Duration,
    /// How long running requests are waited for at a stop.
    pub drain: Duration,
    /// Who may change things by the text door (rule R21).
    pub text_admin: TextAdmin,
    /// Largest file taken, in bytes.
    pub max_file_bytes: u64,
    /// `SO_RCVBUF` in bytes; 0 leaves it to the kernel.
    pub receive_buffer: u64,
    /// `SO_SNDBUF` in bytes; 0 leaves it to the kernel.
    pub send_buffer: u64,
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// For people or for programs.
    pub log_format: LogFormat,
}

/// `[lfd]`: the local fault detector, which starts processes and ends hung ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lfd {
    /// Time between two heartbeats of a daemon to its supervisor.
    pub interval: Duration,
    /// Silence after which a daemon is killed and started again; longer than `interval`.
    pub timeout: Duration,
    /// How long a daemon may take from its start until its doors are open.
    pub start_timeout: Duration,
    /// Longest wait before a daemon that keeps ending is started again.
    pub backoff: Duration,
}

/// `[daemon.N]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// The name people see; `daemon.N` where none is given.
    pub name: String,
    /// Where Momo uploads arrive, and every door without an address of its own.
    pub host: HostPort,
    /// The data directories, one a disk; never empty.
    pub data: Vec<PathBuf>,
    /// The block device behind the data, for disk figures.
    pub drive: Option<PathBuf>,
    /// What this daemon does.
    pub roles: Roles,
    pub(super) change_replication: Option<HostPort>,
    pub(super) peer: Option<HostPort>,
    pub(super) text: Option<HostPort>,
    pub(super) http: Option<HostPort>,
    pub(super) state_dir: Option<PathBuf>,
}

/// A host (name or address) and a port, not looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets; never empty.
    pub host: String,
    /// The port; 0 lets the kernel choose (tests).
    pub port: u16,
}

/// What a daemon does; at least one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// May vote on names.
    pub manage: bool,
    /// Keeps files.
    pub store: bool,
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident { $first:ident = $first_word:literal: $first_doc:literal, $($variant:ident = $word:literal: $variant_doc:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            #[doc = $first_doc]
            #[default]
            $first,
            $(#[doc = $variant_doc] $variant,)*
        }

        impl $name {
            /// Every value, in the order of [`Self::WORDS`].
            pub const ALL: &[Self] = &[Self::$first, $(Self::$variant,)*];
            /// Every value as it is written in the file.
            pub const WORDS: &[&str] = &[$first_word, $($word,)*];

            /// The value as it is written in the file.
            pub const fn word(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

word! {
    /// What is synced before an acknowledgement.
    Durability {
        Full = "full": "Bytes and directory entries.",
        Data = "data": "Bytes only: after a power failure a name may point to a copy that has to be made again.",
        None = "none": "Nothing: the kernel writes when it likes.",
    }
}

word! {
    /// Who may change things by the text door (rule R21).
    TextAdmin {
        Loopback = "loopback": "Clients on this machine.",
        Open = "open": "Everyone who reaches the port.",
        Off = "off": "No one.",
    }
}

word! {
    /// The form of log lines.
    LogFormat {
        Text = "text": "For people.",
        Json = "json": "One JSON object a line.",
    }
}

impl Config {
    /// The daemon of a number, if the file has it.
    pub fn daemon(&self, id: NodeId) -> Option<&Daemon> {
        self.daemons.get(&id)
    }

    /// The daemons that vote when the cluster is born: of those that may (`roles`), the first 1, 3 or 5.
    pub fn voters(&self) -> Vec<NodeId> {
        let managers = self.managers();
        let count = usize::try_from(self.cluster.voters.unwrap_or(match managers.len() {
            0..=2 => 1,
            3..=4 => 3,
            _ => 5,
        }))
        .unwrap_or(usize::MAX);
        managers.into_iter().take(count).collect()
    }

    /// The daemons that may vote, by number.
    pub(super) fn managers(&self) -> Vec<NodeId> {
        let manages = |(id, daemon): (&NodeId, &Daemon)| daemon.roles.manage.then_some(*id);
        self.daemons.iter().filter_map(manages).collect()
    }

    /// The file of the shared secret: `cluster.secret_file`, or `momo.secret` beside the configuration.
    pub fn secret_file(&self) -> PathBuf {
        match &self.cluster.secret_file {
            Some(path) => path.clone(),
            None => self.file.with_file_name("momo.secret"),
        }
    }

    /// True when no address of any daemon can be reached from another machine; only then may daemons run without a secret (rule R20).
    pub fn all_loopback(&self) -> bool {
        self.daemons
            .values()
            .all(|daemon| daemon.addresses().all(|(_, address)| address.is_loopback()))
    }

    /// The line on which a key was said, if it was.
    pub fn line(&self, section: &str, key: &'static str) -> Option<usize> {
        self.said.get(&(section.to_owned(), key)).copied()
    }
}

impl Daemon {
    /// Where changes of mode arrive.
    pub fn change_replication(&self) -> &HostPort {
        self.change_replication.as_ref().unwrap_or(&self.host)
    }

    /// Where other daemons arrive.
    pub fn peer(&self) -> &HostPort {
        self.peer.as_ref().unwrap_or(&self.host)
    }

    /// Where the text door listens.
    pub fn text(&self) -> &HostPort {
        self.text.as_ref().unwrap_or(&self.host)
    }

    /// Where HTTP listens.
    pub fn http(&self) -> &HostPort {
        self.http.as_ref().unwrap_or(&self.host)
    }

    /// Every address with the key that names it; addresses that are shared come once per key.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, &HostPort)> {
        [
            ("host", Some(&self.host)),
            ("change_replication", self.change_replication.as_ref()),
            ("peer", self.peer.as_ref()),
            ("text", self.text.as_ref()),
            ("http", self.http.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, address)| Some((key, address?)))
    }

    /// Where log and tables live (rule R18): `state_dir`, or `.momo/state` in the first data directory.
    pub fn state_dir(&self) -> PathBuf {
        match (&self.state_dir, self.data.first()) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) => dir.join(".momo/state"),
            (None, None) => Path::new(".momo/state").to_owned(),
        }
    }
}

impl HostPort {
    /// True for `localhost`, 127.0.0.0/8 and `::1`.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.manage, self.store) {
            (true, true) => "manage,store",
            (true, false) => "manage",
            (false, true) => "store",
            (false, false) => "",
        })
    }
}

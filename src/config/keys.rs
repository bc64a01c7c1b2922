//! The table of keys: one row a key. Parser, defaults, help, the commented files and the suggestions all follow from it.

use super::field::Field;
use super::model::{Config, Daemon, Durability, LogFormat, TextAdmin};
use crate::base::limit;

/// One key of the file.
pub struct Key<T: 'static> {
    /// The section it stands in; `daemon.N` for each daemon's.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// How its value is read and where it goes.
    pub field: Field<T>,
    /// What holds when it is not said.
    pub default: Otherwise,
    /// What it means, one sentence.
    pub doc: &'static str,
}

/// What holds when a key is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// This value.
    Value(&'static str),
    /// Nothing is set; the words say what that means.
    Unset(&'static str),
    /// The file is refused.
    Refused,
}

use Otherwise::{Refused, Unset, Value};

/// A day in milliseconds: no wait of the program is longer.
const DAY: u64 = 24 * 3_600_000;

/// The sections other than `[daemon.N]`, in the order of the file, each with what it is about.
pub static SECTIONS: &[(&str, &str)] = &[
    ("global", "The original's switches."),
    (
        "metrics",
        "The mode controller: samples of load, thresholds, fallback.",
    ),
    ("cluster", "Who votes, how many copies, the shared secret."),
    ("heartbeat", "How a dead daemon is noticed."),
    (
        "membership",
        "When a dead daemon's vote goes to another, and where daemons are found.",
    ),
    ("read", "How fresh an answer is."),
    (
        "write",
        "How long an upload waits, and what its acknowledgement means.",
    ),
    ("repair", "When missing copies are made again."),
    ("scrub", "How often what is kept is read again."),
    ("gc", "When unreferenced objects are removed."),
    (
        "raft",
        "The clock of the consensus; the same on every daemon.",
    ),
    ("server", "Connections and their limits."),
    ("log", "What goes to stderr."),
    (
        "lfd",
        "When `momo lfd` and `momo cluster up` kill and start a daemon of theirs.",
    ),
];

/// The keys of every section but `[daemon.N]`.
pub static KEYS: &[Key<Config>] = &[
    Key {
        section: "global",
        name: "debug",
        field: Field::Bool(|c| &mut c.global.debug),
        default: Value("false"),
        doc: "Log every handshake, digest and acknowledgement.",
    },
    Key {
        section: "global",
        name: "replication_order",
        field: Field::Modes(|c| &mut c.global.replication_order),
        default: Value("2,1,3"),
        doc: "The modes from idle to loaded (0 none, 1 chain, 2 splay, 3 primary-splay); the first is the mode at birth.",
    },
    Key {
        section: "global",
        name: "polymorphic_system",
        field: Field::Bool(|c| &mut c.global.polymorphic_system),
        default: Value("false"),
        doc: "Let the controller change the mode by load.",
    },
    Key {
        section: "metrics",
        name: "interval",
        field: Field::Time(200..=DAY, |c| &mut c.metrics.interval),
        default: Value("300000"),
        doc: "Time between two samples of load.",
    },
    Key {
        section: "metrics",
        name: "fallback_interval",
        field: Field::Time(200..=30 * DAY, |c| &mut c.metrics.fallback_interval),
        default: Value("1800000"),
        doc: "Time without a step after which the mode falls back by one.",
    },
    Key {
        section: "metrics",
        name: "min_threshold",
        field: Field::Share(|c| &mut c.metrics.min_threshold),
        default: Value("0.25"),
        doc: "Free share of memory or CPU at or below which the mode steps left in the order.",
    },
    Key {
        section: "metrics",
        name: "max_threshold",
        field: Field::Share(|c| &mut c.metrics.max_threshold),
        default: Value("0.75"),
        doc: "Used share of memory or CPU at or above which the mode steps right in the order.",
    },
    Key {
        section: "cluster",
        name: "name",
        field: Field::Name(|c| &mut c.cluster.name),
        default: Value("momo"),
        doc: "The cluster's name, for people.",
    },
    Key {
        section: "cluster",
        name: "voters",
        field: Field::Voters(|c| &mut c.cluster.voters),
        default: Unset("1 of one or two daemons, 3 of three or four, 5 of more"),
        doc: "How many daemons vote on names when the cluster is born, the lowest numbers first; the others learn.",
    },
    Key {
        section: "cluster",
        name: "replicas",
        field: Field::Count(1..=limit::NODES as u64, |c| &mut c.cluster.replicas),
        default: Value("3"),
        doc: "How many daemons keep a whole file where there are more.",
    },
    Key {
        section: "cluster",
        name: "min_copies",
        field: Field::MaybeCount(1..=limit::NODES as u64, |c| &mut c.cluster.min_copies),
        default: Unset("2 where the strategy and the cluster have two or more, else 1"),
        doc: "Copies without which an upload is refused.",
    },
    Key {
        section: "cluster",
        name: "secret_file",
        field: Field::MaybePath(|c| &mut c.cluster.secret_file),
        default: Unset("momo.secret beside this file"),
        doc: "The file of the secret that daemons share, readable by its owner only; `momo secret new` makes it.",
    },
    Key {
        section: "heartbeat",
        name: "interval",
        field: Field::Time(20..=DAY, |c| &mut c.heartbeat.interval),
        default: Value("5000"),
        doc: "Time between two heartbeats of a daemon.",
    },
    Key {
        section: "heartbeat",
        name: "timeout",
        field: Field::Time(50..=DAY, |c| &mut c.heartbeat.timeout),
        default: Value("15000"),
        doc: "Silence after which a daemon counts as failed.",
    },
    Key {
        section: "membership",
        name: "grace",
        field: Field::Time(0..=30 * DAY, |c| &mut c.membership.grace),
        default: Value("120000"),
        doc: "How long a daemon that votes may be dead before a living spare gets its vote.",
    },
    Key {
        section: "membership",
        name: "fixed_addresses",
        field: Field::Bool(|c| &mut c.membership.fixed_addresses),
        default: Value("false"),
        doc: "Dial the daemons of this file at the addresses it gives and nowhere else; otherwise also where they say they are.",
    },
    Key {
        section: "read",
        name: "fresh_ms",
        field: Field::Time(0..=60_000, |c| &mut c.read.fresh),
        default: Value("500"),
        doc: "How long a look-up waits for a leader before it serves what it has, marked stale.",
    },
    Key {
        section: "write",
        name: "hop_stall",
        field: Field::Time(100..=600_000, |c| &mut c.write.hop_stall),
        default: Value("3000"),
        doc: "A target that takes no bytes for so long is left out and gets the file afterwards.",
    },
    Key {
        section: "write",
        name: "leg_wait",
        field: Field::Time(100..=600_000, |c| &mut c.write.leg_wait),
        default: Value("3000"),
        doc: "How long the uploads of primary-splay wait for each other.",
    },
    Key {
        section: "write",
        name: "deadline",
        field: Field::Time(500..=600_000, |c| &mut c.write.deadline),
        default: Value("30000"),
        doc: "How long a door waits for a name to be committed before it says that the outcome is unknown.",
    },
    Key {
        section: "write",
        name: "durability",
        field: Field::Word {
            words: Durability::WORDS,
            set: |c, word| c.write.durability = Durability::ALL[word],
            show: |c| c.write.durability.word(),
        },
        default: Value("full"),
        doc: "What is synced before an acknowledgement: bytes and directories (full), bytes (data), nothing (none).",
    },
    Key {
        section: "repair",
        name: "grace",
        field: Field::Time(0..=7 * DAY, |c| &mut c.repair.grace),
        default: Value("120000"),
        doc: "How long a daemon may be away before its copies are made again elsewhere.",
    },
    Key {
        section: "repair",
        name: "in",
        field: Field::Count(1..=64, |c| &mut c.repair.incoming),
        default: Value("2"),
        doc: "Copies a daemon takes in at the same time.",
    },
    Key {
        section: "repair",
        name: "out",
        field: Field::Count(1..=64, |c| &mut c.repair.outgoing),
        default: Value("4"),
        doc: "Copies a daemon gives out at the same time.",
    },
    Key {
        section: "repair",
        name: "bandwidth",
        field: Field::Bytes(0..=1 << 40, |c| &mut c.repair.bandwidth),
        default: Value("0"),
        doc: "Bytes a second that a daemon takes in for repair at most; 0 sets no limit. Uploads go first in any case.",
    },
    Key {
        section: "scrub",
        name: "period",
        field: Field::Time(0..=366 * DAY, |c| &mut c.scrub.period),
        default: Value("1209600000"),
        doc: "Time in which every copy is read again and compared with its digest; 0 for not at all.",
    },
    Key {
        section: "scrub",
        name: "bandwidth",
        field: Field::Bytes(65_536..=1 << 40, |c| &mut c.scrub.bandwidth),
        default: Value("67108864"),
        doc: "Most bytes a second read for that, also when an operator is in a hurry; an eighth while clients work hard.",
    },
    Key {
        section: "gc",
        name: "grace",
        field: Field::Time(1_000..=30 * DAY, |c| &mut c.gc.grace),
        default: Value("600000"),
        doc: "How long an object stays after its last reference went.",
    },
    Key {
        section: "raft",
        name: "tick_ms",
        field: Field::Time(5..=5_000, |c| &mut c.raft.tick),
        default: Value("50"),
        doc: "One tick.",
    },
    Key {
        section: "raft",
        name: "election_ticks",
        field: Field::Count(2..=1_000, |c| &mut c.raft.election_ticks),
        default: Value("20"),
        doc: "Silence of the leader, in ticks, after which another is elected.",
    },
    Key {
        section: "raft",
        name: "heartbeat_ticks",
        field: Field::Count(1..=100, |c| &mut c.raft.heartbeat_ticks),
        default: Value("2"),
        doc: "Time between two messages of the leader, in ticks.",
    },
    Key {
        section: "server",
        name: "slots",
        field: Field::Count(SLOTS_LEAST..=16_384, |c| &mut c.server.slots),
        default: Value("1024"),
        doc: "Connections served at the same time.",
    },
    Key {
        section: "server",
        name: "backlog",
        field: Field::Count(1..=65_535, |c| &mut c.server.backlog),
        default: Value("1024"),
        doc: "Connections the kernel queues for each address.",
    },
    Key {
        section: "server",
        name: "idle_timeout",
        field: Field::Time(100..=DAY, |c| &mut c.server.idle_timeout),
        default: Value("600000"),
        doc: "How long a connection may rest between two requests.",
    },
    Key {
        section: "server",
        name: "read_timeout",
        field: Field::Time(100..=DAY, |c| &mut c.server.read_timeout),
        default: Value("30000"),
        doc: "How long one read may wait within a request.",
    },
    Key {
        section: "server",
        name: "write_timeout",
        field: Field::Time(100..=DAY, |c| &mut c.server.write_timeout),
        default: Value("30000"),
        doc: "How long one write may wait.",
    },
    Key {
        section: "server",
        name: "drain",
        field: Field::Time(0..=3_600_000, |c| &mut c.server.drain),
        default: Value("10000"),
        doc: "How long running requests are waited for at a stop.",
    },
    Key {
        section: "server",
        name: "text_admin",
        field: Field::Word {
            words: TextAdmin::WORDS,
            set: |c, word| c.server.text_admin = TextAdmin::ALL[word],
            show: |c| c.server.text_admin.word(),
        },
        default: Value("loopback"),
        doc: "Who may change the mode and delete by the text door: clients on the same machine, everyone, no one.",
    },
    Key {
        section: "server",
        name: "max_file_bytes",
        field: Field::Bytes(1..=limit::FILE_BYTES, |c| &mut c.server.max_file_bytes),
        default: Value("9223372036854775807"),
        doc: "Largest file taken.",
    },
    Key {
        section: "server",
        name: "receive_buffer",
        field: Field::Bytes(0..=1 << 30, |c| &mut c.server.receive_buffer),
        default: Value("0"),
        doc: "Receive buffer of each socket; 0 leaves it to the kernel.",
    },
    Key {
        section: "server",
        name: "send_buffer",
        field: Field::Bytes(0..=1 << 30, |c| &mut c.server.send_buffer),
        default: Value("0"),
        doc: "Send buffer of each socket; 0 leaves it to the kernel.",
    },
    Key {
        section: "log",
        name: "log_format",
        field: Field::Word {
            words: LogFormat::WORDS,
            set: |c, word| c.log.log_format = LogFormat::ALL[word],
            show: |c| c.log.log_format.word(),
        },
        default: Value("text"),
        doc: "Lines for people (text) or one JSON object a line (json).",
    },
    Key {
        section: "lfd",
        name: "interval",
        field: Field::Time(20..=600_000, |c| &mut c.lfd.interval),
        default: Value("1000"),
        doc: "Time between two heartbeats of a daemon to its supervisor.",
    },
    Key {
        section: "lfd",
        name: "timeout",
        field: Field::Time(100..=DAY, |c| &mut c.lfd.timeout),
        default: Value("15000"),
        doc: "Silence after which a daemon counts as hung: it is killed and started again.",
    },
    Key {
        section: "lfd",
        name: "start_timeout",
        field: Field::Time(1_000..=DAY, |c| &mut c.lfd.start_timeout),
        default: Value("300000"),
        doc: "How long a daemon may take to open; reading a long log takes time.",
    },
    Key {
        section: "lfd",
        name: "backoff",
        field: Field::Time(200..=DAY, |c| &mut c.lfd.backoff),
        default: Value("30000"),
        doc: "Longest wait before a daemon that keeps ending is started again.",
    },
];

/// Peers keep their slots, and as many again are left for others.
const SLOTS_LEAST: u64 = limit::PEER_SLOTS as u64 * 2 + 1;

/// The keys of each `[daemon.N]`.
pub static DAEMON_KEYS: &[Key<Daemon>] = &[
    Key {
        section: DAEMON,
        name: "host",
        field: Field::Address(|d| &mut d.host),
        default: Refused,
        doc: "Where Momo uploads arrive, and every door without an address of its own.",
    },
    Key {
        section: DAEMON,
        name: "change_replication",
        field: Field::MaybeAddress(|d| &mut d.change_replication),
        default: Unset("on host"),
        doc: "Where changes of mode arrive.",
    },
    Key {
        section: DAEMON,
        name: "data",
        field: Field::Paths(|d| &mut d.data),
        default: Refused,
        doc: "The directory of the files, or one a disk; made if absent.",
    },
    Key {
        section: DAEMON,
        name: "drive",
        field: Field::MaybePath(|d| &mut d.drive),
        default: Unset("no disk figures"),
        doc: "The block device behind the data, for disk figures.",
    },
    Key {
        section: DAEMON,
        name: "name",
        field: Field::Name(|d| &mut d.name),
        default: Unset("daemon.N"),
        doc: "The name people see.",
    },
    Key {
        section: DAEMON,
        name: "peer",
        field: Field::MaybeAddress(|d| &mut d.peer),
        default: Unset("on host"),
        doc: "Where other daemons arrive.",
    },
    Key {
        section: DAEMON,
        name: "text",
        field: Field::MaybeAddress(|d| &mut d.text),
        default: Unset("on host"),
        doc: "Where the text door listens.",
    },
    Key {
        section: DAEMON,
        name: "http",
        field: Field::MaybeAddress(|d| &mut d.http),
        default: Unset("on host"),
        doc: "Where HTTP listens.",
    },
    Key {
        section: DAEMON,
        name: "roles",
        field: Field::Roles(|d| &mut d.roles),
        default: Value("manage,store"),
        doc: "What this daemon does: vote on names, keep files.",
    },
    Key {
        section: DAEMON,
        name: "state_dir",
        field: Field::MaybePath(|d| &mut d.state_dir),
        default: Unset(".momo/state in the first data directory"),
        doc: "Where the log and the tables live.",
    },
];

/// The section of a daemon's keys, as the manual spells it.
pub const DAEMON: &str = "daemon.N";

//! Text to `Config`: every error at once, each with file, line, section, key and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::keys::{DAEMON, DAEMON_KEYS, KEYS, Key, Otherwise, SECTIONS};
use super::lines::{Said, lines};
use super::model::{Config, Daemon, HostPort};
use super::nearest::nearest;
use crate::base::id::NodeId;
use crate::base::limit;

/// One thing that is wrong with the file. The operator mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// The line from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// The section; empty when it is about none.
    pub section: String,
    /// The key; empty when it is about none.
    pub key: String,
    /// What is wrong, and what would be right where that is known.
    pub why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.section.is_empty() {
            write!(f, " [{}]", self.section)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.why)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a configuration. `file` is where the text came from: for messages, and because the secret lies beside it.
    ///
    /// # Errors
    /// All that is wrong, in the order of the lines; nothing is taken from a file that has an error.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut reader = Reader::new(file);
        let (said, junk) = lines(text);
        for (line, why) in junk {
            reader.error(line, "", "", why);
        }
        for (line, said) in said {
            match said {
                Said::Section(name) => reader.section(line, &name),
                Said::Property { key, value } => reader.property(line, &key, &value),
            }
        }
        reader.close();
        let Reader {
            config, mut errors, ..
        } = reader;
        if errors.is_empty() {
            for (section, key, why) in relations(&config) {
                let line = config.line(&section, key).unwrap_or_default();
                errors.push(ConfigError {
                    file: file.to_owned(),
                    line,
                    section,
                    key: key.to_owned(),
                    why,
                });
            }
        }
        if errors.is_empty() {
            return Ok(config);
        }
        errors.sort_by_key(|error| error.line);
        Err(errors)
    }
}

/// What has been read so far.
struct Reader {
    config: Config,
    errors: Vec<ConfigError>,
    /// Sections already begun, with their lines.
    sections: BTreeMap<String, usize>,
    /// The section the next key belongs to.
    place: Place,
}

enum Place {
    /// Before the first section.
    Outside,
    /// In a section that was refused: its keys are passed over, their section is already an error.
    Refused,
    Global(String),
    Daemon(NodeId),
}

impl Reader {
    fn new(file: &Path) -> Self {
        let mut config = Config {
            file: file.to_owned(),
            ..Config::default()
        };
        defaults(KEYS, &mut config);
        Self {
            config,
            errors: Vec::new(),
            sections: BTreeMap::new(),
            place: Place::Outside,
        }
    }

    fn error(&mut self, line: usize, section: &str, key: &str, why: impl Into<String>) {
        self.errors.push(ConfigError {
            file: self.config.file.clone(),
            line,
            section: section.to_owned(),
            key: key.to_owned(),
            why: why.into(),
        });
    }

    fn section(&mut self, line: usize, name: &str) {
        self.place = match place(name) {
            Ok(place) => place,
            Err(why) => {
                self.error(line, name, "", why);
                Place::Refused
            }
        };
        if let Some(first) = self.sections.get(name) {
            let why = format!("section comes twice; first on line {first}");
            self.error(line, name, "", why);
            return;
        }
        self.sections.insert(name.to_owned(), line);
        if let Place::Daemon(id) = self.place {
            let mut daemon = Daemon::default();
            defaults(DAEMON_KEYS, &mut daemon);
            self.config.daemons.insert(id, daemon);
        }
    }

    fn property(&mut self, line: usize, key: &str, value: &str) {
        let (section, result) = match &self.place {
            Place::Refused => return,
            Place::Outside => (
                String::new(),
                Err("key before the first [section]".to_owned()),
            ),
            Place::Global(name) => {
                let name = name.clone();
                let row = KEYS
                    .iter()
                    .find(|row| row.section == name && row.name == key);
                let result = set(row, &mut self.config, value);
                (name, result)
            }
            Place::Daemon(id) => {
                let row = DAEMON_KEYS.iter().find(|row| row.name == key);
                let daemon = self.config.daemons.entry(*id).or_default();
                (format!("daemon.{id}"), set(row, daemon, value))
            }
        };
        match result {
            Ok(Some(known)) => {
                if let Some(first) = self.config.said.insert((section.clone(), known), line) {
                    let why = format!("key comes twice; first on line {first}");
                    self.error(line, &section, key, why);
                }
            }
            Ok(None) => {
                let why = unknown(&section, key);
                self.error(line, &section, key, why);
            }
            Err(why) => self.error(line, &section, key, why),
        }
    }

    /// What must be there and was not said.
    fn close(&mut self) {
        let ids: Vec<NodeId> = self.config.daemons.keys().copied().collect();
        if ids.is_empty()
            && !self
                .errors
                .iter()
                .any(|error| error.section.starts_with("daemon"))
        {
            self.error(
                0,
                "",
                "",
                "no [daemon.N] section: at least one daemon is needed",
            );
        }
        for id in ids {
            let section = format!("daemon.{id}");
            let line = self.sections.get(&section).copied().unwrap_or_default();
            for row in DAEMON_KEYS
                .iter()
                .filter(|row| row.default == Otherwise::Refused)
            {
                let tried = |error: &ConfigError| error.section == section && error.key == row.name;
                let said = self.config.line(&section, row.name).is_some();
                if !said && !self.errors.iter().any(tried) {
                    self.error(line, &section, row.name, format!("missing: {}", row.doc));
                }
            }
            if let Some(daemon) = self.config.daemons.get_mut(&id)
                && daemon.name.is_empty()
            {
                daemon.name = section;
            }
        }
    }
}

/// Puts every default of the table in its place.
fn defaults<T>(rows: &'static [Key<T>], target: &mut T) {
    for row in rows {
        if let Otherwise::Value(text) = row.default {
            let done = row.field.set(target, text);
            assert!(
                done.is_ok(),
                "default of [{}] {}: {done:?}",
                row.section,
                row.name
            );
        }
    }
}

/// Sets the key of a row; `None` when there is no such row.
fn set<T>(
    row: Option<&'static Key<T>>,
    target: &mut T,
    value: &str,
) -> Result<Option<&'static str>, String> {
    let Some(row) = row else { return Ok(None) };
    row.field.set(target, value).map(|()| Some(row.name))
}

/// The section behind a name.
fn place(name: &str) -> Result<Place, String> {
    if SECTIONS.iter().any(|(known, _)| *known == name) {
        return Ok(Place::Global(name.to_owned()));
    }
    if let Some(number) = name.strip_prefix("daemon.") {
        let id = number
            .parse::<u16>()
            .ok()
            .filter(|id| id.to_string() == number);
        return match id {
            Some(id) if id < limit::NODES => Ok(Place::Daemon(NodeId(id))),
            _ => Err(format!("a daemon's number is 0 to {}", limit::NODES - 1)),
        };
    }
    let known = SECTIONS
        .iter()
        .map(|(known, _)| *known)
        .chain([DAEMON, "daemon"]);
    Err(match nearest(name, known) {
        Some(DAEMON | "daemon") => {
            "unknown section; did you mean [daemon.0], [daemon.1], ...?".to_owned()
        }
        Some(meant) => format!("unknown section; did you mean [{meant}]?"),
        None => "unknown section".to_owned(),
    })
}

/// Why a key is refused that no row of its section has.
fn unknown(section: &str, key: &str) -> String {
    let daemon = section.starts_with("daemon.");
    let here: Vec<&str> = if daemon {
        DAEMON_KEYS.iter().map(|row| row.name).collect()
    } else {
        KEYS.iter()
            .filter(|row| row.section == section)
            .map(|row| row.name)
            .collect()
    };
    if let Some(meant) = nearest(key, here) {
        return format!("unknown key; did you mean '{meant}'?");
    }
    let elsewhere = KEYS
        .iter()
        .find(|row| row.name == key)
        .map(|row| row.section);
    let elsewhere = elsewhere.or_else(|| {
        DAEMON_KEYS
            .iter()
            .find(|row| row.name == key)
            .map(|row| row.section)
    });
    match elsewhere {
        Some(section) => format!("unknown key here; it belongs to [{section}]"),
        None => "unknown key".to_owned(),
    }
}

/// Values that are right alone and wrong together: section, key, why.
fn relations(config: &Config) -> Vec<(String, &'static str, String)> {
    let mut wrong = Vec::new();
    let mut check = |holds: bool, section: &str, key: &'static str, why: String| {
        if !holds {
            wrong.push((section.to_owned(), key, why));
        }
    };
    let Config {
        metrics,
        cluster,
        heartbeat,
        write,
        gc,
        raft,
        lfd,
        ..
    } = config;
    check(
        metrics.min_threshold < metrics.max_threshold,
        "metrics",
        "min_threshold",
        format!(
            "{} is not below max_threshold {}",
            metrics.min_threshold, metrics.max_threshold
        ),
    );
    check(
        heartbeat.timeout > heartbeat.interval,
        "heartbeat",
        "timeout",
        format!(
            "{} ms is not longer than interval {} ms",
            heartbeat.timeout.as_millis(),
            heartbeat.interval.as_millis()
        ),
    );
    check(
        lfd.timeout > lfd.interval,
        "lfd",
        "timeout",
        format!(
            "{} ms is not longer than interval {} ms",
            lfd.timeout.as_millis(),
            lfd.interval.as_millis()
        ),
    );
    for (key, wait) in [("hop_stall", write.hop_stall), ("leg_wait", write.leg_wait)] {
        check(
            wait < write.deadline,
            "write",
            key,
            format!(
                "{} ms is not shorter than deadline {} ms",
                wait.as_millis(),
                write.deadline.as_millis()
            ),
        );
    }
    check(
        gc.grace >= write.deadline,
        "gc",
        "grace",
        format!(
            "{} ms is shorter than [write] deadline {} ms: objects could go while their name is being committed",
            gc.grace.as_millis(),
            write.deadline.as_millis()
        ),
    );
    check(
        raft.election_ticks > raft.heartbeat_ticks,
        "raft",
        "election_ticks",
        format!(
            "{} is not above heartbeat_ticks {}",
            raft.election_ticks, raft.heartbeat_ticks
        ),
    );
    if let Some(least) = cluster.min_copies {
        let stores = config
            .daemons
            .values()
            .filter(|daemon| daemon.roles.store)
            .count();
        let most = cluster
            .replicas
            .min(u64::try_from(stores).unwrap_or(u64::MAX));
        check(
            least <= most,
            "cluster",
            "min_copies",
            format!(
                "{least} copies are asked and at most {most} can be made (replicas, storing daemons)"
            ),
        );
    }
    let managers = config.managers().len();
    if let Some(voters) = cluster.voters {
        check(
            voters <= u64::try_from(managers).unwrap_or(u64::MAX),
            "cluster",
            "voters",
            format!("{voters} voters are asked and only {managers} daemons may vote"),
        );
    }
    let first = config
        .daemons
        .keys()
        .next()
        .map(|id| format!("daemon.{id}"))
        .unwrap_or_default();
    check(
        managers > 0,
        &first,
        "roles",
        "no daemon manages: one at least must vote".to_owned(),
    );
    let stores = config.daemons.values().any(|daemon| daemon.roles.store);
    check(
        stores,
        &first,
        "roles",
        "no daemon stores: one at least must keep files".to_owned(),
    );
    wrong.extend(shared_addresses(config));
    wrong.extend(shared_directories(config));
    wrong
}

/// Addresses that two daemons would listen on. (Doors of one daemon may share.)
fn shared_addresses(config: &Config) -> Vec<(String, &'static str, String)> {
    let mut owners: BTreeMap<&HostPort, (NodeId, &str)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (id, daemon) in &config.daemons {
        for (key, address) in daemon.addresses().filter(|(_, address)| address.port != 0) {
            match owners.get(address) {
                Some((owner, other)) if owner != id => wrong.push((
                    format!("daemon.{id}"),
                    key,
                    format!("{address} is already {other} of [daemon.{owner}]"),
                )),
                Some(_) => {}
                None => {
                    owners.insert(address, (*id, key));
                }
            }
        }
    }
    wrong
}

/// Directories of one machine that two daemons, or one daemon twice, would write in. Daemons on different hosts may use the same path.
fn shared_directories(config: &Config) -> Vec<(String, &'static str, String)> {
    let mut owners: Vec<(NodeId, &str, &Path)> = Vec::new();
    let mut wrong = Vec::new();
    for (id, daemon) in &config.daemons {
        let machine = if daemon.host.is_loopback() {
            "localhost"
        } else {
            daemon.host.host.as_str()
        };
        for data in &daemon.data {
            let clash = owners.iter().find(|(_, host, path)| {
                *host == machine && (path.starts_with(data) || data.starts_with(path))
            });
            if let Some((owner, _, path)) = clash {
                let why = if *path == data.as_path() {
                    format!(
                        "{} is already a data directory of [daemon.{owner}]",
                        data.display()
                    )
                } else {
                    format!(
                        "{} and {} of [daemon.{owner}] lie in one another",
                        data.display(),
                        path.display()
                    )
                };
                wrong.push((format!("daemon.{id}"), "data", why));
            }
            owners.push((*id, machine, data));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Durability, LogFormat, TextAdmin};
    use std::time::Duration;

    /// The original's file as it ships.
    const ORIGINAL: &str = "\
[global]
debug=true
replication_order=2,1,3
polymorphic_system=true

[metrics]
interval=300000
fallback_interval=1800000
min_threshold=0.25
max_threshold=0.75

[daemon.0]
host=momo-server0:3333
change_replication=momo-server0:2223
data=/root/received_files/dir1
drive=/dev/sda

[daemon.1]
host=momo-server1:3334
change_replication=momo-server1:2224
data=/root/received_files/dir2
drive=/dev/sda

[daemon.2]
host=momo-server2:3335
change_replication=momo-server2:2225
data=/root/received_files/dir3
drive=/dev/sda
";
    const LEAST: &str = "[daemon.0]\nhost=127.0.0.1:1\ndata=d\n";

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        Config::parse(text, Path::new("conf/momo.conf"))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_originals_file_is_accepted_as_it_is() {
        let config = parse(ORIGINAL).unwrap();
        assert!(config.global.debug && config.global.polymorphic_system);
        let digits: Vec<u8> = config
            .global
            .replication_order
            .iter()
            .map(|mode| mode.digit())
            .collect();
        assert_eq!(digits, [2, 1, 3]);
        assert_eq!(config.metrics.interval, Duration::from_mins(5));
        let daemon = config.daemon(NodeId(2)).unwrap();
        assert_eq!(daemon.host.to_string(), "momo-server2:3335");
        assert_eq!(daemon.change_replication().port, 2225);
        assert_eq!(daemon.text(), &daemon.host);
        assert_eq!(
            daemon.state_dir(),
            Path::new("/root/received_files/dir3/.momo/state")
        );
        assert_eq!(daemon.name, "daemon.2");
        assert_eq!(config.voters(), [NodeId(0), NodeId(1), NodeId(2)]);
        assert_eq!(config.secret_file(), Path::new("conf/momo.secret"));
        assert!(!config.all_loopback());
        assert_eq!(config.line("metrics", "interval"), Some(7));
        assert_eq!(config.line("gc", "grace"), None);
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let config = parse(LEAST).unwrap();
        assert_eq!(config.heartbeat.interval, Duration::from_secs(5));
        assert_eq!(config.heartbeat.timeout, Duration::from_secs(15));
        assert_eq!(config.write.hop_stall, Duration::from_secs(3));
        assert_eq!(config.write.durability, Durability::Full);
        assert_eq!(config.server.text_admin, TextAdmin::Loopback);
        assert_eq!(config.server.slots, 1_024);
        assert_eq!(config.log.log_format, LogFormat::Text);
        assert_eq!(config.cluster.replicas, 3);
        assert_eq!(config.voters(), [NodeId(0)]);
        assert!(config.all_loopback());
    }

    #[test]
    fn as_many_vote_as_the_number_of_daemons_allows() {
        for (daemons, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)] {
            let section = |n| format!("[daemon.{n}]\nhost=h{n}:1\ndata=/d\n");
            let text = (0..daemons).map(section).collect::<Vec<_>>().concat();
            assert_eq!(parse(&text).unwrap().voters().len(), voters, "{daemons}");
        }
        let text = "[cluster]\nvoters=1\n[daemon.0]\nhost=a:1\ndata=/d\nroles=store\n[daemon.3]\nhost=b:1\ndata=/d\n";
        assert_eq!(parse(text).unwrap().voters(), [NodeId(3)]);
    }

    #[test]
    fn every_error_comes_at_once_with_its_line_and_the_nearest_name() {
        let text = "\
stray=1
[metrics]
intervall=5
interval=soon
min_threshold=0.1
min_threshold=0.2
[metrisc]
anything=goes
[server]
host=a:1
[daemon.0]
host=a
junk
[daemon.x]
[metrics]
[daemon.1]
host=b:1
";
        let errors = parse(text).unwrap_err();
        let expected = [
            "conf/momo.conf:1: stray: key before the first [section]",
            "conf/momo.conf:3: [metrics] intervall: unknown key; did you mean 'interval'?",
            "conf/momo.conf:4: [metrics] interval: 'soon' is not a time in ms (5000, 250ms, 5s, 2m, 1h)",
            "conf/momo.conf:6: [metrics] min_threshold: key comes twice; first on line 5",
            "conf/momo.conf:7: [metrisc] unknown section; did you mean [metrics]?",
            "conf/momo.conf:10: [server] host: unknown key here; it belongs to [daemon.N]",
            "conf/momo.conf:11: [daemon.0] data: missing: The directory of the files, or one a disk; made if absent.",
            "conf/momo.conf:12: [daemon.0] host: 'a' is not host:port: no port",
            "conf/momo.conf:13: neither [section] nor key = value",
            "conf/momo.conf:14: [daemon.x] a daemon's number is 0 to 1023",
            "conf/momo.conf:15: [metrics] section comes twice; first on line 2",
            "conf/momo.conf:16: [daemon.1] data: missing: The directory of the files, or one a disk; made if absent.",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        for (text, why) in [
            (
                "[metrics]\nmin_threshold=0.8\n",
                ":2: [metrics] min_threshold: 0.8 is not below",
            ),
            (
                "[heartbeat]\ntimeout=5000\n",
                ":2: [heartbeat] timeout: 5000 ms is not longer",
            ),
            (
                "[lfd]\ninterval=15s\n",
                "[lfd] timeout: 15000 ms is not longer",
            ),
            (
                "[write]\ndeadline=2s\n",
                "[write] hop_stall: 3000 ms is not shorter",
            ),
            ("[gc]\ngrace=1s\n", ":2: [gc] grace: 1000 ms is shorter"),
            (
                "[raft]\nheartbeat_ticks=20\n",
                "[raft] election_ticks: 20 is not above",
            ),
            (
                "[cluster]\nmin_copies=2\n",
                ":2: [cluster] min_copies: 2 copies are asked",
            ),
            (
                "[cluster]\nvoters=3\n",
                ":2: [cluster] voters: 3 voters are asked and only 1",
            ),
            (
                "[cluster]\nvoters=0\n",
                ":2: [cluster] voters: 0 (a single authority",
            ),
            (
                "[daemon.1]\nhost=127.0.0.1:1\ndata=e\n",
                ":5: [daemon.1] host: 127.0.0.1:1 is already host of [daemon.0]",
            ),
        ] {
            let text = if text.starts_with("[daemon") {
                format!("{LEAST}{text}")
            } else {
                format!("{text}{LEAST}")
            };
            let errors = parse(&text).unwrap_err().join("\n");
            assert!(errors.contains(why), "{text}: {errors}");
        }
        assert!(parse("").unwrap_err()[0].contains("no [daemon.N] section"));
        assert!(parse("[daemon.0]\nhost=a:1\ndata=/d\nroles=store\n").is_err());
    }

    #[test]
    fn one_directory_belongs_to_one_daemon_of_a_machine() {
        let two = |host: &str, data: &str| {
            parse(&format!("{LEAST}[daemon.1]\nhost={host}\ndata={data}\n"))
        };
        assert!(two("127.0.0.1:2", "e").is_ok());
        assert!(two("127.0.0.1:2", "d").unwrap_err()[0].contains("already a data directory"));
        assert!(two("localhost:2", "e,d/sub").unwrap_err()[0].contains("lie in one another"));
        assert!(two("elsewhere:1", "d").is_ok());
        assert!(parse("[daemon.0]\nhost=a:1\ndata=d,d\n").is_err());
    }
}

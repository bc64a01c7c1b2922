//! Clients that put, read and delete a few names through all daemons at once, and write down what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::text::{Got, Text};
use crate::harness::{Cluster, content};
use crate::history::{self, Done, Expected, Operation, Value};
use crate::ledger::next;

/// What every name of a history begins with.
pub const PREFIX: &str = "history-";
/// Names in use at the same time.
const NAMES: u64 = 4;
/// Operations on a name before the next takes its place, so that no history grows beyond what can be searched.
const LENGTH: usize = 60;
/// How long a client waits for an answer before it calls the outcome unknown.
const WAIT: Duration = Duration::from_secs(4);

/// The history of one name, and what its contents were said to be called.
#[derive(Debug, Default)]
struct Name {
    operations: Vec<Operation>,
    versions: BTreeMap<Value, u64>,
}

/// What all clients were told.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    values: AtomicU64,
    names: Mutex<BTreeMap<String, Name>>,
    wrong: Mutex<Vec<String>>,
}

/// What a history amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Names used.
    pub names: usize,
    /// Operations with an answer.
    pub answered: usize,
    /// Operations with an unknown outcome.
    pub unknown: usize,
    /// Operations refused.
    pub refused: usize,
}

impl Recorder {
    /// An empty history that begins now.
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            values: AtomicU64::new(1),
            names: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        match self.names.lock() {
            Ok(open) => open,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn wrong(&self, what: String) {
        if let Ok(mut wrong) = self.wrong.lock() {
            wrong.push(what);
        }
    }

    fn note(&self, name: &str, call: u64, done: Done) {
        let answer = self.now();
        let mut open = self.open();
        let name = open.entry(name.to_owned()).or_default();
        name.operations.push(Operation { call, answer, done });
    }

    /// A content has one version, whoever says it.
    fn note_version(&self, name: &str, value: Value, version: u64) {
        let mut open = self.open();
        let versions = &mut open.entry(name.to_owned()).or_default().versions;
        let known = *versions.entry(value).or_insert(version);
        drop(open);
        if known != version {
            self.wrong(format!(
                "{name}: value {value} was version {known} and is {version}"
            ));
        }
    }

    /// The name number `index` at this time: after so many operations another one.
    fn name(&self, index: u64) -> String {
        let open = self.open();
        (0..u64::MAX)
            .map(|life| format!("{PREFIX}{index}-{life}"))
            .find(|name| {
                open.get(name)
                    .is_none_or(|name| name.operations.len() < LENGTH)
            })
            .unwrap_or_default()
    }

    /// Reads every name through every daemon once more, then judges. Panics with the name and what was wrong.
    pub fn judge(&self, cluster: &Cluster, hint: &str) -> Sum {
        let names: Vec<String> = self.open().keys().cloned().collect();
        for daemon in &cluster.daemons {
            let mut client = Client::new(self, vec![daemon.host], 1);
            for name in &names {
                cluster.eventually(&format!("{hint}: a fresh read of {name}"), |_| {
                    client.read(0, name)
                });
            }
        }
        let wrong = self.wrong.lock().map(|wrong| wrong.clone());
        assert_eq!(wrong.unwrap_or_default(), Vec::<String>::new(), "{hint}");
        let mut sum = Sum::default();
        for (name, life) in self.open().iter() {
            sum.names += 1;
            for one in &life.operations {
                match one.done {
                    Done::MaybePut(..) | Done::MaybeDelete => sum.unknown += 1,
                    Done::RefusedPut(_) => sum.refused += 1,
                    _ => sum.answered += 1,
                }
            }
            if let Err(broken) = history::check(&life.operations) {
                let mut all = life.operations.clone();
                all.sort_by_key(|one| one.call);
                let lines: Vec<String> = all.iter().map(|one| format!("  {one:?}")).collect();
                panic!(
                    "{hint}: {name}: {broken}\nthe whole history:\n{}\n{}",
                    lines.join("\n"),
                    cluster.tails()
                );
            }
        }
        sum
    }
}

/// The bytes of a value: its number, and what follows from it.
fn body(value: Value) -> Vec<u8> {
    let size = match value % 40 {
        0 => 300_000,
        rest => usize::try_from(rest * 97).unwrap_or(0),
    };
    [value.to_le_bytes().to_vec(), content(value, size)].concat()
}

/// The value of bytes, if they are whole.
fn value_of(bytes: &[u8]) -> Option<Value> {
    let value = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    (body(value) == bytes).then_some(value)
}

/// Operates until it is told to stop, with a rest of `pace` behind each operation.
pub fn operate_on(
    recorder: &Recorder,
    seed: u64,
    hosts: &[SocketAddr],
    stop: &AtomicBool,
    pace: Duration,
) {
    let mut client = Client::new(recorder, hosts.to_vec(), seed);
    while !stop.load(Ordering::Relaxed) {
        let rest = if client.step() {
            Duration::ZERO
        } else {
            Duration::from_millis(10)
        };
        thread::sleep(pace.max(rest));
    }
}

struct Client<'a> {
    recorder: &'a Recorder,
    hosts: Vec<SocketAddr>,
    connections: Vec<Option<Text>>,
    chance: u64,
    /// What was last read under a name: its value and version.
    read: BTreeMap<String, (Value, u64)>,
}

impl<'a> Client<'a> {
    fn new(recorder: &'a Recorder, hosts: Vec<SocketAddr>, seed: u64) -> Self {
        Self {
            recorder,
            connections: hosts.iter().map(|_| None).collect(),
            hosts,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            read: BTreeMap::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        next(&mut self.chance) % below
    }

    /// A connection to a host: the one of before, or a new one.
    fn connection(&mut self, host: usize) -> Option<Text> {
        self.connections[host].take().or_else(|| {
            let text = Text::dial(self.hosts[host]).ok()?;
            text.socket().set_read_timeout(Some(WAIT)).ok()?;
            Some(text)
        })
    }

    /// One operation; false where it came to nothing.
    fn step(&mut self) -> bool {
        let host = usize::try_from(self.draw(self.hosts.len() as u64)).unwrap_or(0);
        let index = self.draw(NAMES);
        let name = self.recorder.name(index);
        match self.draw(20) {
            0..=7 => self.read(host, &name),
            8..=9 => self.delete(host, &name),
            10..=12 => self.put(host, &name, Expected::Absent, "expect=absent"),
            13..=15 => match self.read.get(&name).copied() {
                Some((value, version)) => self.put(
                    host,
                    &name,
                    Expected::Value(value),
                    &format!("expect={version}"),
                ),
                None => self.read(host, &name),
            },
            _ => self.put(host, &name, Expected::Any, ""),
        }
    }

    /// True where the answer was fresh.
    fn read(&mut self, host: usize, name: &str) -> bool {
        let call = self.recorder.now();
        let Some(mut text) = self.connection(host) else {
            return false;
        };
        let answer = text.get_whole(name);
        if answer.is_ok() {
            self.connections[host] = Some(text);
        }
        match answer {
            Ok(Ok(Got {
                body,
                version,
                stale,
            })) => {
                let Some(value) = value_of(&body) else {
                    self.recorder
                        .wrong(format!("{name}: {} bytes that nobody wrote", body.len()));
                    return true;
                };
                self.recorder.note_version(name, value, version);
                if stale {
                    self.recorder.note(name, call, Done::SawStale(Some(value)));
                    return false;
                }
                self.recorder.note(name, call, Done::Saw(Some(value)));
                self.read.insert(name.to_owned(), (value, version));
                true
            }
            Ok(Err(why)) if why == "file not found" => {
                self.recorder.note(name, call, Done::Saw(None));
                self.read.remove(name);
                true
            }
            _ => false,
        }
    }

    fn put(&mut self, host: usize, name: &str, expected: Expected, key: &str) -> bool {
        let Some(mut text) = self.connection(host) else {
            return false;
        };
        let value = self.recorder.values.fetch_add(1, Ordering::Relaxed);
        let keys = format!("strategy=splay {key}");
        let call = self.recorder.now();
        let answer = text.put(name, keys.trim_end(), &body(value));
        match answer {
            Ok(Ok(kept)) => {
                self.connections[host] = Some(text);
                self.recorder.note(name, call, Done::Put(value, expected));
                let version = kept
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("version=")?.parse().ok());
                match version {
                    Some(version) => {
                        self.recorder.note_version(name, value, version);
                        self.read.insert(name.to_owned(), (value, version));
                    }
                    None => self.recorder.wrong(format!("{name}: OK {kept}")),
                }
                true
            }
            Ok(Err(why)) if why.contains("outcome unknown") => {
                self.recorder
                    .note(name, call, Done::MaybePut(value, expected));
                false
            }
            Ok(Err(why)) => {
                // The door may close behind a refusal that came before the body.
                self.recorder.note(name, call, Done::RefusedPut(value));
                let mismatch = ["exists already", "is at version", "does not exist, version"]
                    .iter()
                    .any(|words| why.contains(words));
                if mismatch {
                    self.recorder.note(name, call, Done::Mismatch(expected));
                }
                mismatch
            }
            Err(_) => {
                self.recorder
                    .note(name, call, Done::MaybePut(value, expected));
                false
            }
        }
    }

    fn delete(&mut self, host: usize, name: &str) -> bool {
        let Some(mut text) = self.connection(host) else {
            return false;
        };
        let call = self.recorder.now();
        let answer = text.ask(&format!("FILE DELETE {name}"));
        let Ok(line) = answer else {
            self.recorder.note(name, call, Done::MaybeDelete);
            return false;
        };
        self.connections[host] = Some(text);
        if line.starts_with("OK") {
            self.recorder.note(name, call, Done::Delete);
            self.read.remove(name);
        } else if line == "ERR file not found" {
            self.recorder.note(name, call, Done::Saw(None));
            self.read.remove(name);
        } else if line.contains("outcome unknown") {
            self.recorder.note(name, call, Done::MaybeDelete);
            return false;
        } else {
            return false;
        }
        true
    }
}

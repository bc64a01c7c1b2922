//! Scripts of `tests/scenarios/*.txt`: one command a line, and below each, indented, what the nodes said and how it ended. `UPDATE=1` writes what is seen in place of what was expected.
//!
//! | command | does |
//! |---|---|
//! | `cluster N V [spares S] [keep K] [seed X]` | a quiet cluster of N nodes, V of them voters |
//! | `well` | waits until all nodes stand at the same place, with the voters there should be |
//! | `leads N` | waits until node N leads |
//! | `wait MS` | lets time pass |
//! | `crash N`, `start N`, `wipe N` | a process ends, begins; a stopped machine's disks are emptied |
//! | `image N`, `restore N` | keeps a copy of a machine's state; puts it back while it is stopped |
//! | `cut N`, `mute A B`, `heal` | cuts a node off, or only what A says to B; joins all again |
//! | `put N NAME`, `read N NAME` | a client at a node |
//! | `join N`, `remove N`, `administer N STATE` | a spare machine asks to be a member; an operator's word |
//! | `show` | how each node stands |

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use momo::base::id::NodeId;
use momo::core::node::Role;
use momo::wire::command::Operation;
use momo::wire::record::Administrative;

use crate::clients::Outcome;
use crate::cluster::Cluster;
use crate::plan::Plan;

const SECOND: u64 = 1_000_000;
/// Nothing that a script waits for takes longer.
const PATIENCE: u64 = 120 * SECOND;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// A script that runs.
#[derive(Default)]
struct Script {
    cluster: Option<Cluster>,
    /// The state that `image` kept.
    image: Option<crate::world::Disk>,
}

impl Script {
    fn cluster(&mut self) -> Result<&mut Cluster, String> {
        self.cluster
            .as_mut()
            .ok_or_else(|| "no cluster yet".to_owned())
    }

    /// Does one command; how it ended, where that says something.
    fn run(&mut self, words: &[&str]) -> Result<Option<String>, String> {
        let number = |at: usize| -> Result<u64, String> {
            let word = words.get(at).ok_or("a number is missing")?;
            word.parse().map_err(|_| format!("'{word}' is no number"))
        };
        let node = |at: usize| -> Result<NodeId, String> {
            Ok(NodeId(
                u16::try_from(number(at)?).map_err(|e| e.to_string())?,
            ))
        };
        let command = *words.first().ok_or("an empty command")?;
        if command == "cluster" {
            self.cluster = Some(quiet(words)?);
            return Ok(None);
        }
        let kept = &mut self.image;
        let Some(cluster) = self.cluster.as_mut() else {
            return Err("no cluster yet".to_owned());
        };
        match command {
            "well" => cluster.until(PATIENCE, Cluster::is_well)?,
            "leads" => {
                let node = node(1)?;
                let leads = |c: &Cluster| c.report(node).is_some_and(|r| r.role == Role::Leader);
                cluster.until(PATIENCE, leads)?;
            }
            "wait" => {
                let end = cluster.now + number(1)? * 1_000;
                cluster.until(PATIENCE, |c| c.now >= end)?;
            }
            "crash" => cluster.crash(node(1)?)?,
            "start" => cluster.start(node(1)?)?,
            "wipe" => cluster.wipe(node(1)?),
            "image" => *kept = Some(cluster.machine(node(1)?).disk.clone()),
            "restore" => {
                let image = kept.take().ok_or("no image")?;
                cluster.machine(node(1)?).disk = image;
            }
            "cut" => cluster.isolate(Some(node(1)?)),
            "mute" => {
                cluster.network.cut(node(1)?, node(2)?);
                cluster.links();
            }
            "heal" => cluster.isolate(None),
            "put" => {
                let name = words.get(2).ok_or("a name is missing")?;
                return cluster
                    .put(node(1)?, name)
                    .map(|outcome| Some(said(&outcome)));
            }
            "read" => {
                let name = words.get(2).ok_or("a name is missing")?;
                return cluster
                    .read(node(1)?, name)
                    .map(|outcome| Some(said(&outcome)));
            }
            "join" => cluster.join(node(1)?)?,
            "remove" => {
                let node = node(1)?;
                let remove = Operation::Remove { node, force: false };
                return cluster.word(remove).map(Some);
            }
            "administer" => {
                let state = words.get(2).ok_or("a state is missing")?;
                let state: Administrative =
                    serde_json::from_str(&format!("\"{state}\"")).map_err(|e| e.to_string())?;
                let node = node(1)?;
                return cluster
                    .word(Operation::Administer { node, state })
                    .map(Some);
            }
            "show" => return Ok(Some(show(cluster))),
            _ => return Err(format!("'{command}' is no command")),
        }
        Ok(None)
    }
}

fn quiet(words: &[&str]) -> Result<Cluster, String> {
    let value = |at: usize| -> Result<u64, String> {
        let word = words.get(at).ok_or("a number is missing")?;
        word.parse().map_err(|_| format!("'{word}' is no number"))
    };
    let option = |name: &str, other: u64| {
        let at = words.iter().position(|word| *word == name);
        at.map_or(Ok(other), |at| value(at + 1))
    };
    let mut plan = Plan::new(option("seed", 3)?);
    let small = |number: u64| u16::try_from(number).map_err(|e| e.to_string());
    plan.nodes = small(value(1)?)?;
    plan.voters = usize::from(small(value(2)?)?);
    plan.spares = small(option("spares", 0)?)?;
    (plan.loss, plan.twice, plan.late, plan.reorder) = (0, 0, 0, 0);
    (plan.delay, plan.sync) = ((1_000, 2_000), (1_000, 5_000));
    plan.keep = option("keep", 4_096)?;
    (plan.clients, plan.dirs, plan.grace) = (0, 1, 2_000);
    let mut cluster = Cluster::new(plan);
    cluster.hear();
    cluster.start_all();
    Ok(cluster)
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed { .. } => "kept".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Unknown => "unknown".to_owned(),
        Outcome::Fresh { found, .. } if found.is_some() => "fresh: there".to_owned(),
        Outcome::Fresh { .. } => "fresh: not there".to_owned(),
        Outcome::Stale => "stale".to_owned(),
    }
}

fn show(cluster: &Cluster) -> String {
    let ids = |ids: &[NodeId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.join(",")
    };
    let mut text = String::new();
    for (node, report) in cluster.reports() {
        let _ = match report {
            None => writeln!(text, "node {node}: stopped"),
            Some(report) => writeln!(
                text,
                "node {node}: {:?}, voters {}, learners {}{}",
                report.role,
                ids(&report.voters),
                ids(&report.learners),
                report
                    .waiting
                    .map(|why| format!(", waiting: {why}"))
                    .unwrap_or_default()
            ),
        };
    }
    text
}

/// The script with what was seen in place of what was expected.
fn replay(text: &str) -> Result<String, String> {
    let mut script = Script::default();
    let mut seen = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        seen.push_str(line);
        seen.push('\n');
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with('#') || words.is_empty() {
            continue;
        }
        let ended = script.run(&words).map_err(|why| format!("{line}: {why}"))?;
        // Node by node, and without times: what matters is who concludes what.
        let mut heard = script.cluster()?.heard();
        heard.sort_by_key(|line| line.split(':').next().map(str::to_owned));
        for line in &mut heard {
            line.truncate(line.find(", last heard").unwrap_or(line.len()));
        }
        for line in heard
            .iter()
            .map(String::as_str)
            .chain(ended.iter().flat_map(|e| e.lines()))
        {
            let _ = writeln!(seen, "  {line}");
        }
    }
    script.cluster()?.judge()?;
    Ok(seen)
}

#[test]
fn every_script_goes_as_it_is_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .expect("tests/scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for path in files {
        let expected = fs::read_to_string(&path).expect("a script");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        match replay(&expected) {
            Ok(seen) if seen == expected => {}
            Ok(seen) if update => fs::write(&path, seen).expect("written"),
            Ok(seen) => {
                let lines = expected.lines().zip(seen.lines());
                let first = lines.enumerate().find(|(_, (a, b))| a != b);
                eprintln!("{name}: {first:?} (UPDATE=1 writes what is seen)");
                wrong.push(name);
            }
            Err(why) => {
                eprintln!("{name}: {why}");
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

//! Many names: commands a second with 64 proposers, what a name costs on disk and in memory, how fast a full catalog opens and reaches a new member.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::floor;
use crate::harness::text::{Text, put_head};
use crate::harness::{Cluster, Daemon, Shape};
use crate::table::Table;
use crate::usage::{cpu_of, memory_of};

/// Connections that each have one command under way.
const PROPOSERS: u64 = 64;
/// Commands of a measured rate.
const MEASURED: u64 = 100_000;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_hours(1);

/// Memory as a disk, for the visible trees: making a million inodes on a real one is the work of its file system, not of the catalog.
const MEMORY: &str = "/dev/shm";

/// Daemons whose logs and tables lie on the disk that is measured, and whose visible trees lie in memory where there is such a disk.
struct Ground {
    cluster: Cluster,
    state: PathBuf,
    _trees: Option<TempDir>,
}

impl Ground {
    fn start(folder: &Path, daemons: usize, trees: Trees) -> Self {
        let memory = (trees == Trees::InMemory)
            .then(|| {
                tempfile::Builder::new()
                    .prefix("momo-")
                    .tempdir_in(MEMORY)
                    .ok()
            })
            .flatten();
        let state = folder.join(format!("state-{daemons}-{}", memory.is_some()));
        let data = memory.as_ref().map_or_else(Vec::new, |memory| {
            (0..daemons)
                .map(|id| (id, memory.path().join(id.to_string())))
                .collect()
        });
        let cluster = Cluster::start(&Shape {
            fast: false,
            debug: false,
            daemons,
            data,
            state: Some(state.clone()),
            parent: Some(folder.to_path_buf()),
            ..Shape::default()
        });
        Self {
            cluster,
            state,
            _trees: memory,
        }
    }

    fn state_of(&self, id: usize) -> PathBuf {
        self.state.join(id.to_string())
    }
}

/// Where the visible trees lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trees {
    InMemory,
    OnDisk,
}

/// Every figure about many names.
pub fn figures(folder: &Path, names: u64, table: &mut Table) {
    let measured = MEASURED.min(names);
    {
        let one = Ground::start(folder, 1, Trees::OnDisk);
        let rate = propose(&one.cluster, 0..measured / 5);
        table.shown(
            "64 clients, one voter, each name also made in the visible tree on the disk",
            "names/s",
            rate.per_second,
        );
    }
    {
        let one = Ground::start(folder, 1, Trees::InMemory);
        let rate = propose(&one.cluster, 0..measured);
        at_least(table, "one voter", &rate, 20_000.0);
    }
    let mut ground = Ground::start(folder, 3, Trees::InMemory);
    let cluster = &mut ground.cluster;
    let rate = propose(cluster, 0..measured);
    at_least(table, "three daemons", &rate, 5_000.0);
    let before: Vec<f64> = (0..3).map(|id| resident(cluster, id)).collect();
    let rest = propose(cluster, measured..names);
    eprintln!(
        "  {names} names: {:.0} a second for the rest",
        rest.per_second
    );
    cluster.eventually("all have applied the same", |cluster| {
        let applied: Vec<u64> = (0..3).map(|id| applied(cluster, id)).collect();
        applied[0] > 0 && applied.iter().all(|other| *other == applied[0])
    });
    #[allow(clippy::cast_precision_loss, reason = "a few millions")]
    let each = names as f64;
    floor::settle(0);
    table.shown(
        &format!("catalog of {names} files: on disk"),
        "bytes a file",
        state_bytes(ground.state.join("0")) / each,
    );
    let grown = (0..3)
        .map(|id| resident(cluster, id) - before[id])
        .fold(0.0, f64::max);
    table.shown(
        &format!("catalog of {names} files: RSS"),
        "MiB",
        resident(cluster, 0),
    );
    table.shown(
        &format!("catalog of {names} files: RSS more than after {measured}"),
        "MiB",
        grown,
    );
    open(cluster, names, table);
    snapshot(&mut ground, names, table);
}

/// Commands committed in a time.
struct Rate {
    per_second: f64,
    cpu_each_us: f64,
}

fn at_least(table: &mut Table, how: &str, rate: &Rate, least: f64) {
    // A rate must not be too small: as time a command it must not be too large.
    table.absolute(
        &format!(
            "64 proposers, {how}: {:.0} commands/s; time a command",
            rate.per_second
        ),
        "us",
        1e6 / rate.per_second,
        1e6 / least,
    );
    table.shown(
        &format!("64 proposers, {how}: CPU a command, all daemons"),
        "us",
        rate.cpu_each_us,
    );
}

/// Makes empty files: each is one command and nothing else but its name.
fn propose(cluster: &Cluster, names: std::ops::Range<u64>) -> Rate {
    let hosts: Vec<SocketAddr> = cluster.daemons.iter().map(|daemon| daemon.host).collect();
    let pids: Vec<u32> = cluster.daemons.iter().map(Daemon::pid).collect();
    let cpu = || pids.iter().map(|pid| cpu_of(*pid)).sum::<f64>();
    let (next, count) = (AtomicU64::new(names.start), names.end - names.start);
    if count == 0 {
        return Rate {
            per_second: f64::NAN,
            cpu_each_us: f64::NAN,
        };
    }
    let (start, used) = (Instant::now(), cpu());
    thread::scope(|scope| {
        for own in 0..PROPOSERS {
            let (hosts, next, end) = (&hosts, &next, names.end);
            scope.spawn(move || {
                let host = hosts[usize::try_from(own).unwrap_or(0) % hosts.len()];
                let mut text = Text::dial(host).expect("a daemon");
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        return;
                    }
                    let head = put_head(&name(index), "", 0);
                    let answer = text
                        .send(head.as_bytes())
                        .and_then(|()| text.line())
                        .expect("an answer");
                    assert!(answer.starts_with("OK"), "{answer}");
                }
            });
        }
    });
    #[allow(clippy::cast_precision_loss, reason = "a few millions")]
    let count = count as f64;
    let wall = start.elapsed().as_secs_f64();
    Rate {
        per_second: count / wall,
        cpu_each_us: (cpu() - used) / count * 1e6,
    }
}

/// Ten thousand to a folder, as a person would have them at most.
fn name(index: u64) -> String {
    format!("folder-{:03}/file-{index:07}", index / 10_000)
}

fn applied(cluster: &Cluster, id: usize) -> u64 {
    status_number(cluster, id, "applied ").unwrap_or(0)
}

fn status_number(cluster: &Cluster, id: usize, key: &str) -> Option<u64> {
    let lines = cluster.daemons[id].text().ok()?.ask_lines("STATUS").ok()?;
    lines
        .iter()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

fn resident(cluster: &Cluster, id: usize) -> f64 {
    memory_of(cluster.daemons[id].pid(), "VmRSS")
}

/// Bytes that log and tables take on the disk.
fn state_bytes(state: PathBuf) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut folders = vec![state];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a few gigabytes")]
    let bytes = bytes as f64;
    bytes
}

/// Time from the start of a killed daemon until it has its catalog again, while no other is there to help.
fn open(cluster: &mut Cluster, names: u64, table: &mut Table) {
    let before = applied(cluster, 1);
    for daemon in &mut cluster.daemons {
        daemon.kill();
    }
    floor::settle(0);
    cluster.daemons[1].start();
    let start = Instant::now();
    // A start with nobody else answers within a moment: the tables say how far they are.
    while applied(cluster, 1) == 0 {
        assert!(start.elapsed() < PATIENCE, "{}", cluster.tails());
        thread::sleep(Duration::from_millis(2));
    }
    table.absolute(
        &format!("catalog of {names} files: open after kill -9"),
        "s",
        start.elapsed().as_secs_f64(),
        1.0,
    );
    let behind = before.saturating_sub(applied(cluster, 1));
    table.shown(
        &format!("catalog of {names} files: entries behind at that moment"),
        "entries",
        f64::from(u32::try_from(behind).unwrap_or(u32::MAX)),
    );
    for id in [0, 2] {
        cluster.daemons[id].start();
    }
    let all = Instant::now();
    cluster.wait_ready();
    table.shown(
        &format!("catalog of {names} files: all three serve again after"),
        "s",
        all.elapsed().as_secs_f64(),
    );
}

/// Time until a member with an empty disk has the catalog and serves.
fn snapshot(ground: &mut Ground, names: u64, table: &mut Table) {
    let state = ground.state_of(2);
    let cluster = &mut ground.cluster;
    let wanted = applied(cluster, 0);
    let daemon = &mut cluster.daemons[2];
    daemon.kill();
    fs::remove_dir_all(&daemon.data).expect("an emptied disk");
    fs::remove_dir_all(state).expect("an emptied disk");
    daemon.start();
    let start = Instant::now();
    while applied(cluster, 2) < wanted {
        assert!(start.elapsed() < PATIENCE, "{}", cluster.tails());
        thread::sleep(Duration::from_millis(10));
    }
    table.shown(
        &format!("catalog of {names} files: snapshot to a new member"),
        "s",
        start.elapsed().as_secs_f64(),
    );
    table.shown(
        &format!("catalog of {names} files: peak RSS of that member"),
        "MiB",
        memory_of(cluster.daemons[2].pid(), "VmHWM"),
    );
    table.shown(
        &format!("catalog of {names} files: peak RSS of the leader"),
        "MiB",
        memory_of(cluster.daemons[0].pid(), "VmHWM"),
    );
}

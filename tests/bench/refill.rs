//! A disk is emptied: how fast its thousand files come back, alone and beside clients, and what those clients feel.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::floor;
use crate::harness::text::Text;
use crate::harness::{Cluster, Shape, content};
use crate::table::Table;

/// Bytes of each file.
const FILE: usize = 1 << 20;
/// Puts a second in the foreground, and bytes of each.
const PUTS: u64 = 50;
const SMALL: usize = 4096;
/// Clients that share them, so that one slow put does not hold up the next.
const CLIENTS: u64 = 16;
/// How long the foreground is watched alone.
const ALONE: Duration = Duration::from_secs(20);
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_mins(20);

/// Fills three daemons, empties one twice, and writes down how long the files took.
pub fn figures(folder: &Path, files: u64, table: &mut Table) {
    let mut cluster = Cluster::start(&Shape {
        fast: false,
        debug: false,
        parent: Some(folder.to_path_buf()),
        ..Shape::default()
    });
    let bytes = files * FILE as u64;
    fill(&cluster, files);
    let one = floor::synced_writes(folder, bytes, 1).wall;
    let many = floor::synced_files(folder, files, FILE as u64).wall;
    table.shown("floor: synced write of as many bytes, one file", "s", one);
    table.shown(
        &format!("floor: {files} synced files of 1 MiB, one after another"),
        "s",
        many,
    );

    let alone = empty(&mut cluster, 2, files, || {});
    report(table, "alone", &alone, one, many, 0.6);

    let calm = Foreground::watch(&cluster, ALONE);
    let mut beside = None;
    let stop = AtomicBool::new(false);
    let hosts = [cluster.daemons[0].host, cluster.daemons[1].host];
    let (busy, refill) = thread::scope(|scope| {
        let stop = &stop;
        let puts =
            scope.spawn(move || Foreground::run(&hosts, "busy", || stop.load(Ordering::Relaxed)));
        let refill = empty(&mut cluster, 2, files, || {});
        stop.store(true, Ordering::Relaxed);
        (puts.join().expect("the foreground"), refill)
    });
    beside.get_or_insert(refill);
    if let Some(refill) = &beside {
        report(table, "beside 50 puts/s", refill, one, many, 0.1);
    }
    table.shown("50 puts/s alone: p99", "ms", calm.p99());
    table.ratio(
        "50 puts/s during repair: p99",
        "ms",
        busy.p99(),
        (calm.p99(), "alone"),
        2.0,
    );
    table.shown(
        "50 puts/s during repair: kept of a second's",
        "puts",
        busy.rate(),
    );
}

fn fill(cluster: &Cluster, files: u64) {
    thread::scope(|scope| {
        for own in 0..4_u64 {
            let host = cluster.daemons[usize::try_from(own % 3).unwrap_or(0)].host;
            scope.spawn(move || {
                let mut text = Text::dial(host).expect("a daemon");
                for index in (own..files).step_by(4) {
                    let answer = text.put(
                        &format!("refill-{index}"),
                        "strategy=splay",
                        &content(index + 1, FILE),
                    );
                    assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
                }
            });
        }
    });
    cluster.eventually("three copies of everything", |cluster| {
        cluster
            .daemons
            .iter()
            .all(|daemon| objects(&daemon.data) as u64 >= files)
    });
}

/// Large objects on a disk.
fn objects(data: &Path) -> usize {
    let Ok(folders) = fs::read_dir(data.join(".momo/objects")) else {
        return 0;
    };
    folders
        .flatten()
        .filter_map(|folder| fs::read_dir(folder.path()).ok())
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|metadata| metadata.len() == FILE as u64)
        })
        .count()
}

/// Seconds of a refill.
struct Refill {
    /// From the start of the emptied daemon to the first file.
    first: f64,
    /// From the first file to the last.
    copying: f64,
}

fn empty(cluster: &mut Cluster, victim: usize, files: u64, begun: impl FnOnce()) -> Refill {
    let daemon = &mut cluster.daemons[victim];
    daemon.kill();
    fs::remove_dir_all(&daemon.data).expect("an emptied disk");
    floor::settle(0);
    daemon.start();
    begun();
    let start = Instant::now();
    let data = daemon.data.clone();
    let mut first = None;
    loop {
        let have = objects(&data) as u64;
        if have > 0 && first.is_none() {
            first = Some(start.elapsed());
        }
        if have >= files {
            break;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{have} of {files} files came back\n{}",
            cluster.tails()
        );
        thread::sleep(Duration::from_millis(100));
    }
    let all = start.elapsed();
    let first = first.unwrap_or_default();
    let refill = Refill {
        first: first.as_secs_f64(),
        copying: all.saturating_sub(first).as_secs_f64(),
    };
    eprintln!(
        "  refill: first file after {:.2} s, then {:.2} s",
        refill.first, refill.copying
    );
    cluster.wait_ready();
    refill
}

fn report(table: &mut Table, how: &str, refill: &Refill, one: f64, many: f64, share: f64) {
    table.shown(
        &format!("repair {how}: until the first file"),
        "s",
        refill.first,
    );
    table.ratio(
        &format!("repair {how}: from the first file to the last"),
        "s",
        refill.copying,
        (many, "synced files"),
        1.0 / share,
    );
    table.ratio(
        &format!("repair {how}: the same against one synced write"),
        "s",
        refill.copying,
        (one, "synced write"),
        1.0 / share,
    );
}

/// Waits of the puts in the foreground, in seconds, each from the moment it was due.
struct Foreground {
    waits: Vec<f64>,
    lasted: f64,
}

impl Foreground {
    fn watch(cluster: &Cluster, lasting: Duration) -> Self {
        let start = Instant::now();
        let hosts = [cluster.daemons[0].host, cluster.daemons[1].host];
        Self::run(&hosts, "calm", || start.elapsed() > lasting)
    }

    fn run(hosts: &[SocketAddr], name: &str, ended: impl Fn() -> bool + Sync) -> Self {
        let start = Instant::now();
        let waits = thread::scope(|scope| {
            let workers: Vec<_> = (0..CLIENTS)
                .map(|own| {
                    let ended = &ended;
                    scope.spawn(move || {
                        let host = hosts[usize::try_from(own).unwrap_or(0) % hosts.len()];
                        let mut text = Text::dial(host).expect("a daemon");
                        let mut waits = Vec::new();
                        for index in (own..).step_by(usize::try_from(CLIENTS).unwrap_or(1)) {
                            let due = start + Duration::from_micros(index * 1_000_000 / PUTS);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            if ended() {
                                break;
                            }
                            let answer = text.put(
                                &format!("{name}-{}", index % 500),
                                "strategy=splay",
                                &content(index + 1, SMALL),
                            );
                            assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
                            waits.push(due.elapsed().as_secs_f64());
                        }
                        waits
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("a client"))
                .collect()
        });
        Self {
            waits,
            lasted: start.elapsed().as_secs_f64(),
        }
    }

    fn p99(&self) -> f64 {
        let mut sorted = self.waits.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
            .get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1)))
            .map_or(f64::NAN, |wait| wait * 1_000.0)
    }

    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    fn rate(&self) -> f64 {
        self.waits.len() as f64 / self.lasted
    }
}

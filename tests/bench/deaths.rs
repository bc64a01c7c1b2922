//! What a death costs those who live: the wait of a writer when the leader is killed, of a reader when the holder it reads from is.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::harness::text::Text;
use crate::harness::{Cluster, Shape, content, hex, write_file};
use crate::table::Table;
use crate::usage::median;

/// Raft's clock at its fast setting.
const FAST_RAFT: &str = "[raft]\ntick_ms=10\nelection_ticks=10\nheartbeat_ticks=2\n\n[heartbeat]\ninterval=200\ntimeout=1000\n\n";
/// Bytes of the file that is read while its holder dies.
const LONG: usize = 256 << 20;
/// Bytes of one read of the client.
const BLOCK: usize = 256 * 1024;
/// A tried put waits so long for its answer before the next daemon is asked.
const TRY: Duration = Duration::from_secs(5);
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

fn cluster(folder: &Path, extra: &str, daemons: usize) -> Cluster {
    Cluster::start(&Shape {
        fast: false,
        debug: false,
        daemons,
        parent: Some(folder.to_path_buf()),
        extra: extra.to_owned(),
        ..Shape::default()
    })
}

/// Seconds from the death of the leader until a put that began afterwards is kept, and how many figures at what settings.
pub fn leader(folder: &Path, runs: usize, table: &mut Table) {
    for (name, extra, limit) in [("default", "", 2.0), ("fast", FAST_RAFT, 0.4)] {
        let mut cluster = cluster(folder, extra, 3);
        let waits: Vec<f64> = (0..runs.max(5))
            .map(|run| {
                let wait = leader_once(&mut cluster, run);
                eprintln!("  leader killed, {name} settings: {wait:.3} s");
                wait
            })
            .collect();
        let most = waits.iter().copied().fold(0.0, f64::max);
        table.absolute(
            &format!("leader killed, {name} settings: writes go on after (median)"),
            "s",
            median(&waits),
            limit,
        );
        table.absolute(
            &format!(
                "leader killed, {name} settings: writes go on after (worst of {})",
                waits.len()
            ),
            "s",
            most,
            limit,
        );
    }
}

/// Who leads, as all say.
pub fn leader_of(cluster: &Cluster) -> Option<usize> {
    let mut leaders = cluster.daemons.iter().map(|daemon| {
        let lines = daemon.text().ok()?.ask_lines("STATUS").ok()?;
        lines
            .iter()
            .find_map(|line| line.strip_prefix("leader ")?.trim().parse::<usize>().ok())
    });
    let first = leaders.next()??;
    leaders.all(|other| other == Some(first)).then_some(first)
}

fn leader_once(cluster: &mut Cluster, run: usize) -> f64 {
    let mut found = None;
    cluster.eventually("all know the same leader", |cluster| {
        found = leader_of(cluster);
        found.is_some()
    });
    let victim = found.unwrap_or(0);
    let hosts: Vec<SocketAddr> = cluster
        .daemons
        .iter()
        .filter(|daemon| daemon.id != victim)
        .map(|daemon| daemon.host)
        .collect();
    // Two writers at the two that are left, as if there were always somebody who wants to write.
    let dead = AtomicBool::new(false);
    let wait = thread::scope(|scope| {
        let writers: Vec<_> = hosts
            .iter()
            .enumerate()
            .map(|(own, host)| {
                let dead = &dead;
                scope.spawn(move || {
                    let begun = Instant::now();
                    let mut text = None;
                    let mut count = 0_u64;
                    loop {
                        assert!(begun.elapsed() < PATIENCE, "no write went on");
                        let after_death = dead.load(Ordering::Acquire);
                        let mut open = match text.take() {
                            Some(open) => open,
                            None => Text::dial(*host).expect("a living daemon"),
                        };
                        let _ = open.socket().set_read_timeout(Some(TRY));
                        count += 1;
                        let name = format!("leader-{run}-{own}-{}", count % 100);
                        if let Ok(answer) = open.put(&name, "strategy=splay", b"small") {
                            text = Some(open);
                            if after_death && answer.is_ok() {
                                return Instant::now();
                            }
                        }
                    }
                })
            })
            .collect();
        // They have found their pace.
        thread::sleep(Duration::from_millis(500));
        cluster.daemons[victim].kill();
        let killed = Instant::now();
        dead.store(true, Ordering::Release);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"))
            .min()
            .map_or(f64::NAN, |first| {
                first.saturating_duration_since(killed).as_secs_f64()
            })
    });
    cluster.daemons[victim].start();
    cluster.wait_ready();
    wait
}

/// Longest pause in a read, in seconds, and whether every byte was right.
struct Pace {
    longest: f64,
}

/// Reads a file through a daemon; `midway` happens when half of it is there. The longest pause counts from then on.
fn read_slowly(host: SocketAddr, name: &str, midway: impl FnOnce()) -> Pace {
    let mut text = Text::dial(host).expect("a living daemon");
    let head = text.ask(&format!("FILE GET {name}")).expect("an answer");
    let words: Vec<&str> = head.split_whitespace().collect();
    let [_, size, sha256, ..] = words[..] else {
        panic!("FILE GET {name}: {head}");
    };
    let size: usize = size.parse().expect("a size");
    let mut stream = text.into_reader();
    let mut hash = Sha256::new();
    let mut block = vec![0_u8; BLOCK];
    let (mut got, mut longest, mut midway) = (0, 0.0_f64, Some(midway));
    while got < size {
        if got * 2 >= size
            && let Some(midway) = midway.take()
        {
            midway();
            longest = 0.0;
        }
        let start = Instant::now();
        let want = BLOCK.min(size - got);
        let count = stream.read(&mut block[..want]).expect("bytes");
        assert!(count > 0, "{name} ended after {got} of {size} bytes");
        longest = longest.max(start.elapsed().as_secs_f64());
        hash.update(&block[..count]);
        got += count;
    }
    assert_eq!(hex(&hash.finalize()), sha256, "{name}: a byte is wrong");
    Pace { longest }
}

/// The pause that a reader sees when the holder of what it reads dies: the client is at a daemon without a copy.
pub fn holder(folder: &Path, runs: usize, table: &mut Table) {
    let mut cluster = cluster(
        folder,
        "[cluster]\nreplicas=2\n\n[repair]\ngrace=600000\n\n",
        3,
    );
    let path = cluster.folder().join("long.bin");
    write_file(&path, &content(9, LONG));
    let put = cluster
        .client(&["put", &path.display().to_string()])
        .status()
        .expect("a client");
    assert!(put.success(), "put of the long file");
    let holders: Vec<usize> = (0..3)
        .filter(|id| cluster.daemons[*id].visible("long.bin").is_some())
        .collect();
    let reader = (0..3)
        .find(|id| !holders.contains(id))
        .expect("a daemon without a copy");
    let host = cluster.daemons[reader].host;
    let (mut calm, mut pauses) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(3) {
        calm.push(read_slowly(host, "long.bin", || {}).longest);
        // One of the two is the one that is read from: whichever it is, its death is the pause.
        let mut pause = 0.0_f64;
        for holder in &holders {
            let victim = &mut cluster.daemons[*holder];
            pause = pause.max(read_slowly(host, "long.bin", || victim.kill()).longest);
            victim.start();
            cluster.wait_ready();
        }
        eprintln!("  holder killed: longest pause {pause:.3} s");
        pauses.push(pause);
    }
    let usual = median(&calm);
    let most = pauses.iter().copied().fold(0.0, f64::max);
    table.shown("longest pause of a read, nobody killed", "s", usual);
    table.absolute(
        "holder killed during a read: added pause (median)",
        "s",
        (median(&pauses) - usual).max(0.0),
        0.1,
    );
    table.absolute(
        "holder killed during a read: added pause (worst)",
        "s",
        (most - usual).max(0.0),
        0.1,
    );
}

//! A ledger of acknowledgements as clients remember them, uploads that fill it, and the check that nothing in it is ever lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::momo::Upload;
use crate::harness::text::Text;
use crate::harness::{Cluster, Shape, content};
use crate::load::PREFIX;

/// What was promised about one name.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    /// The contents tried, in order: seed and size.
    tried: Vec<(u64, usize)>,
    /// The last that was acknowledged, as an index into `tried`.
    acknowledged: Option<usize>,
    /// Copies the acknowledgement spoke for.
    copies: usize,
}

/// Acknowledgements as a client would remember them.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<String, Promise>>);

impl Ledger {
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Promise>> {
        match self.0.lock() {
            Ok(open) => open,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn try_one(&self, name: &str, seed: u64, size: usize) -> usize {
        let mut open = self.open();
        let promise = open.entry(name.to_owned()).or_default();
        promise.tried.push((seed, size));
        promise.tried.len() - 1
    }

    fn acknowledge(&self, name: &str, index: usize, copies: usize) {
        let mut open = self.open();
        if let Some(promise) = open.get_mut(name) {
            promise.acknowledged = promise.acknowledged.max(Some(index));
            promise.copies = copies;
        }
    }
}

/// The next of a chain of numbers that look like chance.
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Whether an acknowledgement may speak for one copy, which the loss of a disk may take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single {
    /// It may: an upload by the Momo protocol at a daemon other than 0.
    Allowed,
    /// It may not: disks are going to be emptied.
    Refused,
}

/// Uploads until it is told to stop, with a rest of `pace` behind each: half by the Momo protocol, half by the text door, at any daemon.
pub fn write_on(
    worker: u64,
    seed: u64,
    hosts: &[std::net::SocketAddr],
    ledger: &Ledger,
    stop: &AtomicBool,
    single: Single,
    pace: Duration,
) {
    let mut chance = seed | 1;
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let seed = next(&mut chance);
        let size = match seed % 10 {
            0 => 2 << 20,
            1..=4 => usize::try_from(seed >> 40).unwrap_or(0) % 300_000,
            _ => usize::try_from(seed >> 40).unwrap_or(0) % 5_000,
        };
        // Every fourth goes to a name of its own worker again and again; names are not shared, so that order is known.
        let name = if count.is_multiple_of(4) {
            format!("hot-{worker}.bin")
        } else {
            format!("w{worker}-{count}.bin")
        };
        let body = content(seed, size);
        let index = ledger.try_one(&name, seed, size);
        let entry = usize::try_from(next(&mut chance) % 4).unwrap_or(0) % 3;
        let momo = count.is_multiple_of(2) && (single == Single::Allowed || entry == 0);
        let copies = if momo {
            let answer = Upload::of(&name, &body).send(hosts[entry]);
            answer
                .ok()
                .and_then(|answer| answer.acknowledged_by())
                // A splay that enters at daemon 0 promises at least two; elsewhere the daemon answers "none".
                .map(|id| if id == 0 { 2 } else { 1 })
        } else {
            Text::dial(hosts[entry])
                .and_then(|mut text| text.put(&name, "strategy=splay", &body))
                .ok()
                .and_then(Result::ok)
                .and_then(|kept| {
                    kept.split_whitespace()
                        .find_map(|word| word.strip_prefix("copies=")?.parse().ok())
                })
        };
        thread::sleep(pace);
        match copies {
            Some(copies) => ledger.acknowledge(&name, index, copies),
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Stops the workers also when a check of the thread that watches them fails.
#[derive(Debug)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn kill_nine_at_random_moments_loses_nothing_acknowledged() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let rounds = number("CRASH_ROUNDS").unwrap_or(10);
    let seed = number("CRASH_SEED").unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| u64::from(since.subsec_nanos()))
    });
    eprintln!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");
    let mut cluster = Cluster::start(&Shape {
        extra: "[write]\nhop_stall=1000\ndeadline=5000\n\n".to_owned(),
        ..Shape::default()
    });
    let hosts: Vec<_> = cluster.daemons.iter().map(|daemon| daemon.host).collect();
    let (ledger, stop, done) = (Ledger::default(), AtomicBool::new(false), AtomicU64::new(0));
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    thread::scope(|scope| {
        for worker in 0..3 {
            let (hosts, ledger, stop) = (&hosts, &ledger, &stop);
            scope.spawn(move || {
                write_on(
                    worker,
                    seed.wrapping_add(worker * 7_919),
                    hosts,
                    ledger,
                    stop,
                    Single::Allowed,
                    Duration::ZERO,
                );
            });
        }
        let _stop = Stop(&stop);
        for round in 0..rounds {
            let victim = usize::try_from(next(&mut chance) % 3).unwrap_or(0);
            thread::sleep(Duration::from_millis(next(&mut chance) % 700));
            cluster.daemons[victim].kill();
            thread::sleep(Duration::from_millis(next(&mut chance) % 500));
            cluster.daemons[victim].start();
            cluster.wait_ready();
            done.store(round + 1, Ordering::Relaxed);
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), rounds);
    cluster.assert_alive();
    check_ledger(&cluster, &ledger, seed);
}

/// Everything acknowledged is there byte for byte, on as many nodes as promised; nothing else is half there.
pub fn check_ledger(cluster: &Cluster, ledger: &Ledger, seed: u64) {
    let ledger = ledger.open().clone();
    let acknowledged = ledger
        .values()
        .filter(|promise| promise.acknowledged.is_some())
        .count();
    eprintln!("{} names tried, {acknowledged} acknowledged", ledger.len());
    assert!(
        acknowledged > 0,
        "nothing was acknowledged\n{}",
        cluster.tails()
    );
    for (name, promise) in &ledger {
        let bodies: Vec<Vec<u8>> = promise
            .tried
            .iter()
            .map(|(seed, size)| content(*seed, *size))
            .collect();
        let Some(least) = promise.acknowledged else {
            // Unknown or refused: not there, or one of the tries, whole.
            for id in 0..3 {
                let answer = cluster.daemons[id]
                    .text()
                    .and_then(|mut text| text.get(name))
                    .expect("an answer");
                if let Ok(found) = answer {
                    assert!(bodies.contains(&found), "seed {seed}: {name} is half there");
                }
            }
            continue;
        };
        let found = cluster.get(0, name);
        assert!(
            bodies[least..].contains(&found),
            "seed {seed}: {name} lost what was acknowledged ({} tries, {least} acknowledged, {} bytes found)\n{}",
            bodies.len(),
            found.len(),
            cluster.tails()
        );
        for id in 1..3 {
            assert_eq!(
                cluster.get(id, name).len(),
                found.len(),
                "seed {seed}: {name} at {id}"
            );
        }
        if !found.is_empty() {
            let copies = promise.copies;
            // Which of the two is missing says where to look: what was acknowledged, or only what a person sees of it.
            cluster.eventually(
                &format!("seed {seed}: {copies} disks hold the object of {name}"),
                |cluster| cluster.durable(&found) >= copies,
            );
            cluster.eventually(
                &format!("seed {seed}: {copies} disks, which hold its object, show {name}"),
                |cluster| cluster.copies(name, &found) >= copies,
            );
        }
    }
    cluster.eventually("nothing in .momo/tmp", |cluster| {
        cluster
            .daemons
            .iter()
            .all(|daemon| daemon.temporaries().is_empty())
    });
    for daemon in &cluster.daemons {
        for name in daemon.visible_names() {
            assert!(
                ledger.contains_key(&name) || name.starts_with(PREFIX),
                "seed {seed}: stray {name}"
            );
        }
    }
}

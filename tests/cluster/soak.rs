//! `make soak MINUTES=n`: load and faults together for as long as is wanted, nothing lost, memory flat.

use std::time::{Duration, Instant};

use crate::faults::{Fault, Ground, PACE, seed, under_load};
use crate::harness::Cluster;
use crate::ledger::next;

/// MiB of each daemon's disk, where the test may mount one.
const DISK: u32 = 1_500;
/// Length of one round: after it everything written in it is checked and a new one begins, so that no ledger grows without end.
const ROUND: Duration = Duration::from_secs(30);
/// What a daemon may hold above what it held when it was warm, in MiB: page cache of tables, threads, arenas of the allocator.
const GROWTH_MIB: u64 = 64;

#[test]
#[ignore = "as long as it is told to: make soak MINUTES=n"]
fn soak() {
    let minutes = std::env::var("SOAK_MINUTES")
        .ok()
        .and_then(|minutes| minutes.parse().ok())
        .unwrap_or(10_u64);
    let seed = seed();
    let end = Instant::now() + Duration::from_mins(minutes.max(1));
    let mut ground = Ground::start(Some(DISK));
    let mut faults = Fault::USUAL.to_vec();
    if ground.has_small_disks() {
        faults.push(Fault::Full);
    }
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (mut answered, mut unknown, mut refused, mut suffered) = (0, 0, 0, 0_u64);
    let mut memory: Vec<Vec<u64>> = Vec::new();
    // A process that is killed forgets what it leaked: two rounds of three let them live.
    let mut round = 0_u64;
    while Instant::now() < end {
        round += 1;
        let until = end.min(Instant::now() + ROUND);
        let sum = under_load(&mut ground, seed.wrapping_add(round), PACE, |ground| {
            while Instant::now() < until {
                let fault = loop {
                    let any =
                        faults[usize::try_from(next(&mut chance)).unwrap_or(0) % faults.len()];
                    if round.is_multiple_of(3) || any.spares_processes() {
                        break any;
                    }
                };
                let victim = usize::try_from(next(&mut chance) % 3).unwrap_or(0);
                let while_ = Duration::from_millis(100 + next(&mut chance) % 4_000);
                ground.suffer(fault, victim, while_);
                suffered += 1;
                std::thread::sleep(Duration::from_millis(next(&mut chance) % 3_000));
            }
        });
        answered += sum.answered;
        unknown += sum.unknown;
        refused += sum.refused;
        forget(&ground.cluster);
        let now = resident(&ground.cluster);
        eprintln!("round {round}: {suffered} faults so far, RSS in MiB {now:?}");
        memory.push(now);
    }
    let peak = memory.iter().flatten().max().copied().unwrap_or(0);
    println!(
        "soak: {minutes} min, {round} rounds, {suffered} faults; {answered} recorded operations answered, {unknown} unknown, {refused} refused; nothing lost; RSS at most {peak} MiB at the end of a round"
    );
    // The first round warms up: what comes later must not grow with the work done.
    if let Some((warm, later)) = memory.split_first() {
        let allowed = warm.iter().max().copied().unwrap_or(0) + GROWTH_MIB;
        for (index, sizes) in later.iter().enumerate() {
            assert!(
                sizes.iter().all(|size| *size <= allowed),
                "round {}: RSS {sizes:?} MiB, {allowed} allowed",
                index + 2
            );
        }
    }
}

/// Removes what the round wrote.
fn forget(cluster: &Cluster) {
    let names: Vec<String> = cluster
        .daemons
        .iter()
        .flat_map(crate::harness::Daemon::visible_names)
        .collect();
    for name in names {
        let mut gone = false;
        cluster.eventually(&format!("{name} is deleted"), |cluster| {
            gone = gone
                || cluster.daemons[0]
                    .text()
                    .and_then(|mut text| text.ask(&format!("FILE DELETE {name}")))
                    .is_ok_and(|line| line.starts_with("OK") || line == "ERR file not found");
            gone
        });
    }
}

/// Resident memory of each daemon, in MiB.
fn resident(cluster: &Cluster) -> Vec<u64> {
    cluster
        .daemons
        .iter()
        .map(|daemon| {
            std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))
                .unwrap_or_default()
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024
        })
        .collect()
}

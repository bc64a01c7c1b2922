//! Simulation: whole clusters in one thread, through the production turn loop, with everything that can go wrong, from a seed.
//!
//! `SIM_SEEDS=200 cargo test --test simulation` tries more seeds, from `SIM_FIRST` on (`make sim SEEDS=n FROM=k`);
//! `SIM_SEED=17 SIM_TRACE=1` repeats one and prints what happens. Each seed is run twice, and the traces compared;
//! `SIM_ONCE=1` leaves that out. `SIM_CANARY=1` looks for the first seeds that catch each canary (`make canary`).

#[cfg(debug_assertions)]
mod canaries;
mod checkers;
mod clients;
mod cluster;
mod daemon;
mod faults;
mod network;
mod plan;
mod scenarios;
mod scripts;
mod shelves;
mod trace;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cluster::Cluster;
use plan::Plan;
use trace::Trace;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds of an ordinary test run.
const SEEDS: u64 = 50;

/// One run of a plan: what was seen, and what did not hold.
fn run(plan: &Plan) -> (Trace, Result<Cluster, String>) {
    let mut cluster = Cluster::new(plan.clone());
    let result = catch_unwind(AssertUnwindSafe(|| cluster.run()));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    let trace = std::mem::take(&mut cluster.trace);
    (trace, result.map(|()| cluster))
}

/// Does `work` for every seed, on two threads; the seeds for which it was not well, with what to say of each.
fn each(seeds: Range<u64>, work: impl Fn(u64) -> Result<(), String> + Sync) -> Vec<u64> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let some = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if let Err(why) = work(seed) {
                eprintln!("{why}");
                failed.lock().expect("no panic here").push(seed);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(some);
        some();
    });
    let mut failed = failed.into_inner().expect("no panic here");
    failed.sort_unstable();
    failed
}

#[test]
fn every_seed_keeps_what_it_acknowledged_and_runs_the_same_twice() {
    let seeds = if let Some(seed) = number("SIM_SEED") {
        seed..seed + 1
    } else {
        let first = number("SIM_FIRST").unwrap_or(1);
        first..first + number("SIM_SEEDS").unwrap_or(SEEDS)
    };
    let failed = each(seeds, |seed| {
        let plan = Plan::new(seed);
        let again = format!("  repeat: SIM_SEED={seed} cargo test --test simulation every_seed");
        let (trace, result) = run(&plan);
        let cluster = result.map_err(|why| format!("seed {seed}: {why}\n{again}"))?;
        println!("seed {seed}: {} lines {:?}", trace.len(), cluster.counts);
        if number("SIM_ONCE").is_some() {
            return Ok(());
        }
        let (second, _) = run(&plan);
        match trace.difference(&second) {
            None => Ok(()),
            Some(line) => Err(format!(
                "seed {seed}: line {line} differs the second time\n{again}"
            )),
        }
    });
    assert!(failed.is_empty(), "failed seeds: {failed:?}");
}

#[test]
fn a_disk_that_says_synced_too_early_is_caught() {
    let lying = |seed, crashes| {
        let mut plan = Plan::new(seed);
        (plan.nodes, plan.voters) = (3, 3);
        (plan.crashes, plan.partitions, plan.wipes) = (crashes, true, false);
        plan.fault_gap = 300_000;
        plan.sync = (30_000, 300_000);
        plan.disk_lies = true;
        run(&plan).1.err()
    };
    // As long as no process ends the lie does no harm.
    assert_eq!(lying(1, false), None);
    let lost = |why: &String| why.contains("acknowledged") || why.contains("both applied");
    let caught = (1..=60).find(|seed| lying(*seed, true).is_some_and(|why| lost(&why)));
    println!("caught at seed {caught:?}");
    assert!(caught.is_some(), "the simulation cannot fail");
}

//! Commands a second, below the doors: 64 threads propose to the engine of a cluster of one, log and tables on the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, path::Path, thread};

use momo::base::digest::EMPTY_SHA256;
use momo::base::path::FilePath;
use momo::base::time::Wall;
use momo::engine::shared::Engine;
use momo::wire::command::{Expect, Operation, Put};

use crate::alone;
use crate::table::Table;

const PROPOSERS: u64 = 64;
/// What is measured, after a warm-up of a fifth.
const MEASURED: Duration = Duration::from_secs(5);
/// The limit of the issue that asked for the figure.
const LIMIT: f64 = 20_000.0;

/// The rows of the table.
pub fn figures(folder: &Path, table: &mut Table) {
    let folder = folder.join("commands");
    let running = alone::start_in(&folder, "").expect("a node");
    alone::wait_ready(&running);
    let engine = &running.engine;
    let abandons = rate(&|_, _| {
        let upload = engine.next_upload();
        commit(engine, Operation::Abandon { upload });
    });
    said(table, "abandon", abandons);
    let puts = rate(&|proposer, number| {
        let path = FilePath::new(&format!("p{proposer}/f{number}")).expect("a name");
        commit(engine, Operation::Put(name(engine, path)));
    });
    said(
        table,
        "put of an empty name, its link in the tree behind it",
        puts,
    );
    drop(running);
    let _ = fs::remove_dir_all(folder);
}

/// A rate must not be too small: as time a command it must not be too large.
fn said(table: &mut Table, what: &str, rate: f64) {
    let figure = format!(
        "64 proposers in the process of one voter, {what}: {rate:.0} commands/s; time a command"
    );
    table.absolute(&figure, "us", 1e6 / rate, 1e6 / LIMIT);
}

fn name(engine: &Engine, path: FilePath) -> Put {
    Put {
        upload: engine.next_upload(),
        path,
        size: 0,
        sha256: EMPTY_SHA256,
        md5: None,
        strategy: "none".to_owned(),
        class: "default".to_owned(),
        parts: Vec::new(),
        want: 1,
        min: 1,
        expect: Expect::Any,
        owner: None,
        time: Wall(1),
    }
}

fn commit(engine: &Engine, operation: Operation) {
    engine
        .commit(operation)
        .unwrap_or_else(|failure| panic!("not committed: {failure}"));
}

/// Calls a second, from all proposers together.
fn rate(call: &(dyn Fn(u64, u64) + Sync)) -> f64 {
    let done = AtomicU64::new(0);
    let begin = Instant::now() + MEASURED / 5;
    let end = begin + MEASURED;
    thread::scope(|scope| {
        for proposer in 0..PROPOSERS {
            let done = &done;
            scope.spawn(move || {
                for number in 0.. {
                    call(proposer, number);
                    let now = Instant::now();
                    if now >= end {
                        break;
                    }
                    if now >= begin {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    #[allow(clippy::cast_precision_loss)]
    let done = done.into_inner() as f64;
    done / MEASURED.as_secs_f64()
}

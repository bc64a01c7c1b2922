//! A whole node that loses its power at any moment: log, tables, objects, facts and names on one disk, written by all of its threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use momo::base::id::NodeId;
use momo::base::path::FilePath;
use momo::base::table::{Table, Tables};
use momo::core::catalog;
use momo::engine::handle::Handle;
use momo::engine::start::Running;
use momo::engine::verbs::Verbs;
use momo::engine::world::fact;
use momo::store::disk::RealDisk;
use momo::store::layout::DataDirs;
use momo::store::log::{LogBase, RaftLog};
use momo::store::steps::{Step, Watch, mark, watch};
use momo::store::tables::CatalogTables;
use momo::wire::command::Expect;
use momo::wire::record::Mode;

use crate::alone;
use crate::power::{Image, Leaves};
use crate::store::quick_folder;

const EXTRA: &str = "[raft]\ntick_ms=10\nelection_ticks=5\nheartbeat_ticks=2\n\n";

/// What a name holds, or that it holds nothing.
type Ledger = BTreeMap<String, Option<Vec<u8>>>;

/// One thing done to the node: the name, and what it holds afterwards.
struct Act(&'static str, Option<Vec<u8>>);

fn acts() -> Vec<Act> {
    let body = |length: usize, byte: u8| Some(vec![byte; length]);
    vec![
        Act("a.bin", body(700, 1)),
        Act("folder/b.bin", body(300_000, 2)),
        Act("a.bin", body(900, 3)),
        Act("empty", body(0, 0)),
        Act("folder/b.bin", None),
        Act("c.bin", body(900, 3)),
        Act("folder", body(40, 4)),
    ]
}

fn carry_out(running: &Running, watch: &Watch) {
    let handle = Handle(running.engine.clone());
    for (nth, Act(name, content)) in acts().into_iter().enumerate() {
        mark(watch, &format!("begun {nth}"));
        if let Some(bytes) = content {
            alone::put(running, name, &bytes).expect("kept");
        } else {
            let path = FilePath::new(name).expect("a name");
            handle.remove(&path, Expect::Any).expect("removed");
        }
        mark(watch, &format!("done {nth}"));
    }
    handle
        .set_mode(Mode::Chain, None, "a test")
        .expect("changed");
    mark(watch, "mode");
}

/// What is known when the power goes.
#[derive(Default)]
struct Known {
    /// What must be there.
    ledger: Ledger,
    /// The act under way, which may have been done or not.
    under_way: Option<(String, Option<Vec<u8>>)>,
    /// The mode was changed.
    mode: bool,
}

impl Known {
    fn after(steps: &[Step]) -> Self {
        let (mut known, acts) = (Self::default(), acts());
        for step in steps {
            let Step::Mark(word) = step else { continue };
            known.mode |= word == "mode";
            let nth = |kind: &str| word.strip_prefix(kind)?.parse::<usize>().ok();
            if let Some(Act(name, content)) = nth("begun ").and_then(|nth| acts.get(nth)) {
                known.under_way = Some(((*name).to_owned(), content.clone()));
            }
            if nth("done ").is_some()
                && let Some((name, content)) = known.under_way.take()
            {
                known.ledger.insert(name, content);
            }
        }
        known
    }
}

fn look(disk: &Path, steps: &[Step], place: &str) {
    let running = alone::start_in(disk, EXTRA).unwrap_or_else(|error| panic!("{place}: {error}"));
    alone::wait_ready(&running);
    let known = Known::after(steps);
    for (name, content) in &known.ledger {
        let found = alone::get(&running, name);
        let allowed = known.under_way.as_ref().filter(|(other, _)| other == name);
        let good = found == *content || allowed.is_some_and(|(_, content)| found == *content);
        let length = found.map(|bytes| bytes.len());
        assert!(
            good,
            "{place}: {name} has {length:?} bytes, acknowledged otherwise"
        );
    }
    if known.mode {
        assert_eq!(
            Handle(running.engine.clone()).mode().new,
            Mode::Chain,
            "{place}"
        );
    }
    alone::put(&running, "later", b"it goes on").unwrap_or_else(|f| panic!("{place}: {f}"));
    assert_eq!(
        alone::get(&running, "later").as_deref(),
        Some(&b"it goes on"[..]),
        "{place}"
    );
    running.stop(Duration::from_secs(10));
}

#[test]
fn a_node_that_loses_its_power_at_any_moment_has_what_it_acknowledged() {
    let root = quick_folder();
    let home = root.path().join("node");
    let running = alone::start_in(&home, EXTRA).expect("a node");
    alone::wait_ready(&running);
    running.stop(Duration::from_secs(10));
    let image = Image::of(&home);
    let steps = {
        let watch = watch(&home, image.known());
        let running = alone::start_in(&home, EXTRA).expect("a node");
        alone::wait_ready(&running);
        carry_out(&running, &watch);
        running.stop(Duration::from_secs(10));
        watch.steps()
    };
    // A start takes a while, so not every one of some hundred moments has its turn: CRASH_MOMENTS=n for more.
    let moments = std::env::var("CRASH_MOMENTS").ok();
    let moments: usize = moments.map_or(16, |n| n.parse().expect("a number"));
    let every = (steps.len() / moments).max(1);
    let mut disk = image.clone();
    for (nth, step) in steps.iter().enumerate() {
        disk.step(step);
        if nth % every != every / 2 && nth + 1 != steps.len() {
            continue;
        }
        let choices = disk.choices(nth as u64);
        let torn = choices.get(3 + nth % 5).copied();
        for leaves in [Some(Leaves::Nothing), Some(Leaves::Some(nth as u64)), torn] {
            let Some(leaves) = leaves else { continue };
            let folder = quick_folder();
            // Under the name it was made with: addresses and marks name no place.
            let target = folder.path().join("node");
            disk.crash(leaves, &target).expect("a disk");
            let place = format!("after step {nth} of {}, {leaves:?}", steps.len());
            look(&target, &steps[..=nth], &place);
        }
    }
}

/// Names that the catalog holds, whether their bytes are here or not.
fn listed(running: &Running) -> Vec<String> {
    let listing = Handle(running.engine.clone()).list("", "", 1_000);
    let files = listing.expect("a listing").files;
    files
        .iter()
        .map(|file| file.path.as_str().to_owned())
        .collect()
}

fn stopped(home: &Path, work: impl FnOnce(&Running)) {
    let running = alone::start_in(home, EXTRA).expect("a node");
    alone::wait_ready(&running);
    work(&running);
    running.stop(Duration::from_secs(10));
}

#[test]
fn a_catalog_that_is_put_in_place_is_the_old_or_the_new_one_whole_whenever_the_power_goes() {
    let root = quick_folder();
    let (home, ahead) = (root.path().join("node"), root.path().join("ahead"));
    stopped(&home, |running| {
        alone::put(running, "old", b"of the old catalog").expect("kept");
    });
    // The same node, further on: what a leader would send.
    Image::of(&home)
        .crash(Leaves::Everything, &ahead)
        .expect("a copy");
    stopped(&ahead, |running| {
        for nth in 0..30_u8 {
            alone::put(running, &format!("new-{nth:02}"), &[nth; 40]).expect("kept");
        }
    });
    let data = |home: &Path| [home.join("data")];
    let open = |home: &Path| DataDirs::open(&data(home), None, NodeId(0), 0).expect("directories");
    let (rows, head, hard_state) = {
        let opened = open(&ahead);
        let tables = CatalogTables::open(&opened.state.tables_path()).expect("tables");
        let (_, log) = RaftLog::open(RealDisk, &opened.state.log_dir()).expect("a log");
        let mut rows = Vec::new();
        for table in Table::ALL {
            let all = tables.range(table, &[], None, usize::MAX).expect("rows");
            rows.extend(all.into_iter().map(|(key, value)| (table, key, value)));
        }
        let head = catalog::applied(&tables).expect("rows").expect("a head");
        (rows, head, log.hard_state.expect("a hard state"))
    };
    let image = Image::of(&home);
    let steps = {
        let watch = watch(&home, image.known());
        let opened = open(&home);
        let tables = CatalogTables::open(&opened.state.tables_path()).expect("tables");
        let (mut log, _) = RaftLog::open(RealDisk, &opened.state.log_dir()).expect("a log");
        // In the order of `Effect::InstallSnapshot`.
        let installing = serde_json::json!({"head": head, "hard_state": hard_state});
        let fact = opened
            .state
            .write_fact(fact::INSTALLING, installing.to_string().as_bytes());
        fact.expect("a fact");
        tables.replace(rows.into_iter().map(Ok)).expect("replaced");
        mark(&watch, "tables");
        let base = LogBase {
            index: head.index,
            term: head.term,
        };
        log.reset(base, &hard_state).expect("a new log");
        mark(&watch, "log");
        watch.steps()
    };
    let replaced = steps
        .iter()
        .position(|step| *step == Step::Mark("tables".to_owned()));
    let replaced = replaced.expect("a mark");
    let mut disk = image.clone();
    for (nth, step) in steps.iter().enumerate() {
        disk.step(step);
        // Every step around the swap, some of the others.
        if nth + 4 < replaced && nth % 9 != 0 {
            continue;
        }
        for leaves in [
            Leaves::Nothing,
            Leaves::Everything,
            Leaves::Some(nth as u64),
        ] {
            let folder = quick_folder();
            let target = folder.path().join("node");
            disk.crash(leaves, &target).expect("a disk");
            let place = format!("after step {nth} of {}, {leaves:?}", steps.len());
            stopped(&target, |running| {
                let names = listed(running);
                assert!(names.len() == 1 || names.len() == 31, "{place}: {names:?}");
                assert!(nth < replaced || names.len() == 31, "{place}: {names:?}");
                alone::put(running, "later", b"it goes on").expect(&place);
                assert!(alone::get(running, "old").is_some(), "{place}");
            });
        }
    }
}

//! Scrub: every copy of this node is read again within `scrub.period`, at a pace that leaves the disk to the clients.
//!
//! A pass goes through the catalog's objects by digest, and after each folder `objects/ab` looks for files that nobody
//! counts. It takes half the period, so that any copy is read again within the whole one. Where it is is kept in the
//! state directory: a restarted node goes on there. What is wrong is dealt with object by object (`engine/examine.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::table::TableError;
use crate::core::catalog::query;
use crate::engine::clock;
use crate::engine::examine::{self, Examined};
use crate::engine::shared::Engine;
use crate::engine::tempo::{COPY_COST, Pace, Progress, is_hard};
use crate::engine::world::fact;
use crate::wire::record::{Administrative, Copy, NodeRecord, ObjectRecord, to_row};
use crate::wire::scrub::{Finding, Findings, Pass, ScrubStatus, State};

/// How often an idle scrub looks whether there is something to do, and a waiting one whether the node stops.
const LOOK: Duration = Duration::from_millis(100);
/// How often the place is written down.
const SAVE: Duration = Duration::from_secs(30);
/// How often it is looked whether lost copies are back, and what was set aside may go.
const TEND: Duration = Duration::from_secs(2);
/// Shortest time between the beginnings of two passes that nobody asked for.
const REST: Duration = Duration::from_secs(1);
/// Objects looked up at once.
const PAGE: usize = 256;
/// Lost copies whose return is waited for, at most.
const EXPECTED: usize = 10_000;
/// Findings of one kind that are said one by one in every window; of the rest only the number.
const SAID: u64 = 100;
/// See [`SAID`].
const WINDOW: Duration = Duration::from_mins(1);

/// What the scrub thread shares with reads, the collector and an operator.
#[derive(Debug)]
pub struct Scrub {
    status: Mutex<ScrubStatus>,
    wanted: AtomicBool,
    /// Bytes that clients wrote to or read from this node.
    traffic: AtomicU64,
    /// Copies that were lost here: on how many nodes the object was counted before.
    expected: Mutex<BTreeMap<Sha256, usize>>,
    said: Mutex<BTreeMap<Finding, Said>>,
}

#[derive(Debug)]
struct Said {
    since: Instant,
    times: u64,
}

impl Scrub {
    /// Of `node`, which has not begun.
    pub fn new(node: NodeId) -> Self {
        Self {
            status: Mutex::new(ScrubStatus {
                node,
                state: State::Waiting,
                period_s: 0,
                bandwidth: 0,
                pass: None,
                last: None,
                found: Findings::default(),
                aside: 0,
            }),
            wanted: AtomicBool::new(false),
            traffic: AtomicU64::new(0),
            expected: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// How it stands.
    pub fn status(&self) -> ScrubStatus {
        *self.status.lock()
    }

    /// A pass over everything is wanted now, as fast as the bandwidth allows.
    pub fn begin_now(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Clients moved so many bytes: a scrub reads less meanwhile.
    pub fn moved(&self, bytes: usize) {
        self.traffic.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what was found, and says it.
    pub fn found(&self, finding: Finding, text: &str) {
        {
            let mut status = self.status.lock();
            status.found.add(finding);
            if let Some(pass) = &mut status.pass {
                pass.found.add(finding);
            }
        }
        let mut all_said = self.said.lock();
        let said = all_said.entry(finding).or_insert_with(|| Said {
            since: Instant::now(),
            times: 0,
        });
        if said.since.elapsed() >= WINDOW {
            if said.times > SAID {
                let unsaid = said.times - SAID;
                log::warn!(target: "momo::scrub_more", "{}: {unsaid} more of these", finding.word());
            }
            (said.since, said.times) = (Instant::now(), 0);
        }
        said.times += 1;
        if said.times > SAID {
            return;
        }
        let word = finding.word();
        match finding {
            Finding::Gone => log::error!(target: "momo::scrub_gone", "{word} {text}"),
            Finding::Miss | Finding::Blen | Finding::Bsum => {
                log::warn!(target: "momo::scrub_bad", "{word} {text}");
            }
            Finding::Povi | Finding::Bcnt => {
                log::info!(target: "momo::scrub_count", "{word} {text}");
            }
            Finding::Repl => log::info!(target: "momo::scrub_repaired", "{word} {text}"),
        }
    }

    /// A copy was lost here that had been one of copies on `nodes` nodes: it is said when there are as many again.
    pub fn expect_again(&self, sha256: Sha256, nodes: usize) {
        let mut expected = self.expected.lock();
        if expected.len() < EXPECTED {
            expected.entry(sha256).or_insert(nodes);
        }
    }

    fn change(&self, change: impl FnOnce(&mut ScrubStatus)) {
        change(&mut self.status.lock());
    }
}

/// Where a pass is: what is kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    pass: Pass,
    /// The last object looked at.
    #[serde(default)]
    after: Option<Sha256>,
    /// The next folder to be searched for files that nobody counts; 256 when all were.
    #[serde(default)]
    folder: u16,
}

/// What is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    place: Option<Place>,
    #[serde(default)]
    last: Option<Pass>,
}

impl Kept {
    /// What was written down; a fresh start when that is not to be read, which costs no more than reading copies again.
    fn read(engine: &Engine) -> Self {
        let read = match engine.state.read_fact(fact::SCRUB) {
            Ok(Some(bytes)) if !bytes.is_empty() => {
                serde_json::from_slice(&bytes).map_err(|error| error.to_string())
            }
            Ok(_) => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|why| {
            log::warn!(target: "momo::scrub", "where the last scrub was is not known: {why}");
            Self::default()
        })
    }

    fn write(&self, engine: &Engine) {
        if let Err(error) = engine.state.write_fact(fact::SCRUB, &to_row(self)) {
            log::warn!(target: "momo::scrub", "where the scrub is could not be written down: {error}");
        }
    }
}

/// Runs until the node stops.
pub fn run(engine: &Arc<Engine>) {
    let mut worker = Worker::new(engine);
    while !engine.is_stopping() {
        thread::park_timeout(LOOK);
        worker.tend();
        if !is_ready(engine) {
            continue;
        }
        loop {
            worker.begin();
            if worker.kept.place.is_none() || !is_ready(engine) {
                break;
            }
            if let Err(error) = worker.step() {
                log::error!(target: "momo::scrub", "{error}");
                break;
            }
        }
        worker.idle();
    }
    worker.save();
}

/// Whether what lies here can be held against the catalog.
fn is_ready(engine: &Engine) -> bool {
    !engine.is_stopping()
        && engine.report().born
        && !engine.comparing.load(Ordering::Acquire)
        && engine.catalog().is_ok()
}

struct Worker<'a> {
    engine: &'a Arc<Engine>,
    kept: Kept,
    pace: Pace,
    traffic: Traffic,
    began: Instant,
    /// The clock when the pass of this process began or went on, and how long it had taken before.
    resumed: (Instant, Duration),
    saved: Instant,
    tended: Instant,
    /// When the next pass may begin unasked.
    next: Instant,
}

/// What clients moved lately.
struct Traffic {
    at: Instant,
    bytes: u64,
    hard: bool,
}

impl Traffic {
    /// Looks again when the last look is some time ago.
    fn is_hard(&mut self, bytes: u64) -> bool {
        let time = self.at.elapsed();
        if time >= LOOK {
            self.hard = is_hard(bytes.saturating_sub(self.bytes), time);
            (self.at, self.bytes) = (Instant::now(), bytes);
        }
        self.hard
    }
}

impl<'a> Worker<'a> {
    fn new(engine: &'a Arc<Engine>) -> Self {
        let (settings, now) = (&engine.settings, Instant::now());
        let mut kept = Kept::read(engine);
        if settings.scrub_period.is_zero() {
            kept.place = kept.place.filter(|place| place.pass.hurried);
        }
        let mut worker = Self {
            engine,
            kept,
            pace: Pace::new(settings.scrub_bandwidth, Duration::ZERO),
            traffic: Traffic {
                at: now,
                bytes: 0,
                hard: false,
            },
            began: now,
            resumed: (now, Duration::ZERO),
            saved: now,
            tended: now,
            next: now,
        };
        if let Some(last) = worker.kept.last {
            let since = clock::wall().0.saturating_sub(last.began.0);
            let rest = worker.spread().saturating_sub(Duration::from_nanos(since));
            worker.next = now + rest;
        }
        if let Some(place) = worker.kept.place {
            log::info!(
                target: "momo::scrub_resumed",
                "pass {}: goes on after {} of {} bytes", place.pass.number, place.pass.bytes, place.pass.bytes_total
            );
            worker.pace_for(&place);
        }
        engine.scrub.change(|status| {
            status.period_s = settings.scrub_period.as_secs();
            status.bandwidth = settings.scrub_bandwidth;
        });
        worker.publish();
        worker.idle();
        worker
    }

    /// The time over which a pass is spread.
    fn spread(&self) -> Duration {
        self.engine.settings.scrub_period / 2
    }

    fn pace_for(&mut self, place: &Place) {
        let spread = if place.pass.hurried {
            Duration::ZERO
        } else {
            self.spread()
        };
        self.pace = Pace::new(self.engine.settings.scrub_bandwidth, spread);
        // What was left out while the node was down is made up for; a clock that was set back only costs time.
        let nanos = clock::wall().0.saturating_sub(place.pass.began.0);
        self.resumed = (Instant::now(), Duration::from_nanos(nanos));
    }

    /// Begins a pass if one is due or wanted.
    fn begin(&mut self) {
        let wanted = self.engine.scrub.wanted.swap(false, Ordering::AcqRel);
        let period = self.engine.settings.scrub_period;
        let due = !period.is_zero() && self.kept.place.is_none() && Instant::now() >= self.next;
        if !wanted && !due {
            return;
        }
        match self.measure() {
            Ok(Some((objects_total, bytes_total))) => {
                let under_way = self.kept.place.map(|place| place.pass.number - 1);
                let before = under_way.or(self.kept.last.map(|last| last.number));
                let place = Place {
                    pass: Pass {
                        number: before.unwrap_or(0) + 1,
                        began: clock::wall(),
                        objects_total,
                        bytes_total,
                        hurried: wanted,
                        ..Pass::default()
                    },
                    ..Place::default()
                };
                self.pace_for(&place);
                self.warn_of_haste(&place);
                self.next = Instant::now() + self.spread().max(REST);
                self.kept.place = Some(place);
                self.publish();
                self.save();
                if wanted || objects_total > 0 {
                    log::info!(
                        target: "momo::scrub_began",
                        "pass {}: {objects_total} copies, {bytes_total} bytes", place.pass.number
                    );
                }
            }
            Ok(None) => {}
            Err(error) => {
                log::error!(target: "momo::scrub", "{error}");
                self.next = Instant::now() + REST;
            }
        }
    }

    fn warn_of_haste(&self, place: &Place) {
        let cost = cost_of(place.pass.objects_total, place.pass.bytes_total);
        let needed = Duration::from_secs(cost / self.engine.settings.scrub_bandwidth.max(1));
        if !place.pass.hurried && needed > self.engine.settings.scrub_period {
            log::warn!(
                target: "momo::scrub_late",
                "scrub.bandwidth is too small to read {} bytes within scrub.period", place.pass.bytes_total
            );
        }
    }

    /// How many copies are counted here, and their bytes; `None` when the node stops.
    fn measure(&self) -> Result<Option<(u64, u64)>, TableError> {
        let (mut objects, mut bytes, mut after) = (0, 0_u64, None);
        loop {
            let page = query::objects_after(&self.engine.tables, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(Some((objects, bytes)));
            };
            after = Some(*last);
            for (_, object) in &page {
                let copies = self.counted(object);
                objects += copies;
                bytes = bytes.saturating_add(copies.saturating_mul(object.size));
            }
            if self.engine.is_stopping() {
                return Ok(None);
            }
        }
    }

    fn counted(&self, object: &ObjectRecord) -> u64 {
        let here = |copy: &&Copy| copy.node == self.engine.node();
        object.copies.iter().filter(here).count() as u64
    }

    /// A page of objects, or the end of the pass.
    fn step(&mut self) -> Result<(), TableError> {
        let Some(place) = self.kept.place else {
            return Ok(());
        };
        let page = query::objects_after(&self.engine.tables, place.after.as_ref(), PAGE)?;
        let members = query::nodes(&self.engine.tables)?;
        let upto = page
            .first()
            .map_or(256, |(sha256, _)| u16::from(sha256.0[0]));
        self.search_folders(upto);
        if page.is_empty() {
            if !self.engine.is_stopping() {
                self.end();
            }
            return Ok(());
        }
        for (sha256, object) in page {
            self.search_folders(u16::from(sha256.0[0]));
            if !self.one(sha256, &object, &members) || self.is_interrupted() {
                return Ok(());
            }
            self.tend();
        }
        Ok(())
    }

    /// One object of the catalog; false when it was not finished.
    fn one(&mut self, sha256: Sha256, object: &ObjectRecord, members: &[NodeRecord]) -> bool {
        let engine = self.engine;
        self.count(&sha256, object, members);
        let copies = self.counted(object);
        if copies > 0 {
            let mut read = 0;
            let examined = examine::examine(engine, sha256, &mut |bytes| {
                read += bytes;
                self.pause(bytes, read)
            });
            match examined {
                Ok(Examined::Whole) => {
                    // Somebody may have removed or replaced a name in the visible tree.
                    if let Err(error) = engine.visible.show(&engine.tables, &sha256) {
                        log::error!(target: "momo::tree", "{error}");
                    }
                }
                Ok(Examined::Later) if self.is_interrupted() => return false,
                Ok(Examined::Later) => engine.candidates.lost(sha256),
                Ok(Examined::NotHere | Examined::Bad(_)) => {}
                Err(failure) => {
                    log::debug!(target: "momo::scrub_later", "{sha256}: {failure}");
                    engine.candidates.lost(sha256);
                }
            }
        }
        if let Some(place) = &mut self.kept.place {
            place.after = Some(sha256);
            place.pass.objects += copies;
            place.pass.bytes = place
                .pass
                .bytes
                .saturating_add(copies.saturating_mul(object.size));
        }
        self.publish();
        copies == 0 || self.pause(COPY_COST, 0)
    }

    fn is_interrupted(&self) -> bool {
        self.engine.is_stopping() || self.engine.scrub.wanted.load(Ordering::Acquire)
    }

    /// Whether an object lies on as many nodes as it should: one node says it for all.
    fn count(&self, sha256: &Sha256, object: &ObjectRecord, members: &[NodeRecord]) {
        let serves = |copy: &&Copy| {
            members.iter().any(|member| {
                member.id == copy.node && member.administrative != Administrative::Dead
            })
        };
        let holders: Vec<Copy> = object.copies.iter().filter(serves).copied().collect();
        let living = members
            .iter()
            .filter(|member| member.stores && member.alive);
        let teller = living
            .clone()
            .map(|member| member.id)
            .find(|id| holders.iter().any(|copy| copy.node == *id))
            .or_else(|| living.map(|member| member.id).next());
        if teller != Some(self.engine.node()) {
            return;
        }
        let (nodes, want) = (query::distinct_nodes(&object.copies), object.want);
        let scrub = &self.engine.scrub;
        if object.copies.is_empty() {
            scrub.found(Finding::Gone, &examine::names(self.engine, *sha256));
        } else if object.owed.is_some() {
            let text = format!(
                "{sha256}: {want} copies are wanted, fewer count of those on {nodes} nodes"
            );
            scrub.found(Finding::Povi, &text);
        } else if object.over {
            let text = format!("{sha256}: on {nodes} nodes, {want} are wanted");
            scrub.found(Finding::Bcnt, &text);
        }
    }

    /// Looks for files that nobody counts in the folders before `upto`.
    fn search_folders(&mut self, upto: u16) {
        while let Some(place) = &mut self.kept.place {
            let folder = place.folder;
            if folder >= upto {
                return;
            }
            place.folder += 1;
            let Ok(first) = u8::try_from(folder) else {
                return;
            };
            self.search_folder(first);
        }
    }

    fn search_folder(&self, first: u8) {
        let engine = self.engine;
        for (sha256, stat) in engine.objects.list_folder(first) {
            let copy = Copy {
                node: engine.node(),
                dir: stat.dir,
            };
            // What was let go a while ago is on its way out, and what an upload holds is on its way in.
            if !examine::uncounted(engine, sha256, copy) || engine.candidates.knows(&sha256) {
                continue;
            }
            engine.scrub.found(
                Finding::Bcnt,
                &format!("{sha256}: a file in {} that nobody counts", copy.dir),
            );
            engine.pins.pin(stat.upload, sha256);
            engine.candidates.add(sha256);
        }
    }

    /// The pass is complete.
    fn end(&mut self) {
        let Some(mut place) = self.kept.place.take() else {
            return;
        };
        self.look_aside_again();
        // What was found by then has been added there.
        place.pass.found = self.found();
        place.pass.ended = Some(clock::wall());
        if place.pass.hurried {
            self.next = Instant::now() + self.spread().min(REST);
        }
        self.kept.last = Some(place.pass);
        self.publish();
        self.save();
        let pass = place.pass;
        if place.pass.hurried || pass.objects > 0 {
            let found: Vec<String> = Finding::ALL
                .iter()
                .filter(|finding| pass.found.of(**finding) > 0)
                .map(|finding| format!("{} {}", finding.word(), pass.found.of(*finding)))
                .collect();
            let found = if found.is_empty() {
                "nothing wrong".to_owned()
            } else {
                found.join(", ")
            };
            log::info!(
                target: "momo::scrub_ended",
                "pass {}: {} copies, {} bytes: {found}", pass.number, pass.objects, pass.bytes
            );
        }
    }

    /// Waits until more may be read, in short waits; false when there is something else to do. `read` is what of the
    /// object under way has been read.
    fn pause(&mut self, bytes: u64, read: u64) -> bool {
        let engine = self.engine;
        let hard = self
            .traffic
            .is_hard(engine.scrub.traffic.load(Ordering::Relaxed));
        let (progress, hurried) = self.kept.place.map_or_else(
            || (Progress::default(), true),
            |place| {
                let pass = place.pass;
                let progress = Progress {
                    done: cost_of(pass.objects, pass.bytes).saturating_add(read),
                    total: cost_of(pass.objects_total, pass.bytes_total),
                    elapsed: self.resumed.1 + self.resumed.0.elapsed(),
                };
                (progress, place.pass.hurried)
            },
        );
        engine.scrub.change(|status| {
            status.state = match (hard, hurried) {
                (true, _) => State::Yielding,
                (false, true) => State::Hurrying,
                (false, false) => State::Running,
            };
        });
        let wait = self.pace.wait(self.began.elapsed(), bytes, progress, hard);
        let until = Instant::now() + wait;
        loop {
            if self.is_interrupted() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left.min(LOOK));
            self.tend();
        }
    }

    /// Says which lost copies are back, removes what was set aside and is not needed, and writes the place down.
    fn tend(&mut self) {
        if self.saved.elapsed() >= SAVE && self.kept.place.is_some() {
            self.save();
        }
        if self.tended.elapsed() < TEND || !is_ready(self.engine) {
            return;
        }
        self.tended = Instant::now();
        if let Err(error) = self.welcome().and_then(|()| self.clear_aside()) {
            log::error!(target: "momo::scrub", "{error}");
        }
    }

    fn welcome(&self) -> Result<(), TableError> {
        let engine = self.engine;
        let expected: Vec<(Sha256, usize)> = {
            let expected = engine.scrub.expected.lock();
            expected
                .iter()
                .map(|(sha256, nodes)| (*sha256, *nodes))
                .collect()
        };
        for (sha256, nodes) in expected {
            let object = query::object(&engine.tables, &sha256)?;
            if let Some(object) = &object {
                if query::distinct_nodes(&object.copies) >= nodes {
                    let text = format!("{sha256}: on {nodes} nodes again");
                    engine.scrub.found(Finding::Repl, &text);
                } else if object.owed.is_some() {
                    continue;
                }
            }
            engine.scrub.expected.lock().remove(&sha256);
        }
        Ok(())
    }

    /// What was set aside goes once as many copies count as are wanted (which were made from a good one), or nobody
    /// wants the object any more.
    fn clear_aside(&self) -> Result<(), TableError> {
        let engine = self.engine;
        let mut left = 0;
        for aside in engine.objects.aside() {
            let object = query::object(&engine.tables, &aside.sha)?;
            if object.is_some_and(|object| object.owed.is_some()) {
                left += 1;
                continue;
            }
            match engine.objects.remove_aside(&aside) {
                Ok(_) => {
                    log::info!(target: "momo::scrub_removed", "{}: {} bytes of a bad copy", aside.path.display(), aside.size);
                }
                Err(error) => {
                    left += 1;
                    log::debug!(target: "momo::scrub", "{}: {error}", aside.path.display());
                }
            }
        }
        engine.scrub.change(|status| status.aside = left);
        Ok(())
    }

    /// Once a pass: a file that was set aside may be whole after all.
    fn look_aside_again(&self) {
        for aside in self.engine.objects.aside() {
            match self.engine.objects.put_back(&aside) {
                Ok(true) => {
                    log::info!(target: "momo::scrub", "{}: is whole after all, and back", aside.sha);
                    self.engine.candidates.add(aside.sha);
                }
                Ok(false) => {}
                Err(error) => {
                    log::debug!(target: "momo::scrub", "{}: {error}", aside.path.display());
                }
            }
        }
    }

    fn idle(&self) {
        if self.kept.place.is_none() {
            let off = self.engine.settings.scrub_period.is_zero();
            self.engine.scrub.change(|status| {
                status.state = if off { State::Off } else { State::Waiting };
            });
        }
    }

    /// What the pass under way has found.
    fn found(&self) -> Findings {
        let status = self.engine.scrub.status.lock();
        status
            .pass
            .map_or_else(Findings::default, |pass| pass.found)
    }

    /// Shows where it is. What is found is counted in what is shown.
    fn publish(&mut self) {
        let (place, last) = (&mut self.kept.place, self.kept.last);
        self.engine.scrub.change(|status| {
            status.last = last;
            status.pass = place.as_mut().map(|place| {
                match status.pass {
                    Some(shown) if shown.number == place.pass.number => {
                        place.pass.found = shown.found;
                    }
                    _ => {}
                }
                place.pass
            });
        });
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        self.kept.write(self.engine);
    }
}

/// What looking at copies costs, in bytes.
fn cost_of(objects: u64, bytes: u64) -> u64 {
    bytes.saturating_add(objects.saturating_mul(COPY_COST))
}

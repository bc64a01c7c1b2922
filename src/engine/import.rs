//! Files of another catalog, taken into this one: their objects are looked for on every node, and what is found whole is put.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::digest::Sha256;
use crate::base::id::{NodeId, OperationId, Version};
use crate::base::table::{Table, Tables};
use crate::core::catalog::query;
use crate::engine::serve;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::wire::admin::{IMPORT_AT_ONCE, Outcome};
use crate::wire::command::{Code, Expect, Operation, PlacedPart, Put};
use crate::wire::lines::{Entry, Placed};
use crate::wire::peer::{Answer, FIND_AT_ONCE, Request, Sought};
use crate::wire::record::{Administrative, Copy};

/// Files that are put at the same time: their commands share the log's syncs.
const AT_ONCE: usize = 16;
/// Below this an object that no name refers to yet could be collected while a long import goes on.
const GRACE: Duration = Duration::from_hours(24);

/// Where objects lie: size and directory by object.
type Found = BTreeMap<Sha256, Vec<(Copy, u64)>>;

/// Takes files in, each as far as it can be; what became of each, in order.
pub fn take(
    engine: &Arc<Engine>,
    files: &[Entry],
    begun: bool,
    dry_run: bool,
) -> Result<Vec<Outcome>, Failure> {
    if files.len() > IMPORT_AT_ONCE {
        return Err(Failure::refused(Code::Invalid, "too many files at once"));
    }
    if !engine.fresh() {
        let why = "no leader confirmed in time what the catalog holds";
        return Err(Failure::refused(Code::Unavailable, why));
    }
    let catalog = engine.catalog()?;
    let any = catalog
        .range(Table::Files, &[], None, 1)
        .map_err(tables_failed)?;
    if !begun && !any.is_empty() {
        let why = "the catalog is not empty: an import goes into an empty one (or on with one that was \
                   interrupted, with --resume)";
        return Err(Failure::refused(Code::Conflict, why));
    }
    if !dry_run && engine.settings.garbage_grace < GRACE {
        let why = "objects that no name refers to yet could be removed meanwhile: set `[gc] grace` to 24h or \
                   more on every daemon, start them again, and import then";
        return Err(Failure::refused(Code::Conflict, why));
    }
    drop(catalog);
    let jobs: Vec<Job> = files
        .iter()
        .map(|entry| Job::new(engine, entry, dry_run))
        .collect();
    let found = match look(engine, &jobs) {
        Ok(found) => found,
        Err(failure) => {
            // What some nodes hold for these uploads may go.
            for job in &jobs {
                job.give_up(engine);
            }
            return Err(failure);
        }
    };
    let outcomes: Vec<Mutex<Option<Outcome>>> = jobs.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((job, outcome)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).zip(outcomes.get(at))
        } {
            *outcome.lock() = Some(job.run(engine, &found, dry_run));
        }
    };
    thread::scope(|scope| {
        // A thread that cannot be had is not missed: this one does the rest.
        for _ in 1..AT_ONCE.min(jobs.len()) {
            let builder = thread::Builder::new()
                .name("import".to_owned())
                .stack_size(256 * 1024);
            if builder.spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let undone = || Outcome::Refused {
        message: "not done".to_owned(),
    };
    let outcomes = outcomes.into_iter();
    Ok(outcomes
        .map(|one| one.into_inner().unwrap_or_else(undone))
        .collect())
}

/// A file to be taken in, with an upload for each of its versions.
struct Job<'a> {
    entry: &'a Entry,
    /// Oldest version first.
    versions: Vec<(&'a Placed, Option<OperationId>)>,
}

impl<'a> Job<'a> {
    fn new(engine: &Engine, entry: &'a Entry, dry_run: bool) -> Self {
        let upload = || (!dry_run).then(|| engine.next_upload());
        let versions = entry.versions().map(|placed| (placed, upload())).collect();
        Self { entry, versions }
    }

    fn give_up(&self, engine: &Engine) {
        for upload in self.versions.iter().filter_map(|(_, upload)| *upload) {
            engine.candidates.give_up(upload);
        }
    }

    fn run(&self, engine: &Arc<Engine>, found: &Found, dry_run: bool) -> Outcome {
        let outcome = self.attempt(engine, found, dry_run);
        for (_, upload) in &self.versions {
            let Some(upload) = upload else { continue };
            // What was put is settled; what was not must not stay pinned anywhere.
            match &outcome {
                Ok(Outcome::Taken {
                    lost_versions: 0, ..
                }) => {
                    if let Err(error) = engine.settle(*upload) {
                        log::warn!(target: "momo::settle", "upload {upload}: {error}");
                    }
                }
                _ => engine.candidates.give_up(*upload),
            }
        }
        outcome.unwrap_or_else(|failure| Outcome::Refused {
            message: failure.to_string(),
        })
    }

    fn attempt(
        &self,
        engine: &Arc<Engine>,
        found: &Found,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let newest = &self.entry.newest;
        if self
            .entry
            .versions()
            .any(|version| version.record.path != newest.record.path)
        {
            return Err(Failure::refused(Code::Invalid, "versions of several names"));
        }
        let Some(least) = place(newest, found).map(|parts| fewest(&parts)) else {
            return Ok(Outcome::Lost);
        };
        let catalog = engine.catalog()?;
        let current = query::file(&catalog, &newest.record.path).map_err(tables_failed)?;
        let (mut expect, begin) = match &current {
            None => (Expect::Absent, 0),
            // Interrupted between two versions: goes on behind the one that is there.
            Some(current) => {
                let same = |(placed, _): &(&Placed, Option<OperationId>)| {
                    let record = &placed.record;
                    (record.sha256, record.modified) == (current.sha256, current.modified)
                };
                match self.versions.iter().rposition(same) {
                    Some(at) if at + 1 == self.versions.len() => return Ok(Outcome::Same),
                    Some(at) => (Expect::Version(current.version), at + 1),
                    None => {
                        let why = format!("another file is there, version {}", current.version);
                        return Err(Failure::refused(Code::Conflict, why));
                    }
                }
            }
        };
        let mut lost_versions = 0;
        for (placed, upload) in self.versions.iter().skip(begin) {
            let Some(parts) = place(placed, found) else {
                lost_versions += 1;
                continue;
            };
            if let (false, Some(upload)) = (dry_run, upload) {
                let version = put(engine, placed, parts, *upload, expect)?;
                expect = Expect::Version(version);
            }
        }
        Ok(Outcome::Taken {
            copies: least,
            lost_versions,
        })
    }
}

fn put(
    engine: &Engine,
    placed: &Placed,
    parts: Vec<PlacedPart>,
    upload: OperationId,
    expect: Expect,
) -> Result<Version, Failure> {
    let record = &placed.record;
    let committed = engine.commit(Operation::Put(Put {
        upload,
        path: record.path.clone(),
        size: record.size,
        sha256: record.sha256,
        md5: record.md5,
        strategy: record.strategy.clone(),
        class: record.class.clone(),
        parts,
        want: record.want,
        min: 1,
        expect,
        owner: record.owner.clone(),
        time: record.modified,
    }))?;
    Ok(committed.version)
}

/// The parts with the copies that were found; `None` when one has none.
fn place(placed: &Placed, found: &Found) -> Option<Vec<PlacedPart>> {
    let parts = placed.record.parts.iter();
    parts
        .map(|part| {
            let lies = found.get(&part.sha256)?.iter();
            let copies: Vec<Copy> = lies
                .filter(|(_, size)| *size == part.size)
                .map(|(copy, _)| *copy)
                .collect();
            (!copies.is_empty()).then_some(PlacedPart {
                part: *part,
                copies,
            })
        })
        .collect()
}

/// The fewest copies of any part; of an empty file one, its name.
fn fewest(parts: &[PlacedPart]) -> u32 {
    let least = parts.iter().map(|placed| placed.copies.len()).min();
    least.map_or(1, |least| u32::try_from(least).unwrap_or(u32::MAX))
}

/// Asks every member which of the objects it has; it holds them for the uploads that will refer to them.
fn look(engine: &Arc<Engine>, jobs: &[Job]) -> Result<Found, Failure> {
    let sought: BTreeSet<(Sha256, Option<OperationId>)> = jobs
        .iter()
        .flat_map(|job| &job.versions)
        .flat_map(|(placed, upload)| {
            let parts = placed.record.parts.iter();
            parts.map(|part| (part.sha256, *upload))
        })
        .collect();
    let sought: Vec<Sought> = sought
        .into_iter()
        .map(|(sha256, upload)| Sought { sha256, upload })
        .collect();
    let catalog = engine.catalog()?;
    let mut found = Found::new();
    for member in query::nodes(&catalog).map_err(tables_failed)? {
        if !member.stores || member.administrative == Administrative::Dead {
            continue;
        }
        for page in sought.chunks(FIND_AT_ONCE) {
            let answered = ask(engine, member.id, page).map_err(|error| {
                let why = format!("node {} does not say what it holds: {error}", member.id);
                Failure::refused(Code::Unavailable, why)
            })?;
            for (sought, lies) in page.iter().zip(answered) {
                let copies = found.entry(sought.sha256).or_default();
                for (dir, size) in lies {
                    // A directory that is not in service yet would be refused.
                    let copy = Copy {
                        node: member.id,
                        dir,
                    };
                    if member.dirs.contains(&dir) && !copies.contains(&(copy, size)) {
                        copies.push((copy, size));
                    }
                }
            }
        }
    }
    Ok(found)
}

fn ask(
    engine: &Arc<Engine>,
    node: NodeId,
    page: &[Sought],
) -> io::Result<Vec<Vec<(crate::base::id::DirId, u64)>>> {
    let answer = if node == engine.node() {
        serve::find(engine, page).map_err(io::Error::other)?
    } else {
        let mut lent = engine.peers.lend(node)?;
        let objects = page.to_vec();
        lent.stream.send(&Request::Find { objects })?;
        let answer = lent.stream.receive_value()?;
        lent.keep();
        answer
    };
    match answer {
        Answer::Found { objects } if objects.len() == page.len() => Ok(objects),
        Answer::Error { message } => Err(io::Error::other(message)),
        _ => Err(io::Error::other("an answer to another question")),
    }
}

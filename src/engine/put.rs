//! Keeping a file: plan, bytes, copies, commit. The order is the promise (DESIGN, "A write").

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::digest::{EMPTY_SHA256, Md5, Sha256, md5};
use crate::base::id::{NodeId, OperationId, Version};
use crate::base::limit::BULK_WAIT;
use crate::base::path::FilePath;
use crate::core::catalog::query;
use crate::core::replication::{self, Candidate, Plan, Reach, View};
use crate::engine::clock;
use crate::engine::legs::{Expecting, Key};
use crate::engine::permits::{BUSY, Purpose};
use crate::engine::shared::{Committed, Engine, tables_failed};
use crate::engine::transfer::{self, Digests, Intake, Interrupted, Landed};
use crate::engine::verbs::{Failure, Kept, Put, Strategy};
use crate::wire::command::{Code, Expect, Operation, PlacedPart, Put as PutCommand};
use crate::wire::peer::{Answer, Hop, Leg, Missed, Request};
use crate::wire::record::{Administrative, Copy, Mode, Part};

/// The one class there is until classes are configured.
const DEFAULT_CLASS: &str = "default";
/// A waiting leg hears from daemon 0 every second; silence this long means that it is gone.
const LEG_SILENCE: Duration = Duration::from_secs(5);

/// Time for a node that was too slow to be heard of again.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Keeps a file, or fails with nothing changed, or with the outcome unknown.
pub fn put(engine: &Arc<Engine>, request: &Put, body: &mut dyn Read) -> Result<Kept, Failure> {
    let report = engine.report();
    if !report.born {
        return Err(Failure::refused(
            Code::Unavailable,
            report.waiting.unwrap_or_default(),
        ));
    }
    if request.class != DEFAULT_CLASS {
        let class = &request.class;
        return Err(Failure::refused(
            Code::Invalid,
            format!("unknown class '{class}'"),
        ));
    }
    if let Some(failure) = engine.shortage() {
        return Err(failure);
    }
    refuse_early(engine, request)?;
    let (strategy, plan) = plan(engine, request)?;
    let attempt = Attempt {
        engine,
        request,
        upload: engine.next_upload(),
        strategy,
        plan,
        ended: Cell::new(false),
    };
    let kept = attempt.run(body);
    match &kept {
        // Its pins here may go at once, and do so even when the note of it is skipped by a snapshot.
        Ok(_) => {
            if let Err(error) = engine.settle(attempt.upload) {
                log::warn!(target: "momo::settle", "upload {}: {error}", attempt.upload);
            }
        }
        // Whatever lies anywhere for this upload may go, unless the put turns out to be committed. Before the end of
        // the body nobody keeps anything for it, and there is nothing to tell anybody.
        Err(_) if attempt.ended.get() => engine.candidates.give_up(attempt.upload),
        Err(_) => {}
    }
    kept
}

/// What would be refused at the end is refused before the body; said only of fresh knowledge.
fn refuse_early(engine: &Arc<Engine>, request: &Put) -> Result<(), Failure> {
    let conflict = |catalog: &dyn crate::base::table::Tables| {
        query::name_conflict(catalog, &request.path, request.expect).map_err(tables_failed)
    };
    if conflict(&engine.catalog()?)?.is_some()
        && engine.fresh()
        && let Some(message) = conflict(&engine.catalog()?)?
    {
        return Err(Failure::Refused {
            code: Code::Conflict,
            message,
        });
    }
    Ok(())
}

/// The strategy's name and its plan for the nodes that can be reached now.
fn plan(engine: &Arc<Engine>, request: &Put) -> Result<(&'static str, Plan), Failure> {
    let catalog = engine.catalog()?;
    let (name, reach) = match &request.strategy {
        Strategy::Current => match query::mode(&catalog).map_err(tables_failed)?.new {
            Mode::PrimarySplay => (Mode::Splay.name(), Reach::Around),
            mode => (mode.name(), Reach::Around),
        },
        Strategy::Named(name) if name == Mode::PrimarySplay.name() => {
            (Mode::Splay.name(), Reach::Around)
        }
        Strategy::Named(name) => (name.as_str(), Reach::Around),
        Strategy::Negotiated(mode) => (mode.name(), Reach::Onward),
        Strategy::Leg => (Mode::None.name(), Reach::Onward),
    };
    let Some(strategy) = replication::by_name(name) else {
        return Err(Failure::refused(
            Code::Invalid,
            format!("unknown strategy '{name}'"),
        ));
    };
    let nodes = query::nodes(&catalog).map_err(tables_failed)?;
    let view = || View {
        entry: engine.node(),
        nodes: nodes
            .iter()
            .filter(|record| record.stores && record.administrative != Administrative::Dead)
            .map(|record| Candidate {
                node: record.id,
                open: record.administrative == Administrative::Alive && engine.is_well(record.id),
            })
            .collect(),
        replicas: engine.settings.replicas,
        min_copies: engine.settings.min_copies,
        reach,
    };
    loop {
        match strategy.plan(&view()) {
            Ok(plan) => return Ok((strategy.name(), plan)),
            Err(_) if engine.is_meeting() => std::thread::park_timeout(Duration::from_millis(10)),
            Err(refusal) => {
                return Err(Failure::refused(Code::Unavailable, refusal.to_string()));
            }
        }
    }
}

/// One attempt at keeping one file.
struct Attempt<'a> {
    engine: &'a Arc<Engine>,
    request: &'a Put,
    upload: OperationId,
    strategy: &'static str,
    plan: Plan,
    /// The body has ended well: from here on nodes may hold something for this upload, or its put may be on its way.
    ended: Cell<bool>,
}

impl Attempt<'_> {
    fn run(&self, body: &mut dyn Read) -> Result<Kept, Failure> {
        if self.request.size == 0 {
            let digests = Digests {
                sha256: EMPTY_SHA256,
                md5: Some(md5(b"")),
            };
            self.compare(digests)?;
            self.ended.set(true);
            let committed = self.commit(digests, Vec::new())?;
            return Ok(self.kept(digests, committed.version, 1, self.strategy));
        }
        let expecting = match (&self.request.md5, self.plan.legs.as_slice()) {
            (Some(md5), [_, ..]) => Some(self.engine.legs.expect(self.key(*md5))),
            _ => None,
        };
        let digests_and_landed = self.take_in(body)?;
        let (digests, landed) = digests_and_landed;
        if self.request.strategy == Strategy::Leg {
            return self.finish_leg(digests, landed);
        }
        self.finish(digests, landed, expecting)
    }

    fn key(&self, md5: Md5) -> Key {
        Key {
            path: self.request.path.clone(),
            size: self.request.size,
            md5,
        }
    }

    /// The body, to every node of the plan; synced there and here.
    fn take_in(&self, body: &mut dyn Read) -> Result<(Digests, Landed), Failure> {
        let (plan, size) = (&self.plan, self.request.size);
        let hops = plan.hops.iter().map(|hop| hop.node);
        let Some(_permit) = self.engine.permits.take(Purpose::Write, hops, BULK_WAIT) else {
            return Err(Failure::refused(
                Code::Unavailable,
                format!("'{}': {BUSY}", self.request.path),
            ));
        };
        let mut intake = Intake::open(self.engine, self.upload, size, plan.local, &plan.hops);
        if intake.is_hopeless() {
            return Err(self.nobody(intake.missed()));
        }
        let with_md5 = self.request.md5.is_some() && !self.leaves_md5_to_another();
        let digests = match transfer::receive(&mut intake, body, size, with_md5) {
            Ok(digests) => digests,
            Err(Interrupted::Body(error)) => {
                intake.give_up();
                return Err(Failure::Body(error));
            }
            Err(Interrupted::Hopeless) => {
                let failure = self.nobody(intake.missed());
                intake.give_up();
                return Err(failure);
            }
        };
        if let Err(failure) = self.compare(digests) {
            intake.give_up();
            return Err(failure);
        }
        self.ended.set(true);
        Ok((digests, intake.finish(digests.sha256)))
    }

    /// A leg that daemon 0 counts has the SHA-256 of bytes whose MD5 was compared there: hashing MD5 once is enough.
    fn leaves_md5_to_another(&self) -> bool {
        self.request.strategy == Strategy::Leg && self.engine.is_well(NodeId(0))
    }

    fn nobody(&self, missed: &[Missed]) -> Failure {
        let why = missed
            .first()
            .map_or("no node", |missed| missed.why.as_str());
        Failure::refused(
            Code::Unavailable,
            format!("'{}' cannot be kept: {why}", self.request.path),
        )
    }

    fn compare(&self, digests: Digests) -> Result<(), Failure> {
        if let Some(said) = self.request.md5
            && digests.md5.is_some_and(|md5| md5 != said)
        {
            let why = format!(
                "MD5 mismatch: {said} was announced, the bytes have {}",
                text(digests.md5)
            );
            return Err(Failure::refused(Code::Invalid, why));
        }
        match self.request.sha256 {
            Some(said) if said != digests.sha256 => Err(Failure::refused(
                Code::Invalid,
                format!(
                    "SHA-256 mismatch: {said} was announced, the bytes have {}",
                    digests.sha256
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Rule R11, then the commit.
    fn finish(
        &self,
        digests: Digests,
        mut landed: Landed,
        expecting: Option<Expecting<'_>>,
    ) -> Result<Kept, Failure> {
        if let Some(expecting) = &expecting {
            let enough = usize::from(self.plan.min).saturating_sub(nodes(&landed.copies).len());
            let reachable: Vec<NodeId> = self
                .plan
                .legs
                .iter()
                .copied()
                .filter(|leg| self.engine.is_well(*leg))
                .collect();
            // Give every reachable leg a moment to be counted in the put itself, and the rest the time the rule allows.
            let all = reachable.len().max(enough);
            let moment = self
                .engine
                .settings
                .leg_wait
                .min(Duration::from_millis(200));
            let mut legs = expecting.legs(digests.sha256, all, moment);
            if legs.len() < enough {
                legs = expecting.legs(digests.sha256, enough, self.engine.settings.leg_wait);
            }
            landed.copies.extend(legs);
            if nodes(&landed.copies).len() < usize::from(self.plan.min) {
                self.send_to(&reachable, digests.sha256, &mut landed);
            }
        }
        self.make_up(digests.sha256, &mut landed);
        let have = nodes(&landed.copies).len();
        if have < usize::from(self.plan.min) {
            return Err(self.too_few(have, &landed.missed));
        }
        let committed = self.commit(digests, landed.copies.clone())?;
        if let Some(expecting) = expecting {
            expecting.committed(committed.index, digests.sha256, landed.copies.clone());
        }
        Ok(self.kept(digests, committed.version, have, self.strategy))
    }

    fn too_few(&self, have: usize, missed: &[Missed]) -> Failure {
        let mut why = format!(
            "{have} of {} copies could be made, try again later",
            self.plan.min
        );
        for Missed {
            node, why: reason, ..
        } in missed
        {
            why = format!("{why}; node {node}: {reason}");
        }
        Failure::refused(Code::Unavailable, why)
    }

    /// Rule R11: what a hop missed is sent from this node's disk, to every target that still answers.
    fn make_up(&self, sha256: Sha256, landed: &mut Landed) {
        let missed = std::mem::take(&mut landed.missed);
        let mut slow = Vec::new();
        for one in missed {
            log::info!(
                target: "momo::hop_missed",
                "'{}': node {} did not keep its copy: {}", self.request.path, one.node, one.why
            );
            if one.stalled || one.node == self.engine.node() {
                slow.push(one);
            } else if self.engine.is_well(one.node) {
                self.send_to(&[one.node], sha256, landed);
            } else {
                landed.missed.push(one);
            }
        }
        // One that was too slow is not waited for again, unless the upload would fail for the want of it and it is alive.
        for one in slow {
            let short = nodes(&landed.copies).len() < usize::from(self.plan.min);
            if short && one.node != self.engine.node() && self.is_heard_of(one.node) {
                self.send_to(&[one.node], sha256, landed);
            } else {
                landed.missed.push(one);
            }
        }
    }

    /// Whether a node that was too slow gives a sign of life: Raft alone sends several a second.
    fn is_heard_of(&self, node: NodeId) -> bool {
        let until = Instant::now() + SIGN_OF_LIFE;
        while !self.engine.is_well(node) && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.engine.is_well(node)
    }

    fn send_to(&self, targets: &[NodeId], sha256: Sha256, landed: &mut Landed) {
        for target in targets {
            if nodes(&landed.copies).contains(target) || !self.engine.holds(&sha256) {
                continue;
            }
            match transfer::send_from_disk(self.engine, self.upload, sha256, *target) {
                Ok(more) => {
                    landed.copies.extend(more.copies);
                    landed.missed.extend(more.missed);
                }
                Err(error) => landed.missed.push(Missed {
                    node: *target,
                    why: error.to_string(),
                    stalled: false,
                }),
            }
        }
    }

    fn commit(&self, digests: Digests, mut copies: Vec<Copy>) -> Result<Committed, Failure> {
        copies.sort_unstable();
        copies.dedup();
        self.commit_as(
            digests,
            copies,
            self.strategy,
            self.plan.want,
            self.plan.min,
        )
    }

    fn commit_as(
        &self,
        digests: Digests,
        copies: Vec<Copy>,
        strategy: &str,
        want: u8,
        min: u8,
    ) -> Result<Committed, Failure> {
        let size = self.request.size;
        let part = PlacedPart {
            part: Part {
                size,
                sha256: digests.sha256,
            },
            copies,
        };
        let operation = Operation::Put(PutCommand {
            upload: self.upload,
            path: self.request.path.clone(),
            size,
            sha256: digests.sha256,
            md5: self.request.md5.and(digests.md5),
            strategy: strategy.to_owned(),
            class: self.request.class.clone(),
            parts: if size == 0 { Vec::new() } else { vec![part] },
            want,
            min,
            expect: self.request.expect,
            owner: None,
            time: clock::wall(),
        });
        let expected = self.engine.visible.expect(&self.request.path);
        let committed = self.engine.commit(operation);
        // First the promise ends, then the look: a change that comes between is seen by one of the two.
        drop(expected);
        if matches!(committed, Ok(_) | Err(Failure::Unknown { .. })) {
            self.show();
        }
        committed
    }

    /// The visible link stands before the door says OK. That it could not be made does not undo what is committed.
    fn show(&self) {
        show(self.engine, &self.request.path);
    }

    fn kept(&self, digests: Digests, version: Version, copies: usize, strategy: &str) -> Kept {
        Kept {
            sha256: digests.sha256,
            md5: self.request.md5.and(digests.md5),
            version,
            copies,
            parts: usize::from(self.request.size > 0),
            strategy: strategy.to_owned(),
        }
    }

    /// Rule R22 at a daemon other than 0: the leg is durable here; daemon 0 counts it, or it becomes a put of its own.
    fn finish_leg(&self, digests: Digests, mut landed: Landed) -> Result<Kept, Failure> {
        let Some(copy) = landed.copies.first().copied() else {
            return Err(self.nobody(&landed.missed));
        };
        let said = self.request.md5;
        if let (Some(md5), true) = (said, self.engine.is_well(NodeId(0)))
            && let Some(index) = self.report_leg(md5, digests.sha256, copy)
        {
            let digests = Digests {
                md5: said,
                ..digests
            };
            if !self
                .engine
                .wait_applied(index, self.engine.settings.commit_deadline)
            {
                let message =
                    "the leg is counted, but this node is too far behind to show it".to_owned();
                return Err(Failure::Unknown { message });
            }
            self.show();
            // Only this node pinned this upload, and the put of daemon 0 refers to the object now.
            if let Err(error) = self.engine.settle(self.upload) {
                log::warn!(target: "momo::settle", "upload {}: {error}", self.upload);
            }
            return Ok(self.kept(digests, Version(index), 1, Mode::PrimarySplay.name()));
        }
        let digests = match digests.md5 {
            None if said.is_some() => Digests {
                md5: Some(self.md5_from_disk(digests.sha256)?),
                ..digests
            },
            _ => digests,
        };
        self.compare(digests)?;
        self.finish_alone(digests, &mut landed)
    }

    /// Of a leg that nobody claimed: what was left to daemon 0 is this node's to find out.
    fn md5_from_disk(&self, sha256: Sha256) -> Result<Md5, Failure> {
        transfer::md5_of(self.engine, sha256).map_err(|error| {
            let path = &self.request.path;
            Failure::refused(Code::Unavailable, format!("'{path}': {error}"))
        })
    }

    fn finish_alone(&self, digests: Digests, landed: &mut Landed) -> Result<Kept, Failure> {
        let alone = Put {
            strategy: Strategy::Named(Mode::Splay.name().to_owned()),
            ..self.request.clone()
        };
        let (strategy, plan) = plan(self.engine, &alone)?;
        let targets: Vec<NodeId> = flat(&plan.hops);
        self.send_to(&targets, digests.sha256, landed);
        let have = nodes(&landed.copies).len();
        if have < usize::from(plan.min) {
            return Err(self.too_few(have, &landed.missed));
        }
        let committed = self.commit_as(
            digests,
            landed.copies.clone(),
            strategy,
            plan.want,
            plan.min,
        )?;
        Ok(self.kept(digests, committed.version, have, strategy))
    }

    /// Asks daemon 0 whether an upload there claims this leg; the index to wait for when it is counted.
    fn report_leg(&self, md5: Md5, sha256: Sha256, copy: Copy) -> Option<u64> {
        let leg = Leg {
            path: self.request.path.clone(),
            size: self.request.size,
            md5,
            sha256,
            copy: Some(copy),
            upload: self.upload,
        };
        // Without one the leg becomes a put of its own.
        let zero = NodeId(0);
        let _permit = (self.engine.permits).take(Purpose::Leg, [zero], BULK_WAIT)?;
        let asked = self.engine.peers.lend(zero).and_then(|mut lent| {
            // The first word comes when an upload there claims the leg, or none did in that time.
            lent.stream
                .set_read_timeout(self.engine.settings.leg_wait + LEG_SILENCE)?;
            lent.stream.send(&Request::Leg(leg))?;
            Ok(lent)
        });
        let mut lent = asked.ok()?;
        // The upload at daemon 0 is bounded by its own timeouts; this bounds the wait whatever happens there.
        let deadline = Instant::now() + Duration::from_hours(24);
        while Instant::now() < deadline && !self.engine.is_stopping() {
            match lent.stream.receive_value::<Answer>() {
                Ok(Answer::Pong) => lent.stream.set_read_timeout(LEG_SILENCE).ok()?,
                Ok(Answer::Leg { committed, .. }) => {
                    lent.keep();
                    return committed;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    self.engine.peers.suspect(NodeId(0));
                    return None;
                }
                Ok(_) | Err(_) => return None,
            }
        }
        None
    }
}

fn nodes(copies: &[Copy]) -> BTreeSet<NodeId> {
    copies.iter().map(|copy| copy.node).collect()
}

fn flat(hops: &[Hop]) -> Vec<NodeId> {
    hops.iter()
        .flat_map(|hop| [vec![hop.node], flat(&hop.next)].concat())
        .collect()
}

fn text(md5: Option<Md5>) -> String {
    md5.map_or_else(|| "none".to_owned(), |md5| md5.to_string())
}

/// Answers a leg reported to this node (rule R22): waits for the upload that claims it, and counts the copy if its put did not.
pub fn answer_leg(
    engine: &Arc<Engine>,
    leg: &Leg,
    mut still_waiting: impl FnMut() -> bool,
) -> Option<u64> {
    use crate::engine::legs::Claim;
    let copy = leg.copy?;
    let key = Key {
        path: leg.path.clone(),
        size: leg.size,
        md5: leg.md5,
    };
    let reported = engine
        .legs
        .report(&key, leg.sha256, copy, engine.settings.leg_wait);
    loop {
        match reported.wait(Duration::from_secs(1)) {
            Claim::Waiting if still_waiting() && !engine.is_stopping() => {}
            Claim::Waiting | Claim::Nobody => return None,
            Claim::Counted(index) => return Some(index),
            Claim::Late(index) => {
                let add = Operation::AddCopy {
                    sha256: leg.sha256,
                    size: leg.size,
                    copy,
                };
                return match engine.commit(add) {
                    Ok(added) => Some(added.index),
                    // Superseded: the leg adds nothing and is acknowledged.
                    Err(Failure::Refused {
                        code: Code::NotFound,
                        ..
                    }) => Some(index),
                    Err(_) => None,
                };
            }
        }
    }
}

fn show(engine: &Engine, path: &FilePath) {
    if let Err(error) = engine.visible.reconcile(&engine.tables, path) {
        log::warn!(target: "momo::tree", "{path}: {error}");
    }
}

/// Removes a name.
pub fn remove(engine: &Arc<Engine>, path: &FilePath, expect: Expect) -> Result<Version, Failure> {
    let removed = engine.commit(Operation::Delete {
        path: path.clone(),
        expect,
    })?;
    show(engine, path);
    Ok(removed.version)
}

//! Jobs that are under way, and objects that rest because a job of theirs failed or is being committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Settings;
use crate::base::canary::{self, Canary};
use crate::base::digest::Sha256;
use crate::base::id::{Boot, NodeId};
use crate::base::random::{Random, mix};
use crate::base::time::Mono;
use crate::core::health::Health;
use crate::wire::peer::JobId;
use crate::wire::record::{NodeRecord, ObjectRecord};

/// Objects remembered because they failed, or because their new copy is being committed.
const RESTS: usize = 4_096;
/// Time for the command that counts a new copy to show in the catalog.
const COMMIT: Duration = Duration::from_secs(5);
/// Waits after one failure, two and so on in seconds; the last for all further ones.
const BACK_OFF: [u64; 7] = [1, 5, 15, 60, 300, 1_800, 3_600];
/// A rest is forgotten so long after its end.
const FORGOTTEN: Duration = Duration::from_mins(10);
/// When something changed, what failed is tried again after this.
const RELIEVED: Duration = Duration::from_millis(500);
/// A job that should have ended long ago: this, and the time for the bytes its target has to take in.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes a second below which a copy is not worth waiting for.
const SLOWEST: u64 = 2 * 1024 * 1024;

/// A copy that a node was told to make.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The object.
    pub sha256: Sha256,
    /// Its bytes.
    pub size: u64,
    /// Where the target copies from, in this order.
    pub holders: Vec<NodeId>,
    /// Who makes the copy.
    pub target: NodeId,
    /// The start of the target that was given the order: a later one knows nothing of it.
    pub boot: Boot,
    /// When it is given up.
    pub until: Mono,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The copy is durable and being committed.
    Done,
    /// The target could not make it.
    Failed,
    /// Nobody will hear of it again.
    Lost,
}

/// An object that has no new job before `until`.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Mono,
    /// Failures in a row; 0 when the copy is being committed.
    failures: u32,
    /// The target of the last job.
    target: NodeId,
}

/// Jobs under way, by number.
#[derive(Debug)]
pub(super) struct Jobs {
    seed: u64,
    /// Bytes a second that a node takes in at the least.
    pace: u64,
    sequence: u64,
    by_id: BTreeMap<JobId, Job>,
    /// Objects that have a job.
    under_way: BTreeSet<Sha256>,
    rests: BTreeMap<Sha256, Rest>,
    /// A job ended since this was last asked.
    ended: bool,
}

impl Jobs {
    /// None.
    pub fn new(settings: &Settings) -> Self {
        let pace = match settings.bandwidth {
            0 => SLOWEST,
            // A node whose uploads go first gets less done than it may.
            capped => SLOWEST.min(capped / 4).max(1),
        };
        Self {
            seed: settings.seed,
            pace,
            sequence: 0,
            by_id: BTreeMap::new(),
            under_way: BTreeSet::new(),
            rests: BTreeMap::new(),
            ended: false,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Every job.
    pub fn all(&self) -> impl Iterator<Item = &Job> {
        self.by_id.values()
    }

    /// Whether the object has a job.
    pub fn is_under_way(&self, sha256: &Sha256) -> bool {
        self.under_way.contains(sha256)
    }

    /// Whether a job ended since this was last asked.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// A job begins; `until` is set here.
    pub fn begin(&mut self, term: u64, mut job: Job, now: Mono) -> JobId {
        self.sequence += 1;
        let id = JobId {
            term,
            sequence: self.sequence,
        };
        let there = self.all().filter(|other| other.target == job.target);
        let bytes = there.fold(job.size, |sum, other| sum.saturating_add(other.size));
        job.until = now + PATIENCE + Duration::from_secs(bytes / self.pace);
        self.under_way.insert(job.sha256);
        self.by_id.insert(id, job);
        id
    }

    /// A job ended; `None` when it is not known.
    pub fn end(&mut self, id: JobId, how: Ended, now: Mono) -> Option<Job> {
        let job = self.by_id.remove(&id)?;
        if !matches!(how, Ended::Done) && canary::is(Canary::DropQueuedJob) {
            return Some(job);
        }
        self.under_way.remove(&job.sha256);
        self.ended = true;
        let before = self.rests.get(&job.sha256).map_or(0, |rest| rest.failures);
        let (failures, wait) = match how {
            Ended::Done => (0, COMMIT),
            Ended::Failed => {
                let failures = before.saturating_add(1);
                (failures, self.back_off(&job.sha256, failures))
            }
            // Says nothing about the object: it does not wait longer each time.
            Ended::Lost => (before.max(1), self.back_off(&job.sha256, 1)),
        };
        let rest = Rest {
            until: now + wait,
            failures,
            target: job.target,
        };
        self.rests.insert(job.sha256, rest);
        while self.rests.len() > RESTS {
            let soonest = self.rests.iter().min_by_key(|(_, rest)| rest.until);
            let Some(sha256) = soonest.map(|(sha256, _)| *sha256) else {
                break;
            };
            self.rests.remove(&sha256);
        }
        Some(job)
    }

    /// Ends jobs that nobody will hear of again.
    pub fn end_all(&mut self, now: Mono, ends: impl Fn(&Job) -> bool) {
        let jobs = self.by_id.iter().filter(|(_, job)| ends(job));
        let ids: Vec<JobId> = jobs.map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, Ended::Lost, now);
        }
    }

    /// Ends jobs that nobody will end: what they were about is planned anew, so that they do not keep others waiting.
    pub fn end_lost(&mut self, now: Mono, members: &[NodeRecord], health: &Health) {
        let boot = |node: NodeId| members.iter().find(|m| m.id == node).map(|m| m.boot);
        self.end_all(now, |job| {
            job.until <= now
                || !health.is_up(job.target)
                || boot(job.target) != Some(job.boot)
                || !job.holders.iter().any(|holder| health.is_up(*holder))
        });
    }

    /// The target of the object's last job.
    pub fn last_target(&self, sha256: &Sha256) -> Option<NodeId> {
        self.rests.get(sha256).map(|rest| rest.target)
    }

    /// The object needs no copy.
    pub fn forget_rest(&mut self, sha256: &Sha256) {
        self.rests.remove(sha256);
    }

    /// Whether the object need not rest.
    pub fn is_rested(&mut self, sha256: &Sha256, object: &ObjectRecord, now: Mono) -> bool {
        let Some(rest) = self.rests.get(sha256) else {
            return true;
        };
        if rest.failures == 0 && object.copies.iter().any(|copy| copy.node == rest.target) {
            self.rests.remove(sha256);
            return true;
        }
        rest.until <= now
    }

    /// Something changed: what failed may go well now.
    pub fn relieve(&mut self, now: Mono) {
        for rest in self.rests.values_mut().filter(|rest| rest.failures > 1) {
            rest.until = rest.until.min(now + RELIEVED);
        }
    }

    /// Forgets what failed long ago.
    pub fn forget_rests(&mut self, now: Mono) {
        self.rests.retain(|_, rest| now - rest.until < FORGOTTEN);
    }

    fn back_off(&self, sha256: &Sha256, failures: u32) -> Duration {
        let last = BACK_OFF.len() - 1;
        let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(last);
        let wait = Duration::from_secs(BACK_OFF[step.min(last)]);
        let object = sha256
            .0
            .iter()
            .fold(0, |hash, byte| mix(hash ^ u64::from(*byte)));
        let mut random = Random::new(mix(self.seed ^ object) ^ u64::from(failures));
        let quarter = u64::try_from(wait.as_micros() / 4).unwrap_or(u64::MAX);
        wait + Duration::from_micros(random.below(quarter.max(1)))
    }
}

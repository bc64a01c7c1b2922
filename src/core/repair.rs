//! Paying debts: objects that lie on fewer nodes than wanted get copies on others, by order of the leader, fewest copies first.
//!
//! Nothing here needs to survive: what a lost leader had ordered is found again in the table `debts`, and an order that
//! is carried out twice adds a copy that is there already.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::catalog::query;
use super::health::Health;
use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::limit::{JOB_QUEUE, JOBS_IN, RESERVE_BYTES};
use crate::base::random::{Random, mix};
use crate::base::table::{Table, TableError, Tables};
use crate::base::time::Mono;
use crate::wire::peer::{Fetch, JobId};
use crate::wire::record::{Administrative, NodeRecord, ObjectRecord};

/// Time between two looks at the debts.
const PERIOD: Duration = Duration::from_millis(500);
/// A look ahead of time, when all that was found is ordered, comes no sooner than this after the last event.
const SOON: Duration = Duration::from_millis(20);
/// Rows of the table `debts` that one look reads, from the start and again from where the last one ended.
const PAGE: usize = 256;
/// Debts found and not yet ordered.
const POOL: usize = 1_024;
/// Objects that one tick looks up at most.
const LOOKUPS: usize = 512;
/// Objects remembered because they failed, or because their new copy is being committed.
const RESTS: usize = 4_096;
/// Time for the command that counts a new copy to show in the catalog.
const COMMIT: Duration = Duration::from_secs(5);
/// Wait after a first failure; doubled with each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const BACK_OFF_MOST: Duration = Duration::from_mins(5);
/// A job that should have ended long ago: this, and the time for its bytes at [`SLOWEST`].
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes a second below which a copy is not worth waiting for.
const SLOWEST: u64 = 2 * 1024 * 1024;

/// How repair goes about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// Copy jobs under way and to come.
#[derive(Debug)]
pub struct Repair {
    settings: Settings,
    /// The term in which this node leads.
    term: Option<u64>,
    sequence: u64,
    jobs: BTreeMap<JobId, Job>,
    /// Objects that have a job.
    under_way: BTreeSet<Sha256>,
    rests: BTreeMap<Sha256, Rest>,
    /// Debts found, by copies.
    pool: BTreeSet<(u8, Sha256)>,
    /// The key the last look ended at; `None` when it came to the end of the table.
    cursor: Option<Vec<u8>>,
    next_look: Mono,
    /// Something changed since jobs were last given.
    stirred: bool,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    sha256: Sha256,
    size: u64,
    source: NodeId,
    target: NodeId,
    until: Mono,
}

/// An object that has no new job before `until`.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Mono,
    /// Failures in a row.
    failures: u32,
    /// The target of the last job.
    target: NodeId,
}

/// A node that takes copies now.
struct Target {
    node: NodeId,
    /// Free bytes beyond the reserve and what is on its way; `None` when it gave no figures.
    room: Option<u64>,
    slots: usize,
}

impl Repair {
    /// Nothing under way.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            term: None,
            sequence: 0,
            jobs: BTreeMap::new(),
            under_way: BTreeSet::new(),
            rests: BTreeMap::new(),
            pool: BTreeSet::new(),
            cursor: None,
            next_look: Mono::default(),
            stirred: false,
        }
    }

    /// Time passed: new orders, each for the node beside it. Gives none unless this node leads in `term_if_leading`.
    pub fn tick(
        &mut self,
        now: Mono,
        term_if_leading: Option<u64>,
        tables: &dyn Tables,
        health: &Health,
    ) -> Result<Vec<(NodeId, Fetch)>, TableError> {
        if term_if_leading != self.term {
            *self = Self {
                term: term_if_leading,
                next_look: now,
                ..Self::new(self.settings)
            };
        }
        let Some(term) = self.term else {
            return Ok(Vec::new());
        };
        if now < self.next_look && !self.stirred {
            return Ok(Vec::new());
        }
        let overdue = |job: &Job| job.until <= now || !health.is_up(job.target);
        let overdue: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| overdue(job))
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            self.end(id, true, now);
        }
        self.stirred = false;
        if self.next_look <= now {
            self.look(tables)?;
            self.next_look = now + PERIOD;
            self.rests
                .retain(|_, rest| now - rest.until < BACK_OFF_MOST);
        }
        self.order(now, term, tables, health)
    }

    /// A job ended: its copy is durable and being committed, or it failed. Jobs of other leaders are none of ours.
    #[allow(clippy::needless_pass_by_value)]
    pub fn ended(&mut self, job: JobId, error: Option<String>, now: Mono) {
        self.end(job, error.is_some(), now);
    }

    /// When [`Repair::tick`] should be called at the latest, while this node leads.
    pub fn deadline(&self) -> Option<Mono> {
        self.term?;
        Some(if self.stirred {
            Mono::default()
        } else {
            self.next_look
        })
    }

    fn end(&mut self, id: JobId, failed: bool, now: Mono) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        self.under_way.remove(&job.sha256);
        self.stirred = true;
        if self.pool.is_empty() {
            self.next_look = self.next_look.min(now + SOON);
        }
        let before = self.rests.get(&job.sha256).map_or(0, |rest| rest.failures);
        let failures = if failed { before.saturating_add(1) } else { 0 };
        let wait = if failed {
            self.back_off(&job.sha256, failures)
        } else {
            COMMIT
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
    }

    fn back_off(&self, sha256: &Sha256, failures: u32) -> Duration {
        let doubled = BACK_OFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
        let wait = doubled.min(BACK_OFF_MOST);
        let object = sha256
            .0
            .iter()
            .fold(0, |hash, byte| mix(hash ^ u64::from(*byte)));
        let mut random = Random::new(mix(self.settings.seed ^ object) ^ u64::from(failures));
        let quarter = u64::try_from(wait.as_micros() / 4)
            .unwrap_or(u64::MAX)
            .max(1);
        wait + Duration::from_micros(random.below(quarter))
    }

    /// Finds debts: the most urgent ones, and a page of the others in turn, so that what cannot be helped now does not
    /// hide what can. Objects without any copy are left out: there is nothing to copy from.
    fn look(&mut self, tables: &dyn Tables) -> Result<(), TableError> {
        if query::debts(tables)? == 0 {
            self.pool.clear();
            self.cursor = None;
            return Ok(());
        }
        let first = tables.range(Table::Debts, &[1], None, PAGE)?;
        let further = match (&self.cursor, first.last()) {
            (Some(cursor), Some((last, _))) if first.len() == PAGE => {
                let mut from = cursor.max(last).clone();
                from.push(0);
                tables.range(Table::Debts, &from, None, PAGE)?
            }
            _ => Vec::new(),
        };
        let ended_at = if further.len() == PAGE {
            further.last()
        } else {
            None
        };
        let begun_at = if self.cursor.is_none() && first.len() == PAGE {
            first.last()
        } else {
            None
        };
        self.cursor = ended_at.or(begun_at).map(|(key, _)| key.clone());
        self.pool.extend(
            first
                .iter()
                .chain(&further)
                .filter_map(|(key, _)| query::debt(key)),
        );
        while self.pool.len() > POOL {
            self.pool.pop_last();
        }
        Ok(())
    }

    fn order(
        &mut self,
        now: Mono,
        term: u64,
        tables: &dyn Tables,
        health: &Health,
    ) -> Result<Vec<(NodeId, Fetch)>, TableError> {
        let mut orders = Vec::new();
        if self.pool.is_empty() {
            return Ok(orders);
        }
        let members = query::nodes(tables)?;
        let mut targets = self.targets(&members, health);
        let found: Vec<(u8, Sha256)> = self.pool.iter().take(LOOKUPS).copied().collect();
        for (nodes, sha256) in found {
            if self.jobs.len() >= JOB_QUEUE || targets.iter().all(|target| target.slots == 0) {
                break;
            }
            if self.under_way.contains(&sha256) {
                self.pool.remove(&(nodes, sha256));
                continue;
            }
            let object = query::object(tables, &sha256)?;
            let Some(object) = object.filter(|object| self.is_due(&sha256, object, now)) else {
                self.pool.remove(&(nodes, sha256));
                continue;
            };
            let avoid = self.rests.get(&sha256).map(|rest| rest.target);
            let suits = |target: &&mut Target| {
                let holds = object.copies.iter().any(|copy| copy.node == target.node);
                !holds && target.room.is_none_or(|room| room >= object.size)
            };
            let holders = self.holders(&object, &members, health);
            let best = targets.iter_mut().filter(suits).min_by_key(|target| {
                (
                    target.slots == 0,
                    Some(target.node) == avoid,
                    Reverse(target.room),
                    target.node,
                )
            });
            let (Some(target), Some(source)) = (best, holders.first().copied()) else {
                // Nobody to copy to or from: it is found again when the turn comes to it.
                self.pool.remove(&(nodes, sha256));
                continue;
            };
            if target.slots == 0 {
                continue;
            }
            target.slots -= 1;
            target.room = target.room.map(|room| room - object.size);
            self.pool.remove(&(nodes, sha256));
            self.sequence += 1;
            let id = JobId {
                term,
                sequence: self.sequence,
            };
            let size = object.size;
            let until = now + PATIENCE + Duration::from_secs(size / SLOWEST);
            self.jobs.insert(
                id,
                Job {
                    sha256,
                    size,
                    source,
                    target: target.node,
                    until,
                },
            );
            self.under_way.insert(sha256);
            orders.push((
                target.node,
                Fetch {
                    job: id,
                    sha256,
                    size,
                    holders,
                },
            ));
        }
        Ok(orders)
    }

    /// Whether an object needs a copy and need not rest.
    fn is_due(&mut self, sha256: &Sha256, object: &ObjectRecord, now: Mono) -> bool {
        if query::distinct_nodes(&object.copies) >= usize::from(object.want) {
            self.rests.remove(sha256);
            return false;
        }
        let Some(rest) = self.rests.get(sha256) else {
            return true;
        };
        if rest.failures == 0 && object.copies.iter().any(|copy| copy.node == rest.target) {
            self.rests.remove(sha256);
            return true;
        }
        rest.until <= now
    }

    fn targets(&self, members: &[NodeRecord], health: &Health) -> Vec<Target> {
        let takes = |member: &&NodeRecord| {
            member.stores
                && member.alive
                && member.administrative == Administrative::Alive
                && !member.dirs.is_empty()
                && health.is_up(member.id)
        };
        let target = |member: &NodeRecord| {
            let jobs = || self.jobs.values().filter(|job| job.target == member.id);
            let coming: u64 = jobs().map(|job| job.size).fold(0, u64::saturating_add);
            let figures = health
                .figures(member.id)
                .filter(|figures| figures.total_bytes > 0);
            Target {
                node: member.id,
                room: figures.map(|figures| {
                    figures
                        .free_bytes
                        .saturating_sub(RESERVE_BYTES)
                        .saturating_sub(coming)
                }),
                slots: JOBS_IN.saturating_sub(jobs().count()),
            }
        };
        members.iter().filter(takes).map(target).collect()
    }

    /// Who holds the object and answers, the least busy first.
    fn holders(
        &self,
        object: &ObjectRecord,
        members: &[NodeRecord],
        health: &Health,
    ) -> Vec<NodeId> {
        let serves = |node: &NodeId| {
            let member = members.iter().find(|member| member.id == *node);
            member.is_some_and(|member| member.administrative != Administrative::Dead)
                && health.is_up(*node)
        };
        let holders: BTreeSet<NodeId> = object.copies.iter().map(|copy| copy.node).collect();
        let mut holders: Vec<NodeId> = holders.into_iter().filter(serves).collect();
        let busy = |node: &NodeId| self.jobs.values().filter(|job| job.source == *node).count();
        holders.sort_by_cached_key(|node| (busy(node), *node));
        holders
    }
}

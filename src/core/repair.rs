//! Paying debts: objects that lie on fewer nodes than wanted get copies on others, by order of the leader, fewest copies first.
//!
//! Nothing here needs to survive: what a lost leader had ordered is found again in the table `debts`, and an order that
//! is carried out twice adds a copy that is there already.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::catalog::query;
use super::health::Health;
use crate::base::canary::{self, Canary};
use crate::base::digest::Sha256;
use crate::base::id::{Boot, NodeId};
use crate::base::limit::{JOB_QUEUE, JOBS_IN};
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

#[derive(Clone, Debug)]
struct Job {
    sha256: Sha256,
    size: u64,
    /// Where the target copies from, in this order.
    holders: Vec<NodeId>,
    target: NodeId,
    /// The start of the target that was given the order: a later one knows nothing of it.
    boot: Boot,
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
    /// Its start.
    boot: Boot,
    /// Free bytes beyond what is on its way; `None` when it gave no figures.
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
        self.end_lost(now, tables, health)?;
        self.stirred = false;
        if self.next_look <= now {
            self.look(tables)?;
            self.next_look = now + PERIOD;
            self.rests
                .retain(|_, rest| now - rest.until < BACK_OFF_MOST);
        }
        self.order(now, term, tables, health)
    }

    /// The link to a node is down: orders may be lost on their way to it, or with it. They are given again, later.
    pub fn unlinked(&mut self, node: NodeId, now: Mono) {
        self.end_all(now, |job| job.target == node);
    }

    /// Ends jobs that nobody will end: what they were about is planned anew, so that they do not keep others waiting.
    fn end_lost(
        &mut self,
        now: Mono,
        tables: &dyn Tables,
        health: &Health,
    ) -> Result<(), TableError> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let members = query::nodes(tables)?;
        let boot = |node: NodeId| members.iter().find(|m| m.id == node).map(|m| m.boot);
        self.end_all(now, |job| {
            job.until <= now
                || !health.is_up(job.target)
                || boot(job.target) != Some(job.boot)
                || !job.holders.iter().any(|holder| health.is_up(*holder))
        });
        Ok(())
    }

    fn end_all(&mut self, now: Mono, ends: impl Fn(&Job) -> bool) {
        let jobs = self.jobs.iter().filter(|(_, job)| ends(job));
        let ids: Vec<JobId> = jobs.map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, true, now);
        }
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
        if failed && canary::is(Canary::DropQueuedJob) {
            return;
        }
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
            let Some(target) = best.filter(|_| !holders.is_empty()) else {
                // Nobody to copy to or from: it is found again when the turn comes to it.
                self.pool.remove(&(nodes, sha256));
                continue;
            };
            if target.slots == 0 {
                continue;
            }
            target.slots -= 1;
            let boot = target.boot;
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
                    holders: holders.clone(),
                    target: target.node,
                    boot,
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
                && health.is_linked(member.id)
        };
        let target = |member: &NodeRecord| {
            let jobs = || self.jobs.values().filter(|job| job.target == member.id);
            let coming: u64 = jobs().map(|job| job.size).fold(0, u64::saturating_add);
            let figures = health
                .figures(member.id)
                .filter(|figures| figures.total_bytes > 0);
            Target {
                node: member.id,
                boot: member.boot,
                room: figures.map(|figures| figures.free_bytes.saturating_sub(coming)),
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
        let busy = |node: &NodeId| {
            let jobs = self.jobs.values();
            jobs.filter(|job| job.holders.first() == Some(node)).count()
        };
        holders.sort_by_cached_key(|node| (busy(node), *node));
        holders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;
    use crate::base::id::{DirId, OperationId};
    use crate::base::path::FilePath;
    use crate::base::table::{MemoryTables, Overlay};
    use crate::base::time::Wall;
    use crate::core::catalog;
    use crate::core::health;
    use crate::core::node::LinkState;
    use crate::wire::command::{Birth, BirthMember, Command, Expect, Operation, PlacedPart, Put};
    use crate::wire::peer::Figures;
    use crate::wire::record::{Copy, Mode, Part};

    const GIB: u64 = 1 << 30;

    /// A leader, node 0, and its cluster, without a network between.
    struct Cluster {
        tables: MemoryTables,
        index: u64,
        health: Health,
        repair: Repair,
    }

    fn at(millis: u64) -> Mono {
        Mono(1_000_000_000 + millis * 1_000)
    }

    fn copy(node: u16) -> Copy {
        Copy {
            node: NodeId(node),
            dir: DirId(node.into()),
        }
    }

    fn object(content: u32) -> Sha256 {
        sha256(&content.to_be_bytes())
    }

    impl Cluster {
        /// So many members, all alive, each with room of its number of GiB and one more.
        fn new(members: u16) -> Self {
            let member = |id| BirthMember {
                id: NodeId(id),
                name: String::new(),
                address: String::new(),
                votes: true,
                stores: true,
                manages: true,
            };
            let birth = Birth {
                cluster: crate::base::id::ClusterId(1),
                members: (0..members).map(member).collect(),
                mode: Mode::Splay,
                time: Wall(1),
            };
            let mut tables = MemoryTables::default();
            tables.write(&catalog::born(&birth));
            let settings = health::Settings {
                node: NodeId(0),
                interval: Duration::from_secs(5),
                timeout: Duration::from_hours(1),
            };
            let mut health = Health::new(settings);
            for node in 0..members {
                let free_bytes = GIB * (u64::from(node) + 1);
                let figures = Figures {
                    total_bytes: 99 * GIB,
                    free_bytes,
                    ..Figures::default()
                };
                health.heartbeat(NodeId(node), Boot(1), figures, at(0));
                health.link(NodeId(node), LinkState::Up, at(0));
            }
            let repair = Repair::new(Settings { seed: 1 });
            let mut cluster = Self {
                tables,
                index: 0,
                health,
                repair,
            };
            for node in 0..members {
                cluster.register(node, 1);
            }
            cluster
        }

        fn register(&mut self, node: u16, boot: u64) {
            self.apply(Operation::Register {
                node: NodeId(node),
                name: String::new(),
                address: "127.0.0.1:1".to_owned(),
                dirs: vec![copy(node).dir],
                stores: true,
                manages: true,
                boot: Boot(boot),
                knows: 1,
            });
        }

        /// The link to a node changed, as the node that holds both parts tells them.
        fn link(&mut self, node: u16, state: LinkState, millis: u64) {
            self.health.link(NodeId(node), state, at(millis));
            if state == LinkState::Down {
                self.repair.unlinked(NodeId(node), at(millis));
            }
        }

        fn apply(&mut self, operation: Operation) {
            self.index += 1;
            let id = OperationId {
                node: NodeId(0),
                boot: Boot(1),
                sequence: self.index,
            };
            let mut overlay = Overlay::new(&self.tables);
            let command = Command {
                v: 1,
                id,
                operation,
            };
            let applied = catalog::apply(&mut overlay, self.index, &command).unwrap();
            assert!(
                matches!(applied.reply, crate::wire::command::Reply::Done { .. }),
                "{applied:?}"
            );
            let batch = overlay.batch;
            self.tables.write(&batch);
        }

        fn put(&mut self, content: u32, size: u64, want: u8, nodes: &[u16]) {
            let sequence = self.index + 1;
            let part = Part {
                size,
                sha256: object(content),
            };
            self.apply(Operation::Put(Put {
                upload: OperationId {
                    node: NodeId(0),
                    boot: Boot(1),
                    sequence,
                },
                path: FilePath::new(&format!("f{content}")).unwrap(),
                size,
                sha256: part.sha256,
                md5: None,
                strategy: "splay".to_owned(),
                class: "default".to_owned(),
                parts: vec![PlacedPart {
                    part,
                    copies: nodes.iter().map(|n| copy(*n)).collect(),
                }],
                want,
                min: 1,
                expect: Expect::Any,
                owner: None,
                time: Wall(1),
            }));
        }

        fn tick(&mut self, millis: u64) -> Vec<(NodeId, Fetch)> {
            let orders = self
                .repair
                .tick(at(millis), Some(3), &self.tables, &self.health)
                .unwrap();
            assert!(
                self.repair
                    .deadline()
                    .is_some_and(|deadline| deadline > at(millis))
            );
            orders
        }

        /// The target did as it was told.
        fn land(&mut self, target: NodeId, fetch: &Fetch, millis: u64) {
            let (sha256, size) = (fetch.sha256, fetch.size);
            self.apply(Operation::AddCopy {
                sha256,
                size,
                copy: copy(target.0),
            });
            self.repair.ended(fetch.job, None, at(millis));
        }
    }

    #[test]
    fn debts_are_paid_until_there_are_none_fewest_copies_first() {
        let mut cluster = Cluster::new(4);
        for content in 0..300 {
            let nodes: &[u16] = if content % 3 == 0 { &[0] } else { &[0, 1] };
            cluster.put(content, 100, 3, nodes);
        }
        let mut copies = Vec::new();
        let mut millis = 0;
        while query::debts(&cluster.tables).unwrap() > 0 {
            millis += 20;
            for (target, fetch) in cluster.tick(millis) {
                copies.push(fetch.holders.len());
                assert!(!fetch.holders.contains(&target));
                cluster.land(target, &fetch, millis);
            }
            assert!(millis < 60_000, "debts are paid in time");
        }
        assert_eq!(copies.len(), 400);
        assert!(
            copies.iter().take(90).all(|copies| *copies == 1),
            "{copies:?}"
        );
        assert!(cluster.tick(millis + 1_000).is_empty());
    }

    #[test]
    fn a_node_takes_two_copies_at_a_time_and_an_object_has_one_job() {
        let mut cluster = Cluster::new(3);
        for content in 0..10 {
            cluster.put(content, 100, 3, &[0]);
        }
        let orders = cluster.tick(0);
        let targets: Vec<u16> = orders.iter().map(|(target, _)| target.0).collect();
        assert_eq!(
            targets.iter().filter(|target| **target == 1).count(),
            JOBS_IN
        );
        assert_eq!(
            targets.iter().filter(|target| **target == 2).count(),
            JOBS_IN
        );
        let objects: BTreeSet<Sha256> = orders.iter().map(|(_, fetch)| fetch.sha256).collect();
        assert_eq!(objects.len(), orders.len());
        assert!(cluster.tick(600).is_empty(), "all slots are taken");
        let (target, fetch) = orders[0].clone();
        cluster.land(target, &fetch, 601);
        let next = cluster.tick(601);
        assert_eq!(next.len(), 1);
        assert_eq!(next[0].0, target);
        assert!(next[0].1.job > fetch.job);
    }

    #[test]
    fn the_roomiest_node_is_chosen_and_a_full_one_never() {
        let mut cluster = Cluster::new(3);
        cluster.put(1, 100, 2, &[0]);
        cluster.put(2, GIB * 5 / 2, 2, &[0]);
        cluster.put(3, 10 * GIB, 2, &[0]);
        let orders = cluster.tick(0);
        let target = |content| {
            orders
                .iter()
                .find(|(_, fetch)| fetch.sha256 == object(content))
                .map(|(node, _)| node.0)
        };
        assert_eq!(target(2), Some(2));
        assert!(target(1).is_some());
        assert_eq!(target(3), None);
    }

    #[test]
    fn a_failed_copy_is_tried_again_elsewhere_and_later_each_time() {
        let mut cluster = Cluster::new(3);
        cluster.put(1, 100, 2, &[0]);
        let (mut millis, mut ordered, mut targets, mut pauses) = (0, 0, Vec::new(), Vec::new());
        while targets.len() < 5 {
            millis += 10;
            for (target, fetch) in cluster.tick(millis) {
                pauses.push(millis - ordered);
                ordered = millis;
                targets.push(target.0);
                cluster
                    .repair
                    .ended(fetch.job, Some("disk full".to_owned()), at(millis));
            }
        }
        assert_eq!(targets, [2, 1, 2, 1, 2]);
        assert!(pauses[1] >= 1_000 && pauses[1] < 2_000, "{pauses:?}");
        assert!(pauses[4] >= 8_000 && pauses[4] < 11_000, "{pauses:?}");
    }

    #[test]
    fn a_job_that_does_not_end_is_given_up_and_one_on_a_lost_node_at_once() {
        let mut cluster = Cluster::new(2);
        cluster.put(1, 100, 2, &[0]);
        let first = cluster.tick(0);
        assert_eq!(first.len(), 1);
        assert!(cluster.tick(29_000).is_empty());
        assert!(cluster.tick(30_500).is_empty(), "it rests first");
        let second = cluster.tick(33_000);
        assert_eq!(second.len(), 1);
        cluster.repair.ended(first[0].1.job, None, at(33_001));
        assert_eq!(
            cluster.repair.jobs.len(),
            1,
            "an old job's end says nothing of a new one"
        );
        for _ in 0..2 {
            cluster.health.link(NodeId(1), LinkState::Down, at(34_000));
        }
        cluster
            .health
            .link(NodeId(9), crate::core::node::LinkState::Down, at(36_000));
        assert!(cluster.tick(36_000).is_empty());
        assert!(cluster.repair.jobs.is_empty());
    }

    #[test]
    fn an_order_lost_with_its_link_is_given_again_soon_to_a_node_that_has_one() {
        let mut cluster = Cluster::new(3);
        cluster.put(1, 100, 2, &[0]);
        let lost = cluster.tick(0);
        assert_eq!(lost[0].0, NodeId(2));
        cluster.link(2, LinkState::Down, 10);
        assert!(cluster.repair.jobs.is_empty(), "its slot is free at once");
        let mut millis = 10;
        let elsewhere = loop {
            millis += 100;
            let orders = cluster.tick(millis);
            if !orders.is_empty() {
                break orders;
            }
        };
        assert!(
            (1_000..2_000).contains(&millis),
            "after a first back-off: {millis}"
        );
        assert_eq!(
            elsewhere[0].0,
            NodeId(1),
            "a node without a link gets no orders"
        );
        cluster.link(1, LinkState::Down, millis);
        cluster.link(2, LinkState::Up, millis + 500);
        while cluster.tick(millis).is_empty() {
            millis += 100;
            assert!(millis < 10_000);
        }
        assert_eq!(cluster.repair.jobs.len(), 1);
    }

    #[test]
    fn an_order_to_a_node_that_has_started_anew_is_given_again() {
        let mut cluster = Cluster::new(2);
        cluster.put(1, 100, 2, &[0]);
        let lost = cluster.tick(0);
        cluster.register(1, 2);
        assert!(cluster.tick(500).is_empty());
        assert!(cluster.repair.jobs.is_empty());
        let again = (6..30)
            .map(|tenth| cluster.tick(tenth * 100))
            .find(|orders| !orders.is_empty());
        let again = again.expect("within 3 s, not 30");
        assert_eq!(again[0].0, NodeId(1));
        assert!(again[0].1.job > lost[0].1.job);
        assert!(
            cluster.tick(3_500).is_empty(),
            "the new start keeps its order"
        );
    }

    #[test]
    fn a_job_whose_holders_are_all_lost_makes_room_for_another() {
        let mut cluster = Cluster::new(4);
        for content in 0..2 {
            cluster.put(content, 100, 2, &[1]);
        }
        let orders = cluster.tick(0);
        assert_eq!(orders.len(), 2);
        for _ in 0..2 {
            cluster.link(1, LinkState::Down, 100);
        }
        // What was said of node 1 is final once the second refusal has settled.
        cluster.health.link(NodeId(3), LinkState::Up, at(20_000));
        assert!(cluster.tick(20_000).is_empty());
        assert!(cluster.repair.jobs.is_empty());
        cluster.put(9, 100, 2, &[0]);
        let next = cluster.tick(20_500);
        assert_eq!(next.len(), 1);
        assert_eq!(next[0].1.sha256, object(9));
    }

    #[test]
    fn only_a_leader_gives_orders_and_a_new_term_starts_anew() {
        let mut cluster = Cluster::new(2);
        cluster.put(1, 100, 2, &[0]);
        let Cluster {
            tables,
            health,
            repair,
            ..
        } = &mut cluster;
        assert!(repair.tick(at(0), None, tables, health).unwrap().is_empty());
        assert_eq!(repair.deadline(), None);
        let old = repair.tick(at(1), Some(3), tables, health).unwrap();
        assert_eq!(
            old[0].1.job,
            JobId {
                term: 3,
                sequence: 1
            }
        );
        let new = repair.tick(at(2), Some(4), tables, health).unwrap();
        assert_eq!(
            new[0].1.job,
            JobId {
                term: 4,
                sequence: 1
            }
        );
        assert!(repair.tick(at(3), None, tables, health).unwrap().is_empty());
        repair.ended(new[0].1.job, None, at(4));
        assert_eq!(repair.deadline(), None);
    }

    #[test]
    fn what_cannot_be_helped_does_not_hide_what_can() {
        let mut cluster = Cluster::new(3);
        // Too large for any node, with one copy; the small ones have two and come behind.
        for content in 0..2_000 {
            cluster.put(content, 90 * GIB, 2, &[0]);
        }
        cluster.put(9_999, 100, 3, &[0, 1]);
        let mut orders = Vec::new();
        let mut millis = 0;
        while orders.is_empty() {
            orders = cluster.tick(millis);
            millis += 500;
            assert!(millis < 20_000);
        }
        assert_eq!(orders[0].1.sha256, object(9_999));
    }

    #[test]
    fn an_object_without_a_copy_within_reach_waits() {
        let mut cluster = Cluster::new(2);
        cluster.put(1, 100, 2, &[0]);
        let (sha256, others) = (object(1), 0);
        cluster.apply(Operation::DropCopy {
            sha256,
            copy: copy(0),
            others,
        });
        assert!(cluster.tick(0).is_empty());
        cluster.apply(Operation::AddCopy {
            sha256,
            size: 100,
            copy: copy(1),
        });
        let orders = cluster.tick(500);
        assert_eq!(
            (orders[0].0, orders[0].1.holders.as_slice()),
            (NodeId(0), &[NodeId(1)][..])
        );
    }
}

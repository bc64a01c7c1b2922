//! Where a copy goes and where it comes from: by room and load, to another host if there is one, from the least busy.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Settings;
use super::jobs::{Job, Jobs};
use crate::base::id::{Boot, NodeId};
use crate::core::catalog::counting::Discounts;
use crate::core::health::Health;
use crate::wire::peer::Figures;
use crate::wire::record::{Administrative, NodeRecord, ObjectRecord};

/// Orders that a node has beyond the copies it takes in at a time, for each of these: it need not wait for the next.
const BACKLOG: usize = 1;
/// A share of 1.
const WHOLE: u64 = 1_000_000;

/// The nodes as repair sees them during a tick.
pub(super) struct Places<'a> {
    discounts: &'a Discounts,
    targets: Vec<Target<'a>>,
    /// Who answers and may be copied from, and how many jobs copy from it.
    sources: BTreeMap<NodeId, Source<'a>>,
    outgoing: usize,
}

/// A node that takes copies now.
struct Target<'a> {
    node: NodeId,
    /// Its start.
    boot: Boot,
    host: &'a str,
    /// Free bytes beyond what is on its way; `None` when it gave no figures.
    room: Option<u64>,
    /// All its bytes, when it gave figures.
    total: u64,
    /// Share of the time that its disk has nothing to do.
    idle: u64,
    /// Jobs it has.
    jobs: usize,
    /// Jobs it may have besides.
    slots: usize,
}

struct Source<'a> {
    host: &'a str,
    jobs: usize,
}

/// What became of the search for a place.
pub(super) enum Choice {
    /// Nobody can take it, or nobody has it.
    None,
    /// Those who can are busy.
    Later,
    /// This one.
    Of(Chosen),
}

/// A target and where it copies from.
pub(super) struct Chosen {
    /// Who makes the copy.
    pub target: NodeId,
    /// Its start.
    pub boot: Boot,
    /// Who has it, best first.
    pub holders: Vec<NodeId>,
}

impl<'a> Places<'a> {
    /// The members as they are now, with the jobs they have.
    pub fn new(
        settings: &Settings,
        members: &'a [NodeRecord],
        discounts: &'a Discounts,
        health: &Health,
        jobs: &Jobs,
    ) -> Self {
        let takes = |member: &&NodeRecord| {
            member.stores
                && member.alive
                && member.administrative == Administrative::Alive
                && !member.lost
                && !member.dirs.is_empty()
                && health.is_up(member.id)
                && health.is_linked(member.id)
        };
        let target = |member: &'a NodeRecord| {
            let here = || jobs.all().filter(|job| job.target == member.id);
            let coming = here().fold(0, |sum: u64, job: &Job| sum.saturating_add(job.size));
            let figures = health.figures(member.id);
            let figures = figures.filter(|figures| figures.total_bytes > 0);
            let slots = settings.incoming.saturating_mul(1 + BACKLOG);
            Target {
                node: member.id,
                boot: member.boot,
                host: host(&member.address),
                room: figures.map(|figures| figures.free_bytes.saturating_sub(coming)),
                total: figures.map_or(0, |figures| figures.total_bytes),
                idle: figures.map_or(WHOLE, idle),
                jobs: here().count(),
                slots: slots.saturating_sub(here().count()),
            }
        };
        let serves = |member: &&NodeRecord| {
            member.administrative != Administrative::Dead && health.is_up(member.id)
        };
        let source = |member: &'a NodeRecord| {
            let from = |job: &&Job| job.holders.first() == Some(&member.id);
            let source = Source {
                host: host(&member.address),
                jobs: jobs.all().filter(from).count(),
            };
            (member.id, source)
        };
        Self {
            discounts,
            targets: members.iter().filter(takes).map(target).collect(),
            sources: members.iter().filter(serves).map(source).collect(),
            outgoing: settings.outgoing,
        }
    }

    /// Whether no node takes more for now.
    pub fn are_taken(&self) -> bool {
        self.targets.iter().all(|target| target.slots == 0)
            || self
                .sources
                .values()
                .all(|source| source.jobs >= self.outgoing)
    }

    /// A place for one more copy of `object` on a node that `takes` it, taken for it at once; `avoid` did not make it the
    /// last time.
    pub fn choose(
        &mut self,
        object: &ObjectRecord,
        avoid: Option<NodeId>,
        takes: impl Fn(NodeId) -> bool,
    ) -> Choice {
        let holders = self.holders(object);
        let Some(busy) = holders.first().map(|holder| self.busy(*holder)) else {
            return Choice::None;
        };
        let counted = self.discounts.counted(&object.copies);
        let hosts: Vec<&str> = counted
            .iter()
            .filter_map(|node| self.sources.get(node))
            .map(|source| source.host)
            .collect();
        // A copy on it that does not count now, in a directory that is gone, does not stand in the way of another.
        let suits = |target: &&mut Target| {
            !counted.contains(&target.node)
                && takes(target.node)
                && target.room.is_none_or(|room| room >= object.size)
        };
        let best = self.targets.iter_mut().filter(suits).min_by_key(|target| {
            (
                hosts.contains(&target.host),
                target.slots == 0,
                Some(target.node) == avoid,
                Reverse(target.weight()),
                target.node,
            )
        });
        let Some(target) = best else {
            return Choice::None;
        };
        if target.slots == 0 || busy >= self.outgoing {
            return Choice::Later;
        }
        target.slots -= 1;
        target.jobs += 1;
        target.room = target.room.map(|room| room.saturating_sub(object.size));
        let (node, boot) = (target.node, target.boot);
        if let Some(source) = holders
            .first()
            .and_then(|holder| self.sources.get_mut(holder))
        {
            source.jobs += 1;
        }
        Choice::Of(Chosen {
            target: node,
            boot,
            holders,
        })
    }

    fn busy(&self, node: NodeId) -> usize {
        self.sources
            .get(&node)
            .map_or(usize::MAX, |source| source.jobs)
    }

    /// Who holds the object and answers: those whose copies count first, of them the least busy.
    fn holders(&self, object: &ObjectRecord) -> Vec<NodeId> {
        let counted = self.discounts.counted(&object.copies);
        let readable = object
            .copies
            .iter()
            .filter(|copy| !self.discounts.is_gone(copy));
        let mut holders: Vec<NodeId> = readable.map(|copy| copy.node).collect();
        holders.dedup();
        holders.retain(|node| self.sources.contains_key(node));
        holders.sort_by_cached_key(|node| (!counted.contains(node), self.busy(*node), *node));
        holders
    }
}

impl Target<'_> {
    /// Free share times idle share, divided among the jobs it has and this one.
    fn weight(&self) -> u64 {
        let free = match self.room {
            Some(room) => share(room, self.total),
            None => WHOLE / 2,
        };
        free * self.idle / (1 + self.jobs as u64)
    }
}

/// `part` of `total` in millionths.
pub(super) fn share(part: u64, total: u64) -> u64 {
    let share = u128::from(part) * u128::from(WHOLE) / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(WHOLE).min(WHOLE)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn idle(figures: &Figures) -> u64 {
    // What is no number counts as 0.
    let busy = figures.io_busy.clamp(0.0, 1.0);
    WHOLE - ((busy * WHOLE as f64) as u64).min(WHOLE)
}

/// The host of `host:port`.
pub(super) fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

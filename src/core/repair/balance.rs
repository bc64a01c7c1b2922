//! Moving objects off nodes that are fuller than most: they get one copy more on an emptier node, and of copies too many the one on the fullest node goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::place::{Choice, Chosen, Places, host, share};
use super::{PERIOD, Work};
use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::core::catalog::counting::Discounts;
use crate::core::catalog::query;
use crate::core::health::Health;
use crate::core::node::Level;
use crate::wire::record::{NodeRecord, ObjectRecord};

/// A node that has used more than this (millionths) is relieved.
const FULL: u64 = 850_000;
/// Until it has used no more than this.
const RELIEVED: u64 = 800_000;
/// Nodes whose used shares differ by less than this are equally full.
const ALIKE: u64 = 50_000;
/// Objects that one look reads.
const PAGE: usize = 256;
/// Objects that are moved at the same time: nothing here is urgent.
const AT_A_TIME: usize = 4;
/// Between two passes over all objects.
const PASSES: Duration = Duration::from_secs(10);

/// Moves under way and done.
#[derive(Debug, Default)]
pub(super) struct Balance {
    after: Option<Sha256>,
    /// Nodes that are being relieved.
    full: BTreeSet<NodeId>,
    /// When so many bytes were ordered off one node and onto another. What was moved off stays on its disk for a while,
    /// and must not be moved for twice.
    moved: VecDeque<(Mono, NodeId, NodeId, u64)>,
    next: Mono,
}

impl Balance {
    /// When to look again.
    pub const fn deadline(&self) -> Mono {
        self.next
    }

    /// Whether it is time for a look; none while other things are to be done first.
    pub fn is_due(&mut self, now: Mono, idle: bool) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now + PERIOD;
        }
        due && idle
    }

    /// Chooses objects that lie on a full node, and where each goes. `lingers` is how long a dropped copy stays on disk,
    /// `under_way` the jobs there are.
    #[allow(clippy::too_many_arguments)]
    pub fn look(
        &mut self,
        now: Mono,
        lingers: Duration,
        under_way: usize,
        tables: &dyn Tables,
        members: &[NodeRecord],
        discounts: &Discounts,
        health: &Health,
        places: &mut Places<'_>,
        work: &mut Work,
    ) -> Result<Vec<(Sha256, u64, Chosen)>, TableError> {
        while self
            .moved
            .front()
            .is_some_and(|(at, ..)| now - *at >= lingers)
        {
            self.moved.pop_front();
        }
        let mut used = self.used(members, discounts, health);
        let mean = used.values().sum::<u64>() / (used.len() as u64).max(1);
        self.judge(&used, work);
        let mut chosen = Vec::new();
        if self.full.is_empty() || under_way >= AT_A_TIME {
            return Ok(chosen);
        }
        let hosts: BTreeMap<NodeId, &str> = members
            .iter()
            .map(|member| (member.id, host(&member.address)))
            .collect();
        let one_host = hosts.values().collect::<BTreeSet<_>>().len() < 2;
        let page = query::objects_after(tables, self.after.as_ref(), PAGE)?;
        let ended = page.len() < PAGE;
        for (sha256, object) in page {
            self.after = Some(sha256);
            let counted = discounts.counted(&object.copies);
            let Some(off) = self.fullest_of(&object, &counted, &used) else {
                continue;
            };
            let from = used.get(&off).copied().unwrap_or_default();
            let takes = |node: NodeId| {
                let others = counted.iter().filter(|other| **other != off);
                let mut taken = others.filter_map(|other| hosts.get(other));
                let apart = one_host || hosts.get(&node).is_some_and(|h| !taken.any(|t| t == h));
                let to = used.get(&node).copied();
                apart && to.is_some_and(|to| to < mean && to + ALIKE < from)
            };
            let Choice::Of(choice) = places.choose(&object, None, takes) else {
                continue;
            };
            self.moved.push_back((now, off, choice.target, object.size));
            chosen.push((sha256, object.size, choice));
            if under_way + chosen.len() >= AT_A_TIME {
                return Ok(chosen);
            }
            used = self.used(members, discounts, health);
            self.judge(&used, work);
        }
        if ended {
            self.after = None;
            self.next = now + PASSES;
        }
        Ok(chosen)
    }

    /// Used shares in millionths, as they will be when what was ordered is done: of living nodes that gave figures.
    fn used(
        &self,
        members: &[NodeRecord],
        discounts: &Discounts,
        health: &Health,
    ) -> BTreeMap<NodeId, u64> {
        let counts =
            |member: &&NodeRecord| member.stores && member.alive && discounts.relies_on(member.id);
        let used = |member: &NodeRecord| {
            let figures = health.figures(member.id)?;
            let total = Some(figures.total_bytes).filter(|total| *total > 0)?;
            let (mut on, mut off) = (total.saturating_sub(figures.free_bytes), 0_u64);
            for (_, from, to, bytes) in &self.moved {
                if *to == member.id {
                    on = on.saturating_add(*bytes);
                } else if *from == member.id {
                    off = off.saturating_add(*bytes);
                }
            }
            Some((member.id, share(on.saturating_sub(off), total)))
        };
        members.iter().filter(counts).filter_map(used).collect()
    }

    /// Who is to be relieved.
    fn judge(&mut self, used: &BTreeMap<NodeId, u64>, work: &mut Work) {
        for (node, used) in used {
            let percent = used / 10_000;
            if *used > FULL && self.full.insert(*node) {
                let text = format!("node {node} is {percent} % full: objects move to emptier ones");
                work.says.push((Level::Info, "rebalance_started", text));
            } else if *used <= RELIEVED && self.full.remove(node) {
                let text = format!("node {node} will be {percent} % full");
                work.says.push((Level::Info, "rebalance_done", text));
            }
        }
        self.full.retain(|node| used.contains_key(node));
    }

    /// The fullest node that the object can be moved off: one that is being relieved. An object that is short of copies
    /// or has too many is left alone.
    fn fullest_of(
        &self,
        object: &ObjectRecord,
        counted: &BTreeSet<NodeId>,
        used: &BTreeMap<NodeId, u64>,
    ) -> Option<NodeId> {
        if object.owed.is_some() || object.over {
            return None;
        }
        let full = counted.iter().filter(|node| self.full.contains(node));
        full.copied()
            .max_by_key(|node| used.get(node).copied().unwrap_or_default())
    }
}

//! Copies that may go: beyond what is wanted, after a node came back, or on a node that leaves. Dropped only while enough others count (rule R10).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::place::{host, share};
use super::{PERIOD, Work};
use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::random::mix;
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::core::catalog::counting::{self, Discounts};
use crate::core::catalog::query;
use crate::core::health::Health;
use crate::wire::command::Operation;
use crate::wire::record::{Copy, NodeRecord, ObjectRecord};

/// Objects that one look reads.
const PAGE: usize = 128;
/// Drops proposed and not yet seen in the catalog.
const UNDER_WAY: usize = 128;
/// Time between two looks while there is more.
const PACE: Duration = Duration::from_millis(50);
/// A drop that has not shown in the catalog is proposed again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Nodes whose used shares differ by less than this (millionths) are equally full.
const ALIKE: u64 = 50_000;

/// Drops under way.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    after: Option<Sha256>,
    proposed: BTreeMap<Sha256, Mono>,
    next: Mono,
}

impl Surplus {
    /// Something changed: all is looked at again.
    pub fn begin_anew(&mut self, now: Mono) {
        self.after = None;
        self.next = self.next.min(now);
    }

    /// When to look again.
    pub const fn deadline(&self) -> Mono {
        self.next
    }

    /// Proposes drops. Unless `calm` only from nodes that leave: who has just come back may go again.
    pub fn tick(
        &mut self,
        now: Mono,
        calm: bool,
        tables: &dyn Tables,
        members: &[NodeRecord],
        health: &Health,
        work: &mut Work,
    ) -> Result<(), TableError> {
        if now < self.next {
            return Ok(());
        }
        self.next = now + PERIOD;
        self.proposed.retain(|_, at| now - *at < AGAIN);
        if counting::is_recounting(tables)? {
            return Ok(());
        }
        let room = UNDER_WAY.saturating_sub(self.proposed.len());
        let page = query::surplus_after(tables, self.after.as_ref(), PAGE)?;
        if page.is_empty() {
            self.after = None;
            return Ok(());
        }
        let view = View {
            members,
            health,
            discounts: counting::discounts(tables)?,
        };
        let mut dropped = 0;
        for sha256 in &page {
            if dropped >= room {
                break;
            }
            self.after = Some(*sha256);
            if self.proposed.contains_key(sha256) {
                continue;
            }
            let Some(object) = query::object(tables, sha256)? else {
                continue;
            };
            if let Some(copy) = view.superfluous(sha256, &object, calm) {
                dropped += 1;
                self.proposed.insert(*sha256, now);
                work.operations.push(Operation::DropCopy {
                    sha256: *sha256,
                    copy,
                    others: object.want,
                });
            }
        }
        if dropped > 0 {
            self.next = now + PACE;
        }
        Ok(())
    }
}

struct View<'a> {
    members: &'a [NodeRecord],
    health: &'a Health,
    discounts: Discounts,
}

impl View<'_> {
    fn member(&self, node: NodeId) -> Option<&NodeRecord> {
        self.members.iter().find(|member| member.id == node)
    }

    fn lives(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.alive) && self.health.is_up(node)
    }

    /// Share of its disks that a node has used, in millionths; the least it can be when it gave no figures.
    fn used(&self, node: NodeId) -> u64 {
        let figures = self.health.figures(node);
        figures
            .filter(|figures| figures.total_bytes > 0)
            .map_or(0, |figures| {
                let used = figures.total_bytes.saturating_sub(figures.free_bytes);
                share(used, figures.total_bytes)
            })
    }

    /// The copy that can go best, if one can go: enough others on living nodes count.
    fn superfluous(&self, sha256: &Sha256, object: &ObjectRecord, calm: bool) -> Option<Copy> {
        let candidates: Vec<Copy> = if let Some(leaving) = object
            .copies
            .iter()
            .find(|copy| self.discounts.is_leaving(copy.node))
        {
            vec![*leaving]
        } else if !calm {
            Vec::new()
        } else if let Some(twice) = self.twice(object) {
            vec![twice]
        } else {
            let counted = self.discounts.counted(&object.copies);
            if counted.len() <= usize::from(object.want) {
                return None;
            }
            let node = self.fullest(sha256, &counted)?;
            let of_node = object.copies.iter().filter(|copy| copy.node == node);
            of_node.copied().collect()
        };
        let enough = |copy: &Copy| {
            let others: Vec<Copy> = object
                .copies
                .iter()
                .filter(|other| *other != copy)
                .copied()
                .collect();
            let counted = self.discounts.counted(&others);
            let living = counted.into_iter().filter(|node| self.lives(*node));
            living.count() >= usize::from(object.want)
        };
        candidates.into_iter().find(enough)
    }

    /// A second copy on one node.
    fn twice(&self, object: &ObjectRecord) -> Option<Copy> {
        let mut seen = BTreeSet::new();
        let counting = object
            .copies
            .iter()
            .filter(|copy| self.discounts.counts(copy));
        let mut again = counting.filter(|copy| !seen.insert(copy.node));
        again.next().copied()
    }

    /// Of nodes that share their host with another, or else of all, the fullest; of those that are equally full, one by
    /// the object's digest, so that none of them loses all.
    fn fullest(&self, sha256: &Sha256, nodes: &BTreeSet<NodeId>) -> Option<NodeId> {
        let host_of = |node: NodeId| self.member(node).map(|member| host(&member.address));
        let shares = |node: &NodeId| {
            let others = nodes.iter().filter(|other| *other != node);
            others
                .copied()
                .any(|other| host_of(other).is_some() && host_of(other) == host_of(*node))
        };
        let sharing: Vec<NodeId> = nodes.iter().copied().filter(|node| shares(node)).collect();
        let among = if sharing.is_empty() {
            nodes.iter().copied().collect()
        } else {
            sharing
        };
        let most = among.iter().map(|node| self.used(*node)).max()?;
        let lot = |node: &NodeId| {
            let digest = sha256.0.first_chunk::<8>();
            mix(digest.map_or(0, |bytes| u64::from_be_bytes(*bytes)) ^ u64::from(node.0))
        };
        among
            .into_iter()
            .filter(|node| self.used(*node) + ALIKE > most)
            .max_by_key(lot)
    }
}

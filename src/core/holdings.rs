//! What each node holds, and what of it the others cannot do without: whether it is safe to stop a node for good.

use std::collections::BTreeMap;

use super::catalog::query;
use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::table::{TableError, Tables};
use crate::wire::admin::Holdings;
use crate::wire::record::{Administrative, NodeRecord, ObjectRecord};

/// Objects looked at in one page.
const PAGE: usize = 512;
/// Names shown of what a node is needed for.
const EXAMPLES: usize = 3;

/// A count of all copies, page by page, over tables that do not change meanwhile.
#[derive(Debug)]
pub struct Survey {
    members: Vec<NodeRecord>,
    after: Option<Sha256>,
    holdings: BTreeMap<NodeId, Holdings>,
}

/// How far a [`Survey`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more objects.
    More,
    /// All are counted.
    Done,
}

impl Survey {
    /// Nothing counted yet.
    pub fn new(tables: &dyn Tables) -> Result<Self, TableError> {
        let members = query::nodes(tables)?;
        let holdings = members
            .iter()
            .map(|m| (m.id, Holdings::default()))
            .collect();
        Ok(Self {
            members,
            after: None,
            holdings,
        })
    }

    /// Counts the next objects.
    pub fn page(&mut self, tables: &dyn Tables) -> Result<Progress, TableError> {
        let page = query::objects_after(tables, self.after.as_ref(), PAGE)?;
        let progress = if page.len() < PAGE {
            Progress::Done
        } else {
            Progress::More
        };
        if let Some((last, _)) = page.last() {
            self.after = Some(*last);
        }
        for (sha256, object) in page {
            self.count(tables, &sha256, &object)?;
        }
        Ok(progress)
    }

    /// By node, when all pages are counted.
    pub fn holdings(self) -> BTreeMap<NodeId, Holdings> {
        self.holdings
    }

    fn count(
        &mut self,
        tables: &dyn Tables,
        sha256: &Sha256,
        object: &ObjectRecord,
    ) -> Result<(), TableError> {
        let members = &self.members;
        let mut holders: Vec<&NodeRecord> = members
            .iter()
            .filter(|member| {
                let mut copies = object.copies.iter();
                copies.any(|copy| copy.node == member.id && member.dirs.contains(&copy.dir))
            })
            .collect();
        holders.retain(|member| member.administrative != Administrative::Dead);
        for holder in &holders {
            let others = holders.iter().filter(|other| other.id != holder.id);
            let serving = others.clone().filter(|other| stays(other) && other.alive);
            let have = serving.count();
            let possible = members
                .iter()
                .filter(|member| member.id != holder.id && stays(member));
            let possible = possible
                .filter(|member| takes(member) || holders.iter().any(|other| other.id == member.id))
                .count();
            let owed = usize::from(object.want).min(possible).max(1);
            let Some(holdings) = self.holdings.get_mut(&holder.id) else {
                continue;
            };
            holdings.objects += 1;
            holdings.bytes = holdings.bytes.saturating_add(object.size);
            if have >= owed {
                continue;
            }
            holdings.needed += 1;
            holdings.needed_bytes = holdings.needed_bytes.saturating_add(object.size);
            holdings.only_here += u64::from(have == 0);
            if holdings.examples.len() < EXAMPLES {
                let names = query::names(tables, sha256)?;
                let new = names
                    .into_iter()
                    .find(|name| !holdings.examples.contains(name));
                holdings.examples.extend(new);
            }
        }
        Ok(())
    }
}

/// Whether a member keeps objects, and is not on its way out.
fn stays(member: &NodeRecord) -> bool {
    let leaves = matches!(
        member.administrative,
        Administrative::Drain | Administrative::Dead
    );
    member.stores && !leaves
}

/// Whether copies can be made on it, once it answers.
fn takes(member: &NodeRecord) -> bool {
    matches!(
        member.administrative,
        Administrative::Alive | Administrative::Down
    )
}

/// Why a member cannot be stopped for good, for people; `None` when it can. `voters` are those of the cluster.
pub fn obstacle(
    member: NodeId,
    members: &[NodeRecord],
    voters: &[NodeId],
    holdings: &Holdings,
) -> Option<String> {
    let mut reasons = Vec::new();
    if holdings.needed > 0 {
        let Holdings {
            needed,
            only_here,
            objects,
            ..
        } = holdings;
        let none = match only_here {
            0 => String::new(),
            some => format!(", {some} have none"),
        };
        reasons.push(format!(
            "{needed} of its {objects} objects have too few copies elsewhere{none}"
        ));
    }
    if voters.contains(&member) {
        let alive = |voter: &&NodeId| {
            let mut members = members.iter();
            **voter != member && members.any(|m| m.id == **voter && m.alive)
        };
        let (alive, all) = (voters.iter().filter(alive).count(), voters.len());
        if alive * 2 <= all {
            let needed = all / 2 + 1;
            reasons.push(format!(
                "it votes, and without it {alive} of {all} voters are alive, {needed} needed"
            ));
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

//! What each node holds, and what of it the others cannot do without: whether it is safe to stop a node for good.

use std::collections::BTreeMap;

use super::catalog::query::{self, Discounts};
use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::base::table::{TableError, Tables};
use crate::wire::admin::Holdings;
use crate::wire::record::{Administrative, Copy, NodeRecord, ObjectRecord};

/// Objects looked at in one page.
const PAGE: usize = 512;
/// Names shown of what a node is needed for.
const EXAMPLES: usize = 3;

/// A count of all copies, page by page, over tables that do not change meanwhile.
#[derive(Debug)]
pub struct Survey {
    members: Vec<NodeRecord>,
    discounts: Discounts,
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
            discounts: query::discounts(tables)?,
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
        let (members, discounts) = (&self.members, &self.discounts);
        // A copy that nobody counts may be the last one all the same.
        let lies_on = |member: &NodeRecord, counts: &dyn Fn(&Copy) -> bool| {
            let mut copies = object.copies.iter();
            copies.any(|copy| {
                copy.node == member.id && member.dirs.contains(&copy.dir) && counts(copy)
            })
        };
        let dead = |member: &NodeRecord| member.administrative == Administrative::Dead;
        let holders: Vec<&NodeRecord> = members
            .iter()
            .filter(|member| !dead(member) && lies_on(member, &|copy| !discounts.is_gone(copy)))
            .collect();
        for holder in &holders {
            let others = holders.iter().filter(|other| other.id != holder.id);
            let counts = |copy: &Copy| discounts.counts(copy);
            let have = others
                .filter(|other| stays(other) && other.alive && lies_on(other, &counts))
                .count();
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

/// Whether a member keeps objects that are relied on, and is not on its way out.
fn stays(member: &NodeRecord) -> bool {
    let leaves = matches!(
        member.administrative,
        Administrative::Drain | Administrative::Dead
    );
    member.stores && !leaves && !member.lost
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;
    use crate::base::id::{Boot, DirId};
    use crate::base::table::{Batch, MemoryTables, Table};
    use crate::wire::record::to_row;

    fn member(id: u16, administrative: Administrative, alive: bool) -> NodeRecord {
        NodeRecord {
            id: NodeId(id),
            name: String::new(),
            address: String::new(),
            manages: true,
            stores: true,
            administrative,
            alive,
            dirs: vec![DirId(id.into())],
            boot: Boot(1),
            knows: 1,
            lost: false,
            gone: Vec::new(),
        }
    }

    /// The holdings of node 0 where one object lies on the nodes `on`, three copies wanted.
    fn of_zero(members: &[NodeRecord], on: &[u16]) -> Holdings {
        let copy = |id: &u16| Copy {
            node: NodeId(*id),
            dir: DirId((*id).into()),
        };
        let object = ObjectRecord {
            size: 10,
            copies: on.iter().map(copy).collect(),
            references: 1,
            want: 3,
            owed: None,
            over: false,
        };
        let mut batch = Batch::default();
        for member in members {
            batch.put(Table::Nodes, &member.id.key(), to_row(member));
        }
        batch.put(Table::Objects, &sha256(b"x").0, to_row(&object));
        let mut tables = MemoryTables::default();
        tables.write(&batch);
        let mut survey = Survey::new(&tables).unwrap();
        while survey.page(&tables).unwrap() == Progress::More {}
        survey.holdings().remove(&NodeId(0)).unwrap_or_default()
    }

    #[test]
    fn a_node_is_needed_until_its_objects_have_as_many_copies_elsewhere_as_can_be() {
        use Administrative::{Alive, Dead, Drain, Readonly};
        let others = |states: &[Administrative]| {
            let mut members = vec![member(0, Drain, true)];
            members.extend(
                (1..)
                    .zip(states)
                    .map(|(id, state)| member(id, *state, true)),
            );
            members
        };
        let full = others(&[Alive, Alive, Alive]);
        assert_eq!(of_zero(&full, &[0, 1, 2]).needed, 1, "node 3 can take one");
        assert_eq!(of_zero(&full, &[0, 1, 2, 3]).needed, 0);
        assert_eq!(of_zero(&full, &[1, 2, 3]), Holdings::default());
        // Three members: two others are all there can be.
        assert_eq!(of_zero(&others(&[Alive, Alive]), &[0, 1, 2]).needed, 0);
        // The last of all cannot be done without.
        let alone = of_zero(&others(&[]), &[0]);
        assert_eq!((alone.needed, alone.only_here), (1, 1));
        // Who leaves as well does not count; who only reads on counts with what it has.
        assert_eq!(of_zero(&others(&[Drain, Alive]), &[0, 1]).only_here, 1);
        assert_eq!(of_zero(&others(&[Readonly, Readonly]), &[0, 1]).needed, 0);
        assert_eq!(of_zero(&others(&[Dead, Alive]), &[0, 2]).needed, 0);
        // A copy on a node that does not answer is no reason to stop another.
        let mut silent = others(&[Alive, Alive]);
        silent[2].alive = false;
        assert_eq!(of_zero(&silent, &[0, 1, 2]).needed, 1);
        // Nor is one in a directory that is not in service.
        silent[2].alive = true;
        silent[2].dirs.clear();
        assert_eq!(of_zero(&silent, &[0, 1, 2]).needed, 1);
    }

    #[test]
    fn a_voter_without_which_there_is_no_majority_is_not_safe_to_stop() {
        let members: Vec<NodeRecord> = (0..3)
            .map(|id| member(id, Administrative::Alive, id != 2))
            .collect();
        let voters = [0, 1, 2].map(NodeId);
        let none = Holdings::default();
        let why = obstacle(NodeId(0), &members, &voters, &none).unwrap();
        assert!(why.contains("1 of 3 voters"), "{why}");
        assert_eq!(obstacle(NodeId(2), &members, &voters, &none), None);
        assert_eq!(obstacle(NodeId(0), &members, &voters[1..2], &none), None);
    }
}

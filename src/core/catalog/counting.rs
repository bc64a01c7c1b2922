//! Which copies count: those on nodes and in directories that are relied on. When that changes, the objects are counted anew, a page a command.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ledger, meta, query};
use crate::base::digest::Sha256;
use crate::base::id::{DirId, NodeId};
use crate::base::table::{Overlay, Table, TableError, Tables};
use crate::wire::record::{Administrative, Copy, NodeRecord, ObjectRecord, from_row, to_row};

/// Objects that one command counts anew: a few milliseconds.
const PAGE: usize = 512;

/// What does not count, by node: empty in a cluster that is well. Kept as one small row, so that a put need not read the
/// row of every holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Discounts(Vec<Discount>);

/// What does not count on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Discount {
    node: NodeId,
    /// No copy on it counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    /// It is being drained: its copies may go once there are enough others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
    /// It is no member any more; said until its number is used again, while its copies are being forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// Directories in which no copy counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<DirId>,
}

impl Discounts {
    /// As the members are now, and those that were removed before.
    fn of(members: &[NodeRecord], removed: &BTreeSet<NodeId>) -> Self {
        let of_member = |member: &NodeRecord| {
            let state = member.administrative;
            let leaves = matches!(state, Administrative::Drain | Administrative::Dead);
            Discount {
                node: member.id,
                all: leaves || member.lost,
                leaving: state == Administrative::Drain,
                removed: false,
                gone: member.gone.clone(),
            }
        };
        let mut discounts: Vec<Discount> = members
            .iter()
            .map(of_member)
            .filter(|discount| discount.all || !discount.gone.is_empty())
            .collect();
        let is_member = |node: &NodeId| members.iter().any(|member| member.id == *node);
        let removed = removed.iter().filter(|node| !is_member(node));
        discounts.extend(removed.map(|node| Discount {
            node: *node,
            all: true,
            leaving: false,
            removed: true,
            gone: Vec::new(),
        }));
        discounts.sort_unstable_by_key(|discount| discount.node);
        Self(discounts)
    }

    fn find(&self, node: NodeId) -> Option<&Discount> {
        self.0.iter().find(|discount| discount.node == node)
    }

    fn removed(&self) -> BTreeSet<NodeId> {
        let removed = self.0.iter().filter(|discount| discount.removed);
        removed.map(|discount| discount.node).collect()
    }

    /// Whether a copy counts for what is wanted.
    pub fn counts(&self, copy: &Copy) -> bool {
        self.find(copy.node)
            .is_none_or(|discount| !discount.all && !discount.gone.contains(&copy.dir))
    }

    /// Whether a copy lies where nothing can be read any more.
    pub fn is_gone(&self, copy: &Copy) -> bool {
        self.find(copy.node)
            .is_some_and(|discount| discount.removed || discount.gone.contains(&copy.dir))
    }

    /// Whether any copy on a node may count.
    pub fn relies_on(&self, node: NodeId) -> bool {
        self.find(node).is_none_or(|discount| !discount.all)
    }

    /// Whether a node's copies may go once there are enough others.
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.find(node).is_some_and(|discount| discount.leaving)
    }

    /// The distinct nodes whose copies count, in order.
    pub fn counted(&self, copies: &[Copy]) -> BTreeSet<NodeId> {
        let counts = copies.iter().filter(|copy| self.counts(copy));
        counts.map(|copy| copy.node).collect()
    }

    /// Where an object belongs: its place among the debts, and whether it has copies that may go.
    pub(super) fn judge(&self, object: &ObjectRecord) -> (Option<u8>, bool) {
        let nodes = self.counted(&object.copies).len();
        if nodes < usize::from(object.want) {
            let place = if object.copies.is_empty() {
                ObjectRecord::LOST
            } else {
                u8::try_from(nodes).unwrap_or(u8::MAX)
            };
            return (Some(place), false);
        }
        let counting = object.copies.iter().filter(|copy| self.counts(copy));
        let twice = counting.count() > nodes;
        let leaving = || object.copies.iter().any(|copy| self.is_leaving(copy.node));
        let over = nodes > usize::from(object.want) || twice || leaving();
        (None, over)
    }
}

/// How far the counting has come: behind `after`, up to the end of the table, and if `around`, from its beginning again
/// up to and with `until`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counting {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Sha256>,
    #[serde(default)]
    around: bool,
}

/// What does not count now.
pub fn discounts(tables: &dyn Tables) -> Result<Discounts, TableError> {
    let row = tables.get(Table::Meta, meta::DISCOUNTS)?;
    Ok(row
        .map(|row| from_row(&row))
        .transpose()?
        .unwrap_or_default())
}

/// Whether objects are still to be counted anew ([`crate::wire::command::Operation::Recount`]): until then the debts
/// are those from before.
pub fn is_recounting(tables: &dyn Tables) -> Result<bool, TableError> {
    Ok(tables.get(Table::Meta, meta::RECOUNT)?.is_some())
}

/// How far that has come, as a row that differs after each step; `None` when there is nothing to count.
pub fn place(tables: &dyn Tables) -> Result<Option<Vec<u8>>, TableError> {
    tables.get(Table::Meta, meta::RECOUNT)
}

/// A member's row changed: what that means for its copies.
pub(super) fn member_changed(tables: &mut Overlay<'_>) -> Result<(), TableError> {
    let removed = discounts(tables)?.removed();
    refresh(tables, &removed)
}

/// A member's row was deleted: none of its copies counts any more.
pub(super) fn member_removed(tables: &mut Overlay<'_>, node: NodeId) -> Result<(), TableError> {
    let mut removed = discounts(tables)?.removed();
    removed.insert(node);
    refresh(tables, &removed)
}

fn refresh(tables: &mut Overlay<'_>, removed: &BTreeSet<NodeId>) -> Result<(), TableError> {
    let before = discounts(tables)?;
    let after = Discounts::of(&query::nodes(tables)?, removed);
    if before == after {
        return Ok(());
    }
    let row = to_row(&after);
    tables.batch.put(Table::Meta, meta::DISCOUNTS, row);
    // What was counted before is counted once more; what comes after the place that is reached is not counted twice.
    let counting = match counting(tables)?.and_then(|counting| counting.after) {
        None => Counting::default(),
        Some(reached) => Counting {
            after: Some(reached),
            until: Some(reached),
            around: true,
        },
    };
    let row = to_row(&counting);
    tables.batch.put(Table::Meta, meta::RECOUNT, row);
    Ok(())
}

fn counting(tables: &dyn Tables) -> Result<Option<Counting>, TableError> {
    let row = tables.get(Table::Meta, meta::RECOUNT)?;
    row.map(|row| from_row(&row)).transpose()
}

/// Counts the next objects anew.
pub(super) fn recount(tables: &mut Overlay<'_>) -> Result<(), TableError> {
    let Some(mut counting) = counting(tables)? else {
        return Ok(());
    };
    let page = query::objects_after(tables, counting.after.as_ref(), PAGE)?;
    let mut ended = page.len() < PAGE;
    for (sha256, object) in &page {
        if !counting.around && counting.until.is_some_and(|until| *sha256 > until) {
            ended = true;
            break;
        }
        counting.after = Some(*sha256);
        ledger::recount(tables, sha256, object)?;
    }
    if ended && counting.around {
        counting.after = None;
        counting.around = false;
        ended = false;
    }
    if !ended {
        let row = to_row(&counting);
        tables.batch.put(Table::Meta, meta::RECOUNT, row);
        return Ok(());
    }
    tables.batch.delete(Table::Meta, meta::RECOUNT);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Boot;
    use crate::base::table::{Batch, MemoryTables};

    fn copy(node: u16) -> Copy {
        Copy {
            node: NodeId(node),
            dir: DirId(node.into()),
        }
    }

    fn member(id: u16) -> NodeRecord {
        NodeRecord {
            id: NodeId(id),
            name: String::new(),
            address: String::new(),
            manages: true,
            stores: true,
            administrative: Administrative::Alive,
            alive: true,
            dirs: vec![copy(id).dir],
            boot: Boot(1),
            knows: 1,
            lost: false,
            gone: Vec::new(),
        }
    }

    /// Three members and so many objects, each on two of them.
    fn tables(objects: u32) -> MemoryTables {
        let mut tables = MemoryTables::default();
        let mut batch = Batch::default();
        for id in 0..3 {
            batch.put(Table::Nodes, &NodeId(id).key(), to_row(&member(id)));
        }
        for number in 0..objects {
            let sha256 = crate::base::digest::sha256(&number.to_be_bytes());
            let node = u16::try_from(number % 3).unwrap();
            let mut copies = vec![copy(node), copy((node + 1) % 3)];
            copies.sort_unstable();
            let object = ObjectRecord {
                size: 10,
                copies,
                references: 1,
                want: 2,
                owed: None,
                over: false,
            };
            batch.put(Table::Objects, &sha256.0, to_row(&object));
        }
        tables.write(&batch);
        tables
    }

    fn step(tables: &mut MemoryTables, change: impl FnOnce(&mut Overlay<'_>)) {
        let mut overlay = Overlay::new(tables);
        change(&mut overlay);
        let batch = overlay.batch;
        tables.write(&batch);
    }

    fn set(tables: &mut MemoryTables, record: &NodeRecord) {
        step(tables, |overlay| {
            let key = record.id.key();
            overlay.batch.put(Table::Nodes, &key, to_row(record));
            member_changed(overlay).unwrap();
        });
    }

    /// Counts to the end; in how many steps.
    fn count(tables: &mut MemoryTables) -> u32 {
        let mut steps = 0;
        while is_recounting(tables).unwrap() {
            step(tables, |overlay| recount(overlay).unwrap());
            steps += 1;
        }
        steps
    }

    #[test]
    fn what_changes_while_it_is_counted_is_counted_once_around() {
        let mut tables = tables(3_000);
        let [mut one, mut two] = [member(1), member(2)];
        set(&mut tables, &one);
        assert_eq!(count(&mut tables), 0, "nothing changed");
        one.lost = true;
        set(&mut tables, &one);
        step(&mut tables, |overlay| recount(overlay).unwrap());
        assert_eq!(
            query::debts(&tables).unwrap(),
            debts(&tables),
            "as far as it is counted"
        );
        assert!((200..512).contains(&query::debts(&tables).unwrap()));
        step(&mut tables, |overlay| recount(overlay).unwrap());
        two.administrative = Administrative::Drain;
        set(&mut tables, &two);
        let steps = count(&mut tables);
        assert!((6..=8).contains(&steps), "{steps}");
        assert_eq!(query::debts(&tables).unwrap(), 3_000);
        assert_eq!(query::debt_bytes(&tables).unwrap(), 2_000 * 10 + 1_000 * 20);
        one.lost = false;
        two.administrative = Administrative::Alive;
        set(&mut tables, &one);
        for _ in 0..3 {
            step(&mut tables, |overlay| recount(overlay).unwrap());
        }
        set(&mut tables, &two);
        count(&mut tables);
        assert_eq!(query::debts(&tables).unwrap(), 0);
        assert_eq!(debts(&tables), 0);
        assert_eq!(query::debt_bytes(&tables).unwrap(), 0);
    }

    fn debts(tables: &MemoryTables) -> u64 {
        let rows = tables.range(Table::Debts, &[], None, usize::MAX).unwrap();
        rows.len() as u64
    }

    #[test]
    fn copies_on_a_member_that_was_removed_do_not_count_until_its_number_is_used_again() {
        let mut tables = tables(1_200);
        step(&mut tables, |overlay| {
            overlay.batch.delete(Table::Nodes, &NodeId(1).key());
            member_removed(overlay, NodeId(1)).unwrap();
        });
        count(&mut tables);
        assert_eq!(query::debts(&tables).unwrap(), 800);
        assert_eq!(query::surplus_after(&tables, None, 9).unwrap(), []);
        set(&mut tables, &member(2));
        assert!(!discounts(&tables).unwrap().relies_on(NodeId(1)));
        set(&mut tables, &member(1));
        assert!(discounts(&tables).unwrap().relies_on(NodeId(1)));
    }

    #[test]
    fn an_object_without_any_copy_stands_behind_all_others() {
        let object = ObjectRecord {
            size: 1,
            copies: Vec::new(),
            references: 1,
            want: 2,
            owed: None,
            over: false,
        };
        let none = Discounts::default();
        assert_eq!(none.judge(&object), (Some(ObjectRecord::LOST), false));
        let mut lost = member(0);
        lost.lost = true;
        let discounts = Discounts::of(&[lost], &BTreeSet::new());
        let copies = vec![copy(0)];
        let object = ObjectRecord { copies, ..object };
        assert_eq!(discounts.judge(&object), (Some(0), false));
        assert_eq!(none.judge(&object), (Some(1), false));
    }
}

//! Members come and go: who may, and what of a node that is gone for good stops counting.

use super::check::{TEXT_BYTES, no, unknown};
use super::{counting, ledger, query};
use crate::base::digest::Sha256;
use crate::base::id::{Boot, NodeId, Version};
use crate::base::limit::NODES;
use crate::base::table::{Overlay, Table, TableError, Tables};
use crate::wire::command::{Code, Operation, Reply};
use crate::wire::record::{Administrative, Former, NodeRecord, Sweep, to_row};

/// Objects that one [`Operation::DropCopies`] looks at.
const SWEEP_PAGE: usize = 1_024;

/// Why a node cannot become a member.
pub(super) fn refuse_add(
    tables: &dyn Tables,
    node: NodeId,
    name: &str,
    address: &str,
) -> Result<Option<Reply>, TableError> {
    let malformed = node.0 >= NODES
        || address.is_empty()
        || [name, address].iter().any(|text| text.len() > TEXT_BYTES);
    Ok(if malformed {
        no(Code::Invalid, format!("malformed addition of node {node}"))
    } else if query::node(tables, node)?.is_some() {
        no(Code::Conflict, format!("node {node} is a member already"))
    } else if query::sweep(tables, node)?.is_some() {
        // Or copies of before could count for what comes under this number now.
        let message = format!("copies of the removed node {node} are still being forgotten");
        no(Code::Unavailable, message)
    } else {
        None
    })
}

/// The catalog cannot go on without a majority of those who vote, and their number is kept (rule R14).
pub(super) fn refuse_remove(
    tables: &dyn Tables,
    node: NodeId,
    force: bool,
) -> Result<Option<Reply>, TableError> {
    if query::node(tables, node)?.is_none() {
        return Ok(unknown(node));
    }
    let Some(head) = super::applied(tables)? else {
        return Ok(None);
    };
    if !head.voters.contains(&node.raft()) {
        return Ok(None);
    }
    let members = query::nodes(tables)?;
    let others = || members.iter().filter(|member| member.id != node);
    let votes = |member: &NodeRecord| head.voters.contains(&member.id.raft());
    if others().any(|member| !votes(member) && is_spare(member)) {
        return Ok(None);
    }
    let (left, needed) = (head.voters.len() - 1, (head.voters.len() - 1) / 2 + 1);
    let living = others()
        .filter(|member| votes(member) && member.alive)
        .count();
    Ok(if living < needed {
        let message =
            format!("without node {node} {living} of {left} voters are alive, {needed} are needed");
        no(Code::Conflict, message)
    } else if force {
        None
    } else {
        let message = format!("node {node} votes, and no living node can take over its vote");
        no(Code::Conflict, message)
    })
}

/// Whether a node may take over a vote.
pub fn is_spare(record: &NodeRecord) -> bool {
    let stays = matches!(
        record.administrative,
        Administrative::Alive | Administrative::Readonly
    );
    record.manages && record.alive && stays
}

/// Why a page of copies is not dropped: it is not the next one.
pub(super) fn refuse_page(
    tables: &dyn Tables,
    node: NodeId,
    after: Option<&Sha256>,
) -> Result<Option<Reply>, TableError> {
    let sweep = query::sweep(tables, node)?;
    if sweep.is_some_and(|sweep| sweep.after.as_ref() == after) {
        return Ok(None);
    }
    let message = format!("no such page of copies of node {node} is to be dropped");
    Ok(no(Code::Conflict, message))
}

/// Carries out an [`Operation::Add`] that was not refused.
pub(super) fn add(tables: &mut Overlay<'_>, operation: &Operation) -> Result<(), TableError> {
    let Operation::Add {
        node,
        name,
        address,
        stores,
        manages,
    } = operation
    else {
        return Ok(());
    };
    let record = NodeRecord {
        id: *node,
        name: name.clone(),
        address: address.clone(),
        manages: *manages,
        stores: *stores,
        administrative: Administrative::Alive,
        alive: false,
        dirs: Vec::new(),
        boot: Boot(0),
        knows: 1,
        lost: false,
        gone: Vec::new(),
    };
    tables.batch.put(Table::Nodes, &node.key(), to_row(&record));
    let key = query::former_key(*node);
    tables.batch.delete(Table::Meta, &key);
    counting::member_changed(tables)
}

/// Carries out an [`Operation::Remove`] that was not refused.
pub(super) fn remove(
    tables: &mut Overlay<'_>,
    removed: Version,
    node: NodeId,
    force: bool,
) -> Result<(), TableError> {
    let Some(record) = query::node(tables, node)? else {
        return Ok(());
    };
    let former = Former {
        id: node,
        name: record.name,
        removed,
        force,
    };
    tables.batch.delete(Table::Nodes, &node.key());
    let key = query::former_key(node);
    tables.batch.put(Table::Meta, &key, to_row(&former));
    if query::sweep(tables, node)?.is_none() {
        begin_sweep(tables, node);
    }
    counting::member_removed(tables, node)
}

/// An operator's word on a node has changed: what is dead for good has no copies.
pub(super) fn administered(
    tables: &mut Overlay<'_>,
    node: NodeId,
    before: Administrative,
    after: Administrative,
) {
    let dead = |state| state == Administrative::Dead;
    match (dead(before), dead(after)) {
        (false, true) => begin_sweep(tables, node),
        (true, false) => tables.batch.delete(Table::Meta, &query::sweep_key(node)),
        _ => {}
    }
}

fn begin_sweep(tables: &mut Overlay<'_>, node: NodeId) {
    let sweep = Sweep { node, after: None };
    let key = query::sweep_key(node);
    tables.batch.put(Table::Meta, &key, to_row(&sweep));
}

/// A page of the sweep; the last one ends it.
pub(super) fn drop_copies(
    tables: &mut Overlay<'_>,
    node: NodeId,
    after: Option<&Sha256>,
) -> Result<(), TableError> {
    let page = query::objects_after(tables, after, SWEEP_PAGE)?;
    for (sha256, object) in &page {
        if object.copies.iter().any(|copy| copy.node == node) {
            ledger::change_copies(tables, sha256, |copies| {
                copies.retain(|copy| copy.node != node);
            })?;
        }
    }
    let key = query::sweep_key(node);
    match page.last() {
        Some((last, _)) if page.len() == SWEEP_PAGE => {
            let after = Some(*last);
            tables
                .batch
                .put(Table::Meta, &key, to_row(&Sweep { node, after }));
        }
        _ => tables.batch.delete(Table::Meta, &key),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;
    use crate::base::id::{ClusterId, DirId, OperationId};
    use crate::base::path::FilePath;
    use crate::base::table::MemoryTables;
    use crate::base::time::Wall;
    use crate::core::catalog::{apply, born, set_applied};
    use crate::wire::command::{Birth, BirthMember, Command, Expect, PlacedPart, Put};
    use crate::wire::peer::SnapshotHead;
    use crate::wire::record::{Copy, Mode, Part};

    struct Catalog {
        tables: MemoryTables,
        index: u64,
    }

    impl Catalog {
        /// Members 0 to 3, of whom these vote.
        fn new(voters: &[u16]) -> Self {
            let member = |id: u16| BirthMember {
                id: NodeId(id),
                name: format!("n{id}"),
                address: format!("host{id}:1"),
                votes: voters.contains(&id),
                stores: true,
                manages: true,
            };
            let mut tables = MemoryTables::default();
            let mut batch = born(&Birth {
                cluster: ClusterId(1),
                members: (0..4).map(member).collect(),
                mode: Mode::Splay,
                time: Wall(1),
            });
            let head = SnapshotHead {
                index: 1,
                term: 1,
                voters: voters.iter().map(|id| NodeId(*id).raft()).collect(),
                learners: Vec::new(),
            };
            set_applied(&mut batch, &head);
            tables.write(&batch);
            Self { tables, index: 1 }
        }

        fn run(&mut self, operation: Operation) -> Option<Code> {
            self.index += 1;
            let command = Command {
                v: 1,
                id: OperationId {
                    node: NodeId(0),
                    boot: Boot(1),
                    sequence: self.index,
                },
                operation,
            };
            let mut overlay = Overlay::new(&self.tables);
            let applied = apply(&mut overlay, self.index, &command).unwrap();
            let batch = overlay.batch;
            self.tables.write(&batch);
            match applied.reply {
                Reply::Done { .. } => None,
                Reply::Rejected { code, .. } => Some(code),
            }
        }

        fn add(&mut self, id: u16) -> Option<Code> {
            self.run(Operation::Add {
                node: NodeId(id),
                name: format!("n{id}"),
                address: format!("host{id}:2"),
                stores: true,
                manages: true,
            })
        }

        fn remove(&mut self, id: u16, force: bool) -> Option<Code> {
            let node = NodeId(id);
            self.run(Operation::Remove { node, force })
        }

        fn observe(&mut self, id: u16, alive: bool) {
            let observed = self.run(Operation::Observe {
                node: NodeId(id),
                alive,
                boot: Boot(0),
            });
            assert_eq!(observed, None);
        }

        fn put(&mut self, number: u64) {
            let bytes = number.to_be_bytes();
            let copy = |node| Copy {
                node: NodeId(node),
                dir: DirId(u64::from(node)),
            };
            let digest = sha256(&bytes);
            let put = self.run(Operation::Put(Put {
                upload: OperationId {
                    node: NodeId(0),
                    boot: Boot(1),
                    sequence: number,
                },
                path: FilePath::new(&format!("f{number}")).unwrap(),
                size: 8,
                sha256: digest,
                md5: None,
                strategy: "splay".to_owned(),
                class: "default".to_owned(),
                parts: vec![PlacedPart {
                    part: Part {
                        size: 8,
                        sha256: digest,
                    },
                    copies: vec![copy(1), copy(2)],
                }],
                want: 2,
                min: 2,
                expect: Expect::Any,
                owner: None,
                time: Wall(1),
            }));
            assert_eq!(put, None);
        }

        /// Drops pages until there is none; how many there were.
        fn sweep(&mut self, id: u16) -> usize {
            let mut pages = 0;
            while let Some(sweep) = query::sweep(&self.tables, NodeId(id)).unwrap() {
                let page = Operation::DropCopies {
                    node: NodeId(id),
                    after: sweep.after,
                };
                assert_eq!(self.run(page.clone()), None);
                assert_eq!(self.run(page), Some(Code::Conflict), "each page once");
                pages += 1;
            }
            pages
        }

        fn copies_on(&self, id: u16) -> usize {
            let objects = query::objects_after(&self.tables, None, usize::MAX).unwrap();
            let holds = |copies: &[Copy]| copies.iter().any(|copy| copy.node.0 == id);
            objects.iter().filter(|(_, o)| holds(&o.copies)).count()
        }
    }

    #[test]
    fn a_node_is_added_once_and_not_beyond_the_limit() {
        let mut catalog = Catalog::new(&[0, 1, 2]);
        assert_eq!(catalog.add(2), Some(Code::Conflict));
        assert_eq!(catalog.add(NODES), Some(Code::Invalid));
        assert_eq!(catalog.add(7), None);
        let record = query::node(&catalog.tables, NodeId(7)).unwrap().unwrap();
        assert_eq!(record.address, "host7:2");
        assert!(!record.alive && record.dirs.is_empty());
    }

    #[test]
    fn the_copies_of_a_removed_node_stop_counting_before_its_number_can_be_used_again() {
        let mut catalog = Catalog::new(&[0]);
        let files = 2 * SWEEP_PAGE as u64 + 5;
        for number in 1..=files {
            catalog.put(number);
        }
        assert_eq!(catalog.remove(2, false), None);
        assert_eq!(catalog.remove(2, false), Some(Code::NotFound));
        let former = query::former(&catalog.tables, NodeId(2)).unwrap().unwrap();
        assert!(former.removed.0 > files && !former.force);
        assert_eq!(catalog.add(2), Some(Code::Unavailable));
        assert_eq!(catalog.sweep(2), 3);
        assert_eq!(catalog.copies_on(2), 0);
        assert_eq!(catalog.copies_on(1), usize::try_from(files).unwrap());
        assert_eq!(query::debts(&catalog.tables).unwrap(), files);
        assert_eq!(catalog.add(2), None);
        assert_eq!(query::former(&catalog.tables, NodeId(2)).unwrap(), None);
    }

    #[test]
    fn the_copies_of_one_declared_dead_stop_counting_until_it_is_taken_back() {
        let mut catalog = Catalog::new(&[0]);
        catalog.put(1);
        let node = NodeId(1);
        let say = |state| Operation::Administer { node, state };
        assert_eq!(catalog.run(say(Administrative::Dead)), None);
        assert_eq!(catalog.run(say(Administrative::Alive)), None);
        assert_eq!(query::sweeps(&catalog.tables).unwrap(), []);
        assert_eq!(catalog.copies_on(1), 1);
        assert_eq!(catalog.run(say(Administrative::Dead)), None);
        assert_eq!(catalog.run(say(Administrative::Dead)), None);
        assert_eq!(catalog.sweep(1), 1);
        assert_eq!(catalog.copies_on(1), 0);
    }

    #[test]
    fn a_voter_is_removed_when_a_living_spare_can_take_over() {
        let mut catalog = Catalog::new(&[0, 1, 2]);
        catalog.observe(3, false);
        assert_eq!(catalog.remove(2, false), Some(Code::Conflict));
        catalog.observe(3, true);
        assert_eq!(catalog.remove(2, false), None);
        // Force reduces the voters, but not below what can decide.
        let mut catalog = Catalog::new(&[0, 1, 2]);
        catalog.observe(3, false);
        catalog.observe(1, false);
        assert_eq!(catalog.remove(2, true), Some(Code::Conflict));
        catalog.observe(1, true);
        assert_eq!(catalog.remove(2, true), None);
        let mut catalog = Catalog::new(&[0]);
        for id in 1..4 {
            catalog.observe(id, false);
        }
        assert_eq!(catalog.remove(0, true), Some(Code::Conflict));
    }
}

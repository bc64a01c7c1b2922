//! Copies are real: a put that is committed names copies that lie on disks, no copy that counts is collected, no copy counts that cannot, and after the faults every object is on as many nodes as it should be.

use std::collections::{BTreeMap, BTreeSet};

use momo::base::digest::Sha256;
use momo::base::id::{DirId, NodeId};
use momo::base::table::MemoryTables;
use momo::core::catalog::query;
use momo::wire::command::{Operation, Reply};
use momo::wire::record::{Administrative, Copy, ObjectRecord};

use super::truth::{Step, Truth};
use crate::shelves::Shelves;

/// All machines' data directories.
pub type Disks = BTreeMap<NodeId, Shelves>;

/// What became of copies.
#[derive(Default)]
pub struct Copies {
    /// Taken by a fault, and not made again there since.
    destroyed: BTreeSet<(NodeId, DirId, Sha256)>,
    /// The last whole copy was taken by a fault, or collected while a fault had taken those that count.
    gone: BTreeSet<Sha256>,
}

fn object(tables: &MemoryTables, sha256: &Sha256) -> Result<Option<ObjectRecord>, String> {
    query::object(tables, sha256).map_err(|error| error.to_string())
}

fn lies(disks: &Disks, copy: Copy, sha256: &Sha256) -> bool {
    let file = disks
        .get(&copy.node)
        .and_then(|shelves| shelves.file(copy.dir, sha256));
    file.is_some_and(|file| file.whole)
}

fn anywhere(disks: &Disks, sha256: &Sha256) -> bool {
    disks.values().any(|shelves| shelves.serves(sha256))
}

impl Copies {
    /// A copy is durable.
    pub fn placed(&mut self, node: NodeId, dir: DirId, sha256: Sha256) {
        self.destroyed.remove(&(node, dir, sha256));
        self.gone.remove(&sha256);
    }

    /// A fault took a copy; it is off the disk already.
    pub fn destroyed(&mut self, disks: &Disks, node: NodeId, dir: DirId, sha256: Sha256) {
        self.destroyed.insert((node, dir, sha256));
        if !anywhere(disks, &sha256) {
            self.gone.insert(sha256);
        }
    }

    /// The collector is about to remove a copy.
    pub fn removed(truth: &Truth, copy: Copy, sha256: &Sha256) -> Result<(), String> {
        match object(&truth.tables, sha256)? {
            Some(object) if object.copies.contains(&copy) => Err(format!(
                "node {} collects its copy of {sha256} in {}, which counts: {object:?}",
                copy.node, copy.dir
            )),
            _ => Ok(()),
        }
    }

    /// It is removed. Where it was the last whole one, those that count were taken by faults.
    pub fn collected(&mut self, disks: &Disks, sha256: Sha256) {
        if !anywhere(disks, &sha256) {
            self.gone.insert(sha256);
        }
    }

    /// A command was applied for the first time.
    pub fn applied(&self, truth: &Truth, disks: &Disks, step: &Step) -> Result<(), String> {
        for (sha256, before) in &step.before {
            let Some(after) = object(&truth.tables, sha256)? else {
                continue;
            };
            for copy in &after.copies {
                let known = before
                    .as_ref()
                    .is_some_and(|before| before.copies.contains(copy));
                if !known {
                    self.counts(truth, disks, *copy, sha256)?;
                }
            }
        }
        let (Operation::Put(put), Reply::Done { .. }) = (&step.operation, &step.reply) else {
            return Ok(());
        };
        for placed in &put.parts {
            let nodes = query::distinct_nodes(&placed.copies);
            if nodes < usize::from(put.min) {
                return Err(format!(
                    "a put on {nodes} nodes is kept, {} are promised",
                    put.min
                ));
            }
        }
        Ok(())
    }

    /// A copy that begins to count is there, or was until a fault took it; and it is where its node says that it keeps objects.
    fn counts(
        &self,
        truth: &Truth,
        disks: &Disks,
        copy: Copy,
        sha256: &Sha256,
    ) -> Result<(), String> {
        let key = (copy.node, copy.dir, *sha256);
        if !lies(disks, copy, sha256) && !self.destroyed.contains(&key) {
            return Err(format!(
                "{copy:?} of {sha256} is counted and was never there"
            ));
        }
        let member = query::node(&truth.tables, copy.node).map_err(|error| error.to_string())?;
        let serves = |member: &momo::wire::record::NodeRecord| {
            member.dirs.is_empty() || member.dirs.contains(&copy.dir)
        };
        if !member.as_ref().is_some_and(serves) {
            return Err(format!(
                "{copy:?} of {sha256} is counted, and its node keeps objects elsewhere: {member:?}"
            ));
        }
        Ok(())
    }

    /// What is not as planned; `None` when all is.
    pub fn missing(&self, truth: &Truth, disks: &Disks) -> Result<Option<String>, String> {
        let members = query::nodes(&truth.tables).map_err(|error| error.to_string())?;
        let open = |m: &&momo::wire::record::NodeRecord| {
            m.stores && m.administrative == Administrative::Alive && !m.dirs.is_empty()
        };
        let open = members.iter().filter(open).count();
        let objects = query::objects_after(&truth.tables, None, usize::MAX);
        for (sha256, object) in objects.map_err(|error| error.to_string())? {
            let absent = object
                .copies
                .iter()
                .find(|copy| !lies(disks, **copy, &sha256));
            if let Some(absent) = absent {
                return Ok(Some(format!(
                    "{sha256} is counted and not whole: {absent:?}"
                )));
            }
            let wanted = usize::from(object.want).min(open);
            if query::distinct_nodes(&object.copies) < wanted && !self.gone.contains(&sha256) {
                return Ok(Some(format!("{sha256} has too few copies: {object:?}")));
            }
        }
        Ok(None)
    }

    /// Objects of files that faults have taken.
    pub fn gone(&self, truth: &Truth) -> Result<u64, String> {
        let mut gone = 0;
        for sha256 in &self.gone {
            gone += u64::from(object(&truth.tables, sha256)?.is_some());
        }
        Ok(gone)
    }

    /// What lies on disks and does not count; `None` when nothing does.
    pub fn litter(truth: &Truth, disks: &Disks) -> Result<Option<String>, String> {
        for (node, shelves) in disks {
            for (dir, sha256, file) in shelves.list() {
                let copy = Copy { node: *node, dir };
                let counted = object(&truth.tables, &sha256)?;
                if !counted.is_some_and(|object| object.copies.contains(&copy)) {
                    return Ok(Some(format!(
                        "{sha256} lies uncounted in {copy:?}: {file:?}"
                    )));
                }
            }
        }
        Ok(None)
    }
}

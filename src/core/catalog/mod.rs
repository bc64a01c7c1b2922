//! The catalog as a state machine: commands in, table changes out; `apply` changes, `check` foresees, `query` reads.

pub mod apply;
pub mod check;
pub mod counting;
mod ledger;
pub mod members;
#[cfg(test)]
mod model;
mod once;
pub mod query;

use crate::base::digest::Sha256;
use crate::base::id::{ClusterId, OperationId};
use crate::base::path::FilePath;
use crate::base::table::{Batch, Table, TableError, Tables};
use crate::wire::command::{Birth, Reply};
use crate::wire::peer::SnapshotHead;
use crate::wire::record::{ModeRecord, NodeRecord, from_row, to_row};

pub use apply::apply;
pub use check::check;

/// What applying one command answered, and what it means for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer, the same on every node.
    pub reply: Reply,
    /// What the node should do about it; empty for a command that was applied before.
    pub notes: Vec<Note>,
}

/// A consequence of a command for what lies outside the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A name changed: bring the visible tree in line.
    Touched(FilePath),
    /// An object lost its last reference, or a copy of it was dropped: its holder looks whether the bytes can go.
    Unreferenced(Sha256),
    /// An upload was put, rejected or abandoned: its pins may go.
    Settled(OperationId),
    /// The mode changed.
    Mode,
}

/// Rows of the table `meta`.
pub(super) mod meta {
    /// Where the tables stand: a [`super::SnapshotHead`].
    pub const APPLIED: &[u8] = b"applied";
    /// The birth certificate.
    pub const BIRTH: &[u8] = b"birth";
    /// The last change of mode.
    pub const MODE: &[u8] = b"mode";
    /// How many rows the table `debts` has.
    pub const DEBTS: &[u8] = b"debts";
    /// How many bytes the copies have that these are short of.
    pub const DEBT_BYTES: &[u8] = b"debt_bytes";
    /// Which copies do not count: [`super::counting::Discounts`].
    pub const DISCOUNTS: &[u8] = b"discounts";
    /// How far the counting anew has come; absent when nothing is to be counted.
    pub const RECOUNT: &[u8] = b"recount";
    /// Before a node's number: a `Former`.
    pub const FORMER: &[u8] = b"former/";
    /// Before a node's number: a `Sweep`.
    pub const SWEEP: &[u8] = b"sweep/";
}

/// The rows that a cluster starts from: the same on every member, whatever its own role.
pub fn born(birth: &Birth) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Meta, meta::BIRTH, to_row(birth));
    batch.put(Table::Meta, meta::DEBTS, to_row(&0_u64));
    let mode = ModeRecord {
        old: birth.mode,
        new: birth.mode,
        timestamp: birth.time.0,
        cause: "birth of the cluster".to_owned(),
    };
    put_mode(&mut batch, &mode);
    for member in &birth.members {
        let record = NodeRecord {
            id: member.id,
            name: member.name.clone(),
            address: member.address.clone(),
            manages: member.manages,
            stores: member.stores,
            administrative: crate::wire::record::Administrative::Alive,
            alive: true,
            dirs: Vec::new(),
            boot: crate::base::id::Boot(0),
            knows: 1,
            lost: false,
            gone: Vec::new(),
        };
        batch.put(Table::Nodes, &member.id.key(), to_row(&record));
    }
    batch
}

/// What makes this catalog that of another cluster, with the same birth.
pub fn renamed(tables: &dyn Tables, cluster: ClusterId) -> Result<Batch, TableError> {
    let mut batch = Batch::default();
    if let Some(birth) = query::birth(tables)? {
        let birth = Birth { cluster, ..birth };
        batch.put(Table::Meta, meta::BIRTH, to_row(&birth));
    }
    Ok(batch)
}

/// Where the tables stand; `None` before the first [`set_applied`].
pub fn applied(tables: &dyn Tables) -> Result<Option<SnapshotHead>, TableError> {
    tables
        .get(Table::Meta, meta::APPLIED)?
        .map(|row| from_row(&row))
        .transpose()
}

/// Says in `batch` where the tables stand once it is written.
pub fn set_applied(batch: &mut Batch, head: &SnapshotHead) {
    batch.put(Table::Meta, meta::APPLIED, to_row(head));
}

/// Makes `record` the mode in force and the newest of the history.
fn put_mode(batch: &mut Batch, record: &ModeRecord) {
    let row = to_row(record);
    batch.put(
        Table::Modes,
        &query::mode_key(record.timestamp),
        row.clone(),
    );
    batch.put(Table::Meta, meta::MODE, row);
}

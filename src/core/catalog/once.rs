//! Once (rules R4 and R5): replies to commands that may come again, and the fates of uploads; both bounded.
//!
//! Both tables hold, beside their rows by operation id, one row per node under its number: the latest start of the node
//! and how far it has come. Rows that fall out of the window go with the command that pushes them out; rows of earlier
//! starts go a few hundred with each command.

use serde::{Deserialize, Serialize};

use crate::base::id::{Boot, NodeId, OperationId, Version};
use crate::base::limit::REPLIES_KEPT;
use crate::base::table::{Overlay, Table, TableError, Tables};
use crate::wire::command::{Code, Reply};
use crate::wire::record::{from_row, to_row};

/// Fates of uploads that were put are kept for so many later uploads of the same start.
const FATES_KEPT: u64 = 4 * REPLIES_KEPT;
/// Of one start, so many uploads older than that are remembered as given up one by one; beyond it, older ones count as
/// given up together.
const GIVEN_UP_KEPT: u64 = 65_536;
/// Rows that one command removes at most beyond its own.
const SWEEP: usize = 256;
/// Sequences that one command looks at, at most, to remove what fell out of the window.
const STEPS: u64 = 64;

/// How far a node has come with its commands (table `replies`, under the node's number).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Commands {
    /// Its latest start.
    boot: Boot,
    /// The greatest sequence of that start.
    greatest: u64,
    /// There may be rows of earlier starts or below the window.
    debris: bool,
}

/// Whether a command is to be carried out.
pub(super) enum Admission {
    /// It came for the first time.
    New,
    /// It did not: this is the answer, and nothing changes.
    Answered(Reply),
}

/// The latest start of `node` that a command is known of.
pub(super) fn latest_boot(tables: &dyn Tables, node: NodeId) -> Result<Option<Boot>, TableError> {
    Ok(commands(tables, node)?.map(|commands| commands.boot))
}

/// Decides whether a command is new, and if so counts it.
pub(super) fn admit(tables: &mut Overlay<'_>, id: OperationId) -> Result<Admission, TableError> {
    let before = commands(tables, id.node)?;
    let mut after = Commands {
        boot: id.boot,
        greatest: id.sequence,
        debris: false,
    };
    if let Some(before) = before {
        if id.boot < before.boot {
            let (old, new) = (id.boot.0, before.boot.0);
            return Ok(stale(format!(
                "start {old} of node {} is over: it is at {new}",
                id.node
            )));
        }
        if id.boot > before.boot {
            after.debris = true;
        } else {
            if id.sequence < before.greatest.saturating_sub(REPLIES_KEPT) {
                return Ok(stale(format!(
                    "command {id} comes too late to be told from a repetition"
                )));
            }
            if id.sequence <= before.greatest
                && let Some(row) = tables.get(Table::Replies, &id.key())?
            {
                return Ok(Admission::Answered(from_row(&row)?));
            }
            after.greatest = id.sequence.max(before.greatest);
            after.debris = before.debris || push_out(tables, id, before.greatest, after.greatest);
        }
    }
    let low = OperationId {
        sequence: after.greatest.saturating_sub(REPLIES_KEPT),
        ..id
    };
    after.debris = after.debris && sweep(tables, Table::Replies, first_of(id.node), low)?.more;
    tables
        .batch
        .put(Table::Replies, &id.node.key(), to_row(&after));
    Ok(Admission::New)
}

/// Keeps the reply to a command that was admitted.
pub(super) fn answered(tables: &mut Overlay<'_>, id: OperationId, reply: &Reply) {
    tables.batch.put(Table::Replies, &id.key(), to_row(reply));
}

fn stale(message: String) -> Admission {
    Admission::Answered(Reply::Rejected {
        code: Code::Unavailable,
        message,
    })
}

fn commands(tables: &dyn Tables, node: NodeId) -> Result<Option<Commands>, TableError> {
    tables
        .get(Table::Replies, &node.key())?
        .map(|row| from_row(&row))
        .transpose()
}

/// Removes what falls out of the window when its upper end moves; true when that is too much for one command.
fn push_out(tables: &mut Overlay<'_>, id: OperationId, from: u64, to: u64) -> bool {
    if to - from > STEPS {
        return true;
    }
    for sequence in from.saturating_sub(REPLIES_KEPT)..to.saturating_sub(REPLIES_KEPT) {
        tables
            .batch
            .delete(Table::Replies, &OperationId { sequence, ..id }.key());
    }
    false
}

/// What became of an upload (table `abandoned`, under the upload's id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// It is this version of a file.
    Put(Version),
    /// It will never be put.
    Abandoned,
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be put.
    Open,
    /// It was put.
    Put(Version),
    /// It will never be put: abandoned, of an earlier start of its node, or of none of the members.
    Over,
    /// It claims a start of its node that the catalog has not heard of yet.
    Early,
}

/// How far a node has come with its uploads (table `abandoned`, under the node's number).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Uploads {
    /// The start.
    boot: Boot,
    /// The greatest sequence whose fate is recorded.
    greatest: u64,
    /// Below it, fates of uploads that were put are not kept.
    tail: u64,
    /// Below it nothing is kept, and all count as given up.
    floor: u64,
    /// Rows from `floor` to `tail`.
    kept: u64,
    /// There may be rows of earlier starts.
    debris: bool,
}

/// Where `upload` stands.
pub(super) fn standing(tables: &dyn Tables, upload: OperationId) -> Result<Standing, TableError> {
    if let Some(row) = tables.get(Table::Abandoned, &upload.key())? {
        return Ok(match from_row(&row)? {
            Fate::Put(version) => Standing::Put(version),
            Fate::Abandoned => Standing::Over,
        });
    }
    if tables.get(Table::Nodes, &upload.node.key())?.is_none() {
        return Ok(Standing::Over);
    }
    let Some(latest) = latest_boot(tables, upload.node)? else {
        return Ok(Standing::Early);
    };
    Ok(match upload.boot.cmp(&latest) {
        std::cmp::Ordering::Less => Standing::Over,
        std::cmp::Ordering::Greater => Standing::Early,
        std::cmp::Ordering::Equal => match uploads(tables, upload.node)? {
            Some(uploads) if uploads.boot == upload.boot && upload.sequence < uploads.floor => {
                Standing::Over
            }
            _ => Standing::Open,
        },
    })
}

/// Whether an upload may still be put. One that many later uploads of the same start have passed counts as settled:
/// its fate need not be remembered any more.
pub(super) fn is_pending(tables: &dyn Tables, upload: OperationId) -> Result<bool, TableError> {
    Ok(match standing(tables, upload)? {
        Standing::Put(_) | Standing::Over => false,
        Standing::Early => true,
        Standing::Open => uploads(tables, upload.node)?
            .is_none_or(|known| known.boot != upload.boot || upload.sequence >= known.tail),
    })
}

/// Records the fate of an upload that stands [`Standing::Open`].
pub(super) fn settle(
    tables: &mut Overlay<'_>,
    upload: OperationId,
    fate: Fate,
) -> Result<(), TableError> {
    let mut now = match uploads(tables, upload.node)? {
        Some(uploads) if uploads.boot == upload.boot => uploads,
        before => Uploads {
            boot: upload.boot,
            greatest: 0,
            tail: 0,
            floor: 0,
            kept: 0,
            debris: before.is_some(),
        },
    };
    tables
        .batch
        .put(Table::Abandoned, &upload.key(), to_row(&fate));
    now.greatest = now.greatest.max(upload.sequence);
    if upload.sequence < now.tail {
        now.kept += 1;
    }
    let at = |sequence| OperationId { sequence, ..upload };
    let low = now
        .greatest
        .saturating_sub(FATES_KEPT)
        .min(now.tail.saturating_add(STEPS));
    while now.tail < low {
        let key = at(now.tail).key();
        if let Some(row) = tables.get(Table::Abandoned, &key)? {
            match from_row(&row)? {
                Fate::Put(_) => tables.batch.delete(Table::Abandoned, &key),
                Fate::Abandoned => now.kept += 1,
            }
        }
        now.tail += 1;
    }
    if now.kept > GIVEN_UP_KEPT {
        let swept = sweep(tables, Table::Abandoned, at(now.floor), at(now.tail))?;
        now.kept = now.kept.saturating_sub(swept.rows);
        now.floor = match swept.last {
            Some(last) => last.saturating_add(1),
            None => now.tail,
        };
    }
    now.debris = now.debris && sweep(tables, Table::Abandoned, first_of(upload.node), at(0))?.more;
    tables
        .batch
        .put(Table::Abandoned, &upload.node.key(), to_row(&now));
    Ok(())
}

fn uploads(tables: &dyn Tables, node: NodeId) -> Result<Option<Uploads>, TableError> {
    tables
        .get(Table::Abandoned, &node.key())?
        .map(|row| from_row(&row))
        .transpose()
}

fn first_of(node: NodeId) -> OperationId {
    OperationId {
        node,
        boot: Boot(0),
        sequence: 0,
    }
}

/// What a sweep removed.
struct Swept {
    rows: u64,
    /// The sequence of the last row removed.
    last: Option<u64>,
    /// There may be more.
    more: bool,
}

/// Removes rows from `from` up to, not with, `to`; a bounded number.
fn sweep(
    tables: &mut Overlay<'_>,
    table: Table,
    from: OperationId,
    to: OperationId,
) -> Result<Swept, TableError> {
    let rows = tables.range(table, &from.key(), Some(&to.key()), SWEEP)?;
    for (key, _) in &rows {
        tables.batch.delete(table, key);
    }
    let last = rows
        .last()
        .and_then(|(key, _)| Some(u64::from_be_bytes(key.get(10..)?.try_into().ok()?)));
    Ok(Swept {
        rows: rows.len() as u64,
        last,
        more: rows.len() == SWEEP,
    })
}

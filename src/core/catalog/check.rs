//! Refusals: what is wrong with an operation, judged before it is proposed and judged again, by the same words, when it is applied.

use std::collections::BTreeSet;

use super::once::{Standing, standing};
use super::{counting, members, query};
use crate::base::canary::{self, Canary};
use crate::base::digest::EMPTY_SHA256;
use crate::base::id::NodeId;
use crate::base::limit::FILE_BYTES;
use crate::base::path::FilePath;
use crate::base::table::{TableError, Tables};
use crate::wire::command::{Code, Expect, Operation, PlacedPart, Put, Reply};
use crate::wire::record::{Administrative, Copy, NodeRecord};

/// Longest name, address, class, strategy or cause in a command, in bytes.
pub(super) const TEXT_BYTES: usize = 512;
/// Most data directories of a node.
const DIRS: usize = 256;

/// What is to be answered instead of proposing `operation`; `None` when it may be proposed.
///
/// The tables may be behind the log: what only they cannot know yet is left for applying to decide.
pub fn check(tables: &dyn Tables, operation: &Operation) -> Result<Option<Reply>, TableError> {
    if let Operation::Put(Put {
        path,
        expect: Expect::Version(expected),
        ..
    })
    | Operation::Delete {
        path,
        expect: Expect::Version(expected),
    } = operation
        && query::file(tables, path)?.is_none_or(|record| record.version < *expected)
    {
        return Ok(None);
    }
    if let Operation::Put(put) = operation {
        return match standing(tables, put.upload)? {
            Standing::Over => Ok(Some(given_up())),
            Standing::Put(_) => Ok(None),
            Standing::Open | Standing::Early => refusal(tables, operation),
        };
    }
    if let Operation::Abandon { upload } = operation
        && standing(tables, *upload)? == Standing::Early
    {
        return Ok(None);
    }
    refusal(tables, operation)
}

/// What is wrong with `operation`, given exactly these tables.
pub(super) fn refusal(
    tables: &dyn Tables,
    operation: &Operation,
) -> Result<Option<Reply>, TableError> {
    Ok(match operation {
        Operation::Put(put) => refuse_put(tables, put)?,
        Operation::Delete { path, expect } => refuse_delete(tables, path, *expect)?,
        Operation::AddCopy { sha256, size, copy } => match query::object(tables, sha256)? {
            None => no(Code::NotFound, format!("nothing refers to object {sha256}")),
            Some(object) if object.size != *size => {
                let known = object.size;
                no(
                    Code::Internal,
                    format!("object {sha256} has {known} bytes, not {size}"),
                )
            }
            Some(_) => refuse_copy(tables, copy)?,
        },
        Operation::DropCopy {
            sha256,
            copy,
            others,
        } => match query::object(tables, sha256)? {
            Some(object) if object.copies.contains(copy) => {
                let rest = living_others(tables, &object.copies, *copy)?;
                if rest < usize::from(*others) {
                    let message =
                        format!("object {sha256} has {rest} other copies, {others} are needed");
                    no(Code::Conflict, message)
                } else {
                    None
                }
            }
            _ => no(
                Code::NotFound,
                format!(
                    "no copy of object {sha256} on node {} in {}",
                    copy.node, copy.dir
                ),
            ),
        },
        Operation::Abandon { upload } => match standing(tables, *upload)? {
            Standing::Put(version) => no(
                Code::Conflict,
                format!("upload {upload} is already put, as version {version}"),
            ),
            Standing::Early => no(
                Code::Unavailable,
                format!(
                    "start {} of node {} is not known yet",
                    upload.boot.0, upload.node
                ),
            ),
            Standing::Open | Standing::Over => None,
        },
        Operation::SetMode {
            timestamp, cause, ..
        } => {
            let last = query::mode(tables)?.timestamp;
            if cause.len() > TEXT_BYTES {
                no(
                    Code::Invalid,
                    "the cause of a change of mode is too long".to_owned(),
                )
            } else if *timestamp <= last {
                let message =
                    format!("timestamp {timestamp} is not newer than the last change, {last}");
                no(Code::Conflict, message)
            } else {
                None
            }
        }
        Operation::Register {
            node,
            name,
            address,
            dirs,
            boot,
            ..
        } => {
            let long = [name, address].iter().any(|text| text.len() > TEXT_BYTES);
            match query::node(tables, *node)? {
                None => unknown(*node),
                Some(_) if long || address.is_empty() || dirs.len() > DIRS => no(
                    Code::Invalid,
                    format!("malformed registration of node {node}"),
                ),
                Some(record) => refuse_boot(&record, *boot < record.boot, boot.0),
            }
        }
        Operation::Observe { node, boot, .. } | Operation::Compared { node, boot } => {
            match query::node(tables, *node)? {
                None => unknown(*node),
                Some(record) => refuse_boot(&record, *boot != record.boot, boot.0),
            }
        }
        Operation::GiveUp { node, boot } => match query::node(tables, *node)? {
            None => unknown(*node),
            Some(record) if record.alive => no(Code::Conflict, format!("node {node} answers")),
            Some(record) if record.administrative == Administrative::Down => {
                let message = format!("node {node} is known to be away for a while");
                no(Code::Conflict, message)
            }
            Some(record) => refuse_boot(&record, *boot != record.boot, boot.0),
        },
        Operation::Recount if counting::is_recounting(tables)? => None,
        Operation::Recount => no(Code::Conflict, "nothing is to be counted".to_owned()),
        Operation::Administer { node, .. } => match query::node(tables, *node)? {
            None => unknown(*node),
            Some(_) => None,
        },
        Operation::Add {
            node,
            name,
            address,
            ..
        } => members::refuse_add(tables, *node, name, address)?,
        Operation::Remove { node, force } => members::refuse_remove(tables, *node, *force)?,
        Operation::DropCopies { node, after } => {
            members::refuse_page(tables, *node, after.as_ref())?
        }
    })
}

/// The answer to a put whose upload was given up.
pub(super) fn given_up() -> Reply {
    Reply::Rejected {
        code: Code::Conflict,
        message: "the upload was given up before it was put".to_owned(),
    }
}

/// The copies that count: on members that are not declared dead, in directories that these have in service (rule R9), sorted, each once.
pub(super) fn counted(tables: &dyn Tables, part: &PlacedPart) -> Result<Vec<Copy>, TableError> {
    let mut copies = BTreeSet::new();
    for copy in &part.copies {
        // A member that has not registered yet has said nothing of its directories.
        let counts = |record: NodeRecord| {
            record.administrative != Administrative::Dead
                && (record.dirs.is_empty() || in_service(&record, copy))
        };
        if query::node(tables, copy.node)?.is_some_and(counts) {
            copies.insert(*copy);
        }
    }
    Ok(copies.into_iter().collect())
}

/// Whether the member has the copy's directory in service.
fn in_service(record: &NodeRecord, copy: &Copy) -> bool {
    canary::is(Canary::CountStaleCopy) || record.dirs.contains(&copy.dir)
}

/// A refusal, in the form in which judgements are passed on.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn no(code: Code, message: String) -> Option<Reply> {
    Some(Reply::Rejected { code, message })
}

pub(super) fn unknown(node: NodeId) -> Option<Reply> {
    no(Code::NotFound, format!("no node {node} in this cluster"))
}

fn refuse_boot(record: &NodeRecord, void: bool, boot: u64) -> Option<Reply> {
    let (id, registered) = (record.id, record.boot.0);
    let message = || format!("node {id} is registered with start {registered}, this is {boot}");
    void.then(message)
        .and_then(|message| no(Code::Conflict, message))
}

fn refuse_put(tables: &dyn Tables, put: &Put) -> Result<Option<Reply>, TableError> {
    if let Some(why) = malformed(put) {
        return Ok(no(Code::Invalid, format!("'{}': {why}", put.path)));
    }
    if let Some(message) = query::name_conflict(tables, &put.path, put.expect)? {
        return Ok(no(Code::Conflict, message));
    }
    for placed in &put.parts {
        let part = &placed.part;
        let have = query::distinct_nodes(&counted(tables, placed)?);
        if have < usize::from(put.min) {
            let message = format!("{have} of {} copies of '{}' were made", put.min, put.path);
            return Ok(no(Code::Unavailable, message));
        }
        if let Some(object) = query::object(tables, &part.sha256)?
            && object.size != part.size
        {
            let (sha256, size, known) = (part.sha256, part.size, object.size);
            let message = format!("object {sha256} has {known} bytes, not {size}");
            return Ok(no(Code::Internal, message));
        }
    }
    Ok(None)
}

fn malformed(put: &Put) -> Option<&'static str> {
    let parts = || put.parts.iter().map(|placed| placed.part);
    let total = parts().try_fold(0_u64, |sum, part| sum.checked_add(part.size));
    let sizes: BTreeSet<_> = parts().map(|part| (part.sha256, part.size)).collect();
    let objects: BTreeSet<_> = parts().map(|part| part.sha256).collect();
    if put.size > FILE_BYTES {
        Some("larger than a file may be")
    } else if total != Some(put.size) {
        Some("the sizes of the parts do not add up")
    } else if parts().any(|part| part.size == 0) {
        Some("a part is empty")
    } else if put.parts.is_empty() && put.sha256 != EMPTY_SHA256 {
        Some("the digest is not that of an empty file")
    } else if let [only] = put.parts.as_slice()
        && only.part.sha256 != put.sha256
    {
        Some("the digests of the file and of its only part differ")
    } else if sizes.len() != objects.len() {
        Some("one object with two sizes")
    } else if put.want == 0 || put.min == 0 {
        Some("no copies are asked for")
    } else if [&put.strategy, &put.class]
        .iter()
        .any(|text| text.len() > TEXT_BYTES)
        || put
            .owner
            .as_ref()
            .is_some_and(|owner| owner.len() > TEXT_BYTES)
    {
        Some("a strategy, class or owner is too long")
    } else {
        None
    }
}

fn refuse_delete(
    tables: &dyn Tables,
    path: &FilePath,
    expect: Expect,
) -> Result<Option<Reply>, TableError> {
    let Some(record) = query::file(tables, path)? else {
        return Ok(no(Code::NotFound, format!("no file '{path}'")));
    };
    let unexpected = query::unexpected(path, Some(&record), expect);
    Ok(unexpected.and_then(|message| no(Code::Conflict, message)))
}

fn refuse_copy(tables: &dyn Tables, copy: &Copy) -> Result<Option<Reply>, TableError> {
    Ok(match query::node(tables, copy.node)? {
        None => unknown(copy.node),
        Some(record) if record.administrative == Administrative::Dead => no(
            Code::Conflict,
            format!("node {} is declared dead", copy.node),
        ),
        Some(record) if !in_service(&record, copy) => {
            let message = format!(
                "node {} has no directory {} in service",
                copy.node, copy.dir
            );
            no(Code::Conflict, message)
        }
        Some(_) => None,
    })
}

/// Distinct living nodes that hold a copy other than `copy` that counts.
fn living_others(tables: &dyn Tables, copies: &[Copy], copy: Copy) -> Result<usize, TableError> {
    let discounts = counting::discounts(tables)?;
    let others: Vec<Copy> = copies
        .iter()
        .filter(|other| **other != copy)
        .copied()
        .collect();
    let mut living = 0;
    for holder in discounts.counted(&others) {
        let lives = |record: NodeRecord| record.alive;
        living += usize::from(query::node(tables, holder)?.is_some_and(lives));
    }
    Ok(living)
}

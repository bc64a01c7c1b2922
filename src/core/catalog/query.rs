//! Reading the catalog: rows as values, and the keys they lie under.

pub use super::counting::{Discounts, discounts, is_recounting};
use super::meta;
use crate::base::digest::Sha256;
use crate::base::id::{Boot, ClusterId, NodeId, OperationId, Version};
use crate::base::limit::{NODES, VERSIONS_KEPT};
use crate::base::path::FilePath;
use crate::base::table::{Row, Table, TableError, Tables};
use crate::wire::command::{Birth, Expect};
use crate::wire::record::{
    Administrative, Copy, FileRecord, Former, Mode, ModeRecord, NodeRecord, ObjectRecord, Sweep,
    from_row,
};
use serde::de::DeserializeOwned;

/// The newest version of a file.
pub fn file(tables: &dyn Tables, path: &FilePath) -> Result<Option<FileRecord>, TableError> {
    value(tables, Table::Files, path.as_str().as_bytes())
}

/// Earlier versions of a file that are kept, newest first; at most [`VERSIONS_KEPT`].
pub fn history(tables: &dyn Tables, path: &FilePath) -> Result<Vec<FileRecord>, TableError> {
    let rows = history_rows(tables, path)?;
    rows.iter().rev().map(|(_, row)| from_row(row)).collect()
}

/// One version of a file: the newest or one that is kept.
pub fn version(
    tables: &dyn Tables,
    path: &FilePath,
    version: Version,
) -> Result<Option<FileRecord>, TableError> {
    match file(tables, path)? {
        Some(record) if record.version == version => Ok(Some(record)),
        Some(_) => value(tables, Table::History, &history_key(path, version)),
        None => Ok(None),
    }
}

/// Where an object lies; `None` when nothing refers to it.
pub fn object(tables: &dyn Tables, sha256: &Sha256) -> Result<Option<ObjectRecord>, TableError> {
    value(tables, Table::Objects, &sha256.0)
}

/// A member.
pub fn node(tables: &dyn Tables, id: NodeId) -> Result<Option<NodeRecord>, TableError> {
    value(tables, Table::Nodes, &id.key())
}

/// All members, by id.
pub fn nodes(tables: &dyn Tables) -> Result<Vec<NodeRecord>, TableError> {
    let rows = tables.range(Table::Nodes, &[], None, NODES.into())?;
    rows.iter().map(|(_, row)| from_row(row)).collect()
}

/// The last change of mode; mode none since the epoch for a catalog that is not born.
pub fn mode(tables: &dyn Tables) -> Result<ModeRecord, TableError> {
    Ok(
        value(tables, Table::Meta, meta::MODE)?.unwrap_or_else(|| ModeRecord {
            old: Mode::None,
            new: Mode::None,
            timestamp: 0,
            cause: String::new(),
        }),
    )
}

/// Changes of mode, newest first, at most `limit`; the last one of all is the birth of the cluster.
pub fn mode_history(tables: &dyn Tables, limit: usize) -> Result<Vec<ModeRecord>, TableError> {
    let rows = tables.range(Table::Modes, &[], None, limit)?;
    rows.iter().map(|(_, row)| from_row(row)).collect()
}

/// At most `limit` files whose path begins with `prefix` and comes after `after`, by name (bytes).
pub fn list(
    tables: &dyn Tables,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<FileRecord>, TableError> {
    let mut behind = after.as_bytes().to_vec();
    if !after.is_empty() {
        behind.push(0);
    }
    let from = behind.as_slice().max(prefix.as_bytes());
    let to = successor(prefix.as_bytes());
    let rows = tables.range(Table::Files, from, to.as_deref(), limit)?;
    rows.iter().map(|(_, row)| from_row(row)).collect()
}

/// The nodes that hold each part of a file, by part, each once, in order of id.
///
/// A copy in a directory that its node no longer has in service counts for nothing (rule R9), nor does one on a node
/// that an operator declared dead.
pub fn holders(tables: &dyn Tables, record: &FileRecord) -> Result<Vec<Vec<NodeId>>, TableError> {
    let members = nodes(tables)?;
    let serves = |copy: &&Copy| {
        members.iter().any(|member| {
            member.id == copy.node
                && member.administrative != Administrative::Dead
                && (member.dirs.is_empty() || member.dirs.contains(&copy.dir))
        })
    };
    let mut parts = Vec::with_capacity(record.parts.len());
    for part in &record.parts {
        let copies = object(tables, &part.sha256)?.map_or_else(Vec::new, |object| object.copies);
        let mut holding: Vec<NodeId> = copies.iter().filter(serves).map(|copy| copy.node).collect();
        holding.dedup();
        parts.push(holding);
    }
    Ok(parts)
}

/// Whether an upload may still be put, and what was acknowledged for it must stay (rule R5).
pub fn is_pending(tables: &dyn Tables, upload: OperationId) -> Result<bool, TableError> {
    super::once::is_pending(tables, upload)
}

/// How many objects have fewer copies than wanted.
pub fn debts(tables: &dyn Tables) -> Result<u64, TableError> {
    Ok(value(tables, Table::Meta, meta::DEBTS)?.unwrap_or(0))
}

/// Bytes of the copies that these objects are short of.
pub fn debt_bytes(tables: &dyn Tables) -> Result<u64, TableError> {
    Ok(value(tables, Table::Meta, meta::DEBT_BYTES)?.unwrap_or(0))
}

/// At most `limit` objects that have copies which may go, behind `after`.
pub fn surplus_after(
    tables: &dyn Tables,
    after: Option<&Sha256>,
    limit: usize,
) -> Result<Vec<Sha256>, TableError> {
    let from = after.map_or_else(Vec::new, |after| [&after.0[..], &[0]].concat());
    let rows = tables.range(Table::Surplus, &from, None, limit)?;
    let digest = |(key, _): &Row| <[u8; 32]>::try_from(key.as_slice()).ok().map(Sha256);
    Ok(rows.iter().filter_map(digest).collect())
}

/// The certificate the cluster was born with; `None` for an empty catalog.
pub fn birth(tables: &dyn Tables) -> Result<Option<Birth>, TableError> {
    value(tables, Table::Meta, meta::BIRTH)
}

/// The cluster this catalog belongs to; `None` for an empty one.
pub fn cluster(tables: &dyn Tables) -> Result<Option<ClusterId>, TableError> {
    Ok(birth(tables)?.map(|birth| birth.cluster))
}

/// The removal of a node that was a member once and is not now.
pub fn former(tables: &dyn Tables, node: NodeId) -> Result<Option<Former>, TableError> {
    value(tables, Table::Meta, &former_key(node))
}

/// How far the copies of a node that is gone for good are dropped; `None` when they are, or when it is not gone.
pub fn sweep(tables: &dyn Tables, node: NodeId) -> Result<Option<Sweep>, TableError> {
    value(tables, Table::Meta, &sweep_key(node))
}

/// Nodes whose copies are still to be dropped, and how far that is.
pub fn sweeps(tables: &dyn Tables) -> Result<Vec<Sweep>, TableError> {
    let to = successor(meta::SWEEP);
    let rows = tables.range(Table::Meta, meta::SWEEP, to.as_deref(), NODES.into())?;
    rows.iter().map(|(_, row)| from_row(row)).collect()
}

pub(super) fn former_key(node: NodeId) -> Vec<u8> {
    [meta::FORMER, &node.key()].concat()
}

pub(super) fn sweep_key(node: NodeId) -> Vec<u8> {
    [meta::SWEEP, &node.key()].concat()
}

/// The latest start of a node that a command is known of; `None` before its first.
pub fn latest_boot(tables: &dyn Tables, node: NodeId) -> Result<Option<Boot>, TableError> {
    super::once::latest_boot(tables, node)
}

/// The files whose newest version has this object as a part, at most 1,000.
pub fn names(tables: &dyn Tables, sha256: &Sha256) -> Result<Vec<FilePath>, TableError> {
    let from = name_key(sha256, "");
    let rows = tables.range(Table::Names, &from, None, 1_000)?;
    rows.iter()
        .map_while(|(key, _)| key.strip_prefix(&sha256.0))
        .map(|path| {
            std::str::from_utf8(path)
                .ok()
                .and_then(|path| FilePath::new(path).ok())
                .ok_or_else(|| TableError("a name that is none".to_owned()))
        })
        .collect()
}

/// At most `limit` objects behind `after`, by digest.
pub fn objects_after(
    tables: &dyn Tables,
    after: Option<&Sha256>,
    limit: usize,
) -> Result<Vec<(Sha256, ObjectRecord)>, TableError> {
    let from = after.map_or_else(Vec::new, |after| [&after.0[..], &[0]].concat());
    let rows = tables.range(Table::Objects, &from, None, limit)?;
    rows.iter()
        .map(|(key, row)| {
            let key = <[u8; 32]>::try_from(key.as_slice());
            let key = key.map_err(|_| TableError("an object's key is no digest".to_owned()))?;
            Ok((Sha256(key), from_row(row)?))
        })
        .collect()
}

/// Why a file cannot be written under this name now, in words for the writer: a parent is a file, the name is a
/// folder, or what is there is not what is expected.
pub fn name_conflict(
    tables: &dyn Tables,
    path: &FilePath,
    expect: Expect,
) -> Result<Option<String>, TableError> {
    let current = file(tables, path)?;
    if let Some(message) = unexpected(path, current.as_ref(), expect) {
        return Ok(Some(message));
    }
    if current.is_some() {
        // A name that is a file already has passed the checks below, and they hold as long as it exists.
        return Ok(None);
    }
    for parent in path.parents() {
        if tables.get(Table::Files, parent.as_bytes())?.is_some() {
            return Ok(Some(format!(
                "'{path}' cannot be kept: '{parent}' is a file"
            )));
        }
    }
    let (inside, behind) = (format!("{path}/"), format!("{path}0"));
    let within = tables.range(Table::Files, inside.as_bytes(), Some(behind.as_bytes()), 1)?;
    Ok((!within.is_empty()).then(|| format!("'{path}' is a folder")))
}

/// Why what is there is not what is expected.
pub(super) fn unexpected(
    path: &FilePath,
    current: Option<&FileRecord>,
    expect: Expect,
) -> Option<String> {
    match (expect, current) {
        (Expect::Any, _) | (Expect::Absent, None) => None,
        (Expect::Absent, Some(record)) => Some(format!(
            "'{path}' exists already, version {}",
            record.version
        )),
        (Expect::Version(version), Some(record)) => (record.version != version).then(|| {
            format!(
                "'{path}' is at version {}, not at {version}",
                record.version
            )
        }),
        (Expect::Version(version), None) => Some(format!(
            "'{path}' does not exist, version {version} was expected"
        )),
    }
}

/// Distinct nodes among `copies`, which need not be sorted.
pub fn distinct_nodes(copies: &[Copy]) -> usize {
    let mut nodes: Vec<NodeId> = copies.iter().map(|copy| copy.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.len()
}

/// The object behind a row of the table `debts`, and on how many nodes it lies; `None` for a key of another form.
pub fn debt(key: &[u8]) -> Option<(u8, Sha256)> {
    let (copies, sha256) = key.split_first()?;
    Some((*copies, Sha256(sha256.try_into().ok()?)))
}

/// The key of a debt: fewest copies first.
pub fn debt_key(nodes: u8, sha256: &Sha256) -> [u8; 33] {
    let mut key = [nodes; 33];
    key[1..].copy_from_slice(&sha256.0);
    key
}

/// The key of an earlier version.
pub(super) fn history_key(path: &FilePath, version: Version) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.as_str().len() + 9);
    key.extend_from_slice(path.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&version.0.to_be_bytes());
    key
}

/// Rows of earlier versions, oldest first.
pub(super) fn history_rows(tables: &dyn Tables, path: &FilePath) -> Result<Vec<Row>, TableError> {
    let [from, to] = [0, 1].map(|end| [path.as_str().as_bytes(), &[end]].concat());
    tables.range(Table::History, &from, Some(&to), VERSIONS_KEPT + 2)
}

/// The key of a change of mode: newest first.
pub(super) const fn mode_key(timestamp: u64) -> [u8; 8] {
    (!timestamp).to_be_bytes()
}

fn value<T: DeserializeOwned>(
    tables: &dyn Tables,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, TableError> {
    tables
        .get(table, key)?
        .map(|row| from_row(&row))
        .transpose()
}

/// The first key behind all that begin with `prefix`; `None` when there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix.get(..=last)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

/// The key of a name by object: digest, then path.
pub(super) fn name_key(sha256: &Sha256, path: &str) -> Vec<u8> {
    [&sha256.0[..], path.as_bytes()].concat()
}

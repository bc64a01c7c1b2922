//! The catalog against a naive model of it: random commands, the same answers, and sums that are right after each of them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::digest::{EMPTY_SHA256, sha256};
use crate::base::id::{Boot, ClusterId, DirId, NodeId, OperationId, Version};
use crate::base::limit::{REPLIES_KEPT, VERSIONS_KEPT};
use crate::base::random::Random;
use crate::base::table::{MemoryTables, Overlay};
use crate::base::time::Wall;
use crate::wire::command::{BirthMember, Code, Command, Expect, Operation, PlacedPart, Put, Reply};
use crate::wire::record::{Administrative, Copy, Mode, NodeRecord, ObjectRecord, Part};

const MEMBERS: u16 = 4;

/// The tables with every change written at once.
struct Catalog {
    tables: MemoryTables,
    index: u64,
}

impl Catalog {
    fn new() -> Self {
        let mut tables = MemoryTables::default();
        tables.write(&born(&birth()));
        Self { tables, index: 0 }
    }

    fn apply(&mut self, id: OperationId, operation: &Operation) -> Applied {
        self.index += 1;
        let command = Command {
            v: 1,
            id,
            operation: operation.clone(),
        };
        let mut overlay = Overlay::new(&self.tables);
        let applied = apply(&mut overlay, self.index, &command).unwrap();
        let batch = overlay.batch;
        self.tables.write(&batch);
        applied
    }

    /// Applies under the next id of node 0.
    fn run(&mut self, operation: &Operation) -> Applied {
        let id = operation_id(0, 1, self.index + 1);
        self.apply(id, operation)
    }

    fn rows(&self, table: Table) -> usize {
        self.tables
            .range(table, &[], None, usize::MAX)
            .unwrap()
            .len()
    }

    /// What must hold whatever was applied.
    fn assert_sound(&self) {
        let rows = |table| self.tables.range(table, &[], None, usize::MAX).unwrap();
        let mut references: BTreeMap<Sha256, u32> = BTreeMap::new();
        let mut earlier: BTreeMap<FilePath, usize> = BTreeMap::new();
        for table in [Table::Files, Table::History] {
            for (key, row) in rows(table) {
                let record: crate::wire::record::FileRecord = from_row(&row).unwrap();
                assert!(key.starts_with(record.path.as_str().as_bytes()));
                for part in &record.parts {
                    *references.entry(part.sha256).or_default() += 1;
                }
                if table == Table::History {
                    let newest = query::file(&self.tables, &record.path).unwrap().unwrap();
                    assert!(record.version < newest.version);
                    *earlier.entry(record.path).or_default() += 1;
                }
            }
        }
        assert!(earlier.values().all(|versions| *versions <= VERSIONS_KEPT));
        let newest = rows(Table::Files).into_iter().flat_map(|(_, row)| {
            let record: crate::wire::record::FileRecord = from_row(&row).unwrap();
            let parts = record.parts.into_iter();
            parts.map(move |part| query::name_key(&part.sha256, record.path.as_str()))
        });
        let names = rows(Table::Names).into_iter().map(|(key, _)| key);
        assert_eq!(
            names.collect::<BTreeSet<_>>(),
            newest.collect::<BTreeSet<_>>()
        );
        let (mut debts, mut surplus) = (BTreeSet::new(), BTreeSet::new());
        let mut bytes = 0;
        let members = query::nodes(&self.tables).unwrap();
        let settled = !query::is_recounting(&self.tables).unwrap();
        for (key, row) in rows(Table::Objects) {
            let object: crate::wire::record::ObjectRecord = from_row(&row).unwrap();
            let sha256 = Sha256(key.as_slice().try_into().unwrap());
            assert_eq!(references.remove(&sha256), Some(object.references));
            assert!(object.copies.windows(2).all(|pair| pair[0] < pair[1]));
            if settled {
                let is = (object.owed, object.over);
                assert_eq!(is, place(&object, &members), "{object:?} {members:?}");
            }
            if let Some(owed) = object.owed {
                debts.insert((owed, sha256));
                let have = if owed == 255 { 0 } else { owed };
                bytes += object.size * u64::from(object.want - have);
            }
            if object.over {
                surplus.insert(sha256);
            }
        }
        assert_eq!(
            references,
            BTreeMap::new(),
            "every object referred to has a row"
        );
        assert_eq!(query::debts(&self.tables).unwrap(), debts.len() as u64);
        let listed = rows(Table::Debts)
            .iter()
            .filter_map(|(key, _)| query::debt(key))
            .collect();
        assert_eq!(debts, listed);
        assert_eq!(query::debt_bytes(&self.tables).unwrap(), bytes);
        let listed = query::surplus_after(&self.tables, None, usize::MAX).unwrap();
        assert_eq!(surplus, listed.into_iter().collect());
    }

    /// Counts until nothing is left to be counted.
    fn recount(&mut self) {
        let mut commands = 0;
        while query::is_recounting(&self.tables).unwrap() {
            let mut overlay = Overlay::new(&self.tables);
            counting::recount(&mut overlay).unwrap();
            let batch = overlay.batch;
            self.tables.write(&batch);
            commands += 1;
            assert!(commands < 1_000, "counting comes to an end");
        }
    }
}

/// Where an object belongs, said once more: by the members' rows and not by what is kept of them.
fn place(object: &ObjectRecord, members: &[NodeRecord]) -> (Option<u8>, bool) {
    let leaving = |member: &NodeRecord| {
        matches!(
            member.administrative,
            Administrative::Drain | Administrative::Dead
        )
    };
    let member = |copy: &&Copy| members.iter().find(|member| member.id == copy.node);
    let counts = |copy: &&Copy| {
        let member = member(copy).expect("a copy lies on a member");
        !leaving(member) && !member.lost && !member.gone.contains(&copy.dir)
    };
    let counting: Vec<Copy> = object.copies.iter().filter(counts).copied().collect();
    let nodes = query::distinct_nodes(&counting);
    if object.copies.is_empty() {
        return (Some(255), false);
    }
    if nodes < usize::from(object.want) {
        return (Some(u8::try_from(nodes).unwrap()), false);
    }
    let may_go = |copy: &Copy| member(&copy).unwrap().administrative == Administrative::Drain;
    let over = nodes > usize::from(object.want)
        || counting.len() > nodes
        || object.copies.iter().any(may_go);
    (None, over)
}

fn birth() -> Birth {
    let member = |id| BirthMember {
        id: NodeId(id),
        name: format!("node{id}"),
        address: format!("127.0.0.1:{id}"),
        votes: true,
        stores: true,
        manages: true,
    };
    Birth {
        cluster: ClusterId(7),
        members: (0..MEMBERS).map(member).collect(),
        mode: Mode::Splay,
        time: Wall(1_000),
    }
}

fn operation_id(node: u16, boot: u64, sequence: u64) -> OperationId {
    OperationId {
        node: NodeId(node),
        boot: Boot(boot),
        sequence,
    }
}

fn path(text: &str) -> FilePath {
    FilePath::new(text).unwrap()
}

fn copy(node: u16) -> Copy {
    Copy {
        node: NodeId(node),
        dir: DirId(u64::from(node) * 10),
    }
}

fn part(content: u8) -> Part {
    Part {
        size: u64::from(content) + 1,
        sha256: sha256(&[content]),
    }
}

/// A put of one part of this content, with copies on these nodes, by node 0 in its start 1.
fn put(upload: u64, name: &str, content: u8, nodes: &[u16]) -> Put {
    let part = part(content);
    Put {
        upload: operation_id(0, 1, upload),
        path: path(name),
        size: part.size,
        sha256: part.sha256,
        md5: None,
        strategy: "splay".to_owned(),
        class: "default".to_owned(),
        parts: vec![PlacedPart {
            part,
            copies: nodes.iter().map(|node| copy(*node)).collect(),
        }],
        want: 3,
        min: 2,
        expect: Expect::Any,
        owner: None,
        time: Wall(upload),
    }
}

fn register(node: u16, boot: u64) -> Operation {
    Operation::Register {
        node: NodeId(node),
        name: format!("node{node}"),
        address: format!("127.0.0.1:{node}"),
        dirs: vec![copy(node).dir],
        stores: true,
        manages: true,
        boot: Boot(boot),
        knows: 1,
    }
}

fn code(reply: &Reply) -> Option<Code> {
    match reply {
        Reply::Done { .. } => None,
        Reply::Rejected { code, .. } => Some(*code),
    }
}

fn done(version: u64) -> Reply {
    Reply::Done {
        version: Version(version),
    }
}

/// What the catalog is supposed to do, said once more and without regard to cost.
#[derive(Default)]
struct Model {
    replies: BTreeMap<OperationId, Reply>,
    greatest: BTreeMap<NodeId, (Boot, u64)>,
    fates: BTreeMap<OperationId, Option<u64>>,
    /// Versions of each file, newest last: number and parts.
    files: BTreeMap<String, Vec<(u64, Vec<Part>)>>,
    copies: BTreeMap<Sha256, BTreeSet<Copy>>,
    sizes: BTreeMap<Sha256, u64>,
    nodes: BTreeMap<NodeId, ModelNode>,
    last_change: u64,
}

struct ModelNode {
    boot: Boot,
    alive: bool,
    state: Administrative,
    dirs: BTreeSet<DirId>,
    gone: BTreeSet<DirId>,
    lost: bool,
}

impl ModelNode {
    fn is_relied_on(&self) -> bool {
        !self.lost && !matches!(self.state, Administrative::Drain | Administrative::Dead)
    }
}

impl Model {
    fn new() -> Self {
        let node = |id| {
            let node = ModelNode {
                boot: Boot(0),
                alive: true,
                state: Administrative::Alive,
                dirs: BTreeSet::new(),
                gone: BTreeSet::new(),
                lost: false,
            };
            (NodeId(id), node)
        };
        Self {
            nodes: (0..MEMBERS).map(node).collect(),
            last_change: 1_000,
            ..Self::default()
        }
    }

    /// The code of the refusal, or the version of what is done.
    fn apply(&mut self, index: u64, id: OperationId, operation: &Operation) -> Result<u64, Code> {
        let greatest = self
            .greatest
            .entry(id.node)
            .or_insert((id.boot, id.sequence));
        if id.boot < greatest.0 {
            return Err(Code::Unavailable);
        }
        if id.boot > greatest.0 {
            *greatest = (id.boot, id.sequence);
        } else if id.sequence + REPLIES_KEPT < greatest.1 {
            return Err(Code::Unavailable);
        } else if let Some(reply) = self.replies.get(&id) {
            return match reply {
                Reply::Done { version } => Ok(version.0),
                Reply::Rejected { code, .. } => Err(*code),
            };
        }
        greatest.1 = greatest.1.max(id.sequence);
        let result = self.operation(index, operation);
        let reply = match result {
            Ok(version) => done(version),
            Err(code) => Reply::Rejected {
                code,
                message: String::new(),
            },
        };
        self.replies.insert(id, reply);
        result
    }

    fn operation(&mut self, index: u64, operation: &Operation) -> Result<u64, Code> {
        match operation {
            Operation::Put(put) => return self.put(index, put),
            Operation::Delete { path, expect } => {
                let versions = self.files.get(path.as_str()).ok_or(Code::NotFound)?;
                let newest = versions.last().unwrap().0;
                match expect {
                    Expect::Any => {}
                    Expect::Version(version) if version.0 == newest => {}
                    _ => return Err(Code::Conflict),
                }
                self.files.remove(path.as_str());
                self.forget_unreferenced();
                return Ok(newest);
            }
            Operation::AddCopy { sha256, size, copy } => {
                let known = *self.sizes.get(sha256).ok_or(Code::NotFound)?;
                if known != *size {
                    return Err(Code::Internal);
                }
                let node = self.nodes.get(&copy.node).ok_or(Code::NotFound)?;
                if node.state == Administrative::Dead || !node.dirs.contains(&copy.dir) {
                    return Err(Code::Conflict);
                }
                self.copies.get_mut(sha256).unwrap().insert(*copy);
            }
            Operation::DropCopy {
                sha256,
                copy,
                others,
            } => {
                let copies = self.copies.get_mut(sha256).ok_or(Code::NotFound)?;
                if !copies.contains(copy) {
                    return Err(Code::NotFound);
                }
                let living: BTreeSet<NodeId> = copies
                    .iter()
                    .filter(|other| *other != copy)
                    .filter(|other| {
                        let node = &self.nodes[&other.node];
                        node.alive && node.is_relied_on() && !node.gone.contains(&other.dir)
                    })
                    .map(|other| other.node)
                    .collect();
                if living.len() < usize::from(*others) {
                    return Err(Code::Conflict);
                }
                copies.remove(copy);
            }
            Operation::Abandon { upload } => match self.standing(*upload) {
                Standing::Put(_) => return Err(Code::Conflict),
                Standing::Early => return Err(Code::Unavailable),
                Standing::Open => drop(self.fates.insert(*upload, None)),
                Standing::Over => {}
            },
            Operation::SetMode { timestamp, .. } => {
                if *timestamp <= self.last_change {
                    return Err(Code::Conflict);
                }
                self.last_change = *timestamp;
            }
            Operation::Register {
                node, boot, dirs, ..
            } => {
                let node = self.nodes.get_mut(node).ok_or(Code::NotFound)?;
                if *boot < node.boot {
                    return Err(Code::Conflict);
                }
                node.boot = *boot;
                let before = std::mem::replace(&mut node.dirs, dirs.iter().copied().collect());
                node.gone.extend(before);
                node.gone.retain(|dir| !dirs.contains(dir));
            }
            Operation::Observe { node, alive, boot } => {
                let node = self.nodes.get_mut(node).ok_or(Code::NotFound)?;
                if *boot != node.boot {
                    return Err(Code::Conflict);
                }
                node.alive = *alive;
            }
            Operation::GiveUp { node, boot } => {
                let node = self.nodes.get_mut(node).ok_or(Code::NotFound)?;
                if node.alive || node.state == Administrative::Down || *boot != node.boot {
                    return Err(Code::Conflict);
                }
                node.lost = true;
            }
            Operation::Compared { node, boot } => {
                let node = self.nodes.get_mut(node).ok_or(Code::NotFound)?;
                if *boot != node.boot {
                    return Err(Code::Conflict);
                }
                node.lost = false;
                node.gone.clear();
            }
            // Counted anew or not, the model counts always.
            Operation::Recount => return Err(Code::Conflict),
            // Tested where they live, in `members`.
            Operation::Add { .. } | Operation::Remove { .. } | Operation::DropCopies { .. } => {}
            Operation::Administer { node, state } => {
                self.nodes.get_mut(node).ok_or(Code::NotFound)?.state = *state;
            }
        }
        Ok(index)
    }

    fn put(&mut self, index: u64, put: &Put) -> Result<u64, Code> {
        match self.standing(put.upload) {
            Standing::Put(version) => return Ok(version),
            Standing::Over => return Err(Code::Conflict),
            Standing::Early => return Err(Code::Unavailable),
            Standing::Open => {}
        }
        let result = self.judge(put);
        self.fates
            .insert(put.upload, result.is_ok().then_some(index));
        result?;
        for placed in &put.parts {
            let counted = placed
                .copies
                .iter()
                .filter(|copy| self.counts(copy))
                .copied();
            let counted: Vec<Copy> = counted.collect();
            self.copies
                .entry(placed.part.sha256)
                .or_default()
                .extend(counted);
            self.sizes.insert(placed.part.sha256, placed.part.size);
        }
        let versions = self.files.entry(put.path.as_str().to_owned()).or_default();
        versions.push((index, put.parts.iter().map(|placed| placed.part).collect()));
        if versions.len() > VERSIONS_KEPT + 1 {
            versions.remove(0);
        }
        self.forget_unreferenced();
        Ok(index)
    }

    fn judge(&self, put: &Put) -> Result<(), Code> {
        if put.parts.iter().map(|placed| placed.part.size).sum::<u64>() != put.size {
            return Err(Code::Invalid);
        }
        let name = put.path.as_str();
        let current = self
            .files
            .get(name)
            .map(|versions| versions.last().unwrap().0);
        let fits = match put.expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current == Some(version.0),
        };
        let clashes = self.files.keys().any(|other| {
            other.starts_with(&format!("{name}/")) || name.starts_with(&format!("{other}/"))
        });
        if !fits || clashes {
            return Err(Code::Conflict);
        }
        for placed in &put.parts {
            let counted = placed.copies.iter().filter(|copy| self.counts(copy));
            let nodes: BTreeSet<NodeId> = counted.map(|copy| copy.node).collect();
            if nodes.len() < usize::from(put.min) {
                return Err(Code::Unavailable);
            }
            if self
                .sizes
                .get(&placed.part.sha256)
                .is_some_and(|size| *size != placed.part.size)
            {
                return Err(Code::Internal);
            }
        }
        Ok(())
    }

    fn counts(&self, copy: &Copy) -> bool {
        self.nodes.get(&copy.node).is_some_and(|node| {
            let in_service = node.dirs.is_empty() || node.dirs.contains(&copy.dir);
            node.state != Administrative::Dead && in_service
        })
    }

    fn standing(&self, upload: OperationId) -> Standing {
        match self.fates.get(&upload) {
            Some(Some(version)) => return Standing::Put(*version),
            Some(None) => return Standing::Over,
            None => {}
        }
        if !self.nodes.contains_key(&upload.node) {
            return Standing::Over;
        }
        match self.greatest.get(&upload.node) {
            Some((latest, _)) if upload.boot < *latest => Standing::Over,
            Some((latest, _)) if upload.boot == *latest => Standing::Open,
            _ => Standing::Early,
        }
    }

    fn forget_unreferenced(&mut self) {
        let versions = self.files.values().flatten();
        let referenced: BTreeSet<Sha256> = versions
            .flat_map(|(_, parts)| parts)
            .map(|part| part.sha256)
            .collect();
        self.copies.retain(|sha256, _| referenced.contains(sha256));
        self.sizes.retain(|sha256, _| referenced.contains(sha256));
    }
}

enum Standing {
    Open,
    Put(u64),
    Over,
    Early,
}

/// Where random commands come from: mostly sensible, often repeated, sometimes absurd.
struct Source {
    random: Random,
    boots: [u64; MEMBERS as usize + 1],
    sequences: [u64; MEMBERS as usize + 1],
    uploads: u64,
    past: Vec<(OperationId, Operation)>,
}

impl Source {
    fn new(seed: u64) -> Self {
        let past = Vec::new();
        Self {
            random: Random::new(seed),
            boots: [1; 5],
            sequences: [0; 5],
            uploads: 0,
            past,
        }
    }

    fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.random.below(bound.into())).unwrap()
    }

    fn next(&mut self, index: u64) -> (OperationId, Operation) {
        if self.random.one_in(10) && !self.past.is_empty() {
            let at = self.random.below(self.past.len() as u64);
            return self.past[usize::try_from(at).unwrap()].clone();
        }
        let node = if self.random.one_in(40) {
            MEMBERS
        } else {
            self.below(MEMBERS)
        };
        let at = usize::from(node);
        if self.random.one_in(60) {
            self.boots[at] += 1;
            self.sequences[at] = 0;
        }
        self.sequences[at] += if self.random.one_in(300) {
            REPLIES_KEPT
        } else {
            1
        };
        let boot = if self.random.one_in(50) {
            0
        } else {
            self.boots[at]
        };
        let id = operation_id(node, boot, self.sequences[at]);
        let operation = self.operation(id, index);
        self.past.push((id, operation.clone()));
        (id, operation)
    }

    fn operation(&mut self, id: OperationId, index: u64) -> Operation {
        let member = self.below(MEMBERS + 1);
        let boot = self.boots[usize::from(member)];
        match self.random.below(23) {
            0..9 => Operation::Put(self.put(id, index)),
            9..11 => Operation::Delete {
                path: self.path(),
                expect: self.expect(index),
            },
            11..13 => {
                let part = self.part();
                Operation::AddCopy {
                    sha256: part.sha256,
                    size: part.size + u64::from(self.random.one_in(8)),
                    copy: copy(member),
                }
            }
            13..15 => Operation::DropCopy {
                sha256: self.part().sha256,
                copy: copy(member),
                others: u8::try_from(self.below(3)).unwrap(),
            },
            15 => Operation::Abandon {
                upload: self.upload(id),
            },
            16 => Operation::SetMode {
                new: Mode::ALL[usize::from(self.below(4))],
                timestamp: 990 + index + self.random.below(20),
                cause: "test".to_owned(),
            },
            17 => match register(member, boot) {
                Operation::Register {
                    node,
                    name,
                    address,
                    stores,
                    manages,
                    boot,
                    knows,
                    ..
                } if self.random.one_in(3) => Operation::Register {
                    dirs: vec![DirId(7)],
                    node,
                    name,
                    address,
                    stores,
                    manages,
                    boot,
                    knows,
                },
                usual => usual,
            },
            19 | 20 => Operation::GiveUp {
                node: NodeId(member),
                boot: Boot(boot),
            },
            21 => Operation::Compared {
                node: NodeId(member),
                boot: Boot(boot),
            },
            18 => Operation::Observe {
                node: NodeId(member),
                alive: self.random.one_in(2),
                boot: Boot(boot),
            },
            _ => Operation::Administer {
                node: NodeId(member),
                state: match self.random.below(6) {
                    0 | 1 => Administrative::Dead,
                    2 => Administrative::Drain,
                    _ => Administrative::Alive,
                },
            },
        }
    }

    fn put(&mut self, id: OperationId, index: u64) -> Put {
        let mut parts = Vec::new();
        for _ in 0..self.below(4) {
            let copies = (0..self.below(4))
                .map(|_| copy(self.below(MEMBERS + 1)))
                .collect();
            parts.push(PlacedPart {
                part: self.part(),
                copies,
            });
        }
        let odd = u64::from(self.random.one_in(50));
        Put {
            upload: self.upload(id),
            size: parts.iter().map(|placed| placed.part.size).sum::<u64>() + odd,
            sha256: match parts.as_slice() {
                [] => EMPTY_SHA256,
                [only] => only.part.sha256,
                _ => sha256(&index.to_be_bytes()),
            },
            path: self.path(),
            parts,
            want: u8::try_from(self.below(3)).unwrap() + 1,
            min: u8::try_from(self.below(2)).unwrap() + 1,
            expect: self.expect(index),
            ..put(0, "a", 0, &[])
        }
    }

    fn part(&mut self) -> Part {
        part(u8::try_from(self.below(6)).unwrap())
    }

    fn path(&mut self) -> FilePath {
        let names = ["a", "a/b", "a/b/c", "a0", "a.b", "b", "b/c"];
        path(names[usize::from(self.below(7))])
    }

    fn expect(&mut self, index: u64) -> Expect {
        match self.random.below(8) {
            0 => Expect::Absent,
            1 => Expect::Version(Version(index.saturating_sub(self.random.below(30)))),
            _ => Expect::Any,
        }
    }

    fn upload(&mut self, id: OperationId) -> OperationId {
        self.uploads += 1;
        let back = if self.random.one_in(4) {
            self.random.below(10)
        } else {
            0
        };
        let node = if self.random.one_in(10) {
            self.below(MEMBERS + 1)
        } else {
            id.node.0
        };
        let boot = if self.random.one_in(10) {
            self.boots[0]
        } else {
            id.boot.0
        };
        operation_id(node, boot, self.uploads.saturating_sub(back))
    }
}

#[test]
fn random_commands_are_answered_as_by_the_model_and_leave_the_sums_right() {
    for seed in 0..6 {
        let (mut source, mut catalog, mut model) =
            (Source::new(seed), Catalog::new(), Model::new());
        let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..1_500 {
            let (id, operation) = source.next(catalog.index + 1);
            let Applied { reply, .. } = catalog.apply(id, &operation);
            let expected = model.apply(catalog.index, id, &operation);
            let answered = match &reply {
                Reply::Done { version } => Ok(version.0),
                Reply::Rejected { code, .. } => Err(*code),
            };
            let at = catalog.index;
            assert_eq!(
                answered, expected,
                "seed {seed}, {at}: {id} {operation:?}: {reply:?}"
            );
            *kinds
                .entry(format!("{:?}", answered.map(|_| ())))
                .or_default() += 1;
            catalog.assert_sound();
            if source.random.one_in(3) {
                catalog.recount();
                catalog.assert_sound();
            }
            for (name, versions) in &model.files {
                let record = query::file(&catalog.tables, &path(name)).unwrap().unwrap();
                let mut found = query::history(&catalog.tables, &path(name)).unwrap();
                found.insert(0, record);
                let found: Vec<_> = found.into_iter().map(|v| (v.version.0, v.parts)).collect();
                assert_eq!(found, versions.iter().rev().cloned().collect::<Vec<_>>());
            }
            assert_eq!(catalog.rows(Table::Files), model.files.len());
            assert_eq!(catalog.rows(Table::Objects), model.copies.len());
            for (sha256, copies) in &model.copies {
                let object = query::object(&catalog.tables, sha256).unwrap().unwrap();
                assert_eq!(object.copies, copies.iter().copied().collect::<Vec<_>>());
            }
        }
        assert!(
            kinds.len() >= 6,
            "the source makes every kind of answer: {kinds:?}"
        );
    }
}

#[test]
fn the_same_log_gives_the_same_tables_however_it_is_cut_into_batches() {
    for seed in 100..105 {
        let mut source = Source::new(seed);
        let mut cut = Random::new(seed);
        let mut one_by_one = Catalog::new();
        let mut in_batches = Catalog::new();
        let mut pending: Vec<(u64, Command, Applied)> = Vec::new();
        for _ in 0..1_500 {
            let (id, operation) = source.next(one_by_one.index + 1);
            let applied = one_by_one.apply(id, &operation);
            pending.push((
                one_by_one.index,
                Command {
                    v: 1,
                    id,
                    operation,
                },
                applied,
            ));
            if !cut.one_in(20) {
                continue;
            }
            let mut overlay = Overlay::new(&in_batches.tables);
            for (index, command, applied) in pending.drain(..) {
                assert_eq!(apply(&mut overlay, index, &command).unwrap(), applied);
            }
            let batch = overlay.batch;
            in_batches.tables.write(&batch);
            assert_eq!(in_batches.tables, one_by_one.tables);
        }
    }
}

#[test]
fn what_is_refused_before_proposing_is_refused_when_applied() {
    for seed in 200..203 {
        let (mut source, mut catalog) = (Source::new(seed), Catalog::new());
        let mut refused = 0;
        for _ in 0..1_500 {
            let (id, operation) = source.next(catalog.index + 1);
            let foreseen = check(&catalog.tables, &operation).unwrap();
            let before = catalog.tables.clone();
            let Applied { reply, notes } = catalog.apply(id, &operation);
            let key = id.key();
            let repeated = before.get(Table::Replies, &key).unwrap().is_some()
                || catalog.tables.get(Table::Replies, &key).unwrap().is_none();
            if repeated {
                assert_eq!(notes, []);
                assert_eq!(catalog.tables, before, "a repeated command changes nothing");
            } else if foreseen.is_some() {
                refused += 1;
                // A start that its first command makes known, or ends, changes the reason and not the answer.
                assert!(code(&reply).is_some(), "{foreseen:?} {operation:?}");
            }
        }
        assert!(refused > 100);
    }
}

#[test]
fn a_repeated_command_is_answered_again_and_not_repeated() {
    let mut catalog = Catalog::new();
    let first = Operation::Put(put(1, "a", 1, &[0, 1]));
    assert_eq!(catalog.apply(operation_id(0, 1, 1), &first).reply, done(1));
    let again = catalog.apply(
        operation_id(0, 1, 1),
        &Operation::Put(put(2, "b", 2, &[0, 1])),
    );
    assert_eq!(
        again,
        Applied {
            reply: done(1),
            notes: Vec::new()
        }
    );
    assert_eq!(catalog.rows(Table::Files), 1);
}

#[test]
fn an_upload_is_put_once_whatever_command_brings_it() {
    let mut catalog = Catalog::new();
    let first = Operation::Put(put(1, "a", 1, &[0, 1]));
    assert_eq!(catalog.run(&first).reply, done(1));
    assert_eq!(catalog.run(&first).reply, done(1));
    assert_eq!(query::history(&catalog.tables, &path("a")).unwrap(), []);
}

#[test]
fn the_notes_of_a_put_name_what_changed_and_what_vanished() {
    let mut catalog = Catalog::new();
    let applied = catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1])));
    let expected = [
        Note::Touched(path("a")),
        Note::Settled(operation_id(0, 1, 1)),
    ];
    assert_eq!(applied.notes, expected);
    for version in 2..=5 {
        let applied = catalog.run(&Operation::Put(put(
            version,
            "a",
            u8::try_from(version).unwrap(),
            &[0, 1],
        )));
        let vanished = applied.notes.contains(&Note::Unreferenced(part(1).sha256));
        assert_eq!(
            vanished,
            version == 5,
            "{VERSIONS_KEPT} earlier versions are kept"
        );
    }
    let removed = catalog.run(&Operation::Delete {
        path: path("a"),
        expect: Expect::Any,
    });
    assert_eq!(removed.reply, done(5));
    assert_eq!(removed.notes.len(), 5);
    catalog.assert_sound();
    assert_eq!(catalog.rows(Table::Objects), 0);
}

#[test]
fn a_rejected_put_is_final_and_lets_its_pins_go() {
    let mut catalog = Catalog::new();
    let lonely = catalog.run(&Operation::Put(put(1, "a", 1, &[0])));
    assert_eq!(code(&lonely.reply), Some(Code::Unavailable));
    assert_eq!(lonely.notes, [Note::Settled(operation_id(0, 1, 1))]);
    let again = catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1])));
    assert_eq!(code(&again.reply), Some(Code::Conflict));
    assert_eq!(catalog.rows(Table::Files), 0);
}

#[test]
fn a_put_after_its_abandon_does_nothing_and_an_abandon_after_its_put_is_refused() {
    let mut catalog = Catalog::new();
    let upload = operation_id(0, 1, 1);
    assert_eq!(catalog.run(&Operation::Abandon { upload }).reply, done(1));
    let put_late = catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1])));
    assert_eq!(code(&put_late.reply), Some(Code::Conflict));
    assert_eq!(catalog.rows(Table::Files), 0);
    catalog.run(&Operation::Put(put(2, "a", 1, &[0, 1])));
    let upload = operation_id(0, 1, 2);
    let late = catalog.run(&Operation::Abandon { upload });
    assert_eq!(code(&late.reply), Some(Code::Conflict));
    assert_eq!(late.notes, [Note::Settled(upload)]);
}

#[test]
fn an_upload_of_an_earlier_start_of_its_node_is_over() {
    let mut catalog = Catalog::new();
    catalog.apply(operation_id(0, 2, 1), &register(0, 2));
    let late = catalog.apply(
        operation_id(0, 2, 2),
        &Operation::Put(put(1, "a", 1, &[0, 1])),
    );
    assert_eq!(code(&late.reply), Some(Code::Conflict));
    let upload = operation_id(0, 1, 9);
    let abandoned = catalog.apply(operation_id(1, 1, 1), &Operation::Abandon { upload });
    assert_eq!(abandoned.reply, done(3));
    assert_eq!(abandoned.notes, [Note::Settled(upload)]);
    assert_eq!(
        catalog.rows(Table::Abandoned),
        0,
        "nothing needs to be remembered for that"
    );
}

#[test]
fn an_overwrite_with_the_same_content_loses_no_copy() {
    let mut catalog = Catalog::new();
    catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1])));
    assert_eq!(query::debts(&catalog.tables).unwrap(), 1);
    catalog.run(&Operation::Put(put(2, "a", 1, &[2, 3])));
    let object = query::object(&catalog.tables, &part(1).sha256)
        .unwrap()
        .unwrap();
    assert_eq!((object.copies.len(), object.references), (4, 2));
    assert_eq!(query::debts(&catalog.tables).unwrap(), 0);
    let record = query::file(&catalog.tables, &path("a")).unwrap().unwrap();
    assert_eq!((record.created, record.modified), (Wall(1), Wall(2)));
}

#[test]
fn a_name_is_a_file_or_a_folder_and_never_both() {
    let mut catalog = Catalog::new();
    catalog.run(&Operation::Put(put(1, "a/b", 1, &[0, 1])));
    for (upload, name) in [(2, "a"), (3, "a/b/c"), (4, "a/b/c/d")] {
        let reply = catalog
            .run(&Operation::Put(put(upload, name, 1, &[0, 1])))
            .reply;
        assert_eq!(code(&reply), Some(Code::Conflict), "{name}");
    }
    for (upload, name) in [(5, "a.b"), (6, "a0"), (7, "a/b0"), (8, "a/b"), (9, "a/c")] {
        let reply = catalog
            .run(&Operation::Put(put(upload, name, 1, &[0, 1])))
            .reply;
        assert_eq!(code(&reply), None, "{name}");
    }
}

#[test]
fn the_current_version_is_named_when_another_was_expected() {
    let mut catalog = Catalog::new();
    catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1])));
    let mut second = put(2, "a", 2, &[0, 1]);
    second.expect = Expect::Absent;
    let Reply::Rejected { code, message } = catalog.run(&Operation::Put(second)).reply else {
        panic!("the file exists")
    };
    assert_eq!(
        (code, message.as_str()),
        (Code::Conflict, "'a' exists already, version 1")
    );
    let expect = Expect::Version(Version(7));
    let late = Operation::Delete {
        path: path("a"),
        expect,
    };
    assert_eq!(
        check(&catalog.tables, &late).unwrap(),
        None,
        "these tables may be behind"
    );
    let Reply::Rejected { message, .. } = catalog.run(&late).reply else {
        panic!("it is at version 1")
    };
    assert_eq!(message, "'a' is at version 1, not at 7");
}

#[test]
fn copies_on_strangers_and_on_dead_nodes_do_not_count() {
    let mut catalog = Catalog::new();
    let reply = catalog.run(&Operation::Put(put(1, "a", 1, &[0, 9]))).reply;
    assert_eq!(code(&reply), Some(Code::Unavailable));
    let (node, state) = (NodeId(1), Administrative::Dead);
    catalog.run(&Operation::Administer { node, state });
    let reply = catalog.run(&Operation::Put(put(2, "a", 1, &[0, 1]))).reply;
    assert_eq!(code(&reply), Some(Code::Unavailable));
}

#[test]
fn a_copy_is_dropped_only_while_enough_living_nodes_have_others() {
    let mut catalog = Catalog::new();
    catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1, 2])));
    let sha256 = part(1).sha256;
    let drop_of = |node, others| Operation::DropCopy {
        sha256,
        copy: copy(node),
        others,
    };
    catalog.run(&Operation::Observe {
        node: NodeId(1),
        alive: false,
        boot: Boot(0),
    });
    assert_eq!(
        code(&catalog.run(&drop_of(0, 2)).reply),
        Some(Code::Conflict)
    );
    let dropped = catalog.run(&drop_of(0, 1));
    assert_eq!(dropped.notes, [Note::Unreferenced(sha256)]);
    assert_eq!(query::debts(&catalog.tables).unwrap(), 1);
    assert_eq!(
        code(&catalog.run(&drop_of(0, 0)).reply),
        Some(Code::NotFound)
    );
    let add = Operation::AddCopy {
        sha256,
        size: part(1).size,
        copy: copy(0),
    };
    assert_eq!(
        code(&catalog.run(&add).reply),
        Some(Code::Conflict),
        "not registered"
    );
    catalog.run(&register(0, 1));
    assert_eq!(code(&catalog.run(&add).reply), None);
    assert_eq!(
        code(&catalog.run(&add).reply),
        None,
        "adding it again is no harm"
    );
    assert_eq!(query::debts(&catalog.tables).unwrap(), 0);
}

#[test]
fn the_mode_keeps_its_last_change_and_a_history_newest_first() {
    let mut catalog = Catalog::new();
    let change = |new, timestamp| Operation::SetMode {
        new,
        timestamp,
        cause: "test".to_owned(),
    };
    assert_eq!(catalog.run(&change(Mode::Chain, 2_000)).notes, [Note::Mode]);
    assert_eq!(
        code(&catalog.run(&change(Mode::None, 2_000)).reply),
        Some(Code::Conflict)
    );
    catalog.run(&change(Mode::PrimarySplay, 3_000));
    let mode = query::mode(&catalog.tables).unwrap();
    assert_eq!(
        (mode.old, mode.new, mode.timestamp),
        (Mode::Chain, Mode::PrimarySplay, 3_000)
    );
    let history = query::mode_history(&catalog.tables, 2).unwrap();
    let timestamps: Vec<u64> = history.iter().map(|change| change.timestamp).collect();
    assert_eq!(timestamps, [3_000, 2_000]);
}

#[test]
fn a_verdict_on_an_earlier_start_is_void() {
    let mut catalog = Catalog::new();
    catalog.apply(operation_id(1, 5, 1), &register(1, 5));
    let verdict = |boot| Operation::Observe {
        node: NodeId(1),
        alive: false,
        boot: Boot(boot),
    };
    assert_eq!(code(&catalog.run(&verdict(4)).reply), Some(Code::Conflict));
    assert!(
        query::node(&catalog.tables, NodeId(1))
            .unwrap()
            .unwrap()
            .alive
    );
    assert_eq!(code(&catalog.run(&verdict(5)).reply), None);
    assert!(
        !query::node(&catalog.tables, NodeId(1))
            .unwrap()
            .unwrap()
            .alive
    );
    let stranger = catalog.apply(operation_id(9, 1, 1), &register(9, 1));
    assert_eq!(code(&stranger.reply), Some(Code::NotFound));
}

#[test]
fn listing_goes_on_behind_the_last_name_and_stays_within_the_prefix() {
    let mut catalog = Catalog::new();
    for (upload, name) in (1..).zip(["a", "b/1", "b/2", "b/3", "b0", "c"]) {
        catalog.run(&Operation::Put(put(upload, name, 1, &[0, 1])));
    }
    let names = |prefix: &str, after: &str, limit| {
        let page = query::list(&catalog.tables, prefix, after, limit).unwrap();
        page.iter()
            .map(|record| record.path.as_str().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names("", "", 9), "a b/1 b/2 b/3 b0 c");
    assert_eq!(names("b/", "", 2), "b/1 b/2");
    assert_eq!(names("b/", "b/2", 9), "b/3");
    assert_eq!(names("b/", "a", 9), "b/1 b/2 b/3");
    assert_eq!(names("b/", "c", 9), "");
    assert_eq!(names("x", "", 9), "");
}

#[test]
fn holders_leave_out_directories_that_are_no_longer_in_service() {
    let mut catalog = Catalog::new();
    catalog.run(&Operation::Put(put(1, "a", 1, &[0, 1])));
    let record = query::file(&catalog.tables, &path("a")).unwrap().unwrap();
    let holders = |catalog: &Catalog| query::holders(&catalog.tables, &record).unwrap();
    assert_eq!(holders(&catalog), [[NodeId(0), NodeId(1)]]);
    let Operation::Register {
        node,
        name,
        address,
        stores,
        manages,
        boot,
        knows,
        ..
    } = register(1, 1)
    else {
        panic!("a registration")
    };
    let dirs = vec![DirId(99)];
    catalog.run(&Operation::Register {
        node,
        name,
        address,
        dirs,
        stores,
        manages,
        boot,
        knows,
    });
    assert_eq!(holders(&catalog), [[NodeId(0)]]);
}

#[test]
fn a_kind_of_command_that_is_not_known_stops_the_node() {
    let tables = MemoryTables::default();
    let command = Command {
        v: 2,
        id: operation_id(0, 1, 1),
        operation: Operation::Abandon {
            upload: operation_id(0, 1, 1),
        },
    };
    assert!(apply(&mut Overlay::new(&tables), 1, &command).is_err());
}

#[test]
fn replies_and_fates_stay_within_their_windows() {
    let mut catalog = Catalog::new();
    let window = usize::try_from(REPLIES_KEPT).unwrap();
    let total = 5 * REPLIES_KEPT;
    for upload in 1..=total {
        let expect = Expect::Any;
        let operation = if upload % 100 == 0 {
            Operation::Abandon {
                upload: operation_id(0, 1, upload),
            }
        } else if upload % 2 == 0 {
            Operation::Put(put(upload, "a", 1, &[0, 1]))
        } else {
            Operation::Delete {
                path: path("b"),
                expect,
            }
        };
        catalog.run(&operation);
    }
    assert_eq!(
        catalog.rows(Table::Replies),
        window + 2,
        "the window and how far it has come"
    );
    let late = catalog.apply(
        operation_id(0, 1, 5),
        &Operation::Put(put(1, "a", 1, &[0, 1])),
    );
    assert_eq!(code(&late.reply), Some(Code::Unavailable));
    // Of the fates below the window only those that must not be forgotten are left.
    let fates = catalog
        .tables
        .range(Table::Abandoned, &[0, 0, 0], None, usize::MAX)
        .unwrap();
    let below = operation_id(0, 1, total - 4 * REPLIES_KEPT).key();
    let old = fates
        .iter()
        .filter(|(key, _)| key.as_slice() < below.as_slice());
    assert!(old.clone().count() > 0);
    assert!(old.clone().all(|(_, row)| row == b"\"abandoned\""));
    // A new start sweeps the old one away, a few hundred rows with each command.
    for sequence in 1..=30 {
        let upload = operation_id(0, 2, sequence);
        let before = catalog.rows(Table::Replies);
        catalog.apply(upload, &Operation::Abandon { upload });
        assert!(before.saturating_sub(catalog.rows(Table::Replies)) <= 256);
    }
    assert_eq!(catalog.rows(Table::Replies), 30 + 1);
    for sequence in 31..=100 {
        let upload = operation_id(0, 2, sequence);
        catalog.apply(upload, &Operation::Abandon { upload });
    }
    assert_eq!(catalog.rows(Table::Abandoned), 100 + 1);
}

#[test]
fn a_put_touches_few_rows() {
    let mut catalog = Catalog::new();
    for upload in 1..=5 * REPLIES_KEPT {
        let upload = operation_id(0, 1, upload);
        catalog.run(&Operation::Abandon { upload });
    }
    let next = catalog.index + 1;
    let mut overlay = Overlay::new(&catalog.tables);
    let operation = Operation::Put(Put {
        want: 2,
        ..put(next, "a", 1, &[0, 1])
    });
    let command = Command {
        v: 1,
        id: operation_id(0, 1, next),
        operation,
    };
    apply(&mut overlay, next, &command).unwrap();
    // File, object, name by object, reply in and reply out, fate, and two counters that all commands of a batch share.
    let touched: Vec<_> = overlay
        .batch
        .changes
        .iter()
        .map(|((table, key), value)| (table, key.len(), value.is_some()))
        .collect();
    assert_eq!(touched.len(), 8, "{touched:?}");
}

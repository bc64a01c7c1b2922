//! Clients: each does one thing after another at some node, and what it saw is written down.

use std::collections::BTreeMap;

use momo::base::digest::{EMPTY_SHA256, Sha256, sha256};
use momo::base::id::{Boot, NodeId, OperationId, Ticket, Version};
use momo::base::path::FilePath;
use momo::base::random::Random;
use momo::base::time::Wall;
use momo::wire::command::{Expect, Operation, Put, Reply};
use momo::wire::record::Mode;

use crate::plan::below;

/// Names that are written.
const NAMES: u64 = 4;

/// Contents that are written, some of them under several names.
const CONTENTS: u64 = 24;

/// The bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub sha256: Sha256,
}

/// What a client does next.
#[allow(clippy::large_enum_variant)]
pub enum Deed {
    /// Ask for something.
    Ask(Request),
    /// Send a file; the put is proposed once its copies are made.
    Upload(Put, Content),
}

/// What a client asked for.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Request {
    Change(Operation),
    Read(FilePath),
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Committed {
        index: u64,
        reply: Reply,
    },
    Refused,
    Unknown,
    /// A fresh read: where the tables stood, and the upload under the name.
    Fresh {
        applied: u64,
        found: Option<OperationId>,
    },
    Stale,
}

/// One thing done.
#[derive(Clone, Debug)]
pub struct Done {
    pub node: NodeId,
    pub request: Request,
    pub begun: u64,
    pub ended: u64,
    pub outcome: Outcome,
}

struct Open {
    client: usize,
    node: NodeId,
    request: Request,
    begun: u64,
}

/// All clients.
pub struct Clients {
    pub count: usize,
    random: Random,
    open: BTreeMap<u64, Open>,
    tickets: u64,
    uploads: BTreeMap<(NodeId, Boot), u64>,
    stamp: u64,
    seen: BTreeMap<FilePath, Version>,
    pub history: Vec<Done>,
}

impl Clients {
    pub fn new(count: usize, seed: u64) -> Self {
        Self {
            count,
            random: Random::new(seed),
            open: BTreeMap::new(),
            tickets: 0,
            uploads: BTreeMap::new(),
            stamp: 1_700_000_060_000_000_000,
            seen: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// The next thing a client does, at a node in its current start.
    pub fn next(&mut self, node: NodeId, boot: Boot) -> Deed {
        let name = format!("d/{}", self.random.below(NAMES));
        let path = FilePath::new(&name).expect("a good name");
        let request = match self.random.below(20) {
            0..=9 => {
                let expect = match self.random.below(6) {
                    0 => Expect::Absent,
                    1 => match self.seen.get(&path) {
                        Some(version) => Expect::Version(*version),
                        None => Expect::Any,
                    },
                    _ => Expect::Any,
                };
                let Operation::Put(put) = self.put(node, boot, path, expect) else {
                    unreachable!("a put");
                };
                if !self.random.one_in(8) {
                    let content = self.content();
                    return Deed::Upload(put, content);
                }
                Request::Change(Operation::Put(put))
            }
            10 | 11 => Request::Change(Operation::Delete {
                path,
                expect: Expect::Any,
            }),
            12 => {
                self.stamp += 1;
                Request::Change(Operation::SetMode {
                    new: Mode::ALL[below(&mut self.random, 4)],
                    timestamp: self.stamp,
                    cause: "simulation".to_owned(),
                })
            }
            _ => Request::Read(path),
        };
        Deed::Ask(request)
    }

    fn content(&mut self) -> Content {
        let content = self.random.below(CONTENTS);
        Content {
            size: 1 + content,
            sha256: sha256(&content.to_be_bytes()),
        }
    }

    /// The id of a new upload of a node.
    pub fn upload_id(&mut self, node: NodeId, boot: Boot) -> OperationId {
        let sequence = self.uploads.entry((node, boot)).or_default();
        *sequence += 1;
        OperationId {
            node,
            boot,
            sequence: *sequence,
        }
    }

    pub fn put(&mut self, node: NodeId, boot: Boot, path: FilePath, expect: Expect) -> Operation {
        Operation::Put(Put {
            upload: self.upload_id(node, boot),
            path,
            size: 0,
            sha256: EMPTY_SHA256,
            md5: None,
            strategy: "none".to_owned(),
            class: "default".to_owned(),
            parts: Vec::new(),
            want: 1,
            min: 1,
            expect,
            owner: None,
            time: Wall(7),
        })
    }

    /// A ticket that nobody has.
    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// A client begins.
    pub fn begin(&mut self, client: usize, node: NodeId, request: Request, now: u64) -> Ticket {
        let ticket = self.ticket();
        self.open.insert(
            ticket.0,
            Open {
                client,
                node,
                request,
                begun: now,
            },
        );
        ticket
    }

    /// What a reader wants to know.
    pub fn reads(&self, ticket: Ticket) -> Option<&FilePath> {
        match &self.open.get(&ticket.0)?.request {
            Request::Read(path) => Some(path),
            Request::Change(_) => None,
        }
    }

    /// An answer came; the client it was for. `None` when it was answered before, which is a fault.
    pub fn end(&mut self, ticket: Ticket, outcome: Outcome, now: u64) -> Option<(usize, &Done)> {
        let open = self.open.remove(&ticket.0)?;
        if let (
            Outcome::Committed {
                reply: Reply::Done { version },
                ..
            },
            Request::Change(Operation::Put(put)),
        ) = (&outcome, &open.request)
        {
            self.seen.insert(put.path.clone(), *version);
        }
        self.history.push(Done {
            node: open.node,
            request: open.request,
            begun: open.begun,
            ended: now,
            outcome,
        });
        Some((open.client, self.history.last()?))
    }

    /// A node's process ended: nobody answers what was asked there.
    pub fn abandon(&mut self, node: NodeId, now: u64) -> Vec<usize> {
        let gone: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| open.node == node)
            .map(|(ticket, _)| *ticket)
            .collect();
        gone.into_iter()
            .filter_map(|ticket| Some(self.end(Ticket(ticket), Outcome::Unknown, now)?.0))
            .collect()
    }

    pub fn open(&self) -> usize {
        self.open.len()
    }
}

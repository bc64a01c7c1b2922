//! Laws of what nodes say to each other.

use std::fmt::Debug;

use momo::base::id::{Boot, ClusterId, DirId, NodeId, OperationId};
use momo::wire::peer::{
    Answer, BodyEnd, Fetch, Figures, HEADER_BYTES, Header, Hello, Hop, JobId, Leg, Message,
    Request, SnapshotHead,
};
use momo::wire::record::Copy;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{damaged, law, md5, mode, name, noise, sha256};

fn id() -> impl Strategy<Value = OperationId> {
    any::<(u16, u64, u64)>().prop_map(|(node, boot, sequence)| OperationId {
        node: NodeId(node),
        boot: Boot(boot),
        sequence,
    })
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u16>().prop_map(NodeId)
}

fn copy() -> impl Strategy<Value = Copy> {
    (node(), any::<u64>()).prop_map(|(node, dir)| Copy {
        node,
        dir: DirId(dir),
    })
}

fn job() -> impl Strategy<Value = JobId> {
    any::<(u64, u64)>().prop_map(|(term, sequence)| JobId { term, sequence })
}

/// JSON may lose the last bit of a fraction, which is of no account for a load figure.
fn share() -> impl Strategy<Value = f64> {
    (0..=1024_u16).prop_map(|parts| f64::from(parts) / 1024.0)
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let hello = (option::of(any::<u128>()), any::<[u64; 3]>(), any::<bool>());
    let figures = (any::<[u32; 4]>(), share(), share(), ".{0,9}");
    let fetch = (
        job(),
        sha256(),
        any::<u64>(),
        prop::collection::vec(node(), 0..4),
    );
    prop_oneof![
        hello.prop_map(
            |(cluster, [boot, last_index, remembers], answer)| Message::Hello(Hello {
                cluster: cluster.map(ClusterId),
                boot: Boot(boot),
                newborn: None,
                last_index,
                remembers,
                answer,
                address: String::new(),
                joins: None,
            })
        ),
        any::<u128>().prop_map(|cluster| Message::Admit {
            cluster: ClusterId(cluster)
        }),
        (any::<u64>(), figures).prop_map(
            |(boot, ([total, free, connections, jobs], io, cpu, version))| {
                Message::Heartbeat {
                    boot: Boot(boot),
                    figures: Figures {
                        total_bytes: total.into(),
                        free_bytes: free.into(),
                        io_busy: io,
                        cpu_used: cpu,
                        connections,
                        jobs,
                        version,
                        ..Figures::default()
                    },
                }
            }
        ),
        fetch.prop_map(|(job, sha256, size, holders)| Message::Fetch(Fetch {
            job,
            sha256,
            size,
            holders,
        })),
        (job(), option::of(".{0,20}")).prop_map(|(job, error)| Message::Fetched { job, error }),
    ]
}

fn hops() -> impl Strategy<Value = Vec<Hop>> {
    let leaf = node().prop_map(|node| Hop {
        node,
        next: Vec::new(),
    });
    let tree = leaf.prop_recursive(4, 16, 3, |inner| {
        (node(), prop::collection::vec(inner, 0..3)).prop_map(|(node, next)| Hop { node, next })
    });
    prop::collection::vec(tree, 0..3)
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let leg = (
        name(),
        any::<u64>(),
        md5(),
        sha256(),
        option::of(copy()),
        id(),
    );
    prop_oneof![
        (id(), any::<u16>(), any::<u64>(), hops()).prop_map(|(upload, part, size, next)| {
            Request::Store {
                upload,
                part,
                size,
                next,
            }
        }),
        (sha256(), any::<(u64, u64)>()).prop_map(|(sha256, (block, count))| Request::Read {
            sha256,
            block,
            count
        }),
        leg.prop_map(|(path, size, md5, sha256, copy, upload)| Request::Leg(Leg {
            path,
            size,
            md5,
            sha256,
            copy,
            upload,
        })),
        sha256().prop_map(|sha256| Request::Probe { sha256 }),
        Just(Request::Snapshot),
        Just(Request::Ping),
    ]
}

pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    let head = (any::<[u64; 2]>(), any::<Vec<u64>>(), any::<Vec<u64>>());
    prop_oneof![
        any::<u64>().prop_map(|size| Answer::Content { size }),
        (option::of(any::<u64>()), mode())
            .prop_map(|(committed, mode)| Answer::Leg { committed, mode }),
        head.prop_map(
            |([index, term], voters, learners)| Answer::Snapshot(SnapshotHead {
                index,
                term,
                voters,
                learners,
            })
        ),
        Just(Answer::Pong),
        ".{0,40}".prop_map(|message| Answer::Error { message }),
    ]
}

/// What is written is read back, and what is nearly that never panics.
fn json<T: Serialize + DeserializeOwned + Debug + PartialEq>(
    value: &T,
    seed: u64,
) -> Result<(), TestCaseError> {
    let bytes = serde_json::to_vec(value).unwrap();
    let read: T =
        serde_json::from_slice(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&read, value);
    let _ = serde_json::from_slice::<T>(&damaged(bytes, seed));
    Ok(())
}

#[test]
fn messages_survive_the_way_through_json() {
    law(
        (
            message(),
            request(),
            answer(),
            option::of(sha256()),
            any::<u64>(),
        ),
        |(message, request, answer, sha256, seed)| {
            json(&message, seed)?;
            json(&request, seed)?;
            json(&answer, seed)?;
            json(&BodyEnd { sha256 }, seed)
        },
    );
}

#[test]
fn noise_is_no_message() {
    law(noise(), |bytes| {
        let _ = serde_json::from_slice::<Message>(&bytes);
        let _ = serde_json::from_slice::<Request>(&bytes);
        let _ = serde_json::from_slice::<Answer>(&bytes);
        Ok(())
    });
}

#[test]
fn a_header_that_parses_prints_to_the_same_bytes() {
    let near = (0..5_u8, any::<u32>(), any::<u32>()).prop_map(|(kind, length, crc)| {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&(length % (1 << 23)).to_le_bytes());
        bytes[8..].copy_from_slice(&crc.to_le_bytes());
        bytes
    });
    law(prop_oneof![any::<[u8; HEADER_BYTES]>(), near], |bytes| {
        if let Some(header) = Header::parse(bytes) {
            prop_assert_eq!(header.print(), bytes);
        }
        Ok(())
    });
}
